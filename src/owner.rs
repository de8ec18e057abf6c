//! Who may write an aggregate. The epoch counts how many times that changed; it never falls.

use crate::connection::Connection;
use crate::error::{Error, Result, within};
use crate::limits::MAX_OWNER_BYTES;
use crate::tables::{self, Sequence};

/// `ERR_INVALID_ARGUMENT` or `ERR_TOO_LARGE` for a name that cannot own anything.
pub fn check_name(owner: &str) -> Result<()> {
    if owner.is_empty() {
        return Err(Error::InvalidArgument("An owner's name must not be empty".to_owned()).into());
    }
    within(|| "The owner's name".to_owned(), owner.len(), MAX_OWNER_BYTES, None)
}

/// Refuses a writer other than the owner. Nobody's aggregates are open to all, and a store without a name is not asked.
pub fn check_writer(aggregate_id: &str, sequence: &Sequence, writer: Option<&str>) -> Result<()> {
    match (&sequence.owner, writer) {
        (Some(owner), Some(writer)) if owner != writer => Err(refused(aggregate_id, sequence, Some(writer), None)),
        _ => Ok(()),
    }
}

/// What a replay in the name of `owner`, at `epoch`, makes of an aggregate's owner and epoch: a lower epoch and, in the
/// same epoch, a different owner are refused; a higher epoch is adopted, and nobody's aggregate is claimed.
/// `None`: they stay as they are.
pub fn replayed(
    aggregate_id: &str,
    sequence: &Sequence,
    owner: Option<&str>,
    epoch: Option<i64>,
) -> Result<Option<(Option<String>, i64)>> {
    let newer = match epoch {
        Some(epoch) if epoch < sequence.epoch => return Err(refused(aggregate_id, sequence, owner, Some(epoch))),
        Some(epoch) if epoch > sequence.epoch => Some(epoch),
        _ => None,
    };
    let name = owner.map(str::to_owned);
    Ok(match (newer, &sequence.owner, owner) {
        (Some(epoch), held, None) => Some((held.clone(), epoch)),
        (Some(epoch), _, Some(_)) => Some((name, epoch)),
        (None, _, None) => None,
        (None, None, Some(_)) => Some((name, epoch.unwrap_or(sequence.epoch + 1))),
        (None, Some(held), Some(owner)) if held == owner => None,
        (None, Some(_), Some(_)) => return Err(refused(aggregate_id, sequence, owner, epoch)),
    })
}

/// Gives the aggregate to `owner`, or to nobody. Each change raises the epoch: what is run while nobody owns it may come from
/// anybody, and so may not stand in the epoch of an owner. An aggregate that nobody has written yet can be claimed.
pub fn claim(
    connection: &Connection,
    aggregate_id: &str,
    owner: Option<&str>,
    expected_epoch: Option<i64>,
) -> Result<(Option<String>, i64)> {
    owner.map_or(Ok(()), check_name)?;
    let held = tables::find_sequence(connection, aggregate_id)?;
    let epoch = held.as_ref().map_or(0, |sequence| sequence.epoch);
    if let Some(expected) = expected_epoch.filter(|expected| *expected != epoch) {
        return Err(
            Error::Conflict { aggregate_id: aggregate_id.to_owned(), what: "epoch", expected, got: epoch }.into()
        );
    }
    let Some(sequence) = held else {
        let epoch = i64::from(owner.is_some());
        if owner.is_some() {
            tables::insert_sequence(connection, aggregate_id, owner, epoch)?;
        }
        return Ok((owner.map(str::to_owned), epoch));
    };
    if sequence.owner.as_deref() == owner {
        return Ok((sequence.owner, epoch));
    }
    tables::update_owner(connection, sequence.key, owner, epoch + 1)?;
    Ok((owner.map(str::to_owned), epoch + 1))
}

/// Makes the aggregate's owner and epoch those of another log: a higher epoch, whoever has it, and in the same epoch the owner
/// of what is nobody's here. Refused are a lower epoch and, in the same one, a different owner. What is unknown is known from
/// then on, as where it is claimed; nobody's, at epoch 0, it stays unknown.
pub fn adopt(connection: &Connection, aggregate_id: &str, owner: Option<&str>, epoch: i64) -> Result<()> {
    let Some(sequence) = tables::find_sequence(connection, aggregate_id)? else {
        if epoch > 0 {
            tables::insert_sequence(connection, aggregate_id, owner, epoch)?;
        }
        return Ok(());
    };
    let same = sequence.owner.as_deref() == owner;
    if epoch < sequence.epoch || (epoch == sequence.epoch && !same && sequence.owner.is_some()) {
        return Err(refused(aggregate_id, &sequence, owner, Some(epoch)));
    }
    if epoch > sequence.epoch || !same {
        tables::update_owner(connection, sequence.key, owner, epoch)?;
    }
    Ok(())
}

fn refused(aggregate_id: &str, sequence: &Sequence, got: Option<&str>, got_epoch: Option<i64>) -> Box<Error> {
    Error::NotOwner {
        aggregate_id: aggregate_id.to_owned(),
        owner: sequence.owner.clone(),
        epoch: sequence.epoch,
        got: got.map(str::to_owned),
        got_epoch,
    }
    .into()
}

//! What a store must be, written as plainly as possible: maps and vectors, cloned before each transaction.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// An event as the model keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub data: String,
}

/// One aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    pub seq: i64,
    pub owner: Option<String>,
    pub epoch: i64,
    pub events: BTreeMap<i64, Event>,
    pub removed: Option<i64>,
}

impl Aggregate {
    fn new(owner: Option<&str>) -> Self {
        let epoch = i64::from(owner.is_some());
        Aggregate { seq: -1, owner: owner.map(str::to_owned), epoch, events: BTreeMap::new(), removed: None }
    }
}

/// A whole store: the log, and what the projector made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub aggregates: BTreeMap<String, Aggregate>,
    /// How many events were projected for each aggregate.
    pub projected: BTreeMap<String, i64>,
}

/// An item of a replay.
#[derive(Debug, Clone)]
pub enum Item {
    Event { aggregate: String, seq: i64, event: Event },
    Gap { aggregate: String, after: i64, through: i64 },
    Removed { aggregate: String, seq: i64 },
}

/// The code of the error that an operation must end with, if any.
pub type Outcome<T> = Result<T, &'static str>;

impl Model {
    pub fn run(&mut self, aggregate: &str, owner: Option<&str>, expected: Option<i64>) -> Outcome<i64> {
        let known = self.aggregates.get(aggregate);
        if let (Some(held), Some(owner)) = (known.and_then(|known| known.owner.as_deref()), owner)
            && held != owner
        {
            return Err("ERR_NOT_OWNER");
        }
        let last = known.map_or(-1, |known| known.seq);
        if expected.is_some_and(|expected| expected != last) {
            return Err("ERR_CONFLICT");
        }
        let entry = self.aggregates.entry(aggregate.to_owned()).or_insert_with(|| Aggregate::new(owner));
        entry.seq += 1;
        *self.projected.entry(aggregate.to_owned()).or_default() += 1;
        Ok(entry.seq)
    }

    pub fn store(&mut self, aggregate: &str, seq: i64, event: Event) {
        self.aggregates.get_mut(aggregate).expect("run before store").events.insert(seq, event);
    }

    pub fn claim(
        &mut self,
        aggregate: &str,
        owner: Option<&str>,
        expected: Option<i64>,
    ) -> Outcome<(Option<String>, i64)> {
        let epoch = self.aggregates.get(aggregate).map_or(0, |known| known.epoch);
        if expected.is_some_and(|expected| expected != epoch) {
            return Err("ERR_CONFLICT");
        }
        if let (None, None) = (owner, self.aggregates.get(aggregate)) {
            return Ok((None, 0));
        }
        let entry = self.aggregates.entry(aggregate.to_owned()).or_insert_with(|| Aggregate::new(None));
        if entry.owner.as_deref() != owner {
            entry.epoch += 1;
            entry.owner = owner.map(str::to_owned);
        }
        Ok((entry.owner.clone(), entry.epoch))
    }

    /// Owner and epoch of another log.
    pub fn adopt(&mut self, aggregate: &str, owner: Option<&str>, epoch: i64) -> Outcome<()> {
        if owner.is_some() && epoch == 0 {
            return Err("ERR_INVALID_ARGUMENT");
        }
        let held = self.aggregates.get(aggregate).map_or((None, 0), |known| (known.owner.clone(), known.epoch));
        let given = (owner.map(str::to_owned), epoch);
        match epoch.cmp(&held.1) {
            Ordering::Less => return Err("ERR_NOT_OWNER"),
            Ordering::Equal if given == held => return Ok(()),
            Ordering::Equal if held.0.is_some() => return Err("ERR_NOT_OWNER"),
            _ => {}
        }
        let entry = self.aggregates.entry(aggregate.to_owned()).or_insert_with(|| Aggregate::new(None));
        (entry.owner, entry.epoch) = given;
        Ok(())
    }

    pub fn remove(&mut self, aggregate: &str, owner: Option<&str>) -> Outcome<()> {
        let held = self.aggregates.get(aggregate).and_then(|known| known.owner.as_deref());
        if let (Some(held), Some(owner)) = (held, owner)
            && held != owner
        {
            return Err("ERR_NOT_OWNER");
        }
        if let Some(entry) = self.aggregates.get_mut(aggregate)
            && entry.seq > entry.removed.unwrap_or(-1)
        {
            entry.events.clear();
            entry.removed = Some(entry.seq);
        }
        Ok(())
    }

    /// All of it or nothing.
    pub fn replay(&mut self, items: &[Item]) -> Outcome<()> {
        let mut next = self.clone();
        items.iter().try_for_each(|item| next.replay_one(item))?;
        *self = next;
        Ok(())
    }

    fn replay_one(&mut self, item: &Item) -> Outcome<()> {
        let (Item::Event { aggregate, .. } | Item::Gap { aggregate, .. } | Item::Removed { aggregate, .. }) = item;
        let last = self.aggregates.get(aggregate).map_or(-1, |known| known.seq);
        match item {
            Item::Event { seq, .. } if *seq > last + 1 => return Err("ERR_SEQUENCE_MISMATCH"),
            Item::Gap { after, .. } if *after > last => return Err("ERR_SEQUENCE_MISMATCH"),
            _ => {}
        }
        let entry = self.aggregates.entry(aggregate.clone()).or_insert_with(|| Aggregate::new(None));
        match item {
            Item::Event { seq, event, .. } if *seq <= last => {
                if entry.events.get(seq).is_some_and(|held| held != event) {
                    return Err("ERR_REPLAY_DIVERGED");
                }
            }
            Item::Event { seq, event, .. } => {
                entry.seq = *seq;
                entry.events.insert(*seq, event.clone());
                *self.projected.entry(aggregate.clone()).or_default() += 1;
            }
            Item::Gap { through, .. } => entry.seq = last.max(*through),
            Item::Removed { seq, .. } => {
                if entry.removed.is_none_or(|removed| removed < *seq) {
                    entry.events.retain(|held, _| held > seq);
                    entry.removed = Some(*seq);
                    entry.seq = last.max(*seq);
                }
            }
        }
        Ok(())
    }
}

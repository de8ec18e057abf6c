//! Which seqs an aggregate holds: what its sequence row says, its tombstone and its gaps, against what a walk meets.

use rusqlite::types::ValueRef;

use super::mend::Mend;
use super::walk::{At, Walk};
use super::{Context, Finding};
use crate::compact;
use crate::connection::Connection;
use crate::error::Result;
use crate::limits::{MAX_FINDINGS, MAX_SEQ};
use crate::log::commits;

/// What the sequence row says.
pub(super) struct Sequence {
    seq: i64,
    removed: i64,
    /// What comes after it is not projected yet.
    pub(super) projected: Option<i64>,
}

impl Walk {
    /// Reads the sequence row and, at the start, checks it.
    pub(super) fn sequence(&mut self, connection: &Connection, context: &mut Context) -> Result<Option<Sequence>> {
        let mut statement = connection.cached(
            "SELECT aggregate_id, seq, removed_seq, removed_at, moved_at, removed_event, projected_seq
             FROM event_sequence WHERE key = ?1",
        )?;
        let mut rows = statement.query([self.key])?;
        let starts = matches!(self.at, At::Start);
        let Some(row) = rows.next()? else {
            if starts {
                let message = format!(
                    "Events, or gaps, stand under the key {}, which no aggregate has: nothing reads them. \
                     They are what is left of an aggregate whose row in \"event_sequence\" was lost; nothing can tell its id.",
                    self.key
                );
                self.tell(Finding::error("orphan", message));
            }
            return Ok(None);
        };
        self.aggregate_id = Some(row.get(0)?);
        let (seq, removed): (i64, Option<i64>) = (row.get(1)?, row.get(2)?);
        let (told_at, moved_at): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
        let (event, projected) = (row.get_ref(5)?, row.get(6)?);
        if starts {
            context.highest = context.highest.max(told_at.unwrap_or(0)).max(moved_at.unwrap_or(0));
            self.check_tombstone(removed, told_at, event);
            if seq > MAX_SEQ {
                let message = format!("The last seq of {} is {seq}, which is more than any event has.", self.named());
                let finding = self.of(Finding::error("sequence-invalid", message)).at(seq);
                self.tell(finding);
            }
        }
        Ok(Some(Sequence { seq, removed: removed.unwrap_or(-1), projected }))
    }

    pub(super) fn check_tombstone(&mut self, removed: Option<i64>, told_at: Option<i64>, event: ValueRef<'_>) {
        let fine = match event.as_str_or_null() {
            Ok(None) => true,
            Ok(Some(json)) => {
                let mut told = None;
                let read = commits::visit_tombstone(json, told_at.unwrap_or(0), &mut |event| {
                    told = Some((event.aggregate_id.to_owned(), event.seq));
                    Ok(())
                });
                read.is_ok() && removed.is_some() && told_at.is_some() && told == self.aggregate_id.clone().zip(removed)
            }
            Err(_) => false,
        };
        if !fine {
            let message = format!(
                "The deletion event that the tombstone of {} keeps cannot be read, or is another's: readers that were away \
                 do not learn what was deleted. Remove the aggregate once more, with its event.",
                self.named()
            );
            let finding = self.of(Finding::error("tombstone-unreadable", message));
            self.tell(Finding { seq: removed, ..finding });
        }
    }

    pub(super) fn check_gaps(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.cached(
            "SELECT after, through, before FROM (
               SELECT after, through, max(through) OVER (ORDER BY after ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                 AS before FROM event_gap WHERE aggregate = ?1)
             WHERE after < before OR through <= after OR after < -1 LIMIT ?2",
        )?;
        let mut rows = statement.query((self.key, MAX_FINDINGS as i64))?;
        let mut mends = true;
        while let Some(row) = rows.next()? {
            let (after, through): (i64, i64) = (row.get(0)?, row.get(1)?);
            let named = self.named();
            let finding = if after < -1 {
                let message = format!("The gap after {after} through {through} of {named} begins where no seq is.");
                Finding::error("gap-invalid", message)
            } else {
                let (code, what) = if through <= after {
                    ("gap-invalid", "holds no seq. verify({repair: true}) drops it")
                } else {
                    ("gap-overlap", "overlaps one before it. verify({repair: true}) joins them")
                };
                let finding =
                    Finding::error(code, format!("The gap after {after} through {through} of {named} {what}."));
                // All of an aggregate are mended at once.
                if std::mem::take(&mut mends) { finding.mended_by(Mend::Join { key: self.key }) } else { finding }
            };
            let finding = self.of(finding).range(after, through);
            self.tell(finding);
        }
        Ok(())
    }

    /// Goes on to a run of seqs, past what is missing before it.
    pub(super) fn reach(
        &mut self,
        connection: &Connection,
        sequence: &Option<Sequence>,
        first: i64,
        last: i64,
    ) -> Result<()> {
        if first != self.last.0 + 1 {
            self.end_run(connection, sequence)?;
            self.missing(connection, sequence, self.last.0, first - 1)?;
            self.run = first;
        }
        self.last.0 = last;
        Ok(())
    }

    /// No event of a run is in a gap, or before the tombstone.
    pub(super) fn end_run(&mut self, connection: &Connection, sequence: &Option<Sequence>) -> Result<()> {
        let (after, through) = (self.run - 1, self.last.0);
        self.run = through + 1;
        if through <= after {
            return Ok(());
        }
        let removed = sequence.as_ref().map_or(-1, |sequence| sequence.removed);
        if after < removed {
            let through = through.min(removed);
            let message = format!(
                "Events of {} after {after} through {through} are held, though history was removed through {removed}.",
                self.named()
            );
            let finding = self.of(Finding::error("event-removed", message)).range(after, through);
            self.tell(finding);
        }
        for (from, to) in gaps(connection, self.key, after, through)? {
            let message = format!(
                "A gap of {} says that the events after {from} through {to} no longer exist, but they are held. \
                 verify({{repair: true}}) takes them out of the gap.",
                self.named()
            );
            let finding = self.of(Finding::error("gap-covers-events", message)).range(from, to);
            self.tell(finding.mended_by(Mend::Shrink { key: self.key, after: from, through: to }));
        }
        Ok(())
    }

    /// What lies in `after < seq <= through`, where no event was met, is removed, in a gap, or a row behind segments.
    pub(super) fn missing(
        &mut self,
        connection: &Connection,
        sequence: &Option<Sequence>,
        after: i64,
        through: i64,
    ) -> Result<()> {
        let Some(Sequence { removed, .. }) = sequence else { return Ok(()) };
        let mut at = after.max(*removed);
        let mut explained = gaps(connection, self.key, at, through)?;
        if matches!(self.at, At::Segments(_)) {
            let mut statement = connection
                .cached("SELECT seq FROM event WHERE aggregate = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq")?;
            let seqs = statement
                .query_map((self.key, at, through), |row| row.get::<_, i64>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            explained.extend(compact::ranges(seqs));
            explained.sort_unstable();
        }
        explained.push((through, through));
        for (from, to) in explained {
            if from > at {
                let message = format!(
                    "The events after {at} through {from} of {} are missing, and nothing says why. \
                     Restore the file from a copy, or replay them into a new one.",
                    self.named()
                );
                let finding = self.of(Finding::error("events-missing", message)).range(at, from);
                self.tell(finding);
            }
            at = at.max(to);
        }
        Ok(())
    }

    pub(super) fn end(&mut self, connection: &Connection, sequence: &Option<Sequence>) -> Result<()> {
        for (after, through) in compact::ranges(std::mem::take(&mut self.duplicates)) {
            let message = format!(
                "Events of {} after {after} through {through} are held twice, as rows and packed, and are the same. \
                 verify({{repair: true}}) deletes the rows.",
                self.named()
            );
            let finding = self.of(Finding::error("event-duplicate", message)).range(after, through);
            self.tell(finding.mended_by(Mend::Duplicates { key: self.key, after, through }));
        }
        let Some(Sequence { seq, removed, .. }) = sequence else { return Ok(()) };
        if self.last.0 < *seq {
            self.missing(connection, sequence, self.last.0, *seq)?;
        }
        let gap: Option<i64> = connection
            .cached("SELECT max(through) FROM event_gap WHERE aggregate = ?1")?
            .query_row([self.key], |row| row.get(0))?;
        let held = self.last.0.max(*removed).max(gap.unwrap_or(-1));
        if *seq < held {
            let message = format!(
                "The last seq of {} is {seq}, but seqs through {held} have been given: the next event would get one that \
                 another has. verify({{repair: true}}) raises it.",
                self.named()
            );
            let finding = self.of(Finding::error("sequence-behind", message)).at(*seq);
            let mend = Mend::Sequence { key: self.key, seq: held };
            self.tell(if held <= MAX_SEQ { finding.mended_by(mend) } else { finding });
        }
        Ok(())
    }
}

/// Gaps within `after < seq <= through`, in order.
fn gaps(connection: &Connection, key: i64, after: i64, through: i64) -> Result<Vec<(i64, i64)>> {
    let mut statement = connection.cached(
        "SELECT max(after, ?2), min(through, ?3) FROM event_gap
         WHERE aggregate = ?1 AND after < ?3 AND through > ?2 AND after < through
           AND after >= coalesce((SELECT max(after) FROM event_gap WHERE aggregate = ?1 AND after <= ?2), -1)
         ORDER BY event_gap.after",
    )?;
    let gaps = statement.query_map((key, after, through), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(gaps.collect::<rusqlite::Result<_>>()?)
}

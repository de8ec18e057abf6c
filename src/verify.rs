//! Looks whether a file holds what Syncline writes, and tells what it finds. Each aggregate is read in short snapshots of
//! some megabytes. What looks wrong in one that took several is looked at again in a single one, so that no finding comes
//! from somebody who wrote meanwhile. With `repair`, what can be mended without loss is.

mod content;
mod file;
mod mend;
mod span;
mod walk;

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use self::mend::Mend;
use self::walk::Walk;
use crate::connection::Connection;
use crate::error::Result;
use crate::job::Job;
use crate::known::Known;
use crate::limits::MAX_FINDINGS;
use crate::tables;
use crate::turn::Turns;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is damaged or lost.
    Error,
    /// Nothing is lost, but this program cannot use it all.
    Warning,
}

/// What was found. `None` says that it does not apply.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its kind, which does not change between versions.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it means and what to do.
    pub message: String,
    /// The aggregate.
    #[serde(rename = "aggregateID", skip_serializing_if = "Option::is_none")]
    pub aggregate_id: Option<String>,
    /// Of a range, `after < seq <= through`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// See `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<i64>,
    /// Of a single event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// `type.version`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// What was done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
    #[serde(skip)]
    mend: Option<Mend>,
}

impl Finding {
    fn error(code: &'static str, message: String) -> Self {
        Finding {
            code,
            severity: Severity::Error,
            message,
            aggregate_id: None,
            after: None,
            through: None,
            seq: None,
            type_name: None,
            repaired: None,
            mend: None,
        }
    }

    fn warning(code: &'static str, message: String) -> Self {
        Finding { severity: Severity::Warning, ..Finding::error(code, message) }
    }

    fn range(self, after: i64, through: i64) -> Self {
        Finding { after: Some(after), through: Some(through), ..self }
    }

    fn at(self, seq: i64) -> Self {
        Finding { seq: Some(seq), ..self }
    }

    fn mended_by(self, mend: Mend) -> Self {
        Finding { mend: Some(mend), ..self }
    }
}

/// Which positions have been seen: a bit each, in pages that are made where they are needed.
#[derive(Default)]
struct Positions(FxHashMap<i64, Box<[u64; 1024]>>);

/// Bits of a page of [`Positions`].
const PAGE_BITS: i64 = 1024 * 64;

/// Pages at most, 8 KiB each: enough for 500 million events. Positions beyond are not compared.
const MOST_PAGES: usize = 8 * 1024;

impl Positions {
    /// Notes a position. `false`: it had been noted.
    fn note(&mut self, position: i64) -> bool {
        let (page, bit) = (position.div_euclid(PAGE_BITS), position.rem_euclid(PAGE_BITS));
        if !self.0.contains_key(&page) && self.0.len() >= MOST_PAGES {
            return true;
        }
        let bits = self.0.entry(page).or_insert_with(|| Box::new([0; 1024]));
        let (word, mask) = ((bit / 64) as usize, 1 << (bit % 64));
        let fresh = bits[word] & mask == 0;
        bits[word] |= mask;
        fresh
    }
}

/// What is known while it goes on.
struct Context {
    /// Types that the store defines.
    defined: FxHashSet<String>,
    types: FxHashMap<i64, Arc<str>>,
    /// Keys of types that have been told of.
    told: FxHashSet<i64>,
    positions: Positions,
    /// The highest position of anything.
    highest: i64,
}

enum Phase {
    File,
    ForeignKeys,
    /// The aggregates after this key.
    Aggregates(i64),
    Walking(Box<Walk>),
    /// This aggregate, in one snapshot.
    Again(i64),
    /// What was found is to be mended, then the next phase follows.
    Mending(VecDeque<Finding>, Box<Phase>),
    End,
    Done,
}

/// A verification that is on its way.
pub struct Verification {
    turns: Arc<Turns>,
    repair: bool,
    phase: Phase,
    context: Context,
    findings: Vec<Finding>,
    aggregates: u64,
    events: u64,
    bytes: u64,
}

impl Verification {
    /// From the beginning. `defined` are the types that are known, as `type.version`.
    pub fn new(defined: FxHashSet<String>, repair: bool, turns: Arc<Turns>) -> Self {
        let context = Context {
            defined,
            types: FxHashMap::default(),
            told: FxHashSet::default(),
            positions: Positions::default(),
            highest: 0,
        };
        let phase = Phase::File;
        Verification { turns, repair, phase, context, findings: Vec::new(), aggregates: 0, events: 0, bytes: 0 }
    }

    fn next(&mut self, connection: &Connection, known: &mut Known) -> Result<()> {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::File => {
                self.phase = Phase::File;
                let found = file::integrity(connection)?;
                self.phase = Phase::Mending(found.into(), Box::new(Phase::ForeignKeys));
            }
            Phase::ForeignKeys => {
                self.phase = Phase::ForeignKeys;
                let found = file::foreign_keys(connection)?;
                self.phase = Phase::Mending(found.into(), Box::new(Phase::Aggregates(i64::MIN)));
            }
            Phase::Aggregates(after) => {
                self.phase = Phase::Aggregates(after);
                self.phase = match file::next_aggregate(connection, after) {
                    Ok(Some(key)) => Phase::Walking(Box::new(Walk::new(key))),
                    Ok(None) => Phase::End,
                    Err(error) if error.code() == "ERR_CORRUPT" => {
                        let message = format!(
                            "The aggregates after key {after} cannot be found: {error}. \
                             Restore the file from a copy, or replay the log into a new one."
                        );
                        let found = Finding::error("aggregate-unreadable", message);
                        Phase::Mending([found].into(), Box::new(Phase::End))
                    }
                    Err(error) => return Err(error),
                };
            }
            Phase::Walking(walk) => self.walk(connection, walk)?,
            Phase::Again(key) => {
                self.phase = Phase::Again(key);
                let mut walk = Walk::whole(key);
                let done = connection.snapshot(|| walk.page(connection, &mut self.context));
                self.finish(walk, done)?;
            }
            Phase::Mending(mut found, next) => {
                let Some(mut finding) = found.pop_front() else {
                    self.phase = *next;
                    return Ok(());
                };
                if let Some(mend) = finding.mend.as_ref().filter(|_| self.repair) {
                    match mend.apply(connection, known, &self.turns) {
                        Ok(done) => finding.repaired = done,
                        Err(error) if error.is_busy() => {
                            found.push_front(finding);
                            self.phase = Phase::Mending(found, next);
                            return Err(error);
                        }
                        Err(error) => finding.message += &format!(" It could not be mended: {error}."),
                    }
                }
                self.phase = Phase::Mending(found, next);
                self.tell(finding);
            }
            Phase::End => {
                self.phase = Phase::End;
                let mut found = file::strays(connection)?;
                let used = tables::last_position(connection)?;
                if used < self.context.highest {
                    found.push(file::position_floor(used, self.context.highest));
                }
                self.phase = Phase::Mending(found.into(), Box::new(Phase::Done));
            }
            Phase::Done => {}
        }
        Ok(())
    }

    fn walk(&mut self, connection: &Connection, mut walk: Box<Walk>) -> Result<()> {
        let first = !walk.begun();
        // After an error the aggregate is begun anew.
        self.phase = Phase::Aggregates(walk.key.saturating_sub(1));
        let done = connection.snapshot(|| walk.page(connection, &mut self.context));
        match done {
            Ok(false) if first || walk.found.is_empty() => self.phase = Phase::Walking(walk),
            // Something looks wrong that was read in several snapshots, or will have been.
            Ok(false) => self.again(walk),
            Ok(true) if !first && !walk.found.is_empty() => self.again(walk),
            done => {
                self.finish(*walk, done)?;
            }
        }
        Ok(())
    }

    fn again(&mut self, mut walk: Box<Walk>) {
        let certain = std::mem::take(&mut walk.certain);
        self.phase = Phase::Mending(certain.into(), Box::new(Phase::Again(walk.key)));
    }

    /// After the last page of an aggregate.
    fn finish(&mut self, walk: Walk, done: Result<bool>) -> Result<()> {
        let Walk { key, certain: mut found, found: rest, events, bytes, .. } = walk;
        found.extend(rest);
        match done {
            Ok(_) => {}
            Err(error) if error.code() == "ERR_CORRUPT" => {
                let message = format!(
                    "The rows of the aggregate with key {key} cannot be read to their end: {error}. \
                     Restore the file from a copy, or replay the log into a new one."
                );
                found.push(Finding::error("aggregate-unreadable", message));
            }
            Err(error) => return Err(error),
        }
        (self.aggregates, self.events, self.bytes) = (self.aggregates + 1, self.events + events, self.bytes + bytes);
        self.phase = Phase::Mending(found.into(), Box::new(Phase::Aggregates(key)));
        Ok(())
    }

    fn tell(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
            return;
        }
        let message = format!("There is more to be found: verify tells of {MAX_FINDINGS} findings and ends.");
        self.findings.push(Finding::error("too-many-findings", message));
        self.phase = Phase::Done;
    }
}

impl Job for Verification {
    fn step(&mut self, connection: &Connection, known: &mut Known) -> Result<bool> {
        self.next(connection, known)?;
        Ok(!matches!(self.phase, Phase::Done))
    }

    fn report(&self) -> serde_json::Value {
        let mut phase = &self.phase;
        while let Phase::Mending(_, next) = phase {
            phase = next;
        }
        let name = match phase {
            Phase::File | Phase::ForeignKeys => "file",
            Phase::Done if matches!(self.phase, Phase::Done) => "done",
            _ => "events",
        };
        let mut report = serde_json::json!({
            "phase": name, "aggregates": self.aggregates, "events": self.events, "bytes": self.bytes,
            "findings": self.findings.len(),
        });
        if name == "done" {
            // They cross once: there may be many.
            report["found"] = serde_json::json!(self.findings);
        }
        report
    }
}

/// A text that is one JSON value.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// How a message names an aggregate.
fn named(aggregate_id: Option<&str>, key: i64) -> String {
    aggregate_id.map_or_else(|| format!("the unnamed aggregate with key {key}"), |id| format!("aggregate \"{id}\""))
}

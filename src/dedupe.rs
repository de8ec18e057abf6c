//! Deduplication, for definitions that ask for it: what a run would store, where that equals the newest event of its key
//! but for some paths, is stored already. Nothing on disk serves this. Of some aggregates memory has the newest event of
//! each key, by hashes, through some seq; under the write lock that is brought up to date by reading what came after it,
//! whoever wrote it, and an event whose hash matches is read and compared before it counts as equal. So whatever is
//! missing or wrong in memory can only make a run store what it could have spared.
//!
//! Texts are compared, as `JSON.stringify` has written them: objects whose keys stand in another order differ. A path that
//! is missing in one of them is no difference.

use std::borrow::Cow;
use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};

use crate::compact;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::event::{Repeated, StoredEvent};
use crate::history::{self, Range};
use crate::known::Known;
use crate::limits::{DEDUPE_AGGREGATES, DEDUPE_KEYS};
use crate::payload;
use crate::tables::Sequence;

/// What a definition says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its type and version, its key, and what ends a key's life.
    pub of: compact::Rule,
    /// Paths inside data that may differ.
    pub ignored: Vec<Vec<String>>,
}

impl Rule {
    /// A barrier does. So does another version of the type, which may say the same in another way.
    fn is_ended_by(&self, type_name: &str) -> bool {
        let type_alone = unversioned(type_name);
        self.of.barriers.iter().any(|barrier| barrier == type_alone)
            || (self.of.type_name != type_name && unversioned(&self.of.type_name) == type_alone)
    }

    /// What of `data` may not differ.
    fn rest<'d>(&self, data: &'d str) -> Cow<'d, str> {
        let rest = if self.ignored.is_empty() { None } else { payload::without(data, &self.ignored) };
        rest.map_or(Cow::Borrowed(data), Cow::Owned)
    }

    fn key<'d>(&self, data: &'d str) -> Option<&'d str> {
        compact::key(data, &self.of.path)
    }
}

/// What memory has of the newest events.
#[derive(Default)]
pub struct Dedupe {
    rules: Vec<Rule>,
    /// By key of the aggregate; least recently used first.
    histories: Vec<(i64, History)>,
    undo: Undo,
}

/// What an event is that is about to be run.
pub enum Look {
    /// The one that is stored already.
    Repeats(Repeated),
    /// To be noted once it is stored.
    New(Option<Seen>),
}

/// What is kept of an event.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    rule: usize,
    key: u64,
    hash: u64,
}

/// An event that is about to be run.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// `type.version`.
    pub type_name: &'a str,
    /// The id of its aggregate.
    pub aggregate_id: &'a str,
    /// JSON text.
    pub data: &'a str,
}

/// The newest events of one aggregate, through a seq.
struct History {
    removed_seq: Option<i64>,
    through: i64,
    /// By rule, and the hash of the key.
    newest: Vec<FxHashMap<u64, Newest>>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    seq: i64,
    hash: u64,
}

/// What was learnt from events that are not committed yet.
#[derive(Default)]
struct Undo {
    changes: Vec<Change>,
    /// Aggregates of which more was forgotten than can be restored.
    lost: Vec<i64>,
}

struct Change {
    aggregate: i64,
    through: i64,
    entry: Option<(usize, u64, Option<Newest>)>,
}

impl Dedupe {
    /// For these definitions.
    pub fn new(rules: Vec<Rule>) -> Self {
        Dedupe { rules, ..Dedupe::default() }
    }

    /// Looks, under the write lock, whether the newest event of the same key equals `candidate`. `None`: it has no key, or
    /// no rule. `committed`: the last position before the open transaction, where that has taken one.
    pub fn look(
        &mut self,
        connection: &Connection,
        known: &mut Known,
        sequence: &Sequence,
        candidate: Candidate<'_>,
        committed: Option<i64>,
    ) -> Result<Look> {
        let Candidate { type_name, aggregate_id, data } = candidate;
        let Some(rule) = self.rules.iter().position(|rule| rule.of.type_name == type_name) else {
            return Ok(Look::New(None));
        };
        let asked = &self.rules[rule];
        let (key, rest) = (asked.key(data), asked.rest(data));
        let at = self.open(sequence);
        let history = &mut self.histories[at].1;
        let log = (connection, &mut *known, aggregate_id, sequence);
        history.catch_up(log, &self.rules, committed.unwrap_or(i64::MAX), &mut self.undo)?;
        let Some(key) = key else { return Ok(Look::New(None)) };
        let seen = Seen { rule, key: hash(key), hash: hash(&rest) };
        let newest = history.newest[rule].get(&seen.key).filter(|newest| newest.hash == seen.hash);
        let Some(Newest { seq, .. }) = newest.copied() else { return Ok(Look::New(Some(seen))) };
        let mut repeated = None;
        let found = history::find(connection, known, (aggregate_id, sequence.key), seq, &mut |event| {
            let of = &self.rules[rule];
            if event.type_name == type_name && of.key(event.data) == Some(key) && of.rest(event.data) == rest {
                repeated = Some(Repeated::of(event));
            }
            Ok(())
        });
        match found {
            // It cannot be compared, so it is not equal.
            Err(error) if !matches!(*error, Error::CorruptSegment { .. }) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(repeated.map_or(Look::New(Some(seen)), Look::Repeats))
    }

    /// Notes an event that was stored after [`Dedupe::look`] had seen it, in the same transaction.
    pub fn note(&mut self, aggregate: i64, type_name: &str, seq: i64, seen: Option<Seen>) {
        let Some((_, history)) = self.histories.iter_mut().rfind(|(key, _)| *key == aggregate) else { return };
        if history.through + 1 == seq {
            history.see(&self.rules, (type_name, seq), |_| seen, Some((aggregate, &mut self.undo)));
        }
    }

    /// What was learnt in the transaction is committed.
    pub fn keep(&mut self) {
        self.undo.changes.clear();
        self.undo.lost.clear();
    }

    /// Forgets what was learnt in the open transaction, since a part of it was taken back. What was not is read again.
    pub fn forget(&mut self) {
        for Change { aggregate, through, entry } in self.undo.changes.drain(..).rev() {
            let Some((_, history)) = self.histories.iter_mut().rfind(|(key, _)| *key == aggregate) else { continue };
            history.through = through;
            match entry {
                Some((rule, key, Some(newest))) => _ = history.newest[rule].insert(key, newest),
                Some((rule, key, None)) => _ = history.newest[rule].remove(&key),
                None => {}
            }
        }
        let lost = std::mem::take(&mut self.undo.lost);
        self.histories.retain(|(key, _)| !lost.contains(key));
    }

    /// The index of what is known of an aggregate, which may be nothing yet.
    fn open(&mut self, sequence: &Sequence) -> usize {
        let at = self.histories.iter().rposition(|(key, _)| *key == sequence.key);
        let opened = match at {
            Some(at) => self.histories.remove(at),
            None => (sequence.key, History::new(self.rules.len(), sequence.removed_seq)),
        };
        self.histories.push(opened);
        let mut keys: usize = self.histories.iter().map(|(_, history)| history.keys()).sum();
        while self.histories.len() > 1 && (self.histories.len() > DEDUPE_AGGREGATES || keys > DEDUPE_KEYS) {
            keys -= self.histories.remove(0).1.keys();
        }
        let last = self.histories.len() - 1;
        let history = &mut self.histories[last].1;
        if history.removed_seq != sequence.removed_seq || history.through > sequence.seq {
            // What was known is gone. Should that be taken back, this here is wrong in its turn.
            *history = History::new(self.rules.len(), sequence.removed_seq);
            self.undo.lost.push(sequence.key);
        }
        last
    }
}

impl History {
    fn new(rules: usize, removed_seq: Option<i64>) -> Self {
        let newest = vec![FxHashMap::default(); rules];
        History { removed_seq, through: removed_seq.unwrap_or(-1), newest }
    }

    fn keys(&self) -> usize {
        self.newest.iter().map(FxHashMap::len).sum()
    }

    /// Reads what came after what is known.
    fn catch_up(
        &mut self,
        (connection, known, aggregate_id, sequence): (&Connection, &mut Known, &str, &Sequence),
        rules: &[Rule],
        committed: i64,
        undo: &mut Undo,
    ) -> Result<()> {
        while self.through < sequence.seq {
            let before = self.through;
            let range = Range { after: before, before: None, limit: usize::MAX, descending: false };
            let visit = &mut |event: &StoredEvent<'_>| {
                let seen = |rule| seen(rules, rule, event.data);
                let undo = (event.position > committed).then_some((sequence.key, &mut *undo));
                self.see(rules, (event.type_name, event.seq), seen, undo);
                Ok(())
            };
            match history::by_seq(connection, known, (aggregate_id, sequence.key), range, visit) {
                Ok(()) if self.through == before => {
                    // Only a gap follows, which may be as new as the transaction.
                    undo.changes.push(Change { aggregate: sequence.key, through: before, entry: None });
                    self.through = sequence.seq;
                }
                Ok(()) => {}
                // A run needs no history. What stands after the part that cannot be read is known none the less.
                Err(error) => match *error {
                    Error::CorruptSegment { last, .. } if last > before => {
                        *self = History { through: last, ..History::new(rules.len(), self.removed_seq) };
                        undo.lost.push(sequence.key);
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Sees the next event, which `undo` is told of where it is not committed.
    fn see(
        &mut self,
        rules: &[Rule],
        (type_name, seq): (&str, i64),
        seen: impl FnOnce(usize) -> Option<Seen>,
        undo: Option<(i64, &mut Undo)>,
    ) {
        let (mut own, mut cleared) = (None, false);
        for (index, (rule, newest)) in rules.iter().zip(&mut self.newest).enumerate() {
            if rule.of.type_name == type_name {
                own = Some(index);
            }
            if rule.is_ended_by(type_name) && !newest.is_empty() {
                newest.clear();
                cleared = true;
            }
        }
        let entry = own.and_then(seen).map(|Seen { rule, key, hash }| {
            let earlier = self.newest[rule].insert(key, Newest { seq, hash });
            (rule, key, earlier)
        });
        if let Some((aggregate, undo)) = undo {
            undo.changes.push(Change { aggregate, through: self.through, entry });
            if cleared {
                undo.lost.push(aggregate);
            }
        }
        self.through = seq;
    }
}

fn seen(rules: &[Rule], rule: usize, data: &str) -> Option<Seen> {
    let of = &rules[rule];
    Some(Seen { rule, key: hash(of.key(data)?), hash: hash(&of.rest(data)) })
}

fn unversioned(type_name: &str) -> &str {
    type_name.rsplit_once('.').map_or(type_name, |(name, _)| name)
}

fn hash(text: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}

//! Compaction by key: which events later ones have superseded. Of the events of one type with one key, between two
//! barriers, the first and the newest are kept: the first holds what was seen first and comes before what refers to it,
//! the newest holds the state. What ends a key's life is a barrier, so that an upsert before it and one after it stay two.

use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};

use crate::payload;

/// What a definition says of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `type.version`.
    pub type_name: String,
    /// The names that lead to the key inside data.
    pub path: Vec<String>,
    /// Types, without versions, whose events end every key's life.
    pub barriers: Vec<String>,
}

/// The rules of all definitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    list: Vec<Rule>,
    fingerprint: i64,
}

impl Rules {
    /// At most one rule a type and version.
    pub fn new(mut list: Vec<Rule>) -> Self {
        list.sort_by(|one, other| one.type_name.cmp(&other.type_name));
        let mut hasher = FxHasher::default();
        for rule in &list {
            for text in [&rule.type_name].into_iter().chain(&rule.path).chain(&rule.barriers) {
                hasher.write(text.as_bytes());
                hasher.write_u8(0);
            }
            hasher.write_usize(rule.barriers.len());
        }
        // Zero is for what no rules have been applied to.
        let fingerprint = if list.is_empty() { 0 } else { (hasher.finish() >> 1) as i64 | 1 };
        Rules { list, fingerprint }
    }

    /// Names these rules among others; 0 where there are none.
    pub fn fingerprint(&self) -> i64 {
        self.fingerprint
    }
}

/// Follows one aggregate's events and tells which are superseded, from its beginning, or any later event, on: from the
/// beginning it tells of the most.
#[derive(Default)]
pub struct Survey {
    /// By rule and key: the seq of the first and of the newest event since the last barrier.
    lives: FxHashMap<(usize, String), (i64, i64)>,
    last: Option<i64>,
    superseded: Vec<i64>,
}

impl Survey {
    /// The seq of the last event that it has seen; −1 for none.
    pub fn last(&self) -> i64 {
        self.last.unwrap_or(-1)
    }

    /// Sees the next event, by the same rules each time.
    pub fn see(&mut self, rules: &Rules, type_name: &str, seq: i64, data: &str) {
        self.last = Some(seq);
        let unversioned = type_name.rsplit_once('.').map_or(type_name, |(name, _)| name);
        for (index, rule) in rules.list.iter().enumerate() {
            if rule.barriers.iter().any(|barrier| barrier == unversioned) {
                self.lives.retain(|(of, _), _| *of != index);
            }
        }
        let Ok(index) = rules.list.binary_search_by(|rule| rule.type_name.as_str().cmp(type_name)) else { return };
        let Some(key) = key(data, &rules.list[index].path) else { return };
        let (first, newest) = self.lives.entry((index, key.to_owned())).or_insert((seq, seq));
        if newest != first {
            self.superseded.push(*newest);
        }
        *newest = seq;
    }

    /// The seqs of what later events have superseded, in order.
    pub fn superseded(mut self) -> Vec<i64> {
        self.superseded.sort_unstable();
        self.superseded
    }
}

/// The JSON text of the value at a path, where that is a string or a number.
pub fn key<'d>(data: &'d str, path: &[String]) -> Option<&'d str> {
    let mut at = data;
    for name in path {
        at = payload::field(at, name)?;
    }
    at.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit()).then_some(at)
}

/// Ranges of missing seqs, `after < seq <= through`, out of seqs in rising order.
pub fn ranges(missing: impl IntoIterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for seq in missing {
        match ranges.last_mut() {
            Some((_, through)) if *through + 1 == seq => *through = seq,
            _ => ranges.push((seq - 1, seq)),
        }
    }
    ranges
}

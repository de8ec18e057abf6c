//! Plain data. A payload is JSON text from the moment JavaScript made it until JavaScript reads it.

use crate::error::{Error, Result, within};
use crate::limits::{MAX_AGGREGATE_ID_BYTES, MAX_SAFE_INTEGER, MAX_TYPE_BYTES};

/// `ERR_TOO_LARGE` for a versioned type name over its limit.
pub fn check_type(name: &str) -> Result<()> {
    within(|| format!("The type \"{name}\""), name.len(), MAX_TYPE_BYTES, None)
}

/// Whether a name ends in a version, as that of every definition does: `session.updated.1`.
pub fn is_versioned(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(name, version)| {
        let digits = !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit());
        !name.is_empty() && digits && version.parse::<i64>().is_ok_and(|version| version <= MAX_SAFE_INTEGER)
    })
}

/// `ERR_TOO_LARGE` for an aggregate id over its limit, `ERR_INVALID_ARGUMENT` for an empty one.
pub fn check_aggregate_id(aggregate_id: &str, index: Option<usize>) -> Result<()> {
    if aggregate_id.is_empty() {
        return Err(Error::InvalidArgument("An aggregate id must not be empty".to_owned()).into());
    }
    within(|| "The aggregate id".to_owned(), aggregate_id.len(), MAX_AGGREGATE_ID_BYTES, index)
}

/// An event that `run` is to record.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// Index of the definition, in the order of `Store::register`.
    pub definition: usize,
    /// The aggregate whose history it extends.
    pub aggregate_id: &'a str,
    /// Compact JSON text, as `JSON.stringify` writes it.
    pub data: &'a str,
    /// JSON object text: causation, correlation, anything.
    pub metadata: Option<&'a str>,
    /// Unix milliseconds; the clock's if absent.
    pub created: Option<i64>,
    /// The last seq that the caller saw (−1: none); `None` does not ask.
    pub expected_seq: Option<i64>,
    /// In whose name the store runs.
    pub owner: Option<&'a str>,
}

/// What the core gave a new event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// −1 when the store does not record.
    pub seq: i64,
    /// `evt_` and a ULID.
    pub id: String,
    /// Unix milliseconds.
    pub created: i64,
    /// Place in the order of commits of this file; 0 when the store does not record.
    pub position: i64,
    /// How many events of the open transaction precede this one and are still alive.
    pub pending: u32,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// It recorded an event.
    Recorded(Recorded),
    /// Nothing: this event says the same. The frame that the run began has been ended.
    Repeated(Repeated),
}

/// A stored event that a run repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// Its place in the aggregate.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// Its place in the order of commits.
    pub position: i64,
    /// Unix milliseconds, where its writer said.
    pub created: Option<i64>,
    /// JSON object text.
    pub metadata: Option<String>,
    /// JSON text.
    pub data: String,
}

/// A stored event, borrowed from the row that holds it.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    /// As the writer gave it.
    pub id: &'a str,
    /// `type.version`.
    pub type_name: &'a str,
    /// Place in the aggregate.
    pub seq: i64,
    /// The aggregate's id.
    pub aggregate_id: &'a str,
    /// Unix milliseconds, where the writer said.
    pub created: Option<i64>,
    /// JSON object text.
    pub metadata: Option<&'a str>,
    /// JSON text.
    pub data: &'a str,
    /// Place in the order of commits of this file.
    pub position: i64,
}

/// How many items of one aggregate a replay applied, and where the aggregate stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayResult {
    /// The aggregate.
    pub aggregate_id: String,
    /// Events, gaps and removals that changed something.
    pub applied: u32,
    /// Items that were known already.
    pub duplicate: u32,
    /// The last seq held now.
    pub seq: i64,
    /// The last seq that is projected, where that is another one.
    pub projected: Option<i64>,
}

impl Repeated {
    /// All that is to be told of a stored event.
    pub fn of(event: &StoredEvent<'_>) -> Self {
        Repeated {
            seq: event.seq,
            id: event.id.to_owned(),
            position: event.position,
            created: event.created,
            metadata: event.metadata.map(str::to_owned),
            data: event.data.to_owned(),
        }
    }
}

impl StoredEvent<'_> {
    /// The serialized event: `{id, type, seq, aggregateID, data, created?, metadata?}`.
    pub fn to_json(&self) -> String {
        let mut json = Vec::with_capacity(self.data.len() + 160);
        self.write_json(&mut json);
        String::from_utf8(json).expect("it is made of texts")
    }

    /// Appends the same to `json`, in UTF-8.
    pub fn write_json(&self, json: &mut Vec<u8>) {
        for (key, text) in [("{\"id\":", self.id), (",\"type\":", self.type_name)] {
            json.extend_from_slice(key.as_bytes());
            write_quoted(json, text);
        }
        write_integer(json, ",\"seq\":", self.seq);
        json.extend_from_slice(b",\"aggregateID\":");
        write_quoted(json, self.aggregate_id);
        json.extend_from_slice(b",\"data\":");
        json.extend_from_slice(self.data.as_bytes());
        if let Some(created) = self.created {
            write_integer(json, ",\"created\":", created);
        }
        if let Some(metadata) = self.metadata {
            json.extend_from_slice(b",\"metadata\":");
            json.extend_from_slice(metadata.as_bytes());
        }
        json.push(b'}');
    }
}

/// Appends a text as a JSON string.
pub fn write_quoted(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("memory takes what is written");
}

fn write_integer(json: &mut Vec<u8>, key: &str, integer: i64) {
    json.extend_from_slice(key.as_bytes());
    serde_json::to_writer(json, &integer).expect("memory takes what is written");
}

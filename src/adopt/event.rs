//! One older event: whether the log can hold it, and why not.

use std::borrow::Cow;

use rusqlite::types::ValueRef;
use serde::de::{Deserialize, IgnoredAny};

use crate::error::Result;
use crate::limits::{MAX_ID_BYTES, MAX_NESTING, MAX_SAFE_INTEGER, MAX_SEQ, MAX_TYPE_BYTES};
use crate::payload;

/// A row `rowid, seq, id, type, data, created` of the older events. Of its values nothing is known.
pub struct Row<'r> {
    /// Its place in the older table, in the order in which events were inserted.
    pub rowid: i64,
    seq: ValueRef<'r>,
    id: ValueRef<'r>,
    type_name: ValueRef<'r>,
    data: ValueRef<'r>,
    created: ValueRef<'r>,
}

/// An event that the log can hold.
pub struct Event<'r> {
    /// Its place in the aggregate.
    pub seq: i64,
    /// As it was.
    pub id: &'r str,
    /// `type.version`
    pub type_name: Cow<'r, str>,
    /// As it was.
    pub data: &'r str,
    /// Unix milliseconds.
    pub created: Option<i64>,
    /// There is a time, but no integer.
    pub created_is_odd: bool,
}

impl<'r> Row<'r> {
    /// Out of a row.
    pub fn of(row: &'r rusqlite::Row<'_>) -> Result<Self> {
        Ok(Row {
            rowid: row.get(0)?,
            seq: row.get_ref(1)?,
            id: row.get_ref(2)?,
            type_name: row.get_ref(3)?,
            data: row.get_ref(4)?,
            created: row.get_ref(5)?,
        })
    }

    /// Its seq, if it is one.
    pub fn seq(&self) -> Option<i64> {
        integer(self.seq).filter(|seq| (0..=MAX_SEQ).contains(seq))
    }

    /// Bytes of its data.
    pub fn weight(&self) -> usize {
        self.data.as_bytes().map_or(0, <[u8]>::len)
    }

    /// The event, or what is wrong with it.
    pub fn event(&self) -> std::result::Result<Event<'r>, String> {
        let seq = self.seq().ok_or_else(|| format!("its seq is no integer from 0 to {MAX_SEQ}"))?;
        let id = text("id", self.id, MAX_ID_BYTES)?;
        let type_name = versioned(text("type", self.type_name, MAX_TYPE_BYTES)?);
        if type_name.len() > MAX_TYPE_BYTES {
            return Err(format!("its type has no version, and no room for one in {MAX_TYPE_BYTES} bytes"));
        }
        let data = json(self.data)?;
        let created = integer(self.created).filter(|created| created.abs() <= MAX_SAFE_INTEGER);
        let created_is_odd = created.is_none() && !matches!(self.created, ValueRef::Null);
        Ok(Event { seq, id, type_name, data, created, created_is_odd })
    }
}

/// An integer, also one that is stored as a real number.
pub fn integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(number) => Some(number),
        ValueRef::Real(number) if number.fract() == 0.0 && number.abs() <= MAX_SAFE_INTEGER as f64 => {
            Some(number as i64)
        }
        _ => None,
    }
}

/// A text of at most so many bytes that is not empty.
pub fn text<'r>(name: &str, value: ValueRef<'r>, limit: usize) -> std::result::Result<&'r str, String> {
    let ValueRef::Text(bytes) = value else { return Err(format!("its {name} is no text")) };
    let text = std::str::from_utf8(bytes).map_err(|_| format!("its {name} is not UTF-8"))?;
    match text.len() {
        0 => Err(format!("its {name} is empty")),
        length if length > limit => Err(format!("its {name} has {length} bytes, the limit is {limit}")),
        _ => Ok(text),
    }
}

/// The type with its version; without one it is from before there were versions.
fn versioned(name: &str) -> Cow<'_, str> {
    let has_version = name.rsplit_once('.').is_some_and(|(base, version)| {
        let digits = !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit());
        !base.is_empty() && digits && version.parse::<u32>().is_ok()
    });
    if has_version { Cow::Borrowed(name) } else { Cow::Owned(format!("{name}.1")) }
}

/// The text of a JSON object, whatever its spacing, also where it stands in a BLOB.
fn json(value: ValueRef<'_>) -> std::result::Result<&str, String> {
    let (bytes, is_blob) = match value {
        ValueRef::Text(bytes) => (bytes, false),
        ValueRef::Blob(bytes) => (bytes, true),
        _ => return Err("its data is no text".to_owned()),
    };
    let wrong = |reason: &str| {
        if is_blob {
            format!("its data is a BLOB (JSONB, perhaps), and no JSON text: {reason}")
        } else {
            reason.to_owned()
        }
    };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("its data is not UTF-8"))?;
    // serde_json ignores a value without recursion, so that no depth can exhaust the stack.
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    IgnoredAny::deserialize(&mut deserializer)
        .and_then(|_| deserializer.end())
        .map_err(|error| wrong(&format!("its data is no JSON: {error}")))?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(wrong("its data is no JSON object"));
    }
    let depth = payload::inspect(text.trim_ascii(), "").depth;
    if depth > MAX_NESTING {
        return Err(wrong(&format!("its data nests {depth} levels deep, the limit is {MAX_NESTING}")));
    }
    Ok(text)
}

//! What a replay is given: a JSON array, JSON lines, or one JSON text an item. All of it is read, and all shapes and
//! sizes are checked, before anything is written. Payloads stay slices of the input.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result, within};
use crate::event::check_aggregate_id;
use crate::limits::{MAX_ID_BYTES, MAX_NESTING, MAX_SAFE_INTEGER, MAX_SEQ, MAX_TYPE_BYTES};
use crate::payload;

/// How many times longer than its stored form the text of a payload may be, by spaces and escapes.
const LOOSE_FORM: usize = 8;

/// JSON text: a slice of the batch's source, or text of its own.
#[derive(Debug, Clone)]
pub enum Text {
    /// Bytes of the source.
    Slice(Range<usize>),
    /// What JavaScript made of it.
    Owned(Box<str>),
}

impl Text {
    /// The text itself.
    pub fn of<'a>(&'a self, source: &'a str) -> &'a str {
        match self {
            Text::Slice(range) => &source[range.clone()],
            Text::Owned(text) => text,
        }
    }
}

/// An event of the input, checked for shape.
#[derive(Debug, Clone)]
pub struct EventItem {
    /// As the writer gave it.
    pub id: Box<str>,
    /// `type.version`.
    pub type_name: Box<str>,
    /// The aggregate.
    pub aggregate_id: Box<str>,
    /// As the writer gave it.
    pub seq: i64,
    /// Unix milliseconds; absent stays absent.
    pub created: Option<i64>,
    /// JSON object text.
    pub metadata: Option<Text>,
    /// JSON object text.
    pub data: Text,
    /// Data and metadata are in the form in which they are stored.
    pub canonical: bool,
}

/// One item of the input; the fields are those of a `LogItem` in JavaScript.
#[allow(missing_docs)]
#[derive(Debug, Clone)]
pub enum Item {
    Event(EventItem),
    Gap { aggregate_id: Box<str>, after: i64, through: i64 },
    Removed { aggregate_id: Box<str>, seq: i64, event: Option<EventItem> },
    Synced { aggregate_id: Box<str> },
}

/// Reads text that is a JSON array, one object, or an object a line.
pub fn read_text(source: &str, max_event_bytes: usize) -> Result<Vec<Item>> {
    let text = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut items = Vec::new();
    let mut take = |raw: &str| {
        let item = read_item(source, raw, items.len(), max_event_bytes)?;
        items.push(item);
        Ok(())
    };
    if text.trim_start().starts_with('[') {
        read_array(text, &mut take)?;
    } else if let Ok(single) = serde_json::from_str::<&RawValue>(text) {
        // It may stand on several lines. Of many lines this reads no more than the first value.
        take(single.get())?;
    } else {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            take(line)?;
        }
    }
    Ok(items)
}

/// Reads one JSON text an item; the texts stand one after the other in `source`.
pub fn read_texts(source: &str, ranges: &[Range<usize>], max_event_bytes: usize) -> Result<Vec<Item>> {
    let read =
        |(index, range): (usize, &Range<usize>)| read_item(source, &source[range.clone()], index, max_event_bytes);
    ranges.iter().enumerate().map(read).collect()
}

/// Hands over each element of a JSON array as its own text, without building the others.
fn read_array(text: &str, take: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    struct Elements<'f> {
        take: &'f mut dyn FnMut(&str) -> Result<()>,
        count: usize,
        failed: Option<Box<Error>>,
    }
    impl<'de> Visitor<'de> for &mut Elements<'_> {
        type Value = ();
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an array of events")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> std::result::Result<(), A::Error> {
            while let Some(raw) = sequence.next_element::<&RawValue>()? {
                if let Err(error) = (self.take)(raw.get()) {
                    self.failed = Some(error);
                    return Err(de::Error::custom("stopped"));
                }
                self.count += 1;
            }
            Ok(())
        }
    }
    let mut elements = Elements { take, count: 0, failed: None };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_seq(&mut elements).and_then(|()| deserializer.end());
    match (elements.failed, read) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => {
            Err(Error::InvalidEvent { index: elements.count, field: "json", message: error.to_string() }.into())
        }
    }
}

/// The fields of an item as they stand, each the last one of its name, as JavaScript reads repeated keys.
#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a RawValue>,
    r#type: Option<&'a RawValue>,
    seq: Option<&'a RawValue>,
    aggregate_id: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    created: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    event: Option<&'a RawValue>,
    after: Option<&'a RawValue>,
    through: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Key(key)) = map.next_key()? {
                    let field = match key.as_ref() {
                        "id" => &mut fields.id,
                        "type" => &mut fields.r#type,
                        "seq" => &mut fields.seq,
                        "aggregateID" => &mut fields.aggregate_id,
                        "data" => &mut fields.data,
                        "created" => &mut fields.created,
                        "metadata" => &mut fields.metadata,
                        "kind" => &mut fields.kind,
                        "event" => &mut fields.event,
                        "after" => &mut fields.after,
                        "through" => &mut fields.through,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *field = Some(map.next_value()?);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed from the text unless it is written with escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> std::result::Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Reads fields of one item, and names the item and the field in every refusal.
struct Reader<'a> {
    source: &'a str,
    index: usize,
    max_event_bytes: usize,
}

fn read_item(source: &str, raw: &str, index: usize, max_event_bytes: usize) -> Result<Item> {
    let reader = Reader { source, index, max_event_bytes };
    let fields = reader.fields(raw, "json")?;
    let Some(kind) = fields.kind else {
        return Ok(Item::Event(reader.event(&fields)?));
    };
    match reader.string("kind", Some(kind))?.as_ref() {
        "event" => {
            let raw = fields.event.ok_or_else(|| reader.invalid("event", "is missing"))?;
            Ok(Item::Event(reader.event(&reader.fields(raw.get(), "event")?)?))
        }
        "gap" => {
            let after = reader.integer("after", fields.after, -1, MAX_SEQ)?;
            let through = reader.integer("through", fields.through, 0, MAX_SEQ)?;
            if through <= after {
                return Err(reader.invalid("through", &format!("must be greater than after ({after}), got {through}")));
            }
            Ok(Item::Gap { aggregate_id: reader.aggregate_id(&fields)?, after, through })
        }
        "removed" => {
            let aggregate_id = reader.aggregate_id(&fields)?;
            let seq = reader.integer("seq", fields.seq, 0, MAX_SEQ)?;
            let event = match fields.event {
                None => None,
                Some(raw) => Some(reader.event(&reader.fields(raw.get(), "event")?)?),
            };
            if event.as_ref().is_some_and(|event| event.aggregate_id != aggregate_id || event.seq != seq) {
                return Err(reader.invalid("event", "must have the aggregateID and seq of the removal"));
            }
            Ok(Item::Removed { aggregate_id, seq, event })
        }
        "synced" => Ok(Item::Synced { aggregate_id: reader.aggregate_id(&fields)? }),
        other => Err(reader
            .invalid("kind", &format!("must be event, gap, removed or synced, got \"{}\"", payload::shortened(other)))),
    }
}

impl<'a> Reader<'a> {
    fn invalid(&self, field: &'static str, message: &str) -> Box<Error> {
        Error::InvalidEvent { index: self.index, field, message: message.to_owned() }.into()
    }

    fn fields<'r>(&self, raw: &'r str, field: &'static str) -> Result<Fields<'r>> {
        if !raw.trim_start().starts_with('{') {
            return Err(self.invalid(field, "must be a JSON object"));
        }
        serde_json::from_str(raw).map_err(|error| self.invalid(field, &error.to_string()))
    }

    fn event(&self, fields: &Fields<'_>) -> Result<EventItem> {
        let id = self.name("id", fields.id, MAX_ID_BYTES)?;
        let type_name = self.name("type", fields.r#type, MAX_TYPE_BYTES)?;
        let seq = self.integer("seq", fields.seq, 0, MAX_SEQ)?;
        let aggregate_id = self.aggregate_id(fields)?;
        let created = match fields.created {
            None => None,
            created => Some(self.integer("created", created, -MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)?),
        };
        let (data, data_is_canonical) = self.object("data", fields.data, &type_name)?;
        let (metadata, metadata_is_canonical) = match fields.metadata {
            None => (None, true),
            metadata => {
                let (text, canonical) = self.object("metadata", metadata, &type_name)?;
                (Some(text), canonical)
            }
        };
        let canonical = data_is_canonical && metadata_is_canonical;
        Ok(EventItem { id, type_name, aggregate_id, seq, created, metadata, data, canonical })
    }

    fn string<'r>(&self, field: &'static str, raw: Option<&'r RawValue>) -> Result<Cow<'r, str>> {
        let raw = raw.ok_or_else(|| self.invalid(field, "is missing"))?.get();
        let refuse = |_| self.invalid(field, &format!("must be a well-formed string, got {}", payload::shortened(raw)));
        serde_json::from_str::<Key<'r>>(raw).map(|key| key.0).map_err(refuse)
    }

    fn name(&self, field: &'static str, raw: Option<&RawValue>, limit: usize) -> Result<Box<str>> {
        let name = self.string(field, raw)?;
        if name.is_empty() {
            return Err(self.invalid(field, "must not be empty"));
        }
        within(|| format!("The {field} of the event at index {}", self.index), name.len(), limit, Some(self.index))?;
        Ok(name.into())
    }

    fn aggregate_id(&self, fields: &Fields<'_>) -> Result<Box<str>> {
        let aggregate_id = self.string("aggregateID", fields.aggregate_id)?;
        if aggregate_id.is_empty() {
            return Err(self.invalid("aggregateID", "must not be empty"));
        }
        check_aggregate_id(&aggregate_id, Some(self.index))?;
        Ok(aggregate_id.into())
    }

    fn integer(&self, field: &'static str, raw: Option<&RawValue>, least: i64, most: i64) -> Result<i64> {
        let raw = raw.ok_or_else(|| self.invalid(field, "is missing"))?.get();
        // 3.0 and 3e0 are the integer 3 to JavaScript.
        let number = raw.parse::<i64>().ok().or_else(|| {
            raw.parse::<f64>()
                .ok()
                .filter(|number| number.fract() == 0.0 && number.abs() < 1e18)
                .map(|number| number as i64)
        });
        number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            self.invalid(field, &format!("must be an integer from {least} to {most}, got {}", payload::shortened(raw)))
        })
    }

    fn object(&self, field: &'static str, raw: Option<&RawValue>, type_name: &str) -> Result<(Text, bool)> {
        let raw = raw.ok_or_else(|| self.invalid(field, "is missing"))?.get();
        if !raw.starts_with('{') {
            return Err(self.invalid(field, &format!("must be an object, got {}", payload::shortened(raw))));
        }
        let shape = payload::inspect(raw, "");
        // What counts is the stored form; of other text JavaScript tells its size later. Until then it may be longer.
        let limit =
            if shape.canonical { self.max_event_bytes } else { self.max_event_bytes.saturating_mul(LOOSE_FORM) };
        let whose = || format!("The {field} of the {type_name} at index {}", self.index);
        within(whose, raw.len(), limit, Some(self.index))?;
        if shape.depth > MAX_NESTING {
            return Err(self.invalid(field, &format!("nests {} levels deep, the limit is {MAX_NESTING}", shape.depth)));
        }
        let start = raw.as_ptr() as usize - self.source.as_ptr() as usize;
        Ok((Text::Slice(start..start + raw.len()), shape.canonical))
    }
}

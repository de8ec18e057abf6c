//! Looks at JSON text without building values: how deep it nests, whether it is exactly what `JSON.stringify` would
//! write, and what a top-level field holds. One pass, no recursion, so hostile nesting costs no stack.
//!
//! The stored form of a payload is `JSON.stringify(JSON.parse(text))`. Rust does not imitate that conversion: it only
//! recognises text that certainly has the form already (all of what Syncline itself sends), and everything else goes
//! through JavaScript's own functions once.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::MAX_NESTING;

/// What one pass over a JSON value tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Nesting of arrays and objects: 0 for a scalar, 1 for `{}`.
    pub depth: usize,
    /// The text is certainly what `JSON.stringify(JSON.parse(text))` gives. `false` means: not certain.
    pub canonical: bool,
    /// Where the value of the asked top-level field stands (the last one, where a key is repeated).
    pub field: Option<Range<usize>>,
}

/// Objects with more keys than this are not searched for repeated keys; their form counts as not certain.
const MAX_COMPARED_KEYS: usize = 64;

/// An open array or object: where its keys begin in the list of keys, and whether it is an object.
struct Open {
    first_key: usize,
    object: bool,
}

/// Inspects `text`, which must be one valid JSON value (a parser has accepted it before). `field` is compared with the
/// keys' raw text: a key written with escapes is not found, and makes the text not canonical.
pub fn inspect(text: &str, field: &str) -> Shape {
    let bytes = text.as_bytes();
    let mut shape = Shape { depth: 0, canonical: true, field: None };
    let mut open: Vec<Open> = Vec::new();
    let mut keys: Vec<&[u8]> = Vec::new();
    // In an object, a string is a key until its colon has been seen.
    let mut expects_key = false;
    let mut field_starts = false;
    let mut field_start = 0;
    let mut in_field = false;
    let mut at = 0;
    while at < bytes.len() {
        if field_starts && !matches!(bytes[at], b' ' | b'\n' | b'\r' | b'\t' | b':') {
            (field_starts, in_field, field_start) = (false, true, at);
        }
        match bytes[at] {
            b'"' => {
                let (end, plain) = string_end(bytes, at);
                shape.canonical &= plain;
                if expects_key {
                    let key = &bytes[at + 1..end - 1];
                    let frame = open.last().map_or(0, |frame| frame.first_key);
                    let siblings = &keys[frame..];
                    if siblings.len() >= MAX_COMPARED_KEYS || siblings.contains(&key) || is_index(key) {
                        shape.canonical = false;
                    } else {
                        keys.push(key);
                    }
                    if open.len() == 1 && key == field.as_bytes() {
                        field_starts = true;
                    }
                    expects_key = false;
                }
                at = end;
                continue;
            }
            opening @ (b'{' | b'[') => {
                let object = opening == b'{';
                open.push(Open { first_key: keys.len(), object });
                shape.depth = shape.depth.max(open.len());
                expects_key = object;
            }
            b'}' | b']' => {
                if in_field && open.len() == 1 {
                    (shape.field, in_field) = (Some(trimmed(bytes, field_start..at)), false);
                }
                if let Some(frame) = open.pop() {
                    keys.truncate(frame.first_key);
                }
                expects_key = false;
            }
            b',' => {
                if in_field && open.len() == 1 {
                    (shape.field, in_field) = (Some(trimmed(bytes, field_start..at)), false);
                }
                expects_key = open.last().is_some_and(|frame| frame.object);
            }
            b' ' | b'\n' | b'\r' | b'\t' => shape.canonical = false,
            b'-' | b'0'..=b'9' => {
                let end = at + bytes[at..].iter().take_while(|byte| is_number_byte(**byte)).count();
                shape.canonical &= is_canonical_number(&text[at..end]);
                at = end;
                continue;
            }
            // Colons and the letters of true, false and null.
            _ => {}
        }
        at += 1;
    }
    shape
}

/// The string value of a JSON string literal, or `None` for any other value.
pub fn as_string(literal: &str) -> Option<String> {
    serde_json::from_str(literal).ok()
}

/// The beginning of a text that a message quotes: what is refused may have megabytes.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// Whether two JSON texts hold equal values, whatever the order of their keys. Texts that nest deeper than `MAX_NESTING`,
/// which Syncline never writes, are equal only where they are the same text.
pub fn same_value(left: &str, right: &str) -> bool {
    left == right || matches!((parsed(left), parsed(right)), (Some(left), Some(right)) if left == right)
}

fn parsed(text: &str) -> Option<serde_json::Value> {
    // A value is read, and freed, by recursion: what somebody else wrote into the file must not exhaust the stack.
    if inspect(text, "").depth > MAX_NESTING {
        return None;
    }
    // serde_json stops at 128 levels by default.
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    serde::Deserialize::deserialize(&mut deserializer).ok()
}

fn trimmed(bytes: &[u8], range: Range<usize>) -> Range<usize> {
    let end = bytes[range.clone()].iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
    range.start..range.start + end
}

/// Where the string that opens at `at` ends (after its closing quote), and whether its escapes are those that
/// `JSON.stringify` writes.
fn string_end(bytes: &[u8], at: usize) -> (usize, bool) {
    let mut plain = true;
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return (at + 1, plain),
            b'\\' => {
                match bytes.get(at + 1) {
                    Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                    Some(b'u') => plain &= is_canonical_escape(&bytes[at + 2..bytes.len().min(at + 6)]),
                    _ => plain = false,
                }
                at += 2;
            }
            _ => at += 1,
        }
    }
    (bytes.len(), false)
}

/// `JSON.stringify` writes `\u00xx`, in lower case, for the control characters that have no short escape. It also
/// writes lone surrogates so; telling those from pairs is left to JavaScript.
fn is_canonical_escape(digits: &[u8]) -> bool {
    match digits {
        [b'0', b'0', b'0', low] => matches!(low, b'0'..=b'7' | b'b' | b'e' | b'f'),
        [b'0', b'0', b'1', low] => matches!(low, b'0'..=b'9' | b'a'..=b'f'),
        _ => false,
    }
}

/// An object's integer-like keys come first, in ascending order, once JavaScript has read it.
fn is_index(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= 10 && key.iter().all(u8::is_ascii_digit)
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

fn is_canonical_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.len() <= 15 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text != "-0";
    }
    text.parse::<f64>().is_ok_and(|number| number.is_finite() && ryu_js::Buffer::new().format(number) == text)
}

/// The text of a field of an object, which must be valid JSON; `None` where `text` is no object or lacks it. Of a repeated
/// key the last one counts, as in JavaScript.
pub fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    FieldOf(name).deserialize(&mut deserializer).ok().flatten()
}

/// The text of an object, which must be valid JSON, without the fields at these paths, written in a form of its own:
/// equal for equal texts. `None` where `text` is no object, or cannot be read so.
pub fn without(text: &str, paths: &[Vec<String>]) -> Option<String> {
    let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
    let mut rest = String::with_capacity(text.len());
    Without { paths: &paths, rest: &mut rest }.deserialize(&mut serde_json::Deserializer::from_str(text)).ok()?;
    Some(rest)
}

struct Without<'w> {
    paths: &'w [&'w [String]],
    rest: &'w mut String,
}

impl<'de> DeserializeSeed<'de> for Without<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Without<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.rest.push('{');
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let inside: Vec<&[String]> =
                self.paths.iter().filter(|path| path[0] == key).map(|path| &path[1..]).collect();
            if inside.iter().any(|path| path.is_empty()) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            // The length tells a key's end, whatever is in it.
            write!(self.rest, "{}:{key}", key.len()).map_err(serde::de::Error::custom)?;
            let value = map.next_value::<&'de RawValue>()?.get();
            if inside.is_empty() || !value.starts_with('{') {
                self.rest.push_str(value);
            } else {
                let nested = Without { paths: &inside, rest: &mut *self.rest };
                nested.deserialize(&mut serde_json::Deserializer::from_str(value)).map_err(serde::de::Error::custom)?;
            }
            self.rest.push(',');
        }
        self.rest.push('}');
        Ok(())
    }
}

struct FieldOf<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for FieldOf<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == self.0 {
                found = Some(map.next_value::<&'de RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_stringify_writes_is_recognised() {
        for text in [
            r#"{"a":1,"b":[true,false,null],"c":{"d":"x\n\u0001\\"}}"#,
            "[]",
            "1.5",
            "-3",
            "1e+21",
            "123456789012345680000",
            r#"{"__proto__":1,"constructor":"é\u001f"}"#,
        ] {
            assert!(inspect(text, "").canonical, "{text}");
        }
    }

    #[test]
    fn text_that_javascript_would_write_otherwise_is_not() {
        for text in [
            "[1, 2]",
            r#"{"a":1,"a":2}"#,
            r#"{"2":1,"1":2}"#,
            "1.0",
            "-0",
            "1E5",
            "1e5",
            r#""\/""#,
            r#""\u0041""#,
            r#""\u001F""#,
            r#""\u000a""#,
            r#""\ud800""#,
            "12345678901234567890",
            "1e999",
        ] {
            assert!(!inspect(text, "").canonical, "{text}");
        }
    }

    #[test]
    fn a_top_level_field_is_found_the_last_one_wins() {
        let found = |text: &'static str, field| inspect(text, field).field.map(|range| &text[range]);
        assert_eq!(found(r#"{"x":{"id":"no"},"id":"yes","y":1}"#, "id"), Some(r#""yes""#));
        assert_eq!(found(r#"{"id":"a","id":"b"}"#, "id"), Some(r#""b""#));
        assert_eq!(found(r#"{ "id" : [1, {"id":2}] }"#, "id"), Some(r#"[1, {"id":2}]"#));
        assert_eq!(found(r#"[{"id":1}]"#, "id"), None);
        assert_eq!(found(r#"{"a":"id"}"#, "id"), None);
    }

    #[test]
    fn paths_are_cut_out_and_nothing_else() {
        let paths: Vec<Vec<String>> =
            ["time", "part.time.end", "a"].iter().map(|path| path.split('.').map(str::to_owned).collect()).collect();
        let same = |left, right| without(left, &paths).unwrap() == without(right, &paths).unwrap();
        assert!(same(r#"{"time":1,"x":{"time":2}}"#, r#"{"x":{"time":2},"time":{"y":[]}}"#));
        assert!(same(r#"{"part":{"time":{"start":1}}}"#, r#"{"part":{"time":{"start":1,"end":2}}}"#));
        assert!(!same(r#"{"part":{"time":{}}}"#, r#"{"part":{}}"#));
        assert!(!same(r#"{"part":{"time":{"start":1}}}"#, r#"{"part":{"time":{"start":2}}}"#));
        assert!(!same(r#"{"part":[{"time":1}]}"#, r#"{"part":[{"time":2}]}"#));
        assert!(!same(r#"{"x":1,"y":2}"#, r#"{"y":2,"x":1}"#));
        assert!(!same(r#"{"x":"\"},{"}"#, r#"{"x":"},{"}"#));
        assert_eq!(without("[1]", &paths), None);
        assert_eq!(without(r#"{"\ud800":1}"#, &paths), None);
    }

    #[test]
    fn depth_counts_arrays_and_objects() {
        assert_eq!(inspect("1", "").depth, 0);
        assert_eq!(inspect(r#"{"a":"[[["}"#, "").depth, 1);
        assert_eq!(inspect(&("[".repeat(100_000) + &"]".repeat(100_000)), "").depth, 100_000);
    }

    #[test]
    fn values_compare_parsed() {
        assert!(same_value(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#));
        assert!(!same_value(r#"{"a":1}"#, r#"{"a":2}"#));
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        assert!(same_value(&deep, &format!("{deep} ")));
    }

    #[test]
    fn what_nests_too_deep_to_be_compared_differs() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(same_value(&deep, &deep));
        assert!(!same_value(&deep, &format!("{deep} ")));
    }
}

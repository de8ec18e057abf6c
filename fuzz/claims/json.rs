//! JSON as JavaScript reads and writes it, slowly and plainly: what the library's quick ways are compared with.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Deeper texts are left out here: this recurses.
const DEEPEST: usize = 200;

/// A value as `JSON.parse` gives it.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Literal(&'static str),
    Number(f64),
    Text(String),
    Array(Vec<Json>),
    /// Keys in the order in which JavaScript lists them.
    Object(Vec<(String, Json)>),
}

/// `JSON.parse`. `None` for what is no JSON, nests very deep, or has text that Rust cannot hold (lone surrogates).
pub fn parse(text: &str) -> Option<Json> {
    of(serde_json::from_str::<&RawValue>(text).ok()?.get(), 0)
}

fn of(raw: &str, depth: usize) -> Option<Json> {
    if depth > DEEPEST {
        return None;
    }
    Some(match raw.as_bytes()[0] {
        b'{' => {
            let Members(members) = serde_json::from_str(raw).ok()?;
            let mut indexes: BTreeMap<u32, Json> = BTreeMap::new();
            let mut object: Vec<(String, Json)> = Vec::new();
            for (key, value) in members {
                let value = of(value.get(), depth + 1)?;
                let index = key.parse::<u32>().ok().filter(|index| *index < u32::MAX && index.to_string() == key);
                if let Some(index) = index {
                    indexes.insert(index, value);
                } else if let Some(known) = object.iter_mut().find(|(known, _)| *known == key) {
                    known.1 = value;
                } else {
                    object.push((key, value));
                }
            }
            let indexes = indexes.into_iter().map(|(index, value)| (index.to_string(), value));
            Json::Object(indexes.chain(object).collect())
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
            Json::Array(items.iter().map(|item| of(item.get(), depth + 1)).collect::<Option<_>>()?)
        }
        b'"' => Json::Text(serde_json::from_str(raw).ok()?),
        b't' => Json::Literal("true"),
        b'f' => Json::Literal("false"),
        b'n' => Json::Literal("null"),
        _ => Json::Number(raw.parse().ok()?),
    })
}

/// `JSON.stringify`
pub fn stringify(json: &Json) -> String {
    match json {
        Json::Literal(literal) => (*literal).to_owned(),
        Json::Number(number) if !number.is_finite() => "null".to_owned(),
        Json::Number(number) => ryu_js::Buffer::new().format(*number).to_owned(),
        Json::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Json::Array(items) => format!("[{}]", items.iter().map(stringify).collect::<Vec<_>>().join(",")),
        Json::Object(members) => {
            let member = |(key, value): &(String, Json)| {
                format!("{}:{}", serde_json::Value::from(key.as_str()), stringify(value))
            };
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
        }
    }
}

impl Json {
    /// A field of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Json::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Nesting of arrays and objects.
    pub fn depth(&self) -> usize {
        match self {
            Json::Array(items) => 1 + items.iter().map(Json::depth).max().unwrap_or(0),
            Json::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// The same with all keys in one order.
    pub fn sorted(&self) -> Json {
        match self {
            Json::Array(items) => Json::Array(items.iter().map(Json::sorted).collect()),
            Json::Object(members) => {
                let mut sorted: Vec<_> = members.iter().map(|(key, value)| (key.clone(), value.sorted())).collect();
                sorted.sort_by(|one, other| one.0.cmp(&other.0));
                Json::Object(sorted)
            }
            other => other.clone(),
        }
    }
}

/// The members of an object as they stand, repeated keys included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

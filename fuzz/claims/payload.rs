//! `payload`: what one pass over a JSON text tells is what JavaScript would read and write.

use syncline::payload::{field, inspect, same_value, shortened, without};

use super::json::{parse, stringify};

/// Two lines, or more: the name of a field, and a JSON text; a third one is another text to compare it with.
pub fn payload(bytes: &[u8]) {
    let input = String::from_utf8_lossy(bytes);
    let (name, text) = input.split_once('\n').unwrap_or(("id", &input));
    let (text, other) = text.split_once('\u{1e}').unwrap_or((text, "{}"));
    assert!(text.starts_with(shortened(text).trim_end_matches('…')));
    let valid = serde_json::from_str::<&serde_json::value::RawValue>(text);
    let spelled = serde_json::Value::from(name).to_string();
    let Ok(valid) = valid else {
        return;
    };
    let text = valid.get();
    let shape = inspect(text, &spelled[1..spelled.len() - 1]);
    let Some(read) = parse(text) else {
        // Text with a lone surrogate is JavaScript's to write.
        assert!(!shape.canonical || shape.depth > 200, "{text}");
        return;
    };
    assert!(shape.depth >= read.depth(), "{text}");
    let found = shape.field.map(|range| &text[range]);
    if !shape.canonical {
        // The last one counts, as long as keys are written plainly.
        if let (Some(found), false) = (found, text.contains('\\')) {
            assert_eq!(parse(found).as_ref(), read.get(name), "{name} of {text}");
        }
        return;
    }
    assert_eq!(stringify(&read), text, "its form is told to be the stored one");
    assert_eq!(shape.depth, read.depth(), "{text}");
    assert_eq!(found, field(text, name), "{name} of {text}");
    assert_eq!(found.and_then(parse).as_ref(), read.get(name), "{name} of {text}");

    let rest = without(text, &[vec![name.to_owned()]]);
    assert!(rest.is_none() || text.starts_with('{'), "{text}");
    if let Some(other_read) = parse(other)
        && inspect(other, "").canonical
    {
        let same = read.sorted() == other_read.sorted();
        assert_eq!(same_value(text, other), same, "{text} and {other}");
        // What is the same without the field cannot differ in another.
        if let (Some(rest), Some(other_rest)) = (&rest, without(other, &[vec![name.to_owned()]]))
            && stringify(&read) == stringify(&other_read)
        {
            assert_eq!(*rest, other_rest);
        }
    }
}

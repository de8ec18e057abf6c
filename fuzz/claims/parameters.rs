//! `parameters`: what a statement is given comes back as it went in, and a wrong number of values is an error.

use rusqlite::types::Value;
use syncline::store::Store;

use super::Source;
use super::replay::in_memory;

thread_local! {
    static STORE: Store = {
        let store = in_memory();
        store.execute_all("CREATE TABLE kept (n INTEGER PRIMARY KEY, value)").unwrap();
        store
    };
}

/// A byte for the number of parameters, and then values, each with a byte for its kind.
pub fn parameters(bytes: &[u8]) {
    let mut source = Source(bytes);
    let expected = usize::from(source.byte() % 12);
    let mut values = Vec::new();
    while !source.is_empty() && values.len() < 16 {
        values.push(match source.byte() % 5 {
            0 => Value::Null,
            1 => Value::Integer(source.number().cast_signed()),
            2 => Value::Real(f64::from_bits(source.number())),
            3 => Value::Text(source.text()),
            _ => Value::Blob(source.bytes().to_vec()),
        });
    }
    STORE.with(|store| {
        let marks: Vec<String> = (1..=expected).map(|n| format!("?{n}")).collect();
        let sql = format!("SELECT {}, 'end'", if expected == 0 { "0".to_owned() } else { marks.join(", ") });
        let select = store.prepare(sql).unwrap();
        let mut given = Vec::new();
        let done = store.execute(&select, &values, &mut |row| {
            for index in 0..expected {
                given.push(row.get::<_, Value>(index)?);
            }
            Ok(true)
        });
        match done {
            Err(error) => {
                assert_ne!(values.len(), expected, "{error}");
                assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
            }
            Ok(_) => {
                assert_eq!(values.len(), expected);
                assert_eq!(given.len(), expected);
                values.iter().zip(&given).for_each(|(value, given)| assert_same(value, given));
            }
        }
        let insert = store.prepare("INSERT INTO kept (value) VALUES (@value) RETURNING value".to_owned()).unwrap();
        for value in &values {
            let mut kept = None;
            store
                .execute(&insert, std::slice::from_ref(value), &mut |row| {
                    kept = Some(row.get::<_, Value>(0)?);
                    Ok(true)
                })
                .unwrap();
            assert_same(value, &kept.unwrap());
        }
        store.execute_all("DELETE FROM kept").unwrap();
    });
}

/// SQLite has no NaN: it makes NULL of it.
fn assert_same(value: &Value, given: &Value) {
    match (value, given) {
        (Value::Real(number), given) if number.is_nan() => assert_eq!(*given, Value::Null),
        (value, given) => assert_eq!(value, given),
    }
}

//! Values between JavaScript and SQLite, and flat arrays of them. A row is never an object here: JavaScript makes
//! objects faster, from a factory compiled once a statement.

#![allow(unsafe_code)]

use std::ptr;

use napi::bindgen_prelude::{Env, ToNapiValue};
use napi::sys;
use rusqlite::types::{Value, ValueRef};

use crate::error::{Error, Result};
use crate::event::StoredEvent;

/// A JavaScript value of the running call, handed back as it is.
pub struct Raw(pub sys::napi_value);

impl ToNapiValue for Raw {
    unsafe fn to_napi_value(_: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        Ok(value.0)
    }
}

/// Makes values in one environment.
#[derive(Clone, Copy)]
pub struct Maker {
    env: sys::napi_env,
}

// SAFETY (of every block below): `env` is the environment of the running call, out pointers are to live locals, and
// text and bytes are passed with their lengths.
impl Maker {
    /// For the running call.
    pub fn new(env: &Env) -> Self {
        Maker { env: env.raw() }
    }

    pub(crate) fn of(env: sys::napi_env) -> Self {
        Maker { env }
    }

    /// `null`
    pub fn null(self) -> sys::napi_value {
        let mut value = ptr::null_mut();
        unsafe { sys::napi_get_null(self.env, &mut value) };
        value
    }

    /// A boolean.
    pub fn boolean(self, boolean: bool) -> sys::napi_value {
        let mut value = ptr::null_mut();
        unsafe { sys::napi_get_boolean(self.env, boolean, &mut value) };
        value
    }

    /// A number.
    pub fn number(self, number: f64) -> sys::napi_value {
        let mut value = ptr::null_mut();
        unsafe { sys::napi_create_double(self.env, number, &mut value) };
        value
    }

    /// A number of an integer; beyond 2^53 the nearest one.
    pub fn integer(self, integer: i64) -> sys::napi_value {
        let mut value = ptr::null_mut();
        unsafe {
            match i32::try_from(integer) {
                Ok(small) => sys::napi_create_int32(self.env, small, &mut value),
                Err(_) => sys::napi_create_double(self.env, integer as f64, &mut value),
            }
        };
        value
    }

    /// A bigint.
    pub fn bigint(self, integer: i64) -> sys::napi_value {
        let mut value = ptr::null_mut();
        unsafe { sys::napi_create_bigint_int64(self.env, integer, &mut value) };
        value
    }

    /// A string of UTF-8 text; bytes that are not UTF-8 become U+FFFD.
    pub fn text(self, text: &[u8]) -> sys::napi_value {
        let mut value = ptr::null_mut();
        unsafe { sys::napi_create_string_utf8(self.env, text.as_ptr().cast(), text.len() as isize, &mut value) };
        value
    }

    /// A string, or `null`.
    pub fn text_or_null(self, text: Option<&str>) -> sys::napi_value {
        text.map_or_else(|| self.null(), |text| self.text(text.as_bytes()))
    }

    /// An integer, or `null`.
    pub fn integer_or_null(self, integer: Option<i64>) -> sys::napi_value {
        integer.map_or_else(|| self.null(), |integer| self.integer(integer))
    }

    /// A Buffer with a copy of the bytes.
    pub fn bytes(self, bytes: &[u8]) -> sys::napi_value {
        let (mut value, mut data) = (ptr::null_mut(), ptr::null_mut());
        unsafe { sys::napi_create_buffer_copy(self.env, bytes.len(), bytes.as_ptr().cast(), &mut data, &mut value) };
        value
    }

    /// A column of a row.
    pub fn column(self, value: ValueRef<'_>, safe_integers: bool) -> sys::napi_value {
        match value {
            ValueRef::Null => self.null(),
            ValueRef::Integer(integer) if safe_integers => self.bigint(integer),
            ValueRef::Integer(integer) => self.integer(integer),
            ValueRef::Real(number) => self.number(number),
            ValueRef::Text(text) => self.text(text),
            ValueRef::Blob(bytes) => self.bytes(bytes),
        }
    }

    /// An array of values.
    pub fn array(self, values: &[sys::napi_value]) -> Raw {
        let mut array = ptr::null_mut();
        unsafe {
            sys::napi_create_array_with_length(self.env, values.len(), &mut array);
            for (index, value) in values.iter().enumerate() {
                sys::napi_set_element(self.env, array, index as u32, *value);
            }
        }
        Raw(array)
    }
}

/// The flat form of events: eight values each, `id, type, seq, aggregateID, created, metadata, data, position`.
pub struct EventList {
    maker: Maker,
    values: Vec<sys::napi_value>,
    types: Vec<(String, sys::napi_value)>,
    aggregate: Option<(String, sys::napi_value)>,
}

impl EventList {
    /// Empty.
    pub fn new(maker: Maker) -> Self {
        EventList {
            maker,
            values: Vec::new(),
            types: Vec::new(),
            aggregate: None,
        }
    }

    /// Appends an event. Types and a repeated aggregate id are made once a page.
    pub fn push(&mut self, event: &StoredEvent<'_>) {
        let maker = self.maker;
        let type_name = match self.types.iter().find(|(name, _)| name == event.type_name) {
            Some((_, value)) => *value,
            None => {
                let value = maker.text(event.type_name.as_bytes());
                self.types.push((event.type_name.to_owned(), value));
                value
            }
        };
        let aggregate = match &self.aggregate {
            Some((id, value)) if id == event.aggregate_id => *value,
            _ => {
                let value = maker.text(event.aggregate_id.as_bytes());
                self.aggregate = Some((event.aggregate_id.to_owned(), value));
                value
            }
        };
        self.values.extend([
            maker.text(event.id.as_bytes()),
            type_name,
            maker.integer(event.seq),
            aggregate,
            maker.integer_or_null(event.created),
            maker.text_or_null(event.metadata),
            maker.text(event.data.as_bytes()),
            maker.integer(event.position),
        ]);
    }

    /// The array.
    pub fn finish(self) -> Raw {
        self.maker.array(&self.values)
    }
}

/// Reads the elements of an array as values for SQLite. Numbers are bound as REAL and bigints as INTEGER, as
/// better-sqlite3 does; whatever else SQLite cannot hold is `ERR_INVALID_ARGUMENT`.
pub(crate) fn read_parameters(env: &Env, array: sys::napi_value) -> Result<Vec<Value>> {
    let env = env.raw();
    let mut length = 0;
    if unsafe { sys::napi_get_array_length(env, array, &mut length) } != sys::Status::napi_ok {
        return Err(Error::InvalidArgument("Parameters must be an array".to_owned()));
    }
    (0..length)
        .map(|index| {
            let mut element = ptr::null_mut();
            unsafe { sys::napi_get_element(env, array, index, &mut element) };
            read_value(env, element)
        })
        .collect()
}

/// Reads one value for SQLite.
pub(crate) fn read_value(env: sys::napi_env, value: sys::napi_value) -> Result<Value> {
    let mut kind = sys::ValueType::napi_undefined;
    // SAFETY: as above; each getter is called only for a value of its type.
    unsafe {
        sys::napi_typeof(env, value, &mut kind);
        match kind {
            sys::ValueType::napi_undefined | sys::ValueType::napi_null => Ok(Value::Null),
            sys::ValueType::napi_number => {
                let mut number = 0.0;
                sys::napi_get_value_double(env, value, &mut number);
                Ok(Value::Real(number))
            }
            sys::ValueType::napi_bigint => {
                let (mut integer, mut lossless) = (0, false);
                sys::napi_get_value_bigint_int64(env, value, &mut integer, &mut lossless);
                if lossless {
                    Ok(Value::Integer(integer))
                } else {
                    Err(Error::InvalidArgument(
                        "A bigint parameter does not fit into 64 bits".to_owned(),
                    ))
                }
            }
            sys::ValueType::napi_string => Ok(Value::Text(read_text(env, value))),
            sys::ValueType::napi_object => read_bytes(env, value).map(Value::Blob).ok_or_else(unfit),
            _ => Err(unfit()),
        }
    }
}

fn unfit() -> Error {
    Error::InvalidArgument("SQLite can only bind numbers, strings, bigints, buffers, and null".to_owned())
}

/// # Safety
///
/// `value` must be a string of `env`.
unsafe fn read_text(env: sys::napi_env, value: sys::napi_value) -> String {
    // Most strings fit into the first buffer, which saves asking for the length.
    let mut buffer = vec![0u8; 256];
    let mut length = 0;
    // SAFETY: the buffer has the length that is passed; Node-API writes a NUL after the text.
    unsafe {
        sys::napi_get_value_string_utf8(env, value, buffer.as_mut_ptr().cast(), buffer.len(), &mut length);
        // A text that stopped short may have had a few bytes left for a character that did not fit.
        if length + 4 >= buffer.len() {
            sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut length);
            buffer = vec![0u8; length + 1];
            sys::napi_get_value_string_utf8(env, value, buffer.as_mut_ptr().cast(), buffer.len(), &mut length);
        }
    }
    buffer.truncate(length);
    String::from_utf8(buffer).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The bytes of a Buffer, typed array, DataView or ArrayBuffer, copied.
///
/// # Safety
///
/// `value` must be an object of `env`.
unsafe fn read_bytes(env: sys::napi_env, value: sys::napi_value) -> Option<Vec<u8>> {
    let (mut data, mut length) = (ptr::null_mut(), 0);
    let mut is = false;
    // SAFETY: the pointer and length that Node-API gives are of a live value, and are copied before anything else runs.
    unsafe {
        sys::napi_is_buffer(env, value, &mut is);
        if is {
            sys::napi_get_buffer_info(env, value, &mut data, &mut length);
        } else {
            sys::napi_is_arraybuffer(env, value, &mut is);
            if !is {
                return None;
            }
            sys::napi_get_arraybuffer_info(env, value, &mut data, &mut length);
        }
        if length == 0 || data.is_null() {
            return Some(Vec::new());
        }
        Some(std::slice::from_raw_parts(data.cast::<u8>(), length).to_vec())
    }
}

//! Values between JavaScript and SQLite, and flat arrays of them. A row is never an object here: JavaScript makes
//! objects faster, from a factory compiled once a statement.

#![allow(unsafe_code)]

use std::ptr;

use napi::bindgen_prelude::{Env, ToNapiValue};
use napi::sys;
use rusqlite::types::{Value, ValueRef};
use rustc_hash::FxHashMap;

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
        let status =
            unsafe { sys::napi_create_string_utf8(self.env, text.as_ptr().cast(), text.len() as isize, &mut value) };
        self.made(status, value)
    }

    /// The value, or null where making it failed, and then nothing pending that a later call would throw.
    fn made(self, status: sys::napi_status, value: sys::napi_value) -> sys::napi_value {
        if status == sys::Status::napi_ok {
            return value;
        }
        let mut thrown = ptr::null_mut();
        unsafe { sys::napi_get_and_clear_last_exception(self.env, &mut thrown) };
        ptr::null_mut()
    }

    /// A string of bytes that are one character each.
    fn latin1(self, text: &[u8]) -> sys::napi_value {
        let mut value = ptr::null_mut();
        unsafe { sys::napi_create_string_latin1(self.env, text.as_ptr().cast(), text.len() as isize, &mut value) };
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

    /// Appends ids of aggregates with a seq each, as flat pairs.
    pub fn extend_pairs(self, values: &mut Vec<sys::napi_value>, pairs: &[(String, i64)]) {
        for (id, seq) in pairs {
            values.extend([self.text(id.as_bytes()), self.integer(*seq)]);
        }
    }

    /// A Buffer with a copy of the bytes.
    pub fn bytes(self, bytes: &[u8]) -> sys::napi_value {
        let (mut value, mut data) = (ptr::null_mut(), ptr::null_mut());
        let status = unsafe {
            sys::napi_create_buffer_copy(self.env, bytes.len(), bytes.as_ptr().cast(), &mut data, &mut value)
        };
        self.made(status, value)
    }

    /// A Float64Array.
    pub fn numbers(self, numbers: &[f64]) -> sys::napi_value {
        let (mut buffer, mut data, mut value) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        unsafe {
            sys::napi_create_arraybuffer(self.env, size_of_val(numbers), &mut data, &mut buffer);
            if !data.is_null() {
                ptr::copy_nonoverlapping(numbers.as_ptr(), data.cast::<f64>(), numbers.len());
            }
            let kind = sys::TypedarrayType::float64_array;
            sys::napi_create_typedarray(self.env, kind, numbers.len(), buffer, 0, &mut value);
        }
        value
    }

    /// A column of a row. `ERR_TOO_LARGE` for text or bytes that JavaScript cannot hold (V8: 2^29 − 24 characters).
    pub fn column(self, value: ValueRef<'_>, safe_integers: bool) -> Result<sys::napi_value> {
        let made = match value {
            ValueRef::Null => self.null(),
            ValueRef::Integer(integer) if safe_integers => self.bigint(integer),
            ValueRef::Integer(integer) => self.integer(integer),
            ValueRef::Real(number) => self.number(number),
            ValueRef::Text(text) => self.text(text),
            ValueRef::Blob(bytes) => self.bytes(bytes),
        };
        match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) if made.is_null() => Err(Error::TooLarge {
                what: "A value for JavaScript".to_owned(),
                size: bytes.len() as u64,
                limit: (1 << 29) - 24,
                index: None,
            }
            .into()),
            _ => Ok(made),
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

/// A page of events for JavaScript: `[ids, data, numbers, types, aggregates, metadata]`. The ids and the payloads of a
/// page are one string each, cut by JavaScript where `numbers` says: making a string, or setting an element of an array,
/// costs more through Node-API than reading the row did. Seven numbers an event: where its id and its data end in UTF-16
/// units, seq, created or NaN, position, index of the type, index of the aggregate.
pub struct EventList {
    maker: Maker,
    ids: Joined,
    data: Joined,
    numbers: Vec<f64>,
    types: Interned,
    aggregates: Interned,
    metadata: Vec<(usize, sys::napi_value)>,
}

/// Texts one after the other, measured as JavaScript will measure them.
#[derive(Default)]
struct Joined {
    text: String,
    utf16: usize,
}

impl Joined {
    /// Appends a text and says where it ends.
    fn push(&mut self, text: &str) -> f64 {
        self.text.push_str(text);
        self.utf16 += if text.is_ascii() { text.len() } else { text.chars().map(char::len_utf16).sum() };
        self.utf16 as f64
    }

    fn finish(&self, maker: Maker) -> sys::napi_value {
        // As many UTF-16 units as bytes: all of it is ASCII, which needs no decoding.
        if self.utf16 == self.text.len() {
            maker.latin1(self.text.as_bytes())
        } else {
            maker.text(self.text.as_bytes())
        }
    }
}

/// Strings that occur again and again in a page.
#[derive(Default)]
struct Interned {
    indices: FxHashMap<String, usize>,
    values: Vec<sys::napi_value>,
}

impl Interned {
    fn index(&mut self, maker: Maker, text: &str) -> f64 {
        if let Some(index) = self.indices.get(text) {
            return *index as f64;
        }
        self.values.push(maker.text(text.as_bytes()));
        self.indices.insert(text.to_owned(), self.values.len() - 1);
        (self.values.len() - 1) as f64
    }
}

impl EventList {
    /// Empty.
    pub fn new(maker: Maker) -> Self {
        EventList {
            maker,
            ids: Joined::default(),
            data: Joined::default(),
            numbers: Vec::new(),
            types: Interned::default(),
            aggregates: Interned::default(),
            metadata: Vec::new(),
        }
    }

    /// Appends an event.
    pub fn push(&mut self, event: &StoredEvent<'_>) {
        let maker = self.maker;
        if let Some(metadata) = event.metadata {
            self.metadata.push((self.numbers.len() / EVENT_NUMBERS, maker.text(metadata.as_bytes())));
        }
        let numbers: [f64; EVENT_NUMBERS] = [
            self.ids.push(event.id),
            self.data.push(event.data),
            event.seq as f64,
            event.created.map_or(f64::NAN, |created| created as f64),
            event.position as f64,
            self.types.index(maker, event.type_name),
            self.aggregates.index(maker, event.aggregate_id),
        ];
        self.numbers.extend(numbers);
    }

    /// The page.
    pub fn finish(self) -> Raw {
        let maker = self.maker;
        let metadata = if self.metadata.is_empty() {
            maker.null()
        } else {
            let mut all = vec![maker.null(); self.numbers.len() / EVENT_NUMBERS];
            for (index, value) in self.metadata {
                all[index] = value;
            }
            maker.array(&all).0
        };
        maker.array(&[
            self.ids.finish(maker),
            self.data.finish(maker),
            maker.numbers(&self.numbers),
            maker.array(&self.types.values).0,
            maker.array(&self.aggregates.values).0,
            metadata,
        ])
    }
}

/// Numbers an event in a page.
const EVENT_NUMBERS: usize = 7;

/// Reads the elements of an array as values for SQLite. Numbers are bound as REAL and bigints as INTEGER, as
/// better-sqlite3 does; whatever else SQLite cannot hold is `ERR_INVALID_ARGUMENT`.
pub(crate) fn read_parameters(env: &Env, array: sys::napi_value) -> Result<Vec<Value>> {
    let env = env.raw();
    let mut length = 0;
    if unsafe { sys::napi_get_array_length(env, array, &mut length) } != sys::Status::napi_ok {
        return Err(Error::InvalidArgument("Parameters must be an array".to_owned()).into());
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
                    Err(Error::InvalidArgument("A bigint parameter does not fit into 64 bits".to_owned()).into())
                }
            }
            sys::ValueType::napi_string => Ok(Value::Text(read_text(env, value))),
            sys::ValueType::napi_object => read_bytes(env, value).map(Value::Blob).ok_or_else(unfit),
            _ => Err(unfit()),
        }
    }
}

fn unfit() -> Box<Error> {
    Error::InvalidArgument("SQLite can only bind numbers, strings, bigints, buffers, and null".to_owned()).into()
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

//! Turns the core's error into a JavaScript error with `code` and `fields` (JSON text), in this one place. The
//! TypeScript layer makes the `SyncError` of it, so that `instanceof` and the stack are the caller's.

#![allow(unsafe_code)]

use std::ptr;

use napi::bindgen_prelude::{Env, Status};
use napi::sys;

use crate::error::Error;

/// Throws `error` into `env` and answers the napi error that says so.
pub fn throw(env: &Env, error: &Error) -> napi::Error {
    let fields = serde_json::Value::Object(error.fields()).to_string();
    // SAFETY: `env` is the environment of the running call, and every value is made and used within it.
    let status = unsafe {
        let text = |text: &str| {
            let mut value = ptr::null_mut();
            sys::napi_create_string_utf8(env.raw(), text.as_ptr().cast(), text.len() as isize, &mut value);
            value
        };
        let mut object = ptr::null_mut();
        sys::napi_create_error(env.raw(), text(error.code()), text(&error.to_string()), &mut object);
        sys::napi_set_named_property(env.raw(), object, c"fields".as_ptr(), text(&fields));
        sys::napi_throw(env.raw(), object)
    };
    debug_assert_eq!(status, sys::Status::napi_ok, "an error object can always be thrown");
    napi::Error::new(Status::PendingException, error.to_string())
}

/// Ends a call of the boundary: a value, or a thrown coded error.
pub trait OrThrow<T> {
    /// Throws the error into `env`.
    fn or_throw(self, env: &Env) -> napi::Result<T>;
}

impl<T> OrThrow<T> for crate::error::Result<T> {
    fn or_throw(self, env: &Env) -> napi::Result<T> {
        self.map_err(|error| throw(env, &error))
    }
}

//! Which release this is: an addon and JavaScript of two releases may not work together.

use napi_derive::napi;

/// The version of the package that this addon was built for.
#[napi(catch_unwind)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

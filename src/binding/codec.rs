//! zstd for JavaScript, a chunk at a time. In memory alone: these handles belong to no database.

use std::cell::RefCell;

use napi::bindgen_prelude::{Env, External, Uint8Array};
use napi_derive::napi;

use super::coded_error::OrThrow;
use super::value::{Maker, Raw};
use crate::codec::{Compressor, Decompressor};
use crate::error::Error;

/// A frame that is being made, until it ends: megabytes, of which V8 knows nothing when it decides what to collect.
pub type CompressorHandle = External<RefCell<Option<Compressor>>>;

/// Frames that are being read, likewise.
pub type DecompressorHandle = External<RefCell<Option<Decompressor>>>;

/// Begins a frame with a window of 2^`window_log` bytes.
#[napi(catch_unwind, ts_return_type = "Compressor")]
pub fn compressor(env: &Env, window_log: u32) -> napi::Result<CompressorHandle> {
    Ok(External::new(RefCell::new(Some(Compressor::new(window_log).or_throw(env)?))))
}

/// Compresses a chunk. A Buffer, which may be empty.
#[napi(catch_unwind, ts_return_type = "Buffer")]
pub fn compress(
    env: &Env,
    #[napi(ts_arg_type = "Compressor")] compressor: &CompressorHandle,
    chunk: Uint8Array,
) -> napi::Result<Raw> {
    let mut compressor = compressor.borrow_mut();
    let compressor = compressor.as_mut().ok_or_else(ended).or_throw(env)?;
    let bytes = compressor.write(&chunk).or_throw(env)?;
    Ok(Raw(Maker::new(env).bytes(&bytes)))
}

/// Ends the frame: its last bytes, none where it had ended.
#[napi(catch_unwind, ts_return_type = "Buffer")]
pub fn compress_end(env: &Env, #[napi(ts_arg_type = "Compressor")] compressor: &CompressorHandle) -> napi::Result<Raw> {
    let bytes = compressor.take().map(|mut compressor| compressor.finish()).transpose().or_throw(env)?;
    Ok(Raw(Maker::new(env).bytes(&bytes.unwrap_or_default())))
}

/// Begins to read frames.
#[napi(catch_unwind, ts_return_type = "Decompressor")]
pub fn decompressor(env: &Env) -> napi::Result<DecompressorHandle> {
    Ok(External::new(RefCell::new(Some(Decompressor::new().or_throw(env)?))))
}

/// Decompresses a part of a chunk, at most 1 MiB: how much of it was used up, what came of it, and whether the input may
/// end here.
#[napi(catch_unwind, ts_return_type = "[consumed: number, output: Buffer, between: boolean]")]
pub fn decompress(
    env: &Env,
    #[napi(ts_arg_type = "Decompressor")] decompressor: &DecompressorHandle,
    chunk: Uint8Array,
) -> napi::Result<Raw> {
    let mut decompressor = decompressor.borrow_mut();
    let step = decompressor.as_mut().ok_or_else(ended).and_then(|it| it.read(&chunk)).or_throw(env)?;
    let maker = Maker::new(env);
    let values = [maker.integer(step.consumed as i64), maker.bytes(&step.output), maker.boolean(step.between)];
    Ok(maker.array(&values))
}

/// Ends reading. Again: does nothing.
#[napi(catch_unwind)]
pub fn decompress_end(#[napi(ts_arg_type = "Decompressor")] decompressor: &DecompressorHandle) {
    decompressor.take();
}

fn ended() -> Box<Error> {
    Error::InvalidArgument("zstd: it has ended".to_owned()).into()
}

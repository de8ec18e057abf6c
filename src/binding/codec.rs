//! zstd for JavaScript, a chunk at a time. In memory alone: these handles belong to no database.

use std::cell::RefCell;

use napi::bindgen_prelude::{Env, External, Uint8Array};
use napi_derive::napi;

use super::coded_error::OrThrow;
use super::value::{Maker, Raw};
use crate::codec::{Compressor, Decompressor};

/// A frame that is being made.
pub type CompressorHandle = External<RefCell<Compressor>>;

/// Frames that are being read.
pub type DecompressorHandle = External<RefCell<Decompressor>>;

/// Begins a frame.
#[napi(catch_unwind, ts_return_type = "Compressor")]
pub fn compressor(env: &Env) -> napi::Result<CompressorHandle> {
    Ok(External::new(RefCell::new(Compressor::new().or_throw(env)?)))
}

/// Compresses a chunk; with `flush` so that all of it can be read. A Buffer, which may be empty.
#[napi(catch_unwind, ts_return_type = "Buffer")]
pub fn compress(
    env: &Env,
    #[napi(ts_arg_type = "Compressor")] compressor: &CompressorHandle,
    chunk: Uint8Array,
    flush: bool,
) -> napi::Result<Raw> {
    let mut compressor = compressor.borrow_mut();
    let mut bytes = compressor.write(&chunk).or_throw(env)?;
    if flush {
        bytes.extend(compressor.flush().or_throw(env)?);
    }
    Ok(Raw(Maker::new(env).bytes(&bytes)))
}

/// Ends the frame: its last bytes.
#[napi(catch_unwind, ts_return_type = "Buffer")]
pub fn compress_end(env: &Env, #[napi(ts_arg_type = "Compressor")] compressor: &CompressorHandle) -> napi::Result<Raw> {
    let bytes = compressor.borrow_mut().finish().or_throw(env)?;
    Ok(Raw(Maker::new(env).bytes(&bytes)))
}

/// Begins to read frames.
#[napi(catch_unwind, ts_return_type = "Decompressor")]
pub fn decompressor(env: &Env) -> napi::Result<DecompressorHandle> {
    Ok(External::new(RefCell::new(Decompressor::new().or_throw(env)?)))
}

/// Decompresses a part of a chunk, at most 1 MiB: how much of it was used up, what came of it, and whether the input may
/// end here.
#[napi(catch_unwind, ts_return_type = "[consumed: number, output: Buffer, between: boolean]")]
pub fn decompress(
    env: &Env,
    #[napi(ts_arg_type = "Decompressor")] decompressor: &DecompressorHandle,
    chunk: Uint8Array,
) -> napi::Result<Raw> {
    let step = decompressor.borrow_mut().read(&chunk).or_throw(env)?;
    let maker = Maker::new(env);
    let values = [maker.integer(step.consumed as i64), maker.bytes(&step.output), maker.boolean(step.between)];
    Ok(maker.array(&values))
}

//! Replaying, as JavaScript drives it: parse, then page by page show what it must see, and apply.

use std::cell::RefCell;

use napi::bindgen_prelude::{Either3, Env, External, Uint8Array};
use napi::sys;
use napi_derive::napi;

use super::coded_error::OrThrow;
use super::store::Handle;
use super::value::{Maker, Raw};
use crate::error::{Error, Result};
use crate::replay::Batch;
use crate::replay::apply::Authority;
use crate::store::Store;

/// The input of one replay.
pub type BatchHandle = External<RefCell<Batch>>;

/// Reads the whole input and checks all shapes: JSON text (array or lines), the same as bytes, or a text an item.
#[napi(catch_unwind, ts_return_type = "Batch")]
pub fn replay_parse(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    input: Either3<String, Uint8Array, Vec<String>>,
) -> napi::Result<BatchHandle> {
    let limit = handle.max_event_bytes().or_throw(env)?;
    let batch = match input {
        Either3::A(text) => Batch::from_text(text, limit),
        // Copied before they are looked at: another thread may change bytes that it shares.
        Either3::B(bytes) => Batch::from_bytes(bytes.to_vec(), limit),
        Either3::C(texts) => Batch::from_texts(&texts, limit),
    };
    let batch = batch.or_throw(env)?;
    Ok(External::new(RefCell::new(batch)))
}

/// How many items there are.
#[napi(catch_unwind)]
pub fn replay_length(#[napi(ts_arg_type = "Batch")] batch: &BatchHandle) -> u32 {
    batch.borrow().len() as u32
}

/// The items from `from` that JavaScript must see: the end of the page, then eight flat values an item: index (−1 −
/// index where the data must first come back in stored form), def, seq, id, aggregateID, created, metadata, data.
#[napi(catch_unwind, ts_return_type = "FlatItems")]
pub fn replay_page(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Batch")] batch: &BatchHandle,
    from: u32,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let batch = batch.borrow();
    let (end, indices) = handle.replay_page(&batch, from as usize).or_throw(env)?;
    let mut values = vec![maker.integer(end as i64)];
    for index in indices {
        item_values(maker, handle, &batch, index, &mut values).or_throw(env)?;
    }
    Ok(maker.array(&values))
}

/// The events of items, in the same eight values as `replayPage`, without its first.
#[napi(catch_unwind, ts_return_type = "FlatItems")]
pub fn replay_events(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Batch")] batch: &BatchHandle,
    indices: Vec<u32>,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let batch = batch.borrow();
    let mut values = Vec::with_capacity(indices.len() * 8);
    for index in indices {
        item_values(maker, handle, &batch, index as usize, &mut values).or_throw(env)?;
    }
    Ok(maker.array(&values))
}

fn item_values(
    maker: Maker,
    store: &Store,
    batch: &Batch,
    index: usize,
    values: &mut Vec<sys::napi_value>,
) -> Result<()> {
    let unknown = || Error::InvalidArgument(format!("No event has index {index}"));
    let event = batch.event(index).ok_or_else(unknown)?;
    let definition = store.replay_definition(batch, index)?.ok_or_else(unknown)?;
    let signed = if event.canonical { index as i64 } else { -1 - index as i64 };
    values.extend([
        maker.integer(signed),
        maker.integer(definition as i64),
        maker.integer(event.seq),
        maker.text(event.id.as_bytes()),
        maker.text(event.aggregate_id.as_bytes()),
        maker.integer_or_null(event.created),
        maker.text_or_null(event.metadata.as_ref().map(|text| batch.text(text))),
        maker.text(batch.text(&event.data).as_bytes()),
    ]);
    Ok(())
}

/// Gives an item's data and metadata in the form in which they are stored.
#[napi(catch_unwind)]
pub fn replay_set_data(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Batch")] batch: &BatchHandle,
    index: u32,
    data: String,
    metadata: Option<String>,
) -> napi::Result<()> {
    handle.replay_set_data(&mut batch.borrow_mut(), index as usize, data, metadata).or_throw(env)
}

/// Gives the upcast input that a SQL projector gets as `:data`.
#[napi(catch_unwind)]
pub fn replay_set_projected(#[napi(ts_arg_type = "Batch")] batch: &BatchHandle, index: u32, data: String) {
    batch.borrow_mut().set_projected(index as usize, data);
}

/// Applies items inside the open transaction; `epoch` −1 for none. Answers where it stopped, how many events were
/// pending before, and index and position of each applied event (all with `collect`, else those of JavaScript projectors).
#[napi(catch_unwind, ts_return_type = "number[]")]
#[allow(clippy::too_many_arguments)]
pub fn replay_apply(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Batch")] batch: &BatchHandle,
    from: u32,
    to: u32,
    owner: Option<String>,
    epoch: f64,
    collect: bool,
) -> napi::Result<Raw> {
    let authority = Authority { owner: owner.as_deref(), epoch: (epoch >= 0.0).then_some(epoch as i64) };
    let (applied, pending) =
        handle.replay_apply(&mut batch.borrow_mut(), from as usize..to as usize, authority, collect).or_throw(env)?;
    let maker = Maker::new(env);
    let mut values = vec![maker.integer(applied.stop as i64), maker.integer(pending.into())];
    for (index, position) in &applied.events {
        values.extend([maker.integer(*index as i64), maker.integer(*position)]);
    }
    Ok(maker.array(&values))
}

/// Four flat values an aggregate, in order of appearance: aggregateID, applied, duplicate, seq.
#[napi(catch_unwind, ts_return_type = "(string | number)[]")]
pub fn replay_results(env: &Env, #[napi(ts_arg_type = "Batch")] batch: &BatchHandle) -> Raw {
    let maker = Maker::new(env);
    let values: Vec<_> = batch
        .borrow()
        .results()
        .iter()
        .flat_map(|result| {
            [
                maker.text(result.aggregate_id.as_bytes()),
                maker.integer(result.applied.into()),
                maker.integer(result.duplicate.into()),
                maker.integer(result.seq),
            ]
        })
        .collect();
    maker.array(&values)
}

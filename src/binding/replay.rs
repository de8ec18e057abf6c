//! Replaying, as JavaScript drives it: parse, then page by page show what it must see, and apply.

use std::cell::RefCell;

use napi::bindgen_prelude::{Either3, Env, External, Uint8Array};
use napi::sys;
use napi_derive::napi;

use super::coded_error::OrThrow;
use super::store::Handle;
use super::value::{Maker, Raw};
use crate::error::{Error, Result};
use crate::replay::apply::Authority;
use crate::replay::{Batch, Policy};
use crate::store::Store;

/// The input of one replay.
pub type BatchHandle = External<RefCell<Batch>>;

/// Reads the whole input and checks all shapes: JSON text (array or lines), the same as bytes, or a text an item.
/// `record`: events of unknown types are stored; `park`: aggregates can be parked.
#[napi(catch_unwind, ts_return_type = "Batch")]
pub fn replay_parse(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    input: Either3<String, Uint8Array, Vec<String>>,
    record: bool,
    park: bool,
) -> napi::Result<BatchHandle> {
    let limit = handle.max_event_bytes().or_throw(env)?;
    let batch = match input {
        Either3::A(text) => Batch::from_text(text, limit),
        // Copied before they are looked at: another thread may change bytes that it shares.
        Either3::B(bytes) => Batch::from_bytes(bytes.to_vec(), limit),
        Either3::C(texts) => Batch::from_texts(&texts, limit),
    };
    let batch = batch.or_throw(env)?.with(Policy { record, park });
    Ok(External::new(RefCell::new(batch)))
}

/// The next stored events of an aggregate that are to be projected, as a batch that is applied like a replay.
#[napi(catch_unwind, ts_return_type = "Batch")]
pub fn reproject(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    aggregate_id: String,
) -> napi::Result<BatchHandle> {
    let batch = handle.reproject(&aggregate_id).or_throw(env)?;
    Ok(External::new(RefCell::new(batch)))
}

/// What is done from here on can be forgotten by `replayRewind`.
#[napi(catch_unwind)]
pub fn replay_mark(#[napi(ts_arg_type = "Batch")] batch: &BatchHandle) {
    batch.borrow_mut().mark();
}

/// Forgets what was done since `replayMark`, which has been rolled back.
#[napi(catch_unwind)]
pub fn replay_rewind(#[napi(ts_arg_type = "Batch")] batch: &BatchHandle) {
    batch.borrow_mut().rewind();
}

/// Leaves the items of an item's aggregate from that one on. Answers the aggregate.
#[napi(catch_unwind)]
pub fn replay_park(#[napi(ts_arg_type = "Batch")] batch: &BatchHandle, index: u32) -> Option<String> {
    batch.borrow_mut().park(index as usize).map(str::to_owned)
}

/// The item that the last `replayApply` failed on; −1 where it was none.
#[napi(catch_unwind)]
pub fn replay_failed(#[napi(ts_arg_type = "Batch")] batch: &BatchHandle) -> i32 {
    batch.borrow().failed().map_or(-1, |index| index as i32)
}

/// How many items there are.
#[napi(catch_unwind)]
pub fn replay_length(#[napi(ts_arg_type = "Batch")] batch: &BatchHandle) -> u32 {
    batch.borrow().len() as u32
}

/// The items from `from` that JavaScript must see: the end of the page, then eight flat values an item: index (−1 −
/// index where the data must first come back in stored form), def (the name of an unknown type), seq, id, aggregateID,
/// created, metadata, data.
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
    let definition = store.replay_definition(batch, index)?;
    let signed = if event.canonical { index as i64 } else { -1 - index as i64 };
    values.extend([
        maker.integer(signed),
        definition.map_or_else(|| maker.text(event.type_name.as_bytes()), |index| maker.integer(index as i64)),
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
/// pending before, and three values an applied event (those of JavaScript projectors, and with `collect` all that are told):
/// its index, its position, and 1 where its projector is to run, plus 2 where listeners are to hear it.
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
    for event in &applied.events {
        let steps = i64::from(event.project) + 2 * i64::from(event.publish);
        values.extend([maker.integer(event.index as i64), maker.integer(event.position), maker.integer(steps)]);
    }
    Ok(maker.array(&values))
}

/// Ends a replay inside its transaction. Five flat values an aggregate, in order of appearance: aggregateID, applied,
/// duplicate, seq, and the last seq that is projected where that is another.
#[napi(catch_unwind, ts_return_type = "(string | number | null)[]")]
pub fn replay_finish(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Batch")] batch: &BatchHandle,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let results = handle.replay_finish(&mut batch.borrow_mut()).or_throw(env)?;
    let values: Vec<_> = results
        .iter()
        .flat_map(|result| {
            [
                maker.text(result.aggregate_id.as_bytes()),
                maker.integer(result.applied.into()),
                maker.integer(result.duplicate.into()),
                maker.integer(result.seq),
                maker.integer_or_null(result.projected),
            ]
        })
        .collect();
    Ok(maker.array(&values))
}

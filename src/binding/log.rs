//! Reading the log, as JavaScript calls it. Numbers have been checked in TypeScript.

use napi::bindgen_prelude::Env;
use napi_derive::napi;

use super::coded_error::OrThrow;
use super::store::Handle;
use super::value::{EventList, Maker, Raw};
use crate::history::Range;
use crate::log::commits;

/// A page of one aggregate's events; `before` −1 for none.
#[napi(catch_unwind, ts_return_type = "EventPage")]
pub fn read(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    aggregate_id: String,
    after: f64,
    before: f64,
    limit: u32,
    descending: bool,
) -> napi::Result<Raw> {
    let before = (before >= 0.0).then_some(before as i64);
    let range = Range { after: after as i64, before, limit: limit as usize, descending };
    let mut events = EventList::new(Maker::new(env));
    handle
        .read(&aggregate_id, range, &mut |event| {
            events.push(event);
            Ok(())
        })
        .or_throw(env)?;
    Ok(events.finish())
}

/// A page of all events in the order of commits.
#[napi(catch_unwind, ts_return_type = "EventPage")]
pub fn read_all(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    after_position: f64,
    limit: u32,
) -> napi::Result<Raw> {
    let mut events = EventList::new(Maker::new(env));
    handle
        .read_all(after_position as i64, limit as usize, &mut |event| {
            events.push(event);
            Ok(())
        })
        .or_throw(env)?;
    Ok(events.finish())
}

/// One event, or nothing.
#[napi(catch_unwind, ts_return_type = "EventPage")]
pub fn get(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    aggregate_id: String,
    seq: f64,
) -> napi::Result<Raw> {
    read(env, handle, aggregate_id, seq - 1.0, seq + 1.0, 1, false)
}

/// A page of the log, `after < seq <= through`: events, gaps as flat pairs, the tombstone as its seq and a page of
/// the deletion event (or none), and whether the page reaches the end.
#[napi(
    catch_unwind,
    ts_return_type = "[events: EventPage, gaps: number[], removed: [seq: number, event: EventPage] | null, done: boolean]"
)]
pub fn log_page(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    aggregate_id: String,
    after: f64,
    through: f64,
    limit: u32,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let mut events = EventList::new(maker);
    let page = handle
        .read_log(&aggregate_id, (after as i64, through as i64), limit as usize, &mut |event| {
            events.push(event);
            Ok(())
        })
        .or_throw(env)?;
    let removed = match page.removed {
        None => maker.null(),
        Some((seq, event)) => {
            let mut list = EventList::new(maker);
            if let Some(json) = event {
                let visited = commits::visit_tombstone(&json, 0, &mut |event| {
                    list.push(event);
                    Ok(())
                });
                visited.or_throw(env)?;
            }
            maker.array(&[maker.integer(seq), list.finish().0]).0
        }
    };
    let gaps: Vec<_> =
        page.gaps.iter().flat_map(|(after, through)| [*after, *through]).map(|seq| maker.integer(seq)).collect();
    Ok(maker.array(&[events.finish().0, maker.array(&gaps).0, removed, maker.boolean(page.done)]))
}

/// A page of the log as lines of JSON, one log item each: a Buffer of them, the last seq that it tells of, whether it
/// reaches the end, how many events and gaps it holds, and the seq of the tombstone or null.
#[napi(
    catch_unwind,
    ts_return_type = "[lines: Buffer, last: number, done: boolean, events: number, gaps: number, removed: number | null]"
)]
pub fn log_text(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    aggregate_id: String,
    after: f64,
    through: f64,
    limit: u32,
) -> napi::Result<Raw> {
    let page = handle.read_text(&aggregate_id, (after as i64, through as i64), limit as usize).or_throw(env)?;
    let maker = Maker::new(env);
    Ok(maker.array(&[
        maker.bytes(&page.lines),
        maker.integer(page.last),
        maker.boolean(page.done),
        maker.integer(page.events.into()),
        maker.integer(page.gaps.into()),
        maker.integer_or_null(page.removed),
    ]))
}

/// Aggregates in the order of their creation, from after a key: four flat values each, key, id, last seq, and the seq
/// through which history was erased, or -1.
#[napi(catch_unwind, ts_return_type = "(string | number)[]")]
pub fn created(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    after_key: f64,
    limit: u32,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let listed = handle.created(after_key as i64, limit as usize).or_throw(env)?;
    let values: Vec<_> = listed
        .iter()
        .flat_map(|one| {
            let id = maker.text(one.aggregate_id.as_bytes());
            [maker.integer(one.key), id, maker.integer(one.seq), maker.integer(one.removed_seq)]
        })
        .collect();
    Ok(maker.array(&values))
}

/// The last seq of an aggregate, −1 when unknown.
#[napi(catch_unwind)]
pub fn sequence(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, aggregate_id: String) -> napi::Result<f64> {
    Ok(handle.sequence(&aggregate_id).or_throw(env)? as f64)
}

/// The last seq of the named aggregates that are known, or of all: flat pairs of id and seq.
#[napi(catch_unwind, ts_return_type = "(string | number)[]")]
pub fn sequences(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    ids: Option<Vec<String>>,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let pairs = handle.sequences(ids.as_deref()).or_throw(env)?;
    let mut values = Vec::with_capacity(pairs.len() * 2);
    maker.extend_pairs(&mut values, &pairs);
    Ok(maker.array(&values))
}

/// Aggregates by id: five flat values each, id, seq, owner, epoch, and the last seq that is projected where that is another.
#[napi(catch_unwind, ts_return_type = "(string | number | null)[]")]
pub fn aggregates(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    prefix: String,
    after: String,
    limit: u32,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let listed = handle.aggregates(&prefix, &after, limit as usize).or_throw(env)?;
    let values: Vec<_> = listed
        .iter()
        .flat_map(|one| {
            [
                maker.text(one.aggregate_id.as_bytes()),
                maker.integer(one.seq),
                maker.text_or_null(one.owner.as_deref()),
                maker.integer(one.epoch),
                maker.integer_or_null(one.projected),
            ]
        })
        .collect();
    Ok(maker.array(&values))
}

//! What others have committed: waking JavaScript for it, and telling what it was.

use std::cell::RefCell;
use std::sync::Arc;

use napi::Status;
use napi::bindgen_prelude::{Env, External, Function};
use napi::sys;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

use super::coded_error::OrThrow;
use super::store::Handle;
use super::value::{EventList, Maker, Raw};
use crate::watch::Stop;

/// Weak: it keeps no process alive by itself. A queue of one: a call that waits already says all that a second one would.
type Waker = ThreadsafeFunction<(), (), (), Status, false, true, 1>;

/// The function that a store's watching thread calls, and what stops the thread, until it is unwatched.
pub type WatchHandle = External<RefCell<Option<(Arc<Waker>, Arc<Stop>)>>>;

/// Calls `callback`, on the event loop, each time others have committed more to the log than this store has looked at.
/// `null` in memory, where there are no others.
#[napi(catch_unwind, ts_return_type = "Watch | null")]
pub fn watch(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    callback: Function<'_, (), ()>,
) -> napi::Result<Option<WatchHandle>> {
    let waker = callback
        .build_threadsafe_function()
        .callee_handled::<false>()
        .weak::<true>()
        .max_queue_size::<1>()
        .build()
        .map(Arc::new)?;
    let calling = Arc::clone(&waker);
    // Refused: a call waits already, or the environment is on its way out.
    let notify = Box::new(move || {
        calling.call((), ThreadsafeFunctionCallMode::NonBlocking);
    });
    let stop = handle.watch(notify).or_throw(env)?;
    Ok(stop.map(|stop| External::new(RefCell::new(Some((waker, stop))))))
}

/// Ends the calls, without waiting for the thread; again is nothing.
#[napi(catch_unwind)]
pub fn unwatch(#[napi(ts_arg_type = "Watch")] watch: &WatchHandle) {
    // The function is not left to the garbage collector: it is a handle of the event loop.
    if let Some((_, stop)) = watch.take() {
        stop.ring();
    }
}

/// Whether the process stays alive for the next call.
#[napi(catch_unwind)]
pub fn watch_hold(env: &Env, #[napi(ts_arg_type = "Watch")] watch: &WatchHandle, hold: bool) {
    let watch = watch.borrow();
    let Some((watch, _)) = watch.as_ref().filter(|(watch, _)| !watch.aborted()) else { return };
    let change = if hold { sys::napi_ref_threadsafe_function } else { sys::napi_unref_threadsafe_function };
    // SAFETY: the function has not been finalized, which only this thread's environment could do.
    #[allow(unsafe_code)]
    unsafe {
        change(env.raw(), watch.raw());
    }
}

/// The last position that the watching thread has seen; 0 without one.
#[napi(catch_unwind)]
pub fn watched_position(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<f64> {
    Ok(handle.watched_position().or_throw(env)? as f64)
}

/// The last position in the log that is committed.
#[napi(catch_unwind)]
pub fn last_position(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<f64> {
    Ok(handle.last_position().or_throw(env)? as f64)
}

/// The last position of this store's last commit; 0 where that is not certain.
#[napi(catch_unwind)]
pub fn committed_position(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<f64> {
    Ok(handle.committed_position().or_throw(env)? as f64)
}

/// The aggregates that moved after a position, looked for in at most `limit` event rows: the position through which
/// it was looked, whether that is the last one, then id and last seq of each.
#[napi(catch_unwind, ts_return_type = "[through: number, done: boolean, ...pairs: (string | number)[]]")]
pub fn moved(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    after_position: f64,
    limit: u32,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let moved = handle.moved(after_position as i64, limit as usize).or_throw(env)?;
    let mut values = vec![maker.integer(moved.through), maker.boolean(moved.done)];
    maker.extend_pairs(&mut values, &moved.aggregates);
    Ok(maker.array(&values))
}

/// Which aggregates had history erased after a position, at most `limit`: the position through which it was looked, then id
/// and last seq of each.
#[napi(catch_unwind, ts_return_type = "[through: number, ...pairs: (string | number)[]]")]
pub fn erased(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    after_position: f64,
    limit: u32,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let (through, found) = handle.erased(after_position as i64, limit as usize).or_throw(env)?;
    let mut values = vec![maker.integer(through)];
    maker.extend_pairs(&mut values, &found);
    Ok(maker.array(&values))
}

/// A page of what was committed after a position, deletion events included: the events, the position through which it
/// reaches, and whether that is the end.
#[napi(catch_unwind, ts_return_type = "[events: EventPage, through: number, done: boolean]")]
pub fn committed(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    after_position: f64,
    limit: u32,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let mut events = EventList::new(maker);
    let (through, done) = handle
        .read_committed(after_position as i64, limit as usize, &mut |event| {
            events.push(event);
            Ok(())
        })
        .or_throw(env)?;
    Ok(maker.array(&[events.finish().0, maker.integer(through), maker.boolean(done)]))
}

/// What an event has that is published and never stored: its id, its time, the aggregate's last seq, the last position in
/// the log, and its place among the pending events or −1 where no transaction is open.
#[napi(
    catch_unwind,
    ts_return_type = "[id: string, created: number, after: number, position: number, pendingIndex: number]"
)]
pub fn stamp(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, aggregate_id: String) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let stamped = handle.stamp(&aggregate_id).or_throw(env)?;
    Ok(maker.array(&[
        maker.text(stamped.id.as_bytes()),
        maker.integer(stamped.created),
        maker.integer(stamped.after),
        maker.integer(stamped.position),
        maker.integer(stamped.pending.map_or(-1, i64::from)),
    ]))
}

//! What is closed when a program, or a worker thread, ends and has not closed its stores.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use napi::bindgen_prelude::Env;

use crate::store::Store;

thread_local! {
    /// By environment, of which a thread may have several one after the other.
    static OPENED: RefCell<HashMap<usize, Vec<Weak<Store>>>> = RefCell::default();
}

/// Closes the store at the end of its environment, if it is still open: rolls back what it has begun, gives its lock back
/// and ends its threads. The finalizer of its handle does the same, but only Node calls that when a worker ends; Bun and
/// Deno call what is registered here, on the environment's own thread.
pub fn close_at_end(env: &Env, store: &Rc<Store>) -> napi::Result<()> {
    let key = env.raw() as usize;
    let is_known = OPENED.with_borrow(|opened| opened.contains_key(&key));
    if !is_known {
        env.add_env_cleanup_hook(key, end)?;
    }
    OPENED.with_borrow_mut(|opened| {
        let stores = opened.entry(key).or_default();
        stores.retain(|store| store.strong_count() > 0);
        stores.push(Rc::downgrade(store));
    });
    Ok(())
}

fn end(key: usize) {
    // Dropping a store may drop functions of JavaScript: nothing is borrowed meanwhile.
    let stores = OPENED.with_borrow_mut(|opened| opened.remove(&key)).unwrap_or_default();
    for store in stores.iter().filter_map(Weak::upgrade) {
        store.abandon();
    }
}

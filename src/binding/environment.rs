//! What is closed when a program, or a worker thread, ends and has not closed its stores.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// Called from C, where no panic may go: one store that cannot be closed keeps no other from it.
fn end(key: usize) {
    // Dropping a store may drop functions of JavaScript: nothing is borrowed meanwhile.
    let opened = OPENED.try_with(|opened| opened.borrow_mut().remove(&key));
    for store in opened.ok().flatten().unwrap_or_default().iter().filter_map(Weak::upgrade) {
        let _ = catch_unwind(AssertUnwindSafe(|| store.abandon()));
    }
}

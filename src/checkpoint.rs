//! Checkpoints on a thread with a connection of its own, so that `run` does not pay for them. PASSIVE copies frames
//! back and blocks nobody, but under a busy writer it never lets the WAL begin anew; past a bound, RESTART does, which
//! needs the write lock for a moment: a writer that begins one transaction after the other leaves it no room, so it
//! waits its turn before the next BEGIN. The writer itself checkpoints only at the hard bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::connection::{Beside, Connection};
use crate::error::Result;
use crate::limits::{WAL_HARD_BYTES, WAL_PASSIVE_BYTES, WAL_RESTART_BYTES};
use crate::turn::Turns;

/// How long a checkpoint of the thread waits for readers of old frames before it tries another time.
const RESTART_PATIENCE: Duration = Duration::from_millis(100);

/// How long the writer waits for the thread at most.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// After a checkpoint that a reader prevented, the thread tries again by itself: after this long, then twice as long …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// With nothing to do for this long, the thread ends; the next order starts it again. A program may have a thousand stores
/// open, and write to few of them.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Watches the size of the WAL for one store. The thread starts at its first work.
pub struct Checkpointer {
    beside: Beside,
    turns: Arc<Turns>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// WAL bytes at which the thread was last called.
    called_at: u64,
    /// WAL bytes below which the writer does not try again after a checkpoint that a reader prevented.
    hard_bound: u64,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// At the last attempt, a reader of old frames kept the log from beginning anew.
    held: AtomicBool,
}

#[derive(Default)]
struct Orders {
    checkpoint: bool,
    stop: bool,
    /// The thread is at work.
    working: bool,
    /// It needs the write lock: the writer waits before its next BEGIN.
    restarting: bool,
    /// It has ended by itself.
    ended: bool,
}

impl Checkpointer {
    /// For a store on a file.
    pub fn new(beside: Beside, turns: Arc<Turns>) -> Self {
        let beside = beside.waiting(RESTART_PATIENCE);
        Checkpointer { beside, turns, shared: Arc::default(), thread: None, called_at: 0, hard_bound: WAL_HARD_BYTES }
    }

    /// Whether, at the last attempt, a reader of old frames kept the WAL from beginning anew: it grows as long as that one
    /// reads on.
    pub fn is_held(&self) -> bool {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// After a commit: calls the thread each time the WAL has grown by some megabytes.
    pub fn committed(&mut self, wal_bytes: u64) {
        if wal_bytes < self.called_at {
            // The log began anew.
            (self.called_at, self.hard_bound) = (0, WAL_HARD_BYTES);
            self.shared.held.store(false, Ordering::Relaxed);
        }
        if wal_bytes < self.called_at + WAL_PASSIVE_BYTES {
            return;
        }
        self.called_at = wal_bytes;
        let mut orders = self.shared.orders.lock();
        orders.checkpoint = true;
        let ended = std::mem::take(&mut orders.ended);
        drop(orders);
        self.shared.changed.notify_all();
        if self.thread.is_none() || ended {
            self.start();
        }
    }

    fn start(&mut self) {
        if let Some(earlier) = self.thread.take() {
            // All that it may still be doing is closing its connection, which must not outlive the store's.
            let _ = earlier.join();
        }
        let (beside, shared, turns) = (self.beside.clone(), Arc::clone(&self.shared), Arc::clone(&self.turns));
        let thread = std::thread::Builder::new().name("syncline-checkpoint".to_owned());
        // Without a thread the writer checkpoints at the hard bound: slower, and nothing is lost.
        self.thread = thread.spawn(move || work(&beside, &shared, &turns)).ok();
    }

    /// Before a BEGIN: lets the thread have the lock if it asks for it, and at the hard bound waits for it and then
    /// checkpoints on the writer's own connection. A reader that holds old frames can prevent that; then the writer goes
    /// on, and tries again when the WAL has doubled: each attempt costs it the patience for nothing. `false`: the lock is
    /// the thread's, and `wait` was not asked for.
    pub fn before_begin(&mut self, connection: &Connection, wait: bool) -> bool {
        if self.called_at > 0 && !self.shared.await_while(wait, |orders| orders.restarting) {
            return false;
        }
        let wal_bytes = connection.wal_bytes();
        if wal_bytes < self.hard_bound {
            return true;
        }
        // It has been called, or is at work; where there is none, nobody comes.
        let has_thread = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if has_thread && !self.shared.await_while(wait, |orders| orders.checkpoint || orders.working) {
            return false;
        }
        let patience = if wait { RESTART_PATIENCE } else { Duration::ZERO };
        let restart = || connection.waiting(patience, || connection.checkpoint("RESTART"));
        let restarted = self.turns.restart(restart);
        let restarted = restarted.is_ok_and(|(busy, _)| !busy);
        self.shared.held.store(!restarted, Ordering::Relaxed);
        self.hard_bound = if restarted { WAL_HARD_BYTES } else { wal_bytes * 2 };
        true
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.orders.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(beside: &Beside, shared: &Shared, turns: &Turns) {
    let mut connection = None;
    let mut blocked: Option<Blocked> = None;
    while shared.next_order(blocked.as_ref().map(|blocked| blocked.until)) {
        if connection.is_none() {
            connection = Connection::open_beside(beside).ok();
        }
        // While a reader holds old frames, each attempt to restart would stop the writer for nothing.
        let may_restart = blocked.as_ref().is_none_or(|blocked| Instant::now() >= blocked.until);
        // A checkpoint that fails (a full disk, say) leaves the WAL as it was. The next one tries again, and the writer
        // meets the same failure where it can be reported.
        let done = connection.as_ref().map(|connection| shrink(connection, shared, turns, may_restart));
        blocked = match done {
            Some(Ok(Shrunk::Blocked)) => Some(Blocked::after(blocked.as_ref())),
            Some(Ok(Shrunk::Waiting)) => blocked,
            _ => None,
        };
        shared.held.store(blocked.is_some(), Ordering::Relaxed);
        shared.done();
    }
}

/// A reader kept the log from restarting: until when it is not tried again, and after which pause.
struct Blocked {
    until: Instant,
    pause: Duration,
}

impl Blocked {
    fn after(earlier: Option<&Blocked>) -> Self {
        let pause = earlier.map_or(FIRST_PAUSE, |blocked| (blocked.pause * 2).min(LONGEST_PAUSE));
        Blocked { until: Instant::now() + pause, pause }
    }
}

/// How a checkpoint ended.
enum Shrunk {
    /// The WAL is small, or begins anew.
    Enough,
    /// A reader of old frames kept it from beginning anew.
    Blocked,
    /// It is to begin anew, and it is too early to try.
    Waiting,
}

/// Copies frames back and, past the bound, lets the log begin anew. A file that has outgrown the hard bound is also cut,
/// since nobody may write for a long time.
fn shrink(connection: &Connection, shared: &Shared, turns: &Turns, may_restart: bool) -> Result<Shrunk> {
    let (_, wal_bytes) = connection.checkpoint("PASSIVE")?;
    if wal_bytes < WAL_RESTART_BYTES {
        return Ok(Shrunk::Enough);
    }
    if !may_restart {
        return Ok(Shrunk::Waiting);
    }
    shared.orders.lock().restarting = true;
    let mode = if wal_bytes < WAL_HARD_BYTES { "RESTART" } else { "TRUNCATE" };
    let (busy, _) = turns.restart(|| connection.checkpoint(mode))?;
    Ok(if busy { Shrunk::Blocked } else { Shrunk::Enough })
}

impl Shared {
    /// The thread waits for an order, at most until `until` where one is still to be finished. `false`: it ends.
    fn next_order(&self, until: Option<Instant>) -> bool {
        let mut orders = self.orders.lock();
        let rested = Instant::now() + LONGEST_REST;
        while !orders.checkpoint && !orders.stop {
            if !self.changed.wait_until(&mut orders, until.unwrap_or(rested)).timed_out() {
                continue;
            }
            if until.is_none() && !orders.checkpoint {
                orders.ended = true;
                return false;
            }
            break;
        }
        (orders.checkpoint, orders.working) = (false, true);
        !orders.stop
    }

    /// The thread has done what it was called for.
    fn done(&self) {
        let mut orders = self.orders.lock();
        (orders.working, orders.restarting) = (false, false);
        self.changed.notify_all();
    }

    /// The writer waits while the thread is at something, for a bounded time: it is never worth stopping for good.
    /// `false`: it is, and the writer must not wait.
    fn await_while(&self, wait: bool, at_something: impl Fn(&Orders) -> bool) -> bool {
        let mut orders = self.orders.lock();
        while at_something(&orders) {
            if !wait {
                return false;
            }
            if self.changed.wait_for(&mut orders, LONGEST_TURN).timed_out() {
                break;
            }
        }
        true
    }
}

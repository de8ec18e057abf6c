//! Turns at the write lock within one store. Whoever maintains the file asks for the lock for some milliseconds at a
//! time; a writer that begins one transaction after the other would leave it no room, so it waits its turn before the next
//! BEGIN, on a condition variable: SQLite's own waiting sleeps for whole milliseconds.
//!
//! A checkpoint that lets the WAL begin anew needs a moment without readers, which who reads one page after the other leaves
//! it no more than a busy writer would: maintenance stands back for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::connection::Connection;
use crate::error::{Error, Result};

/// How long the writer waits for maintenance at most. Its slices take milliseconds; should one hang, the writer does not.
const LONGEST_TURN: Duration = Duration::from_millis(500);

/// How long one attempt keeps the writer waiting while somebody else has the lock: the writer's own transaction that
/// is about to end, or another process.
const PATIENCE: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_micros(50);

/// Between two attempts.
const REST: Duration = Duration::from_millis(5);

/// How long it is tried until a slice is given up, to be made anew later, where the connection is not less patient.
pub const SLICE_PATIENCE: Duration = Duration::from_secs(1);

/// One a store.
#[derive(Default)]
pub struct Turns {
    asked: Mutex<u32>,
    /// Checkpoints that let the WAL begin anew.
    restarting: Mutex<u32>,
    changed: Condvar,
    restarted: Condvar,
    longest: AtomicU64,
    over: AtomicBool,
}

/// The writer waits as long as this lives.
struct Asked<'t>(&'t Turns);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        *self.0.asked.lock() -= 1;
        self.0.changed.notify_all();
    }
}

impl Turns {
    /// For one store and all that maintain its file.
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// Before the writer's BEGIN. `false`: maintenance has the turn, and `wait` was not asked for.
    pub fn give_way(&self, wait: bool) -> bool {
        let mut asked = self.asked.lock();
        if *asked == 0 {
            return true;
        }
        // Of all that ask, one after the other, it is the whole time that is bounded.
        let until = Instant::now() + LONGEST_TURN;
        while *asked > 0 {
            if !wait {
                return false;
            }
            if self.changed.wait_until(&mut asked, until).timed_out() {
                break;
            }
        }
        true
    }

    /// The store is being closed: nobody goes on asking for a lock that others hold.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// The longest time that a slice of maintenance has held the write lock.
    pub fn longest_hold(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }

    /// Does `slice` in a transaction of its own, at its turn. It commits where `slice` answers something, and takes
    /// everything back where it answers nothing or fails. `ERR_BUSY` where the lock is not to be had.
    pub fn slice<T>(&self, connection: &Connection, slice: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
        let (first, patience) = (Instant::now(), connection.patience().min(SLICE_PATIENCE));
        loop {
            let start = Instant::now();
            let asked = self.ask();
            while start.elapsed() < PATIENCE {
                match connection.waiting(Duration::ZERO, || Ok(connection.cached("BEGIN IMMEDIATE")?.raw_execute()?)) {
                    Ok(_) => return self.held(connection, slice),
                    Err(error) if error.is_busy() => std::thread::sleep(PAUSE),
                    Err(error) => return Err(error),
                }
            }
            drop(asked);
            let waited = first.elapsed();
            if waited >= patience || self.over.load(Ordering::Relaxed) {
                let waited = waited.as_millis() as u64;
                let message = format!("\"{}\": The database is locked (waited {waited} ms)", connection.path());
                return Err(Error::Busy { message, waited: Some(waited), sqlite_code: None }.into());
            }
            std::thread::sleep(REST.min(patience - waited));
        }
    }

    /// Does `call`, which takes the lock by itself, while the writer waits.
    pub fn during<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let _asked = self.ask();
        call()
    }

    /// Does `checkpoint` while maintenance stands back.
    pub fn restart<T>(&self, checkpoint: impl FnOnce() -> T) -> T {
        *self.restarting.lock() += 1;
        let done = checkpoint();
        *self.restarting.lock() -= 1;
        self.restarted.notify_all();
        done
    }

    /// Between two slices of maintenance: waits, for a bounded time, while the WAL is about to begin anew.
    pub fn stand_back(&self) {
        let mut restarting = self.restarting.lock();
        let until = Instant::now() + LONGEST_TURN;
        while *restarting > 0 && !self.restarted.wait_until(&mut restarting, until).timed_out() {}
    }

    fn ask(&self) -> Asked<'_> {
        *self.asked.lock() += 1;
        Asked(self)
    }

    fn held<T>(&self, connection: &Connection, slice: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
        let start = Instant::now();
        let done = connection.check_in_place().and_then(|()| slice()).and_then(|done| {
            if done.is_some() {
                connection.commit()?;
            }
            Ok(done)
        });
        if !connection.sqlite().is_autocommit() {
            // It fails only where SQLite has rolled back by itself.
            let _ = connection.sqlite().execute_batch("ROLLBACK");
        }
        let held = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.longest.fetch_max(held, Ordering::Relaxed);
        done
    }
}

//! Packing by itself: a thread with a connection of its own packs when enough has been written, and all of it once the
//! store has been idle. It starts with the first event that the store records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::compact::Rules;
use crate::connection::{Connection, OpenOptions};
use crate::error::Result;
use crate::job::Job;
use crate::known::Known;
use crate::limits::WAL_PASSIVE_BYTES;
use crate::maintain::{self, Maintenance, Task};
use crate::pack::Keep;
use crate::segment::Effort;
use crate::tables;
use crate::turn::Turns;

/// When and what to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// What stays rows while an aggregate is written.
    pub keep: Keep,
    /// Bytes that the store writes between two rounds.
    pub at_bytes: u64,
    /// After this long without a commit everything is packed.
    pub idle: Duration,
}

/// Free pages stay for what is written next, up to this part of the file …
const FREE_PART: i64 = 4;
/// … or this many, if that is more.
const FREE_PAGES: i64 = 1_024;
/// In an idle file nobody needs them, but a handful are not worth a commit.
const IDLE_FREE_PAGES: i64 = 16;

/// The thread of one store.
pub struct Packer {
    options: OpenOptions,
    schedule: Schedule,
    shared: Arc<Shared>,
    turns: Arc<Turns>,
    thread: Option<JoinHandle<()>>,
    /// Bytes written since the last round was ordered.
    written: u64,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// The thread waits for the next commit, however long that takes.
    parked: AtomicBool,
    commits: AtomicU64,
    stop: AtomicBool,
}

#[derive(Default)]
struct Orders {
    round: bool,
    /// How many commits there were when everything was packed last.
    packed_at: Option<u64>,
    rules: Arc<Rules>,
}

impl Packer {
    /// For a store on a file.
    pub fn new(options: OpenOptions, schedule: Schedule, turns: Arc<Turns>) -> Self {
        Packer { options, schedule, shared: Arc::default(), turns, thread: None, written: 0 }
    }

    /// Compacts by these rules what is packed from now on.
    pub fn set_rules(&self, rules: Arc<Rules>) {
        self.shared.orders.lock().rules = rules;
    }

    /// After a commit that recorded so many bytes.
    pub fn committed(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.written += bytes;
        self.shared.commits.fetch_add(1, Ordering::SeqCst);
        if self.thread.is_none() {
            let (options, schedule) = (self.options.clone(), self.schedule);
            let (shared, turns) = (Arc::clone(&self.shared), Arc::clone(&self.turns));
            let thread = std::thread::Builder::new().name("syncline-packer".to_owned());
            // Without a thread the file grows as if packing were off; `maintain` packs it.
            self.thread = thread.spawn(move || work(&options, &schedule, &shared, &turns)).ok();
        }
        let round = self.written >= self.schedule.at_bytes;
        if round || self.shared.parked.load(Ordering::SeqCst) {
            self.shared.orders.lock().round |= round;
            self.shared.changed.notify_all();
            if round {
                self.written = 0;
            }
        }
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(self.shared.orders.lock());
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Why the thread goes to work.
enum Cause {
    Round,
    Idle,
    Stop,
}

fn work(options: &OpenOptions, schedule: &Schedule, shared: &Shared, turns: &Arc<Turns>) {
    let mut connection: Option<(Connection, Known)> = None;
    loop {
        let cause = shared.next(schedule.idle);
        if matches!(cause, Cause::Stop) {
            return;
        }
        if connection.is_none() {
            connection = Connection::open_worker(options).ok().map(|connection| (connection, Known::default()));
        }
        // What fails (a full disk, a lock that somebody else holds) leaves everything as it was. The next round tries
        // again, and the writer meets the same failure where it can be reported.
        let done =
            connection.as_mut().map(|(connection, known)| round(connection, known, &cause, schedule, shared, turns));
        if !matches!(done, Some(Ok(()))) {
            connection = None;
        }
    }
}

fn round(
    connection: &Connection,
    known: &mut Known,
    cause: &Cause,
    schedule: &Schedule,
    shared: &Shared,
    turns: &Arc<Turns>,
) -> Result<()> {
    let idle = matches!(cause, Cause::Idle);
    let rules = Arc::clone(&shared.orders.lock().rules);
    let free_pages = (maintain::page_count(connection)? / FREE_PART).max(FREE_PAGES);
    let task = Task {
        keep: schedule.keep,
        idle_through: if idle { tables::last_position(connection)? } else { 0 },
        effort: Effort::Quick,
        compact: false,
        free_pages: if idle { IDLE_FREE_PAGES } else { free_pages },
        analyze: false,
        truncate: idle,
        rewrite: false,
    };
    let mut maintenance = Maintenance::new(task, rules, Arc::clone(turns));
    let mut checkpointed = 0;
    while !shared.stop.load(Ordering::Relaxed) && maintenance.step(connection, known)? {
        // Nobody else looks at what this thread writes while the store itself is silent.
        let wal_bytes = connection.wal_bytes();
        if wal_bytes >= checkpointed + WAL_PASSIVE_BYTES {
            connection.checkpoint("PASSIVE")?;
            checkpointed = wal_bytes;
        }
    }
    known.forget();
    Ok(())
}

impl Shared {
    fn next(&self, idle: Duration) -> Cause {
        let mut orders = self.orders.lock();
        loop {
            let seen = self.commits.load(Ordering::SeqCst);
            if self.stop.load(Ordering::Relaxed) {
                return Cause::Stop;
            }
            if std::mem::take(&mut orders.round) {
                return Cause::Round;
            }
            if orders.packed_at == Some(seen) {
                // A commit either sees this, and calls, or is seen here: it may have come while the file was being packed.
                self.parked.store(true, Ordering::SeqCst);
                if self.commits.load(Ordering::SeqCst) == seen {
                    self.changed.wait(&mut orders);
                }
                self.parked.store(false, Ordering::SeqCst);
                continue;
            }
            let timed_out = self.changed.wait_for(&mut orders, idle).timed_out();
            if timed_out && self.commits.load(Ordering::SeqCst) == seen {
                orders.packed_at = Some(seen);
                return Cause::Idle;
            }
        }
    }
}

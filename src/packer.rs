//! Packing by itself: a thread with a connection of its own packs when enough has been written, and all of it once the
//! store has been idle. It starts with the first event that the store records, ends once there is nothing left to pack, and
//! starts again with the next event: a program may have a thousand stores open, and write to few of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::compact::Rules;
use crate::connection::{Beside, Connection};
use crate::error::Result;
use crate::job::Job;
use crate::known::Known;
use crate::maintain::{self, Maintenance, Task};
use crate::pack::{Keep, Plan, Tally};
use crate::segment::Effort;
use crate::tables;
use crate::turn::{SLICE_PATIENCE, Turns};

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

/// How many times the bytes between two rounds may be written before the writer waits for the thread …
const HARD_ROUNDS: u64 = 3;
/// … and how long it waits before a BEGIN at most: a program that writes faster than anybody can pack is slowed down, and
/// never stopped.
const LONGEST_WAIT: Duration = Duration::from_millis(10);

/// Free pages stay for what is written next, up to this part of the file …
const FREE_PART: i64 = 4;
/// … or this many, if that is more.
const FREE_PAGES: i64 = 1_024;
/// In an idle file nobody needs them, but a handful are not worth a commit.
const IDLE_FREE_PAGES: i64 = 16;

/// The thread of one store.
pub struct Packer {
    beside: Beside,
    schedule: Schedule,
    opened_at: i64,
    shared: Arc<Shared>,
    turns: Arc<Turns>,
    /// What it returns is what it starts again with.
    thread: Option<JoinHandle<Tally>>,
    /// Bytes written in all, and when the last round was ordered.
    written: u64,
    ordered: u64,
    /// A BEGIN that does not wait has been put off.
    put_off: bool,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// The thread has ended by itself, or is about to: the next commit starts it again.
    ended: AtomicBool,
    commits: AtomicU64,
    stop: AtomicBool,
    /// How much had been written when the last round that is over began.
    settled: AtomicU64,
    written: AtomicU64,
}

#[derive(Default)]
struct Orders {
    round: bool,
    /// How many commits there had been when it was quiet last.
    quiet: Option<u64>,
    /// How many commits there were when everything was packed last.
    packed_at: Option<u64>,
    rules: Arc<Rules>,
}

impl Packer {
    /// For a store on a file whose last position was `opened_at`. What are rows from before is packed in idleness: a backlog of
    /// any size must not keep the thread from what is written now.
    pub fn new(beside: Beside, schedule: Schedule, turns: Arc<Turns>, opened_at: i64) -> Self {
        let beside = beside.waiting(SLICE_PATIENCE);
        let shared = Arc::default();
        Packer { beside, schedule, opened_at, shared, turns, thread: None, written: 0, ordered: 0, put_off: false }
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
        self.shared.written.store(self.written, Ordering::Relaxed);
        self.shared.commits.fetch_add(1, Ordering::SeqCst);
        if self.thread.is_none() || self.shared.ended.load(Ordering::SeqCst) {
            self.start();
        }
        if self.written - self.ordered >= self.schedule.at_bytes {
            self.shared.orders.lock().round = true;
            self.shared.changed.notify_all();
            self.ordered = self.written;
        }
    }

    /// Starts the thread, again where it has ended.
    fn start(&mut self) {
        // It decides under this lock: with it, whether it ends or has seen the commit and goes on is certain.
        let decided = self.shared.orders.lock();
        if self.thread.is_some() && !self.shared.ended.swap(false, Ordering::SeqCst) {
            return;
        }
        drop(decided);
        // All that it may still be doing is closing its connection, which must not outlive the store's.
        let earlier = self.thread.take().and_then(|thread| thread.join().ok());
        let tally = earlier.unwrap_or_else(|| Tally::after(self.opened_at));
        let (beside, schedule) = (self.beside.clone(), self.schedule);
        let (shared, turns) = (Arc::clone(&self.shared), Arc::clone(&self.turns));
        let thread = std::thread::Builder::new().name("syncline-packer".to_owned());
        // Without a thread the file grows as if packing were off; `maintain` packs it.
        self.thread = thread.spawn(move || work(&beside, &schedule, tally, &shared, &turns)).ok();
    }

    /// Before a BEGIN: where much more has been written than packed, lets the thread catch up for a moment. `false`: it is
    /// behind, and `wait` was not asked for; who comes back is let through.
    pub fn before_begin(&mut self, wait: bool) -> bool {
        let behind = |shared: &Shared| self.written - shared.settled.load(Ordering::Relaxed);
        if std::mem::take(&mut self.put_off)
            || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
            || behind(&self.shared) < self.schedule.at_bytes.saturating_mul(HARD_ROUNDS)
        {
            return true;
        }
        self.put_off = !wait;
        if wait {
            let mut orders = self.shared.orders.lock();
            if behind(&self.shared) >= self.schedule.at_bytes.saturating_mul(HARD_ROUNDS) {
                self.shared.changed.wait_for(&mut orders, LONGEST_WAIT);
            }
        }
        wait
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.turns.end();
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
    /// Enough has been written.
    Round,
    /// Nothing has been written for half of the time: what does not move from now on is idle.
    Quiet,
    /// And for the other half.
    Idle,
    /// The store is closed, or everything is packed.
    End,
}

fn work(beside: &Beside, schedule: &Schedule, mut tally: Tally, shared: &Shared, turns: &Arc<Turns>) -> Tally {
    let mut connection: Option<(Connection, Known)> = None;
    let mut idle_through = 0;
    loop {
        let cause = shared.next(schedule.idle);
        if matches!(cause, Cause::End) {
            return tally;
        }
        if connection.is_none() {
            connection = Connection::open_worker(beside).ok().map(|connection| (connection, Known::default()));
        }
        let written = shared.written.load(Ordering::Relaxed);
        // What fails (a full disk, a lock that somebody else holds) leaves everything as it was. The next round tries
        // again, and the writer meets the same failure where it can be reported.
        let done = connection.as_mut().map(|(connection, known)| -> Result<()> {
            if matches!(cause, Cause::Quiet) {
                idle_through = tables::last_position(connection)?;
                return Ok(());
            }
            let idle = matches!(cause, Cause::Idle).then_some(idle_through);
            round(connection, known, (idle, &mut tally), schedule, shared, turns)?;
            Ok(())
        });
        // Whoever waits for the thread to catch up waits no longer, also where it cannot: while it rests until the next
        // round, waiting for it would slow down each BEGIN for nothing.
        if !matches!(cause, Cause::Quiet) {
            shared.settled.store(written, Ordering::Relaxed);
        }
        drop(shared.orders.lock());
        shared.changed.notify_all();
        if !matches!(done, Some(Ok(()))) {
            (connection, idle_through) = (None, 0);
            shared.orders.lock().packed_at = None;
        }
    }
}

fn round(
    connection: &Connection,
    known: &mut Known,
    (idle, tally): (Option<i64>, &mut Tally),
    schedule: &Schedule,
    shared: &Shared,
    turns: &Arc<Turns>,
) -> Result<()> {
    let rules = Arc::clone(&shared.orders.lock().rules);
    let free_pages = (maintain::page_count(connection)? / FREE_PART).max(FREE_PAGES);
    let task = Task {
        plan: Plan { keep: schedule.keep, idle_through: idle.unwrap_or(0), effort: Effort::Quick },
        compact: false,
        free_pages: if idle.is_some() { IDLE_FREE_PAGES } else { free_pages },
        analyze: false,
        alone: idle.is_some(),
        truncate: idle.is_some(),
        rewrite: false,
    };
    let mut unread = true;
    while unread && !shared.stop.load(Ordering::Relaxed) {
        let mut maintenance = Maintenance::new(task, Arc::clone(&rules), Arc::clone(turns));
        unread = false;
        if idle.is_none() {
            // Of an aggregate of which little has been written since it was looked at there is little more to pack.
            let (enough, more) = tally.read(connection)?;
            (maintenance, unread) = (maintenance.only(enough), more);
        }
        let mut more = true;
        while more && !shared.stop.load(Ordering::Relaxed) {
            more = maintenance.step(connection, known)?;
        }
    }
    known.forget();
    Ok(())
}

impl Shared {
    fn next(&self, idle: Duration) -> Cause {
        let mut orders = self.orders.lock();
        let quiet = std::mem::take(&mut orders.quiet);
        loop {
            let seen = self.commits.load(Ordering::SeqCst);
            if self.stop.load(Ordering::Relaxed) {
                return Cause::End;
            }
            if std::mem::take(&mut orders.round) {
                return Cause::Round;
            }
            if orders.packed_at == Some(seen) {
                // A commit either sees this, and starts the thread again, or is seen here: it may have come while the file
                // was being packed.
                self.ended.store(true, Ordering::SeqCst);
                if self.commits.load(Ordering::SeqCst) == seen {
                    return Cause::End;
                }
                self.ended.store(false, Ordering::SeqCst);
                continue;
            }
            let timed_out = self.changed.wait_for(&mut orders, idle / 2).timed_out();
            if !timed_out || self.commits.load(Ordering::SeqCst) != seen {
                continue;
            }
            if quiet == Some(seen) {
                orders.packed_at = Some(seen);
                return Cause::Idle;
            }
            orders.quiet = Some(seen);
            return Cause::Quiet;
        }
    }
}

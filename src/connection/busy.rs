//! Waiting for somebody else's lock. SQLite's own handler sleeps for up to 100 ms at a time, in steps that are the same
//! in every process, tells nobody how long it has waited, and waits in vain for a lock that the waiting thread itself
//! holds. This one makes short pauses of random length until a deadline, and knows what the thread has open.
//!
//! Asking often is not enough. Whoever has the lock and begins one transaction after the other leaves it free for some
//! microseconds at a time, and keeps it for as long as the processor is his. So who waits is to be seen, and who has had
//! the lock for a while looks, and rests: who waits holds a shared flock on the WAL file, which SQLite locks in no way.
//! The database file itself must never be opened for such a thing: closing it would drop SQLite's locks on it.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::ffi::{c_int, c_void};
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection as Sqlite;
use rusqlite::ffi;

#[cfg(unix)]
use super::Identity;
use crate::error::{Error, Result};

/// Between two attempts, on the average: at first, and at most; it grows by this part of the time that was waited. Each
/// attempt costs the processor some 40 microseconds, which who has the lock could use.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(8));
const PAUSE_PART: u32 = 8;

/// Who has had the lock for so long, with no more than `GAP` between two transactions, looks whether somebody waits.
const STRETCH: Duration = Duration::from_millis(1);
const GAP: Duration = Duration::from_millis(1);

/// Then it rests for this part of the time that it has had the lock, within these bounds, as long as somebody waits.
/// The shortest is longer than the first pause of who waits, so that who has just had the lock does not come first again;
/// the longest is several attempts of all who wait: who writes for seconds at a time starves nobody either.
const REST_PART: u32 = 8;
const REST: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// Between two looks in a rest.
const REST_LOOK: Duration = Duration::from_millis(10);

/// The patience of one connection. SQLite holds a pointer to it.
pub(super) struct Waiting {
    /// How long a wait may last, as the connection was opened with, and as it is now.
    own: Duration,
    patience: Cell<Duration>,
    file: Option<FileId>,
    since: Cell<Instant>,
    gave_up: Cell<Option<GaveUp>>,
    line: Line,
    /// It stays in the line between two calls.
    standing: Cell<bool>,
    /// From when on this connection has had the lock, again and again, and when it let it go last.
    stretch: Cell<Option<Instant>>,
    ended: Cell<Option<Instant>>,
    /// Until when it rests that does not want to wait for that.
    rest: Cell<Option<Instant>>,
}

/// How a wait ended that was in vain.
#[derive(Clone, Copy)]
struct GaveUp {
    waited: Duration,
    /// The lock is held by another connection of this very thread.
    by_thread: bool,
}

impl Waiting {
    /// For a connection to a file, or to none. It is to be boxed, and to outlive the connection.
    pub(super) fn new(own: Duration, path: Option<&str>) -> Self {
        Waiting {
            own,
            patience: Cell::new(own),
            file: path.and_then(FileId::of),
            since: Cell::new(Instant::now()),
            gave_up: Cell::new(None),
            line: Line::default(),
            standing: Cell::new(false),
            stretch: Cell::new(None),
            ended: Cell::new(None),
            rest: Cell::new(None),
        }
    }

    /// Lets SQLite ask this.
    pub(super) fn install(&self, sqlite: &Sqlite) {
        let this: *const Waiting = self;
        // SAFETY: the handle is open, and `self` is boxed and dropped after the connection. SQLite calls the handler on
        // the thread that uses the connection, so that it is never called twice at once.
        unsafe { ffi::sqlite3_busy_handler(sqlite.handle(), Some(on_busy), this.cast_mut().cast()) };
    }

    /// Where those who wait can be seen.
    pub(super) fn meet_at(&self, wal: Option<PathBuf>) {
        self.line.wal.replace(wal);
    }

    /// How long the connection waits unless told otherwise.
    pub(super) fn own(&self) -> Duration {
        self.own
    }

    /// Runs `call` with another patience. What the program may have set by `PRAGMA busy_timeout` ends.
    pub(super) fn during<T>(&self, sqlite: &Sqlite, patience: Duration, call: impl FnOnce() -> T) -> T {
        self.install(sqlite);
        self.patience.set(patience);
        let done = call();
        self.patience.set(self.own);
        self.gave_up.set(None);
        done
    }

    /// Calls `attempt` again while it is busy, until the deadline: for what SQLite refuses without asking the handler.
    pub(super) fn retry<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            // What is left of the time, should SQLite ask the handler after all.
            self.patience.set(self.own.saturating_sub(start.elapsed()));
            let done = attempt();
            self.patience.set(self.own);
            match done {
                Err(error) if error.is_busy() => {
                    let waited = start.elapsed();
                    let by_thread = self.gave_up.get().is_some_and(|gave_up| gave_up.by_thread);
                    if waited >= self.own || by_thread {
                        self.gave_up.set(Some(GaveUp { waited, by_thread }));
                        return Err(error);
                    }
                    std::thread::sleep(pause(waited).min(self.own - waited));
                }
                done => return done,
            }
        }
    }

    /// Says in an `ERR_BUSY` how long the lock was waited for, and whether waiting could have helped.
    pub(super) fn explain(&self, path: &str, error: Error) -> Error {
        let Error::Busy { message, waited: None, sqlite_code } = error else { return error };
        let gave_up = self.gave_up.take();
        let waited = gave_up.map_or(0, |gave_up| gave_up.waited.as_millis() as u64);
        let message = if gave_up.is_some_and(|gave_up| gave_up.by_thread) {
            format!(
                "\"{path}\": {message}: another connection of this thread has a write transaction open on this file, \
                 which waiting could not end. End it first, or use runAsync, runAllAsync or replayAllAsync, which wait \
                 (waited 0 ms)"
            )
        } else {
            format!("\"{path}\": {message} (waited {waited} ms)")
        };
        Error::Busy { message, waited: Some(waited), sqlite_code }
    }

    /// Before a BEGIN: who has had the lock for a while rests if somebody waits. `false`: it should rest, and the caller
    /// does not want to wait here.
    pub(super) fn give_way(&self, wait: bool) -> bool {
        let now = Instant::now();
        let Some(until) = self.rest.take().or_else(|| self.rest_at(now)) else { return true };
        while Instant::now() < until && self.line.is_anybody_there() {
            if !wait {
                self.rest.set(Some(until));
                return false;
            }
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(REST_LOOK));
        }
        self.stretch.set(Some(Instant::now()));
        true
    }

    /// Until when it rests that had the lock for a stretch; others decide whether it has to.
    fn rest_at(&self, now: Instant) -> Option<Instant> {
        let gap = self.ended.get().map(|ended| now.saturating_duration_since(ended));
        let Some(since) = self.stretch.get().filter(|_| gap.is_some_and(|gap| gap < GAP)) else {
            self.stretch.set(Some(now));
            return None;
        };
        let had = now.saturating_duration_since(since);
        let rest = (had / REST_PART).clamp(REST.0, REST.1);
        (had >= STRETCH).then(|| now + rest + up_to(rest))
    }

    /// The lock was let go.
    pub(super) fn ended(&self) {
        self.ended.set(Some(Instant::now()));
    }

    /// It waits between two attempts of its own, without blocking: others see it until it says otherwise.
    pub(super) fn stand_in_line(&self, stand: bool) {
        self.standing.set(stand);
        if stand {
            self.line.join();
        }
    }

    /// After a call that may have waited: no later error is told by what it waited for in vain, as a checkpoint may have.
    pub(super) fn call_ended(&self) {
        self.gave_up.set(None);
        if !self.standing.get() {
            self.line.leave();
        }
    }

    /// Whether to try again, after a pause.
    fn goes_on(&self, attempts: c_int) -> bool {
        let now = Instant::now();
        if attempts == 0 {
            self.since.set(now);
        }
        let patience = self.patience.get();
        let waited = now.saturating_duration_since(self.since.get());
        let give_up = |by_thread| {
            self.gave_up.set(Some(GaveUp { waited, by_thread }));
            false
        };
        if waited >= patience {
            return give_up(false);
        }
        if attempts == 0 && self.file.as_ref().is_some_and(is_written_by_this_thread) {
            return give_up(true);
        }
        self.line.join();
        std::thread::sleep(pause(waited).min(patience - waited));
        // If the lock is to be had now, it has been had from now on.
        self.stretch.set(Some(Instant::now()));
        true
    }
}

/// SQLite calls this when a lock is taken: 0 gives up.
unsafe extern "C" fn on_busy(waiting: *mut c_void, attempts: c_int) -> c_int {
    // SAFETY: see `install`.
    let waiting = unsafe { &*waiting.cast::<Waiting>() };
    waiting.goes_on(attempts).into()
}

/// A pause between two attempts, of random length, so that those who wait do not come all at once.
fn pause(waited: Duration) -> Duration {
    let mean = (PAUSE.0 + waited / PAUSE_PART).min(PAUSE.1);
    mean / 2 + up_to(mean)
}

fn up_to(length: Duration) -> Duration {
    Duration::from_nanos(random() % (length.as_nanos() as u64).max(1))
}

/// A random number: the keys of a new `RandomState` are.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Which file it is, whatever path leads to it.
#[derive(PartialEq, Eq)]
struct FileId(#[cfg(unix)] Identity, #[cfg(not(unix))] PathBuf);

impl FileId {
    #[cfg(unix)]
    fn of(path: &str) -> Option<Self> {
        Identity::of(Path::new(path)).map(FileId)
    }

    #[cfg(not(unix))]
    fn of(path: &str) -> Option<Self> {
        Path::new(path).canonicalize().ok().map(FileId)
    }
}

thread_local! {
    /// The connections that this thread has open and uses alone.
    static OPEN: RefCell<Vec<(FileId, *mut ffi::sqlite3)>> = const { RefCell::new(Vec::new()) };
}

/// A connection that only the thread uses which opened it, as long as this lives. It cannot leave the thread.
pub struct OnThread(*mut ffi::sqlite3);

impl OnThread {
    /// To be dropped before the connection.
    pub(super) fn new(sqlite: &Sqlite, path: &str) -> Option<Self> {
        let file = FileId::of(path)?;
        // SAFETY: the handle is only kept, as long as the connection is open.
        let handle = unsafe { sqlite.handle() };
        OPEN.try_with(|open| open.borrow_mut().push((file, handle))).ok()?;
        Some(OnThread(handle))
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        // Where the thread is ending, the list may be gone before the connections.
        let _ = OPEN.try_with(|open| open.borrow_mut().retain(|(_, handle)| *handle != self.0));
    }
}

/// Whether a connection of this thread has a write transaction open on the file. The one that asks has none, or it would
/// not have to wait.
fn is_written_by_this_thread(file: &FileId) -> bool {
    let writes = |handle: *mut ffi::sqlite3| {
        // SAFETY: those in the list are open, and used by this thread alone.
        unsafe { ffi::sqlite3_txn_state(handle, c"main".as_ptr()) == ffi::SQLITE_TXN_WRITE }
    };
    OPEN.try_with(|open| open.borrow().iter().any(|(other, handle)| other == file && writes(*handle))).unwrap_or(false)
}

/// Those who wait for the write lock of a file, as far as they can be seen from other connections and processes. What
/// does not work (a file system without flock) means that nobody is seen, and that nobody rests.
#[derive(Default)]
struct Line {
    wal: RefCell<Option<PathBuf>>,
    #[cfg(unix)]
    place: RefCell<Option<std::fs::File>>,
}

#[cfg(unix)]
impl Line {
    fn open(&self) -> Option<std::fs::File> {
        std::fs::File::open(self.wal.borrow().as_ref()?).ok()
    }

    /// Stands in the line. Somebody may just be looking: then the next attempt will do.
    fn join(&self) {
        let mut place = self.place.borrow_mut();
        if place.is_none() {
            *place = self.open().filter(|file| file.try_lock_shared().is_ok());
        }
    }

    fn leave(&self) {
        // Closing the file lets go of its lock.
        self.place.take();
    }

    /// Whether anybody else waits. Asked once a stretch, it need not keep the file open.
    fn is_anybody_there(&self) -> bool {
        let there = self.open().map(|file| file.try_lock());
        matches!(there, Some(Err(std::fs::TryLockError::WouldBlock)))
    }
}

/// Elsewhere a lock keeps others from reading the file, so that nobody is to be seen.
#[cfg(not(unix))]
impl Line {
    fn join(&self) {}

    fn leave(&self) {}

    fn is_anybody_there(&self) -> bool {
        false
    }
}

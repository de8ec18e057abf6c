//! Tells that somebody else has committed to the log: another store, thread or process. One thread a store, with a
//! read-only connection of its own, from the first need to the last. It finds out that something happened and no more;
//! JavaScript asks what, in pages, over the store's own connection.
//!
//! A look costs microseconds: `PRAGMA data_version` says whether anybody has committed, and the last position whether it
//! was to the log. When to look is the bell's matter (`watch/bell.rs`): on Linux the kernel tells of writes to the WAL
//! file, elsewhere the thread looks every few milliseconds.

mod bell;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::connection::{Connection, OpenOptions};
use crate::error::{Error, Result};
use crate::tables;
use bell::{Bell, Rung};

/// Called on the thread each time there is more in the log than the store has written or was told of.
pub type Notify = Box<dyn Fn() + Send>;

/// How long a look waits for somebody's lock. Readers of a WAL hardly ever meet one.
const PATIENCE: Duration = Duration::from_millis(100);

/// After a sign of life the thread looks again this soon, then after twice as long …: the kernel tells of a write before
/// SQLite publishes the commit, and with `synchronous=FULL` the disk lies between the two.
const FIRST_PAUSE: Duration = Duration::from_micros(250);

/// However much is written, two looks are this far apart.
const LEAST_DISTANCE: Duration = Duration::from_millis(1);

/// The thread of one store.
pub struct Watcher {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The last position that the store has written itself.
    written: AtomicI64,
    /// The last position that the thread has seen.
    position: AtomicI64,
}

impl Watcher {
    /// Opens a second connection to the file of `store`, and starts the thread.
    pub fn start(store: &Connection, notify: Notify) -> Result<Self> {
        Self::start_with(store, notify, true)
    }

    /// The same without the kernel's help, as on systems where it offers none.
    #[doc(hidden)]
    pub fn start_polling(store: &Connection, notify: Notify) -> Result<Self> {
        Self::start_with(store, notify, false)
    }

    fn start_with(store: &Connection, notify: Notify, listen: bool) -> Result<Self> {
        let path = store.path().to_owned();
        let connection =
            Connection::open_beside(&OpenOptions { path, readonly: true, full: false, busy_timeout: PATIENCE })?;
        // The first look opens the WAL, so that its file is there to be listened to.
        let position = tables::last_position(&connection)?;
        let bell = Arc::new(Bell::new(if listen { connection.wal_path() } else { None }));
        let shared = Arc::new(Shared { written: AtomicI64::new(position), position: AtomicI64::new(position) });
        let thread = std::thread::Builder::new().name("syncline-watch".to_owned());
        let thread = thread.spawn({
            let (shared, bell) = (Arc::clone(&shared), Arc::clone(&bell));
            move || watch(&connection, &shared, &bell, &notify)
        });
        let thread = thread.map_err(|error| Error::Sqlite {
            message: format!("Cannot start the thread that watches \"{}\": {error}", store.path()),
            sqlite_code: "SQLITE_NOMEM".to_owned(),
        })?;
        Ok(Watcher { shared, bell, thread: Some(thread) })
    }

    /// The store has committed through `position`, and looks for itself at what others committed before that.
    pub fn wrote(&self, position: i64) {
        self.shared.written.fetch_max(position, Ordering::Relaxed);
    }

    /// The last position that the thread has seen.
    pub fn position(&self) -> i64 {
        self.shared.position.load(Ordering::Relaxed)
    }
}

impl Watcher {
    /// Ends the thread, and does not wait for that: dropping what this answers does.
    pub fn stop(mut self) -> Ending {
        self.bell.stop();
        Ending(self.thread.take())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.bell.stop();
        drop(Ending(self.thread.take()));
    }
}

/// A thread that has been told to end. Its connection is closed once this is dropped.
pub struct Ending(Option<JoinHandle<()>>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

fn watch(connection: &Connection, shared: &Shared, bell: &Bell, notify: &Notify) {
    let mut version = None;
    let mut told = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        let looked = Instant::now();
        match look(connection, &mut version) {
            Ok(None) => {}
            Ok(Some(position)) => {
                shared.position.store(position, Ordering::Relaxed);
                // The store may write on meanwhile; then the call finds nothing, which is harmless.
                if position > shared.written.load(Ordering::Relaxed).max(told) {
                    told = position;
                    notify();
                }
                pause = FIRST_PAUSE;
            }
            // What cannot be read here cannot be read there either: the store meets the error where it can be reported.
            Err(_) if pause >= bell.longest_pause() => notify(),
            Err(_) => version = None,
        }
        match bell.wait(pause) {
            Rung::Stop => return,
            Rung::Written => {
                pause = FIRST_PAUSE;
                if let Some(rest) = LEAST_DISTANCE.checked_sub(looked.elapsed()) {
                    std::thread::sleep(rest);
                }
            }
            Rung::Silence => pause = (pause * 2).min(bell.longest_pause()),
        }
    }
}

/// The last position in the log, if anybody has committed since the last look.
fn look(connection: &Connection, version: &mut Option<i64>) -> Result<Option<i64>> {
    let found: i64 = connection.cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
    if version.replace(found) == Some(found) {
        return Ok(None);
    }
    tables::last_position(connection).map(Some)
}

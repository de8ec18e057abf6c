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
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::connection::{Connection, OpenOptions};
use crate::error::{Error, Result};
use crate::tables;
use bell::{Bell, Rung};

pub use bell::Stop;

/// Called on the thread each time there is more in the log than the store has written or was told of.
pub type Notify = Box<dyn Fn() + Send>;

/// How long a look waits for somebody's lock. Readers of a WAL hardly ever meet one.
const PATIENCE: Duration = Duration::from_millis(100);

/// After a sign of life the thread looks again this soon, then after twice as long …: the kernel tells of a write before
/// SQLite publishes the commit, and with `synchronous=FULL` the disk lies between the two.
const FIRST_PAUSE: Duration = Duration::from_micros(250);

/// However much is written, two looks are this far apart.
const LEAST_DISTANCE: Duration = Duration::from_millis(1);

/// While looks fail, the store is called after this long, then after twice as long …: it meets the error where it can be
/// told, and a look that fails for a moment only is nobody's business.
const FIRST_ALARM: Duration = Duration::from_secs(1);
const LONGEST_ALARM: Duration = Duration::from_secs(30);

/// The thread of one store.
pub struct Watcher {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
}

#[derive(Default)]
struct Shared {
    /// The last position that the store has written itself.
    written: AtomicI64,
    /// The last position that the thread has seen.
    position: AtomicI64,
    /// The thread's connection is closed.
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Watcher {
    /// Opens a second connection to the file of `store`, and starts the thread. `known`: the last position that the store
    /// can see.
    pub fn start(store: &Connection, known: i64, notify: Notify) -> Result<Self> {
        Self::start_with(store, known, notify, true)
    }

    /// The same without the kernel's help, as on systems where it offers none.
    #[doc(hidden)]
    pub fn start_polling(store: &Connection, known: i64, notify: Notify) -> Result<Self> {
        Self::start_with(store, known, notify, false)
    }

    fn start_with(store: &Connection, known: i64, notify: Notify, listen: bool) -> Result<Self> {
        let path = store.path().to_owned();
        let connection = Connection::open_beside(&store.beside(&OpenOptions {
            path,
            readonly: true,
            full: false,
            busy_timeout: PATIENCE,
        }))?;
        // The first look opens the WAL, so that its file is there to be listened to.
        tables::last_position(&connection)?;
        let stop = Arc::<Stop>::default();
        let mut bell = Bell::new(Arc::clone(&stop), if listen { connection.wal_path() } else { None });
        let shared = Arc::new(Shared { written: AtomicI64::new(known), ..Shared::default() });
        let thread = std::thread::Builder::new().name("syncline-watch".to_owned());
        let thread = thread.spawn({
            let shared = Arc::clone(&shared);
            move || {
                watch(&connection, &shared, &mut bell, &notify);
                drop(connection);
                *shared.closed.lock() = true;
                shared.changed.notify_all();
                // The function and the bell go here too, since letting go of inotify can take the kernel milliseconds.
                drop((notify, bell));
            }
        });
        thread.map_err(|error| Error::Sqlite {
            message: format!("Cannot start the thread that watches \"{}\": {error}", store.path()),
            sqlite_code: "SQLITE_NOMEM".to_owned(),
        })?;
        Ok(Watcher { shared, stop })
    }

    /// The store has committed through `position`, and looks for itself at what others committed before that.
    pub fn wrote(&self, position: i64) {
        self.shared.written.fetch_max(position, Ordering::Relaxed);
    }

    /// The last position that the thread has seen.
    pub fn position(&self) -> i64 {
        self.shared.position.load(Ordering::Relaxed)
    }

    /// What ends the thread, from wherever it is called, without waiting for it.
    pub fn stop(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }
}

/// Ends the thread and waits until its connection is closed.
impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.ring();
        let mut closed = self.shared.closed.lock();
        while !*closed {
            self.shared.changed.wait(&mut closed);
        }
    }
}

fn watch(connection: &Connection, shared: &Shared, bell: &mut Bell, notify: &Notify) {
    let mut version = None;
    let mut told = 0;
    let mut pause = FIRST_PAUSE;
    let mut alarm: Option<(Instant, Duration)> = None;
    loop {
        let looked = Instant::now();
        match look(connection, &mut version) {
            Ok(None) => alarm = None,
            Ok(Some(position)) => {
                alarm = None;
                shared.position.store(position, Ordering::Relaxed);
                // The store may write on meanwhile; then the call finds nothing, which is harmless.
                if position > shared.written.load(Ordering::Relaxed).max(told) {
                    told = position;
                    notify();
                }
                pause = FIRST_PAUSE;
            }
            Err(_) => match alarm {
                None => alarm = Some((looked + FIRST_ALARM, FIRST_ALARM)),
                Some((due, after)) if looked >= due => {
                    let after = (after * 2).min(LONGEST_ALARM);
                    alarm = Some((looked + after, after));
                    notify();
                }
                Some(_) => {}
            },
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

/// The last position in the log, if anybody has committed since the last look that succeeded.
fn look(connection: &Connection, version: &mut Option<i64>) -> Result<Option<i64>> {
    let found: i64 = connection.cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
    if *version == Some(found) {
        return Ok(None);
    }
    let position = tables::last_position(connection)?;
    *version = Some(found);
    Ok(Some(position))
}

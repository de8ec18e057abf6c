//! When the watching thread looks again: when the WAL file was written, when its pause is over, or when it shall stop.

pub use system::Bell;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// The thread shall end.
    Stop,
    /// Something was written to the WAL.
    Written,
    /// The pause is over.
    Silence,
}

/// On Linux: inotify for the WAL file, an eventfd for the end, poll(2) for both. Where inotify is refused (a user may
/// have 128 of them by default), and after the file was moved away, it is polling like everywhere else.
#[cfg(target_os = "linux")]
mod system {
    use std::mem::MaybeUninit;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use rustix::fd::OwnedFd;
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

    use super::Rung;

    /// The kernel tells of every write through this machine's own page cache. A look a second is for what it may not
    /// know of, such as file systems that come from elsewhere.
    const LISTENING_PAUSE: Duration = Duration::from_secs(1);

    /// A commit is then seen 5 ms later on the average, for about a thousandth of a core.
    const POLLING_PAUSE: Duration = Duration::from_millis(10);

    pub struct Bell {
        /// `None` where even an eventfd was refused: then the pauses are short, and `stopped` is read after each.
        end: Option<OwnedFd>,
        stopped: AtomicBool,
        writes: Option<OwnedFd>,
        deaf: AtomicBool,
    }

    impl Bell {
        /// Listens for writes to the file, if there is one.
        pub fn new(wal: Option<PathBuf>) -> Self {
            let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
            let writes = wal.filter(|_| end.is_some()).and_then(|wal| {
                let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
                let of_interest = WatchFlags::MODIFY | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
                inotify::add_watch(&fd, wal, of_interest).ok()?;
                Some(fd)
            });
            Bell { end, stopped: AtomicBool::new(false), deaf: AtomicBool::new(writes.is_none()), writes }
        }

        /// The longest pause between two looks.
        pub fn longest_pause(&self) -> Duration {
            if self.deaf.load(Ordering::Relaxed) { POLLING_PAUSE } else { LISTENING_PAUSE }
        }

        /// Ends the wait, and every later one.
        pub fn stop(&self) {
            self.stopped.store(true, Ordering::Relaxed);
            if let Some(end) = &self.end {
                let _ = rustix::io::write(end, &1u64.to_ne_bytes());
            }
        }

        /// Waits for a write, for the end, or for so long.
        pub fn wait(&self, pause: Duration) -> Rung {
            let Some(end) = &self.end else {
                std::thread::sleep(pause);
                return self.silence();
            };
            let mut fds = vec![PollFd::new(end, PollFlags::IN)];
            let writes = self.writes.as_ref().filter(|_| !self.deaf.load(Ordering::Relaxed));
            fds.extend(writes.map(|fd| PollFd::new(fd, PollFlags::IN)));
            let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: pause.subsec_nanos().into() };
            // A signal that interrupts the wait is a pause that ended early.
            let rung = poll(&mut fds, Some(&timeout)).is_ok_and(|rung| rung > 0);
            match writes {
                Some(fd) if rung && self.silence() != Rung::Stop => {
                    self.drain(fd);
                    Rung::Written
                }
                _ => self.silence(),
            }
        }

        fn silence(&self) -> Rung {
            if self.stopped.load(Ordering::Relaxed) { Rung::Stop } else { Rung::Silence }
        }

        /// Takes in what is told. A file that is gone will tell nothing more.
        fn drain(&self, fd: &OwnedFd) {
            let mut buffer = [MaybeUninit::uninit(); 1024];
            let mut told = inotify::Reader::new(fd, &mut buffer);
            let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT;
            while let Ok(event) = told.next() {
                if event.events().intersects(gone) {
                    self.deaf.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Elsewhere: short pauses. What Windows tells of a file that is kept open comes too late, and FSEvents on macOS too.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use parking_lot::{Condvar, Mutex};

    use super::Rung;

    /// A commit is then seen 5 ms later on the average, for about a thousandth of a core.
    const POLLING_PAUSE: Duration = Duration::from_millis(10);

    #[derive(Default)]
    pub struct Bell {
        stopped: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        /// Listens for nothing.
        pub fn new(_: Option<PathBuf>) -> Self {
            Bell::default()
        }

        /// The longest pause between two looks.
        pub fn longest_pause(&self) -> Duration {
            POLLING_PAUSE
        }

        /// Ends the wait, and every later one.
        pub fn stop(&self) {
            *self.stopped.lock() = true;
            self.changed.notify_all();
        }

        /// Waits for the end, or for so long.
        pub fn wait(&self, pause: Duration) -> Rung {
            let until = Instant::now() + pause;
            let mut stopped = self.stopped.lock();
            while !*stopped {
                if self.changed.wait_until(&mut stopped, until).timed_out() {
                    return Rung::Silence;
                }
            }
            Rung::Stop
        }
    }
}

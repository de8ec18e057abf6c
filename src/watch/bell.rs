//! When the watching thread looks again: when the WAL file was written, when its pause is over, or when it shall stop.

pub use system::{Bell, Stop};

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
    use std::sync::Arc;
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

    /// Ends the thread that waits for the bell.
    pub struct Stop {
        rung: AtomicBool,
        /// `None` where it was refused: then the pauses are short, and `rung` is read after each.
        wake: Option<OwnedFd>,
    }

    impl Default for Stop {
        /// Not rung yet.
        fn default() -> Self {
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
            Stop { rung: AtomicBool::new(false), wake }
        }
    }

    impl Stop {
        /// Ends the wait, and every later one.
        pub fn ring(&self) {
            self.rung.store(true, Ordering::Relaxed);
            if let Some(wake) = &self.wake {
                // It can only be full, and then it wakes already.
                let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
            }
        }
    }

    /// What the thread waits for.
    pub struct Bell {
        stop: Arc<Stop>,
        /// `None` where nothing tells of writes.
        writes: Option<OwnedFd>,
    }

    impl Bell {
        /// Listens for writes to the file, if there is one.
        pub fn new(stop: Arc<Stop>, wal: Option<PathBuf>) -> Self {
            let writes = wal.filter(|_| stop.wake.is_some()).and_then(|wal| {
                let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
                let of_interest = WatchFlags::MODIFY | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
                inotify::add_watch(&fd, wal, of_interest).ok()?;
                Some(fd)
            });
            Bell { stop, writes }
        }

        /// The longest pause between two looks.
        pub fn longest_pause(&self) -> Duration {
            if self.writes.is_some() { LISTENING_PAUSE } else { POLLING_PAUSE }
        }

        /// Waits for a write, for the end, or for so long.
        pub fn wait(&mut self, pause: Duration) -> Rung {
            let Some(wake) = &self.stop.wake else {
                std::thread::sleep(pause);
                return self.silence();
            };
            let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
            fds.extend(self.writes.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: pause.subsec_nanos().into() };
            // A signal that interrupts the wait is a pause that ended early.
            let rung = poll(&mut fds, Some(&timeout)).is_ok_and(|rung| rung > 0);
            if rung && self.silence() != Rung::Stop && self.drain() { Rung::Written } else { self.silence() }
        }

        fn silence(&self) -> Rung {
            if self.stop.rung.load(Ordering::Relaxed) { Rung::Stop } else { Rung::Silence }
        }

        /// Takes in what is told; `false` for nothing. A file that is gone will tell nothing more.
        fn drain(&mut self) -> bool {
            let Some(fd) = &self.writes else { return false };
            let mut buffer = [MaybeUninit::uninit(); 1024];
            let mut told = inotify::Reader::new(fd, &mut buffer);
            let mut gone = false;
            while let Ok(event) = told.next() {
                let flags = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT;
                gone |= event.events().intersects(flags);
            }
            if gone {
                self.writes = None;
            }
            true
        }
    }
}

/// Elsewhere: short pauses. What Windows tells of a file that is kept open comes too late, and FSEvents on macOS too.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use parking_lot::{Condvar, Mutex};

    use super::Rung;

    /// A commit is then seen 5 ms later on the average, for about a thousandth of a core.
    const POLLING_PAUSE: Duration = Duration::from_millis(10);

    /// Ends the thread that waits for the bell.
    #[derive(Default)]
    pub struct Stop {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Stop {
        /// Ends the wait, and every later one.
        pub fn ring(&self) {
            *self.rung.lock() = true;
            self.changed.notify_all();
        }
    }

    /// What the thread waits for.
    pub struct Bell {
        stop: Arc<Stop>,
    }

    impl Bell {
        /// Listens for nothing.
        pub fn new(stop: Arc<Stop>, _: Option<PathBuf>) -> Self {
            Bell { stop }
        }

        /// The longest pause between two looks.
        pub fn longest_pause(&self) -> Duration {
            POLLING_PAUSE
        }

        /// Waits for the end, or for so long.
        pub fn wait(&mut self, pause: Duration) -> Rung {
            let until = Instant::now() + pause;
            let mut rung = self.stop.rung.lock();
            while !*rung {
                if self.stop.changed.wait_until(&mut rung, until).timed_out() {
                    return Rung::Silence;
                }
            }
            Rung::Stop
        }
    }
}

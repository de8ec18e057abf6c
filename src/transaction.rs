//! Transactions as a stack of frames: the root, then savepoints, whether Syncline opened them or raw SQL did (drizzle
//! nests by raw savepoints). The stack counts the events that wait for the commit, so that whoever takes back rows
//! takes back their notifications too. Undone unless committed: `rollback` never fails.

use crate::connection::{Connection, Control};
use crate::constraint;
use crate::error::{Error, Result};

/// How a root transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Takes the write lock at once.
    Immediate,
    /// Takes locks as statements need them.
    Deferred,
    /// Like `Immediate` in WAL mode.
    Exclusive,
}

impl Mode {
    fn sql(self) -> &'static str {
        match self {
            Mode::Immediate => "BEGIN IMMEDIATE",
            Mode::Deferred => "BEGIN DEFERRED",
            Mode::Exclusive => "BEGIN EXCLUSIVE",
        }
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No transaction.
    Autocommit,
    /// Inside a transaction whose root Syncline opened.
    Ours,
    /// Inside a transaction that raw SQL opened.
    Raw,
    /// SQLite ended the transaction by itself; its frames have still to end.
    Lost,
}

struct Frame {
    /// Opened by `begin`, not by raw SQL.
    ours: bool,
    /// `None` for a root that began with BEGIN.
    savepoint: Option<String>,
    /// How many events were pending when it began.
    mark: u32,
}

/// The open frames of one connection.
#[derive(Default)]
pub struct Transactions {
    frames: Vec<Frame>,
    pending: u32,
    /// The last position that was taken in the open transaction; 0 where none was, or something was taken back.
    position: i64,
    /// The last position before the open transaction; `None` where it has taken none.
    base: Option<i64>,
    /// The root began without the write lock.
    deferred: bool,
    /// Why the transaction was lost.
    lost: Option<Error>,
    /// A projector runs: it may not divide or end the transaction, nor see Syncline's own tables.
    pub projecting: bool,
}

impl Transactions {
    /// Where the connection stands.
    pub fn state(&self) -> State {
        match (&self.lost, self.frames.first()) {
            (Some(_), _) => State::Lost,
            (None, None) => State::Autocommit,
            (None, Some(root)) if root.ours => State::Ours,
            (None, Some(_)) => State::Raw,
        }
    }

    /// Counts `count` events that wait for the commit, and says how many wait before them.
    pub fn add_pending(&mut self, count: u32) -> u32 {
        let before = self.pending;
        self.pending += count;
        before
    }

    /// Notes positions that were taken in the open transaction, from the first through the last; 0 for none.
    pub fn took(&mut self, first: i64, last: i64) {
        if last > 0 {
            self.base.get_or_insert(first - 1);
            self.position = self.position.max(last);
        }
    }

    /// The last position before the open transaction, where that is not the last one to be seen. A raw one takes none.
    pub fn base(&self) -> Option<i64> {
        self.base.filter(|_| self.frames.first().is_some_and(|root| root.ours))
    }

    /// After the outermost commit: the last position that it made public, 0 where that is not certain.
    pub fn take_position(&mut self) -> i64 {
        std::mem::take(&mut self.position)
    }

    /// Opens the root, or a savepoint inside an open one. `ERR_IN_PROJECTOR`, `ERR_BUSY`, or the loss of the open one.
    pub fn begin(&mut self, connection: &Connection, mode: Mode) -> Result<()> {
        if self.projecting {
            return Err(Error::InProjector("begin a transaction").into());
        }
        self.check_not_lost()?;
        let savepoint = if self.frames.is_empty() {
            connection.cached(mode.sql())?.raw_execute()?;
            // Once the lock is there, which may have taken long to get.
            if mode != Mode::Deferred
                && let Err(gone) = connection.check_at_begin()
            {
                connection.cached("ROLLBACK")?.raw_execute()?;
                return Err(gone);
            }
            (self.base, self.deferred) = (None, mode == Mode::Deferred);
            None
        } else {
            let name = format!("{RESERVED}{}", self.frames.len());
            connection.cached(&format!("SAVEPOINT {name}"))?.raw_execute()?;
            Some(name)
        };
        self.frames.push(Frame { ours: true, savepoint, mark: self.pending });
        Ok(())
    }

    /// Ends the innermost frame that `begin` opened, and raw savepoints inside it, keeping what it did. Answers how
    /// many events are pending. Where SQLite refuses (a deferred constraint), everything of the frame is rolled back.
    pub fn commit(&mut self, connection: &Connection) -> Result<u32> {
        self.projecting = false;
        if self.lost.is_some() {
            let error = self.check_not_lost();
            self.rollback(connection);
            return error.map(|()| 0);
        }
        let Some(frame) = self.frames.iter().rfind(|frame| frame.ours) else {
            return Err(Error::InTransaction("There is no transaction to commit").into());
        };
        let committed = match &frame.savepoint {
            None if self.deferred => connection.check_at_commit().and_then(|()| connection.commit()),
            None => connection.commit(),
            Some(name) => connection
                .cached(&format!("RELEASE {name}"))
                .and_then(|mut statement| Ok(statement.raw_execute().map(|_| ())?)),
        };
        match committed {
            Ok(()) => {
                self.pop();
                let pending = self.pending;
                if self.frames.is_empty() {
                    self.pending = 0;
                }
                Ok(pending)
            }
            Err(error) => {
                let error = constraint::explain_commit(connection, *error);
                self.rollback(connection);
                Err(error.into())
            }
        }
    }

    /// Opens the savepoint of one projector. It is no frame: inside it nothing can be begun, recorded or divided.
    pub fn begin_projector(&self, connection: &Connection) -> Result<()> {
        self.check_not_lost()?;
        connection.cached("SAVEPOINT syncline_projector")?.raw_execute()?;
        Ok(())
    }

    /// Keeps what the projector did. `ERR_SQLITE` where SQLite has ended the transaction meanwhile.
    pub fn keep_projector(&self, connection: &Connection) -> Result<()> {
        self.check_not_lost()?;
        connection.cached("RELEASE syncline_projector")?.raw_execute()?;
        Ok(())
    }

    /// Takes back what the projector did, and nothing before it. `false` where the whole transaction is lost.
    pub fn undo_projector(&mut self, connection: &Connection) -> bool {
        if self.lost.is_some() {
            return false;
        }
        let undone = connection.sqlite().execute_batch("ROLLBACK TO syncline_projector; RELEASE syncline_projector");
        if let Err(error) = undone {
            // Half a rollback must not be committed: the whole transaction goes.
            let _ = connection.sqlite().execute_batch("ROLLBACK");
            self.lose(&error.into());
        }
        self.lost.is_none()
    }

    /// Ends the innermost frame that `begin` opened, taking back all of it. Answers how many events are still pending.
    pub fn rollback(&mut self, connection: &Connection) -> u32 {
        self.projecting = false;
        let Some(frame) = self.pop() else {
            if self.frames.is_empty() {
                (self.lost, self.pending, self.position) = (None, 0, 0);
            }
            return self.pending;
        };
        (self.pending, self.position) = (frame.mark, 0);
        let autocommit = connection.sqlite().is_autocommit();
        match &frame.savepoint {
            None if autocommit => {}
            None => {
                // A ROLLBACK fails only where SQLite has ended the transaction already, which is what it asks for.
                let _ = connection.sqlite().execute_batch("ROLLBACK");
            }
            Some(_) if autocommit || self.lost.is_some() => {}
            Some(name) => {
                if let Err(error) = connection.sqlite().execute_batch(&format!("ROLLBACK TO {name}; RELEASE {name}")) {
                    // Half a rollback must not be committed: the whole transaction goes.
                    let _ = connection.sqlite().execute_batch("ROLLBACK");
                    self.lose(&error.into());
                }
            }
        }
        if self.frames.is_empty() {
            self.lost = None;
            self.pending = 0;
        }
        self.pending
    }

    /// Takes the innermost frame of ours, with the raw savepoints inside it, off the stack.
    fn pop(&mut self) -> Option<Frame> {
        let at = self.frames.iter().rposition(|frame| frame.ours)?;
        self.frames.truncate(at + 1);
        self.frames.pop()
    }

    /// Whether a statement may run now: not in a lost transaction, and within the bounds of a projector.
    pub fn check(&self, control: Option<&Control>, touches_log: bool) -> Result<()> {
        self.check_not_lost()?;
        if self.projecting {
            if control.is_some() {
                return Err(Error::InProjector("begin, divide or end a transaction").into());
            }
            if touches_log {
                return Err(Error::InProjector("read or write syncline's own tables").into());
            }
        }
        let Some(control) = control else { return Ok(()) };
        // A raw BEGIN may stand below: whoever ends the root would end the frames above it too.
        let any_is_ours = self.frames.iter().any(|frame| frame.ours);
        match control {
            Control::Begin if any_is_ours => Err(Error::InTransaction("A transaction is open already").into()),
            Control::Commit | Control::Rollback if any_is_ours => Err(Error::InTransaction(
                "Raw COMMIT or ROLLBACK would end a transaction that syncline opened: return from it, or throw",
            )
            .into()),
            Control::Savepoint(name) if is_reserved(name) => {
                Err(Error::InTransaction("Savepoints named syncline_… belong to the transactions that syncline opens")
                    .into())
            }
            Control::Release(name) | Control::RollbackTo(name) => match self.find(name) {
                Some(at) if self.frames[at..].iter().any(|frame| frame.ours) => Err(Error::InTransaction(
                    "Raw RELEASE or ROLLBACK TO would end a transaction that syncline opened inside the savepoint",
                )
                .into()),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Follows a control statement that has succeeded. `true` where rows were taken back.
    pub fn follow(&mut self, control: &Control) -> bool {
        match control {
            Control::Begin => self.frames.push(Frame { ours: false, savepoint: None, mark: 0 }),
            Control::Commit => self.frames.clear(),
            Control::Rollback => {
                self.frames.clear();
                (self.pending, self.position) = (0, 0);
                return true;
            }
            Control::Savepoint(name) => {
                self.frames.push(Frame { ours: false, savepoint: Some(name.clone()), mark: self.pending });
            }
            Control::Release(name) => {
                if let Some(at) = self.find(name) {
                    self.frames.truncate(at);
                }
            }
            Control::RollbackTo(name) => {
                if let Some(at) = self.find(name) {
                    self.frames.truncate(at + 1);
                    self.pending = self.frames[at].mark;
                }
                self.position = 0;
                return true;
            }
        }
        false
    }

    /// Compares the frames with SQLite's own state after a step. `cause` is the error of that step, if it failed.
    /// RAISE(ROLLBACK), a full disk or an I/O error end a transaction behind everybody's back: from then on every
    /// statement is refused, since it would commit by itself.
    pub fn notice(&mut self, connection: &Connection, cause: Option<&Error>) {
        if self.frames.is_empty() || self.lost.is_some() || !connection.sqlite().is_autocommit() {
            return;
        }
        if self.frames.iter().any(|frame| frame.ours) {
            let unknown = Error::Sqlite { message: "unknown cause".to_owned(), sqlite_code: "SQLITE_ABORT".to_owned() };
            self.lose(cause.unwrap_or(&unknown));
        } else {
            self.frames.clear();
        }
        (self.pending, self.position) = (0, 0);
    }

    fn lose(&mut self, cause: &Error) {
        self.lost = Some(cause.clone());
    }

    fn check_not_lost(&self) -> Result<()> {
        match &self.lost {
            None => Ok(()),
            Some(cause) => Err(Error::TransactionLost { cause: Box::new(cause.clone()) }.into()),
        }
    }

    /// The innermost frame of a savepoint's name; SQLite compares those without case.
    fn find(&self, name: &str) -> Option<usize> {
        self.frames
            .iter()
            .rposition(|frame| frame.savepoint.as_deref().is_some_and(|savepoint| savepoint.eq_ignore_ascii_case(name)))
    }
}

/// How the names of Syncline's own savepoints begin.
const RESERVED: &str = "syncline_";

fn is_reserved(name: &str) -> bool {
    name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

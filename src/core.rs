//! One open database: its connection, its transactions and everything above them, and the calls that need several of
//! these at once. `Store` is its lock.

mod begin;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use rusqlite::types::Value;

pub use self::begin::Begun;
use crate::checkpoint::Checkpointer;
use crate::compact::Rules;
use crate::connection::{Connection, OnThread};
use crate::cursor::Cursor;
use crate::dedupe::{Candidate, Dedupe, Look};
use crate::error::{Error, Result};
use crate::event::{self, NewEvent, Ran, Recorded};
use crate::id::Ids;
use crate::known::Known;
use crate::limits::ROW_BYTES;
use crate::log;
use crate::pack::Keep;
use crate::packer::Packer;
use crate::project::{self, Definitions};
use crate::remove;
use crate::run;
use crate::statement::Prepared;
use crate::tables;
use crate::transaction::{Mode, State, Transactions};
use crate::turn::Turns;
use crate::watch::Watcher;

/// What a run does besides recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steps {
    /// Open a frame first; a failure ends it again.
    pub begin: bool,
    /// Run the SQL projector.
    pub project: bool,
    /// End the frame.
    pub commit: bool,
    /// Neither store the event nor move the sequence.
    pub unrecorded: bool,
    /// A JavaScript projector follows.
    pub projecting: bool,
}

/// What an event has that is published and never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// A new one.
    pub id: String,
    /// Unix milliseconds.
    pub created: i64,
    /// The aggregate's last seq; −1 when unknown.
    pub after: i64,
    /// The last position in the log, what the open transaction has recorded included.
    pub position: i64,
    /// How many events wait before it for the commit; `None` where no transaction is open.
    pub pending: Option<u32>,
}

/// Everything that one open database holds. Cursors come first: they borrow the connection. The threads' own connections
/// go before it, too: only the last connection to close can clean up the WAL, and the watcher's may not write.
pub(crate) struct Core {
    pub(crate) cursors: HashMap<u32, (Rc<Prepared>, Cursor)>,
    pub(crate) next_cursor: u32,
    pub(crate) watcher: Option<Watcher>,
    pub(crate) packer: Option<Packer>,
    pub(crate) checkpointer: Option<Checkpointer>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) transactions: Transactions,
    pub(crate) known: Known,
    pub(crate) definitions: Definitions,
    pub(crate) rules: Arc<Rules>,
    pub(crate) dedupe: Dedupe,
    pub(crate) keep: Keep,
    pub(crate) ids: Ids,
    pub(crate) max_event_bytes: usize,
    /// The last position of the last commit of this store; 0 where it is not certain.
    pub(crate) committed: i64,
    /// Bytes recorded since the last commit; what was taken back counts, too.
    pub(crate) recorded_bytes: u64,
    /// What SQL projectors did not do since it was last asked, with the indices of the items of a replay.
    pub(crate) skipped: Vec<(usize, Error)>,
    /// Tells the other connections of the thread of this one.
    pub(crate) _on_thread: Option<OnThread>,
    pub(crate) connection: Connection,
}

impl Core {
    pub(crate) fn new(connection: Connection, max_event_bytes: usize) -> Self {
        Core {
            cursors: HashMap::new(),
            next_cursor: 0,
            watcher: None,
            packer: None,
            checkpointer: None,
            turns: Turns::shared(),
            transactions: Transactions::default(),
            known: Known::default(),
            definitions: Definitions::default(),
            rules: Arc::default(),
            dedupe: Dedupe::default(),
            keep: Keep { events: 0, bytes: 0 },
            ids: Ids::new(),
            max_event_bytes,
            committed: 0,
            recorded_bytes: 0,
            skipped: Vec::new(),
            _on_thread: connection.on_this_thread(),
            connection,
        }
    }

    pub(crate) fn commit(&mut self) -> Result<u32> {
        let committed = self.transactions.commit(&self.connection);
        if committed.is_err() {
            self.forget();
        } else if self.transactions.state() == State::Autocommit {
            self.after_commit();
        }
        self.close_stray_cursors();
        committed
    }

    /// Rows that were seen may have been taken back.
    fn forget(&mut self) {
        self.known.forget();
        self.dedupe.forget();
    }

    pub(crate) fn after_commit(&mut self) {
        self.dedupe.keep();
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.committed(self.connection.wal_bytes());
        }
        if let Some(packer) = &mut self.packer {
            packer.committed(std::mem::take(&mut self.recorded_bytes));
        }
        self.committed = self.transactions.take_position();
        if let Some(watcher) = &self.watcher {
            watcher.wrote(self.committed);
        }
    }

    /// The last position that is committed, as far as this connection sees.
    pub(crate) fn last_position(&self) -> Result<i64> {
        match self.transactions.base() {
            Some(before) => Ok(before),
            None => tables::last_position(&self.connection),
        }
    }

    pub(crate) fn rollback(&mut self) -> u32 {
        self.forget();
        // A statement that is still open would keep giving rows that are taken back.
        self.cursors.clear();
        let pending = self.transactions.rollback(&self.connection);
        self.connection.ended();
        pending
    }

    /// No transaction begins while an iteration is open, so that those open at its end were begun in it and left behind.
    /// They would refuse every later write.
    fn close_stray_cursors(&mut self) {
        if self.transactions.state() == State::Autocommit {
            self.cursors.clear();
        }
    }

    /// Runs `call` in a frame of its own.
    pub(crate) fn framed<T>(&mut self, call: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        self.check_writable()?;
        self.begin(Mode::Immediate, true)?;
        let done = call(self);
        match self.noticed(done) {
            Ok(value) => self.commit().map(|_| value),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    /// The log can be written: the connection is not read-only, and no raw transaction is open.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.connection.is_readonly() {
            let message = format!("\"{}\" was opened read-only", self.connection.path());
            return Err(Error::Readonly { message, sqlite_code: "SQLITE_READONLY".to_owned() }.into());
        }
        match self.transactions.state() {
            State::Raw => Err(Error::InTransaction(
                "A raw BEGIN or SAVEPOINT is open; events are recorded in transactions that the store opens",
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// A transaction that the store opened is open, and not lost.
    pub(crate) fn check_inside(&self, otherwise: &'static str) -> Result<()> {
        if self.transactions.state() == State::Ours {
            return Ok(());
        }
        self.transactions.check(None, false)?;
        Err(Error::InTransaction(otherwise).into())
    }

    pub(crate) fn run(&mut self, steps: Steps, event: &NewEvent<'_>) -> Result<Ran> {
        run::check(self.definitions.get(event.definition)?, event, self.max_event_bytes)?;
        self.check_writable()?;
        if steps.begin {
            self.begin(Mode::Immediate, true)?;
        }
        let ran = self.record(steps, event);
        let ran = match self.noticed(ran) {
            Ok(ran) => ran,
            Err(error) => {
                if steps.begin {
                    self.rollback();
                }
                return Err(error);
            }
        };
        if steps.commit || (steps.begin && matches!(ran, Ran::Repeated(_))) {
            let committed = self.commit();
            if let (Err(error), Ran::Recorded(recorded)) = (&committed, &ran)
                && error.is_constraint()
            {
                let definition = self.definitions.get(event.definition)?;
                return Err(project::located(
                    (**error).clone(),
                    definition,
                    &run::as_stored(definition, event, recorded),
                )
                .into());
            }
            committed?;
        }
        Ok(ran)
    }

    fn record(&mut self, steps: Steps, event: &NewEvent<'_>) -> Result<Ran> {
        self.transactions.projecting = false;
        self.check_inside("An event is recorded inside a transaction")?;
        let definition = self.definitions.get(event.definition)?;
        let mut recorded = if steps.unrecorded {
            run::stamped(&mut self.ids, event, -1, 0)
        } else {
            let (connection, known) = (&self.connection, &mut self.known);
            let sequence = run::writable(connection, known, event.aggregate_id, event.owner, event.expected_seq)?;
            let mut seen = None;
            if definition.dedupe.is_some() {
                let candidate =
                    Candidate { type_name: &definition.name, aggregate_id: event.aggregate_id, data: event.data };
                match self.dedupe.look(connection, known, &sequence, candidate, self.transactions.base())? {
                    Look::Repeats(repeated) => return Ok(Ran::Repeated(repeated)),
                    Look::New(new) => seen = new,
                }
            }
            let recorded = run::record(connection, known, &mut self.ids, definition, event, &sequence)?;
            if definition.dedupe.is_some() {
                self.dedupe.note(sequence.key, &definition.name, recorded.seq, seen);
            }
            recorded
        };
        self.recorded_bytes += event.data.len() as u64 + ROW_BYTES;
        self.transactions.took(recorded.position, recorded.position);
        recorded.pending = self.transactions.add_pending(1);
        if steps.project {
            let stored = run::as_stored(definition, event, &recorded);
            let skipped = project::project(&self.connection, &mut self.transactions, definition, &stored)?;
            self.skipped = skipped.into_iter().map(|error| (0, error)).collect();
        }
        self.transactions.projecting = steps.projecting;
        Ok(Ran::Recorded(recorded))
    }

    /// Makes what an event has that is published and never stored: id, time, the aggregate's last seq, the position
    /// through which the log stands, and its place among the pending events.
    pub(crate) fn stamp(&mut self, aggregate_id: &str) -> Result<Stamped> {
        event::check_aggregate_id(aggregate_id, None)?;
        self.transactions.check(None, false)?;
        if self.transactions.state() == State::Raw {
            return Err(Error::InTransaction(
                "A raw BEGIN or SAVEPOINT is open; events are published in transactions that the store opens",
            )
            .into());
        }
        let (id, created) = (self.ids.make(), run::now());
        let (after, position) = log::standing(&self.connection, aggregate_id)?;
        // Last, so that nothing is counted that then fails.
        let inside = self.transactions.state() == State::Ours;
        let pending = inside.then(|| self.transactions.add_pending(1));
        Ok(Stamped { id, created, after, position, pending })
    }

    pub(crate) fn remove(
        &mut self,
        aggregate_id: &str,
        writer: Option<&str>,
        event: Option<&NewEvent<'_>>,
    ) -> Result<Option<Recorded>> {
        event::check_aggregate_id(aggregate_id, None)?;
        self.check_writable()?;
        self.check_inside("An aggregate is removed inside a transaction")?;
        let event = match event {
            None => None,
            Some(event) => {
                let definition = self.definitions.get(event.definition)?;
                run::check(definition, event, self.max_event_bytes)?;
                Some((definition, event))
            }
        };
        let removed = remove::remove(&self.connection, &mut self.known, &mut self.ids, aggregate_id, writer, event);
        self.transactions.notice(&self.connection, removed.as_ref().err().map(Box::as_ref));
        let (position, recorded) = removed?;
        self.transactions.took(position, position);
        let Some(mut recorded) = recorded else { return Ok(None) };
        recorded.pending = self.transactions.add_pending(1);
        if let Some((definition, event)) = event {
            let stored = run::as_stored(definition, event, &recorded);
            let skipped = project::project(&self.connection, &mut self.transactions, definition, &stored)?;
            self.skipped = skipped.into_iter().map(|error| (0, error)).collect();
            self.transactions.projecting = matches!(definition.projector, project::Projector::JavaScript);
        }
        Ok(Some(recorded))
    }

    /// After statements of our own: SQLite may have ended the transaction by itself.
    pub(crate) fn noticed<T>(&mut self, result: Result<T>) -> Result<T> {
        self.transactions.notice(&self.connection, result.as_ref().err().map(Box::as_ref));
        result
    }

    /// After statements of the caller: what they took back, what they committed.
    pub(crate) fn after_statements(&mut self, done: Result<bool>) -> Result<()> {
        if !matches!(done, Ok(false)) {
            self.forget();
        }
        if self.transactions.state() == State::Autocommit {
            self.after_commit();
        }
        done.map(|_| ())
    }

    pub(crate) fn open_cursor(&mut self, prepared: &Rc<Prepared>, values: &[Value]) -> Result<u32> {
        let effects = &prepared.effects;
        self.transactions.check(effects.control.as_ref(), effects.touches_log)?;
        if !prepared.readonly || effects.control.is_some() {
            self.check_no_cursor()?;
        }
        if !prepared.readonly && self.transactions.state() == State::Autocommit {
            self.connection.check_at_begin()?;
        }
        // SAFETY: `cursors` is dropped before `connection`, as the order of the fields says.
        #[allow(unsafe_code)]
        let cursor = unsafe { Cursor::open(&self.connection, prepared, values) }?;
        self.next_cursor = self.next_cursor.wrapping_add(1);
        self.cursors.insert(self.next_cursor, (Rc::clone(prepared), cursor));
        Ok(self.next_cursor)
    }

    pub(crate) fn check_no_cursor(&self) -> Result<()> {
        if self.cursors.is_empty() { Ok(()) } else { Err(busy()) }
    }

    /// Runs several reads in one snapshot of the file.
    pub(crate) fn snapshot<T>(&mut self, read: impl FnOnce(&Connection, &mut Known) -> Result<T>) -> Result<T> {
        let (connection, known) = (&self.connection, &mut self.known);
        connection.snapshot(|| read(connection, known))
    }
}

/// The lock, or the connection, is taken by a query that is still running.
pub(crate) fn busy() -> Box<Error> {
    let message = "This database connection is busy executing a query".to_owned();
    Error::Busy { message, waited: Some(0), sqlite_code: None }.into()
}

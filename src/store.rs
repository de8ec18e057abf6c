//! The façade that the binding calls: one connection, its transactions, and everything above them, behind one lock that
//! is never waited for. Whoever meets it taken is inside a user function of the same connection.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Row;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};

use crate::checkpoint::Checkpointer;
use crate::connection::{Connection, OpenOptions};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::event::{NewEvent, Recorded};
use crate::id::Ids;
use crate::log::{self, Listed, LogPage, Range, Visit};
use crate::owner;
use crate::project::{self, Definition};
use crate::remove;
use crate::replay::{Applied, Authority, Batch, Definitions, Target};
use crate::run;
use crate::statement::{self, Prepared};
use crate::tables::{self, Types};
use crate::transaction::{Mode, State, Transactions};

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

/// A store or, without a log, a plain connection.
pub struct Store {
    core: Mutex<Option<Core>>,
    poisoned: Mutex<Option<String>>,
    path: String,
}

/// Everything that one open database holds. Cursors come first: they borrow the connection.
struct Core {
    cursors: HashMap<u32, (Rc<Prepared>, Cursor)>,
    next_cursor: u32,
    checkpointer: Option<Checkpointer>,
    transactions: Transactions,
    types: Types,
    definitions: Definitions,
    ids: Ids,
    max_event_bytes: usize,
    connection: Connection,
}

impl Store {
    /// Opens a store; its tables are made where there are none.
    pub fn open(options: &OpenOptions, max_event_bytes: usize) -> Result<Self> {
        let connection = Connection::open(options)?;
        let on_thread = !connection.is_memory() && !connection.is_readonly();
        let checkpointer = on_thread.then(|| Checkpointer::new(options.clone()));
        Ok(Self::new(connection, checkpointer, max_event_bytes))
    }

    /// Opens a plain connection for a caller who owns it. It has no log: only statements and transactions.
    pub fn open_plain(options: &OpenOptions) -> Result<Self> {
        Ok(Self::new(Connection::open_plain(options)?, None, 0))
    }

    fn new(connection: Connection, checkpointer: Option<Checkpointer>, max_event_bytes: usize) -> Self {
        Store {
            path: connection.path().to_owned(),
            poisoned: Mutex::new(None),
            core: Mutex::new(Some(Core {
                cursors: HashMap::new(),
                next_cursor: 0,
                checkpointer,
                transactions: Transactions::default(),
                types: Types::default(),
                definitions: Definitions::default(),
                ids: Ids::new(),
                max_event_bytes,
                connection,
            })),
        }
    }

    /// The path it was opened with.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Takes the lock for one call. A panic inside poisons the store: half-done state answers nothing any more.
    fn with<T>(&self, call: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        if let Some(message) = &*self.poisoned.lock() {
            return Err(Error::Poisoned(message.clone()));
        }
        let Some(mut guard) = self.core.try_lock() else {
            return Err(busy());
        };
        let Some(core) = guard.as_mut() else {
            return Err(Error::Closed("store"));
        };
        catch_unwind(AssertUnwindSafe(|| call(core))).unwrap_or_else(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "panic".to_owned());
            *self.poisoned.lock() = Some(message.clone());
            Err(Error::Poisoned(message))
        })
    }

    /// The same for calls that read the log, which projectors may not: on another device they would read another one.
    fn with_log<T>(&self, call: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        self.with(|core| {
            if core.transactions.projecting {
                return Err(Error::InProjector("read the log"));
            }
            core.transactions.check(None, false)?;
            call(core)
        })
    }

    /// Closes it; again is nothing. Refused inside a transaction, a projector or a user function.
    pub fn close(&self) -> Result<()> {
        let Some(mut guard) = self.core.try_lock() else {
            return Err(busy());
        };
        let Some(core) = guard.as_mut() else { return Ok(()) };
        if self.poisoned.lock().is_none() {
            if core.transactions.projecting {
                return Err(Error::InProjector("close the store"));
            }
            if matches!(core.transactions.state(), State::Ours | State::Lost) {
                return Err(Error::InTransaction("The store cannot be closed inside a transaction"));
            }
        }
        // Cursors, then the checkpoint thread with its connection, then this one: the last to close cleans up the WAL.
        *guard = None;
        Ok(())
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.core.try_lock().is_some_and(|core| core.is_none())
    }

    /// Names the definitions that `run` and `replay` know by their index.
    pub fn register(&self, definitions: Vec<Definition>) -> Result<()> {
        self.with(|core| {
            for definition in &definitions {
                run::check_type(&definition.name)?;
            }
            core.definitions = Definitions::new(definitions);
            Ok(())
        })
    }

    /// Where the connection stands.
    pub fn state(&self) -> Result<State> {
        self.with(|core| Ok(core.transactions.state()))
    }

    /// Opens a transaction, or a savepoint inside one. `false` where the lock is taken and must not be waited for.
    pub fn begin(&self, mode: Mode, wait: bool) -> Result<bool> {
        self.with(|core| core.begin(mode, wait))
    }

    /// Keeps what the innermost frame did; see [`Transactions::commit`].
    pub fn commit(&self) -> Result<u32> {
        self.with(Core::commit)
    }

    /// Takes back what the innermost frame did, and says how many events are still pending.
    pub fn rollback(&self) -> Result<u32> {
        self.with(|core| Ok(core.rollback()))
    }

    /// Records one event, in the steps that are asked for.
    pub fn run(&self, steps: Steps, event: &NewEvent<'_>) -> Result<Recorded> {
        self.with(|core| core.run(steps, event))
    }

    /// Removes an aggregate's history, inside the open transaction, with or without a deletion event whose SQL
    /// projector runs here.
    pub fn remove(
        &self,
        aggregate_id: &str,
        writer: Option<&str>,
        event: Option<&NewEvent<'_>>,
    ) -> Result<Option<Recorded>> {
        self.with(|core| core.remove(aggregate_id, writer, event))
    }

    /// Gives an aggregate to an owner or to nobody.
    pub fn claim(
        &self,
        aggregate_id: &str,
        owner: Option<&str>,
        expected_epoch: Option<i64>,
    ) -> Result<(Option<String>, i64)> {
        self.with(|core| {
            run::check_aggregate_id(aggregate_id, None)?;
            core.framed(|core| owner::claim(&core.connection, aggregate_id, owner, expected_epoch))
        })
    }

    /// Owner and epoch of an aggregate.
    pub fn owner(&self, aggregate_id: &str) -> Result<Option<(Option<String>, i64)>> {
        self.with_log(|core| {
            let sequence = tables::find_sequence(&core.connection, aggregate_id)?;
            Ok(sequence.map(|sequence| (sequence.owner, sequence.epoch)))
        })
    }

    /// The largest event that is taken.
    pub fn max_event_bytes(&self) -> Result<usize> {
        self.with(|core| Ok(core.max_event_bytes))
    }

    /// See [`Batch::page`].
    pub fn replay_page(&self, batch: &Batch, from: usize) -> Result<(usize, Vec<usize>)> {
        self.with(|core| batch.page(&core.definitions, from))
    }

    /// See [`Batch::set_data`].
    pub fn replay_set_data(
        &self,
        batch: &mut Batch,
        index: usize,
        data: String,
        metadata: Option<String>,
    ) -> Result<()> {
        self.with(|core| batch.set_data(&core.definitions, index, data, metadata))
    }

    /// The definition index of an item of a batch.
    pub fn replay_definition(&self, batch: &Batch, index: usize) -> Result<Option<usize>> {
        self.with(|core| {
            Ok(batch
                .event(index)
                .and_then(|event| core.definitions.find(&event.type_name)))
        })
    }

    /// See [`Batch::apply`]. With `collect`, also answers how many events were pending before the applied ones.
    pub fn replay_apply(
        &self,
        batch: &mut Batch,
        range: std::ops::Range<usize>,
        authority: Authority<'_>,
        collect: bool,
    ) -> Result<(Applied, u32)> {
        self.with(|core| {
            if !matches!(core.transactions.state(), State::Ours) {
                return Err(Error::InTransaction("A replay is applied inside a transaction"));
            }
            authority.owner.map_or(Ok(()), owner::check_name)?;
            core.transactions.projecting = false;
            let mut target = Target {
                connection: &core.connection,
                transactions: &mut core.transactions,
                types: &mut core.types,
                definitions: &core.definitions,
            };
            let applied = batch.apply(&mut target, range, authority, collect);
            let applied = core.noticed(applied)?;
            let count = if collect { applied.indices.len() as u32 } else { 0 };
            let before = core.transactions.add_pending(count);
            core.transactions.projecting = !applied.indices.is_empty();
            Ok((applied, before))
        })
    }

    /// Reads a page of one aggregate.
    pub fn read(&self, aggregate_id: &str, range: Range, visit: &mut Visit<'_>) -> Result<()> {
        self.with_log(|core| {
            core.snapshot(|connection, types| log::read(connection, types, aggregate_id, range, visit))
        })
    }

    /// Reads a page in the order of commits.
    pub fn read_all(&self, after_position: i64, limit: usize, visit: &mut Visit<'_>) -> Result<()> {
        self.with_log(|core| log::read_all(&core.connection, &mut core.types, after_position, limit, visit))
    }

    /// Reads a page of an aggregate's log, in one snapshot.
    pub fn read_log(
        &self,
        aggregate_id: &str,
        bounds: (i64, i64),
        limit: usize,
        visit: &mut Visit<'_>,
    ) -> Result<LogPage> {
        self.with_log(|core| {
            core.snapshot(|connection, types| log::read_log(connection, types, aggregate_id, bounds, limit, visit))
        })
    }

    /// The last seq of an aggregate, −1 when unknown.
    pub fn sequence(&self, aggregate_id: &str) -> Result<i64> {
        self.with_log(|core| log::sequence(&core.connection, aggregate_id))
    }

    /// The last seq of many aggregates, or of all.
    pub fn sequences(&self, ids: Option<&[String]>) -> Result<Vec<(String, i64)>> {
        self.with_log(|core| log::sequences(&core.connection, ids))
    }

    /// Lists aggregates by id.
    pub fn aggregates(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<Listed>> {
        self.with_log(|core| log::aggregates(&core.connection, prefix, after, limit))
    }

    /// Prepares a statement of the caller.
    pub fn prepare(&self, sql: String) -> Result<Prepared> {
        self.with(|core| Prepared::new(&core.connection, sql))
    }

    /// The columns of a statement.
    pub fn columns(&self, prepared: &Prepared) -> Result<Vec<statement::Column>> {
        self.with(|core| prepared.columns(&core.connection))
    }

    /// Runs a statement and hands over its rows until `visit` says `false`. Answers changes and last rowid.
    pub fn execute(
        &self,
        prepared: &Prepared,
        values: &[Value],
        visit: &mut dyn FnMut(&Row<'_>) -> Result<bool>,
    ) -> Result<(u64, i64)> {
        self.with(|core| {
            if !prepared.readonly || prepared.effects.control.is_some() {
                core.check_no_cursor()?;
            }
            let (start, before) = (Instant::now(), core.connection.sqlite().total_changes());
            let done = statement::execute(&core.connection, &mut core.transactions, prepared, values, visit);
            core.after_statements(start, done)?;
            let sqlite = core.connection.sqlite();
            // SQLite keeps the count of the last change for statements that change nothing.
            let changes = if sqlite.total_changes() == before {
                0
            } else {
                sqlite.changes()
            };
            Ok((changes, sqlite.last_insert_rowid()))
        })
    }

    /// Runs every statement of a text.
    pub fn execute_all(&self, sql: &str) -> Result<()> {
        self.with(|core| {
            core.check_no_cursor()?;
            let start = Instant::now();
            let done = statement::execute_all(&core.connection, &mut core.transactions, sql);
            core.after_statements(start, done)
        })
    }

    /// Begins an iteration.
    pub fn open_cursor(&self, prepared: &Rc<Prepared>, values: &[Value]) -> Result<u32> {
        self.with(|core| core.open_cursor(prepared, values))
    }

    /// Steps an iteration; `false` at its end, which closes it. `ERR_CLOSED` for one that was closed.
    pub fn next_row(&self, cursor: u32, visit: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<bool> {
        self.with(|core| {
            let Some((prepared, open)) = core.cursors.get_mut(&cursor) else {
                return Err(Error::Closed("iterator"));
            };
            let stepped = open.next(prepared, visit);
            core.transactions.notice(&core.connection, stepped.as_ref().err());
            if !matches!(stepped, Ok(true)) {
                core.cursors.remove(&cursor);
            }
            stepped
        })
    }

    /// Ends an iteration; again is nothing.
    pub fn close_cursor(&self, cursor: u32) -> Result<()> {
        let Some(mut guard) = self.core.try_lock() else {
            return Err(busy());
        };
        if let Some(core) = guard.as_mut() {
            core.cursors.remove(&cursor);
        }
        Ok(())
    }

    /// Gives SQL a function of the caller.
    pub fn create_function<F>(&self, name: &str, arguments: i32, flags: FunctionFlags, function: F) -> Result<()>
    where
        F: Fn(&[ValueRef<'_>]) -> std::result::Result<Value, String> + Send + 'static,
    {
        self.with(|core| {
            core.check_no_cursor()?;
            core.connection
                .sqlite()
                .create_scalar_function(name, arguments, flags, move |context| {
                    let values: Vec<ValueRef<'_>> = (0..context.len()).map(|index| context.get_raw(index)).collect();
                    function(&values).map_err(|message| rusqlite::Error::UserFunctionError(message.into()))
                })?;
            Ok(())
        })
    }
}

impl Core {
    fn begin(&mut self, mode: Mode, wait: bool) -> Result<bool> {
        self.check_no_cursor()?;
        let root = self.transactions.state() == State::Autocommit;
        if self.connection.is_readonly() && mode != Mode::Deferred {
            return Err(Error::Readonly(format!(
                "\"{}\" was opened read-only",
                self.connection.path()
            )));
        }
        if root && let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.before_begin(&self.connection, wait);
        }
        let start = Instant::now();
        let (connection, transactions) = (&self.connection, &mut self.transactions);
        let begun = if wait || !root {
            transactions.begin(connection, mode)
        } else {
            connection.waiting(Duration::ZERO, || transactions.begin(connection, mode))
        };
        match begun {
            Err(error) if error.is_busy() && !wait => Ok(false),
            begun => self.waited(start, begun).map(|()| true),
        }
    }

    /// An `ERR_BUSY` says how long the lock was waited for: not at all, where waiting could not help.
    fn waited<T>(&self, start: Instant, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Busy { message, waited: None } => {
                let waited = start.elapsed().as_millis() as u64;
                let path = self.connection.path();
                Error::Busy {
                    message: format!("\"{path}\": {message} (waited {waited} ms)"),
                    waited: Some(waited),
                }
            }
            other => other,
        })
    }

    fn commit(&mut self) -> Result<u32> {
        let committed = self.transactions.commit(&self.connection);
        if committed.is_err() {
            self.types.forget();
        } else if self.transactions.state() == State::Autocommit {
            self.after_commit();
        }
        committed
    }

    fn after_commit(&mut self) {
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.committed(self.connection.wal_bytes());
        }
    }

    fn rollback(&mut self) -> u32 {
        self.types.forget();
        self.transactions.rollback(&self.connection)
    }

    /// Runs `call` in a frame of its own.
    fn framed<T>(&mut self, call: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        self.refuse_raw()?;
        self.begin(Mode::Immediate, true)?;
        let done = call(self);
        let result = self.noticed(done);
        self.close_frame(result)
    }

    fn close_frame<T>(&mut self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => self.commit().map(|_| value),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    fn refuse_raw(&self) -> Result<()> {
        match self.transactions.state() {
            State::Raw => Err(Error::InTransaction(
                "A raw BEGIN or SAVEPOINT is open; events are recorded in transactions that the store opens",
            )),
            _ => Ok(()),
        }
    }

    fn run(&mut self, steps: Steps, event: &NewEvent<'_>) -> Result<Recorded> {
        run::check(self.definitions.get(event.definition)?, event, self.max_event_bytes)?;
        self.refuse_raw()?;
        if steps.begin {
            self.begin(Mode::Immediate, true)?;
        }
        let recorded = self.record(steps, event);
        let recorded = match self.noticed(recorded) {
            Ok(recorded) => recorded,
            Err(error) => {
                if steps.begin {
                    self.rollback();
                }
                return Err(error);
            }
        };
        if steps.commit {
            self.commit()?;
        }
        Ok(recorded)
    }

    fn record(&mut self, steps: Steps, event: &NewEvent<'_>) -> Result<Recorded> {
        self.transactions.projecting = false;
        let state = self.transactions.state();
        if state != State::Ours {
            self.transactions.check(None, false)?;
            return Err(Error::InTransaction("An event is recorded inside a transaction"));
        }
        let definition = self.definitions.get(event.definition)?;
        let mut recorded = if steps.unrecorded {
            run::unrecorded(&mut self.ids, event, -1, 0)
        } else {
            run::record(&self.connection, &mut self.types, &mut self.ids, definition, event)?
        };
        recorded.pending = self.transactions.add_pending(1);
        if steps.project {
            let stored = run::as_stored(definition, event, &recorded);
            project::project(&self.connection, &mut self.transactions, definition, &stored)?;
        }
        self.transactions.projecting = steps.projecting;
        Ok(recorded)
    }

    fn remove(
        &mut self,
        aggregate_id: &str,
        writer: Option<&str>,
        event: Option<&NewEvent<'_>>,
    ) -> Result<Option<Recorded>> {
        run::check_aggregate_id(aggregate_id, None)?;
        if self.transactions.state() != State::Ours {
            self.transactions.check(None, false)?;
            return Err(Error::InTransaction("An aggregate is removed inside a transaction"));
        }
        let event = match event {
            None => None,
            Some(event) => {
                let definition = self.definitions.get(event.definition)?;
                run::check(definition, event, self.max_event_bytes)?;
                Some((definition, event))
            }
        };
        let removed = remove::remove(&self.connection, &mut self.ids, aggregate_id, writer, event);
        self.transactions.notice(&self.connection, removed.as_ref().err());
        let Some(mut recorded) = removed? else { return Ok(None) };
        recorded.pending = self.transactions.add_pending(1);
        if let Some((definition, event)) = event {
            let stored = run::as_stored(definition, event, &recorded);
            project::project(&self.connection, &mut self.transactions, definition, &stored)?;
            self.transactions.projecting = matches!(definition.projector, project::Projector::JavaScript);
        }
        Ok(Some(recorded))
    }

    /// After statements of our own: SQLite may have ended the transaction by itself.
    fn noticed<T>(&mut self, result: Result<T>) -> Result<T> {
        self.transactions.notice(&self.connection, result.as_ref().err());
        result
    }

    /// After statements of the caller: what they took back, what they committed.
    fn after_statements(&mut self, start: Instant, done: Result<bool>) -> Result<()> {
        if !matches!(done, Ok(false)) {
            self.types.forget();
        }
        if self.transactions.state() == State::Autocommit {
            self.after_commit();
        }
        self.waited(start, done).map(|_| ())
    }

    fn open_cursor(&mut self, prepared: &Rc<Prepared>, values: &[Value]) -> Result<u32> {
        let effects = &prepared.effects;
        self.transactions.check(effects.control.as_ref(), effects.touches_log)?;
        if !prepared.readonly || effects.control.is_some() {
            self.check_no_cursor()?;
        }
        // SAFETY: `cursors` is dropped before `connection`, as the order of the fields says.
        #[allow(unsafe_code)]
        let cursor = unsafe { Cursor::open(&self.connection, prepared, values) }?;
        self.next_cursor = self.next_cursor.wrapping_add(1);
        self.cursors.insert(self.next_cursor, (Rc::clone(prepared), cursor));
        Ok(self.next_cursor)
    }

    fn check_no_cursor(&self) -> Result<()> {
        if self.cursors.is_empty() { Ok(()) } else { Err(busy()) }
    }

    /// Runs several reads in one snapshot of the file.
    fn snapshot<T>(&mut self, read: impl FnOnce(&Connection, &mut Types) -> Result<T>) -> Result<T> {
        let alone = self.connection.sqlite().is_autocommit();
        if alone {
            self.connection.cached("BEGIN DEFERRED")?.raw_execute()?;
        }
        let done = read(&self.connection, &mut self.types);
        if alone {
            // A read transaction has nothing to lose.
            let ended = self.connection.cached("COMMIT")?.raw_execute();
            if ended.is_err() && !self.connection.sqlite().is_autocommit() {
                let _ = self.connection.sqlite().execute_batch("ROLLBACK");
            }
        }
        done
    }
}

fn busy() -> Error {
    Error::Busy {
        message: "This database connection is busy executing a query".to_owned(),
        waited: Some(0),
    }
}

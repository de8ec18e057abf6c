//! The façade that the binding calls: one connection, its transactions, and everything above them, behind one lock that
//! is never waited for. Whoever meets it taken is inside a user function of the same connection.

mod upkeep;

pub use upkeep::{Errand, Stats};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Row;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};

use crate::checkpoint::Checkpointer;
use crate::connection::{Beside, Connection, OpenOptions};
use crate::constraint;
pub use crate::core::Begun;
use crate::core::{Core, Stamped, Steps, busy};
use crate::dedupe::Dedupe;
use crate::error::{Error, Result};
use crate::event::{self, NewEvent, Ran, Recorded, ReplayResult};
use crate::event_history;
use crate::history::{Range, Visit};
use crate::log::commits::{self, Moved};
use crate::log::text::{self, TextPage};
use crate::log::{self, Created, Listed, LogPage};
use crate::owner;
use crate::pack::Keep;
use crate::packer::Packer;
pub use crate::packer::Schedule;
use crate::project::{Definition, Definitions};
use crate::replay::Batch;
use crate::replay::apply::{Applied, Authority, Target};
use crate::reproject;
use crate::statement::{self, Prepared};
use crate::tables;
use crate::transaction::{Mode, State};
use crate::watch::{Notify, Stop, Watcher};

/// Whether and when events are packed by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// `false`: only `maintain` packs.
    pub on: bool,
    /// When, and what stays rows.
    pub schedule: Schedule,
}

impl Packing {
    /// For a store that packs only when asked to.
    pub fn off() -> Self {
        let keep = Keep { events: 0, bytes: 0 };
        Packing { on: false, schedule: Schedule { keep, at_bytes: u64::MAX, idle: Duration::MAX } }
    }
}

/// A store or, without a log, a plain connection.
pub struct Store {
    core: Mutex<Option<Core>>,
    poisoned: Mutex<Option<String>>,
    options: OpenOptions,
}

impl Store {
    /// Opens a store; its tables are made where there are none.
    pub fn open(options: &OpenOptions, max_event_bytes: usize, packing: Packing) -> Result<Self> {
        let connection = Connection::open(options)?;
        event_history::register(&connection)?;
        let on_thread = !connection.is_memory() && !connection.is_readonly();
        let mut core = Core::new(connection, max_event_bytes);
        if on_thread {
            let beside = core.connection.beside(options);
            core.checkpointer = Some(Checkpointer::new(beside.clone(), Arc::clone(&core.turns)));
            let opened_at = tables::last_position(&core.connection)?;
            let packer = || Packer::new(beside, packing.schedule, Arc::clone(&core.turns), opened_at);
            core.packer = packing.on.then(packer);
        }
        core.keep = packing.schedule.keep;
        Ok(Self::new(core, options.clone()))
    }

    /// Opens a plain connection for a caller who owns it. It has no log: only statements and transactions.
    pub fn open_plain(options: &OpenOptions) -> Result<Self> {
        Ok(Self::new(Core::new(Connection::open_plain(options)?, 0), options.clone()))
    }

    fn new(core: Core, options: OpenOptions) -> Self {
        Store { core: Mutex::new(Some(core)), poisoned: Mutex::new(None), options }
    }

    /// The path it was opened with.
    pub fn path(&self) -> &str {
        &self.options.path
    }

    /// How to open a further connection to its file.
    pub fn beside(&self) -> Result<Beside> {
        self.with(|core| Ok(core.connection.beside(&self.options)))
    }

    /// Takes the lock for one call. A panic inside poisons the store: half-done state answers nothing any more.
    fn with<T>(&self, call: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        if let Some(message) = &*self.poisoned.lock() {
            return Err(Error::Poisoned(message.clone()).into());
        }
        let Some(mut guard) = self.core.try_lock() else {
            return Err(busy());
        };
        let Some(core) = guard.as_mut() else {
            return Err(Error::Closed("store").into());
        };
        let explained = |core: &mut Core| {
            let done = call(core);
            core.connection.explained(done)
        };
        catch_unwind(AssertUnwindSafe(|| explained(core))).unwrap_or_else(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "panic".to_owned());
            *self.poisoned.lock() = Some(message.clone());
            Err(Error::Poisoned(message).into())
        })
    }

    /// The same for calls that read the log, which projectors may not: on another device they would read another one.
    fn with_log<T>(&self, call: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        self.with(|core| {
            if core.transactions.projecting {
                return Err(Error::InProjector("read the log").into());
            }
            core.transactions.check(None, false)?;
            let done = call(core);
            core.noticed(done)
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
                return Err(Error::InProjector("close the store").into());
            }
            if matches!(core.transactions.state(), State::Ours | State::Lost) {
                return Err(Error::InTransaction("The store cannot be closed inside a transaction").into());
            }
        }
        // Cursors, then the threads with their connections, then this one: the last to close cleans up the WAL.
        *guard = None;
        Ok(())
    }

    /// Closes it wherever it stands, rolling back what is open. For the end of a thread, when nobody calls any more.
    pub fn abandon(&self) {
        if let Some(mut guard) = self.core.try_lock() {
            *guard = None;
        }
    }

    /// Known the definitions that `run` and `replay` know by their index.
    pub fn register(&self, definitions: Vec<Definition>) -> Result<()> {
        self.with(|core| {
            for definition in &definitions {
                event::check_type(&definition.name)?;
            }
            core.definitions = Definitions::new(definitions);
            core.rules = Arc::new(core.definitions.rules());
            core.dedupe = Dedupe::new(core.definitions.dedupe());
            if let Some(packer) = &core.packer {
                packer.set_rules(Arc::clone(&core.rules));
            }
            Ok(())
        })
    }

    /// Where the connection stands.
    pub fn state(&self) -> Result<State> {
        self.with(|core| Ok(core.transactions.state()))
    }

    /// Opens a transaction, or a savepoint inside one. Where it must not wait, the answer may be that it is not open.
    pub fn begin(&self, mode: Mode, wait: bool) -> Result<Begun> {
        self.with(|core| core.begin(mode, wait))
    }

    /// Nobody tries any more to begin without waiting.
    pub fn gave_up(&self) -> Result<()> {
        self.with(|core| {
            core.connection.stand_in_line(false);
            Ok(())
        })
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
    pub fn run(&self, steps: Steps, event: &NewEvent<'_>) -> Result<Ran> {
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
            event::check_aggregate_id(aggregate_id, None)?;
            core.framed(|core| owner::claim(&core.connection, aggregate_id, owner, expected_epoch))
        })
    }

    /// Makes an aggregate's owner and epoch those of another log.
    pub fn adopt_owner(&self, aggregate_id: &str, owner: Option<&str>, epoch: i64) -> Result<()> {
        self.with(|core| {
            event::check_aggregate_id(aggregate_id, None)?;
            Authority { owner, epoch: Some(epoch) }.check()?;
            core.framed(|core| owner::adopt(&core.connection, aggregate_id, owner, epoch))
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
        self.with(|core| Ok(batch.event(index).and_then(|event| core.definitions.find(&event.type_name))))
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
            core.check_writable()?;
            core.check_inside("A replay is applied inside a transaction")?;
            authority.check()?;
            core.transactions.projecting = false;
            let mut target = Target {
                connection: &core.connection,
                transactions: &mut core.transactions,
                known: &mut core.known,
                definitions: &core.definitions,
            };
            let applied = batch.apply(&mut target, range, authority, collect);
            let applied = core.noticed(applied)?;
            core.skipped = std::mem::take(&mut batch.skipped);
            let count = applied.events.iter().filter(|event| event.publish).count() as u32;
            let before = core.transactions.add_pending(count);
            core.recorded_bytes += applied.bytes;
            core.transactions.took(applied.positions.0, applied.positions.1);
            core.transactions.projecting = applied.events.iter().any(|event| event.project);
            Ok((applied, before))
        })
    }

    /// Opens the savepoint of a JavaScript projector whose definition skips.
    pub fn begin_projector(&self) -> Result<()> {
        self.with(|core| core.transactions.begin_projector(&core.connection))
    }

    /// Ends it. Taken back, that is one more thing to be told after the commit: answers how many wait before it, or −1
    /// where SQLite has taken back the whole transaction.
    pub fn end_projector(&self, keep: bool) -> Result<i64> {
        self.with(|core| {
            if keep {
                return core.transactions.keep_projector(&core.connection).map(|()| -1);
            }
            // A statement that is still open would keep giving rows that are taken back.
            core.cursors.clear();
            let undone = core.transactions.undo_projector(&core.connection);
            Ok(if undone { core.transactions.add_pending(1).into() } else { -1 })
        })
    }

    /// What the SQL projectors of the last call did not do, by the indices of a replay's items, and how many things
    /// wait before the first of these to be told.
    pub fn take_skipped(&self) -> Result<(u32, Vec<(usize, Error)>)> {
        self.with(|core| {
            let skipped = std::mem::take(&mut core.skipped);
            Ok((core.transactions.add_pending(skipped.len() as u32), skipped))
        })
    }

    /// Writes what a replay leaves to its end, and says what each aggregate came to, in order of appearance.
    pub fn replay_finish(&self, batch: &mut Batch) -> Result<Vec<ReplayResult>> {
        self.with(|core| {
            core.check_inside("A replay is applied inside a transaction")?;
            core.transactions.projecting = false;
            let finished = batch.finish(&core.connection);
            core.noticed(finished)?;
            Ok(batch.results())
        })
    }

    /// See [`reproject::page`].
    pub fn reproject(&self, aggregate_id: &str) -> Result<Batch> {
        self.with(|core| {
            event::check_aggregate_id(aggregate_id, None)?;
            core.check_writable()?;
            core.check_inside("An aggregate is projected inside a transaction")?;
            let (connection, known) = (&core.connection, &mut core.known);
            let page = reproject::page(connection, known, &core.definitions, aggregate_id, core.max_event_bytes);
            core.noticed(page)
        })
    }

    /// Reads a page of one aggregate.
    pub fn read(&self, aggregate_id: &str, range: Range, visit: &mut Visit<'_>) -> Result<()> {
        self.with_log(|core| {
            core.snapshot(|connection, known| log::read(connection, known, aggregate_id, range, visit))
        })
    }

    /// Reads a page in the order of commits.
    pub fn read_all(&self, after_position: i64, limit: usize, visit: &mut Visit<'_>) -> Result<()> {
        self.with_log(|core| {
            core.snapshot(|connection, known| commits::read_all(connection, known, after_position, limit, visit))
        })
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
            core.snapshot(|connection, known| log::read_log(connection, known, aggregate_id, bounds, limit, visit))
        })
    }

    /// Reads a page of an aggregate's log as lines of JSON, in one snapshot.
    pub fn read_text(&self, aggregate_id: &str, bounds: (i64, i64), limit: usize) -> Result<TextPage> {
        self.with_log(|core| {
            core.snapshot(|connection, known| text::read_text(connection, known, aggregate_id, bounds, limit))
        })
    }

    /// Aggregates in the order of their creation, from after a key.
    pub fn created(&self, after_key: i64, limit: usize) -> Result<Vec<Created>> {
        self.with_log(|core| log::created(&core.connection, after_key, limit))
    }

    /// The last seq of an aggregate, −1 when unknown.
    pub fn sequence(&self, aggregate_id: &str) -> Result<i64> {
        self.with_log(|core| log::sequence(&core.connection, aggregate_id))
    }

    /// The last seq of many aggregates, or of all.
    pub fn sequences(&self, ids: Option<&[String]>) -> Result<Vec<(String, i64)>> {
        self.with_log(|core| log::sequences(&core.connection, ids))
    }

    /// The last position in the log that is committed, as far as this connection sees.
    pub fn last_position(&self) -> Result<i64> {
        self.with_log(|core| core.last_position())
    }

    /// The last position of this store's last commit; 0 where something was taken back in it.
    pub fn committed_position(&self) -> Result<i64> {
        self.with(|core| Ok(core.committed))
    }

    /// Which aggregates moved after a position: see [`commits::moved`].
    pub fn moved(&self, after_position: i64, limit: usize) -> Result<Moved> {
        self.with_log(|core| core.snapshot(|connection, _| commits::moved(connection, after_position, limit)))
    }

    /// Which aggregates had history erased after a position: see [`commits::erased`].
    pub fn erased(&self, after_position: i64, limit: usize) -> Result<(i64, Vec<(String, i64)>)> {
        self.with_log(|core| core.snapshot(|connection, _| commits::erased(connection, after_position, limit)))
    }

    /// Reads a page of what was committed after a position: see [`commits::read_committed`].
    pub fn read_committed(&self, after_position: i64, limit: usize, visit: &mut Visit<'_>) -> Result<(i64, bool)> {
        self.with_log(|core| {
            core.snapshot(|connection, known| commits::read_committed(connection, known, after_position, limit, visit))
        })
    }

    /// See [`Core::stamp`].
    pub fn stamp(&self, aggregate_id: &str) -> Result<Stamped> {
        self.with_log(|core| core.stamp(aggregate_id))
    }

    /// Starts the thread that calls `notify` when another connection has committed to the log. `false`: it needs none,
    /// since in memory there are no others.
    pub fn watch(&self, notify: Notify) -> Result<Option<Arc<Stop>>> {
        self.with(|core| {
            if core.connection.is_memory() {
                return Ok(None);
            }
            // One thread a store: an earlier one, which has been told to, ends first.
            core.watcher = None;
            let known = core.last_position()?;
            let watcher = core.watcher.insert(Watcher::start(&core.connection, known, notify)?);
            Ok(Some(watcher.stop()))
        })
    }

    /// The last position that the watcher has seen; 0 where there is none.
    pub fn watched_position(&self) -> Result<i64> {
        self.with(|core| Ok(core.watcher.as_ref().map_or(0, Watcher::position)))
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
            if !prepared.readonly && core.transactions.state() == State::Autocommit {
                core.turns.give_way(true);
                core.connection.check_at_begin()?;
                core.connection.give_way(true);
            }
            let before = core.connection.sqlite().total_changes();
            let done = statement::execute(&core.connection, &mut core.transactions, prepared, values, visit);
            if !prepared.readonly {
                core.connection.ended();
            }
            core.after_statements(done)?;
            let sqlite = core.connection.sqlite();
            // SQLite keeps the count of the last change for statements that change nothing.
            let changes = if sqlite.total_changes() == before { 0 } else { sqlite.changes() };
            Ok((changes, sqlite.last_insert_rowid()))
        })
    }

    /// Runs every statement of a text.
    pub fn execute_all(&self, sql: &str) -> Result<()> {
        self.with(|core| {
            core.check_no_cursor()?;
            if core.transactions.state() == State::Autocommit {
                core.connection.give_way(true);
            }
            let done = statement::execute_all(&core.connection, &mut core.transactions, sql);
            core.connection.ended();
            core.after_statements(done)
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
                return Err(Error::Closed("iterator").into());
            };
            let explained =
                |error: Box<Error>| constraint::explain(&core.connection, &prepared.sql, *error, None).into();
            let stepped: Result<bool> = open.next(prepared, visit).map_err(explained);
            core.transactions.notice(&core.connection, stepped.as_ref().err().map(Box::as_ref));
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
            core.connection.sqlite().create_scalar_function(name, arguments, flags, move |context| {
                let values: Vec<ValueRef<'_>> = (0..context.len()).map(|index| context.get_raw(index)).collect();
                function(&values).map_err(|message| rusqlite::Error::UserFunctionError(message.into()))
            })?;
            Ok(())
        })
    }
}

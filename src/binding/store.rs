//! Opening, transactions, running and reading, as JavaScript calls them. Numbers have been checked in TypeScript.

use std::rc::Rc;
use std::time::Duration;

use napi::bindgen_prelude::{Env, External};
use napi_derive::napi;

use super::coded_error::OrThrow;
use super::environment;
use super::value::{Maker, Raw};
use crate::compact::Rule;
use crate::connection::OpenOptions;
use crate::core::Steps;
use crate::dedupe;
use crate::event::{NewEvent, Ran, Recorded};
use crate::pack::Keep;
use crate::project::{Definition, Projector, SqlProjector};
use crate::store::{Begun, Packing, Schedule, Store};
use crate::transaction::{Mode, State};

/// An open store or connection. Statements and batches are only used together with it.
pub type Handle = External<Rc<Store>>;

/// How to open; see `open` in TypeScript for what each means to a caller.
#[napi(object)]
pub struct NativeOpenOptions {
    /// Refuse writes.
    pub readonly: bool,
    /// `synchronous=FULL`.
    pub full: bool,
    /// Milliseconds to wait for a lock.
    pub busy_timeout: u32,
    /// Bytes of the largest event.
    pub max_event_bytes: f64,
    /// Pack by itself.
    pub packing: bool,
    /// Newest events of an aggregate that stay rows.
    pub keep_events: u32,
    /// And their bytes.
    pub keep_bytes: f64,
    /// Bytes written between two rounds of packing.
    pub pack_at_bytes: f64,
    /// Milliseconds without a commit after which all is packed.
    pub pack_idle: f64,
    /// With Syncline's tables; without, a plain second connection.
    pub log: bool,
}

/// A definition as the core knows it.
#[napi(object)]
pub struct NativeDefinition {
    /// `type.version`
    pub name: String,
    /// The field of data that names the aggregate.
    pub aggregate: String,
    /// 0 missing, 1 none, 2 JavaScript, 3 SQL.
    pub projector: u32,
    /// The statements of a SQL projector.
    pub sql: Vec<String>,
    /// JavaScript has to see each replayed event.
    pub validate: bool,
    /// Data of this version goes through JavaScript before its projector.
    pub upcast: bool,
    /// What its SQL projector did is taken back where a constraint refuses it, and the event is recorded all the same.
    pub skips: bool,
    /// The names that lead to the key by which it is compacted; none: it is not.
    pub compact_path: Vec<String>,
    /// Types whose events end every key's life.
    pub compact_barriers: Vec<String>,
    /// Paths inside data that may differ where a run repeats what is stored; absent: it is not asked.
    pub dedupe: Option<Vec<Vec<String>>>,
}

/// Opens a database file or `:memory:`.
#[napi(catch_unwind, ts_return_type = "Handle")]
pub fn open(env: &Env, path: String, options: NativeOpenOptions) -> napi::Result<Handle> {
    let open = open_options(path, &options);
    let keep = Keep { events: options.keep_events as usize, bytes: options.keep_bytes as usize };
    let idle = Duration::from_millis(options.pack_idle as u64);
    let schedule = Schedule { keep, at_bytes: options.pack_at_bytes as u64, idle };
    let packing = Packing { on: options.packing, schedule };
    let store = if options.log {
        Store::open(&open, options.max_event_bytes as usize, packing)
    } else {
        Store::open_plain(&open)
    };
    let store = Rc::new(store.or_throw(env)?);
    environment::close_at_end(env, &store)?;
    Ok(External::new(store))
}

/// What opening a connection needs of the options.
pub fn open_options(path: String, options: &NativeOpenOptions) -> OpenOptions {
    OpenOptions {
        path,
        readonly: options.readonly,
        full: options.full,
        busy_timeout: Duration::from_millis(options.busy_timeout.into()),
    }
}

/// Closes it; again is nothing.
#[napi(catch_unwind)]
pub fn close(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<()> {
    handle.close().or_throw(env)
}

/// Names the definitions; their index in the list is what `run` takes.
#[napi(catch_unwind)]
pub fn register(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    definitions: Vec<NativeDefinition>,
) -> napi::Result<()> {
    let definitions = definitions
        .into_iter()
        .map(|native| {
            let projector = match native.projector {
                1 => Projector::None,
                2 => Projector::JavaScript,
                3 => Projector::Sql(native.sql.into_iter().map(SqlProjector::new).collect()),
                _ => Projector::Missing,
            };
            let definition = Definition::new(native.name, native.aggregate, projector);
            let compact = (!native.compact_path.is_empty()).then(|| Rule {
                type_name: definition.name.clone(),
                path: native.compact_path,
                barriers: native.compact_barriers,
            });
            let rule = compact.clone().zip(native.dedupe);
            let dedupe = rule.map(|(of, ignored)| dedupe::Rule { of, ignored });
            let NativeDefinition { validate, upcast, skips, .. } = native;
            Definition { validate, upcast, skips, compact, dedupe, ..definition }
        })
        .collect();
    handle.register(definitions).or_throw(env)
}

/// Begins a transaction, or a savepoint inside one; mode 0 immediate, 1 deferred, 2 exclusive. Answers 1 where it is
/// open. Where it was not to wait: 0 if another connection has the lock, 2 if it is worth to come back soon.
#[napi(catch_unwind)]
pub fn begin(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, mode: u32, wait: bool) -> napi::Result<u32> {
    let mode = match mode {
        0 => Mode::Immediate,
        1 => Mode::Deferred,
        _ => Mode::Exclusive,
    };
    let begun = handle.begin(mode, wait).or_throw(env)?;
    Ok(match begun {
        Begun::Locked => 0,
        Begun::Yes => 1,
        Begun::Soon => 2,
    })
}

/// Nobody tries any more to begin without waiting, so that others need not make room.
#[napi(catch_unwind)]
pub fn gave_up(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<()> {
    handle.gave_up().or_throw(env)
}

/// Commits the innermost frame; answers how many events are pending.
#[napi(catch_unwind)]
pub fn commit(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<u32> {
    handle.commit().or_throw(env)
}

/// Rolls the innermost frame back; answers how many events are still pending.
#[napi(catch_unwind)]
pub fn rollback(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<u32> {
    handle.rollback().or_throw(env)
}

/// 0 no transaction, 1 one that Syncline opened, 2 one that raw SQL opened, 3 one that SQLite ended by itself.
#[napi(catch_unwind)]
pub fn state(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<u32> {
    Ok(match handle.state().or_throw(env)? {
        State::Autocommit => 0,
        State::Ours => 1,
        State::Raw => 2,
        State::Lost => 3,
    })
}

/// Records one event. Flags: 1 begin a frame, 2 run the SQL projector, 4 commit the frame, 8 do not record, 16 a
/// JavaScript projector follows. `expectedSeq` −2 does not ask. Answers `[seq, id, created, position, pendingIndex]`;
/// or, with −1 as pending index, `data` and `metadata`, the stored event that says the same: nothing was recorded, and the
/// frame that this call began has been ended.
#[napi(
    catch_unwind,
    ts_return_type = "[seq: number, id: string, created: number | null, position: number, pendingIndex: number, data?: string, metadata?: string | null]"
)]
#[allow(clippy::too_many_arguments)]
pub fn run(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    flags: u32,
    definition: u32,
    aggregate_id: String,
    data: String,
    expected_seq: f64,
    created: Option<f64>,
    metadata: Option<String>,
    owner: Option<String>,
) -> napi::Result<Raw> {
    let steps = Steps {
        begin: flags & 1 != 0,
        project: flags & 2 != 0,
        commit: flags & 4 != 0,
        unrecorded: flags & 8 != 0,
        projecting: flags & 16 != 0,
    };
    let event = NewEvent {
        definition: definition as usize,
        aggregate_id: &aggregate_id,
        data: &data,
        metadata: metadata.as_deref(),
        created: created.map(|created| created as i64),
        expected_seq: (expected_seq >= -1.0).then_some(expected_seq as i64),
        owner: owner.as_deref(),
    };
    let maker = Maker::new(env);
    Ok(match handle.run(steps, &event).or_throw(env)? {
        Ran::Recorded(recorded) => recorded_values(maker, &recorded),
        Ran::Repeated(repeated) => maker.array(&[
            maker.integer(repeated.seq),
            maker.text(repeated.id.as_bytes()),
            repeated.created.map_or_else(|| maker.null(), |created| maker.integer(created)),
            maker.integer(repeated.position),
            maker.integer(-1),
            maker.text(repeated.data.as_bytes()),
            maker.text_or_null(repeated.metadata.as_deref()),
        ]),
    })
}

/// Opens the savepoint of a JavaScript projector whose definition skips.
#[napi(catch_unwind)]
pub fn projector_begin(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<()> {
    handle.begin_projector().or_throw(env)
}

/// Ends it. Answers the pending index of what is to be told of what was taken back; −1 where it was kept, or where SQLite
/// has ended the whole transaction.
#[napi(catch_unwind)]
pub fn projector_end(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, keep: bool) -> napi::Result<f64> {
    Ok(handle.end_projector(keep).or_throw(env)? as f64)
}

/// What the SQL projectors of the last `run`, `remove` or `replayApply` skipped: the pending index of the first, then four
/// flat values each: index of the item, and code, message and fields (JSON text) of the error.
#[napi(catch_unwind, ts_return_type = "[pendingIndex: number, ...(number | string)[]]")]
pub fn take_skipped(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle) -> napi::Result<Raw> {
    let (pending, skipped) = handle.take_skipped().or_throw(env)?;
    let maker = Maker::new(env);
    let mut values = vec![maker.integer(pending.into())];
    for (index, error) in &skipped {
        let fields = serde_json::Value::Object(error.fields()).to_string();
        values.extend([
            maker.integer(*index as i64),
            maker.text(error.code().as_bytes()),
            maker.text(error.to_string().as_bytes()),
            maker.text(fields.as_bytes()),
        ]);
    }
    Ok(maker.array(&values))
}

/// Removes an aggregate inside the open transaction; `definition` −1 for no deletion event. Answers as `run` does.
#[napi(
    catch_unwind,
    ts_return_type = "[seq: number, id: string, created: number, position: number, pendingIndex: number] | null"
)]
#[allow(clippy::too_many_arguments)]
pub fn remove(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    aggregate_id: String,
    definition: i32,
    data: Option<String>,
    created: Option<f64>,
    owner: Option<String>,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let event = data.as_deref().map(|data| NewEvent {
        definition: definition.max(0) as usize,
        aggregate_id: &aggregate_id,
        data,
        metadata: None,
        created: created.map(|created| created as i64),
        expected_seq: None,
        owner: owner.as_deref(),
    });
    let removed = handle.remove(&aggregate_id, owner.as_deref(), event.as_ref()).or_throw(env)?;
    Ok(removed.map_or_else(|| Raw(maker.null()), |recorded| recorded_values(maker, &recorded)))
}

fn recorded_values(maker: Maker, recorded: &Recorded) -> Raw {
    maker.array(&[
        maker.integer(recorded.seq),
        maker.text(recorded.id.as_bytes()),
        maker.integer(recorded.created),
        maker.integer(recorded.position),
        maker.integer(recorded.pending.into()),
    ])
}

/// Gives an aggregate to an owner, or to nobody; `expectedEpoch` −1 does not ask.
#[napi(catch_unwind, ts_return_type = "[owner: string | null, epoch: number]")]
pub fn claim(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    aggregate_id: String,
    owner: Option<String>,
    expected_epoch: f64,
) -> napi::Result<Raw> {
    let expected = (expected_epoch >= 0.0).then_some(expected_epoch as i64);
    let (owner, epoch) = handle.claim(&aggregate_id, owner.as_deref(), expected).or_throw(env)?;
    Ok(owner_values(Maker::new(env), owner.as_deref(), epoch))
}

/// Makes an aggregate's owner and epoch those of another log.
#[napi(catch_unwind)]
pub fn adopt_owner(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    aggregate_id: String,
    owner: Option<String>,
    epoch: f64,
) -> napi::Result<()> {
    handle.adopt_owner(&aggregate_id, owner.as_deref(), epoch as i64).or_throw(env)
}

/// Owner and epoch of an aggregate, `null` where it is unknown.
#[napi(catch_unwind, ts_return_type = "[owner: string | null, epoch: number] | null")]
pub fn owner(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, aggregate_id: String) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let owner = handle.owner(&aggregate_id).or_throw(env)?;
    Ok(owner.map_or_else(|| Raw(maker.null()), |(owner, epoch)| owner_values(maker, owner.as_deref(), epoch)))
}

fn owner_values(maker: Maker, owner: Option<&str>, epoch: i64) -> Raw {
    maker.array(&[maker.text_or_null(owner), maker.integer(epoch)])
}

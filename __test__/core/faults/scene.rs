//! A store on a small file that has some of everything, what can be seen of it, and what a crash would leave.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use syncline::connection::{Connection, OpenOptions};
use syncline::core::Steps;
use syncline::error::{Error, Result};
use syncline::event::{NewEvent, Ran};
use syncline::history::Range;
use syncline::project::{Definition, Projector, SqlProjector};
use syncline::replay::Batch;
use syncline::replay::apply::Authority;
use syncline::store::{Begun, Errand, Packing, Store};
use syncline::transaction::Mode;
use tempfile::TempDir;

use crate::vfs::{self, Disk};

/// How a file is made and used.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    pub full: bool,
    /// A cache of some pages, so that a transaction writes frames before its commit.
    pub spills: bool,
    pub wal: Wal,
    pub disk: Disk,
}

/// Where the WAL stands before the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wal {
    /// It is empty: the first write begins it.
    Empty,
    /// It has frames, and goes on.
    Going,
    /// All of it has been copied back: the next write begins it anew.
    Copied,
}

impl Conditions {
    pub const USUAL: Conditions = Conditions { full: false, spills: false, wal: Wal::Going, disk: Disk::Usual };
}

pub fn options(path: &Path, full: bool) -> OpenOptions {
    let path = path.to_str().unwrap().to_owned();
    OpenOptions { path, readonly: false, full, busy_timeout: Duration::from_millis(5) }
}

/// Opens a store with the definitions that all of these have, and the table that they project to.
pub fn open(path: &Path, full: bool) -> Result<Store> {
    let store = Store::open(&options(path, full), 1 << 20, Packing::off())?;
    store.execute_all(
        "CREATE TABLE IF NOT EXISTS counted (id TEXT PRIMARY KEY, n INTEGER NOT NULL, last TEXT);
         CREATE TABLE IF NOT EXISTS own (n INTEGER PRIMARY KEY, text)",
    )?;
    let upsert = "INSERT INTO counted (id, n, last) VALUES (:aggregateID, 1, :data)
                  ON CONFLICT (id) DO UPDATE SET n = n + 1, last = excluded.last";
    let delete = "DELETE FROM counted WHERE id = :aggregateID";
    let of = |name: &str, sql: &str| {
        let projector = Projector::Sql(vec![SqlProjector::new(sql.to_owned())]);
        Definition::new(name.to_owned(), "id".to_owned(), projector)
    };
    store.register(vec![of("thing.happened.1", upsert), of("thing.removed.1", delete)])?;
    Ok(store)
}

/// The bytes of a closed file that such a store made.
pub struct Template(Vec<u8>);

impl Template {
    pub fn new(page_size: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("template.db");
        let sqlite = rusqlite::Connection::open(&path).unwrap();
        sqlite.execute_batch(&format!("PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = INCREMENTAL")).unwrap();
        sqlite.execute_batch("VACUUM").unwrap();
        drop(sqlite);
        let store = open(&path, false).unwrap();
        for n in 0..12 {
            run(&store, "packed", n, None).unwrap();
        }
        finish(store.maintenance(true, false).unwrap()).unwrap();
        for n in 0..5 {
            run(&store, "packed", n, None).unwrap();
            run(&store, "rows", n, None).unwrap();
            run(&store, "leaves", n, None).unwrap();
            run(&store, "gone", n, None).unwrap();
            run(&store, "owned", n, Some("one")).unwrap();
        }
        remove(&store, "gone", true).unwrap();
        replay(&store, &given("given", 0, 4)).unwrap();
        replay(&store, &[r#"{"kind":"gap","aggregateID":"given","after":3,"through":6}"#.to_owned()]).unwrap();
        replay(&store, &given("given", 7, 2)).unwrap();
        store.close().unwrap();
        Template(std::fs::read(&path).unwrap())
    }

    /// A store on a copy of the file.
    pub fn scene(&self, conditions: Conditions) -> Scene {
        vfs::on(conditions.disk, || self.opened(conditions))
    }

    fn opened(&self, conditions: Conditions) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scene.db");
        std::fs::write(&path, &self.0).unwrap();
        let store = open(&path, conditions.full).unwrap();
        if conditions.wal != Wal::Empty {
            run(&store, "rows", 100, None).unwrap();
        }
        if conditions.wal == Wal::Copied {
            checkpoint(&store, "PASSIVE").unwrap();
        }
        if conditions.spills {
            store.execute_all("PRAGMA cache_size = 5").unwrap();
        }
        let checkpointer = Connection::open_beside(&store.beside().unwrap()).unwrap();
        Scene { checkpointer, store, path, full: conditions.full, folder }
    }
}

/// A store on a file of its own.
pub struct Scene {
    /// As the store's thread for checkpoints has one.
    pub checkpointer: Connection,
    pub store: Store,
    pub path: PathBuf,
    full: bool,
    folder: TempDir,
}

impl Scene {
    /// What a crash of the process at this moment would leave, as a store finds it.
    pub fn crashed(&self) -> String {
        let copy = self.folder.path().join("crashed.db");
        copy_crashed(&self.path, &copy);
        let store = open(&copy, false).expect("what a crash leaves can be opened");
        let seen = seen(&store);
        assert_eq!(findings(&store), "[]", "verify after a crash");
        store.close().unwrap();
        seen
    }

    /// What another store sees, after it has written, too.
    pub fn beside(&self) -> String {
        let store = open(&self.path, self.full).unwrap();
        run(&store, "beside", 1, None).unwrap();
        let seen = seen(&store);
        store.close().unwrap();
        seen
    }

    /// What is there after it has been closed, and opened again.
    pub fn reopened(self) -> String {
        drop(self.checkpointer);
        self.store.close().unwrap();
        assert!(!self.path.with_extension("db-wal").exists(), "the last to close removes the WAL");
        let store = open(&self.path, self.full).unwrap();
        assert_eq!(findings(&store), "[]", "verify after reopening");
        let seen = seen(&store);
        store.close().unwrap();
        seen
    }
}

/// Copies a file and its WAL as they are, without the shared memory.
pub fn copy_crashed(path: &Path, copy: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let of = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        let _ = std::fs::remove_file(of(copy));
        if suffix != "-shm" && of(path).exists() {
            std::fs::copy(of(path), of(copy)).unwrap();
        }
    }
}

fn data(aggregate: &str, n: usize) -> String {
    format!(r#"{{"id":"{aggregate}","n":{n},"text":"{}"}}"#, "x".repeat(n % 300))
}

fn event<'a>(aggregate: &'a str, data: &'a str, definition: usize, owner: Option<&'a str>) -> NewEvent<'a> {
    let (metadata, created) = (Some("{\"by\":\"test\"}"), Some(1_700_000_000_000));
    NewEvent { definition, aggregate_id: aggregate, data, metadata, created, expected_seq: None, owner }
}

pub fn run(store: &Store, aggregate: &str, n: usize, owner: Option<&str>) -> Result<i64> {
    let steps = Steps { begin: true, project: true, commit: true, ..Steps::default() };
    match store.run(steps, &event(aggregate, &data(aggregate, n), 0, owner))? {
        Ran::Recorded(recorded) => Ok(recorded.seq),
        Ran::Repeated(_) => unreachable!("nothing is deduplicated"),
    }
}

/// Does `act` in a transaction, as the TypeScript layer does.
pub fn transaction(store: &Store, act: impl FnOnce() -> Result<()>) -> Result<()> {
    assert_eq!(store.begin(Mode::Immediate, true)?, Begun::Yes);
    match act() {
        Ok(()) => store.commit().map(|_| ()),
        Err(error) => {
            store.rollback().unwrap();
            Err(error)
        }
    }
}

/// Records in the open transaction.
pub fn record(store: &Store, aggregate: &str, n: usize) -> Result<()> {
    let steps = Steps { project: true, ..Steps::default() };
    store.run(steps, &event(aggregate, &data(aggregate, n), 0, None)).map(|_| ())
}

pub fn remove(store: &Store, aggregate: &str, told: bool) -> Result<()> {
    let data = data(aggregate, 0);
    let event = told.then(|| event(aggregate, &data, 1, None));
    transaction(store, || store.remove(aggregate, None, event.as_ref()).map(|_| ()))
}

/// Serialized events that another writer gave.
pub fn given(aggregate: &str, first: usize, count: usize) -> Vec<String> {
    (first..first + count)
        .map(|seq| {
            let data = data(aggregate, seq * 7);
            format!(r#"{{"id":"given-{aggregate}-{seq}","type":"thing.happened.1","seq":{seq},"aggregateID":"{aggregate}","data":{data}}}"#)
        })
        .collect()
}

pub fn replay(store: &Store, lines: &[String]) -> Result<()> {
    let mut batch = Batch::from_texts(lines, 1 << 20)?;
    transaction(store, || {
        let items = batch.len();
        store.replay_apply(&mut batch, 0..items, Authority::default(), false)?;
        store.replay_finish(&mut batch).map(|_| ())
    })
}

/// On a connection of its own, as the store's thread does.
pub fn checkpoint(store: &Store, mode: &str) -> Result<bool> {
    let connection = Connection::open_beside(&store.beside()?)?;
    connection.checkpoint(mode).map(|(busy, _)| !busy)
}

/// Does all steps of a job.
pub fn finish(mut errand: Errand) -> Result<Errand> {
    while errand.step(Duration::ZERO)? {}
    Ok(errand)
}

/// What verify finds.
pub fn findings(store: &Store) -> String {
    let done = finish(store.verification(false).unwrap()).unwrap();
    done.report()["found"].to_string()
}

/// Everything that can be seen of a store, but for what is made up anew in each: ids of its own events.
pub fn seen(store: &Store) -> String {
    try_see(store).unwrap_or_else(|error| panic!("cannot be read: {} {error}", error.code()))
}

pub fn try_see(store: &Store) -> Result<String> {
    let mut text = String::new();
    for listed in store.aggregates("", "", usize::MAX)? {
        let (id, seq) = (&listed.aggregate_id, listed.seq);
        // The log must explain every seq: it fails by itself where one is missing without a word.
        let page = store.read_log(id, (-1, seq), usize::MAX, &mut |_| Ok(()))?;
        let removed = page.removed.map(|(seq, event)| (seq, event.is_some()));
        writeln!(text, "{id}: {seq} {:?} removed {removed:?} gaps {:?}", store.owner(id)?, page.gaps).unwrap();
        let range = Range { after: -1, before: None, limit: usize::MAX, descending: false };
        store.read(id, range, &mut |event| {
            let id = if event.id.starts_with("given") { event.id } else { "own" };
            let (seq, position, data) = (event.seq, event.position, event.data);
            writeln!(text, "  {seq} at {position}: {id} {} {:?} {data}", event.type_name, event.metadata).unwrap();
            Ok(())
        })?;
    }
    for table in ["SELECT id, n, last FROM counted ORDER BY id", "SELECT n, text, NULL FROM own ORDER BY n"] {
        let rows = store.prepare(table.to_owned())?;
        store.execute(&rows, &[], &mut |row| {
            let row: (rusqlite::types::Value, rusqlite::types::Value, Option<String>) = row.try_into()?;
            writeln!(text, "{row:?}").unwrap();
            Ok(true)
        })?;
    }
    Ok(text)
}

/// What a fault of the file system may be told as.
pub fn assert_coded(error: &Error, what: &str) {
    let code = error.code();
    assert!(matches!(code, "ERR_SQLITE" | "ERR_BUSY" | "ERR_DISK_FULL" | "ERR_READONLY"), "{what}: {code} {error}");
    assert!(error.to_string().len() > 8, "{what}: {error}");
}

//! Commits are written to the WAL with one write (`src/wal.rs`). What a reader, or a crash, finds there must be what
//! SQLite alone would have written: after every commit the files are copied as a crash would leave them, opened by
//! plain SQLite, and compared.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection as Sqlite;
use syncline::connection::OpenOptions;
use syncline::store::{Packing, Store};
use syncline::transaction::Mode;

/// One transaction: rows to write, in order, each with a size; repeated rows change the same pages again.
#[derive(Debug, Clone)]
struct Transaction {
    rows: Vec<(u16, u16)>,
    keep: bool,
    /// Another connection writes before it: the log goes on from frames that are not ours.
    foreign: bool,
    /// A checkpoint lets the log begin anew.
    checkpoint: bool,
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let small = proptest::collection::vec((0..400u16, 0..600u16), 0..20);
    let large = proptest::collection::vec((0..400u16, 0..6000u16), 100..300);
    let rows = prop_oneof![3 => small, 1 => large];
    (rows, proptest::bool::weighted(0.8), proptest::bool::weighted(0.3), proptest::bool::weighted(0.2))
        .prop_map(|(rows, keep, foreign, checkpoint)| Transaction { rows, keep, foreign, checkpoint })
}

fn contents(sqlite: &Sqlite) -> Vec<(i64, i64)> {
    let check: String = sqlite.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut statement = sqlite.prepare("SELECT id, length(body) FROM item ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// What a crash of the process leaves: the file and its WAL, without the shared memory.
fn crashed(path: &Path, folder: &Path) -> Vec<(i64, i64)> {
    let copy = folder.join("crashed.db");
    std::fs::copy(path, &copy).unwrap();
    std::fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
    let _ = std::fs::remove_file(copy.with_extension("db-shm"));
    contents(&Sqlite::open(&copy).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_gathered_commit_is_what_sqlite_would_have_written(
        transactions in proptest::collection::vec(transaction(), 1..12),
        full in any::<bool>(),
        spills in any::<bool>(),
        page_size in prop_oneof![Just(512), Just(4096), Just(65536)],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gathered.db");
        Sqlite::open(&path).unwrap().execute_batch(&format!(
            "PRAGMA page_size = {page_size}; CREATE TABLE item (id INTEGER PRIMARY KEY, body TEXT)"
        )).unwrap();
        let store = Store::open(&OpenOptions {
            path: path.to_str().unwrap().to_owned(),
            readonly: false,
            full,
            busy_timeout: Duration::from_secs(5),
        }, 1 << 20, Packing::off()).unwrap();
        if spills {
            // A cache of a few pages writes frames before the commit, and some of them twice.
            store.execute_all("PRAGMA cache_size = 5").unwrap();
        }
        let other = Sqlite::open(&path).unwrap();
        let upsert = "INSERT INTO item VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = excluded.body";
        let write = store.prepare(upsert.to_owned()).unwrap();
        for transaction in &transactions {
            if transaction.checkpoint {
                other.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
            }
            if transaction.foreign {
                other.execute(upsert, (1000, "foreign")).unwrap();
            }
            let before = contents(&other);
            let mut expected: std::collections::BTreeMap<i64, i64> = before.iter().copied().collect();
            store.begin(Mode::Immediate, true).unwrap();
            for (id, size) in &transaction.rows {
                let body = "x".repeat(usize::from(*size));
                store.execute(&write, &[i64::from(*id).into(), body.into()], &mut |_| Ok(true)).unwrap();
                expected.insert(i64::from(*id), i64::from(*size));
            }
            if transaction.keep {
                store.commit().unwrap();
                prop_assert_eq!(contents(&other), expected.into_iter().collect::<Vec<_>>());
            } else {
                store.rollback().unwrap();
                prop_assert_eq!(contents(&other), before);
            }
            prop_assert_eq!(crashed(&path, folder.path()), contents(&other));
        }
        drop(other);
        store.close().unwrap();
        prop_assert!(!path.with_extension("db-wal").exists(), "the last to close removes the WAL");
    }
}

//! A panic inside a call poisons the store: what it left half done answers nothing any more, and the file is sound.

use std::time::Duration;

use syncline::connection::OpenOptions;
use syncline::store::{Packing, Store};
use syncline::transaction::Mode;

fn open(path: &str) -> Store {
    let options =
        OpenOptions { path: path.to_owned(), readonly: false, full: false, busy_timeout: Duration::from_secs(5) };
    Store::open(&options, 1 << 20, Packing::off()).unwrap()
}

#[test]
fn a_panic_poisons_the_store_and_rolls_back_what_was_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("poison.db").to_str().unwrap().to_owned();
    let store = open(&path);
    store.execute_all("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1)").unwrap();
    store.begin(Mode::Immediate, true).unwrap();
    store.execute_all("INSERT INTO t VALUES (2)").unwrap();
    let select = store.prepare("SELECT n FROM t".to_owned()).unwrap();
    let panicked = store.execute(&select, &[], &mut |_| panic!("a bug in the core"));
    assert_eq!(panicked.unwrap_err().code(), "ERR_POISONED");
    assert_eq!(store.sequence("any").unwrap_err().code(), "ERR_POISONED");
    assert_eq!(store.commit().unwrap_err().code(), "ERR_POISONED");
    store.close().unwrap();

    let store = open(&path);
    let select = store.prepare("SELECT n FROM t".to_owned()).unwrap();
    let mut rows: Vec<i64> = Vec::new();
    let mut collect = |row: &rusqlite::Row<'_>| {
        rows.push(row.get(0)?);
        Ok(true)
    };
    store.execute(&select, &[], &mut collect).unwrap();
    assert_eq!(rows, [1]);
}

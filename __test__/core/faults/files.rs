//! Faults while a file is made, opened, recovered, closed, copied and adopted; and file systems without shared memory.

use std::path::Path;

use rusqlite::Connection as Sqlite;
use syncline::adopt::Adoption;
use syncline::error::Result;
use syncline::store::Store;

use crate::scene::{
    Conditions, Template, Wal, assert_coded, copy_crashed, findings, finish, given, open, options, replay, run, seen,
};
use crate::sweep::{Tried, goes_on};
use crate::vfs::{self, Disk, Plan};

/// Does `act` on a file that `prepare` made, with each plan. Whatever came of it, `after` looks at the file and, apart from
/// that, at what a crash would have left.
fn sweep_files(
    tried: &mut Tried,
    name: &str,
    prepare: &dyn Fn(&Path),
    act: &dyn Fn(&Path) -> Result<()>,
    after: &dyn Fn(&Path, &str),
) {
    let perform = |plan: Plan| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        prepare(&path);
        let (done, calls, faults) = vfs::during(plan, || act(&path));
        let what = format!("{name}, {plan:?}: {:?}", done.as_ref().map_err(ToString::to_string));
        if let Err(error) = &done {
            assert_ne!(plan, Plan::Count, "{what}");
            assert_coded(error, &what);
        }
        let crashed = folder.path().join("crashed.db");
        copy_crashed(&path, &crashed);
        after(&crashed, &format!("{what}, after a crash"));
        after(&path, &what);
        (calls, faults, done.is_ok())
    };
    let (calls, ..) = perform(Plan::Count);
    for plan in tried.plans(&calls) {
        let (_, faults, survived) = perform(plan);
        tried.note(faults, survived);
    }
}

fn use_it(path: &Path, expected: &str, what: &str) {
    let store = open(path, false).unwrap_or_else(|error| panic!("{what}: opening it: {} {error}", error.code()));
    assert_eq!(seen(&store), expected, "{what}");
    assert_eq!(findings(&store), "[]", "{what}");
    run(&store, "later", 1, None).unwrap_or_else(|error| panic!("{what}: {error}"));
    store.close().unwrap();
}

#[test]
fn a_file_that_is_made_is_whole_or_can_be_made_again() {
    vfs::install();
    let mut tried = Tried::default();
    let make = |path: &Path| Store::open(&options(path, false), 1 << 20, syncline::store::Packing::off())?.close();
    sweep_files(&mut tried, "create", &|_| {}, &make, &|path, what| use_it(path, "", what));
    tried.print("creating");
}

#[test]
fn a_file_is_opened_recovered_and_closed_without_loss() {
    vfs::install();
    let mut tried = Tried::default();
    let template = Template::new(4096);
    let expected = seen(&template.scene(Conditions::USUAL).store);
    let make = |path: &Path| copy_crashed(&template.scene(Conditions::USUAL).path, path);
    let recover = |path: &Path| {
        let store = Store::open(&options(path, false), 1 << 20, syncline::store::Packing::off())?;
        store.sequence("rows")?;
        store.close()
    };
    sweep_files(&mut tried, "recover and close", &make, &recover, &|path, what| use_it(path, &expected, what));

    let closed = |path: &Path| {
        make(path);
        recover(path).unwrap();
    };
    sweep_files(&mut tried, "open and close", &closed, &recover, &|path, what| use_it(path, &expected, what));

    let readonly = |path: &Path| {
        let options = syncline::connection::OpenOptions { readonly: true, ..options(path, false) };
        let store = Store::open(&options, 1 << 20, syncline::store::Packing::off())?;
        store.sequence("rows")?;
        store.close()
    };
    sweep_files(&mut tried, "read-only", &closed, &readonly, &|path, what| use_it(path, &expected, what));
    tried.print("opening and closing");
}

#[test]
fn a_backup_is_whole_or_not_there() {
    vfs::install();
    let mut tried = Tried::default();
    let template = Template::new(4096);
    let scene = template.scene(Conditions::USUAL);
    let expected = seen(&scene.store);
    let target = |path: &Path| path.with_file_name("copy.db");
    let copy = |path: &Path| finish(scene.store.backup(target(path).to_str().unwrap())?).map(|_| ());
    sweep_files(&mut tried, "backup", &|_| {}, &copy, &|path, what| {
        let names: Vec<_> = path.parent().unwrap().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
        let is_there = target(path).exists();
        assert!(names.len() == usize::from(is_there), "{what}: {names:?}");
        assert_eq!(is_there, what.contains("Ok"), "{what}");
        if is_there && !what.contains("crash") {
            use_it(&target(path), &expected, what);
        }
    });
    goes_on(scene, "after backups");
    tried.print("backup");
}

#[test]
fn adoption_goes_on_wherever_it_was_interrupted() {
    vfs::install();
    let mut tried = Tried::default();
    let older = |path: &Path| {
        let sqlite = Sqlite::open(path).unwrap();
        sqlite
            .execute_batch(
                "CREATE TABLE event_sequence (aggregate_id TEXT PRIMARY KEY, seq INTEGER NOT NULL);
                 CREATE TABLE event (id TEXT PRIMARY KEY, aggregate_id TEXT NOT NULL, seq INTEGER NOT NULL,
                                     type TEXT NOT NULL, data TEXT NOT NULL);
                 CREATE TABLE own (n INTEGER PRIMARY KEY, text);",
            )
            .unwrap();
        for n in 0..24 {
            let (aggregate, seq) = (["a", "b", "c"][n % 3], n as i64 / 3);
            let data = format!(r#"{{"id":"{aggregate}","n":{n}}}"#);
            let row = (format!("given-{n}"), aggregate, seq, "thing.happened.1", data);
            sqlite.execute("INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5)", row).unwrap();
            sqlite.execute("REPLACE INTO event_sequence VALUES (?1, ?2)", (aggregate, seq)).unwrap();
        }
        sqlite.close().unwrap();
    };
    let adopt = |path: &Path| {
        if let Some(mut adoption) = Adoption::begin(&options(path, false))? {
            while adoption.step()? {}
            assert_eq!(adoption.findings()?["findingCount"], 0);
        }
        Ok(())
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("expected.db");
    older(&path);
    adopt(&path).unwrap();
    let store = open(&path, false).unwrap();
    let expected = seen(&store);
    assert!(expected.contains("a: 7") && expected.contains("given-23"), "{expected}");
    store.close().unwrap();
    sweep_files(&mut tried, "adopt", &older, &adopt, &|path, what| {
        adopt(path).unwrap_or_else(|error| panic!("{what}: going on: {error}"));
        use_it(path, &expected, what);
    });
    tried.print("adopting");
}

#[test]
fn a_file_system_without_shared_memory_is_an_error_and_costs_nothing() {
    vfs::install();
    let template = Template::new(4096);
    for disk in [Disk::RefusesSharedMemory, Disk::WithoutSharedMemory] {
        let refused = |path: &Path| {
            vfs::on(disk, || {
                let error = Store::open(&options(path, false), 1 << 20, syncline::store::Packing::off())
                    .map(|_| ())
                    .expect_err("there is no shared memory");
                assert_coded(&error, &format!("{disk:?}"));
            });
        };
        // A new file, one that was closed, and one with a WAL that has commits in it.
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new.db");
        refused(&new);
        use_it(&new, "", "new");

        let scene = template.scene(Conditions { wal: Wal::Going, ..Conditions::USUAL });
        replay(&scene.store, &given("other", 0, 2)).unwrap();
        let expected = seen(&scene.store);
        let crashed = folder.path().join("crashed.db");
        copy_crashed(&scene.path, &crashed);
        refused(&crashed);
        use_it(&crashed, &expected, "a WAL");
        scene.store.close().unwrap();
        refused(&scene.path);
        use_it(&scene.path, &expected, "closed");
    }
}

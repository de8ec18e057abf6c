//! Faults at every step: a VFS makes each call fail in turn (`vfs.rs`), once or from then on, in each operation of a store.
//! The call answers with a coded error, or survives it; the file is as before or as after, never between, for the store
//! itself, for another connection, after a crash and after closing; and the store goes on.

mod files;
mod scene;
mod sweep;
mod vfs;

use std::time::Duration;

use syncline::connection::Connection;
use syncline::error::{Error, Result};
use syncline::store::Store;

use scene::{
    Conditions, Scene, Template, Wal, checkpoint, findings, finish, given, record, remove, replay, run, seen,
    transaction, try_see,
};
use sweep::{Tried, goes_on, is_long, sweep};
use vfs::{Disk, Plan};

type Operation = (&'static str, &'static dyn Fn(&Scene) -> Result<()>);

const WRITES: [Operation; 10] = [
    ("run", &|scene| run(&scene.store, "rows", 7, None).map(|_| ())),
    ("run of a new aggregate", &|scene| run(&scene.store, "new", 7, Some("one")).map(|_| ())),
    ("runAll", &|Scene { store, .. }| {
        transaction(store, || (0..40).try_for_each(|n| record(store, &format!("aggregate-{}", n % 3), n * 37)))
    }),
    ("runAll of more than is written at once", &|Scene { store, .. }| {
        transaction(store, || (0..700).try_for_each(|n| record(store, &format!("aggregate-{}", n % 3), 299)))
    }),
    ("replayAll", &|scene| {
        let mut lines = given("given", 9, 3);
        lines.extend(given("other", 0, 3));
        lines.push(r#"{"kind":"gap","aggregateID":"other","after":2,"through":4}"#.to_owned());
        lines.push(r#"{"kind":"removed","aggregateID":"packed","seq":13}"#.to_owned());
        replay(&scene.store, &lines)
    }),
    ("claim", &|scene| scene.store.claim("owned", Some("two"), None).map(|_| ())),
    ("claim of a new aggregate", &|scene| scene.store.claim("claimed", Some("two"), None).map(|_| ())),
    ("remove", &|scene| remove(&scene.store, "leaves", false)),
    ("remove with an event", &|scene| remove(&scene.store, "packed", true)),
    ("transaction", &|Scene { store, .. }| {
        transaction(store, || {
            record(store, "rows", 1)?;
            store.execute_all("INSERT INTO own (text) VALUES ('kept')")?;
            let inner = transaction(store, || {
                record(store, "rows", 2)?;
                store.execute_all("INSERT INTO own (text) VALUES ('taken back')")?;
                Err(Error::Closed("frame").into())
            });
            match inner {
                Err(error) if matches!(*error, Error::Closed("frame")) => {}
                other => other?,
            }
            record(store, "leaves", 3)
        })
    }),
];

#[test]
fn writes_are_done_or_not_done() {
    vfs::install();
    let mut tried = Tried::default();
    let template = Template::new(4096);
    for (name, act) in WRITES {
        sweep(&mut tried, &template, Conditions::USUAL, name, act);
    }
    tried.print("writes");
}

#[test]
fn writes_are_done_or_not_done_under_other_conditions() {
    vfs::install();
    let mut tried = Tried::default();
    tried.at_most = is_long().then_some(20);
    for page_size in [4096, 512, 65536] {
        let template = Template::new(page_size);
        for wal in [Wal::Going, Wal::Empty, Wal::Copied] {
            for (full, spills, disk) in [
                (false, false, Disk::Usual),
                (true, false, Disk::Usual),
                (true, false, Disk::Sectors),
                (false, true, Disk::Usual),
                (true, true, Disk::Sectors),
            ] {
                let conditions = Conditions { full, spills, wal, disk };
                for (n, (name, act)) in WRITES.into_iter().enumerate() {
                    // The short form: one small transaction where the WAL begins, and one that spills.
                    let small = wal != Wal::Going && n == 0 && full == (wal == Wal::Copied) && !spills;
                    let large = wal == Wal::Going && spills && !full && n == 3;
                    if is_long() || (page_size == 4096 && (small || large)) {
                        sweep(&mut tried, &template, conditions, name, act);
                    }
                }
            }
        }
    }
    tried.print("writes under other conditions");
}

#[test]
fn a_checkpoint_copies_or_does_not_and_loses_nothing() {
    vfs::install();
    let mut tried = Tried::default();
    let template = Template::new(4096);
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        for wal in if is_long() { &[Wal::Going, Wal::Copied][..] } else { &[Wal::Going] } {
            let conditions = Conditions { wal: *wal, ..Conditions::USUAL };
            sweep(&mut tried, &template, conditions, mode, &|scene| scene.checkpointer.checkpoint(mode).map(|_| ()));
        }
    }
    let conditions = Conditions::USUAL;
    sweep(&mut tried, &template, conditions, "a new connection's", &|scene| {
        checkpoint(&scene.store, "TRUNCATE").map(|_| ())
    });
    tried.print("checkpoints");
}

#[test]
fn packing_and_maintenance_can_be_tried_again_at_each_step() {
    vfs::install();
    let mut tried = Tried::default();
    let template = Template::new(4096);
    for rewrite in [false, true] {
        sweep(&mut tried, &template, Conditions::USUAL, &format!("maintain, rewrite {rewrite}"), &|scene| {
            finish(scene.store.maintenance(true, rewrite)?).map(|_| ())
        });
    }
    // A step that failed is done again, and what was begun is finished.
    let again = |scene: &Scene| {
        let mut errand = scene.store.maintenance(true, false)?;
        let mut failed = 0;
        loop {
            match errand.step(Duration::ZERO) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if failed > 0 => return Err(error),
                Err(_) => failed += 1,
            }
        }
    };
    sweep(&mut tried, &template, Conditions::USUAL, "maintain, with another try", &again);
    tried.print("packing");
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_damage() {
    vfs::install();
    let mut tried = Tried::default();
    let template = Template::new(4096);
    let reads: [Operation; 4] = [
        ("reads", &|scene| try_see(&scene.store).map(|_| ())),
        ("readAll", &|scene| scene.store.read_all(0, 1_000, &mut |_| Ok(()))),
        ("stats", &|scene| scene.store.stats(3, 3).map(|_| ())),
        ("verify", &|scene| {
            let report = finish(scene.store.verification(true)?)?.report();
            assert_eq!(report["found"].to_string(), "[]", "what cannot be read is told as damage");
            Ok(())
        }),
    ];
    for (name, act) in reads {
        let scene = template.scene(Conditions::USUAL);
        let (done, calls, _) = vfs::during(Plan::Count, || act(&scene));
        done.unwrap();
        for plan in tried.plans(&calls) {
            let what = format!("{name}, {plan:?} of {calls:?}");
            let scene = template.scene(Conditions::USUAL);
            let before = scene.beside();
            let (done, _, faults) = vfs::during(plan, || act(&scene));
            tried.note(faults, done.is_ok());
            if let Err(error) = done {
                scene::assert_coded(&error, &what);
            }
            assert_eq!(seen(&scene.store), before, "{what}");
            assert_eq!(findings(&scene.store), "[]", "{what}");
            goes_on(scene, &what);
        }
    }
    tried.print("reads");
}

#[test]
fn a_connection_beside_a_store_opens_or_says_why() {
    vfs::install();
    let mut tried = Tried::default();
    let template = Template::new(4096);
    sweep(&mut tried, &template, Conditions::USUAL, "open beside", &|scene| {
        let options = scene::options(&scene.path, false);
        Connection::open_worker(&scene.store.beside()?)?;
        let other = Store::open_plain(&options)?;
        other.execute_all("SELECT * FROM counted")?;
        other.close()
    });
    tried.print("connections beside a store");
}

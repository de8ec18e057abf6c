//! What others commit: the thread that notices it, with the kernel's help and without, and the pages that tell what it was.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use syncline::connection::{Connection, OpenOptions};
use syncline::core::Steps;
use syncline::event::{NewEvent, Ran};
use syncline::project::{Definition, Projector};
use syncline::store::{Packing, Store};
use syncline::transaction::Mode;
use syncline::watch::{Notify, Watcher};

/// Nothing but a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(30);

struct Scene {
    options: OpenOptions,
    store: Store,
    _folder: tempfile::TempDir,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watch.db").to_str().unwrap().to_owned();
    let options = OpenOptions { path, readonly: false, full: false, busy_timeout: Duration::from_secs(5) };
    let store = Store::open(&options, 1 << 20, Packing::off()).unwrap();
    let definition = Definition::new("thing.happened.1".to_owned(), "id".to_owned(), Projector::None);
    store.register(vec![definition]).unwrap();
    Scene { options, store, _folder: folder }
}

impl Scene {
    fn run(&self, aggregate_id: &str) -> i64 {
        let steps = Steps { begin: true, commit: true, ..Steps::default() };
        let Ran::Recorded(recorded) = self.store.run(steps, &event(aggregate_id)).unwrap() else { unreachable!() };
        recorded.position
    }

    fn remove(&self, aggregate_id: &str, told: bool) {
        self.store.begin(Mode::Immediate, true).unwrap();
        self.store.remove(aggregate_id, None, told.then(|| event(aggregate_id)).as_ref()).unwrap();
        self.store.commit().unwrap();
    }

    fn watch(
        &self,
        start: fn(&Connection, i64, Notify) -> syncline::error::Result<Watcher>,
    ) -> (Watcher, Receiver<()>) {
        let (sender, receiver) = channel();
        let reader = Connection::open(&self.options).unwrap();
        let notify: Notify = Box::new(move || {
            let _ = sender.send(());
        });
        (start(&reader, self.store.last_position().unwrap(), notify).unwrap(), receiver)
    }
}

fn event(aggregate_id: &str) -> NewEvent<'_> {
    let (metadata, created, expected_seq, owner) = (None, None, None, None);
    NewEvent { definition: 0, aggregate_id, data: "{}", metadata, created, expected_seq, owner }
}

type Start = fn(&Connection, i64, Notify) -> syncline::error::Result<Watcher>;

const STARTS: [Start; 2] = [Watcher::start, Watcher::start_polling];

#[test]
fn a_commit_is_noticed_and_what_the_store_wrote_is_not_told() {
    for start in STARTS {
        let scene = scene();
        scene.run("before");
        let (watcher, calls) = scene.watch(start);
        let position = scene.run("a");
        calls.recv_timeout(DEADLINE).unwrap();
        assert_eq!(watcher.position(), position);

        // As if the store had written these: the first call comes for what lies behind them.
        watcher.wrote(position + 50);
        while calls.try_recv().is_ok() {}
        for _ in 0..50 {
            scene.run("written");
        }
        let last = scene.run("news");
        calls.recv_timeout(DEADLINE).unwrap();
        assert_eq!(watcher.position(), last);
    }
}

#[test]
fn commits_that_leave_the_log_alone_are_not_told() {
    for start in STARTS {
        let scene = scene();
        let (watcher, calls) = scene.watch(start);
        scene.store.execute_all("CREATE TABLE own (n)").unwrap();
        for n in 0..20 {
            scene.store.execute_all(&format!("INSERT INTO own VALUES ({n})")).unwrap();
        }
        let position = scene.run("a");
        calls.recv_timeout(DEADLINE).unwrap();
        assert_eq!(watcher.position(), position);
        assert_eq!(calls.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
    }
}

#[test]
fn every_one_of_many_commits_is_seen_in_the_end() {
    for start in STARTS {
        let scene = scene();
        let (watcher, calls) = scene.watch(start);
        let mut last = 0;
        for n in 0..2_000 {
            last = scene.run(if n % 3 == 0 { "a" } else { "b" });
            while calls.try_recv().is_ok() {
                watcher.wrote(watcher.position());
            }
        }
        while watcher.position() < last {
            calls.recv_timeout(DEADLINE).unwrap();
        }
    }
}

#[test]
fn dropping_it_ends_its_thread() {
    for start in STARTS {
        let scene = scene();
        let (watcher, calls) = scene.watch(start);
        drop(watcher);
        // The function goes with the thread that owned it.
        assert_eq!(calls.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
        scene.run("a");
    }
}

#[test]
fn pages_of_any_size_tell_what_was_committed_in_order_with_deletion_events() {
    let scene = scene();
    for _ in 0..3 {
        scene.run("a");
        scene.run("b");
        scene.run("silent");
    }
    scene.remove("a", true);
    scene.run("b");
    scene.remove("silent", false);
    scene.run("a");
    scene.remove("b", true);
    let read = |after: i64, limit: usize| {
        let mut events = Vec::new();
        let page = scene.store.read_committed(after, limit, &mut |event| {
            events.push((event.position, event.aggregate_id.to_owned(), event.seq));
            Ok(())
        });
        (events, page.unwrap())
    };
    let (all, (last, done)) = read(0, 1_000);
    assert!(done);
    let expected = [(10, "a", 3), (13, "a", 4), (14, "b", 4)];
    assert_eq!(all, expected.map(|(position, id, seq)| (position, id.to_owned(), seq)));
    assert_eq!(last, scene.store.last_position().unwrap());
    for limit in 1..=4 {
        let (mut after, mut paged) = (0, Vec::new());
        loop {
            let (events, (through, done)) = read(after, limit);
            assert!(events.len() <= limit);
            paged.extend(events);
            after = through;
            if done {
                break;
            }
        }
        assert_eq!((after, &paged), (last, &all));
    }
}

#[test]
fn what_moved_is_found_from_any_position_and_in_slices() {
    let scene = scene();
    for aggregate in ["a", "b", "c", "a", "d"] {
        scene.run(aggregate);
    }
    scene.remove("c", false);
    let moved = |after: i64, limit: usize| {
        let moved = scene.store.moved(after, limit).unwrap();
        let aggregates = moved.aggregates.iter().map(|(id, seq)| format!("{id} {seq}")).collect::<Vec<_>>();
        (moved.through, moved.done, aggregates.join(", "))
    };
    // The erased event of "c" had position 3; its removal has 6.
    assert_eq!(moved(0, 100), (6, true, "a 1, b 0, d 0, c 0".to_owned()));
    assert_eq!(moved(0, 2), (2, false, "a 1, b 0".to_owned()));
    assert_eq!(moved(2, 1), (4, false, "a 1".to_owned()));
    assert_eq!(moved(4, 1), (5, false, "d 0".to_owned()));
    assert_eq!(moved(5, 1), (6, true, "c 0".to_owned()));
    assert_eq!(moved(6, 1), (6, true, String::new()));
}

//! Random programs of run, replay, transactions, removal, claims, adopted owners, maintenance and reopening, through two stores of one real
//! file, each step compared with the model: outcome, and sequences, owners, events and the projected table as each sees them.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use syncline::connection::OpenOptions;
use syncline::core::Steps;
use syncline::error::Result;
use syncline::event::{NewEvent, Ran};
use syncline::history::Range;
use syncline::project::{Definition, Projector, SqlProjector};
use syncline::replay::Batch;
use syncline::replay::apply::Authority;
use syncline::store::{Packing, Store};
use syncline::transaction::Mode;

use crate::model::{Aggregate, Event, Item, Model};

#[derive(Debug, Clone)]
enum Step {
    Run {
        aggregate: u8,
        owner: Option<u8>,
        expected: Option<i64>,
        payload: u8,
    },
    Claim {
        aggregate: u8,
        owner: Option<u8>,
        expected: Option<i64>,
    },
    Adopt {
        aggregate: u8,
        owner: Option<u8>,
        epoch: i64,
    },
    Remove {
        aggregate: u8,
        owner: Option<u8>,
    },
    /// Items are made from what the model holds: `start` and `count` relative to the last seq.
    Replay {
        aggregate: u8,
        start: i64,
        count: u8,
        other: bool,
    },
    Gap {
        aggregate: u8,
        start: i64,
        length: u8,
    },
    Removed {
        aggregate: u8,
        offset: i64,
    },
    Transaction {
        steps: Vec<Step>,
        keep: bool,
    },
    /// So many steps of maintenance, which packs everything.
    Maintain {
        steps: u8,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let owner = proptest::option::weighted(0.3, 0..2u8);
    let leaf = prop_oneof![
        6 => (0..3u8, owner.clone(), proptest::option::weighted(0.2, -1..4i64), any::<u8>())
            .prop_map(|(aggregate, owner, expected, payload)| Step::Run { aggregate, owner, expected, payload }),
        2 => (0..3u8, owner.clone(), proptest::option::weighted(0.3, 0..3i64))
            .prop_map(|(aggregate, owner, expected)| Step::Claim { aggregate, owner, expected }),
        2 => (0..3u8, owner.clone(), 0..4i64)
            .prop_map(|(aggregate, owner, epoch)| Step::Adopt { aggregate, owner, epoch }),
        1 => (0..3u8, owner).prop_map(|(aggregate, owner)| Step::Remove { aggregate, owner }),
        4 => (0..3u8, -3..3i64, 1..5u8, proptest::bool::weighted(0.2))
            .prop_map(|(aggregate, start, count, other)| Step::Replay { aggregate, start, count, other }),
        1 => (0..3u8, -2..2i64, 1..4u8).prop_map(|(aggregate, start, length)| Step::Gap { aggregate, start, length }),
        1 => (0..3u8, -2..3i64).prop_map(|(aggregate, offset)| Step::Removed { aggregate, offset }),
        2 => prop_oneof![0..4u8, Just(u8::MAX)].prop_map(|steps| Step::Maintain { steps }),
        1 => Just(Step::Reopen),
    ];
    leaf.prop_recursive(3, 12, 5, |inner| {
        let outside = |step: &Step| !matches!(step, Step::Reopen | Step::Maintain { .. });
        let inner = inner.prop_filter("a transaction can neither reopen nor be maintained", outside);
        (proptest::collection::vec(inner, 0..5), any::<bool>())
            .prop_map(|(steps, keep)| Step::Transaction { steps, keep })
    })
}

/// How many programs: the long form, or the short one.
fn cases() -> u32 {
    if std::env::var("SYNCLINE_SOAK").is_ok_and(|soak| soak == "1") { 3_000 } else { 64 }
}

fn name(aggregate: u8) -> String {
    format!("aggregate-{aggregate}")
}

fn data(aggregate: &str, payload: u8) -> String {
    format!("{{\"id\":\"{aggregate}\",\"payload\":{payload}}}")
}

fn open(path: &str) -> Store {
    let options =
        OpenOptions { path: path.to_owned(), readonly: false, full: false, busy_timeout: Duration::from_secs(5) };
    let store = Store::open(&options, 1 << 20, Packing::off()).expect("the store opens");
    let upsert = "INSERT INTO counted (id, n) VALUES (:aggregateID, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1";
    store.execute_all("CREATE TABLE IF NOT EXISTS counted (id TEXT PRIMARY KEY, n INTEGER NOT NULL)").unwrap();
    store
        .register(vec![Definition::new(
            "thing.happened.1".to_owned(),
            "id".to_owned(),
            Projector::Sql(vec![SqlProjector::new(upsert.to_owned())]),
        )])
        .unwrap();
    store
}

fn code<T>(result: &Result<T>) -> std::result::Result<(), &'static str> {
    result.as_ref().map(|_| ()).map_err(|error| error.code())
}

/// Does one step to both and compares their outcomes. `false`: the reopening is up to the caller.
fn perform(store: &Store, model: &mut Model, step: &Step, counter: &mut u32) -> bool {
    match step {
        Step::Run { aggregate, owner, expected, payload } => {
            let (aggregate, owner) = (name(*aggregate), owner.map(|owner| format!("owner-{owner}")));
            let data = data(&aggregate, *payload);
            let event = NewEvent {
                definition: 0,
                aggregate_id: &aggregate,
                data: &data,
                metadata: None,
                created: None,
                expected_seq: *expected,
                owner: owner.as_deref(),
            };
            let steps = Steps { begin: true, project: true, commit: true, ..Steps::default() };
            let done = store.run(steps, &event);
            let wanted = model.run(&aggregate, owner.as_deref(), *expected);
            assert_eq!(code(&done), wanted.map(|_| ()), "{step:?}");
            if let (Ok(Ran::Recorded(recorded)), Ok(seq)) = (done, wanted) {
                assert_eq!(recorded.seq, seq);
                model.store(&aggregate, seq, Event { id: recorded.id, data });
            }
        }
        Step::Claim { aggregate, owner, expected } => {
            let (aggregate, owner) = (name(*aggregate), owner.map(|owner| format!("owner-{owner}")));
            let claimed = store.claim(&aggregate, owner.as_deref(), *expected);
            assert_eq!(
                claimed.map_err(|error| error.code()),
                model.claim(&aggregate, owner.as_deref(), *expected),
                "{step:?}"
            );
        }
        Step::Adopt { aggregate, owner, epoch } => {
            let (aggregate, owner) = (name(*aggregate), owner.map(|owner| format!("owner-{owner}")));
            let adopted = store.adopt_owner(&aggregate, owner.as_deref(), *epoch);
            assert_eq!(code(&adopted), model.adopt(&aggregate, owner.as_deref(), *epoch), "{step:?}");
        }
        Step::Remove { aggregate, owner } => {
            let (aggregate, owner) = (name(*aggregate), owner.map(|owner| format!("owner-{owner}")));
            store.begin(Mode::Immediate, true).unwrap();
            let removed = store.remove(&aggregate, owner.as_deref(), None);
            if removed.is_ok() {
                store.commit().unwrap();
            } else {
                store.rollback().unwrap();
            }
            assert_eq!(code(&removed), model.remove(&aggregate, owner.as_deref()), "{step:?}");
        }
        Step::Replay { aggregate, start, count, other } => {
            let aggregate = name(*aggregate);
            let last = model.aggregates.get(&aggregate).map_or(-1, |known| known.seq);
            let first = (last + 1 + start).max(0);
            let items: Vec<_> = (first..first + i64::from(*count))
                .map(|seq| {
                    let held = model.aggregates.get(&aggregate).and_then(|known| known.events.get(&seq));
                    let event = held.filter(|_| !other).cloned().unwrap_or_else(|| {
                        *counter += 1;
                        Event { id: format!("other-{counter}"), data: data(&aggregate, 0) }
                    });
                    Item::Event { aggregate: aggregate.clone(), seq, event }
                })
                .collect();
            replay(store, model, &items);
        }
        Step::Gap { aggregate, start, length } => {
            let aggregate = name(*aggregate);
            let after = (model.aggregates.get(&aggregate).map_or(-1, |known| known.seq) + start).max(-1);
            replay(store, model, &[Item::Gap { aggregate, after, through: after + i64::from(*length) }]);
        }
        Step::Removed { aggregate, offset } => {
            let aggregate = name(*aggregate);
            let seq = (model.aggregates.get(&aggregate).map_or(-1, |known| known.seq) + offset).max(0);
            replay(store, model, &[Item::Removed { aggregate, seq }]);
        }
        Step::Transaction { steps, keep } => {
            let before = model.clone();
            store.begin(Mode::Immediate, true).unwrap();
            for step in steps {
                perform(store, model, step, counter);
            }
            if *keep {
                store.commit().unwrap();
            } else {
                store.rollback().unwrap();
                *model = before;
            }
        }
        Step::Maintain { steps } => {
            let mut errand = store.maintenance(true, false).unwrap();
            for _ in 0..*steps {
                if !errand.step(Duration::ZERO).unwrap() {
                    break;
                }
            }
        }
        Step::Reopen => return false,
    }
    true
}

fn replay(store: &Store, model: &mut Model, items: &[Item]) {
    let lines: Vec<String> = items
        .iter()
        .map(|item| match item {
            Item::Event { aggregate, seq, event } => format!(
                r#"{{"id":"{}","type":"thing.happened.1","seq":{seq},"aggregateID":"{aggregate}","data":{}}}"#,
                event.id, event.data
            ),
            Item::Gap { aggregate, after, through } => {
                format!(r#"{{"kind":"gap","aggregateID":"{aggregate}","after":{after},"through":{through}}}"#)
            }
            Item::Removed { aggregate, seq } => {
                format!(r#"{{"kind":"removed","aggregateID":"{aggregate}","seq":{seq}}}"#)
            }
        })
        .collect();
    let apply = || -> Result<()> {
        let mut batch = Batch::from_text(lines.join("\n"), 1 << 20)?;
        store.replay_page(&batch, 0)?;
        let length = batch.len();
        store.replay_apply(&mut batch, 0..length, Authority::default(), false)?;
        store.replay_finish(&mut batch)?;
        Ok(())
    };
    store.begin(Mode::Immediate, true).unwrap();
    let applied = apply();
    if applied.is_ok() {
        store.commit().unwrap();
    } else {
        store.rollback().unwrap();
    }
    assert_eq!(code(&applied), model.replay(items), "{lines:?}");
}

/// Everything that can be read of the store, in the model's form.
fn observed(store: &Store) -> Model {
    let mut aggregates = BTreeMap::new();
    for listed in store.aggregates("", "", usize::MAX).unwrap() {
        let mut events = BTreeMap::new();
        let range = Range { after: -1, before: None, limit: usize::MAX, descending: false };
        store
            .read(&listed.aggregate_id, range, &mut |event| {
                events.insert(event.seq, Event { id: event.id.to_owned(), data: event.data.to_owned() });
                Ok(())
            })
            .unwrap();
        // The log must explain every seq: it fails by itself where one is missing without a word.
        let page = store.read_log(&listed.aggregate_id, (-1, listed.seq), usize::MAX, &mut |_| Ok(())).unwrap();
        let (owner, epoch) = store.owner(&listed.aggregate_id).unwrap().unwrap();
        let removed = page.removed.map(|(seq, _)| seq);
        aggregates.insert(listed.aggregate_id, Aggregate { seq: listed.seq, owner, epoch, events, removed });
    }
    let mut projected = BTreeMap::new();
    let prepared = store.prepare("SELECT id, n FROM counted".to_owned()).unwrap();
    store
        .execute(&prepared, &[], &mut |row| {
            projected.insert(row.get(0)?, row.get(1)?);
            Ok(true)
        })
        .unwrap();
    Model { aggregates, projected }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stores_of_one_file_do_what_the_model_does(program in proptest::collection::vec((0..2usize, step()), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.db").to_str().unwrap().to_owned();
        let mut stores = [open(&path), open(&path)];
        let (mut model, mut counter) = (Model::default(), 0);
        for (which, step) in &program {
            if !perform(&stores[*which], &mut model, step, &mut counter) {
                stores[*which].close().unwrap();
                stores[*which] = open(&path);
            }
            for store in &stores {
                prop_assert_eq!(observed(store), model.clone());
            }
        }
    }
}

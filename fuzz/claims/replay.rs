//! `replay`: what is read of the bytes is what JavaScript would read, or an error; and what a store makes of it is what a
//! plain model makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::value::RawValue;
use syncline::connection::{MEMORY, OpenOptions};
use syncline::error::Result;
use syncline::history::Range;
use syncline::project::{Definition, Projector, SqlProjector};
use syncline::replay::Batch;
use syncline::replay::apply::Authority;
use syncline::replay::input::{EventItem, Item, read_text};
use syncline::store::{Begun, Packing, Store};
use syncline::transaction::Mode;

use super::json::{Json, parse, stringify};

/// Larger ones are refused.
const MAX_EVENT_BYTES: usize = 1 << 16;

thread_local! {
    static STORE: Store = {
        let store = in_memory();
        store.execute_all("CREATE TABLE counted (id TEXT PRIMARY KEY, n INTEGER NOT NULL)").unwrap();
        let upsert = "INSERT INTO counted VALUES (:aggregateID, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1";
        let of = |name: &str, projector| Definition::new(name.to_owned(), "id".to_owned(), projector);
        let definitions = vec![
            of("thing.happened.1", Projector::Sql(vec![SqlProjector::new(upsert.to_owned())])),
            of("thing.noted.1", Projector::None),
            of("thing.lost.1", Projector::Missing),
        ];
        store.register(definitions).unwrap();
        store
    };
}

/// A store that nothing outlives.
pub fn in_memory() -> Store {
    let busy_timeout = Duration::from_secs(1);
    let options = OpenOptions { path: MEMORY.to_owned(), readonly: false, full: false, busy_timeout };
    Store::open(&options, MAX_EVENT_BYTES, Packing::off()).unwrap()
}

/// A JSON array of items, an item, or one a line.
pub fn replay(bytes: &[u8]) {
    let batch = match Batch::from_bytes(bytes.to_vec(), MAX_EVENT_BYTES) {
        Ok(batch) => batch,
        Err(error) => {
            assert!(matches!(error.code(), "ERR_INVALID_EVENT" | "ERR_TOO_LARGE"), "{error}");
            return;
        }
    };
    let source = std::str::from_utf8(bytes).expect("it was read");
    let items = read_text(source, MAX_EVENT_BYTES).expect("it was read");
    let texts = texts(source).expect("what is read is JSON");
    assert_eq!((items.len(), batch.len()), (texts.len(), texts.len()));
    let Some(read) = texts.into_iter().map(parse).collect::<Option<Vec<Json>>>() else { return };
    items.iter().zip(&read).for_each(|(item, read)| compare(source, item, read));
    STORE.with(|store| {
        assert_eq!(store.begin(Mode::Immediate, true).unwrap(), Begun::Yes);
        let done = apply(store, batch, source);
        let mut model = Model::default();
        let wanted = items.iter().try_for_each(|item| model.take(source, item));
        match (done, wanted) {
            (Ok(()), Ok(())) => model.compare(store),
            (Err(error), Err(code)) => assert!(error.code().starts_with("ERR_") && !code.is_empty(), "{error}"),
            (done, wanted) => {
                panic!("the store says {:?}, and the model {wanted:?}", done.map_err(|error| error.to_string()))
            }
        }
        store.rollback().unwrap();
    });
}

/// Each item's own text.
fn texts(source: &str) -> Option<Vec<&str>> {
    let text = source.strip_prefix('\u{feff}').unwrap_or(source);
    if text.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        return Some(items.into_iter().map(RawValue::get).collect());
    }
    if let Ok(one) = serde_json::from_str::<&RawValue>(text) {
        return Some(vec![one.get()]);
    }
    Some(text.lines().map(str::trim).filter(|line| !line.is_empty()).collect())
}

/// What was read of an item, and what JavaScript reads.
fn compare(source: &str, item: &Item, read: &Json) {
    let text = |name| read.get(name).and_then(Json::as_text);
    let number = |name| read.get(name).and_then(Json::as_number);
    match item {
        Item::Event(event) => {
            let read = if read.get("kind").is_some() { read.get("event").expect("an event has it") } else { read };
            compare_event(source, event, read);
        }
        Item::Gap { aggregate_id, after, through } => {
            assert_eq!((text("kind"), text("aggregateID")), (Some("gap"), Some(&**aggregate_id)));
            assert_eq!((number("after"), number("through")), (Some(*after as f64), Some(*through as f64)));
        }
        Item::Removed { aggregate_id, seq, event } => {
            assert_eq!((text("kind"), text("aggregateID")), (Some("removed"), Some(&**aggregate_id)));
            assert_eq!(number("seq"), Some(*seq as f64));
            match (event, read.get("event")) {
                (Some(event), Some(read)) => compare_event(source, event, read),
                (event, read) => assert!(event.is_none() && read.is_none()),
            }
        }
        Item::Synced { aggregate_id } => {
            assert_eq!((text("kind"), text("aggregateID")), (Some("synced"), Some(&**aggregate_id)));
        }
    }
}

fn compare_event(source: &str, event: &EventItem, read: &Json) {
    let text = |name| read.get(name).and_then(Json::as_text);
    let number = |name| read.get(name).and_then(Json::as_number);
    assert_eq!(text("id"), Some(&*event.id));
    assert_eq!(text("type"), Some(&*event.type_name));
    assert_eq!(text("aggregateID"), Some(&*event.aggregate_id));
    assert_eq!(number("seq"), Some(event.seq as f64));
    assert_eq!(number("created"), event.created.map(|created| created as f64));
    let (data, metadata) = (event.data.of(source), event.metadata.as_ref().map(|text| text.of(source)));
    assert_eq!(parse(data).as_ref(), read.get("data"));
    assert_eq!(metadata.and_then(parse).as_ref(), read.get("metadata"));
    if event.canonical {
        assert_eq!(stored(data), data);
        assert_eq!(metadata.map(stored).as_deref(), metadata);
    }
}

/// A text in the form in which it is stored.
fn stored(text: &str) -> String {
    stringify(&parse(text).expect("it was read"))
}

/// What the TypeScript layer does with a batch.
fn apply(store: &Store, mut batch: Batch, source: &str) -> Result<()> {
    let mut from = 0;
    while from < batch.len() {
        let (end, seen) = store.replay_page(&batch, from)?;
        for index in seen {
            let event = batch.event(index).expect("JavaScript sees events");
            let (data, metadata) =
                (stored(event.data.of(source)), event.metadata.as_ref().map(|text| stored(text.of(source))));
            store.replay_set_data(&mut batch, index, data, metadata)?;
        }
        while from < end {
            let (applied, _) = store.replay_apply(&mut batch, from..end, Authority::default(), false)?;
            assert!(applied.stop > from, "it goes on, or fails");
            from = applied.stop;
        }
    }
    store.replay_finish(&mut batch).map(|_| ())
}

/// What a store must hold after a replay into an empty one.
#[derive(Default)]
struct Model(BTreeMap<String, Aggregate>);

struct Aggregate {
    seq: i64,
    removed: i64,
    events: BTreeMap<i64, Held>,
}

/// Id, type, data and metadata.
type Held = (String, String, String, Option<String>);

impl Model {
    fn take(&mut self, source: &str, item: &Item) -> std::result::Result<(), &'static str> {
        let (aggregate_id, event) = match item {
            Item::Event(event) => (&event.aggregate_id, Some(event)),
            Item::Removed { aggregate_id, event, .. } => (aggregate_id, event.as_ref()),
            Item::Gap { aggregate_id, .. } | Item::Synced { aggregate_id } => (aggregate_id, None),
        };
        if let Some(event) = event {
            if !["thing.happened.1", "thing.noted.1", "thing.lost.1"].contains(&&*event.type_name) {
                return Err("an unknown type");
            }
            let data = parse(event.data.of(source)).expect("it was read");
            if data.get("id").and_then(Json::as_text) != Some(aggregate_id) {
                return Err("another aggregate");
            }
        }
        if matches!(item, Item::Synced { .. }) {
            return Ok(());
        }
        let new = || Aggregate { seq: -1, removed: -1, events: BTreeMap::new() };
        let aggregate = self.0.entry(aggregate_id.to_string()).or_insert_with(new);
        match item {
            Item::Event(event) if event.seq > aggregate.seq + 1 => return Err("a seq is missing"),
            Item::Event(event) if event.seq <= aggregate.seq => {
                aggregate.same(source, event)?;
            }
            Item::Event(event) => {
                projectable(event)?;
                aggregate.seq = event.seq;
                aggregate.events.insert(event.seq, held(source, event));
            }
            Item::Gap { after, .. } if *after > aggregate.seq => return Err("a seq is missing"),
            Item::Gap { through, .. } => aggregate.seq = aggregate.seq.max(*through),
            Item::Removed { seq, event, .. } if *seq > aggregate.removed => {
                if let Some(event) = event
                    && !aggregate.same(source, event)?
                {
                    projectable(event)?;
                }
                aggregate.events.retain(|held, _| held > seq);
                (aggregate.seq, aggregate.removed) = (aggregate.seq.max(*seq), *seq);
            }
            Item::Removed { .. } | Item::Synced { .. } => {}
        }
        Ok(())
    }

    fn compare(&self, store: &Store) {
        let listed = store.aggregates("", "", usize::MAX).unwrap();
        let listed: Vec<(&str, i64)> = listed.iter().map(|listed| (listed.aggregate_id.as_str(), listed.seq)).collect();
        let wanted: Vec<(&str, i64)> = self.0.iter().map(|(id, aggregate)| (id.as_str(), aggregate.seq)).collect();
        assert_eq!(listed, wanted);
        for (aggregate_id, aggregate) in &self.0 {
            let mut events = BTreeMap::new();
            let range = Range { after: -1, before: None, limit: usize::MAX, descending: false };
            store
                .read(aggregate_id, range, &mut |event| {
                    let (id, type_name) = (event.id.to_owned(), event.type_name.to_owned());
                    let held = (id, type_name, event.data.to_owned(), event.metadata.map(str::to_owned));
                    events.insert(event.seq, held);
                    Ok(())
                })
                .unwrap();
            assert_eq!(events, aggregate.events, "{aggregate_id}");
            // The log explains each seq, or fails.
            store.read_log(aggregate_id, (-1, aggregate.seq), usize::MAX, &mut |_| Ok(())).unwrap();
        }
    }
}

impl Aggregate {
    /// Whether the event is held; an error where another one is.
    fn same(&self, source: &str, event: &EventItem) -> std::result::Result<bool, &'static str> {
        let Some((id, type_name, data, _)) = self.events.get(&event.seq) else { return Ok(false) };
        let sorted = |text: &str| parse(text).map(|json| json.sorted());
        let same =
            **id == *event.id && **type_name == *event.type_name && sorted(data) == sorted(event.data.of(source));
        if same { Ok(true) } else { Err("another event") }
    }
}

fn projectable(event: &EventItem) -> std::result::Result<(), &'static str> {
    if &*event.type_name == "thing.lost.1" { Err("no projector") } else { Ok(()) }
}

fn held(source: &str, event: &EventItem) -> Held {
    let metadata = event.metadata.as_ref().map(|text| stored(text.of(source)));
    (event.id.to_string(), event.type_name.to_string(), stored(event.data.of(source)), metadata)
}

//! What adopting the owner and epoch of another log makes of those that are held, case by case.

use std::time::Duration;

use syncline::connection::OpenOptions;
use syncline::store::{Packing, Store};
use syncline::transaction::Mode;

type Owned<'a> = (Option<&'a str>, i64);

fn open() -> Store {
    let options =
        OpenOptions { path: ":memory:".to_owned(), readonly: false, full: false, busy_timeout: Duration::from_secs(5) };
    Store::open(&options, 1 << 20, Packing::off()).expect("the store opens")
}

fn owned(store: &Store) -> Option<(Option<String>, i64)> {
    store.owner("a").unwrap()
}

fn adopt(store: &Store, (owner, epoch): Owned<'_>) -> Result<(), &'static str> {
    store.adopt_owner("a", owner, epoch).map_err(|error| error.code())
}

#[test]
fn an_owner_and_epoch_are_adopted_or_refused() {
    const ME: Option<&str> = Some("me");
    const YOU: Option<&str> = Some("you");
    // Held, adopted, and whether that is held afterwards (Ok) or what was held before (Err).
    let cases: &[(Owned<'_>, Owned<'_>, Result<(), &str>)] = &[
        ((ME, 2), (ME, 2), Ok(())),
        ((ME, 2), (ME, 7), Ok(())),
        ((ME, 2), (YOU, 3), Ok(())),
        ((ME, 2), (None, 3), Ok(())),
        ((None, 2), (None, 2), Ok(())),
        ((None, 2), (ME, 2), Ok(())),
        ((None, 2), (ME, 3), Ok(())),
        ((ME, 2), (YOU, 2), Err("ERR_NOT_OWNER")),
        ((ME, 2), (None, 2), Err("ERR_NOT_OWNER")),
        ((ME, 2), (ME, 1), Err("ERR_NOT_OWNER")),
        ((None, 2), (YOU, 1), Err("ERR_NOT_OWNER")),
        ((None, 2), (None, 0), Err("ERR_NOT_OWNER")),
        ((ME, 2), (ME, 0), Err("ERR_INVALID_ARGUMENT")),
        ((ME, 2), (Some(""), 3), Err("ERR_INVALID_ARGUMENT")),
    ];
    for (held, adopted, outcome) in cases {
        let store = open();
        adopt(&store, *held).unwrap();
        assert_eq!(adopt(&store, *adopted), *outcome, "{held:?} {adopted:?}");
        let (owner, epoch) = if outcome.is_ok() { adopted } else { held };
        assert_eq!(owned(&store), Some((owner.map(str::to_owned), *epoch)), "{held:?} {adopted:?}");
    }
}

#[test]
fn what_is_unknown_becomes_known_as_by_a_claim() {
    let store = open();
    adopt(&store, (None, 0)).unwrap();
    assert_eq!(adopt(&store, (Some("me"), 0)), Err("ERR_INVALID_ARGUMENT"));
    assert_eq!(owned(&store), None);
    adopt(&store, (None, 4)).unwrap();
    assert_eq!(owned(&store), Some((None, 4)));
    assert_eq!(store.aggregates("", "", 2).unwrap().iter().map(|one| one.seq).collect::<Vec<_>>(), [-1]);
}

#[test]
fn a_refusal_leaves_the_transaction_around_it_open() {
    let store = open();
    store.begin(Mode::Immediate, true).unwrap();
    adopt(&store, (Some("me"), 3)).unwrap();
    assert_eq!(adopt(&store, (Some("you"), 3)), Err("ERR_NOT_OWNER"));
    adopt(&store, (Some("me"), 5)).unwrap();
    store.commit().unwrap();
    assert_eq!(owned(&store), Some((Some("me".to_owned()), 5)));
    store.begin(Mode::Immediate, true).unwrap();
    adopt(&store, (None, 9)).unwrap();
    store.rollback().unwrap();
    assert_eq!(owned(&store), Some((Some("me".to_owned()), 5)));
}

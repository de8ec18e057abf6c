//! The claims that the fuzz targets make (`fuzz/claims`), over their corpora and over what comes of changing those.

#[path = "../../fuzz/claims/mod.rs"]
mod claims;

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

type Claim = fn(&[u8]);

const TARGETS: [(&str, Claim); 4] = [
    ("replay", claims::replay),
    ("segment", claims::segment),
    ("parameters", claims::parameters),
    ("payload", claims::payload),
];

/// Inputs that are made of the corpus, for each target.
fn cases() -> u32 {
    if std::env::var("SYNCLINE_SOAK").is_ok_and(|value| value == "1") { 200_000 } else { 2_000 }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One change: at a place, so many bytes go, and these come.
type Change = (prop::sample::Index, usize, Vec<u8>);

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..6),
        1 => prop::sample::select(vec!["{", "}", "[", "]", "\"", ",", ":", "\\u", "\\ud800", "0", "-1", "1e3", "null", "\n", " "])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    (any::<prop::sample::Index>(), prop_oneof![3 => 0..3_usize, 1 => 0..40_usize], bytes)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for (at, length, with) in changes {
        let start = at.index(bytes.len() + 1);
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, with.iter().copied());
    }
    bytes
}

#[test]
fn the_corpora_keep_the_claims() {
    for (target, claim) in TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() >= 10, "{target} has hardly a corpus");
        corpus.iter().for_each(|bytes| claim(bytes));
    }
}

#[test]
fn what_comes_of_the_corpora_keeps_the_claims() {
    for (target, claim) in TARGETS {
        let corpus = corpus(target);
        let part = prop::sample::select(corpus);
        let input = (part.clone(), proptest::option::weighted(0.2, part), prop::collection::vec(change(), 0..5))
            .prop_map(|(one, other, changes)| changed([one, other.unwrap_or_default()].concat(), &changes));
        let config = ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() };
        let ran = TestRunner::new(config).run(&input, |bytes| {
            claim(&bytes);
            Ok(())
        });
        if let Err(error) = ran {
            panic!("{target}: {error}");
        }
        println!("figures fuzz, {target}: inputs {}", cases());
    }
}

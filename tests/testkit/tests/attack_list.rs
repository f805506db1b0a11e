//! `docs/attacks.md` against the corpus, and against the tests it names.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::path::Path;

use shared::clock::Timestamp;
use testkit::{Issuer, attacks};

const PAGE: &str = include_str!("../../../docs/attacks.md");
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// The second cells of the table under a heading, each split at its backticks.
fn cells(heading: &str) -> Vec<String> {
    let text = PAGE.split_once(heading).unwrap().1;
    let text = text.split("\n## ").next().unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.flat_map(|row| {
        let cell = row.trim_matches('|').rsplit_once(" | ").unwrap().1;
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    })
    .collect()
}

/// Which member is changed is not told one by one.
fn told(case: &str) -> String {
    match case.split_once(" set to ") {
        Some((_, value)) => format!("… set to {value}"),
        None => case.to_owned(),
    }
}

#[test]
fn the_page_has_every_case_of_the_corpus_and_no_other() {
    let (issuer, other) = (Issuer::new("k1"), Issuer::new("k2"));
    let mut cases = BTreeSet::new();
    for good in [attacks::access(&issuer, NOW), attacks::assertion(&issuer, NOW)] {
        cases.extend(attacks::all(&issuer, &other, &good, NOW).iter().map(|(what, _)| told(what)));
    }
    let listed = cells("## The corpus");
    let page: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), page.len(), "a case stands on the page twice");
    let (untold, unknown): (Vec<_>, Vec<_>) = (cases.difference(&page).collect(), page.difference(&cases).collect());
    assert!(untold.is_empty(), "docs/attacks.md does not name {untold:?}");
    assert!(unknown.is_empty(), "docs/attacks.md names {unknown:?}, which the corpus does not have");
}

#[test]
fn no_two_attacks_are_the_same_text_and_none_is_the_good_token() {
    let (issuer, other) = (Issuer::new("k1"), Issuer::new("k2"));
    let good = attacks::access(&issuer, NOW);
    let corpus = attacks::all(&issuer, &other, &good, NOW);
    let names: BTreeSet<_> = corpus.iter().map(|(what, _)| what).collect();
    assert_eq!(names.len(), corpus.len(), "two attacks have one name");
    let texts: BTreeSet<_> = corpus.iter().map(|(_, token)| token).collect();
    assert_eq!(texts.len(), corpus.len(), "two attacks are one");
    assert!(!texts.contains(&issuer.token(NOW, &serde_json::json!({}))));
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named: Vec<&str> = PAGE.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
    assert!(named.len() > 40, "the page has lost its tests");
    for name in named {
        let (file, test) = name.split_once("::").unwrap();
        let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("{file} does not exist"));
        // A test of Rust is a function, a check of an outside client a text.
        let is_there =
            if file.ends_with(".rs") { source.contains(&format!("fn {test}")) } else { source.contains(test) };
        assert!(is_there, "{file} has no test {test:?}");
    }
}

//! Every mutant is caught by the invariant that is there for it.

mod support;

use support::{caught::judge, mutants::all, root};

#[test]
fn every_mutant_is_caught_by_its_invariant_and_the_list_says_so() {
    let judged = judge(&all());
    let missed: Vec<String> =
        judged.iter().filter(|one| !one.caught_by.contains(&one.invariant)).map(ToString::to_string).collect();
    assert!(missed.is_empty(), "not caught by its invariant:\n{}", missed.join("\n"));
    for invariant in invariants::INVARIANTS {
        let own = judged.iter().filter(|one| one.invariant == invariant.number).count();
        assert!(own > 0, "{} {} has no mutant", invariant.number, invariant.name);
    }
    let mut names: Vec<&str> = judged.iter().map(|one| one.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), judged.len(), "a name stands twice");
    let listed = std::fs::read_to_string(root().join("infra/invariants/mutants.txt")).unwrap_or_default();
    let found = support::caught::list(&judged);
    assert!(
        listed == found,
        "infra/invariants/mutants.txt differs; cargo run -p invariants --example mutants prints:\n{found}"
    );
    let page = std::fs::read_to_string(root().join("docs/invariants.md")).unwrap_or_default();
    assert!(
        page == support::caught::page(&judged),
        "docs/invariants.md differs; cargo run -p invariants --example page"
    );
}

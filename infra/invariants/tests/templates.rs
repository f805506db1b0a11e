//! The project's own templates hold every invariant, in every deployment that their parameters allow.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use invariants::{INVARIANTS, list_of_grants};

#[test]
fn every_invariant_holds_in_every_deployment_and_the_list_of_grants_is_checked_in() {
    let repository = support::repository();
    let graphs = support::graphs();
    let found = support::in_parallel(&graphs, |(name, graph)| {
        let violations = match graph {
            Err(faults) => faults.clone(),
            Ok(graph) => INVARIANTS
                .iter()
                .flat_map(|one| one.check(graph, &repository).into_iter().map(|it| format!("{:2} {it}", one.number)))
                .collect(),
        };
        violations.into_iter().map(|violation| (violation, name.clone())).collect::<Vec<_>>()
    });
    let mut by_violation: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (violation, name) in found.into_iter().flatten() {
        by_violation.entry(violation).or_default().push(name);
    }
    let mut text = String::new();
    for (violation, names) in &by_violation {
        let some = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        text.push_str(&format!("{violation}\n      in {} of {}: {some}\n", names.len(), graphs.len()));
    }
    assert!(by_violation.is_empty(), "{} violations:\n{text}", by_violation.len());

    let listed: String =
        repository.grants.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let graphs: Vec<_> = graphs.into_iter().filter_map(|(_, graph)| graph.ok()).collect();
    let found = list_of_grants(&graphs);
    assert!(
        listed == found,
        "infra/invariants/grants.txt differs; cargo run -p invariants --example grants prints:\n{found}"
    );
}

#[test]
fn arm64_is_the_default() {
    let documents = support::documents();
    for name in ["recommended", "lean"] {
        let graph = documents.graph(&support::profile(name), &support::place()).unwrap();
        assert_eq!(graph.parameter("Architecture"), Some("arm64"), "{name}");
    }
}

#[test]
fn the_numbers_are_one_to_twenty_seven_and_no_name_stands_twice() {
    let numbers: Vec<u8> = INVARIANTS.iter().map(|one| one.number).collect();
    assert_eq!(numbers, (1..=27).collect::<Vec<u8>>());
    let names: BTreeSet<&str> = INVARIANTS.iter().map(|one| one.name).collect();
    assert_eq!(names.len(), INVARIANTS.len());
}

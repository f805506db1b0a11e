//! The project's own templates hold every invariant, in every deployment that their parameters allow.

mod support;

use std::collections::BTreeMap;

use invariants::INVARIANTS;

#[test]
fn every_invariant_holds_in_every_deployment() {
    let (documents, repository) = (support::documents(), support::repository());
    let deployments = support::deployments();
    let found = support::in_parallel(&deployments, |(name, profile)| {
        let violations = match documents.graph(profile, &support::place()) {
            Err(faults) => faults,
            Ok(graph) => {
                let line = |number: u8, one: &str| format!("{number:2} {one}");
                let of = |one: &invariants::Invariant| {
                    one.check(&graph, &repository).iter().map(|it| line(one.number, &it.to_string())).collect::<Vec<_>>()
                };
                INVARIANTS.iter().flat_map(of).collect()
            }
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
        text.push_str(&format!("{violation}\n      in {} of {}: {some}\n", names.len(), deployments.len()));
    }
    assert!(by_violation.is_empty(), "{} violations:\n{text}", by_violation.len());
}

#[test]
fn the_numbers_are_one_to_twenty_seven_and_no_name_stands_twice() {
    let numbers: Vec<u8> = INVARIANTS.iter().map(|one| one.number).collect();
    assert_eq!(numbers, (1..=27).collect::<Vec<u8>>());
    let names: std::collections::BTreeSet<&str> = INVARIANTS.iter().map(|one| one.name).collect();
    assert_eq!(names.len(), INVARIANTS.len());
}

#[test]
fn the_list_of_grants_is_the_one_that_is_checked_in() {
    let listed = support::repository().grants;
    let listed: String = listed.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let graphs = support::graphs();
    let found = invariants::list_of_grants(&graphs);
    assert!(listed == found, "infra/invariants/grants.txt differs; `make invariants GRANTS=1` prints:\n{found}");
}

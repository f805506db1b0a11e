//! The project's own templates hold every invariant, in every deployment that their parameters allow.

mod support;

use invariants::INVARIANTS;

#[test]
fn every_invariant_holds_in_every_deployment() {
    let (documents, repository) = (support::documents(), support::repository());
    let mut found: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    let deployments = support::deployments();
    for (name, profile) in &deployments {
        match documents.graph(profile, &support::place()) {
            Err(faults) => {
                for fault in faults {
                    found.entry(format!("-- {fault}")).or_default().push(name.clone());
                }
            }
            Ok(graph) => {
                for invariant in INVARIANTS {
                    for violation in invariant.check(&graph, &repository) {
                        let line = format!("{:2} {} {violation}", invariant.number, invariant.name);
                        found.entry(line).or_default().push(name.clone());
                    }
                }
            }
        }
    }
    let mut text = String::new();
    for (line, names) in &found {
        let some = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        text.push_str(&format!("{line}\n      in {} of {}: {some}\n", names.len(), deployments.len()));
    }
    assert!(found.is_empty(), "{} violations:\n{text}", found.len());
}

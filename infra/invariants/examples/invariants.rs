//! Prints every invariant, whether it holds in all deployments, and how many of its mutants it catches.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let repository = support::repository();
    let graphs = support::graphs();
    let mut violations = std::collections::BTreeMap::new();
    for (name, graph) in &graphs {
        match graph {
            Err(faults) => println!("{name}: {}", faults.join("\n")),
            Ok(graph) => {
                for invariant in invariants::INVARIANTS {
                    for violation in invariant.check(graph, &repository) {
                        println!("{name}: {} {violation}", invariant.number);
                        *violations.entry(invariant.number).or_insert(0) += 1;
                    }
                }
            }
        }
    }
    let judged = support::caught::judge(&support::mutants::all());
    for one in judged.iter().filter(|one| !one.caught_by.contains(&one.invariant)) {
        println!("not caught: {one}");
    }
    print!("{}", support::caught::table(&judged, &violations, graphs.len()));
}

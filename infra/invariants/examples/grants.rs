//! Prints the list of all roles' grants, as `grants.txt` holds it.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let graphs: Vec<_> = support::graphs().into_iter().filter_map(|(_, graph)| graph.ok()).collect();
    print!("{}", invariants::list_of_grants(&graphs));
}

//! Prints the list of all roles' grants, as `grants.txt` holds it.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    print!("{}", invariants::list_of_grants(&support::graphs()));
}

//! Prints `docs/invariants.md`.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    print!("{}", support::caught::page(&support::caught::judge(&support::mutants::all())));
}

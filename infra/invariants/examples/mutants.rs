//! Prints the list of all mutants and what caught them, as `mutants.txt` holds it.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    print!("{}", support::caught::list(&support::caught::judge(&support::mutants::all())));
}

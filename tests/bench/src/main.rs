//! `bench`: what the real release binaries cost, in ratios to a program that does nothing.
//!
//! Ratios in one run on one machine are the only figures that mean anything on another. `--check` holds them, and the
//! calls to the outside, against `tests/bench/budgets.json`.

#![allow(clippy::indexing_slicing, reason = "indexing a JSON value answers null and does not panic")]

mod measure;
mod report;
mod runtime_api;
mod world;

use std::io::{self, Write as _};
use std::process::ExitCode;

use measure::Effort;
use report::Report;
use world::World;

/// What is allowed, checked in.
const BUDGETS: &str = include_str!("../budgets.json");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (check, effort) = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => (false, Effort::FULL),
        ["--check"] => (true, Effort::FULL),
        ["--try"] => (false, Effort::TRY),
        _ => {
            say("usage: bench [--check | --try]\n");
            return ExitCode::from(64);
        }
    };
    match bench(effort) {
        Ok(report) if check && !report.holds() => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(effort: Effort) -> io::Result<Report> {
    let budgets = serde_json::from_str(BUDGETS)?;
    let checkout = std::env::current_dir()?;
    if cfg!(debug_assertions) {
        say("this is a debug build: its figures mean nothing\n");
    }
    // The stack has its own threads; what hands out events and takes the time has this one for itself.
    let around = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let timing = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    say("measuring\n  a stack around the functions, and one whose signing keys are parameters ...\n");
    let world = around.block_on(World::open(&checkout, &[]))?;
    let local = around.block_on(World::open(&checkout, &[("Signer", "ssm")]))?;
    let logs = world.stack.places.directory.join("bench");
    let findings = timing.block_on(measure::run(&world, &local, &logs, effort, say));
    around.block_on(local.stack.stop());
    around.block_on(world.stack.stop());
    let report = Report::new(findings?, &budgets);
    say(&report.table());
    let file = checkout.join(".local/bench.json");
    std::fs::write(&file, format!("{:#}\n", report.json()))?;
    say(&format!("\nwritten to {}\n", file.display()));
    Ok(report)
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

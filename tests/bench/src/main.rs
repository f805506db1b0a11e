//! `bench`: what the real release binaries cost, in ratios to a program that does nothing.
//!
//! Ratios in one run on one machine are the only figures that mean anything on another. `--check` holds them, and the
//! calls to the outside, against `tests/bench/budgets.json`.

#![allow(clippy::indexing_slicing, reason = "indexing a JSON value answers null and does not panic")]

mod beside;
mod laden;
mod measure;
mod peers;
mod report;
mod round_trip;
mod runtime_api;
mod scale;
mod world;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use laden::Laden;
use measure::{Effort, Worlds};
use report::Report;
use scale::Reach;
use tokio::runtime::Runtime;
use world::World;

/// How long one case runs alone.
const ALONE: Duration = Duration::from_secs(10);
/// What is allowed, checked in.
const BUDGETS: &str = include_str!("../budgets.json");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => bench(Effort::FULL).map(|_| true),
        ["--check"] => bench(Effort::FULL).map(|report| report.holds()),
        ["--try"] => bench(Effort::TRY).map(|_| true),
        ["--scale"] => grown(Reach::FULL).map(|()| true),
        ["--scale", "--try"] => grown(Reach::TRY).map(|()| true),
        ["--case", name @ ..] => one(&name.join(" ")).map(|()| true),
        _ => {
            say("usage: bench [--check | --try | --scale [--try] | --case NAME]\n");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// The worlds, and the threads that they and the measuring have.
struct Scene {
    around: Runtime,
    timing: Runtime,
    worlds: Worlds,
}

fn open() -> io::Result<Scene> {
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
    let laden = around.block_on(Laden::all(&world.stack))?;
    Ok(Scene { around, timing, worlds: Worlds { world, local, laden } })
}

impl Scene {
    fn logs(&self) -> PathBuf {
        self.worlds.world.stack.places.directory.join("bench")
    }

    fn close(self) {
        self.around.block_on(self.worlds.local.stack.stop());
        self.around.block_on(self.worlds.world.stack.stop());
    }
}

/// One case alone, for a profiler.
fn one(name: &str) -> io::Result<()> {
    let scene = open()?;
    let outcome = scene.timing.block_on(measure::only(&scene.worlds, &scene.logs(), name, ALONE));
    scene.close();
    say(&report::alone(name, &outcome?));
    Ok(())
}

/// What calls cost beside more and more of everything.
fn grown(reach: Reach) -> io::Result<()> {
    let scene = open()?;
    let found = scene.timing.block_on(scale::run(&scene.worlds, &scene.logs(), reach, say));
    scene.close();
    let file = std::env::current_dir()?.join(".local/scale.json");
    std::fs::write(&file, format!("{:#}\n", found?))?;
    say(&format!("\nwritten to {}; scripts/scale-page draws it\n", file.display()));
    Ok(())
}

fn bench(effort: Effort) -> io::Result<Report> {
    let budgets = serde_json::from_str(BUDGETS)?;
    let scene = open()?;
    let findings = scene.timing.block_on(measure::run(&scene.worlds, &scene.logs(), effort, say));
    scene.close();
    let report = Report::new(findings?, &budgets);
    say(&report.table());
    let file = std::env::current_dir()?.join(".local/bench.json");
    std::fs::write(&file, format!("{:#}\n", report.json()))?;
    say(&format!("\nwritten to {}\n", file.display()));
    Ok(report)
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

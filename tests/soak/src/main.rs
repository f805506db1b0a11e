//! `soak`: see the library. Ends with 1 where a violation was found, and says how to see it again.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use local::stack::sibling_binaries;
use soak::run::{Settings, run};

const USAGE: &str = "usage: soak [--seed N] [--operations N] [--faults RULES] [--without RULES] [--busy yes] [--workers N] [--binaries DIR] [--stretch STORM,CALM] [--seconds N]\n";

fn main() -> ExitCode {
    let settings = match settings(std::env::args().skip(1)) {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            say(USAGE);
            return ExitCode::from(64);
        }
        Err(error) => return fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let (seed, operations) = (settings.seed, settings.operations);
    let faults = settings.faults.clone().map(|rules| format!(" FAULTS='{rules}'")).unwrap_or_default();
    let left_out = (!settings.without.is_empty()).then(|| format!(" WITHOUT='{}'", settings.without.join("; ")));
    let again = format!("make soak SEED={seed} OPERATIONS={operations}{faults}{}", left_out.unwrap_or_default());
    say(&format!("seed {seed}: {again}\n"));
    match runtime.block_on(run(settings, say)) {
        Ok(report) => {
            say(&report.text());
            match report.violation {
                None => {
                    say("no violation\n");
                    ExitCode::SUCCESS
                }
                Some(violation) => {
                    report.said.iter().for_each(|line| say(&format!("{line}\n")));
                    say(&format!("\nVIOLATION, seed {seed}: {violation}\nagain: {again}\n"));
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => fail(&error),
    }
}

fn settings(mut arguments: impl Iterator<Item = String>) -> io::Result<Option<Settings>> {
    let mut settings = Settings {
        seed: 1,
        operations: 2_000,
        faults: None,
        without: Vec::new(),
        busy: false,
        workers: 6,
        stretch: [100, 40],
        binaries: sibling_binaries()?,
        checkout: std::env::current_dir()?,
        plant: None,
        longest: None,
    };
    while let Some(name) = arguments.next() {
        let Some(value) = arguments.next() else { return Ok(None) };
        let number = value.parse::<u64>().ok();
        match (name.as_str(), number) {
            ("--seed", Some(seed)) => settings.seed = seed,
            ("--operations", Some(operations)) => settings.operations = operations,
            ("--seconds", Some(seconds)) => settings.longest = Some(Duration::from_secs(seconds)),
            ("--workers", Some(workers @ 1..=64)) => settings.workers = usize::try_from(workers).unwrap_or(6),
            ("--faults", _) => {
                local::faults::grammar::read(&value).map_err(io::Error::other)?;
                settings.faults = Some(value);
            }
            ("--busy", _) if ["yes", "no"].contains(&value.as_str()) => settings.busy = value == "yes",
            ("--without", _) => settings.without = value.split(';').map(|head| head.trim().to_owned()).collect(),
            ("--binaries", _) => settings.binaries = PathBuf::from(value),
            ("--stretch", _) => match value.split_once(',').map(|(storm, calm)| (storm.parse(), calm.parse())) {
                Some((Ok(storm), Ok(calm))) => settings.stretch = [storm, calm],
                _ => return Ok(None),
            },
            _ => return Ok(None),
        }
    }
    Ok(Some(settings))
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn fail(error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{error}");
    ExitCode::FAILURE
}

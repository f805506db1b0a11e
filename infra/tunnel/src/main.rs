//! `tunnel render` and `tunnel check`: files in, a configuration or its faults out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use tunnel::{Access, Gate, Hosts, check, render};

const USAGE: &str = "usage: tunnel render --hosts FILE --access FILE --api HOST --stage STAGE
       tunnel check  --hosts FILE --access FILE --api HOST --stage STAGE CONFIG
FILE of --access is what `terraform output -json` printed.
";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(text) => finish(&mut io::stdout(), &text, 0),
        Err((code, text)) => finish(&mut io::stderr(), &text, code),
    }
}

fn finish(out: &mut impl Write, text: &str, code: u8) -> ExitCode {
    match out.write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::from(74),
    }
}

fn run(arguments: Vec<String>) -> Result<String, (u8, String)> {
    let usage = || (64, USAGE.to_owned());
    let mut arguments = arguments.into_iter();
    let command = arguments.next().ok_or_else(usage)?;
    let mut options = BTreeMap::new();
    let mut files = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(name @ ("hosts" | "access" | "api" | "stage")) => {
                if options.insert(name.to_owned(), arguments.next().ok_or_else(usage)?).is_some() {
                    return Err(usage());
                }
            }
            Some(_) => return Err(usage()),
            None => files.push(argument),
        }
    }
    let option = |name: &str| options.get(name).cloned().ok_or_else(usage);
    let hosts = Hosts::parse(&read(&option("hosts")?)?).map_err(|error| (1, format!("{error}\n")))?;
    let access = Access::parse(&read(&option("access")?)?).map_err(|error| (1, format!("{error}\n")))?;
    let gate =
        Gate::agree(&hosts, &access, &option("api")?, &option("stage")?).map_err(|faults| (1, lines(&faults)))?;
    match (command.as_str(), files.as_slice()) {
        ("render", []) => Ok(render(&gate)),
        ("check", [file]) => {
            check(&read(file)?, &gate).map(|fates| lines(&fates)).map_err(|faults| (1, lines(&faults)))
        }
        _ => Err(usage()),
    }
}

fn read(path: &str) -> Result<String, (u8, String)> {
    std::fs::read_to_string(path).map_err(|error| (66, format!("{path}: {error}\n")))
}

fn lines(items: &[impl ToString]) -> String {
    items.iter().map(|item| item.to_string() + "\n").collect()
}

//! `policy BUNDLE [--log FILE]… [--event OPERATOR]`

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ExitCode;

use policy::{Replay, event, load};
use shared::policy::Reads;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (out, code) = match run(&arguments) {
        Ok(answer) => answer,
        Err(fault) => {
            let _ = writeln!(std::io::stderr().lock(), "{fault}");
            return ExitCode::from(2);
        }
    };
    let _ = std::io::stdout().lock().write_all(out.as_bytes());
    ExitCode::from(code)
}

/// What is printed, and 1 where something would change.
fn run(arguments: &[String]) -> Result<(String, u8), String> {
    let usage = || "usage: policy BUNDLE [--log FILE]... [--event OPERATOR]".to_owned();
    let (file, options) = arguments.split_first().ok_or_else(usage)?;
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let loaded = load(&text).map_err(|fault| format!("{file}: {fault}"))?;
    let mut replay = None::<Replay>;
    for pair in options.chunks(2) {
        match pair {
            [option, value] if option == "--log" => {
                let log = std::fs::File::open(value).map_err(|error| format!("{value}: {error}"))?;
                for line in BufReader::new(log).lines() {
                    let line = line.map_err(|error| format!("{value}: {error}"))?;
                    replay.get_or_insert_default().line(&line, &loaded);
                }
                replay.get_or_insert_default();
            }
            [option, value] if option == "--event" => return Ok((format!("{}\n", event(&text, value)?), 0)),
            _ => return Err(usage()),
        }
    }
    let hash = format!("{}  {file}{}\n", loaded.hash, looks(loaded.reads()));
    Ok(match replay {
        None => (hash, 0),
        Some(replay) => (format!("{hash}{}", replay.render()), u8::from(!replay.changes.is_empty())),
    })
}

/// What of a question the bundle looks at that is something else the next time.
fn looks(reads: Reads) -> String {
    let named = [(reads.time, "the time"), (reads.net, "the network"), (reads.device, "the device")];
    let named: Vec<&str> = named.into_iter().filter(|(looks, _)| *looks).map(|(_, what)| what).collect();
    if named.is_empty() { String::new() } else { format!("  looks at {}", named.join(", ")) }
}

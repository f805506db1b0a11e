//! `fleet`: prints what the simulation finds, or writes it where it belongs.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::{env, fs};

use fleet::page::{PARAMETERS, print, replaced, taken};

const PAGE: &str = "docs/scale.md";
const FILE: &str = "tests/fleet/parameters.json";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match act(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(said) => {
            let _ = io::stdout().lock().write_all(said.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: &[&str]) -> Result<String, String> {
    let failed = |error: io::Error| error.to_string();
    match arguments {
        [] => print(PARAMETERS),
        ["page"] => {
            let page = fs::read_to_string(PAGE).map_err(failed)?;
            let tables = print(&fs::read_to_string(FILE).map_err(failed)?)?;
            let page = replaced(&page, &tables).ok_or(format!("{PAGE} has no place for the tables"))?;
            fs::write(PAGE, page).map_err(failed)?;
            Ok(format!("written to {PAGE}\n"))
        }
        ["take", file] => {
            fs::write(FILE, taken(&fs::read_to_string(file).map_err(failed)?)?).map_err(failed)?;
            Ok(format!("written to {FILE}; now: cargo run --package fleet -- page\n"))
        }
        _ => Err("usage: fleet [page | take FILE]".to_owned()),
    }
}

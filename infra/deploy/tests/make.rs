//! What the Makefile hands over to the commands.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::path::Path;
use std::process::Command;

/// The lines that a command is handed, one an argument.
fn handed(arguments: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut make = Command::new("make");
    // `make test` has variables and flags of its own.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        make.env_remove(name);
    }
    let make = make.current_dir(scratch.path()).arg("--no-print-directory").arg("-f").arg(house.join("Makefile"));
    let make = make.args(["TOOL=:", "DEPLOY=printf '%s\\n'", "STACK=printf '%s\\n'", "BUILD=:"]).args(arguments);
    let done = make.envs(environment.iter().copied()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn no_argument_breaks_out_of_its_quotes() {
    let evil = "it's'; touch broken; echo '\"`touch broken`";
    for name in ["ENV", "ISSUER", "IMAGE", "WITH", "ALLOW_REPLACE", "VERSION", "FUNCTION"] {
        let argument = format!("{name}={evil}");
        assert_eq!(handed(&["plan", &argument], &[]), ["plan".to_owned(), argument]);
    }
    let two = "PARAMETERS=DbStorage=30 LogRetention=90";
    assert_eq!(handed(&["deploy", "ENV=prod", two], &[]), ["deploy", "ENV=prod", two]);
}

#[test]
fn what_changes_a_deployment_comes_from_the_command_line_alone() {
    let set = [("VERSION", "5"), ("ALLOW_REPLACE", "Database"), ("ALLOW_DEFAULTS", "1"), ("ENV", "prod")];
    assert_eq!(handed(&["rollback", "FUNCTION=token"], &set), ["rollback", "ENV=prod", "FUNCTION=token"]);
    let typed = handed(&["rollback", "VERSION=4", "ALLOW_REPLACE=Database"], &set);
    assert_eq!(typed, ["rollback", "ENV=prod", "ALLOW_REPLACE=Database", "VERSION=4"]);
}

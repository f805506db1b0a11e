//! Every input that is kept, through its target: what once broke a parser, or found its way deep into one, does so again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may stop where it stands")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fuzz::TARGETS;

/// The most bytes that all kept inputs have together.
const MOST: u64 = 1024 * 1024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder().join(target)).unwrap_or_else(|_| panic!("{target} keeps no inputs"));
    let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_still_holds() {
    for (name, run) in TARGETS {
        let files = inputs(name);
        assert!(!files.is_empty(), "{name} keeps no inputs");
        for file in files {
            let data = std::fs::read(&file).unwrap();
            let held = std::panic::catch_unwind(|| run(&data));
            assert!(held.is_ok(), "{}", file.display());
        }
    }
}

#[test]
fn nothing_that_is_cut_short_or_repeated_breaks_a_target() {
    for (name, run) in TARGETS {
        for file in inputs(name) {
            let data = std::fs::read(&file).unwrap();
            let (half, twice) = (data.len() / 2, [data.as_slice(), &data].concat());
            for input in [&[][..], &data[..half], &data[half..], &twice] {
                let held = std::panic::catch_unwind(|| run(input));
                assert!(held.is_ok(), "{}, cut or repeated: {input:?}", file.display());
            }
        }
    }
}

#[test]
fn what_is_kept_belongs_to_a_target_and_is_small() {
    let folders: BTreeSet<String> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
    let sizes = TARGETS.iter().flat_map(|(name, _)| inputs(name)).map(|file| std::fs::metadata(file).unwrap().len());
    assert!(sizes.sum::<u64>() < MOST);
}

#[test]
fn every_target_has_its_program_and_its_row() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(house.join("libfuzzer/Cargo.toml")).unwrap();
    let page = std::fs::read_to_string(house.join("../../docs/fuzzing.md")).unwrap();
    let rows: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(n, _)| n).collect();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(rows, names, "docs/fuzzing.md lists the targets in their order");
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} has no program");
        let program = std::fs::read_to_string(house.join(format!("libfuzzer/fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("fuzz::{name}(data)")), "{name}.rs runs another target");
    }
}

/// A parser that is fuzzed says so where all parsers stand, and the page says why one is not.
#[test]
fn every_parser_of_the_list_is_fuzzed_or_the_page_says_why_not() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = std::fs::read_to_string(docs.join("fuzzing.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let parsers = std::fs::read_to_string(docs.join("parsers.md")).unwrap();
    let rows = parsers.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | `"));
    let names: Vec<&str> = rows.map(|(name, _)| name).filter(|name| *name != "parser").collect();
    assert!(names.len() > 40);
    for name in names {
        assert!(page.contains(name), "docs/fuzzing.md says nothing of the parser {name:?}");
    }
}

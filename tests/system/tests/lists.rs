//! The lists that are kept by hand, held against the code.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers outside of #[test] functions; a test may fail loudly")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use shared::problem::Code;
use support::root;

/// The cells of the Markdown table that follows the line `after`.
fn table(text: &str, after: &str) -> Vec<Vec<String>> {
    let rest = text.split_once(after).unwrap_or_else(|| panic!("no line {after:?}")).1;
    let rows = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect()
}

#[test]
fn the_documented_errors_are_the_errors_of_the_code() {
    let text = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let documented: BTreeMap<String, String> = table(&text, "compared with the code by a test")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let coded: BTreeMap<String, String> =
        Code::ALL.iter().map(|code| (code.as_str().to_owned(), code.status().to_string())).collect();
    assert_eq!(documented, coded);
}

#[test]
fn every_problem_title_in_the_api_document_is_the_codes_own() {
    let text = std::fs::read_to_string(root().join("infra/aws/openapi.yaml")).unwrap();
    let mut found = 0;
    for code in Code::ALL {
        for line in text.lines().filter(|line| line.contains(&format!("\"code\":\"{}\"", code.as_str()))) {
            found += 1;
            assert!(line.contains(&format!("\"title\":\"{}\"", code.title())), "{line}");
            assert!(line.contains(&format!("\"status\":{}", code.status())), "{line}");
        }
    }
    assert!(found > 0, "the document has no problem bodies any more, or in another form");
}

#[test]
fn every_parser_of_outside_input_names_tests_that_exist() {
    let root = root();
    let text = std::fs::read_to_string(root.join("docs/parsers.md")).unwrap();
    let rows = table(&text, "# Parsers of outside input");
    assert!(rows.len() >= 15, "the list has lost rows");
    let mut sources = BTreeMap::new();
    for row in &rows {
        for cell in row[3].split(',') {
            let (file, test) = cell.trim().trim_matches('`').split_once("::").unwrap_or_else(|| panic!("{cell:?}"));
            let source = sources.entry(file.to_owned()).or_insert_with(|| {
                std::fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("{file} does not exist"))
            });
            assert!(source.contains(&format!("fn {test}")), "{file} has no test {test}");
        }
    }
    let parsers: BTreeSet<_> = rows.iter().map(|row| &row[0]).collect();
    assert_eq!(parsers.len(), rows.len(), "a parser is listed twice");
}

#[test]
fn every_threat_names_tests_that_exist() {
    let root = root();
    let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows = table(&text, "## Threats and the tests that hold them");
    assert!(rows.len() >= 15);
    for row in rows {
        for cell in row[2].split(',').map(|cell| cell.trim().trim_matches('`')) {
            let (file, test) = cell.split_once("::").unwrap_or_else(|| panic!("{cell:?}"));
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("{file} does not exist"));
            assert!(source.contains(&format!("fn {test}")), "{file} has no test {test}");
        }
    }
}

#[test]
fn the_table_of_outside_clients_names_the_pinned_versions() {
    let root = root();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let text = read("docs/clients.md");
    let rows = table(&text, "# Clients we did not write").into_iter();
    let documented: BTreeSet<(String, String)> =
        rows.filter(|row| !row[1].starts_with("the machine's")).map(|row| (row[0].clone(), row[1].clone())).collect();
    let requirements = read("tests/clients/requirements.txt");
    let direct = requirements.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once("=="));
    let mut pinned: BTreeSet<(String, String)> =
        direct.map(|(name, version)| (name.split('[').next().unwrap_or(name).to_owned(), version.to_owned())).collect();
    let package: serde_json::Value = serde_json::from_str(&read("tests/clients/node/package.json")).unwrap();
    for (name, version) in package["dependencies"].as_object().unwrap() {
        pinned.insert((name.clone(), version.as_str().unwrap().to_owned()));
    }
    assert_eq!(documented, pinned);
    let lock = read("tests/clients/node/package-lock.json");
    assert!(
        !lock.contains("resolved"),
        "the lock file names a registry: npm install --omit-lockfile-registry-resolved"
    );
}

/// What `scripts/index-advice` says about a column.
fn advice(column: &[u64]) -> String {
    let script = root().join("scripts/index-advice");
    let said = std::process::Command::new(script).args(column.iter().map(u64::to_string)).output().unwrap();
    assert!(said.status.success(), "{column:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn the_advice_for_a_blind_index_keeps_to_its_formula() {
    let number = |text: &str, after: &str| -> u64 {
        let digits: String = text.split_once(after).unwrap().1.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    for values in [1_u64, 8, 9, 17, 65_536, 1_000_000_000] {
        let said = advice(&[values]);
        let lengths: Vec<u64> =
            (1..63).filter(|n| 1_u128 << (2 * n) > u128::from(values) && 1_u64 << (n + 1) < values).collect();
        let (Some(first), Some(last)) = (lengths.first(), lengths.last()) else {
            assert!(said.starts_with("no index"), "{values}: {said}");
            continue;
        };
        assert!(said.contains(&format!("(of {first} to {last}), partitions 1\n")), "{values}: {said}");
        assert!(lengths.contains(&number(&said, "bits ")), "{values}: {said}");
    }
    assert!(advice(&[100_000]).starts_with("bits 10 (of 9 to 15), partitions 1\n"));
    // Skewed columns: no entry of the most frequent value has more than twice the rows of the others.
    for (values, rows, most) in [(100_000, 1_000_000, 20_000), (1_000, 1_000_000, 100_000), (500, 10_000, 21)] {
        let said = advice(&[values, rows, most]);
        let (bits, partitions) = (number(&said, "bits "), number(&said, "partitions "));
        assert!((1..=255).contains(&partitions) && most <= partitions * 2 * (rows >> bits).max(1), "{said}");
    }
    assert!(advice(&[50_000, 1_000_000, 600_000]).starts_with("no index"));
    let page = std::fs::read_to_string(root().join("docs/formats/blind-index.md")).unwrap();
    assert!(page.contains(&advice(&[100_000, 1_000_000, 20_000])), "the page shows what is said");
}

#[test]
fn the_fourteen_modules_of_fapi_are_run_and_told() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let told: BTreeSet<String> =
        table(&read("docs/conformance.md"), "# Conformance").into_iter().map(|row| row[0].clone()).collect();
    let program = read("tests/clients/node/with_fapi2.mjs");
    let quoted = |text: &str| text.split('\'').nth(1).unwrap_or_default().to_owned();
    // Some are run one by one, two share their body with a list, three with a helper.
    let run = ["await module('", "await assertionFails('", "['ensure-dpopproof-"];
    let run: BTreeSet<String> =
        program.lines().filter(|line| run.iter().any(|way| line.trim().starts_with(way))).map(quoted).collect();
    assert_eq!(told, run);
    assert_eq!(run.len(), 14);
}

//! The page says what the program prints.

use std::fs;
use std::path::Path;

use fleet::page::{PARAMETERS, print, replaced, taken};
use serde_json::{Value, json};

#[test]
fn the_page_is_what_the_program_prints() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scale.md")).unwrap();
    let tables = print(PARAMETERS).unwrap();
    assert_eq!(replaced(&page, &tables).unwrap(), page, "cargo run --package fleet -- page");
}

#[test]
fn the_parameters_of_a_run_of_the_bench_are_taken() {
    let names = ["authorizer", "token", "token (SSM)", "upload", "download", "data-key-encrypt"];
    let cases = ["authorizer, new token", "token", "token (SSM)", "upload", "download, content", "encrypt 1"];
    let programs: Value =
        names.map(|name| (name.to_owned(), json!({"start_ms": 1.0, "first_answer_ms": 9.0}))).into_iter().collect();
    let cases: Value = cases.map(|name| (name.to_owned(), json!({"processor_us": 100.0}))).into_iter().collect();
    let bench = json!({"machine": "a test", "programs": programs, "cases": cases});
    let parameters = taken(&bench.to_string()).unwrap();
    let parameters: Value = serde_json::from_str(&parameters).unwrap();
    let checked_in: Value = serde_json::from_str(PARAMETERS).unwrap();
    let names = |value: &Value| value["measured"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (mut one, mut other) = (names(&parameters), names(&checked_in));
    one.sort();
    other.sort();
    assert_eq!(one, other);
    assert!(taken(&json!({"machine": "a test", "programs": programs, "cases": {}}).to_string()).is_err());
}

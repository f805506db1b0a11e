//! What a batch leaves in the log: one line, however many fields it has, and nothing of what they hold.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::{Lab, field, sealed, with};

const CANARY: &str = "canary-5f2c";

/// Run by the test below, which reads what it writes to its output.
#[tokio::test]
#[ignore = "a part of another test"]
async fn somebody_asks_for_many_fields() {
    let lab = Lab::new();
    let row = |at: usize| format!("row-{CANARY}-{at}");
    let plain: Vec<Value> = (0..1_000).map(|at| field("ssn", &row(at), CANARY.as_bytes())).collect();
    println!("BATCH encrypt");
    let records = lab.encrypt(json!(plain)).await.text("record");
    let sealed = |at: usize| sealed("ssn", &row(at), &records[at]);
    println!("BATCH decrypt");
    let mut items: Vec<Value> = (0..1_000).map(sealed).collect();
    items[7]["row"] = json!(row(8));
    items[9]["column"] = json!("secret");
    lab.decrypt_as("acme", "fields:decrypt:users.ssn", json!(items)).await;
    println!("BATCH rewrap");
    lab.rewrap(json!([sealed(0), sealed(1)])).await;
    println!("BATCH export");
    lab.export(json!([sealed(0), sealed(1)])).await;
    println!("BATCH index");
    lab.index(json!([with(support::searched("email", CANARY.as_bytes()), "ref", json!("r"))])).await;
    println!("BATCH inspect");
    lab.inspect(json!([sealed(0)])).await;
    println!("RECORDS {}", records.join(" "));
}

#[test]
fn a_batch_leaves_one_line_that_says_who_what_and_how_many_and_nothing_of_the_fields() {
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "somebody_asks_for_many_fields", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let output = String::from_utf8(ran.stdout).unwrap();
    let (log, records) = output.split_once("RECORDS ").unwrap();
    let mut told = Vec::new();
    for batch in log.split("BATCH ").skip(1) {
        let lines: Vec<Value> =
            batch.lines().filter_map(|line| serde_json::from_str(line.get(line.find('{')?..)?).ok()).collect();
        let [line] = lines.as_slice() else { panic!("{} lines: {batch}", lines.len()) };
        let operation = batch.lines().next().unwrap();
        assert_eq!(line["event"], format!("fields:{operation}"), "{batch}");
        for member in ["tenant", "subject", "jti", "request_id", "columns", "items", "failed", "keys", "decision"] {
            assert!(line.get(member).is_some(), "{member}: {line}");
        }
        told.push(format!("{operation} {} {} {}", line["items"], line["failed"], line["reason"].as_str().unwrap()));
    }
    assert_eq!(
        told,
        [
            "encrypt 1000 0 ok",
            "decrypt 1000 2 forbidden=1 not_authentic=1",
            "rewrap 2 0 ok",
            "export 2 0 ok",
            "index 1 0 ok",
            "inspect 1 0 ok",
        ]
    );
    let hidden = shared::encoding::base64url(CANARY.as_bytes());
    assert!(!log.contains(CANARY) && !log.contains(&hidden) && !log.contains("secret"));
    assert!(records.split_whitespace().filter(|text| text.starts_with("AQ")).all(|record| !log.contains(record)));
}

//! What a batch was for, and keys under which nobody has anything to open.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::process::Command;

use data_key::{Deployment, Purposes};
use serde_json::{Value, json};
use shared::boot::Handler as _;
use support::{Lab, field, sealed, with};
use uuid::Uuid;

/// A body with this purpose, or without any.
fn body(items: &Value, purpose: Option<&str>) -> String {
    let body = json!({"items": items});
    purpose.map_or(body.clone(), |purpose| with(body, "purpose_of_use", json!(purpose))).to_string()
}

#[tokio::test]
async fn plaintext_leaves_for_a_purpose_of_the_list_only_where_there_is_a_list() {
    let lab = Lab::new();
    let items = json!([sealed("ssn", "42", &lab.record().await)]);
    let token = lab.token("acme", "fields:decrypt:*.* fields:export:*.* fields:rewrap:*.*");
    let list =
        |deployment| lab.changed(deployment, |config| config.purposes = Purposes::parse("billing,support").unwrap());
    let (decrypt, maintain) = (list(Deployment::Decrypt), list(Deployment::Maintain));
    for (function, resource, purpose, status) in [
        (&decrypt, "/fields/decrypt", Some("billing"), 200),
        (&decrypt, "/fields/decrypt", Some("marketing"), 400),
        (&decrypt, "/fields/decrypt", Some(""), 400),
        (&decrypt, "/fields/decrypt", None, 400),
        (&maintain, "/fields/export", Some("support"), 200),
        (&maintain, "/fields/export", None, 400),
        // What answers no plaintext asks for no purpose, and takes none.
        (&maintain, "/fields/rewrap", None, 200),
        (&maintain, "/fields/rewrap", Some("support"), 400),
        (&lab.decrypt, "/fields/decrypt", None, 200),
        (&lab.decrypt, "/fields/decrypt", Some("billing"), 400),
    ] {
        lab.forget();
        let answer = lab.send(function, lab.event(resource, &token, &body(&items, purpose))).await;
        assert_eq!(answer.status, status, "{resource} {purpose:?}");
        assert!(
            status == 200 || lab.operations().is_empty() && lab.database.take_calls().is_empty(),
            "{resource} {purpose:?}"
        );
    }
    let direct = |purpose: &str| json!({"operation": "decrypt", "access_token": token, "items": items, "purpose_of_use": purpose});
    assert_eq!(decrypt.handle(direct("support"), &lab.invocation()).await.unwrap()["items"][0]["ok"], true);
    assert_eq!(decrypt.handle(direct("theft"), &lab.invocation()).await.unwrap()["status"], 400);
    let twice = body(&items, Some("billing")).replacen('{', r#"{"purpose_of_use":"support","#, 1);
    assert_eq!(lab.send(&decrypt, lab.event("/fields/decrypt", &token, &twice)).await.status, 400);
    assert_eq!(
        lab.send(
            &decrypt,
            lab.event(
                "/fields/decrypt",
                &token,
                &body(&items, None).replace("]}", r#"],"purpose_of_use":["billing"]}"#)
            )
        )
        .await
        .status,
        400
    );
}

/// Run by the test below, which reads what it writes to its output.
#[tokio::test]
#[ignore = "a part of another test"]
async fn somebody_opens_honey() {
    let lab = Lab::new();
    let honey = with(field("ssn", "1", b"078-05-1120"), "scope", json!("subject:honey"));
    let records = lab.encrypt(json!([honey, field("ssn", "2", b"x")])).await.text("record");
    let id = lab.database.rows(|rows| rows.iter().find(|row| row.scope == "subject:honey").unwrap().id);
    let planted = |deployment| lab.changed(deployment, |config| config.honey_keys = [id].into());
    let (decrypt, maintain) = (planted(Deployment::Decrypt), planted(Deployment::Maintain));
    let token = lab.token("acme", "fields:decrypt:*.* fields:rewrap:*.*");
    let (honey, other) = (sealed("ssn", "1", &records[0]), sealed("ssn", "2", &records[1]));
    for (function, resource, items) in [
        (&decrypt, "/fields/decrypt", json!([other])),
        (&decrypt, "/fields/decrypt", json!([other, honey])),
        (&decrypt, "/fields/decrypt", json!([with(honey.clone(), "row", json!("9"))])),
        (&maintain, "/fields/rewrap", json!([honey])),
    ] {
        let answer = lab.send(function, lab.event(resource, &token, &body(&items, None))).await;
        println!("ANSWER {} {:?} {id}", answer.status, answer.codes());
    }
}

#[test]
fn opening_with_a_planted_key_is_told_to_the_log_and_to_nobody_else() {
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "somebody_opens_honey", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let output = String::from_utf8(ran.stdout).unwrap();
    // Answers and the log's lines about honey, in their order.
    let honey = |line: &str| -> Option<String> {
        let line: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
        let keys = line["keys"].as_array().map_or(0, Vec::len);
        (line["event"] == "honey").then(|| format!("{} {} {keys}", line["level"], line["function"]).replace('"', ""))
    };
    let answer = |line: &str| Some(line.split_once("ANSWER ")?.1.rsplit_once(' ')?.0.to_owned());
    let told: Vec<String> = output.lines().filter_map(|line| answer(line).or_else(|| honey(line))).collect();
    assert_eq!(
        told,
        [
            r#"200 ["ok"]"#,
            "ERROR data-key-decrypt 1",
            r#"200 ["ok", "ok"]"#,
            "ERROR data-key-decrypt 1",
            r#"207 ["decrypt_failed"]"#,
            "ERROR data-key-maintain 1",
            r#"200 ["ok"]"#,
        ]
    );
    let id = output.lines().find_map(|line| line.split_once("ANSWER ")).unwrap().1.rsplit_once(' ').unwrap().1;
    assert!(Uuid::try_parse(id).is_ok() && output.contains(id));
}

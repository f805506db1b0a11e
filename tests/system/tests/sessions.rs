//! A session that was recorded on one stack and is sent to another.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use local::session::{Recorder, Session};
use serde_json::{Value, json};
use support::{Running, files};

/// Whatever a client does on a day: what it must not read in the file afterwards.
async fn a_day(running: &Running) -> Vec<String> {
    let api = &running.api;
    let assertion = api.assertion(running.client("acme-backend")).unwrap();
    let token = api.token_with(&assertion, None).await.unwrap().json()["access_token"].as_str().unwrap().to_owned();
    let plan = api.call("POST", "/files", Some(&token), Some(&files::new_file())).await.unwrap().json();
    let url = plan["upload"]["url"].as_str().unwrap().to_owned();
    assert_eq!(files::put(running, &plan["upload"]).await.status, 200);
    let path = format!("/files/{}", plan["id"].as_str().unwrap());
    for _ in 0..200 {
        // Asked around the gate, so that the session does not depend on how often somebody looks.
        if running.count("files WHERE status = 'clean'").await == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert_eq!(api.call("GET", &path, Some(&token), None).await.unwrap().json()["status"], "clean");
    let ticket = api.call("POST", &format!("{path}/tickets"), Some(&token), Some(&json!({}))).await.unwrap().json();
    let ticket = ticket["ticket"].as_str().unwrap().to_owned();
    let taken = api.call("GET", &format!("/tickets/{ticket}"), None, None).await.unwrap();
    assert!(taken.status < 400, "{}", taken.outcome());
    let again = api.call("GET", &format!("/tickets/{ticket}"), None, None).await.unwrap();
    assert!(again.status >= 400);
    let sealed = running.encrypt(&token, &["canary of a plaintext"]).await.json();
    let record = sealed["items"][0]["record"].clone();
    let item = json!({"ref": "0", "table": "users", "column": "email", "row": "0", "record": record});
    let opened = api.call("POST", "/fields/decrypt", Some(&token), Some(&json!({"items": [item]}))).await.unwrap();
    assert_eq!(opened.status, 200, "{}", opened.outcome());
    let reader = running.token("acme-reader").await;
    assert_eq!(api.call("POST", "/files", Some(&reader), Some(&files::new_file())).await.unwrap().status, 403);
    let gateway = &running.stack.places.gateway;
    let stranger =
        [("authorization", "Bearer canary.of-a.token"), ("cookie", "session=canary"), ("x-api-key", "canary")];
    api.send("GET", &format!("{gateway}{path}?access_token=canary&page=${{1}}"), &stranger, Bytes::new())
        .await
        .unwrap();
    let bound = running.client("acme-bound");
    let assertion_of_bound = api.assertion(bound).unwrap();
    let proof = api.proof(bound, "POST", "/oauth2/token", &json!({})).unwrap();
    let nonce = api.bound_token(&assertion_of_bound, &proof).await.unwrap().header("dpop-nonce").to_owned();
    let proof_with = api.proof(bound, "POST", "/oauth2/token", &json!({"nonce": nonce})).unwrap();
    let given = api.bound_token(&assertion_of_bound, &proof_with).await.unwrap();
    assert_eq!(given.status, 200, "{}", given.outcome());
    let bound_token = given.json()["access_token"].as_str().unwrap().to_owned();
    let ath = URL_SAFE_NO_PAD.encode(shared::digest::sha256(bound_token.as_bytes()));
    let proof_of_use = api.proof(bound, "GET", &path, &json!({"ath": ath})).unwrap();
    let read = api.proven(&path, &bound_token, &proof_of_use).await.unwrap();
    assert_eq!(read.status, 404, "{}", read.outcome());
    api.call("GET", "/nowhere/at/all", None, None).await.unwrap();
    api.call("POST", "/fields/encrypt", Some(&token), Some(&json!({"items": "canary-not-a-list"}))).await.unwrap();
    let signature =
        url.split("X-Amz-Signature=").nth(1).unwrap_or("X-Amz-Signature").split('&').next().unwrap().to_owned();
    vec![
        nonce,
        proof_with,
        bound_token,
        proof_of_use,
        token,
        reader,
        assertion,
        assertion_of_bound,
        proof,
        ticket,
        signature,
        URL_SAFE_NO_PAD.encode("canary of a plaintext"),
        "canary.of".to_owned(),
        "=canary".to_owned(),
    ]
}

async fn recorded(file: &Path) -> Vec<String> {
    let running = Running::start().await;
    running.stack.account.view.switch_on();
    running.stack.account.sessions.record(Recorder::create(file).unwrap(), &running.stack, &running.clients);
    let secrets = a_day(&running).await;
    running.stack.stop().await;
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_holds_no_secret_and_is_the_same_on_another_stack() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("session.jsonl");
    let secrets = recorded(&file).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Recorder::create(&file).is_err(), "a session is never written over");
    let text = std::fs::read_to_string(&file).unwrap();
    for secret in &secrets {
        assert!(!text.contains(secret.as_str()), "{secret} is in the file:\n{text}");
    }
    let session = Session::read(&file).unwrap();
    assert!(session.steps().len() >= 13, "{text}");
    for wanted in [
        "${assertion:acme-backend}",
        "Bearer ${1:/access_token}",
        "${2:/upload/url}",
        "/files/${2:/id}",
        "${proof:acme-bound}",
        "${nonce:acme-bound}",
        "page=$${1}",
    ] {
        assert!(text.contains(wanted), "{wanted}:\n{text}");
    }

    let other = Running::start().await;
    other.stack.account.view.switch_on();
    let report = session.replay(&other.stack, &other.clients).await.unwrap();
    assert!(report.same(), "{report}\n{text}");
    other.stack.stop().await;

    // A step that was answered otherwise is told, whatever of it differs.
    let mut altered = Vec::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        match line["step"].as_u64() {
            Some(1) => line["answer"]["status"] = json!(201),
            Some(2) => line["answer"]["decision"] = json!("deny policy by authorizer"),
            Some(4) => line["headers"] = json!([["authorization", "Bearer ${assertion:nobody}"]]),
            _ => {}
        }
        altered.push(line.to_string());
    }
    let session = Session::parse(&altered.join("\n")).unwrap();
    let third = Running::start().await;
    third.stack.account.view.switch_on();
    let report = session.replay(&third.stack, &third.clients).await.unwrap();
    third.stack.stop().await;
    assert!(!report.same());
    let told = report.to_string();
    for wanted in [
        "step 1  POST /oauth2/token\n  was  201 ",
        "step 2  POST /files\n  was  201 (deny policy by authorizer)\n  is   201 (allow policy by authorizer)",
        "step 4",
        "there is no client \"nobody\" on this stack",
        " 3 different",
    ] {
        assert!(told.contains(wanted), "{told}");
    }
}

//! Attacks on the whole stack: real binaries behind the gateway, deployed policies, a real database.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use local::lambda::Kind;
use serde_json::{Value, json};
use support::Running;

/// What an attacker may see at most.
const REFUSED: [u16; 6] = [400, 401, 403, 404, 405, 431];

fn file() -> Value {
    json!({"name": "canary-name-6ce1.txt", "content_type": "text/plain", "size": 5, "mode": "put",
        "sha256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="})
}

/// A pending file of `acme-backend`.
async fn victim(running: &Running) -> String {
    let token = running.token("acme-backend").await;
    let answer = running.api.call("POST", "/files", Some(&token), Some(&file())).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.outcome());
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn named(running: &Running, end: &str) -> String {
    running.stack.lambda.functions().find(|name| name.ends_with(end)).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_reaches_past_the_gate() {
    let running = Running::start().await;
    let id = victim(&running).await;
    let attacker = running.token("globex-backend").await;
    let owner = running.token("acme-backend").await;
    for path in [
        format!("/files/{id}/"),
        format!("/files/{id}//"),
        format!("//files/{id}"),
        format!("/files//{id}"),
        format!("/./files/{id}"),
        format!("/files/./{id}"),
        format!("/files/x/../{id}"),
        format!("/files/%2e%2e/files/{id}"),
        format!("/files/..%2ffiles%2f{id}"),
        format!("/files%2f{id}"),
        format!("/%66iles/{id}"),
        format!("/FILES/{id}"),
        format!("/files/{}", id.to_uppercase()),
        format!("/files/{id}%00"),
        format!("/files/{id}%20"),
        format!("/files/{id};x=y"),
        format!("/files/{id}.json"),
        format!("/files/{id}%2Fcontent"),
        format!("/files/{id}/content/"),
        format!("/files/{id}/content/x"),
        format!("/files/{id}\\content"),
        format!("/v1/files/{id}"),
        format!("/health/../files/{id}"),
        format!("/oauth2/token/../../files/{id}"),
        format!("/.well-known/jwks.json/..;/files/{id}"),
        "/files/*".to_owned(),
        "/files/%2a".to_owned(),
        "/files/$%7Baws:username%7D".to_owned(),
        "/files/?".to_owned(),
        format!("/files?id={id}"),
        format!("/files/{id}?access_token={owner}"),
    ] {
        for token in [None, Some(&attacker)] {
            // What is no URI at all never leaves the client.
            let Ok(answer) = running.api.call("GET", &path, token.map(String::as_str), None).await else { continue };
            assert!(REFUSED.contains(&answer.status), "{path}: {}", answer.outcome());
            let body = String::from_utf8_lossy(&answer.body);
            assert!(!body.contains("canary-name") && !body.contains(&id), "{path}: {body}");
        }
    }
    // Where the owner asks, a spelling is either the route or nothing: it is never another route.
    for path in [format!("/files/{id}/"), format!("/files/{id}%2Fcontent"), format!("/files/{id}%20")] {
        let Ok(answer) = running.api.call("GET", &path, Some(&owner), None).await else { continue };
        assert!(REFUSED.contains(&answer.status) || answer.json()["id"] == id.as_str(), "{path}: {}", answer.outcome());
    }
    let answer = running.api.call("GET", &format!("/files/{id}"), Some(&owner), None).await.unwrap();
    assert_eq!(answer.status, 200, "and the owner still reads it: {}", answer.outcome());
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_makes_a_caller_somebody_else() {
    let running = Running::start().await;
    let id = victim(&running).await;
    let (attacker, owner) = (running.token("globex-backend").await, running.token("acme-backend").await);
    let url = format!("{}/files/{id}", running.stack.places.gateway);
    let (mine, theirs) = (format!("Bearer {attacker}"), format!("Bearer {owner}"));
    let long = "x".repeat(9_000);
    for (what, headers) in [
        ("names of the gate's own", vec![("x-portcullis-tenant", "acme"), ("x-portcullis-subject", "acme-backend")]),
        (
            "names of other gates",
            vec![("x-forwarded-user", "acme-backend"), ("x-tenant", "acme"), ("x-client", "acme")],
        ),
        ("a remapped credential", vec![("x-amzn-remapped-authorization", theirs.as_str())]),
        ("another method", vec![("x-http-method-override", "DELETE")]),
        ("another path", vec![("x-original-url", "/files/x"), ("x-rewrite-url", "/files/x")]),
        ("the owner's token in a cookie", vec![("cookie", theirs.as_str())]),
        ("the owner's token as a second credential", vec![("authorization", theirs.as_str())]),
        ("more than a gateway takes", vec![("x-long", long.as_str())]),
    ] {
        let headers = [vec![("authorization", mine.as_str())], headers].concat();
        let answer = running.api.send("GET", &url, &headers, bytes::Bytes::new()).await.unwrap();
        assert!(REFUSED.contains(&answer.status), "{what}: {}", answer.outcome());
        assert!(!String::from_utf8_lossy(&answer.body).contains("canary-name"), "{what}");
    }
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_event_makes_nothing_true() {
    let running = Running::start().await;
    let id = victim(&running).await;
    let (bucket, trust) = (running.stack.places.object_bucket, running.stack.places.trust_bucket);
    let created = |bucket: &str, key: &str, version: Value| {
        json!({"version": "0", "id": "e", "detail-type": "Object Created", "source": "aws.s3", "account": "111122223333",
            "time": "2026-01-01T00:00:00Z", "region": "us-east-1", "resources": [format!("arn:aws:s3:::{bucket}")],
            "detail": {"version": "0", "bucket": {"name": bucket}, "object": {"key": key, "version-id": version, "size": 5,
                "etag": "canary-etag"}, "reason": "PutObject"}})
    };
    let key = format!("t/acme/{id}");
    for (what, event) in [
        ("a version that never was", created(bucket, &key, json!("forged"))),
        ("the key under another tenant", created(bucket, &format!("t/globex/{id}"), json!("forged"))),
        ("the key with a detour", created(bucket, &format!("t/globex/../acme/{id}"), json!("forged"))),
        ("another bucket", created(trust, &key, json!("forged"))),
        ("a bucket of the attacker's", created("attacker", &key, json!("forged"))),
        ("a trust object", created(trust, "trust/keys.json", json!("forged"))),
        ("no version", created(bucket, &key, Value::Null)),
        ("the null version", created(bucket, &key, json!("null"))),
    ] {
        let function = named(&running, "-object-events");
        let outcome = running.stack.lambda.invoke(&function, event.to_string().into(), Kind::RequestResponse).await;
        let outcome = outcome.unwrap();
        assert!(!String::from_utf8_lossy(&outcome.payload).contains("canary-etag"), "{what}");
        assert_eq!(running.count("file_facts").await, 0, "{what}");
        assert_eq!(running.count("files WHERE status <> 'pending'").await, 0, "{what}");
    }
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_column_is_hidden_from_the_audit_behind_others() {
    let running = Running::start().await;
    let scope = Some("fields:encrypt:users.*");
    let token = running.api.token(running.client("acme-backend"), scope).await.unwrap();
    let item =
        |table: &str, column: &str| json!({"ref": "", "table": table, "column": column, "row": "1", "plaintext": "AA"});
    let mut items = vec![item("users", "zip")];
    items.extend((0..100).map(|n| item("users", &format!("a_{n}"))));
    items.extend((0..600).map(|n| item("aaaa_canary_table", &format!("column_{n}"))));
    let answer =
        running.api.call("POST", "/fields/encrypt", Some(&token), Some(&json!({"items": items}))).await.unwrap();
    assert_eq!(answer.status, 207, "{}", answer.outcome());
    let log = running.stack.lambda.log(&named(&running, "-data-key-encrypt"));
    assert!(log.contains("users.zip"), "the column is on record: {log}");
    assert!(!log.contains("canary"), "and no text of the caller's choice is");
    assert!(log.contains("forbidden=600"), "what was refused is counted");
    running.stack.stop().await;
}

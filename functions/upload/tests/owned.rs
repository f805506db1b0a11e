//! What an owner does with a file after it was made, in process: another URL, and its end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use shared::boot::Routes as _;
use shared::gate::Caller;
use shared::http::{Request, Response};
use shared::problem::Code;
use support::{DAY, ID, World, caller, invocation, pending as world, start};
use testkit::files::Fact;
use testkit::objects::CANARY;

fn request(id: &str, content_type: &str, body: &str) -> Request {
    support::request(Some(id), &[("Content-Type", content_type)], body)
}

impl World {
    async fn renew(&self, caller: &Caller) -> Result<Response, Code> {
        let answer = self.upload.renew(caller, &request(&ID.to_string(), "", "")).await;
        answer.map_err(|problem| problem.code)
    }

    async fn delete(&self, caller: &Caller) -> Result<u16, Code> {
        let answer = self.upload.delete(caller, &request(&ID.to_string(), "", "")).await;
        answer.map(|response| response.status()).map_err(|problem| problem.code)
    }
}

fn arrived(finding: &str, scan_off: bool) -> Fact {
    Fact::created("v1", finding, scan_off)
}

#[tokio::test]
async fn a_pending_file_gets_another_url_for_the_same_bytes() {
    let world = world();
    world.clock.advance(3600);
    let now = start().seconds() + 3600;
    let response = world.renew(&caller("acme", "alice")).await.unwrap();
    let said: Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!((response.status(), response.find("cache-control")), (200, Some("no-store")));
    assert_eq!((&said["id"], &said["mode"], &said["expires_at"]), (&json!(ID), &json!("put"), &json!(now + 300)));
    assert_eq!(said["upload"]["method"], "PUT");
    assert!(said["upload"]["url"].as_str().unwrap().contains(&ID.to_string()));

    let (terms, life) = world.signing.writes().remove(0);
    assert_eq!((terms.key.file().uuid(), terms.key.tenant().as_str()), (ID, "acme"));
    assert_eq!((terms.size.bytes(), terms.content_type.declared(), life.seconds()), (11, "text/plain", 300));
    assert_eq!(terms.sha256, shared::object::Sha256Digest::of(b"hello world"));
    assert_eq!(world.files.row(ID).unwrap().url_expires_ms, (now + 300) * 1000);
}

#[tokio::test]
async fn a_shorter_url_never_lowers_the_wait_for_a_longer_one() {
    let world = world();
    world.renew(&caller("acme", "alice")).await.unwrap();
    world.signing.set_left(120);
    let response = world.renew(&caller("acme", "alice")).await.unwrap();
    let said: Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!(said["expires_at"], start().seconds() + 60);
    assert_eq!(world.files.row(ID).unwrap().url_expires_ms, (start().seconds() + 300) * 1000);
}

#[tokio::test]
async fn a_file_that_is_not_pending_gets_no_other_url() {
    let verdict = |value: &str| Fact::verdict("v1", value);
    let cases: [(&[Fact], Code); 5] = [
        (&[arrived("ok", true)], Code::FileAlreadyUploaded),
        (&[arrived("ok", false)], Code::FileAlreadyUploaded),
        (&[arrived("ok", false), verdict("UNSUPPORTED")], Code::FileAlreadyUploaded),
        (&[arrived("size", true)], Code::FileUnavailable),
        (&[arrived("ok", false), verdict("THREATS_FOUND")], Code::FileUnavailable),
    ];
    for (facts, want) in cases {
        let world = world();
        for fact in facts {
            world.files.record(ID, fact.clone());
        }
        assert_eq!(world.renew(&caller("acme", "alice")).await.err(), Some(want), "{facts:?}");
        assert!(world.signing.writes().is_empty());
        assert_eq!(world.files.row(ID).unwrap().url_expires_ms, 0);
    }
}

#[tokio::test]
async fn a_pending_file_of_a_day_gets_no_other_url() {
    let world = world();
    world.clock.advance(DAY - 1);
    assert!(world.renew(&caller("acme", "alice")).await.is_ok());
    world.clock.advance(1);
    assert_eq!(world.renew(&caller("acme", "alice")).await.err(), Some(Code::FileUnavailable));
}

#[tokio::test]
async fn somebody_elses_file_is_as_unknown_as_one_that_never_was() {
    let world = world();
    for other in [caller("acme", "bob"), caller("globex", "alice")] {
        assert_eq!(world.renew(&other).await.err(), Some(Code::NotFound));
        assert_eq!(world.delete(&other).await, Err(Code::NotFound));
    }
    for id in ["", "x", "01920000-0000-7000-8000-0000000000f2", "01920000-0000-7000-8000-0000000000F1"] {
        let (alice, request) = (caller("acme", "alice"), request(id, "", ""));
        assert_eq!(world.upload.renew(&alice, &request).await.unwrap_err().code, Code::NotFound, "{id}");
        assert_eq!(world.upload.delete(&alice, &request).await.unwrap_err().code, Code::NotFound, "{id}");
    }
    assert_eq!(world.files.row(ID).unwrap().status(), "pending");
    assert!(world.signing.writes().is_empty());
}

#[tokio::test]
async fn a_body_that_names_anything_is_refused() {
    let long = format!("{{}}{}", " ".repeat(9000));
    let cases = [
        ("application/json", r#"{"key":"t/globex/x"}"#, Code::MalformedRequest),
        ("application/json", r#"{"size":5}"#, Code::MalformedRequest),
        ("application/json", "[]", Code::MalformedRequest),
        ("application/json", "null", Code::MalformedRequest),
        ("application/json", "{", Code::MalformedRequest),
        ("text/plain", "{}", Code::UnsupportedType),
        ("application/json", &long, Code::PayloadTooLarge),
    ];
    for (content_type, body, want) in cases {
        let world = world();
        let (alice, request) = (caller("acme", "alice"), request(&ID.to_string(), content_type, body));
        assert_eq!(world.upload.renew(&alice, &request).await.unwrap_err().code, want, "{body}");
        assert_eq!(world.upload.delete(&alice, &request).await.unwrap_err().code, want, "{body}");
        assert!(world.files.calls().is_empty() && world.signing.tenants().is_empty());
    }
    let world = world();
    let empty = request(&ID.to_string(), "application/json", "{}");
    assert_eq!(world.upload.renew(&caller("acme", "alice"), &empty).await.unwrap().status(), 200);
}

#[tokio::test]
async fn no_url_is_renewed_that_could_not_be_signed_for() {
    let world = world();
    world.signing.set_left(119);
    assert_eq!(world.renew(&caller("acme", "alice")).await.err(), Some(Code::SignerUnavailable));
    world.signing.set_down(true);
    assert_eq!(world.renew(&caller("acme", "alice")).await.err(), Some(Code::SignerUnavailable));
    assert!(world.files.calls().is_empty());
    world.signing.set_down(false);
    world.signing.set_left(900);
    world.files.set_down(true);
    assert_eq!(world.renew(&caller("acme", "alice")).await.err(), Some(Code::ServiceUnavailable));
    assert!(world.signing.writes().is_empty());
}

#[tokio::test]
async fn a_deleted_file_stays_deleted_and_deleting_it_again_is_no_fault() {
    let world = world();
    let alice = caller("acme", "alice");
    world.files.record(ID, arrived("ok", true));
    assert_eq!(world.delete(&alice).await, Ok(204));
    assert_eq!(world.files.row(ID).unwrap().status(), "deleted");
    assert_eq!(world.delete(&alice).await, Ok(204));
    assert_eq!(world.renew(&alice).await.err(), Some(Code::FileUnavailable));
}

#[tokio::test]
async fn every_state_can_be_deleted() {
    let verdict = |value: &str| Fact::verdict("v1", value);
    let cases: [&[Fact]; 5] = [
        &[],
        &[arrived("ok", false)],
        &[arrived("size", true)],
        &[arrived("ok", false), verdict("THREATS_FOUND")],
        &[arrived("ok", false), verdict("UNSUPPORTED")],
    ];
    for facts in cases {
        let world = world();
        for fact in facts {
            world.files.record(ID, fact.clone());
        }
        assert_eq!(world.delete(&caller("acme", "alice")).await, Ok(204), "{facts:?}");
        assert_eq!(world.files.row(ID).unwrap().status(), "deleted", "{facts:?}");
    }
}

#[tokio::test]
async fn without_the_database_nothing_is_deleted_and_the_answer_is_503() {
    let world = world();
    world.files.set_down(true);
    assert_eq!(world.delete(&caller("acme", "alice")).await, Err(Code::ServiceUnavailable));
    world.files.set_down(false);
    assert_eq!(world.files.row(ID).unwrap().status(), "pending");
}

#[tokio::test]
async fn the_new_routes_are_behind_the_gate() {
    let world = world();
    for (method, resource) in [("POST", "/files/{id}/url"), ("DELETE", "/files/{id}")] {
        let mut asked = request(&ID.to_string(), "", "");
        (asked.method, asked.resource) = (method.to_owned(), resource.to_owned());
        assert_eq!(world.upload.answer(&asked, &invocation()).await.unwrap_err().code, Code::Unauthorized);
    }
    assert!(world.files.calls().is_empty());
}

/// Runs the tests named as their own process and looks at all that they log.
#[test]
fn no_log_line_holds_a_url_a_signature_or_a_secret() {
    let own = std::env::current_exe().unwrap();
    let named =
        ["a_pending_file_gets_another_url_for_the_same_bytes", "no_url_is_renewed_that_could_not_be_signed_for"];
    let ran = std::process::Command::new(own).args(["--nocapture", "--exact"]).args(named).output().unwrap();
    let logged = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && logged.contains("\"renewed\""), "{logged}");
    assert!(!logged.contains(CANARY) && !logged.contains("https://objects.test"), "{logged}");
}

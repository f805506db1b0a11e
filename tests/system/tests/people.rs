//! People on the running stack: real functions, real Postgres, the stand-in for Access.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use local::access::Key;
use local::faults::Faults;
use local::journey::Answer;
use local::seed::act;
use serde_json::{Value, json};
use shared::digest::sha256;
use support::Running;

const ADA: &str = "7335d417-61da-459d-899c-0a01c76a2f94";
const BEN: &str = "0c8a5a38-7b6a-4f0e-9d1e-5a2f1f8f3b11";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// Whose key pair stands for the page's.
const PAGE: &str = "acme-bound";
/// Nobody's: who gets past the gate is answered 404.
const FILE: &str = "/files/01900000-0000-7000-8000-000000000000";
/// After so long every verifier reads the mirrored keys again before it decides.
const FRESH: Duration = Duration::from_secs(60);

fn text(answer: &Answer, name: &str) -> String {
    answer.json()[name].as_str().unwrap_or_default().to_owned()
}

async fn session(running: &Running, subject: &str, email: &str) -> (String, Answer) {
    let assertion = running.stack.access.user_assertion(subject, email).unwrap();
    let answer = running.api.exchange(running.client(PAGE), JWT, &assertion, None).await.unwrap();
    (assertion, answer)
}

/// One request of a person to the API.
async fn as_person(
    running: &Running,
    (method, path): (&str, &str),
    token: &str,
    assertion: &str,
    body: Option<&Value>,
) -> Answer {
    let ath = URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()));
    let proof = running.api.proof(running.client(PAGE), method, path, &json!({ "ath": ath })).unwrap();
    let authorization = format!("DPoP {token}");
    let mut headers =
        vec![("authorization", &*authorization), ("dpop", &*proof), ("cf-access-jwt-assertion", assertion)];
    headers.extend(body.map(|_| ("content-type", "application/json")));
    let url = format!("{}{path}", running.stack.places.gateway);
    running.api.send(method, &url, &headers, body.map(Value::to_string).unwrap_or_default().into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_owns_files_that_neither_a_machine_nor_a_colleague_reads() {
    let running = Running::start().await;
    let (ada, answer) = session(&running, ADA, "ada@example.com").await;
    assert_eq!(answer.status, 200, "{}", answer.outcome());
    let token = text(&answer, "access_token");
    let body = json!({"name": "a.txt", "content_type": "text/plain", "size": 5, "sha256": STANDARD.encode(sha256(b"hello")), "mode": "put"});
    let made = as_person(&running, ("POST", "/files"), &token, &ada, Some(&body)).await;
    assert_eq!(made.status, 201, "{}", made.outcome());
    let path = format!("/files/{}", text(&made, "id"));
    assert_eq!(as_person(&running, ("GET", &path), &token, &ada, None).await.status, 200);
    let machine = running.token("acme-backend").await;
    let seen = running.api.call("GET", &path, Some(&machine), None).await.unwrap();
    assert_eq!(seen.outcome(), "404 not_found");
    let (ben, answer) = session(&running, BEN, "ben@example.com").await;
    let other = text(&answer, "access_token");
    assert_eq!(as_person(&running, ("GET", &path), &other, &ben, None).await.outcome(), "404 not_found");
    assert_eq!(as_person(&running, ("GET", &path), &token, &ben, None).await.outcome(), "401 unauthorized");
    let service = running.stack.access.service_assertion("e367826f93b8d71185e03fe518aff3b4.access").unwrap();
    assert_eq!(as_person(&running, ("GET", &path), &token, &service, None).await.outcome(), "401 unauthorized");

    // An operator ends Ada's sessions; Ben's goes on.
    let subject = format!("access|{ADA}");
    act(&running.stack, json!({"operation": "revoke", "operator": "test", "kind": "sub", "value": subject}))
        .await
        .unwrap();
    let refreshed =
        running.api.refreshed(running.client(PAGE), &text(&answer, "refresh_token"), Some(&ben)).await.unwrap();
    assert_eq!(refreshed.status, 200, "{}", refreshed.outcome());
    assert_eq!(running.count("public.sessions WHERE ended = 'revoked'").await, 1);
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_refreshes_at_once_three_get_tokens_and_the_session_is_over() {
    let running = Running::start().await;
    let (ada, answer) = session(&running, ADA, "ada@example.com").await;
    let (refresh, page) = (text(&answer, "refresh_token"), running.client(PAGE));
    let answers = futures::future::join_all((0..20).map(|_| running.api.refreshed(page, &refresh, Some(&ada)))).await;
    let mut outcomes: Vec<String> = answers.into_iter().map(|answer| answer.unwrap().outcome()).collect();
    outcomes.sort();
    // A stack on a small machine may be asked to slow down; what is answered is answered right.
    let refused = outcomes.iter().filter(|outcome| *outcome == "400 invalid_grant").count();
    let granted = outcomes.iter().filter(|outcome| *outcome == "200").count();
    assert_eq!(granted, 3, "{outcomes:?}");
    assert!(
        refused > 0
            && outcomes.iter().all(|outcome| ["200", "400 invalid_grant"].contains(&&**outcome)
                || outcome.starts_with('5')
                || outcome.starts_with("429")),
        "{outcomes:?}"
    );
    assert_eq!(running.count("public.sessions WHERE ended = 'reused'").await, 1);
    let again = running.api.refreshed(page, &refresh, Some(&ada)).await.unwrap();
    assert_eq!(again.outcome(), "400 invalid_grant");
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kms_or_postgres_a_refresh_token_stays_good() {
    let running = Running::start().await;
    let (ada, answer) = session(&running, ADA, "ada@example.com").await;
    let (refresh, page) = (text(&answer, "refresh_token"), running.client(PAGE));
    running.stack.kms.faults().set(Faults { unavailable: true, ..Faults::default() });
    let down = running.api.refreshed(page, &refresh, Some(&ada)).await.unwrap();
    assert_eq!((down.status, down.header("retry-after")), (503, "1"), "{}", down.outcome());
    running.stack.kms.faults().set(Faults::default());
    running.stack.proxy.drop_connections();
    running.stack.proxy.refuse_new(true);
    let down = running.api.refreshed(page, &refresh, Some(&ada)).await.unwrap();
    assert_eq!(down.status, 503, "{}", down.outcome());
    running.stack.proxy.refuse_new(false);
    let up = running.api.refreshed(page, &refresh, Some(&ada)).await.unwrap();
    assert_eq!(up.status, 200, "{}", up.outcome());
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_stays_inside_while_access_rotates_its_key_and_nobody_comes_in_by_a_retired_one() {
    let running = Running::start_ahead(&[]).await;
    let access = &running.stack.access;
    let asked =
        async |token: &str, assertion: &str| as_person(&running, ("GET", FILE), token, assertion, None).await.outcome();
    let mirrored = async || {
        running.stack.invoke("issuer-keys", &json!({})).await.unwrap();
        running.stack.account.clock.advance(FRESH);
    };
    let (passes, refused) = ("404 not_found", "401 unauthorized");
    let (first, answer) = session(&running, ADA, "ada@example.com").await;
    let token = text(&answer, "access_token");
    assert_eq!(asked(&token, &first).await, passes);

    access.rotate(Key::generate().unwrap());
    let second = access.user_assertion(ADA, "ada@example.com").unwrap();
    assert_eq!(asked(&token, &second).await, refused, "of a key that nobody mirrored yet");
    assert_eq!(asked(&token, &first).await, passes, "which shuts nobody out who is in");
    mirrored().await;
    assert_eq!(asked(&token, &second).await, passes);
    assert_eq!(asked(&token, &first).await, passes, "its key is published beside the new one");
    let (own, answer) = session(&running, BEN, "ben@example.com").await;
    let other = text(&answer, "access_token");
    assert_eq!(asked(&other, &own).await, passes, "who comes under the new key gets a token, and in");
    assert_eq!(asked(&token, &own).await, refused, "as himself alone");

    access.rotate(Key::generate().unwrap());
    let third = access.user_assertion(ADA, "ada@example.com").unwrap();
    mirrored().await;
    assert_eq!(asked(&token, &first).await, refused, "a retired key, though its assertion lives for a day");
    for assertion in [&second, &third] {
        assert_eq!(asked(&token, assertion).await, passes);
    }
    running.stack.stop().await;
}

//! The corpus of attacks (`docs/attacks.md`) at the function that opens fields: behind the gate, and invoked directly.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use serde_json::{Value, json};
use shared::boot::Handler as _;
use shared::clock::{Clock as _, Timestamp};
use support::{Lab, answer, field};
use testkit::{Issuer, attacks};

/// What the two ways in answer to this text as a token.
async fn judge(lab: &Lab, token: &str) -> [Value; 2] {
    let items = json!([field("ssn", "1", b"x")]);
    let mut event = lab.event("/fields/encrypt", token, &json!({ "items": items }).to_string());
    event["requestContext"]["authorizer"]["sub"] = json!("acme-backend");
    let gated = answer(lab.encrypt.handle(event, &lab.invocation()).await.unwrap());
    let direct = json!({"operation": "encrypt", "access_token": token, "items": items});
    let direct = lab.encrypt.handle(direct, &lab.invocation()).await.unwrap();
    let first = gated.body["items"][0]["ok"].clone();
    [json!({"status": gated.status, "ok": first}), json!({"status": direct["status"], "ok": direct["items"][0]["ok"]})]
}

#[tokio::test]
async fn no_attack_of_the_corpus_seals_or_opens_a_field_by_either_way_in() {
    let (issuer, other) = (Issuer::new("k1"), Issuer::new("k2"));
    let lab = Lab::trusting(Some(issuer.jwk()));
    let now: Timestamp = lab.clock.now();
    let mut good = attacks::access(&issuer, now);
    good.claims.insert("scope".to_owned(), json!("fields:encrypt:*.*"));
    let genuine = issuer.token(now, &json!({"scope": "fields:encrypt:*.*"}));
    for way in judge(&lab, &genuine).await {
        assert_eq!(way["ok"], true, "{way}");
    }
    lab.forget();
    for (what, token) in attacks::all(&issuer, &other, &good, now) {
        // What is no text of a header makes an event that is none.
        let gated = if token.bytes().all(|byte| byte >= 0x20) { 401 } else { 400 };
        let [behind_the_gate, direct] = judge(&lab, &token).await;
        assert_eq!(behind_the_gate, json!({"status": gated, "ok": null}), "{what}");
        assert_eq!(direct, json!({"status": 401, "ok": null}), "{what}");
    }
    assert!(lab.operations().is_empty() && lab.database.take_calls().is_empty(), "nobody was asked for anything");
    for way in judge(&lab, &genuine).await {
        assert_eq!(way["ok"], true, "the good token still serves: {way}");
    }
}

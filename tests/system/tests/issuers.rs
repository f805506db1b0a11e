//! From an operator's `issuer.put` to mirrored keys that verify what the issuer signs, and back when the issuer fails.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use local::access::{AUDIENCE, Canned, Key};
use local::seed::{self, act};
use serde_json::{Value, json};
use support::Running;

const MIRROR: &str = "trust/issuers/access.json";

async fn object(running: &Running, key: &str) -> Value {
    let bytes = running.stack.s3.look(running.stack.places.trust_bucket, key).await;
    bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap()).unwrap_or_default()
}

async fn mirror(running: &Running) -> std::io::Result<Value> {
    running.stack.invoke("issuer-keys", &json!({})).await
}

/// Whether one of the mirrored keys verifies the assertion, with nobody's code but the cryptography.
fn verifies(mirrored: &Value, assertion: &str) -> bool {
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().0).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    let keys = mirrored["body"]["keys"].as_array().unwrap();
    let Some(key) = keys.iter().find(|key| key["kid"] == header["kid"] && key["alg"] == header["alg"]) else {
        return false;
    };
    let member = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let key = RsaPublicKeyComponents { n: member("n"), e: member("e") };
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrored_keys_verify_what_access_signs_and_follow_its_rotation() {
    let running = Running::start().await;
    let access = &running.stack.access;
    let profiles = object(&running, "trust/profiles.json").await;
    let foreign = &profiles["body"]["profiles"][1];
    assert_eq!((&foreign["id"], &foreign["audience"]), (&json!(seed::ACCESS), &json!(AUDIENCE)));
    assert_eq!(foreign["issuer"], access.team_domain());

    let first = object(&running, MIRROR).await;
    assert_eq!(first["body"]["keys"].as_array().unwrap().len(), 2, "both keys of the team: {first}");
    assert_eq!(first["not_after"].as_i64().unwrap() - first["issued_at"].as_i64().unwrap(), 48 * 3_600_000);
    let user = access.user_assertion("7335d417-61da-459d-899c-0a01c76a2f94", "ada@example.com").unwrap();
    let service = access.service_assertion("e367826f93b8d71185e03fe518aff3b4.access").unwrap();
    for assertion in [&user, &service] {
        assert!(verifies(&first, assertion));
        assert!(!verifies(&first, &assertion.replacen('.', ".e30", 1)), "other claims under the same signature");
    }

    access.rotate(Key::generate().unwrap());
    let fresh = access.user_assertion("7335d417-61da-459d-899c-0a01c76a2f94", "ada@example.com").unwrap();
    assert!(!verifies(&first, &fresh));
    mirror(&running).await.unwrap();
    let second = object(&running, MIRROR).await;
    assert!(verifies(&second, &fresh) && verifies(&second, &user), "the key before it is still published");
    assert!(second["version"].as_i64() > first["version"].as_i64());
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_may_not_be_believed_leaves_the_last_good_one() {
    let running = Running::start().await;
    let access = &running.stack.access;
    let held = object(&running, MIRROR).await;
    let mut private = access.published();
    private["keys"][0]["d"] = json!("AAAA");
    let mut oversized = access.published();
    oversized["pad"] = json!("x".repeat(256 * 1024));
    let mut page = Canned::json(&access.published());
    page.content_type = "text/html";
    let mut moved = Canned::json(&access.published());
    moved.status = http::StatusCode::FOUND;
    let mut down = Canned::json(&json!({}));
    down.status = http::StatusCode::BAD_GATEWAY;
    let broken = Canned { body: "{\"keys\":[".into(), ..Canned::json(&json!({})) };
    for (what, canned) in [
        ("a private key", Canned::json(&private)),
        ("more than 256 KB", Canned::json(&oversized)),
        ("no JSON by its name", page),
        ("a redirect", moved),
        ("an outage", down),
        ("half an answer", broken),
        ("no keys", Canned::json(&json!({"keys": []}))),
    ] {
        let asked = access.asked();
        access.answer_with(Some(canned));
        let refused = mirror(&running).await;
        assert!(refused.unwrap_err().to_string().contains("ServiceUnavailable"), "{what}");
        assert!(access.asked() > asked, "{what}");
        assert_eq!(object(&running, MIRROR).await, held, "{what}");
    }
    access.answer_with(None);
    mirror(&running).await.unwrap();
    assert!(
        object(&running, MIRROR).await["version"].as_i64() > held["version"].as_i64(),
        "and it comes back by itself"
    );
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_issuer_leaves_the_profiles_and_is_asked_no_more() {
    let running = Running::start().await;
    act(&running.stack, json!({"operation": "issuer.remove", "operator": "test", "id": seed::ACCESS})).await.unwrap();
    running.stack.invoke("trust", &json!({})).await.unwrap();
    let profiles = object(&running, "trust/profiles.json").await;
    assert_eq!(profiles["body"]["profiles"].as_array().unwrap().len(), 1);
    let asked = running.stack.access.asked();
    assert_eq!(mirror(&running).await.unwrap(), json!({"mirrored": []}));
    assert_eq!(running.stack.access.asked(), asked);
    running.stack.stop().await;
}

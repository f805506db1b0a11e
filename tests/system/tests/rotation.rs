//! Signing keys follow each other on the running stack, with the real functions, while tokens are issued and used. The stack's clock
//! is put ahead, and the processes' with it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::time::Duration;

use local::journey::claims;
use serde_json::{Value, json};
use support::Running;

const DAY: u64 = 86_400;

struct World {
    running: Running,
}

impl World {
    async fn start(signer: &str, algorithm: &str) -> Self {
        Self { running: Running::start_ahead(&[("Signer", signer), ("SigningAlg", algorithm)]).await }
    }

    /// Lets `seconds` pass; the schedule has run at their end.
    async fn pass(&self, seconds: u64) -> Vec<(String, String)> {
        self.running.stack.account.clock.advance(Duration::from_secs(seconds));
        let answer = self.running.stack.invoke("trust", &json!({})).await.unwrap();
        let text = |move_: &Value, name: &str| move_[name].as_str().unwrap().to_owned();
        answer["moves"].as_array().unwrap().iter().map(|one| (text(one, "what"), text(one, "kid"))).collect()
    }

    async fn token(&self) -> String {
        self.running.token("acme-backend").await
    }

    /// 404: the gate and the function behind it believed the token. 401: it was refused.
    async fn status(&self, token: &str) -> u16 {
        let path = "/files/01900000-0000-7000-8000-000000000000";
        self.running.api.call("GET", path, Some(token), None).await.unwrap().status
    }

    async fn admin(&self, operation: &str, more: Value) -> Value {
        let mut event = json!({"operation": operation, "operator": "ann"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.running.stack.invoke("admin", &event).await.unwrap();
        // Its nudge starts trust, as in the cloud.
        for _ in 0..20 {
            self.running.stack.events.idle().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        answer
    }

    async fn jwks(&self) -> Vec<String> {
        let answer = self.running.api.call("GET", "/.well-known/jwks.json", None, None).await.unwrap().json();
        answer["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

fn kid(token: &str) -> String {
    use base64::Engine as _;
    let header = token.split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

async fn keys_follow_each_other(signer: &str, algorithm: &str) {
    let world = World::start(signer, algorithm).await;
    let a = kid(&world.token().await);
    world.pass(1).await;
    let spare = world.jwks().await.into_iter().find(|kid| *kid != a).unwrap();

    // Ninety days later, a minute before the turn.
    assert!(world.pass(90 * DAY - 60).await.is_empty());
    let before = world.token().await;
    assert_eq!((kid(&before), world.status(&before).await), (a.clone(), 404));
    let moves = world.pass(60).await;
    assert_eq!(moves, [("key_retired".to_owned(), a.clone()), ("key_activated".to_owned(), spare.clone())]);
    let during = world.token().await;
    assert_eq!((world.status(&before).await, world.status(&during).await), (404, 404));
    world.pass(61).await;
    let after = world.token().await;
    assert_eq!(kid(&after), spare, "the signer's state is a minute old at most");
    for token in [&before, &during, &after] {
        assert_eq!(world.status(token).await, 404, "no valid token is refused");
    }
    let life = claims(&before)["exp"].as_i64().unwrap() - claims(&before)["iat"].as_i64().unwrap();
    assert_eq!(life, 300);
    world.pass(300 - 121).await;
    assert_eq!((world.status(&before).await, world.status(&after).await), (401, 404), "it ended by itself");

    // A day later nothing of the old key is alive.
    let moves = world.pass(DAY).await;
    assert!(moves.contains(&("key_removed".to_owned(), a.clone())), "{moves:?}");
    world.running.stack.account.clock.advance(Duration::from_secs(61));
    let known = world.jwks().await;
    assert!(known.len() == 2 && known.contains(&spare) && !known.contains(&a));

    // An operator rotates: the nudge does it at once, since the spare is old enough.
    world.pass(1).await;
    let old = world.token().await;
    let ordered = world.admin("signing.rotate", json!({})).await;
    assert_eq!(
        (&ordered["outcome"], &ordered["key"]["kid"], &ordered["nudge"]),
        (&json!("ordered"), &json!(spare), &json!("delivered"))
    );
    let c = ordered["successor"].as_str().unwrap().to_owned();
    let again = world.admin("signing.rotate", json!({"kid": spare})).await;
    assert_eq!((&again["outcome"], &again["key"]["state"]), (&json!("unchanged"), &json!("retiring")));
    world.pass(61).await;
    let new = world.token().await;
    assert_eq!(kid(&new), c);
    assert_eq!((world.status(&old).await, world.status(&new).await), (404, 404));

    // The key is stolen. Its spare is a minute old, and an operator is told.
    let refused = world.admin("signing.drop", json!({"kid": c})).await;
    assert_eq!(refused, json!({"error": {"code": "nobody_signs", "field": "confirm"}}));
    world.pass(200).await;
    let older = world.token().await;
    world.pass(170).await;
    let stolen = world.token().await;
    assert_eq!((world.status(&stolen).await, world.status(&older).await), (404, 404));
    let dropped = world.admin("signing.drop", json!({"kid": c})).await;
    assert_eq!((&dropped["outcome"], &dropped["nudge"]), (&json!("dropped"), &json!("delivered")));
    let d = dropped["signer"].as_str().unwrap().to_owned();
    world.running.stack.account.clock.advance(Duration::from_secs(5));
    assert_eq!((world.status(&stolen).await, world.status(&older).await), (401, 401), "refused within seconds");
    world.running.stack.account.clock.advance(Duration::from_secs(61));
    let token = world.token().await;
    assert_eq!((kid(&token), world.status(&token).await, world.status(&stolen).await), (d, 404, 401));
    assert!(!world.jwks().await.contains(&c));
    let listed = world.admin("signing.list", json!({})).await;
    let listed = listed["keys"].as_array().unwrap();
    assert!(
        listed.iter().any(|key| key["kid"] == c.as_str() && key["state"] == "removed" && key["dropped_ms"].is_i64())
    );
    assert_eq!(world.running.count("public.admin_audit WHERE operation LIKE 'signing.%'").await, 5);

    // Five keys in all: two at genesis, one after each change. All of them by the role of trust, and none is gone.
    let (kms, ssm) = (world.running.stack.kms.calls(), world.running.stack.ssm.calls());
    let made = |calls: &std::collections::BTreeMap<String, u64>, name: &str| calls.get(name).copied().unwrap_or(0);
    let (created, put) = (made(&kms, "CreateKey"), made(&ssm, "PutParameter"));
    assert_eq!((created, put), if signer == "kms" { (5, 0) } else { (0, 5) });
    assert_eq!(made(&kms, "ScheduleKeyDeletion"), 0);
    let log = world.running.stack.lambda.log("portcullis-local-trust");
    assert!(log.contains("SigningKeyLeft") && !log.contains("PRIVATE"), "{log}");
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_kms_follow_each_other_rs256() {
    keys_follow_each_other("kms", "RS256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_kms_follow_each_other_eddsa() {
    keys_follow_each_other("kms", "EdDSA").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_ssm_follow_each_other_es256() {
    keys_follow_each_other("ssm", "ES256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_ssm_follow_each_other_rs256() {
    keys_follow_each_other("ssm", "RS256").await;
}

//! A device that falls out of compliance while its user is at work: on the running stack, whose clock is put ahead by what verifiers may
//! take to notice.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use local::clock::Clock;
use local::journey::claims;
use serde_json::{Value, json};
use shared::digest::sha256;
use support::{Running, root};

/// After so many seconds every verifier reads policies and devices again before it decides.
const FRESH: u64 = 60;
const FILE: &str = "/files/01900000-0000-7000-8000-000000000000";
const ENCRYPTED: &str = r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when { context.token.bound } unless {
    context has device && context.device has disk_encrypted && context.device.disk_encrypted };"#;

struct World {
    running: Running,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let run = root().join(".local/run");
        std::fs::create_dir_all(&run).unwrap();
        let folder = tempfile::Builder::new().prefix("clock-").tempdir_in(run).unwrap();
        let clock = Clock::of_processes_too(folder.path()).unwrap();
        Self { running: Running::start_at(clock, &[]).await, _folder: folder }
    }

    /// An operator's act, and what it starts.
    async fn admin(&self, operation: &str, more: Value) -> Value {
        let mut event = json!({"operation": operation, "operator": "ann"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.running.stack.invoke("admin", &event).await.unwrap();
        self.running.stack.invoke("trust", &json!({})).await.unwrap();
        answer
    }

    async fn device(&self, encrypted: bool, key: &str) -> Value {
        let device = json!({"id": "laptop-7", "disk_encrypted": encrypted, "keys": [key]});
        self.admin("device.put", json!({"tenant": "acme", "devices": [device]})).await
    }

    fn pass(&self, seconds: u64) {
        self.running.stack.account.clock.advance(Duration::from_secs(seconds));
    }

    /// A token that is bound to the key of `acme-bound`.
    async fn token(&self) -> String {
        let (api, client) = (&self.running.api, self.running.client("acme-bound"));
        let ask = async |nonce: Value| {
            let proof = api.proof(client, "POST", "/oauth2/token", &nonce).unwrap();
            api.bound_token(&api.assertion(client).unwrap(), &proof).await.unwrap()
        };
        let asked = ask(json!({})).await;
        let answer = ask(json!({"nonce": asked.header("dpop-nonce")})).await;
        assert_eq!(answer.status, 200, "{}", answer.outcome());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// 404: the gate and the function behind it let the request pass. 403: the gate did not.
    async fn status(&self, token: &str, holder: &str) -> u16 {
        let (api, client) = (&self.running.api, self.running.client(holder));
        let ath = json!({"ath": URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()))});
        let proof = api.proof(client, "GET", FILE, &ath).unwrap();
        api.proven(FILE, token, &proof).await.unwrap().status
    }
}

fn bundle() -> Value {
    let shipped = std::fs::read_to_string(root().join("shared/policies/default.json")).unwrap();
    let mut bundle: Value = serde_json::from_str(&shipped).unwrap();
    bundle["tenants"] = json!({"acme": [{"id": "encrypted", "text": ENCRYPTED}]});
    // Their examples are about acme too.
    for example in bundle["examples"].as_array_mut().unwrap() {
        example["ask"]["principal"]["tenant"] = json!("initech");
    }
    bundle
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_falls_out_of_compliance_is_refused_within_a_minute_and_a_stolen_token_at_once() {
    let world = World::start().await;
    let token = world.token().await;
    let key = claims(&token)["cnf"]["jkt"].as_str().unwrap().to_owned();
    assert_eq!(world.status(&token, "acme-bound").await, 404, "no policy looks at a device yet");
    let put = world.admin("policy.put", json!({"bundle": bundle()})).await;
    assert_eq!(world.admin("policy.promote", json!({"hash": put["policy"]["hash"]})).await["outcome"], "promoted");
    world.pass(FRESH);
    assert_eq!(world.status(&token, "acme-bound").await, 403, "a key that nobody put on a device");

    assert_eq!(world.device(true, &key).await["outcome"], "put");
    world.pass(FRESH);
    assert_eq!(world.status(&token, "acme-bound").await, 404);
    let token = world.token().await;
    assert_eq!(claims(&token)["device"]["id"], "laptop-7", "the next token says so itself");
    assert_eq!(world.status(&token, "acme-bound").await, 404);
    assert_eq!(world.status(&token, "acme-reader").await, 401, "stolen, and used with another key");

    assert_eq!(world.device(false, &key).await["updated"], 1);
    world.pass(FRESH);
    assert_eq!(world.status(&token, "acme-bound").await, 403, "in the middle of its life");
    world.device(true, &key).await;
    world.pass(FRESH);
    assert_eq!(world.status(&token, "acme-bound").await, 404, "and in order again");
    let removed = world.admin("device.remove", json!({"tenant": "acme", "id": "laptop-7"})).await;
    assert_eq!(removed["outcome"], "removed");
    world.pass(FRESH);
    assert_eq!(world.status(&token, "acme-bound").await, 403, "whatever the token says of it");
    let plain = world.running.token("acme-backend").await;
    let answer = world.running.api.call("GET", FILE, Some(&plain), None).await.unwrap();
    assert_eq!(answer.status, 404, "others go on");
    world.running.stack.stop().await;
}

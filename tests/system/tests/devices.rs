//! A device that falls out of compliance while its user is at work: on the running stack, whose clock is put ahead by what verifiers may
//! take to notice.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
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
        Self::start_with(&[]).await
    }

    async fn start_with(parameters: &[(&str, &str)]) -> Self {
        let run = root().join(".local/run");
        std::fs::create_dir_all(&run).unwrap();
        let folder = tempfile::Builder::new().prefix("clock-").tempdir_in(run).unwrap();
        let clock = Clock::of_processes_too(folder.path()).unwrap();
        Self { running: Running::start_at(clock, parameters).await, _folder: folder }
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
        self.put(json!({"id": "laptop-7", "disk_encrypted": encrypted, "keys": [key]})).await
    }

    async fn put(&self, device: Value) -> Value {
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

fn bundle(policy: &str) -> Value {
    let shipped = std::fs::read_to_string(root().join("shared/policies/default.json")).unwrap();
    let mut bundle: Value = serde_json::from_str(&shipped).unwrap();
    bundle["tenants"] = json!({"acme": [{"id": "encrypted", "text": policy}]});
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
    let put = world.admin("policy.put", json!({"bundle": bundle(ENCRYPTED)})).await;
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

/// What the page proposes for plaintext, of machines too.
fn documented() -> String {
    let page = std::fs::read_to_string(root().join("docs/identity/devices.md")).unwrap();
    let (_, section) = page.split_once("## Devices for plaintext").unwrap();
    let policy = section.split("```").nth(1).unwrap();
    assert!(policy.contains("principal is Portcullis::User"));
    policy.replace("principal is Portcullis::User", "principal")
}

impl World {
    /// What each of these records opens to for the bearer of `acme-bound`'s token: `ok`, or a code, or the gate's status.
    async fn opened(&self, token: &str, items: &Value) -> Vec<String> {
        let (api, client) = (&self.running.api, self.running.client("acme-bound"));
        let ath = json!({"ath": URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()))});
        let proof = api.proof(client, "POST", "/fields/decrypt", &ath).unwrap();
        let authorization = format!("DPoP {token}");
        let headers =
            [("authorization", authorization.as_str()), ("dpop", &proof), ("content-type", "application/json")];
        let url = format!("{}/fields/decrypt", self.running.stack.places.gateway);
        let body = serde_json::to_vec(&json!({"items": items})).unwrap();
        let answer = api.send("POST", &url, &headers, body.into()).await.unwrap();
        if answer.status == 403 { vec!["403".to_owned(); 2] } else { codes(&answer.json()) }
    }

    /// The same for a machine whose token is bound to nothing, past the gate and by direct invocation.
    async fn opened_unbound(&self, items: &Value) -> [Vec<String>; 2] {
        let token = self.running.token("acme-backend").await;
        let body = json!({"items": items});
        let answer = self.running.api.call("POST", "/fields/decrypt", Some(&token), Some(&body)).await.unwrap();
        let gate = if answer.status == 403 { vec!["403".to_owned(); 2] } else { codes(&answer.json()) };
        let event = json!({"operation": "decrypt", "access_token": token, "items": items});
        [gate, codes(&self.running.stack.invoke("data-key-decrypt", &event).await.unwrap())]
    }
}

fn codes(answer: &Value) -> Vec<String> {
    let code = |item: &Value| item["error"]["code"].as_str().unwrap_or("ok").to_owned();
    answer["items"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_of_a_named_column_leaves_for_a_managed_device_alone() {
    let world = World::start_with(&[("DeviceColumns", "users.ssn")]).await;
    let client = world.running.client("acme-bound");
    let registered = json!({"tenant": "acme", "client_id": "acme-bound", "jwks": {"keys": [client.jwk()]},
        "scopes": ["files:read", "fields:decrypt:*.*"], "dpop": true});
    let put = world.admin("client.put", registered).await;
    assert!(put.get("error").is_none(), "{put}");
    // One key for both, which is in memory from now on: no call to KMS begins once the clock is put ahead of the runtime's deadlines.
    let field = |column: &str| json!({"ref": column, "table": "users", "column": column, "row": "1", "plaintext": URL_SAFE_NO_PAD.encode("value"), "scope": "subject:s-1"});
    let backend = world.running.token("acme-backend").await;
    let body = json!({"items": [field("ssn"), field("email")]});
    let made = world.running.api.call("POST", "/fields/encrypt", Some(&backend), Some(&body)).await.unwrap().json();
    let sealed = |at: usize, column: &str| json!({"ref": column, "table": "users", "column": column, "row": "1", "record": made["items"][at]["record"]});
    let items = json!([sealed(0, "ssn"), sealed(1, "email")]);
    let [ok, forbidden] = ["ok", "forbidden"];

    assert_eq!(world.opened_unbound(&items).await, [[forbidden, ok], [forbidden, ok]]);
    assert_eq!(world.opened(&world.token().await, &items).await, [forbidden, ok], "a key that nobody put on a device");
    let key = client.thumbprint();
    let device = |managed: bool| json!({"id": "laptop-7", "managed": managed, "disk_encrypted": true, "keys": [key]});
    assert_eq!(world.put(device(true)).await["outcome"], "put");
    world.pass(FRESH);
    let token = world.token().await;
    assert_eq!(world.opened(&token, &items).await, [ok, ok]);

    // What the list of columns does not know yet, policy does: it judges by the newest posture.
    let put = world.admin("policy.put", json!({"bundle": bundle(&documented())})).await;
    assert_eq!(
        world.admin("policy.promote", json!({"hash": put["policy"]["hash"]})).await["outcome"],
        "promoted",
        "{put}"
    );
    world.pass(FRESH);
    let token = world.token().await;
    assert_eq!(world.opened(&token, &items).await, [ok, ok]);
    world.put(device(false)).await;
    world.pass(FRESH);
    assert_eq!(world.opened(&token, &items).await, ["403", "403"], "in the middle of the token's life");
    // And what policy never sees, the list of columns does.
    assert_eq!(world.opened_unbound(&items).await, [["403", "403"], [forbidden, ok]]);
    world.running.stack.stop().await;
}

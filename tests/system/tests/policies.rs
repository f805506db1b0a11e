//! A candidate is put, its difference is seen, it is promoted and decides, and is gone back from: on the running stack, whose clock
//! is put ahead by what verifiers may take to notice.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::time::Duration;

use local::clock::Clock;
use local::journey::claims;
use serde_json::{Value, json};
use support::{Running, root};

/// After so many seconds every verifier reads the policies again before it decides.
const FRESH: u64 = 60;
const FILE: &str = "/files/01900000-0000-7000-8000-000000000000";

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

    fn pass(&self, seconds: u64) {
        self.running.stack.account.clock.advance(Duration::from_secs(seconds));
    }

    /// 404: the gate and the function behind it let the request pass. 403: the gate did not.
    async fn status(&self, token: &str) -> u16 {
        self.running.api.call("GET", FILE, Some(token), None).await.unwrap().status
    }

    /// The lines of a function about `event`.
    fn lines(&self, function: &str, event: &str) -> Vec<Value> {
        let log = self.running.stack.lambda.log(&format!("portcullis-local-{function}"));
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line.get(line.find('{')?..)?).ok());
        lines.filter(|line| line["event"] == event).collect()
    }
}

/// The shipped policies, and for acme one more.
fn bundle(own: &str) -> Value {
    let shipped = std::fs::read_to_string(root().join("shared/policies/default.json")).unwrap();
    let mut bundle: Value = serde_json::from_str(&shipped).unwrap();
    bundle["tenants"] = json!({"acme": [{"id": "own", "text": own}]});
    // Their examples are about acme too.
    for example in bundle["examples"].as_array_mut().unwrap() {
        example["ask"]["principal"]["tenant"] = json!("initech");
    }
    bundle
}

const NO_READING: &str = r#"forbid (principal, action == Portcullis::Action::"files:read", resource);"#;
const SHORT_TOKENS: &str =
    r#"forbid (principal == Portcullis::Workload::"acme-reader", action == Portcullis::Action::"mint", resource);"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_seen_promoted_and_gone_back_from() {
    let world = World::start().await;
    let (acme, globex) = (world.running.token("acme-backend").await, world.running.token("globex-backend").await);
    assert_eq!((world.status(&acme).await, world.status(&globex).await), (404, 404));
    let shipped = world.lines("authorizer", "request").pop().unwrap();
    assert_eq!((&shipped["decision"], &shipped["policies"]), (&json!("allow"), &json!(["files-read"])));

    let put = world.admin("policy.put", json!({"bundle": bundle(NO_READING)})).await;
    assert_eq!(put["outcome"], "candidate", "{put}");
    let hash = put["policy"]["hash"].as_str().unwrap().to_owned();
    world.pass(FRESH);
    assert_eq!(world.status(&acme).await, 404, "a candidate decides nothing");
    assert_eq!(world.status(&globex).await, 404);
    let shadows = world.lines("authorizer", "policy_shadow");
    let [shadow] = shadows.as_slice() else { panic!("{shadows:?}") };
    assert_eq!((&shadow["active"], &shadow["candidate"]), (&json!("allow"), &json!("deny")));
    assert_eq!((&shadow["candidate_policy"], &shadow["candidate_policies"]), (&json!(hash), &json!(["acme:own"])));
    assert_eq!(shadow["policy"], shipped["policy"]);

    assert_eq!(world.admin("policy.promote", json!({"hash": hash})).await["outcome"], "promoted");
    world.pass(FRESH);
    assert_eq!(world.status(&acme).await, 403, "now it decides");
    assert_eq!(world.status(&globex).await, 404, "for acme alone");
    let denied = world.lines("authorizer", "request");
    let denied = denied.iter().find(|line| line["reason"] == "forbidden").unwrap();
    assert_eq!((&denied["policy"], &denied["policies"]), (&json!(hash), &json!(["acme:own"])));

    // Back: what is shipped, as a bundle of its own, which has never been promoted by anybody.
    let mut back = bundle(NO_READING);
    back["tenants"] = json!({});
    let back = world.admin("policy.put", json!({"bundle": back})).await["policy"]["hash"].as_str().unwrap().to_owned();
    world.admin("policy.promote", json!({"hash": back})).await;
    world.pass(FRESH);
    assert_eq!(world.status(&acme).await, 404);
    assert_eq!(world.admin("policy.promote", json!({"hash": hash})).await["outcome"], "promoted", "and forth at once");
    world.pass(FRESH);
    assert_eq!(world.status(&acme).await, 403);
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_refuses_tokens_and_a_bundle_that_is_none_is_refused() {
    let world = World::start().await;
    for (text, why) in [("permit (principal", "syntax"), ("permit (principal, action, resource);", "invalid")] {
        let refused = world.admin("policy.put", json!({"bundle": bundle(text)})).await;
        assert_eq!(
            (&refused["error"]["code"], &refused["error"]["why"]),
            (&json!("invalid_policy"), &json!(why)),
            "{refused}"
        );
    }
    let put = world.admin("policy.put", json!({"bundle": bundle(SHORT_TOKENS)})).await;
    world.admin("policy.promote", json!({"hash": put["policy"]["hash"]})).await;
    world.pass(FRESH);
    let reader = world.running.client("acme-reader");
    let answer = world.running.api.token_with(&world.running.api.assertion(reader).unwrap(), None).await.unwrap();
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("access_denied")));
    let token = world.running.token("acme-backend").await;
    assert_eq!(claims(&token)["tenant"], "acme", "others go on");
    let lines = world.lines("token", "mint");
    let denied = lines.iter().find(|line| line["decision"] == "deny").unwrap();
    assert_eq!((&denied["policies"], &denied["policy"]), (&json!(["acme:own"]), &put["policy"]["hash"]));
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_token_opens_what_it_names_and_nothing_else() {
    let running = Running::start().await;
    let client = running.client("acme-backend");
    let ask = async |entry: Value| {
        let assertion = running.api.assertion(client).unwrap();
        let details: String = json!([entry]).to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let form = format!(
            "grant_type=client_credentials&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}\
             &authorization_details={details}"
        );
        let url = format!("{}/oauth2/token", running.stack.places.gateway);
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        running.api.send("POST", &url, &headers, form.into()).await.unwrap()
    };
    let field =
        json!({"type": "portcullis_field", "actions": ["encrypt"], "table": "users", "column": "email", "row": "1"});
    let answer = ask(field.clone()).await;
    assert_eq!((answer.status, &answer.json()["authorization_details"]), (200, &json!([field])));
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let encrypted = running.encrypt(&token, &["zero", "one"]).await.json();
    assert_eq!(
        (&encrypted["items"][0]["error"]["code"], &encrypted["items"][1]["ok"]),
        (&json!("forbidden"), &json!(true))
    );
    let other = running.api.call("GET", FILE, Some(&token), None).await.unwrap();
    assert_eq!(other.status, 403, "a field is no file");

    let id = FILE.rsplit('/').next().unwrap();
    let file = json!({"type": "portcullis_file", "actions": ["read"], "file_id": id});
    let answer = ask(file).await.json();
    let token = answer["access_token"].as_str().unwrap();
    for (method, path, status) in [
        ("GET", FILE.to_owned(), 404),
        ("GET", "/files/01900000-0000-7000-8000-000000000001".to_owned(), 403),
        ("DELETE", FILE.to_owned(), 403),
        ("POST", "/files".to_owned(), 403),
    ] {
        let answer = running.api.call(method, &path, Some(token), None).await.unwrap();
        assert_eq!(answer.status, status, "{method} {path}");
    }
    let unknown = ask(json!({"type": "portcullis_all"})).await;
    assert_eq!((unknown.status, &unknown.json()["error"]), (400, &json!("invalid_authorization_details")));
    running.stack.stop().await;
}

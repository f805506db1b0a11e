//! What policy adds to the gate, and what happens when it cannot be asked.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use authorizer::event::Request;
use authorizer::{Authorizer, Decision};
use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::Timestamp;
use shared::policy::{Bundle, Release, SCHEMA};
use shared::trust::{Accepts, Envelope};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const STAGE: &str = "arn:aws:execute-api:us-east-1:111122223333:abc/v1";
const ID: &str = "0198e1a0-0000-7000-8000-00000000000a";
const POLICIES: &str = "trust/policies.json";

struct World {
    issuer: Issuer,
    bucket: TrustBucket,
    clock: FixedClock,
    authorizer: Authorizer<Cedar, TrustBucket, FixedClock>,
}

/// The shipped bundle with `own` for acme; its examples are about nobody that `own` is about.
fn bundle(own: &[&str]) -> Bundle {
    let mut bundle = Bundle::shipped().unwrap().to_value();
    let own = own.iter().enumerate().map(|(at, text)| json!({"id": format!("own{at}"), "text": text}));
    bundle["tenants"] = json!({"acme": own.collect::<Vec<_>>()});
    for example in bundle["examples"].as_array_mut().unwrap() {
        example["ask"]["principal"]["tenant"] = json!("initech");
    }
    Bundle::parse(&bundle).unwrap()
}

fn release(bundle: Bundle) -> Value {
    Release { version: 1, hash: bundle.hash(), bundle }.to_value()
}

impl World {
    fn new() -> Self {
        let (issuer, bucket, clock) = (Issuer::new("k1"), TrustBucket::default(), FixedClock::at(NOW));
        issuer.publish(&bucket, NOW);
        let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let authorizer = Authorizer::new(accepts, bucket.clone(), clock.clone());
        Self { issuer, bucket, clock, authorizer }
    }

    fn with(active: &Value, candidate: &Value) -> Self {
        let world = Self::new();
        world.put(NOW.millis(), active, candidate);
        world
    }

    fn put(&self, version: i64, active: &Value, candidate: &Value) {
        let body = json!({"active": active, "candidate": candidate});
        let envelope = Envelope { version, issued_at: version, not_after: version + 86_400_000, body };
        self.bucket.put(POLICIES, envelope.seal());
    }

    /// Lets time pass; keys and revocations are published all the while.
    fn pass(&self, seconds: i64) {
        let policies = self.bucket.text(POLICIES);
        self.clock.advance(seconds);
        self.issuer.publish(&self.bucket, shared::clock::Clock::now(&self.clock));
        match policies {
            Some(policies) => self.bucket.put(POLICIES, policies),
            None => self.bucket.remove(POLICIES),
        }
    }

    fn event(&self, changes: &Value, headers: &Value) -> Value {
        let token = self.issuer.token(shared::clock::Clock::now(&self.clock), changes);
        let mut fields = json!({"Authorization": [format!("Bearer {token}")]});
        fields.as_object_mut().unwrap().extend(headers.as_object().unwrap().clone());
        json!({"type":"REQUEST","methodArn":format!("{STAGE}/GET/files/{ID}"),"resource":"/files/{id}",
            "path":format!("/files/{ID}"),"httpMethod":"GET","multiValueHeaders":fields,"requestContext":{"requestId":"g-1"}})
    }

    /// `Allow`, or the reason why not.
    async fn said(&self, changes: Value, headers: Value) -> Result<String, Failure> {
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        let answer = self.authorizer.handle(self.event(&changes, &headers), &invocation).await?;
        let allowed = answer["policyDocument"]["Statement"][0]["Effect"] == "Allow";
        Ok(if allowed { "Allow".to_owned() } else { answer["context"]["reason"].as_str().unwrap().to_owned() })
    }

    async fn plain(&self) -> Result<String, Failure> {
        self.said(json!({}), json!({})).await
    }
}

fn nothing() -> Bundle {
    Bundle::parse(&json!({"schema": SCHEMA, "policies": [], "examples": []})).unwrap()
}

#[tokio::test]
async fn the_answer_names_the_bundle_that_decided() {
    let world = World::new();
    let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
    let answer = world.authorizer.handle(world.event(&json!({}), &json!({})), &invocation).await.unwrap();
    assert_eq!(answer["context"]["policy"], Bundle::shipped().unwrap().hash());
    assert_eq!(answer["context"]["reason"], "policy");
}

#[tokio::test]
async fn an_empty_bundle_denies_everything() {
    let world = World::with(&release(nothing()), &Value::Null);
    assert_eq!(world.plain().await.as_deref(), Ok("not_permitted"));
}

#[tokio::test]
async fn policy_sees_device_network_and_binding() {
    let own = [
        r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when {
            context has device && !(context.device has disk_encrypted && context.device.disk_encrypted) };"#,
        r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when { context.net.ip.isInRange(ip("10.0.0.0/8")) };"#,
    ];
    let world = World::with(&release(bundle(&own)), &Value::Null);
    let from = |ip: &str| json!({"CF-Connecting-IP": [ip], "CF-IPCountry": ["PT"]});
    let device =
        |encrypted: bool| json!({"device": {"id": "d", "source": "s", "checked_at": 1, "disk_encrypted": encrypted}});
    for (token, headers, said) in [
        (json!({}), from("198.51.100.7"), "Allow"),
        (json!({}), from("10.1.2.3"), "forbidden"),
        (json!({}), from("::ffff:10.1.2.3"), "forbidden"),
        (json!({}), json!({}), "net_unknown"),
        (json!({}), json!({"CF-Connecting-IP": ["198.51.100.7", "10.1.2.3"]}), "net_unknown"),
        (json!({}), json!({"X-Forwarded-For": ["198.51.100.7"]}), "net_unknown"),
        (device(true), from("198.51.100.7"), "Allow"),
        (device(false), from("198.51.100.7"), "forbidden"),
        (json!({"tenant": "globex"}), from("10.1.2.3"), "Allow"),
    ] {
        assert_eq!(world.said(token.clone(), headers.clone()).await.as_deref(), Ok(said), "{token} {headers}");
    }
}

#[tokio::test]
async fn a_policy_that_fails_denies() {
    let fails = r#"forbid (principal, action == Portcullis::Action::"files:read", resource) when { context.token.age + 9223372036854775807 < 0 };"#;
    let world = World::with(&release(bundle(&[fails])), &Value::Null);
    assert_eq!(world.plain().await.as_deref(), Ok("Allow"), "a token of this very second overflows nothing");
    let old = json!({"iat": NOW.seconds() - 1});
    assert_eq!(world.said(old.clone(), json!({})).await.as_deref(), Ok("policy_error"));
    let mut other = old;
    other["tenant"] = json!("globex");
    assert_eq!(world.said(other, json!({})).await.as_deref(), Ok("Allow"), "it is acme's alone");
}

#[tokio::test]
async fn a_candidate_is_asked_and_not_heeded() {
    let forbids = bundle(&[r#"forbid (principal, action in Portcullis::Action::"invoke", resource);"#]);
    let hash = forbids.hash();
    let world = World::with(&release(Bundle::shipped().unwrap()), &release(forbids));
    let request = Request::parse(&world.event(&json!({}), &json!({}))).unwrap();
    let Ok(Decision::Allow { explained, .. }) = world.authorizer.decide(&request).await else {
        panic!("it is allowed")
    };
    let (shadow, candidate) = explained.judged.shadow.unwrap();
    assert_eq!((shadow.reason.as_str(), shadow.policies, candidate), ("forbidden", vec!["acme:own0".to_owned()], hash));
    let same = World::with(&release(Bundle::shipped().unwrap()), &release(bundle(&[])));
    let request = Request::parse(&same.event(&json!({}), &json!({}))).unwrap();
    let Ok(Decision::Allow { explained, .. }) = same.authorizer.decide(&request).await else { panic!("it is allowed") };
    assert_eq!(explained.judged.shadow, None, "where both agree nothing is said");
}

#[tokio::test]
async fn a_candidate_that_is_none_keeps_nobody_out() {
    let shipped = release(Bundle::shipped().unwrap());
    let mut altered = shipped.clone();
    altered["hash"] = json!("0".repeat(64));
    for candidate in [json!({}), json!("x"), altered] {
        assert_eq!(World::with(&shipped, &candidate).plain().await.as_deref(), Ok("Allow"), "{candidate}");
    }
}

#[tokio::test]
async fn a_promotion_decides_a_minute_later() {
    let world = World::new();
    assert_eq!(world.plain().await.as_deref(), Ok("Allow"));
    world.put(NOW.millis() + 1, &release(nothing()), &Value::Null);
    world.pass(59);
    assert_eq!(world.plain().await.as_deref(), Ok("Allow"), "read a minute ago");
    world.pass(1);
    assert_eq!(world.plain().await.as_deref(), Ok("not_permitted"));
}

#[tokio::test]
async fn what_is_no_bundle_leaves_the_last_good_one_and_that_serves_for_an_hour() {
    let shipped = release(Bundle::shipped().unwrap());
    let mut altered = shipped.clone();
    altered["bundle"]["policies"][4]["text"] =
        json!(r#"permit (principal, action in Portcullis::Action::"invoke", resource);"#);
    let mut turned = Bundle::shipped().unwrap();
    turned.policies[4].text = turned.policies[4].text.replace("permit (", "forbid (");
    let mut broken = Bundle::shipped().unwrap();
    broken.policies[4].text = "permit (".to_owned();
    for (what, active) in [
        ("another hash's", altered),
        ("one that fails its examples", release(turned)),
        ("one that does not parse", release(broken)),
        ("none", Value::Null),
        ("an array", json!([1, "", {}])),
    ] {
        let world = World::new();
        assert_eq!(world.plain().await.as_deref(), Ok("Allow"), "{what}");
        world.put(NOW.millis() + 1, &active, &Value::Null);
        world.pass(3_600);
        assert_eq!(world.plain().await.as_deref(), Ok("Allow"), "{what}");
        world.pass(1);
        assert_eq!(world.plain().await, Err(Failure::TRUST_STALE), "{what}");
        world.put(NOW.millis() + 2, &shipped, &Value::Null);
        world.pass(2);
        assert_eq!(world.plain().await.as_deref(), Ok("Allow"), "{what}: and it comes back by itself");
    }
}

#[tokio::test]
async fn an_older_bundle_is_not_taken() {
    let world = World::with(&release(nothing()), &Value::Null);
    assert_eq!(world.plain().await.as_deref(), Ok("not_permitted"));
    world.put(NOW.millis() - 1, &release(Bundle::shipped().unwrap()), &Value::Null);
    world.pass(60);
    assert_eq!(world.plain().await.as_deref(), Ok("not_permitted"));
}

#[tokio::test]
async fn without_policies_nobody_passes_and_a_bad_credential_is_still_one() {
    let world = World::new();
    world.bucket.remove(POLICIES);
    assert_eq!(world.plain().await, Err(Failure::TRUST_STALE));
    assert_eq!(world.said(json!({"aud": "https://other.example"}), json!({})).await, Err(Failure::UNAUTHORIZED));
}

#[tokio::test]
async fn a_narrowed_token_is_no_token_for_the_application() {
    let world = World::new();
    let details = json!({"scope": "app", "authorization_details":
        [{"type": "portcullis_file", "actions": ["read"], "file_id": "0198e1a0-0000-7000-8000-00000000000a"}]});
    let mut event = world.event(&details, &json!({}));
    event["resource"] = json!("/app/{proxy+}");
    event["path"] = json!("/app/users");
    event["methodArn"] = json!(format!("{STAGE}/GET/app/users"));
    let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
    let answer = world.authorizer.handle(event, &invocation).await.unwrap();
    assert_eq!(answer["context"]["reason"], "token_narrowed");
}

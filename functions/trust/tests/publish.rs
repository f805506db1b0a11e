//! What `trust` publishes, when, and what it must never publish, over a bucket and a registry in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::issuer::Profiles;
use shared::jwks::Algorithm;
use shared::name::Tenant;
use shared::policy::{Bundle, SCHEMA};
use shared::port::{CreatedKey, Database, Fault, FaultKind, Parameter, SigningKeys};
use shared::trust::{Envelope, KeyState, OwnKeys, Posture, Revocations, Revoked, SigningState, TrustObject};
use testkit::{FixedClock, Registry, TrustBucket};
use trust::rotation::{DAY, Policy, Waits};
use trust::{Issues, POLICIES, PROFILES, Publisher};

const KEYS: &str = "trust/keys.json";
const STATE: &str = "trust/signing-state.json";
const REVOCATIONS: &str = "trust/revocations.json";
const POSTURE: &str = "trust/posture.json";
const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Makes real key pairs and forgets the private halves.
#[derive(Clone, Default)]
struct Maker(Arc<AtomicUsize>);

impl SigningKeys for Maker {
    async fn create(&self, algorithm: Algorithm) -> Result<CreatedKey, Fault> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let public_der = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate().unwrap();
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
            _ => return Err(Fault::new(FaultKind::Invalid, "kms", "CreateKey")),
        };
        Ok(CreatedKey { key: format!("arn:aws:kms:eu-central-1:000000000000:key/{number}"), public_der })
    }
}

struct World {
    registry: Registry,
    bucket: TrustBucket,
    maker: Maker,
    clock: FixedClock,
}

impl World {
    fn new() -> Self {
        Self {
            registry: Registry::with_tenant("acme"),
            bucket: TrustBucket::default(),
            maker: Maker::default(),
            clock: FixedClock::at(START),
        }
    }

    fn publisher(&self) -> Publisher<Registry, TrustBucket, Maker, FixedClock> {
        self.publisher_for(Algorithm::Es256)
    }

    fn publisher_for(&self, algorithm: Algorithm) -> Publisher<Registry, TrustBucket, Maker, FixedClock> {
        Publisher {
            database: self.registry.clone(),
            bucket: self.bucket.clone(),
            keys: self.maker.clone(),
            clock: self.clock.clone(),
            issues: Issues { issuer: "https://gate.example".into(), audience: "api://acme".into(), algorithm },
            policy: Policy { algorithm, period: 90 * DAY, spares: 1, waits: Waits::DEFAULT },
        }
    }

    /// Genesis, and a run that has seen its publication.
    async fn settled() -> Self {
        let world = Self::new();
        world.run().await;
        world.run().await;
        world
    }

    async fn run(&self) -> Vec<&'static str> {
        let report = self.publisher().publish().await;
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        report.published
    }

    async fn revoke(&self, kind: &str, value: &str) {
        revoke(&self.registry, self.clock.now(), kind, value).await;
    }

    async fn put_issuer(&self, id: &str, issuer: &str) {
        let text = |text: &str| Parameter::Text(text.to_owned());
        let at = Parameter::Int(self.clock.now().millis());
        let algorithms = Parameter::Texts(vec!["RS256".into()]);
        let audience = Parameter::OptionalText(Some("a".to_owned()));
        let rest = [text(id), text("generic"), text(issuer), audience, algorithms, text("https://issuer.example/keys")];
        let parameters = [vec![text("op"), text("r"), at], rest.to_vec()].concat();
        self.registry.call("api.issuer_put", parameters).await.unwrap();
    }

    fn version(&self, key: &str) -> i64 {
        self.bucket.json(key)["version"].as_i64().unwrap()
    }

    fn state(&self) -> SigningState {
        SigningState::parse(&self.bucket.json(STATE)["body"]).unwrap()
    }

    fn created(&self) -> usize {
        self.maker.0.load(Ordering::SeqCst)
    }
}

async fn revoke(registry: &Registry, now: Timestamp, kind: &str, value: &str) {
    let text = |text: &str| Parameter::Text(text.to_owned());
    let parameters = vec![
        text("op"),
        text("r"),
        Parameter::Int(now.millis()),
        text(kind),
        text(value),
        Parameter::Int(now.seconds()),
    ];
    registry.call("api.revoke", parameters).await.unwrap();
}

#[tokio::test]
async fn an_issuer_of_workloads_is_published_as_verifiers_read_it() {
    let world = World::settled().await;
    let text = |text: &str| Parameter::Text(text.to_owned());
    let at = Parameter::Int(world.clock.now().millis());
    let algorithms = Parameter::Texts(vec!["ES256".into()]);
    let rest = [text("mesh"), text("spiffe"), text("spiffe://prod.example"), Parameter::OptionalText(None), algorithms];
    let parameters = [vec![text("op"), text("r"), at], rest.to_vec(), vec![text("https://bundle.example/")]].concat();
    world.registry.call("api.issuer_put", parameters).await.unwrap();
    assert_eq!(world.run().await, [PROFILES]);
    let body = &world.bucket.json(PROFILES)["body"];
    let expected = json!({"id": "mesh", "kind": "spiffe", "issuer": "spiffe://prod.example", "algorithms": ["ES256"],
        "jwks_url": "https://bundle.example/"});
    assert_eq!(body["profiles"][1], expected);
    let profiles = Profiles::parse(body).unwrap();
    assert_eq!(profiles.of_workload("spiffe://prod.example").map(|profile| profile.id().as_str()), Some("mesh"));
}

#[tokio::test]
async fn genesis_makes_one_active_key_and_one_spare_that_verifiers_know() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let world = World::new();
        let report = world.publisher_for(algorithm).publish().await;
        assert_eq!(report.faults.len(), 0);
        assert_eq!(report.published, [REVOCATIONS, STATE, KEYS, PROFILES, POLICIES, POSTURE]);
        let state = world.state();
        let states: Vec<KeyState> = state.keys.iter().map(|key| key.state).collect();
        assert_eq!(states, [KeyState::Active, KeyState::Published]);
        assert_eq!(report.genesis, state.keys.iter().map(|key| key.kid.clone()).collect::<Vec<_>>());
        assert_eq!(state.keys[0].activated_at, Some(START.millis()));
        assert_eq!((state.keys[1].activated_at, state.keys[1].created_at), (None, START.millis()));

        let body = &world.bucket.json(KEYS)["body"];
        let published = OwnKeys::parse(body).unwrap();
        for key in &state.keys {
            let public = published.0.find(&key.kid).unwrap();
            assert_eq!((public.thumbprint.as_str(), public.algorithm), (key.kid.as_str(), algorithm));
        }
        assert_eq!(body["keys"][0]["portcullis_state"], "active");
        assert_eq!(body["keys"][1]["portcullis_state"], "published");
        assert!(!body.to_string().contains("arn:"), "the public set names no key ARN");
    }
}

#[tokio::test]
async fn two_instances_at_genesis_agree_on_one_active_key() {
    let world = World::new();
    let runs = [world.publisher(), world.publisher(), world.publisher()];
    let (one, two, three) = tokio::join!(runs[0].publish(), runs[1].publish(), runs[2].publish());
    let faults: Vec<_> = [&one, &two, &three].into_iter().flat_map(|report| &report.faults).collect();
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(world.created(), 2, "whoever did not write the intention makes nothing");
    assert_eq!([&one, &two, &three].iter().filter(|report| !report.genesis.is_empty()).count(), 1);
    let state = world.state();
    assert_eq!(state.keys.len(), 2);
    assert_eq!(state.keys.iter().filter(|key| key.state == KeyState::Active).count(), 1);
    let published = OwnKeys::parse(&world.bucket.json(KEYS)["body"]).unwrap();
    let kids: Vec<&str> = published.0.iter().map(|key| key.kid.as_str()).collect();
    assert_eq!(kids, state.keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), "keys.json is the winner's");
}

#[tokio::test]
async fn genesis_is_never_entered_again() {
    let world = World::new();
    world.run().await;
    let before = world.bucket.json(KEYS);
    world.bucket.remove(STATE);
    let body = |body: &str| format!(r#"{{"version":1,"issued_at":1,"not_after":2,"body":{body}}}"#);
    let (array, none, making) =
        (body("[]"), body(r#"{"keys":[]}"#), body(r#"{"keys":[],"making":{"since":1,"lost":0}}"#));
    for state in [None, Some("{}"), Some("not json"), Some(&*array), Some(&*none), Some(&*making)] {
        if let Some(text) = state {
            world.bucket.put(STATE, text);
        }
        world.clock.advance(7_200);
        let report = world.publisher().publish().await;
        assert_eq!(report.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [FaultKind::Invalid], "{state:?}");
        assert_eq!((world.created(), world.bucket.json(KEYS)), (2, before.clone()), "{state:?}");
        assert_eq!(world.bucket.text(STATE).as_deref(), state, "what is broken is left as it is");
    }
}

#[tokio::test]
async fn a_lost_keys_object_is_published_again_from_the_state() {
    let world = World::new();
    world.run().await;
    let body = world.bucket.json(KEYS)["body"].clone();
    world.bucket.remove(KEYS);
    assert_eq!(world.run().await, [KEYS]);
    assert_eq!((world.bucket.json(KEYS)["body"].clone(), world.created()), (body, 2));
}

#[tokio::test]
async fn a_state_with_two_active_keys_publishes_nothing_of_itself() {
    let world = World::new();
    world.run().await;
    let mut envelope: Value = world.bucket.json(STATE);
    envelope["body"]["keys"][1]["state"] = json!("active");
    world.bucket.put(STATE, envelope.to_string());
    world.bucket.take_writes();
    let report = world.publisher().publish().await;
    assert_eq!(report.faults.len(), 1);
    assert!(world.bucket.take_writes().is_empty());
}

#[tokio::test]
async fn a_key_under_a_name_that_is_not_its_thumbprint_is_not_published() {
    let world = World::new();
    world.run().await;
    let mut envelope: Value = world.bucket.json(STATE);
    envelope["body"]["keys"][1]["kid"] = json!("mine");
    envelope["body"]["keys"][1]["jwk"]["kid"] = json!("mine");
    world.bucket.put(STATE, envelope.to_string());
    let before = world.bucket.text(KEYS);
    assert_eq!(world.publisher().publish().await.faults.len(), 1);
    assert_eq!(world.bucket.text(KEYS), before);
}

#[tokio::test]
async fn a_removed_key_leaves_the_public_set() {
    let world = World::settled().await;
    let mut envelope: Value = world.bucket.json(STATE);
    envelope["body"]["keys"][1]["state"] = json!("removed");
    let removed = envelope["body"]["keys"][1]["kid"].clone();
    world.bucket.put(STATE, envelope.to_string());
    assert_eq!(world.run().await, [STATE, KEYS]);
    let keys = world.bucket.json(KEYS)["body"]["keys"].as_array().unwrap().clone();
    assert!(keys.len() == 2 && keys.iter().all(|key| key["kid"] != removed), "another spare stands in for it");
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changed_and_all_is_fresh() {
    let world = World::settled().await;
    for _ in 0..2 {
        world.clock.advance(60);
        world.bucket.take_writes();
        assert!(world.run().await.is_empty());
        assert!(world.bucket.take_writes().is_empty());
    }
}

#[tokio::test]
async fn an_object_is_published_anew_before_its_life_is_half_over() {
    let world = World::settled().await;
    world.clock.advance(149);
    assert!(world.run().await.is_empty());
    world.clock.advance(1);
    assert_eq!(world.run().await, [REVOCATIONS]);
    world.clock.advance(1_650);
    assert_eq!(world.run().await, [REVOCATIONS, STATE, KEYS, POLICIES, POSTURE]);
    world.clock.advance(12 * 3_600);
    assert_eq!(world.run().await, [REVOCATIONS, STATE, KEYS, PROFILES, POLICIES, POSTURE]);
}

#[tokio::test]
async fn devices_are_published_as_verifiers_read_them_and_what_is_none_is_not() {
    let world = World::settled().await;
    let put = async |id: &str, encrypted: bool, keys: Value| {
        let at = world.clock.now();
        let device = json!({"id": id, "disk_encrypted": encrypted, "source": "operator", "checked_at": at.seconds()});
        let text = |text: &str| Parameter::Text(text.to_owned());
        let devices = json!([{"device": device, "keys": keys}]);
        let parameters =
            vec![text("op"), text("r"), Parameter::Int(at.millis()), text("acme"), Parameter::Json(devices)];
        world.registry.call("api.device_put", parameters).await.unwrap();
    };
    let (key, acme) = ("k".repeat(43), Tenant::parse("acme").unwrap());
    let encrypted = || {
        let posture = Posture::parse(&world.bucket.json(POSTURE)["body"]).unwrap();
        posture.of_key(&acme, &key).and_then(|device| device.disk_encrypted)
    };
    assert_eq!(encrypted(), None);
    put("laptop", true, json!([key])).await;
    assert_eq!(world.run().await, [POSTURE]);
    assert_eq!(encrypted(), Some(true));
    put("laptop", false, Value::Null).await;
    assert_eq!(world.run().await, [POSTURE]);
    assert_eq!(encrypted(), Some(false));
    put("-", true, Value::Null).await;
    let report = world.publisher().publish().await;
    assert_eq!((report.faults.len(), report.published), (1, vec![]), "what no verifier would read is not written");
    assert_eq!(encrypted(), Some(false));
}

#[tokio::test]
async fn every_envelope_says_until_when_it_may_be_used() {
    let world = World::new();
    world.run().await;
    for (key, life) in
        [(REVOCATIONS, 300), (KEYS, 3_600), (STATE, 3_600), (PROFILES, 86_400), (POLICIES, 3_600), (POSTURE, 3_600)]
    {
        let envelope = Envelope::open(world.bucket.text(key).unwrap().as_bytes()).unwrap();
        // The state was written twice: the intention, then the keys.
        let version = START.millis() + i64::from(key == STATE);
        assert_eq!((envelope.version, envelope.issued_at), (version, version), "{key}");
        assert_eq!(envelope.not_after, START.plus_seconds(life).millis(), "{key}");
    }
}

#[tokio::test]
async fn versions_rise_even_when_the_clock_goes_back() {
    let world = World::new();
    world.run().await;
    let first = world.version(REVOCATIONS);
    world.revoke("sub", "a").await;
    world.run().await;
    assert_eq!(world.version(REVOCATIONS), first + 1, "within the same millisecond");
    world.clock.advance(-3_600);
    world.revoke("sub", "b").await;
    world.run().await;
    assert_eq!(world.version(REVOCATIONS), first + 2);
}

#[tokio::test]
async fn a_clock_that_was_ahead_leaves_no_object_without_an_end() {
    let world = World::new();
    world.run().await;
    world.clock.advance(100 * 365 * 86_400);
    world.run().await;
    world.clock.advance(-100 * 365 * 86_400);
    assert_eq!(world.run().await, [REVOCATIONS, STATE, KEYS, PROFILES, POLICIES, POSTURE]);
    for (key, life) in
        [(REVOCATIONS, 300), (KEYS, 3_600), (STATE, 3_600), (PROFILES, 86_400), (POLICIES, 3_600), (POSTURE, 3_600)]
    {
        let not_after = world.bucket.json(key)["not_after"].as_i64().unwrap();
        assert_eq!(not_after, START.plus_seconds(life).millis(), "{key}");
    }
}

#[tokio::test]
async fn a_revocation_is_in_the_next_publication_and_leaves_when_nothing_is_left_to_hit() {
    let world = World::settled().await;
    for (kind, value) in
        [("sub", "s"), ("sid", "i"), ("client_id", "c"), ("tenant", "acme"), ("device", "d"), ("jti", "j")]
    {
        world.revoke(kind, value).await;
    }
    assert_eq!(world.run().await, [REVOCATIONS]);
    let now = START.seconds();
    use Revoked::{Client, Device, Session, Subject, Tenant, Token};
    let kinds = [(Subject, "s"), (Session, "i"), (Client, "c"), (Tenant, "acme"), (Device, "d"), (Token, "j")];
    let full = Revocations::body(kinds.map(|(kind, value)| (kind, value, now)), &[]);
    assert_eq!(world.bucket.json(REVOCATIONS)["body"], full);
    world.clock.advance(910);
    world.run().await;
    let left = Revocations::parse(&world.bucket.json(REVOCATIONS)["body"]).unwrap();
    assert_eq!(left.len(), 5, "a token of the others could still be alive");
    world.clock.advance(1);
    world.run().await;
    assert_eq!(world.bucket.json(REVOCATIONS)["body"], Revocations::body([], &[]));
}

#[tokio::test]
async fn an_instance_that_was_overtaken_does_not_bring_the_older_body_back() {
    let world = World::settled().await;
    world.revoke("sub", "first").await;
    let (bucket, registry, now) = (world.bucket.clone(), world.registry.clone(), world.clock.now());
    // Between this instance's snapshot and its write, somebody revokes and another instance publishes.
    world.bucket.before_next_write(async move {
        revoke(&registry, now, "sub", "second").await;
        let mut envelope = bucket.json(REVOCATIONS);
        envelope["version"] = json!(envelope["version"].as_i64().unwrap() + 1);
        let both = ["first", "second"].map(|subject| (Revoked::Subject, subject, now.seconds()));
        envelope["body"] = Revocations::body(both, &[]);
        bucket.put(REVOCATIONS, envelope.to_string());
    });
    world.run().await;
    assert_eq!(Revocations::parse(&world.bucket.json(REVOCATIONS)["body"]).unwrap().len(), 2);
}

#[tokio::test]
async fn an_unreadable_publication_is_replaced() {
    let world = World::settled().await;
    world.bucket.put(REVOCATIONS, "garbage");
    assert_eq!(world.run().await, [REVOCATIONS]);
    assert!(world.bucket.json(REVOCATIONS)["body"].is_object());
}

#[tokio::test]
async fn profiles_name_our_issuer_audience_and_algorithm() {
    let world = World::new();
    world.run().await;
    assert_eq!(
        world.bucket.json(PROFILES)["body"],
        json!({ "profiles": [{ "id": "own", "issuer": "https://gate.example", "audience": "api://acme", "algorithms": ["ES256"] }] })
    );
}

#[tokio::test]
async fn profiles_list_the_foreign_issuers_and_follow_them() {
    let world = World::new();
    world.put_issuer("access", "https://team.cloudflareaccess.com").await;
    world.put_issuer("echo", "https://gate.example").await;
    world.run().await;
    world.run().await;
    let ids = || -> Vec<Value> {
        let body = world.bucket.json(PROFILES);
        body["body"]["profiles"].as_array().unwrap().iter().map(|profile| profile["id"].clone()).collect()
    };
    assert_eq!(ids(), ["own", "access"], "nobody else may speak for our own issuer");
    let read = Profiles::parse(&world.bucket.json(PROFILES)["body"]).unwrap();
    assert_eq!(read.foreign()[0].jwks_url().as_str(), "https://issuer.example/keys");
    let remove = vec!["op", "r"].into_iter().map(|text| Parameter::Text(text.into()));
    let remove = remove.chain([Parameter::Int(START.millis()), Parameter::Text("access".into())]).collect();
    world.registry.call("api.issuer_remove", remove).await.unwrap();
    assert_eq!(world.run().await, [PROFILES]);
    assert_eq!(ids(), ["own"]);
}

#[tokio::test]
async fn without_postgres_the_keys_are_still_published_and_the_run_fails() {
    let world = World::new();
    world.registry.set_down(true);
    let invocation =
        Invocation { request_id: "r".into(), deadline: START.plus_seconds(60), function_arn: String::new() };
    assert_eq!(world.publisher().handle(json!({}), &invocation).await, Err(Failure::UNAVAILABLE));
    assert_eq!(world.bucket.keys(), [KEYS, STATE], "who is believed comes from Postgres");
}

#[tokio::test]
async fn without_the_bucket_nothing_is_created() {
    let world = World::new();
    world.bucket.set_down(true);
    assert_eq!(world.publisher().publish().await.faults.len(), 5);
    assert_eq!(world.created(), 0);
}

#[tokio::test]
async fn whatever_the_event_says_the_run_is_the_same() {
    for event in [
        json!(null),
        json!({}),
        json!({"source": "aws.s3", "detail": {"object": {"key": "trust-inbox/admin/x"}}}),
        json!([1]),
    ] {
        let world = World::new();
        let invocation =
            Invocation { request_id: "r".into(), deadline: START.plus_seconds(60), function_arn: String::new() };
        let answer = world.publisher().handle(event, &invocation).await.unwrap();
        assert_eq!(answer["published"].as_array().unwrap().len(), 6);
    }
}

/// A bundle that permits nothing, in the form of a row.
fn closed(name: &str) -> Value {
    let bundle = json!({"schema": SCHEMA, "policies": [], "tenants": {name: []}, "examples": []});
    Bundle::parse(&bundle).unwrap().to_value()
}

#[tokio::test]
async fn the_shipped_policies_are_published_until_an_operator_promotes_others() {
    let world = World::settled().await;
    let body = || world.bucket.json(POLICIES)["body"].clone();
    let shipped = Bundle::shipped().unwrap();
    assert_eq!(
        (body()["active"]["hash"].as_str(), body()["active"]["version"].as_i64()),
        (Some(shipped.hash().as_str()), Some(0))
    );
    assert_eq!(body()["candidate"], Value::Null);

    let bundle = closed("acme");
    let hash = Bundle::parse(&bundle).unwrap().hash();
    let (text, now) = (|text: &str| Parameter::Text(text.to_owned()), || Parameter::Int(world.clock.now().millis()));
    let put = vec![text("alice"), text("r"), now(), text(&hash), Parameter::Json(bundle)];
    world.registry.call("api.policy_put", put).await.unwrap();
    assert_eq!(world.run().await, [POLICIES]);
    assert_eq!(body()["active"]["version"], 0, "a candidate decides nothing");
    assert_eq!(body()["candidate"]["hash"], hash.as_str());

    world.registry.call("api.policy_promote", vec![text("alice"), text("r"), now(), text(&hash)]).await.unwrap();
    assert_eq!(world.run().await, [POLICIES]);
    assert_eq!(
        (body()["active"]["hash"].as_str(), body()["active"]["version"].as_i64()),
        (Some(hash.as_str()), Some(1))
    );
    assert_eq!(body()["candidate"], Value::Null);
}

#[tokio::test]
async fn a_row_that_is_no_bundle_replaces_nothing_that_was_published() {
    let world = World::settled().await;
    let before = world.bucket.json(POLICIES);
    let (text, now) = (|text: &str| Parameter::Text(text.to_owned()), || Parameter::Int(world.clock.now().millis()));
    let hash = "0".repeat(64);
    let put = vec![text("mallory"), text("r"), now(), text(&hash), Parameter::Json(closed("acme"))];
    world.registry.call("api.policy_put", put).await.unwrap();
    world.run().await;
    assert_eq!(world.bucket.json(POLICIES), before, "a candidate under another's hash is left out");
    world.registry.call("api.policy_promote", vec![text("mallory"), text("r"), now(), text(&hash)]).await.unwrap();
    assert_eq!(world.publisher().publish().await.faults.len(), 1);
    assert_eq!(world.bucket.json(POLICIES), before);
}

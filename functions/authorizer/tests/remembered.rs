//! A token that was seen before is not verified again, and gains nothing by that.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use authorizer::Authorizer;
use cedar::Cedar;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::{Clock as _, Timestamp};
use shared::digest::sha256;
use shared::encoding::base64url;
use shared::policy::{Bundle, Release, SCHEMA};
use shared::trust::{Accepts, Refusal, Revocations, Revoked, Trust};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const STAGE: &str = "arn:aws:execute-api:us-east-1:111122223333:abc/v1";
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";

struct World {
    issuer: Issuer,
    bucket: TrustBucket,
    clock: FixedClock,
    authorizer: Authorizer<Cedar, TrustBucket, FixedClock>,
}

fn accepts() -> Accepts {
    Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() }
}

impl World {
    fn new() -> Self {
        let (issuer, bucket, clock) = (Issuer::new("k1"), TrustBucket::default(), FixedClock::at(NOW));
        issuer.publish(&bucket, NOW);
        let authorizer = Authorizer::new(accepts(), bucket.clone(), clock.clone());
        Self { issuer, bucket, clock, authorizer }
    }

    fn token(&self, changes: Value) -> String {
        self.issuer.token(self.clock.now(), &changes)
    }

    async fn with(&self, headers: Value) -> Result<String, Failure> {
        let event = json!({"type":"REQUEST","methodArn":format!("{STAGE}/GET{FILE}"),"resource":"/files/{id}","path":FILE,
            "httpMethod":"GET","multiValueHeaders":headers,"requestContext":{"requestId":"g-1"}});
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        let answer = self.authorizer.handle(event, &invocation).await?;
        let effect = answer["policyDocument"]["Statement"][0]["Effect"].as_str().unwrap().to_owned();
        Ok(if effect == "Allow" { effect } else { answer["context"]["reason"].as_str().unwrap().to_owned() })
    }

    async fn asks(&self, token: &str) -> Result<String, Failure> {
        self.with(json!({"Authorization": [format!("Bearer {token}")]})).await
    }

    async fn passes(&self, token: &str) -> bool {
        self.asks(token).await.as_deref() == Ok("Allow")
    }

    fn revoke(&self, entries: &[(Revoked, &str)], kids: &[&str]) {
        let until = NOW.seconds() + 1;
        let entries = entries.iter().map(|(kind, value)| (*kind, *value, until));
        self.issuer.put(&self.bucket, "trust/revocations.json", self.clock.now(), Revocations::body(entries, kids));
    }

    fn put_keys(&self, keys: &[&Issuer]) {
        let keys: Vec<Value> = keys.iter().map(|issuer| issuer.jwk()).collect();
        self.issuer.put(&self.bucket, "trust/keys.json", self.clock.now(), json!({"keys": keys}));
    }
}

/// The token with a part of it changed.
fn altered(token: &str, part: usize, change: impl Fn(&str) -> String) -> String {
    let parts = token.split('.').enumerate().map(|(at, text)| if at == part { change(text) } else { text.to_owned() });
    parts.collect::<Vec<_>>().join(".")
}

/// The text with one character, counted from the end, made another one.
fn other_character(text: &str, from_end: usize) -> String {
    let at = text.len() - 1 - from_end;
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

#[tokio::test]
async fn nothing_that_is_like_a_token_that_was_seen_passes_for_it() {
    let world = World::new();
    let token = world.token(json!({}));
    assert!(world.passes(&token).await);
    let stranger = Issuer::new("k1");
    let header = |header: Value| base64url(header.to_string().as_bytes());
    let (_, signature) = token.rsplit_once('.').unwrap();
    for (what, forged) in [
        ("another signature, first character", altered(&token, 2, |text| other_character(text, text.len() - 1))),
        ("another signature, in the middle", altered(&token, 2, |text| other_character(text, 40))),
        ("another spelling of the last bits", altered(&token, 2, |text| other_character(text, 0))),
        ("a signature cut short", altered(&token, 2, |text| text[..text.len() - 4].to_owned())),
        ("no signature", altered(&token, 2, |_| String::new())),
        ("no last part", token.rsplit_once('.').unwrap().0.to_owned()),
        ("the same claims of another key of this id", stranger.token(NOW, &json!({}))),
        ("other claims", altered(&token, 1, |text| other_character(text, 10))),
        (
            "claims of mine, its signature",
            altered(&stranger.token(NOW, &json!({"sub": "root"})), 2, |_| signature.into()),
        ),
        ("another key id", altered(&token, 0, |_| header(json!({"alg": "ES256", "typ": "at+jwt", "kid": "k2"})))),
        ("another algorithm", altered(&token, 0, |_| header(json!({"alg": "none", "typ": "at+jwt", "kid": "k1"})))),
        (
            "the header in another order",
            altered(&token, 0, |_| header(json!({"kid": "k1", "typ": "at+jwt", "alg": "ES256"}))),
        ),
        ("padded", format!("{token}=")),
        ("a fourth part", format!("{token}.")),
        ("twice", format!("{token}.{token}")),
        ("the same id in another token", world.issuer.token(NOW, &json!({"aud": "https://other.example"}))),
    ] {
        assert_eq!(world.asks(&forged).await, Err(Failure::UNAUTHORIZED), "{what}");
        assert!(world.passes(&token).await, "after {what}");
    }
}

#[tokio::test]
async fn a_token_that_was_seen_ends_in_its_second() {
    let world = World::new();
    let token = world.token(json!({}));
    for seconds in [0, 100, 199] {
        world.clock.advance(seconds);
        assert!(world.passes(&token).await, "{seconds}");
    }
    world.clock.advance(1);
    assert_eq!(world.asks(&token).await, Err(Failure::UNAUTHORIZED), "now is exp");
    assert_eq!(world.asks(&token).await, Err(Failure::UNAUTHORIZED));
    // A clock that was put right brings it back, as it would a token that nobody has seen.
    world.clock.advance(-1);
    assert!(world.passes(&token).await);
}

#[tokio::test]
async fn a_token_that_was_seen_is_not_good_before_its_time() {
    let world = World::new();
    let now = NOW.seconds();
    let token = world.token(json!({"nbf": now + 10}));
    assert!(world.passes(&token).await);
    world.clock.advance(-1);
    assert_eq!(world.asks(&token).await, Err(Failure::UNAUTHORIZED));
}

#[tokio::test]
async fn a_token_that_was_seen_and_is_revoked_is_refused_five_seconds_later() {
    type Entries<'a> = &'a [(Revoked, &'a str)];
    let entries: [(&str, Entries<'_>, &[&str]); 5] = [
        ("its id", &[(Revoked::Token, "0198e1a0-0000-7000-8000-000000000001")], &[]),
        ("its subject", &[(Revoked::Subject, "acme-backend")], &[]),
        ("its client", &[(Revoked::Client, "acme-backend")], &[]),
        ("its tenant", &[(Revoked::Tenant, "acme")], &[]),
        ("its key", &[], &["k1"]),
    ];
    for (what, revoked, kids) in entries {
        let world = World::new();
        let token = world.token(json!({}));
        assert!(world.passes(&token).await, "{what}");
        world.revoke(revoked, kids);
        world.clock.advance(5);
        assert_eq!(world.asks(&token).await, Err(Failure::UNAUTHORIZED), "{what}");
        world.revoke(&[], &[]);
        world.clock.advance(5);
        assert!(world.passes(&token).await, "{what}: what is in memory was never what refused");
    }
}

#[tokio::test]
async fn two_environments_that_have_both_seen_a_token_refuse_it_alike() {
    let world = World::new();
    let token = world.token(json!({}));
    let other = World {
        issuer: world.issuer.clone(),
        bucket: world.bucket.clone(),
        clock: world.clock.clone(),
        authorizer: Authorizer::new(accepts(), world.bucket.clone(), world.clock.clone()),
    };
    for one in [&world, &other] {
        assert!(one.passes(&token).await && one.passes(&token).await);
    }
    world.revoke(&[(Revoked::Token, "0198e1a0-0000-7000-8000-000000000001")], &[]);
    world.clock.advance(5);
    for one in [&world, &other] {
        assert_eq!(one.asks(&token).await, Err(Failure::UNAUTHORIZED));
    }
}

#[tokio::test]
async fn a_token_that_was_seen_falls_with_its_key() {
    let world = World::new();
    let token = world.token(json!({}));
    let next = Issuer::new("k2");
    assert!(world.passes(&token).await);
    world.put_keys(&[&next]);
    world.clock.advance(60);
    assert_eq!(world.asks(&token).await, Err(Failure::UNAUTHORIZED), "the key is gone");
    // Back again it verifies again, by its signature.
    world.clock.advance(60);
    world.put_keys(&[&next, &world.issuer]);
    assert!(world.passes(&token).await);
}

#[tokio::test]
async fn another_key_under_the_same_id_is_another_key() {
    let world = World::new();
    let token = world.token(json!({}));
    assert!(world.passes(&token).await);
    world.put_keys(&[&Issuer::new("k1")]);
    world.clock.advance(60);
    assert_eq!(world.asks(&token).await, Err(Failure::UNAUTHORIZED));
}

#[tokio::test]
async fn a_new_policy_judges_tokens_that_were_seen() {
    let world = World::new();
    let token = world.token(json!({}));
    assert!(world.passes(&token).await);
    let forbid = r#"forbid (principal, action in Portcullis::Action::"invoke", resource);"#;
    let examples = Bundle::shipped().unwrap().to_value();
    for (what, policies, said) in [
        ("nothing", json!([]), "not_permitted"),
        ("one that forbids", json!([{"id": "no", "text": forbid}]), "forbidden"),
        ("the shipped ones", examples["policies"].clone(), "Allow"),
    ] {
        let mut bundle = json!({"schema": SCHEMA, "policies": policies, "tenants": {}, "examples": []});
        if what == "one that forbids" {
            let more =
                json!({"id": "mint", "text": r#"permit (principal, action == Portcullis::Action::"mint", resource);"#});
            bundle["policies"].as_array_mut().unwrap().push(more);
            bundle["examples"] = examples["examples"].as_array().unwrap()[..1].iter().cloned().collect();
            bundle["examples"][0]["policies"] = json!(["mint"]);
            let mut denied = examples["examples"][4].clone();
            (denied["expect"], denied["policies"]) = (json!("deny"), json!(["no"]));
            bundle["examples"].as_array_mut().unwrap().push(denied);
        } else if said == "Allow" {
            bundle = examples.clone();
        }
        let bundle = Bundle::parse(&bundle).unwrap();
        let release = Release { version: 2, hash: bundle.hash(), bundle }.to_value();
        world.clock.advance(60);
        let body = json!({"active": release, "candidate": null});
        world.issuer.put(&world.bucket, "trust/policies.json", world.clock.now(), body);
        assert_eq!(world.asks(&token).await.as_deref(), Ok(said), "{what}");
        assert_eq!(world.asks(&token).await.as_deref(), Ok(said), "{what}, asked again");
    }
}

#[tokio::test]
async fn a_bound_token_that_was_seen_needs_a_proof_each_time() {
    let world = World::new();
    let holder = Issuer::new("h1");
    let token = world.token(json!({"cnf": {"jkt": holder.thumbprint()}}));
    let ath = json!({"ath": base64url(&sha256(token.as_bytes()))});
    let proof = |by: &Issuer, jti: &str| by.proof("GET", FILE, jti, NOW, &ath);
    let dpop = |proofs: &[String]| json!({"Authorization": [format!("DPoP {token}")], "DPoP": proofs});
    let first = proof(&holder, "p1");
    assert_eq!(world.with(dpop(std::slice::from_ref(&first))).await.as_deref(), Ok("Allow"));
    let thief = Issuer::new("t1");
    for (what, headers) in [
        ("no proof", dpop(&[])),
        ("the proof of before", dpop(&[first])),
        ("a thief's proof, from another device", dpop(&[proof(&thief, "p2")])),
        ("as a bearer token", json!({"Authorization": [format!("Bearer {token}")]})),
    ] {
        assert_eq!(world.with(headers).await, Err(Failure::UNAUTHORIZED), "{what}");
    }
    assert_eq!(world.with(dpop(&[proof(&holder, "p3")])).await.as_deref(), Ok("Allow"));
}

#[tokio::test]
async fn a_token_that_was_seen_passes_nobody_while_trust_is_stale() {
    let world = World::new();
    let token = world.token(json!({"exp": NOW.seconds() + 900}));
    assert!(world.passes(&token).await);
    world.bucket.set_down(true);
    world.clock.advance(300);
    assert!(world.passes(&token).await, "last good");
    world.clock.advance(1);
    assert_eq!(world.asks(&token).await, Err(Failure::TRUST_STALE));
}

#[tokio::test]
async fn what_was_seen_for_one_audience_is_unknown_to_another() {
    let world = World::new();
    let trust = Trust::new(world.bucket.clone(), world.clock.clone());
    let token = world.token(json!({}));
    let admitted = async |accepts: &Accepts| trust.admit(&token, accepts).await.is_ok();
    assert!(admitted(&accepts()).await);
    for other in [
        Accepts { audience: "https://other.example".into(), ..accepts() },
        Accepts { issuer: "https://other.example".into(), ..accepts() },
        // The same text, taken apart elsewhere.
        Accepts { issuer: format!("{ISSUER}h"), audience: AUDIENCE[1..].into() },
        Accepts { issuer: format!("{ISSUER}{AUDIENCE}"), audience: String::new() },
    ] {
        assert!(!admitted(&other).await, "{other:?}");
    }
    assert!(admitted(&accepts()).await);
}

/// What may happen between two requests.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Nothing,
    KeyRemoved,
    KeyReplaced,
    KeyBack,
    TokenRevoked,
    SubjectRevoked,
    KeyRevoked,
    NothingRevoked,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One that has seen everything and one that has seen nothing admit alike, whatever happens meanwhile.
    #[test]
    fn who_remembers_admits_nobody_whom_one_who_does_not_would_refuse(
        steps in prop::collection::vec((select(vec![Happens::Nothing, Happens::KeyRemoved, Happens::KeyReplaced, Happens::KeyBack,
            Happens::TokenRevoked, Happens::SubjectRevoked, Happens::KeyRevoked, Happens::NothingRevoked]), 0..4_i64, 0..5_usize), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let (remembers, now) = (Trust::new(world.bucket.clone(), world.clock.clone()), NOW.seconds());
            let impostor = Issuer::new("k1");
            let long = world.token(json!({"exp": now + 900}));
            let pool = [
                world.token(json!({})),
                impostor.token(NOW, &json!({"exp": now + 900})),
                world.token(json!({"jti": "another", "sub": "another", "iat": now + 5, "exp": now + 700})),
                altered(&long, 2, |text| other_character(text, 7)),
                long,
            ];
            for (happens, minutes, at) in steps {
                match happens {
                    Happens::Nothing => {}
                    Happens::KeyRemoved => world.put_keys(&[&Issuer::new("k9")]),
                    Happens::KeyReplaced => world.put_keys(&[&impostor]),
                    Happens::KeyBack => world.put_keys(&[&world.issuer]),
                    Happens::TokenRevoked => world.revoke(&[(Revoked::Token, "another")], &[]),
                    Happens::SubjectRevoked => world.revoke(&[(Revoked::Subject, "acme-backend")], &[]),
                    Happens::KeyRevoked => world.revoke(&[], &["k1"]),
                    Happens::NothingRevoked => world.revoke(&[], &[]),
                }
                // Long enough that both have read the same.
                world.clock.advance(60 + 60 * minutes);
                let knows_nothing = Trust::new(world.bucket.clone(), world.clock.clone());
                let told = |answer: Result<shared::trust::Admitted, Refusal>| answer.map(|token| (*token).clone());
                let (one, other) = (remembers.admit(&pool[at], &accepts()).await, knows_nothing.admit(&pool[at], &accepts()).await);
                assert_eq!(told(one), told(other), "{happens:?} {at}");
            }
        });
    }
}

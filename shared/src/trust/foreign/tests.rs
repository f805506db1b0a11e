use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use serde_json::json;

use super::*;
use crate::encoding::base64url;
use crate::port::{Fault, FaultKind, Read};
use crate::trust::{Envelope, Stale};

const NOW: i64 = 1_800_000_000;
const GATE: &str = "https://gate.example";
const TEAM: &str = "https://team.cloudflareaccess.com";
const STS: &str = "https://0f9c.tokens.sts.global.api.aws";
const ADA: &str = "7335d417-61da-459d-899c-0a01c76a2f94";
const UNKNOWN: Refusal = Refusal::Credential(Reason::UnknownKey);
const UNKNOWN_TO_ACCESS: Refusal = Refusal::Credential(Reason::Assertion(Flaw::UnknownKey));

#[derive(Default)]
struct Bucket {
    objects: Mutex<HashMap<String, (Vec<u8>, String)>>,
    reads: AtomicUsize,
}

impl ObjectReader for Arc<Bucket> {
    async fn read(&self, key: &str, known: Option<&str>) -> Result<Read, Fault> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match self.objects.lock().unwrap().get(key) {
            None => Err(Fault::new(FaultKind::Denied, "s3", "GetObject")),
            Some((_, etag)) if known == Some(etag) => Ok(Read::Unchanged),
            Some((body, etag)) => Ok(Read::Found { body: body.clone(), etag: etag.clone() }),
        }
    }
}

struct TestClock(AtomicI64);

impl Clock for Arc<TestClock> {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A team of Access and an account of AWS that sign with the same two keys, `k1` and `k2`.
struct World {
    bucket: Arc<Bucket>,
    clock: Arc<TestClock>,
    foreign: Foreign<Arc<Bucket>, Arc<TestClock>>,
    pairs: [&'static RsaKeyPair; 2],
}

impl World {
    fn new() -> Self {
        let (bucket, clock) = (Arc::new(Bucket::default()), Arc::new(TestClock(AtomicI64::new(NOW * 1_000))));
        let foreign = Foreign::new(Arc::clone(&bucket), Arc::clone(&clock));
        let pairs = [0, 1].map(crate::rsa::pair);
        let world = Self { bucket, clock, foreign, pairs };
        let profile = |id: &str, kind: &str, issuer: &str| {
            json!({"id": id, "kind": kind, "issuer": issuer, "algorithms": ["RS256"],
                "jwks_url": "https://keys.example/"})
        };
        let mut access = profile("access", "cloudflare-access", TEAM);
        access["audience"] = json!("0".repeat(64));
        world.put("trust/profiles.json", 1, json!({"profiles": [access, profile("sts", "aws-sts", STS)]}));
        world.mirror(1, &[0]);
        world
    }

    fn put(&self, key: &str, version: i64, body: Value) {
        let envelope = Envelope { version, issued_at: version, not_after: (NOW + 1_000_000) * 1_000, body };
        self.bucket.objects.lock().unwrap().insert(key.to_owned(), (envelope.seal(), version.to_string()));
    }

    /// Publishes these of the keys, as the mirror writes them, for both issuers.
    fn mirror(&self, version: i64, keys: &[usize]) {
        let jwk = |at: &usize| {
            let public = PublicKeyComponents::<Vec<u8>>::from(self.pairs[*at].public_key());
            json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": format!("k{}", at + 1),
                "n": base64url(&public.n), "e": base64url(&public.e)})
        };
        for id in ["access", "sts"] {
            let body = json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()});
            self.put(&format!("trust/issuers/{id}.json"), version, body);
        }
    }

    fn signed(&self, at: usize, claims: &Value) -> String {
        let header = json!({"alg": "RS256", "kid": format!("k{}", at + 1), "typ": "JWT"});
        let input = [&header, claims].map(|part| base64url(part.to_string().as_bytes())).join(".");
        let mut signature = vec![0; self.pairs[at].public_modulus_len()];
        self.pairs[at].sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
        format!("{input}.{}", base64url(&signature))
    }

    /// Whether a person's assertion under this key holds.
    async fn person(&self, at: usize) -> Result<(), Refusal> {
        let claims = json!({"aud": ["0".repeat(64)], "email": "ada@example.com", "exp": NOW + 3_600, "iat": NOW,
            "nbf": NOW, "iss": TEAM, "type": "app", "identity_nonce": "6ei69kawdKzMIAPF", "sub": ADA});
        let verified = self.foreign.access(&self.signed(at, &claims)).await?;
        assert_eq!(verified.person().unwrap().subject, ADA);
        Ok(())
    }

    /// Whether a role's assertion under this key holds, for whom it claims to be.
    async fn role(&self, at: usize) -> Result<(), Refusal> {
        let claims = json!({"iss": STS, "aud": GATE, "sub": "arn:aws:iam::111122223333:role/payments", "iat": NOW,
            "exp": NOW + 300, "jti": "j", "https://sts.amazonaws.com/": {"aws_account": "111122223333"}});
        let verified = self.foreign.workload(&self.signed(at, &claims), STS, GATE).await?;
        assert_eq!(verified.issuer().as_str(), "sts");
        Ok(())
    }

    fn at(&self, millis: i64) {
        self.clock.0.store(NOW * 1_000 + millis, Ordering::SeqCst);
    }

    fn reads(&self) -> usize {
        self.bucket.reads.swap(0, Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_key_that_was_mirrored_a_moment_ago_is_looked_for_and_nobody_looks_twice_in_half_a_minute() {
    let world = World::new();
    assert_eq!((world.person(0).await, world.role(0).await), (Ok(()), Ok(())));
    assert_eq!(world.reads(), 3, "profiles, and the keys of both");
    for (times, reads) in [(0, 2), (1, 0), (2, 0)] {
        assert_eq!((world.person(1).await, world.role(1).await), (Err(UNKNOWN_TO_ACCESS), Err(UNKNOWN)), "{times}");
        assert_eq!(world.reads(), reads, "{times}");
    }
    world.mirror(2, &[1, 0]);
    world.at(29_999);
    assert_eq!((world.person(1).await, world.role(1).await), (Err(UNKNOWN_TO_ACCESS), Err(UNKNOWN)));
    assert_eq!((world.person(0).await, world.role(0).await), (Ok(()), Ok(())), "which shuts nobody out who is in");
    assert_eq!(world.reads(), 0);
    world.at(30_000);
    assert_eq!((world.person(1).await, world.role(1).await), (Ok(()), Ok(())));
    assert_eq!((world.person(0).await, world.role(0).await), (Ok(()), Ok(())), "both are published");
    assert_eq!(world.reads(), 2);
    // A retired one is known until the copy is no longer fresh.
    world.mirror(3, &[1]);
    world.at(89_999);
    assert_eq!((world.person(0).await, world.role(0).await), (Ok(()), Ok(())));
    world.at(90_000);
    assert_eq!((world.person(0).await, world.role(0).await), (Err(UNKNOWN_TO_ACCESS), Err(UNKNOWN)));
    assert_eq!((world.person(1).await, world.role(1).await), (Ok(()), Ok(())));
}

#[tokio::test]
async fn nothing_else_that_is_wrong_makes_anybody_look_again() {
    let world = World::new();
    assert_eq!((world.person(0).await, world.role(0).await), (Ok(()), Ok(())));
    world.reads();
    let (person, role) = (json!({"aud": ["0".repeat(64)], "iss": TEAM}), json!({"iss": STS, "aud": GATE}));
    let of = |at, claims: &Value| world.signed(at, claims);
    for assertion in [of(0, &person), of(0, &role), of(1, &json!({"iss": "https://other.example"})), "x".to_owned()] {
        assert!(
            world.foreign.access(&assertion).await.is_err()
                && world.foreign.workload(&assertion, STS, GATE).await.is_err()
        );
    }
    assert_eq!(world.reads(), 0);
    let stranger = world.foreign.workload(&of(0, &role), "https://other.example", GATE).await;
    assert_eq!(stranger, Err(Refusal::Credential(Reason::WrongIssuer)));
}

#[tokio::test]
async fn without_profiles_or_keys_nobody_is_judged_and_the_clock_is_the_decisions_own() {
    let world = World::new();
    assert_eq!(world.foreign.now(), Timestamp::from_seconds(NOW));
    world.bucket.objects.lock().unwrap().retain(|key, _| key == "trust/profiles.json");
    let unread = Refusal::Stale(Stale("trust/issuers/"));
    assert_eq!((world.person(0).await, world.role(0).await), (Err(unread), Err(unread)));
    let world = World::new();
    world.bucket.objects.lock().unwrap().remove("trust/profiles.json");
    let unread = Refusal::Stale(Stale("trust/profiles.json"));
    assert_eq!((world.person(0).await, world.role(0).await), (Err(unread), Err(unread)));
}

#[test]
fn keys_serve_the_use_that_they_are_published_for() {
    let world = World::new();
    world.mirror(2, &[0]);
    let bytes = world.bucket.objects.lock().unwrap()["trust/issuers/access.json"].0.clone();
    let mut body = Envelope::open(&bytes).unwrap().body;
    let keys = IssuerKeys::parse(&body).unwrap();
    assert!(keys.of(Usage::Signature).find("k1").is_some() && keys.of(Usage::JwtSvid).find("k1").is_none());
    body["keys"][0]["use"] = json!("jwt-svid");
    let keys = IssuerKeys::parse(&body).unwrap();
    assert!(keys.of(Usage::Signature).find("k1").is_none() && keys.of(Usage::JwtSvid).find("k1").is_some());
}

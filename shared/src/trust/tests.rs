use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use serde_json::json;

use super::*;
use crate::details::Details;
use crate::device::Device;
use crate::jwt::Kind;
use crate::name::{Groups, Tenant};
use crate::port::{Fault, FaultKind, Read};
use crate::scope::Scopes;

type Put = Box<dyn Fn(&Bucket)>;

struct TestClock(AtomicI64);

impl Clock for Arc<TestClock> {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
struct Bucket {
    objects: Mutex<HashMap<String, (Vec<u8>, String)>>,
    down: std::sync::atomic::AtomicBool,
    /// Milliseconds until it answers.
    slow: AtomicI64,
    reads: AtomicUsize,
}

impl Bucket {
    fn put(&self, version: i64, not_after: i64, body: Value) {
        let envelope = Envelope { version, issued_at: version, not_after, body };
        self.put_raw(envelope.seal());
    }

    fn put_raw(&self, bytes: Vec<u8>) {
        let etag = format!("\"{}\"", self.objects.lock().unwrap().len() + bytes.len() * 7 + bytes[12] as usize);
        self.objects.lock().unwrap().insert(Revocations::KEY.to_owned(), (bytes, etag));
    }
}

impl ObjectReader for Arc<Bucket> {
    async fn read(&self, key: &str, known: Option<&str>) -> Result<Read, Fault> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let slow = u64::try_from(self.slow.load(Ordering::SeqCst)).unwrap();
        if slow > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(slow)).await;
        }
        if self.down.load(Ordering::SeqCst) {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "GetObject"));
        }
        Ok(match self.objects.lock().unwrap().get(key) {
            None => Read::Missing,
            Some((_, etag)) if known == Some(etag) => Read::Unchanged,
            Some((body, etag)) => Read::Found { body: body.clone(), etag: etag.clone() },
        })
    }
}

struct World {
    bucket: Arc<Bucket>,
    clock: Arc<TestClock>,
    cached: Cached<Revocations>,
}

const START: i64 = 1_800_000_000_000;

impl World {
    fn new() -> Self {
        let bucket = Arc::new(Bucket::default());
        bucket.put(1, START + 10_000_000, json!({"kid":["a"]}));
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        Self { bucket, clock, cached: Cached::default() }
    }

    fn at(&self, millis: i64) {
        self.clock.0.store(START + millis, Ordering::SeqCst);
    }

    /// Whether the key is listed as dropped.
    async fn holds(&self, kid: &str) -> Result<bool, Stale> {
        let token = AccessToken { kid: kid.into(), ..token() };
        self.cached.current(&self.bucket, &self.clock).await.map(|held| held.hits(&token))
    }

    fn reads(&self) -> usize {
        self.bucket.reads.load(Ordering::SeqCst)
    }
}

fn token() -> AccessToken {
    AccessToken {
        kid: "k".into(),
        subject: "s".into(),
        client_id: "c".into(),
        jti: "j".into(),
        issued_at: Timestamp::from_seconds(100),
        expires_at: Timestamp::from_seconds(400),
        scopes: Scopes::default(),
        tenant: Tenant::parse("acme").unwrap(),
        kind: Kind::Machine,
        session: Some("sid".into()),
        groups: Groups::default(),
        thumbprint: None,
        service: None,
        device: Some(Device::parse(&json!({"id":"d","source":"s","checked_at":1})).unwrap()),
        details: Details::default(),
    }
}

#[tokio::test]
async fn within_five_seconds_nothing_is_read_and_after_that_the_change_is_seen() {
    let world = World::new();
    assert_eq!(world.holds("a").await, Ok(true));
    world.bucket.put(2, START + 10_000_000, json!({"kid":["bb"]}));
    world.at(4_999);
    assert_eq!((world.holds("bb").await, world.reads()), (Ok(false), 1));
    world.at(5_000);
    assert_eq!((world.holds("bb").await, world.reads()), (Ok(true), 2));
}

#[tokio::test]
async fn last_good_serves_for_its_time_and_then_nobody_passes() {
    let world = World::new();
    assert_eq!(world.holds("a").await, Ok(true));
    world.bucket.down.store(true, Ordering::SeqCst);
    world.at(300_000);
    assert_eq!(world.holds("a").await, Ok(true));
    world.at(300_001);
    assert_eq!(world.holds("a").await, Err(Stale("trust/revocations.json")));
    world.bucket.down.store(false, Ordering::SeqCst);
    assert_eq!(world.holds("a").await, Ok(true), "and it comes back by itself");
}

#[tokio::test]
async fn an_outage_costs_one_attempt_a_second() {
    let world = World::new();
    assert_eq!(world.holds("a").await, Ok(true));
    world.bucket.down.store(true, Ordering::SeqCst);
    for millis in [5_000, 5_100, 5_999] {
        world.at(millis);
        assert_eq!(world.holds("a").await, Ok(true));
    }
    assert_eq!(world.reads(), 2);
    world.at(6_000);
    assert_eq!((world.holds("a").await, world.reads()), (Ok(true), 3));
}

/// A bucket that answers, but never within the short window: what was revoked must not pass for as long as a copy serves at all.
#[tokio::test]
async fn what_is_far_over_due_is_waited_for_longer_but_not_by_everybody() {
    let world = World::new();
    assert_eq!(world.holds("a").await, Ok(true));
    world.bucket.slow.store(300, Ordering::SeqCst);
    world.bucket.put(2, START + 10_000_000, json!({"kid":["bb"]}));
    for (millis, seen) in [(5_000, false), (14_999, false), (15_999, true)] {
        world.at(millis);
        assert_eq!(world.holds("bb").await, Ok(seen), "{millis}");
    }
    // One that never answers costs one long window in ten seconds.
    world.bucket.slow.store(60_000, Ordering::SeqCst);
    for (millis, long) in [(30_998, false), (32_000, true), (41_999, false), (43_000, true)] {
        world.at(millis);
        let since = std::time::Instant::now();
        assert_eq!(world.holds("bb").await, Ok(true));
        assert_eq!(since.elapsed().as_millis() >= 1_000, long, "{millis}");
    }
}

#[tokio::test]
async fn unchanged_counts_as_read_but_never_past_not_after() {
    let world = World::new();
    world.bucket.put(1, START + 20_000, json!({"kid":["a"]}));
    assert_eq!(world.holds("a").await, Ok(true));
    world.at(19_999);
    assert_eq!(world.holds("a").await, Ok(true));
    world.at(20_000);
    assert!(world.holds("a").await.is_err());
}

#[tokio::test]
async fn an_older_or_malformed_object_leaves_what_is_held() {
    let world = World::new();
    world.bucket.put(5, START + 10_000_000, json!({"kid":["a"]}));
    assert_eq!(world.holds("a").await, Ok(true));
    let refused: Vec<Put> = vec![
        Box::new(|b| b.put(4, START + 10_000_000, json!({"kid":[]}))),
        Box::new(|b| b.put(6, START + 10_000_000, json!({"unknown":{}}))),
        Box::new(|b| b.put(6, START + 10_000_000, json!([]))),
        Box::new(|b| b.put(6, START + 10_000_000, json!({"epochs":[]}))),
        Box::new(|b| b.put_raw(b"not json at all".to_vec())),
        Box::new(|b| b.put_raw(br#"{"version":6,"version":7,"issued_at":1,"not_after":9,"body":{}}"#.to_vec())),
    ];
    for (round, put) in refused.iter().enumerate() {
        put(&world.bucket);
        world.at(10_000 * (i64::try_from(round).unwrap() + 1));
        assert_eq!(world.holds("a").await, Ok(true), "round {round}");
    }
}

#[tokio::test]
async fn without_a_first_read_nobody_passes() {
    let world = World::new();
    world.bucket.down.store(true, Ordering::SeqCst);
    assert!(world.holds("a").await.is_err());
    world.bucket.down.store(false, Ordering::SeqCst);
    world.bucket.objects.lock().unwrap().clear();
    assert!(world.holds("a").await.is_err());
}

#[test]
fn a_token_is_hit_by_any_of_its_values_at_or_before_the_epoch() {
    let token = token();
    use Revoked::{Client, Device, Session, Subject, Tenant as OfTenant, Token};
    for (entries, kid, hit) in [
        (vec![], &[][..], false),
        (vec![(Token, "j", 400)], &[], true),
        (vec![(Token, "j", 0)], &[], true),
        (vec![(Token, "other", 400)], &[], false),
        (vec![], &["k"], true),
        (vec![], &["other"], false),
        (vec![(Subject, "s", 100)], &[], true),
        (vec![(Subject, "s", 99)], &[], false),
        (vec![(Subject, "s", 99), (Subject, "s", 100), (Subject, "s", 98)], &[], true),
        (vec![(Client, "c", 100)], &[], true),
        (vec![(OfTenant, "acme", 101)], &[], true),
        (vec![(Session, "sid", 100)], &[], true),
        (vec![(Device, "d", 100)], &[], true),
        (vec![(Session, "s", 999), (Device, "sid", 999), (Subject, "j", 999)], &[], false),
    ] {
        let body = Revocations::body(entries, kid);
        assert_eq!(Revocations::parse(&body).unwrap().hits(&token), hit, "{body}");
    }
    // Among very many, and at both ends of the order.
    let names: Vec<String> = (0..100_000).map(|number| format!("0198e1a0-0000-7000-8000-{number:012x}")).collect();
    let many = |more: Option<&'static str>| {
        let entries = names.iter().map(String::as_str).chain(more).map(|jti| (Token, jti, 0));
        Revocations::parse(&Revocations::body(entries, &[])).unwrap()
    };
    let every = many(None);
    assert_eq!((every.len(), every.hits(&token)), (100_000, false));
    assert!(many(Some("j")).hits(&token));
    let mut one = token;
    for jti in names {
        one.jti = jti;
        assert!(every.hits(&one), "{}", one.jti);
    }
}

/// By Python's hashlib and base64:
/// `b64(sha256(b"jti:j")[:8] + 4294967295 as >I)` and `b64(sha256(b"sub:s")[:8] + 100 as >I)`, the smaller first.
#[test]
fn the_entries_are_the_known_answer() {
    let body = Revocations::body([(Revoked::Token, "j", 7), (Revoked::Subject, "s", 100)], &["k"]);
    assert_eq!(body, json!({"entries": "hDdrBnDP_nMAAABk9u1ynnC621L_____", "kid": ["k"]}));
}

#[test]
fn an_envelope_of_another_shape_is_refused() {
    for text in [
        "",
        "[]",
        "null",
        "{}",
        r#"{"version":1,"issued_at":1,"not_after":9}"#,
        r#"{"version":1,"issued_at":1,"not_after":9,"body":{},"signed":true}"#,
        r#"{"version":1,"issued_at":1,"not_after":9,"not_after":99,"body":{}}"#,
        r#"{"version":1,"issued_at":1,"not_after":9,"body":{"kid":["k"],"kid":[]}}"#,
        r#"{"version":"1","issued_at":1,"not_after":9,"body":{}}"#,
        r#"{"version":1.5,"issued_at":1,"not_after":9,"body":{}}"#,
        r#"{"version":9223372036854775808,"issued_at":1,"not_after":9,"body":{}}"#,
        r#"{"version":1,"issued_at":1,"not_after":null,"body":{}}"#,
        r#"{"version":1,"issued_at":1,"not_after":9,"body":{}} {}"#,
    ] {
        assert!(Envelope::open(text.as_bytes()).is_err(), "{text}");
    }
    let deep =
        format!(r#"{{"version":1,"issued_at":1,"not_after":9,"body":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert!(Envelope::open(deep.as_bytes()).is_err());
    let large = |length: usize| {
        let rest = length - r#"{"version":1,"issued_at":1,"not_after":9,"body":""}"#.len();
        format!(r#"{{"version":1,"issued_at":1,"not_after":9,"body":"{}"}}"#, "a".repeat(rest))
    };
    assert!(Envelope::open(large(32 * 1024 * 1024).as_bytes()).is_ok());
    assert!(Envelope::open(large(32 * 1024 * 1024 + 1).as_bytes()).is_err());
    assert!(Envelope::open(br#"{"version":1,"issued_at":1,"not_after":9,"body":{}}"#).is_ok());
}

#[test]
fn bodies_of_another_shape_are_refused() {
    for body in [
        json!(null),
        json!([]),
        json!("x"),
        json!({"epochs":{}}),
        json!({"jti":{"j":1}}),
        json!({"entries":[]}),
        json!({"entries":null}),
        json!({"entries":"AAAAAAAAAAAAAAA"}),
        json!({"entries":"AAAAAAAAAAAAAAAA="}),
        // In the wrong order, and one mark twice.
        json!({"entries":"AgAAAAAAAAAAAAAAAQAAAAAAAAAAAAAA"}),
        json!({"entries":"AgAAAAAAAAAAAAAAAgAAAAAAAAAAAAAB"}),
        json!({"kid":{"k":1}}),
        json!({"kid":[1]}),
    ] {
        assert!(Revocations::parse(&body).is_err(), "{body}");
    }
    let key = json!({"kid":"k","alg":"ES256","key":"arn","state":"active","created_at":1});
    let with = |member: &str, value: Value| {
        let mut key = key.clone();
        key[member] = value;
        json!({"keys":[key]})
    };
    assert!(SigningState::parse(&with("kid", json!("k"))).is_ok());
    for body in [
        json!([]),
        json!({}),
        json!({"keys":{}}),
        json!({"keys":[],"more":1}),
        json!({"keys":[["k","ES256","arn","active",1]]}),
        with("state", json!("Active")),
        with("state", json!("revoked")),
        with("state", json!(null)),
        with("private", json!("x")),
        with("created_at", json!("1")),
        with("kid", json!(null)),
        with("jwk", json!([])),
    ] {
        assert!(SigningState::parse(&body).is_err(), "{body}");
    }
}

/// How old a copy may be, of every object (ARCHITECTURE.md).
#[test]
fn each_object_is_read_again_and_serves_unread_for_its_time() {
    use crate::issuer::Profiles;
    for (key, fresh, last_good, expected) in [
        (OwnKeys::KEY, OwnKeys::FRESH, OwnKeys::LAST_GOOD, ("trust/keys.json", 60, 3_600)),
        (Profiles::KEY, Profiles::FRESH, Profiles::LAST_GOOD, ("trust/profiles.json", 60, 86_400)),
        (Posture::KEY, Posture::FRESH, Posture::LAST_GOOD, ("trust/posture.json", 60, 3_600)),
        (Revocations::KEY, Revocations::FRESH, Revocations::LAST_GOOD, ("trust/revocations.json", 5, 300)),
        (SigningState::KEY, SigningState::FRESH, SigningState::LAST_GOOD, ("trust/signing-state.json", 60, 3_600)),
    ] {
        assert_eq!((key, fresh, last_good), (expected.0, expected.1 * 1_000, expected.2 * 1_000));
    }
    assert_eq!((IssuerKeys::FRESH, IssuerKeys::LAST_GOOD), (60_000, i64::MAX), "until their own end");
}

#[test]
fn a_refusal_is_named_by_what_it_is_for() {
    assert_eq!(Refusal::Credential(Reason::Revoked).as_str(), "token_revoked");
    assert_eq!(Refusal::Stale(Stale("trust/keys.json")).as_str(), "trust_stale");
}

//! What is mirrored, what is refused, and what stays when an issuer fails.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use issuer_keys::{LIFE, Mirror, RENEWED, read_key_set};
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::{Clock as _, Timestamp};
use shared::encoding::base64url;
use shared::jwks::{Algorithm, KeySet, Usage};
use shared::port::{Document, Fault, FaultKind, Fetch, ObjectReader, ObjectWriter, Precondition, Read, Written};
use shared::trust::Envelope;
use shared::url::HttpsUrl;
use testkit::{FixedClock, Issuer, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const PROFILES: &str = "trust/profiles.json";
const ACCESS: &str = "trust/issuers/access.json";
const WORK: &str = "trust/issuers/work.json";
const ACCESS_URL: &str = "https://team.cloudflareaccess.com/cdn-cgi/access/certs";
const WORK_URL: &str = "https://issuer.example/keys";

/// The public web as a table of documents.
#[derive(Clone, Default)]
struct Web(Arc<Mutex<BTreeMap<String, Document>>>);

impl Web {
    fn serve(&self, url: &str, keys: &[Value]) {
        self.serve_raw(url, Some("application/json"), json!({ "keys": keys, "public_cert": {} }).to_string().into());
    }

    fn serve_raw(&self, url: &str, content_type: Option<&str>, body: Vec<u8>) {
        let document = Document { content_type: content_type.map(str::to_owned), body };
        self.0.lock().unwrap().insert(url.to_owned(), document);
    }

    fn down(&self, url: &str) {
        self.0.lock().unwrap().remove(url);
    }
}

impl Fetch for Web {
    async fn get(&self, url: &HttpsUrl, longest: usize) -> Result<Document, Fault> {
        let found = self.0.lock().unwrap().get(url.as_str()).cloned();
        let found = found.ok_or(Fault::new(FaultKind::Unavailable, "https", "Get"))?;
        if found.body.len() > longest { Err(Fault::new(FaultKind::Invalid, "https", "Get")) } else { Ok(found) }
    }
}

/// A bucket that answers as S3 does to a role that may not list.
#[derive(Clone, Default)]
struct Unlisted(TrustBucket);

impl ObjectReader for Unlisted {
    async fn read(&self, key: &str, known: Option<&str>) -> Result<Read, Fault> {
        match self.0.read(key, known).await? {
            Read::Missing => Err(Fault::new(FaultKind::Denied, "s3", "GetObject")),
            read => Ok(read),
        }
    }
}

impl ObjectWriter for Unlisted {
    async fn write(&self, key: &str, body: Vec<u8>, when: Precondition) -> Result<Written, Fault> {
        self.0.write(key, body, when).await
    }
}

struct World {
    web: Web,
    bucket: TrustBucket,
    clock: FixedClock,
    mirror: Mirror<Web, Unlisted, FixedClock>,
}

impl World {
    fn new() -> Self {
        let (web, bucket, clock) = (Web::default(), TrustBucket::default(), FixedClock::at(NOW));
        let mirror = Mirror { fetch: web.clone(), bucket: Unlisted(bucket.clone()), clock: clock.clone() };
        let world = Self { web, bucket, clock, mirror };
        world.profiles(&[access(), work()]);
        world.web.serve(ACCESS_URL, &[rsa("a-1"), rsa("a-2")]);
        world.web.serve(WORK_URL, &[Issuer::new("w-1").jwk()]);
        world
    }

    fn profiles(&self, foreign: &[Value]) {
        let own = json!({ "id": "own", "issuer": "https://gate.example", "audience": "a", "algorithms": ["RS256"] });
        let profiles = [&[own], foreign].concat();
        let body = json!({ "profiles": profiles });
        let at = self.clock.now().millis();
        self.bucket.put(PROFILES, Envelope { version: at, issued_at: at, not_after: at + 86_400_000, body }.seal());
    }

    async fn run(&self) -> Result<Value, Failure> {
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        self.mirror.handle(json!({ "source": "aws.events" }), &invocation).await
    }

    fn kids(&self, key: &str) -> Vec<String> {
        let object = self.bucket.json(key);
        let keys = object["body"]["keys"].as_array().cloned().unwrap_or_default();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

fn access() -> Value {
    json!({ "id": "access", "kind": "cloudflare-access", "issuer": "https://team.cloudflareaccess.com",
        "audience": "0123456789abcdef".repeat(4), "algorithms": ["RS256"], "jwks_url": ACCESS_URL })
}

fn work() -> Value {
    json!({ "id": "work", "kind": "generic", "issuer": "https://issuer.example", "audience": "https://gate.example",
        "algorithms": ["ES256", "ES384"], "jwks_url": WORK_URL })
}

/// A public RSA key as Cloudflare publishes it.
fn rsa(kid: &str) -> Value {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    json!({ "kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": base64url(&public.n), "e": base64url(&public.e) })
}

fn document(body: impl Into<Vec<u8>>) -> Document {
    Document { content_type: Some("application/json".into()), body: body.into() }
}

#[tokio::test]
async fn every_issuers_keys_are_mirrored_in_the_envelope() {
    let world = World::new();
    assert_eq!(world.run().await.unwrap(), json!({ "mirrored": ["access", "work"] }));
    assert_eq!(world.bucket.take_writes(), [ACCESS, WORK], "and nothing else is written");
    let object = world.bucket.json(ACCESS);
    assert_eq!((&object["version"], &object["issued_at"]), (&json!(NOW.millis()), &json!(NOW.millis())));
    assert_eq!(object["not_after"], NOW.millis() + LIFE);
    assert_eq!(object["body"].as_object().unwrap().keys().collect::<Vec<_>>(), ["keys"], "no certificates");
    let keys = KeySet::parse(&object["body"], &[Algorithm::Rs256]).unwrap();
    assert_eq!(keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), ["a-1", "a-2"]);
    assert_eq!(world.kids(WORK), ["w-1"]);
}

#[tokio::test]
async fn a_rotated_key_comes_with_the_next_run_and_the_version_rises() {
    let world = World::new();
    world.run().await.unwrap();
    let first = world.bucket.json(ACCESS);
    world.web.serve(ACCESS_URL, &[rsa("a-2"), rsa("a-3")]);
    world.clock.advance(3_600);
    world.run().await.unwrap();
    assert_eq!(world.kids(ACCESS), ["a-2", "a-3"]);
    let second = world.bucket.json(ACCESS);
    assert!(second["version"].as_i64() > first["version"].as_i64());
    assert_eq!(second["not_after"].as_i64().unwrap() - first["not_after"].as_i64().unwrap(), 3_600_000);
    world.clock.set(NOW.plus_seconds(-60));
    world.run().await.unwrap();
    let third = world.bucket.json(ACCESS);
    assert_eq!(
        third["version"].as_i64().unwrap(),
        second["version"].as_i64().unwrap() + 1,
        "also when the clock goes back"
    );
}

#[tokio::test]
async fn what_did_not_change_is_written_once_an_hour_and_what_did_at_once() {
    let world = World::new();
    world.run().await.unwrap();
    assert_eq!(world.bucket.take_writes(), [ACCESS, WORK]);
    let first = world.bucket.text(ACCESS);
    for run in 1..12 {
        world.clock.advance(300);
        assert_eq!(world.run().await.unwrap(), json!({ "mirrored": ["access", "work"] }), "run {run}");
        assert!(world.bucket.take_writes().is_empty(), "run {run}");
    }
    assert_eq!(world.bucket.text(ACCESS), first, "the tag by which verifiers keep it stays");
    world.clock.advance(300);
    world.run().await.unwrap();
    assert_eq!(world.bucket.take_writes(), [ACCESS, WORK]);
    let renewed = world.bucket.json(ACCESS);
    assert_eq!(renewed["not_after"], NOW.millis() + RENEWED + LIFE);

    // A key more, a key less, and the same name with another key behind it.
    let (one, other) = (rsa("a-1"), rsa("a-2"));
    world.web.serve(ACCESS_URL, &[one.clone(), other.clone()]);
    world.run().await.unwrap();
    world.web.serve(ACCESS_URL, &[other.clone(), one.clone()]);
    world.bucket.take_writes();
    world.run().await.unwrap();
    assert!(world.bucket.take_writes().is_empty(), "the same ones in another order");
    for keys in [vec![one.clone(), other.clone(), rsa("a-3")], vec![one.clone(), other], vec![one], vec![rsa("a-1")]] {
        world.web.serve(ACCESS_URL, &keys);
        world.clock.advance(300);
        world.run().await.unwrap();
        assert_eq!(world.bucket.take_writes(), [ACCESS]);
        assert_eq!(world.bucket.json(ACCESS)["body"]["keys"][0]["n"], keys[0]["n"]);
    }
}

#[tokio::test]
async fn keys_that_end_too_early_or_too_late_are_written_anew_though_they_are_the_same() {
    for (what, left) in [
        ("ended", -1),
        ("an hour old", LIFE - RENEWED),
        ("of a clock that was ahead", LIFE + 1),
        ("for ever", i64::MAX - NOW.millis()),
    ] {
        let world = World::new();
        world.profiles(&[access()]);
        world.run().await.unwrap();
        let body = world.bucket.json(ACCESS)["body"].clone();
        let (version, not_after) = (NOW.millis() - 1, NOW.millis() + left);
        world.bucket.put(ACCESS, Envelope { version, issued_at: version, not_after, body }.seal());
        world.bucket.take_writes();
        world.run().await.unwrap();
        assert_eq!(world.bucket.take_writes(), [ACCESS], "{what}");
        assert_eq!(world.bucket.json(ACCESS)["not_after"], NOW.millis() + LIFE, "{what}");
    }
}

#[tokio::test]
async fn whatever_lies_there_that_the_issuer_does_not_say_is_written_over_at_once() {
    let with = |change: fn(&mut Value)| change;
    for (what, change) in [
        ("a member more", with(|body| body["note"] = json!("x"))),
        ("a key more", with(|body| body["keys"].as_array_mut().unwrap().push(rsa("evil")))),
        ("a key less", with(|body| drop(body["keys"].as_array_mut().unwrap().pop()))),
        ("one key twice", with(|body| body["keys"][1] = body["keys"][0].clone())),
        ("another key by its name", with(|body| body["keys"][0]["n"] = rsa("a-1")["n"].clone())),
        ("another algorithm", with(|body| body["keys"][0]["alg"] = json!("RS512"))),
        ("another use", with(|body| body["keys"][0]["use"] = json!("jwt-svid"))),
        ("no keys", with(|body| *body = json!({}))),
        ("no set", with(|body| *body = json!({ "keys": "a-1" }))),
    ] {
        let world = World::new();
        world.profiles(&[access()]);
        world.run().await.unwrap();
        let good = world.bucket.json(ACCESS)["body"].clone();
        let (mut body, at) = (good.clone(), NOW.millis());
        change(&mut body);
        world.bucket.put(ACCESS, Envelope { version: at, issued_at: at, not_after: at + LIFE, body }.seal());
        world.clock.advance(300);
        world.run().await.unwrap();
        assert_eq!(world.bucket.json(ACCESS)["body"], good, "{what}");
    }
}

#[tokio::test]
async fn a_failing_issuer_keeps_its_last_good_keys_stops_nobody_and_fails_the_run() {
    let good = rsa("a-1");
    let mut private = rsa("a-9");
    private["d"] = json!("AAAA");
    let json = |keys: &[Value]| Some(json!({ "keys": keys }).to_string().into_bytes());
    let short = json!({ "kid": "s", "kty": "RSA", "alg": "RS256", "n": base64url(&[0xff; 128]), "e": "AQAB" });
    let oversized = json!({ "keys": [good], "pad": "x".repeat(256 * 1024) }).to_string().into_bytes();
    let doubled = format!(r#"{{"keys":[{good}],"keys":[{}]}}"#, rsa("evil")).into_bytes();
    for (what, content_type, body) in [
        ("out of reach", "application/json", None),
        ("not JSON", "application/json", Some(b"<html>".to_vec())),
        ("not JSON by its name", "text/html", json(std::slice::from_ref(&good))),
        ("no keys", "application/json", json(&[])),
        ("an array", "application/json", Some(b"[]".to_vec())),
        ("a private key beside good ones", "application/json", json(&[good.clone(), private])),
        ("a symmetric key", "application/json", json(&[good.clone(), json!({ "kty": "oct", "k": "AA", "kid": "o" })])),
        ("one kid twice", "application/json", json(&[good.clone(), good.clone()])),
        ("a weak key", "application/json", json(&[good.clone(), short])),
        ("only keys of other algorithms", "application/json", json(&[Issuer::new("w-1").jwk()])),
        ("too many keys", "application/json", json(&vec![good.clone(); 33])),
        ("more than 256 KB", "application/json", Some(oversized)),
        ("a member twice", "application/json", Some(doubled)),
    ] {
        let world = World::new();
        world.run().await.unwrap();
        let held = world.bucket.text(ACCESS);
        world.bucket.take_writes();
        world.clock.advance(3_600);
        match body {
            None => world.web.down(ACCESS_URL),
            Some(body) => world.web.serve_raw(ACCESS_URL, Some(content_type), body),
        }
        assert_eq!(world.run().await, Err(Failure::UNAVAILABLE), "{what}");
        assert_eq!(world.bucket.text(ACCESS), held, "{what}");
        assert_eq!(world.bucket.take_writes(), [WORK], "{what}: the other issuer is mirrored all the same");
    }
}

#[tokio::test]
async fn without_readable_profiles_nobody_is_asked() {
    let past = Envelope { version: 1, issued_at: 1, not_after: NOW.millis(), body: json!({ "profiles": [work()] }) };
    for (what, object) in [
        ("none", None),
        ("no envelope", Some(b"{}".to_vec())),
        ("past its end", Some(past.seal())),
        ("a wrong profile", {
            let body = json!({ "profiles": [work(), { "id": "x" }] });
            Some(Envelope { not_after: NOW.millis() + 1_000, body, ..past.clone() }.seal())
        }),
    ] {
        let world = World::new();
        match object {
            None => world.bucket.remove(PROFILES),
            Some(object) => world.bucket.put(PROFILES, object),
        }
        assert_eq!(world.run().await, Err(Failure::UNAVAILABLE), "{what}");
        assert!(world.bucket.take_writes().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn without_foreign_issuers_there_is_nothing_to_do() {
    let world = World::new();
    world.profiles(&[]);
    assert_eq!(world.run().await.unwrap(), json!({ "mirrored": [] }));
}

#[tokio::test]
async fn an_unreadable_mirror_is_replaced_and_a_contested_one_is_asked_again() {
    let world = World::new();
    world.bucket.put(ACCESS, "not json");
    world.run().await.unwrap();
    assert_eq!(world.kids(ACCESS), ["a-1", "a-2"]);

    let (bucket, web) = (world.bucket.clone(), world.web.clone());
    world.clock.advance(RENEWED / 1_000);
    world.profiles(&[access()]);
    world.bucket.before_next_write(async move {
        web.serve(ACCESS_URL, &[rsa("a-7")]);
        bucket.put(ACCESS, Envelope { version: 1, issued_at: 1, not_after: 2, body: json!({}) }.seal());
    });
    world.run().await.unwrap();
    assert_eq!(world.kids(ACCESS), ["a-7"], "the issuer was asked again after the other write");
}

#[tokio::test]
async fn a_denial_that_is_none_of_absence_is_a_fault() {
    let world = World::new();
    world.profiles(&[access()]);
    let bucket = world.bucket.clone();
    // The object appears between the denied read and the write: to this role it was there all along.
    world.bucket.before_next_write(async move { bucket.put(ACCESS, "held") });
    assert_eq!(world.run().await, Err(Failure::UNAVAILABLE));
    assert_eq!(world.bucket.text(ACCESS).as_deref(), Some("held"));
}

#[test]
fn a_mirrored_key_has_its_one_algorithm_and_public_members_only() {
    let mut bare = rsa("RSA_0");
    bare.as_object_mut().unwrap().remove("alg");
    bare["x5c"] = json!(["MIIC"]);
    bare["x5u"] = json!("https://evil.example");
    let text = json!({ "keys": [bare, Issuer::new("skipped").jwk()] }).to_string();
    let mirrored = read_key_set(&document(text), &[Algorithm::Rs256], Usage::Signature).unwrap();
    let keys = mirrored["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["alg"], "RS256");
    let mut members: Vec<&String> = keys[0].as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["alg", "e", "kid", "kty", "n", "use"]);
}

#[test]
fn of_a_spiffe_bundle_the_keys_of_jwt_svids_are_mirrored_as_what_they_are() {
    let with = |mut jwk: Value, usage: &str| {
        jwk["use"] = json!(usage);
        jwk.as_object_mut().unwrap().remove("alg");
        jwk
    };
    let mut x509 = with(Issuer::new("x509").jwk(), "x509-svid");
    x509.as_object_mut().unwrap().remove("kid");
    x509["x5c"] = json!(["MIIC"]);
    let keys = [with(Issuer::new("svid").jwk(), "jwt-svid"), x509, Issuer::new("other").jwk()];
    let bundle = document(json!({ "keys": keys, "spiffe_sequence": 7, "spiffe_refresh_hint": 300 }).to_string());
    let mirrored = read_key_set(&bundle, &[Algorithm::Es256], Usage::JwtSvid).unwrap();
    let [key] = mirrored["keys"].as_array().unwrap().as_slice() else { panic!("{mirrored}") };
    assert_eq!((&key["kid"], &key["use"], &key["alg"]), (&json!("svid"), &json!("jwt-svid"), &json!("ES256")));
    assert!(KeySet::parse(&mirrored, &[Algorithm::Es256]).is_err(), "and serves as nothing else");
}

#[test]
fn media_types_of_json_are_told_from_others() {
    let body = json!({ "keys": [rsa("k")] }).to_string();
    for (content_type, good) in [
        (Some("application/json"), true),
        (Some("Application/JSON; charset=utf-8"), true),
        (Some("application/jwk-set+json"), true),
        (Some("text/plain"), false),
        (Some("application/jsonp"), false),
        (Some(""), false),
        (None, false),
    ] {
        let document = Document { content_type: content_type.map(str::to_owned), body: body.clone().into() };
        assert_eq!(read_key_set(&document, &[Algorithm::Rs256], Usage::Signature).is_ok(), good, "{content_type:?}");
    }
}

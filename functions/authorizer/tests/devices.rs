//! The device behind a request: known by the key of its token, judged by the list as it is now.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use authorizer::Authorizer;
use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::{Clock as _, Timestamp};
use shared::digest::sha256;
use shared::encoding::base64url;
use shared::policy::{Bundle, Release};
use shared::trust::{Accepts, Envelope};
use testkit::access::{ADA, ID, TAG, TEAM};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, Team, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const STAGE: &str = "arn:aws:execute-api:us-east-1:111122223333:abc/v1";
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";
const POSTURE: &str = "trust/posture.json";
const ENCRYPTED: &str = r#"forbid (principal, action in Portcullis::Action::"invoke", resource) unless {
    context has device && context.device has disk_encrypted && context.device.disk_encrypted };"#;
const MANAGED: &str = r#"forbid (principal is Portcullis::User, action in Portcullis::Action::"invoke", resource) unless {
    context has device && context.device has managed && context.device.managed && context.now - context.device.checked_at < 900 };"#;

struct World {
    issuer: Issuer,
    laptop: Issuer,
    team: Team,
    bucket: TrustBucket,
    clock: FixedClock,
    authorizer: Authorizer<Cedar, TrustBucket, FixedClock>,
    proofs: AtomicUsize,
}

impl World {
    /// Where acme's own policies are these.
    fn with(own: &[&str]) -> Self {
        let (issuer, bucket, clock, team) =
            (Issuer::new("k1"), TrustBucket::default(), FixedClock::at(NOW), Team::new());
        issuer.publish(&bucket, NOW);
        team.publish(&bucket, NOW);
        let mut bundle = Bundle::shipped().unwrap().to_value();
        let own = own.iter().enumerate().map(|(at, text)| json!({"id": format!("own{at}"), "text": text}));
        bundle["tenants"] = json!({"acme": own.collect::<Vec<_>>()});
        for example in bundle["examples"].as_array_mut().unwrap() {
            example["ask"]["principal"]["tenant"] = json!("initech");
        }
        let bundle = Bundle::parse(&bundle).unwrap();
        let release = Release { version: 1, hash: bundle.hash(), bundle }.to_value();
        issuer.put(&bucket, "trust/policies.json", NOW, json!({"active": release, "candidate": null}));
        let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let authorizer = Authorizer::new(accepts, bucket.clone(), clock.clone());
        Self { issuer, laptop: Issuer::new("h1"), team, bucket, clock, authorizer, proofs: AtomicUsize::default() }
    }

    /// Publishes one device of acme, with the laptop's key.
    fn list(&self, device: &Value, keys: &[String]) {
        let at = self.clock.now();
        let mut claim = json!({"id": "laptop-7", "source": "operator", "checked_at": at.seconds()});
        claim.as_object_mut().unwrap().extend(device.as_object().unwrap().clone());
        let body = json!({"tenants": {"acme": [{"device": claim, "keys": keys}]}});
        let (version, not_after) = (at.millis(), at.millis() + 86_400_000);
        self.bucket.put(POSTURE, Envelope { version, issued_at: version, not_after, body }.seal());
    }

    fn key(&self) -> String {
        self.laptop.thumbprint()
    }

    /// Lets time pass; keys, revocations and policies are published all the while, devices not.
    fn pass(&self, seconds: i64) {
        let held = ["trust/policies.json", "trust/profiles.json", "trust/issuers/access.json"];
        let kept = held.map(|key| (key, self.bucket.text(key)));
        self.clock.advance(seconds);
        self.issuer.publish(&self.bucket, self.clock.now());
        for (key, text) in kept {
            self.bucket.put(key, text.unwrap());
        }
    }

    async fn answer(&self, holder: &Issuer, changes: &Value, assertion: Option<&str>) -> Result<Value, Failure> {
        let now = self.clock.now();
        let mut claims = json!({"cnf": {"jkt": holder.thumbprint()}});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = self.issuer.token(now, &claims);
        let ath = json!({"ath": base64url(&sha256(token.as_bytes()))});
        let jti = format!("p{}", self.proofs.fetch_add(1, Ordering::SeqCst));
        let mut headers = json!({"DPoP": [holder.proof("GET", FILE, &jti, now, &ath)]});
        headers["Authorization"] = json!([format!("DPoP {token}")]);
        headers["Cf-Access-Jwt-Assertion"] = assertion.into_iter().collect();
        let event = json!({"type": "REQUEST", "methodArn": format!("{STAGE}/GET{FILE}"), "resource": "/files/{id}", "path": FILE,
            "httpMethod": "GET", "multiValueHeaders": headers, "requestContext": {"requestId": "g-1"}});
        let invocation = Invocation { request_id: "r".into(), deadline: now, function_arn: String::new() };
        self.authorizer.handle(event, &invocation).await
    }

    /// `Allow`, or the reason why not, and the device that the context names.
    async fn said(&self, holder: &Issuer, changes: Value) -> Result<(String, String), Failure> {
        self.answer(holder, &changes, None).await.map(|answer| read(&answer))
    }

    async fn laptop(&self) -> Result<String, Failure> {
        self.said(&self.laptop, json!({})).await.map(|(said, _)| said)
    }
}

fn read(answer: &Value) -> (String, String) {
    let allowed = answer["policyDocument"]["Statement"][0]["Effect"] == "Allow";
    let said = if allowed { "Allow" } else { answer["context"]["reason"].as_str().unwrap() };
    (said.to_owned(), answer["context"]["device_id"].as_str().unwrap().to_owned())
}

fn ok(said: &str, device: &str) -> Result<(String, String), Failure> {
    Ok((said.to_owned(), device.to_owned()))
}

#[tokio::test]
async fn a_device_is_the_one_on_which_the_key_of_the_token_was_made() {
    let world = World::with(&[ENCRYPTED]);
    world.list(&json!({"disk_encrypted": true}), &[world.key()]);
    assert_eq!(world.said(&world.laptop, json!({})).await, ok("Allow", "laptop-7"));
    let thief = Issuer::new("t1");
    assert_eq!(world.said(&thief, json!({})).await, ok("forbidden", "-"), "another key is on no device");
    // What a token says of a device of the list counts for nothing without the list.
    let says = json!({"device": {"id": "laptop-7", "disk_encrypted": true, "source": "operator", "checked_at": NOW.seconds() + 9}});
    assert_eq!(world.said(&thief, says.clone()).await, ok("forbidden", "-"));
    let tier = json!({"device": {"id": "access", "disk_encrypted": true, "source": "access-tier", "checked_at": NOW.seconds()}});
    assert_eq!(world.said(&thief, tier).await, ok("forbidden", "-"));
    // A token that was issued by a newer list than ours knows better.
    assert_eq!(world.said(&world.laptop, says).await, ok("Allow", "laptop-7"));
    let later = json!({"device": {"id": "laptop-7", "disk_encrypted": false, "source": "operator", "checked_at": NOW.seconds() + 9}});
    assert_eq!(world.said(&world.laptop, later).await, ok("forbidden", "laptop-7"));
    let globex = json!({"tenant": "globex"});
    assert_eq!(world.said(&world.laptop, globex).await, ok("Allow", "-"), "whose list and policies these are not");
}

#[tokio::test]
async fn a_device_that_falls_out_of_compliance_is_refused_within_a_minute() {
    let world = World::with(&[ENCRYPTED]);
    world.list(&json!({"disk_encrypted": true}), &[world.key()]);
    assert_eq!(world.laptop().await.as_deref(), Ok("Allow"));
    world.clock.advance(1);
    world.list(&json!({"disk_encrypted": false}), &[world.key()]);
    world.pass(58);
    assert_eq!(world.laptop().await.as_deref(), Ok("Allow"), "read 59 s ago");
    world.pass(1);
    assert_eq!(world.laptop().await.as_deref(), Ok("forbidden"));
    world.list(&json!({"disk_encrypted": true}), &[world.key()]);
    world.pass(60);
    assert_eq!(world.laptop().await.as_deref(), Ok("Allow"), "and it may come back");
    world.list(&json!({"disk_encrypted": true}), &[]);
    world.pass(60);
    assert_eq!(world.laptop().await.as_deref(), Ok("forbidden"), "the key was taken off it");
}

#[tokio::test]
async fn a_list_that_cannot_be_read_serves_for_an_hour_and_then_nobody_passes_who_is_on_a_device() {
    let world = World::with(&[ENCRYPTED]);
    world.list(&json!({"disk_encrypted": true}), &[world.key()]);
    assert_eq!(world.laptop().await.as_deref(), Ok("Allow"));
    for broken in ["", "{}", r#"{"version":9,"issued_at":9,"not_after":9999999999999,"body":{"tenants":[]}}"#] {
        world.bucket.put(POSTURE, broken);
        world.pass(1_200);
        assert_eq!(world.laptop().await.as_deref(), Ok("Allow"), "{broken:?}");
    }
    world.pass(1);
    assert_eq!(world.laptop().await, Err(Failure::TRUST_STALE));
    world.list(&json!({"disk_encrypted": true}), &[world.key()]);
    world.pass(2);
    assert_eq!(world.laptop().await.as_deref(), Ok("Allow"), "and it comes back by itself");
}

#[tokio::test]
async fn an_older_list_is_not_taken() {
    let world = World::with(&[ENCRYPTED]);
    world.list(&json!({"disk_encrypted": false}), &[world.key()]);
    assert_eq!(world.laptop().await.as_deref(), Ok("forbidden"));
    world.clock.advance(-5);
    world.list(&json!({"disk_encrypted": true}), &[world.key()]);
    world.pass(65);
    assert_eq!(world.laptop().await.as_deref(), Ok("forbidden"));
}

#[tokio::test]
async fn without_a_list_nobody_passes_who_could_be_on_a_device_and_others_do_not_wait_for_it() {
    let world = World::with(&[ENCRYPTED]);
    assert_eq!(world.laptop().await, Err(Failure::TRUST_STALE));
    let plain = World::with(&[]);
    assert_eq!(plain.laptop().await.as_deref(), Ok("Allow"));
    let reads = plain.bucket.reads();
    plain.list(&json!({}), &[plain.key()]);
    assert_eq!(plain.said(&plain.laptop, json!({})).await, ok("Allow", "-"), "no policy looks at a device");
    assert_eq!(plain.bucket.reads(), reads, "so the list is not read");
}

#[tokio::test]
async fn a_candidate_that_looks_at_devices_keeps_nobody_out_without_a_list() {
    let (world, other) = (World::with(&[]), World::with(&[ENCRYPTED]));
    let policies = |world: &World| world.bucket.json("trust/policies.json")["body"].clone();
    let mut body = policies(&world);
    body["candidate"] = policies(&other)["active"].clone();
    world.issuer.put(&world.bucket, "trust/policies.json", NOW, body);
    assert_eq!(world.laptop().await.as_deref(), Ok("Allow"));
    world.list(&json!({"disk_encrypted": false}), &[world.key()]);
    assert_eq!(
        world.said(&world.laptop, json!({})).await,
        ok("Allow", "laptop-7"),
        "and it is read for it where there is one"
    );
}

#[tokio::test]
async fn the_list_is_read_once_a_minute_and_not_for_every_request() {
    let world = World::with(&[ENCRYPTED]);
    world.list(&json!({"disk_encrypted": true}), &[world.key()]);
    assert_eq!(world.laptop().await.as_deref(), Ok("Allow"));
    let reads = world.bucket.reads();
    for _ in 0..3 {
        assert_eq!(world.laptop().await.as_deref(), Ok("Allow"));
    }
    assert_eq!(world.bucket.reads(), reads);
    world.pass(60);
    assert_eq!(world.laptop().await.as_deref(), Ok("Allow"));
    assert_eq!(world.bucket.reads(), reads + 4, "keys, revocations, policies and devices, each once");
}

#[tokio::test]
async fn versions_encryption_and_age_of_a_device_are_what_policy_sees() {
    let own = r#"forbid (principal, action in Portcullis::Action::"invoke", resource) unless {
        context has device && context.device has os && context.device has os_version && context.device has firewall
        && context.device.os == "macOS" && context.device.os_version >= 15000060000100000 && context.device.firewall
        && context.now - context.device.checked_at < 600 };"#;
    let good = json!({"os": "macOS", "os_version": "15.6.1", "firewall": true});
    for (changes, said) in [
        (json!({}), "Allow"),
        (json!({"os_version": "15.6.0"}), "forbidden"),
        (json!({"os_version": "15.10"}), "Allow"),
        (json!({"os_version": "fifteen"}), "forbidden"),
        (json!({"os": "Windows"}), "forbidden"),
        (json!({"firewall": false}), "forbidden"),
        (json!({"checked_at": NOW.seconds() - 599}), "Allow"),
        (json!({"checked_at": NOW.seconds() - 600}), "forbidden"),
    ] {
        let world = World::with(&[own]);
        let mut device = good.clone();
        device.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        world.list(&device, &[world.key()]);
        assert_eq!(world.laptop().await.as_deref(), Ok(said), "{changes}");
    }
}

#[tokio::test]
async fn an_application_for_managed_devices_vouches_for_whoever_comes_through_it_and_only_then() {
    let world = World::with(&[MANAGED]);
    let profile = |kind: &str| {
        let profile = json!({"id": ID, "kind": kind, "issuer": TEAM, "audience": TAG, "algorithms": ["RS256"],
            "jwks_url": format!("{TEAM}/cdn-cgi/access/certs")});
        world.issuer.put(&world.bucket, "trust/profiles.json", world.clock.now(), json!({"profiles": [profile]}));
    };
    world.list(&json!({}), &[]);
    let person = json!({"kind": "human", "sub": format!("access|{ADA}"), "sid": "s1", "client_id": "acme-web"});
    let ada = world.team.person(ADA, "ada@example.com", NOW, &json!({}));
    let ask = async |changes: &Value| {
        let mut claims = person.clone();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        world.answer(&world.laptop, &claims, Some(&ada)).await.map(|answer| read(&answer))
    };
    let says =
        json!({"device": {"id": "access", "managed": true, "source": "access-tier", "checked_at": NOW.seconds()}});
    profile("cloudflare-access");
    assert_eq!(ask(&json!({})).await, ok("forbidden", "-"));
    assert_eq!(ask(&says).await, ok("forbidden", "-"), "the token came through it, this request did not");
    world.clock.advance(1);
    profile("cloudflare-access-managed");
    world.pass(60);
    assert_eq!(ask(&json!({})).await, ok("Allow", "access"));
    world.list(&json!({"managed": false}), &[world.key()]);
    world.pass(60);
    assert_eq!(ask(&json!({})).await, ok("forbidden", "laptop-7"), "what is known of the very device goes first");
    world.list(&json!({}), &[]);
    world.pass(800);
    assert_eq!(ask(&json!({})).await, ok("forbidden", "access"), "an assertion of a quarter of an hour ago");
}

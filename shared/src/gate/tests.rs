use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;
use crate::details::FieldAction;
use crate::digest::sha256;
use crate::encoding::base64url;
use crate::http::Headers;
use crate::port::{Fault, FaultKind, Read};
use crate::trust::{Envelope, Revocations, Revoked, Stale};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://gate.example";
const FILE: &str = "01920000-0000-7000-8000-0000000000f1";

#[derive(Default)]
struct Bucket {
    objects: Mutex<HashMap<&'static str, (Vec<u8>, i64)>>,
    down: AtomicBool,
}

impl ObjectReader for Arc<Bucket> {
    async fn read(&self, key: &str, known: Option<&str>) -> Result<Read, Fault> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "GetObject"));
        }
        Ok(match self.objects.lock().unwrap().get(key) {
            None => Read::Missing,
            Some((_, etag)) if known == Some(etag.to_string().as_str()) => Read::Unchanged,
            Some((body, etag)) => Read::Found { body: body.clone(), etag: etag.to_string() },
        })
    }
}

struct TestClock(AtomicI64);

impl Clock for Arc<TestClock> {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(self.0.load(Ordering::SeqCst))
    }
}

/// A gate, what it reads, and the key that signs.
struct World {
    bucket: Arc<Bucket>,
    clock: Arc<TestClock>,
    gate: Gate<Arc<Bucket>, Arc<TestClock>>,
    key: Ed25519KeyPair,
}

fn jwk(key: &Ed25519KeyPair) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().as_ref()), "kid": "k", "alg": "EdDSA"})
}

impl World {
    fn new() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let (bucket, clock) = (Arc::new(Bucket::default()), Arc::new(TestClock(AtomicI64::new(NOW))));
        let accepts = Accepts { issuer: ISSUER.to_owned(), audience: "https://api.example".to_owned() };
        let gate = Gate::new("test", accepts, Arc::clone(&bucket), Arc::clone(&clock));
        let world = Self { bucket, clock, gate, key };
        world.put("trust/keys.json", 1, json!({ "keys": [jwk(&world.key)] }));
        world.put("trust/revocations.json", 1, Revocations::body([], &[]));
        world
    }

    fn put(&self, key: &'static str, version: i64, body: Value) {
        let envelope = Envelope { version, issued_at: version, not_after: (NOW + 1_000_000) * 1_000, body };
        self.bucket.objects.lock().unwrap().insert(key, (envelope.seal(), version));
    }

    /// What the token says besides what every one says.
    fn token(&self, more: &Value) -> String {
        let mut claims = json!({"iss": ISSUER, "aud": "https://api.example", "sub": "s", "client_id": "c", "jti": "j",
            "iat": NOW, "exp": NOW + 300, "scope": "files:read app", "tenant": "acme", "kind": "machine"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.signed(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k"}), &claims)
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let message =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
        format!("{message}.{}", base64url(self.key.sign(message.as_bytes()).as_ref()))
    }

    async fn admit(&self, more: Value) -> Result<Caller, Code> {
        self.gate.admit(&request(&self.token(&more)), &[]).await.map_err(|problem| problem.code)
    }
}

/// A request with this token, that passed the authorizer.
fn request(token: &str) -> Request {
    Request {
        method: "GET".to_owned(),
        resource: "/files/{id}".to_owned(),
        path: format!("/files/{FILE}"),
        path_parameters: [("id".to_owned(), FILE.to_owned())].into(),
        query: Vec::new(),
        headers: [("Authorization".to_owned(), format!("Bearer {token}"))].into_iter().collect(),
        body: Vec::new(),
        authorizer: Some(crate::http::AuthorizerContext { jti: "j".to_owned(), subject: "s".to_owned() }),
        request_id: "r".to_owned(),
    }
}

#[tokio::test]
async fn a_caller_is_whom_the_token_names() {
    let world = World::new();
    let device = json!({"id": "d", "source": "operator", "checked_at": NOW});
    let caller = world.admit(json!({"kind": "human", "sid": "one", "device": device})).await.unwrap();
    assert_eq!((caller.tenant.as_str(), caller.subject.as_str(), caller.client_id.as_str()), ("acme", "s", "c"));
    assert_eq!((caller.jti.as_str(), caller.session.as_deref(), caller.kind), ("j", Some("one"), Kind::Human));
    assert_eq!(caller.scopes.to_string(), "files:read app");
    assert_eq!((caller.device.unwrap().id.as_str(), caller.expires_at.seconds()), ("d", NOW + 300));
    assert!(caller.details.is_empty());
}

#[tokio::test]
async fn the_authorizer_must_have_passed_this_very_token_of_this_very_subject() {
    let world = World::new();
    let token = world.token(&json!({}));
    let context = |jti: &str, subject: &str| {
        Some(crate::http::AuthorizerContext { jti: jti.to_owned(), subject: subject.to_owned() })
    };
    for authorizer in [None, context("other", "s"), context("j", "other"), context("s", "j")] {
        let request = Request { authorizer, ..request(&token) };
        let refused = world.gate.admit(&request, &[]).await.unwrap_err();
        assert_eq!(refused.code, Code::AuthorizerMissing, "{:?}", request.authorizer);
    }
}

#[tokio::test]
async fn one_of_the_accepted_scopes_is_enough_and_another_is_not() {
    let world = World::new();
    let request = request(&world.token(&json!({})));
    for (accepted, passes) in [
        (&[][..], true),
        (&["files:read"], true),
        (&["files:write", "app"], true),
        (&["files:write"], false),
        (&["files:read:tenant", "fields:decrypt"], false),
    ] {
        let admitted = world.gate.admit(&request, accepted).await;
        assert_eq!(
            admitted.map_err(|problem| problem.code).err(),
            (!passes).then_some(Code::InsufficientScope),
            "{accepted:?}"
        );
    }
}

#[tokio::test]
async fn a_narrowed_token_opens_what_it_names_and_nothing_else() {
    let world = World::new();
    let file = json!({"type": "portcullis_file", "actions": ["read"], "file_id": FILE});
    let field = json!({"type": "portcullis_field", "actions": ["decrypt"], "table": "users", "column": "email"});
    let narrowed = request(&world.token(&json!({"authorization_details": [file]})));
    let of_fields = request(&world.token(&json!({"authorization_details": [field]})));
    let whole = request(&world.token(&json!({})));
    let forbidden = |admitted: Result<Caller, Problem>| admitted.map_err(|problem| problem.code).err();
    let gate = &world.gate;
    assert_eq!(forbidden(gate.admit(&narrowed, &[]).await), Some(Code::Forbidden));
    assert_eq!(forbidden(gate.admit_file(&narrowed, &[], FileAction::Read).await), None);
    assert_eq!(forbidden(gate.admit_file(&narrowed, &[], FileAction::Write).await), Some(Code::Forbidden));
    assert_eq!(
        forbidden(gate.admit_file(&narrowed, &["files:write"], FileAction::Read).await),
        Some(Code::InsufficientScope)
    );
    assert_eq!(forbidden(gate.admit_file(&of_fields, &[], FileAction::Read).await), Some(Code::Forbidden));
    assert_eq!(forbidden(gate.admit_file(&whole, &[], FileAction::Write).await), None);
    for id in [None, Some("01920000-0000-7000-8000-0000000000f2"), Some("no id")] {
        let path_parameters = id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect();
        let other = Request { path_parameters, ..narrowed.clone() };
        assert_eq!(forbidden(gate.admit_file(&other, &[], FileAction::Read).await), Some(Code::Forbidden), "{id:?}");
    }
    // Whoever judges the details itself is told them.
    let caller = gate.admit_narrowed(&of_fields, &["app"]).await.unwrap();
    assert!(caller.details.admit_field(FieldAction::Decrypt, "users", "email", "7"));
    assert!(!caller.details.admit_field(FieldAction::Encrypt, "users", "email", "7"));
}

#[tokio::test]
async fn a_direct_invocation_is_a_machines_with_a_plain_token() {
    let world = World::new();
    let admit = async |more: Value| {
        let token = world.token(&more);
        world.gate.admit_direct(&token, "r").await.map_err(|problem| problem.code)
    };
    assert_eq!(admit(json!({})).await.unwrap().subject, "s");
    let file = json!({"type": "portcullis_file", "actions": ["read"], "file_id": FILE});
    for more in [
        json!({"cnf": {"jkt": "a".repeat(43)}}),
        json!({"kind": "human"}),
        json!({"service": format!("{}.access", "0".repeat(32))}),
        json!({"authorization_details": [file]}),
        json!({"exp": NOW}),
    ] {
        assert_eq!(admit(more.clone()).await, Err(Code::Unauthorized), "{more}");
    }
    assert_eq!(world.gate.admit_direct("a.b.c", "r").await.map_err(|p| p.code), Err(Code::Unauthorized));
}

#[tokio::test]
async fn a_token_that_is_not_to_be_believed_is_unauthorized() {
    let world = World::new();
    for more in [
        json!({"iss": "https://other.example"}),
        json!({"aud": "other"}),
        json!({"exp": NOW}),
        json!({"iat": NOW + 11}),
    ] {
        assert_eq!(world.admit(more.clone()).await, Err(Code::Unauthorized), "{more}");
    }
    let two = [("Authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")];
    for headers in [&[][..], &two, &[("Authorization", "Basic a")]] {
        let headers: Headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let refused = world.gate.admit(&Request { headers, ..request("") }, &[]).await.unwrap_err();
        assert_eq!(refused.code, Code::Unauthorized);
    }
}

#[tokio::test]
async fn a_bound_token_passes_with_a_proof_over_this_request_once() {
    let world = World::new();
    let thumbprint = {
        let x = base64url(world.key.public_key().as_ref());
        base64url(&sha256(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes()))
    };
    let token = world.token(&json!({"cnf": {"jkt": thumbprint}}));
    let own = json!({"kty": "OKP", "crv": "Ed25519", "x": jwk(&world.key)["x"]});
    let proof = |path: &str, jti: &str| {
        world.signed(
            &json!({"alg": "EdDSA", "typ": "dpop+jwt", "jwk": own}),
            &json!({"htm": "GET", "htu": format!("{ISSUER}{path}"), "jti": jti, "iat": NOW,
                "ath": base64url(&sha256(token.as_bytes()))}),
        )
    };
    let sent = async |proof: String| {
        let headers = [("Authorization", format!("DPoP {token}")), ("DPoP", proof)];
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        world.gate.admit(&Request { headers, ..request("") }, &[]).await.map_err(|problem| problem.code)
    };
    let path = format!("/files/{FILE}");
    assert!(sent(proof(&path, "1")).await.is_ok());
    assert_eq!(sent(proof(&path, "1")).await, Err(Code::Unauthorized), "replayed");
    assert_eq!(sent(proof("/files/other", "2")).await, Err(Code::Unauthorized), "over another request");
    assert!(sent(proof(&path, "3")).await.is_ok());
    assert_eq!(
        world.gate.admit(&request(&token), &[]).await.map_err(|p| p.code),
        Err(Code::Unauthorized),
        "as a bearer"
    );
}

#[tokio::test]
async fn a_token_that_was_verified_before_passes_only_while_all_that_it_hung_on_holds() {
    let world = World::new();
    let seconds = |after: i64| world.clock.0.store(NOW + after, Ordering::SeqCst);
    for after in [0, 1, 299] {
        seconds(after);
        assert!(world.admit(json!({})).await.is_ok(), "{after}");
    }
    seconds(300);
    assert_eq!(world.admit(json!({})).await, Err(Code::Unauthorized), "expired");
    seconds(299);
    assert!(world.admit(json!({})).await.is_ok(), "the clock is what counts");

    // Revoked: by its id, and everybody's of its client.
    for (version, revoked, value) in [(2, Revoked::Token, "j"), (3, Revoked::Client, "c"), (4, Revoked::Tenant, "acme")]
    {
        let world = World::new();
        assert!(world.admit(json!({})).await.is_ok());
        world.put("trust/revocations.json", version, Revocations::body([(revoked, value, NOW)], &[]));
        world.clock.0.store(NOW + 5, Ordering::SeqCst);
        assert_eq!(world.admit(json!({})).await, Err(Code::Unauthorized), "{value}");
        assert!(world.gate.trust.genuine(&world.token(&json!({})), &world.gate.accepts).await.is_ok(), "to be ended");
    }

    // Another key under the same id.
    let world = World::new();
    assert!(world.admit(json!({})).await.is_ok());
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    world.put("trust/keys.json", 2, json!({ "keys": [jwk(&other)] }));
    world.clock.0.store(NOW + 60, Ordering::SeqCst);
    assert_eq!(world.admit(json!({})).await, Err(Code::Unauthorized), "its key is gone");
    world.put("trust/keys.json", 3, json!({ "keys": [jwk(&world.key)] }));
    world.clock.0.store(NOW + 120, Ordering::SeqCst);
    assert!(world.admit(json!({})).await.is_ok(), "its key is back");
}

#[tokio::test]
async fn without_trust_data_nobody_is_judged() {
    let world = World::new();
    world.bucket.down.store(true, Ordering::SeqCst);
    assert_eq!(world.admit(json!({})).await, Err(Code::TrustStale));
    let token = world.token(&json!({}));
    assert_eq!(world.gate.admit_direct(&token, "r").await.map_err(|problem| problem.code), Err(Code::TrustStale));
    let genuine = world.gate.trust.genuine(&token, &world.gate.accepts).await;
    assert_eq!(genuine, Err(Refusal::Stale(Stale("trust/keys.json"))));

    // Whoever ends a token needs its key alone.
    let world = World::new();
    world.bucket.objects.lock().unwrap().remove("trust/revocations.json");
    assert_eq!(world.admit(json!({})).await, Err(Code::TrustStale));
    let ended = world.gate.trust.genuine(&world.token(&json!({})), &world.gate.accepts).await;
    assert_eq!(ended.map(|token| token.jti), Ok("j".to_owned()));
    let expired =
        world.gate.trust.genuine(&world.token(&json!({"iat": NOW - 300, "exp": NOW})), &world.gate.accepts).await;
    assert_eq!(expired, Err(Refusal::Credential(Reason::Expired)));
}

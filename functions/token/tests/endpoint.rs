//! The token endpoint, request by request.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use std::sync::Arc;

use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Api, Handler as _, Invocation, Routes as _};
use shared::clock::{Clock as _, Timestamp};
use shared::entropy::SystemEntropy;
use shared::http::{Request, Response};
use shared::jwks::{Algorithm, KeySet};
use shared::jwt;
use shared::policy::{Judge, Policing};
use shared::trust::{Revocations, Revoked};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, Registry, TrustBucket};
use token::{Token, config::Settings};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn policies(bucket: &TrustBucket, clock: &FixedClock) -> Arc<dyn Judge> {
    Arc::new(Policing::<Cedar, _, _>::new(bucket.clone(), clock.clone()))
}

type Endpoint = Token<Registry, Issuer, TrustBucket, FixedClock, SystemEntropy>;

/// Breaks or mends a part of the world.
type Switch = fn(&World, bool);

struct World {
    issuer: Issuer,
    client: Issuer,
    registry: Registry,
    bucket: TrustBucket,
    endpoint: Endpoint,
}

impl World {
    fn new() -> Self {
        let (issuer, client) = (Issuer::new("k1"), Issuer::new("c1"));
        let (registry, bucket) = (Registry::with_tenant("acme"), TrustBucket::default());
        issuer.publish(&bucket, NOW);
        let world_settings = Settings { issuer: ISSUER.into(), audience: AUDIENCE.into(), algorithm: Algorithm::Es256 };
        let clock = FixedClock::at(NOW);
        let endpoint = Token::new(
            world_settings,
            registry.clone(),
            issuer.clone(),
            bucket.clone(),
            policies(&bucket, &clock),
            clock,
            SystemEntropy,
        );
        let world = Self { issuer, client, registry, bucket, endpoint };
        world.register("acme-backend", json!({}));
        world
    }

    fn register(&self, client_id: &str, changes: Value) {
        let mut row = json!({"client_id":client_id,"tenant":"acme","name":"","jwks":{"keys":[self.client.jwk()]},
            "algorithms":["ES256"],"scopes":["files:read","files:write","fields:encrypt:*.*"],"dpop":false,
            "ttl_seconds":600,"enabled":true,"version":1});
        for (name, value) in changes.as_object().unwrap() {
            row[name] = value.clone();
        }
        self.registry.add_client(row);
    }

    fn assertion(&self, jti: &str) -> String {
        self.client.assertion("acme-backend", jti, NOW, &json!({}))
    }

    async fn ask(&self, fields: &[(&str, &str)]) -> Response {
        self.send(fields, &[]).await
    }

    async fn send(&self, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Response {
        let body = fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&");
        let mut multi = json!({"Content-Type": ["application/x-www-form-urlencoded"]});
        for (name, value) in headers {
            multi[*name] = json!([value]);
        }
        self.raw("POST", "/oauth2/token", &body, multi).await
    }

    async fn raw(&self, method: &str, path: &str, body: &str, headers: Value) -> Response {
        let event = json!({"resource":path,"path":path,"httpMethod":method,"multiValueHeaders":headers,"body":body,
            "isBase64Encoded":false,"requestContext":{"requestId":"g-1","httpMethod":method}});
        let request = Request::parse(&event.to_string()).unwrap();
        match self.endpoint.answer(&request, &invocation()).await {
            Ok(response) => response,
            Err(problem) => Response::problem(problem, "g-1"),
        }
    }

    async fn grant(&self, jti: &str, more: &[(&str, &str)]) -> Response {
        let assertion = self.assertion(jti);
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &assertion),
        ];
        fields.extend_from_slice(more);
        self.ask(&fields).await
    }
}

fn invocation() -> Invocation {
    Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() }
}

fn encode(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

fn json_of(response: &Response) -> Value {
    serde_json::from_str(response.body()).unwrap()
}

fn error(response: &Response) -> (u16, String) {
    let body = json_of(response);
    (response.status(), body["error"].as_str().or(body["code"].as_str()).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_token_names_the_service_token_that_its_client_is_registered_with() {
    const SERVICE: &str = "e367826f93b8d71185e03fe518aff3b4.access";
    let world = World::new();
    let said = async |jti: &str| {
        let body = json_of(&world.grant(jti, &[]).await);
        let token = body["access_token"].as_str().unwrap().to_owned();
        let keys = KeySet::parse(&json!({"keys": [world.issuer.jwk()]}), &[Algorithm::Es256]).unwrap();
        jwt::access_token(&token, ISSUER, AUDIENCE, &keys, NOW).unwrap().service
    };
    assert_eq!(said("s1").await, None);
    world.register("acme-backend", json!({"service": SERVICE}));
    assert_eq!(said("s2").await.as_deref(), Some(SERVICE), "although the client was remembered without one");
    world.register("acme-backend", json!({"service": "x"}));
    assert_eq!(world.grant("s3", &[]).await.status(), 500, "a row that makes no sense issues nothing");
}

#[tokio::test]
async fn a_proven_client_gets_a_token_that_verifiers_accept() {
    let world = World::new();
    let response = world.grant("a1", &[]).await;
    assert_eq!(response.status(), 200, "{}", response.body());
    assert_eq!(response.find("cache-control"), Some("no-store"));
    assert_eq!(response.find("pragma"), Some("no-cache"));
    assert_eq!(response.find("content-type"), Some("application/json"));
    let body = json_of(&response);
    assert_eq!((body["token_type"].as_str(), body["expires_in"].as_i64()), (Some("Bearer"), Some(300)));
    assert!(body.get("refresh_token").is_none());
    let keys = KeySet::parse(&json!({"keys":[world.issuer.jwk()]}), &[Algorithm::Es256]).unwrap();
    let token = jwt::access_token(body["access_token"].as_str().unwrap(), ISSUER, AUDIENCE, &keys, NOW).unwrap();
    assert_eq!((token.tenant.as_str(), token.subject.as_str()), ("acme", "acme-backend"));
    assert_eq!(token.scopes.to_string(), body["scope"].as_str().unwrap());
}

#[tokio::test]
async fn the_clients_own_cap_shortens_the_life_and_nothing_lengthens_it() {
    let world = World::new();
    for (cap, life) in [(60, 60), (900, 300)] {
        world.register("acme-backend", json!({"ttl_seconds": cap}));
        let response = world.grant(&format!("cap-{cap}"), &[("expires_in", "86400")]).await;
        assert_eq!(json_of(&response)["expires_in"], life);
    }
}

#[tokio::test]
async fn scopes_are_what_is_asked_and_never_more_than_held() {
    let world = World::new();
    for (asked, outcome) in [
        ("files:read", Ok("files:read")),
        ("fields:encrypt:users.email files:read", Ok("fields:encrypt:users.email files:read")),
        ("files:read:tenant", Err("invalid_scope")),
        ("fields:decrypt:users.email", Err("invalid_scope")),
        ("files:read admin", Err("invalid_scope")),
        (" ", Err("invalid_scope")),
    ] {
        let response = world.grant(asked, &[("scope", asked)]).await;
        match outcome {
            Ok(scope) => assert_eq!(json_of(&response)["scope"], scope),
            Err(code) => assert_eq!(error(&response), (400, code.to_owned()), "{asked}"),
        }
    }
    assert_eq!(world.registry.assertions(), 2, "what was refused consumed nothing");
}

#[tokio::test]
async fn requests_that_are_not_of_the_standards_form_are_refused() {
    let world = World::new();
    let assertion = world.assertion("form");
    let good =
        [("grant_type", "client_credentials"), ("client_assertion_type", JWT_BEARER), ("client_assertion", &assertion)];
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    for (what, fields, headers, want) in [
        ("no grant", vec![good[1], good[2]], vec![], (400, "invalid_request")),
        ("another grant", vec![("grant_type", "password"), good[1], good[2]], vec![], (400, "unsupported_grant_type")),
        ("no assertion", vec![good[0]], vec![], (401, "invalid_client")),
        ("no assertion type", vec![good[0], good[2]], vec![], (401, "invalid_client")),
        (
            "a wrong assertion type",
            vec![good[0], ("client_assertion_type", "x"), good[2]],
            vec![],
            (401, "invalid_client"),
        ),
        ("a secret", vec![good[0], ("client_secret", "s")], vec![], (401, "invalid_client")),
        ("a secret beside the assertion", with(&[("client_secret", "s")]), vec![], (400, "invalid_request")),
        ("basic authentication", vec![good[0]], vec![("Authorization", "Basic eDp5")], (401, "invalid_client")),
        ("two ways at once", good.to_vec(), vec![("Authorization", "Basic eDp5")], (400, "invalid_request")),
        ("a repeated parameter", with(&[("grant_type", "client_credentials")]), vec![], (400, "invalid_request")),
        ("another client's id", with(&[("client_id", "acme-reader")]), vec![], (401, "invalid_client")),
        ("another resource", with(&[("resource", "https://other.example")]), vec![], (400, "invalid_target")),
        ("a proof that is none", good.to_vec(), vec![("DPoP", "x")], (400, "invalid_dpop_proof")),
        ("another content type", good.to_vec(), vec![("Content-Type", "application/json")], (400, "invalid_request")),
    ] {
        let response = world.send(&fields, &headers).await;
        assert_eq!(error(&response), (want.0, want.1.to_owned()), "{what}");
        assert_eq!(response.find("cache-control"), Some("no-store"), "{what}");
        let description = json_of(&response)["error_description"].as_str().unwrap_or_default().to_owned();
        assert!(description.bytes().all(|b| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)), "{what}");
    }
    assert_eq!(world.registry.assertions(), 0, "nothing was consumed");
    let named = with(&[("client_id", "acme-backend"), ("resource", AUDIENCE)]);
    assert_eq!(world.ask(&named).await.status(), 200, "and the same assertion still works");
    let large = format!("grant_type={}", "a".repeat(17 * 1024));
    let headers = json!({"Content-Type": ["application/x-www-form-urlencoded"]});
    assert_eq!(error(&world.raw("POST", "/oauth2/token", &large, headers).await).1, "invalid_request");
    let get = world.raw("GET", "/oauth2/token", "", json!({})).await;
    assert_eq!((get.status(), get.find("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn assertions_that_do_not_prove_the_client_are_refused_alike() {
    let world = World::new();
    let other = Issuer::new("c1");
    let now = NOW.seconds();
    world.register("disabled", json!({"enabled": false}));
    for (what, assertion) in [
        ("another key", other.assertion("acme-backend", "x", NOW, &json!({}))),
        ("an unknown client", world.client.assertion("nobody", "x", NOW, &json!({}))),
        ("a disabled client", world.client.assertion("disabled", "x", NOW, &json!({}))),
        ("a client id with a quote", world.client.assertion("x' OR '1'='1", "x", NOW, &json!({}))),
        (
            "the token endpoint as audience",
            world.client.assertion("acme-backend", "x", NOW, &json!({"aud": format!("{ISSUER}/oauth2/token")})),
        ),
        ("audience as array", world.client.assertion("acme-backend", "x", NOW, &json!({"aud": [ISSUER]}))),
        ("no sub", world.client.assertion("acme-backend", "x", NOW, &json!({"sub": null}))),
        (
            "five minutes ago",
            world.client.assertion("acme-backend", "x", NOW, &json!({"iat": now - 360, "exp": now - 300})),
        ),
        ("living for an hour", world.client.assertion("acme-backend", "x", NOW, &json!({"exp": now + 3600}))),
        ("no jti", world.client.assertion("acme-backend", "x", NOW, &json!({"jti": null}))),
        ("an access token", world.issuer.token(NOW, &json!({}))),
        ("no token at all", "a.b".to_owned()),
    ] {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion.as_str()),
        ];
        let response = world.ask(&fields).await;
        assert_eq!(error(&response), (401, "invalid_client".to_owned()), "{what}");
        assert_eq!(json_of(&response)["error_description"], "client authentication failed", "{what}");
    }
    assert_eq!(world.registry.assertions(), 0);
    assert_eq!(world.issuer.signatures(), 0, "nothing was signed for them");
}

#[tokio::test]
async fn an_assertion_counts_once_among_fifty_at_the_same_time() {
    let world = World::new();
    let assertion = world.assertion("once");
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion.as_str()),
    ];
    let answers = futures::future::join_all((0..50).map(|_| world.ask(&fields))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), 1);
    assert!(answers.iter().filter(|answer| answer.status() != 200).all(|a| error(a) == (401, "invalid_client".into())));
}

#[tokio::test]
async fn a_bound_client_without_a_proof_is_refused() {
    let world = World::new();
    world.register("acme-backend", json!({"dpop": true}));
    assert_eq!(error(&world.grant("a", &[]).await), (400, "invalid_dpop_proof".into()));
    assert_eq!(world.registry.assertions(), 0);
}

/// The same text with another character before the last one, which may hold bits that are not there.
fn another_end(text: &str) -> String {
    let (start, end) = text.split_at(text.len() - 2);
    let other = if end.starts_with('A') { 'E' } else { 'A' };
    format!("{start}{other}{}", &end[1..])
}

/// One request for a token, with these proofs.
async fn prove(world: &World, assertion: &str, proofs: &[&str]) -> Response {
    let fields =
        [("grant_type", "client_credentials"), ("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)];
    let body = fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&");
    let headers = json!({"Content-Type": ["application/x-www-form-urlencoded"], "dpop": proofs});
    world.raw("POST", "/oauth2/token", &body, headers).await
}

#[tokio::test]
async fn a_token_is_bound_to_the_key_of_a_proof_with_a_nonce_of_ours() {
    for demanded in [true, false] {
        let (world, holder) = (World::new(), Issuer::new("h1"));
        world.register("acme-backend", json!({"dpop": demanded}));
        let assertion = world.assertion("a");
        let proof = |jti, changes| holder.proof("POST", "/oauth2/token", jti, NOW, &changes);
        let first = prove(&world, &assertion, &[&proof("p1", json!({}))]).await;
        assert_eq!(error(&first), (400, "use_dpop_nonce".into()));
        let nonce = first.find("dpop-nonce").unwrap().to_owned();
        // The client resends the same assertion (RFC 9449 §8.2): nothing may have consumed it.
        assert_eq!(world.registry.assertions(), 0);
        let second = prove(&world, &assertion, &[&proof("p2", json!({"nonce": nonce}))]).await;
        assert_eq!(second.status(), 200, "{}", second.body());
        let body = json_of(&second);
        assert_eq!(body["token_type"], "DPoP");
        assert_ne!(second.find("dpop-nonce"), Some(nonce.as_str()), "a nonce for the next time");
        let keys = KeySet::parse(&json!({"keys":[world.issuer.jwk()]}), &[Algorithm::Es256]).unwrap();
        let token = jwt::access_token(body["access_token"].as_str().unwrap(), ISSUER, AUDIENCE, &keys, NOW).unwrap();
        assert_eq!(token.thumbprint, Some(holder.thumbprint()));
    }
}

#[tokio::test]
async fn a_proof_that_does_not_hold_is_refused_and_burns_nothing() {
    let (world, holder) = (World::new(), Issuer::new("h1"));
    world.register("acme-backend", json!({"dpop": true}));
    let assertion = world.assertion("a");
    let proof = |method, path, changes| holder.proof(method, path, "p1", NOW, &changes);
    let nonce = prove(&world, &assertion, &[&proof("POST", "/oauth2/token", json!({}))]).await;
    let nonce = nonce.find("dpop-nonce").unwrap().to_owned();
    let good = proof("POST", "/oauth2/token", json!({"nonce": nonce}));
    let with = |changes: Value| {
        let mut all = json!({"nonce": nonce});
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        all
    };
    let spoilt = another_end(&good);
    for (what, proofs, code) in [
        ("two proofs", vec![good.clone(), good.clone()], "invalid_dpop_proof"),
        ("a bad signature", vec![spoilt], "invalid_dpop_proof"),
        ("another method", vec![proof("GET", "/oauth2/token", with(json!({})))], "invalid_dpop_proof"),
        ("another endpoint", vec![proof("POST", "/oauth2/revoke", with(json!({})))], "invalid_dpop_proof"),
        (
            "an hour ago",
            vec![proof("POST", "/oauth2/token", with(json!({"iat": NOW.seconds() - 3600})))],
            "invalid_dpop_proof",
        ),
        (
            "in an hour",
            vec![proof("POST", "/oauth2/token", with(json!({"iat": NOW.seconds() + 3600})))],
            "invalid_dpop_proof",
        ),
        ("no jti", vec![proof("POST", "/oauth2/token", with(json!({"jti": null})))], "invalid_dpop_proof"),
        ("a nonce of nobody's", vec![proof("POST", "/oauth2/token", json!({"nonce": "x"}))], "use_dpop_nonce"),
        (
            "a nonce with another last letter",
            vec![proof("POST", "/oauth2/token", json!({"nonce": another_end(&nonce)}))],
            "use_dpop_nonce",
        ),
    ] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let answer = prove(&world, &assertion, &proofs).await;
        assert_eq!(error(&answer), (400, code.into()), "{what}");
        assert_eq!(answer.find("dpop-nonce").is_some(), code == "use_dpop_nonce", "{what}");
    }
    assert_eq!((world.registry.assertions(), world.issuer.signatures()), (0, 0));
    // A clock that is four minutes off does not matter to whoever has a nonce.
    for (jti, offset) in [("b", -240), ("c", 240)] {
        let late = holder.proof("POST", "/oauth2/token", jti, NOW, &with(json!({"iat": NOW.seconds() + offset})));
        assert_eq!(prove(&world, &world.assertion(jti), &[&late]).await.status(), 200);
    }
    assert_eq!(prove(&world, &assertion, &[&good]).await.status(), 200, "and after all that the good one passes");
}

#[tokio::test]
async fn a_nonce_is_good_in_every_environment_when_its_key_has_just_changed() {
    let (world, holder) = (World::new(), Issuer::new("h1"));
    let settings = || Settings { issuer: ISSUER.into(), audience: AUDIENCE.into(), algorithm: Algorithm::Es256 };
    let environment = |clock: &FixedClock| {
        let (issuer, bucket) = (world.issuer.clone(), world.bucket.clone());
        Token::new(
            settings(),
            world.registry.clone(),
            issuer,
            bucket.clone(),
            policies(&bucket, clock),
            clock.clone(),
            SystemEntropy,
        )
    };
    let clock = FixedClock::at(NOW);
    let (first, second) = (environment(&clock), environment(&clock));
    let ask = async |endpoint: &Endpoint, jti: &str, nonce: Option<&str>| {
        let now = clock.now();
        world.issuer.publish(&world.bucket, now);
        let assertion = world.client.assertion("acme-backend", jti, now, &json!({}));
        let proof = holder.proof("POST", "/oauth2/token", jti, now, &json!({ "nonce": nonce }));
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion.as_str()),
        ];
        let body = fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&");
        let headers = json!({"Content-Type": ["application/x-www-form-urlencoded"], "DPoP": [proof]});
        let event = json!({"resource":"/oauth2/token","path":"/oauth2/token","httpMethod":"POST","multiValueHeaders":headers,
            "body":body,"isBase64Encoded":false,"requestContext":{"requestId":"g-1","httpMethod":"POST"}});
        endpoint.answer(&Request::parse(&event.to_string()).unwrap(), &invocation()).await.unwrap()
    };
    ask(&second, "a", None).await;
    clock.set(NOW.plus_seconds(86_340));
    ask(&first, "b", None).await;
    clock.set(NOW.plus_seconds(86_401));
    let nonce = ask(&second, "c", None).await.find("dpop-nonce").unwrap().to_owned();
    assert_eq!(ask(&first, "d", Some(&nonce)).await.status(), 200);
    assert_eq!(ask(&second, "e", Some(&nonce)).await.status(), 200);
}

#[tokio::test]
async fn a_proof_counts_once_and_a_replay_keeps_the_assertion() {
    let (world, holder) = (World::new(), Issuer::new("h1"));
    let proof = |jti, changes| holder.proof("POST", "/oauth2/token", jti, NOW, &changes);
    let nonce = prove(&world, &world.assertion("a"), &[&proof("p0", json!({}))]).await;
    let nonce = nonce.find("dpop-nonce").unwrap().to_owned();
    let once = proof("p1", json!({"nonce": nonce}));
    let assertions: Vec<String> = (0..50).map(|number| world.assertion(&format!("a{number}"))).collect();
    let proofs = [once.as_str()];
    let answers = futures::future::join_all(assertions.iter().map(|assertion| prove(&world, assertion, &proofs))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), 1);
    let refused = answers.iter().filter(|answer| answer.status() != 200);
    assert!(refused.map(error).all(|error| error == (400, "invalid_dpop_proof".into())));
    assert_eq!(world.registry.assertions(), 1, "the other assertions are not used up");
    let again = proof("p2", json!({"nonce": nonce}));
    let (used, unused): (Vec<_>, Vec<_>) =
        assertions.iter().zip(&answers).partition(|(_, answer)| answer.status() == 200);
    assert_eq!(prove(&world, unused[0].0, &[&again]).await.status(), 200);
    let third = proof("p3", json!({"nonce": nonce}));
    assert_eq!(error(&prove(&world, used[0].0, &[&third]).await), (401, "invalid_client".into()));
}

#[tokio::test]
async fn a_fault_of_the_surroundings_burns_nothing() {
    let world = World::new();
    let assertion = world.assertion("kept");
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion.as_str()),
    ];
    let faults: [(&str, Switch); 3] = [
        ("the database", |w, down| w.registry.set_down(down)),
        ("the signer", |w, down| w.issuer.set_down(down)),
        ("the trust bucket", |w, down| w.bucket.set_down(down)),
    ];
    for (what, set) in faults {
        set(&world, true);
        let response = world.ask(&fields).await;
        assert_eq!(error(&response), (503, "temporarily_unavailable".into()), "{what}");
        assert_eq!(response.find("retry-after"), Some("1"), "{what}");
        set(&world, false);
        assert_eq!(world.registry.assertions(), 0, "{what}");
    }
    assert_eq!(world.ask(&fields).await.status(), 200, "the same assertion works when all is well again");
}

#[tokio::test]
async fn a_key_swapped_behind_its_name_is_noticed_before_anybody_gets_a_token() {
    let world = World::new();
    let other = Issuer::new("k1");
    world.issuer.put(&world.bucket, "trust/keys.json", NOW, json!({"keys":[other.jwk()]}));
    assert_eq!(error(&world.grant("a", &[]).await), (503, "temporarily_unavailable".into()));
    assert_eq!(world.registry.assertions(), 0);
}

#[tokio::test]
async fn the_documents_say_what_exists_and_nothing_else() {
    let world = World::new();
    let metadata = world.raw("GET", "/.well-known/oauth-authorization-server", "", json!({})).await;
    let body = json_of(&metadata);
    assert_eq!(body["issuer"], ISSUER);
    assert_eq!(body["token_endpoint"], format!("{ISSUER}/oauth2/token"));
    let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
    assert_eq!(body["grant_types_supported"], json!(["client_credentials", exchange, "refresh_token"]));
    assert_eq!(body["token_endpoint_auth_methods_supported"], json!(["private_key_jwt", "none"]));
    assert_eq!(body["dpop_signing_alg_values_supported"], json!(["ES256", "PS256", "EdDSA", "Ed25519"]));
    for name in ["revocation", "introspection"] {
        let path = if name == "revocation" { "revoke" } else { "introspect" };
        // Who has a session's token may end it; who may ask about tokens proves who he is.
        let methods =
            if name == "revocation" { json!(["private_key_jwt", "none"]) } else { json!(["private_key_jwt"]) };
        assert_eq!(body[format!("{name}_endpoint")], format!("{ISSUER}/oauth2/{path}"));
        assert_eq!(body[format!("{name}_endpoint_auth_methods_supported")], methods);
        let algorithms = &body[format!("{name}_endpoint_auth_signing_alg_values_supported")];
        assert_eq!(algorithms, &body["token_endpoint_auth_signing_alg_values_supported"]);
    }
    assert!(body.get("authorization_endpoint").is_none(), "it is not here yet");
    let keys = world.raw("GET", "/.well-known/jwks.json", "", json!({})).await;
    assert_eq!(keys.find("cache-control"), Some("public, max-age=300"));
    let key = json_of(&keys)["keys"][0].clone();
    let members: Vec<_> = key.as_object().unwrap().keys().cloned().collect();
    assert!(members.iter().all(|m| ["kty", "kid", "use", "alg", "crv", "x", "y"].contains(&m.as_str())), "{members:?}");
}

const REVOKE: &str = "/oauth2/revoke";
const INTROSPECT: &str = "/oauth2/introspect";

/// Asks `path` about a token, as the client of this assertion.
async fn about(world: &World, path: &str, assertion: &str, more: &[(&str, &str)]) -> Response {
    let mut fields = vec![("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)];
    fields.extend_from_slice(more);
    let body = fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&");
    world.raw("POST", path, &body, json!({"Content-Type": ["application/x-www-form-urlencoded"]})).await
}

fn jti(token: &str) -> String {
    let claims = shared::encoding::from_base64url(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["jti"].as_str().unwrap().to_owned()
}

async fn issued(world: &World) -> String {
    let response = world.grant(&format!("issue-{}", world.registry.assertions()), &[]).await;
    json_of(&response)["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_ends_its_own_token_and_the_nudge_goes_out() {
    let world = World::new();
    let token = issued(&world).await;
    for (at, hint) in ["access_token", "refresh_token", "canary"].into_iter().enumerate() {
        let fields = [("token", token.as_str()), ("token_type_hint", hint)];
        let response = about(&world, REVOKE, &world.assertion(&format!("r{at}")), &fields).await;
        assert_eq!((response.status(), response.body()), (200, ""), "{hint}");
        assert_eq!(response.find("cache-control"), Some("no-store"));
    }
    assert_eq!(world.registry.revoked(), [(jti(&token), NOW.seconds() + 300)]);
    let nudges = world.bucket.take_writes();
    assert_eq!(nudges.len(), 3);
    assert!(
        nudges.iter().all(|key| key.starts_with("trust-inbox/token/0") && world.bucket.text(key).unwrap().is_empty())
    );
}

#[tokio::test]
async fn what_is_no_live_token_of_the_client_is_left_alone_and_answered_alike() {
    let world = World::new();
    let now = NOW.seconds();
    let stranger = Issuer::new("k1");
    for (at, (what, token)) in [
        ("garbage", "garbage".to_owned()),
        ("an unknown refresh token", "mF_9.B5f-4.1JqM".to_owned()),
        ("another client's", world.issuer.token(NOW, &json!({"client_id": "acme-reader"}))),
        ("another tenant's", world.issuer.token(NOW, &json!({"tenant": "globex"}))),
        ("expired", world.issuer.token(NOW, &json!({"iat": now - 300, "exp": now}))),
        ("another issuer's", stranger.token(NOW, &json!({}))),
        ("another audience's", world.issuer.token(NOW, &json!({"aud": "https://other.example"}))),
        ("an assertion", world.assertion("presented")),
        ("long and nothing", "a".repeat(4_000)),
    ]
    .into_iter()
    .enumerate()
    {
        let response = about(&world, REVOKE, &world.assertion(&format!("r{at}")), &[("token", &token)]).await;
        assert_eq!((response.status(), response.body()), (200, ""), "{what}");
        assert_eq!(world.registry.assertions(), at + 1, "{what}");
    }
    assert!(world.registry.revoked().is_empty() && world.bucket.take_writes().is_empty());
}

#[tokio::test]
async fn a_live_token_of_the_callers_tenant_is_described() {
    let world = World::new();
    world.register("acme-reader", json!({"scopes": ["files:read"]}));
    let token = issued(&world).await;
    let reader = world.client.assertion("acme-reader", "i", NOW, &json!({}));
    for assertion in [world.assertion("i"), reader] {
        let response = about(&world, INTROSPECT, &assertion, &[("token", &token)]).await;
        assert_eq!((response.status(), response.find("cache-control")), (200, Some("no-store")));
        let want = json!({"active": true, "scope": "files:read files:write fields:encrypt:*.*",
            "client_id": "acme-backend", "sub": "acme-backend", "aud": AUDIENCE, "iss": ISSUER,
            "exp": NOW.seconds() + 300, "iat": NOW.seconds(), "jti": jti(&token), "token_type": "Bearer",
            "tenant": "acme"});
        assert_eq!(json_of(&response), want);
    }
    let bound = world.issuer.token(NOW, &json!({"cnf": {"jkt": "thumb"}}));
    let body = json_of(&about(&world, INTROSPECT, &world.assertion("i2"), &[("token", &bound)]).await);
    assert_eq!((body["token_type"].as_str(), body["cnf"].clone()), (Some("DPoP"), json!({"jkt": "thumb"})));
}

#[tokio::test]
async fn whatever_is_not_provably_active_is_inactive_and_nothing_more() {
    let world = World::new();
    let now = NOW.seconds();
    let revoked = "0198e1a0-0000-7000-8000-0000000000ff";
    let body = Revocations::body([(Revoked::Token, revoked, now + 300), (Revoked::Client, "acme-ended", now)], &[]);
    world.issuer.put(&world.bucket, "trust/revocations.json", NOW, body);
    for (at, (what, token)) in [
        ("garbage", "garbage".to_owned()),
        ("another tenant's", world.issuer.token(NOW, &json!({"tenant": "globex"}))),
        ("revoked", world.issuer.token(NOW, &json!({"jti": revoked}))),
        ("of an ended client", world.issuer.token(NOW, &json!({"client_id": "acme-ended"}))),
        ("expired", world.issuer.token(NOW, &json!({"iat": now - 300, "exp": now}))),
        ("of another issuer", Issuer::new("k1").token(NOW, &json!({}))),
        ("for another audience", world.issuer.token(NOW, &json!({"aud": "https://other.example"}))),
        ("an assertion", world.assertion("presented")),
    ]
    .into_iter()
    .enumerate()
    {
        let response = about(&world, INTROSPECT, &world.assertion(&format!("i{at}")), &[("token", &token)]).await;
        assert_eq!((response.status(), json_of(&response)), (200, json!({"active": false})), "{what}");
    }
    let again = about(&world, INTROSPECT, &world.assertion("last"), &[("token", &issued(&world).await)]).await;
    assert_eq!(json_of(&again)["active"], true, "(and a good one is active)");
}

#[tokio::test]
async fn both_endpoints_ask_who_is_there_as_the_token_endpoint_does() {
    for path in [REVOKE, INTROSPECT] {
        let world = World::new();
        let token = issued(&world).await;
        let before = world.registry.assertions();
        let (good, foreign) =
            (world.assertion("good"), Issuer::new("c1").assertion("acme-backend", "x", NOW, &json!({})));
        let form = |fields: &[(&str, &str)]| {
            fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&")
        };
        let by = |assertion: &str| {
            form(&[("token", &token), ("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)])
        };
        let typed = json!({"Content-Type": ["application/x-www-form-urlencoded"]});
        let mut basic = typed.clone();
        basic["Authorization"] = json!(["Basic eDp5"]);
        for (what, body, headers, want) in [
            ("nobody", form(&[("token", &token)]), &typed, (401, "invalid_client")),
            ("a secret", form(&[("token", &token), ("client_secret", "s")]), &typed, (401, "invalid_client")),
            ("basic", form(&[("token", &token)]), &basic, (401, "invalid_client")),
            ("two ways", by(&good), &basic, (400, "invalid_request")),
            ("another key", by(&foreign), &typed, (401, "invalid_client")),
            ("no client at all", by("x.y.z"), &typed, (401, "invalid_client")),
            ("another's id", format!("{}&client_id=acme-reader", by(&good)), &typed, (401, "invalid_client")),
            ("two tokens", format!("{}&token=x", by(&good)), &typed, (400, "invalid_request")),
            ("no form", by(&good), &json!({"Content-Type": ["application/json"]}), (400, "invalid_request")),
            (
                "no token",
                form(&[("client_assertion_type", JWT_BEARER), ("client_assertion", &good)]),
                &typed,
                (400, "invalid_request"),
            ),
        ] {
            let response = world.raw("POST", path, &body, headers.clone()).await;
            assert_eq!(error(&response), (want.0, want.1.to_owned()), "{path} {what}");
            assert_eq!(response.find("cache-control"), Some("no-store"), "{path} {what}");
        }
        assert_eq!(world.registry.assertions(), before, "{path}: nothing was consumed");
        assert!(world.registry.revoked().is_empty());
        let asked = [("token", token.as_str())];
        let answers = futures::future::join_all((0..20).map(|_| about(&world, path, &good, &asked))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), 1, "{path}");
        let replay = about(&world, path, &good, &[("token", "garbage")]).await;
        assert_eq!(error(&replay), (401, "invalid_client".to_owned()), "{path}");
        let get = world.raw("GET", path, "", json!({})).await;
        assert_eq!((get.status(), get.find("allow")), (405, Some("POST")), "{path}");
    }
}

#[tokio::test]
async fn a_client_that_demands_dpop_still_ends_its_tokens() {
    let world = World::new();
    let token = issued(&world).await;
    world.register("acme-backend", json!({"dpop": true}));
    assert_eq!(about(&world, REVOKE, &world.assertion("r"), &[("token", &token)]).await.status(), 200);
    assert_eq!(world.registry.revoked().len(), 1);
}

#[tokio::test]
async fn a_fault_while_revoking_or_introspecting_burns_and_ends_nothing() {
    let world = World::new();
    let token = issued(&world).await;
    let before = world.registry.assertions();
    let cold = World::new();
    let faults: [(&World, Switch); 2] =
        [(&world, |w, down| w.registry.set_down(down)), (&cold, |w, down| w.bucket.set_down(down))];
    for (world, set) in faults {
        for path in [REVOKE, INTROSPECT] {
            set(world, true);
            let assertion = world.assertion(path);
            let response = about(world, path, &assertion, &[("token", &token)]).await;
            assert_eq!(error(&response), (503, "temporarily_unavailable".into()), "{path}");
            assert_eq!(response.find("retry-after"), Some("1"), "{path}");
            set(world, false);
        }
    }
    assert_eq!((world.registry.assertions(), cold.registry.assertions()), (before, 0));
    assert!(world.registry.revoked().is_empty() && world.bucket.take_writes().is_empty());
    // A nudge that fails costs at most a minute: the revocation is committed and said to be.
    let assertion = world.assertion(REVOKE);
    let asked = [("token", token.as_str())];
    let (bucket, registry) = (world.bucket.clone(), world.registry.clone());
    world.bucket.before_next_write(async move {
        assert_eq!(registry.revoked().len(), 1, "the nudge comes after the commit");
        bucket.set_down(true);
    });
    assert_eq!(about(&world, REVOKE, &assertion, &asked).await.status(), 200);
    assert!(world.bucket.take_writes().is_empty());
}

#[tokio::test]
async fn an_answer_holds_nothing_of_what_was_sent() {
    let world = World::new();
    let canary = "canary-1f4e";
    let event = json!({"resource":"/oauth2/token","path":"/oauth2/token","httpMethod":"POST",
        "multiValueHeaders":{"Content-Type":["application/x-www-form-urlencoded"],"X-Canary":[canary]},
        "body":format!("grant_type={canary}&client_secret={canary}&client_assertion={canary}.{canary}.{canary}"),
        "requestContext":{"httpMethod":"POST"}});
    let endpoint = Api(world.endpoint);
    let answer = endpoint.handle(event, &invocation()).await.unwrap();
    assert!(!answer.to_string().contains(canary));
}

//! Which tokens policy lets be issued, for which API, and narrowed to what.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use std::sync::Arc;

use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Invocation, Routes as _};
use shared::clock::Timestamp;
use shared::entropy::SystemEntropy;
use shared::http::{Request, Response};
use shared::jwks::{Algorithm, KeySet};
use shared::jwt::{self, AccessToken, Reason};
use shared::policy::{Bundle, Policing, Release, SCHEMA};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, Registry, TrustBucket};
use token::{Token, config::Settings};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const BILLING: &str = "https://billing.example/v1";
const FILE: &str = "0198e1a0-0000-7000-8000-000000000001";

struct World {
    issuer: Issuer,
    client: Issuer,
    registry: Registry,
    bucket: TrustBucket,
    clock: FixedClock,
    endpoint: Token<Registry, Issuer, TrustBucket, FixedClock, SystemEntropy>,
}

impl World {
    fn new() -> Self {
        let (issuer, client, clock) = (Issuer::new("k1"), Issuer::new("c1"), FixedClock::at(NOW));
        let (registry, bucket) = (Registry::with_tenant("acme"), TrustBucket::default());
        issuer.publish(&bucket, NOW);
        let settings = Settings { issuer: ISSUER.into(), audience: AUDIENCE.into(), algorithm: Algorithm::Es256 };
        let policies = Arc::new(Policing::<Cedar, _, _>::new(bucket.clone(), clock.clone()));
        let (signer, reader, time) = (issuer.clone(), bucket.clone(), clock.clone());
        let endpoint = Token::new(settings, registry.clone(), signer, reader, policies, time, SystemEntropy);
        registry.add_client(
            json!({"client_id":"acme-backend","tenant":"acme","name":"","jwks":{"keys":[client.jwk()]},
            "algorithms":["ES256"],"scopes":["files:read","files:write"],"audiences":[BILLING],"dpop":false,
            "ttl_seconds":600,"enabled":true,"version":1}),
        );
        Self { issuer, client, registry, bucket, clock, endpoint }
    }

    /// With these policies and no examples that would speak against them.
    fn with(policies: &[&str]) -> Self {
        let world = Self::new();
        let named = policies.iter().enumerate().map(|(at, text)| json!({"id": format!("p{at}"), "text": text}));
        let mut bundle = Bundle::shipped().unwrap().to_value();
        let shown = |expect: &str| {
            let found =
                bundle["examples"].as_array().unwrap().iter().find(|one| one["expect"] == expect).unwrap().clone();
            (found["ask"].clone(), found["name"].clone())
        };
        let (permitted, name) = shown("allow");
        let (denied, other) = shown("deny");
        bundle["examples"] = json!([]);
        if !policies.is_empty() {
            let (mut permitted, mut denied) = (permitted, denied);
            permitted["principal"]["id"] = json!("example");
            denied["principal"]["id"] = json!("example");
            bundle["examples"] = json!([{"name": name, "ask": permitted, "expect": "allow"}, {"name": other, "ask": denied, "expect": "deny"}]);
        }
        bundle["policies"] = named.collect();
        bundle["schema"] = json!(SCHEMA);
        let bundle = Bundle::parse(&bundle).unwrap();
        let release = Release { version: 1, hash: bundle.hash(), bundle };
        world.issuer.put(
            &world.bucket,
            "trust/policies.json",
            NOW.plus_millis(1),
            json!({"active": release.to_value(), "candidate": null}),
        );
        world
    }

    async fn grant(&self, jti: &str, more: &[(&str, &str)]) -> Response {
        self.grant_from(jti, more, &json!({})).await
    }

    async fn grant_from(&self, jti: &str, more: &[(&str, &str)], headers: &Value) -> Response {
        let assertion = self.client.assertion("acme-backend", jti, NOW, &json!({}));
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ];
        fields.extend_from_slice(more);
        let encode = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
        let body = fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&");
        let mut all = json!({"Content-Type": ["application/x-www-form-urlencoded"]});
        all.as_object_mut().unwrap().extend(headers.as_object().unwrap().clone());
        let event = json!({"resource":"/oauth2/token","path":"/oauth2/token","httpMethod":"POST","multiValueHeaders":all,
            "body":body,"isBase64Encoded":false,"requestContext":{"requestId":"g-1","httpMethod":"POST"}});
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        self.endpoint.answer(&Request::parse(&event.to_string()).unwrap(), &invocation).await.unwrap()
    }

    fn read(&self, response: &Response, audience: &str) -> Result<AccessToken, Reason> {
        let keys = KeySet::parse(&json!({"keys":[self.issuer.jwk()]}), &[Algorithm::Es256]).unwrap();
        jwt::access_token(json_of(response)["access_token"].as_str().unwrap(), ISSUER, audience, &keys, NOW)
    }
}

fn json_of(response: &Response) -> Value {
    serde_json::from_str(response.body()).unwrap()
}

fn error(response: &Response) -> (u16, String) {
    (response.status(), json_of(response)["error"].as_str().unwrap_or_default().to_owned())
}

const PERMIT: &str = r#"permit (principal, action == Portcullis::Action::"mint", resource) when { context.ttl <= 900 && context.bound == false };"#;

#[tokio::test]
async fn a_token_that_no_policy_permits_is_not_issued_and_nothing_is_used_up() {
    let world = World::with(&[]);
    assert_eq!(error(&world.grant("a1", &[]).await), (400, "access_denied".into()));
    assert_eq!((world.issuer.signatures(), world.registry.assertions()), (0, 0));
    let shipped = Bundle::shipped().unwrap();
    let release = Release { version: 2, hash: shipped.hash(), bundle: shipped }.to_value();
    world.issuer.put(
        &world.bucket,
        "trust/policies.json",
        NOW.plus_millis(2),
        json!({"active": release, "candidate": null}),
    );
    world.issuer.put(
        &world.bucket,
        "trust/signing-state.json",
        NOW.plus_millis(2),
        world.bucket.json("trust/signing-state.json")["body"].clone(),
    );
    world.clock.advance(60);
    assert_eq!(world.grant("a1", &[]).await.status(), 401, "the assertion has had its minute");
}

#[tokio::test]
async fn policy_sees_client_audience_scope_life_and_network() {
    for (forbids, jti) in [
        (r#"principal == Portcullis::Workload::"acme-backend""#, "a"),
        (r#"principal.tenant == Portcullis::Tenant::"acme" && context.scopes.contains("files:write")"#, "b"),
        (r#"resource == Portcullis::Audience::"https://api.example" && context.client_id == "acme-backend""#, "c"),
        (
            r#"context.grant == "client_credentials" && context.issuer == "own" && context.client_id == "acme-backend""#,
            "d",
        ),
        (
            r#"context.ttl == 300 && context.client_id == "acme-backend" && !context.bound && principal.tenant == Portcullis::Tenant::"acme" && !(principal == Portcullis::Workload::"example")"#,
            "e",
        ),
        (r#"context.net.ip.isInRange(ip("10.0.0.0/8"))"#, "f"),
    ] {
        let forbid = format!(
            r#"forbid (principal is Portcullis::Workload, action == Portcullis::Action::"mint", resource) when {{ principal != Portcullis::Workload::"example" && {forbids} }};"#
        );
        let world = World::with(&[PERMIT, &forbid]);
        let headers = json!({"CF-Connecting-IP": ["10.9.8.7"]});
        let response = world.grant_from(jti, &[], &headers).await;
        assert_eq!(error(&response), (400, "access_denied".into()), "{forbids}");
    }
    let world = World::with(&[PERMIT]);
    assert_eq!(world.grant("g", &[]).await.status(), 200);
}

#[tokio::test]
async fn a_policy_that_fails_issues_nothing() {
    for (at, effect) in ["forbid", "permit"].into_iter().enumerate() {
        let fails = format!(
            r#"{effect} (principal == Portcullis::Workload::"acme-backend", action == Portcullis::Action::"mint", resource) when {{ context.now + 9223372036854775807 > 0 }};"#
        );
        let world = World::with(&[PERMIT, &fails]);
        assert_eq!(error(&world.grant(&format!("a{at}"), &[]).await), (400, "access_denied".into()), "{effect}");
        assert_eq!((world.issuer.signatures(), world.registry.assertions()), (0, 0));
    }
}

#[tokio::test]
async fn where_a_policy_looks_at_the_network_a_request_from_nowhere_gets_no_token() {
    let looks = r#"forbid (principal == Portcullis::Workload::"another", action == Portcullis::Action::"mint", resource) when { context.net.ip.isLoopback() };"#;
    let world = World::with(&[PERMIT, looks]);
    assert_eq!(error(&world.grant("a1", &[]).await), (400, "access_denied".into()));
    let somewhere = json!({"CF-Connecting-IP": ["198.51.100.7"]});
    assert_eq!(world.grant_from("a2", &[], &somewhere).await.status(), 200);
}

#[tokio::test]
async fn without_policies_nobody_gets_a_token() {
    let world = World::new();
    world.bucket.remove("trust/policies.json");
    let response = world.grant("a1", &[]).await;
    assert_eq!((error(&response), response.find("retry-after")), ((503, "temporarily_unavailable".into()), Some("1")));
    assert_eq!(world.registry.assertions(), 0);
}

#[tokio::test]
async fn a_registered_audience_may_be_asked_for_and_no_other() {
    let world = World::new();
    let response = world.grant("a1", &[("resource", BILLING)]).await;
    assert_eq!(response.status(), 200, "{}", response.body());
    world.read(&response, BILLING).unwrap();
    assert_eq!(world.read(&response, AUDIENCE), Err(Reason::WrongAudience), "it is none for us");
    world.read(&world.grant("a2", &[("resource", AUDIENCE)]).await, AUDIENCE).unwrap();
    for (at, resource) in [
        "https://billing.example",
        "https://billing.example/v1/",
        "https://billing.example/v1#x",
        "HTTPS://billing.example/v1",
        "https://billing.example/v1 https://api.example",
        "billing",
        "*",
    ]
    .into_iter()
    .enumerate()
    {
        let response = world.grant(&format!("b{at}"), &[("resource", resource)]).await;
        assert_eq!(error(&response), (400, "invalid_target".into()), "{resource}");
    }
    let twice = world.grant("c", &[("resource", BILLING), ("resource", AUDIENCE)]).await;
    assert_eq!(error(&twice), (400, "invalid_request".into()));
}

#[tokio::test]
async fn what_is_asked_for_in_detail_is_in_the_token_and_in_the_answer() {
    let world = World::new();
    let details = json!([{"type": "portcullis_file", "actions": ["read"], "file_id": FILE}]);
    let response = world.grant("a1", &[("authorization_details", &details.to_string())]).await;
    assert_eq!(json_of(&response)["authorization_details"], details);
    assert_eq!(world.read(&response, AUDIENCE).unwrap().details.to_value(), details);
    let plain = world.grant("a2", &[]).await;
    assert!(
        json_of(&plain).get("authorization_details").is_none()
            && world.read(&plain, AUDIENCE).unwrap().details.is_empty()
    );
}

#[tokio::test]
async fn details_that_are_not_understood_are_refused_and_never_passed_over() {
    let world = World::new();
    for (at, details) in [
        "[]",
        "{}",
        "null",
        "x",
        "[{\"type\":\"portcullis_all\"}]",
        "[{\"type\":\"portcullis_file\",\"actions\":[\"read\"],\"file_id\":\"*\"}]",
        "[{\"type\":\"portcullis_file\",\"type\":\"portcullis_field\",\"actions\":[\"read\"],\"file_id\":\"0198e1a0-0000-7000-8000-000000000001\"}]",
        "[[[[[[[[]]]]]]]]",
    ]
    .into_iter()
    .enumerate()
    {
        let response = world.grant(&format!("a{at}"), &[("authorization_details", details)]).await;
        assert_eq!(error(&response), (400, "invalid_authorization_details".into()), "{details}");
    }
    assert_eq!((world.issuer.signatures(), world.registry.assertions()), (0, 0));
    let other = world.grant("b", &[("authorization_details", "[]")]).await;
    assert_eq!(error(&other).1, "invalid_authorization_details");
}

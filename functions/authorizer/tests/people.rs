//! A person's token beside the person's Access assertion, at the gate.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use authorizer::Authorizer;
use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::Timestamp;
use shared::digest::sha256;
use shared::encoding::base64url;
use shared::trust::Accepts;
use testkit::access::{ADA, BEN};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, Team, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const STAGE: &str = "arn:aws:execute-api:us-east-1:111122223333:abc/v1";
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";

struct World {
    issuer: Issuer,
    page: Issuer,
    team: Team,
    bucket: TrustBucket,
    clock: FixedClock,
    authorizer: Authorizer<Cedar, TrustBucket, FixedClock>,
}

impl World {
    fn new() -> Self {
        let (issuer, bucket, clock, team) =
            (Issuer::new("k1"), TrustBucket::default(), FixedClock::at(NOW), Team::new());
        issuer.publish(&bucket, NOW);
        team.publish(&bucket, NOW);
        let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let authorizer = Authorizer::new(accepts, bucket.clone(), clock.clone());
        Self { issuer, page: Issuer::new("h1"), team, bucket, clock, authorizer }
    }

    fn token(&self, changes: Value) -> String {
        let mut claims = json!({"kind": "human", "sub": format!("access|{ADA}"), "sid": "s1", "groups": ["staff"], "client_id": "acme-web",
            "cnf": {"jkt": self.page.thumbprint()}});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.issuer.token(NOW, &claims)
    }

    fn headers(&self, token: &str, jti: &str, assertions: &[&str]) -> Value {
        let proof = self.page.proof("GET", FILE, jti, NOW, &json!({"ath": base64url(&sha256(token.as_bytes()))}));
        json!({"Authorization": [format!("DPoP {token}")], "DPoP": [proof], "Cf-Access-Jwt-Assertion": assertions})
    }

    async fn ask(&self, event: Value) -> Result<Value, Failure> {
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        self.authorizer.handle(event, &invocation).await
    }

    async fn rest(&self, headers: Value) -> Result<Value, Failure> {
        self.ask(json!({"type": "REQUEST", "methodArn": format!("{STAGE}/GET{FILE}"), "resource": "/files/{id}", "path": FILE,
            "httpMethod": "GET", "multiValueHeaders": headers, "requestContext": {"requestId": "g-1"}})).await
    }
}

fn allows(answer: &Result<Value, Failure>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer["policyDocument"]["Statement"][0]["Effect"] == "Allow")
}

#[tokio::test]
async fn a_person_passes_beside_an_assertion_of_the_same_person_and_no_other_way() {
    let world = World::new();
    let token = world.token(json!({}));
    let of = |subject: &str, changes: Value| world.team.person(subject, "ada@example.com", NOW, &changes);
    let (ada, ben) = (of(ADA, json!({})), of(BEN, json!({})));
    let service = world.team.service("e367826f93b8d71185e03fe518aff3b4.access", NOW);
    let impostor = Team::impostor().person(ADA, "ada@example.com", NOW, &json!({}));
    for (what, assertions) in [
        ("no assertion", vec![]),
        ("another person's", vec![&*ben]),
        ("a service's", vec![&*service]),
        ("two of them", vec![&*ada, &*ada]),
        ("two in one field", vec![&*format!("{ada},{ada}")]),
        ("of another key", vec![&*impostor]),
        ("expired", vec![&*of(ADA, json!({"exp": NOW.seconds()}))]),
        ("of another application", vec![&*of(ADA, json!({"aud": ["0".repeat(64)]}))]),
        ("the access token itself", vec![&*token]),
        ("garbage", vec!["x"]),
    ] {
        let answer = world.rest(world.headers(&token, what, &assertions)).await;
        assert_eq!(answer, Err(Failure::UNAUTHORIZED), "{what}");
    }
    let mut cookie = world.headers(&token, "cookie", &[]);
    cookie["Cookie"] = json!([format!("CF_Authorization={ada}")]);
    assert_eq!(world.rest(cookie).await, Err(Failure::UNAUTHORIZED), "the cookie is not read");
    let answer = world.rest(world.headers(&token, "good", &[&ada])).await;
    assert!(allows(&answer), "{answer:?}");
    let answer = answer.unwrap();
    assert_eq!(answer["principalId"], format!("access|{ADA}"));
    assert!(ada.split('.').all(|part| !answer.to_string().contains(part)));
    for (what, changes) in [
        ("a person by the name of a client", json!({"sub": ADA})),
        ("a longer name", json!({"sub": format!("access|{ADA}x")})),
        ("the name in capitals", json!({"sub": format!("access|{}", ADA.to_uppercase())})),
    ] {
        let token = world.token(changes);
        assert_eq!(world.rest(world.headers(&token, what, &[&ada])).await, Err(Failure::UNAUTHORIZED), "{what}");
    }
}

#[tokio::test]
async fn a_machine_needs_none_where_the_route_asks_for_none() {
    let world = World::new();
    let token = world.issuer.token(NOW, &json!({}));
    let bearer = |assertions: &[&str]| json!({"Authorization": [format!("Bearer {token}")], "Cf-Access-Jwt-Assertion": assertions});
    assert!(allows(&world.rest(bearer(&[])).await));
    assert!(allows(&world.rest(bearer(&["what a machine sends here says nothing"])).await));
    assert_eq!(world.rest(bearer(&["a", "b"])).await, Err(Failure::UNAUTHORIZED), "but nobody sends two");
}

#[tokio::test]
async fn a_machine_that_is_registered_with_a_service_token_needs_that_one_on_every_route() {
    const OWN: &str = "e367826f93b8d71185e03fe518aff3b4.access";
    let world = World::new();
    let token = world.issuer.token(NOW, &json!({"service": OWN}));
    let bearer = |assertions: &[&str]| json!({"Authorization": [format!("Bearer {token}")], "Cf-Access-Jwt-Assertion": assertions});
    let (own, other) = (world.team.service(OWN, NOW), world.team.service(&OWN.replace('e', "f"), NOW));
    let ada = world.team.person(ADA, "ada@example.com", NOW, &json!({}));
    for (what, assertions) in [
        ("none", vec![]),
        ("another one of the team", vec![&*other]),
        ("a person's assertion", vec![&*ada]),
        ("both", vec![&*own, &*other]),
        ("garbage", vec!["x"]),
    ] {
        assert_eq!(world.rest(bearer(&assertions)).await, Err(Failure::UNAUTHORIZED), "{what}");
    }
    assert!(allows(&world.rest(bearer(&[&own])).await));
    let event = json!({"type": "TOKEN", "methodArn": format!("{STAGE}/GET{FILE}"), "authorizationToken": format!("Bearer {token}")});
    assert_eq!(world.ask(event).await, Err(Failure::UNAUTHORIZED), "there is no place for it");
    for service in [json!(""), json!("x.access"), json!([OWN]), json!(OWN.to_uppercase())] {
        let token = world.issuer.token(NOW, &json!({"service": service}));
        let headers = json!({"Authorization": [format!("Bearer {token}")], "Cf-Access-Jwt-Assertion": [own]});
        assert_eq!(world.rest(headers).await, Err(Failure::UNAUTHORIZED), "{service}");
    }
}

#[tokio::test]
async fn an_http_api_is_answered_alike_and_a_token_event_has_no_place_for_an_assertion() {
    let world = World::new();
    let (token, ada) = (world.token(json!({})), world.team.person(ADA, "ada@example.com", NOW, &json!({})));
    let http = |jti: &str, assertion: Option<&str>| {
        let headers = world.headers(&token, jti, &[]);
        json!({"version": "2.0", "routeArn": "arn:aws:execute-api:us-east-1:111122223333:abc/$default/GET/files/a", "routeKey": "GET /files/{id}",
            "rawPath": FILE, "headers": {"authorization": headers["Authorization"][0], "dpop": headers["DPoP"][0],
                "cf-access-jwt-assertion": assertion.unwrap_or("x")},
            "requestContext": {"http": {"method": "GET"}, "requestId": "g"}})
    };
    assert_eq!(world.ask(http("h1", Some(&ada))).await.unwrap()["isAuthorized"], true);
    assert_eq!(world.ask(http("h2", None)).await.unwrap()["isAuthorized"], false);
    assert_eq!(world.ask(http("h3", Some(&format!("{ada}, {ada}")))).await.unwrap()["isAuthorized"], false);
    let unbound = world.issuer.token(NOW, &json!({"kind": "human", "sub": format!("access|{ADA}"), "sid": "s1"}));
    let event = json!({"type": "TOKEN", "methodArn": format!("{STAGE}/GET{FILE}"), "authorizationToken": format!("Bearer {unbound}")});
    assert_eq!(world.ask(event).await, Err(Failure::UNAUTHORIZED));
}

#[tokio::test]
async fn without_the_issuers_keys_no_person_passes_and_machines_do() {
    let world = World::new();
    let (token, ada) = (world.token(json!({})), world.team.person(ADA, "ada@example.com", NOW, &json!({})));
    world.bucket.remove("trust/issuers/access.json");
    assert_eq!(world.rest(world.headers(&token, "1", &[&ada])).await, Err(Failure::TRUST_STALE));
    let machine = world.issuer.token(NOW, &json!({}));
    assert!(allows(&world.rest(json!({"Authorization": [format!("Bearer {machine}")]})).await));
    world.team.publish(&world.bucket, NOW);
    world.clock.advance(1);
    assert!(allows(&world.rest(world.headers(&token, "2", &[&ada])).await));
}

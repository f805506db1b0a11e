//! What the authorizer lets pass, and everything it does not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use authorizer::Authorizer;
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::Timestamp;
use shared::trust::{Accepts, Revocations, Revoked};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const STAGE: &str = "arn:aws:execute-api:us-east-1:111122223333:abc/v1";
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";

struct World {
    issuer: Issuer,
    bucket: TrustBucket,
    clock: FixedClock,
    authorizer: Authorizer<TrustBucket, FixedClock>,
}

impl World {
    fn new() -> Self {
        let (issuer, bucket, clock) = (Issuer::new("k1"), TrustBucket::default(), FixedClock::at(NOW));
        issuer.publish(&bucket, NOW);
        let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let authorizer = Authorizer::new(accepts, bucket.clone(), clock.clone());
        Self { issuer, bucket, clock, authorizer }
    }

    async fn ask(&self, event: Value) -> Result<Value, Failure> {
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        self.authorizer.handle(event, &invocation).await
    }

    async fn effect(&self, event: Value) -> Result<String, Failure> {
        let answer = self.ask(event).await?;
        Ok(answer["policyDocument"]["Statement"][0]["Effect"].as_str().unwrap().to_owned())
    }

    fn token(&self, changes: Value) -> String {
        self.issuer.token(NOW, &changes)
    }
}

fn event(method: &str, resource: &str, path: &str, token: &str) -> Value {
    json!({"type":"REQUEST","methodArn":format!("{STAGE}/{method}{path}"),"resource":resource,"path":path,
        "httpMethod":method,"headers":{"Authorization":format!("Bearer {token}")},
        "multiValueHeaders":{"Authorization":[format!("Bearer {token}")]},
        "queryStringParameters":null,"multiValueQueryStringParameters":null,
        "requestContext":{"requestId":"g-1"}})
}

fn get_file(token: &str) -> Value {
    event("GET", "/files/{id}", FILE, token)
}

#[tokio::test]
async fn a_good_token_passes_on_exactly_the_path_it_asked_for() {
    let world = World::new();
    let answer = world.ask(get_file(&world.token(json!({})))).await.unwrap();
    let statement = &answer["policyDocument"]["Statement"];
    assert_eq!(statement.as_array().unwrap().len(), 1);
    assert_eq!(statement[0]["Effect"], "Allow");
    assert_eq!(statement[0]["Resource"], json!([format!("{STAGE}/GET{FILE}")]));
    assert_eq!(answer["principalId"], "acme-backend");
    assert_eq!(answer["context"]["jti"], "0198e1a0-0000-7000-8000-000000000001");
    assert!(answer["context"].as_object().unwrap().values().all(Value::is_string));
}

#[tokio::test]
async fn the_answer_and_its_context_hold_no_token() {
    let world = World::new();
    let token = world.token(json!({}));
    let answer = world.ask(get_file(&token)).await.unwrap().to_string();
    assert!(token.split('.').all(|part| !answer.contains(part)));
}

#[tokio::test]
async fn every_credential_fault_is_unauthorized() {
    let world = World::new();
    let other = Issuer::new("k1");
    let now = NOW.seconds();
    for (what, token) in [
        ("another key", other.token(NOW, &json!({}))),
        ("expired", world.token(json!({"iat": now - 400, "exp": now - 100}))),
        ("expired this second", world.token(json!({"iat": now - 300, "exp": now}))),
        ("another audience", world.token(json!({"aud": "https://other.example"}))),
        ("another issuer", world.token(json!({"iss": "https://evil.example"}))),
        ("a human without an assertion", world.token(json!({"kind": "human"}))),
        ("bound to a key", world.token(json!({"cnf": {"jkt": "x"}}))),
        ("bound in a way nobody knows", world.token(json!({"cnf": {"x5t#S256": "x"}}))),
        ("100 hours", world.token(json!({"exp": now + 360_000}))),
        ("a client assertion", world.issuer.assertion("acme-backend", "a", NOW, &json!({}))),
        ("nothing", String::new()),
    ] {
        assert_eq!(world.ask(get_file(&token)).await, Err(Failure::UNAUTHORIZED), "{what}");
    }
    assert_eq!(world.effect(get_file(&world.token(json!({})))).await.as_deref(), Ok("Allow"));
}

#[tokio::test]
async fn a_credential_in_two_places_or_a_wrong_one_is_unauthorized() {
    let world = World::new();
    let token = world.token(json!({}));
    let bearer = format!("Bearer {token}");
    let headers = |multi: Value| {
        let mut event = get_file(&token);
        event["multiValueHeaders"] = multi;
        event
    };
    let mut query = get_file(&token);
    query["queryStringParameters"] = json!({"access_token": token});
    for (what, event) in [
        ("two headers", headers(json!({"Authorization": [bearer, bearer]}))),
        ("two spellings", headers(json!({"Authorization": [bearer], "authorization": [bearer]}))),
        ("a comma", headers(json!({"Authorization": [format!("{bearer}, {bearer}")]}))),
        ("remapped", headers(json!({"Authorization": [bearer], "X-Amzn-Remapped-Authorization": ["x"]}))),
        ("method override", headers(json!({"Authorization": [bearer], "X-HTTP-Method-Override": ["DELETE"]}))),
        ("a cookie", headers(json!({"Cookie": [token]}))),
        ("the scheme of DPoP", headers(json!({"Authorization": [format!("DPoP {token}")]}))),
        ("a tab", headers(json!({"Authorization": [format!("Bearer\t{token}")]}))),
        ("also in the query", query),
    ] {
        assert_eq!(world.ask(event).await, Err(Failure::UNAUTHORIZED), "{what}");
    }
    let lower = headers(json!({"authorization": [format!("bEaReR {token}")]}));
    assert_eq!(world.effect(lower).await.as_deref(), Ok("Allow"));
}

#[tokio::test]
async fn an_event_of_another_shape_is_unauthorized() {
    let world = World::new();
    let token = world.token(json!({}));
    for member in ["type", "methodArn", "resource", "path", "httpMethod"] {
        for value in [json!(null), json!(7), json!([])] {
            let mut event = get_file(&token);
            event[member] = value;
            assert_eq!(world.ask(event).await, Err(Failure::UNAUTHORIZED), "{member}");
        }
    }
    for event in
        [json!(null), json!([]), json!({}), json!("REQUEST"), json!({"type":"TOKEN","authorizationToken":token})]
    {
        assert_eq!(world.ask(event).await, Err(Failure::UNAUTHORIZED));
    }
}

#[tokio::test]
async fn what_the_token_may_not_do_is_denied() {
    let world = World::new();
    let token = world.token(json!({}));
    let reader = world.token(json!({"scope": "files:read"}));
    let encrypt = world.token(json!({"scope": "fields:encrypt:users.email"}));
    for (what, event) in [
        ("a scope it lacks", event("POST", "/files", "/files", &reader)),
        ("another operation's column scope", event("POST", "/fields/decrypt", "/fields/decrypt", &encrypt)),
        ("a route that does not exist", event("GET", "/admin", "/admin", &token)),
        ("a method that does not exist", event("DELETE", "/files/{id}/content", FILE, &token)),
        ("an open route", event("POST", "/oauth2/token", "/oauth2/token", &token)),
        ("a path of another template", event("GET", "/files/{id}", "/files/a/content", &token)),
        ("a wildcard", event("GET", "/files/{id}", "/files/*", &token)),
        ("a variable", event("GET", "/files/{id}", "/files/${aws:username}", &token)),
        ("an encoded dot segment", event("GET", "/files/{id}", "/files/%2e%2e", &token)),
        ("a dot segment", event("GET", "/files/{id}", "/files/..", &token)),
        ("a double slash", event("GET", "/files/{id}", "//files/a", &token)),
    ] {
        let answer = world.ask(event).await.unwrap();
        let statements = answer["policyDocument"]["Statement"].as_array().unwrap();
        assert!(statements.iter().all(|statement| statement["Effect"] == "Deny"), "{what}: {answer}");
        assert!(!answer.to_string().contains("aws:username"), "{what}");
    }
    let allowed = event("POST", "/fields/encrypt", "/fields/encrypt", &encrypt);
    assert_eq!(world.effect(allowed).await.as_deref(), Ok("Allow"));
}

#[tokio::test]
async fn a_revocation_is_seen_five_seconds_later() {
    let world = World::new();
    let event = get_file(&world.token(json!({})));
    assert_eq!(world.effect(event.clone()).await.as_deref(), Ok("Allow"));
    let body = Revocations::body([(Revoked::Client, "acme-backend", NOW.seconds())], &[]);
    world.issuer.put(&world.bucket, "trust/revocations.json", NOW.plus_seconds(1), body);
    world.clock.advance(5);
    assert_eq!(world.ask(event).await, Err(Failure::UNAUTHORIZED));
}

#[tokio::test]
async fn while_fresh_nothing_is_read_and_when_stale_nobody_passes() {
    let world = World::new();
    let event = get_file(&world.token(json!({"exp": NOW.seconds() + 900})));
    assert_eq!(world.effect(event.clone()).await.as_deref(), Ok("Allow"));
    let reads = world.bucket.reads();
    world.clock.advance(4);
    assert_eq!(world.effect(event.clone()).await.as_deref(), Ok("Allow"));
    assert_eq!(world.bucket.reads(), reads, "a warm authorizer reads nothing within five seconds");
    world.bucket.set_down(true);
    world.clock.advance(296);
    assert_eq!(world.effect(event.clone()).await.as_deref(), Ok("Allow"), "last good");
    world.clock.advance(1);
    assert_eq!(world.ask(event).await, Err(Failure::TRUST_STALE));
}

#[tokio::test]
async fn without_trust_data_nobody_passes() {
    for missing in ["trust/keys.json", "trust/revocations.json"] {
        let world = World::new();
        world.bucket.remove(missing);
        assert_eq!(world.ask(get_file(&world.token(json!({})))).await, Err(Failure::TRUST_STALE), "{missing}");
    }
}

//! Every form of event × what it is answered. The events are modelled on those that API Gateway sends, written for this test.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod events;

use authorizer::Authorizer;
use authorizer::event::HttpAnswer;
use cedar::Cedar;
use events::{API, http, http_v1, request, socket, token};
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::Timestamp;
use shared::trust::Accepts;
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";

type Shape = fn(&str, &str, &str, &str) -> Value;

const SHAPES: [(&str, Shape); 4] =
    [("HTTP 2.0", http), ("HTTP 1.0", http_v1), ("REST REQUEST", request), ("REST TOKEN", token)];

/// What the caller will see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Passes,
    Forbidden,
    Unauthorized,
}

struct World {
    issuer: Issuer,
    bucket: TrustBucket,
    authorizer: Authorizer<Cedar, TrustBucket, FixedClock>,
}

impl World {
    fn new() -> Self {
        let (issuer, bucket, clock) = (Issuer::new("k1"), TrustBucket::default(), FixedClock::at(NOW));
        issuer.publish(&bucket, NOW);
        let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let authorizer = Authorizer::new(accepts, bucket.clone(), clock);
        Self { issuer, bucket, authorizer }
    }

    async fn ask(&self, event: Value) -> Result<Value, Failure> {
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        self.authorizer.handle(event, &invocation).await
    }

    async fn see(&self, event: Value) -> Seen {
        match self.ask(event).await {
            Err(Failure::UNAUTHORIZED) => Seen::Unauthorized,
            Err(other) => panic!("{other:?}"),
            Ok(answer) => match (answer.get("isAuthorized"), answer.get("policyDocument")) {
                (Some(Value::Bool(true)), None) => Seen::Passes,
                // The gateway has one answer for both: see the crate's documentation.
                (Some(Value::Bool(false)), None) if answer["context"].get("jti").is_none() => Seen::Unauthorized,
                (Some(Value::Bool(false)), None) => Seen::Forbidden,
                (None, Some(policy)) => match policy["Statement"][0]["Effect"].as_str() {
                    Some("Allow") => Seen::Passes,
                    Some("Deny") => Seen::Forbidden,
                    _ => panic!("{answer}"),
                },
                _ => panic!("{answer}"),
            },
        }
    }

    fn bearer(&self, changes: Value) -> String {
        format!("Bearer {}", self.issuer.token(NOW, &changes))
    }
}

#[tokio::test]
async fn every_shape_is_answered_alike() {
    let world = World::new();
    let now = NOW.seconds();
    let good = world.bearer(json!({}));
    let file = ("GET", "/files/{id}", FILE);
    for (what, (method, template, path), authorization, seen) in [
        ("a good token", file, good.clone(), Seen::Passes),
        ("its scheme in other letters", file, good.replace("Bearer", "bEARER"), Seen::Passes),
        ("a route without parameters", ("POST", "/files", "/files"), good.clone(), Seen::Passes),
        (
            "a scope it lacks",
            ("POST", "/files", "/files"),
            world.bearer(json!({"scope": "files:read"})),
            Seen::Forbidden,
        ),
        ("a route that does not exist", ("GET", "/admin", "/admin"), good.clone(), Seen::Forbidden),
        ("an open route", ("POST", "/oauth2/token", "/oauth2/token"), good.clone(), Seen::Forbidden),
        (
            "a method that does not exist",
            ("DELETE", "/files/{id}/content", "/files/a/content"),
            good.clone(),
            Seen::Forbidden,
        ),
        ("a path of a deeper route", ("GET", "/files/{id}", "/files/a/b/c"), good.clone(), Seen::Forbidden),
        ("a wildcard", ("GET", "/files/{id}", "/files/*"), good.clone(), Seen::Forbidden),
        ("a variable", ("GET", "/files/{id}", "/files/${aws:username}"), good.clone(), Seen::Forbidden),
        ("an encoded dot segment", ("GET", "/files/{id}", "/files/%2e%2e"), good.clone(), Seen::Forbidden),
        ("a double slash", ("GET", "/files/{id}", "//files/a"), good.clone(), Seen::Forbidden),
        ("an expired token", file, world.bearer(json!({"iat": now - 400, "exp": now - 100})), Seen::Unauthorized),
        ("another audience", file, world.bearer(json!({"aud": "https://other.example"})), Seen::Unauthorized),
        ("a token bound to a key", file, world.bearer(json!({"cnf": {"jkt": "x"}})), Seen::Unauthorized),
        ("a human's token", file, world.bearer(json!({"kind": "human"})), Seen::Unauthorized),
        (
            "another issuer's key",
            file,
            format!("Bearer {}", Issuer::new("k1").token(NOW, &json!({}))),
            Seen::Unauthorized,
        ),
        ("two tokens", file, format!("{good},{good}"), Seen::Unauthorized),
        ("two tokens with a space", file, format!("{good}, {good}"), Seen::Unauthorized),
        ("the scheme of DPoP", file, good.replace("Bearer", "DPoP"), Seen::Unauthorized),
        ("another scheme", file, good.replace("Bearer", "Basic"), Seen::Unauthorized),
        ("no scheme", file, good.replace("Bearer ", ""), Seen::Unauthorized),
        ("two spaces", file, good.replace(' ', "  "), Seen::Unauthorized),
        ("nothing", file, String::new(), Seen::Unauthorized),
    ] {
        for (name, shape) in SHAPES {
            assert_eq!(world.see(shape(method, template, path, &authorization)).await, seen, "{name}: {what}");
        }
    }
}

#[tokio::test]
async fn an_answer_has_the_form_of_its_shape_and_names_the_exact_path() {
    let world = World::new();
    let good = world.bearer(json!({}));
    for (name, shape) in SHAPES {
        let answer = world.ask(shape("GET", "/files/{id}", FILE, &good)).await.unwrap();
        let mut members: Vec<&String> = answer.as_object().unwrap().keys().collect();
        members.sort();
        if name == "HTTP 2.0" {
            assert_eq!(members, ["context", "isAuthorized"]);
        } else {
            assert_eq!(members, ["context", "policyDocument", "principalId"]);
            let stage = if name == "HTTP 1.0" { "$default" } else { "v1" };
            let resource = json!([format!("{API}/{stage}/GET{FILE}")]);
            assert_eq!(answer["policyDocument"]["Statement"][0]["Resource"], resource, "{name}");
        }
        let context = answer["context"].as_object().unwrap();
        assert_eq!(context["jti"], "0198e1a0-0000-7000-8000-000000000001");
        assert!(context.values().all(Value::is_string) && !context.contains_key("claims"), "{name}");
        let answer = answer.to_string();
        assert!(good.split(['.', ' ']).skip(1).all(|part| !answer.contains(part)), "{name} holds the token");
    }
}

/// API Gateway takes 512 characters of a resource and, of WebSocket APIs at least, 8 KB of an answer. What is more would be its 500.
#[tokio::test]
async fn no_answer_is_longer_than_the_gateway_takes() {
    let world = World::new();
    let full = "fields:decrypt:abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz";
    let scopes: Vec<String> =
        (0..6).map(|at| format!("{full}{at}")).chain(["files:read".into(), "app".into()]).collect();
    let long = world.bearer(json!({"scope": scopes.join(" "), "sub": "s".repeat(64), "client_id": "s".repeat(64)}));
    let head = format!("{API}/v1/GET/app/").len();
    for (letters, seen) in
        [(1, Seen::Passes), (512 - head, Seen::Passes), (513 - head, Seen::Forbidden), (9_000, Seen::Forbidden)]
    {
        let path = format!("/app/{}", "a".repeat(letters));
        for (name, shape) in SHAPES {
            // The default stage has a longer name than the one of the others, and an answer without a policy has no resource.
            if name == "HTTP 1.0" || name == "HTTP 2.0" {
                continue;
            }
            let event = shape("GET", "/app/{proxy+}", &path, &long);
            assert_eq!(world.see(event.clone()).await, seen, "{name}: {letters}");
            let answer = world.ask(event).await.unwrap();
            let resource = answer["policyDocument"]["Statement"][0]["Resource"][0].as_str().unwrap();
            assert!(resource.len() <= 512 && answer.to_string().len() <= 8_192, "{name}: {answer}");
        }
        let answer = world.ask(http("GET", "/app/{proxy+}", &path, &long)).await.unwrap();
        assert!(answer["isAuthorized"] == true && answer.to_string().len() <= 8_192, "HTTP 2.0: {answer}");
    }
}

#[tokio::test]
async fn a_refused_credential_says_no_more_to_an_http_api_than_that() {
    let world = World::new();
    let answer = world.ask(http("GET", "/files/{id}", FILE, "")).await.unwrap();
    assert_eq!(answer, json!({"isAuthorized": false, "context": {"reason": "token_malformed"}}));
}

/// The event looks the same where an HTTP API has simple responses off; the answer is a policy then, whatever was wrong.
#[tokio::test]
async fn an_http_api_without_simple_responses_is_answered_a_policy() {
    let World { issuer, bucket, authorizer } = World::new();
    let world = World { issuer, bucket, authorizer: authorizer.answering(HttpAnswer::Policy) };
    let good = world.bearer(json!({}));
    let simple = World { issuer: world.issuer.clone(), ..World::new() };
    simple.issuer.publish(&simple.bucket, NOW);
    let event = http("GET", "/files/{id}", FILE, &good);
    let (answer, word) = (world.ask(event.clone()).await.unwrap(), simple.ask(event).await.unwrap());
    assert_eq!(word["isAuthorized"], true);
    let allowed = |resource: String, effect: &str| {
        json!({"Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": effect, "Resource": [resource]}]})
    };
    let resource = format!("{API}/$default/GET{FILE}");
    assert_eq!(
        answer,
        json!({"principalId": "acme-backend", "policyDocument": allowed(resource, "Allow"), "context": word["context"]})
    );
    let everything = || allowed(format!("{API}/$default/*"), "Deny");
    let long = format!("/app/{}", "a".repeat(512));
    let app = world.bearer(json!({"scope": "app"}));
    for (what, (method, template, path), authorization, principal, reason) in [
        ("no scope", ("GET", "/files/{id}", FILE), &app, "acme-backend", "insufficient_scope"),
        ("no route", ("GET", "/nowhere", "/nowhere"), &good, "acme-backend", "unknown_route"),
        ("a pattern", ("GET", "/files/{id}", "/files/*"), &good, "acme-backend", "unsafe_path"),
        (
            "a longer resource than a policy may name",
            ("GET", "/app/{proxy+}", &*long),
            &app,
            "acme-backend",
            "unsafe_path",
        ),
        ("nothing", ("GET", "/files/{id}", FILE), &String::new(), "-", "token_malformed"),
        ("no token", ("GET", "/files/{id}", FILE), &"Bearer x".to_owned(), "-", "token_malformed"),
    ] {
        let answer = world.ask(http(method, template, path, authorization)).await.unwrap();
        assert_eq!(
            (&answer["principalId"], &answer["context"]["reason"]),
            (&json!(principal), &json!(reason)),
            "{what}"
        );
        assert_eq!((&answer["policyDocument"], answer.get("isAuthorized")), (&everything(), None), "{what}");
    }
    // Nothing else changes with it.
    assert_eq!(world.see(request("GET", "/files/{id}", FILE, "")).await, Seen::Unauthorized);
    world.bucket.remove("trust/keys.json");
    let unread = Authorizer::<Cedar, _, _>::new(
        Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() },
        world.bucket.clone(),
        FixedClock::at(NOW),
    );
    let world = World { authorizer: unread.answering(HttpAnswer::Policy), ..world };
    assert_eq!(world.ask(http("GET", "/files/{id}", FILE, &good)).await, Err(Failure::TRUST_STALE));
}

#[tokio::test]
async fn the_path_of_a_named_stage_is_read_without_it() {
    let world = World::new();
    let good = world.bearer(json!({}));
    let staged = |raw: &str| {
        let mut event = http("GET", "/files/{id}", FILE, &good);
        event["routeArn"] = json!(format!("{API}/v1/GET{FILE}"));
        event["requestContext"]["stage"] = json!("v1");
        event["rawPath"] = json!(raw);
        event
    };
    for (raw, seen) in [
        (format!("/v1{FILE}"), Seen::Passes),
        (FILE.to_owned(), Seen::Passes),
        (format!("/v1/v1{FILE}"), Seen::Forbidden),
        (format!("/v2{FILE}"), Seen::Forbidden),
        (format!("v1{FILE}"), Seen::Forbidden),
        ("/v1".to_owned(), Seen::Forbidden),
    ] {
        assert_eq!(world.see(staged(&raw)).await, seen, "{raw}");
    }
}

#[tokio::test]
async fn a_route_key_that_names_no_operation_of_ours_is_forbidden_and_one_that_contradicts_is_refused() {
    let world = World::new();
    let good = world.bearer(json!({}));
    for (key, seen) in [
        ("GET /files/{id}", Seen::Passes),
        ("ANY /files/{id}", Seen::Passes),
        ("$default", Seen::Forbidden),
        ("GET /{proxy+}", Seen::Forbidden),
        ("ANY /{proxy+}", Seen::Forbidden),
        ("DELETE /files/{id}", Seen::Unauthorized),
        ("get /files/{id}", Seen::Unauthorized),
    ] {
        let mut event = http("GET", "/files/{id}", FILE, &good);
        event["routeKey"] = json!(key);
        assert_eq!(world.see(event).await, seen, "{key}");
    }
}

#[tokio::test]
async fn a_token_in_the_query_or_a_second_place_is_refused() {
    let world = World::new();
    let good = world.bearer(json!({}));
    let mut query = http("GET", "/files/{id}", FILE, &good);
    query["queryStringParameters"]["access_token"] = json!("x");
    let mut remapped = http("GET", "/files/{id}", FILE, &good);
    remapped["headers"]["x-amzn-remapped-authorization"] = json!(good);
    let mut cookie = http("GET", "/files/{id}", FILE, &good);
    cookie["headers"].as_object_mut().unwrap().remove("authorization");
    cookie["cookies"] = json!([good]);
    for event in [query, remapped, cookie] {
        assert_eq!(world.see(event).await, Seen::Unauthorized);
    }
    // The list of values that the gateway took for the identity is not where we look.
    let mut bare = http("GET", "/files/{id}", FILE, &good);
    bare.as_object_mut().unwrap().remove("identitySource");
    assert_eq!(world.see(bare).await, Seen::Passes);
    let mut other = http("GET", "/files/{id}", FILE, "");
    other["identitySource"] = json!([good]);
    assert_eq!(world.see(other).await, Seen::Unauthorized);
}

#[tokio::test]
async fn an_incomplete_event_of_any_shape_is_unauthorized() {
    let world = World::new();
    let good = world.bearer(json!({}));
    let needed: [(&str, Shape, &[&str]); 4] = [
        ("HTTP 2.0", http, &["/routeArn", "/routeKey", "/rawPath", "/requestContext/http/method", "/headers"]),
        ("HTTP 1.0", http_v1, &["/type", "/methodArn", "/resource", "/path", "/httpMethod", "/headers"]),
        ("REST REQUEST", request, &["/type", "/methodArn", "/resource", "/path", "/httpMethod", "/multiValueHeaders"]),
        ("REST TOKEN", token, &["/type", "/methodArn", "/authorizationToken"]),
    ];
    for (name, shape, members) in needed {
        for member in members {
            for value in [json!(7), json!([]), json!(true)] {
                let mut event = shape("GET", "/files/{id}", FILE, &good);
                *event.pointer_mut(member).unwrap() = value.clone();
                assert_eq!(world.ask(event).await, Err(Failure::UNAUTHORIZED), "{name} {member} {value}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_none_of_the_shapes_is_unauthorized() {
    let world = World::new();
    let good = world.bearer(json!({}));
    let with = |mut event: Value, member: &str, value: Value| {
        event[member] = value;
        event
    };
    let mut routeless = http("GET", "/files/{id}", FILE, &good);
    routeless.as_object_mut().unwrap().remove("routeArn");
    for event in [
        json!(null),
        json!([]),
        json!({}),
        json!("TOKEN"),
        routeless.clone(),
        // Not even when another shape could be read into it.
        with(routeless, "methodArn", json!(format!("{API}/v1/GET{FILE}"))),
        with(request("GET", "/files/{id}", FILE, &good), "type", json!("request")),
        with(token("GET", "", FILE, &good), "type", json!("JWT")),
        with(token("GET", "", FILE, &good), "methodArn", json!(format!("{API}/*/GET{FILE}"))),
        json!({"version": "2.0", "routeKey": "$default", "rawPath": "/", "requestContext": {"http": {"method": "GET"}}}),
    ] {
        assert_eq!(world.ask(event.clone()).await, Err(Failure::UNAUTHORIZED), "{event}");
    }
}

#[tokio::test]
async fn a_websocket_is_opened_by_a_token_for_the_application_and_the_answer_names_the_handshake_alone() {
    let world = World::new();
    let good = world.bearer(json!({"scope": "app"}));
    let answer = world.ask(socket(&good)).await.unwrap();
    assert_eq!(
        answer["policyDocument"]["Statement"],
        json!([{"Action": "execute-api:Invoke", "Effect": "Allow",
        "Resource": [format!("{API}/default/$connect")]}])
    );
    assert_eq!((&answer["principalId"], &answer["context"]["scope"]), (&json!("acme-backend"), &json!("app")));
    assert!(answer["context"].as_object().unwrap().values().all(Value::is_string));
    // A version of the function, as one recorded event has it, is no payload format.
    let mut latest = socket(&good);
    latest["version"] = json!("$LATEST");
    assert_eq!(world.see(latest).await, Seen::Passes);
    for (what, authorization, seen) in [
        ("files are not the application", world.bearer(json!({})), Seen::Forbidden),
        ("nothing", String::new(), Seen::Unauthorized),
        ("expired", world.bearer(json!({"scope": "app", "exp": NOW.seconds()})), Seen::Unauthorized),
        (
            "bound, which nobody could prove",
            world.bearer(json!({"scope": "app", "cnf": {"jkt": "k"}})),
            Seen::Unauthorized,
        ),
        (
            "a person's without the assertion",
            world.bearer(json!({"scope": "app", "kind": "human"})),
            Seen::Unauthorized,
        ),
    ] {
        assert_eq!(world.see(socket(&authorization)).await, seen, "{what}");
    }
    for (pointer, value) in [
        ("/requestContext/eventType", json!("MESSAGE")),
        ("/requestContext/eventType", json!("DISCONNECT")),
        ("/requestContext/eventType", json!(null)),
        ("/requestContext/routeKey", json!("$default")),
        ("/requestContext/routeKey", json!("sendmessage")),
        ("/methodArn", json!(format!("{API}/default/$default"))),
        ("/methodArn", json!(format!("{API}/default/$connect/more"))),
        ("/methodArn", json!(format!("{API}/*/$connect"))),
        ("/methodArn", json!(format!("{API}/default/GET/files/a"))),
        ("/queryStringParameters", json!({"access_token": good})),
        ("/multiValueHeaders", json!({"Authorization": [good, good]})),
        ("/multiValueHeaders", json!([])),
    ] {
        let mut event = socket(&good);
        *event.pointer_mut(pointer).unwrap() = value.clone();
        assert_eq!(world.ask(event).await, Err(Failure::UNAUTHORIZED), "{pointer} {value}");
    }
}

#[tokio::test]
async fn without_trust_data_no_shape_passes() {
    let world = World::new();
    world.bucket.remove("trust/keys.json");
    for (name, shape) in SHAPES {
        let event = shape("GET", "/files/{id}", FILE, &world.bearer(json!({})));
        assert_eq!(world.ask(event).await, Err(Failure::TRUST_STALE), "{name}");
    }
}

//! Each form of event that API Gateway knows, good ones and hostile ones, through the deployed binary as its own process.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

#[path = "../../../functions/authorizer/tests/events/mod.rs"]
mod events;
mod support;

use bytes::Bytes;
use events::{API, http, http_v1, request, socket, token};
use local::lambda::Kind;
use local::stack::ENV;
use serde_json::{Value, json};
use support::Running;

const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";

/// `allow`, `deny`, or the error that the process answered.
async fn said(running: &Running, event: &Value) -> String {
    let function = format!("portcullis-{ENV}-authorizer");
    let invoked = running.stack.lambda.invoke(&function, Bytes::from(event.to_string()), Kind::RequestResponse).await;
    let outcome = invoked.unwrap();
    let answer: Value = serde_json::from_slice(&outcome.payload).unwrap();
    if outcome.function_error.is_some() {
        assert_eq!(answer.as_object().unwrap().len(), 2, "an error is its name twice and nothing else: {answer}");
        assert_eq!(answer["errorMessage"], answer["errorType"]);
        return answer["errorMessage"].as_str().unwrap().to_owned();
    }
    let allowed = match answer.get("isAuthorized") {
        Some(simple) => simple == true,
        None => answer["policyDocument"]["Statement"][0]["Effect"] == "Allow",
    };
    if allowed { "allow" } else { "deny" }.to_owned()
}

type Shape = fn(&str, &str, &str, &str) -> Value;

/// A form of event with one thing in it changed, or without it where there is nothing to change it to.
fn changed(mut event: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    event
}

/// Events of all five forms that API Gateway would never send, with what the process must answer: nothing that is incomplete, of another
/// type or contradicts itself is read into something that is whole.
fn hostile(files: &str, app: &str) -> Vec<(Value, &'static str)> {
    let forms: [(Shape, &[&str]); 5] = [
        (
            http,
            &[
                "/routeArn",
                "/routeKey",
                "/rawPath",
                "/requestContext",
                "/requestContext/http",
                "/requestContext/http/method",
            ],
        ),
        (http_v1, &["/type", "/methodArn", "/resource", "/path", "/httpMethod"]),
        (request, &["/type", "/methodArn", "/resource", "/path", "/httpMethod"]),
        (token, &["/type", "/methodArn", "/authorizationToken"]),
        (|_, _, _, authorization| socket(authorization), &["/type", "/methodArn", "/requestContext/routeKey"]),
    ];
    let mut events = Vec::new();
    for (at, (form, members)) in forms.into_iter().enumerate() {
        let good = form("GET", "/files/{id}", FILE, if at == 4 { app } else { files });
        for member in members {
            for value in [None, Some(json!(null)), Some(json!(7)), Some(json!([])), Some(json!({"a": [good]}))] {
                events.push((changed(good.clone(), member, value), "Unauthorized"));
            }
        }
        let arn = if at == 0 { "/routeArn" } else { "/methodArn" };
        for bad in [
            "",
            "arn:aws:execute-api",
            &format!("{API}/*/GET{FILE}"),
            &format!("{API}/v1"),
            "arn:aws:execute-api:us-east-1:*:abc/v1/GET/files/a",
            "arn:aws:lambda:us-east-1:111122223333:function:x",
        ] {
            events.push((changed(good.clone(), arn, Some(json!(bad))), "Unauthorized"));
        }
        if at == 3 {
            continue;
        }
        // What HTTP APIs make of the error is not settled, so a credential fault is a word there.
        let refused = if at == 0 { "deny" } else { "Unauthorized" };
        let fields = if at < 2 { "/headers" } else { "/multiValueHeaders" };
        let field = |value: &str| if at < 2 { json!(value) } else { json!([value]) };
        for (name, value) in [
            ("authorization ", files),
            ("AUTHORIZATION", files),
            ("x-amzn-remapped-authorization", files),
            ("X-HTTP-Method-Override", "DELETE"),
            ("cf-access-jwt-assertion", "a, b"),
        ] {
            let held = good.pointer(fields).unwrap().clone();
            let more = changed(json!({"h": held}), &format!("/h/{name}"), Some(field(value)));
            let event = changed(good.clone(), fields, Some(more["h"].clone()));
            // A name that is none says nothing, and takes nothing away.
            events.push((event, if name.ends_with(' ') { "allow" } else { refused }));
        }
        for value in [
            json!(7),
            json!([]),
            json!("Authorization"),
            json!({"Authorization": 7}),
            json!({"Authorization": [[files]]}),
        ] {
            events.push((changed(good.clone(), fields, Some(value)), "Unauthorized"));
        }
        events.push((changed(good, "/queryStringParameters", Some(json!({"access_token": files}))), refused));
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hostile_event_of_any_form_passes_the_process_or_ends_it() {
    let running = Running::start().await;
    let files = format!("Bearer {}", running.token("acme-backend").await);
    let app = format!("Bearer {}", running.token("acme-legacy").await);
    for (event, expected) in hostile(&files, &app) {
        assert_eq!(said(&running, &event).await, expected, "{event}");
    }
    for shape in [http, http_v1, request, token] {
        assert_eq!(said(&running, &shape("GET", "/files/{id}", FILE, &files)).await, "allow");
    }
    assert_eq!(said(&running, &socket(&app)).await, "allow");
    assert_eq!(
        running.stack.lambda.cold_starts(&format!("portcullis-{ENV}-authorizer")),
        1,
        "one process took them all"
    );
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_event_is_answered_by_the_process_as_by_the_function() {
    let running = Running::start().await;
    let (files, app) = (running.token("acme-backend").await, running.token("acme-legacy").await);
    let last = if files.ends_with('A') { "B" } else { "A" };
    let tampered = format!("Bearer {}{last}{}", &files[..files.len() - 9], &files[files.len() - 8..]);
    let (files, app) = (format!("Bearer {files}"), format!("Bearer {app}"));
    let four = |method: &str, template: &str, path: &str, authorization: &str| {
        [http, http_v1, request, token].map(|shape| shape(method, template, path, authorization))
    };
    let hidden = ["deny", "Unauthorized", "Unauthorized", "Unauthorized"];
    for (what, method, template, path, authorization, expected) in [
        ("a good token", "GET", "/files/{id}", FILE, &files, ["allow"; 4]),
        ("the same again", "GET", "/files/{id}", FILE, &files, ["allow"; 4]),
        ("no right to it", "GET", "/files/{id}", FILE, &app, ["deny"; 4]),
        ("no such route", "GET", "/nowhere", "/nowhere", &files, ["deny"; 4]),
        ("a pattern for a path", "GET", "/files/{id}", "/files/*", &files, ["deny"; 4]),
        ("a path out of itself", "GET", "/files/{id}", "/files/..", &files, ["deny"; 4]),
        ("a variable for a path", "GET", "/files/{id}", "/files/${aws:username}", &files, ["deny"; 4]),
        ("a signature with one character changed", "GET", "/files/{id}", FILE, &tampered, hidden),
        ("no token", "GET", "/files/{id}", FILE, &String::new(), hidden),
        ("another scheme", "GET", "/files/{id}", FILE, &"Basic YTpi".to_owned(), hidden),
        ("two tokens in one", "GET", "/files/{id}", FILE, &format!("{files}, {files}"), hidden),
    ] {
        for (event, expected) in four(method, template, path, authorization).iter().zip(expected) {
            assert_eq!(said(&running, event).await, expected, "{what}: {event}");
        }
    }
    for (authorization, expected) in [(&app, "allow"), (&files, "deny"), (&tampered, "Unauthorized")] {
        assert_eq!(said(&running, &socket(authorization)).await, expected, "a handshake");
    }
    let good = request("GET", "/files/{id}", FILE, &files);
    let without = |member: &str| {
        let mut event = good.clone();
        event.as_object_mut().unwrap().remove(member);
        event
    };
    let with = |pointer: &str, value: Value| {
        let mut event = good.clone();
        *event.pointer_mut(pointer).unwrap() = value;
        event
    };
    for event in [
        json!(null),
        json!([]),
        json!({}),
        json!("x"),
        json!({"version": "3.0", "type": "REQUEST"}),
        without("type"),
        without("methodArn"),
        without("resource"),
        without("path"),
        without("httpMethod"),
        with("/methodArn", json!(format!("{API}/*/GET{FILE}"))),
        with("/methodArn", json!("arn:aws:lambda:us-east-1:111122223333:function:x")),
        with("/multiValueHeaders", json!({"Authorization": [files, files]})),
        with("/multiValueHeaders", json!({"Authorization": files})),
        with("/queryStringParameters", json!({"access_token": "x"})),
        with("/httpMethod", json!(["GET"])),
    ] {
        assert_eq!(said(&running, &event).await, "Unauthorized", "{event}");
    }
    assert_eq!(said(&running, &good).await, "allow", "and the process lives on");
    let log = running.stack.lambda.log(&format!("portcullis-{ENV}-authorizer"));
    let token = files.strip_prefix("Bearer ").unwrap();
    assert!(token.split('.').all(|part| !log.contains(part)), "the log holds no part of a token");
    running.stack.stop().await;
}

//! `POST /files` in process: what is refused, what is signed, and what is never half done.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use shared::boot::{Api, Handler, Routes};
use shared::gate::Caller;
use shared::http::{Request, Response};
use shared::object::{FileId, MAX_FILE, MAX_PUT, Sha256Digest, SigningSettings};
use shared::problem::Code;
use support::{World, answer, caller, empty as world, invocation, start};
use testkit::callers;
use testkit::files::Fact;
use testkit::objects::CANARY;
use upload::SIGNER_ROLE;

fn body() -> Value {
    json!({
        "name": "Überblick \"Q3\".pdf",
        "content_type": "application/pdf",
        "size": 11,
        "sha256": Sha256Digest::of(b"hello world").to_string(),
        "mode": "put",
    })
}

fn form_body() -> Value {
    json!({ "name": "a.png", "content_type": "image/png", "max_size": 5_000, "mode": "post" })
}

fn large_body() -> Value {
    json!({ "name": "a.zip", "content_type": "application/zip", "size": 10_000_u64 * (8 << 20), "mode": "multipart" })
}

fn request(body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> Request {
    let headers = [&[("Content-Type", "application/json")], headers].concat();
    support::request(None, &headers, body)
}

impl World {
    async fn post(&self, body: &Value, headers: &[(&str, &str)]) -> Result<Response, Code> {
        self.post_as(&caller("acme", "alice"), body, headers).await
    }

    async fn post_as(&self, caller: &Caller, body: &Value, headers: &[(&str, &str)]) -> Result<Response, Code> {
        let answer = self.upload.create(caller, &request(body.to_string(), headers)).await;
        answer.map_err(|problem| problem.code)
    }
}

fn id(response: &Response) -> FileId {
    FileId::parse(answer(response)["id"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_file_is_pending_and_gets_one_exact_put() {
    let world = world();
    let response = world.post(&body(), &[]).await.unwrap();
    assert_eq!((response.status(), response.find("cache-control")), (201, Some("no-store")));
    let said = answer(&response);
    assert_eq!(said["mode"], "put");
    assert_eq!(said["expires_at"], start().seconds() + 300);
    assert_eq!(said["upload"]["method"], "PUT");
    assert_eq!(said["upload"]["headers"]["content-type"], "application/pdf");
    assert!(said["upload"]["url"].as_str().unwrap().starts_with("https://objects.test/t/acme/"));

    let (terms, life) = world.signing.writes().remove(0);
    assert_eq!((terms.key.file(), terms.key.tenant().as_str()), (id(&response), "acme"));
    assert_eq!((terms.size.bytes(), terms.sha256, life.seconds()), (11, Sha256Digest::of(b"hello world"), 300));

    let row = world.files.row(id(&response).uuid()).unwrap();
    assert_eq!((row.tenant.as_str(), row.subject.as_str(), row.status()), ("acme", "alice", "pending"));
    assert_eq!(
        (row.name.as_str(), row.content_type.as_str(), row.size),
        ("Überblick _Q3_.pdf", "application/pdf", Some(11))
    );
    assert_eq!(row.url_expires_ms, (start().seconds() + 300) * 1000);
}

#[tokio::test]
async fn a_body_that_breaks_a_rule_is_refused_before_anything_happens() {
    let digest = Sha256Digest::of(b"x").to_string();
    let with = |name: &str, value: Value| {
        let mut body = body();
        body[name] = value;
        body
    };
    let without = |name: &str| {
        let mut body = body();
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let form = |name: &str, value: Value| {
        let mut body = form_body();
        body[name] = value;
        body
    };
    let large = |name: &str, value: Value| {
        let mut body = large_body();
        body[name] = value;
        body
    };
    let cases = [
        (with("key", json!("t/globex/x")), Code::MalformedRequest),
        (with("bucket", json!("other")), Code::MalformedRequest),
        (with("tenant", json!("globex")), Code::MalformedRequest),
        (with("subject", json!("bob")), Code::MalformedRequest),
        (with("id", json!("01920000-0000-7000-8000-0000000000f1")), Code::MalformedRequest),
        (with("max_size", json!(5)), Code::MalformedRequest),
        (with("size", json!(0)), Code::MalformedRequest),
        (with("size", json!(-1)), Code::MalformedRequest),
        (with("size", json!(1.5)), Code::MalformedRequest),
        (with("size", json!("11")), Code::MalformedRequest),
        (with("size", json!(MAX_PUT + 1)), Code::PayloadTooLarge),
        (with("size", json!(u64::MAX)), Code::PayloadTooLarge),
        (with("content_type", json!("application/x-msdownload")), Code::UnsupportedType),
        (with("content_type", json!("text/plain; charset=utf-8")), Code::UnsupportedType),
        (with("content_type", json!("")), Code::UnsupportedType),
        (with("sha256", json!("aGVsbG8=")), Code::MalformedRequest),
        (with("sha256", json!("")), Code::MalformedRequest),
        (with("sha256", json!(format!("{digest} "))), Code::MalformedRequest),
        (with("name", json!(7)), Code::MalformedRequest),
        (with("mode", json!("post")), Code::MalformedRequest),
        (with("mode", json!("multipart")), Code::MalformedRequest),
        (with("mode", json!("PUT")), Code::UnsupportedMode),
        (with("mode", json!(null)), Code::MalformedRequest),
        (form("max_size", json!(0)), Code::MalformedRequest),
        (form("max_size", json!(-1)), Code::MalformedRequest),
        (form("max_size", json!(MAX_PUT + 1)), Code::PayloadTooLarge),
        (form("size", json!(5)), Code::MalformedRequest),
        (form("sha256", json!(digest)), Code::MalformedRequest),
        (form("key", json!("t/globex/${filename}")), Code::MalformedRequest),
        (form("fields", json!({"acl": "public-read"})), Code::MalformedRequest),
        (form("content_type", json!("image/bmp")), Code::UnsupportedType),
        (large("size", json!(0)), Code::MalformedRequest),
        (large("size", json!(MAX_FILE + 1)), Code::PayloadTooLarge),
        (large("part_size", json!(0)), Code::MalformedRequest),
        (large("part_size", json!(5 * 1024 * 1024 - 1)), Code::MalformedRequest),
        (large("part_size", json!(6_u64 << 30)), Code::PayloadTooLarge),
        (large("upload_id", json!("u")), Code::MalformedRequest),
        (large("sha256", json!(digest)), Code::MalformedRequest),
        (large("parts", json!([])), Code::MalformedRequest),
        (without("mode"), Code::MalformedRequest),
        (without("name"), Code::MalformedRequest),
        (without("size"), Code::MalformedRequest),
        (without("sha256"), Code::MalformedRequest),
        (without("content_type"), Code::MalformedRequest),
        (json!([]), Code::MalformedRequest),
        (json!({}), Code::MalformedRequest),
        (with("name", json!("n".repeat(9000))), Code::PayloadTooLarge),
    ];
    for (body, want) in cases {
        let world = world();
        assert_eq!(world.post(&body, &[]).await.err(), Some(want), "{body}");
        assert!(
            world.files.is_empty() && world.signing.tenants().is_empty() && world.signing.writes().is_empty(),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_file_of_unknown_size_gets_a_form_for_one_key_and_type() {
    let world = world();
    let response = world.post(&form_body(), &[]).await.unwrap();
    let said = answer(&response);
    assert_eq!(
        (response.status(), &said["mode"], &said["upload"]["url"]),
        (201, &json!("post"), &json!("https://objects.test/"))
    );
    assert_eq!(said["expires_at"], start().seconds() + 300);
    let key = format!("t/acme/{}", id(&response));
    assert_eq!(said["upload"]["fields"]["key"], key);
    let (terms, life) = world.signing.forms().remove(0);
    assert_eq!((terms.key.to_string(), terms.longest.bytes(), life.seconds()), (key, 5_000, 300));
    assert_eq!(terms.content_type.declared(), "image/png");
    let row = world.files.row(id(&response).uuid()).unwrap();
    assert_eq!((row.mode.as_str(), row.size, row.max_size, row.status()), ("post", None, Some(5_000), "pending"));
    assert_eq!(row.url_expires_ms, (start().seconds() + 300) * 1000);
}

#[tokio::test]
async fn a_file_of_ten_thousand_parts_is_planned_in_one_call_that_asks_nobody_for_a_session() {
    let world = world();
    let response = world.post(&large_body(), &[("Idempotency-Key", "order-7")]).await.unwrap();
    let said = answer(&response);
    assert_eq!((response.status(), &said["mode"]), (201, &json!("multipart")));
    assert_eq!(said["upload"], json!({ "part_size": 8 << 20, "parts": 10_000 }));
    assert_eq!(said["expires_at"], start().seconds() + 24 * 60 * 60);
    assert!(world.signing.tenants().is_empty() && world.signing.calls().is_empty());
    assert_eq!(world.files.calls(), ["api.create_file"]);
    let row = world.files.row(id(&response).uuid()).unwrap();
    assert_eq!((row.mode.as_str(), row.size, row.part_size), ("multipart", Some(10_000 * (8 << 20)), Some(8 << 20)));

    // A plan that is asked for again ends when the first one did.
    world.clock.advance(3600);
    let again = world.post(&large_body(), &[("Idempotency-Key", "order-7")]).await.unwrap();
    assert_eq!(answer(&again), said);
}

#[tokio::test]
async fn a_key_is_for_one_mode_as_it_is_for_one_body() {
    let world = world();
    let key = [("Idempotency-Key", "order-7")];
    let first = id(&world.post(&form_body(), &key).await.unwrap());
    assert_eq!(world.post(&body(), &key).await.err(), Some(Code::IdempotencyConflict));
    let again = world.post(&form_body(), &key).await.unwrap();
    assert_eq!((id(&again), answer(&again)["mode"].clone(), world.files.len()), (first, json!("post"), 1));
}

#[tokio::test]
async fn a_repeated_field_is_refused() {
    let world = world();
    let text = body().to_string().replacen('{', "{\"size\":1,", 1);
    let refused = world.upload.create(&caller("acme", "alice"), &request(text, &[])).await.unwrap_err();
    assert_eq!(refused.code, Code::MalformedRequest);
}

#[tokio::test]
async fn sizes_at_the_limits_are_accepted() {
    for size in [1, MAX_PUT] {
        let mut body = body();
        body["size"] = json!(size);
        assert_eq!(world().post(&body, &[]).await.unwrap().status(), 201, "{size}");
    }
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_file_and_a_fresh_url() {
    let world = world();
    let key = [("Idempotency-Key", "order-7")];
    let first = world.post(&body(), &key).await.unwrap();
    world.clock.advance(200);
    let again = world.post(&body(), &key).await.unwrap();
    assert_eq!((again.status(), id(&again), world.files.len()), (201, id(&first), 1));
    assert_eq!(answer(&again)["expires_at"], start().seconds() + 500);
    let last = world.signing.writes().pop().unwrap();
    assert_eq!(last.0.key.file(), id(&first));
    assert_eq!(world.files.row(id(&first).uuid()).unwrap().url_expires_ms, (start().seconds() + 500) * 1000);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_a_conflict() {
    for (name, value) in [("size", json!(12)), ("name", json!("other.pdf")), ("content_type", json!("image/png"))] {
        let world = world();
        let key = [("Idempotency-Key", "order-7")];
        world.post(&body(), &key).await.unwrap();
        let mut other = body();
        other[name] = value;
        assert_eq!(world.post(&other, &key).await.err(), Some(Code::IdempotencyConflict), "{name}");
        assert_eq!(world.files.len(), 1);
    }
}

#[tokio::test]
async fn a_key_is_its_callers_own_and_ends_after_a_day() {
    let world = world();
    let key = [("Idempotency-Key", "order-7")];
    let first = id(&world.post(&body(), &key).await.unwrap());
    let others = [caller("acme", "bob"), caller("globex", "alice")];
    for other in others {
        assert_ne!(id(&world.post_as(&other, &body(), &key).await.unwrap()), first);
    }
    world.clock.advance(24 * 60 * 60 - 1);
    assert_eq!(id(&world.post(&body(), &key).await.unwrap()), first);
    world.clock.advance(1);
    assert_ne!(id(&world.post(&body(), &key).await.unwrap()), first);
}

#[tokio::test]
async fn over_the_quota_nothing_is_made_and_nothing_signed_leaves() {
    for (subject, files, bytes) in
        [("", Some(0), None), ("*", Some(0), None), ("alice", None, Some(10)), ("", None, Some(10))]
    {
        let world = world();
        world.files.set_quota("acme", subject, files, bytes);
        for body in [body(), form_body(), large_body()] {
            assert_eq!(world.post(&body, &[]).await.err(), Some(Code::QuotaExceeded), "{subject} {body}");
        }
        assert!(world.files.is_empty());
        let elsewhere = world.post_as(&caller("globex", "alice"), &body(), &[]).await.unwrap();
        assert_eq!(elsewhere.status(), 201);
    }
    let world = world();
    world.files.set_quota("acme", "*", Some(0), None);
    world.files.set_quota("acme", "alice", Some(1), Some(11));
    let key = [("Idempotency-Key", "order-7")];
    let first = id(&world.post(&body(), &key).await.unwrap());
    assert_eq!(world.post(&body(), &[]).await.err(), Some(Code::QuotaExceeded));
    assert_eq!(id(&world.post(&body(), &key).await.unwrap()), first, "what is there may be asked for again");
    assert_eq!(world.post_as(&caller("acme", "bob"), &body(), &[]).await.err(), Some(Code::QuotaExceeded));
}

#[tokio::test]
async fn the_row_says_by_which_token_and_from_which_device_the_file_was_asked_for() {
    let world = world();
    let response = world.post(&body(), &[]).await.unwrap();
    let made = |response: &Response| world.files.row(id(response).uuid()).unwrap().made_by;
    assert_eq!(made(&response), json!({ "client_id": "alice", "jti": "j" }));
    let person = callers::person("acme", "access|alice", "files:write", start());
    let response = world.post_as(&person, &body(), &[]).await.unwrap();
    let device = json!({ "id": "d-1", "source": "cloudflare", "checked_at": start().seconds() - 60 });
    assert_eq!(made(&response), json!({ "client_id": "page", "jti": "j", "device": device }));
}

#[tokio::test]
async fn a_file_that_is_no_longer_pending_gets_no_url() {
    let world = world();
    let key = [("Idempotency-Key", "order-7")];
    let first = id(&world.post(&body(), &key).await.unwrap());
    world.files.record(first.uuid(), Fact::created("v1", "ok", true));
    let again = world.post(&body(), &key).await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(answer(&again), json!({ "id": first.to_string(), "mode": "put", "status": "clean" }));
    assert!(!again.body().contains(CANARY));
}

#[tokio::test]
async fn an_idempotency_key_is_one_short_visible_value() {
    let long = "k".repeat(256);
    let bad: [&[(&str, &str)]; 5] = [
        &[("Idempotency-Key", "")],
        &[("Idempotency-Key", "a b")],
        &[("Idempotency-Key", "ü")],
        &[("Idempotency-Key", &long)],
        &[("Idempotency-Key", "a"), ("idempotency-key", "a")],
    ];
    for headers in bad {
        let world = world();
        assert_eq!(world.post(&body(), headers).await.err(), Some(Code::MalformedRequest), "{headers:?}");
        assert!(world.files.is_empty());
    }
}

#[tokio::test]
async fn no_file_is_made_that_could_not_be_signed_for() {
    let world = world();
    for left in [65, 119, 0, -5] {
        world.signing.set_left(left);
        assert_eq!(world.post(&body(), &[]).await.err(), Some(Code::SignerUnavailable), "{left} s");
    }
    world.signing.set_down(true);
    assert_eq!(world.post(&body(), &[]).await.err(), Some(Code::SignerUnavailable));
    assert!(world.files.is_empty() && world.files.calls().is_empty());
}

#[tokio::test]
async fn a_url_ends_a_minute_before_its_session() {
    let world = world();
    world.signing.set_left(200);
    let response = world.post(&body(), &[]).await.unwrap();
    assert_eq!(answer(&response)["expires_at"], start().seconds() + 140);
}

#[tokio::test]
async fn without_the_database_the_answer_is_503_and_no_url_leaves() {
    let world = world();
    world.files.set_down(true);
    let refused = world.upload.create(&caller("acme", "alice"), &request(body().to_string(), &[])).await.unwrap_err();
    assert_eq!((refused.code.status(), refused.retry_after), (503, Some(1)));
    world.files.set_down(false);
    assert!(world.files.is_empty());
}

fn event(resource: &str, method: &str, headers: Value) -> Value {
    json!({ "resource": resource, "path": resource, "httpMethod": method, "headers": headers, "multiValueHeaders": null,
        "queryStringParameters": null, "multiValueQueryStringParameters": null, "pathParameters": null,
        "requestContext": { "requestId": "r-1", "httpMethod": method, "authorizer": { "jti": "j", "sub": "alice" }, "identity": {} },
        "body": body().to_string(), "isBase64Encoded": false })
}

#[tokio::test]
async fn the_authorizers_word_alone_opens_nothing() {
    let world = world();
    let api = Api(world.upload);
    for (headers, want) in [
        (json!({ "Content-Type": "application/json" }), 401),
        (json!({ "Content-Type": "application/json", "Authorization": "Bearer a.b.c" }), 503),
    ] {
        let answer = api.handle(event("/files", "POST", headers), &invocation()).await.unwrap();
        let status = answer["statusCode"].as_i64().unwrap();
        assert_eq!(status, want, "{answer}");
    }
    assert!(world.files.is_empty() && world.signing.tenants().is_empty());
}

#[tokio::test]
async fn a_route_that_is_not_built_is_not_found() {
    let world = world();
    for (method, resource) in [("GET", "/files"), ("GET", "/files/{id}/parts"), ("PUT", "/files/{id}")] {
        let mut asked = request(Vec::new(), &[]);
        (asked.method, asked.resource) = (method.to_owned(), resource.to_owned());
        assert_eq!(world.upload.answer(&asked, &invocation()).await.unwrap_err().code, Code::NotFound);
    }
}

#[test]
fn every_variable_is_named_and_every_fault_told_at_once() {
    use shared::config::{Environment, Reader};
    let environment = Environment::from_pairs([
        ("PORTCULLIS_SIGNING_HOST", "https://host/canary"),
        ("PORTCULLIS_BUCKET_KEY_ARN", "canary"),
        ("PORTCULLIS_SCAN", "off"),
    ]);
    let reader = Reader::new(&environment);
    SigningSettings::read(&reader, SIGNER_ROLE);
    let faults = reader.finish().unwrap_err().to_string();
    for name in [
        "ENV",
        "ISSUER",
        "AUDIENCE",
        "TRUST_BUCKET",
        "OBJECT_BUCKET",
        "BUCKET_KEY_ARN",
        "SIGNING_HOST",
        "UPLOAD_SIGNER_ROLE",
        "SCAN",
    ] {
        assert!(faults.contains(&format!("PORTCULLIS_{name} ")), "{name} in {faults}");
    }
    assert!(!faults.contains("canary"));
}

/// Runs the tests named as their own process and looks at all that they log.
#[test]
fn no_log_line_holds_a_url_a_signature_or_a_secret() {
    let own = std::env::current_exe().unwrap();
    let ran = std::process::Command::new(own).args(["--nocapture", "--exact"]).args(LOGGED).output().unwrap();
    let logged = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && logged.contains("\"decision\":\"allow\""), "{logged}");
    assert!(!logged.contains(CANARY) && !logged.contains("https://objects.test"), "{logged}");
}

const LOGGED: [&str; 4] = [
    "a_file_of_unknown_size_gets_a_form_for_one_key_and_type",
    "a_file_is_pending_and_gets_one_exact_put",
    "the_same_key_and_body_give_the_same_file_and_a_fresh_url",
    "no_file_is_made_that_could_not_be_signed_for",
];

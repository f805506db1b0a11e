//! Events and bodies: what API Gateway, S3, a scanner, a client or an operator sends.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::credential::{self, Scheme};
use shared::details::Details;
use shared::gate::Caller;
use shared::http::{Headers, Request};
use shared::jwt::Kind;
use shared::name::Tenant;
use shared::object::{ContentType, FileName, Parts};
use shared::policy::Net;
use shared::scope::Scopes;

use crate::config::Operation;
use crate::event::{MethodArn, Request as Asked, Shape};
use crate::maintain::act::{Act, Doomed, Migrate, Rotate, Shred};
use crate::routes::ROUTES;
use crate::storage::{self, Told, Verdict};
use crate::upload::{self, Bytes, NewFile, SomeParts};
use crate::{batch, choice, form};

/// An event of any of the shapes in which API Gateway asks the authorizer.
pub fn authorizer_event(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
    let Ok(asked) = Asked::parse(&event) else { return };
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let arn = text(if asked.shape == Shape::Http { "/routeArn" } else { "/methodArn" }).unwrap();
    let prefix = asked.arn.everything();
    let prefix = prefix.strip_suffix('*').unwrap();
    assert!(arn.starts_with(prefix.trim_end_matches('/')), "the answer names another API than the one that asks");
    assert!(!prefix.contains(['*', '?', '$']) || prefix.ends_with("/$default/"), "the answer is a pattern");
    assert_eq!(MethodArn::parse(arn).as_ref(), Ok(&asked.arn));
    if asked.shape == Shape::Token {
        assert_eq!(asked.headers.names().collect::<Vec<_>>(), ["authorization"]);
    }
    if asked.shape != Shape::Token && text("/queryStringParameters/access_token").is_some() {
        assert!(asked.token_in_query);
    }
    if let Ok(presented) = credential::presented(&asked.headers) {
        assert!(presented.token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    }
    let _ = Net::of(&asked.headers);
    let Some(route) = asked.route() else { return };
    assert!(asked.shape == Shape::Socket || ROUTES.contains(route));
    assert!(asked.shape == Shape::Socket || route.method == "ANY" || route.method == asked.method);
    assert!(!route.admits(&Scopes::default()), "a route without a scope");
    let Some(path) = route.fill(&asked.path) else { return };
    // What is answered is the path that was asked for, byte by byte, and nothing that a policy reads as a pattern.
    assert_eq!(path, asked.path);
    assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/$".contains(&byte)), "{path}");
    assert!(!path.contains("//") && !path.contains("/../") && !path.contains("/./"));
    let place = asked.place(&path);
    assert!(place.starts_with(prefix) && !place[prefix.len()..].contains(['*', '?', '{', '}']));
    // A template is found by the path alone as the gateway finds it, or the path is one of a narrower template.
    if asked.shape != Shape::Socket {
        let of_path = crate::routes::Route::of_path(&asked.method, &asked.path).unwrap();
        assert!(
            of_path.template == route.template
                || of_path.template.matches('{').count() <= route.template.matches('{').count()
        );
    }
}

/// A REST proxy event, as every function behind the gateway gets one.
pub fn proxy_event(data: &[u8]) {
    let Some(request) = std::str::from_utf8(data).ok().and_then(|text| Request::parse(text).ok()) else { return };
    // The other reader refuses what stands where this one does not look, such as a number that fits nowhere.
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
    assert_eq!(event["path"], request.path);
    assert_eq!(event["resource"], request.resource);
    assert_eq!(event["httpMethod"], request.method);
    let body = event.get("body").and_then(Value::as_str).unwrap_or_default();
    if event.get("isBase64Encoded") == Some(&json!(true)) {
        use base64::Engine as _;
        assert_eq!(base64::engine::general_purpose::STANDARD.encode(&request.body), body);
    } else {
        assert_eq!(request.body, body.as_bytes());
    }
    if let Some(authorizer) = &request.authorizer {
        assert_eq!(event.pointer("/requestContext/authorizer/jti"), Some(&json!(authorizer.jti)));
        assert_eq!(event.pointer("/requestContext/authorizer/sub"), Some(&json!(authorizer.subject)));
    }
    for name in request.headers.names() {
        let all: Vec<_> = request.headers.all(name).collect();
        assert!(request.headers.single(name).is_none_or(|only| all == [only]));
    }
    if let Ok(presented) = credential::presented(&request.headers) {
        let sent = request.headers.single("authorization").unwrap();
        let scheme = if presented.scheme == Scheme::Dpop { "dpop" } else { "bearer" };
        assert!(sent.to_ascii_lowercase().starts_with(scheme) && sent.ends_with(presented.token));
        assert_eq!(sent.len(), scheme.len() + 1 + presented.token.len());
    }
    if let Some(net) = Net::of(&request.headers) {
        assert!(net.country.is_none_or(|country| country.len() == 2 && country.is_ascii()));
        assert_eq!(net.ip, net.ip.to_canonical());
    }
    let _ = (shared::dpop::header(&request.headers), shared::access::header(&request.headers));
    let shown = format!("{request:?}");
    assert!(shown.len() < 512 + 8 * data.len());
}

/// What S3 tells of objects and a scanner of its findings.
pub fn storage_event(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
    let scheduled = storage::is_scheduled(&event);
    let told = storage::told(&event);
    assert!(!scheduled || told.is_err(), "the schedule tells of an object");
    match told {
        Ok(Told::Scanned(scanned)) => {
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
            let result = text("/detail/scanResultDetails/scanResultStatus");
            let clean = scanned.verdict == Verdict::NoThreatsFound;
            // Clean is what the scanner calls clean at the end of a whole scan, and nothing else.
            assert_eq!(clean, result == Some("NO_THREATS_FOUND") && text("/detail/scanStatus") == Some("COMPLETED"));
            assert_eq!(scanned.verdict == Verdict::ThreatsFound, result == Some("THREATS_FOUND"));
            assert_eq!(text("/detail/s3ObjectDetails/objectKey"), Some(scanned.object.key.as_str()));
            assert_eq!(text("/detail/s3ObjectDetails/bucketName"), Some(scanned.object.bucket.as_str()));
        }
        Ok(Told::Created(all)) => {
            assert!(event["source"] != "aws.guardduty", "a scan makes no object");
            if event.get("Records").is_none() {
                // EventBridge encodes nothing, and tells of one object.
                assert!(all.len() <= 1 && all.iter().all(|one| event["detail"]["object"]["key"] == one.key.as_str()));
            } else {
                assert!(all.len() <= event["Records"].as_array().unwrap().len());
            }
        }
        Err(error) => assert_eq!(error.to_string(), "not a valid event"),
    }
}

/// The bodies that `upload` takes.
pub fn upload_request(data: &[u8]) {
    let (choice, rest) = choice(data);
    let request = posted(rest, &[("content-type", "application/json")]);
    match choice % 4 {
        0 => {
            let Ok(file) = NewFile::read(&request) else { return };
            let said: Value = serde_json::from_slice(rest).unwrap();
            assert_eq!(said["content_type"], file.declared.content_type.declared());
            assert_eq!(said["mode"], file.declared.bytes.mode());
            assert_eq!(FileName::clean(said["name"].as_str().unwrap()), file.name);
            assert!(said.get("tenant").is_none() && said.get("key").is_none() && said.get("bucket").is_none());
            assert!(ContentType::parse(file.declared.content_type.declared()).is_ok());
            if let Bytes::Parts(parts) = &file.declared.bytes {
                assert!((1..=Parts::MOST).contains(&parts.count()) && parts.each() >= Parts::SMALLEST);
                assert!(parts.each() * parts.count() >= parts.size().bytes());
                assert!(parts.each() * (parts.count() - 1) < parts.size().bytes());
            }
            // The same request in another spelling is the same one.
            let spelled =
                posted(&serde_json::to_vec_pretty(&said).unwrap(), &[("Content-Type", "application/JSON; x=y")]);
            if let Ok(again) = NewFile::read(&spelled) {
                assert_eq!(again.fingerprint(), file.fingerprint());
            }
        }
        1 => {
            let Ok(some) = SomeParts::read(&request) else { return };
            assert!((1..=500).contains(&some.parts.len()));
            let numbers: std::collections::BTreeSet<_> = some.parts.iter().map(|part| part.number).collect();
            assert!(numbers.len() == some.parts.len() && !numbers.contains(&0) && numbers.iter().all(|n| *n <= 10_000));
        }
        2 => {
            let nothing = rest.is_empty() || serde_json::from_slice::<Value>(rest).is_ok_and(|said| said == json!({}));
            assert!(upload::no_body(&request).is_err() || nothing);
        }
        _ => {
            let Ok(value) = std::str::from_utf8(rest) else { return };
            let request = posted(b"", &[("Idempotency-Key", value)]);
            if let Ok(key) = upload::idempotency_key(&request) {
                assert_eq!(key.as_deref(), Some(value));
                assert!((1..=255).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            let twice = posted(b"", &[("Idempotency-Key", value), ("idempotency-key", value)]);
            assert!(upload::idempotency_key(&twice).is_err());
        }
    }
}

fn posted(body: &[u8], headers: &[(&str, &str)]) -> Request {
    Request {
        method: "POST".to_owned(),
        resource: "/files".to_owned(),
        path: "/files".to_owned(),
        path_parameters: BTreeMap::new(),
        query: Vec::new(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Headers>(),
        body: body.to_vec(),
        authorizer: None,
        request_id: "r".to_owned(),
    }
}

/// The token endpoint's form.
pub fn token_form(data: &[u8]) {
    let read = form::Form::parse(data);
    // As the WHATWG's reader sees it, which lets the bytes pass that ours refuses.
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(data) {
        others.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    match read {
        Ok(form) => {
            assert!(data.len() <= form::MAX_BODY);
            for (name, values) in &others {
                assert_eq!(values.len(), 1, "{name:?} is there twice");
                let only = values.first().map(String::as_str).filter(|value| !value.is_empty());
                assert_eq!(form.find(name), only, "{name:?} is read otherwise");
            }
        }
        Err(error) => assert!(error.status == 400 && error.code == "invalid_request"),
    }
}

/// A batch of fields, for every operation.
pub fn field_batch(data: &[u8]) {
    let (choice, rest) = choice(data);
    let operation = [
        Operation::Encrypt,
        Operation::Decrypt,
        Operation::Index,
        Operation::Inspect,
        Operation::Rewrap,
        Operation::Export,
        Operation::Import,
    ][usize::from(choice) % 7];
    let Ok(mut batch) = serde_json::from_slice::<batch::Batch<'_>>(rest) else { return };
    let said: Value = serde_json::from_slice(rest).unwrap();
    assert!(said.as_object().unwrap().keys().all(|name| name == "items" || name == "purpose_of_use"));
    assert_eq!(said["items"].as_array().map(Vec::len), Some(batch.items.len()));
    if batch::check(&batch.items, operation).is_err() {
        return;
    }
    assert!((1..=1_000).contains(&batch.items.len()));
    let (nobody, somebody) = (caller(Scopes::default()), caller(everything(operation)));
    let mut forbidden = batch::Columns::new(&nobody, operation);
    for item in &mut batch.items {
        assert!(item.place().is_err(), "it is judged before its column is");
        item.judge_columns(&mut forbidden);
        assert!(item.place().is_err() && item.anywhere_in().is_err(), "it is judged without a right to it");
        assert!(!matches!(item.destination(), Ok(Some(_))), "it goes where nobody may put it");
    }
    assert!(forbidden.names().next().is_none(), "the log names what the caller may not touch");
    let mut columns = batch::Columns::new(&somebody, operation);
    for (item, said) in batch.items.iter_mut().zip(said["items"].as_array().unwrap()) {
        item.judge_columns(&mut columns);
        if let Ok(place) = item.place() {
            assert_eq!(said["row"], place.row.as_str());
            assert_eq!(
                (&said["table"], &said["column"]),
                (&json!(place.column.table.as_str()), &json!(place.column.column.as_str()))
            );
            assert_eq!(said.get("version").is_some_and(|version| !version.is_null()), place.version.is_some());
            assert!(place.scope().covers(&place.column.scope), "a key that may not open what it seals");
            assert_eq!(place.scope().is_subject(), item.names_scope() && *place.scope() != place.column.scope);
        }
        if let Ok(Some((to, _))) = item.destination() {
            assert_eq!(said["to"]["row"], to.row.as_str());
            assert!(operation == Operation::Rewrap);
        }
        let _ = (item.definition(), item.export(), item.anywhere_in().is_ok(), item.expected_context().len());
    }
}

fn everything(operation: Operation) -> Scopes {
    Scopes::parse(&format!("fields:{}:*.*", operation.as_str())).expect("a scope")
}

fn caller(scopes: Scopes) -> Caller {
    Caller {
        tenant: Tenant::parse("acme").expect("a tenant"),
        subject: "s".to_owned(),
        client_id: "c".to_owned(),
        jti: "j".to_owned(),
        scopes,
        details: Details::default(),
        kind: Kind::Machine,
        session: None,
        device: None,
        expires_at: Timestamp::from_seconds(0),
    }
}

/// An operator's act on data keys.
pub fn maintenance(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
    match Act::parse(event.clone()) {
        Ok((act, operator)) => {
            assert_eq!((&event["operation"], &event["operator"]), (&json!(act.name()), &json!(operator)));
            assert!(operator.bytes().all(|byte| byte.is_ascii_graphic()) && !operator.is_empty());
            assert!(!act.target().is_empty() && act.name() != "shred");
            match &act {
                Act::Rotate(Rotate::Of { tenant, scope }) => {
                    assert_eq!(event["tenant"], tenant.as_str());
                    assert_eq!(event.get("scope").and_then(Value::as_str), scope.as_deref());
                    assert!(scope.as_deref() != Some("index"));
                }
                Act::Migrate(act @ Migrate { place, .. }) => {
                    assert!(place.plain != place.sealed && place.key != place.sealed && place.plain != place.key);
                    assert!(place.only.as_ref().is_none_or(|(_, tenant)| event["tenant"] == tenant.as_str()));
                    let clears = event["step"] == "clear";
                    assert!(!clears || event["confirm"] == act.column(), "it clears what nobody confirmed");
                }
                Act::Rewrap(rewrap) => assert!((1..=100_000).contains(&rewrap.limit)),
                Act::Rotate(Rotate::Ended) => {}
            }
        }
        Err(denied) => assert!(denied.field.is_none_or(|field| field.chars().count() <= 64)),
    }
    if let Ok((shred, _)) = Shred::parse(event.clone()) {
        let named = match &shred.what {
            Doomed::Scope(scope) => scope.clone(),
            Doomed::Keys(keys) => {
                assert!((1..=1_000).contains(&keys.len()));
                shred.tenant.to_string()
            }
        };
        assert_eq!(event["confirm"], named, "it destroys what nobody confirmed");
        assert_eq!((&event["operation"], &event["tenant"]), (&json!("shred"), &json!(shred.tenant.as_str())));
        assert!(event.get("scope").is_none() || event.get("keys").is_none());
    }
}

//! The application behind the gate: what of a request reaches it, and what of the document the gateway understands.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use local::account::Account;
use local::clock::Clock;
use local::gateway::{Gateway, Link, Settings};
use local::http::Request;
use local::lambda::{Invoke, InvokeOutcome, Invoked, Kind};
use local::policy::Iam;
use local::template::Template;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

const TARGET: &str = "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/app/a/0123456789abcdef";

/// An authorizer that lets everybody in with this context.
struct Gate(Value);

impl Invoke for Gate {
    fn invoke<'a>(&'a self, _: &'a str, _: Bytes, _: Kind) -> Invoked<'a> {
        let answer = json!({"principalId": "p", "context": self.0, "policyDocument": {"Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": "*"}]}});
        let payload = Bytes::from(answer.to_string());
        let (log, request_id) = (String::new(), String::new());
        Box::pin(async move { Ok(InvokeOutcome { payload, function_error: None, log, request_id }) })
    }

    fn idle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

fn template() -> Template {
    let names = [
        "Audience",
        "TrustBucket",
        "ObjectBucket",
        "SigningHost",
        "DbHost",
        "DbProxyResourceId",
        "DbResourceId",
        "DbDirectHost",
        "CodeBucket",
    ];
    let mut parameters: BTreeMap<String, String> = names.map(|name| (name.to_owned(), name.to_owned())).into();
    for (name, value) in [
        ("Env", "test"),
        ("Scan", "off"),
        ("Issuer", "https://gate.example"),
        ("Stage", "local"),
        ("AppLinkId", "link1"),
        ("AppLoadBalancerArn", TARGET),
        ("AppHost", "app.example"),
    ] {
        parameters.insert(name.to_owned(), value.to_owned());
    }
    for key in ["DataKeyArn", "BucketKeyArn", "ReceiptKeyArn", "SigningKeyArn"] {
        parameters.insert(key.to_owned(), format!("arn:aws:kms:us-east-1:111122223333:key/{key}"));
    }
    Template::deployed(&parameters, "111122223333", "us-east-1", "api123").unwrap()
}

fn gateway(document: &Value, socket: &Path, context: Value) -> Result<Gateway, Vec<String>> {
    let template = template();
    let mut settings = Settings::new("api123", template.deployment());
    settings.link = Some(Link { id: "link1".into(), target: TARGET.into(), socket: socket.to_owned() });
    let account = Account::new(Iam::new("111122223333", "us-east-1", Clock::system(), &[]).unwrap());
    Gateway::new(document, settings, Arc::new(account), Arc::new(Gate(context)))
}

fn context() -> Value {
    json!({"sub": "acme-backend", "tenant": "acme", "client_id": "acme-backend", "scope": "app", "device_id": "-", "jti": "j"})
}

/// Answers one request with this text and hands over what arrived.
fn application(folder: &Path, answer: &'static str) -> (std::path::PathBuf, tokio::task::JoinHandle<String>) {
    let socket = folder.join("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).await.unwrap();
            seen.extend_from_slice(&some[..count]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(seen).unwrap()
    });
    (socket, served)
}

async fn call(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let (method, peer) = ("POST".parse().unwrap(), SocketAddr::from(([127, 0, 0, 1], 50_000)));
    let request =
        Request { method, uri: target.parse().unwrap(), headers: map, body: Bytes::from_static(b"hello"), peer };
    let (parts, body) = gateway.handle(request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn an_application_gets_the_path_behind_the_prefix_the_token_and_who_it_is_and_nothing_that_the_client_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let answer =
        "HTTP/1.1 201 Created\r\nServer: legacy\r\nWWW-Authenticate: Basic\r\nX-Own: 1\r\nContent-Length: 2\r\n\r\nok";
    let (socket, served) = application(folder.path(), answer);
    let gateway = gateway(template().document(), &socket, context()).unwrap();
    let headers = [
        ("host", "gate.example"),
        ("authorization", "Bearer t.o.k"),
        ("x-portcullis-subject", "admin"),
        ("x-portcullis-subject", "root"),
        ("x-portcullis-device", "another"),
        ("x-forwarded-user", "admin"),
        ("x-own", "2"),
    ];
    let (status, fields, body) = call(&gateway, "/app/orders/7?all=1&b=%2F", &headers).await;
    assert_eq!((status, body.as_str(), fields["x-own"].as_bytes()), (201, "ok", b"1".as_slice()));
    assert!(fields.contains_key("x-amzn-remapped-www-authenticate") && !fields.contains_key("www-authenticate"));
    let seen = served.await.unwrap().to_ascii_lowercase();
    assert!(seen.starts_with("post /orders/7?all=1&b=%2f http/1.1\r\n"), "{seen}");
    let fields = |name: &str| -> Vec<&str> {
        let lines = seen.split("\r\n").filter_map(|line| line.split_once(':'));
        lines.filter(|(field, _)| *field == name).map(|(_, value)| value.trim()).collect()
    };
    for (name, value) in [
        ("host", "app.example"),
        ("authorization", "bearer t.o.k"),
        ("x-portcullis-subject", "acme-backend"),
        ("x-portcullis-tenant", "acme"),
        ("x-portcullis-client", "acme-backend"),
        ("x-portcullis-scope", "app"),
        ("x-portcullis-device", "-"),
        ("x-forwarded-user", ""),
        ("remote-user", ""),
        ("x-original-url", ""),
        ("x-own", "2"),
    ] {
        assert_eq!(fields(name), [value], "{name}");
    }
    assert_eq!(fields("x-portcullis-request-id").len(), 1);
}

#[tokio::test]
async fn what_the_authorizer_does_not_say_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    for missing in ["sub", "tenant", "client_id", "scope", "device_id"] {
        for value in [Value::Null, json!("")] {
            let mut context = context();
            match &value {
                Value::Null => drop(context.as_object_mut().unwrap().remove(missing)),
                empty => context[missing] = empty.clone(),
            }
            let gateway = gateway(template().document(), &folder.path().join("none"), context).unwrap();
            let (status, ..) = call(&gateway, "/app/a", &[("authorization", "Bearer t.o.k")]).await;
            assert!(status >= 500, "{missing} {value}");
        }
    }
}

#[tokio::test]
async fn an_application_that_is_not_there_is_a_fault_of_the_surroundings() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(template().document(), &folder.path().join("none"), context()).unwrap();
    let (status, _, body) = call(&gateway, "/app/a", &[("authorization", "Bearer t.o.k")]).await;
    assert!(status >= 500 && !body.contains("none"), "{status} {body}");
    let (status, ..) = call(&gateway, "/app", &[("authorization", "Bearer t.o.k")]).await;
    assert_eq!(status, 403, "the prefix itself is no route");
}

#[test]
fn an_integration_that_is_not_understood_is_refused_with_every_reason() {
    let document = template().document().clone();
    let at = "/paths/~1app~1{proxy+}/x-amazon-apigateway-any-method/x-amazon-apigateway-integration";
    let headers = "requestParameters";
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut document = document.clone();
        change(document.pointer_mut(at).unwrap());
        gateway(&document, Path::new("/none"), context()).err().unwrap_or_default().join("\n")
    };
    assert_eq!(changed(&|_| {}), "");
    type Change = Box<dyn Fn(&mut Value)>;
    let set = |name: &'static str, value: Value| -> Change { Box::new(move |one| one[name] = value.clone()) };
    let map =
        |name: &'static str, value: &'static str| -> Change { Box::new(move |one| one[headers][name] = json!(value)) };
    for (change, wanted) in [
        (set("httpMethod", json!("GET")), "httpMethod"),
        (set("connectionType", json!("INTERNET")), "VPC_LINK"),
        (set("connectionId", json!("link2")), "no such VPC link"),
        (set("integrationTarget", json!("arn:aws:elasticloadbalancing:x")), "no such VPC link"),
        (set("uri", json!("http://app.example:443/{proxy}")), "uri must be https"),
        (set("uri", json!("https://app.example:443/")), "uri must be https"),
        (set("passthroughBehavior", json!("never")), "when_no_match"),
        (set("timeoutInMillis", json!(30_000)), "50 to 29000"),
        (set("requestTemplates", json!({"*/*": "$input.body"})), "requestTemplates"),
        (set("requestTemplates", json!({"application/json": "{}"})), "requestTemplates"),
        (set("cacheNamespace", json!("x")), "cacheNamespace: not supported"),
        (set("requestParameters", json!({})), "must map the path's parameter"),
        (map("integration.request.header.X-A", "method.request.header.X-A"), "is not supported"),
        (map("integration.request.header.X-A", "context.identity.sourceIp"), "is not supported"),
        (map("integration.request.querystring.a", "'a'"), "is not supported"),
    ] {
        let faults = changed(&*change);
        assert!(faults.contains(wanted), "{wanted}: {faults}");
    }
}

//! The gateway against scripted functions: routing, events, authorizer, answers, refusals.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "helpers of tests stop at the first surprise"
)]

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use local::{
    account::Account,
    ca::Ca,
    clock::Clock,
    events::Events,
    gateway::{Gateway, Settings, Throttle},
    http::{Request, bind, send},
    lambda::{Invoke, InvokeError, InvokeOutcome, Invoked, Kind},
    policy::Iam,
    template::{Deployment, PermissionSpec, Template, yaml},
};
use serde_json::{Value, json};

const DOCUMENT: &str = r#"
openapi: 3.0.3
info: {title: fixture, version: "1"}
x-amazon-apigateway-binary-media-types: [application/octet-stream, image/*]
x-amazon-apigateway-request-validators:
  parameters: {validateRequestParameters: true, validateRequestBody: false}
x-amazon-apigateway-gateway-responses:
  UNAUTHORIZED:
    statusCode: 401
    responseParameters:
      gatewayresponse.header.WWW-Authenticate: "'Bearer'"
    responseTemplates:
      application/json: '{"code":"unauthorized","message":$context.error.messageString,"request_id":"$context.requestId"}'
  AUTHORIZER_FAILURE: &fault
    statusCode: 503
    responseParameters:
      gatewayresponse.header.Retry-After: "'5'"
  AUTHORIZER_CONFIGURATION_ERROR: *fault
components:
  securitySchemes:
    gate:
      type: apiKey
      name: Authorization
      in: header
      x-amazon-apigateway-authtype: custom
      x-amazon-apigateway-authorizer:
        type: request
        identitySource: method.request.header.Authorization
        authorizerResultTtlInSeconds: 0
        authorizerUri:
          Fn::Sub: ${GateFunction.Arn}
paths:
  /files:
    post: &guarded
      security: [{gate: []}]
      x-portcullis-action: files:create
      x-portcullis-scopes: [files:write]
      x-portcullis-function: echo
      x-amazon-apigateway-integration: &echo
        type: aws_proxy
        httpMethod: POST
        timeoutInMillis: 60
        uri:
          Fn::Sub: ${EchoFunction.Arn}
  /files/{id}:
    get: *guarded
  /files/{id}/content:
    get: *guarded
  /files/special:
    get: *guarded
  /open/{id}:
    get: &open
      security: []
      x-portcullis-open: the fixture is public
      x-amazon-apigateway-integration: *echo
    post: *open
  /deep/{proxy+}:
    x-amazon-apigateway-any-method: *open
  /needs:
    get:
      security: []
      x-portcullis-open: the fixture is public
      x-amazon-apigateway-request-validator: parameters
      parameters:
        - {name: q, in: query, required: true, schema: {type: string}}
        - {name: X-Needed, in: header, required: true, schema: {type: string}}
      x-amazon-apigateway-integration: *echo
  /health:
    get:
      security: []
      x-portcullis-open: no information
      x-amazon-apigateway-integration:
        type: mock
        requestTemplates: {application/json: '{"statusCode": 200}'}
        responses:
          default:
            statusCode: "200"
            responseParameters: {method.response.header.Cache-Control: "'no-store'"}
            responseTemplates: {application/json: '{"status":"ok","id":"$context.requestId"}'}
"#;

/// Answers each function by script and remembers what it was asked.
struct Script {
    answers: Mutex<BTreeMap<String, Answer>>,
    seen: Mutex<Vec<(String, Value)>>,
}

#[derive(Clone)]
enum Answer {
    Payload(Value),
    Error(Value),
    Refuse(InvokeError),
    Never,
}

impl Invoke for Script {
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes, _: Kind) -> Invoked<'a> {
        let event = serde_json::from_slice(&payload).unwrap();
        self.seen.lock().unwrap().push((function.to_owned(), event));
        let answer = self.answers.lock().unwrap()[function].clone();
        Box::pin(async move {
            let (payload, function_error) = match answer {
                Answer::Payload(value) => (value, None),
                Answer::Error(value) => (value, Some("Unhandled".to_owned())),
                Answer::Refuse(error) => return Err(error),
                Answer::Never => std::future::pending().await,
            };
            let payload = Bytes::from(payload.to_string());
            Ok(InvokeOutcome { payload, function_error, log: String::new(), request_id: String::new() })
        })
    }

    fn idle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

struct Api {
    gateway: Gateway,
    script: Arc<Script>,
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn account() -> Arc<Account> {
    Arc::new(Account::new(Iam::new("111122223333", "us-east-1", Clock::system(), &[]).unwrap()))
}

fn settings() -> Settings {
    let mut settings = Settings::new("api1234567", &Deployment::default());
    settings.authorizer_limit = Duration::from_millis(50);
    for name in ["echo", "gate"] {
        settings.deployments.insert(name.to_owned(), name.to_owned());
        settings.permissions.push(PermissionSpec {
            function_name: name.to_owned(),
            principal: "apigateway.amazonaws.com".to_owned(),
            source_arn: "arn:aws:execute-api:us-east-1:111122223333:api1234567/*".to_owned(),
        });
    }
    settings
}

/// Reads a document and replaces `{"Fn::Sub": "${EchoFunction.Arn}"}` in it by the integration URI of `echo`.
fn read(document: &str) -> Result<Value, Vec<String>> {
    let mut text = yaml(document)?.to_string();
    for (logical, name) in [("EchoFunction", "echo"), ("GateFunction", "gate")] {
        let arn = format!("arn:aws:lambda:us-east-1:111122223333:function:{name}");
        let uri = format!("\"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{arn}/invocations\"");
        text = text.replace(&format!(r#"{{"Fn::Sub":"${{{logical}.Arn}}"}}"#), &uri);
    }
    Ok(serde_json::from_str(&text).unwrap())
}

fn allow(resource: &str) -> Value {
    policy("Allow", resource)
}

fn policy(effect: &str, resource: &str) -> Value {
    json!({
        "principalId": "someone",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}],
        },
        "context": {"jti": "j-1", "count": 3, "flag": true},
    })
}

impl Api {
    fn new() -> Self {
        Self::of(DOCUMENT, account())
    }

    /// The fixture whose authorizer's answers are kept by these sources for so long, on a clock that stands still.
    fn keeping(sources: &str, life: &str) -> (Self, Clock) {
        let (kept, sourced) =
            ("authorizerResultTtlInSeconds: 0", "identitySource: method.request.header.Authorization");
        assert!(DOCUMENT.contains(kept) && DOCUMENT.contains(sourced));
        let document = DOCUMENT.replace(sourced, &format!("identitySource: {sources}")).replace(kept, life);
        let clock = Clock::at(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let account = Account::new(Iam::new("111122223333", "us-east-1", clock.clone(), &[]).unwrap());
        (Self::of(&document, Arc::new(account)), clock)
    }

    /// The status, and whether the authorizer was asked.
    async fn asked(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> (u16, bool) {
        let status = self.call(method, target, headers, b"").await.status;
        (status, self.invoked().contains(&"gate".to_owned()))
    }

    /// The fixture on a clock that stands still, with these limits of its stage.
    fn throttled(throttles: Vec<Throttle>) -> (Self, Clock) {
        let clock = Clock::at(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let account = Account::new(Iam::new("111122223333", "us-east-1", clock.clone(), &[]).unwrap());
        (Self::with(DOCUMENT, Arc::new(account), Settings { throttles, ..settings() }), clock)
    }

    fn of(document: &str, account: Arc<Account>) -> Self {
        Self::with(document, account, settings())
    }

    fn with(document: &str, account: Arc<Account>, settings: Settings) -> Self {
        let answers = BTreeMap::from([
            ("echo".to_owned(), Answer::Payload(json!({"statusCode": 200, "body": "{}"}))),
            ("gate".to_owned(), Answer::Payload(allow("*"))),
        ]);
        let script = Arc::new(Script { answers: Mutex::new(answers), seen: Mutex::default() });
        let lambda: Arc<dyn Invoke> = Arc::<Script>::clone(&script);
        let gateway = Gateway::new(&read(document).unwrap(), settings, account, lambda).unwrap();
        Self { gateway, script }
    }

    fn set(&self, function: &str, answer: Answer) {
        self.script.answers.lock().unwrap().insert(function.to_owned(), answer);
    }

    fn echo(&self, answer: Value) {
        self.set("echo", Answer::Payload(answer));
    }

    async fn call(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answered {
        self.script.seen.lock().unwrap().clear();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let request = Request {
            method: method.parse::<Method>().unwrap(),
            uri: target.parse().unwrap(),
            headers: map,
            body: Bytes::copy_from_slice(body),
            peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        };
        let response = self.gateway.handle(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answered {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// The event that `function` saw in the last call.
    fn event(&self, function: &str) -> Value {
        let seen = self.script.seen.lock().unwrap();
        let event = seen.iter().find(|(name, _)| name == function);
        event.unwrap_or_else(|| panic!("{function} was not invoked")).1.clone()
    }

    fn invoked(&self) -> Vec<String> {
        self.script.seen.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Method, path, and the resource with its path parameters.
type Routed<'a> = (&'a str, &'a str, Option<(&'a str, Value)>);

const BEARER: &[(&str, &str)] = &[("authorization", "Bearer a.b.c")];

#[tokio::test]
async fn the_most_specific_resource_answers_and_nothing_else_exists() {
    let api = Api::new();
    let cases: &[Routed<'_>] = &[
        ("GET", "/files/special", Some(("/files/special", Value::Null))),
        ("GET", "/files/other", Some(("/files/{id}", json!({"id": "other"})))),
        ("GET", "/files/special/content", None),
        ("GET", "/files/a/content", Some(("/files/{id}/content", json!({"id": "a"})))),
        ("GET", "/files/a/", Some(("/files/{id}", json!({"id": "a"})))),
        ("GET", "//files/a", Some(("/files/{id}", json!({"id": "a"})))),
        ("GET", "/files/a%2Fb", Some(("/files/{id}", json!({"id": "a%2Fb"})))),
        ("GET", "/deep/a/b/c", Some(("/deep/{proxy+}", json!({"proxy": "a/b/c"})))),
        ("PATCH", "/deep/x", Some(("/deep/{proxy+}", json!({"proxy": "x"})))),
        ("GET", "/deep", None),
        ("GET", "/files", None),
        ("HEAD", "/files/a", None),
        ("DELETE", "/files/a", None),
        ("GET", "/files//content", None),
        ("GET", "/Files/a", None),
        ("GET", "/%66iles/a", None),
        ("GET", "/", None),
        ("GET", "/nowhere", None),
    ];
    for (method, target, wanted) in cases {
        let answer = api.call(method, target, BEARER, b"").await;
        match wanted {
            Some((resource, parameters)) => {
                assert_eq!(answer.status, 200, "{method} {target}");
                let event = api.event("echo");
                assert_eq!(event["resource"], *resource, "{method} {target}");
                assert_eq!(event["pathParameters"], *parameters, "{method} {target}");
            }
            // The tree holds /files/special, so /files/special/content falls back to the parameter.
            None if *target == "/files/special/content" => {
                assert_eq!(api.event("echo")["resource"], "/files/{id}/content");
            }
            None => {
                assert_eq!(answer.status, 403, "{method} {target}");
                assert_eq!(answer.json(), json!({"message": "Missing Authentication Token"}), "{method} {target}");
                assert!(api.invoked().is_empty(), "{method} {target}");
            }
        }
    }
}

#[tokio::test]
async fn the_proxy_event_has_the_shape_of_rest_version_one() {
    let api = Api::new();
    let headers = [
        ("authorization", "Bearer a.b.c"),
        ("host", "localhost:4443"),
        ("x-twice", "one"),
        ("x-twice", "two"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("content-length", "9"),
        ("user-agent", "curl/8"),
        ("x-forwarded-for", "9.9.9.9"),
    ];
    let target = "//files/a%20b/?a=1&a=2&plus=x+y&enc=%2F%7C&empty=";
    assert_eq!(api.call("GET", target, &headers, b"{\"a\": 1}\n").await.status, 200);
    let event = api.event("echo");
    assert_eq!(event["path"], "/files/a%20b/");
    assert_eq!(event["httpMethod"], "GET");
    assert_eq!(event["pathParameters"], json!({"id": "a%20b"}));
    assert_eq!(event["queryStringParameters"], json!({"a": "2", "plus": "x y", "enc": "/|", "empty": ""}));
    assert_eq!(event["multiValueQueryStringParameters"]["a"], json!(["1", "2"]));
    assert_eq!(event["headers"]["x-twice"], "two");
    assert_eq!(event["multiValueHeaders"]["x-twice"], json!(["one", "two"]));
    for withheld in ["te", "upgrade", "content-length"] {
        assert_eq!(event["headers"].get(withheld), None, "{withheld}");
    }
    assert_eq!(event["headers"]["X-Forwarded-For"], "9.9.9.9, 127.0.0.1");
    assert_eq!(event["headers"]["CF-Connecting-IP"], "127.0.0.1");
    assert_eq!(event["body"], "{\"a\": 1}\n");
    assert_eq!(event["isBase64Encoded"], false);
    assert_eq!(event["stageVariables"], Value::Null);
    let context = &event["requestContext"];
    assert_eq!(context["path"], "/local//files/a%20b/");
    assert_eq!(context["resourcePath"], "/files/{id}");
    assert_eq!(context["accountId"], "111122223333");
    assert_eq!(context["domainName"], "localhost");
    assert_eq!(context["identity"]["sourceIp"], "127.0.0.1");
    assert_eq!(context["identity"]["userAgent"], "curl/8");
    let identity = context["identity"].as_object().unwrap();
    for name in ["accessKey", "accountId", "caller", "cognitoIdentityId", "principalOrgId", "user", "userArn"] {
        assert_eq!(identity.get(name), Some(&Value::Null), "{name}");
    }
    let authorizer = &context["authorizer"];
    assert_eq!(authorizer["jti"], "j-1");
    assert_eq!(authorizer["count"], "3");
    assert_eq!(authorizer["flag"], "true");
    assert_eq!(authorizer["principalId"], "someone");
    assert!(authorizer["integrationLatency"].is_u64());
}

#[tokio::test]
async fn an_empty_request_has_nulls_where_rest_has_nulls() {
    let api = Api::new();
    assert_eq!(api.call("GET", "/open/a", &[], b"").await.status, 200);
    let event = api.event("echo");
    for name in ["queryStringParameters", "multiValueQueryStringParameters", "body", "stageVariables"] {
        assert_eq!(event.get(name), Some(&Value::Null), "{name}");
    }
    assert_eq!(event["requestContext"].get("authorizer"), None);
    assert_eq!(api.invoked(), ["echo"]);
}

#[tokio::test]
async fn the_authorizer_event_is_a_request_event() {
    let api = Api::new();
    api.call("GET", "/files/a?x=1", BEARER, b"").await;
    let event = api.event("gate");
    assert_eq!(event["type"], "REQUEST");
    let arn = event["methodArn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:execute-api:us-east-1:111122223333:"), "{arn}");
    assert!(arn.ends_with("/local/GET/files/a"), "{arn}");
    assert_eq!(event["resource"], "/files/{id}");
    assert_eq!(event["pathParameters"], json!({"id": "a"}));
    assert_eq!(event["queryStringParameters"], json!({"x": "1"}));
    assert_eq!(event["multiValueHeaders"]["authorization"], json!(["Bearer a.b.c"]));
    assert_eq!(event.get("body"), None);
}

#[tokio::test]
async fn a_missing_or_empty_identity_source_is_401_without_invoking() {
    let api = Api::new();
    for headers in [&[][..], &[("authorization", "")][..], &[("authorization", " ")][..]] {
        let answer = api.call("GET", "/files/a", headers, b"").await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.json()["message"], "Unauthorized");
        assert_eq!(answer.json()["request_id"], answer.headers["x-amzn-requestid"].to_str().unwrap());
        assert!(api.invoked().is_empty());
    }
}

#[tokio::test]
async fn the_authorizers_verdict_decides() {
    let api = Api::new();
    let refused = "User is not authorized to access this resource";
    let denied = "User is not authorized to access this resource with an explicit deny";
    let mut both = policy("Allow", "*");
    both["policyDocument"]["Statement"].as_array_mut().unwrap().push(json!({
        "Action": "execute-api:*", "Effect": "Deny", "Resource": "arn:aws:execute-api:*:*:*/*/GET/files/?",
    }));
    let mut other_action = policy("Allow", "*");
    other_action["policyDocument"]["Statement"][0]["Action"] = json!("execute-api:ManageConnections");
    let mut nested = policy("Allow", "*");
    nested["context"]["inner"] = json!({"a": 1});
    let mut no_principal = policy("Allow", "*");
    no_principal.as_object_mut().unwrap().remove("principalId");
    let mut no_effect = policy("Allow", "*");
    no_effect["policyDocument"]["Statement"][0].as_object_mut().unwrap().remove("Effect");
    let mut condition = policy("Allow", "*");
    condition["policyDocument"]["Statement"][0]["Condition"] = json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}});
    let mut met = policy("Allow", "*");
    met["policyDocument"]["Statement"][0]["Condition"] = json!({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}});
    let cases: Vec<(&str, Answer, u16, Option<&str>)> = vec![
        ("allow", Answer::Payload(policy("Allow", "*")), 200, None),
        ("exact", Answer::Payload(policy("Allow", "arn:aws:execute-api:us-east-1:*:*/local/GET/files/a")), 200, None),
        ("star crosses", Answer::Payload(policy("Allow", "arn:aws:execute-api:*:*:*/files/*")), 200, None),
        ("other", Answer::Payload(policy("Allow", "arn:aws:execute-api:*:*:*/GET/other")), 403, Some(refused)),
        ("deny", Answer::Payload(policy("Deny", "*")), 403, Some(denied)),
        ("deny wins", Answer::Payload(both), 403, Some(denied)),
        ("other action", Answer::Payload(other_action), 403, Some(refused)),
        ("condition unmet", Answer::Payload(condition), 403, Some(refused)),
        ("condition met", Answer::Payload(met), 200, None),
        ("unauthorized", Answer::Error(json!({"errorType": "x", "errorMessage": "Unauthorized"})), 401, None),
        ("other case", Answer::Error(json!({"errorType": "x", "errorMessage": "unauthorized"})), 503, None),
        ("other error", Answer::Error(json!({"errorType": "x", "errorMessage": "canary"})), 503, None),
        ("crash", Answer::Error(json!({"errorType": "Runtime.ExitError", "errorMessage": "canary"})), 503, None),
        ("throttled", Answer::Refuse(InvokeError::Throttled("x")), 503, None),
        ("nested context", Answer::Payload(nested), 503, None),
        ("no principal", Answer::Payload(no_principal), 503, None),
        ("no effect", Answer::Payload(no_effect), 503, None),
        ("no policy", Answer::Payload(json!({"principalId": "x"})), 503, None),
        ("not an object", Answer::Payload(json!("yes")), 503, None),
        ("simple answer", Answer::Payload(json!({"isAuthorized": true})), 503, None),
    ];
    for (name, answer, status, message) in cases {
        api.set("gate", answer);
        let answer = api.call("GET", "/files/a", BEARER, b"").await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(api.invoked().contains(&"echo".to_owned()), status == 200, "{name}");
        assert!(!answer.body.contains("canary"), "{name}");
        if let Some(message) = message {
            assert_eq!(answer.json(), json!({"Message": message}), "{name}");
        }
        if status == 503 {
            assert_eq!(answer.headers["retry-after"], "5", "{name}");
            assert_eq!(answer.headers["x-amzn-errortype"], "AuthorizerConfigurationException", "{name}");
        }
    }
}

#[tokio::test]
async fn an_authorizer_that_does_not_answer_lets_nobody_in() {
    let api = Api::new();
    api.set("gate", Answer::Never);
    let answer = api.call("GET", "/files/a", BEARER, b"").await;
    assert_eq!((answer.status, api.invoked()), (503, vec!["gate".to_owned()]));
}

#[tokio::test]
async fn a_malformed_proxy_answer_is_502_and_says_nothing() {
    let api = Api::new();
    let cases = [
        json!({"statusCode": 200, "canary": 1}),
        json!("canary"),
        json!(["canary"]),
        json!(null),
        json!({"statusCode": "canary"}),
        json!({"statusCode": true}),
        json!({"statusCode": 99}),
        json!({"statusCode": 1000}),
        json!({"statusCode": 200, "body": {"canary": 1}}),
        json!({"statusCode": 200, "isBase64Encoded": "canary"}),
        json!({"statusCode": 200, "headers": ["canary"]}),
        json!({"statusCode": 200, "headers": {"a": {"canary": 1}}}),
        json!({"statusCode": 200, "headers": {"bad name": "canary"}}),
        json!({"statusCode": 200, "headers": {"a": "line\nbreak canary"}}),
        json!({"statusCode": 200, "multiValueHeaders": {"a": "canary"}}),
        json!({"statusCode": 200, "headers": {"a": "canary".repeat(2000)}}),
    ];
    for case in cases {
        api.echo(case.clone());
        let answer = api.call("GET", "/open/a", &[], b"").await;
        assert_eq!(answer.status, 502, "{case}");
        assert_eq!(answer.json(), json!({"message": "Internal server error"}), "{case}");
        assert_eq!(answer.headers["x-amzn-errortype"], "InternalServerErrorException", "{case}");
        assert!(!format!("{:?}", answer.headers).contains("canary"), "{case}");
    }
}

#[tokio::test]
async fn an_answer_is_kept_by_its_identity_source_for_as_long_as_the_document_says() {
    for (life, seconds) in [("authorizerResultTtlInSeconds: 60", 60), ("# it does not say", 300)] {
        let (api, clock) = Api::keeping("method.request.header.Authorization", life);
        let (mine, others) = ([("authorization", "Bearer a.b.c")], [("authorization", "Bearer d.e.f")]);
        assert_eq!(api.asked("GET", "/files/a", &mine).await, (200, true));
        assert_eq!(api.asked("GET", "/files/a", &mine).await, (200, false));
        assert_eq!(api.event("echo")["requestContext"]["authorizer"]["jti"], "j-1", "and so is its context");
        assert_eq!(api.asked("GET", "/files/a", &others).await, (200, true), "another value, another answer");
        clock.advance(Duration::from_millis(seconds * 1_000 - 1));
        assert_eq!(api.asked("GET", "/files/a", &mine).await, (200, false));
        clock.advance(Duration::from_millis(1));
        assert_eq!(api.asked("GET", "/files/a", &mine).await, (200, true));
        api.gateway.flush_authorizers();
        assert_eq!(api.asked("GET", "/files/a", &mine).await, (200, true));
    }
}

#[tokio::test]
async fn without_keeping_each_call_is_asked_about() {
    let api = Api::new();
    for _ in 0..2 {
        assert_eq!(api.asked("GET", "/files/a", BEARER).await, (200, true));
    }
}

#[tokio::test]
async fn a_kept_policy_is_asked_about_every_call() {
    const STAGE: &str = "arn:aws:execute-api:us-east-1:111122223333:api1234567/local";
    let (api, _) = Api::keeping("method.request.header.Authorization", "authorizerResultTtlInSeconds: 300");
    let bearer = |token: &'static str| [("authorization", token)];
    // One ARN is too narrow for the next call, and a pattern lets through what nobody was asked about.
    api.set("gate", Answer::Payload(allow(&format!("{STAGE}/GET/files/a"))));
    assert_eq!(api.asked("GET", "/files/a", &bearer("narrow")).await, (200, true));
    assert_eq!(api.asked("GET", "/files/b", &bearer("narrow")).await, (403, false));
    assert_eq!(api.asked("POST", "/files", &bearer("narrow")).await, (403, false));
    api.set("gate", Answer::Payload(allow(&format!("{STAGE}/*"))));
    assert_eq!(api.asked("GET", "/files/a", &bearer("broad")).await, (200, true));
    assert_eq!(api.asked("POST", "/files", &bearer("broad")).await, (200, false));
    api.set("gate", Answer::Payload(policy("Deny", &format!("{STAGE}/*"))));
    assert_eq!(api.asked("GET", "/files/a", &bearer("denied")).await, (403, true));
    api.set("gate", Answer::Payload(allow("*")));
    assert_eq!(api.asked("GET", "/files/a", &bearer("denied")).await, (403, false), "a refusal is kept as well");
}

#[tokio::test]
async fn what_is_no_policy_is_not_kept() {
    let (api, _) = Api::keeping("method.request.header.Authorization", "authorizerResultTtlInSeconds: 300");
    let unauthorized = json!({"errorType": "x", "errorMessage": "Unauthorized"});
    for (answer, status) in [
        (Answer::Error(unauthorized), 401),
        (Answer::Error(json!({"errorType": "x", "errorMessage": "x"})), 503),
        (Answer::Payload(json!({"principalId": "x"})), 503),
        (Answer::Never, 503),
    ] {
        api.set("gate", answer);
        assert_eq!(api.asked("GET", "/files/a", BEARER).await, (status, true));
    }
    api.set("gate", Answer::Payload(allow("*")));
    assert_eq!(api.asked("GET", "/files/a", BEARER).await, (200, true));
}

#[tokio::test]
async fn whatever_lacks_an_identity_source_is_refused_without_a_question() {
    let sources = "method.request.header.Authorization, method.request.header.Cf-Access-Jwt-Assertion, method.request.querystring.v, context.httpMethod";
    let (api, _) = Api::keeping(sources, "authorizerResultTtlInSeconds: 300");
    let whole = [("authorization", "Bearer a.b.c"), ("cf-access-jwt-assertion", "d.e.f")];
    for (target, headers) in [
        ("/files/a?v=1", &whole[..1]),
        ("/files/a?v=1", &whole[1..]),
        ("/files/a?v=1", &[]),
        ("/files/a", &whole),
        ("/files/a?v=", &whole),
        ("/files/a?v=1", &[whole[0], ("cf-access-jwt-assertion", "")]),
        ("/files/a?v=1", &[whole[0], ("cf-access-jwt-assertion", " ")]),
    ] {
        assert_eq!(api.asked("GET", target, headers).await, (401, false), "{target} {headers:?}");
    }
    assert_eq!(api.asked("GET", "/files/a?v=1", &whole).await, (200, true));
    assert_eq!(api.asked("GET", "/files/b?v=1", &whole).await, (200, false));
    assert_eq!(api.asked("POST", "/files?v=1", &whole).await, (200, true), "the method is one of them here");
    assert_eq!(api.asked("GET", "/files/a?v=2", &whole).await, (200, true));
}

#[tokio::test]
async fn a_proxy_answer_arrives_as_rest_sends_it() {
    let api = Api::new();
    api.echo(json!({"statusCode": "201", "headers": null, "body": null}));
    let answer = api.call("GET", "/open/a", &[], b"").await;
    assert_eq!((answer.status, answer.body.as_str()), (201, ""));
    assert_eq!(answer.headers["content-type"], "application/json");

    api.echo(json!({}));
    assert_eq!(api.call("GET", "/open/a", &[], b"").await.status, 200);

    api.echo(json!({
        "statusCode": 401,
        "headers": {"WWW-Authenticate": "Bearer", "Date": "x", "Content-Type": "text/plain", "Flag": true, "A": "3"},
        "multiValueHeaders": {"a": ["1", "2"]},
        "body": "no",
    }));
    let answer = api.call("GET", "/open/a", &[], b"").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.headers.get("www-authenticate"), None);
    assert_eq!(answer.headers["x-amzn-remapped-www-authenticate"], "Bearer");
    assert_eq!(answer.headers["x-amzn-remapped-date"], "x");
    assert_eq!(answer.headers["content-type"], "text/plain");
    assert_eq!(answer.headers["flag"], "true");
    let all: Vec<_> = answer.headers.get_all("a").iter().collect();
    assert_eq!(all, ["1", "2", "3"]);
    assert!(answer.headers.contains_key("x-amzn-requestid"));
    assert!(answer.headers.contains_key("x-amz-apigw-id"));
}

#[tokio::test]
async fn base64_counts_only_for_binary_media_types() {
    let api = Api::new();
    api.echo(json!({"statusCode": 200, "body": "aGVsbG8=", "isBase64Encoded": true}));
    for (accept, wanted) in [("image/png, */*", "hello"), ("text/html", "aGVsbG8="), ("*/*", "aGVsbG8=")] {
        let answer = api.call("GET", "/open/a", &[("accept", accept)], b"").await;
        assert_eq!(answer.body, wanted, "{accept}");
    }
    let sent = [0xff_u8, 0x00, 0x80];
    let octets = [("content-type", "application/octet-stream; x=y")];
    api.call("POST", "/open/a", &octets, &sent).await;
    let event = api.event("echo");
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("/wCA"), &json!(true)));
    api.call("POST", "/open/a", &[("content-type", "application/json")], &sent).await;
    assert_eq!(api.event("echo")["isBase64Encoded"], false);
}

#[tokio::test]
async fn a_failing_function_never_leaks() {
    let api = Api::new();
    let message = "Internal server error";
    let cases = [
        (Answer::Error(json!({"errorType": "canary", "errorMessage": "canary"})), 502, message),
        (Answer::Refuse(InvokeError::Throttled("canary")), 500, message),
        (Answer::Refuse(InvokeError::Service("canary".to_owned())), 500, message),
        (Answer::Refuse(InvokeError::TooLarge(1)), 413, "Request Too Long"),
        (Answer::Never, 504, "Endpoint request timed out"),
    ];
    for (answer, status, message) in cases {
        api.set("echo", answer);
        let answer = api.call("GET", "/open/a", &[], b"").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.json(), json!({"message": message}));
        assert!(!format!("{:?}", answer.headers).contains("canary"));
    }
}

#[tokio::test]
async fn requests_beyond_the_limits_reach_no_function() {
    let api = Api::new();
    let body = vec![b'a'; 10 * 1024 * 1024 + 1];
    let answer = api.call("POST", "/open/a", &[], &body).await;
    assert_eq!((answer.status, answer.json()), (413, json!({"message": "Request Too Long"})));
    let long = "x".repeat(10_240);
    assert_eq!(api.call("GET", "/open/a", &[("x-long", &long)], b"").await.status, 431);
    for target in ["/open/a|b", "/open/a%2", "/open/a%zz", "/open/%ff"] {
        assert_eq!(api.call("GET", target, &[], b"").await.status, 400, "{target}");
    }
    assert!(api.invoked().is_empty());
}

#[tokio::test]
async fn required_parameters_are_required() {
    let api = Api::new();
    let answer = api.call("GET", "/needs", &[], b"").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json(), json!({"message": "Missing required request parameters: [q, X-Needed]"}));
    assert_eq!(api.call("GET", "/needs?q=1", &[("x-needed", "1")], b"").await.status, 200);
}

#[tokio::test]
async fn a_mock_answers_by_itself() {
    let api = Api::new();
    let answer = api.call("GET", "/health", &[], b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["status"], "ok");
    assert_eq!(answer.json()["id"], answer.headers["x-amzn-requestid"].to_str().unwrap());
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(api.call("GET", "/health", &[("content-type", "text/plain")], b"").await.status, 415);
    assert!(api.invoked().is_empty());
}

#[tokio::test]
async fn the_api_is_served_over_the_stacks_own_tls() {
    let (api, ca) = (Api::new(), Ca::generate().unwrap());
    let tls = ca.server_config(&["localhost", "127.0.0.1"]).unwrap();
    let server = api.gateway.serve(bind().await.unwrap(), Some(tls)).await.unwrap();
    let request = http::Request::get(format!("https://localhost:{}/health", server.addr.port()))
        .body(http_body_util::Full::default())
        .unwrap();
    let answer = send(request, Some(ca.client_config().unwrap())).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn header_names_keep_the_clients_spelling() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let api = Api::new();
    let server = api.gateway.serve(bind().await.unwrap(), None).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let requests = "POST /open/a HTTP/1.1\r\nHost: h\r\nX-MiXed: 1\r\nContent-Length: 3\r\n\r\nabc";
    let last = "GET /open/a HTTP/1.1\r\nHOST: h\r\nx-low: 1\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream.write_all(last.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let events: Vec<Value> = api.script.seen.lock().unwrap().iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(events[0]["headers"]["X-MiXed"], "1");
    assert_eq!(events[0]["headers"]["Host"], "h");
    assert_eq!(events[1]["headers"]["HOST"], "h");
    assert_eq!(events[1]["headers"]["x-low"], "1");
}

#[test]
fn the_projects_own_document_is_served_with_the_projects_own_template() {
    let parameters = [
        ("Env", "test"),
        ("Issuer", "https://localhost:1"),
        ("Audience", "https://api.example"),
        ("TrustBucket", "trust-bucket"),
        ("ObjectBucket", "object-bucket"),
        ("DataKeyArn", "arn:aws:kms:us-east-1:111122223333:key/data"),
        ("BucketKeyArn", "arn:aws:kms:us-east-1:111122223333:key/bucket"),
        ("ReceiptKeyArn", "arn:aws:kms:us-east-1:111122223333:key/receipts"),
        ("SigningHost", "http://127.0.0.1:2"),
        ("DbHost", "localhost"),
        ("DbProxyResourceId", "prx-1"),
        ("DbResourceId", "db-1"),
        ("DbDirectHost", "127.0.0.1"),
        ("Scan", "off"),
        ("CodeBucket", "code"),
        ("SigningKeyArn", "arn:aws:kms:us-east-1:111122223333:key/signing"),
        ("Stage", "local"),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let template = Template::deployed(&parameters, "111122223333", "us-east-1", "api1234567").unwrap();
    assert_eq!(template.throttles(), [limit("/*", "*", 100.0, 200.0)], "the stage's own");
    let settings = |api_id| Settings::new(api_id, template.deployment());
    let script = || Arc::new(Script { answers: Mutex::default(), seen: Mutex::default() });
    let document = template.document();
    if let Err(faults) = Gateway::new(document, settings("api1234567"), account(), script()) {
        panic!("{faults:#?}");
    }
    // Permissions are for that API only.
    let faults = Gateway::new(document, settings("other"), account(), script()).err().unwrap();
    assert!(faults.iter().all(|fault| fault.contains("no permission lets")), "{faults:#?}");
    if let Err(faults) = Events::new(account(), template.deployment(), script()) {
        panic!("{faults:#?}");
    }
}

#[test]
fn a_document_that_is_not_understood_is_refused_with_every_reason() {
    let replacements: &[(&str, &str, &str)] = &[
        ("authorizerResultTtlInSeconds: 0", "authorizerResultTtlInSeconds: 3601", "is 0 to 3600"),
        ("authorizerResultTtlInSeconds: 0", "authorizerResultTtlInSeconds: '0'", "is 0 to 3600"),
        (
            "        identitySource: method.request.header.Authorization\n        authorizerResultTtlInSeconds: 0\n",
            "        authorizerResultTtlInSeconds: 1\n",
            "needs an identity source",
        ),
        (
            "        identitySource: method.request.header.Authorization\n        authorizerResultTtlInSeconds: 0\n",
            "",
            "needs an identity source",
        ),
        ("identitySource: method.request.header.Authorization", "identitySource: context.requestId", "identity source"),
        ("type: request", "type: token", "type must be request"),
        (
            "identitySource: method.request.header.Authorization",
            "identitySource: method.request.body",
            "identity source",
        ),
        ("${GateFunction.Arn}", "${OtherFunction.Arn}", "names no function"),
        ("info: {", "security: [{gate: []}]\ninfo: {", "ignores it here"),
        ("/open/{id}:", "/open/x{id}:", "whole segment"),
        ("httpMethod: POST", "httpMethod: GET", "httpMethod POST"),
        ("type: aws_proxy", "type: http_proxy", "no such VPC link"),
        ("type: aws_proxy", "type: http", "not supported"),
        ("timeoutInMillis: 60", "timeoutInMillis: 29001", "50 to 29000"),
        ("timeoutInMillis: 60", "cacheNamespace: x", "cacheNamespace: not supported"),
        ("info: {", "x-amazon-apigateway-policy: {}\ninfo: {", "/x-amazon-apigateway-policy: unknown extension"),
        ("x-portcullis-action:", "x-portcullis-actoin:", "x-portcullis-actoin: unknown extension"),
        ("x-portcullis-function: echo", "x-portcullis-function: gate", "is not what echo is"),
        ("      x-portcullis-open: the fixture is public\n", "", "x-portcullis-open"),
        ("security: [{gate: []}]", "security: [{nobody: []}]", "exactly one known authorizer"),
        ("  /health:", "  /ping:", "reserved"),
        ("/files/{id}/content", "/files/{other}/content", "calls this parameter"),
        ("  UNAUTHORIZED:", "  UNAUTHORISED:", "unknown response type"),
        ("$context.error.messageString", "$context.error.canary", "unknown template variable"),
        ("\"'Bearer'\"", "Bearer", "not supported"),
        ("  AUTHORIZER_CONFIGURATION_ERROR: *fault\n", "", "configured alike"),
        ("validateRequestBody: false", "validateRequestBody: true", "validation of bodies"),
        ("openapi: 3.0.3", "openapi: 3.1.0", "OpenAPI 3.0"),
        ("paths:", "paths: [", "not YAML"),
    ];
    let account = account();
    for (from, to, wanted) in replacements {
        assert!(DOCUMENT.contains(from), "{from}");
        let document = DOCUMENT.replace(from, to);
        let script = Arc::new(Script { answers: Mutex::default(), seen: Mutex::default() });
        let gateway = |document: Value| Gateway::new(&document, settings(), Arc::clone(&account), script);
        let Err(faults) = read(&document).and_then(gateway) else {
            panic!("accepted: {to}");
        };
        assert!(faults.iter().any(|fault| fault.contains(wanted)), "{to}: {faults:?}");
    }
}

fn limit(resource: &str, method: &str, rate: f64, burst: f64) -> Throttle {
    Throttle { resource: resource.to_owned(), method: method.to_owned(), rate, burst }
}

#[tokio::test]
async fn a_limit_of_the_stage_is_one_of_each_method_and_nobody_is_asked_beyond_it() {
    let (api, clock) = Api::throttled(vec![limit("/*", "*", 2.0, 3.0)]);
    let spent = async |method: &str, target: &str| {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(api.call(method, target, BEARER, b"").await.status);
        }
        statuses
    };
    assert_eq!(spent("GET", "/files/a").await, [200, 200, 200, 429]);
    assert_eq!(spent("GET", "/files/b").await, [429; 4], "another path of the same resource");
    assert!(api.invoked().is_empty(), "neither the authorizer nor the function");
    for (method, target) in [("POST", "/files"), ("GET", "/open/a"), ("POST", "/open/a"), ("GET", "/files/a/content")] {
        assert_eq!(spent(method, target).await, [200, 200, 200, 429], "{method} {target} has its own");
    }
    assert_eq!(spent("PUT", "/deep/a").await, [200, 200, 200, 429]);
    assert_eq!(spent("PATCH", "/deep/a").await, [429; 4], "ANY is one method");
    let refused = api.call("GET", "/files/a", BEARER, b"").await;
    assert_eq!((refused.status, refused.json()), (429, json!({"message": "Too Many Requests"})));
    assert_eq!(refused.headers["x-amzn-errortype"], "TooManyRequestsException");
    clock.advance(Duration::from_millis(499));
    assert_eq!(api.call("GET", "/files/a", BEARER, b"").await.status, 429);
    clock.advance(Duration::from_millis(1));
    assert_eq!(api.call("GET", "/files/a", BEARER, b"").await.status, 200);
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(spent("GET", "/files/a").await, [200, 200, 200, 429], "no more than the burst is saved up");
    assert_eq!(api.call("GET", "/nowhere", BEARER, b"").await.status, 403, "what is no method has no limit");
}

#[tokio::test]
async fn the_most_exact_limit_holds_and_a_clock_put_back_fills_nothing() {
    let limits = vec![limit("/files/{id}", "GET", 1.0, 1.0), limit("/*", "*", 1.0, 5.0)];
    let (api, clock) = Api::throttled(limits);
    let ask = async |target: &str| api.call("GET", target, BEARER, b"").await.status;
    assert_eq!((ask("/files/a").await, ask("/files/a").await), (200, 429));
    for wanted in [200, 200, 200, 200, 200, 429] {
        assert_eq!(ask("/open/a").await, wanted);
    }
    clock.set_skew(-3_600_000);
    assert_eq!(ask("/files/a").await, 429);
    clock.set_skew(0);
    assert_eq!(ask("/files/a").await, 429, "nor when it has caught up");
}

#[test]
fn the_limits_of_the_stage_are_the_templates_parameters() {
    let with = |rate: &str, burst: &str| {
        let parameters = [
            ("Env", "test"),
            ("Issuer", "https://localhost:1"),
            ("Audience", "https://api.example"),
            ("TrustBucket", "t"),
            ("ObjectBucket", "o"),
            ("DataKeyArn", "arn:aws:kms:us-east-1:111122223333:key/d"),
            ("BucketKeyArn", "arn:aws:kms:us-east-1:111122223333:key/b"),
            ("SigningHost", "http://127.0.0.1:2"),
            ("ReceiptKeyArn", "arn:aws:kms:us-east-1:111122223333:key/r"),
            ("DbHost", "localhost"),
            ("Scan", "off"),
            ("DbProxyResourceId", "prx-1"),
            ("DbResourceId", "db-1"),
            ("DbDirectHost", "127.0.0.1"),
            ("CodeBucket", "code"),
            ("SigningKeyArn", "arn:aws:kms:us-east-1:111122223333:key/s"),
            ("ThrottleRate", rate),
            ("ThrottleBurst", burst),
        ];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Template::deployed(&parameters, "111122223333", "us-east-1", "api1234567").map(|one| one.throttles().to_vec())
    };
    assert_eq!(with("0.5", "7").unwrap(), [limit("/*", "*", 0.5, 7.0)]);
    for (rate, burst) in [("-1", "7"), ("x", "7"), ("NaN", "7"), ("1", "inf")] {
        assert!(with(rate, burst).is_err(), "{rate} {burst}");
    }
}

//! What a caller sees when the surroundings fail, and that nothing is lost by it.

mod support;

use std::time::Duration;

use local::faults::Faults;
use local::journey::{Answer, claims};
use local::lambda::Kind;
use serde_json::{Value, json};
use support::Running;

const DOWN: Faults = Faults { throttle_next: 0, unavailable: true, latency: Duration::ZERO };
const WELL: Faults = Faults { throttle_next: 0, unavailable: false, latency: Duration::ZERO };

fn file() -> Value {
    json!({"name": "a.txt", "content_type": "text/plain", "size": 5, "mode": "put",
        "sha256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="})
}

fn says_come_back(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.outcome());
    assert!(!answer.header("retry-after").is_empty(), "no Retry-After: {:?}", answer.headers);
    let body = String::from_utf8_lossy(&answer.body);
    for inside in ["kms", "postgres", "rds", "127.0.0.1", "Error", "connect"] {
        assert!(!body.contains(inside), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kms_no_token_is_issued_and_no_assertion_is_burnt() {
    let running = Running::start().await;
    let assertion = running.api.assertion(running.client("acme-backend")).unwrap();
    running.stack.kms.faults().set(DOWN);
    says_come_back(&running.api.token_with(&assertion, None).await.unwrap());
    running.stack.kms.faults().set(WELL);
    assert_eq!(running.count("assertion_ids").await, 0);
    assert_eq!(running.api.token_with(&assertion, None).await.unwrap().status, 200, "the same assertion works");
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_nothing_is_half_written() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    let assertion = running.api.assertion(running.client("acme-backend")).unwrap();
    running.stack.proxy.drop_connections();
    running.stack.proxy.refuse_new(true);
    says_come_back(&running.api.token_with(&assertion, None).await.unwrap());
    says_come_back(&running.api.call("POST", "/files", Some(&token), Some(&file())).await.unwrap());
    let path = "/files/0198e1a0-0000-7000-8000-000000000000";
    says_come_back(&running.api.call("GET", path, Some(&token), None).await.unwrap());
    says_come_back(&running.encrypt(&token, &["ada@example.com"]).await);
    running.stack.proxy.refuse_new(false);
    assert_eq!((running.count("files").await, running.count("data_keys").await), (0, 0));
    assert_eq!(running.api.token_with(&assertion, None).await.unwrap().status, 200, "a fresh connection by itself");
    assert_eq!(running.encrypt(&token, &["ada@example.com"]).await.status, 200);
    running.stack.stop().await;
}

/// The proxy's connections are all in use: who waits in vain is told to come back, and has written and burnt nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_connection_to_borrow_nothing_is_half_written() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    assert_eq!(running.encrypt(&token, &["warm@example.com"]).await.status, 200);
    let counts =
        async || (running.count("files").await, running.count("assertion_ids").await, running.count("data_keys").await);
    let (before, assertion) = (counts().await, running.api.assertion(running.client("acme-backend")).unwrap());
    let path = "/files/0198e1a0-0000-7000-8000-000000000000";
    let proxy = &running.stack.proxy;
    let faults = &running.stack.account.faults;
    for by_rule in [false, true] {
        match by_rule {
            false => proxy.lend(Some(0), Duration::from_millis(20)),
            true => faults.replace("db borrow", Some(1)).unwrap(),
        }
        says_come_back(&running.api.token_with(&assertion, None).await.unwrap());
        says_come_back(&running.api.call("POST", "/files", Some(&token), Some(&file())).await.unwrap());
        let read = running.api.call("GET", path, Some(&token), None).await.unwrap();
        says_come_back(&read);
        assert!(!String::from_utf8_lossy(&read.body).contains("acquire"), "the proxy's words stay inside");
        assert_eq!(counts().await, before);
        proxy.lend(None, Duration::ZERO);
        faults.replace("", None).unwrap();
        assert_eq!(running.api.call("GET", path, Some(&token), None).await.unwrap().outcome(), "404 not_found");
    }
    assert_eq!(running.api.token_with(&assertion, None).await.unwrap().status, 200, "the same assertion works");
    running.stack.stop().await;
}

/// The stage's own limit, in the words of the document's gateway response; no process has anything to do with it.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_of_the_stage_a_route_says_come_back_and_asks_nobody() {
    let running = Running::start_with(&[("ThrottleRate", "0.01"), ("ThrottleBurst", "2")]).await;
    // Each token takes from the limit of its own route.
    let token = running.token("acme-backend").await;
    let path = "/files/0198e1a0-0000-7000-8000-000000000000";
    let ask = async || running.api.call("GET", path, Some(&token), None).await.unwrap();
    assert_eq!((ask().await.status, ask().await.status), (404, 404));
    let asked = running.stack.account.iam.trail().len();
    let refused = ask().await;
    assert_eq!(refused.outcome(), "429 too_many_requests");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert!(refused.header("x-amzn-errortype").starts_with("TooManyRequests"));
    assert_eq!(running.stack.account.iam.trail().len(), asked, "nobody was asked anything");
    // Whoever floods one route shuts no other one.
    assert_eq!(running.api.call("POST", "/files", Some(&token), Some(&file())).await.unwrap().status, 201);
    running.stack.stop().await;
}

/// A key whose messages may come in, but that has no name of this deployment's, is beyond what any role of it may use.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_a_name_of_the_deployment_is_beyond_the_boundary_of_its_roles() {
    let running = Running::start().await;
    let stack = &running.stack;
    let operator = stack.account.operator();
    let token = running.token("acme-backend").await;
    let sealed = running.encrypt(&token, &["ada@example.com"]).await.json();
    let mut item = json!({"ref": "1", "table": "users", "column": "email", "row": "0"});
    item["record"] = sealed["items"][0]["record"].clone();
    let ask = async || {
        let body = json!({"items": [item]});
        running.api.call("POST", "/fields/decrypt", Some(&token), Some(&body)).await.unwrap()
    };
    let unname = json!({"AliasName": "alias/portcullis-local-data"});
    stack.kms.perform(&operator, None, "DeleteAlias", &unname).unwrap();
    stack.lambda.recycle("portcullis-local-data-key-decrypt").await;
    let refused = ask().await;
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    assert_eq!(refused.json()["items"][0]["error"]["code"], "kms_denied", "the stable code, and no more");
    for inside in ["boundary", "arn:", "portcullis-local", "AccessDenied", "alias", "kms:"] {
        assert!(!said.contains(inside), "{said}");
    }
    let why = "because no permissions boundary allows the kms:Decrypt action";
    let denied = stack.account.iam.trail().into_iter().any(|entry| !entry.allowed && entry.reason == why);
    assert!(denied, "the trail says so");
    stack.kms.create_alias("alias/portcullis-local-data", &stack.places.data_key).unwrap();
    stack.lambda.recycle("portcullis-local-data-key-decrypt").await;
    assert_eq!(ask().await.json()["items"][0]["ok"], json!(true));
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_s3_a_warm_gate_goes_on_and_a_cold_one_lets_nobody_in() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    running.stack.s3.faults().set(DOWN);
    // Neither the authorizer nor the function has read a trust object yet.
    says_come_back(&running.api.call("POST", "/files", Some(&token), Some(&file())).await.unwrap());
    running.stack.s3.faults().set(WELL);
    let path = "/files/0198e1a0-0000-7000-8000-000000000000";
    let answer = running.api.call("GET", path, Some(&token), None).await.unwrap();
    assert_eq!(answer.outcome(), "404 not_found");
    running.stack.s3.faults().set(DOWN);
    let answer = running.api.call("GET", path, Some(&token), None).await.unwrap();
    assert_eq!(answer.outcome(), "404 not_found", "what was read serves on");
    assert_eq!(running.count("files").await, 0);
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sts_no_file_is_created() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    running.stack.sts.faults().set(DOWN);
    says_come_back(&running.api.call("POST", "/files", Some(&token), Some(&file())).await.unwrap());
    running.stack.sts.faults().set(WELL);
    assert_eq!(running.count("files").await, 0);
    assert_eq!(running.api.call("POST", "/files", Some(&token), Some(&file())).await.unwrap().status, 201);
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_reached_around_the_gate_refuses() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    let jti = claims(&token)["jti"].clone();
    let event = |method: &str, resource: &str, authorizer: Value| {
        json!({"resource": resource, "path": resource, "httpMethod": method, "body": "{}", "isBase64Encoded": false,
            "multiValueHeaders": {"Authorization": [format!("Bearer {token}")], "Content-Type": ["application/json"]},
            "pathParameters": {"id": "0198e1a0-0000-7000-8000-000000000000"},
            "requestContext": {"requestId": "r", "httpMethod": method, "authorizer": authorizer}})
    };
    let routes = [
        ("upload", "POST", "/files"),
        ("download", "GET", "/files/{id}"),
        ("download", "GET", "/files/{id}/content"),
        ("data-key-encrypt", "POST", "/fields/encrypt"),
        ("data-key-encrypt", "POST", "/fields/index"),
        ("data-key-encrypt", "POST", "/fields/inspect"),
        ("data-key-decrypt", "POST", "/fields/decrypt"),
        ("data-key-maintain", "POST", "/fields/rewrap"),
        ("data-key-maintain", "POST", "/fields/export"),
        ("data-key-maintain", "POST", "/fields/import"),
    ];
    for (deployment, method, resource) in routes {
        for (what, context) in [
            ("no context", Value::Null),
            ("an empty context", json!({})),
            ("another token's", json!({"jti": "0198e1a0-0000-7000-8000-000000000009", "sub": "acme-backend"})),
            ("another subject's", json!({"jti": jti, "sub": "globex-backend"})),
        ] {
            let answer = running.stack.invoke(deployment, &event(method, resource, context)).await.unwrap();
            assert_eq!(answer["statusCode"], 403, "{deployment} {resource} with {what}: {answer}");
            assert!(answer["body"].as_str().unwrap().contains("authorizer_missing"), "{answer}");
        }
        let mut unsigned = event(method, resource, json!({"jti": jti, "sub": "acme-backend"}));
        unsigned["multiValueHeaders"]["Authorization"] = json!([format!("Bearer {}x", token)]);
        let answer = running.stack.invoke(deployment, &unsigned).await.unwrap();
        assert_eq!(answer["statusCode"], 401, "{deployment} {resource} trusts the context alone: {answer}");
    }
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_function_echoes_a_malformed_event() {
    let running = Running::start().await;
    let canary = "canary-88d1";
    let functions: Vec<String> = running.stack.lambda.functions().map(str::to_owned).collect();
    assert!(functions.len() >= 10, "{functions:?}");
    for function in functions.iter().filter(|name| !name.ends_with("-migrate") && !name.ends_with("-trust")) {
        for payload in
            [json!({"operation": canary, "operator": canary}), json!([canary]), json!(canary), json!({"body": canary})]
        {
            let outcome =
                running.stack.lambda.invoke(function, payload.to_string().into(), Kind::RequestResponse).await;
            let outcome = outcome.unwrap();
            let answer = String::from_utf8_lossy(&outcome.payload).into_owned();
            assert!(!answer.contains(canary), "{function} answers {answer}");
            assert!(!outcome.log.contains(canary), "{function} logs {}", outcome.log);
        }
    }
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_a_log() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    let secret = "canary.person@example.com";
    assert_eq!(running.encrypt(&token, &[secret]).await.status, 200);
    let plan = running.api.call("POST", "/files", Some(&token), Some(&file())).await.unwrap().json();
    let url = plan["upload"]["url"].as_str().unwrap().to_owned();
    let signature = url.split_once("X-Amz-Signature=").unwrap().1[..64].to_owned();
    let parts: Vec<&str> = token.split('.').collect();
    for function in running.stack.lambda.functions().map(str::to_owned).collect::<Vec<_>>() {
        let log = running.stack.lambda.log(&function);
        for secret in [secret, "Y2FuYXJ5LnBlcnNvbkBleGFtcGxlLmNvbQ", parts[1], parts[2], &signature] {
            assert!(!log.contains(secret), "{function}: {log}");
        }
    }
    running.stack.stop().await;
}

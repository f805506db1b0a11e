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

//! The authorizer events of API Gateway, modelled on those that it sends and written for tests.

#![allow(unreachable_pub, reason = "every test program uses its own part")]

use serde_json::{Value, json};

/// The API of all of them.
pub const API: &str = "arn:aws:execute-api:us-east-1:111122223333:abcdef123";

/// HTTP API, payload format 2.0.
pub fn http(method: &str, template: &str, path: &str, authorization: &str) -> Value {
    json!({
        "version": "2.0",
        "type": "REQUEST",
        "routeArn": format!("{API}/$default/{method}{path}"),
        "identitySource": [authorization],
        "routeKey": format!("{method} {template}"),
        "rawPath": path,
        "rawQueryString": "parameter1=value1&parameter1=value2",
        "cookies": ["cookie1", "cookie2"],
        "headers": {"accept": "*/*", "authorization": authorization, "x-amzn-trace-id": "Root=1-5fd00000"},
        "queryStringParameters": {"parameter1": "value1,value2"},
        "requestContext": {
            "accountId": "111122223333",
            "apiId": "abcdef123",
            "domainName": "abcdef123.execute-api.us-east-1.amazonaws.com",
            "domainPrefix": "abcdef123",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "agent"},
            "requestId": "g-2",
            "routeKey": format!("{method} {template}"),
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1_583_348_638_390_i64
        },
        "pathParameters": {"id": "x"},
        "stageVariables": {"stageVariable1": "value1"}
    })
}

/// HTTP API, payload format 1.0.
pub fn http_v1(method: &str, template: &str, path: &str, authorization: &str) -> Value {
    json!({
        "version": "1.0",
        "type": "REQUEST",
        "methodArn": format!("{API}/$default/{method}{path}"),
        "identitySource": authorization,
        "authorizationToken": authorization,
        "resource": template,
        "path": path,
        "httpMethod": method,
        "headers": {"Authorization": authorization, "X-AMZ-Date": "20170718T062915Z"},
        "queryStringParameters": {"QueryString1": "queryValue1"},
        "pathParameters": {},
        "requestContext": {"path": path, "accountId": "111122223333", "stage": "$default", "requestId": "g-1",
            "resourcePath": template, "httpMethod": method, "apiId": "abcdef123"}
    })
}

/// REST API, `REQUEST`.
pub fn request(method: &str, template: &str, path: &str, authorization: &str) -> Value {
    json!({
        "type": "REQUEST",
        "methodArn": format!("{API}/v1/{method}{path}"),
        "resource": template,
        "path": path,
        "httpMethod": method,
        "headers": {"Accept": "*/*", "Authorization": authorization, "X-Forwarded-Proto": "https"},
        "multiValueHeaders": {"Accept": ["*/*"], "Authorization": [authorization], "X-Forwarded-Proto": ["https"]},
        "queryStringParameters": null,
        "multiValueQueryStringParameters": null,
        "pathParameters": {"id": "x"},
        "stageVariables": null,
        "requestContext": {"resourceId": "us4z18", "resourcePath": template, "httpMethod": method, "stage": "v1",
            "path": format!("/v1{path}"), "requestId": "g-1", "apiId": "abcdef123"}
    })
}

/// REST API, `TOKEN`.
pub fn token(method: &str, _: &str, path: &str, authorization: &str) -> Value {
    json!({"type": "TOKEN", "authorizationToken": authorization, "methodArn": format!("{API}/v1/{method}{path}")})
}

/// A WebSocket API's `$connect`, after the example of AWS's documentation.
pub fn socket(authorization: &str) -> Value {
    json!({
        "type": "REQUEST",
        "methodArn": format!("{API}/default/$connect"),
        "headers": {"Connection": "upgrade", "content-length": "0", "Authorization": authorization, "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13", "X-Forwarded-Port": "443", "X-Forwarded-Proto": "https"},
        "multiValueHeaders": {"Connection": ["upgrade"], "content-length": ["0"], "Authorization": [authorization],
            "Upgrade": ["websocket"], "Sec-WebSocket-Version": ["13"], "X-Forwarded-Port": ["443"], "X-Forwarded-Proto": ["https"]},
        "queryStringParameters": {"QueryString1": "queryValue1"},
        "multiValueQueryStringParameters": {"QueryString1": ["queryValue1"]},
        "stageVariables": {},
        "requestContext": {"routeKey": "$connect", "eventType": "CONNECT", "extendedRequestId": "x", "messageDirection": "IN",
            "requestTime": "19/Jan/2023:21:13:26 +0000", "stage": "default", "connectedAt": 1_674_162_806_344_i64,
            "requestTimeEpoch": 1_674_162_806_345_i64, "identity": {"sourceIp": "192.0.2.1"}, "requestId": "g-5",
            "domainName": "abcdef123.execute-api.us-east-1.amazonaws.com", "connectionId": "c", "apiId": "abcdef123"}
    })
}

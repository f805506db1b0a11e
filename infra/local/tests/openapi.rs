//! The deployed API document agrees with the deployed functions, and is open nowhere by omission.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers beside the tests")]

use std::collections::{BTreeMap, BTreeSet};

use local::template::{self, Template};
use serde_json::{Map, Value};

const DOCUMENT: &str = include_str!("../../aws/openapi.yaml");

/// Method, path, deployment or `mock`, open or the scopes of which one is needed.
const ROUTES: &[(&str, &str, &str, &[&str])] = &[
    ("delete", "/files/{id}", "upload", &["files:write"]),
    ("get", "/.well-known/jwks.json", "token", &["open"]),
    ("get", "/.well-known/oauth-authorization-server", "token", &["open"]),
    ("get", "/.well-known/receipts/jwks.json", "download", &["open"]),
    ("get", "/files/{id}", "download", &["files:read", "files:read:tenant"]),
    ("get", "/files/{id}/content", "download", &["files:read", "files:read:tenant"]),
    ("get", "/files/{id}/receipt", "download", &["files:read", "files:read:tenant"]),
    ("get", "/health", "mock", &["open"]),
    ("get", "/tickets/{ticket}", "download", &["open"]),
    ("post", "/fields/decrypt", "data-key-decrypt", &["fields:decrypt"]),
    ("post", "/fields/encrypt", "data-key-encrypt", &["fields:encrypt"]),
    ("post", "/fields/export", "data-key-maintain", &["fields:export"]),
    ("post", "/fields/import", "data-key-maintain", &["fields:import"]),
    ("post", "/fields/index", "data-key-encrypt", &["fields:index"]),
    ("post", "/fields/inspect", "data-key-encrypt", &["fields:inspect"]),
    ("post", "/fields/rewrap", "data-key-maintain", &["fields:rewrap"]),
    ("post", "/files", "upload", &["files:write"]),
    ("post", "/files/{id}/complete", "upload", &["files:write"]),
    ("post", "/files/{id}/parts", "upload", &["files:write"]),
    ("post", "/files/{id}/tickets", "download", &["files:read", "files:read:tenant"]),
    ("post", "/files/{id}/url", "upload", &["files:write"]),
    ("post", "/oauth2/introspect", "token", &["open"]),
    ("post", "/oauth2/revoke", "token", &["open"]),
    ("post", "/oauth2/token", "token", &["open"]),
];

fn document() -> Value {
    template::yaml(DOCUMENT).unwrap()
}

fn opened() -> Template {
    Template::deployed(&parameters(), "111122223333", "us-east-1", "api123").unwrap()
}

fn parameters() -> BTreeMap<String, String> {
    let names = [
        "Audience",
        "TrustBucket",
        "ObjectBucket",
        "DataKeyArn",
        "BucketKeyArn",
        "ReceiptKeyArn",
        "SigningHost",
        "DbHost",
        "DbProxyResourceId",
        "DbResourceId",
        "DbDirectHost",
        "CodeBucket",
    ];
    let mut parameters: BTreeMap<String, String> =
        names.iter().map(|name| ((*name).to_owned(), format!("arn:aws:s3:::{name}"))).collect();
    for (name, value) in [("Env", "test"), ("Scan", "off"), ("Issuer", "https://gate.example")] {
        parameters.insert(name.to_owned(), value.to_owned());
    }
    for (name, key) in [
        ("DataKeyArn", "data"),
        ("BucketKeyArn", "bucket"),
        ("ReceiptKeyArn", "receipts"),
        ("SigningKeyArn", "signing"),
    ] {
        parameters.insert(name.to_owned(), format!("arn:aws:kms:us-east-1:111122223333:key/{key}"));
    }
    parameters
}

/// The API with an application behind the gate.
fn with_app() -> Value {
    let mut parameters = parameters();
    for (name, value) in [
        ("AppLinkId", "link1"),
        (
            "AppLoadBalancerArn",
            "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/app/a/0123456789abcdef",
        ),
        ("AppHost", "app.example"),
    ] {
        parameters.insert(name.to_owned(), value.to_owned());
    }
    Template::deployed(&parameters, "111122223333", "us-east-1", "api123").unwrap().document().clone()
}

fn operations(document: &Value) -> Vec<(String, String, Map<String, Value>)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push((method.clone(), path.clone(), operation.as_object().unwrap().clone()));
        }
    }
    found.sort_by(|left, right| (&left.0, &left.1).cmp(&(&right.0, &right.1)));
    found
}

#[test]
fn the_document_holds_exactly_the_routes_that_exist() {
    let document = document();
    let found: Vec<(String, String, String, Vec<String>)> = operations(&document)
        .into_iter()
        .map(|(method, path, operation)| {
            let scopes = match operation.get("x-portcullis-scopes") {
                None => vec!["open".to_owned()],
                Some(scopes) => scopes.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
            };
            let function =
                operation.get("x-portcullis-function").map_or("mock", |one| one.as_str().unwrap()).to_owned();
            (method, path, function, scopes)
        })
        .collect();
    let expected: Vec<_> = ROUTES
        .iter()
        .map(|(method, path, function, scopes)| {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            ((*method).to_owned(), (*path).to_owned(), (*function).to_owned(), scopes)
        })
        .collect();
    assert_eq!(found, expected);
}

/// API Gateway ignores `security` at the root, so every operation says for itself whether it is open.
#[test]
fn every_operation_is_either_open_with_a_reason_or_guarded_and_described() {
    let document = document();
    assert!(document.get("security").is_none(), "API Gateway ignores it");
    for (method, path, operation) in operations(&document) {
        let at = format!("{method} {path}");
        let security = operation["security"].as_array().unwrap();
        let markers: BTreeSet<&str> =
            operation.keys().map(String::as_str).filter(|name| name.starts_with("x-portcullis-")).collect();
        if let Some(reason) = operation.get("x-portcullis-open") {
            assert!(security.is_empty() && reason.as_str().is_some_and(|reason| reason.len() > 10), "{at}");
            assert!(markers.is_subset(&["x-portcullis-open", "x-portcullis-function"].into()), "{at}");
        } else {
            assert_eq!(operation["security"], serde_json::json!([{"gate": []}]), "{at}");
            let expected =
                ["x-portcullis-access", "x-portcullis-action", "x-portcullis-function", "x-portcullis-scopes"];
            assert_eq!(markers, expected.into(), "{at}");
        }
    }
}

#[test]
fn every_integration_is_the_function_it_names_and_the_gateway_may_invoke_it_there_only() {
    let template = opened();
    let document = template.document();
    let called = |uri: &Value| {
        let arn = uri.as_str().unwrap().split_once("functions/").unwrap().1.strip_suffix("/invocations").unwrap();
        arn.split_once(":function:").unwrap().1.to_owned()
    };
    let function = |called: &str| {
        let (name, alias) = called.split_once(':').unwrap();
        assert_eq!(alias, "live");
        template.deployment().functions.iter().find(|function| function.function_name == name).unwrap()
    };
    let may = |called: &str, source: &str| {
        let source = format!("arn:aws:execute-api:us-east-1:111122223333:api123/{source}");
        let permissions = &template.deployment().permissions;
        permissions.iter().any(|one| one.covers(called, "apigateway.amazonaws.com", &source))
    };
    for (method, path, operation) in operations(document) {
        let integration = &operation["x-amazon-apigateway-integration"];
        if integration["type"] == "mock" {
            continue;
        }
        let name = called(&integration["uri"]);
        let function = function(&name);
        assert_eq!(operation["x-portcullis-function"], function.deployment.as_str());
        let source = format!("v1/{}{}", method.to_uppercase(), path.replace("{id}", "0198"));
        for other in &template.deployment().functions {
            let alias = format!("{}:live", other.function_name);
            assert_eq!(may(&alias, &source), other.deployment == function.deployment, "{source}");
            assert!(!may(&other.function_name, &source), "{source}: around the alias");
        }
        assert!(!may(&name, &source.replacen("v1/", "test-invoke-stage/", 1)), "{source}: from another stage");
        // The gateway gives up after the function would have, never before.
        let patience = integration["timeoutInMillis"].as_u64().unwrap();
        assert!(patience > u64::from(function.timeout) * 1_000 && patience <= 29_000, "{source}");
    }
    let authorizer = &document["components"]["securitySchemes"]["gate"]["x-amazon-apigateway-authorizer"];
    let name = called(&authorizer["authorizerUri"]);
    assert_eq!(function(&name).deployment, "authorizer");
    assert!(may(&name, "authorizers/abc"));
    assert_eq!(authorizer["authorizerResultTtlInSeconds"], 0);
    assert_eq!(authorizer["identitySource"], "method.request.header.Authorization");
}

/// A new route is one operation in openapi.yaml and one permission in api.yaml, called by the operation's name. This
/// names what is missing or left over.
#[test]
fn every_route_of_a_function_has_one_permission_and_every_permission_a_route() {
    let api = template::api().unwrap();
    let mut expected = BTreeMap::from([("AuthorizerPermission".to_owned(), "authorizers/*".to_owned())]);
    for (method, path, operation) in operations(&document()) {
        if operation["x-amazon-apigateway-integration"]["type"] != "mock" {
            let (first, rest) = operation["operationId"].as_str().unwrap().split_at(1);
            let path: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "*" } else { part }).collect();
            let source = format!("${{Stage}}/{}{}", method.to_uppercase(), path.join("/"));
            expected.insert(format!("{}{rest}Permission", first.to_uppercase()), source);
        }
    }
    let resources = api["Resources"].as_object().unwrap();
    let permissions = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::Lambda::Permission");
    let found: BTreeMap<String, String> = permissions
        .map(|(id, resource)| {
            let source = resource["Properties"]["SourceArn"]["Fn::Sub"].as_str().unwrap();
            (id.clone(), source.split_once("${Api}/").unwrap().1.to_owned())
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn an_application_behind_the_gate_is_there_only_with_its_link_and_never_without_the_gate() {
    const PATH: &str = "/app/{proxy+}";
    assert!(opened().document()["paths"].get(PATH).is_none());
    let document = with_app();
    let item = document["paths"][PATH].as_object().unwrap();
    assert_eq!(item.keys().collect::<Vec<_>>(), ["x-amazon-apigateway-any-method"]);
    let operation = &item["x-amazon-apigateway-any-method"];
    assert_eq!(operation["security"], serde_json::json!([{"gate": []}]));
    assert_eq!(operation["x-portcullis-scopes"], serde_json::json!(["app"]));
    let integration = &operation["x-amazon-apigateway-integration"];
    assert_eq!((&integration["type"], &integration["connectionType"]), (&"http_proxy".into(), &"VPC_LINK".into()));
    assert_eq!(
        (&integration["uri"], &integration["connectionId"]),
        (&"https://app.example:443/{proxy}".into(), &"link1".into())
    );
    let parameters = integration["requestParameters"].as_object().unwrap();
    let header = |name: &str| parameters.get(&format!("integration.request.header.{name}")).and_then(Value::as_str);
    for (name, value) in [
        ("X-Portcullis-Subject", "context.authorizer.sub"),
        ("X-Portcullis-Tenant", "context.authorizer.tenant"),
        ("X-Portcullis-Client", "context.authorizer.client_id"),
        ("X-Portcullis-Scope", "context.authorizer.scope"),
        ("X-Portcullis-Device", "context.authorizer.device_id"),
        ("X-Portcullis-Request-Id", "context.requestId"),
        ("X-Forwarded-User", "''"),
        ("X-Remote-User", "''"),
    ] {
        assert_eq!(header(name), Some(value), "{name}");
    }
    // What the client says of itself reaches nobody; the token does, because the gate has verified it.
    assert!(parameters.values().all(|value| !value.as_str().unwrap().starts_with("method.request.header")));
    assert_eq!(header("Authorization"), None);
    assert!(integration["requestTemplates"]["*/*"].as_str().unwrap().contains("$context.requestOverride.path"));
}

#[test]
fn the_gateway_itself_answers_problems_without_any_text_of_its_own() {
    let document = document();
    let responses = document["x-amazon-apigateway-gateway-responses"].as_object().unwrap();
    assert_eq!(responses.len(), 21, "every type there is");
    for (name, response) in responses {
        let status = response["statusCode"].as_u64().unwrap();
        let headers = response["responseParameters"].as_object().unwrap();
        let header = |header: &str| headers.get(&format!("gatewayresponse.header.{header}")).and_then(Value::as_str);
        assert_eq!(header("Content-Type"), Some("'application/problem+json'"), "{name}");
        assert_eq!(header("Retry-After").is_some(), matches!(status, 429 | 503), "{name}");
        assert_eq!(header("WWW-Authenticate").is_some(), name == "UNAUTHORIZED", "{name}");
        let text = response["responseTemplates"]["application/json"].as_str().unwrap();
        assert!(!text.contains("$context.error") && !text.contains("$context.authorizer"), "{name}");
        let problem: Value = serde_json::from_str(text).unwrap();
        let mut members: Vec<&str> = problem.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["code", "request_id", "status", "title", "type"], "{name}");
        assert_eq!(problem["status"], status, "{name}");
        assert_eq!(problem["request_id"], "$context.requestId", "{name}");
    }
    for broken in ["AUTHORIZER_FAILURE", "AUTHORIZER_CONFIGURATION_ERROR"] {
        assert_eq!(responses[broken]["statusCode"], 503);
        assert!(responses[broken].to_string().contains("service_unavailable"));
    }
}

/// What the import of REST APIs drops or refuses (API Gateway, important notes for REST APIs).
#[test]
fn the_document_uses_nothing_that_the_import_ignores() {
    fn walk(value: &Value, at: &str, schema: bool, faults: &mut Vec<String>) {
        const IGNORED: [&str; 7] =
            ["allOf", "discriminator", "exclusiveMinimum", "readOnly", "additionalProperties", "pattern", "example"];
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if schema && (IGNORED.contains(&name.as_str()) || name == "format" && field != "date-time") {
                        faults.push(format!("{at}/{name}"));
                    }
                    // Below `properties` the names are the document's own.
                    walk(
                        field,
                        &format!("{at}/{name}"),
                        name != "properties" && (schema || name == "schema" || name == "schemas"),
                        faults,
                    );
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, at, schema, faults)),
            _ => {}
        }
    }
    let (document, mut faults) = (document(), Vec::new());
    walk(&document, "", false, &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(document["openapi"], "3.0.1");
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name}: model names are letters and digits");
    }
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert!(!paths.iter().any(|path| ["/ping", "/sping"].contains(&path.as_str())), "reserved");
}

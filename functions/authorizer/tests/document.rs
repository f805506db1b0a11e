//! Which OpenAPI documents become a route table.

#![allow(clippy::indexing_slicing, reason = "helpers outside of #[test] functions; a test may fail loudly")]

#[path = "../document.rs"]
mod document;

use cedar::Cedar;
use serde_json::{Value, json};
use shared::policy::{Bundle, Policies as _, caching};

fn guarded() -> Value {
    json!({"x-portcullis-action": "files:read", "x-portcullis-scopes": ["files:read"], "x-portcullis-function": "download"})
}

fn with(member: &str, value: Value) -> Value {
    let mut operation = guarded();
    operation[member] = value;
    operation
}

fn of(method: &str, operation: Value) -> Result<String, String> {
    document::table(&[json!({"paths": {"/files/{id}": {"parameters": [], method: operation}}})])
}

#[test]
fn an_open_operation_is_no_route_and_a_guarded_one_is() {
    assert_eq!(of("get", json!({"x-portcullis-open": "the key set is public"})).as_deref(), Ok("&[\n]"));
    let table = of("get", guarded()).unwrap();
    assert!(table.contains(r#"method: "GET", template: "/files/{id}""#) && table.contains("ByToken"), "{table}");
    assert!(of("get", with("x-portcullis-access", json!("required"))).unwrap().contains("Required"));
}

#[test]
fn a_document_that_leaves_a_route_unguarded_does_not_build() {
    for (what, method, operation) in [
        ("nothing said", "get", json!({})),
        ("no action", "get", json!({"x-portcullis-scopes": ["files:read"]})),
        ("no scopes", "get", json!({"x-portcullis-action": "files:read"})),
        ("an empty list of scopes", "get", with("x-portcullis-scopes", json!([]))),
        ("scopes that are no list", "get", with("x-portcullis-scopes", json!("files:read"))),
        ("a scope that is no text", "get", with("x-portcullis-scopes", json!(["files:read", 1]))),
        ("open and guarded at once", "get", with("x-portcullis-open", json!("why not"))),
        ("open without a reason", "get", json!({"x-portcullis-open": ""})),
        ("open by something that is no reason", "get", json!({"x-portcullis-open": true})),
        ("an unknown access", "get", with("x-portcullis-access", json!("optional"))),
        ("a misspelt extension", "get", with("x-portcullis-scope", json!(["files:read"]))),
        ("an action that is no text", "get", with("x-portcullis-action", json!(true))),
        ("any method", "x-amazon-apigateway-any-method", guarded()),
        ("a method in capitals", "GET", guarded()),
        ("no operation", "get", json!(null)),
    ] {
        assert!(of(method, operation).is_err(), "{what}");
    }
    for document in [json!({}), json!({"paths": []}), json!({"paths": {"/files": []}}), json!(null)] {
        assert!(document::table(std::slice::from_ref(&document)).is_err(), "{document}");
    }
}

#[test]
fn an_application_behind_the_gate_is_one_route_for_all_methods_and_paths() {
    let item = json!({"x-amazon-apigateway-any-method": guarded()});
    let conditional = json!({"Fn::If": ["HasApp", item, {"Ref": "AWS::NoValue"}]});
    for item in [&item, &conditional] {
        let table = document::table(&[json!({"paths": {"/app/{proxy+}": item}})]).unwrap();
        assert!(table.contains(r#"method: "ANY", template: "/app/{proxy+}""#), "{table}");
    }
    let twice = json!({"paths": {"/app/{proxy+}": item}});
    assert!(document::table(&[twice.clone(), twice]).is_err());
    let greedy_but_open = json!({"paths": {"/app/{proxy+}": {"x-amazon-apigateway-any-method": {}}}});
    assert!(document::table(&[greedy_but_open]).is_err());
}

#[test]
fn the_document_keeps_answers_no_longer_than_the_shipped_policies_allow() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/aws/openapi.yaml")).unwrap();
    let document: Value = serde_yaml_ng::from_str(&text).unwrap();
    let gate = &document["components"]["securitySchemes"]["gate"]["x-amazon-apigateway-authorizer"];
    let named: Vec<&str> = gate["identitySource"].as_str().unwrap().split(',').map(str::trim).collect();
    let shipped = Cedar::compile(&Bundle::shipped().unwrap()).unwrap();
    let allowed = caching::seconds(shipped.reads(), &named);
    assert_eq!(gate["authorizerResultTtlInSeconds"], allowed, "{:?}", caching::moving(shipped.reads(), &named));
}

//! From the OpenAPI document to the route table. A document that leaves a route unguarded does not build.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

const ANY: &str = "x-amazon-apigateway-any-method";
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "patch", "head", "options"];
const KNOWN: [&str; 5] =
    ["x-portcullis-open", "x-portcullis-action", "x-portcullis-scopes", "x-portcullis-access", "x-portcullis-function"];

/// The guarded operations of all documents as the text of a Rust slice.
pub(crate) fn table(documents: &[Value]) -> Result<String, String> {
    let mut routes = BTreeMap::new();
    for document in documents {
        let paths = document.get("paths").and_then(Value::as_object).ok_or("the document has no paths")?;
        for (path, item) in paths {
            let item = wanted(item).as_object().ok_or_else(|| format!("{path} is no object"))?;
            for (method, operation) in item.iter().filter(|(name, _)| name.as_str() != "parameters") {
                let method = match method.as_str() {
                    // Every method at once suits only what hands all of them on.
                    ANY if path.ends_with("+}") => "any",
                    known if METHODS.contains(&known) => known,
                    _ => return Err(format!("{path}: {method} is not a method that routes may use")),
                };
                if let Some(route) = route(path, method, operation).map_err(|e| format!("{method} {path}: {e}"))?
                    && routes.insert((path.clone(), method.to_owned()), route).is_some()
                {
                    return Err(format!("{method} {path} stands in two documents"));
                }
            }
        }
    }
    let mut table = String::from("&[\n");
    for route in routes.values() {
        writeln!(table, "    {route},").map_err(|e| e.to_string())?;
    }
    table.push(']');
    Ok(table)
}

/// The path item itself, where it is there only under a condition.
fn wanted(item: &Value) -> &Value {
    match item.get("Fn::If").and_then(Value::as_array).map(Vec::as_slice) {
        Some([_, wanted, _]) => wanted,
        _ => item,
    }
}

/// One guarded operation as a Rust expression; `None` for an open one.
fn route(path: &str, method: &str, operation: &Value) -> Result<Option<String>, String> {
    let operation = operation.as_object().ok_or("is no object")?;
    for name in operation.keys().filter(|name| name.starts_with("x-portcullis-")) {
        if !KNOWN.contains(&name.as_str()) {
            return Err(format!("{name} is unknown"));
        }
    }
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    if operation.contains_key("x-portcullis-open") {
        let reason = text("x-portcullis-open").filter(|reason| !reason.is_empty());
        return match (reason, operation.contains_key("x-portcullis-action")) {
            (Some(_), false) => Ok(None),
            (Some(_), true) => Err("is open and guarded at once".to_owned()),
            (None, _) => Err("is open without a reason".to_owned()),
        };
    }
    let action = text("x-portcullis-action").ok_or("has neither x-portcullis-open nor x-portcullis-action")?;
    let access = match text("x-portcullis-access") {
        None | Some("by-token") => "ByToken",
        Some("required") => "Required",
        Some(_) => return Err("x-portcullis-access is neither required nor by-token".to_owned()),
    };
    let scopes = operation.get("x-portcullis-scopes").and_then(Value::as_array).ok_or("has no x-portcullis-scopes")?;
    let scopes: Option<Vec<&str>> = scopes.iter().map(Value::as_str).collect();
    let scopes = scopes.filter(|scopes| !scopes.is_empty()).ok_or("x-portcullis-scopes lists no scope")?;
    Ok(Some(format!(
        "Route {{ method: {:?}, template: {path:?}, action: {action:?}, scopes: &{scopes:?}, access: Access::{access} }}",
        method.to_uppercase()
    )))
}

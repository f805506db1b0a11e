//! A function's answer on its way to the client: checked strictly, headers remapped as API Gateway does.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};

use crate::http::Response;

/// Headers that arrive as `x-amzn-Remapped-…`.
const REMAPPED: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-md5",
    "date",
    "expect",
    "host",
    "max-forwards",
    "proxy-authenticate",
    "server",
    "trailer",
    "upgrade",
    "user-agent",
    "www-authenticate",
];
/// Headers that do not arrive.
const DROPPED: &[&str] = &["te", "transfer-encoding"];

/// `None`: malformed, which the client sees as 502.
pub(super) fn proxy(payload: &[u8], binary: bool) -> Option<Response> {
    let answer: Value = serde_json::from_slice(payload).ok()?;
    let fields = answer.as_object()?;
    let known = ["statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"];
    if fields.keys().any(|name| !known.contains(&name.as_str())) {
        return None;
    }
    let status = match fields.get("statusCode") {
        None => 200,
        Some(Value::Number(number)) => u16::try_from(number.as_u64()?).ok()?,
        Some(Value::String(text)) => text.parse().ok()?,
        Some(_) => return None,
    };
    let status = StatusCode::from_u16(status).ok().filter(|status| (100..600).contains(&status.as_u16()))?;
    let text = match fields.get("body") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text.as_str(),
        Some(_) => return None,
    };
    let encoded = match fields.get("isBase64Encoded") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(encoded)) => *encoded,
        Some(_) => return None,
    };
    let body = if encoded && binary { STANDARD.decode(text).ok()? } else { text.as_bytes().to_vec() };
    let mut response = http::Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    for (name, value) in headers(fields)? {
        if let Some(name) = renamed(&name) {
            response.headers_mut().append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?);
        }
    }
    if !response.headers().contains_key("content-type") {
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    }
    Some(response)
}

/// The name under which a header arrives, if it does.
fn renamed(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if DROPPED.contains(&lower.as_str()) {
        return None;
    }
    Some(if REMAPPED.contains(&lower.as_str()) { format!("x-amzn-remapped-{lower}") } else { lower })
}

/// An application's answer on its way to the client.
pub(super) fn passed_on(answer: http::Response<Bytes>) -> Option<Response> {
    let (parts, body) = answer.into_parts();
    let mut response = http::Response::new(Full::new(body));
    *response.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if let Some(name) = renamed(name.as_str()) {
            response.headers_mut().append(name.parse::<HeaderName>().ok()?, value.clone());
        }
    }
    Some(response)
}

/// Multi-value headers first, then the single ones; a value that both name is sent once.
fn headers(fields: &Map<String, Value>) -> Option<Vec<(String, String)>> {
    let mut headers = Vec::new();
    match fields.get("multiValueHeaders") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (name, values) in map {
                for value in values.as_array()? {
                    headers.push((name.clone(), text(value)?));
                }
            }
        }
        Some(_) => return None,
    }
    match fields.get("headers") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (name, value) in map {
                let value = text(value)?;
                if !headers.iter().any(|(other, known)| other.eq_ignore_ascii_case(name) && *known == value) {
                    headers.push((name.clone(), value));
                }
            }
        }
        Some(_) => return None,
    }
    Some(headers)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

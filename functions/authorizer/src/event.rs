//! The REST `REQUEST` authorizer event and the answers to it, as types of our own.
//!
//! The published event crate's policy effect defaults to `Allow`, in Rust and where the member is missing.

use serde_json::{Value, json};
use shared::http::Headers;
use shared::name::Malformed;

/// What is asked: may this request pass?
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method's ARN, taken apart.
    pub arn: MethodArn,
    /// The route's template.
    pub resource: String,
    /// The path as sent.
    pub path: String,
    /// The method.
    pub method: String,
    /// Header fields.
    pub headers: Headers,
    /// Whether a token was put into the query, where none may be.
    pub token_in_query: bool,
    /// API Gateway's request id.
    pub request_id: String,
}

/// `arn:aws:execute-api:{region}:{account}:{api}/{stage}/{method}/{path}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodArn {
    /// Everything up to and including the stage.
    stage: String,
}

impl MethodArn {
    fn parse(arn: &str) -> Result<Self, Malformed> {
        let plain = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let bad = Malformed("method ARN");
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next().ok_or(bad);
        let (scheme, partition, service, region, account) = (next()?, next()?, next()?, next()?, next()?);
        let mut path = next()?.splitn(3, '/');
        let (api, stage) = (path.next().ok_or(bad)?, path.next().ok_or(bad)?);
        let parts = [partition, region, account, api, stage];
        if scheme != "arn" || service != "execute-api" || !parts.iter().all(plain) || path.next().is_none() {
            return Err(bad);
        }
        Ok(Self { stage: format!("arn:{partition}:execute-api:{region}:{account}:{api}/{stage}") })
    }

    /// The ARN of one method on one path of this stage. Neither may come from the caller unchecked.
    pub fn method(&self, method: &str, path: &str) -> String {
        format!("{}/{method}{path}", self.stage)
    }

    /// Every method of this stage.
    pub fn everything(&self) -> String {
        format!("{}/*", self.stage)
    }
}

impl Request {
    /// Reads the event; everything that is not a complete REST `REQUEST` event is malformed.
    pub fn parse(event: &Value) -> Result<Self, Malformed> {
        let bad = Malformed("event");
        let text = |name: &str| event.get(name).and_then(Value::as_str).ok_or(bad);
        if text("type")? != "REQUEST" {
            return Err(bad);
        }
        let query = ["queryStringParameters", "multiValueQueryStringParameters"];
        let request_id = event.pointer("/requestContext/requestId").and_then(Value::as_str);
        Ok(Self {
            arn: MethodArn::parse(text("methodArn")?)?,
            resource: text("resource")?.to_owned(),
            path: text("path")?.to_owned(),
            method: text("httpMethod")?.to_owned(),
            headers: Headers::from_event(event)?,
            token_in_query: query.iter().any(|q| event.get(q).is_some_and(|q| q.get("access_token").is_some())),
            request_id: request_id.unwrap_or_default().to_owned(),
        })
    }
}

/// Whether the one statement of a policy allows or denies. There is no default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The request may pass.
    Allow,
    /// The request may not pass.
    Deny,
}

/// The answer: one statement about one resource. Context values are text, because API Gateway makes text of them anyway.
pub fn policy(principal: &str, effect: Effect, resource: &str, context: &[(&str, &str)]) -> Value {
    let effect = match effect {
        Effect::Allow => "Allow",
        Effect::Deny => "Deny",
    };
    let context: serde_json::Map<String, Value> =
        context.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    json!({
        "principalId": principal,
        "policyDocument": {"Version": "2012-10-17", "Statement": [
            {"Action": "execute-api:Invoke", "Effect": effect, "Resource": [resource]}
        ]},
        "context": context,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_arn_is_taken_apart_or_refused() {
        let arn = MethodArn::parse("arn:aws:execute-api:us-east-1:123456789012:abc123/v1/GET/files/*").unwrap();
        assert_eq!(arn.method("GET", "/files/1"), "arn:aws:execute-api:us-east-1:123456789012:abc123/v1/GET/files/1");
        assert_eq!(arn.everything(), "arn:aws:execute-api:us-east-1:123456789012:abc123/v1/*");
        for bad in [
            "",
            "arn:aws:execute-api:us-east-1:123456789012:abc123",
            "arn:aws:execute-api:us-east-1:123456789012:abc123/v1",
            "arn:aws:execute-api:*:123456789012:abc123/v1/GET/",
            "arn:aws:execute-api:us-east-1:123456789012:*/v1/GET/",
            "arn:aws:execute-api:us-east-1:123456789012:abc123/${x}/GET/",
            "arn:aws:lambda:us-east-1:123456789012:abc123/v1/GET/",
        ] {
            assert!(MethodArn::parse(bad).is_err(), "{bad}");
        }
    }
}

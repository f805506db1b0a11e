//! What API Gateway is answered: a policy, or for HTTP APIs one word.

use serde_json::{Map, Value, json};

/// Whether the one statement of a policy allows or denies. There is no default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The request may pass.
    Allow,
    /// The request may not pass.
    Deny,
}

/// What an HTTP API with payload format 2.0 is answered. The event does not say which of them the API expects.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum HttpAnswer {
    /// One word: simple responses are on (`EnableSimpleResponses`).
    #[default]
    Simple,
    /// A policy, as every other kind of API: simple responses are off.
    Policy,
}

/// One statement about one resource. Context values are text, because API Gateway makes text of them anyway.
pub fn policy(principal: &str, effect: Effect, resource: &str, context: &[(&str, &str)]) -> Value {
    let effect = match effect {
        Effect::Allow => "Allow",
        Effect::Deny => "Deny",
    };
    json!({
        "principalId": principal,
        "policyDocument": {"Version": "2012-10-17", "Statement": [
            {"Action": "execute-api:Invoke", "Effect": effect, "Resource": [resource]}
        ]},
        "context": members(context),
    })
}

/// The simple response of HTTP APIs. It holds for the one request that was asked about, since nothing is cached.
pub fn simple(effect: Effect, context: &[(&str, &str)]) -> Value {
    json!({ "isAuthorized": effect == Effect::Allow, "context": members(context) })
}

fn members(context: &[(&str, &str)]) -> Map<String, Value> {
    context.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
}

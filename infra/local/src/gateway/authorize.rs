//! The authorizer's verdict: identity sources, the function's answer, its policy.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    document::{Authorizer, Source},
    event::{Authorized, Incoming},
    response::Kind,
};
use crate::{
    lambda::{Invoke, Kind as Invocation},
    policy::{Context, Policy, Verdict},
};

/// A refusal: the gateway response and, where the kind has no fixed one, its message.
pub(super) type Refusal = (Kind, Option<&'static str>);

/// Asks the authorizer. Nothing is cached: every request is asked for.
pub(super) async fn authorize(
    authorizer: &Authorizer,
    incoming: &Incoming<'_>,
    lambda: &dyn Invoke,
) -> Result<Authorized, Refusal> {
    let present = |source: &Source| match source {
        Source::Header(name) => incoming.header(name).is_some_and(|value| !value.trim().is_empty()),
        Source::Query(name) => incoming.query(name).is_some_and(|value| !value.is_empty()),
        Source::Stage(_) => false,
    };
    if !authorizer.sources.iter().all(present) {
        return Err((Kind::UNAUTHORIZED, None));
    }
    let started = Instant::now();
    let event = Bytes::from(incoming.authorizer_event().to_string());
    let invocation = lambda.invoke(&authorizer.function, event, Invocation::RequestResponse);
    let invoked = timeout(incoming.settings.authorizer_limit, invocation).await;
    let broken = (Kind::AUTHORIZER_CONFIGURATION_ERROR, None);
    let Ok(Ok(outcome)) = invoked else { return Err(broken) };
    let answer: Value = serde_json::from_slice(&outcome.payload).map_err(|_| broken)?;
    if outcome.function_error.is_some() {
        let message = answer.get("errorMessage").and_then(Value::as_str);
        return Err(if message == Some("Unauthorized") { (Kind::UNAUTHORIZED, None) } else { broken });
    }
    let (principal_id, policy, context) = read(&answer).ok_or(broken)?;
    match policy.evaluate("execute-api:Invoke", &incoming.method_arn(), &conditions(incoming)) {
        Verdict::Allow(_) => Ok(Authorized { principal_id, context, latency_ms: started.elapsed().as_millis() }),
        Verdict::Deny(_) => {
            Err((Kind::ACCESS_DENIED, Some("User is not authorized to access this resource with an explicit deny")))
        }
        Verdict::Silent => Err((Kind::ACCESS_DENIED, None)),
    }
}

/// Principal, policy and context; `None` when the answer is anything but complete and flat.
fn read(answer: &Value) -> Option<(String, Policy, BTreeMap<String, String>)> {
    let fields = answer.as_object()?;
    let known = ["principalId", "policyDocument", "context", "usageIdentifierKey"];
    if fields.keys().any(|name| !known.contains(&name.as_str())) {
        return None;
    }
    let principal_id = fields.get("principalId")?.as_str()?.to_owned();
    let policy = Policy::identity(fields.get("policyDocument")?).ok()?;
    let mut context = BTreeMap::new();
    match fields.get("context") {
        None | Some(Value::Null) => {}
        Some(Value::Object(values)) => {
            for (name, value) in values {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    Value::Bool(value) => value.to_string(),
                    Value::Null | Value::Array(_) | Value::Object(_) => return None,
                };
                if name == "claims" {
                    return None;
                }
                context.insert(name.clone(), text);
            }
        }
        Some(_) => return None,
    }
    Some((principal_id, policy, context))
}

fn conditions(incoming: &Incoming<'_>) -> Context {
    let context =
        Context::new().with("aws:SourceIp", incoming.request.peer.ip().to_string()).with("aws:SecureTransport", "true");
    match incoming.header("user-agent") {
        Some(agent) => context.with("aws:UserAgent", agent),
        None => context,
    }
}

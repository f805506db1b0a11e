//! The authorizer's verdict: identity sources, the function's answer, its policy, and answers kept for a while.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    document::{Authorizer, Source},
    event::{Authorized, Incoming},
    response::Kind,
    seen,
};
use crate::{
    lambda::{Invoke, Kind as Invocation},
    policy::{Context, Policy, Verdict},
    view::Span,
};

/// A refusal: the gateway response and, where the kind has no fixed one, its message.
pub(super) type Refusal = (Kind, Option<&'static str>);

/// What an authorizer answered, by the values of its identity sources and by nothing else: another method, another path or another
/// address with the same values gets the same answer, whose policy is then asked about the call at hand.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<HashMap<Vec<String>, Kept>>);

/// An answer and until when it is kept.
type Kept = (SystemTime, Arc<Answer>);

/// A policy and what goes with it. A refusal by error is none, and is never kept.
#[derive(Debug)]
struct Answer {
    principal_id: String,
    policy: Policy,
    context: BTreeMap<String, String>,
}

impl Answers {
    fn find(&self, key: &[String], now: SystemTime) -> Option<Arc<Answer>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).filter(|(until, _)| now < *until).map(|(_, answer)| Arc::clone(answer))
    }

    fn keep(&self, key: Vec<String>, until: SystemTime, now: SystemTime, answer: &Arc<Answer>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (until, _)| now < *until);
        held.insert(key, (until, Arc::clone(answer)));
    }

    /// Forgets everything, as `FlushStageAuthorizersCache` does.
    pub(super) fn flush(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Asks the authorizer, or takes what it answered to the same identity sources a while ago.
pub(super) async fn authorize(
    authorizer: &Authorizer,
    incoming: &Incoming<'_>,
    lambda: &dyn Invoke,
) -> Result<Authorized, Refusal> {
    let values: Option<Vec<String>> = authorizer.sources.iter().map(|source| value(source, incoming)).collect();
    let Some(key) = values else { return Err((Kind::UNAUTHORIZED, None)) };
    let (started, now) = (Instant::now(), incoming.received);
    let kept = if authorizer.kept_for.is_zero() { None } else { authorizer.answers.find(&key, now) };
    let answer = match kept {
        Some(answer) => {
            seen::kept(incoming.settings, &authorizer.function);
            answer
        }
        None => {
            let answer = Arc::new(ask(authorizer, incoming, lambda).await?);
            if !authorizer.kept_for.is_zero() {
                authorizer.answers.keep(key, now + authorizer.kept_for, now, &answer);
            }
            answer
        }
    };
    match answer.policy.evaluate("execute-api:Invoke", &incoming.method_arn(), &conditions(incoming)) {
        Verdict::Allow(_) => Ok(Authorized {
            principal_id: answer.principal_id.clone(),
            context: answer.context.clone(),
            latency_ms: started.elapsed().as_millis(),
        }),
        Verdict::Deny(_) => {
            Err((Kind::ACCESS_DENIED, Some("User is not authorized to access this resource with an explicit deny")))
        }
        Verdict::Silent => Err((Kind::ACCESS_DENIED, None)),
    }
}

/// The value of an identity source; `None` where it is absent or empty, which nobody is asked about.
fn value(source: &Source, incoming: &Incoming<'_>) -> Option<String> {
    match source {
        Source::Header(name) => incoming.header(name).filter(|value| !value.trim().is_empty()).map(str::to_owned),
        Source::Query(name) => incoming.query(name).filter(|value| !value.is_empty()).map(str::to_owned),
        Source::Context(name) => incoming.variables().get(name).filter(|value| !value.is_empty()).cloned(),
        Source::Stage(name) => incoming.settings.variables.get(name).filter(|value| !value.is_empty()).cloned(),
    }
}

async fn ask(authorizer: &Authorizer, incoming: &Incoming<'_>, lambda: &dyn Invoke) -> Result<Answer, Refusal> {
    let event = Bytes::from(incoming.authorizer_event().to_string());
    let seen = seen::authorizer(incoming.settings, &authorizer.function);
    let invocation = lambda.invoke(&authorizer.function, event, Invocation::RequestResponse);
    let invocation = Span::scope(seen.clone(), invocation);
    let invoked = timeout(incoming.settings.authorizer_limit, invocation).await;
    seen::close(seen, &invoked);
    let broken = (Kind::AUTHORIZER_CONFIGURATION_ERROR, None);
    let Ok(Ok(outcome)) = invoked else { return Err(broken) };
    let answer: Value = serde_json::from_slice(&outcome.payload).map_err(|_| broken)?;
    if outcome.function_error.is_some() {
        let message = answer.get("errorMessage").and_then(Value::as_str);
        return Err(if message == Some("Unauthorized") { (Kind::UNAUTHORIZED, None) } else { broken });
    }
    let (principal_id, policy, context) = read(&answer).ok_or(broken)?;
    Ok(Answer { principal_id, policy, context })
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

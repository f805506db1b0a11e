//! What whoever watches is told about a request at the gateway.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use tokio::time::error::Elapsed;

use super::Settings;
use super::event::Incoming;
use super::response::Kind as Refused;
use crate::faults::plan::Fate;
use crate::http::Response;
use crate::lambda::{InvokeError, InvokeOutcome};
use crate::view::Span;
use crate::view::record::{Door, Kind, Seen, Verdict, member};
use crate::view::shown;

/// A request on its way. One that nobody waits for any more ends as such.
pub(super) struct Way {
    span: Option<Span>,
    ended: AtomicBool,
}

impl Way {
    pub(super) fn begin(incoming: &Incoming<'_>, fate: &Fate) -> Self {
        let span = incoming.account.view.begin(Door::Gateway, incoming.received, |seen| {
            seen.id.clone_from(&incoming.request_id);
            seen.method = shown::text(incoming.request.method.as_str());
            seen.path = shown::path(&incoming.request.uri, std::iter::empty());
            seen.headers = shown::headers(&incoming.request.headers);
        });
        if let (Some(span), Some(rules)) = (&span, fate.told()) {
            let part = span.open(Kind::Aws, "gateway");
            part.struck(&rules);
            part.close("struck");
        }
        Self { span, ended: AtomicBool::new(false) }
    }

    pub(super) fn span(&self) -> Option<Span> {
        self.span.clone()
    }

    /// What was decided, in one line.
    pub(super) fn decision(&self) -> Option<String> {
        Some(self.span.as_ref()?.verdict()?.to_string())
    }

    /// Ends it with a status, or with a connection that was cut.
    pub(super) fn end(&self, incoming: &Incoming<'_>, status: Option<StatusCode>, refused: &str) {
        let Some(span) = &self.span else { return };
        self.ended.store(true, Ordering::Relaxed);
        span.change(|seen| {
            let parameters = incoming.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            seen.path = shown::path(&incoming.request.uri, parameters);
            seen.route = Some(incoming.resource.clone()).filter(|resource| !resource.is_empty());
            seen.client = client(seen);
        });
        span.finish(status.map_or(0, |status| status.as_u16()), |seen| Some(verdict(seen, refused)));
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let (Some(span), false) = (&self.span, self.ended.load(Ordering::Relaxed)) {
            span.finish(499, |seen| Some(verdict(seen, "client_went_away")));
        }
    }
}

/// The verified client, as the authorizer, or else the function, names it.
fn client(seen: &Seen) -> Option<String> {
    let line = seen.line_of(Kind::Authorizer).or_else(|| seen.line_of(Kind::Function))?;
    Some(format!("{}/{}", member(line, "tenant")?, member(line, "subject")?))
}

/// What was decided: by the authorizer where it was asked; else by the gateway, where it refused; else by the function of an open route.
fn verdict(seen: &Seen, refused: &str) -> Verdict {
    let told = |by: &str, line: &[(String, String)]| {
        let said = |name: &str| member(line, name).unwrap_or_default().to_owned();
        let policies = said("policies").split_whitespace().map(str::to_owned).collect();
        Verdict { outcome: said("decision"), reason: said("reason"), policies, by: by.to_owned() }
    };
    if let Some(line) = seen.line_of(Kind::Authorizer) {
        return told("authorizer", line);
    }
    let plain = |outcome: &str, reason: &str| {
        let (outcome, reason, by) = (outcome.to_owned(), reason.to_owned(), "gateway".to_owned());
        Verdict { outcome, reason, policies: Vec::new(), by }
    };
    let asked = seen.parts.iter().any(|part| part.kind == Kind::Authorizer);
    match (refused, seen.line_of(Kind::Function)) {
        ("", _) if asked => Verdict { by: "authorizer".to_owned(), ..plain("allow", "kept") },
        ("access_denied", _) if asked => Verdict { by: "authorizer".to_owned(), ..plain("deny", "kept") },
        ("", Some(line)) => told(seen.function.as_deref().unwrap_or("function"), line),
        ("", None) if seen.route.is_some() => plain("open", "open_route"),
        ("", None) => plain("deny", "no_route"),
        (refused, _) if asked || refused.starts_with("default_5xx") || refused.starts_with("integration") => {
            plain("fault", refused)
        }
        (refused, _) => plain("deny", refused),
    }
}

/// The authorizer is asked.
pub(super) fn authorizer(settings: &Settings, name: &str) -> Option<Span> {
    Span::current().map(|span| span.open(Kind::Authorizer, deployment(settings, name)))
}

/// The authorizer has answered the same credentials a while ago.
pub(super) fn kept(settings: &Settings, name: &str) {
    if let Some(part) = authorizer(settings, name) {
        part.close("kept");
    }
}

/// The function is asked.
pub(super) fn function(settings: &Settings, name: &str) -> Option<Span> {
    let span = Span::current()?;
    let name = deployment(settings, name);
    span.change(|seen| seen.function = Some(name.to_owned()));
    Some(span.open(Kind::Function, name))
}

/// The application behind the gate is asked.
pub(super) async fn application(answer: impl Future<Output = Result<Response, Refused>>) -> Result<Response, Refused> {
    let part = Span::current().map(|span| {
        span.change(|seen| seen.function = Some("application".to_owned()));
        span.open(Kind::Function, "application")
    });
    let answer = answer.await;
    if let Some(part) = part {
        match &answer {
            Ok(response) => part.close(response.status().as_str()),
            Err(refused) => part.close(&refused.name().to_ascii_lowercase()),
        }
    }
    answer
}

/// An invocation has ended.
pub(super) fn close(seen: Option<Span>, invoked: &Result<Result<InvokeOutcome, InvokeError>, Elapsed>) {
    let Some(seen) = seen else { return };
    seen.close(match invoked {
        Err(_) => "too late",
        Ok(Err(InvokeError::Throttled(_))) => "throttled",
        Ok(Err(InvokeError::TooLarge(_))) => "too large",
        Ok(Err(_)) => "not started",
        Ok(Ok(outcome)) if outcome.function_error.is_some() => "failed",
        Ok(Ok(_)) => "answered",
    });
}

fn deployment<'a>(settings: &'a Settings, name: &'a str) -> &'a str {
    settings.deployments.get(name).map_or(name, String::as_str)
}

//! Decides every request: a valid, unrevoked token of ours, a known route, a scope for it, and a policy that permits it. Deny by
//! default.
//!
//! A credential fault is 401, a missing right 403, and trust data that is too old to decide is a fault that the gateway
//! answers with 503. What exactly was wrong goes to the log and never to the caller.
//!
//! REST APIs (`REQUEST`, `TOKEN`) and the handshake of WebSocket APIs (`$connect`) are answered a policy; there 401 is the error `Unauthorized`. HTTP APIs (payload format 2.0) are
//! answered `isAuthorized`, or a policy where simple responses are off, a credential fault as well: what they make of the error is not
//! settled by their documentation (401 by reports, 500 in an emulator), and `false` or a denial is a refusal in any case, with 403.
//!
//! A token that is bound to a key passes only with a proof of that key over this very request (RFC 9449).
//!
//! A person's token passes only beside a valid Access assertion of the same person, and a machine's on a route that demands one beside a
//! service's: the one that its client is registered with, which its token names. A machine's token that names one needs it on every route.
//! A `TOKEN` event has no place for an assertion, so neither passes in it. A handshake has no URL that a proof could name, so no bound token
//! passes in one.
//!
//! Policy is asked last, about the token's subject, the route's action and template, the network as the edge names it and the device. A
//! candidate bundle is asked too; where it differs, a line says so and nothing else happens.
//!
//! The device is the one on which the token's key was made, as the posture list knows it now, or what the Access application vouches for
//! through which the person came. The list is read only while a policy could look at a device.

pub mod config;
pub mod event;
pub mod routes;

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use shared::access::{self, Assertion, Flaw};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::Clock;
use shared::credential::presented;
use shared::device::Device;
use shared::dpop::Possession;
use shared::jwt::{AccessToken, Kind, Reason};
use shared::policy::{Ask, Invoke, Judged, Net, Policies, Principal, Published, Reason as PolicyReason, What};
use shared::port::ObjectReader;
use shared::trust::{Accepts, Admitted, Cached, Foreign, Posture, Refusal, Trust};

use event::{Effect, HttpAnswer, Request, Shape, policy, simple};
use routes::{Access, Route};

/// The action of the application behind the gate, which knows nothing of `authorization_details`.
const APPLICATION: &str = "app";

/// The longest resource of a policy that API Gateway takes, in characters. It would call a longer one a fault of ours and answer 500.
const LONGEST_RESOURCE: usize = 512;

/// The principal of a denial about a credential that names nobody; API Gateway takes no policy without one.
const NOBODY: &str = "-";

/// The authorizer over its ports. `P` is the policy engine.
pub struct Authorizer<P, R, C> {
    accepts: Accepts,
    http: HttpAnswer,
    trust: Trust<R, C>,
    policies: Cached<Published<P>>,
    posture: Cached<Posture>,
    /// Whether a policy could look at a device, when one was last asked.
    devices: AtomicBool,
    foreign: Foreign<R, C>,
    possession: Possession,
}

/// What policy was asked, and what it said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// The question.
    pub ask: Ask,
    /// The answer.
    pub judged: Judged,
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The request may pass, on exactly this path.
    Allow {
        /// Who asks.
        token: Admitted,
        /// The route's action.
        action: &'static str,
        /// The path with its parameters, checked.
        path: String,
        /// What policy said.
        explained: Box<Explained>,
    },
    /// The caller is known and may not.
    Deny {
        /// Who asks.
        token: Admitted,
        /// The stable code for the log.
        reason: &'static str,
        /// What policy said, where it was asked.
        explained: Option<Box<Explained>>,
    },
}

impl<P: Policies, R: ObjectReader + Clone, C: Clock + Clone> Authorizer<P, R, C> {
    /// An authorizer that reads the trust objects through `reader`; nothing is read yet.
    pub fn new(accepts: Accepts, reader: R, clock: C) -> Self {
        let possession = Possession::new(&accepts.issuer);
        let foreign = Foreign::new(reader.clone(), clock.clone());
        let (policies, posture, devices) = (Cached::default(), Cached::default(), AtomicBool::new(false));
        let (trust, http) = (Trust::new(reader, clock), HttpAnswer::default());
        Self { accepts, http, trust, policies, posture, devices, foreign, possession }
    }

    /// The same, answering HTTP APIs so.
    #[must_use]
    pub fn answering(self, http: HttpAnswer) -> Self {
        Self { http, ..self }
    }

    /// Whether the answer to this request is one word and no policy.
    fn answers_simply(&self, request: &Request) -> bool {
        request.shape == Shape::Http && self.http == HttpAnswer::Simple
    }

    /// Decides one request.
    pub async fn decide(&self, request: &Request) -> Result<Decision, Refusal> {
        if request.token_in_query {
            return Err(Refusal::Credential(Reason::Ambiguous));
        }
        let presented = presented(&request.headers).map_err(Refusal::Credential)?;
        // What is due of all of them is read at the same time.
        let (token, policies, ()) = tokio::join!(
            self.trust.admit(presented.token, &self.accepts),
            self.trust.object(&self.policies),
            self.posture_ahead()
        );
        let token = token?;
        // Nobody says for which URL the proof of a handshake would have to be.
        if request.shape == Shape::Socket && token.thumbprint.is_some() {
            return Err(Refusal::Credential(Reason::UnsupportedBinding));
        }
        // A `TOKEN` event has no other header, so no bound token can pass in one.
        let place = (request.method.as_str(), request.path.as_str());
        self.possession
            .check(&token, &presented, &request.headers, place, self.trust.now())
            .map_err(|flaw| Refusal::Credential(Reason::Proof(flaw)))?;
        let route = request.route();
        let assertion = self.vouched(request, &token, route.map_or(Access::ByToken, |route| route.access)).await?;
        let Some(route) = route else {
            return Ok(denied(token, "unknown_route"));
        };
        let Some(path) = route.fill(&request.path) else {
            return Ok(denied(token, "unsafe_path"));
        };
        if !self.answers_simply(request) && request.place(&path).len() > LONGEST_RESOURCE {
            return Ok(denied(token, "unsafe_path"));
        }
        if !route.admits(&token.scopes) {
            return Ok(denied(token, "insufficient_scope"));
        }
        if route.action == APPLICATION && !token.details.is_empty() {
            return Ok(denied(token, "token_narrowed"));
        }
        if route.action == APPLICATION && request.headers.names().any(is_reserved) {
            return Ok(denied(token, "reserved_header"));
        }
        let policies = policies.map_err(Refusal::Stale)?;
        let device = self.device(&token, assertion, &policies).await?;
        let ask = self.question(&token, device, route, request);
        let judged = policies.judge(&ask);
        let (allows, reason) = (judged.decision.allows(), judged.decision.reason.as_str());
        let explained = Box::new(Explained { ask, judged });
        Ok(if allows {
            Decision::Allow { token, action: route.action, path, explained }
        } else {
            Decision::Deny { token, reason, explained: Some(explained) }
        })
    }

    /// What policy is asked. The route is named as the document has it; what the client sent of method and path is no part of it.
    fn question(&self, token: &AccessToken, device: Option<Device>, route: &Route, request: &Request) -> Ask {
        let now = self.trust.now().seconds();
        let place = (route.action, route.method, route.template);
        Ask {
            principal: Principal::of(token),
            now,
            net: Net::of(&request.headers),
            device,
            what: What::Invoke(Invoke::of(token, &self.accepts.issuer, place, now)),
        }
    }

    /// Reads the list of devices beside the rest, where one was needed last time. What comes of it is judged when it is needed.
    async fn posture_ahead(&self) {
        if self.devices.load(Ordering::Relaxed) {
            let _ = self.trust.object(&self.posture).await;
        }
    }

    /// The device that the request comes from. Where no policy could look at one, what the token says is enough for who stands behind.
    async fn device(
        &self,
        token: &AccessToken,
        assertion: Option<Assertion>,
        policies: &Published<P>,
    ) -> Result<Option<Device>, Refusal> {
        let vouched = match assertion {
            Some(Assertion::Person(person)) => person.device(),
            _ => None,
        };
        let needed = policies.reads().device;
        self.devices.store(needed, Ordering::Relaxed);
        if !needed {
            return Ok(token.device.clone().or(vouched));
        }
        // A token of no key is on no device of the list, whatever the list says.
        if token.thumbprint.is_none() {
            return Ok(Posture::default().device(token).or(vouched));
        }
        match self.trust.object(&self.posture).await {
            Ok(posture) => Ok(posture.device(token).or(vouched)),
            // A candidate decides nothing, so what it alone would need keeps nobody out.
            Err(_) if !policies.active.reads().device => Ok(Posture::default().device(token).or(vouched)),
            Err(stale) => Err(Refusal::Stale(stale)),
        }
    }

    /// What Access says of who holds the token, where that is demanded: the same person, or the service token of the machine.
    async fn vouched(
        &self,
        request: &Request,
        token: &AccessToken,
        access: Access,
    ) -> Result<Option<Assertion>, Refusal> {
        let flawed = |flaw| Refusal::Credential(Reason::Assertion(flaw));
        let presented = access::header(&request.headers).map_err(flawed)?;
        if token.kind == Kind::Machine && token.service.is_none() && access == Access::ByToken {
            return Ok(None);
        }
        let presented = presented.ok_or_else(|| flawed(Flaw::Missing))?;
        let assertion = self.foreign.access(presented).await?;
        if agrees(token, &assertion) { Ok(Some(assertion)) } else { Err(flawed(Flaw::OfAnother)) }
    }
}

/// Whether an assertion is of whom the token is: of the same person, or the service token that the machine is registered with. A machine
/// that is registered with none agrees with none.
fn agrees(token: &AccessToken, assertion: &Assertion) -> bool {
    match (token.kind, assertion) {
        (Kind::Human, Assertion::Person(person)) => person.token_subject() == token.subject,
        (Kind::Machine, Assertion::Service(service)) => token.service.as_ref() == Some(&service.common_name),
        _ => false,
    }
}

/// Whether a header of the client's own could be read by an application as what the gate says. The gateway writes over the names it
/// knows; here go those of the same kind that it does not know, and the same names in a spelling that some servers do not tell apart.
fn is_reserved(name: &str) -> bool {
    let plain = name.to_ascii_lowercase().replace('_', "-");
    plain.starts_with("x-portcullis-") || name.contains('_') && IDENTITY.contains(&plain.as_str())
}

/// What `infra/aws/app.yaml` writes over besides, in lower case: headers by which proxies say who somebody is, or what was asked for.
const IDENTITY: [&str; 12] = [
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-remote-user",
    "remote-user",
    "x-user",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-authenticated-user",
    "x-original-url",
    "x-rewrite-url",
];

fn denied(token: Admitted, reason: &'static str) -> Decision {
    Decision::Deny { token, reason, explained: None }
}

impl<P: Policies, R: ObjectReader + Clone, C: Clock + Clone> Handler for Authorizer<P, R, C> {
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        let line = || Line::new("authorizer", "request").request(&invocation.request_id);
        let Ok(request) = Request::parse(&event) else {
            line().decision("deny", "malformed_event").emit();
            return Err(Failure::UNAUTHORIZED);
        };
        let line = || {
            line()
                .text("gateway_request_id", &request.request_id)
                .text("method", &request.method)
                .text("route", request.route_name())
        };
        match self.decide(&request).await {
            Ok(Decision::Allow { token, action, path, explained }) => {
                let line = line().who(token.tenant.as_str(), &token.subject, &token.jti).text("action", action);
                let policy = tell(line.decision("allow", "policy"), &explained, &invocation.request_id);
                let resource = (!self.answers_simply(&request)).then(|| request.place(&path));
                let device = explained.ask.device.as_ref();
                Ok(answer(&token, Effect::Allow, resource, Said { reason: "policy", policy, device }))
            }
            Ok(Decision::Deny { token, reason, explained }) => {
                let line = line().who(token.tenant.as_str(), &token.subject, &token.jti).decision("deny", reason);
                let policy = match &explained {
                    Some(explained) => tell(line, explained, &invocation.request_id),
                    None => {
                        line.emit();
                        ""
                    }
                };
                let device = explained.as_ref().and_then(|explained| explained.ask.device.as_ref());
                let resource = (!self.answers_simply(&request)).then(|| request.arn.everything());
                Ok(answer(&token, Effect::Deny, resource, Said { reason, policy, device }))
            }
            Err(Refusal::Credential(reason)) => {
                line().decision("deny", reason.as_str()).emit();
                let context = [("reason", reason.as_str())];
                match (request.shape, self.http) {
                    (Shape::Http, HttpAnswer::Simple) => Ok(simple(Effect::Deny, &context)),
                    (Shape::Http, HttpAnswer::Policy) => {
                        Ok(policy(NOBODY, Effect::Deny, &request.arn.everything(), &context))
                    }
                    (Shape::Request | Shape::Token | Shape::Socket, _) => Err(Failure::UNAUTHORIZED),
                }
            }
            Err(Refusal::Stale(stale)) => {
                line().text("level", "ERROR").text("object", stale.0).decision("fault", "trust_stale").emit();
                Err(Failure::TRUST_STALE)
            }
        }
    }
}

/// Writes a decision's line with what policy said, and the line about what a candidate would say; answers the bundle's hash.
fn tell<'a>(line: Line, explained: &'a Explained, request_id: &str) -> &'a str {
    let Explained { ask, judged } = explained;
    let line = judged.explain(line).ask(ask);
    // A policy that fails denies whoever it is asked about: somebody has to look.
    match judged.decision.reason {
        PolicyReason::PolicyError => line.text("level", "ERROR").decision("fault", "policy_error").emit(),
        _ => line.emit(),
    }
    if let Some(shadow) = judged.shadow_line("authorizer", ask, request_id) {
        shadow.emit();
    }
    &judged.hash
}

/// What the context says besides the token.
struct Said<'a> {
    reason: &'a str,
    policy: &'a str,
    device: Option<&'a Device>,
}

/// What stands for the device where there is none. It is no device's id, and no empty text either: a header that the gateway sets to it
/// replaces whatever the client sent.
const NO_DEVICE: &str = "-";

/// A policy about this resource, or one word where there is none.
fn answer(token: &AccessToken, effect: Effect, resource: Option<String>, said: Said<'_>) -> Value {
    let (scope, exp) = (token.scopes.to_string(), token.expires_at.seconds().to_string());
    let context = [
        ("jti", token.jti.as_str()),
        ("sub", &token.subject),
        ("tenant", token.tenant.as_str()),
        ("client_id", &token.client_id),
        ("scope", &scope),
        ("exp", &exp),
        ("device_id", said.device.map_or(NO_DEVICE, |device| &device.id)),
        ("reason", said.reason),
        ("policy", said.policy),
    ];
    match resource {
        None => simple(effect, &context),
        Some(resource) => policy(&token.subject, effect, &resource, &context),
    }
}

#[cfg(test)]
mod tests;

//! Decides every request: a valid, unrevoked token of ours, a known route, a scope for it, and a policy that permits it. Deny by
//! default.
//!
//! A credential fault is 401, a missing right 403, and trust data that is too old to decide is a fault that the gateway
//! answers with 503. What exactly was wrong goes to the log and never to the caller.
//!
//! REST APIs (`REQUEST`, `TOKEN`) are answered a policy; there 401 is the error `Unauthorized`. HTTP APIs (payload format 2.0) are
//! answered `isAuthorized`, a credential fault as well: what they make of the error is not settled by their documentation (401 by
//! reports, 500 in an emulator), and `false` is a refusal in any case, with 403.
//!
//! A token that is bound to a key passes only with a proof of that key over this very request (RFC 9449).
//!
//! A person's token passes only beside a valid Access assertion of the same person, and a machine's on a route that demands one beside a
//! service's. A `TOKEN` event has no place for one, so no person passes in it.
//!
//! Policy is asked last, about the token's subject, the route's action and template, the network as the edge names it and the device of
//! the token. A candidate bundle is asked too; where it differs, a line says so and nothing else happens.
//!
//! Not here yet: the posture list.

pub mod config;
pub mod event;
pub mod routes;

use serde_json::Value;
use shared::access::{self, Assertion, Flaw};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::Clock;
use shared::credential::presented;
use shared::dpop::Possession;
use shared::jwt::{AccessToken, Kind, Reason};
use shared::policy::{Ask, Invoke, Judged, Net, Policies, Principal, Published, Reason as PolicyReason, What};
use shared::port::ObjectReader;
use shared::trust::{Accepts, Cached, Foreign, Refusal, Trust};

use event::{Effect, Request, Shape, policy, simple};
use routes::{Access, Route};

/// The action of the application behind the gate, which knows nothing of `authorization_details`.
const APPLICATION: &str = "app";

/// The authorizer over its ports. `P` is the policy engine.
pub struct Authorizer<P, R, C> {
    accepts: Accepts,
    trust: Trust<R, C>,
    policies: Cached<Published<P>>,
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
        token: AccessToken,
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
        token: AccessToken,
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
        Self { accepts, trust: Trust::new(reader, clock), policies: Cached::default(), foreign, possession }
    }

    /// Decides one request.
    pub async fn decide(&self, request: &Request) -> Result<Decision, Refusal> {
        if request.token_in_query {
            return Err(Refusal::Credential(Reason::Ambiguous));
        }
        let presented = presented(&request.headers).map_err(Refusal::Credential)?;
        // What is due of all of them is read at the same time.
        let (token, policies) =
            tokio::join!(self.trust.admit(presented.token, &self.accepts), self.trust.object(&self.policies));
        let token = token?;
        // A `TOKEN` event has no other header, so no bound token can pass in one.
        let place = (request.method.as_str(), request.path.as_str());
        self.possession
            .check(&token, &presented, &request.headers, place, self.trust.now())
            .map_err(|flaw| Refusal::Credential(Reason::Proof(flaw)))?;
        let route = request.route();
        self.vouched(request, &token, route.map_or(Access::ByToken, |route| route.access)).await?;
        let Some(route) = route else {
            return Ok(denied(token, "unknown_route"));
        };
        let Some(path) = route.fill(&request.path) else {
            return Ok(denied(token, "unsafe_path"));
        };
        if !route.admits(&token.scopes) {
            return Ok(denied(token, "insufficient_scope"));
        }
        if route.action == APPLICATION && !token.details.is_empty() {
            return Ok(denied(token, "token_narrowed"));
        }
        let policies = policies.map_err(Refusal::Stale)?;
        let ask = self.question(&token, route, request);
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
    fn question(&self, token: &AccessToken, route: &Route, request: &Request) -> Ask {
        let now = self.trust.now().seconds();
        let place = (route.action, route.method, route.template);
        Ask {
            principal: Principal::of(token),
            now,
            net: Net::of(&request.headers),
            device: token.device.clone(),
            what: What::Invoke(Invoke::of(token, &self.accepts.issuer, place, now)),
        }
    }

    /// Whether Access vouches for who holds the token, where that is demanded.
    async fn vouched(&self, request: &Request, token: &AccessToken, access: Access) -> Result<(), Refusal> {
        let flawed = |flaw| Refusal::Credential(Reason::Assertion(flaw));
        let presented = access::header(&request.headers).map_err(flawed)?;
        if token.kind == Kind::Machine && access == Access::ByToken {
            return Ok(());
        }
        let presented = presented.ok_or_else(|| flawed(Flaw::Missing))?;
        let agrees = match (token.kind, self.foreign.access(presented).await?) {
            (Kind::Human, Assertion::Person(person)) => person.token_subject() == token.subject,
            (Kind::Machine, Assertion::Service(_)) => true,
            _ => false,
        };
        if agrees { Ok(()) } else { Err(flawed(Flaw::OfAnother)) }
    }
}

fn denied(token: AccessToken, reason: &'static str) -> Decision {
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
                let resource = request.arn.with(&request.method, &path);
                Ok(answer(&request, &token, Effect::Allow, &resource, ("policy", policy)))
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
                Ok(answer(&request, &token, Effect::Deny, &request.arn.everything(), (reason, policy)))
            }
            Err(Refusal::Credential(reason)) => {
                line().decision("deny", reason.as_str()).emit();
                match request.shape {
                    Shape::Http => Ok(simple(Effect::Deny, &[("reason", reason.as_str())])),
                    Shape::Request | Shape::Token => Err(Failure::UNAUTHORIZED),
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

fn answer(request: &Request, token: &AccessToken, effect: Effect, resource: &str, why: (&str, &str)) -> Value {
    let (reason, hash) = why;
    let (scope, exp) = (token.scopes.to_string(), token.expires_at.seconds().to_string());
    let context = [
        ("jti", token.jti.as_str()),
        ("sub", &token.subject),
        ("tenant", token.tenant.as_str()),
        ("client_id", &token.client_id),
        ("scope", &scope),
        ("exp", &exp),
        ("reason", reason),
        ("policy", hash),
    ];
    match request.shape {
        Shape::Http => simple(effect, &context),
        Shape::Request | Shape::Token => policy(&token.subject, effect, resource, &context),
    }
}

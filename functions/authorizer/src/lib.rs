//! Decides every request: a valid, unrevoked token of ours, a known route, and a scope for it. Deny by default.
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
//! Not here yet: device posture and Cedar policies.

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
use shared::port::ObjectReader;
use shared::trust::{Accepts, Foreign, Refusal, Trust};

use event::{Effect, Request, Shape, policy, simple};
use routes::Access;

/// The authorizer over its ports.
pub struct Authorizer<R, C> {
    accepts: Accepts,
    trust: Trust<R, C>,
    foreign: Foreign<R, C>,
    possession: Possession,
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
    },
    /// The caller is known and may not.
    Deny {
        /// Who asks.
        token: AccessToken,
        /// The stable code for the log.
        reason: &'static str,
    },
}

impl<R: ObjectReader + Clone, C: Clock + Clone> Authorizer<R, C> {
    /// An authorizer that reads the trust objects through `reader`; nothing is read yet.
    pub fn new(accepts: Accepts, reader: R, clock: C) -> Self {
        let possession = Possession::new(&accepts.issuer);
        let foreign = Foreign::new(reader.clone(), clock.clone());
        Self { accepts, trust: Trust::new(reader, clock), foreign, possession }
    }

    /// Decides one request.
    pub async fn decide(&self, request: &Request) -> Result<Decision, Refusal> {
        if request.token_in_query {
            return Err(Refusal::Credential(Reason::Ambiguous));
        }
        let presented = presented(&request.headers).map_err(Refusal::Credential)?;
        let token = self.trust.admit(presented.token, &self.accepts).await?;
        // A `TOKEN` event has no other header, so no bound token can pass in one.
        let place = (request.method.as_str(), request.path.as_str());
        self.possession
            .check(&token, &presented, &request.headers, place, self.trust.now())
            .map_err(|flaw| Refusal::Credential(Reason::Proof(flaw)))?;
        let route = request.route();
        self.vouched(request, &token, route.map_or(Access::ByToken, |route| route.access)).await?;
        let Some(route) = route else {
            return Ok(Decision::Deny { token, reason: "unknown_route" });
        };
        let Some(path) = route.fill(&request.path) else {
            return Ok(Decision::Deny { token, reason: "unsafe_path" });
        };
        if !route.admits(&token.scopes) {
            return Ok(Decision::Deny { token, reason: "insufficient_scope" });
        }
        Ok(Decision::Allow { token, action: route.action, path })
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

impl<R: ObjectReader + Clone, C: Clock + Clone> Handler for Authorizer<R, C> {
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
            Ok(Decision::Allow { token, action, path }) => {
                line()
                    .who(token.tenant.as_str(), &token.subject, &token.jti)
                    .text("action", action)
                    .decision("allow", "scope")
                    .emit();
                Ok(answer(&request, &token, Effect::Allow, &request.arn.with(&request.method, &path), "scope"))
            }
            Ok(Decision::Deny { token, reason }) => {
                line().who(token.tenant.as_str(), &token.subject, &token.jti).decision("deny", reason).emit();
                Ok(answer(&request, &token, Effect::Deny, &request.arn.everything(), reason))
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

fn answer(request: &Request, token: &AccessToken, effect: Effect, resource: &str, reason: &str) -> Value {
    let (scope, exp) = (token.scopes.to_string(), token.expires_at.seconds().to_string());
    let context = [
        ("jti", token.jti.as_str()),
        ("sub", &token.subject),
        ("tenant", token.tenant.as_str()),
        ("client_id", &token.client_id),
        ("scope", &scope),
        ("exp", &exp),
        ("reason", reason),
    ];
    match request.shape {
        Shape::Http => simple(effect, &context),
        Shape::Request | Shape::Token => policy(&token.subject, effect, resource, &context),
    }
}

//! The OAuth 2 token endpoint and its siblings: who asks is proven by a signed assertion, and what is handed out is a
//! signed token that lives for minutes. Nothing secret is stored for it.
//!
//! Here: `client_credentials` with `private_key_jwt` or a workload's assertion of its own platform (RFC 6749, 7521, 7523), tokens
//! bound to a key by DPoP with a nonce (RFC 9449) or narrowed to files and fields (RFC 9396), people's sessions by token exchange
//! (RFC 8693) and refresh, revocation (RFC 7009), introspection (RFC 7662), metadata (RFC 8414) and the key set. Every token is first
//! put to policy, which may only refuse.

mod authentication;
mod binding;
pub mod client;
mod clients;
pub mod config;
mod form;
mod grant;
mod known;
mod metadata;
pub mod mint;
mod oauth;
mod person;
mod public;
mod refused;
mod session;

use std::sync::Arc;

use shared::boot::{Invocation, Routes};
use shared::clock::Clock;
use shared::entropy::Entropy;
use shared::http::{Request, Response};
use shared::policy::Judge;
use shared::port::{Database, ObjectReader, ObjectWriter, Signer};
use shared::problem::{Code, Problem};
use shared::trust::{Accepts, Foreign, Trust};

use binding::Bindings;
use clients::Clients;
use config::Settings;
use metadata::KeyDocument;
use mint::Mint;
use refused::Refused;

/// The token endpoint and its siblings over their ports. `R` is the trust bucket: its objects are read, and nudges are
/// written to `trust-inbox/token/`.
pub struct Token<D, S, R, C, E> {
    settings: Settings,
    database: D,
    mint: Mint<S, R, C, E>,
    keys: KeyDocument<R, C>,
    accepts: Accepts,
    trust: Trust<R, C>,
    foreign: Foreign<R, C>,
    clients: Clients,
    inbox: R,
    entropy: E,
    bindings: Bindings,
}

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    /// The endpoint; nothing is read yet. `policies` says of every token whether it may be issued.
    pub fn new(
        settings: Settings,
        database: D,
        signer: S,
        reader: R,
        policies: Arc<dyn Judge>,
        clock: C,
        entropy: E,
    ) -> Self {
        let keys = KeyDocument::new(reader.clone(), clock.clone());
        let trust = Trust::new(reader.clone(), clock.clone());
        let foreign = Foreign::new(reader.clone(), clock.clone());
        let clients = Clients::default();
        let accepts = Accepts { issuer: settings.issuer.clone(), audience: settings.audience.clone() };
        let (inbox, bindings) = (reader.clone(), Bindings::new(&settings.issuer));
        let mint = Mint::new(settings.clone(), signer, reader, policies, clock, entropy.clone());
        Self { settings, database, mint, keys, accepts, trust, foreign, clients, inbox, entropy, bindings }
    }
}

impl<D, S, R, C, E> Routes for Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    const FUNCTION: &'static str = "token";

    async fn answer(&self, request: &Request, _: &Invocation) -> Result<Response, Problem> {
        let id = &request.request_id;
        let said = |action, outcome: Result<Response, Refused>| {
            Ok(outcome.unwrap_or_else(|refused| {
                refused.log(action, id);
                let answer = refused.error.answer();
                refused.nonce.into_iter().fold(answer, |answer, nonce| answer.header("dpop-nonce", nonce))
            }))
        };
        match (request.method.as_str(), request.resource.as_str()) {
            ("POST", "/oauth2/token") => said("issue", self.issue(request).await),
            ("POST", "/oauth2/revoke") => said("revoke", self.revoke(request).await),
            ("POST", "/oauth2/introspect") => said("introspect", self.introspect(request).await),
            (_, "/oauth2/token" | "/oauth2/revoke" | "/oauth2/introspect") => {
                Ok(Response::problem(Code::MethodNotAllowed.into(), id).header("allow", "POST"))
            }
            ("GET", "/.well-known/oauth-authorization-server") => Ok(metadata::answer(&self.settings)),
            ("GET", "/.well-known/jwks.json") => self.keys.answer().await,
            _ => Err(Code::NotFound.into()),
        }
    }
}

//! The OAuth 2 token endpoint and its siblings: who asks is proven by a signed assertion, and what is handed out is a
//! signed token that lives for minutes. Nothing secret is stored for it.
//!
//! Here: `client_credentials` with `private_key_jwt` (RFC 6749, 7521, 7523), tokens bound to a key by DPoP with a nonce
//! (RFC 9449), revocation (RFC 7009), introspection (RFC 7662), metadata (RFC 8414) and the key set.
//! Not here yet: the human exchange and refresh; neither is advertised.

mod authentication;
mod binding;
pub mod client;
pub mod config;
mod form;
mod known;
mod metadata;
pub mod mint;
mod oauth;

use serde_json::json;
use shared::audit::Line;
use shared::boot::{Invocation, Routes};
use shared::clock::Clock;
use shared::entropy::Entropy;
use shared::http::{Request, Response};
use shared::port::{Database, Fault, ObjectReader, ObjectWriter, Signer};
use shared::problem::{Code, Problem};
use shared::scope::Scopes;
use shared::trust::{Accepts, Trust};

use authentication::{Authenticated, authenticate, first_use};
use binding::Bindings;
use client::Client;
use config::Settings;
use form::Form;
use metadata::KeyDocument;
use mint::Mint;
use oauth::Error;

/// The token endpoint and its siblings over their ports. `R` is the trust bucket: its objects are read, and nudges are
/// written to `trust-inbox/token/`.
pub struct Token<D, S, R, C, E> {
    settings: Settings,
    database: D,
    mint: Mint<S, R, C, E>,
    keys: KeyDocument<R, C>,
    accepts: Accepts,
    trust: Trust<R, C>,
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
    /// The endpoint; nothing is read yet.
    pub fn new(settings: Settings, database: D, signer: S, reader: R, clock: C, entropy: E) -> Self {
        let keys = KeyDocument::new(reader.clone(), clock.clone());
        let trust = Trust::new(reader.clone(), clock.clone());
        let accepts = Accepts { issuer: settings.issuer.clone(), audience: settings.audience.clone() };
        let (inbox, bindings) = (reader.clone(), Bindings::new(&settings.issuer));
        let mint = Mint::new(settings.clone(), signer, reader, clock, entropy.clone());
        Self { settings, database, mint, keys, accepts, trust, inbox, entropy, bindings }
    }

    /// Order matters: nothing is consumed until everything else has held and the token is signed, so that a throttled
    /// signer or a lost connection never burns an assertion.
    async fn issue(&self, request: &Request) -> Result<Response, Refused> {
        let form = authentication::form(request)?;
        match form.find("grant_type") {
            None => return Err(Error::INVALID_REQUEST.because("grant_type is missing").into()),
            Some("client_credentials") => {}
            Some(_) => return Err(Error::UNSUPPORTED_GRANT_TYPE.into()),
        }
        let now = self.mint.now();
        let authenticated = authenticate(&self.database, &self.settings.issuer, request, &form, now).await?;
        let Authenticated { client, assertion, at } = authenticated;
        let proof = self.bindings.proof((&self.database, &self.entropy), request, &client, now).await?;
        let scopes = granted(&client, &form).map_err(|error| Refused::from(error).of(&client))?;
        if form.find("resource").is_some_and(|resource| resource != self.settings.audience) {
            return Err(Refused::from(Error::INVALID_TARGET).of(&client));
        }
        let thumbprint = proof.as_ref().map(|proof| proof.thumbprint.as_str());
        let minted = self.mint.mint(&client, &scopes, thumbprint).await;
        let minted = minted.map_err(|fault| Refused::from(fault).of(&client))?;
        first_use(client::consume(&self.database, &client, &assertion, proof.as_ref(), at).await?, &client)?;
        Line::new("token", "issue")
            .request(&request.request_id)
            .who(client.tenant.as_str(), client.client_id.as_str(), &minted.jti)
            .text("kid", &minted.kid)
            .text("jkt", thumbprint.unwrap_or_default())
            .decision("allow", "issued")
            .emit();
        let kind = if proof.is_some() { "DPoP" } else { "Bearer" };
        let body = json!({"access_token": minted.token.expose(), "token_type": kind,
            "expires_in": minted.expires_in, "scope": scopes.to_string()});
        let answer = oauth::uncached(200, &body);
        let nonce = proof.and_then(|_| self.bindings.next(&self.entropy, now));
        Ok(nonce.into_iter().fold(answer, |answer, nonce| answer.header("dpop-nonce", nonce)))
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

/// What is asked, if the client holds it all; everything the client holds, if nothing is asked.
fn granted(client: &Client, form: &Form) -> Result<Scopes, Error> {
    let Some(asked) = form.find("scope") else { return Ok(client.scopes.clone()) };
    let asked = Scopes::parse(asked).map_err(|_| Error::INVALID_SCOPE)?;
    if asked.is_empty() || !client.scopes.grants(&asked) {
        return Err(Error::INVALID_SCOPE);
    }
    Ok(asked)
}

/// A refusal on its way out, with what the log may know of it.
struct Refused {
    error: Error,
    reason: &'static str,
    client: Option<String>,
    fault: Option<Box<Fault>>,
    /// For the `DPoP-Nonce` header.
    nonce: Option<String>,
}

impl Refused {
    fn of(mut self, client: &Client) -> Self {
        self.client = Some(client.client_id.as_str().to_owned());
        self
    }

    fn log(&self, action: &'static str, request_id: &str) {
        let decision = if self.fault.is_some() { "fault" } else { "deny" };
        let mut line = Line::new("token", action).request(request_id).decision(decision, self.reason);
        if let Some(client) = &self.client {
            line = line.text("client_id", client);
        }
        match &self.fault {
            Some(fault) => line.fault(fault).emit(),
            None => line.emit(),
        }
    }
}

fn refused(error: Error, reason: &'static str) -> Refused {
    Refused { error, reason, client: None, fault: None, nonce: None }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        refused(error, error.code)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { error: Error::from(&fault), reason: "fault", client: None, fault: Some(Box::new(fault)), nonce: None }
    }
}

//! The OAuth 2 token endpoint and its siblings: who asks is proven by a signed assertion, and what is handed out is a
//! signed token that lives for minutes. Nothing secret is stored for it.
//!
//! Here: `client_credentials` with `private_key_jwt` (RFC 6749, 7521, 7523), metadata (RFC 8414) and the key set.
//! Not here yet: the human exchange, refresh, DPoP, revocation and introspection; none of them is advertised.

pub mod client;
pub mod config;
mod form;
mod metadata;
pub mod mint;
mod oauth;

use serde_json::json;
use shared::audit::Line;
use shared::boot::{Invocation, Routes};
use shared::clock::Clock;
use shared::entropy::Entropy;
use shared::http::{Request, Response};
use shared::jwt;
use shared::name::ClientId;
use shared::port::{Database, Fault, ObjectReader, Signer};
use shared::problem::{Code, Problem};
use shared::scope::Scopes;

use client::{Client, Consumed};
use config::Settings;
use form::Form;
use metadata::KeyDocument;
use mint::Mint;
use oauth::Error;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The token endpoint over its ports.
pub struct Token<D, S, R, C, E> {
    settings: Settings,
    database: D,
    mint: Mint<S, R, C, E>,
    keys: KeyDocument<R, C>,
}

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + Clone,
    C: Clock + Clone,
    E: Entropy,
{
    /// The endpoint; nothing is read yet.
    pub fn new(settings: Settings, database: D, signer: S, reader: R, clock: C, entropy: E) -> Self {
        let keys = KeyDocument::new(reader.clone(), clock.clone());
        let mint = Mint::new(settings.clone(), signer, reader, clock, entropy);
        Self { settings, database, mint, keys }
    }

    /// Order matters: nothing is consumed until everything else has held and the token is signed, so that a throttled
    /// signer or a lost connection never burns an assertion.
    async fn issue(&self, request: &Request) -> Result<Response, Refused> {
        if request.media_type() != Some("application/x-www-form-urlencoded") {
            return Err(Error::INVALID_REQUEST.because("the body must be application/x-www-form-urlencoded").into());
        }
        let form = Form::parse(&request.body)?;
        match form.find("grant_type") {
            None => return Err(Error::INVALID_REQUEST.because("grant_type is missing").into()),
            Some("client_credentials") => {}
            Some(_) => return Err(Error::UNSUPPORTED_GRANT_TYPE.into()),
        }
        let assertion = credential(request, &form)?;
        let client = self.client_of(assertion, &form).await?;
        let now = self.mint.now();
        let verified =
            jwt::client_assertion(assertion, client.client_id.as_str(), &self.settings.issuer, &client.keys, now)
                .map_err(|reason| refused(Error::INVALID_CLIENT, reason.as_str()))?;
        if client.dpop || request.headers.all("dpop").next().is_some() {
            return Err(refused(Error::INVALID_DPOP_PROOF, "dpop_unsupported").of(&client));
        }
        let scopes = granted(&client, &form).map_err(|error| Refused::from(error).of(&client))?;
        if form.find("resource").is_some_and(|resource| resource != self.settings.audience) {
            return Err(Refused::from(Error::INVALID_TARGET).of(&client));
        }
        let minted = self.mint.mint(&client, &scopes).await.map_err(|fault| Refused::from(fault).of(&client))?;
        match client::consume(&self.database, &client, &verified, now).await? {
            Consumed::Fresh => {}
            Consumed::Replayed => return Err(refused(Error::INVALID_CLIENT, "assertion_replayed").of(&client)),
            Consumed::ClientChanged => return Err(refused(Error::INVALID_CLIENT, "client_changed").of(&client)),
        }
        Line::new("token", "issue")
            .request(&request.request_id)
            .who(client.tenant.as_str(), client.client_id.as_str(), &minted.jti)
            .text("kid", &minted.kid)
            .decision("allow", "issued")
            .emit();
        let body = json!({"access_token": minted.token.expose(), "token_type": "Bearer",
            "expires_in": minted.expires_in, "scope": scopes.to_string()});
        Ok(oauth::uncached(200, &body))
    }

    async fn client_of(&self, assertion: &str, form: &Form) -> Result<Client, Refused> {
        let claimed = jwt::unverified_issuer(assertion).map_err(|r| refused(Error::INVALID_CLIENT, r.as_str()))?;
        let id = ClientId::parse(&claimed).map_err(|_| refused(Error::INVALID_CLIENT, "client_unknown"))?;
        if form.find("client_id").is_some_and(|named| named != id.as_str()) {
            return Err(refused(Error::INVALID_CLIENT, "client_id_differs"));
        }
        let found = client::find(&self.database, &id).await?;
        found.ok_or_else(|| refused(Error::INVALID_CLIENT, "client_unknown"))
    }
}

impl<D, S, R, C, E> Routes for Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + Clone,
    C: Clock + Clone,
    E: Entropy,
{
    const FUNCTION: &'static str = "token";

    async fn answer(&self, request: &Request, _: &Invocation) -> Result<Response, Problem> {
        match (request.method.as_str(), request.resource.as_str()) {
            ("POST", "/oauth2/token") => Ok(self.issue(request).await.unwrap_or_else(|refused| {
                refused.log(&request.request_id);
                refused.error.answer()
            })),
            (_, "/oauth2/token") => {
                Ok(Response::problem(Code::MethodNotAllowed.into(), &request.request_id).header("allow", "POST"))
            }
            ("GET", "/.well-known/oauth-authorization-server") => Ok(metadata::answer(&self.settings)),
            ("GET", "/.well-known/jwks.json") => self.keys.answer().await,
            _ => Err(Code::NotFound.into()),
        }
    }
}

/// The one way to authenticate: `private_key_jwt` in the body.
fn credential<'a>(request: &Request, form: &'a Form) -> Result<&'a str, Refused> {
    let authorization = request.headers.all("authorization").next().is_some();
    let (kind, assertion) = (form.find("client_assertion_type"), form.find("client_assertion"));
    if authorization || form.find("client_secret").is_some() {
        return Err(match assertion {
            Some(_) => Error::INVALID_REQUEST.because("more than one way of client authentication").into(),
            None => refused(Error::INVALID_CLIENT, "secret_offered"),
        });
    }
    match (kind, assertion) {
        (Some(JWT_BEARER), Some(assertion)) => Ok(assertion),
        _ => Err(refused(Error::INVALID_CLIENT, "assertion_missing")),
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
}

impl Refused {
    fn of(mut self, client: &Client) -> Self {
        self.client = Some(client.client_id.as_str().to_owned());
        self
    }

    fn log(&self, request_id: &str) {
        let decision = if self.fault.is_some() { "fault" } else { "deny" };
        let mut line = Line::new("token", "issue").request(request_id).decision(decision, self.reason);
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
    Refused { error, reason, client: None, fault: None }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        refused(error, error.code)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { error: Error::from(&fault), reason: "fault", client: None, fault: Some(Box::new(fault)) }
    }
}

//! The grants: each a way to prove who asks, all ending in one signed token.

mod client_credentials;
mod exchange;
mod refresh;
mod service;

pub(crate) use exchange::GRANT as TOKEN_EXCHANGE;
use serde::Serialize;
use serde_json::Value;
use shared::clock::{Clock, Timestamp};
use shared::details::Details;
use shared::entropy::Entropy;
use shared::http::{Request, Response};
use shared::json;
use shared::port::{Database, ObjectReader, ObjectWriter, Signer};
use shared::scope::Scopes;
use shared::url::is_resource;

use crate::client::Client;
use crate::form::Form;
use crate::mint::Minted;
use crate::oauth::{self, Error};
use crate::refused::Refused;
use crate::{Token, authentication};

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    /// `POST /oauth2/token`.
    ///
    /// Every grant keeps one order: nothing is consumed until everything else has held and the token is signed, so that a
    /// throttled signer or a lost connection never burns an assertion.
    pub(crate) async fn issue(&self, request: &Request) -> Result<Response, Refused> {
        let form = authentication::form(request)?;
        // A grant that would pass over them would answer a wider token than was asked for.
        if form.find("authorization_details").is_some() && form.find("grant_type") != Some("client_credentials") {
            return Err(Error::INVALID_AUTHORIZATION_DETAILS.because("not with this grant").into());
        }
        match form.find("grant_type") {
            None => Err(Error::INVALID_REQUEST.because("grant_type is missing").into()),
            Some("client_credentials") => self.client_credentials(request, &form).await,
            Some(TOKEN_EXCHANGE) => self.exchange(request, &form).await,
            Some("refresh_token") => self.refresh(request, &form).await,
            Some(_) => Err(Error::UNSUPPORTED_GRANT_TYPE.into()),
        }
    }

    /// The answer that carries a token (RFC 6749 §5.1), with a nonce for the next proof where the token is bound.
    fn granted(&self, minted: &Minted, scopes: &Scopes, bound: bool, now: Timestamp) -> Response {
        self.granted_with(minted, scopes, bound, now, More::default())
    }

    /// The same with what the grant says besides.
    fn granted_with(&self, minted: &Minted, scopes: &Scopes, bound: bool, now: Timestamp, more: More<'_>) -> Response {
        let body = Granted {
            access_token: minted.token.expose(),
            token_type: if bound { "DPoP" } else { "Bearer" },
            expires_in: minted.expires_in,
            scope: scopes.to_string(),
            // RFC 9396 §7: what was granted is told.
            authorization_details: (!minted.details.is_empty()).then(|| minted.details.to_value()),
            more,
        };
        let answer = oauth::uncached(200, &body);
        let nonce = bound.then(|| self.bindings.next(&self.entropy, now)).flatten();
        nonce.into_iter().fold(answer, |answer, nonce| answer.header("dpop-nonce", nonce))
    }
}

/// The body of an answer that carries a token.
#[derive(Serialize)]
struct Granted<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_details: Option<Value>,
    #[serde(flatten)]
    more: More<'a>,
}

/// What only some grants say.
#[derive(Serialize, Default)]
struct More<'a> {
    /// RFC 8693 §2.2.1
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
}

/// What is asked, if all of it is held; everything that is held, if nothing is asked.
fn scopes(held: &Scopes, form: &Form) -> Result<Scopes, Error> {
    let Some(asked) = form.find("scope") else { return Ok(held.clone()) };
    let asked = Scopes::parse(asked).map_err(|_| Error::INVALID_SCOPE)?;
    if asked.is_empty() || !held.grants(&asked) {
        return Err(Error::INVALID_SCOPE);
    }
    Ok(asked)
}

/// What the token is to be narrowed to (RFC 9396); nothing if nothing is asked.
fn details(form: &Form) -> Result<Details, Error> {
    let Some(asked) = form.find("authorization_details") else { return Ok(Details::default()) };
    let asked = json::value(asked.as_bytes(), 4).and_then(|asked| Details::parse(&asked));
    asked.map_err(|_| Error::INVALID_AUTHORIZATION_DETAILS)
}

/// The one resource that is asked for (RFC 8707 §2), an absolute URI without fragment, if it is our own API or one that is registered
/// for the client; our own if none is asked for.
fn audience<'a>(own: &'a str, client: &Client, form: &'a Form) -> Result<&'a str, Error> {
    match form.find("resource") {
        None => Ok(own),
        Some(resource) if resource == own => Ok(own),
        Some(resource) if is_resource(resource) && client.audiences.iter().any(|one| one == resource) => Ok(resource),
        Some(_) => Err(Error::INVALID_TARGET),
    }
}

/// The same where something must be granted at all.
fn narrowed(held: &Scopes, form: &Form) -> Result<Scopes, Error> {
    if held.is_empty() { Err(Error::INVALID_SCOPE) } else { scopes(held, form) }
}

/// A closure that says whose refusal it is.
fn of<E: Into<Refused>>(client: &Client) -> impl Fn(E) -> Refused + '_ {
    |error| error.into().of(client)
}

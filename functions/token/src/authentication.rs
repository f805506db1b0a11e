//! Client authentication, the same at every endpoint that asks for it: `private_key_jwt` in the body (RFC 7523 §2.2).

use shared::clock::Timestamp;
use shared::dpop::Flaw;
use shared::http::Request;
use shared::jwt::{self, ClientAssertion};
use shared::name::ClientId;
use shared::port::Database;

use crate::client::{self, Client, Consumed};
use crate::form::Form;
use crate::oauth::Error;
use crate::refused::{Refused, refused};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client that proved itself. Its assertion is verified and not yet used up.
pub(crate) struct Authenticated {
    /// Who.
    pub(crate) client: Client,
    /// The assertion, to be consumed with the effect it authorises.
    pub(crate) assertion: ClientAssertion,
    /// When it was judged.
    pub(crate) at: Timestamp,
}

/// The body of a request to an OAuth endpoint.
pub(crate) fn form(request: &Request) -> Result<Form, Error> {
    if !request.is_of_type("application/x-www-form-urlencoded") {
        return Err(Error::INVALID_REQUEST.because("the body must be application/x-www-form-urlencoded"));
    }
    Form::parse(&request.body)
}

/// Verifies who asks. Consumes nothing.
pub(crate) async fn authenticate<D: Database>(
    database: &D,
    issuer: &str,
    request: &Request,
    form: &Form,
    now: Timestamp,
) -> Result<Authenticated, Refused> {
    let assertion = credential(request, form)?;
    let client = client_of(database, assertion, form).await?;
    let verified = jwt::client_assertion(assertion, client.client_id.as_str(), issuer, &client.keys, now)
        .map_err(|reason| refused(Error::INVALID_CLIENT, reason.as_str()).of(&client))?;
    Ok(Authenticated { client, assertion: verified, at: now })
}

/// What became of the assertion, as the refusal it means where it was not the first use.
pub(crate) fn first_use(consumed: Consumed, client: &Client) -> Result<(), Refused> {
    match consumed {
        Consumed::Fresh => Ok(()),
        Consumed::Replayed => Err(refused(Error::INVALID_CLIENT, "assertion_replayed").of(client)),
        Consumed::ProofReplayed => Err(refused(Error::INVALID_DPOP_PROOF, Flaw::Replayed.as_str()).of(client)),
        Consumed::ClientChanged => Err(refused(Error::INVALID_CLIENT, "client_changed").of(client)),
    }
}

/// The one way to authenticate.
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

async fn client_of<D: Database>(database: &D, assertion: &str, form: &Form) -> Result<Client, Refused> {
    let claimed = jwt::unverified_issuer(assertion).map_err(|r| refused(Error::INVALID_CLIENT, r.as_str()))?;
    let id = ClientId::parse(&claimed).map_err(|_| refused(Error::INVALID_CLIENT, "client_unknown"))?;
    if form.find("client_id").is_some_and(|named| named != id.as_str()) {
        return Err(refused(Error::INVALID_CLIENT, "client_id_differs"));
    }
    let found = client::find(database, &id).await?;
    found.ok_or_else(|| refused(Error::INVALID_CLIENT, "client_unknown"))
}

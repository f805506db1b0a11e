//! Client authentication, the same at every endpoint that asks for it: a signed assertion in the body (RFC 7523 §2.2), by the
//! client's own key (`private_key_jwt`) or by the platform that its workload runs on.

use std::future::Future;
use std::sync::Arc;

use shared::clock::{Clock, Timestamp};
use shared::dpop::Flaw;
use shared::entropy::Entropy;
use shared::federation::{self, Claimed, Workload};
use shared::http::Request;
use shared::jwt::Assertion;
use shared::name::ClientId;
use shared::port::{Database, ObjectReader, ObjectWriter, Signer};
use shared::trust;

use crate::Token;
use crate::client::{Client, Consumed, Use};
use crate::form::Form;
use crate::oauth::Error;
use crate::refused::{Refused, refused};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An assertion and the client that it is said to be of. Only [`Presented::prove`] says whether it is.
pub(crate) struct Presented<'a> {
    client_id: ClientId,
    evidence: Evidence<'a>,
    /// When it was presented.
    pub(crate) at: Timestamp,
}

enum Evidence<'a> {
    /// Signed by the client itself, not verified yet: its keys are in its row.
    Own(Assertion<'a>),
    /// Verified already: the issuer's keys are nobody's row.
    Workload(Box<Workload>),
}

/// The body of a request to an OAuth endpoint.
pub(crate) fn form(request: &Request) -> Result<Form, Error> {
    if !request.is_of_type("application/x-www-form-urlencoded") {
        return Err(Error::INVALID_REQUEST.because("the body must be application/x-www-form-urlencoded"));
    }
    Form::parse(&request.body)
}

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    /// Who asks, and by which assertion: the client's own where `iss` is a client id, otherwise the issuer's that it names. A
    /// platform does not know which client its workload is: then the request must say so (draft-ietf-oauth-rfc7523bis).
    ///
    /// Consumes nothing and asks the database nothing.
    pub(crate) async fn presented<'a>(
        &self,
        request: &Request,
        form: &'a Form,
        at: Timestamp,
    ) -> Result<Presented<'a>, Refused> {
        let assertion = credential(request, form)?;
        let named = form.find("client_id");
        match federation::claimed(assertion).map_err(|reason| refused(Error::INVALID_CLIENT, reason.as_str()))? {
            Claimed::Client(client_id, own) => {
                if named.is_some_and(|named| named != client_id.as_str()) {
                    return Err(refused(Error::INVALID_CLIENT, "client_id_differs"));
                }
                Ok(Presented { client_id, evidence: Evidence::Own(own), at })
            }
            Claimed::Issuer(issuer) => {
                let named = named.ok_or_else(|| refused(Error::INVALID_CLIENT, "client_id_missing"))?;
                let client_id = ClientId::parse(named).map_err(|_| refused(Error::INVALID_CLIENT, "client_unknown"))?;
                let workload = self.foreign.workload(assertion, &issuer, &self.settings.issuer).await;
                let workload = workload.map_err(|refusal| match refusal {
                    trust::Refusal::Credential(reason) => refused(Error::INVALID_CLIENT, reason.as_str()),
                    trust::Refusal::Stale(_) => refused(Error::TEMPORARILY_UNAVAILABLE, refusal.as_str()),
                })?;
                Ok(Presented { client_id, evidence: Evidence::Workload(Box::new(workload)), at })
            }
        }
    }

    /// Acts as the client that is said to ask, which `act` has to prove.
    ///
    /// A client that was asked for lately is remembered. Where that row leads to a refusal which another row could have changed, the
    /// client is read anew and, if it did change, judged again; an act that refuses must have changed nothing.
    pub(crate) async fn as_client<T, F>(
        &self,
        presented: &Presented<'_>,
        act: impl Fn(Arc<Client>) -> F + Send,
    ) -> Result<T, Refused>
    where
        F: Future<Output = Result<T, Refused>> + Send,
    {
        let (id, at) = (&presented.client_id, presented.at);
        let mut before = None;
        if let Some(kept) = self.clients.kept(id, at) {
            let version = kept.version;
            match act(kept).await {
                Err(refused) if !refused.settled => before = Some((version, refused)),
                outcome => return outcome,
            }
        }
        let client = self.clients.read(&self.database, id, at).await?;
        match (client, before) {
            (None, _) => Err(refused(Error::INVALID_CLIENT, "client_unknown")),
            (Some(client), Some((version, refused))) if client.version == version => Err(refused),
            (Some(client), _) => act(client).await,
        }
    }

    /// The client that asks, where it proves itself; uses nothing up.
    pub(crate) async fn authenticated(
        &self,
        request: &Request,
        form: &Form,
        at: Timestamp,
    ) -> Result<Arc<Client>, Refused> {
        let presented = self.presented(request, form, at).await?;
        let prove = |client: Arc<Client>| {
            let proven = presented.prove(&client, &self.settings.issuer);
            async move { proven.map(|_| client) }
        };
        self.as_client(&presented, prove).await
    }
}

impl Presented<'_> {
    /// Whether this is `client`, and what that uses up.
    pub(crate) fn prove(&self, client: &Client, issuer: &str) -> Result<Use, Refused> {
        let no = |reason| refused(Error::INVALID_CLIENT, reason).of(client);
        match &self.evidence {
            Evidence::Own(assertion) => {
                let verified = assertion.verify(client.client_id.as_str(), issuer, &client.keys, self.at);
                let verified = verified.map_err(|reason| no(reason.as_str()))?;
                Ok(Use { once: Some(verified.jti), until: verified.expires_at })
            }
            Evidence::Workload(workload) if client.federation.iter().any(|rule| rule.names(workload)) => {
                Ok(Use { once: workload.once(), until: workload.until() })
            }
            Evidence::Workload(workload) => Err(no("workload_not_of_client").by(workload)),
        }
    }

    /// The workload, where one asks.
    pub(crate) fn workload(&self) -> Option<&Workload> {
        match &self.evidence {
            Evidence::Own(_) => None,
            Evidence::Workload(workload) => Some(workload),
        }
    }
}

/// What became of the assertion, as the refusal it means where it was not the first use.
pub(crate) fn first_use(consumed: Consumed, client: &Client) -> Result<(), Refused> {
    match consumed {
        Consumed::Fresh => Ok(()),
        Consumed::Replayed => Err(refused(Error::INVALID_CLIENT, "assertion_replayed").of(client).settled()),
        Consumed::ProofReplayed => {
            Err(refused(Error::INVALID_DPOP_PROOF, Flaw::Replayed.as_str()).of(client).settled())
        }
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

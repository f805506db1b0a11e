//! Token exchange (RFC 8693): what Cloudflare Access says of a person, for an access token and a session; of a service, see
//! [`super::service`].

use shared::access::{Assertion, Flaw, Person};
use shared::audit::Line;
use shared::clock::{Clock, Timestamp};
use shared::details::Details;
use shared::dpop::Proof;
use shared::entropy::{Entropy, uuid_v7};
use shared::http::{Request, Response};
use shared::jwt::Kind;
use shared::policy::Net;
use shared::port::{Database, ObjectReader, ObjectWriter, Signer};

use super::{More, narrowed, of};
use crate::Token;
use crate::client::Client;
use crate::form::Form;
use crate::mint::{Asked, Claims};
use crate::oauth::Error;
use crate::person::{self, flawed, verified};
use crate::public;
use crate::refused::{Refused, refused};
use crate::session::{self, Beginning, RefreshToken};

/// `grant_type`
pub(crate) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// For a page that cannot read the assertion, which travels in a header and a cookie that no script sees: take it from the header.
const ACCESS_HEADER: &str = "urn:portcullis:token-type:access-header";
pub(super) const UNACCEPTABLE: Error = Error::INVALID_REQUEST.because("the subject_token is not acceptable");

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    pub(super) async fn exchange(&self, request: &Request, form: &Form) -> Result<Response, Refused> {
        let now = self.mint.now();
        let client = self.client_of_people(request, form, now).await?;
        let proof = self.bindings.proof((&self.database, &self.entropy), request, &client, now).await?;
        // A public client's row demands one.
        let proof = proof.ok_or_else(|| refused(Error::INVALID_DPOP_PROOF, "proof_missing").of(&client))?;
        is_plain(form).map_err(of(&client))?;
        self.targets(form).map_err(of(&client))?;
        match self.subject(request, form).await.map_err(of(&client))? {
            Assertion::Service(service) => {
                self.exchange_of_service((&client, &proof), &service, (request, form), now).await
            }
            // What is registered for a service acts for nobody else.
            Assertion::Person(_) if client.service.is_some() => Err(flawed(UNACCEPTABLE, Flaw::OfAnother).of(&client)),
            Assertion::Person(person) => {
                self.exchange_of_person((&client, &proof), &person, (request, form), now).await
            }
        }
    }

    /// Begins the person's session.
    async fn exchange_of_person(
        &self,
        (client, proof): (&Client, &Proof),
        person: &Person,
        (request, form): (&Request, &Form),
        now: Timestamp,
    ) -> Result<Response, Refused> {
        let identity = person::identity(&self.database, person, UNACCEPTABLE).await.map_err(of(client))?;
        if identity.tenant != client.tenant {
            return Err(refused(UNACCEPTABLE, "identity_of_another_tenant").of(client));
        }
        let held = identity.scopes.meet(&client.scopes).map_err(|_| Error::INVALID_SCOPE).map_err(of(client))?;
        let scopes = narrowed(&held, form).map_err(of(client))?;
        let (sid, subject) = (uuid_v7(now, &self.entropy).to_string(), person.token_subject());
        let (net, details, device) = (Net::of(&request.headers), Details::default(), person.device());
        let claims = Claims {
            subject: &subject,
            client_id: client.client_id.as_str(),
            tenant: &client.tenant,
            kind: Kind::Human,
            audience: &self.settings.audience,
            scopes: &scopes,
            thumbprint: Some(&proof.thumbprint),
            ttl: client.ttl,
            session: Some(&sid),
            groups: Some(&identity.groups),
            device: device.as_ref(),
            service: None,
            not_after: Some(person.expires_at),
            details: &details,
            asked: Asked {
                grant: GRANT,
                issuer: person.issuer.as_str(),
                net: net.as_ref(),
                request_id: &request.request_id,
            },
        };
        let minted = self.mint.mint(&claims).await.map_err(of(client))?;
        let refresh = RefreshToken::new(&self.entropy);
        let begun = Beginning {
            sid: &sid,
            person,
            client,
            proof,
            scopes: &scopes,
            issued_at: minted.issued_at,
            refresh: &refresh,
            at: now,
        };
        begun_or_not(&session::start(&self.database, begun).await.map_err(of(client))?).map_err(|r| r.of(client))?;
        Line::new("token", "exchange")
            .request(&request.request_id)
            .who(client.tenant.as_str(), &subject, &minted.jti)
            .text("client_id", client.client_id.as_str())
            .text("sid", &sid)
            .text("issuer", person.issuer.as_str())
            .text("kid", &minted.kid)
            .text("jkt", &proof.thumbprint)
            .decision("allow", "issued")
            .emit();
        let more = More { issued_token_type: Some(ACCESS_TOKEN), refresh_token: Some(refresh.text.expose()) };
        Ok(self.granted_with(&minted, &scopes, true, now, more))
    }

    /// The public client that asks. A client that can authenticate acts for itself and for nobody else.
    pub(super) async fn client_of_people(
        &self,
        request: &Request,
        form: &Form,
        now: Timestamp,
    ) -> Result<Client, Refused> {
        if public::is_authenticated(request, form) {
            let client = self.authenticated(request, form, now).await?;
            return Err(Refused::from(Error::UNAUTHORIZED_CLIENT).of(&client));
        }
        public::client(&self.database, form).await
    }

    /// Whether the token that is asked for is for this API (RFC 8693 §2.1, RFC 8707).
    pub(super) fn targets(&self, form: &Form) -> Result<(), Error> {
        let other = |name: &str| form.find(name).is_some_and(|target| target != self.settings.audience);
        if ["resource", "audience"].into_iter().any(other) { Err(Error::INVALID_TARGET) } else { Ok(()) }
    }

    /// What the subject token says, which is also what the request's own assertion says where it carries one.
    async fn subject(&self, request: &Request, form: &Form) -> Result<Assertion, Refused> {
        let own = person::of_request(&self.foreign, request, UNACCEPTABLE).await?;
        match (form.find("subject_token_type"), form.find("subject_token")) {
            (Some(ACCESS_HEADER), Some("header")) => own.ok_or_else(|| flawed(UNACCEPTABLE, Flaw::Missing)),
            (Some(JWT), Some(assertion)) => {
                let subject = verified(&self.foreign, assertion, UNACCEPTABLE).await?;
                let same = |own: &Assertion| own.is_of_whom(&subject);
                if own.as_ref().is_none_or(same) { Ok(subject) } else { Err(flawed(UNACCEPTABLE, Flaw::OfAnother)) }
            }
            (None, _) | (_, None) => {
                Err(Error::INVALID_REQUEST.because("subject_token or subject_token_type is missing").into())
            }
            _ => Err(Error::INVALID_REQUEST.because("the subject_token_type is not one of ours").into()),
        }
    }
}

/// What of RFC 8693 there is none of here: acting for somebody, and tokens of other kinds.
fn is_plain(form: &Form) -> Result<(), Error> {
    if ["actor_token", "actor_token_type"].iter().any(|name| form.find(name).is_some()) {
        return Err(Error::INVALID_REQUEST.because("nobody acts for another here"));
    }
    match form.find("requested_token_type") {
        None | Some(ACCESS_TOKEN) => Ok(()),
        Some(_) => Err(Error::INVALID_REQUEST.because("the requested_token_type is not one of ours")),
    }
}

fn begun_or_not(outcome: &str) -> Result<(), Refused> {
    match outcome {
        "ok" => Ok(()),
        "client_changed" => Err(refused(Error::INVALID_CLIENT, "client_changed")),
        "proof_replayed" => Err(refused(Error::INVALID_DPOP_PROOF, "proof_replayed")),
        // A revocation of this very moment would hit the new token too.
        "too_soon" => Err(refused(Error::TEMPORARILY_UNAVAILABLE, "revoked_just_now")),
        _ => Err(Error::SERVER_ERROR.into()),
    }
}

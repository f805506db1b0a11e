//! `refresh_token` (RFC 6749 §6, RFC 9700 §4.14.2): a person's session goes on, one token after the other.

use shared::access::{Flaw, Person};
use shared::audit::Line;
use shared::clock::Clock;
use shared::details::Details;
use shared::dpop::Proof;
use shared::entropy::Entropy;
use shared::http::{Request, Response};
use shared::jwt::Kind;
use shared::policy::Net;
use shared::port::{Database, ObjectReader, ObjectWriter, Signer};
use shared::scope::Scopes;

use super::{More, narrowed, of};
use crate::Token;
use crate::client::Client;
use crate::form::Form;
use crate::mint::{Asked, Claims, Minted};
use crate::oauth::Error;
use crate::person::{self, flawed};
use crate::refused::{Refused, refused};
use crate::session::{self, Found, RefreshToken};

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    pub(super) async fn refresh(&self, request: &Request, form: &Form) -> Result<Response, Refused> {
        let now = self.mint.now();
        let client = self.client_of_people(request, form, now).await?;
        // What is registered for a service acts for nobody else.
        if client.service.is_some() {
            return Err(flawed(Error::INVALID_GRANT, Flaw::OfAnother).of(&client));
        }
        let proof = self.bindings.proof((&self.database, &self.entropy), request, &client, now).await?;
        let proof = proof.ok_or_else(|| refused(Error::INVALID_DPOP_PROOF, "proof_missing").of(&client))?;
        self.targets(form).map_err(of(&client))?;
        let missing = || Refused::from(Error::INVALID_REQUEST.because("refresh_token is missing")).of(&client);
        let presented = (form.find("refresh_token").ok_or_else(missing)?, &proof);
        let person = person::of_request(&self.foreign, request, Error::INVALID_GRANT).await.map_err(of(&client))?;
        let person = person.ok_or_else(|| flawed(Error::INVALID_GRANT, Flaw::Missing).of(&client))?;
        let person = person.person().map_err(|flaw| flawed(Error::INVALID_GRANT, flaw).of(&client))?;
        let found = session::look(&self.database, &client, presented, &person, now).await.map_err(of(&client))?;
        let found = found.ok_or_else(|| refused(Error::INVALID_GRANT, "refresh_token_unknown").of(&client))?;
        if found.subject != person.token_subject() || found.iss != person.iss {
            return Err(flawed(Error::INVALID_GRANT, Flaw::OfAnother).of(&client));
        }
        if !matches!(found.state.as_str(), "current" | "retry") {
            // Nothing will be handed out, so nothing need be signed; but what the token's use means must be done.
            let outcome = session::refresh(&self.database, &client, presented, None, now).await;
            return Err(self.not_refreshed(request, &client, &found, &outcome.map_err(of(&client))?).await);
        }
        let (minted, scopes) =
            self.again(&client, (&proof, &person), &found, request, form).await.map_err(|r| r.of(&client))?;
        let next = RefreshToken::new(&self.entropy);
        let outcome = session::refresh(&self.database, &client, presented, Some((&next, minted.issued_at)), now).await;
        let outcome = outcome.map_err(of(&client))?;
        if !matches!(outcome.as_str(), "rotated" | "retried") {
            return Err(self.not_refreshed(request, &client, &found, &outcome).await);
        }
        Line::new("token", "refresh")
            .request(&request.request_id)
            .who(client.tenant.as_str(), &found.subject, &minted.jti)
            .text("client_id", client.client_id.as_str())
            .text("sid", &found.sid)
            .text("kid", &minted.kid)
            .decision("allow", if outcome == "rotated" { "rotated" } else { "retried" })
            .emit();
        let more = More { refresh_token: Some(next.text.expose()), ..More::default() };
        Ok(self.granted_with(&minted, &scopes, true, now, more))
    }

    /// Signs the next access token: for what the session was granted and the person may still do, and no longer than both the
    /// assertion and the session last.
    async fn again(
        &self,
        client: &Client,
        (proof, person): (&Proof, &Person),
        found: &Found,
        request: &Request,
        form: &Form,
    ) -> Result<(Minted, Scopes), Refused> {
        let identity = found.identity(Error::INVALID_GRANT)?;
        if identity.tenant != client.tenant {
            return Err(refused(Error::INVALID_GRANT, "identity_of_another_tenant"));
        }
        let still = identity.scopes.meet(&client.scopes).and_then(|allowed| allowed.meet(&found.scopes));
        let scopes = narrowed(&still.map_err(|_| Error::INVALID_SCOPE)?, form)?;
        let (net, details, device) = (Net::of(&request.headers), Details::default(), person.device());
        let claims = Claims {
            subject: &found.subject,
            client_id: client.client_id.as_str(),
            tenant: &client.tenant,
            kind: Kind::Human,
            audience: &self.settings.audience,
            scopes: &scopes,
            thumbprint: Some(&proof.thumbprint),
            ttl: client.ttl,
            session: Some(&found.sid),
            groups: Some(&identity.groups),
            device: device.as_ref(),
            service: None,
            not_after: Some(person.expires_at.min(found.ends)),
            details: &details,
            asked: Asked {
                grant: "refresh_token",
                issuer: person.issuer.as_str(),
                net: net.as_ref(),
                request_id: &request.request_id,
            },
        };
        let minted = self.mint.mint(&claims).await?;
        Ok((minted, scopes))
    }

    async fn not_refreshed(&self, request: &Request, client: &Client, found: &Found, outcome: &str) -> Refused {
        let refusal = match outcome {
            "reused" => {
                let nudge = self.nudge().await;
                Line::new("token", "session")
                    .request(&request.request_id)
                    .who(client.tenant.as_str(), &found.subject, "")
                    .text("client_id", client.client_id.as_str())
                    .text("sid", &found.sid)
                    .text("level", "WARN")
                    .text("nudge", nudge)
                    .decision("deny", "session_ended_by_reuse")
                    .emit();
                refused(Error::INVALID_GRANT, "refresh_token_reused")
            }
            "unknown" => refused(Error::INVALID_GRANT, "refresh_token_unknown"),
            "ended" => refused(Error::INVALID_GRANT, "session_ended"),
            "expired" => refused(Error::INVALID_GRANT, "session_expired"),
            "wrong_key" => refused(Error::INVALID_GRANT, "proof_wrong_key"),
            "client_changed" => refused(Error::INVALID_CLIENT, "client_changed"),
            "proof_replayed" => refused(Error::INVALID_DPOP_PROOF, "proof_replayed"),
            "too_soon" => refused(Error::TEMPORARILY_UNAVAILABLE, "revoked_just_now"),
            _ => Error::SERVER_ERROR.into(),
        };
        refusal.of(client)
    }
}

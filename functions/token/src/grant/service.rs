//! The exchange of a service's assertion (RFC 8693): a workload behind Cloudflare Access that has no key of its own registered here.
//!
//! What is given is the token of the one client that is registered with this service token, bound to a key of the moment, with no
//! session and no refresh token. The service token opens nothing here by itself: Cloudflare judges it, and every request with
//! the access token must come through Access with the same one again.

use shared::access::{Flaw, Service};
use shared::audit::Line;
use shared::clock::{Clock, Timestamp};
use shared::details::Details;
use shared::dpop::Proof;
use shared::entropy::Entropy;
use shared::http::{Request, Response};
use shared::jwt::Kind;
use shared::policy::Net;
use shared::port::{Database, ObjectReader, ObjectWriter, Signer};

use super::exchange::{ACCESS_TOKEN, GRANT, UNACCEPTABLE};
use super::{More, narrowed, of};
use crate::Token;
use crate::authentication::first_use;
use crate::client::{self, Client, Use};
use crate::form::Form;
use crate::mint::{Asked, Claims};
use crate::person::flawed;
use crate::refused::Refused;

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    /// For the client that is registered with this service token. A refusal has consumed nothing.
    pub(super) async fn exchange_of_service(
        &self,
        (client, proof): (&Client, &Proof),
        service: &Service,
        (request, form): (&Request, &Form),
        now: Timestamp,
    ) -> Result<Response, Refused> {
        if client.service.as_deref() != Some(service.common_name.as_str()) {
            return Err(flawed(UNACCEPTABLE, Flaw::OfAnother).of(client));
        }
        let scopes = narrowed(&client.scopes, form).map_err(of(client))?;
        let (id, net, details) = (client.client_id.as_str(), Net::of(&request.headers), Details::default());
        let claims = Claims {
            subject: id,
            client_id: id,
            tenant: &client.tenant,
            kind: Kind::Machine,
            audience: &self.settings.audience,
            scopes: &scopes,
            thumbprint: Some(&proof.thumbprint),
            ttl: client.ttl,
            session: None,
            groups: None,
            device: None,
            service: client.service.as_deref(),
            not_after: Some(service.expires_at),
            details: &details,
            asked: Asked {
                grant: GRANT,
                issuer: service.issuer.as_str(),
                net: net.as_ref(),
                request_id: &request.request_id,
            },
        };
        let minted = self.mint.mint(&claims).await.map_err(of(client))?;
        // Access's assertions have no id and may come again while they live; the proof may not, and the row must be the one that was read.
        let used = Use { once: None, until: service.expires_at };
        let consumed = client::consume(&self.database, client, &used, Some(proof), now).await.map_err(of(client))?;
        first_use(consumed, client)?;
        Line::new("token", "exchange")
            .request(&request.request_id)
            .who(client.tenant.as_str(), id, &minted.jti)
            .text("issuer", service.issuer.as_str())
            .text("service", &service.common_name)
            .text("kid", &minted.kid)
            .text("jkt", &proof.thumbprint)
            .decision("allow", "issued")
            .emit();
        let more = More { issued_token_type: Some(ACCESS_TOKEN), ..More::default() };
        Ok(self.granted_with(&minted, &scopes, true, now, more))
    }
}

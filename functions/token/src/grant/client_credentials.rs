//! `client_credentials` (RFC 6749 §4.4): a registered client for itself.

use std::sync::Arc;

use shared::audit::Line;
use shared::clock::Clock;
use shared::entropy::Entropy;
use shared::http::{Request, Response};
use shared::jwt::Kind;
use shared::policy::Net;
use shared::port::{Database, ObjectReader, ObjectWriter, Signer};

use super::{audience, details, of, scopes};
use crate::Token;
use crate::authentication::{Presented, first_use};
use crate::client::{self, Client};
use crate::form::Form;
use crate::mint::{Asked, Claims};
use crate::oauth::Error;
use crate::public;
use crate::refused::Refused;

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    pub(super) async fn client_credentials(&self, request: &Request, form: &Form) -> Result<Response, Refused> {
        if !public::is_authenticated(request, form)
            && let Some(client) = public::named(&self.database, form).await?
        {
            return Err(Refused::from(Error::UNAUTHORIZED_CLIENT).of(&client));
        }
        let presented = self.presented(request, form, self.mint.now()).await?;
        self.as_client(&presented, |client| self.credentials_of(client, &presented, request, form)).await
    }

    /// The order of [`Self::issue`]. A refusal has consumed nothing.
    async fn credentials_of(
        &self,
        client: Arc<Client>,
        presented: &Presented<'_>,
        request: &Request,
        form: &Form,
    ) -> Result<Response, Refused> {
        let now = presented.at;
        let used = presented.prove(&client, &self.settings.issuer)?;
        let proof = self.bindings.proof((&self.database, &self.entropy), request, &client, now).await?;
        let scopes = scopes(&client.scopes, form).map_err(of(&client))?;
        let audience = audience(&self.settings.audience, &client, form).map_err(of(&client))?;
        let details = details(form).map_err(of(&client))?;
        let net = Net::of(&request.headers);
        let thumbprint = proof.as_ref().map(|proof| proof.thumbprint.as_str());
        let id = client.client_id.as_str();
        let claims = Claims {
            subject: id,
            client_id: id,
            tenant: &client.tenant,
            kind: Kind::Machine,
            audience,
            scopes: &scopes,
            thumbprint,
            ttl: client.ttl,
            session: None,
            groups: None,
            device: None,
            service: client.service.as_deref(),
            not_after: None,
            details: &details,
            asked: Asked {
                grant: "client_credentials",
                issuer: presented.workload().map_or("own", |workload| workload.issuer().as_str()),
                net: net.as_ref(),
                request_id: &request.request_id,
            },
        };
        let minted = self.mint.mint(&claims).await.map_err(of(&client))?;
        first_use(client::consume(&self.database, &client, &used, proof.as_ref(), now).await?, &client)?;
        let mut line = Line::new("token", "issue")
            .request(&request.request_id)
            .who(client.tenant.as_str(), id, &minted.jti)
            .text("kid", &minted.kid)
            .text("jkt", thumbprint.unwrap_or_default());
        if let Some(workload) = presented.workload() {
            line = line.text("issuer", workload.issuer().as_str()).text("workload", &workload.describe());
        }
        line.decision("allow", "issued").emit();
        Ok(self.granted(&minted, &scopes, proof.is_some(), now))
    }
}

//! Tokens that were handed out: ending one (RFC 7009) and telling about one (RFC 7662).

use std::sync::Arc;

use serde_json::{Value, json};
use shared::audit::Line;
use shared::clock::{Clock, Timestamp};
use shared::entropy::{Entropy, uuid_v7};
use shared::http::{Request, Response};
use shared::jwt::{AccessToken, Kind};
use shared::port::{Database, ObjectReader, ObjectWriter, Precondition, Signer};
use shared::trust;

use crate::Token;
use crate::authentication::{Presented, first_use, form};
use crate::client::{self, Client, Use};
use crate::form::Form;
use crate::oauth::{self, Error};
use crate::public;
use crate::refused::{Refused, refused};
use crate::session;

impl<D, S, R, C, E> Token<D, S, R, C, E>
where
    D: Database,
    S: Signer,
    R: ObjectReader + ObjectWriter + Clone,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    /// Ends what a public client presents, or an access token of the client that proves itself.
    pub(crate) async fn revoke(&self, request: &Request) -> Result<Response, Refused> {
        let form = form(request)?;
        if !public::is_authenticated(request, &form)
            && let Some(client) = public::named(&self.database, &form).await?
        {
            return self.end_session(request, &form, &client).await;
        }
        self.revoke_own(request, &form).await
    }

    /// Ends a session by a token of it: with a client that holds no key, who has the token is who may. An access token must be the
    /// client's own and alive.
    async fn end_session(&self, request: &Request, form: &Form, client: &Client) -> Result<Response, Refused> {
        let (presented, now) = (presented(form, client)?, self.trust.now());
        // A refresh token is no JWT, and is known without any key.
        let of_access = if presented.contains('.') {
            match self.trust.genuine(presented, &self.accepts).await {
                Ok(t) if t.client_id == client.client_id.as_str() && t.tenant == client.tenant => Some(t),
                Ok(_) | Err(trust::Refusal::Credential(_)) => None,
                Err(trust::Refusal::Stale(stale)) => return Err(unjudged(stale, client)),
            }
        } else {
            None
        };
        let of_access = match of_access {
            Some(token) if token.session.is_none() => return self.end_token(request, client, &token, now).await,
            other => other.and_then(|token| token.session),
        };
        let of = of_access.as_deref().map_or(session::Of::Refresh(presented), session::Of::Sid);
        let outcome = session::end(&self.database, client, of, now).await;
        let outcome = outcome.map_err(|fault| Refused::from(fault).of(client))?;
        let line = line("revoke", request, client);
        if outcome == "revoked" {
            let nudge = self.nudge().await;
            line.text("nudge", nudge).decision("allow", "session_ended").emit();
        } else {
            line.decision("allow", "nothing_to_revoke").emit();
        }
        Ok(Response::empty(200).header("pragma", "no-cache"))
    }

    /// Ends a service's token, which has no session around it: with a client that holds no key, who has the token is who may.
    async fn end_token(
        &self,
        request: &Request,
        client: &Client,
        token: &AccessToken,
        now: Timestamp,
    ) -> Result<Response, Refused> {
        let used = Use { once: None, until: token.expires_at };
        let consumed = client::revoke(&self.database, client, &used, token, now).await;
        first_use(consumed.map_err(|fault| Refused::from(fault).of(client))?, client)?;
        let nudge = self.nudge().await;
        line("revoke", request, client)
            .text("revoked", &token.jti)
            .text("nudge", nudge)
            .decision("allow", "revoked")
            .emit();
        Ok(Response::empty(200).header("pragma", "no-cache"))
    }

    /// Ends an access token of the client that asks. Anything else that is presented as a token is answered alike and
    /// left alone: the answer tells nothing of it (RFC 7009 §2.2).
    async fn revoke_own(&self, request: &Request, form: &Form) -> Result<Response, Refused> {
        let asked = self.presented(request, form, self.trust.now()).await?;
        self.as_client(&asked, |client| self.revoke_for(client, &asked, form, request)).await
    }

    async fn revoke_for(
        &self,
        client: Arc<Client>,
        asked: &Presented<'_>,
        form: &Form,
        request: &Request,
    ) -> Result<Response, Refused> {
        let client = &*client;
        let used = asked.prove(client, &self.settings.issuer)?;
        let presented = presented(form, client)?;
        let judged = match self.trust.genuine(presented, &self.accepts).await {
            Ok(token) if token.client_id == client.client_id.as_str() && token.tenant == client.tenant => Ok(token),
            Ok(_) => Err("token_of_another_client"),
            Err(trust::Refusal::Credential(reason)) => Err(reason.as_str()),
            Err(trust::Refusal::Stale(stale)) => return Err(unjudged(stale, client)),
        };
        let consumed = match &judged {
            Ok(token) => client::revoke(&self.database, client, &used, token, asked.at).await,
            Err(_) => client::consume(&self.database, client, &used, None, asked.at).await,
        };
        first_use(consumed.map_err(|fault| Refused::from(fault).of(client))?, client)?;
        let line = line("revoke", request, client);
        match judged {
            Ok(token) => {
                let nudge = self.nudge().await;
                line.text("revoked", &token.jti).text("nudge", nudge).decision("allow", "revoked").emit();
            }
            Err(reason) => line.text("reason_of_token", reason).decision("allow", "nothing_to_revoke").emit(),
        }
        Ok(Response::empty(200).header("pragma", "no-cache"))
    }

    /// Tells what a token of the caller's tenant is good for; of any other nothing but that it is not (RFC 7662 §2.2).
    pub(crate) async fn introspect(&self, request: &Request) -> Result<Response, Refused> {
        let form = form(request)?;
        let asked = self.presented(request, &form, self.trust.now()).await?;
        self.as_client(&asked, |client| self.introspect_for(client, &asked, &form, request)).await
    }

    async fn introspect_for(
        &self,
        client: Arc<Client>,
        asked: &Presented<'_>,
        form: &Form,
        request: &Request,
    ) -> Result<Response, Refused> {
        let client = &*client;
        let used = asked.prove(client, &self.settings.issuer)?;
        let presented = presented(form, client)?;
        let judged = match self.trust.admit(presented, &self.accepts).await {
            Ok(token) if token.tenant == client.tenant => Ok(token),
            Ok(_) => Err("token_of_another_tenant"),
            Err(trust::Refusal::Credential(reason)) => Err(reason.as_str()),
            Err(trust::Refusal::Stale(stale)) => return Err(unjudged(stale, client)),
        };
        let consumed = client::consume(&self.database, client, &used, None, asked.at).await;
        first_use(consumed.map_err(|fault| Refused::from(fault).of(client))?, client)?;
        let line = line("introspect", request, client);
        let body = match judged {
            Ok(token) => {
                line.text("introspected", &token.jti).decision("allow", "active").emit();
                self.described(&token)
            }
            Err(reason) => {
                line.text("reason_of_token", reason).decision("allow", "inactive").emit();
                json!({"active": false})
            }
        };
        Ok(oauth::uncached(200, &body))
    }

    fn described(&self, token: &AccessToken) -> Value {
        let mut body = json!({
            "active": true, "scope": token.scopes.to_string(), "client_id": token.client_id, "sub": token.subject,
            "aud": self.accepts.audience, "iss": self.accepts.issuer, "exp": token.expires_at.seconds(),
            "iat": token.issued_at.seconds(), "jti": token.jti, "token_type": "Bearer", "tenant": token.tenant.as_str(),
        });
        let Some(members) = body.as_object_mut() else { return body };
        if !token.details.is_empty() {
            members.insert("authorization_details".to_owned(), token.details.to_value());
        }
        if let Some(thumbprint) = &token.thumbprint {
            members.insert("token_type".to_owned(), json!("DPoP"));
            members.insert("cnf".to_owned(), json!({"jkt": thumbprint}));
        }
        if let Some(service) = &token.service {
            members.insert("service".to_owned(), json!(service));
        }
        if token.kind == Kind::Human {
            members.insert("kind".to_owned(), json!(token.kind.as_str()));
            members.insert("sid".to_owned(), json!(token.session));
            members.insert("groups".to_owned(), token.groups.iter().collect());
        }
        body
    }

    /// The revocation is committed: a nudge that cannot be written costs at most the schedule's minute.
    pub(crate) async fn nudge(&self) -> &'static str {
        let key = format!("trust-inbox/token/{}", uuid_v7(self.trust.now(), &self.entropy));
        match self.inbox.write(&key, Vec::new(), Precondition::Always).await {
            Ok(_) => "delivered",
            Err(fault) => {
                Line::new("token", "nudge").fault(&fault).emit();
                "failed"
            }
        }
    }
}

/// The parameter `token`; `token_type_hint` is a hint and decides nothing, because every token says itself what it is.
fn presented<'a>(form: &'a Form, client: &Client) -> Result<&'a str, Refused> {
    let missing = || Refused::from(Error::INVALID_REQUEST.because("token is missing")).of(client);
    form.find("token").ok_or_else(missing)
}

/// Without keys nobody can tell a token from garbage, so nothing is said and nothing consumed.
fn unjudged(_: trust::Stale, client: &Client) -> Refused {
    refused(Error::TEMPORARILY_UNAVAILABLE, "trust_stale").of(client).settled()
}

fn line(action: &'static str, request: &Request, client: &Client) -> Line {
    Line::new("token", action)
        .request(&request.request_id)
        .text("tenant", client.tenant.as_str())
        .text("client_id", client.client_id.as_str())
}

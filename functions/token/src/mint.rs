//! Making an access token: claims, header, signature, and the proof that verifiers will accept it (RFC 9068).

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use shared::audit::Line;
use shared::clock::{Clock, Timestamp};
use shared::details::Details;
use shared::device::Device;
use shared::encoding::base64url;
use shared::entropy::{Entropy, uuid_v7};
use shared::jwt::{self, Kind};
use shared::name::{Groups, Tenant};
use shared::policy::{Ask, Judge, Judged, Net, Principal, Reason, What};
use shared::port::{Fault, FaultKind, ObjectReader, Signer};
use shared::scope::Scopes;
use shared::secret::SecretString;
use shared::trust::{Cached, OwnKeys, Posture, SigningState};

use crate::config::Settings;
use crate::oauth::Error;
use crate::refused::{Refused, refused};

/// The life of a token whose client asks for nothing else, in seconds.
pub const DEFAULT_TTL: i64 = 300;

/// What a token says, apart from its id, its times and its issuer (RFC 9068 §2.2).
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// `sub`
    pub subject: &'a str,
    /// `client_id`
    pub client_id: &'a str,
    /// `tenant`
    pub tenant: &'a Tenant,
    /// `kind`
    pub kind: Kind,
    /// `aud`
    pub audience: &'a str,
    /// `scope`
    pub scopes: &'a Scopes,
    /// `cnf.jkt`: the key that the token is bound to (RFC 9449 §6)
    pub thumbprint: Option<&'a str>,
    /// The longest life it may have, in seconds.
    pub ttl: i64,
    /// `sid`: the session, of a person.
    pub session: Option<&'a str>,
    /// `groups`, of a person.
    pub groups: Option<&'a Groups>,
    /// `device`, where somebody vouches for one; the list of devices goes before it.
    pub device: Option<&'a Device>,
    /// `service`: the Access service token that must come along with a machine's.
    pub service: Option<&'a str>,
    /// When it must have ended at the latest: what it was given for does not last longer.
    pub not_after: Option<Timestamp>,
    /// `authorization_details`: what it is narrowed to
    pub details: &'a Details,
    /// What was asked, in the words of policy and of the log.
    pub asked: Asked<'a>,
}

/// The request for a token, apart from the token.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The grant type.
    pub grant: &'a str,
    /// The issuer that vouched, by its id; `own` where a key that is registered here did.
    pub issuer: &'a str,
    /// Where the request comes from.
    pub net: Option<&'a Net>,
    /// Its id, for the log.
    pub request_id: &'a str,
}

/// A signed token and what the answer says about it.
pub struct Minted {
    /// The compact JWS.
    pub token: SecretString,
    /// Its id, for the log.
    pub jti: String,
    /// `iat`
    pub issued_at: Timestamp,
    /// Its life in seconds.
    pub expires_in: i64,
    /// The key that signed it.
    pub kid: String,
    /// What it is narrowed to, for the answer.
    pub details: Details,
}

/// A token's header.
#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a str,
}

/// A token's claims as they stand in it.
#[derive(Serialize)]
struct Said<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
    scope: String,
    tenant: &'a str,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_details: Option<Value>,
}

/// `cnf` (RFC 9449 §6.1).
#[derive(Serialize)]
struct Confirmation<'a> {
    jkt: &'a str,
}

/// Signs tokens with the active key of the newest signing state.
pub struct Mint<S, R, C, E> {
    settings: Settings,
    signer: S,
    reader: R,
    policies: Arc<dyn Judge>,
    clock: C,
    entropy: E,
    state: Cached<SigningState>,
    keys: Cached<OwnKeys>,
    posture: Cached<Posture>,
    proven: Mutex<Option<String>>,
}

impl<S: Signer, R: ObjectReader, C: Clock, E: Entropy> Mint<S, R, C, E> {
    /// A mint; nothing is read or signed yet.
    pub fn new(settings: Settings, signer: S, reader: R, policies: Arc<dyn Judge>, clock: C, entropy: E) -> Self {
        let (state, keys, posture) = (Cached::default(), Cached::default(), Cached::default());
        Self { settings, signer, reader, policies, clock, entropy, state, keys, posture, proven: Mutex::new(None) }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Signs a token that policy permits. Nothing is consumed by it: an unused token is only a lost signature.
    pub(crate) async fn mint(&self, claims: &Claims<'_>) -> Result<Minted, Refused> {
        let listed = self.listed(claims).await;
        let claims = &Claims { device: listed.as_deref().or(claims.device), ..*claims };
        let ask = self.question(claims);
        let (judged, state) = tokio::join!(self.policies.judge(&ask), self.state.current(&self.reader, &self.clock));
        let judged = judged.map_err(|_| refused(Error::TEMPORARILY_UNAVAILABLE, "trust_stale"))?;
        tell(&ask, &judged, claims.asked.request_id);
        if !judged.decision.allows() {
            return Err(refused(Error::ACCESS_DENIED, judged.decision.reason.as_str()));
        }
        let state = state.map_err(|_| Fault::new(FaultKind::Unavailable, "trust", "signing-state"))?;
        Ok(self.sign(claims, &state).await?)
    }

    /// The device on which the token's key was made. While nobody can say, the token says nothing of it, which opens nothing.
    async fn listed(&self, claims: &Claims<'_>) -> Option<Arc<Device>> {
        let thumbprint = claims.thumbprint?;
        let posture = self.posture.current(&self.reader, &self.clock).await.ok()?;
        posture.of_key(claims.tenant, thumbprint).cloned()
    }

    async fn sign(&self, claims: &Claims<'_>, state: &SigningState) -> Result<Minted, Fault> {
        let algorithm = self.settings.algorithm;
        let key = state.active(algorithm).ok_or_else(|| Fault::new(FaultKind::Unavailable, "trust", "active-key"))?;
        let now = self.clock.now();
        let left = claims.not_after.map_or(i64::MAX, |end| end.seconds() - now.seconds());
        let expires_in = claims.ttl.min(DEFAULT_TTL).min(left);
        if expires_in < 1 {
            return Err(Fault::new(FaultKind::Conflict, "mint", "ended-meanwhile"));
        }
        let jti = uuid_v7(now, &self.entropy).to_string();
        let (details, audience) = (claims.details.clone(), claims.audience);
        let header = Header { alg: algorithm.as_str(), typ: "at+jwt", kid: &key.kid };
        let written = |_| Fault::new(FaultKind::Invalid, "mint", "claims");
        let header = serde_json::to_string(&header).map_err(written)?;
        let claims = self.claims(claims, &jti, now.seconds(), expires_in).map_err(written)?;
        let mut token = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = self.signer.sign(&key.key, algorithm, token.as_bytes()).await?;
        token.push('.');
        token.push_str(&base64url(&signature));
        let token = SecretString::new(token);
        self.prove(&key.kid, &token, audience, now).await?;
        let issued_at = Timestamp::from_seconds(now.seconds());
        Ok(Minted { token, jti, issued_at, expires_in, kid: key.kid.clone(), details })
    }

    /// What policy is asked. Every claim is taken by name: one that is added must not pass by policy unnoticed.
    fn question(&self, claims: &Claims<'_>) -> Ask {
        // Which session it is says nothing, and its end only shortens the life.
        let &Claims {
            subject,
            client_id,
            tenant,
            kind,
            audience,
            scopes,
            thumbprint,
            ttl,
            groups,
            device,
            details,
            asked,
            // It only adds to what a request has to bring.
            service: _,
            session: _,
            not_after: _,
        } = claims;
        Ask {
            principal: Principal {
                kind,
                id: subject.to_owned(),
                tenant: tenant.as_str().to_owned(),
                groups: groups.into_iter().flat_map(Groups::iter).map(str::to_owned).collect(),
            },
            now: self.clock.now().seconds(),
            net: asked.net.cloned(),
            device: device.cloned(),
            what: What::Mint(shared::policy::Mint {
                audience: audience.to_owned(),
                grant: asked.grant.to_owned(),
                issuer: asked.issuer.to_owned(),
                client_id: client_id.to_owned(),
                scopes: scopes.iter().map(str::to_owned).collect(),
                ttl: ttl.min(DEFAULT_TTL),
                bound: thumbprint.is_some(),
                details: !details.is_empty(),
            }),
        }
    }

    fn claims(&self, claims: &Claims<'_>, jti: &str, iat: i64, expires_in: i64) -> Result<String, serde_json::Error> {
        let said = Said {
            iss: &self.settings.issuer,
            sub: claims.subject,
            aud: claims.audience,
            client_id: claims.client_id,
            iat,
            exp: iat + expires_in,
            jti,
            scope: claims.scopes.to_string(),
            tenant: claims.tenant.as_str(),
            kind: claims.kind,
            cnf: claims.thumbprint.map(|jkt| Confirmation { jkt }),
            sid: claims.session,
            groups: claims.groups.filter(|groups| !groups.is_empty()).map(|groups| groups.iter().collect()),
            device: claims.device.map(Device::to_value),
            service: claims.service,
            authorization_details: (!claims.details.is_empty()).then(|| claims.details.to_value()),
        };
        serde_json::to_string(&said)
    }

    /// Verifies the first token under each key as a verifier would: a key that was swapped behind its name is noticed
    /// before anybody is handed a token that nobody accepts.
    async fn prove(&self, kid: &str, token: &SecretString, audience: &str, now: Timestamp) -> Result<(), Fault> {
        if self.lock().as_deref() == Some(kid) {
            return Ok(());
        }
        let stale = |_| Fault::new(FaultKind::Unavailable, "trust", "keys");
        let keys = self.keys.current(&self.reader, &self.clock).await.map_err(stale)?;
        jwt::access_token(token.expose(), &self.settings.issuer, audience, &keys.0, now)
            .map_err(|reason| Fault::new(FaultKind::Unavailable, "signer", "self-check").caused_by(reason.as_str()))?;
        *self.lock() = Some(kid.to_owned());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line for the decision, one more where a candidate would decide otherwise.
fn tell(ask: &Ask, judged: &Judged, request_id: &str) {
    let line = judged.explain(Line::new("token", "mint").request(request_id)).ask(ask);
    let reason = judged.decision.reason;
    match reason {
        Reason::Permitted => line.decision("allow", reason.as_str()).emit(),
        // A policy that fails denies whoever it is asked about: somebody has to look.
        Reason::PolicyError => line.text("level", "ERROR").decision("fault", reason.as_str()).emit(),
        _ => line.decision("deny", reason.as_str()).emit(),
    }
    if let Some(shadow) = judged.shadow_line("token", ask, request_id) {
        shadow.emit();
    }
}

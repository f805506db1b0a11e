//! Strict JSON Web Tokens: who signed this, with which key, and for what (RFC 7515, 7519, 8725, 9068, 7523).
//!
//! Only [`access_token`] and [`Assertion::verify`] turn text into something a decision may read. Before the signature holds
//! nothing but `kid`, `alg` and `iss` is looked at, and only to choose the key.

pub(crate) mod compact;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::compact::Compact;
use crate::access;
use crate::clock::Timestamp;
use crate::details::Details;
use crate::device::Device;
use crate::dpop::Flaw;
use crate::jwks::{Algorithm, Key, KeySet};
use crate::name::{ClientId, Groups, Tenant};
use crate::scope::Scopes;

/// The longest token that is read, in bytes.
pub const MAX_LENGTH: usize = 8192;
/// How far in the future `iat` and `nbf` may lie, in seconds.
pub const FUTURE_SKEW: i64 = 10;
/// The longest life an access token may have, in seconds.
pub const MAX_ACCESS_LIFE: i64 = 900;
/// The longest life a client assertion may have, in seconds.
pub const MAX_ASSERTION_LIFE: i64 = 300;
const MAX_DATE: i64 = 253_402_300_799;

/// Why a credential was refused. Goes to the log, never to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// No credential was sent.
    Missing,
    /// More than one credential, or one in a place where none may be.
    Ambiguous,
    /// Not a compact JWS in canonical form.
    Malformed,
    /// `typ` is not the one of this kind of token.
    WrongType,
    /// `alg` is unknown or not the one bound to the key.
    WrongAlgorithm,
    /// The header asks for something that must be understood or must not be there (`crit`, `jwk`, `jku`, `x5u`, `x5c`, `zip`).
    ForbiddenHeader,
    /// No key with this `kid`.
    UnknownKey,
    /// The signature does not hold.
    BadSignature,
    /// `iss` is not the issuer.
    WrongIssuer,
    /// `aud` is not this API.
    WrongAudience,
    /// A claim is missing or has another type than it must have.
    BadClaims,
    /// `exp` has passed.
    Expired,
    /// `iat` or `nbf` lies in the future.
    NotYetValid,
    /// The token lives longer than any may.
    TooLongLived,
    /// Revoked by its id, key, subject, session, client, tenant or device.
    Revoked,
    /// Bound to a key, but no proof that this build could check.
    UnsupportedBinding,
    /// Narrowed in a way that this build does not understand.
    UnsupportedRestriction,
    /// A human's token without the Access assertion that must come with it.
    AssertionRequired,
    /// The proof of possession that a bound token demands (RFC 9449) is not what it must be.
    Proof(Flaw),
    /// The Access assertion that must come along is not what it must be.
    Assertion(access::Flaw),
}

impl Reason {
    /// The stable name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "credential_missing",
            Self::Ambiguous => "credential_ambiguous",
            Self::Malformed => "token_malformed",
            Self::WrongType => "token_wrong_type",
            Self::WrongAlgorithm => "token_wrong_algorithm",
            Self::ForbiddenHeader => "token_forbidden_header",
            Self::UnknownKey => "token_unknown_key",
            Self::BadSignature => "token_bad_signature",
            Self::WrongIssuer => "token_wrong_issuer",
            Self::WrongAudience => "token_wrong_audience",
            Self::BadClaims => "token_bad_claims",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::TooLongLived => "token_too_long_lived",
            Self::Revoked => "token_revoked",
            Self::UnsupportedBinding => "token_unsupported_binding",
            Self::UnsupportedRestriction => "token_unsupported_restriction",
            Self::AssertionRequired => "assertion_required",
            Self::Proof(flaw) => flaw.as_str(),
            Self::Assertion(flaw) => flaw.as_str(),
        }
    }
}

/// Machine or human: the claim `kind`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A registered client acting for itself.
    Machine,
    /// A person.
    Human,
}

impl Kind {
    /// As the claim says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Human => "human",
        }
    }
}

/// A verified access token (RFC 9068). There is no other way to get one than [`access_token`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessToken {
    /// The key that signed it.
    pub kid: String,
    /// `sub`
    pub subject: String,
    /// `client_id`
    pub client_id: String,
    /// `jti`
    pub jti: String,
    /// `iat`
    pub issued_at: Timestamp,
    /// `exp`
    pub expires_at: Timestamp,
    /// `scope`
    pub scopes: Scopes,
    /// `tenant`
    pub tenant: Tenant,
    /// `kind`
    pub kind: Kind,
    /// `sid`, humans only
    pub session: Option<String>,
    /// `groups`, humans only
    pub groups: Groups,
    /// `cnf.jkt`, when bound
    pub thumbprint: Option<String>,
    /// `device`, where its posture was known
    pub device: Option<Device>,
    /// `service`: the Access service token that must come along, machines only
    pub service: Option<String>,
    /// `authorization_details`: what it is narrowed to
    pub details: Details,
}

/// Verifies an access token of our own issuer.
///
/// `typ` must be `at+jwt`, every claim of the profile present with its type, `now < exp` without leeway,
/// `exp − iat ≤ 900 s`, `iat` at most 10 s ahead, `aud` one string equal to `audience`.
pub fn access_token(
    token: &str,
    issuer: &str,
    audience: &str,
    keys: &KeySet,
    now: Timestamp,
) -> Result<AccessToken, Reason> {
    signed(token, issuer, audience, keys, now).map(|signed| signed.token)
}

/// An access token that was verified, and what of that holds for as long as its key does: all but the time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Signed {
    pub(crate) token: AccessToken,
    not_before: Timestamp,
    algorithm: Algorithm,
    /// Of the key, by its own bytes (RFC 7638): another key may come under the same id.
    thumbprint: String,
}

impl Signed {
    /// Whether the key under which the signature was found good is one of these still.
    pub(crate) fn is_of(&self, keys: &KeySet) -> bool {
        let same = |key: &Key| key.algorithm == self.algorithm && key.thumbprint == self.thumbprint;
        keys.find(&self.token.kid).is_some_and(same)
    }

    /// Whether the token is of now: what alone of its claims can turn wrong.
    pub(crate) fn timely(&self, now: Timestamp) -> Result<(), Reason> {
        timely(self.not_before, self.token.expires_at, now)
    }
}

/// The same as [`access_token`], to be kept.
pub(crate) fn signed(
    token: &str,
    issuer: &str,
    audience: &str,
    keys: &KeySet,
    now: Timestamp,
) -> Result<Signed, Reason> {
    let parsed = Compact::parse(token)?;
    if parsed.header_text("typ")? != Some("at+jwt") {
        return Err(Reason::WrongType);
    }
    if parsed.header.keys().any(|name| !matches!(name.as_str(), "alg" | "typ" | "kid")) {
        return Err(Reason::ForbiddenHeader);
    }
    if parsed.claims.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(Reason::WrongIssuer);
    }
    let key = parsed.verify(keys)?;
    let claims = &parsed.claims;
    if text(claims, "aud")? != audience {
        return Err(Reason::WrongAudience);
    }
    // RFC 9396: whoever ignores the details takes a token for one file as a token for all of them.
    let details = claims.get("authorization_details").map(Details::parse).transpose();
    let details = details.map_err(|_| Reason::UnsupportedRestriction)?.unwrap_or_default();
    let Lived { issued_at, not_before, expires_at } = lifetime(claims, now, &ACCESS)?;
    let kind = match text(claims, "kind")? {
        "machine" => Kind::Machine,
        "human" => Kind::Human,
        _ => return Err(Reason::BadClaims),
    };
    let token = AccessToken {
        kid: key.kid.clone(),
        subject: bounded(claims, "sub", 256)?.to_owned(),
        client_id: ClientId::parse(text(claims, "client_id")?).map_err(|_| Reason::BadClaims)?.as_str().to_owned(),
        jti: bounded(claims, "jti", 128)?.to_owned(),
        issued_at,
        expires_at,
        scopes: Scopes::parse(text(claims, "scope")?).map_err(|_| Reason::BadClaims)?,
        tenant: Tenant::parse(text(claims, "tenant")?).map_err(|_| Reason::BadClaims)?,
        kind,
        session: optional(claims, "sid")?,
        groups: groups(claims, kind)?,
        thumbprint: confirmation(claims)?,
        device: claims.get("device").map(Device::parse).transpose().map_err(|_| Reason::BadClaims)?,
        service: service(claims, kind)?,
        details,
    };
    Ok(Signed { token, not_before, algorithm: key.algorithm, thumbprint: key.thumbprint.clone() })
}

/// A verified client assertion (RFC 7523 §3): who, and the id that may be used once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientAssertion {
    /// `jti`
    pub jti: String,
    /// `exp`
    pub expires_at: Timestamp,
    /// The client's key that signed it.
    pub kid: String,
}

/// A client assertion that was read and says nothing yet but whose it claims to be.
pub struct Assertion<'a>(Compact<'a>);

impl<'a> Assertion<'a> {
    /// Of a token in which whoever looks for the issuer may have tolerated more than a client may send.
    pub(crate) fn read(parsed: Compact<'a>) -> Self {
        Self(parsed)
    }

    /// Verifies it under the client's registered keys.
    ///
    /// `iss == sub == client_id`; `aud` is our issuer identifier as one string (RFC 7523bis, FAPI 2.0 §5.3.2.1); `typ` absent,
    /// `JWT` or `client-authentication+jwt`; `exp − iat ≤ 300 s`, or `exp` at most 300 s ahead where `iat` is absent.
    pub fn verify(
        &self,
        client_id: &str,
        issuer: &str,
        keys: &KeySet,
        now: Timestamp,
    ) -> Result<ClientAssertion, Reason> {
        let parsed = &self.0;
        parsed.tolerates_nothing()?;
        if !matches!(parsed.header_text("typ")?, None | Some("JWT" | "client-authentication+jwt")) {
            return Err(Reason::WrongType);
        }
        let key = parsed.verify(keys)?;
        let claims = &parsed.claims;
        if text(claims, "iss")? != client_id || text(claims, "sub")? != client_id {
            return Err(Reason::WrongIssuer);
        }
        if text(claims, "aud")? != issuer {
            return Err(Reason::WrongAudience);
        }
        let expires_at = lifetime(claims, now, &ASSERTION)?.expires_at;
        Ok(ClientAssertion { jti: bounded(claims, "jti", 128)?.to_owned(), expires_at, kid: key.kid.clone() })
    }
}

impl std::fmt::Debug for Assertion<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Assertion")
    }
}

/// How long a kind of token may live, and whether it must say since when.
struct Life {
    longest: i64,
    issued_required: bool,
}

const ACCESS: Life = Life { longest: MAX_ACCESS_LIFE, issued_required: true };
const ASSERTION: Life = Life { longest: MAX_ASSERTION_LIFE, issued_required: false };

/// When a token is good.
struct Lived {
    issued_at: Timestamp,
    /// The later one of `iat` and `nbf`.
    not_before: Timestamp,
    expires_at: Timestamp,
}

/// `iat`, `nbf` and `exp`, checked without leeway; where `iat` may be absent the life is counted from now.
fn lifetime(claims: &Map<String, Value>, now: Timestamp, life: &Life) -> Result<Lived, Reason> {
    let expires = date(claims, "exp")?.ok_or(Reason::BadClaims)?;
    let issued = date(claims, "iat")?;
    if issued.is_none() && life.issued_required || issued.is_some_and(|issued| expires <= issued) {
        return Err(Reason::BadClaims);
    }
    let from = issued.unwrap_or(now.seconds());
    let start = date(claims, "nbf");
    let expires_at = Timestamp::from_seconds(expires);
    // What has passed is told as that, whatever else is wrong with its dates.
    let not_before = Timestamp::from_seconds(start.ok().flatten().map_or(from, |start| start.max(from)));
    timely(not_before, expires_at, now)?;
    start?;
    if expires - from > life.longest {
        return Err(Reason::TooLongLived);
    }
    Ok(Lived { issued_at: Timestamp::from_seconds(from), not_before, expires_at })
}

fn timely(not_before: Timestamp, expires_at: Timestamp, now: Timestamp) -> Result<(), Reason> {
    if now >= expires_at {
        return Err(Reason::Expired);
    }
    if not_before > now.plus_seconds(FUTURE_SKEW) { Err(Reason::NotYetValid) } else { Ok(()) }
}

pub(crate) fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_i64().filter(|date| (0..=MAX_DATE).contains(date)).map(Some).ok_or(Reason::BadClaims),
    }
}

pub(crate) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<&'a str, Reason> {
    claims.get(name).and_then(Value::as_str).ok_or(Reason::BadClaims)
}

pub(crate) fn bounded<'a>(claims: &'a Map<String, Value>, name: &str, longest: usize) -> Result<&'a str, Reason> {
    text(claims, name).and_then(|value| {
        let printable = value.chars().all(|c| !c.is_control());
        if value.is_empty() || value.len() > longest || !printable { Err(Reason::BadClaims) } else { Ok(value) }
    })
}

fn optional(claims: &Map<String, Value>, name: &str) -> Result<Option<String>, Reason> {
    if claims.contains_key(name) { bounded(claims, name, 128).map(|value| Some(value.to_owned())) } else { Ok(None) }
}

/// `cnf` with exactly the member `jkt`; a confirmation we do not understand must not pass as none.
fn confirmation(claims: &Map<String, Value>) -> Result<Option<String>, Reason> {
    let Some(cnf) = claims.get("cnf") else { return Ok(None) };
    let cnf = cnf.as_object().ok_or(Reason::BadClaims)?;
    match cnf.get("jkt").and_then(Value::as_str) {
        Some(jkt) if cnf.len() == 1 => Ok(Some(jkt.to_owned())),
        _ => Err(Reason::UnsupportedBinding),
    }
}

/// The service token of a machine; a person has Access's assertion of their own.
fn service(claims: &Map<String, Value>, kind: Kind) -> Result<Option<String>, Reason> {
    if !claims.contains_key("service") {
        return Ok(None);
    }
    let service = text(claims, "service")?;
    if kind == Kind::Machine && access::is_service(service) {
        Ok(Some(service.to_owned()))
    } else {
        Err(Reason::BadClaims)
    }
}

/// The groups of a person; a machine has none to be in.
fn groups(claims: &Map<String, Value>, kind: Kind) -> Result<Groups, Reason> {
    let Some(listed) = claims.get("groups") else { return Ok(Groups::default()) };
    let names: Option<Vec<&str>> = listed.as_array().and_then(|listed| listed.iter().map(Value::as_str).collect());
    let names = names.filter(|_| kind == Kind::Human).ok_or(Reason::BadClaims)?;
    Groups::of(names).map_err(|_| Reason::BadClaims)
}

#[cfg(test)]
mod tests;

//! Assertions of Cloudflare Access: who passed the application's policy, a person or a service.
//!
//! Access signs two forms under one profile (Cloudflare One documentation, "Application token"): a person's, with `sub` and
//! `email`, and a service token's, with `common_name` and an empty `sub`. Exactly one of them must match: what could be read
//! as both, or as neither, is refused. Who a person is to us is another table's business.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::device::Device;
use crate::http::Headers;
use crate::issuer::{IssuerKind, Profile, Profiles};
use crate::jwks::KeySet;
use crate::jwt::compact::Compact;
use crate::jwt::{FUTURE_SKEW, Reason, bounded, date, text};
use crate::name::IssuerId;

/// The header in which Access hands its assertion to what stands behind it.
pub const HEADER: &str = "cf-access-jwt-assertion";

/// [`Device::source`] of a device that is known by the application alone through which its user came.
pub const TIER: &str = "access-tier";

/// What is wrong with an assertion. Goes to the log, never to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flaw {
    /// There is none, and one is demanded.
    Missing,
    /// More than one.
    Ambiguous,
    /// Not a compact JWS in canonical form.
    Malformed,
    /// `typ` is not `JWT`.
    WrongType,
    /// `alg` is not the one bound to the key, or the profile does not have it.
    WrongAlgorithm,
    /// The header holds something that must not be there.
    ForbiddenHeader,
    /// No profile of Cloudflare Access has this issuer and application.
    UnknownIssuer,
    /// The issuer has no key with this `kid`.
    UnknownKey,
    /// The signature does not hold.
    BadSignature,
    /// `aud` is not exactly the application's tag.
    WrongAudience,
    /// The claims are neither a person's nor a service's, or are both.
    BadClaims,
    /// `exp` has passed.
    Expired,
    /// `iat` or `nbf` lies in the future.
    NotYetValid,
    /// It is a service's where a person's is demanded.
    OfService,
    /// It is of somebody else than the token, the session or the other assertion.
    OfAnother,
}

impl Flaw {
    /// The stable name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "assertion_required",
            Self::Ambiguous => "assertion_ambiguous",
            Self::Malformed => "assertion_malformed",
            Self::WrongType => "assertion_wrong_type",
            Self::WrongAlgorithm => "assertion_wrong_algorithm",
            Self::ForbiddenHeader => "assertion_forbidden_header",
            Self::UnknownIssuer => "assertion_unknown_issuer",
            Self::UnknownKey => "assertion_unknown_key",
            Self::BadSignature => "assertion_bad_signature",
            Self::WrongAudience => "assertion_wrong_audience",
            Self::BadClaims => "assertion_bad_claims",
            Self::Expired => "assertion_expired",
            Self::NotYetValid => "assertion_not_yet_valid",
            Self::OfService => "assertion_of_service",
            Self::OfAnother => "assertion_of_another",
        }
    }

    const fn of(reason: Reason) -> Self {
        match reason {
            Reason::ForbiddenHeader => Self::ForbiddenHeader,
            Reason::WrongAlgorithm => Self::WrongAlgorithm,
            Reason::UnknownKey => Self::UnknownKey,
            Reason::BadSignature => Self::BadSignature,
            Reason::BadClaims => Self::BadClaims,
            _ => Self::Malformed,
        }
    }
}

/// A person who passed the application's policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// The issuer's id among ours.
    pub issuer: IssuerId,
    /// `iss`
    pub iss: String,
    /// `sub`: a UUID in its one spelling.
    pub subject: String,
    /// `email`, as it stands in the assertion.
    pub email: String,
    /// Whether the application lets people in on managed devices alone.
    pub managed: bool,
    /// `custom.groups`, where the identity provider's groups are among the claims that Access hands on.
    pub groups: Vec<String>,
    /// `iat`
    pub issued_at: Timestamp,
    /// `exp`
    pub expires_at: Timestamp,
}

impl Person {
    /// `sub` of the person's access tokens.
    pub fn token_subject(&self) -> String {
        token_subject(&self.subject)
    }

    /// The device that the application vouches for, if it does. Which one it is Access does not say, so it goes by the
    /// application's name.
    pub fn device(&self) -> Option<Device> {
        self.managed.then(|| Device {
            id: self.issuer.as_str().to_owned(),
            managed: Some(true),
            os: None,
            os_version: None,
            disk_encrypted: None,
            firewall: None,
            source: TIER.to_owned(),
            checked_at: self.issued_at,
        })
    }
}

/// `sub` of the access tokens of the person with this Cloudflare `sub`.
pub fn token_subject(subject: &str) -> String {
    format!("access|{subject}")
}

/// A service token that passed the application's policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// The issuer's id among ours.
    pub issuer: IssuerId,
    /// `common_name`: the service token's client id, 32 hexadecimal digits and `.access`.
    pub common_name: String,
    /// `exp`
    pub expires_at: Timestamp,
}

/// A verified assertion. There is no other way to get one than [`verify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Assertion {
    /// Of a person.
    Person(Person),
    /// Of a service token.
    Service(Service),
}

impl Assertion {
    /// The person, where it is one.
    pub fn person(self) -> Result<Person, Flaw> {
        match self {
            Self::Person(person) => Ok(person),
            Self::Service(_) => Err(Flaw::OfService),
        }
    }

    /// Whether two are of the same person, or of the same service.
    pub fn is_of_whom(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Person(one), Self::Person(other)) => (&one.iss, &one.subject) == (&other.iss, &other.subject),
            (Self::Service(one), Self::Service(other)) => {
                (&one.issuer, &one.common_name) == (&other.issuer, &other.common_name)
            }
            _ => false,
        }
    }
}

/// The one assertion among the headers, if there is any. The cookie that holds a copy is never read.
pub fn header(headers: &Headers) -> Result<Option<&str>, Flaw> {
    let mut values = headers.all(HEADER);
    let first = values.next();
    // Some gateways join repeated headers.
    if values.next().is_some() || first.is_some_and(|value| value.contains(',')) {
        return Err(Flaw::Ambiguous);
    }
    Ok(first)
}

/// The profile whose keys and rules an assertion is judged by, found by its unverified issuer and application. It proves
/// nothing: two applications of one team differ by their tag alone.
pub fn profile_of<'p>(assertion: &str, profiles: &'p Profiles) -> Result<&'p Profile, Flaw> {
    let parsed = Compact::parse(assertion).map_err(Flaw::of)?;
    let (issuer, audience) = (text(&parsed.claims, "iss").map_err(Flaw::of)?, audience(&parsed.claims)?);
    let known =
        |profile: &&Profile| profile.kind().is_access() && profile.issuer() == issuer && profile.audience() == audience;
    profiles.foreign().iter().find(known).ok_or(Flaw::UnknownIssuer)
}

/// Verifies an assertion under a profile and the issuer's mirrored keys.
///
/// `typ` is `JWT`, the algorithm one of the profile's; `iss` byte by byte, `aud` an array of exactly the application's tag,
/// `type` is `app`; `now < exp` without leeway, `iat` and `nbf` at most 10 s ahead. How long it lives is the application's
/// own setting.
pub fn verify(assertion: &str, profile: &Profile, keys: &KeySet, now: Timestamp) -> Result<Assertion, Flaw> {
    let parsed = Compact::parse(assertion).map_err(Flaw::of)?;
    if parsed.header_text("typ").map_err(Flaw::of)? != Some("JWT") {
        return Err(Flaw::WrongType);
    }
    let key = parsed.verify(keys).map_err(Flaw::of)?;
    if !profile.algorithms().contains(&key.algorithm) {
        return Err(Flaw::WrongAlgorithm);
    }
    let claims = &parsed.claims;
    if !profile.kind().is_access() || text(claims, "iss").map_err(Flaw::of)? != profile.issuer() {
        return Err(Flaw::UnknownIssuer);
    }
    if audience(claims)? != profile.audience() {
        return Err(Flaw::WrongAudience);
    }
    if text(claims, "type").map_err(Flaw::of)? != "app" {
        return Err(Flaw::BadClaims);
    }
    let (issued_at, expires_at) = lifetime(claims, now)?;
    let of_person = ["email", "identity_nonce"].iter().any(|name| claims.contains_key(*name));
    match (text(claims, "sub").map_err(Flaw::of)?, claims.get("common_name")) {
        ("", Some(_)) if !of_person => {
            let common_name = text(claims, "common_name").map_err(Flaw::of)?;
            let common_name = Some(common_name).filter(|name| is_service(name)).ok_or(Flaw::BadClaims)?.to_owned();
            Ok(Assertion::Service(Service { issuer: profile.id().clone(), common_name, expires_at }))
        }
        (subject, None) => {
            let uuid = Uuid::try_parse(subject).ok().filter(|uuid| uuid.to_string() == subject);
            uuid.ok_or(Flaw::BadClaims)?;
            // Access dates a person's assertion at both ends.
            date(claims, "nbf").map_err(Flaw::of)?.ok_or(Flaw::BadClaims)?;
            let email = bounded(claims, "email", 254).map_err(Flaw::of)?.to_owned();
            let (issuer, subject, groups) = (profile.id().clone(), subject.to_owned(), groups(claims));
            let iss = profile.issuer().to_owned();
            let managed = profile.kind() == IssuerKind::CloudflareAccessManaged;
            Ok(Assertion::Person(Person { issuer, iss, subject, email, managed, groups, issued_at, expires_at }))
        }
        _ => Err(Flaw::BadClaims),
    }
}

/// An e-mail address as identities are matched by it: one `@`, ASCII, in lower case.
///
/// Letter case does not tell two people apart: no provider that we know of makes two mailboxes that differ by it, and what
/// an identity provider writes in capitals today it may write small tomorrow. Who must tell them apart matches by subject.
/// Beyond ASCII two spellings of one address cannot be told from two addresses, so such an address matches nothing.
pub fn normal_email(email: &str) -> Option<(String, String)> {
    let (local, domain) = email.split_once('@')?;
    // RFC 5322 atoms without `*`, which looks like a pattern and is none.
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'+-/=?^_`{|}~.".contains(&b);
    let fits = (1..=64).contains(&local.len()) && local.bytes().all(atom) && email.len() <= 254;
    fits.then(|| normal_domain(domain)).flatten().map(|domain| (local.to_ascii_lowercase(), domain))
}

/// The domain of an e-mail address: names of letters, digits and hyphens, in lower case. It stands for itself alone and for
/// no domain below it.
pub fn normal_domain(domain: &str) -> Option<String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let fits = domain.len() <= 253 && domain.contains('.') && domain.split('.').all(label);
    fits.then(|| domain.to_ascii_lowercase())
}

/// The most groups of an assertion that are looked at.
const MAX_GROUPS: usize = 256;

/// Whatever is not the shape we know grants nothing, and takes nothing away from the rest of the assertion.
fn groups(claims: &Map<String, Value>) -> Vec<String> {
    let named = claims.get("custom").and_then(|custom| custom.get("groups"));
    let listed = match named {
        Some(Value::Array(listed)) => listed.as_slice(),
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        _ => &[],
    };
    let fits = |group: &&str| is_group(group);
    listed.iter().take(MAX_GROUPS).filter_map(Value::as_str).filter(fits).map(str::to_owned).collect()
}

/// Whether a text can be the name of an identity provider's group: 1 to 256 bytes without control characters.
pub fn is_group(text: &str) -> bool {
    (1..=256).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a text has the form of a service token's client id: 32 hexadecimal digits and `.access`.
pub fn is_service(text: &str) -> bool {
    let is_hex = |id: &str| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    text.strip_suffix(".access").is_some_and(is_hex)
}

/// The one audience.
fn audience(claims: &Map<String, Value>) -> Result<&str, Flaw> {
    match claims.get("aud").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::String(only)]) => Ok(only),
        _ => Err(Flaw::WrongAudience),
    }
}

fn lifetime(claims: &Map<String, Value>, now: Timestamp) -> Result<(Timestamp, Timestamp), Flaw> {
    let required = |name| date(claims, name).map_err(Flaw::of)?.ok_or(Flaw::BadClaims).map(Timestamp::from_seconds);
    let (issued, expires) = (required("iat")?, required("exp")?);
    if expires <= issued {
        return Err(Flaw::BadClaims);
    }
    if now >= expires {
        return Err(Flaw::Expired);
    }
    let start = date(claims, "nbf").map_err(Flaw::of)?.map_or(issued, Timestamp::from_seconds);
    if issued.max(start) > now.plus_seconds(FUTURE_SKEW) {
        return Err(Flaw::NotYetValid);
    }
    Ok((issued, expires))
}

#[cfg(test)]
mod tests;

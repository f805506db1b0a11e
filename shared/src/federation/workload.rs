//! From a workload's assertion to what it proves.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::terms::{SERVICE_ACCOUNT, SPIFFE, Terms, account_of_role, domain_of, is_spiffe_id};
use crate::clock::Timestamp;
use crate::issuer::{IssuerKind, Profile};
use crate::jwt::compact::Compact;
use crate::jwt::{Assertion, FUTURE_SKEW, Reason, bounded, date, text};
use crate::name::{ClientId, IssuerId};
use crate::trust::IssuerKeys;

/// The longest value of a claim that tells workloads apart, in bytes.
const LONGEST_CLAIM: usize = 2_048;
/// Every header parameter that some issuer has tolerated. An assertion is only looked at for whose it claims to be with these; what
/// its own issuer may not send is refused when it is verified.
const TOLERATED: [&str; 1] = ["x5t"];

/// Whose an assertion claims to be. It proves nothing and only chooses the keys that it is verified with.
#[derive(Debug)]
pub enum Claimed<'a> {
    /// A registered client's own (`iss`).
    Client(ClientId, Assertion<'a>),
    /// A foreign issuer's: its `iss`, or the trust domain of a SPIFFE ID with its scheme.
    Issuer(String),
}

/// Reads whose assertion this claims to be. A client id is never an issuer's URL and never a SPIFFE ID, so that no assertion can be
/// both.
pub fn claimed(token: &str) -> Result<Claimed<'_>, Reason> {
    let parsed = Compact::tolerating(token, &TOLERATED)?;
    let issuer = whose(&parsed.claims)?;
    Ok(match ClientId::parse(issuer) {
        Ok(client) => Claimed::Client(client, Assertion::read(parsed)),
        Err(_) => Claimed::Issuer(issuer.to_owned()),
    })
}

/// Whose it claims to be, for whoever looks its keys up and for whoever verifies it: what says that it is a SPIFFE workload's is nobody
/// else's, whatever its `iss`.
fn whose(claims: &Map<String, Value>) -> Result<&str, Reason> {
    match claims.get("sub").and_then(Value::as_str).filter(|subject| subject.starts_with(SPIFFE)) {
        Some(subject) => domain_of(subject).ok_or(Reason::BadClaims),
        None => text(claims, "iss"),
    }
}

/// A workload that proved itself. There is no other way to get one than [`verify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    pub(super) issuer: IssuerId,
    pub(super) kind: IssuerKind,
    pub(super) identity: String,
    pub(super) selectors: BTreeMap<&'static str, String>,
    once: Option<String>,
    until: Timestamp,
}

impl Workload {
    /// The issuer that knows it.
    pub fn issuer(&self) -> &IssuerId {
        &self.issuer
    }

    /// What must be remembered so that the assertion counts once, distinct from every other issuer's and client's; nothing where it
    /// may be used again.
    pub fn once(&self) -> Option<String> {
        // A URL holds no line break, and neither does a `jti` that is read here.
        self.once.as_ref().map(|jti| format!("{}\n{jti}", self.identity))
    }

    /// When nobody takes the assertion any more.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// The values it can be told by, for the log.
    pub fn describe(&self) -> String {
        let values: Vec<String> = self.selectors.iter().map(|(name, value)| format!("{name}={value}")).collect();
        values.join(" ")
    }
}

/// Verifies an assertion under the terms of its issuer's kind.
///
/// `audience` (our issuer URL) is its sole audience, as one string or an array of one. `iss` is the profile's, and for SPIFFE the
/// trust domain of `sub` is. The key is one of the issuer's, with an algorithm that the profile names.
pub fn verify(
    token: &str,
    profile: &Profile,
    keys: &IssuerKeys,
    audience: &str,
    now: Timestamp,
) -> Result<Workload, Reason> {
    let terms = profile.kind().terms().ok_or(Reason::WrongIssuer)?;
    let parsed = Compact::tolerating(token, terms.tolerated)?;
    let kind = parsed.header_text("typ")?;
    if !terms.types.contains(&kind) {
        return Err(Reason::WrongType);
    }
    let claims = &parsed.claims;
    if whose(claims)? != profile.issuer() {
        return Err(Reason::WrongIssuer);
    }
    let key = parsed.verify(keys.of(terms.usage))?;
    if !profile.algorithms().contains(&key.algorithm) {
        return Err(Reason::WrongAlgorithm);
    }
    if !is_sole(claims.get("aud"), audience) {
        return Err(Reason::WrongAudience);
    }
    let until = lifetime(claims, terms, now)?;
    let once = terms.single_use.then(|| bounded(claims, "jti", 256).map(str::to_owned)).transpose()?;
    Ok(Workload {
        issuer: profile.id().clone(),
        kind: profile.kind(),
        identity: profile.issuer().to_owned(),
        selectors: selectors(profile.kind(), claims)?,
        once,
        until,
    })
}

/// RFC 7519 §4.1.3: one string, or an array of it alone.
fn is_sole(aud: Option<&Value>, audience: &str) -> bool {
    match aud {
        Some(Value::String(only)) => only == audience,
        Some(Value::Array(all)) => matches!(all.as_slice(), [Value::String(only)] if only == audience),
        _ => false,
    }
}

/// The moment after which it is taken no more.
fn lifetime(claims: &Map<String, Value>, terms: &Terms, now: Timestamp) -> Result<Timestamp, Reason> {
    let expires = date(claims, "exp")?.ok_or(Reason::BadClaims)?;
    let (issued, from) = (date(claims, "iat")?, date(claims, "nbf")?);
    if terms.dates.iter().any(|name| !claims.contains_key(*name)) || issued.is_some_and(|issued| expires <= issued) {
        return Err(Reason::BadClaims);
    }
    let oldest = issued.map_or(i64::MAX, |issued| issued.saturating_add(terms.oldest));
    let until = Timestamp::from_seconds(expires.min(oldest));
    if now >= until {
        return Err(Reason::Expired);
    }
    let soonest = now.plus_seconds(FUTURE_SKEW);
    if [issued, from].into_iter().flatten().any(|start| Timestamp::from_seconds(start) > soonest) {
        return Err(Reason::NotYetValid);
    }
    let counted = issued.filter(|_| terms.dates.contains(&"iat")).unwrap_or(now.seconds());
    if expires - counted > terms.longest { Err(Reason::TooLongLived) } else { Ok(until) }
}

/// The values that a workload of this kind is told by.
fn selectors(kind: IssuerKind, claims: &Map<String, Value>) -> Result<BTreeMap<&'static str, String>, Reason> {
    let mut found = BTreeMap::new();
    match kind {
        IssuerKind::AwsSts => {
            let role = text(claims, "sub")?;
            let sts = object(claims, "https://sts.amazonaws.com/")?;
            if account_of_role(role)
                .is_none_or(|account| sts.get("aws_account").and_then(Value::as_str) != Some(account))
            {
                return Err(Reason::BadClaims);
            }
            found.insert("role_arn", role.to_owned());
            for name in ["org_id", "source_region", "lambda_source_function_arn"] {
                insert(&mut found, name, sts, name)?;
            }
        }
        IssuerKind::GithubActions => {
            for name in ["repository_id", "repository_owner_id", "ref", "environment", "job_workflow_ref"] {
                insert(&mut found, name, claims, name)?;
            }
        }
        IssuerKind::Kubernetes => {
            let subject = text(claims, "sub")?.strip_prefix(SERVICE_ACCOUNT).ok_or(Reason::BadClaims)?;
            let bound = object(claims, "kubernetes.io")?;
            let account = object(bound, "serviceaccount")?;
            let (namespace, name) = (text(bound, "namespace")?, text(account, "name")?);
            if subject.split_once(':') != Some((namespace, name)) {
                return Err(Reason::BadClaims);
            }
            found.insert("namespace", namespace.to_owned());
            found.insert("service_account", name.to_owned());
            insert(&mut found, "service_account_uid", account, "uid")?;
        }
        IssuerKind::Spiffe => {
            let id = text(claims, "sub")?;
            if !is_spiffe_id(id) {
                return Err(Reason::BadClaims);
            }
            found.insert("spiffe_id", id.to_owned());
        }
        IssuerKind::CloudflareAccess | IssuerKind::CloudflareAccessManaged | IssuerKind::Generic => {
            return Err(Reason::WrongIssuer);
        }
    }
    let required = kind.terms().map_or(&[][..], |terms| terms.required);
    if required.iter().all(|selector| found.contains_key(selector.name)) { Ok(found) } else { Err(Reason::BadClaims) }
}

fn object<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<&'a Map<String, Value>, Reason> {
    claims.get(name).and_then(Value::as_object).ok_or(Reason::BadClaims)
}

/// A claim that may be absent or empty, and must otherwise be a text.
fn insert(
    found: &mut BTreeMap<&'static str, String>,
    name: &'static str,
    claims: &Map<String, Value>,
    claim: &str,
) -> Result<(), Reason> {
    if claims.get(claim).is_some_and(|value| value.as_str() != Some("")) {
        found.insert(name, bounded(claims, claim, LONGEST_CLAIM)?.to_owned());
    }
    Ok(())
}

//! Who a person is here: the assertion that proves it, and the row that says where the person belongs.

use serde_json::Value;
use shared::access::{self, Assertion, Flaw, Person, normal_email};
use shared::clock::Clock;
use shared::http::Request;
use shared::jwt::Reason;
use shared::name::{Groups, Tenant};
use shared::port::{Database, Fault, FaultKind, ObjectReader, Parameter};
use shared::scope::Scopes;
use shared::trust::{Foreign, Refusal};

use crate::oauth::Error;
use crate::refused::{Refused, refused};

/// What a tenant grants to a person.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Whose.
    pub(crate) tenant: Tenant,
    /// `groups` of the person's tokens.
    pub(crate) groups: Groups,
    /// The most the person may do.
    pub(crate) scopes: Scopes,
}

/// Verifies an assertion; `error` is what the caller is told where it does not hold.
pub(crate) async fn verified<R: ObjectReader, C: Clock>(
    foreign: &Foreign<R, C>,
    assertion: &str,
    error: Error,
) -> Result<Assertion, Refused> {
    match foreign.access(assertion).await {
        Ok(assertion) => Ok(assertion),
        Err(Refusal::Credential(reason)) => Err(refused(error, reason.as_str())),
        // Without the issuer's keys nobody can tell an assertion from garbage.
        Err(Refusal::Stale(_)) => Err(refused(Error::TEMPORARILY_UNAVAILABLE, "trust_stale")),
    }
}

/// The request's own assertion, if it carries one.
pub(crate) async fn of_request<R: ObjectReader, C: Clock>(
    foreign: &Foreign<R, C>,
    request: &Request,
    error: Error,
) -> Result<Option<Assertion>, Refused> {
    match access::header(&request.headers).map_err(|flaw| refused(error, flaw.as_str()))? {
        None => Ok(None),
        Some(assertion) => verified(foreign, assertion, error).await.map(Some),
    }
}

/// The refusal for want of an assertion, or for one of somebody else.
pub(crate) fn flawed(error: Error, flaw: Flaw) -> Refused {
    refused(error, Reason::Assertion(flaw).as_str())
}

/// The arguments by which the database finds a person's row.
pub(crate) fn parameters(person: &Person) -> [Parameter; 6] {
    let address = normal_email(&person.email);
    let email = address.as_ref().map(|(local, domain)| format!("{local}@{domain}"));
    [
        Parameter::Text(person.issuer.as_str().to_owned()),
        Parameter::Text(person.iss.clone()),
        Parameter::Text(person.subject.clone()),
        Parameter::OptionalText(email),
        Parameter::OptionalText(address.map(|(_, domain)| domain)),
        Parameter::Texts(person.groups.clone()),
    ]
}

/// Looks the person up.
pub(crate) async fn identity<D: Database>(database: &D, person: &Person, error: Error) -> Result<Identity, Refused> {
    const FUNCTION: &str = "api.person_for_token";
    read(FUNCTION, &database.call(FUNCTION, parameters(person).to_vec()).await?, error)
}

/// Reads what the database says of a person. No row, no token.
pub(crate) fn read(function: &'static str, answer: &Value, error: Error) -> Result<Identity, Refused> {
    let wrong = || Refused::from(Fault::new(FaultKind::Invalid, "database", function));
    match answer.get("outcome").and_then(Value::as_str) {
        Some("found") => {}
        Some("unknown") => return Err(refused(error, "identity_unknown")),
        Some("ambiguous") => return Err(refused(error, "identity_ambiguous")),
        Some("disabled") => return Err(refused(error, "identity_disabled")),
        _ => return Err(wrong()),
    }
    let texts = |name: &str| -> Option<Vec<&str>> { answer.get(name)?.as_array()?.iter().map(Value::as_str).collect() };
    let tenant = answer.get("tenant").and_then(Value::as_str).and_then(|tenant| Tenant::parse(tenant).ok());
    let (groups, scopes) = (texts("groups").ok_or_else(wrong)?, texts("scopes").ok_or_else(wrong)?);
    // Each row fits into a token; the rows of several groups together may not.
    let wide = |_| refused(error, "identity_too_wide");
    let groups = Groups::of(groups).map_err(wide)?;
    let scopes = Scopes::parse(&scopes.join(" ")).map_err(wide)?;
    Ok(Identity { tenant: tenant.ok_or_else(wrong)?, groups, scopes })
}

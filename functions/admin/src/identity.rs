//! Whose people belong to which tenant: `identity.put`, `identity.remove`, `identity.list`.

use serde_json::Value;
use shared::access::{is_group, normal_domain, normal_email};
use shared::name::{Groups, IssuerId};
use shared::port::Parameter;
use uuid::Uuid;

use crate::act::{Act, scopes, tenant, text};
use crate::fields::Fields;
use crate::refusal::{Code, Refusal};

/// `issuer`, `match` and `value` say who; `tenant`, `groups` and `scopes` what they are here; `enabled` false shuts them out.
pub(crate) fn put(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let selector = selector(fields)?;
    let groups = fields.optional_texts("groups")?.unwrap_or_default();
    Groups::of(groups.iter().map(String::as_str)).map_err(|_| Refusal::of(Code::InvalidGroups, "groups"))?;
    let scopes = scopes(fields)?;
    let enabled = fields.bool("enabled", true)?;
    let mut parameters = vec![text(&tenant)];
    parameters.extend(selector.parameters());
    parameters.extend([Parameter::Texts(groups), Parameter::Texts(scopes), Parameter::Bool(enabled)]);
    Ok(Act {
        operation: "identity.put",
        function: "api.identity_put",
        target: selector.issuer,
        parameters,
        moves_trust: false,
    })
}

/// Takes a row back. Who has a session keeps it until the next refresh; `revoke` ends it at once.
pub(crate) fn remove(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let selector = selector(fields)?;
    let mut parameters = vec![text(&tenant)];
    parameters.extend(selector.parameters());
    Ok(Act {
        operation: "identity.remove",
        function: "api.identity_remove",
        target: selector.issuer,
        parameters,
        moves_trust: false,
    })
}

/// A page of a tenant's rows; `after` is the `next` of the page before.
pub(crate) fn list(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let after = match fields.optional_value("after") {
        None => Value::Object(serde_json::Map::new()),
        Some(after) => {
            let refused = || Refusal::of(Code::InvalidValue, "after");
            let members = after.as_object().filter(|members| members.len() == 3).ok_or_else(refused)?;
            let named =
                ["issuer", "match", "value"].iter().all(|name| members.get(*name).is_some_and(Value::is_string));
            if !named {
                return Err(refused());
            }
            after
        }
    };
    let limit = fields.optional_int("limit")?.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Refusal::of(Code::InvalidLimit, "limit"));
    }
    Ok(Act {
        operation: "identity.list",
        function: "api.identity_list",
        target: tenant.to_string(),
        parameters: vec![text(&tenant), Parameter::Json(after), Parameter::Int(limit)],
        moves_trust: false,
    })
}

/// Whom a row is about.
struct Selector {
    issuer: String,
    kind: String,
    value: String,
}

impl Selector {
    fn parameters(&self) -> [Parameter; 3] {
        [text(&self.issuer), text(&self.kind), text(&self.value)]
    }
}

/// The value is stored as verified assertions are matched: a subject in its one spelling, addresses and domains in lower case, groups as
/// they are.
fn selector(fields: &mut Fields) -> Result<Selector, Refusal> {
    let issuer = IssuerId::parse(&fields.text("issuer")?).map_err(|_| Refusal::of(Code::InvalidIssuerId, "issuer"))?;
    let (kind, value) = (fields.text("match")?, fields.text("value")?);
    let value = match kind.as_str() {
        "subject" => Uuid::try_parse(&value).ok().filter(|uuid| uuid.to_string() == value).map(|_| value),
        "email" => normal_email(&value).map(|(local, domain)| format!("{local}@{domain}")),
        "domain" => normal_domain(&value),
        "group" => is_group(&value).then_some(value),
        _ => return Err(Refusal::of(Code::InvalidMatch, "match")),
    };
    let value = value.ok_or(Refusal::of(Code::InvalidValue, "value"))?;
    Ok(Selector { issuer: issuer.as_str().to_owned(), kind, value })
}

//! An operator's act, parsed until it cannot be wrong.

use serde_json::{Value, json};
use shared::access::is_service;
use shared::clock::Timestamp;
use shared::federation::Rule;
use shared::issuer::{Fault, IssuerKind, Profile};
use shared::jwks::{Algorithm, KeySet};
use shared::name::{ClientId, IssuerId, Tenant};
use shared::policy::{Bundle, Check, SCHEMA};
use shared::port::Parameter;
use shared::scope::Scopes;
use shared::url::is_resource;
use uuid::Uuid;

use crate::device;
use crate::fields::Fields;
use crate::identity;
use crate::refusal::{Code, Refusal};

/// The longest life of a token and the clock skew between us, in seconds: an epoch older than both hits nothing.
const REACH: i64 = 900 + 10;
const SKEW: i64 = 10;
/// The most other APIs of one client.
const MOST_AUDIENCES: usize = 16;
const CLIENT_ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::Ps256, Algorithm::EdDsa];
/// What a stored public key may hold; anything else an exporter adds is refused, so that nothing private slips in by a new name.
const JWK_MEMBERS: [&str; 10] = ["kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e"];

/// One act: the function that does it and its arguments after operator, request id and time.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Act {
    /// The operation's name, for the log.
    pub(crate) operation: &'static str,
    /// The SQL function.
    pub(crate) function: &'static str,
    /// Its own arguments.
    pub(crate) parameters: Vec<Parameter>,
    /// Whether verifiers must learn of it.
    pub(crate) moves_trust: bool,
    /// Whom it is done to, for the log.
    pub(crate) target: String,
}

impl Act {
    /// Reads the fields of `operation`.
    pub(crate) fn parse(operation: &str, mut fields: Fields, now: Timestamp, check: Check) -> Result<Self, Refusal> {
        let act = match operation {
            "tenant.put" => tenant_put(&mut fields)?,
            "client.put" => client_put(&mut fields)?,
            "client.disable" => client_disable(&mut fields)?,
            "client.list" => client_list(&mut fields)?,
            "client.audiences" => client_audiences(&mut fields)?,
            "client.service" => client_service(&mut fields)?,
            "device.put" => device::put(&mut fields, now)?,
            "device.remove" => device::remove(&mut fields)?,
            "device.list" => device::list(&mut fields)?,
            "identity.put" => identity::put(&mut fields)?,
            "identity.remove" => identity::remove(&mut fields)?,
            "identity.list" => identity::list(&mut fields)?,
            "issuer.put" => issuer_put(&mut fields)?,
            "issuer.remove" => issuer_remove(&mut fields)?,
            "policy.put" => policy_put(&mut fields, check)?,
            "policy.promote" => policy_promote(&mut fields)?,
            "policy.list" => policy_list(),
            "quota.put" => quota_put(&mut fields)?,
            "quota.list" => quota_list(&mut fields)?,
            "revoke" => revoke(&mut fields, now)?,
            "signing.list" => signing_list(),
            "signing.rotate" => signing_rotate(&mut fields)?,
            "signing.drop" => signing_drop(&mut fields)?,
            _ => return Err(Refusal::of(Code::UnsupportedOperation, "operation")),
        };
        fields.finish()?;
        Ok(act)
    }
}

fn tenant_put(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let name = name(fields)?.unwrap_or_else(|| tenant.as_str().to_owned());
    let enabled = fields.bool("enabled", true)?;
    Ok(Act {
        operation: "tenant.put",
        function: "api.tenant_put",
        target: tenant.to_string(),
        parameters: vec![text(&tenant), Parameter::Text(name), Parameter::Bool(enabled)],
        moves_trust: !enabled,
    })
}

fn client_put(fields: &mut Fields) -> Result<Act, Refusal> {
    let (tenant, client_id) = (tenant(fields)?, client_id(fields)?);
    let name = name(fields)?.unwrap_or_else(|| client_id.as_str().to_owned());
    let public = is_public(fields)?;
    let federation = if public { Vec::new() } else { federation(fields)? };
    let (jwks, algorithms) = if public { no_keys() } else { keys(fields, !federation.is_empty())? };
    let scopes = scopes(fields)?;
    let dpop = fields.bool("dpop", true)?;
    // Nothing else tells who uses the tokens of a client without a key.
    if public && !dpop {
        return Err(Refusal::of(Code::InvalidDpop, "dpop"));
    }
    let ttl = fields.optional_int("ttl_seconds")?.unwrap_or(300);
    if !(30..=900).contains(&ttl) {
        return Err(Refusal::of(Code::InvalidTtl, "ttl_seconds"));
    }
    let enabled = fields.bool("enabled", true)?;
    Ok(Act {
        operation: "client.put",
        function: "api.client_put",
        target: client_id.to_string(),
        parameters: vec![
            text(&tenant),
            text(&client_id),
            Parameter::Text(name),
            Parameter::Json(jwks),
            Parameter::Texts(algorithms),
            Parameter::Texts(scopes),
            Parameter::Bool(dpop),
            Parameter::Int(ttl),
            Parameter::Bool(enabled),
            Parameter::Json(Value::Array(federation)),
        ],
        moves_trust: !enabled,
    })
}

/// `token_endpoint_auth_method` (RFC 7591 §2): a client without a key of its own, for people, or one that signs its assertions.
fn is_public(fields: &mut Fields) -> Result<bool, Refusal> {
    match fields.optional_text("token_endpoint_auth_method")?.as_deref() {
        Some("none") => Ok(true),
        Some("private_key_jwt") | None => Ok(false),
        Some(_) => Err(Refusal::of(Code::InvalidAuthMethod, "token_endpoint_auth_method")),
    }
}

/// What the row of a public client holds; `jwks` and `algorithms` in its body are members that nobody knows.
fn no_keys() -> (Value, Vec<String>) {
    (json!({ "keys": [] }), vec!["none".to_owned()])
}

fn client_disable(fields: &mut Fields) -> Result<Act, Refusal> {
    let (tenant, client_id) = (tenant(fields)?, client_id(fields)?);
    Ok(Act {
        operation: "client.disable",
        function: "api.client_disable",
        target: client_id.to_string(),
        parameters: vec![text(&tenant), text(&client_id)],
        moves_trust: true,
    })
}

fn client_list(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let after = fields.optional_text("after")?;
    if after.as_deref().is_some_and(|after| ClientId::parse(after).is_err()) {
        return Err(Refusal::of(Code::InvalidClientId, "after"));
    }
    let limit = fields.optional_int("limit")?.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Refusal::of(Code::InvalidLimit, "limit"));
    }
    Ok(Act {
        operation: "client.list",
        function: "api.client_list",
        target: tenant.to_string(),
        parameters: vec![text(&tenant), Parameter::OptionalText(after), Parameter::Int(limit)],
        moves_trust: false,
    })
}

/// `audiences`: all other APIs that the client may ask tokens for (RFC 8707); none takes them back.
fn client_audiences(fields: &mut Fields) -> Result<Act, Refusal> {
    let (tenant, client_id) = (tenant(fields)?, client_id(fields)?);
    let listed = fields.optional_texts("audiences")?.ok_or(Refusal::of(Code::MissingField, "audiences"))?;
    let once = |audience: &String| listed.iter().filter(|other| *other == audience).count() == 1;
    if listed.len() > MOST_AUDIENCES || !listed.iter().all(|audience| is_resource(audience) && once(audience)) {
        return Err(Refusal::of(Code::InvalidAudience, "audiences"));
    }
    Ok(Act {
        operation: "client.audiences",
        function: "api.client_audiences",
        target: client_id.to_string(),
        parameters: vec![text(&tenant), text(&client_id), Parameter::Texts(listed)],
        moves_trust: false,
    })
}

/// `service`: the client id of the service token of Cloudflare Access that the client's tokens must come with; null: none.
fn client_service(fields: &mut Fields) -> Result<Act, Refusal> {
    let (tenant, client_id) = (tenant(fields)?, client_id(fields)?);
    let service = match fields.value("service")? {
        Value::Null => None,
        Value::String(service) if is_service(&service) => Some(service),
        Value::String(_) => return Err(Refusal::of(Code::InvalidService, "service")),
        _ => return Err(Refusal::of(Code::WrongType, "service")),
    };
    Ok(Act {
        operation: "client.service",
        function: "api.client_service",
        target: client_id.to_string(),
        parameters: vec![text(&tenant), text(&client_id), Parameter::OptionalText(service)],
        moves_trust: false,
    })
}

/// The rules are the verifiers' own: what they would not read in `trust/profiles.json` is not stored.
fn issuer_put(fields: &mut Fields) -> Result<Act, Refusal> {
    let id = issuer_id(fields)?;
    let kind = IssuerKind::parse(&fields.text("kind")?).ok_or(Refusal::of(Code::InvalidKind, "kind"))?;
    let issuer = fields.text("issuer")?;
    let audience = if kind.is_workload() { fields.optional_text("audience")? } else { Some(fields.text("audience")?) };
    if kind.is_workload() && audience.is_some() {
        return Err(Refusal::of(Code::InvalidAudience, "audience"));
    }
    let algorithms = fields.optional_texts("algorithms")?.ok_or(Refusal::of(Code::MissingField, "algorithms"))?;
    let jwks_url = fields.text("jwks_url")?;
    let profile = Profile::new(id, kind, &issuer, audience.as_deref().unwrap_or_default(), &algorithms, &jwks_url)
        .map_err(|fault| match fault {
            Fault::Issuer => Refusal::of(Code::InvalidIssuer, "issuer"),
            Fault::Audience => Refusal::of(Code::InvalidAudience, "audience"),
            Fault::Algorithms => Refusal::of(Code::InvalidAlgorithms, "algorithms"),
            Fault::JwksUrl => Refusal::of(Code::InvalidJwksUrl, "jwks_url"),
        })?;
    Ok(Act {
        operation: "issuer.put",
        function: "api.issuer_put",
        target: profile.id().to_string(),
        parameters: vec![
            text(profile.id()),
            text(&kind.as_str()),
            text(&profile.issuer()),
            Parameter::OptionalText(audience),
            Parameter::Texts(profile.algorithms().iter().map(|algorithm| algorithm.as_str().to_owned()).collect()),
            text(profile.jwks_url()),
        ],
        moves_trust: true,
    })
}

fn issuer_remove(fields: &mut Fields) -> Result<Act, Refusal> {
    let id = issuer_id(fields)?;
    Ok(Act {
        operation: "issuer.remove",
        function: "api.issuer_remove",
        target: id.to_string(),
        parameters: vec![text(&id)],
        moves_trust: true,
    })
}

/// `bundle`: policies, those of tenants, and examples; its schema is the one that this build fills, unless it brings the same.
fn policy_put(fields: &mut Fields, check: Check) -> Result<Act, Refusal> {
    let mut bundle = fields.value("bundle")?;
    if let Some(members) = bundle.as_object_mut() {
        members.entry("schema").or_insert_with(|| SCHEMA.into());
    }
    let bundle = Bundle::parse(&bundle).map_err(Refusal::of_bundle)?;
    let (hash, value) = (bundle.hash(), bundle.to_value());
    check(bundle).map_err(Refusal::of_bundle)?;
    Ok(Act {
        operation: "policy.put",
        function: "api.policy_put",
        target: hash.clone(),
        parameters: vec![Parameter::Text(hash), Parameter::Json(value)],
        moves_trust: true,
    })
}

/// `hash`: of the candidate, or of what has decided before.
fn policy_promote(fields: &mut Fields) -> Result<Act, Refusal> {
    let hash = fields.text("hash")?;
    if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(Refusal::of(Code::InvalidHash, "hash"));
    }
    Ok(Act {
        operation: "policy.promote",
        function: "api.policy_promote",
        target: hash.clone(),
        parameters: vec![Parameter::Text(hash)],
        moves_trust: true,
    })
}

fn policy_list() -> Act {
    Act {
        operation: "policy.list",
        function: "api.policy_list",
        target: "policies".to_owned(),
        parameters: vec![],
        moves_trust: false,
    }
}

/// `subject`: whose, `*` for each that has no quota of its own, and none for the tenant as a whole. Neither `files` nor `bytes` takes
/// the quota away.
fn quota_put(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let subject = fields.optional_text("subject")?;
    if subject.as_deref().is_some_and(|subject| !is_printable(subject, 255)) {
        return Err(Refusal::of(Code::InvalidSubject, "subject"));
    }
    let mut most = |name: &'static str| match fields.optional_int(name)? {
        Some(most) if most < 0 => Err(Refusal::of(Code::InvalidQuota, name)),
        most => Ok(Parameter::OptionalInt(most)),
    };
    let (files, bytes) = (most("files")?, most("bytes")?);
    Ok(Act {
        operation: "quota.put",
        function: "api.quota_put",
        target: tenant.to_string(),
        parameters: vec![text(&tenant), Parameter::Text(subject.unwrap_or_default()), files, bytes],
        moves_trust: false,
    })
}

fn quota_list(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let after = fields.optional_text("after")?;
    if after.as_deref().is_some_and(|after| !is_printable(after, 255)) {
        return Err(Refusal::of(Code::InvalidSubject, "after"));
    }
    let limit = fields.optional_int("limit")?.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Refusal::of(Code::InvalidLimit, "limit"));
    }
    Ok(Act {
        operation: "quota.list",
        function: "api.quota_list",
        target: tenant.to_string(),
        parameters: vec![text(&tenant), Parameter::OptionalText(after), Parameter::Int(limit)],
        moves_trust: false,
    })
}

/// `at`: every token issued up to then is refused, default now. `exp` (of a `jti`): default the latest it can be.
fn revoke(fields: &mut Fields, now: Timestamp) -> Result<Act, Refusal> {
    let (kind, value) = (fields.text("kind")?, fields.text("value")?);
    let kind = match kind.as_str() {
        "jti" | "client_id" | "sub" | "sid" | "tenant" | "device" => kind,
        _ => return Err(Refusal::of(Code::InvalidKind, "kind")),
    };
    let value = match kind.as_str() {
        "jti" => Uuid::parse_str(&value).ok().map(|id| id.to_string()),
        "client_id" => ClientId::parse(&value).ok().map(|id| id.to_string()),
        "tenant" => Tenant::parse(&value).ok().map(|tenant| tenant.to_string()),
        _ => is_printable(&value, 255).then_some(value),
    };
    let value = value.ok_or(Refusal::of(Code::InvalidValue, "value"))?;
    let now = now.seconds();
    let epoch = if kind == "jti" {
        let exp = fields.optional_int("exp")?.unwrap_or(now + REACH);
        (now - SKEW..=now + REACH).contains(&exp).then_some(exp).ok_or(Refusal::of(Code::InvalidTime, "exp"))?
    } else {
        let at = fields.optional_int("at")?.unwrap_or(now);
        (now - REACH..=now + SKEW).contains(&at).then_some(at).ok_or(Refusal::of(Code::InvalidTime, "at"))?
    };
    Ok(Act {
        operation: "revoke",
        function: "api.revoke",
        target: kind.clone(),
        parameters: vec![Parameter::Text(kind), Parameter::Text(value), Parameter::Int(epoch)],
        moves_trust: true,
    })
}

fn signing_list() -> Act {
    Act {
        operation: "signing.list",
        function: "api.signing_list",
        target: "signing".to_owned(),
        parameters: vec![],
        moves_trust: false,
    }
}

/// `kid`: the key to be followed by its successor, default the active one.
fn signing_rotate(fields: &mut Fields) -> Result<Act, Refusal> {
    let kid = fields.optional_text("kid")?.map(kid).transpose()?;
    Ok(Act {
        operation: "signing.rotate",
        function: "api.signing_rotate",
        target: kid.clone().unwrap_or_else(|| "signing".to_owned()),
        parameters: vec![Parameter::OptionalText(kid)],
        moves_trust: true,
    })
}

/// `confirm`: also when nobody can sign afterwards.
fn signing_drop(fields: &mut Fields) -> Result<Act, Refusal> {
    let kid = kid(fields.text("kid")?)?;
    let confirm = fields.bool("confirm", false)?;
    Ok(Act {
        operation: "signing.drop",
        function: "api.signing_drop",
        target: kid.clone(),
        parameters: vec![Parameter::Text(kid), Parameter::Bool(confirm)],
        moves_trust: true,
    })
}

/// A key id of ours is a SHA-256 thumbprint (RFC 7638), base64url.
fn kid(kid: String) -> Result<String, Refusal> {
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if kid.len() == 43 && kid.bytes().all(is_base64url) { Ok(kid) } else { Err(Refusal::of(Code::InvalidKid, "kid")) }
}

/// Who acts, as claimed: Lambda passes no caller identity on.
pub(crate) fn operator(fields: &mut Fields) -> Result<String, Refusal> {
    let operator = fields.text("operator")?;
    if is_printable(&operator, 128) { Ok(operator) } else { Err(Refusal::of(Code::InvalidOperator, "operator")) }
}

pub(crate) fn tenant(fields: &mut Fields) -> Result<Tenant, Refusal> {
    Tenant::parse(&fields.text("tenant")?).map_err(|_| Refusal::of(Code::InvalidTenant, "tenant"))
}

fn client_id(fields: &mut Fields) -> Result<ClientId, Refusal> {
    ClientId::parse(&fields.text("client_id")?).map_err(|_| Refusal::of(Code::InvalidClientId, "client_id"))
}

fn issuer_id(fields: &mut Fields) -> Result<IssuerId, Refusal> {
    IssuerId::parse(&fields.text("id")?).map_err(|_| Refusal::of(Code::InvalidIssuerId, "id"))
}

fn name(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    match fields.optional_text("name")? {
        Some(name) if !(1..=200).contains(&name.chars().count()) || name.chars().any(char::is_control) => {
            Err(Refusal::of(Code::InvalidName, "name"))
        }
        name => Ok(name),
    }
}

fn algorithms(fields: &mut Fields) -> Result<Option<Vec<Algorithm>>, Refusal> {
    let Some(names) = fields.optional_texts("algorithms")? else { return Ok(None) };
    let mut algorithms = Vec::new();
    for name in &names {
        match Algorithm::parse(name).filter(|algorithm| CLIENT_ALGORITHMS.contains(algorithm)) {
            Some(algorithm) if !algorithms.contains(&algorithm) => algorithms.push(algorithm),
            _ => return Err(Refusal::of(Code::InvalidAlgorithms, "algorithms")),
        }
    }
    if algorithms.is_empty() {
        return Err(Refusal::of(Code::InvalidAlgorithms, "algorithms"));
    }
    Ok(Some(algorithms))
}

/// The client's own keys as they are stored, and their algorithms. Who need not have any has an empty set.
fn keys(fields: &mut Fields, need_not: bool) -> Result<(Value, Vec<String>), Refusal> {
    let names = |algorithms: &[Algorithm]| algorithms.iter().map(|one| one.as_str().to_owned()).collect();
    let allowed = algorithms(fields)?;
    match fields.optional_value("jwks") {
        None if need_not && allowed.is_none() => Ok((json!({ "keys": [] }), names(&CLIENT_ALGORITHMS))),
        None => Err(Refusal::of(Code::MissingField, "jwks")),
        Some(set) => {
            let (jwks, used) = public_keys(&set, allowed.as_deref().unwrap_or(&CLIENT_ALGORITHMS))?;
            Ok((jwks, names(&allowed.unwrap_or(used))))
        }
    }
}

/// The workloads that are the client, each with the kind of its issuer, which only the database knows.
fn federation(fields: &mut Fields) -> Result<Vec<Value>, Refusal> {
    let refused = || Refusal::of(Code::InvalidFederation, "federation");
    let Some(listed) = fields.optional_value("federation") else { return Ok(Vec::new()) };
    let listed = listed.as_array().ok_or(Refusal::of(Code::WrongType, "federation"))?;
    let mut rules: Vec<Value> = Vec::new();
    for entry in listed {
        let rule = Rule::parse(entry).map_err(|_| refused())?;
        let mut entry = rule.to_value();
        if let Some(members) = entry.as_object_mut() {
            members.insert("kind".to_owned(), json!(rule.kind().as_str()));
        }
        if rules.contains(&entry) {
            return Err(refused());
        }
        rules.push(entry);
    }
    if (1..=16).contains(&rules.len()) { Ok(rules) } else { Err(refused()) }
}

/// The key set as it is stored, every key with its one algorithm spelled out, and the algorithms in use.
fn public_keys(set: &Value, allowed: &[Algorithm]) -> Result<(Value, Vec<Algorithm>), Refusal> {
    let refused = || Refusal::of(Code::InvalidJwks, "jwks");
    set.as_object().filter(|set| set.len() == 1).ok_or_else(refused)?;
    let listed = set.get("keys").and_then(Value::as_array).ok_or_else(refused)?;
    let read = KeySet::parse(set, allowed).map_err(|_| refused())?;
    // Where a mirrored set skips what is not for us, an operator is told.
    if read.iter().count() != listed.len() {
        return Err(refused());
    }
    let mut stored = Vec::new();
    let mut used = Vec::new();
    for (jwk, key) in listed.iter().zip(read.iter()) {
        let members = jwk.as_object().ok_or_else(refused)?;
        if members.keys().any(|name| !JWK_MEMBERS.contains(&name.as_str())) {
            return Err(refused());
        }
        let mut members = members.clone();
        members.remove("key_ops");
        members.insert("use".to_owned(), json!("sig"));
        members.insert("alg".to_owned(), json!(key.algorithm.as_str()));
        stored.push(Value::Object(members));
        if !used.contains(&key.algorithm) {
            used.push(key.algorithm);
        }
    }
    Ok((json!({ "keys": stored }), used))
}

pub(crate) fn scopes(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let refused = || Refusal::of(Code::InvalidScopes, "scopes");
    let listed = fields.optional_texts("scopes")?.ok_or(Refusal::of(Code::MissingField, "scopes"))?;
    let scopes = Scopes::parse(&listed.join(" ")).map_err(|_| refused())?;
    // Equal only when every item was one scope and none came twice.
    if listed.is_empty() || !scopes.iter().eq(listed.iter().map(String::as_str)) {
        return Err(refused());
    }
    Ok(listed)
}

fn is_printable(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

pub(crate) fn text(name: &impl ToString) -> Parameter {
    Parameter::Text(name.to_string())
}

//! Registered clients as the database knows them.

use serde::Deserialize;
use serde_json::Value;
use shared::access::is_service;
use shared::clock::Timestamp;
use shared::dpop::{self, Proof};
use shared::federation::Rule;
use shared::jwks::{Algorithm, KeySet};
use shared::jwt::{self, AccessToken, FUTURE_SKEW};
use shared::name::{ClientId, Tenant};
use shared::port::{Database, Fault, FaultKind, Parameter};
use shared::scope::Scopes;

/// A client that may ask for tokens.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub client_id: ClientId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The most it may be granted.
    pub scopes: Scopes,
    /// Other APIs that it may ask tokens for.
    pub audiences: Vec<String>,
    /// The Access service token that its tokens must come with.
    pub service: Option<String>,
    /// Whether its tokens must be bound to a key.
    pub dpop: bool,
    /// The longest life of its tokens, in seconds.
    pub ttl: i64,
    /// Changes with every change of the row.
    pub version: i64,
    /// Whether it can prove nothing about itself, and so acts for people only.
    pub public: bool,
    /// The keys its own assertions are verified with; of a public client none.
    pub keys: KeySet,
    /// The workloads that are it.
    pub federation: Vec<Rule>,
}

/// The row as `api.client_for_token` answers it.
#[derive(Deserialize)]
struct Row {
    client_id: String,
    tenant: String,
    jwks: Value,
    #[serde(default)]
    federation: Vec<Value>,
    algorithms: Vec<String>,
    scopes: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    service: Option<String>,
    dpop: bool,
    ttl_seconds: i64,
    enabled: bool,
    version: i64,
}

/// What a proof of the client uses up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Use {
    /// What counts once; nothing where the assertion may be used again while it lives.
    pub once: Option<String>,
    /// When nobody takes the assertion any more.
    pub until: Timestamp,
}

/// What using up an assertion came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consumed {
    /// It was the first use.
    Fresh,
    /// It had been used before.
    Replayed,
    /// The client was changed or disabled since it was read.
    ClientChanged,
    /// The proof had been used before; the assertion is not used up.
    ProofReplayed,
}

/// The algorithms that client assertions may be signed with (FAPI 2.0 §5.4.1: no RS256).
const ASSERTION_ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::Ps256, Algorithm::EdDsa];

/// Looks an enabled client up; `None` for an unknown or disabled one.
pub async fn find<D: Database>(database: &D, id: &ClientId) -> Result<Option<Client>, Fault> {
    let answer = database.call("api.client_for_token", vec![Parameter::Text(id.as_str().to_owned())]).await?;
    if answer.get("outcome").and_then(Value::as_str) == Some("unknown") {
        return Ok(None);
    }
    let row = answer.get("client").cloned().and_then(|row| serde_json::from_value::<Row>(row).ok());
    let row = row.ok_or_else(|| wrong("api.client_for_token"))?;
    if !row.enabled || row.client_id != id.as_str() {
        return Ok(None);
    }
    let allowed = |a: &Algorithm| row.algorithms.iter().any(|name| name == a.as_str());
    let algorithms: Vec<_> = ASSERTION_ALGORITHMS.into_iter().filter(allowed).collect();
    let public = row.algorithms == ["none"];
    if public && !row.dpop {
        return Err(wrong("api.client_for_token"));
    }
    if row.service.as_deref().is_some_and(|service| !is_service(service)) {
        return Err(wrong("api.client_for_token"));
    }
    let keyless = row.jwks.get("keys").and_then(Value::as_array).is_some_and(Vec::is_empty);
    let keys = || if keyless { Some(KeySet::none()) } else { KeySet::parse(&row.jwks, &algorithms).ok() };
    let client = || {
        Some(Client {
            client_id: id.clone(),
            tenant: Tenant::parse(&row.tenant).ok()?,
            scopes: Scopes::parse(&row.scopes.join(" ")).ok()?,
            audiences: row.audiences.clone(),
            service: row.service.clone(),
            dpop: row.dpop,
            ttl: row.ttl_seconds.clamp(1, jwt::MAX_ACCESS_LIFE),
            version: row.version,
            public,
            keys: keys()?,
            federation: row.federation.iter().map(Rule::stored).collect::<Result<_, _>>().ok()?,
        })
    };
    client().map(Some).ok_or_else(|| wrong("api.client_for_token"))
}

/// Uses an assertion up, and the proof that came with it, once whoever else tries at the same time; refuses when the client
/// changed meanwhile.
pub async fn consume<D: Database>(
    database: &D,
    client: &Client,
    used: &Use,
    proof: Option<&Proof>,
    now: Timestamp,
) -> Result<Consumed, Fault> {
    let mut parameters = consuming(client, used, now);
    let function = match proof {
        None => "api.consume_assertion",
        Some(proof) => {
            let ends = proof.issued_at.plus_seconds(dpop::LONGEST + FUTURE_SKEW);
            parameters.extend([
                Parameter::Text(proof.thumbprint.clone()),
                Parameter::Bytes(shared::digest::sha256(proof.jti.as_bytes()).to_vec()),
                Parameter::Int(ends.millis()),
            ]);
            "api.consume_with_proof"
        }
    };
    outcome(function, &database.call(function, parameters).await?)
}

/// Uses an assertion up and ends `token`, which must be the client's own, in one statement: a replay ends nothing, and
/// nothing is ended halfway.
pub async fn revoke<D: Database>(
    database: &D,
    client: &Client,
    used: &Use,
    token: &AccessToken,
    now: Timestamp,
) -> Result<Consumed, Fault> {
    let mut parameters = consuming(client, used, now);
    parameters.extend([Parameter::Text(token.jti.clone()), Parameter::Int(token.expires_at.seconds())]);
    outcome("api.revoke_own", &database.call("api.revoke_own", parameters).await?)
}

fn consuming(client: &Client, used: &Use, now: Timestamp) -> Vec<Parameter> {
    let once = used.once.as_ref().map(|once| shared::digest::sha256(once.as_bytes()).to_vec());
    vec![
        Parameter::Text(client.tenant.as_str().to_owned()),
        Parameter::Text(client.client_id.as_str().to_owned()),
        Parameter::Int(client.version),
        Parameter::OptionalBytes(once),
        Parameter::Int(used.until.plus_seconds(FUTURE_SKEW).millis()),
        Parameter::Int(now.millis()),
    ]
}

fn outcome(function: &'static str, answer: &Value) -> Result<Consumed, Fault> {
    match answer.get("outcome").and_then(Value::as_str) {
        Some("ok" | "revoked") => Ok(Consumed::Fresh),
        Some("replayed") => Ok(Consumed::Replayed),
        Some("client_changed") => Ok(Consumed::ClientChanged),
        Some("proof_replayed") => Ok(Consumed::ProofReplayed),
        _ => Err(wrong(function)),
    }
}

fn wrong(operation: &'static str) -> Fault {
    Fault::new(FaultKind::Invalid, "database", operation)
}

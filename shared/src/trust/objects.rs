//! The bodies of the trust objects that verifiers and the signer read.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TrustObject;
use crate::jwks::{Algorithm, KeySet};
use crate::name::Malformed;

const SECOND: i64 = 1_000;

/// `trust/keys.json`: the public keys that verify our own tokens, a JWK Set.
#[derive(Clone, Debug)]
pub struct OwnKeys(pub KeySet);

impl OwnKeys {
    /// The algorithms that our own tokens may be signed with.
    pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
}

impl TrustObject for OwnKeys {
    const KEY: &'static str = "trust/keys.json";
    const FRESH: i64 = 60 * SECOND;
    const LAST_GOOD: i64 = 3_600 * SECOND;

    fn parse(body: &Value) -> Result<Self, Malformed> {
        KeySet::parse(body, &Self::ALGORITHMS).map(Self)
    }
}

/// Where a signing key is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Verifiers know it; nobody signs with it yet.
    Published,
    /// The one that signs.
    Active,
    /// Nobody signs with it any more; its tokens still verify.
    Retiring,
    /// No token of it can be alive.
    Removed,
}

/// A signing key as the signer needs to know it. Times are milliseconds since the epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKey {
    /// RFC 7638 thumbprint of the public key.
    pub kid: String,
    /// The JOSE name of its algorithm.
    pub alg: String,
    /// How the signer addresses it: the KMS key ARN, or the parameter's name. Never an alias: an alias moves, a `kid` does not.
    pub key: String,
    /// Its state.
    pub state: KeyState,
    /// When it was made.
    pub created_at: i64,
    /// When it was first *seen* in `trust/keys.json`, and has been in it since. Waits count from here, not from the making.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub published_at: Option<i64>,
    /// When it became active.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub activated_at: Option<i64>,
    /// When it stopped signing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retired_at: Option<i64>,
    /// When it was removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub removed_at: Option<i64>,
    /// The public half as a JWK, so that `trust/keys.json` can be published from the state alone.
    #[serde(skip_serializing_if = "Map::is_empty", default)]
    pub jwk: Map<String, Value>,
}

/// Written before a key is made, so that a publisher that dies meanwhile is neither repeated every minute nor forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Making {
    /// When the making began, milliseconds since the epoch.
    pub since: i64,
    /// How many makings before it came to nothing.
    pub lost: u32,
}

/// `trust/signing-state.json`: which key signs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningState {
    /// All keys, the newest last.
    pub keys: Vec<SigningKey>,
    /// The making that is under way, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub making: Option<Making>,
}

impl SigningState {
    /// The one active key for `algorithm`; none when there are two, because then the state is wrong.
    pub fn active(&self, algorithm: Algorithm) -> Option<&SigningKey> {
        let mut active = self.keys.iter().filter(|key| key.state == KeyState::Active && key.alg == algorithm.as_str());
        active.next().filter(|_| active.next().is_none())
    }
}

impl TrustObject for SigningState {
    const KEY: &'static str = "trust/signing-state.json";
    const FRESH: i64 = 60 * SECOND;
    const LAST_GOOD: i64 = 3_600 * SECOND;

    fn parse(body: &Value) -> Result<Self, Malformed> {
        // As above: serde reads a structure from an array of its members too.
        let keys = body.as_object().and_then(|body| body.get("keys")).and_then(Value::as_array);
        if !keys.is_some_and(|keys| keys.iter().all(Value::is_object)) {
            return Err(Malformed("signing state"));
        }
        Self::deserialize(body).map_err(|_| Malformed("signing state"))
    }
}

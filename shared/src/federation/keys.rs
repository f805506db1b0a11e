//! The keys of a foreign issuer, as they are mirrored.

use serde_json::Value;

use crate::issuer::ALGORITHMS;
use crate::jwks::{KeySet, Usage};
use crate::name::Malformed;
use crate::trust::TrustObject;

/// `trust/issuers/{id}.json`: the public keys of one foreign issuer, all for one use.
#[derive(Clone, Debug)]
pub struct IssuerKeys {
    keys: KeySet,
    usage: Usage,
}

impl IssuerKeys {
    /// The keys, where they are for `usage`. A mirror of another kind of issuer under the same name serves nobody.
    pub fn of(&self, usage: Usage) -> Option<&KeySet> {
        (self.usage == usage).then_some(&self.keys)
    }
}

impl TrustObject for IssuerKeys {
    /// The folder: each issuer has an object of its own in it.
    const KEY: &'static str = "trust/issuers";
    const FRESH: i64 = 60_000;
    /// The mirror says how long each object may be used.
    const LAST_GOOD: i64 = i64::MAX;

    fn parse(body: &Value) -> Result<Self, Malformed> {
        let read = |usage| KeySet::parse_for(body, &ALGORITHMS, usage).map(|keys| Self { keys, usage });
        read(Usage::Signature).or_else(|_| read(Usage::JwtSvid))
    }
}

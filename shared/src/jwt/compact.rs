//! A JWS in compact form (RFC 7515 §7.1), read strictly.

use serde_json::{Map, Value};

use super::{MAX_LENGTH, Reason};
use crate::encoding::from_base64url;
use crate::json;
use crate::jwks::{Algorithm, Key, KeySet};
use crate::name::Malformed;

/// Header parameters that nobody may send: they must be understood, name a key from elsewhere, or mean another format. A
/// thumbprint (`x5t`) names no place to take a key from; issuers that are known to send one have it tolerated.
const FORBIDDEN: [&str; 10] = ["crit", "jku", "x5u", "x5c", "x5t", "x5t#S256", "zip", "b64", "enc", "cty"];

/// A compact JWS in canonical form, its signature not yet checked.
pub(crate) struct Compact<'a> {
    /// The header's members.
    pub(crate) header: Map<String, Value>,
    /// The payload's members.
    pub(crate) claims: Map<String, Value>,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Compact<'a> {
    /// Reads a token whose key is known by its `kid`: a key in the header is refused.
    pub(crate) fn parse(token: &'a str) -> Result<Self, Reason> {
        Self::tolerating(token, &[])
    }

    /// The same where the header may also have these parameters of [`FORBIDDEN`], which are not looked at.
    pub(crate) fn tolerating(token: &'a str, tolerated: &[&str]) -> Result<Self, Reason> {
        let forbidden = |name: &str| FORBIDDEN.contains(&name) && !tolerated.contains(&name) || name == "jwk";
        Self::read(token, strict)?.without(forbidden)
    }

    /// Reads a token that may bring its own key.
    pub(crate) fn with_key(token: &'a str) -> Result<Self, Reason> {
        Self::read(token, strict)?.without(|name| FORBIDDEN.contains(&name))
    }

    /// Refuses what [`Compact::tolerating`] let pass.
    pub(crate) fn tolerates_nothing(&self) -> Result<(), Reason> {
        let forbidden = self.header.keys().any(|name| FORBIDDEN.contains(&name.as_str()));
        if forbidden { Err(Reason::ForbiddenHeader) } else { Ok(()) }
    }

    fn without(self, forbidden: impl Fn(&str) -> bool) -> Result<Self, Reason> {
        if self.header.keys().any(|name| forbidden(name)) { Err(Reason::ForbiddenHeader) } else { Ok(self) }
    }

    fn read(
        token: &'a str,
        claims_of: impl Fn(&[u8]) -> Result<Map<String, Value>, Malformed>,
    ) -> Result<Self, Reason> {
        if token.len() > MAX_LENGTH || !token.is_ascii() {
            return Err(Reason::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Reason::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Reason::Malformed)?;
        if [header, claims, signature].iter().any(|part| part.is_empty() || part.contains('.')) {
            return Err(Reason::Malformed);
        }
        let decode = |part: &str| from_base64url(part).ok_or(Reason::Malformed);
        decode(signature)?;
        let header = json::object(&decode(header)?, 4).map_err(|_| Reason::Malformed)?;
        let claims = claims_of(&decode(claims)?).map_err(|_| Reason::Malformed)?;
        Ok(Self { header, claims, signed, signature })
    }

    /// A text member of the header.
    pub(crate) fn header_text(&self, name: &str) -> Result<Option<&str>, Reason> {
        match self.header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Reason::Malformed),
        }
    }

    /// The algorithm that the header names, one of those we know.
    pub(crate) fn algorithm(&self) -> Result<Algorithm, Reason> {
        self.header_text("alg")?.and_then(Algorithm::parse).ok_or(Reason::WrongAlgorithm)
    }

    /// Checks the signature under the key that `kid` names.
    pub(crate) fn verify<'k>(&self, keys: &'k KeySet) -> Result<&'k Key, Reason> {
        let algorithm = self.algorithm()?;
        let kid = self.header_text("kid")?.ok_or(Reason::UnknownKey)?;
        let key = keys.find(kid).ok_or(Reason::UnknownKey)?;
        if key.algorithm == algorithm { self.verify_under(key).map(|()| key) } else { Err(Reason::WrongAlgorithm) }
    }

    /// Checks the signature under one key and its algorithm.
    pub(crate) fn verify_under(&self, key: &Key) -> Result<(), Reason> {
        let (signed, algorithm) = (self.signed.as_bytes(), key.algorithm.jose());
        // `Ok(false)` is what a bad signature answers: `.is_ok()` would be a hole.
        match jsonwebtoken::crypto::verify(self.signature, signed, &key.decoding, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Reason::BadSignature),
        }
    }
}

/// The payload of a JWT: a JSON object that two parsers read alike.
fn strict(claims: &[u8]) -> Result<Map<String, Value>, Malformed> {
    json::object(claims, 8)
}

#[cfg(test)]
mod wycheproof;

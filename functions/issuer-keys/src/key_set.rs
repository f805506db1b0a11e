//! From what an issuer publishes to what verifiers read.

use serde_json::{Map, Value, json};
use shared::jwks::{Algorithm, KeySet, MAX_BYTES, Usage};
use shared::name::Malformed;
use shared::port::Document;

/// The public members of a key (RFC 7518 §6, RFC 8037 §2). Certificates, chains and whatever else an issuer adds stay behind.
const MEMBERS: [&str; 7] = ["kty", "kid", "crv", "x", "y", "n", "e"];
const BAD: Malformed = Malformed("key set");

/// Reads an issuer's JWK Set as strictly as verifiers do and leaves what they need: every key for `usage` that `accepted` allows, with
/// its one algorithm spelled out.
///
/// Refused: another media type than JSON, more than 256 KB, and whatever [`KeySet::parse_for`] refuses.
pub fn read(document: &Document, accepted: &[Algorithm], usage: Usage) -> Result<Value, Malformed> {
    if document.body.len() > MAX_BYTES || !is_json(document.content_type.as_deref()) {
        return Err(BAD);
    }
    let published = Value::Object(shared::json::object(&document.body, 8)?);
    let read = KeySet::parse_for(&published, accepted, usage)?;
    let listed = published.get("keys").and_then(Value::as_array).ok_or(BAD)?;
    let mut keys = Vec::new();
    for key in read.iter() {
        let of_key = |jwk: &&Value| jwk.get("kid").and_then(Value::as_str) == Some(key.kid.as_str());
        let jwk = listed.iter().find(of_key).and_then(Value::as_object).ok_or(BAD)?;
        let public = jwk.iter().filter(|(name, _)| MEMBERS.contains(&name.as_str()));
        let mut public: Map<String, Value> = public.map(|(name, value)| (name.clone(), value.clone())).collect();
        public.insert("alg".to_owned(), json!(key.algorithm.as_str()));
        public.insert("use".to_owned(), json!(usage.as_str()));
        keys.push(Value::Object(public));
    }
    let mirrored = json!({ "keys": keys });
    // What is written must read back as the same keys, or it is not written.
    let back = KeySet::parse_for(&mirrored, accepted, usage)?;
    let same = |(one, other): (&shared::jwks::Key, &shared::jwks::Key)| {
        one.kid == other.kid && one.algorithm == other.algorithm && one.thumbprint == other.thumbprint
    };
    if back.iter().count() == read.iter().count() && back.iter().zip(read.iter()).all(same) {
        Ok(mirrored)
    } else {
        Err(BAD)
    }
}

/// `application/json` or `application/jwk-set+json` (RFC 7517 §8.5), parameters aside.
fn is_json(content_type: Option<&str>) -> bool {
    let media = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    ["application/json", "application/jwk-set+json"].iter().any(|known| media.eq_ignore_ascii_case(known))
}

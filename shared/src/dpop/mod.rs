//! Proofs of possession (RFC 9449): a token that is bound to a key is worth nothing without a fresh signature of that key over this
//! very request.
//!
//! [`verify`] judges a proof alone and [`Possession`] a request with its token. Where the request was sent is taken from the
//! configured base URL and never from a header: whoever forwards requests can choose those.

pub mod nonce;
mod seen;
mod target;

use seen::Seen;
pub use target::Target;

use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::credential::{Presented, Scheme};
use crate::digest::sha256;
use crate::encoding::base64url;
use crate::http::Headers;
use crate::jwks::{Algorithm, Key, KeySet};
use crate::jwt::compact::Compact;
use crate::jwt::{AccessToken, Reason, bounded, date, text};

/// The algorithms that a proof may be signed with.
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::Ps256, Algorithm::EdDsa];

const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
const PUBLIC_MEMBERS: [&str; 6] = ["kty", "crv", "x", "y", "n", "e"];

/// What is wrong with a proof. Goes to the log, never to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flaw {
    /// A bound token came without a proof, or as a bearer token.
    Missing,
    /// More than one proof.
    Ambiguous,
    /// Not a compact JWS in canonical form.
    Malformed,
    /// `typ` is not `dpop+jwt`.
    WrongType,
    /// `alg` is not one of [`ALGORITHMS`].
    WrongAlgorithm,
    /// The header holds something that must not be there.
    ForbiddenHeader,
    /// `jwk` is missing, private, weak, or not of the algorithm's kind.
    BadKey,
    /// The signature does not hold under `jwk`.
    BadSignature,
    /// A claim is missing or has another type than it must have.
    BadClaims,
    /// `htm` is another method.
    WrongMethod,
    /// `htu` is another URL.
    WrongTarget,
    /// `iat`, `nbf` or `exp` is not of now.
    WrongTime,
    /// `ath` is not the hash of this token.
    WrongToken,
    /// The proof is by another key than the one the token is bound to.
    WrongKey,
    /// The proof was used before.
    Replayed,
    /// A proof, or the scheme that announces one, came with a token that is bound to no key.
    Unbound,
}

impl Flaw {
    /// The stable name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "proof_missing",
            Self::Ambiguous => "proof_ambiguous",
            Self::Malformed => "proof_malformed",
            Self::WrongType => "proof_wrong_type",
            Self::WrongAlgorithm => "proof_wrong_algorithm",
            Self::ForbiddenHeader => "proof_forbidden_header",
            Self::BadKey => "proof_bad_key",
            Self::BadSignature => "proof_bad_signature",
            Self::BadClaims => "proof_bad_claims",
            Self::WrongMethod => "proof_wrong_method",
            Self::WrongTarget => "proof_wrong_target",
            Self::WrongTime => "proof_wrong_time",
            Self::WrongToken => "proof_wrong_token",
            Self::WrongKey => "proof_wrong_key",
            Self::Replayed => "proof_replayed",
            Self::Unbound => "proof_for_unbound_token",
        }
    }

    const fn of(reason: Reason) -> Self {
        match reason {
            Reason::ForbiddenHeader => Self::ForbiddenHeader,
            Reason::WrongAlgorithm => Self::WrongAlgorithm,
            Reason::BadSignature => Self::BadSignature,
            Reason::BadClaims => Self::BadClaims,
            _ => Self::Malformed,
        }
    }
}

/// How far `iat` may lie from now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// From 60 s ago to 10 s ahead: for proofs that nothing else ties to the moment.
    Narrow,
    /// 300 s either way, for proofs that carry a nonce of ours: clients' clocks may be wrong, the nonce is not.
    Wide,
}

impl Window {
    const fn bounds(self) -> (i64, i64) {
        match self {
            Self::Narrow => (60, 10),
            Self::Wide => (300, 300),
        }
    }
}

/// How long the `jti` of a proof can be used at most, in seconds after its `iat`.
pub const LONGEST: i64 = 300;

/// What a proof must be of.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The request's method, as it was sent.
    pub method: &'a str,
    /// The request's URL as the outside knows it.
    pub target: &'a Target,
    /// The access token beside it, where there is one.
    pub token: Option<&'a str>,
    /// How old it may be.
    pub window: Window,
}

/// A proof whose signature, claims and time hold. That it is used for the first time is still to be seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// RFC 7638 thumbprint of its key: what `cnf.jkt` of a token bound to it says.
    pub thumbprint: String,
    /// `jti`
    pub jti: String,
    /// `iat`
    pub issued_at: Timestamp,
    /// `nonce`
    pub nonce: Option<String>,
}

/// Verifies a proof (RFC 9449 §4.3, all but its checks 10, the nonce, and 11, the replay).
///
/// Unknown members of header and payload are ignored, as the RFC wants; `nbf` and `exp` are honoured where they are.
pub fn verify(proof: &str, expected: &Expected<'_>, now: Timestamp) -> Result<Proof, Flaw> {
    let compact = Compact::with_key(proof).map_err(Flaw::of)?;
    if compact.header_text("typ").map_err(Flaw::of)? != Some("dpop+jwt") {
        return Err(Flaw::WrongType);
    }
    let algorithm = compact.algorithm().map_err(Flaw::of)?;
    if !ALGORITHMS.contains(&algorithm) {
        return Err(Flaw::WrongAlgorithm);
    }
    let key = own_key(compact.header.get("jwk"), algorithm)?;
    compact.verify_under(&key).map_err(Flaw::of)?;
    let claims = &compact.claims;
    if text(claims, "htm").map_err(Flaw::of)? != expected.method {
        return Err(Flaw::WrongMethod);
    }
    if Target::parse(text(claims, "htu").map_err(Flaw::of)?).as_ref() != Some(expected.target) {
        return Err(Flaw::WrongTarget);
    }
    let issued_at = timely(claims, expected.window, now)?;
    if let Some(token) = expected.token {
        let ath = text(claims, "ath").map_err(Flaw::of)?;
        if ath != base64url(&sha256(token.as_bytes())) {
            return Err(Flaw::WrongToken);
        }
    }
    // Whatever is no nonce of ours counts as none: only the token endpoint asks for one, and it then hands out a good one.
    let nonce = claims.get("nonce").and_then(Value::as_str).filter(|nonce| nonce.len() <= 128).map(str::to_owned);
    let jti = bounded(claims, "jti", 128).map_err(Flaw::of)?.to_owned();
    Ok(Proof { thumbprint: key.thumbprint, jti, issued_at, nonce })
}

/// Judges the requests of one environment: whoever sends one must hold the key that its token is bound to (RFC 9449 §7).
#[derive(Debug)]
pub struct Possession {
    base: String,
    seen: Seen,
}

impl Possession {
    /// `base` is the external base URL, which proofs name.
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned(), seen: Seen::default() }
    }

    /// Checks the proof that a bound token demands, for a request of `method` to `path` (as sent, without a stage).
    ///
    /// A token that is bound to no key passes as a bearer token only; a proof beside it is refused, because its sender believes in
    /// a protection that is not there.
    pub fn check(
        &self,
        token: &AccessToken,
        presented: &Presented<'_>,
        headers: &Headers,
        (method, path): (&str, &str),
        now: Timestamp,
    ) -> Result<(), Flaw> {
        let proof = header(headers)?;
        let Some(thumbprint) = &token.thumbprint else {
            let plain = presented.scheme == Scheme::Bearer && proof.is_none();
            return if plain { Ok(()) } else { Err(Flaw::Unbound) };
        };
        let proof = proof.filter(|_| presented.scheme == Scheme::Dpop).ok_or(Flaw::Missing)?;
        let target = Target::new(&self.base, path).map_err(|_| Flaw::WrongTarget)?;
        let expected = Expected { method, target: &target, token: Some(presented.token), window: Window::Narrow };
        let proof = verify(proof, &expected, now)?;
        if proof.thumbprint != *thumbprint {
            return Err(Flaw::WrongKey);
        }
        if self.seen.first(&proof, now) { Ok(()) } else { Err(Flaw::Replayed) }
    }
}

/// The one proof among the headers, if there is any.
pub fn header(headers: &Headers) -> Result<Option<&str>, Flaw> {
    let mut values = headers.all("dpop");
    let first = values.next();
    // Some gateways join repeated headers.
    if values.next().is_some() || first.is_some_and(|value| value.contains(',')) {
        return Err(Flaw::Ambiguous);
    }
    Ok(first)
}

/// The key that the proof brings: public, strong, of the algorithm's kind. What it says of itself beyond that counts for nothing.
fn own_key(jwk: Option<&Value>, algorithm: Algorithm) -> Result<Key, Flaw> {
    const KID: &str = "proof";
    let jwk = jwk.and_then(Value::as_object).ok_or(Flaw::BadKey)?;
    if PRIVATE_MEMBERS.iter().any(|member| jwk.contains_key(*member)) {
        return Err(Flaw::BadKey);
    }
    let named = jwk.get("alg").map(|named| named.as_str().and_then(Algorithm::parse));
    if named.is_some_and(|named| named != Some(algorithm)) {
        return Err(Flaw::BadKey);
    }
    let mut key: Map<String, Value> = jwk
        .iter()
        .filter(|(name, _)| PUBLIC_MEMBERS.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    key.extend([("kid".to_owned(), json!(KID)), ("alg".to_owned(), json!(algorithm.as_str()))]);
    let set = KeySet::parse(&json!({ "keys": [key] }), &[algorithm]).map_err(|_| Flaw::BadKey)?;
    set.find(KID).cloned().ok_or(Flaw::BadKey)
}

fn timely(claims: &Map<String, Value>, window: Window, now: Timestamp) -> Result<Timestamp, Flaw> {
    let (past, future) = window.bounds();
    let issued = date(claims, "iat").map_err(Flaw::of)?.ok_or(Flaw::BadClaims)?;
    let not_before = date(claims, "nbf").map_err(Flaw::of)?;
    let expires = date(claims, "exp").map_err(Flaw::of)?;
    let now = now.seconds();
    let fresh = (now - past..=now + future).contains(&issued);
    // A clock that may be slow by minutes dates the end of a proof by it too.
    let slack = match window {
        Window::Narrow => 0,
        Window::Wide => past,
    };
    if !fresh || not_before.is_some_and(|start| start > now + future) || expires.is_some_and(|end| end <= now - slack) {
        return Err(Flaw::WrongTime);
    }
    Ok(Timestamp::from_seconds(issued))
}

#[cfg(test)]
mod tests;

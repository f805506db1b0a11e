//! Public key sets (RFC 7517), each key bound to exactly one algorithm.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use crate::encoding::{base64url, from_base64url};
use crate::name::Malformed;

/// A signature algorithm of RFC 7518 §3.1 or RFC 8037 that this house accepts. There is no `none` and no `HS*` to name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes.
    Ps256,
    /// Ed25519, named `EdDSA` (RFC 8037) or `Ed25519` (RFC 9864).
    EdDsa,
}

impl Algorithm {
    /// By its JOSE name, in the one spelling that the registry has.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "RS256" => Self::Rs256,
            "PS256" => Self::Ps256,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    /// The JOSE name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(crate) const fn jose(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Es384 => jsonwebtoken::Algorithm::ES384,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Ps256 => jsonwebtoken::Algorithm::PS256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One public key and the only algorithm it verifies.
#[derive(Clone)]
pub struct Key {
    /// The key id.
    pub kid: String,
    /// The algorithm bound to it.
    pub algorithm: Algorithm,
    /// RFC 7638 thumbprint with SHA-256, base64url.
    pub thumbprint: String,
    pub(crate) decoding: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What the keys of a set say they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Usage {
    /// `sig`, or nothing at all (RFC 7517 §4.2).
    Signature,
    /// `jwt-svid` and nothing else: a SPIFFE bundle holds keys of other kinds beside them.
    JwtSvid,
}

impl Usage {
    /// The member `use`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signature => "sig",
            Self::JwtSvid => "jwt-svid",
        }
    }

    fn covers(self, jwk: &Map<String, Value>) -> bool {
        match jwk.get("use") {
            None => self == Self::Signature,
            Some(usage) => usage.as_str() == Some(self.as_str()),
        }
    }
}

/// A set of public keys with unique key ids.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// The largest key set that is read, in bytes of its JSON text.
pub const MAX_BYTES: usize = 256 * 1024;
const MAX_KEYS: usize = 32;
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl KeySet {
    /// Reads a JWK Set, keeping the keys that `accepted` allows.
    ///
    /// The whole set is refused for a private or symmetric key, a repeated `kid`, more than 32 keys, a key of an accepted
    /// kind that is weak or malformed, or when no usable key is left; single keys of other kinds or uses are skipped.
    pub fn parse(set: &Value, accepted: &[Algorithm]) -> Result<Self, Malformed> {
        Self::parse_for(set, accepted, Usage::Signature)
    }

    /// The same for keys that are for `usage`.
    pub fn parse_for(set: &Value, accepted: &[Algorithm], usage: Usage) -> Result<Self, Malformed> {
        let listed = set.get("keys").and_then(Value::as_array).ok_or(BAD)?;
        if listed.len() > MAX_KEYS {
            return Err(BAD);
        }
        let mut keys: Vec<Key> = Vec::new();
        let mut kids: Vec<&str> = Vec::new();
        for jwk in listed {
            let jwk = jwk.as_object().ok_or(BAD)?;
            if PRIVATE_MEMBERS.iter().any(|member| jwk.contains_key(*member)) || text(jwk, "kty") == Some("oct") {
                return Err(BAD);
            }
            if let Some(kid) = text(jwk, "kid") {
                if kids.contains(&kid) {
                    return Err(BAD);
                }
                kids.push(kid);
            }
            if let Some(key) = parse_key(jwk, accepted, usage)? {
                keys.push(key);
            }
        }
        if keys.is_empty() { Err(BAD) } else { Ok(Self { keys }) }
    }

    /// The set in which no key is.
    pub const fn none() -> Self {
        Self { keys: Vec::new() }
    }

    /// Reads a JWK Set from its text; see [`KeySet::parse`]. Duplicate members are refused.
    pub fn parse_text(text: &[u8], accepted: &[Algorithm]) -> Result<Self, Malformed> {
        if text.len() > MAX_BYTES {
            return Err(BAD);
        }
        Self::parse(&Value::Object(crate::json::object(text, 8)?), accepted)
    }

    /// The key with this id.
    pub fn find(&self, kid: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.kid == kid)
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

const BAD: Malformed = Malformed("key set");

/// `Ok(None)` means: a key of a kind that is not for us.
fn parse_key(jwk: &Map<String, Value>, accepted: &[Algorithm], usage: Usage) -> Result<Option<Key>, Malformed> {
    let Some(kid) = text(jwk, "kid").filter(|kid| is_kid(kid)) else { return Ok(None) };
    if !usage.covers(jwk) {
        return Ok(None);
    }
    let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")));
    if jwk.get("key_ops").is_some_and(|ops| !verifies(ops)) {
        return Ok(None);
    }
    let Some(possible) = possible(jwk) else { return Ok(None) };
    let algorithm = match jwk.get("alg") {
        Some(named) => match named.as_str().and_then(Algorithm::parse) {
            Some(algorithm) if possible.contains(&algorithm) => algorithm,
            Some(_) => return Err(BAD),
            None => return Ok(None),
        },
        None => match accepted.iter().copied().filter(|a| possible.contains(a)).collect::<Vec<_>>().as_slice() {
            [only] => *only,
            _ => return Ok(None),
        },
    };
    if !accepted.contains(&algorithm) {
        return Ok(None);
    }
    let (decoding, thumbprint) = material(jwk, algorithm)?;
    Ok(Some(Key { kid: kid.to_owned(), algorithm, thumbprint, decoding }))
}

/// Which algorithms a key of this type and curve can serve.
fn possible(jwk: &Map<String, Value>) -> Option<&'static [Algorithm]> {
    match (text(jwk, "kty")?, text(jwk, "crv")) {
        ("RSA", _) => Some(&[Algorithm::Rs256, Algorithm::Ps256]),
        ("EC", Some("P-256")) => Some(&[Algorithm::Es256]),
        ("EC", Some("P-384")) => Some(&[Algorithm::Es384]),
        ("OKP", Some("Ed25519")) => Some(&[Algorithm::EdDsa]),
        _ => None,
    }
}

fn material(jwk: &Map<String, Value>, algorithm: Algorithm) -> Result<(DecodingKey, String), Malformed> {
    let member = |name: &str| text(jwk, name).and_then(from_base64url).ok_or(BAD);
    match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 => {
            let (n, e) = (member("n")?, member("e")?);
            let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
            // Wycheproof's key set vectors: short moduli, even ones, and any exponent but F4.
            let odd = n.last().is_some_and(|last| last % 2 == 1);
            if !(2048..=8192).contains(&bits) || n.first() == Some(&0) || !odd || is_roca(&n) || e != [1, 0, 1] {
                return Err(BAD);
            }
            let canonical = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, base64url(&e), base64url(&n));
            Ok((DecodingKey::from_rsa_raw_components(&n, &e), thumbprint(&canonical)))
        }
        Algorithm::Es256 | Algorithm::Es384 => {
            let (x, y) = (member("x")?, member("y")?);
            let (length, curve, check): (usize, &str, &'static dyn aws_lc_rs::signature::VerificationAlgorithm) =
                if algorithm == Algorithm::Es256 {
                    (32, "P-256", &ECDSA_P256_SHA256_FIXED)
                } else {
                    (48, "P-384", &ECDSA_P384_SHA384_FIXED)
                };
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            if x.len() != length || ParsedPublicKey::new(check, &point).is_err() {
                return Err(BAD);
            }
            let (x, y) = (base64url(&x), base64url(&y));
            let decoding = DecodingKey::from_ec_components(&x, &y).map_err(|_| BAD)?;
            Ok((decoding, thumbprint(&format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#))))
        }
        Algorithm::EdDsa => {
            let x = member("x")?;
            if x.len() != 32 || is_of_small_order(&x) || ParsedPublicKey::new(&ED25519, &x).is_err() {
                return Err(BAD);
            }
            let x = base64url(&x);
            let decoding = DecodingKey::from_ed_components(&x).map_err(|_| BAD)?;
            Ok((decoding, thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#))))
        }
    }
}

/// Whether a modulus has the fingerprint of a library that made guessable primes (CVE-2017-15361, "ROCA"): modulo every small
/// prime it is a power of 65537. Of good moduli one in two hundred million has it by chance.
fn is_roca(n: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|prime| {
        let residue = n.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..*prime).any(|_| {
            power = power * 65_537 % prime;
            power == residue
        })
    })
}

/// Points whose order divides 8, whatever their sign bit (RFC 8032 §5.1.7 lets verifiers take them): one signature under such
/// a key holds for every message.
fn is_of_small_order(x: &[u8]) -> bool {
    const HIGH: [u8; 30] = [0xff; 30];
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = x.to_vec();
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    match y.as_slice() {
        [0 | 1, rest @ ..] if rest.iter().all(|b| *b == 0) => true,
        // p − 1, and p and p + 1 as other spellings of 0 and 1.
        [0xec..=0xee, middle @ .., 0x7f] if middle == HIGH => true,
        y => ORDER_8.iter().any(|point| point == y),
    }
}

fn thumbprint(canonical: &str) -> String {
    base64url(digest(&SHA256, canonical.as_bytes()).as_ref())
}

fn is_kid(kid: &str) -> bool {
    (1..=128).contains(&kid.len()) && kid.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::UnparsedPublicKey;
    use serde_json::json;

    use super::*;

    const ALL: [Algorithm; 5] =
        [Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256, Algorithm::Ps256, Algorithm::EdDsa];
    const RFC7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    fn rsa() -> Value {
        json!({"kty":"RSA","n":RFC7638_N,"e":"AQAB","alg":"RS256","kid":"2011-04-29"})
    }

    fn ec() -> Value {
        json!({"kty":"EC","crv":"P-256","kid":"1",
            "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
    }

    fn ed() -> Value {
        json!({"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn with(mut jwk: Value, member: &str, value: Value) -> Value {
        jwk[member] = value;
        jwk
    }

    fn set(keys: &[Value]) -> Value {
        json!({ "keys": keys })
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        for (jwk, thumbprint) in [
            (rsa(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
            (ec(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"),
            (ed(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
        ] {
            let keys = KeySet::parse(&set(&[jwk]), &ALL).unwrap();
            assert_eq!(keys.iter().next().unwrap().thumbprint, thumbprint);
        }
    }

    #[test]
    fn one_bad_key_refuses_the_whole_set() {
        let short_n = base64url(&[0xff; 255]);
        let even_n = base64url(&[0xfe; 256]);
        let modulus = |bytes: usize, first: u8| [&[first][..], &vec![0xff; bytes - 1]].concat();
        let point = ["x", "y"].map(|name| from_base64url(ec()[name].as_str().unwrap()).unwrap()).concat();
        for (what, jwk) in [
            ("private EC", with(ec(), "d", json!("AA"))),
            ("private RSA", with(rsa(), "p", json!("AA"))),
            ("symmetric", json!({"kty":"oct","k":"AAAA","kid":"s"})),
            ("symmetric without k", json!({"kty":"oct","kid":"s"})),
            ("same kid twice", with(ec(), "kid", json!("2011-04-29"))),
            ("2040 bits", with(with(rsa(), "kid", json!("r")), "n", json!(short_n))),
            ("2047 bits", with(with(rsa(), "kid", json!("r")), "n", json!(base64url(&modulus(256, 0x7f))))),
            ("8193 bits", with(with(rsa(), "kid", json!("r")), "n", json!(base64url(&modulus(1_025, 1))))),
            ("even modulus", with(with(rsa(), "kid", json!("r")), "n", json!(even_n))),
            ("e = 3", with(with(rsa(), "kid", json!("r")), "e", json!("Aw"))),
            ("e = 1", with(with(rsa(), "kid", json!("r")), "e", json!("AQ"))),
            ("padded n", with(with(rsa(), "kid", json!("r")), "n", json!(format!("{RFC7638_N}==")))),
            ("x too short", with(ec(), "x", json!("AAAA"))),
            (
                "a point cut elsewhere",
                with(with(ec(), "x", json!(base64url(&point[..31]))), "y", json!(base64url(&point[31..]))),
            ),
            ("y too long", with(ec(), "y", json!(base64url(&[&point[32..], &[0]].concat())))),
            ("not on the curve", with(ec(), "x", json!(base64url(&[1; 32])))),
            ("alg of another curve", with(ec(), "alg", json!("ES384"))),
            ("alg of another type", with(ec(), "alg", json!("RS256"))),
            ("not an object", json!("key")),
        ] {
            assert!(KeySet::parse(&set(&[rsa(), jwk]), &ALL).is_err(), "{what}");
        }
        let many =
            |count: usize| -> Vec<Value> { (0..count).map(|at| with(ec(), "kid", json!(at.to_string()))).collect() };
        for (bytes, first) in [(256, 0x80), (1_024, 0xff)] {
            let fits = with(rsa(), "n", json!(base64url(&modulus(bytes, first))));
            assert!(KeySet::parse(&set(&[fits]), &ALL).is_ok(), "{bytes} bytes");
        }
        assert_eq!(KeySet::parse(&set(&many(32)), &ALL).map(|keys| keys.iter().count()).ok(), Some(32));
        assert!(KeySet::parse(&set(&many(33)), &ALL).is_err());
        for not_a_set in [json!([]), json!({}), json!({"keys": {}}), json!({"keys": []})] {
            assert!(KeySet::parse(&not_a_set, &ALL).is_err());
        }
    }

    #[test]
    fn an_ed25519_key_that_verifies_everything_is_refused() {
        let one_then = |rest: u8, last: u8| [&[1][..], &[rest; 30], &[last]].concat();
        let ending = |first: u8, last: u8| [&[first][..], &[0xff; 30], &[last]].concat();
        let order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
        let order_8 = crate::encoding::from_hex(order_8).unwrap();
        let mut negative = order_8.clone();
        negative[31] |= 0x80;
        for (what, x) in [
            ("the neutral element", one_then(0, 0)),
            ("the neutral element, signed", one_then(0, 0x80)),
            ("order 4", vec![0; 32]),
            ("order 2", ending(0xec, 0x7f)),
            ("p", ending(0xed, 0x7f)),
            ("p + 1, signed", ending(0xee, 0xff)),
            ("order 8", order_8),
            ("order 8, signed", negative),
        ] {
            let key = with(ed(), "x", json!(base64url(&x)));
            assert!(KeySet::parse(&set(&[key]), &ALL).is_err(), "{what}");
        }
        assert!(KeySet::parse(&set(&[ed()]), &ALL).is_ok());
        // Others that begin or end alike are as good as any.
        let alike = (1..=0xfe).flat_map(|other| {
            let small = [0, 1].map(|first| [&[first, other][..], &[0; 30]].concat());
            let large = [0xec, 0xed, 0xee].map(|first| [&[first, other][..], &[0xff; 29], &[0x7f]].concat());
            small.into_iter().chain(large)
        });
        let points: Vec<Vec<u8>> = alike.filter(|x| ParsedPublicKey::new(&ED25519, x).is_ok()).collect();
        assert!([0, 1, 0xec, 0xed, 0xee].iter().all(|first| points.iter().any(|x| x[0] == *first)));
        for x in points {
            assert!(KeySet::parse(&set(&[with(ed(), "x", json!(base64url(&x)))]), &ALL).is_ok(), "{x:?}");
        }
        // Why: R = the neutral element and S = 0 sign every message under it, and the verifier does not mind.
        let key = UnparsedPublicKey::new(&ED25519, one_then(0, 0));
        let signature = [one_then(0, 0), vec![0; 32]].concat();
        assert!(key.verify(b"any message", &signature).is_ok() && key.verify(b"any other", &signature).is_ok());
    }

    #[test]
    fn a_modulus_of_guessable_primes_is_known_and_others_are_not() {
        // 65537 to any power is one modulo every prime, and so is a product of such primes.
        let mut power = vec![1];
        for _ in 0..127 {
            let mut carry = 0_u32;
            for byte in power.iter_mut().rev() {
                carry += u32::from(*byte) * 65_537;
                *byte = u8::try_from(carry & 0xff).unwrap();
                carry >>= 8;
            }
            while carry > 0 {
                power.insert(0, u8::try_from(carry & 0xff).unwrap());
                carry >>= 8;
            }
        }
        assert!(is_roca(&power));
        for step in 1..=200_u8 {
            let mut other = power.clone();
            *other.last_mut().unwrap() ^= step;
            assert!(!is_roca(&other), "{step}");
        }
        assert!(!is_roca(&from_base64url(RFC7638_N).unwrap()));
    }

    #[test]
    fn a_key_that_is_not_for_us_is_skipped_and_the_rest_serves() {
        for (what, jwk) in [
            ("for encryption", with(ec(), "use", json!("enc"))),
            ("may only sign", with(ec(), "key_ops", json!(["sign"]))),
            ("without kid", json!({"kty":"EC","crv":"P-256","x":ec()["x"],"y":ec()["y"]})),
            ("unknown curve", with(ec(), "crv", json!("P-521"))),
            ("unknown alg", with(ec(), "alg", json!("ES256K"))),
            ("unknown type", json!({"kty":"AKP","kid":"pq"})),
            ("kid with a space", with(ec(), "kid", json!("a b"))),
        ] {
            let keys = KeySet::parse(&set(&[rsa(), jwk]), &ALL).unwrap();
            assert_eq!(keys.iter().count(), 1, "{what}");
        }
    }

    #[test]
    fn keys_of_one_use_do_not_serve_another() {
        let svid = with(with(ec(), "kid", json!("svid")), "use", json!("jwt-svid"));
        let x509 = with(with(ec(), "kid", json!("x509")), "use", json!("x509-svid"));
        let sig = with(with(ec(), "kid", json!("sig")), "use", json!("sig"));
        let bare = with(ec(), "kid", json!("bare"));
        let all = set(&[svid, x509, sig, bare]);
        for (usage, kids) in [(Usage::Signature, vec!["sig", "bare"]), (Usage::JwtSvid, vec!["svid"])] {
            let keys = KeySet::parse_for(&all, &ALL, usage).unwrap();
            assert_eq!(keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), kids);
        }
        assert!(KeySet::parse_for(&set(&[ec()]), &ALL, Usage::JwtSvid).is_err());
    }

    #[test]
    fn a_key_without_alg_takes_the_profiles_only_algorithm_or_none() {
        let bare = set(&[json!({"kty":"RSA","n":RFC7638_N,"e":"AQAB","kid":"RSA_0"})]);
        let keys = KeySet::parse(&bare, &[Algorithm::Rs256, Algorithm::Es384]).unwrap();
        assert_eq!(keys.find("RSA_0").unwrap().algorithm, Algorithm::Rs256);
        assert!(KeySet::parse(&bare, &[Algorithm::Rs256, Algorithm::Ps256]).is_err());
    }

    #[test]
    fn duplicate_members_in_the_text_are_refused() {
        let text = format!(r#"{{"keys":[],"keys":[{}]}}"#, ec());
        assert!(KeySet::parse_text(text.as_bytes(), &ALL).is_err());
    }

    #[test]
    fn no_larger_text_is_read_than_the_largest() {
        let text = |length: usize| {
            let text = set(&[ec()]).to_string();
            format!("{text}{}", " ".repeat(length - text.len()))
        };
        assert_eq!((text(MAX_BYTES).len(), MAX_BYTES), (262_144, 262_144));
        assert!(KeySet::parse_text(text(MAX_BYTES).as_bytes(), &ALL).is_ok());
        assert!(KeySet::parse_text(text(MAX_BYTES + 1).as_bytes(), &ALL).is_err());
    }
}

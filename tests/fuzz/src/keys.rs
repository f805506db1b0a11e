//! The targets' own keys, and tokens signed with them: nobody finds a signature by trying, so what comes after it would never be seen.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::encoding::base64url;
use shared::jwks::{Algorithm, KeySet};

/// The moment of every run.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
/// The key id of every key.
pub(crate) const KID: &str = "k";

/// A key that signs, and the set in which its public half is alone.
pub(crate) struct Signing {
    signs: Pair,
    pub(crate) jwk: Value,
    pub(crate) set: KeySet,
}

enum Pair {
    Ed25519(Box<Ed25519KeyPair>),
    P384(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// Always the same one, so that inputs that are kept hold tokens of it.
pub(crate) static ED25519: LazyLock<Signing> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let x = base64url(pair.public_key().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": KID, "alg": "EdDSA", "use": "sig"});
    Signing::of(Pair::Ed25519(Box::new(pair)), jwk)
});

/// As Cloudflare Access and GitHub have one.
pub(crate) static RSA: LazyLock<Signing> = LazyLock::new(|| {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let public = shared::jwk::PublicJwk::from_spki(der.as_ref(), Algorithm::Rs256).unwrap();
    let mut jwk = Value::Object(public.members);
    jwk["kid"] = json!(KID);
    Signing::of(Pair::Rsa(Box::new(pair)), jwk)
});

/// As AWS has one.
pub(crate) static P384: LazyLock<Signing> = LazyLock::new(|| {
    let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
    let jwk = json!({"kty": "EC", "crv": "P-384", "x": base64url(x), "y": base64url(y), "kid": KID, "alg": "ES384",
        "use": "sig"});
    Signing::of(Pair::P384(Box::new(pair)), jwk)
});

impl Signing {
    fn of(signs: Pair, jwk: Value) -> Self {
        let algorithms = [Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Es384];
        let set = KeySet::parse(&json!({ "keys": [jwk] }), &algorithms).unwrap();
        Self { signs, jwk, set }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.signs {
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::P384(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// The compact form of a header and claims, whatever they are.
    pub(crate) fn token(&self, (header, claims): (&[u8], &[u8])) -> String {
        let message = format!("{}.{}", base64url(header), base64url(claims));
        let signature = base64url(&self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// Judges a token of this header and these claims: first with a signature that is none, which must be refused, and where nothing but
/// that was wrong, with a good one. What is refused for another reason costs no signature.
pub(crate) fn judged<T, E>(
    key: &Signing,
    (header, claims): (&[u8], &[u8]),
    judge: impl Fn(&str) -> Result<T, E>,
    is_signature: impl Fn(&E) -> bool,
) -> Option<(String, T)> {
    let unsigned = format!("{}.{}.AA", base64url(header), base64url(claims));
    match judge(&unsigned) {
        Ok(_) => panic!("accepted without a signature"),
        Err(reason) if is_signature(&reason) => {}
        Err(_) => return None,
    }
    let token = key.token((header, claims));
    let accepted = judge(&token).ok()?;
    Some((token, accepted))
}

/// An input of two JSON texts: the header up to the first line feed, then the claims.
pub(crate) fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

/// The token with another last letter of its signature.
pub(crate) fn altered(token: &str, place: usize) -> String {
    let mut letters = token.as_bytes().to_vec();
    let at = place % letters.len();
    letters[at] = if letters[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(letters).unwrap()
}

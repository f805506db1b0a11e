//! A key pair in this process: made, written, read, used.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use shared::jwk::PublicJwk;
use shared::jwks::Algorithm;
use zeroize::Zeroizing;

use crate::pem::{self, Label};

/// A private key with the algorithm it is for. `Debug` shows that and nothing else.
pub(crate) struct Pair {
    /// What it signs with.
    pub(crate) algorithm: Algorithm,
    private: Private,
}

enum Private {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A key that is not what it should be. Says nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unusable;

impl From<Unspecified> for Unusable {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

impl From<KeyRejected> for Unusable {
    fn from(_: KeyRejected) -> Self {
        Self
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Pair {
    /// A fresh pair: RSA of 2,048 bits (a tenth of a second and more), P-256 or Ed25519. `None` for the other algorithms.
    pub(crate) fn generate(algorithm: Algorithm) -> Option<Result<Self, Unusable>> {
        let private = match algorithm {
            Algorithm::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048).map(Private::Rsa),
            Algorithm::Es256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Private::Ec),
            Algorithm::EdDsa => Ed25519KeyPair::generate().map(Private::Ed),
            Algorithm::Es384 | Algorithm::Ps256 => return None,
        };
        Some(private.map(|private| Self { algorithm, private }).map_err(Unusable::from))
    }

    /// Reads PKCS#8, or PKCS#1 of an RSA key. RSA has 2,048 to 8,192 bits; another kind of key than the algorithm's is refused.
    pub(crate) fn from_pem(algorithm: Algorithm, text: &str) -> Result<Self, Unusable> {
        let (label, der) = pem::decode(text).ok_or(Unusable)?;
        // The library would leave bytes after the key unread.
        if !is_one_sequence(&der) {
            return Err(Unusable);
        }
        let private = match (algorithm, label) {
            (Algorithm::Rs256, Label::Pkcs8) => Private::Rsa(RsaKeyPair::from_pkcs8(&der)?),
            (Algorithm::Rs256, Label::Pkcs1) => Private::Rsa(RsaKeyPair::from_der(&der)?),
            (Algorithm::Es256, Label::Pkcs8) => {
                Private::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)?)
            }
            (Algorithm::EdDsa, Label::Pkcs8) => Private::Ed(Ed25519KeyPair::from_pkcs8(&der)?),
            _ => return Err(Unusable),
        };
        Ok(Self { algorithm, private })
    }

    /// The private key as PKCS#8 PEM.
    pub(crate) fn to_pem(&self) -> Result<Zeroizing<String>, Unusable> {
        // The library's own documents are wiped when they are dropped.
        Ok(match &self.private {
            Private::Rsa(pair) => pem::encode(AsDer::<Pkcs8V1Der<'_>>::as_der(pair)?.as_ref()),
            Private::Ec(pair) => pem::encode(pair.to_pkcs8v1()?.as_ref()),
            Private::Ed(pair) => pem::encode(pair.to_pkcs8v1()?.as_ref()),
        })
    }

    /// The public half, DER `SubjectPublicKeyInfo`.
    pub(crate) fn public_der(&self) -> Result<Vec<u8>, Unusable> {
        match &self.private {
            Private::Rsa(pair) => spki(pair.public_key()),
            Private::Ec(pair) => spki(pair.public_key()),
            Private::Ed(pair) => spki(pair.public_key()),
        }
    }

    /// The key id: RFC 7638 thumbprint of the public half.
    pub(crate) fn kid(&self) -> Result<String, Unusable> {
        let public = PublicJwk::from_spki(&self.public_der()?, self.algorithm);
        public.map(|jwk| jwk.kid).map_err(|_| Unusable)
    }

    /// A signature in JOSE form (RFC 7518 §3.3, §3.4; RFC 8037 §3.1).
    pub(crate) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Unusable> {
        match &self.private {
            Private::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature)?;
                Ok(signature)
            }
            Private::Ec(pair) => Ok(pair.sign(&SystemRandom::new(), input)?.as_ref().to_vec()),
            Private::Ed(pair) => Ok(pair.sign(input).as_ref().to_vec()),
        }
    }
}

/// Whether a DER SEQUENCE (X.690 §8.9) and nothing else is there; its length takes two bytes at most.
fn is_one_sequence(der: &[u8]) -> bool {
    let (length, content) = match der {
        [0x30, length @ 0..=0x7f, content @ ..] => (usize::from(*length), content),
        [0x30, 0x81, length @ 0x80..=0xff, content @ ..] => (usize::from(*length), content),
        [0x30, 0x82, high @ 1..=0xff, low, content @ ..] => (usize::from(*high) << 8 | usize::from(*low), content),
        _ => return false,
    };
    content.len() == length
}

fn spki<'a>(public: &impl AsDer<PublicKeyX509Der<'a>>) -> Result<Vec<u8>, Unusable> {
    Ok(public.as_der()?.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;

    const ALGORITHMS: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    #[test]
    fn a_pair_that_was_written_and_read_signs_as_the_same_key() {
        for algorithm in ALGORITHMS {
            let made = Pair::generate(algorithm).unwrap().unwrap();
            let text = made.to_pem().unwrap();
            assert!(text.len() <= 4_096, "a standard parameter holds 4,096 bytes");
            let read = Pair::from_pem(algorithm, &text).unwrap();
            assert_eq!((read.kid().unwrap(), read.kid().unwrap().len()), (made.kid().unwrap(), 43));
            let verification: &dyn VerificationAlgorithm = match algorithm {
                Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
                _ => &ED25519,
            };
            let public = UnparsedPublicKey::new(verification, made.public_der().unwrap());
            let signature = read.sign(b"abc").unwrap();
            assert!(matches!(signature.len(), 64 | 256));
            assert!(public.verify(b"abc", &signature).is_ok() && public.verify(b"abd", &signature).is_err());
        }
    }

    #[test]
    fn a_key_of_another_kind_or_no_key_at_all_is_refused() {
        for algorithm in ALGORITHMS {
            let text = Pair::generate(algorithm).unwrap().unwrap().to_pem().unwrap();
            for other in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Es384, Algorithm::Ps256] {
                assert_eq!(Pair::from_pem(other, &text).is_ok(), other == algorithm, "{algorithm} as {other}");
            }
            let der = pem::decode(&text).unwrap().1;
            for cut in [0, 1, der.len() / 2, der.len() - 1] {
                assert!(Pair::from_pem(algorithm, &pem::encode(&der[..cut])).is_err());
            }
            assert!(Pair::from_pem(algorithm, &pem::encode(&[der.as_slice(), &[0]].concat())).is_err());
            assert!(Pair::from_pem(algorithm, &text.replace("PRIVATE", "EC PRIVATE")).is_err());
        }
    }

    #[test]
    fn the_rsa_form_of_old_keys_is_read() {
        let made = Pair::generate(Algorithm::Rs256).unwrap().unwrap();
        let der = pem::decode(&made.to_pem().unwrap()).unwrap().1;
        // PrivateKeyInfo of a 2,048-bit key: 26 bytes of version, algorithm and octet string around RSAPrivateKey.
        let pkcs1 = pem::encode(&der[26..]).replace("PRIVATE", "RSA PRIVATE");
        assert_eq!(Pair::from_pem(Algorithm::Rs256, &pkcs1).unwrap().kid(), made.kid());
    }

    #[test]
    fn debug_of_a_pair_shows_the_algorithm_only() {
        let pair = Pair::generate(Algorithm::EdDsa).unwrap().unwrap();
        assert_eq!(format!("{pair:?}"), "Pair { algorithm: EdDsa, .. }");
    }
}

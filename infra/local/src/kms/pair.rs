//! Asymmetric key pairs: generation, signatures over messages and over digests, verification.

use aws_lc_rs::{
    digest::{self, Digest},
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    error::Unspecified,
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair, UnparsedPublicKey},
};

use super::{error::KmsError, key::KeySpec};

/// What a signature is made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageType {
    /// The service hashes.
    Raw,
    /// The caller hashed.
    Digest,
}

impl MessageType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "RAW",
            Self::Digest => "DIGEST",
        }
    }
}

/// A private key with its public half.
pub(crate) struct Pair {
    private: Private,
    pkcs8: Vec<u8>,
    public: Vec<u8>,
}

enum Private {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

struct Algorithm {
    digest: &'static digest::Algorithm,
    rsa: Option<&'static dyn RsaEncoding>,
    verification: &'static dyn signature::VerificationAlgorithm,
}

impl Pair {
    /// A fresh pair. RSA takes from 50 ms to seconds.
    pub(crate) fn generate(spec: KeySpec) -> Result<Self, KmsError> {
        let private = match spec {
            KeySpec::SymmetricDefault | KeySpec::Hmac256 | KeySpec::Hmac384 | KeySpec::Hmac512 => {
                return Err(KmsError::internal());
            }
            KeySpec::Rsa2048 => RsaKeyPair::generate(KeySize::Rsa2048).map(Private::Rsa),
            KeySpec::Rsa3072 => RsaKeyPair::generate(KeySize::Rsa3072).map(Private::Rsa),
            KeySpec::Rsa4096 => RsaKeyPair::generate(KeySize::Rsa4096).map(Private::Rsa),
            KeySpec::EccNistP256 => EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING).map(Private::Ec),
            KeySpec::EccNistP384 => EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_ASN1_SIGNING).map(Private::Ec),
            KeySpec::EccNistP521 => EcdsaKeyPair::generate(&signature::ECDSA_P521_SHA512_ASN1_SIGNING).map(Private::Ec),
            KeySpec::EccNistEdwards25519 => Ed25519KeyPair::generate().map(Private::Ed25519),
        };
        private.and_then(Self::complete).map_err(|_| KmsError::internal())
    }

    /// A pair that was saved.
    pub(crate) fn from_pkcs8(spec: KeySpec, pkcs8: &[u8]) -> Result<Self, KmsError> {
        let private = match spec {
            KeySpec::SymmetricDefault | KeySpec::Hmac256 | KeySpec::Hmac384 | KeySpec::Hmac512 => {
                return Err(KmsError::internal());
            }
            KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 => RsaKeyPair::from_pkcs8(pkcs8).map(Private::Rsa),
            KeySpec::EccNistP256 => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).map(Private::Ec)
            }
            KeySpec::EccNistP384 => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, pkcs8).map(Private::Ec)
            }
            KeySpec::EccNistP521 => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P521_SHA512_ASN1_SIGNING, pkcs8).map(Private::Ec)
            }
            KeySpec::EccNistEdwards25519 => Ed25519KeyPair::from_pkcs8(pkcs8).map(Private::Ed25519),
        };
        let private = private.map_err(|_| KmsError::internal())?;
        Self::complete(private).map_err(|_| KmsError::internal())
    }

    fn complete(private: Private) -> Result<Self, Unspecified> {
        let public = match &private {
            Private::Rsa(pair) => spki(pair.public_key())?,
            Private::Ec(pair) => spki(pair.public_key())?,
            Private::Ed25519(pair) => spki(pair.public_key())?,
        };
        let pkcs8 = match &private {
            Private::Rsa(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair)?.as_ref().to_vec(),
            Private::Ec(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
            Private::Ed25519(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
        };
        Ok(Self { private, pkcs8, public })
    }

    /// The private key as PKCS#8 DER.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key as DER `SubjectPublicKeyInfo`.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// Signs as the API does: PKCS#1 v1.5 and PSS (salt as long as the digest) raw, ECDSA as DER, Ed25519 as 64 bytes.
    pub(crate) fn sign(&self, algorithm: &str, kind: MessageType, message: &[u8]) -> Result<Vec<u8>, KmsError> {
        if let Private::Ed25519(pair) = &self.private {
            check_edwards(algorithm, kind)?;
            return Ok(pair.sign(message).as_ref().to_vec());
        }
        let rule = rule(algorithm)?;
        let digest = digest_of(&rule, algorithm, kind, message)?;
        let signed = match (&self.private, rule.rsa) {
            (Private::Rsa(pair), Some(padding)) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign_digest(padding, &digest, &mut out).map(|()| out)
            }
            (Private::Ec(pair), None) => pair.sign_digest(&digest).map(|signed| signed.as_ref().to_vec()),
            _ => Err(Unspecified),
        };
        signed.map_err(|_| KmsError::internal())
    }

    /// `Ok` only for a signature of this key over this message.
    pub(crate) fn verify(
        &self,
        algorithm: &str,
        kind: MessageType,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), KmsError> {
        let checked = if matches!(self.private, Private::Ed25519(_)) {
            check_edwards(algorithm, kind)?;
            UnparsedPublicKey::new(&signature::ED25519, &self.public).verify(message, signature)
        } else {
            let rule = rule(algorithm)?;
            let digest = digest_of(&rule, algorithm, kind, message)?;
            UnparsedPublicKey::new(rule.verification, &self.public).verify_digest(&digest, signature)
        };
        checked.map_err(|_| KmsError::invalid_signature())
    }
}

fn spki<'a>(public: &impl AsDer<PublicKeyX509Der<'a>>) -> Result<Vec<u8>, Unspecified> {
    public.as_der().map(|der| der.as_ref().to_vec())
}

fn rule(algorithm: &str) -> Result<Algorithm, KmsError> {
    let (digest, rsa, verification): (
        _,
        Option<&'static dyn RsaEncoding>,
        &'static dyn signature::VerificationAlgorithm,
    ) = match algorithm {
        "RSASSA_PKCS1_V1_5_SHA_256" => {
            (&digest::SHA256, Some(&signature::RSA_PKCS1_SHA256), &signature::RSA_PKCS1_2048_8192_SHA256)
        }
        "RSASSA_PKCS1_V1_5_SHA_384" => {
            (&digest::SHA384, Some(&signature::RSA_PKCS1_SHA384), &signature::RSA_PKCS1_2048_8192_SHA384)
        }
        "RSASSA_PKCS1_V1_5_SHA_512" => {
            (&digest::SHA512, Some(&signature::RSA_PKCS1_SHA512), &signature::RSA_PKCS1_2048_8192_SHA512)
        }
        "RSASSA_PSS_SHA_256" => {
            (&digest::SHA256, Some(&signature::RSA_PSS_SHA256), &signature::RSA_PSS_2048_8192_SHA256)
        }
        "RSASSA_PSS_SHA_384" => {
            (&digest::SHA384, Some(&signature::RSA_PSS_SHA384), &signature::RSA_PSS_2048_8192_SHA384)
        }
        "RSASSA_PSS_SHA_512" => {
            (&digest::SHA512, Some(&signature::RSA_PSS_SHA512), &signature::RSA_PSS_2048_8192_SHA512)
        }
        "ECDSA_SHA_256" => (&digest::SHA256, None, &signature::ECDSA_P256_SHA256_ASN1),
        "ECDSA_SHA_384" => (&digest::SHA384, None, &signature::ECDSA_P384_SHA384_ASN1),
        "ECDSA_SHA_512" => (&digest::SHA512, None, &signature::ECDSA_P521_SHA512_ASN1),
        _ => return Err(KmsError::internal()),
    };
    Ok(Algorithm { digest, rsa, verification })
}

fn digest_of(rule: &Algorithm, algorithm: &str, kind: MessageType, message: &[u8]) -> Result<Digest, KmsError> {
    match kind {
        MessageType::Raw => Ok(digest::digest(rule.digest, message)),
        MessageType::Digest => Digest::import_less_safe(message, rule.digest).map_err(|_| digest_length(algorithm)),
    }
}

/// Ed25519 takes messages only. The prehashed variant exists in the service and not in the cryptography used here.
fn check_edwards(algorithm: &str, kind: MessageType) -> Result<(), KmsError> {
    match (algorithm, kind) {
        ("ED25519_SHA_512", MessageType::Raw) => Ok(()),
        ("ED25519_SHA_512", MessageType::Digest) | ("ED25519_PH_SHA_512", MessageType::Raw) => {
            Err(KmsError::invalid(format!("MessageType {} is not valid for algorithm {algorithm}.", kind.as_str())))
        }
        _ => Err(KmsError::unsupported(format!("{algorithm} is not implemented by this stand-in."))),
    }
}

fn digest_length(algorithm: &str) -> KmsError {
    KmsError::invalid(format!("Digest is invalid length for algorithm {algorithm}."))
}

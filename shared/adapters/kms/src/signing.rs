//! Signatures with keys that never leave KMS, and the making of such keys.

use aws::Lazy;
use aws_sdk_kms::Client;
use aws_sdk_kms::types::{KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec, Tag};
use aws_smithy_types::Blob;
use aws_types::SdkConfig;
use shared::digest::sha256;
use shared::jwks::Algorithm;
use shared::port::{CreatedKey, Fault, FaultKind, PublicKeys, Signer, SigningKeys};

use crate::{der, fault};

/// The tag by which roles and policies know a signing key; its value is the name of the deployment.
const TAG: &str = "portcullis:signing";

/// Signs with the key whose ARN is named at each call.
#[derive(Clone)]
pub struct KmsSigner {
    client: Lazy<Client>,
}

impl KmsSigner {
    /// A signer. Nothing is sent before the first call.
    pub fn new(config: &SdkConfig) -> Self {
        let config = config.clone();
        Self { client: Lazy::new(move || Client::new(&config)) }
    }
}

impl Signer for KmsSigner {
    async fn sign(&self, key: &str, algorithm: Algorithm, input: &[u8]) -> Result<Vec<u8>, Fault> {
        const OPERATION: &str = "Sign";
        let plan = Plan::of(algorithm, OPERATION)?;
        // A digest sent as RAW would be hashed a second time and verify nowhere.
        let (message, kind) = match algorithm {
            Algorithm::EdDsa => (Blob::new(input), MessageType::Raw),
            _ => (Blob::new(sha256(input)), MessageType::Digest),
        };
        let answer = self
            .client
            .sign()
            .key_id(key)
            .message(message)
            .message_type(kind)
            .signing_algorithm(plan.signature)
            .send()
            .await
            .map_err(|error| fault::of(OPERATION, error))?;
        if answer.key_id.as_deref() != Some(key) {
            return Err(fault::broken(OPERATION, "the answer names another key"));
        }
        let signature = answer.signature.ok_or_else(|| fault::broken(OPERATION, "no signature"))?.into_inner();
        let jose = match algorithm {
            Algorithm::Es256 => der::to_fixed(&signature).map(Vec::from),
            Algorithm::EdDsa => Some(signature).filter(|signature| signature.len() == 64),
            _ => Some(signature).filter(|signature| signature.len() >= 256),
        };
        jose.ok_or_else(|| fault::broken(OPERATION, "the signature is not of the algorithm's form"))
    }
}

impl PublicKeys for KmsSigner {
    async fn public_der(&self, key: &str) -> Result<Vec<u8>, Fault> {
        const OPERATION: &str = "GetPublicKey";
        let answer =
            self.client.get_public_key().key_id(key).send().await.map_err(|error| fault::of(OPERATION, error))?;
        if answer.key_id.as_deref() != Some(key) {
            return Err(fault::broken(OPERATION, "the answer names another key"));
        }
        Ok(answer.public_key.ok_or_else(|| fault::broken(OPERATION, "no public key"))?.into_inner())
    }
}

/// Makes signing keys that carry the deployment's tag.
#[derive(Clone)]
pub struct KmsSigningKeys {
    client: Lazy<Client>,
    deployment: String,
}

impl KmsSigningKeys {
    /// Makes keys for the deployment named `deployment`.
    pub fn new(config: &SdkConfig, deployment: String) -> Self {
        let config = config.clone();
        Self { client: Lazy::new(move || Client::new(&config)), deployment }
    }

    fn tag(&self) -> Result<Tag, Fault> {
        let tag = Tag::builder().tag_key(TAG).tag_value(&self.deployment).build();
        tag.map_err(|_| fault::broken("CreateKey", "the tag is incomplete"))
    }
}

impl SigningKeys for KmsSigningKeys {
    async fn create(&self, algorithm: Algorithm) -> Result<CreatedKey, Fault> {
        const CREATE: &str = "CreateKey";
        const PUBLIC: &str = "GetPublicKey";
        let plan = Plan::of(algorithm, CREATE)?;
        let created = self
            .client
            .create_key()
            .key_spec(plan.key.clone())
            .key_usage(KeyUsageType::SignVerify)
            .tags(self.tag()?)
            .send()
            .await
            .map_err(|error| fault::of(CREATE, error))?;
        let key = created.key_metadata.and_then(|metadata| metadata.arn);
        let key = key.ok_or_else(|| fault::broken(CREATE, "no key ARN"))?;
        let answer =
            self.client.get_public_key().key_id(&key).send().await.map_err(|error| fault::of(PUBLIC, error))?;
        if answer.key_id.as_deref() != Some(key.as_str()) || answer.key_spec.as_ref() != Some(&plan.key) {
            return Err(fault::broken(PUBLIC, "the answer names another key"));
        }
        let public_der = answer.public_key.ok_or_else(|| fault::broken(PUBLIC, "no public key"))?.into_inner();
        Ok(CreatedKey { key, public_der })
    }
}

struct Plan {
    key: KeySpec,
    signature: SigningAlgorithmSpec,
}

impl Plan {
    fn of(algorithm: Algorithm, operation: &'static str) -> Result<Self, Fault> {
        let (key, signature) = match algorithm {
            Algorithm::Rs256 => (KeySpec::Rsa2048, SigningAlgorithmSpec::RsassaPkcs1V15Sha256),
            Algorithm::Es256 => (KeySpec::EccNistP256, SigningAlgorithmSpec::EcdsaSha256),
            Algorithm::EdDsa => (KeySpec::EccNistEdwards25519, SigningAlgorithmSpec::Ed25519Sha512),
            Algorithm::Es384 | Algorithm::Ps256 => {
                let fault = Fault::new(FaultKind::Invalid, "kms", operation);
                return Err(fault.caused_by("tokens are not signed with this algorithm"));
            }
        };
        Ok(Self { key, signature })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::encoding::from_hex;

    use super::*;
    use crate::testing::{ARN, Answers, OTHER_ARN, base64};

    async fn sign(algorithm: Algorithm, key_id: &str, signature: &[u8]) -> (Result<Vec<u8>, Fault>, Value) {
        let answers = Answers::new([(200, json!({"KeyId": key_id, "Signature": base64(signature)}))]);
        let outcome = KmsSigner::new(&answers.config()).sign(ARN, algorithm, b"abc").await;
        (outcome, answers.calls()[0].1.clone())
    }

    #[tokio::test]
    async fn rs256_and_es256_send_the_digest_and_eddsa_the_message() {
        let digest = base64(&sha256(b"abc"));
        let es256 = from_hex("3006020101020101").unwrap();
        for (algorithm, spec, message, kind, answer) in [
            (Algorithm::Rs256, "RSASSA_PKCS1_V1_5_SHA_256", digest.clone(), "DIGEST", vec![9; 256]),
            (Algorithm::Es256, "ECDSA_SHA_256", digest, "DIGEST", es256),
            (Algorithm::EdDsa, "ED25519_SHA_512", base64(b"abc"), "RAW", vec![9; 64]),
        ] {
            let (signature, sent) = sign(algorithm, ARN, &answer).await;
            assert!(matches!(signature.unwrap().len(), 64 | 256));
            assert_eq!(sent, json!({"KeyId": ARN, "Message": message, "MessageType": kind, "SigningAlgorithm": spec}));
        }
    }

    #[tokio::test]
    async fn es256_answers_r_and_s() {
        let (signature, _) = sign(Algorithm::Es256, ARN, &from_hex("3006020101020101").unwrap()).await;
        let one = [&[0_u8; 31][..], &[1]].concat();
        assert_eq!(signature.unwrap(), [one.clone(), one].concat());
    }

    #[tokio::test]
    async fn a_signature_of_another_key_or_form_is_refused() {
        for (algorithm, key, answer) in [
            (Algorithm::Rs256, OTHER_ARN, vec![9; 256]),
            (Algorithm::Rs256, ARN, vec![9; 255]),
            (Algorithm::Es256, ARN, vec![9; 64]),
            (Algorithm::EdDsa, ARN, vec![9; 63]),
        ] {
            assert_eq!(sign(algorithm, key, &answer).await.0.unwrap_err().kind, FaultKind::Invalid);
        }
    }

    #[tokio::test]
    async fn a_success_that_cannot_be_read_is_an_answer_that_did_not_come() {
        let answers = Answers::new(vec![(200, json!("half of one")); 8]);
        let fault = KmsSigner::new(&answers.config()).sign(ARN, Algorithm::Rs256, b"abc").await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unavailable);
    }

    #[tokio::test]
    async fn algorithms_that_no_token_has_are_refused_without_a_call() {
        let answers = Answers::new([]);
        for algorithm in [Algorithm::Es384, Algorithm::Ps256] {
            let refused = KmsSigner::new(&answers.config()).sign(ARN, algorithm, b"abc").await.unwrap_err();
            assert_eq!(refused.kind, FaultKind::Invalid);
            let keys = KmsSigningKeys::new(&answers.config(), "dev".to_owned());
            assert_eq!(keys.create(algorithm).await.unwrap_err().kind, FaultKind::Invalid);
        }
        assert!(answers.calls().is_empty());
    }

    #[tokio::test]
    async fn a_new_signing_key_carries_the_tag_of_its_deployment() {
        for (algorithm, spec) in [
            (Algorithm::Rs256, "RSA_2048"),
            (Algorithm::Es256, "ECC_NIST_P256"),
            (Algorithm::EdDsa, "ECC_NIST_EDWARDS25519"),
        ] {
            let answers = Answers::new([
                (200, json!({"KeyMetadata": {"KeyId": "abc", "Arn": ARN}})),
                (200, json!({"KeyId": ARN, "KeySpec": spec, "PublicKey": base64(b"spki")})),
            ]);
            let created = KmsSigningKeys::new(&answers.config(), "dev".to_owned()).create(algorithm).await.unwrap();
            assert_eq!((created.key.as_str(), created.public_der.as_slice()), (ARN, &b"spki"[..]));
            let tags = json!([{"TagKey": "portcullis:signing", "TagValue": "dev"}]);
            assert_eq!(
                answers.calls(),
                [
                    (
                        "TrentService.CreateKey".to_owned(),
                        json!({"KeySpec": spec, "KeyUsage": "SIGN_VERIFY", "Tags": tags})
                    ),
                    ("TrentService.GetPublicKey".to_owned(), json!({"KeyId": ARN})),
                ]
            );
        }
    }

    #[tokio::test]
    async fn the_public_half_is_of_the_key_that_was_asked_for() {
        for (answer, want) in [
            (json!({"KeyId": ARN, "PublicKey": base64(b"spki")}), Some(b"spki".to_vec())),
            (json!({"KeyId": OTHER_ARN, "PublicKey": base64(b"spki")}), None),
            (json!({"KeyId": ARN}), None),
        ] {
            let answers = Answers::new([(200, answer)]);
            assert_eq!(KmsSigner::new(&answers.config()).public_der(ARN).await.ok(), want);
            assert_eq!(answers.calls(), [("TrentService.GetPublicKey".to_owned(), json!({"KeyId": ARN}))]);
        }
    }

    #[tokio::test]
    async fn a_public_key_of_another_key_is_refused() {
        for answer in [
            json!({"KeyId": OTHER_ARN, "KeySpec": "RSA_2048", "PublicKey": base64(b"spki")}),
            json!({"KeyId": ARN, "KeySpec": "RSA_4096", "PublicKey": base64(b"spki")}),
            json!({"KeyId": ARN, "KeySpec": "RSA_2048"}),
        ] {
            let answers = Answers::new([(200, json!({"KeyMetadata": {"KeyId": "abc", "Arn": ARN}})), (200, answer)]);
            let keys = KmsSigningKeys::new(&answers.config(), "dev".to_owned());
            assert_eq!(keys.create(Algorithm::Rs256).await.unwrap_err().kind, FaultKind::Invalid);
        }
    }
}

//! Data keys, wrapped under one KMS key and bound to their encryption context.

use std::collections::HashMap;

use aws::Lazy;
use aws_sdk_kms::Client;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_types::Blob;
use aws_types::SdkConfig;
use shared::port::{Fault, Generated, KeyContext, KeyWrapping, Unwrapped};
use shared::secret::SecretBytes;

use crate::fault;

/// Wraps data keys under the one key whose ARN is configured.
#[derive(Clone)]
pub struct KmsWrapping {
    pub(crate) client: Lazy<Client>,
    pub(crate) key_arn: String,
}

impl KmsWrapping {
    /// Wraps under `key_arn`. Nothing is sent before the first call.
    pub fn new(config: &SdkConfig, key_arn: String) -> Self {
        let config = config.clone();
        Self { client: Lazy::new(move || Client::new(&config)), key_arn }
    }

    pub(crate) fn answered(&self, operation: &'static str, key_id: Option<&str>) -> Result<(), Fault> {
        if key_id == Some(self.key_arn.as_str()) {
            Ok(())
        } else {
            Err(fault::broken(operation, "the answer names another key"))
        }
    }
}

impl KeyWrapping for KmsWrapping {
    async fn generate(&self, context: &KeyContext) -> Result<Generated, Fault> {
        const OPERATION: &str = "GenerateDataKey";
        let answer = self
            .client
            .generate_data_key()
            .key_id(&self.key_arn)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(pairs(context)))
            .send()
            .await
            .map_err(|error| fault::of(OPERATION, error))?;
        let plaintext = secret(answer.plaintext, OPERATION)?;
        self.answered(OPERATION, answer.key_id.as_deref())?;
        let wrapped = answer.ciphertext_blob.ok_or_else(|| fault::broken(OPERATION, "no ciphertext"))?.into_inner();
        Ok(Generated { plaintext, wrapped, material: answer.key_material_id })
    }

    async fn wrap(&self, context: &KeyContext, key: &SecretBytes) -> Result<Vec<u8>, Fault> {
        const OPERATION: &str = "Encrypt";
        let answer = self
            .client
            .encrypt()
            .key_id(&self.key_arn)
            .plaintext(Blob::new(key.expose()))
            .set_encryption_context(Some(pairs(context)))
            .send()
            .await
            .map_err(|error| fault::of(OPERATION, error))?;
        self.answered(OPERATION, answer.key_id.as_deref())?;
        Ok(answer.ciphertext_blob.ok_or_else(|| fault::broken(OPERATION, "no ciphertext"))?.into_inner())
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Unwrapped, Fault> {
        const OPERATION: &str = "Decrypt";
        let answer = self
            .client
            .decrypt()
            .key_id(&self.key_arn)
            .ciphertext_blob(Blob::new(wrapped))
            .set_encryption_context(Some(pairs(context)))
            .send()
            .await
            .map_err(|error| fault::of(OPERATION, error))?;
        let plaintext = secret(answer.plaintext, OPERATION)?;
        self.answered(OPERATION, answer.key_id.as_deref())?;
        Ok(Unwrapped { plaintext, material: answer.key_material_id })
    }
}

/// `Blob` prints its bytes and is not wiped, so the bytes leave it first of all.
pub(crate) fn secret(plaintext: Option<Blob>, operation: &'static str) -> Result<SecretBytes, Fault> {
    let secret = SecretBytes::new(plaintext.ok_or_else(|| fault::broken(operation, "no plaintext"))?.into_inner());
    if secret.expose().len() == 32 {
        Ok(secret)
    } else {
        Err(fault::broken(operation, "the data key has not 32 bytes"))
    }
}

pub(crate) fn pairs(context: &KeyContext) -> HashMap<String, String> {
    HashMap::from([
        ("tenant".to_owned(), context.tenant.as_str().to_owned()),
        ("purpose".to_owned(), context.purpose.to_owned()),
        ("data_key_id".to_owned(), context.data_key_id.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::name::Tenant;
    use shared::port::FaultKind;
    use uuid::uuid;

    use super::*;
    use crate::testing::{ARN, Answers, OTHER_ARN, base64};

    fn context() -> KeyContext {
        KeyContext {
            tenant: Tenant::parse("acme").unwrap(),
            purpose: "field",
            data_key_id: uuid!("01920000-0000-7000-8000-0000000000a1"),
        }
    }

    fn pairs_sent() -> serde_json::Value {
        json!({"tenant": "acme", "purpose": "field", "data_key_id": "01920000-0000-7000-8000-0000000000a1"})
    }

    #[tokio::test]
    async fn every_call_names_the_key_and_the_whole_context() {
        let answers = Answers::new([
            (
                200,
                json!({"KeyId": ARN, "Plaintext": base64(&[7; 32]), "CiphertextBlob": base64(b"one"), "KeyMaterialId": "m1"}),
            ),
            (200, json!({"KeyId": ARN, "CiphertextBlob": base64(b"two")})),
            (200, json!({"KeyId": ARN, "Plaintext": base64(&[7; 32]), "KeyMaterialId": "m1"})),
        ]);
        let keys = KmsWrapping::new(&answers.config(), ARN.to_owned());
        let generated = keys.generate(&context()).await.unwrap();
        assert_eq!((generated.plaintext.expose(), generated.wrapped.as_slice()), (&[7; 32][..], &b"one"[..]));
        assert_eq!(generated.material.as_deref(), Some("m1"));
        assert_eq!(keys.wrap(&context(), &generated.plaintext).await.unwrap(), b"two");
        assert_eq!(keys.unwrap(&context(), b"one").await.unwrap().plaintext.expose(), [7; 32]);
        assert_eq!(
            answers.calls(),
            [
                (
                    "TrentService.GenerateDataKey".to_owned(),
                    json!({"KeyId": ARN, "KeySpec": "AES_256", "EncryptionContext": pairs_sent()})
                ),
                (
                    "TrentService.Encrypt".to_owned(),
                    json!({"KeyId": ARN, "Plaintext": base64(&[7; 32]), "EncryptionContext": pairs_sent()})
                ),
                (
                    "TrentService.Decrypt".to_owned(),
                    json!({"KeyId": ARN, "CiphertextBlob": base64(b"one"), "EncryptionContext": pairs_sent()})
                ),
            ]
        );
    }

    #[tokio::test]
    async fn an_answer_of_another_key_or_length_is_refused() {
        for answer in [
            json!({"KeyId": OTHER_ARN, "Plaintext": base64(&[7; 32]), "CiphertextBlob": base64(b"x")}),
            json!({"Plaintext": base64(&[7; 32]), "CiphertextBlob": base64(b"x")}),
            json!({"KeyId": ARN, "Plaintext": base64(&[7; 31]), "CiphertextBlob": base64(b"x")}),
            json!({"KeyId": ARN, "Plaintext": base64(&[7; 33]), "CiphertextBlob": base64(b"x")}),
            json!({"KeyId": ARN, "CiphertextBlob": base64(b"x")}),
        ] {
            let answers = Answers::new([(200, answer.clone()), (200, answer.clone())]);
            let keys = KmsWrapping::new(&answers.config(), ARN.to_owned());
            assert_eq!(keys.unwrap(&context(), b"x").await.unwrap_err().kind, FaultKind::Invalid, "{answer}");
            assert_eq!(keys.generate(&context()).await.unwrap_err().kind, FaultKind::Invalid, "{answer}");
        }
        for answer in [json!({"KeyId": OTHER_ARN, "CiphertextBlob": base64(b"x")}), json!({"KeyId": ARN})] {
            let keys = KmsWrapping::new(&Answers::new([(200, answer)]).config(), ARN.to_owned());
            let secret = SecretBytes::new(vec![7; 32]);
            assert_eq!(keys.wrap(&context(), &secret).await.unwrap_err().kind, FaultKind::Invalid);
        }
    }

    #[tokio::test]
    async fn refusals_of_kms_become_the_kind_that_decides_about_a_retry() {
        for (status, code, kind) in [
            (400, "AccessDeniedException", FaultKind::Denied),
            (400, "DisabledException", FaultKind::Denied),
            (400, "KMSInvalidStateException", FaultKind::Denied),
            (400, "ThrottlingException", FaultKind::Throttled),
            (400, "NotFoundException", FaultKind::NotFound),
            (400, "InvalidCiphertextException", FaultKind::Invalid),
            (400, "IncorrectKeyException", FaultKind::Invalid),
            (400, "InvalidKeyUsageException", FaultKind::Invalid),
            (400, "ExpiredTokenException", FaultKind::Unavailable),
            (500, "KeyUnavailableException", FaultKind::Unavailable),
            (500, "KMSInternalException", FaultKind::Unavailable),
            (503, "DependencyTimeoutException", FaultKind::Unavailable),
            (500, "SomethingNew", FaultKind::Unavailable),
            (400, "SomethingNew", FaultKind::Invalid),
        ] {
            let answers = Answers::new([(status, json!({"__type": code, "message": "canary-message"}))]);
            let fault = KmsWrapping::new(&answers.config(), ARN.to_owned()).unwrap(&context(), b"x").await.unwrap_err();
            assert_eq!((fault.kind, fault.operation), (kind, "Decrypt"), "{code}");
            assert!(!fault.to_string().contains("canary"));
        }
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_is_unavailable() {
        let answers = Answers::new([]);
        let fault = KmsWrapping::new(&answers.config(), ARN.to_owned()).generate(&context()).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unavailable);
    }

    #[tokio::test]
    async fn a_fault_does_not_repeat_the_text_of_the_answer() {
        let text = "User: arn:aws:sts::111122223333:assumed-role/canary is not authorized on resource canary";
        for code in ["AccessDeniedException", "InvalidCiphertextException", "SomethingNew"] {
            let answers = Answers::new([(400, json!({"__type": code, "message": text, "Message": text}))]);
            let fault = KmsWrapping::new(&answers.config(), ARN.to_owned()).unwrap(&context(), b"x").await.unwrap_err();
            let cause = std::error::Error::source(&fault).unwrap().to_string();
            assert_eq!(cause, format!("400 {code}"));
            assert!(!format!("{fault:?} {fault}").contains("canary"));
        }
    }

    #[tokio::test]
    async fn no_fault_shows_a_key() {
        let canary = [b'K'; 31];
        let shortened = json!({"KeyId": ARN, "Plaintext": base64(&canary)});
        let broken = json!({"KeyId": [], "Plaintext": base64(&canary)});
        let answers = Answers::new([(200, shortened), (200, broken.clone()), (400, broken)]);
        let keys = KmsWrapping::new(&answers.config(), ARN.to_owned());
        for _ in 0..3 {
            let fault = keys.unwrap(&context(), b"x").await.unwrap_err();
            let shown = format!("{fault:?} {fault}");
            for canary in ["KKKK", "4b4b4b", "75, 75, 75", &base64(&canary)] {
                assert!(!shown.contains(canary), "{shown}");
            }
        }
    }
}

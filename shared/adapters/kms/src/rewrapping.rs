//! Data keys wrapped anew after the KMS key was rotated: KMS opens and seals them in itself, and no data key leaves it.

use aws_sdk_kms::types::{IncludeKeyMaterial, KeyMaterialState};
use aws_smithy_types::Blob;
use shared::port::{Fault, KeyContext, KeyRewrapping, Rewrapped};

use crate::fault;
use crate::wrapping::{KmsWrapping, pairs};

/// The most pages of rotations that are read: a key has 25 rotations on demand at most, and one a year by itself.
const PAGES: usize = 10;

impl KeyRewrapping for KmsWrapping {
    async fn current_material(&self) -> Result<String, Fault> {
        const OPERATION: &str = "ListKeyRotations";
        let mut marker = None;
        for _ in 0..PAGES {
            let answer = self
                .client
                .list_key_rotations()
                .key_id(&self.key_arn)
                .include_key_material(IncludeKeyMaterial::AllKeyMaterial)
                .set_marker(marker)
                .send()
                .await
                .map_err(|error| fault::of(OPERATION, error))?;
            let current =
                answer.rotations().iter().find(|entry| entry.key_material_state() == Some(&KeyMaterialState::Current));
            if let Some(entry) = current {
                // The service names the key here by its id, where its other answers have the ARN.
                let ours = |key: &str| key == self.key_arn || self.key_arn.rsplit('/').next() == Some(key);
                if !entry.key_id().is_some_and(ours) {
                    return Err(fault::broken(OPERATION, "the answer names another key"));
                }
                return entry.key_material_id.clone().ok_or_else(|| fault::broken(OPERATION, "no key material id"));
            }
            marker = answer.next_marker.filter(|_| answer.truncated);
            if marker.is_none() {
                break;
            }
        }
        Err(fault::broken(OPERATION, "no current key material"))
    }

    async fn rewrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Rewrapped, Fault> {
        const OPERATION: &str = "ReEncrypt";
        let answer = self
            .client
            .re_encrypt()
            .source_key_id(&self.key_arn)
            .destination_key_id(&self.key_arn)
            .ciphertext_blob(Blob::new(wrapped))
            .set_source_encryption_context(Some(pairs(context)))
            .set_destination_encryption_context(Some(pairs(context)))
            .send()
            .await
            .map_err(|error| fault::of(OPERATION, error))?;
        self.answered(OPERATION, answer.source_key_id.as_deref())?;
        self.answered(OPERATION, answer.key_id.as_deref())?;
        let wrapped = answer.ciphertext_blob.ok_or_else(|| fault::broken(OPERATION, "no ciphertext"))?.into_inner();
        if wrapped.is_empty() {
            return Err(fault::broken(OPERATION, "no ciphertext"));
        }
        Ok(Rewrapped { wrapped, material: answer.destination_key_material_id })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::name::Tenant;
    use shared::port::FaultKind;
    use uuid::uuid;

    use super::*;
    use crate::testing::{ARN, Answers, OTHER_ARN, base64};

    fn context() -> KeyContext {
        KeyContext {
            tenant: Tenant::parse("acme").unwrap(),
            purpose: "index",
            data_key_id: uuid!("01920000-0000-7000-8000-0000000000a1"),
        }
    }

    fn rotation(material: &str, state: &str) -> Value {
        json!({"KeyId": ARN, "KeyMaterialId": material, "KeyMaterialState": state})
    }

    #[tokio::test]
    async fn the_material_that_wraps_now_is_found_on_whichever_page_it_is() {
        let answers = Answers::new([
            (200, json!({"Rotations": [rotation("m1", "NON_CURRENT")], "Truncated": true, "NextMarker": "p2"})),
            (200, json!({"Rotations": [rotation("m2", "CURRENT")], "Truncated": false})),
        ]);
        let keys = KmsWrapping::new(&answers.config(), ARN.to_owned());
        assert_eq!(keys.current_material().await.unwrap(), "m2");
        let by_id = json!({"KeyId": "1234abcd-12ab-34cd-56ef-1234567890ab", "KeyMaterialId": "m3", "KeyMaterialState": "CURRENT"});
        let named = Answers::new([(200, json!({"Rotations": [by_id], "Truncated": false}))]);
        assert_eq!(KmsWrapping::new(&named.config(), ARN.to_owned()).current_material().await.unwrap(), "m3");
        let asked = |more: Value| {
            let mut body = json!({"KeyId": ARN, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"});
            for (name, value) in more.as_object().unwrap() {
                body[name] = value.clone();
            }
            ("TrentService.ListKeyRotations".to_owned(), body)
        };
        assert_eq!(answers.calls(), [asked(json!({})), asked(json!({"Marker": "p2"}))]);
    }

    #[tokio::test]
    async fn an_answer_without_current_material_is_no_answer() {
        for rotations in [
            json!([]),
            json!([rotation("m1", "NON_CURRENT"), rotation("m2", "PENDING_ROTATION")]),
            json!([{"KeyId": OTHER_ARN, "KeyMaterialId": "m1", "KeyMaterialState": "CURRENT"}]),
            json!([{"KeyId": ARN, "KeyMaterialState": "CURRENT"}]),
        ] {
            let answers = Answers::new([(200, json!({"Rotations": rotations, "Truncated": false}))]);
            let keys = KmsWrapping::new(&answers.config(), ARN.to_owned());
            assert_eq!(keys.current_material().await.unwrap_err().kind, FaultKind::Invalid, "{rotations}");
        }
        let endless = json!({"Rotations": [], "Truncated": true, "NextMarker": "again"});
        let answers = Answers::new(vec![(200, endless); PAGES]);
        let keys = KmsWrapping::new(&answers.config(), ARN.to_owned());
        assert_eq!(keys.current_material().await.unwrap_err().kind, FaultKind::Invalid);
        assert_eq!(answers.calls().len(), PAGES);
    }

    #[tokio::test]
    async fn a_key_is_wrapped_anew_under_the_same_key_and_context() {
        let good = json!({"KeyId": ARN, "SourceKeyId": ARN, "CiphertextBlob": base64(b"two"),
            "DestinationKeyMaterialId": "m2"});
        let answers = Answers::new([(200, good.clone())]);
        let keys = KmsWrapping::new(&answers.config(), ARN.to_owned());
        let rewrapped = keys.rewrap(&context(), b"one").await.unwrap();
        assert_eq!(rewrapped, Rewrapped { wrapped: b"two".to_vec(), material: Some("m2".to_owned()) });
        let pairs =
            json!({"tenant": "acme", "purpose": "index", "data_key_id": "01920000-0000-7000-8000-0000000000a1"});
        assert_eq!(
            answers.calls(),
            [(
                "TrentService.ReEncrypt".to_owned(),
                json!({"SourceKeyId": ARN, "DestinationKeyId": ARN, "CiphertextBlob": base64(b"one"),
                    "SourceEncryptionContext": pairs, "DestinationEncryptionContext": pairs})
            )]
        );
        for (name, value) in [
            ("KeyId", json!(OTHER_ARN)),
            ("SourceKeyId", json!(OTHER_ARN)),
            ("CiphertextBlob", json!(null)),
            ("CiphertextBlob", json!("")),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            let keys = KmsWrapping::new(&Answers::new([(200, bad.clone())]).config(), ARN.to_owned());
            assert_eq!(keys.rewrap(&context(), b"one").await.unwrap_err().kind, FaultKind::Invalid, "{bad}");
        }
    }
}

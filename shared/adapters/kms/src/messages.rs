//! Data keys of messages that somebody else wrote, opened by the KMS key that the caller names.

use std::collections::BTreeMap;

use aws_smithy_types::Blob;
use shared::port::{Fault, MessageKeys};
use shared::secret::SecretBytes;

use crate::fault;
use crate::wrapping::{KmsWrapping, secret};

impl MessageKeys for KmsWrapping {
    async fn open(
        &self,
        key_arn: &str,
        context: &BTreeMap<String, String>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, Fault> {
        const OPERATION: &str = "Decrypt";
        let context = context.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let answer = self
            .client
            .decrypt()
            .key_id(key_arn)
            .ciphertext_blob(Blob::new(wrapped))
            .set_encryption_context(Some(context))
            .send()
            .await
            .map_err(|error| fault::of(OPERATION, error))?;
        let plaintext = secret(answer.plaintext, OPERATION)?;
        if answer.key_id.as_deref() == Some(key_arn) {
            Ok(plaintext)
        } else {
            Err(fault::broken(OPERATION, "the answer names another key"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::port::FaultKind;

    use super::*;
    use crate::testing::{ARN, Answers, OTHER_ARN, base64};

    #[tokio::test]
    async fn a_message_key_is_opened_by_the_key_that_was_named_in_the_whole_context() {
        let context = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let whole = json!({"KeyId": OTHER_ARN, "Plaintext": base64(&[7; 32])});
        let answers = Answers::new([
            (200, whole.clone()),
            (200, json!({"KeyId": ARN, "Plaintext": base64(&[7; 32])})),
            (200, json!({"KeyId": OTHER_ARN, "Plaintext": base64(&[7; 31])})),
        ]);
        let keys = KmsWrapping::new(&answers.config(), ARN.to_owned());
        assert_eq!(keys.open(OTHER_ARN, &context, b"blob").await.unwrap().expose(), [7; 32]);
        let sent =
            json!({"KeyId": OTHER_ARN, "CiphertextBlob": base64(b"blob"), "EncryptionContext": {"a": "1", "b": "2"}});
        assert_eq!(answers.calls()[0].1, sent);
        for _ in 0..2 {
            assert_eq!(keys.open(OTHER_ARN, &context, b"blob").await.unwrap_err().kind, FaultKind::Invalid);
        }
    }
}

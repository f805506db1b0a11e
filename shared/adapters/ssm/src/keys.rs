//! The making of signing keys that others will read from SSM.

use std::fmt;

use aws::Lazy;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::ProvideErrorMetadata as _;
use aws_sdk_ssm::types::{ParameterTier, ParameterType};
use aws_types::SdkConfig;
use shared::jwks::Algorithm;
use shared::name::ParameterPath;
use shared::port::{CreatedKey, Fault, SigningKeys};

use crate::fault;
use crate::pair::{Pair, Unusable};

const OPERATION: &str = "PutParameter";

/// Makes key pairs in this process and leaves the private halves in SSM. `Debug` shows path and KMS key.
#[derive(Clone)]
pub struct SsmSigningKeys {
    client: Lazy<Client>,
    path: ParameterPath,
    kms_key: Option<String>,
}

impl SsmSigningKeys {
    /// Makes keys under `path`, sealed under `kms_key`, or under the account's own key of SSM when there is none.
    pub fn new(config: &SdkConfig, path: ParameterPath, kms_key: Option<String>) -> Self {
        let config = config.clone();
        Self { client: Lazy::new(move || Client::new(&config)), path, kms_key }
    }
}

impl SigningKeys for SsmSigningKeys {
    async fn create(&self, algorithm: Algorithm) -> Result<CreatedKey, Fault> {
        let unusable = |_: Unusable| fault::broken(OPERATION, "the key could not be made");
        let refused = || fault::broken(OPERATION, "tokens are not signed with this algorithm");
        let pair = Pair::generate(algorithm).ok_or_else(refused)?.map_err(unusable)?;
        let key = self.path.of_key(&pair.kid().map_err(unusable)?);
        let sent = self
            .client
            .put_parameter()
            .name(&key)
            .value(pair.to_pem().map_err(unusable)?.as_str())
            .r#type(ParameterType::SecureString)
            .tier(ParameterTier::Standard)
            .set_key_id(self.kms_key.clone())
            .overwrite(false)
            .send()
            .await;
        match sent {
            Ok(_) => {}
            // The name is the thumbprint of a key that is a moment old: only an attempt of this very call whose answer was
            // lost can have written it.
            Err(error) if error.code() == Some("ParameterAlreadyExists") => {}
            Err(error) => return Err(fault::of(OPERATION, false, &error)),
        }
        Ok(CreatedKey { key, public_der: pair.public_der().map_err(unusable)? })
    }
}

impl fmt::Debug for SsmSigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, kms_key) = (&self.path, &self.kms_key);
        f.debug_struct("SsmSigningKeys").field("path", path).field("kms_key", kms_key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::jwk::PublicJwk;
    use shared::port::FaultKind;

    use super::*;
    use crate::testing::{Answers, path, refusal};

    #[tokio::test]
    async fn a_new_key_is_a_secure_string_named_by_its_id() {
        for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
            let answers = Answers::new([(200, json!({"Version": 1, "Tier": "Standard"}))]);
            let keys = SsmSigningKeys::new(&answers.config(), path(), Some("arn:aws:kms:key".to_owned()));
            let created = keys.create(algorithm).await.unwrap();
            let kid = PublicJwk::from_spki(&created.public_der, algorithm).unwrap().kid;
            assert_eq!(created.key, format!("/portcullis/signing/dev/{kid}"));
            let calls = answers.calls();
            let [(target, sent)] = calls.as_slice() else { panic!("{} calls", calls.len()) };
            assert_eq!(target, "AmazonSSM.PutParameter");
            let value = sent["Value"].as_str().unwrap();
            assert_eq!(Pair::from_pem(algorithm, value).unwrap().kid().unwrap(), kid);
            assert_eq!(
                *sent,
                json!({"Name": created.key, "Value": value, "Type": "SecureString", "KeyId": "arn:aws:kms:key",
                    "Overwrite": false, "Tier": "Standard"})
            );
        }
    }

    #[tokio::test]
    async fn a_write_whose_answer_was_lost_is_not_taken_for_a_stranger() {
        let answers = Answers::new([refusal("ParameterAlreadyExists")]);
        let created = SsmSigningKeys::new(&answers.config(), path(), None).create(Algorithm::EdDsa).await.unwrap();
        assert_eq!(answers.calls()[0].1["Name"], created.key);
        assert_eq!(answers.calls()[0].1.get("KeyId"), None);
    }

    #[tokio::test]
    async fn what_ssm_refuses_is_told_apart_and_tells_nothing_of_the_key() {
        for (code, kind) in [
            ("AccessDeniedException", FaultKind::Denied),
            ("InvalidKeyId", FaultKind::Denied),
            ("ThrottlingException", FaultKind::Throttled),
            ("TooManyUpdates", FaultKind::Throttled),
            ("ValidationException", FaultKind::Invalid),
            ("InternalServerError", FaultKind::Unavailable),
            ("ExpiredTokenException", FaultKind::Unavailable),
        ] {
            let body = json!({"__type": code, "message": "Value 'canary-55c1' is wrong"});
            let answers = Answers::new([(400, body)]);
            let keys = SsmSigningKeys::new(&answers.config(), path(), None);
            let fault = keys.create(Algorithm::EdDsa).await.unwrap_err();
            assert_eq!(fault.kind, kind, "{code}");
            let value = answers.calls()[0].1["Value"].as_str().unwrap().to_owned();
            let shown = format!("{fault} {fault:?} {keys:?}");
            assert!(shown.contains(code) && !shown.contains("canary"), "{shown}");
            assert!(value.lines().all(|line| !shown.contains(line)), "{shown}");
        }
        // A success that cannot be read is an answer that did not come.
        let half = Answers::new([(200, json!("half of one"))]);
        let keys = SsmSigningKeys::new(&half.config(), path(), None);
        assert_eq!(keys.create(Algorithm::EdDsa).await.unwrap_err().kind, FaultKind::Unavailable);
        let nobody = Answers::new([]);
        let keys = SsmSigningKeys::new(&nobody.config(), path(), None);
        assert_eq!(keys.create(Algorithm::EdDsa).await.unwrap_err().kind, FaultKind::Unavailable);
    }

    #[tokio::test]
    async fn algorithms_that_no_token_has_are_refused_without_a_call() {
        let answers = Answers::new([]);
        for algorithm in [Algorithm::Es384, Algorithm::Ps256] {
            let keys = SsmSigningKeys::new(&answers.config(), path(), None);
            assert_eq!(keys.create(algorithm).await.unwrap_err().kind, FaultKind::Invalid);
        }
        assert!(answers.calls().is_empty());
    }
}

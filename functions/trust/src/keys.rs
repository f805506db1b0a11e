//! The maker of signing keys that the configuration chose.

use aws::{Connector, Service};
use kms::KmsSigningKeys;
use shared::config::Reader;
use shared::jwks::Algorithm;
use shared::key_store::KeyStore;
use shared::port::{CreatedKey, Fault, SigningKeys};
use ssm::SsmSigningKeys;

/// Where new keys go.
pub(crate) struct Place {
    store: KeyStore,
    /// `PORTCULLIS_SIGNING_KEY_ARN`, with `ssm` only: the KMS key that seals the parameters; without it, the account's own key
    /// of SSM.
    seal: Option<String>,
}

impl Place {
    pub(crate) fn read(reader: &Reader<'_>) -> Self {
        const SEAL: &str = "PORTCULLIS_SIGNING_KEY_ARN";
        let store = KeyStore::read(reader);
        let seal = match store {
            KeyStore::Kms => None,
            KeyStore::Ssm(_) => reader.optional(SEAL),
        };
        if seal.as_ref().is_some_and(|arn| !arn.starts_with("arn:") || !arn.contains(":key/")) {
            reader.fault(SEAL, "must be the ARN of a KMS key");
        }
        Self { store, seal }
    }
}

/// One of the two adapters.
pub(crate) enum ChosenKeys {
    Kms(KmsSigningKeys),
    Ssm(SsmSigningKeys),
}

impl ChosenKeys {
    /// Opens the adapter; nothing is sent before the first key is made.
    pub(crate) fn open(place: Place, deployment: String, aws: &Connector) -> Self {
        match place.store {
            KeyStore::Kms => Self::Kms(KmsSigningKeys::new(&aws.service(Service::Kms), deployment)),
            KeyStore::Ssm(path) => Self::Ssm(SsmSigningKeys::new(&aws.service(Service::Ssm), path, place.seal)),
        }
    }
}

impl SigningKeys for ChosenKeys {
    async fn create(&self, algorithm: Algorithm) -> Result<CreatedKey, Fault> {
        match self {
            Self::Kms(keys) => keys.create(algorithm).await,
            Self::Ssm(keys) => keys.create(algorithm).await,
        }
    }
}

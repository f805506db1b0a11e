//! The signer that the configuration chose.

use aws::{Connector, Service};
use kms::KmsSigner;
use shared::jwks::Algorithm;
use shared::key_store::KeyStore;
use shared::port::{Fault, Signer};
use ssm::SsmSigner;

/// One of the two adapters.
pub(crate) enum ChosenSigner {
    Kms(KmsSigner),
    Ssm(SsmSigner),
}

impl ChosenSigner {
    /// Opens the adapter; neither sends anything before the first signature.
    pub(crate) fn open(keys: KeyStore, aws: &Connector) -> Self {
        match keys {
            KeyStore::Kms => Self::Kms(KmsSigner::new(&aws.service(Service::Kms))),
            KeyStore::Ssm(path) => Self::Ssm(SsmSigner::new(&aws.service(Service::Ssm), path)),
        }
    }
}

impl Signer for ChosenSigner {
    async fn sign(&self, key: &str, algorithm: Algorithm, input: &[u8]) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Kms(signer) => signer.sign(key, algorithm, input).await,
            Self::Ssm(signer) => signer.sign(key, algorithm, input).await,
        }
    }
}

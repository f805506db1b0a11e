//! What this deployment is told by its environment.

use shared::config::Reader;
use shared::jwks::Algorithm;

use crate::Issues;

/// The signing settings and where to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `PORTCULLIS_ENV`: the deployment's name, in the tag of every signing key.
    pub env: String,
    /// `PORTCULLIS_TRUST_BUCKET`
    pub trust_bucket: String,
    /// `PORTCULLIS_ISSUER`, `PORTCULLIS_AUDIENCE`, `PORTCULLIS_SIGNING_ALG` (`RS256`, `ES256` or `EdDSA`).
    pub issues: Issues,
}

impl Config {
    /// Reads the variables; meaningful only if the reader's `finish` succeeds. The place of
    /// the signing keys is read apart ([`KeyStore`](shared::key_store::KeyStore)).
    pub fn read(reader: &Reader<'_>) -> Self {
        let algorithms = [("RS256", Algorithm::Rs256), ("ES256", Algorithm::Es256), ("EdDSA", Algorithm::EdDsa)];
        Self {
            env: reader.text("PORTCULLIS_ENV"),
            trust_bucket: reader.text("PORTCULLIS_TRUST_BUCKET"),
            issues: Issues {
                issuer: reader.issuer("PORTCULLIS_ISSUER"),
                audience: reader.text("PORTCULLIS_AUDIENCE"),
                algorithm: reader.choice("PORTCULLIS_SIGNING_ALG", &algorithms, Algorithm::Rs256),
            },
        }
    }
}

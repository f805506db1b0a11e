//! What this deployment is told by its environment.

use shared::config::Reader;

/// Where keys are mirrored to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `PORTCULLIS_ENV`: the deployment's name.
    pub env: String,
    /// `PORTCULLIS_TRUST_BUCKET`
    pub trust_bucket: String,
}

impl Config {
    /// Reads the variables; meaningful only if the reader's `finish` succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        Self { env: reader.text("PORTCULLIS_ENV"), trust_bucket: reader.text("PORTCULLIS_TRUST_BUCKET") }
    }
}

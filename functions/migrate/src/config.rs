//! What this deployment is told by its environment.

use shared::config::Reader;

/// The deployment's name; the database's address belongs to its adapter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `PORTCULLIS_ENV`
    pub env: String,
}

impl Config {
    /// Reads the variables; meaningful only if the reader's `finish` succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        Self { env: reader.text("PORTCULLIS_ENV") }
    }
}

//! What this deployment is told by its environment.

use shared::config::Reader;
use shared::object::{Scan, SigningSettings};

/// What signs URLs, what signs receipts, and which files may be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where files lie, who signs for them, and whose tokens count; `PORTCULLIS_DOWNLOAD_SIGNER_ROLE` signs.
    pub signing: SigningSettings,
    /// `PORTCULLIS_RECEIPT_KEY_ARN`: the key that signs receipts and nothing else.
    pub receipt_key: String,
    /// `PORTCULLIS_SCAN`
    pub scan: Scan,
}

impl Config {
    /// Reads the variables; meaningful only if the reader's `finish` succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        Self {
            signing: SigningSettings::read(reader, "PORTCULLIS_DOWNLOAD_SIGNER_ROLE"),
            receipt_key: reader.arn("PORTCULLIS_RECEIPT_KEY_ARN"),
            scan: Scan::read(reader),
        }
    }
}

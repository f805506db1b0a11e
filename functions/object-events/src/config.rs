//! What this deployment is told by its environment.

use shared::config::Reader;
use shared::object::Scan;

/// Which bucket's objects count, and how they must have been stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `PORTCULLIS_ENV`: the deployment's name.
    pub env: String,
    /// `PORTCULLIS_OBJECT_BUCKET`
    pub object_bucket: String,
    /// `PORTCULLIS_BUCKET_KEY_ARN`: the key that every object must be encrypted under.
    pub bucket_key: String,
    /// `PORTCULLIS_SCAN`
    pub scan: Scan,
}

impl Config {
    /// Reads the variables; meaningful only if the reader's `finish` succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        Self {
            env: reader.text("PORTCULLIS_ENV"),
            object_bucket: reader.text("PORTCULLIS_OBJECT_BUCKET"),
            bucket_key: reader.arn("PORTCULLIS_BUCKET_KEY_ARN"),
            scan: Scan::read(reader),
        }
    }
}

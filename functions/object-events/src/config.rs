//! What this deployment is told by its environment.

use shared::config::Reader;

/// Which bucket's objects count, and how they must have been stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `PORTCULLIS_ENV`: the deployment's name.
    pub env: String,
    /// `PORTCULLIS_OBJECT_BUCKET`
    pub object_bucket: String,
    /// `PORTCULLIS_BUCKET_KEY_ARN`: the key that every object must be encrypted under.
    pub bucket_key: String,
    /// `PORTCULLIS_SCAN`: `guardduty` or `off`.
    pub scan: Scan,
}

/// Whether a file that is as declared waits for a scanner's verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// It waits.
    GuardDuty,
    /// Scanning is switched off, explicitly; the file is clean and recorded as unscanned.
    Off,
}

impl Config {
    /// Reads the variables; meaningful only if the reader's `finish` succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        let arn = |text: &str| text.starts_with("arn:").then(|| text.to_owned());
        Self {
            env: reader.text("PORTCULLIS_ENV"),
            object_bucket: reader.text("PORTCULLIS_OBJECT_BUCKET"),
            bucket_key: reader.parsed("PORTCULLIS_BUCKET_KEY_ARN", "an ARN", arn, String::new()),
            scan: reader.choice(
                "PORTCULLIS_SCAN",
                &[("guardduty", Scan::GuardDuty), ("off", Scan::Off)],
                Scan::GuardDuty,
            ),
        }
    }
}

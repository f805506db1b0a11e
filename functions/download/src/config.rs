//! What this deployment is told by its environment.

use shared::config::Reader;
use shared::trust::Accepts;

/// Where files lie, who signs for them, and whose tokens count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `PORTCULLIS_ENV`: the deployment's name.
    pub env: String,
    /// `PORTCULLIS_ISSUER`, `PORTCULLIS_AUDIENCE`
    pub accepts: Accepts,
    /// `PORTCULLIS_TRUST_BUCKET`
    pub trust_bucket: String,
    /// `PORTCULLIS_OBJECT_BUCKET`
    pub object_bucket: String,
    /// `PORTCULLIS_BUCKET_KEY_ARN`: the key that every object is encrypted under.
    pub bucket_key: String,
    /// `PORTCULLIS_SIGNING_HOST`: base URL of the bucket as clients reach it.
    pub signing_host: String,
    /// `PORTCULLIS_DOWNLOAD_SIGNER_ROLE`: ARN of the role whose sessions sign.
    pub signer_role: String,
    /// `PORTCULLIS_SCAN`: `guardduty` or `off`.
    pub scan: Scan,
}

/// Whether files must have been found clean by a scanner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// A file that was never scanned is not served.
    GuardDuty,
    /// Scanning is switched off, explicitly.
    Off,
}

impl Config {
    /// Reads the variables; meaningful only if the reader's `finish` succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        let arn = |name| {
            reader.parsed(name, "an ARN", |text| text.starts_with("arn:").then(|| text.to_owned()), String::new())
        };
        Self {
            env: reader.text("PORTCULLIS_ENV"),
            accepts: Accepts {
                issuer: reader.issuer("PORTCULLIS_ISSUER"),
                audience: reader.text("PORTCULLIS_AUDIENCE"),
            },
            trust_bucket: reader.text("PORTCULLIS_TRUST_BUCKET"),
            object_bucket: reader.text("PORTCULLIS_OBJECT_BUCKET"),
            bucket_key: arn("PORTCULLIS_BUCKET_KEY_ARN"),
            signing_host: reader.parsed(
                "PORTCULLIS_SIGNING_HOST",
                "an http or https URL without path",
                |text| is_base_url(text).then(|| text.to_owned()),
                String::new(),
            ),
            signer_role: arn("PORTCULLIS_DOWNLOAD_SIGNER_ROLE"),
            scan: reader.choice(
                "PORTCULLIS_SCAN",
                &[("guardduty", Scan::GuardDuty), ("off", Scan::Off)],
                Scan::GuardDuty,
            ),
        }
    }
}

fn is_base_url(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
    })
}

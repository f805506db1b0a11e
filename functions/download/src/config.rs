//! What this deployment is told by its environment.

use shared::clock::Timestamp;
use shared::config::Reader;
use shared::object::SignerReach;
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
    /// `PORTCULLIS_SIGNER_REACH`: `tenant` or `object`, what one session may sign for.
    pub signer_reach: SignerReach,
    /// `PORTCULLIS_URLS_REVOKED_BEFORE`: sessions from before this second sign nothing more; none where it is not set.
    pub revoked_before: Option<Timestamp>,
    /// `PORTCULLIS_RECEIPT_KEY_ARN`: the key that signs receipts and nothing else.
    pub receipt_key: String,
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
            signer_reach: reader.choice(
                "PORTCULLIS_SIGNER_REACH",
                &[("tenant", SignerReach::Tenant), ("object", SignerReach::Object)],
                SignerReach::Object,
            ),
            revoked_before: revoked_before(reader),
            receipt_key: arn("PORTCULLIS_RECEIPT_KEY_ARN"),
            scan: reader.choice(
                "PORTCULLIS_SCAN",
                &[("guardduty", Scan::GuardDuty), ("off", Scan::Off)],
                Scan::GuardDuty,
            ),
        }
    }
}

fn revoked_before(reader: &Reader<'_>) -> Option<Timestamp> {
    const NAME: &str = "PORTCULLIS_URLS_REVOKED_BEFORE";
    let text = reader.optional(NAME)?;
    let moment = Timestamp::parse_utc(&text);
    if moment.is_none() {
        reader.fault(NAME, "must be a second of UTC such as 2026-11-22T08:00:00Z");
    }
    moment
}

fn is_base_url(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
    })
}

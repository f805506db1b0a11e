//! What the functions that deal with files are told by their environment.

use super::SignerReach;
use crate::clock::Timestamp;
use crate::config::Reader;
use crate::trust::Accepts;

/// Where files lie, who signs for them, and whose tokens count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SigningSettings {
    /// `PORTCULLIS_ENV`: the deployment's name.
    pub env: String,
    /// `PORTCULLIS_ISSUER`, `PORTCULLIS_AUDIENCE`
    pub accepts: Accepts,
    /// `PORTCULLIS_TRUST_BUCKET`
    pub trust_bucket: String,
    /// `PORTCULLIS_OBJECT_BUCKET`
    pub object_bucket: String,
    /// `PORTCULLIS_BUCKET_KEY_ARN`: the key that every object must be encrypted under.
    pub bucket_key: String,
    /// `PORTCULLIS_SIGNING_HOST`: base URL of the bucket as clients reach it.
    pub signing_host: String,
    /// ARN of the role whose sessions sign.
    pub signer_role: String,
    /// `PORTCULLIS_SIGNER_REACH`: `tenant` or `object`, what one session may sign for.
    pub signer_reach: SignerReach,
    /// `PORTCULLIS_URLS_REVOKED_BEFORE`: sessions from before this second sign nothing more; none where it is not set.
    pub revoked_before: Option<Timestamp>,
}

impl SigningSettings {
    /// Reads the variables, the signer's role from the one that is named; meaningful only if the reader's `finish` succeeds.
    pub fn read(reader: &Reader<'_>, signer_role: &str) -> Self {
        Self {
            env: reader.text("PORTCULLIS_ENV"),
            accepts: Accepts {
                issuer: reader.issuer("PORTCULLIS_ISSUER"),
                audience: reader.text("PORTCULLIS_AUDIENCE"),
            },
            trust_bucket: reader.text("PORTCULLIS_TRUST_BUCKET"),
            object_bucket: reader.text("PORTCULLIS_OBJECT_BUCKET"),
            bucket_key: reader.arn("PORTCULLIS_BUCKET_KEY_ARN"),
            signing_host: reader.parsed(
                "PORTCULLIS_SIGNING_HOST",
                "an http or https URL without path",
                |text| is_base_url(text).then(|| text.to_owned()),
                String::new(),
            ),
            signer_role: reader.arn(signer_role),
            signer_reach: reader.choice(
                "PORTCULLIS_SIGNER_REACH",
                &[("tenant", SignerReach::Tenant), ("object", SignerReach::Object)],
                SignerReach::Object,
            ),
            revoked_before: revoked_before(reader),
        }
    }
}

/// Whether a file that is as declared waits for a scanner's verdict before it is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// It waits, and one that was never scanned is not served.
    GuardDuty,
    /// Scanning is switched off, explicitly; the file is clean and recorded as unscanned.
    Off,
}

impl Scan {
    /// Reads `PORTCULLIS_SCAN`, `guardduty` or `off`; meaningful only if the reader's `finish` succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        reader.choice("PORTCULLIS_SCAN", &[("guardduty", Self::GuardDuty), ("off", Self::Off)], Self::GuardDuty)
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

//! What an AWS client needs to know, read from names that AWS defines.

use std::collections::BTreeMap;
use std::fmt;

use aws_credential_types::Credentials;
use shared::config::Reader;

use crate::trust::Trust;

const CA_FILE: &str = "PORTCULLIS_CA_FILE";

/// The services that adapters call over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// AWS Key Management Service.
    Kms,
    /// Amazon S3.
    S3,
    /// SSM Parameter Store.
    Ssm,
    /// Security Token Service.
    Sts,
}

impl Service {
    const ALL: [Self; 4] = [Self::Kms, Self::S3, Self::Ssm, Self::Sts];

    /// The variable that overrides this service's endpoint.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Kms => "AWS_ENDPOINT_URL_KMS",
            Self::S3 => "AWS_ENDPOINT_URL_S3",
            Self::Ssm => "AWS_ENDPOINT_URL_SSM",
            Self::Sts => "AWS_ENDPOINT_URL_STS",
        }
    }
}

/// Region, credentials, endpoints and trust of a process.
#[derive(Clone)]
pub struct AwsSettings {
    /// Region of every call and signature.
    pub region: String,
    /// The sandbox's own credentials.
    pub credentials: Credentials,
    /// Whom TLS believes.
    pub trust: Trust,
    global: Option<String>,
    endpoints: BTreeMap<Service, String>,
}

impl AwsSettings {
    /// Reads `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_ENDPOINT_URL`,
    /// `AWS_ENDPOINT_URL_<SERVICE>` and `PORTCULLIS_CA_FILE`; the file, where one is named, at once.
    ///
    /// Meaningful only if [`Reader::finish`] succeeds.
    #[must_use]
    pub fn read(reader: &Reader<'_>) -> Self {
        let is_region = |value: &str| {
            let plain = value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            plain.then(|| value.to_owned())
        };
        let region = reader.parsed("AWS_REGION", "a region name", is_region, String::new());
        let credentials = Credentials::new(
            reader.text("AWS_ACCESS_KEY_ID"),
            reader.text("AWS_SECRET_ACCESS_KEY"),
            reader.optional("AWS_SESSION_TOKEN"),
            None,
            "environment",
        );
        let url = |name: &'static str| {
            let value = reader.optional(name)?;
            if !value.starts_with("http://") && !value.starts_with("https://") {
                reader.fault(name, "must be an http or https URL");
            }
            Some(value.trim_end_matches('/').to_owned())
        };
        let global = url("AWS_ENDPOINT_URL");
        let endpoints = Service::ALL.into_iter().filter_map(|s| Some((s, url(s.variable())?))).collect();
        let trust = match reader.optional_file(CA_FILE) {
            None => Trust::amazon(),
            Some(pem) => Trust::custom(pem).unwrap_or_else(|_| {
                reader.fault(CA_FILE, "must hold a usable certificate");
                Trust::amazon()
            }),
        };
        Self { region, credentials, trust, global, endpoints }
    }

    /// The configured endpoint of a service; `None` means AWS's own.
    #[must_use]
    pub fn endpoint(&self, service: Service) -> Option<&str> {
        self.endpoints.get(&service).or(self.global.as_ref()).map(String::as_str)
    }
}

impl fmt::Debug for AwsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSettings")
            .field("region", &self.region)
            .field("access_key_id", &self.credentials.access_key_id())
            .field("secret_access_key", &"[redacted]")
            .field("session_token", &self.credentials.session_token().map(|_| "[redacted]"))
            .field("endpoint", &self.global)
            .field("endpoints", &self.endpoints)
            .field("trust", &self.trust)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Environment, Faults};

    fn read(pairs: &[(&str, &str)]) -> Result<AwsSettings, Faults> {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let reader = Reader::new(&environment);
        let settings = AwsSettings::read(&reader);
        reader.finish().map(|()| settings)
    }

    const LEAST: [(&str, &str); 3] =
        [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "canary-secret")];

    #[test]
    fn every_fault_is_reported_by_name_and_no_value_is_repeated() {
        let faults = read(&[
            ("AWS_REGION", "us east canary"),
            ("AWS_ENDPOINT_URL_KMS", "canary://x"),
            ("PORTCULLIS_CA_FILE", "/does/not/exist/canary"),
        ])
        .expect_err("five things are wrong");
        let shown = faults.lines();
        for name in
            ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_KMS", "PORTCULLIS_CA_FILE"]
        {
            assert!(shown.iter().any(|s| s.starts_with(name)), "{name} in {shown:?}");
        }
        assert!(!faults.to_string().contains("canary"));
    }

    #[test]
    fn debug_of_the_settings_shows_no_secret() {
        let mut pairs = LEAST.to_vec();
        pairs.push(("AWS_SESSION_TOKEN", "canary-token"));
        let shown = format!("{:?}", read(&pairs).expect("settings are complete"));
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("AKID"));
    }

    #[test]
    fn an_empty_variable_counts_as_absent() {
        let mut pairs = LEAST.to_vec();
        pairs.push(("AWS_SESSION_TOKEN", ""));
        pairs.push(("AWS_ENDPOINT_URL", ""));
        let settings = read(&pairs).expect("settings are complete");
        assert_eq!(settings.credentials.session_token(), None);
        assert_eq!(settings.endpoint(Service::Kms), None);
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_a_fault() {
        let file = std::env::temp_dir().join(format!("portcullis-aws-settings-{}.pem", std::process::id()));
        std::fs::write(&file, "not a certificate").expect("temporary file");
        let path = file.to_string_lossy().into_owned();
        let mut pairs = LEAST.to_vec();
        pairs.push(("PORTCULLIS_CA_FILE", &path));
        let faults = read(&pairs).expect_err("no certificate inside");
        std::fs::remove_file(&file).expect("temporary file");
        assert_eq!(faults.lines(), ["PORTCULLIS_CA_FILE must hold a usable certificate"]);
    }
}

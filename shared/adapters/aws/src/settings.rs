//! What an AWS client needs to know, read from names that AWS defines.

use std::collections::BTreeMap;
use std::fmt;

use aws_credential_types::Credentials;

use crate::trust::Trust;

/// The services that adapters call over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// AWS Key Management Service.
    Kms,
    /// Amazon S3.
    S3,
    /// Security Token Service.
    Sts,
}

impl Service {
    const ALL: [Self; 3] = [Self::Kms, Self::S3, Self::Sts];

    /// The variable that overrides this service's endpoint.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Kms => "AWS_ENDPOINT_URL_KMS",
            Self::S3 => "AWS_ENDPOINT_URL_S3",
            Self::Sts => "AWS_ENDPOINT_URL_STS",
        }
    }
}

/// A variable that is missing or unusable. Carries the name, never the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the variable.
    pub name: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
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
    /// `AWS_ENDPOINT_URL_<SERVICE>` and `PORTCULLIS_CA_FILE`. The file, where one is named, is read at once.
    ///
    /// # Errors
    /// All faults together.
    pub fn read(find: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let present = |name: &str| find(name).filter(|value| !value.is_empty());
        let mut need = |name: &'static str| {
            present(name).unwrap_or_else(|| {
                faults.push(Fault { name, problem: "missing" });
                String::new()
            })
        };
        let region = need("AWS_REGION");
        let access_key_id = need("AWS_ACCESS_KEY_ID");
        let secret_access_key = need("AWS_SECRET_ACCESS_KEY");
        if !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            faults.push(Fault { name: "AWS_REGION", problem: "not a region name" });
        }

        let mut url = |name: &'static str| {
            let value = present(name)?;
            if value.starts_with("http://") || value.starts_with("https://") {
                return Some(value.trim_end_matches('/').to_owned());
            }
            faults.push(Fault { name, problem: "not an http or https URL" });
            None
        };
        let global = url("AWS_ENDPOINT_URL");
        let endpoints = Service::ALL.into_iter().filter_map(|s| Some((s, url(s.variable())?))).collect();

        let trust = match present("PORTCULLIS_CA_FILE") {
            None => Trust::amazon(),
            Some(path) => match std::fs::read(path) {
                Err(_) => {
                    faults.push(Fault { name: "PORTCULLIS_CA_FILE", problem: "cannot be read" });
                    Trust::amazon()
                }
                Ok(pem) => Trust::custom(pem).unwrap_or_else(|_| {
                    faults.push(Fault { name: "PORTCULLIS_CA_FILE", problem: "holds no usable certificate" });
                    Trust::amazon()
                }),
            },
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        let credentials =
            Credentials::new(access_key_id, secret_access_key, present("AWS_SESSION_TOKEN"), None, "environment");
        Ok(Self { region, credentials, trust, global, endpoints })
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

    fn read(pairs: &[(&str, &str)]) -> Result<AwsSettings, Vec<Fault>> {
        AwsSettings::read(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()))
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
        .expect_err("four things are wrong");
        let shown: Vec<String> = faults.iter().map(Fault::to_string).collect();
        for name in
            ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_KMS", "PORTCULLIS_CA_FILE"]
        {
            assert!(shown.iter().any(|s| s.starts_with(name)), "{name} in {shown:?}");
        }
        assert!(!shown.concat().contains("canary"));
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
        assert_eq!(faults, [Fault { name: "PORTCULLIS_CA_FILE", problem: "holds no usable certificate" }]);
    }
}

//! The one way AWS clients are built: region, credentials, endpoints, timeouts, retries and a narrow trust store.
//!
//! There is no ambient chain here: no profile, no metadata service, no native root store. What is not in [`AwsSettings`]
//! does not exist. A [`Connector`] does no I/O and parses no certificate until the first request leaves, so that a cold
//! start pays only for what it uses. One connector, and so one pool of connections, serves all adapters of a process.

mod http;
mod lazy;
mod settings;
mod trust;

pub use self::http::{http_client, tls};
pub use self::lazy::Lazy;
pub use self::settings::{AwsSettings, Service};
pub use self::trust::{Malformed, Trust};

/// What adapters need to build a service client from an [`SdkConfig`].
pub use aws_credential_types::Credentials;
pub use aws_types::SdkConfig;

/// Clocks for [`Connector::with_time_source`].
pub use aws_smithy_async::time::{StaticTimeSource, TimeSource};

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::region::Region;

/// Longest wait for a TCP and TLS connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time of one attempt.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time of one operation, all attempts and pauses included.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);
/// Attempts of one operation, the first included; the pauses between them grow and carry jitter.
pub const ATTEMPTS: u32 = 3;

/// A thawed sandbox finds its idle connections dead, so they are not kept for long.
const IDLE: Duration = Duration::from_secs(20);

/// Builds the configuration of every AWS client of the process.
#[derive(Clone, Debug)]
pub struct Connector {
    settings: AwsSettings,
    time: SharedTimeSource,
    base: SdkConfig,
}

impl Connector {
    /// Takes the settings; nothing is opened.
    #[must_use]
    pub fn new(settings: AwsSettings) -> Self {
        Self::with_time_source(settings, SystemTimeSource::new())
    }

    /// As [`Connector::new`], signing with another clock.
    #[must_use]
    pub fn with_time_source(settings: AwsSettings, time: impl TimeSource + 'static) -> Self {
        let time = SharedTimeSource::new(time);
        let base = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(settings.region.clone()))
            .credentials_provider(SharedCredentialsProvider::new(settings.credentials.clone()))
            .http_client(http_client(settings.trust.clone()))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .operation_timeout(OPERATION_TIMEOUT)
                    .build(),
            )
            .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
            .time_source(time.clone())
            .build();
        Self { settings, time, base }
    }

    /// The configuration for clients of one service, with the endpoint configured for it if there is one.
    #[must_use]
    pub fn service(&self, service: Service) -> SdkConfig {
        match self.settings.endpoint(service) {
            Some(url) => self.base.clone().into_builder().endpoint_url(url).build(),
            None => self.base.clone(),
        }
    }

    /// As [`Connector::service`], signing as somebody else: for the sessions that STS hands out.
    #[must_use]
    pub fn service_as(&self, service: Service, credentials: Credentials) -> SdkConfig {
        self.service(service).into_builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build()
    }

    /// The configuration without any endpoint, for what is signed locally and sent elsewhere.
    #[must_use]
    pub fn signing(&self) -> &SdkConfig {
        &self.base
    }

    /// The time by the clock that requests are signed with.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.time.now()
    }

    /// The settings this was made from.
    #[must_use]
    pub fn settings(&self) -> &AwsSettings {
        &self.settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Environment, Reader};

    fn settings(pairs: &[(&str, &str)]) -> AwsSettings {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let reader = Reader::new(&environment);
        let settings = AwsSettings::read(&reader);
        reader.finish().expect("settings are complete");
        settings
    }

    const COMPLETE: &[(&str, &str)] = &[
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "canary-secret"),
        ("AWS_SESSION_TOKEN", "canary-token"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:2"),
    ];

    #[test]
    fn a_service_endpoint_beats_the_global_one() {
        let connector = Connector::new(settings(COMPLETE));
        assert_eq!(connector.service(Service::Kms).endpoint_url(), Some("http://127.0.0.1:2"));
        assert_eq!(connector.service(Service::S3).endpoint_url(), Some("http://127.0.0.1:1"));
        assert_eq!(connector.signing().endpoint_url(), None);
    }

    #[test]
    fn debug_of_the_connector_shows_no_secret() {
        let connector = Connector::new(settings(COMPLETE));
        let shown = format!("{connector:?} {:#?}", connector.service(Service::Sts));
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("eu-west-1"));
    }

    #[test]
    fn the_configuration_has_limits_region_and_the_given_clock() {
        let moment = std::time::UNIX_EPOCH + Duration::from_secs(1_724_709_600);
        let connector = Connector::with_time_source(settings(COMPLETE), StaticTimeSource::new(moment));
        let config = connector.signing();
        assert_eq!(config.region().map(AsRef::as_ref), Some("eu-west-1"));
        assert_eq!(config.time_source().map(|t| t.now()), Some(moment));
        assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(3));
        let timeouts = config.timeout_config().expect("timeouts are set");
        assert_eq!(timeouts.connect_timeout(), Some(CONNECT_TIMEOUT));
        assert_eq!(timeouts.operation_timeout(), Some(OPERATION_TIMEOUT));
        assert!(config.service_config().is_none(), "ambient service settings are never read");
    }

    #[test]
    fn another_session_replaces_the_credentials_only() {
        let connector = Connector::new(settings(COMPLETE));
        let session = Credentials::new("ASIAOTHER", "s", Some("t".to_owned()), None, "sts");
        let config = connector.service_as(Service::S3, session);
        assert_eq!(config.endpoint_url(), Some("http://127.0.0.1:1"));
        assert_eq!(config.region().map(AsRef::as_ref), Some("eu-west-1"));
    }
}

//! One connection: a token minted for it, and TLS that verifies chain and name.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config as TokenConfig};
use aws_types::region::Region;
use rustls::ClientConfig;
use shared::config::Reader;
use shared::port::{Fault, FaultKind};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::fault::{SERVICE, fault};

const RDS_ROOTS: &str = include_str!("../roots/rds.pem");
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(4);
/// A token lives 900 s at most; it is used within the connect timeout.
const TOKEN_LIFE: u64 = 900;

/// What stands at the other end, and so which roots its certificate chains to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// RDS Proxy: Amazon Trust Services.
    Proxy,
    /// The instance itself: the RDS roots of the region.
    Direct,
}

/// Where the database is and who we are there.
#[derive(Clone, Debug)]
pub struct RdsSettings {
    /// The endpoint as dialled; also the name in the token and in the certificate.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// The login, `[a-z][a-z0-9_]{0,62}`.
    pub user: String,
    /// Proxy or instance.
    pub mode: Mode,
    /// Longest wait for a connection that is ready to use.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to one call.
    pub statement_timeout: Duration,
}

impl RdsSettings {
    /// Reads `PORTCULLIS_DB_HOST`, `_PORT`, `_NAME`, `_USER` and `_MODE` (`proxy` or `direct`).
    #[must_use]
    pub fn read(reader: &Reader<'_>) -> Self {
        let mode =
            reader.choice("PORTCULLIS_DB_MODE", &[("proxy", Mode::Proxy), ("direct", Mode::Direct)], Mode::Proxy);
        let text = |name: &str, expected: &str, fits: fn(&str) -> bool| {
            reader.parsed(name, expected, |value| fits(value).then(|| value.to_owned()), String::new())
        };
        let host = text("PORTCULLIS_DB_HOST", "a host name", is_host);
        let port = reader.port("PORTCULLIS_DB_PORT");
        let database = text("PORTCULLIS_DB_NAME", "a plain name", is_plain);
        let user = text("PORTCULLIS_DB_USER", "a plain name", is_plain);
        Self::new(&host, port, &database, &user, mode)
    }

    /// Reads `PORTCULLIS_TARGET_HOST`, `_PORT`, `_NAME`, `_USER` and `_MODE`: a database of somebody else. `None` without a host.
    #[must_use]
    pub fn read_target(reader: &Reader<'_>) -> Option<Self> {
        let [host, port, database, user, mode] =
            ["HOST", "PORT", "NAME", "USER", "MODE"].map(|name| reader.optional(&format!("PORTCULLIS_TARGET_{name}")));
        let host = host?;
        let fit = |name: &str, value: Option<String>, fits: fn(&str) -> bool| {
            let value = value.filter(|value| fits(value));
            if value.is_none() {
                reader.fault(&format!("PORTCULLIS_TARGET_{name}"), "is missing beside the host, or not of its form");
            }
            value.unwrap_or_default()
        };
        let host = fit("HOST", Some(host), is_host);
        let port = fit("PORT", port, |value| value.parse::<u16>().is_ok_and(|port| port > 0)).parse().unwrap_or(0);
        let (database, user) = (fit("NAME", database, is_plain), fit("USER", user, is_plain));
        let mode = match fit("MODE", mode, |value| matches!(value, "proxy" | "direct")).as_str() {
            "direct" => Mode::Direct,
            _ => Mode::Proxy,
        };
        Some(Self::new(&host, port, &database, &user, mode))
    }

    /// Settings with the house's timeouts.
    #[must_use]
    pub fn new(host: &str, port: u16, database: &str, user: &str, mode: Mode) -> Self {
        Self {
            host: host.to_owned(),
            port,
            database: database.to_owned(),
            user: user.to_owned(),
            mode,
            connect_timeout: CONNECT_TIMEOUT,
            statement_timeout: STATEMENT_TIMEOUT,
        }
    }
}

/// Opens connections.
pub(crate) struct Dialer {
    settings: RdsSettings,
    aws: aws::Connector,
    tls: OnceLock<MakeRustlsConnect>,
}

impl Dialer {
    pub(crate) fn new(settings: RdsSettings, aws: &aws::Connector) -> Self {
        Self { settings, aws: aws.clone(), tls: OnceLock::new() }
    }

    /// A connection that has passed authentication, driven in the background until it closes.
    pub(crate) async fn connect(&self) -> Result<Client, Fault> {
        let tls = match self.tls.get() {
            Some(tls) => tls.clone(),
            None => {
                let made = MakeRustlsConnect::new(self.tls()?);
                self.tls.get_or_init(|| made).clone()
            }
        };
        let token = self.token().await?;
        let mut config = Config::new();
        config
            .host(&self.settings.host)
            .port(self.settings.port)
            .dbname(&self.settings.database)
            .user(&self.settings.user)
            .password(token.0.as_bytes())
            .application_name("portcullis")
            .ssl_mode(SslMode::Require)
            // The password is sent in clear inside TLS, which binding to the channel does not cover.
            .channel_binding(ChannelBinding::Disable)
            .connect_timeout(self.settings.connect_timeout)
            .tcp_user_timeout(self.settings.statement_timeout)
            .keepalives(true);
        let opened = tokio::time::timeout(self.settings.connect_timeout, config.connect(tls)).await;
        let (client, connection) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(fault("connect", error)),
            Err(_) => return Err(unavailable("connect timeout")),
        };
        tokio::spawn(async move {
            // Whoever waits for an answer learns of the end through the client.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// The time by the clock that tokens are signed with.
    pub(crate) fn now(&self) -> SystemTime {
        self.aws.now()
    }

    async fn token(&self) -> Result<Token, Fault> {
        let user = &self.settings.user;
        if !is_plain(user) {
            return Err(Fault::new(FaultKind::Invalid, SERVICE, "token").caused_by("not a plain user name"));
        }
        let config = TokenConfig::builder()
            .hostname(&self.settings.host)
            .port(self.settings.port.into())
            .username(user)
            // Without one the generator signs for us-east-1.
            .region(Region::new(self.aws.settings().region.clone()))
            .expires_in(TOKEN_LIFE)
            .build()
            .map_err(|error| Fault::new(FaultKind::Invalid, SERVICE, "token").caused_by(error.to_string()))?;
        let minted = AuthTokenGenerator::new(config).auth_token(self.aws.signing()).await;
        match minted {
            Ok(token) => Ok(Token(token.as_str().to_owned())),
            Err(error) => Err(Fault::new(FaultKind::Unavailable, SERVICE, "token").caused_by(error.to_string())),
        }
    }

    fn tls(&self) -> Result<ClientConfig, Fault> {
        let trust = &self.aws.settings().trust;
        let roots = match self.settings.mode {
            Mode::Proxy => trust.amazon_roots(),
            Mode::Direct => trust.roots_or(region_roots(&self.aws.settings().region)),
        };
        let roots = roots.map_err(|error| Fault::new(FaultKind::Invalid, SERVICE, "trust").caused_by(error))?;
        aws::tls(roots).map_err(|error| Fault::new(FaultKind::Invalid, SERVICE, "trust").caused_by(error))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("settings", &self.settings).field("aws", &self.aws).finish_non_exhaustive()
    }
}

/// What the token generator would otherwise leave unescaped.
fn is_plain(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_host(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
}

/// An authentication token: a password for 900 seconds.
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The part of the embedded roots that a region's instances chain to; empty for an unknown region.
fn region_roots(region: &str) -> &'static str {
    RDS_ROOTS
        .split("\n# region ")
        .skip(1)
        .find_map(|section| section.split_once('\n').filter(|(name, _)| *name == region).map(|(_, pem)| pem))
        .unwrap_or_default()
}

fn unavailable(reason: &'static str) -> Fault {
    Fault::new(FaultKind::Unavailable, SERVICE, "connect").caused_by(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    use aws::{AwsSettings, Connector, StaticTimeSource};
    use shared::config::Environment;

    fn aws_at(seconds: u64, region: &str) -> Connector {
        let pairs = [("AWS_REGION", region), ("AWS_ACCESS_KEY_ID", "akid"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let environment = Environment::from_pairs(pairs);
        let reader = Reader::new(&environment);
        let settings = AwsSettings::read(&reader);
        reader.finish().expect("settings are complete");
        Connector::with_time_source(settings, StaticTimeSource::from_secs(seconds))
    }

    #[test]
    fn settings_are_read_by_name_and_every_fault_is_reported() {
        let pairs = [
            ("PORTCULLIS_DB_HOST", "proxy.example"),
            ("PORTCULLIS_DB_PORT", "5432"),
            ("PORTCULLIS_DB_NAME", "portcullis"),
            ("PORTCULLIS_DB_USER", "data_key_encrypt"),
            ("PORTCULLIS_DB_MODE", "direct"),
        ];
        let environment = Environment::from_pairs(pairs);
        let reader = Reader::new(&environment);
        let settings = RdsSettings::read(&reader);
        reader.finish().expect("settings are complete");
        assert_eq!((settings.host.as_str(), settings.port, settings.mode), ("proxy.example", 5432, Mode::Direct));

        let wrong = [("PORTCULLIS_DB_HOST", "a b"), ("PORTCULLIS_DB_USER", "x&y"), ("PORTCULLIS_DB_MODE", "any")];
        let environment = Environment::from_pairs(wrong);
        let reader = Reader::new(&environment);
        let _ = RdsSettings::read(&reader);
        assert_eq!(reader.finish().expect_err("all five").lines().len(), 5);
    }

    #[test]
    fn a_target_is_whole_or_not_there() {
        let whole = [
            ("PORTCULLIS_TARGET_HOST", "shop.example"),
            ("PORTCULLIS_TARGET_PORT", "5432"),
            ("PORTCULLIS_TARGET_NAME", "shop"),
            ("PORTCULLIS_TARGET_USER", "portcullis"),
            ("PORTCULLIS_TARGET_MODE", "direct"),
        ];
        let read = |pairs: &[(&str, &str)]| {
            let environment = Environment::from_pairs(pairs.iter().copied());
            let reader = Reader::new(&environment);
            let target = RdsSettings::read_target(&reader);
            (target, reader.finish())
        };
        let (target, faults) = read(&whole);
        let target = target.expect("a target");
        assert!(faults.is_ok());
        assert_eq!(
            (target.host.as_str(), target.database.as_str(), target.mode),
            ("shop.example", "shop", Mode::Direct)
        );
        assert!(read(&[]).0.is_none() && read(&[("PORTCULLIS_TARGET_HOST", "")]).0.is_none());
        for missing in 1..whole.len() {
            let mut pairs = whole.to_vec();
            pairs.remove(missing);
            assert!(read(&pairs).1.is_err(), "{missing}");
        }
        for (name, value) in [("HOST", "a b"), ("PORT", "0"), ("NAME", "a;b"), ("USER", "x&y"), ("MODE", "any")] {
            let name = format!("PORTCULLIS_TARGET_{name}");
            let pairs: Vec<_> = whole.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect();
            assert!(read(&pairs).1.is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn the_token_is_the_one_that_aws_publishes() {
        let host = "prod-instance.us-east-1.rds.amazonaws.com";
        let settings = RdsSettings::new(host, 3306, "x", "peccy", Mode::Proxy);
        let token = Dialer::new(settings, &aws_at(1_724_709_600, "us-east-1")).token().await.expect("minted");
        assert!(token.0.starts_with("prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy&"));
        assert!(token.0.contains("dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89"));
        assert_eq!(format!("{token:?}"), "[redacted]");
    }

    #[tokio::test]
    async fn the_token_is_signed_for_the_configured_region() {
        let settings = RdsSettings::new("h", 5432, "x", "token", Mode::Proxy);
        let token = Dialer::new(settings, &aws_at(1_724_709_600, "eu-west-1")).token().await.expect("minted");
        assert!(token.0.contains("%2Feu-west-1%2Frds-db%2Faws4_request"), "{}", token.0);
    }

    #[tokio::test]
    async fn a_user_name_that_would_need_escaping_is_refused() {
        for user in ["", "a&b", "Token", "data-key", "1a", "ü"] {
            let settings = RdsSettings::new("h", 5432, "x", user, Mode::Proxy);
            assert!(Dialer::new(settings, &aws_at(0, "us-east-1")).token().await.is_err(), "{user:?}");
        }
    }

    #[test]
    fn direct_mode_trusts_the_roots_of_its_region_only() {
        let aws = aws_at(0, "us-east-1");
        let trust = &aws.settings().trust;
        let roots = trust.roots_or(region_roots("us-east-1")).expect("three roots");
        let subjects: Vec<String> =
            roots.roots.iter().map(|root| String::from_utf8_lossy(root.subject.as_ref()).into_owned()).collect();
        assert_eq!(subjects.len(), 3);
        assert!(subjects.iter().all(|subject| subject.contains("RDS us-east-1 Root CA")), "{subjects:?}");
        assert!(trust.roots_or(region_roots("us-east")).is_err(), "no region, no trust");
    }

    #[test]
    fn debug_of_the_adapter_shows_no_secret() {
        let settings = RdsSettings::new("h", 5432, "x", "token", Mode::Direct);
        let shown = format!("{:?}", crate::Rds::new(settings, &aws_at(0, "us-east-1")));
        assert!(!shown.contains("secret\""), "{shown}");
        assert!(shown.contains("token"));
    }
}

//! Whom the stand-in for RDS Proxy lets in, asked by a plain client with tokens from the AWS SDK.

#![allow(clippy::expect_used, reason = "a test whose world cannot be made has failed")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use aws::Connector;
use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config as TokenConfig};
use aws_types::region::Region;
use local::account::Keys;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::world::World;

struct Mint<'a> {
    host: &'a str,
    port: u16,
    user: &'a str,
    region: &'a str,
}

impl World {
    fn mint(&self) -> Mint<'_> {
        Mint { host: "localhost", port: self.proxy_port, user: "token", region: &self.account.region }
    }

    fn config(&self, user: &str, password: &str) -> Config {
        let mut config = Config::new();
        config.host("localhost").port(self.proxy_port).dbname("portcullis").user(user).password(password);
        config.ssl_mode(SslMode::Require).connect_timeout(Duration::from_secs(5));
        config
    }

    async fn try_config(&self, config: &Config) -> Result<Client, String> {
        let tls = MakeRustlsConnect::new((*self.ca.client_config().expect("client")).clone());
        match config.connect(tls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                Ok(client)
            }
            Err(error) => Err(match error.as_db_error() {
                Some(told) => format!("{} {}: {}", told.severity(), told.code().code(), told.message()),
                None => error.to_string(),
            }),
        }
    }

    async fn attempt(&self, user: &str, password: &str) -> Result<Client, String> {
        self.try_config(&self.config(user, password)).await
    }
}

async fn token(aws: &Connector, mint: Mint<'_>) -> String {
    let config = TokenConfig::builder()
        .hostname(mint.host)
        .port(mint.port.into())
        .username(mint.user)
        .region(Region::new(mint.region.to_owned()))
        .expires_in(900)
        .build()
        .expect("complete");
    AuthTokenGenerator::new(config).auth_token(aws.signing()).await.expect("minted").as_str().to_owned()
}

fn refused(user: &str) -> String {
    format!(
        "FATAL 28P01: The IAM authentication failed for the role {user}. Check the IAM token for this role and try again."
    )
}

#[tokio::test]
async fn the_right_token_gets_in_as_its_user() {
    let world = World::start().await;
    let token = token(&world.aws("token"), world.mint()).await;
    assert!(token.len() > 1_000, "as long as real ones: {}", token.len());
    let client = world.attempt("token", &token).await.expect("gets in");
    let row = client.query_typed_one("SELECT session_user::text", &[]).await.expect("answers");
    assert_eq!(row.get::<_, &str>(0), "token");
    let entry = world.proxy.trail().pop().expect("one decision");
    assert!(entry.allowed && entry.resource == world.proxy.arn("token"), "{entry:?}");
}

#[tokio::test]
async fn every_wrong_token_is_refused_alike_and_the_reason_stays_inside() {
    let world = World::start().await;
    let aws = world.aws("token");
    let good = token(&aws, world.mint()).await;
    let mint = |change: fn(Mint<'_>) -> Mint<'_>| token(&aws, change(world.mint()));
    let keys = world.keys("token");
    let with = |change: fn(Keys) -> Keys| world.aws_with(&change(keys.clone()), None);
    let foreign = world.keys("token");
    let other_session = Keys { session_token: foreign.session_token.clone(), ..keys.clone() };

    let rows: Vec<(&str, String, &str)> = vec![
        ("a password", "hunter2".to_owned(), "password is not a token for this endpoint"),
        ("no password", " ".to_owned(), "password is not a token for this endpoint"),
        (
            "another secret",
            token(&with(|keys| Keys { secret_access_key: "x".repeat(40), ..keys }), world.mint()).await,
            "signature does not match",
        ),
        (
            "an unknown key",
            token(&with(|keys| Keys { access_key_id: "ASIAAAAAAAAAAAAAAAAA".to_owned(), ..keys }), world.mint()).await,
            "access key is unknown",
        ),
        (
            "another region",
            mint(|mint| Mint { region: "us-east-1", ..mint }).await,
            "credential scope is of another date, region or service",
        ),
        (
            "another service",
            good.replace("%2Frds-db%2F", "%2Frds%2F"),
            "credential scope is of another date, region or service",
        ),
        (
            "another host",
            mint(|mint| Mint { host: "127.0.0.1", ..mint }).await,
            "password is not a token for this endpoint",
        ),
        (
            "another port",
            mint(|mint| Mint { port: mint.port ^ 1, ..mint }).await,
            "password is not a token for this endpoint",
        ),
        ("another user's token", mint(|mint| Mint { user: "upload", ..mint }).await, "token is for another user"),
        ("DBUser changed", good.replace("DBUser=token", "DBUser=tokem"), "token is for another user"),
        (
            "no session token",
            token(&with(|keys| Keys { session_token: None, ..keys }), world.mint()).await,
            "session token is not the one issued with the key",
        ),
        (
            "another session's token",
            token(&world.aws_with(&other_session, None), world.mint()).await,
            "session token is not the one issued with the key",
        ),
        (
            "session token altered",
            good.replace("Security-Token=IQo", "Security-Token=IQp"),
            "session token is not the one issued with the key",
        ),
        ("life stretched", good.replace("Expires=900", "Expires=9000"), "life is not within 1 to 900 seconds"),
        ("life altered", good.replace("Expires=900", "Expires=800"), "signature does not match"),
        ("a parameter twice", format!("{good}&DBUser=token"), "duplicate parameter"),
        ("a parameter more", format!("{good}&X-Amz-More=1"), "unexpected parameter"),
        ("action in lower case", good.replace("Action=", "action="), "missing parameter"),
        ("with a scheme", format!("https://{good}"), "password is not a token for this endpoint"),
    ];
    for (what, password, reason) in rows {
        let told = world.attempt("token", &password).await.err();
        assert_eq!(told, Some(refused("token")), "{what}");
        assert_eq!(world.last_reason(), reason, "{what}");
    }
    assert!(world.attempt("token", &good).await.is_ok());
}

#[tokio::test]
async fn a_token_is_good_for_900_seconds_and_not_from_the_future() {
    let world = World::start().await;
    let aws = world.aws("token");
    let early = token(&aws, world.mint()).await;
    world.account.clock.advance(Duration::from_secs(895));
    assert!(world.attempt("token", &early).await.is_ok());
    world.account.clock.advance(Duration::from_secs(6));
    assert_eq!(world.attempt("token", &early).await.err(), Some(refused("token")));
    assert_eq!(world.last_reason(), "token has expired");
}

#[tokio::test]
async fn an_ended_session_gets_nobody_in() {
    let world = World::start().await;
    let principal = world.account.session("token", "short", None);
    let end = world.account.clock.now() + Duration::from_secs(60);
    let keys = world.account.credentials.issue(principal, Some(end));
    let token = token(&world.aws_with(&keys, None), world.mint()).await;
    assert!(world.attempt("token", &token).await.is_ok());
    world.account.clock.advance(Duration::from_secs(61));
    assert_eq!(world.attempt("token", &token).await.err(), Some(refused("token")));
    assert_eq!(world.last_reason(), "session of the key has expired");
}

#[tokio::test]
async fn the_role_needs_the_right_to_connect_to_this_resource_as_this_user() {
    let world = World::start().await;
    for (role, user, reason) in [
        ("nothing", "token", "because no identity-based policy allows the rds-db:connect action"),
        ("upload", "token", "because no identity-based policy allows the rds-db:connect action"),
        ("elsewhere", "token", "because no identity-based policy allows the rds-db:connect action"),
        ("migrate", "portcullis_owner", "because no identity-based policy allows the rds-db:connect action"),
        ("everybody", "stranger", "user is not a member of rds_iam"),
        ("everybody", "nobody_here", "user is not a member of rds_iam"),
        ("everybody", "postgres", "user is not a member of rds_iam"),
        ("everybody", "rds_iam", "user is not a member of rds_iam"),
    ] {
        let token = token(&world.aws(role), Mint { user, ..world.mint() }).await;
        assert_eq!(world.attempt(user, &token).await.err(), Some(refused(user)), "{role} as {user}");
        assert_eq!(world.last_reason(), reason, "{role} as {user}");
    }
}

#[tokio::test]
async fn a_token_for_one_endpoint_is_none_for_the_other() {
    let world = World::start().await;
    let aws = world.aws("token");
    let token = token(&aws, Mint { port: world.direct_port, ..world.mint() }).await;
    assert_eq!(world.attempt("token", &token).await.err(), Some(refused("token")));
}

#[tokio::test]
async fn without_tls_nothing_is_asked() {
    let world = World::start().await;
    let config = {
        let mut config = world.config("token", "x");
        config.ssl_mode(SslMode::Disable);
        config
    };
    let told = world.try_config(&config).await.expect_err("refused");
    assert!(told.ends_with("This RDS Proxy requires TLS connections."), "{told}");
    assert!(world.proxy.trail().is_empty());
}

#[tokio::test]
async fn what_the_proxy_does_not_support_is_refused_before_the_password() {
    let world = World::start().await;
    let token = token(&world.aws("token"), world.mint()).await;
    let mut options = world.config("token", &token);
    options.options("-c search_path=x");
    let told = world.try_config(&options).await.expect_err("refused");
    assert!(told.contains("command-line options"), "{told}");
    assert!(world.attempt("", &token).await.is_err());
    assert!(world.proxy.trail().is_empty());
}

#[tokio::test]
async fn bytes_sent_in_clear_after_the_ssl_request_end_the_connection() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(("127.0.0.1", world.proxy_port)).await.expect("connects");
    let mut bytes = 8_u32.to_be_bytes().to_vec();
    bytes.extend(80_877_103_u32.to_be_bytes());
    bytes.extend(b"Q\0\0\0\x05\0");
    stream.write_all(&bytes).await.expect("writes");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"S"), "{answer:?}");
    assert!(!answer.windows(3).any(|part| part == b"R\0\0"), "no question was answered");
}

#[tokio::test]
async fn gss_encryption_is_declined_once_and_tls_follows() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(("127.0.0.1", world.proxy_port)).await.expect("connects");
    for (code, answer) in [(80_877_104_u32, b'N'), (80_877_103, b'S')] {
        let mut request = 8_u32.to_be_bytes().to_vec();
        request.extend(code.to_be_bytes());
        stream.write_all(&request).await.expect("writes");
        assert_eq!(stream.read_u8().await.expect("answers"), answer);
    }
}

#[tokio::test]
async fn what_would_pin_a_session_is_listed() {
    let world = World::start().await;
    let token = token(&world.aws("token"), world.mint()).await;
    let client = Arc::new(world.attempt("token", &token).await.expect("gets in"));
    client.query_typed("SELECT 1", &[]).await.expect("answers");
    assert_eq!(world.proxy.pins(), Vec::<String>::new());
    client.batch_execute("SET application_name = 'x'").await.expect("answers");
    client.prepare("SELECT 2").await.expect("answers");
    assert_eq!(world.proxy.pins(), ["token: setting: SET application_name = 'x'", "token: named statement: SELECT 2"]);
}

#[tokio::test]
async fn a_connection_is_borrowed_for_a_transaction_and_who_waits_too_long_is_told_in_the_proxys_words() {
    const WORDS: (&str, &str) = ("08000", "Timed-out waiting to acquire database connection.");
    let world = World::start().await;
    let token = token(&world.aws("token"), world.mint()).await;
    let enter = async || world.attempt("token", &token).await.expect("gets in");
    world.proxy.lend(Some(1), Duration::from_millis(100));
    let (holder, idle, patient) = (enter().await, enter().await, enter().await);
    // Many clients, one connection: nobody is in anybody's way.
    for client in [&holder, &idle, &patient] {
        client.batch_execute("SELECT 1").await.expect("one after the other");
    }
    holder.batch_execute("BEGIN; SELECT 1").await.expect("borrows it");
    let refused = idle.batch_execute("SELECT 1").await.expect_err("there is none");
    let told = refused.as_db_error().expect("the proxy's own error");
    assert_eq!((told.code().code(), told.message()), WORDS);
    assert_eq!((told.detail(), told.hint(), told.where_()), (None, None, None));
    holder.batch_execute("SELECT 2").await.expect("its own, all the time");
    let (waited, _) = tokio::join!(patient.query_typed("SELECT 1", &[]), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        holder.batch_execute("COMMIT").await.expect("gives it back");
    });
    waited.expect("in time");
    // Who hangs up in a transaction gives it back as well.
    holder.batch_execute("BEGIN").await.expect("borrows it");
    drop(holder);
    let mut got = patient.batch_execute("SELECT 1").await;
    for _ in 0..20 {
        if got.is_ok() {
            break;
        }
        got = enter().await.batch_execute("SELECT 1").await;
    }
    got.expect("it is free again");
}

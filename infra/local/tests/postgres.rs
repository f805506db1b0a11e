//! The server that the stack finds, makes and stops.

#![allow(clippy::expect_used, reason = "a test whose world cannot be made has failed")]

use std::path::PathBuf;
use std::time::Instant;

use local::postgres::{Binaries, Postgres};
use tokio_postgres::NoTls;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directory")
}

/// `PORTCULLIS_TEST_POSTGRES` points the same tests at another installation.
#[expect(clippy::disallowed_methods, reason = "a test parameter")]
fn binaries() -> Option<PathBuf> {
    std::env::var("PORTCULLIS_TEST_POSTGRES").ok().map(PathBuf::from)
}

async fn scalar(url: &str, statement: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the superuser gets in");
    let driver = tokio::spawn(connection);
    let rows = client.simple_query(statement).await.expect("statement runs");
    drop(client);
    driver.await.expect("driver ends").expect("connection closes cleanly");
    rows.iter()
        .find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .expect("one value")
}

#[tokio::test]
async fn a_fresh_server_is_seeded_as_rds_is_and_listens_on_its_socket_only() {
    let dir = scratch();
    let started = Instant::now();
    let postgres = Postgres::start(dir.path(), binaries()).await.expect("starts");
    println!("version {} ready from nothing in {:?}", postgres.version(), started.elapsed());
    let url = postgres.admin_url();
    let grant = "SELECT admin_option FROM pg_auth_members
                 WHERE roleid = 'rds_iam'::regrole AND member = 'portcullis_owner'::regrole";
    for (question, answer) in [
        ("SHOW listen_addresses", ""),
        ("SHOW fsync", "off"),
        ("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'portcullis'", "portcullis_owner"),
        ("SELECT rolsuper OR rolbypassrls OR rolcreatedb FROM pg_roles WHERE rolname = 'portcullis_owner'", "f"),
        ("SELECT rolcreaterole AND rolcanlogin FROM pg_roles WHERE rolname = 'portcullis_owner'", "t"),
        ("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'rds_iam'", "f"),
        (grant, "t"),
    ] {
        assert_eq!(scalar(&url, question).await, answer, "{question}");
    }
}

#[tokio::test]
async fn the_owner_creates_logins_and_hands_rds_iam_on() {
    let dir = scratch();
    let postgres = Postgres::start(dir.path(), binaries()).await.expect("starts");
    let url = postgres.admin_url().replace("postgres@", "portcullis_owner@");
    let statements = "CREATE ROLE token LOGIN NOINHERIT; GRANT rds_iam TO token; CREATE SCHEMA api;
                      GRANT USAGE ON SCHEMA api TO token; ALTER ROLE token SET statement_timeout = '5s'; SELECT 'done'";
    scalar(&url, statements).await;
    assert_eq!(scalar(&url, "SELECT pg_has_role('token', 'rds_iam', 'MEMBER')").await, "t");
}

#[tokio::test]
async fn a_kept_data_directory_starts_faster_and_holds_the_same() {
    let (first, second, cache) = (scratch(), scratch(), scratch());
    let kept = cache.path().join("cache");
    drop(Postgres::start_cached(first.path(), binaries(), &kept).await.expect("starts and keeps"));
    let started = Instant::now();
    let postgres = Postgres::start_cached(second.path(), binaries(), &kept).await.expect("starts from the copy");
    println!("version {} ready from a copy in {:?}", postgres.version(), started.elapsed());
    let owner = scalar(&postgres.admin_url(), "SELECT rolname FROM pg_roles WHERE rolname = 'portcullis_owner'").await;
    assert_eq!(owner, "portcullis_owner");
}

#[tokio::test]
async fn a_damaged_cache_is_replaced() {
    let (dir, cache) = (scratch(), scratch());
    let kept = cache.path().join("cache");
    drop(Postgres::start_cached(dir.path(), binaries(), &kept).await.expect("starts and keeps"));
    let data = std::fs::read_dir(&kept).expect("cache").flatten().next().expect("one version").path();
    std::fs::remove_file(data.join("PG_VERSION")).expect("damage");
    let again = Postgres::start_cached(dir.path(), binaries(), &kept).await.expect("starts all the same");
    assert!(data.join("PG_VERSION").is_file());
    drop(again);
}

#[tokio::test]
async fn prepared_data_is_kept_under_the_statements_that_made_it() {
    let (first, second, third, cache) = (scratch(), scratch(), scratch(), scratch());
    let start = async |dir: &tempfile::TempDir, statements: &[&str]| {
        Postgres::start_prepared(dir.path(), binaries(), cache.path(), statements).await
    };
    let count = "SELECT count(*) FROM pg_tables WHERE tableowner = 'portcullis_owner'";
    let (one, two) = ("CREATE TABLE one (n int)", "CREATE TABLE two (n int)");
    for (dir, statements, tables) in [(&first, &[one][..], "1"), (&second, &[one, two], "2"), (&third, &[one], "1")] {
        let postgres = start(dir, statements).await.expect("starts");
        assert_eq!(scalar(&postgres.admin_url(), count).await, tables);
    }
    let kept = || std::fs::read_dir(cache.path()).expect("cache").count();
    assert_eq!(kept(), 2);
    let fault = start(&first, &[one, "CREATE TABLE"]).await.map(|_| ()).expect_err("a statement that fails is told");
    assert!(fault.to_string().contains("CREATE TABLE"), "{fault}");
    assert_eq!(kept(), 2, "and nothing is kept of it");
}

#[tokio::test]
async fn what_is_kept_after_a_step_is_there_for_the_same_step_only() {
    let (first, second, third, cache) = (scratch(), scratch(), scratch(), scratch());
    let after = |step: &'static str, dir: &std::path::Path| {
        let (dir, cache) = (dir.to_owned(), cache.path().to_owned());
        async move { Postgres::start_after(step, &dir, binaries(), &cache).await.expect("starts") }
    };
    let (mut postgres, there) = after("one", first.path()).await;
    assert!(!there);
    scalar(&postgres.admin_url(), "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7); SELECT 1").await;
    postgres.keep(cache.path(), "one").await.expect("keeps and goes on");
    assert_eq!(scalar(&postgres.admin_url(), "SELECT n FROM kept").await, "7");
    let (mut other, there) = after("two", second.path()).await;
    assert!(!there);
    assert_eq!(scalar(&other.admin_url(), "SELECT to_regclass('kept') IS NULL").await, "t");
    let (again, there) = after("one", third.path()).await;
    assert!(there);
    assert_eq!(scalar(&again.admin_url(), "SELECT n FROM kept").await, "7");
    // A later step takes the place of an earlier one: what no build wants any more does not stay.
    other.keep(cache.path(), "two").await.expect("keeps");
    drop(again);
    assert!(!after("one", third.path()).await.1);
}

#[tokio::test]
async fn saved_data_resumes_in_another_directory() {
    let (first, second, saved) = (scratch(), scratch(), scratch());
    let saved = saved.path().join("migrated");
    let mut postgres = Postgres::start(first.path(), binaries()).await.expect("starts");
    scalar(&postgres.admin_url(), "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7); SELECT 1").await;
    postgres.save(&saved).await.expect("saves and goes on");
    assert_eq!(scalar(&postgres.admin_url(), "SELECT n FROM kept").await, "7");
    let resumed = Postgres::resume(second.path(), binaries(), &saved).await.expect("resumes");
    assert_eq!(scalar(&resumed.admin_url(), "SELECT n FROM kept").await, "7");
}

#[tokio::test]
async fn dropping_it_ends_the_server() {
    let dir = scratch();
    let postgres = Postgres::start(dir.path(), binaries()).await.expect("starts");
    let socket = postgres.socket_dir().join(".s.PGSQL.5432");
    assert!(socket.exists());
    drop(postgres);
    assert!(!socket.exists(), "its end removes the socket");
}

#[tokio::test]
async fn a_long_path_falls_back_to_a_short_socket() {
    let dir = scratch();
    let long = dir.path().join("a".repeat(120));
    let postgres = Postgres::start(&long, binaries()).await.expect("starts");
    assert!(postgres.socket_dir().as_os_str().len() < 93);
    assert_eq!(scalar(&postgres.admin_url(), "SELECT 1").await, "1");
}

#[tokio::test]
async fn an_unreachable_directory_is_no_obstacle() {
    use std::os::unix::fs::PermissionsExt;
    let dir = scratch();
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).expect("directory");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("permissions");
    let postgres = Postgres::start(&closed.join("instance"), binaries()).await.expect("starts");
    assert_eq!(scalar(&postgres.admin_url(), "SELECT 1").await, "1");
}

#[test]
fn without_an_installation_the_error_says_where_it_looked() {
    let nowhere = scratch();
    // A machine with Debian's packages finds them whatever the path says.
    if let Err(error) = Binaries::find(Some(nowhere.path()), "/nonexistent/bin") {
        assert!(error.to_string().contains(&nowhere.path().display().to_string()));
    }
}

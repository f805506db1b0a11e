//! A running stack for tests, and where the checkout is.

#![allow(dead_code, unreachable_pub, reason = "every test program uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

pub mod files;

use std::path::{Path, PathBuf};

use local::clock::Clock;
use local::journey::{Answer, Api};
use local::seed::{self, Client};
use local::stack::{Options, Stack, unpacked_postgres};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Where `cargo build --workspace --bins` put the functions.
pub fn binaries() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "cargo's own setting")]
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| root().join("target"), PathBuf::from);
    let folder = target.join("debug");
    assert!(folder.join("token").is_file(), "no functions in {}: `make test` builds them first", folder.display());
    folder
}

/// A seeded stack of its own.
pub struct Running {
    pub stack: Stack,
    pub clients: Vec<Client>,
    pub api: Api,
    /// What a clock needs that the functions follow.
    clock: Option<TempDir>,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A stack with these parameters of the template in place of its own.
    pub async fn start_with(parameters: &[(&str, &str)]) -> Self {
        Self::start_at(Clock::system(), parameters).await
    }

    /// The same on a clock that can be put ahead, and the functions' with it: nobody waits for what is old after a while.
    pub async fn start_ahead(parameters: &[(&str, &str)]) -> Self {
        let run = root().join(".local/run");
        std::fs::create_dir_all(&run).unwrap();
        let folder = tempfile::Builder::new().prefix("clock-").tempdir_in(run).unwrap();
        let clock = Clock::of_processes_too(folder.path()).unwrap();
        Self { clock: Some(folder), ..Self::start_at(clock, parameters).await }
    }

    /// The same with another clock.
    pub async fn start_at(clock: Clock, parameters: &[(&str, &str)]) -> Self {
        Self::start_of(binaries(), clock, parameters).await
    }

    /// The same with other programs.
    pub async fn start_from(binaries: PathBuf, parameters: &[(&str, &str)]) -> Self {
        Self::start_of(binaries, Clock::system(), parameters).await
    }

    async fn start_of(binaries: PathBuf, clock: Clock, parameters: &[(&str, &str)]) -> Self {
        let home = root().join(".local");
        let options = Options {
            binaries,
            postgres: unpacked_postgres(&root()),
            root: home.join("run"),
            cache: Some(home.join("cache")),
            clock,
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            own: None,
        };
        let stack = Stack::start(options).await.expect("the stack starts");
        let clients = seed::seed(&stack).await.expect("the seed is taken");
        let api = Api::new(&stack.places.gateway, stack.ca.client_config().unwrap(), stack.account.clock.clone());
        Self { stack, clients, api, clock: None }
    }

    pub fn client(&self, id: &str) -> &Client {
        self.clients.iter().find(|client| client.client_id == id).unwrap()
    }

    pub async fn token(&self, id: &str) -> String {
        self.api.token(self.client(id), None).await.unwrap()
    }

    pub async fn encrypt(&self, token: &str, plaintexts: &[&str]) -> Answer {
        let items: Vec<Value> = plaintexts.iter().enumerate().map(|(row, text)| plain(row, text)).collect();
        self.api.call("POST", "/fields/encrypt", Some(token), Some(&json!({"items": items}))).await.unwrap()
    }

    /// A connection that no row-level security holds for.
    pub async fn owner(&self) -> tokio_postgres::Client {
        let url = self.stack.postgres.admin_url();
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// One count of a table, by the database's owner.
    pub async fn count(&self, from: &str) -> i64 {
        let url = self.stack.postgres.admin_url();
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let rows = client.query_typed(&format!("SELECT count(*) FROM {from}"), &[]).await.unwrap();
        connection.abort();
        rows[0].get(0)
    }
}

/// Sends a signed form as a browser does, the file last.
pub async fn send_form(api: &Api, upload: &Value, content: &[u8]) -> Answer {
    let mut body = Vec::new();
    for (name, value) in upload["fields"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let head = format!("--b1\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(head.into_bytes());
    }
    body.extend(b"--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n");
    body.extend([content, b"\r\n--b1--\r\n"].concat());
    let headers = [("content-type", "multipart/form-data; boundary=b1")];
    api.send("POST", upload["url"].as_str().unwrap(), &headers, body.into()).await.unwrap()
}

fn plain(row: usize, text: &str) -> Value {
    use base64::Engine as _;
    let plaintext = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    json!({"ref": row.to_string(), "table": "users", "column": "email", "row": row.to_string(), "plaintext": plaintext})
}

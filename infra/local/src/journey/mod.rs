//! The whole journey through the running gate, and every refusal on the way: real binaries, real input, and an outside
//! client that knows addresses only.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON value reads as null, and the file is a constant"
)]

mod behind;
mod bound;
mod client;
mod devices;
mod people;
mod report;

use std::io;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

pub use self::client::{Answer, Api, seconds};
pub use self::report::{Report, Row};
use crate::seed::{Client, act};
use crate::stack::{AUDIENCE, Stack};

/// The traveller: an API client, the seeded clients, and the stack for what only its owner can look at.
pub struct Journey<'a> {
    stack: &'a Stack,
    clients: &'a [Client],
    api: Api,
    report: Report,
}

const FILE: &[u8] = b"%PDF-1.7\nThe quick brown fox jumps over the lazy dog.\n";
const FILE_NAME: &str = "\u{dc}berblick \"Q3\".pdf";
const DISPOSITION: &str = "attachment; filename=\"_berblick _Q3_.pdf\"; filename*=UTF-8''%C3%9Cberblick%20_Q3_.pdf";
const EMAIL: &str = "ada@example.com";
/// How long a revocation may take to reach the gate. Its copy lives for five seconds.
const PATIENCE: Duration = Duration::from_secs(8);

impl<'a> Journey<'a> {
    /// A journey through `stack`; with `print` each step is shown as it is made.
    ///
    /// # Errors
    /// When the stack's authority is unusable.
    pub fn new(stack: &'a Stack, clients: &'a [Client], print: bool) -> io::Result<Self> {
        let api = Api::new(&stack.places.gateway, stack.ca.client_config()?, stack.account.clock.clone());
        Ok(Self { stack, clients, api, report: Report::new(print) })
    }

    /// Travels; the report holds a row for each step.
    ///
    /// # Errors
    /// When a step leaves nothing for the next one to go on with.
    pub async fn travel(mut self) -> io::Result<Report> {
        let backend = self.client("acme-backend")?;
        self.know_a_device().await?;
        self.report.part("tokens");
        let token = self.tokens(backend).await?;
        self.report.part("files");
        let (file, upload) = self.files(&token).await?;
        self.report.part("fields");
        let record = self.fields(&token).await?;
        self.search(&token, &record).await?;
        self.report.part("refusals: tokens");
        self.token_refusals(backend, &token).await?;
        self.report.part("tokens that are bound to a key");
        self.bound_tokens().await?;
        self.report.part("people");
        self.people().await?;
        self.report.part("an application behind the gate");
        self.behind().await?;
        self.report.part("refusals: tenants and scopes");
        self.tenant_refusals(&file, &record).await?;
        self.report.part("refusals: ciphertexts");
        self.record_refusals(&token, &record).await?;
        self.report.part("refusals: signed URLs");
        self.url_refusals(&token, &upload).await?;
        self.report.part("the end of a file");
        self.endings(&token, &file).await?;
        self.report.part("refusals: revocation");
        self.revocation(backend).await?;
        self.report.part("what was left alone");
        let stray = self.stack.lambda.stray_calls();
        self.report.check("no function called anything outside its stack", stray.is_empty(), "none", stray.join(", "));
        let pins = self.stack.proxy.pins();
        self.report.check("no statement pinned a proxy connection", pins.is_empty(), "none", pins.join(", "));
        Ok(self.report)
    }

    fn client(&self, id: &str) -> io::Result<&'a Client> {
        let found = self.clients.iter().find(|client| client.client_id == id);
        found.ok_or_else(|| io::Error::other(format!("no client {id}")))
    }

    async fn tokens(&mut self, backend: &Client) -> io::Result<String> {
        let metadata = self.api.call("GET", "/.well-known/oauth-authorization-server", None, None).await?;
        let issuer = metadata.json()["issuer"].as_str().unwrap_or_default().to_owned();
        self.report.row("metadata names the issuer (RFC 8414)", self.stack.places.gateway.clone(), issuer);
        let keys = self.api.call("GET", "/.well-known/jwks.json", None, None).await?.json();
        let kids = keys["keys"].as_array().map_or(0, Vec::len);
        self.report.row("the key set holds the active key and a spare", "2 keys", format!("{kids} keys"));
        let answer = self.api.token_with(&self.api.assertion(backend)?, None).await?;
        self.report.row("acme-backend proves itself with its key and gets a token", "200", answer.outcome());
        let body = answer.json();
        self.report.row("which lives for five minutes", "300", body["expires_in"].to_string());
        let token = body["access_token"].as_str().unwrap_or_default().to_owned();
        let answer = self.api.call("GET", "/files/0198e1a0-0000-7000-8000-000000000000", Some(&token), None).await?;
        self.report.row("and passes the gate: a file that does not exist", "404 not_found", answer.outcome());
        Ok(token)
    }

    /// Uploads, waits for the event, downloads; answers the file's id and the upload's URL and headers.
    async fn files(&mut self, token: &str) -> io::Result<(String, Value)> {
        let plan = self.create(token, FILE).await?;
        self.report.row("a pending file and one exact signed PUT", "201", plan.outcome());
        let plan = plan.json();
        let (id, upload) = (plan["id"].as_str().unwrap_or_default().to_owned(), plan["upload"].clone());
        let answer = self.api.call("GET", &format!("/files/{id}/content"), Some(token), None).await?;
        self.report.row("before the upload nobody reads it", "409 file_not_ready", answer.outcome());
        let answer = self.put(&upload, FILE, &[]).await?;
        self.report.row("the client uploads straight to the bucket", "200", answer.outcome());
        self.stack.events.idle().await;
        let status = self.settled(token, &id).await?;
        self.report.row("the object-created event arrives and completes the file", "clean", status);
        let answer = self.api.call("GET", &format!("/files/{id}/content"), Some(token), None).await?;
        self.report.row("content answers with a redirect nobody may keep", "302 no-store", {
            format!("{} {}", answer.status, answer.header("cache-control"))
        });
        let download = self.api.send("GET", answer.header("location"), &[], Bytes::new()).await?;
        self.report.check("the download is the upload, byte for byte", download.body == FILE, "identical", {
            format!("{} {} bytes", download.outcome(), download.body.len())
        });
        self.report.row(
            "and can only be saved, under a safe name",
            DISPOSITION,
            download.header("content-disposition"),
        );
        self.receipt(token, &id).await?;
        Ok((id, upload))
    }

    /// Who uploaded the file, checked with nothing but the published keys.
    async fn receipt(&mut self, token: &str, id: &str) -> io::Result<()> {
        let answer = self.api.call("GET", &format!("/files/{id}/receipt"), Some(token), None).await?;
        let keys = self.api.call("GET", "/.well-known/receipts/jwks.json", None, None).await?.json();
        let receipt = answer.json()["receipt"].as_str().unwrap_or_default().to_owned();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let point = |name: &str| decode(keys["keys"][0][name].as_str().unwrap_or_default());
        let key = [vec![4], point("x"), point("y")].concat();
        let (signed, signature) = receipt.rsplit_once('.').unwrap_or_default();
        let verified =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(signed.as_bytes(), &decode(signature));
        self.report.check("a receipt holds under keys of its own", verified.is_ok(), "verified", answer.outcome());
        let said = claims(&receipt);
        let checksum = STANDARD.encode(digest(&SHA256, FILE));
        self.report.row("and says who uploaded what", format!("acme-backend {checksum}"), {
            let value = said["file"]["checksum"]["value"].as_str().unwrap_or_default();
            format!("{} {value}", said["sub"].as_str().unwrap_or_default())
        });
        Ok(())
    }

    async fn create(&self, token: &str, content: &[u8]) -> io::Result<Answer> {
        let body = json!({"name": FILE_NAME, "content_type": "application/pdf", "size": content.len(),
            "sha256": STANDARD.encode(digest(&SHA256, content)), "mode": "put"});
        self.api.call("POST", "/files", Some(token), Some(&body)).await
    }

    async fn put(&self, upload: &Value, content: &[u8], more: &[(&str, &str)]) -> io::Result<Answer> {
        let url = upload["url"].as_str().unwrap_or_default();
        let headers = upload["headers"].as_object().cloned().unwrap_or_default();
        let mut headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())).collect();
        headers.extend_from_slice(more);
        self.api.send("PUT", url, &headers, Bytes::copy_from_slice(content)).await
    }

    /// The file's status once it is no longer pending, or after five seconds.
    async fn settled(&self, token: &str, id: &str) -> io::Result<String> {
        let since = Instant::now();
        loop {
            let answer = self.api.call("GET", &format!("/files/{id}"), Some(token), None).await?.json();
            let status = answer["status"].as_str().unwrap_or_default().to_owned();
            if status != "pending" || since.elapsed() > Duration::from_secs(5) {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Encrypts an e-mail address into the application's own table and back; answers the record.
    async fn fields(&mut self, token: &str) -> io::Result<String> {
        let plaintext = URL_SAFE_NO_PAD.encode(EMAIL);
        let answer = self.encrypt(token, json!([item("users", "email", "42", "plaintext", &plaintext)])).await?;
        self.report.row("a field is encrypted for one table, column and row", "200", answer.outcome());
        let record = answer.json().pointer("/items/0/record").and_then(Value::as_str).unwrap_or_default().to_owned();
        let stored = self.store(&record).await?;
        let hidden = stored.len() == 97 + EMAIL.len() && !contains(&stored, EMAIL.as_bytes());
        self.report.check("the row in Postgres is ciphertext, 97 bytes longer", hidden, "ciphertext", hex(&stored));
        self.report.remark(&format!("SELECT email FROM users: \\x{}...", hex(stored.get(..40).unwrap_or_default())));
        let items = json!([item("users", "email", "42", "record", &URL_SAFE_NO_PAD.encode(&stored))]);
        let answer = self.decrypt(token, items).await?;
        let back = answer.json().pointer("/items/0/plaintext").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.report.check("and decrypts to what it was", back == plaintext, EMAIL, answer.outcome());
        let batch: Vec<Value> =
            (0..1000).map(|row| item("users", "email", &row.to_string(), "plaintext", &plaintext)).collect();
        let before: u64 = self.stack.kms.calls().values().sum();
        let since = Instant::now();
        let answer = self.encrypt(token, Value::Array(batch)).await?;
        let millis = since.elapsed().as_millis();
        let calls = self.stack.kms.calls().values().sum::<u64>() - before;
        self.report.row("1,000 fields in one warm call", "200 and 0 KMS calls", {
            format!("{} and {calls} KMS calls", answer.outcome())
        });
        self.report.remark(&format!("in {millis} ms with a debug build"));
        Ok(record)
    }

    /// Finds a field by its blind index and asks what its record's header says.
    async fn search(&mut self, token: &str, record: &str) -> io::Result<()> {
        let globex = self.api.token(self.client("globex-backend")?, None).await?;
        let stored = self.index(token, EMAIL).await?;
        let entry = index_entry(&stored);
        self.report.check("a field is indexed for equality search", entry.len() == 3, "200, 16 bits", stored.outcome());
        let asked = self.index(token, &EMAIL.to_uppercase()).await?;
        let same = !entry.is_empty() && index_entry(&asked) == entry;
        self.report.check("the same value in other case meets it", same, entry.as_str(), index_entry(&asked));
        let other = self.index(&globex, EMAIL).await?;
        let differs = other.status == 200 && index_entry(&other) != entry;
        self.report.check("the same value of another tenant does not", differs, "another entry", other.outcome());
        let items = json!({"items": [item("users", "email", "42", "record", record)]});
        let before: u64 = self.stack.kms.calls().values().sum();
        let answer = self.api.call("POST", "/fields/inspect", Some(token), Some(&items)).await?;
        let calls = self.stack.kms.calls().values().sum::<u64>() - before;
        let said = answer.json().pointer("/items/0").cloned().unwrap_or_default();
        self.report.row(
            "a record is inspected: version, key, state, age; KMS is not asked",
            "1 active, 0 KMS calls",
            format!("{} {}, {calls} KMS calls", said["version"], said["state"].as_str().unwrap_or_default()),
        );
        let answer = self.api.call("POST", "/fields/inspect", Some(&globex), Some(&items)).await?;
        self.report.row("and is nothing to another tenant", "207 key_unavailable", item_outcome(&answer));
        Ok(())
    }

    async fn index(&self, token: &str, value: &str) -> io::Result<Answer> {
        let item = json!({"ref": "1", "table": "users", "column": "email", "value": URL_SAFE_NO_PAD.encode(value),
            "normalisation": "nfc_casefold", "bits": 16});
        self.api.call("POST", "/fields/index", Some(token), Some(&json!({"items": [item]}))).await
    }

    async fn encrypt(&self, token: &str, items: Value) -> io::Result<Answer> {
        self.api.call("POST", "/fields/encrypt", Some(token), Some(&json!({"items": items}))).await
    }

    async fn decrypt(&self, token: &str, items: Value) -> io::Result<Answer> {
        self.api.call("POST", "/fields/decrypt", Some(token), Some(&json!({"items": items}))).await
    }

    /// The application's own table, in a database that the gate knows nothing of.
    async fn store(&self, record: &str) -> io::Result<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(record).map_err(io::Error::other)?;
        let url = self.stack.postgres.admin_url();
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        let table = "CREATE TEMPORARY TABLE users (id int PRIMARY KEY, email bytea)";
        client.batch_execute(table).await.map_err(io::Error::other)?;
        let insert = "INSERT INTO users VALUES (42, $1)";
        let typed = tokio_postgres::types::Type::BYTEA;
        client.query_typed(insert, &[(&bytes, typed)]).await.map_err(io::Error::other)?;
        let rows = client.query_typed("SELECT email FROM users", &[]).await.map_err(io::Error::other)?;
        connection.abort();
        Ok(rows.first().map(|row| row.get::<_, Vec<u8>>(0)).unwrap_or_default())
    }

    async fn token_refusals(&mut self, backend: &Client, token: &str) -> io::Result<()> {
        let path = "/files/0198e1a0-0000-7000-8000-000000000000";
        let now = seconds(&self.stack.account.clock);
        let expired = self.forge(token, &json!({"iat": now - 400, "exp": now - 100})).await?;
        let long = self.forge(token, &json!({"iat": now, "exp": now + 360_000})).await?;
        let audience = self.forge(token, &json!({"aud": "https://other.example"})).await?;
        let control = self.forge(token, &json!({})).await?;
        let tampered = tamper(token, &json!({"tenant": "globex"}));
        let unsigned = without_signature(token);
        for (what, token, want) in [
            ("no token at all", None, "401 unauthorized"),
            ("an expired token, rightly signed", Some(expired.as_str()), "401 unauthorized"),
            ("a token that would live 100 hours, rightly signed", Some(&long), "401 unauthorized"),
            ("a token for another API, rightly signed", Some(&audience), "401 unauthorized"),
            ("a token with another tenant written into it", Some(&tampered), "401 unauthorized"),
            ("a token with alg none and no signature", Some(&unsigned), "401 unauthorized"),
            ("(and the same forger's unchanged copy passes)", Some(&control), "404 not_found"),
        ] {
            let answer = self.api.call("GET", path, token, None).await?;
            self.report.row(what, want, answer.outcome());
        }
        let assertion = self.api.assertion(backend)?;
        let first = self.api.token_with(&assertion, None).await?;
        self.report.row("an assertion used once", "200", first.outcome());
        let second = self.api.token_with(&assertion, None).await?;
        self.report.row("the same assertion used twice", "401 invalid_client", second.outcome());
        let reader = self.client("acme-reader")?;
        let answer = self.api.token_with(&self.api.assertion(reader)?, Some("files:write")).await?;
        self.report.row("a scope the client does not hold", "400 invalid_scope", answer.outcome());
        Ok(())
    }

    async fn tenant_refusals(&mut self, file: &str, record: &str) -> io::Result<()> {
        let globex = self.api.token(self.client("globex-backend")?, None).await?;
        let reader = self.api.token(self.client("acme-reader")?, None).await?;
        let path = format!("/files/{file}");
        let answer = self.api.call("GET", &path, Some(&globex), None).await?;
        self.report.row("another tenant asks for the file", "404 not_found", answer.outcome());
        let answer = self.api.call("GET", &path, Some(&reader), None).await?;
        self.report.row("another client of the same tenant asks for it", "404 not_found", answer.outcome());
        let answer = self.create(&reader, FILE).await?;
        self.report.row("a token without files:write creates a file", "403 forbidden", answer.outcome());
        let answer = self.decrypt(&reader, json!([item("users", "email", "42", "record", record)])).await?;
        self.report.row("a token without column scopes decrypts", "403 forbidden", answer.outcome());
        let answer = self.decrypt(&globex, json!([item("users", "email", "42", "record", record)])).await?;
        self.report.row("another tenant decrypts the record", "207 key_unavailable", item_outcome(&answer));
        Ok(())
    }

    async fn record_refusals(&mut self, token: &str, record: &str) -> io::Result<()> {
        let mut flipped = URL_SAFE_NO_PAD.decode(record).map_err(io::Error::other)?;
        if let Some(last) = flipped.last_mut() {
            *last ^= 1;
        }
        let flipped = URL_SAFE_NO_PAD.encode(flipped);
        for (what, table, column, row, record, want) in [
            ("the ciphertext moved to another row", "users", "email", "43", record, "207 decrypt_failed"),
            ("the ciphertext moved to another column", "users", "phone", "42", record, "207 decrypt_failed"),
            ("the ciphertext moved to another table", "staff", "email", "42", record, "207 decrypt_failed"),
            ("one bit of it flipped", "users", "email", "42", &flipped, "207 decrypt_failed"),
        ] {
            let answer = self.decrypt(token, json!([item(table, column, row, "record", record)])).await?;
            self.report.row(what, want, item_outcome(&answer));
        }
        let body = json!({"tenant": "globex", "items": [item("users", "email", "42", "record", record)]});
        let answer = self.api.call("POST", "/fields/decrypt", Some(token), Some(&body)).await?;
        self.report.row("a tenant named in the body", "400 malformed_request", answer.outcome());
        Ok(())
    }

    async fn url_refusals(&mut self, token: &str, used: &Value) -> io::Result<()> {
        let answer = self.put(used, FILE, &[]).await?;
        self.report.row("the same signed PUT a second time", "412 PreconditionFailed", answer.outcome());
        let plan = self.create(token, FILE).await?.json();
        let upload = plan["upload"].clone();
        let mut other = FILE.to_vec();
        other.reverse();
        let answer = self.put(&upload, &other, &[]).await?;
        self.report.row("another body of the same length", "400 BadDigest", answer.outcome());
        let answer = self.put(&upload, &FILE[1..], &[]).await?;
        self.report.row("a shorter body", "403 SignatureDoesNotMatch", answer.outcome());
        let answer = self.put(&upload, FILE, &[("x-amz-acl", "public-read")]).await?;
        self.report.row("an x-amz header nobody signed", "403 AccessDenied", answer.outcome());
        let mut elsewhere = upload.clone();
        let url = upload["url"].as_str().unwrap_or_default().replacen("/t/acme/", "/t/globex/", 1);
        elsewhere["url"] = Value::from(url);
        let answer = self.put(&elsewhere, FILE, &[]).await?;
        self.report.row("the URL turned to another tenant's prefix", "403 SignatureDoesNotMatch", answer.outcome());
        let answer = self.put(&upload, FILE, &[]).await?;
        self.report.row("(and the unchanged URL still works, once)", "200", answer.outcome());
        let body = json!({"name": "x", "content_type": "application/x-msdownload", "size": 1,
            "sha256": STANDARD.encode([0; 32]), "mode": "put"});
        let answer = self.api.call("POST", "/files", Some(token), Some(&body)).await?;
        self.report.row("a type that is not on the list", "415 unsupported_type", answer.outcome());
        Ok(())
    }

    /// A re-issued URL, a deletion, and the way back that neither leaves.
    async fn endings(&mut self, token: &str, file: &str) -> io::Result<()> {
        let bearer = Some(token);
        let plan = self.create(token, FILE).await?.json();
        let (id, first) = (plan["id"].as_str().unwrap_or_default().to_owned(), plan["upload"].clone());
        let (path, content) = (format!("/files/{id}"), format!("/files/{id}/content"));
        let again = self.api.call("POST", &format!("{path}/url"), bearer, None).await?;
        self.report.row("a pending file gets another URL", "200", again.outcome());
        let answer = self.put(&again.json()["upload"], FILE, &[]).await?;
        self.report.row("which works", "200", answer.outcome());
        self.stack.events.idle().await;
        let status = self.settled(token, &id).await?;
        self.report.row("and completes the file", "clean", status);
        let answer = self.put(&first, FILE, &[]).await?;
        self.report.row("the first URL can no longer fill it", "412 PreconditionFailed", answer.outcome());
        let answer = self.api.call("POST", &format!("{path}/url"), bearer, None).await?;
        self.report.row("nor is there another URL for it", "409 file_already_uploaded", answer.outcome());
        let globex = self.api.token(self.client("globex-backend")?, None).await?;
        let answer = self.api.call("DELETE", &path, Some(&globex), None).await?;
        self.report.row("another tenant deletes it", "404 not_found", answer.outcome());
        let answer = self.api.call("DELETE", &path, bearer, None).await?;
        self.report.row("its owner deletes it", "204", answer.outcome());
        let answer = self.api.call("GET", &content, bearer, None).await?;
        self.report.row("at once nobody reads it", "410 file_unavailable", answer.outcome());
        let answer = self.put(&first, FILE, &[]).await?;
        self.report.row("an old PUT is still shut out: the bytes hold the key", "412 PreconditionFailed", {
            answer.outcome()
        });
        let answer = self.api.call("POST", &format!("{path}/url"), bearer, None).await?;
        self.report.row("a deleted file gets no URL", "410 file_unavailable", answer.outcome());
        let answer = self.api.call("DELETE", &path, bearer, None).await?;
        self.report.row("deleting it again is no fault", "204", answer.outcome());
        let answer = self.api.call("GET", &format!("/files/{file}"), bearer, None).await?;
        self.report.row("(and the other file is where it was)", "200", answer.outcome());
        Ok(())
    }

    async fn revocation(&mut self, backend: &Client) -> io::Result<()> {
        let (token, kept) = (self.api.token(backend, None).await?, self.api.token(backend, None).await?);
        let path = "/files/0198e1a0-0000-7000-8000-000000000000";
        let before = self.api.call("GET", path, Some(&token), None).await?;
        self.report.row("a token that is about to be revoked", "404 not_found", before.outcome());
        let jti = claims(&token)["jti"].as_str().unwrap_or_default().to_owned();
        let answer =
            act(self.stack, json!({"operation": "revoke", "operator": "demo", "kind": "jti", "value": jti})).await?;
        self.report.row(
            "the operator revokes it, and nudges",
            "delivered",
            answer["nudge"].as_str().unwrap_or_default(),
        );
        self.ended(&token, path).await?;
        let answer = self.api.call("GET", path, Some(&kept), None).await?;
        self.report.row("its sister token still passes", "404 not_found", answer.outcome());
        let globex = self.client("globex-backend")?;
        let answer = self.api.about("/oauth2/introspect", backend, &kept).await?;
        let active = format!("{} {} {}", answer.json()["active"], answer.json()["client_id"], answer.json()["tenant"]);
        self.report.row("introspection tells its tenant about it", r#"true "acme-backend" "acme""#, active);
        let answer = self.api.about("/oauth2/introspect", globex, &kept).await?;
        self.report.row("and another tenant nothing", r#"{"active":false}"#, answer.json().to_string());
        let answer = self.api.about("/oauth2/revoke", globex, &kept).await?;
        let still = self.api.about("/oauth2/introspect", backend, &kept).await?;
        self.report.row("another client revokes it: the same 200, and nothing happens", "200 and true", {
            format!("{} and {}", answer.outcome(), still.json()["active"])
        });
        let answer = self.api.about("/oauth2/revoke", backend, &kept).await?;
        self.report.row("the client itself revokes it", "200", answer.outcome());
        self.ended(&kept, path).await?;
        // The token endpoint reads the revocations for itself, and its copy may be 5 s old when the gate's is not.
        let since = self.stack.account.clock.now();
        let said = loop {
            let said = self.api.about("/oauth2/introspect", backend, &kept).await?.json().to_string();
            if said == r#"{"active":false}"# || self.passed(since) > PATIENCE {
                break said;
            }
            self.moment().await;
        };
        self.report.row("and introspects as inactive", r#"{"active":false}"#, said);
        Ok(())
    }

    /// Waits until the gate refuses `token`, [`PATIENCE`] at most.
    async fn ended(&mut self, token: &str, path: &str) -> io::Result<()> {
        let since = self.stack.account.clock.now();
        let outcome = loop {
            let outcome = self.api.call("GET", path, Some(token), None).await?.outcome();
            if outcome != "404 not_found" || self.passed(since) > PATIENCE {
                break outcome;
            }
            self.moment().await;
        };
        self.report.row("it is refused within seconds", "401 unauthorized", outcome);
        self.report.remark(&format!("after {:.1} s", self.passed(since).as_secs_f64()));
        Ok(())
    }

    /// How long ago that is on the stack's clock.
    fn passed(&self, since: SystemTime) -> Duration {
        self.stack.account.clock.now().duration_since(since).unwrap_or_default()
    }

    /// Lets a moment pass before the gate is asked again. Where the functions follow the stack's clock it is put ahead by most of
    /// a second: the same copies grow as old, and nobody waits for it.
    async fn moment(&self) {
        let clock = &self.stack.account.clock;
        if clock.moves_processes() {
            clock.advance(Duration::from_millis(900));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// A copy of `token` with other claims and a right signature: what only the owner of the account can make, to show that
    /// a signature alone is not enough.
    async fn forge(&self, token: &str, changes: &Value) -> io::Result<String> {
        let (head, rest) = token.split_once('.').unwrap_or_default();
        let (body, _) = rest.split_once('.').unwrap_or_default();
        let input = format!("{head}.{}", changed(body, changes));
        let signature = self.stack.sign_as_issuer(input.as_bytes()).await?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn item(table: &str, column: &str, row: &str, name: &str, value: &str) -> Value {
    json!({"ref": row, "table": table, "column": column, "row": row, name: value})
}

fn index_entry(answer: &Answer) -> String {
    answer.json().pointer("/items/0/index/0").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn item_outcome(answer: &Answer) -> String {
    let body = answer.json();
    let code = body.pointer("/items/0/error/code").and_then(Value::as_str).unwrap_or("no error");
    format!("{} {code}", answer.status)
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    let body = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
    serde_json::from_slice(&body).unwrap_or_default()
}

fn changed(body: &str, changes: &Value) -> String {
    let body = URL_SAFE_NO_PAD.decode(body).unwrap_or_default();
    let mut claims: Value = serde_json::from_slice(&body).unwrap_or_default();
    for (name, value) in changes.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    URL_SAFE_NO_PAD.encode(claims.to_string())
}

fn tamper(token: &str, changes: &Value) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    match parts.as_slice() {
        [head, body, signature] => format!("{head}.{}.{signature}", changed(body, changes)),
        _ => String::new(),
    }
}

fn without_signature(token: &str) -> String {
    let body = token.split('.').nth(1).unwrap_or_default();
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    format!("{head}.{body}.AA")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The audience that the stack's tokens are for.
pub const fn audience() -> &'static str {
    AUDIENCE
}

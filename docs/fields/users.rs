//! Users with encrypted e-mail addresses. Needs ureq 3, jsonwebtoken 11 (feature aws_lc_rs), postgres, serde_json, base64 and uuid
//! (feature v4).

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::TlsConfig;
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BATCH: usize = 500;

/// The gate's field operations, in batches, with the token that they need.
pub struct Fields {
    http: Agent,
    gateway: String,
    client_id: String,
    key: EncodingKey,
    kid: String,
    token: Option<(String, u64)>,
}

/// What speaks HTTP: with limits, and with an answer where others have an error, because what it says is wanted.
pub fn agent(tls: TlsConfig) -> Agent {
    let limit = Some(Duration::from_secs(20));
    Agent::config_builder().tls_config(tls).timeout_global(limit).http_status_as_error(false).build().into()
}

impl Fields {
    /// `key` is PKCS #8 of a P-256 key, DER: of a PEM file, the base64 between its lines.
    pub fn new(http: Agent, gateway: &str, client_id: &str, key: &[u8], kid: &str) -> Self {
        let (gateway, client_id, kid) = (gateway.to_owned(), client_id.to_owned(), kid.to_owned());
        Self { http, gateway, client_id, key: EncodingKey::from_ec_der(key), kid, token: None }
    }

    /// Records of (row, value) pairs.
    pub fn encrypt(&mut self, fields: &[(i64, &str)]) -> Result<Vec<Vec<u8>>> {
        let item = |(row, value): &(i64, &str)| place(*row, json!({"plaintext": URL_SAFE_NO_PAD.encode(value)}));
        bytes(&self.ask("encrypt", &fields.iter().map(item).collect::<Vec<_>>(), "record")?)
    }

    /// Values of (row, record) pairs.
    pub fn decrypt(&mut self, fields: &[(i64, Vec<u8>)]) -> Result<Vec<String>> {
        let item = |(row, record): &(i64, Vec<u8>)| place(*row, json!({"record": URL_SAFE_NO_PAD.encode(record)}));
        let values = bytes(&self.ask("decrypt", &fields.iter().map(item).collect::<Vec<_>>(), "plaintext")?)?;
        values.into_iter().map(|value| Ok(String::from_utf8(value)?)).collect()
    }

    /// All entries of each value: store any one of them, search for all. How the column is indexed stands here and nowhere else.
    pub fn index(&mut self, values: &[&str]) -> Result<Vec<Vec<Vec<u8>>>> {
        let item = |value: &&str| {
            json!({"table": "users", "column": "email", "value": URL_SAFE_NO_PAD.encode(value),
                "normalisation": "nfc_casefold", "bits": 10, "partitions": 1})
        };
        let answers = self.ask("index", &values.iter().map(item).collect::<Vec<_>>(), "index")?;
        answers.iter().map(|entries| bytes(entries.as_array().map_or(&[], Vec::as_slice))).collect()
    }

    /// What each item was asked for, in order. Sends again what may succeed later, and gives up after five attempts.
    fn ask(&mut self, operation: &str, items: &[Value], member: &str) -> Result<Vec<Value>> {
        let mut done = vec![Value::Null; items.len()];
        let mut waiting: Vec<usize> = (0..items.len()).collect();
        for attempt in 0..5_u32 {
            let mut failed = Vec::new();
            for part in waiting.chunks(BATCH) {
                // The place in the list is the reference: an answer is matched by it and not by luck.
                let batch = part.iter().map(|at| {
                    let mut item = items[*at].clone();
                    item["ref"] = json!(at.to_string());
                    item
                });
                let body = json!({"items": batch.collect::<Vec<_>>()});
                let bearer = format!("Bearer {}", self.bearer()?);
                let request =
                    self.http.post(format!("{}/fields/{operation}", self.gateway)).header("authorization", bearer);
                let mut answer = request.content_type("application/json").send(body.to_string())?;
                match answer.status().as_u16() {
                    429 | 503 => failed.extend_from_slice(part),
                    200 | 207 => {
                        let said: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
                        for item in said["items"].as_array().into_iter().flatten() {
                            let at: usize = item["ref"].as_str().unwrap_or_default().parse()?;
                            match (item["ok"] == true, item["error"]["retryable"] == true) {
                                (true, _) => done[at] = item[member].clone(),
                                (false, true) => failed.push(at),
                                (false, false) => {
                                    return Err(item["error"]["code"].as_str().unwrap_or("failed").into());
                                }
                            }
                        }
                    }
                    status => return Err(format!("the gate answered {status}").into()),
                }
            }
            if failed.is_empty() {
                return Ok(done);
            }
            waiting = failed;
            // Longer each time, and not for everybody the same.
            let random = u64::from(Uuid::new_v4().as_fields().0 % 500);
            sleep(Duration::from_millis(2_u64.pow(attempt) * (500 + random)));
        }
        Err("unavailable".into())
    }

    /// An access token, asked for again half a minute before it ends.
    fn bearer(&mut self) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        if let Some((token, until)) = &self.token
            && now < *until
        {
            return Ok(token.clone());
        }
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        let claims = json!({"iss": self.client_id, "sub": self.client_id, "aud": self.gateway,
            "jti": Uuid::new_v4().to_string(), "iat": now, "exp": now + 60});
        let assertion = encode(&header, &claims, &self.key)?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        let mut answer = self.http.post(format!("{}/oauth2/token", self.gateway)).send_form(form)?;
        let said: Value = serde_json::from_str(&answer.body_mut().read_to_string()?)?;
        let token = said["access_token"].as_str().ok_or_else(|| format!("no token: {}", said["error"]))?.to_owned();
        self.token = Some((token.clone(), now + said["expires_in"].as_u64().unwrap_or(30).saturating_sub(30)));
        Ok(token)
    }
}

fn place(row: i64, mut item: Value) -> Value {
    (item["table"], item["column"], item["row"]) = (json!("users"), json!("email"), json!(row.to_string()));
    item
}

fn bytes(texts: &[Value]) -> Result<Vec<Vec<u8>>> {
    texts.iter().map(|text| Ok(URL_SAFE_NO_PAD.decode(text.as_str().unwrap_or_default())?)).collect()
}

/// The columns of one address, of its entries any one.
fn sealed(fields: &mut Fields, row: i64, email: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let record = fields.encrypt(&[(row, email)])?.remove(0);
    let mut entries = fields.index(&[email])?.remove(0);
    let any = usize::from(Uuid::new_v4().as_fields().1) % entries.len();
    Ok((record, entries.swap_remove(any)))
}

/// A new user. The row has its number before it is written: the record is bound to it.
pub fn create(database: &mut postgres::Client, fields: &mut Fields, name: &str, email: &str) -> Result<i64> {
    let row: i64 = database.query_one("SELECT nextval(pg_get_serial_sequence('users', 'id'))", &[])?.get(0);
    let (record, entry) = sealed(fields, row, email)?;
    let insert = "INSERT INTO users (id, name, email_sealed, email_index) VALUES ($1, $2, $3, $4)";
    database.execute(insert, &[&row, &name, &record, &entry])?;
    Ok(row)
}

/// Another address.
pub fn change(database: &mut postgres::Client, fields: &mut Fields, row: i64, email: &str) -> Result<()> {
    let (record, entry) = sealed(fields, row, email)?;
    let update = "UPDATE users SET email_sealed = $1, email_index = $2 WHERE id = $3";
    database.execute(update, &[&record, &entry, &row])?;
    Ok(())
}

/// The address of a user.
pub fn email(database: &mut postgres::Client, fields: &mut Fields, row: i64) -> Result<String> {
    let record: Vec<u8> = database.query_one("SELECT email_sealed FROM users WHERE id = $1", &[&row])?.get(0);
    Ok(fields.decrypt(&[(row, record)])?.remove(0))
}

/// The users with this address. Entries match more than they mean: what was found is decrypted and compared.
pub fn find(database: &mut postgres::Client, fields: &mut Fields, email: &str) -> Result<Vec<i64>> {
    let entries = fields.index(&[email])?.remove(0);
    let rows = database.query("SELECT id, email_sealed FROM users WHERE email_index = ANY ($1)", &[&entries])?;
    let found: Vec<(i64, Vec<u8>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let emails = fields.decrypt(&found)?;
    let same = |there: &str| there.to_lowercase() == email.to_lowercase();
    Ok(found.iter().zip(&emails).filter(|(_, there)| same(there)).map(|((row, _), _)| *row).collect())
}

//! Users with encrypted e-mail addresses. Needs reqwest (features blocking, json, form), jsonwebtoken 10 (feature aws_lc_rs), postgres, rand,
//! serde_json, base64 and uuid (feature v4).

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::StatusCode;
use reqwest::blocking::Client;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BATCH: usize = 500;

/// The gate's field operations, in batches, with the token that they need.
pub struct Fields {
    pub gateway: String,
    pub client_id: String,
    pub key: EncodingKey,
    pub kid: String,
    pub http: Client,
    token: Option<(String, u64)>,
}

impl Fields {
    /// `key_pem` is PKCS #8 of a P-256 key.
    pub fn new(gateway: &str, client_id: &str, key_pem: &[u8], kid: &str) -> Result<Self> {
        let (gateway, client_id, kid) = (gateway.to_owned(), client_id.to_owned(), kid.to_owned());
        let http = Client::builder().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { gateway, client_id, key: EncodingKey::from_ec_pem(key_pem)?, kid, http, token: None })
    }

    /// Records of (row, value) pairs.
    pub fn encrypt(&mut self, fields: &[(i64, &str)]) -> Result<Vec<Vec<u8>>> {
        let item = |(row, value): &(i64, &str)| place(*row, json!({"plaintext": URL_SAFE_NO_PAD.encode(value)}));
        bytes(self.ask("encrypt", fields.iter().map(item).collect(), "record")?)
    }

    /// Values of (row, record) pairs.
    pub fn decrypt(&mut self, fields: &[(i64, Vec<u8>)]) -> Result<Vec<String>> {
        let item = |(row, record): &(i64, Vec<u8>)| place(*row, json!({"record": URL_SAFE_NO_PAD.encode(record)}));
        let values = bytes(self.ask("decrypt", fields.iter().map(item).collect(), "plaintext")?)?;
        values.into_iter().map(|value| Ok(String::from_utf8(value)?)).collect()
    }

    /// All entries of each value: store any one of them, search for all. How the column is indexed stands here and nowhere else.
    pub fn index(&mut self, values: &[&str]) -> Result<Vec<Vec<Vec<u8>>>> {
        let item = |value: &&str| {
            json!({"table": "users", "column": "email", "value": URL_SAFE_NO_PAD.encode(value),
                "normalisation": "nfc_casefold", "bits": 10, "partitions": 1})
        };
        let answers = self.ask("index", values.iter().map(item).collect(), "index")?;
        answers.into_iter().map(|entries| bytes(entries.as_array().cloned().unwrap_or_default())).collect()
    }

    /// What each item was asked for, in order. Sends again what may succeed later, and gives up after five attempts.
    fn ask(&mut self, operation: &str, items: Vec<Value>, member: &str) -> Result<Vec<Value>> {
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
                let request = self.http.post(format!("{}/fields/{operation}", self.gateway)).json(&body);
                let answer = request.bearer_auth(self.bearer()?).send()?;
                match answer.status() {
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => failed.extend_from_slice(part),
                    StatusCode::OK | StatusCode::MULTI_STATUS => {
                        for item in answer.json::<Value>()?["items"].as_array().into_iter().flatten() {
                            let at: usize = item["ref"].as_str().unwrap_or_default().parse()?;
                            match (item["ok"] == true, item["error"]["retryable"] == true) {
                                (true, _) => done[at] = item[member].clone(),
                                (false, true) => failed.push(at),
                                (false, false) => return Err(item["error"]["code"].to_string().into()),
                            }
                        }
                    }
                    status => return Err(status.to_string().into()),
                }
            }
            if failed.is_empty() {
                return Ok(done);
            }
            waiting = failed;
            sleep(Duration::from_millis(2_u64.pow(attempt) * rand::random_range(500..1_000)));
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
            "jti": uuid::Uuid::new_v4(), "iat": now, "exp": now + 60});
        let assertion = encode(&header, &claims, &self.key)?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ];
        let answer = self.http.post(format!("{}/oauth2/token", self.gateway)).form(&form).send()?.error_for_status()?;
        let answer: Value = answer.json()?;
        let token = answer["access_token"].as_str().ok_or("no token")?.to_owned();
        self.token = Some((token.clone(), now + answer["expires_in"].as_u64().unwrap_or(30) - 30));
        Ok(token)
    }
}

fn place(row: i64, mut item: Value) -> Value {
    (item["table"], item["column"], item["row"]) = (json!("users"), json!("email"), json!(row.to_string()));
    item
}

fn bytes(texts: Vec<Value>) -> Result<Vec<Vec<u8>>> {
    texts.iter().map(|text| Ok(URL_SAFE_NO_PAD.decode(text.as_str().unwrap_or_default())?)).collect()
}

/// A new user. The row has its number before it is written: the record is bound to it.
pub fn create(database: &mut postgres::Client, fields: &mut Fields, name: &str, email: &str) -> Result<i64> {
    let row: i64 = database.query_one("SELECT nextval(pg_get_serial_sequence('users', 'id'))", &[])?.get(0);
    let record = fields.encrypt(&[(row, email)])?.remove(0);
    let entries = fields.index(&[email])?.remove(0);
    let entry = &entries[rand::random_range(0..entries.len())];
    let insert = "INSERT INTO users (id, name, email_sealed, email_index) VALUES ($1, $2, $3, $4)";
    database.execute(insert, &[&row, &name, &record, entry])?;
    Ok(row)
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

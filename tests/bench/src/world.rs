//! What the measured functions talk to and are asked: a seeded stack, tokens, events.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use local::clock::Clock;
use local::journey::{Api, claims, seconds};
use local::seed::{self, Client};
use local::stack::{ENV, Options, Stack, UNTHROTTLED, sibling_binaries, unpacked_postgres};
use serde_json::{Map, Value, json};
use shared::digest::sha256;

/// Longer than any run.
const LIFE: Duration = Duration::from_secs(3600);
const CONTENT: &[u8] = b"a file of the bench\n";
/// What parts of the large file have, in bytes.
const PART: u64 = 8 << 20;
/// As many parts as a file may have.
const PARTS: u64 = 10_000;
/// As many as one call may name.
const NAMED: u64 = 500;
/// The plaintext of one field: 64 bytes.
const FIELD: &[u8; 64] = b"Ada Lovelace, 12 St James's Square, London SW1Y 4JH, +4420794600";

/// The seeded stack and what events are made of.
pub(crate) struct World {
    pub(crate) stack: Stack,
    clients: Vec<Client>,
    api: Api,
    /// A token as the token function issued it.
    header: String,
    claims: Value,
    signing_key: String,
    modulus: String,
    exponent: String,
    file: String,
    large: String,
}

impl World {
    /// Starts and seeds a stack around the binaries beside this program, with these parameters of the template, and puts one file into it.
    pub(crate) async fn open(checkout: &Path, parameters: &[(&str, &str)]) -> io::Result<Self> {
        let home = checkout.join(".local");
        let stack = Stack::start(Options {
            binaries: sibling_binaries()?,
            postgres: unpacked_postgres(checkout),
            root: home.join("run"),
            cache: Some(home.join("cache")),
            clock: Clock::system(),
            parameters: UNTHROTTLED
                .iter()
                .chain(parameters)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            own: None,
        })
        .await?;
        let clients = seed::seed(&stack).await?;
        let api = Api::new(&stack.places.gateway, stack.ca.client_config()?, stack.account.clock.clone());
        let token = api.token(client(&clients)?, None).await?;
        let header = token.split('.').next().unwrap_or_default().to_owned();
        let key = public_key(&stack, &header).await?;
        let part = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        let (modulus, exponent) = (part("n"), part("e"));
        let (claims, signing_key) = (claims(&token), stack.signing_key().await?);
        let file = upload(&api, &stack, &token).await?;
        let large = api.call("POST", "/files", Some(&token), Some(&large_plan())).await?.json();
        let large = large["id"].as_str().unwrap_or_default().to_owned();
        Ok(Self { stack, clients, api, header, claims, signing_key, modulus, exponent, file, large })
    }

    /// What its tokens are signed with (RFC 7518 §3.1).
    pub(crate) fn algorithm(&self) -> String {
        let header = URL_SAFE_NO_PAD.decode(&self.header).unwrap_or_default();
        let header: Value = serde_json::from_slice(&header).unwrap_or_default();
        header["alg"].as_str().unwrap_or_default().to_owned()
    }

    /// What a process of this deployment sees.
    pub(crate) fn environment(&self, deployment: &str) -> io::Result<(PathBuf, BTreeMap<String, String>)> {
        let function = function(deployment);
        let found = self.stack.lambda.binary(&function).zip(self.stack.lambda.environment(&function, "", LIFE));
        found.ok_or_else(|| io::Error::other(format!("no deployment {deployment}")))
    }

    /// The same for a measuring program of the bench, which needs the runtime's own variables and the public key only.
    pub(crate) fn plain_environment(&self, program: &str) -> io::Result<(PathBuf, BTreeMap<String, String>)> {
        let (_, mut environment) = self.environment("authorizer")?;
        environment.retain(|name, _| name.starts_with("AWS_LAMBDA_") || name.starts_with('_') || name == "PATH");
        environment.insert("BENCH_RSA_N".to_owned(), self.modulus.clone());
        environment.insert("BENCH_RSA_E".to_owned(), self.exponent.clone());
        Ok((sibling_binaries()?.join(program), environment))
    }

    /// The same for a peer, which is told besides whose tokens it takes and who may ask for one.
    pub(crate) fn peer_environment(&self) -> io::Result<BTreeMap<String, String>> {
        let (_, mut environment) = self.plain_environment("")?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&self.header).unwrap_or_default())?;
        let client = client(&self.clients)?;
        let told = [
            ("BENCH_RSA_KID", text(&header["kid"])),
            ("BENCH_ISSUER", text(&self.claims["iss"])),
            ("BENCH_AUDIENCE", text(&self.claims["aud"])),
            ("BENCH_CLIENT", client.client_id.to_owned()),
            ("BENCH_CLIENT_JWK", client.jwk().to_string()),
        ];
        environment.extend(told.map(|(name, value)| (name.to_owned(), value)));
        Ok(environment)
    }

    /// A token of its own, as the token function issues them: other id and times, signed by the same key.
    pub(crate) fn token(&self) -> io::Result<String> {
        self.sign(self.claims.clone())
    }

    /// The same of a client that nobody has heard of.
    pub(crate) fn newcomer(&self) -> io::Result<String> {
        let mut claims = self.claims.clone();
        let client = format!("bench-{}", unique());
        claims["sub"] = client.as_str().into();
        claims["client_id"] = client.into();
        self.sign(claims)
    }

    fn sign(&self, mut claims: Value) -> io::Result<String> {
        let now = seconds(&self.stack.account.clock);
        claims["iat"] = now.into();
        claims["exp"] = (now + 300).into();
        claims["jti"] = unique().into();
        let input = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let request = json!({"KeyId": self.signing_key, "Message": STANDARD.encode(sha256(input.as_bytes())),
            "MessageType": "DIGEST", "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"});
        let operator = self.stack.account.operator();
        let answer = self.stack.kms.perform(&operator, None, "Sign", &request);
        let answer = answer.map_err(|error| io::Error::other(format!("{error:?}")))?;
        let signature = answer["Signature"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What the gateway asks the authorizer about `GET /files/{id}`.
    pub(crate) fn authorizer_event(&self, token: &str) -> Vec<u8> {
        let path = format!("/files/{}", self.file);
        let mut event = self.common("GET", "/files/{id}", &path, Some(token), "application/json");
        event["type"] = "REQUEST".into();
        event["methodArn"] = format!("arn:aws:execute-api:us-east-1:111122223333:local/v1/GET{path}").into();
        event.to_string().into_bytes()
    }

    /// A request for a fresh token.
    pub(crate) fn token_event(&self) -> io::Result<Vec<u8>> {
        let assertion = self.api.assertion(client(&self.clients)?)?;
        let body = format!(
            "grant_type=client_credentials&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}"
        );
        let kind = "application/x-www-form-urlencoded";
        let mut event = self.common("POST", "/oauth2/token", "/oauth2/token", None, kind);
        event["body"] = body.into();
        Ok(event.to_string().into_bytes())
    }

    /// A request for a new file.
    pub(crate) fn upload_event(&self, token: &str) -> Vec<u8> {
        self.proxy_event("POST", "/files", "/files", token, &plan())
    }

    /// A request for a new file of unknown size, by a form.
    pub(crate) fn form_event(&self, token: &str) -> Vec<u8> {
        let body = json!({"name": "bench.txt", "content_type": "text/plain", "max_size": 1 << 20, "mode": "post"});
        self.proxy_event("POST", "/files", "/files", token, &body)
    }

    /// A request for a new file of as many parts as there can be.
    pub(crate) fn plan_event(&self, token: &str) -> Vec<u8> {
        self.proxy_event("POST", "/files", "/files", token, &large_plan())
    }

    /// A request for the URLs of as many parts as one call may name.
    pub(crate) fn parts_event(&self, token: &str) -> Vec<u8> {
        let digest = |part: u64| STANDARD.encode(sha256(&part.to_be_bytes()));
        let parts: Vec<Value> =
            (1..=NAMED).map(|part| json!({"part": part, "size": PART, "sha256": digest(part)})).collect();
        let path = format!("/files/{}/parts", self.large);
        self.proxy_event("POST", "/files/{id}/parts", &path, token, &json!({"parts": parts}))
    }

    /// A request for what is known of the file, or for its content.
    pub(crate) fn download_event(&self, token: &str, resource: &str) -> Vec<u8> {
        let path = resource.replace("{id}", &self.file);
        self.proxy_event("GET", resource, &path, token, &Value::Null)
    }

    /// A request to encrypt `count` fields of 64 bytes.
    pub(crate) fn encrypt_event(&self, token: &str, count: usize) -> Vec<u8> {
        let plaintext = URL_SAFE_NO_PAD.encode(FIELD);
        let items: Vec<Value> = (0..count).map(|row| item(row, "plaintext", &plaintext)).collect();
        self.proxy_event("POST", "/fields/encrypt", "/fields/encrypt", token, &json!({"items": items}))
    }

    /// A request to decrypt what an encrypt call answered.
    pub(crate) fn decrypt_event(&self, token: &str, encrypted: &[u8]) -> io::Result<Vec<u8>> {
        let answer: Value = serde_json::from_slice(encrypted)?;
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default())?;
        let records = body["items"].as_array().into_iter().flatten().enumerate();
        let items: Vec<Value> =
            records.map(|(row, one)| item(row, "record", one["record"].as_str().unwrap_or_default())).collect();
        Ok(self.proxy_event("POST", "/fields/decrypt", "/fields/decrypt", token, &json!({"items": items})))
    }

    fn proxy_event(&self, method: &str, resource: &str, path: &str, token: &str, body: &Value) -> Vec<u8> {
        let claims = claims(token);
        let mut event = self.common(method, resource, path, Some(token), "application/json");
        if !body.is_null() {
            event["body"] = body.to_string().into();
        }
        event["requestContext"]["authorizer"] = json!({"principalId": claims["sub"], "integrationLatency": 1,
            "jti": claims["jti"], "sub": claims["sub"], "tenant": claims["tenant"], "client_id": claims["client_id"],
            "scope": claims["scope"], "exp": claims["exp"].to_string(), "reason": "scope"});
        event.to_string().into_bytes()
    }

    /// A request as it comes through Cloudflare and API Gateway.
    fn common(&self, method: &str, resource: &str, path: &str, token: Option<&str>, kind: &str) -> Value {
        let mut headers = vec![
            ("Accept", "*/*".to_owned()),
            ("Accept-Encoding", "gzip, br".to_owned()),
            ("CDN-Loop", "cloudflare; loops=1".to_owned()),
            ("CF-Connecting-IP", "198.51.100.7".to_owned()),
            ("CF-IPCountry", "PT".to_owned()),
            ("CF-Ray", "8c1f2d3e4f5a6b7c-LIS".to_owned()),
            ("Content-Type", kind.to_owned()),
            ("Host", "api.example.com".to_owned()),
            ("User-Agent", "acme-backend/1.4 (linux)".to_owned()),
            ("X-Amzn-Trace-Id", "Root=1-5f84c7a1-0a1b2c3d4e5f60718293a4b5".to_owned()),
            ("X-Forwarded-For", "198.51.100.7, 10.0.3.17".to_owned()),
            ("X-Forwarded-Port", "443".to_owned()),
            ("X-Forwarded-Proto", "https".to_owned()),
        ];
        headers.extend(token.map(|token| ("Authorization", format!("Bearer {token}"))));
        let single: Map<String, Value> = headers.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
        let multi: Map<String, Value> = headers.iter().map(|(name, value)| ((*name).into(), json!([value]))).collect();
        let id = path.split('/').nth(2).filter(|_| resource.contains("{id}"));
        json!({
            "resource": resource, "path": path, "httpMethod": method, "headers": single, "multiValueHeaders": multi,
            "queryStringParameters": null, "multiValueQueryStringParameters": null,
            "pathParameters": id.map(|id| json!({"id": id})), "stageVariables": null, "body": null,
            "isBase64Encoded": false,
            "requestContext": {
                "accountId": "111122223333", "apiId": "local", "deploymentId": "local1",
                "domainName": "api.example.com", "domainPrefix": "api", "extendedRequestId": "MTI3ZjhkYjItYT=",
                "httpMethod": method, "path": format!("/v1{path}"), "protocol": "HTTP/1.1",
                "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef", "requestTime": "21/Nov/2026:12:00:00 +0000",
                "requestTimeEpoch": 1_795_262_400_000_u64, "resourceId": "a1b2c3", "resourcePath": resource,
                "stage": "v1",
                "identity": {"accessKey": null, "accountId": null, "caller": null, "cognitoAuthenticationProvider": null,
                    "cognitoAuthenticationType": null, "cognitoIdentityId": null, "cognitoIdentityPoolId": null,
                    "principalOrgId": null, "sourceIp": "10.0.3.17", "user": null,
                    "userAgent": "acme-backend/1.4 (linux)", "userArn": null},
            },
        })
    }
}

/// The deployed name.
pub(crate) fn function(deployment: &str) -> String {
    format!("portcullis-{ENV}-{deployment}")
}

fn client(clients: &[Client]) -> io::Result<&Client> {
    let found = clients.iter().find(|client| client.client_id == "acme-backend");
    found.ok_or_else(|| io::Error::other("the seed has no acme-backend"))
}

fn item(row: usize, name: &str, value: &str) -> Value {
    json!({"ref": row.to_string(), "table": "users", "column": "email", "row": row.to_string(), name: value})
}

/// The text, or the first text of a list.
fn text(value: &Value) -> String {
    value.as_str().or_else(|| value[0].as_str()).unwrap_or_default().to_owned()
}

fn plan() -> Value {
    json!({"name": "bench.txt", "content_type": "text/plain", "size": CONTENT.len(),
        "sha256": STANDARD.encode(sha256(CONTENT)), "mode": "put"})
}

fn large_plan() -> Value {
    json!({"name": "bench.zip", "content_type": "application/zip", "size": PART * PARTS, "part_size": PART, "mode": "multipart"})
}

async fn public_key(stack: &Stack, header: &str) -> io::Result<Value> {
    let header = URL_SAFE_NO_PAD.decode(header).map_err(io::Error::other)?;
    let header: Value = serde_json::from_slice(&header)?;
    let keys = stack.s3.look(stack.places.trust_bucket, "trust/keys.json").await.unwrap_or_default();
    let keys: Value = serde_json::from_slice(&keys)?;
    let mut keys = keys.pointer("/body/keys").and_then(Value::as_array).into_iter().flatten();
    keys.find(|key| key["kid"] == header["kid"]).cloned().ok_or_else(|| io::Error::other("the key is not published"))
}

/// Uploads one file and waits until it is readable.
async fn upload(api: &Api, stack: &Stack, token: &str) -> io::Result<String> {
    let created = api.call("POST", "/files", Some(token), Some(&plan())).await?.json();
    let id = created["id"].as_str().unwrap_or_default().to_owned();
    let headers = created["upload"]["headers"].as_object().cloned().unwrap_or_default();
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())).collect();
    let url = created["upload"]["url"].as_str().unwrap_or_default();
    let put = api.send("PUT", url, &headers, CONTENT.into()).await?;
    stack.events.idle().await;
    for _ in 0..100 {
        let answer = api.call("GET", &format!("/files/{id}"), Some(token), None).await?.json();
        if answer["status"] == "clean" {
            return Ok(id);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(io::Error::other(format!("the file does not become readable; the upload answered {}", put.outcome())))
}

#[expect(clippy::disallowed_methods, reason = "an id for a token of the bench")]
fn unique() -> String {
    uuid::Uuid::now_v7().to_string()
}

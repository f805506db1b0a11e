//! What a fresh stack is given: two tenants and their clients, registered through `admin` as an operator would, and the
//! file that tells outside clients where everything is.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::access;
use crate::lambda::DEAD_LETTERS;
use crate::stack::{AUDIENCE, DATABASE, ENV, REGION, Stack};

/// A seeded client: who it is, and the key it signs its assertions with.
pub struct Client {
    /// The registered id.
    pub client_id: &'static str,
    /// Its tenant.
    pub tenant: &'static str,
    /// Its scopes.
    pub scopes: Vec<&'static str>,
    /// Whether its tokens must be bound by DPoP.
    pub dpop: bool,
    /// The id of its key.
    pub kid: String,
    /// Its private key, PKCS #8 PEM.
    pub private_key_file: PathBuf,
    public: Value,
    pair: EcdsaKeyPair,
}

impl Client {
    fn make(
        client_id: &'static str,
        tenant: &'static str,
        scopes: &[&'static str],
        dpop: bool,
        directory: &Path,
    ) -> io::Result<(Self, Value)> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(io::Error::other)?;
        let der = pair.to_pkcs8v1().map_err(io::Error::other)?;
        let private_key_file = directory.join(format!("{client_id}.pem"));
        write_private(&private_key_file, &pem(der.as_ref()))?;
        let kid = format!("{client_id}-1");
        let point = pair.public_key().as_ref();
        let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..65).unwrap_or_default());
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)});
        let public =
            json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)});
        let client = Self { client_id, tenant, scopes: scopes.to_vec(), dpop, kid, private_key_file, public, pair };
        Ok((client, jwk))
    }

    /// A compact JWS of these claims under the client's key.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, header: &Value, claims: &Value) -> io::Result<String> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes()).map_err(io::Error::other)?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The client's key as it is registered.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.public.clone();
        if let Some(members) = jwk.as_object_mut() {
            members
                .extend([("alg", "ES256"), ("use", "sig"), ("kid", &self.kid)].map(|(n, v)| (n.to_owned(), json!(v))));
        }
        jwk
    }

    /// The thumbprint of the client's key (RFC 7638).
    pub fn thumbprint(&self) -> String {
        let member = |name: &str| self.public.get(name).and_then(Value::as_str).unwrap_or_default();
        let (x, y) = (member("x"), member("y"));
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
    }

    /// A proof of possession of the client's key (RFC 9449 §4.2).
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn proof(&self, claims: &Value) -> io::Result<String> {
        self.sign(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.public}), claims)
    }
}

/// Registers the tenants `acme` and `globex`, their clients, and Cloudflare Access as an issuer.
///
/// # Errors
/// When `admin` refuses or fails.
pub async fn seed(stack: &Stack) -> io::Result<Vec<Client>> {
    let directory = stack.places.directory.join("clients");
    std::fs::create_dir_all(&directory)?;
    let everything = [
        "files:read",
        "files:write",
        "fields:encrypt:*.*",
        "fields:decrypt:*.*",
        "fields:index:*.*",
        "fields:inspect:*.*",
        "fields:rewrap:*.*",
        "fields:export:*.*",
        "fields:import:*.*",
    ];
    let made = [
        Client::make("acme-backend", "acme", &everything, false, &directory)?,
        Client::make("acme-reader", "acme", &["files:read"], false, &directory)?,
        Client::make("globex-backend", "globex", &everything, false, &directory)?,
        Client::make("acme-bound", "acme", &["files:read"], true, &directory)?,
        Client::make("acme-legacy", "acme", &["app"], false, &directory)?,
    ];
    for tenant in ["acme", "globex"] {
        act(stack, json!({"operation": "tenant.put", "operator": "seed", "tenant": tenant})).await?;
    }
    let mut clients = Vec::new();
    for (client, jwk) in made {
        act(
            stack,
            json!({"operation": "client.put", "operator": "seed", "tenant": client.tenant,
                "client_id": client.client_id, "jwks": {"keys": [jwk]}, "scopes": client.scopes, "dpop": client.dpop}),
        )
        .await?;
        clients.push(client);
    }
    seed_access(stack).await?;
    seed_people(stack).await?;
    Ok(clients)
}

/// The id of Cloudflare Access among the issuers.
pub const ACCESS: &str = "access";

/// Registers the team domain as an issuer and mirrors its keys.
async fn seed_access(stack: &Stack) -> io::Result<()> {
    let access = &stack.access;
    act(
        stack,
        json!({"operation": "issuer.put", "operator": "seed", "id": ACCESS, "kind": "cloudflare-access",
            "issuer": access.team_domain(), "audience": access::AUDIENCE, "algorithms": ["RS256"],
            "jwks_url": access.certs_url()}),
    )
    .await?;
    // The nudge starts `trust` as well; waiting for an answer is what makes the stack ready.
    stack.invoke("trust", &json!({})).await?;
    stack.invoke("issuer-keys", &json!({})).await?;
    Ok(())
}

/// The public client that people of `acme` come with.
pub const PAGE: &str = "acme-web";
/// Whoever Access vouches for with an address of this domain belongs to `acme`.
pub const DOMAIN: &str = "example.com";

/// Registers a page, and the people who may use it.
async fn seed_people(stack: &Stack) -> io::Result<()> {
    let scopes = ["files:read", "files:write"];
    act(
        stack,
        json!({"operation": "client.put", "operator": "seed", "tenant": "acme", "client_id": PAGE,
            "token_endpoint_auth_method": "none", "scopes": scopes}),
    )
    .await?;
    act(
        stack,
        json!({"operation": "identity.put", "operator": "seed", "tenant": "acme", "issuer": ACCESS, "match": "domain",
            "value": DOMAIN, "groups": ["staff"], "scopes": scopes}),
    )
    .await?;
    Ok(())
}

/// One operator's act; a refusal is an error.
///
/// # Errors
/// When `admin` refuses or fails.
pub async fn act(stack: &Stack, act: Value) -> io::Result<Value> {
    let answer = stack.invoke("admin", &act).await?;
    if answer.get("error").is_some() {
        return Err(io::Error::other(format!("admin refused: {answer}")));
    }
    Ok(answer)
}

/// Writes `portcullis.json` for outside clients, readable by its owner only.
///
/// # Errors
/// When the file cannot be written.
pub fn write_manifest(stack: &Stack, clients: &[Client], path: &Path) -> io::Result<()> {
    let places = &stack.places;
    let users = [
        "token",
        "upload",
        "download",
        "data_key_encrypt",
        "data_key_decrypt",
        "data_key_maintain",
        "data_key_shred",
        "object_events",
        "trust",
        "admin",
    ];
    let clients: Vec<Value> = clients
        .iter()
        .map(|client| {
            json!({"client_id": client.client_id, "tenant": client.tenant, "scopes": client.scopes, "alg": "ES256",
                "kid": client.kid, "dpop": client.dpop, "private_key_file": client.private_key_file})
        })
        .collect();
    let access_key_file = places.directory.join("access.pem");
    write_private(&access_key_file, &pem(&stack.access.signing_key()))?;
    let access = json!({"team_domain": stack.access.team_domain(), "audience": access::AUDIENCE, "kid": stack.access.kid(),
        "alg": "RS256", "signing_key_file": access_key_file, "client_id": PAGE, "email_domain": DOMAIN});
    let manifest = json!({
        "gateway": places.gateway, "issuer": places.gateway, "audience": AUDIENCE, "region": REGION,
        "env": ENV, "ca_file": places.ca_file, "dead_letters": places.directory.join(DEAD_LETTERS), "application": places.application,
        "aws": {"access_key_id": stack.operator.access_key_id, "secret_access_key": stack.operator.secret_access_key,
            "endpoints": places.endpoints},
        "postgres": {"admin_url": stack.postgres.admin_url(), "database": DATABASE,
            "proxy": {"host": "localhost", "port": places.proxy_port, "users": users}},
        "bucket": places.object_bucket, "trust_bucket": places.trust_bucket,
        "kms_keys": {"data": places.data_key, "bucket": places.bucket_key, "receipts": places.receipt_key,
            "parameters": places.signing_key, "import": places.import_key},
        "access": access,
        "clients": clients,
    });
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    write_private(path, &serde_json::to_string_pretty(&manifest).unwrap_or_default())
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = (0..body.len()).step_by(64).filter_map(|at| body.get(at..body.len().min(at + 64))).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

/// Writes a file that only its owner may read, also where one with wider rights was there before.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

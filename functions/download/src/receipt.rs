//! Receipts: who uploaded what, when and from which device, signed so that anybody can check it later without asking us.
//!
//! A receipt is a compact JWS (RFC 7515, ES256) under a key of its own, which is published apart from the keys of tokens: no
//! receipt is a token, and whoever trusts the one set trusts nothing of the other. It says only what never changes; whether
//! the file is still there, or was found clean, is not in it.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::audit::{Line, Refusal};
use shared::boot::Routes;
use shared::clock::{Clock, Timestamp};
use shared::encoding::base64url;
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::http::{Request, Response};
use shared::jwk::PublicJwk;
use shared::jwks::Algorithm;
use shared::object::{FileId, Presign, SignerSessions};
use shared::port::{Database, Fault, FaultKind, ObjectReader, Parameter, PublicKeys, Signer};
use shared::problem::{Code, Problem};
use tokio::sync::OnceCell;

use crate::{Download, OF_TENANT, closed};

/// The media type of a receipt, which no token has.
const TYPE: &str = "portcullis-receipt+jwt";

/// The key that receipts are signed with: never a key of tokens.
pub struct Receipts<K> {
    keys: K,
    /// How the signer addresses it.
    key: String,
    public: OnceCell<PublicJwk>,
}

impl<K: Signer + PublicKeys> Receipts<K> {
    /// Asks nothing yet.
    pub fn new(keys: K, key: String) -> Receipts<K> {
        Receipts { keys, key, public: OnceCell::new() }
    }

    /// The public half, asked for once: a key never changes under its name.
    async fn public(&self) -> Result<&PublicJwk, Fault> {
        let read = async || {
            let der = self.keys.public_der(&self.key).await?;
            PublicJwk::from_spki(&der, Algorithm::Es256)
                .map_err(|malformed| Fault::new(FaultKind::Invalid, "kms", "GetPublicKey").caused_by(malformed))
        };
        self.public.get_or_try_init(read).await
    }

    /// These claims as a receipt.
    async fn sign(&self, claims: &Value) -> Result<String, Fault> {
        let header = json!({ "alg": Algorithm::Es256.as_str(), "typ": TYPE, "kid": self.public().await?.kid });
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let input = format!("{}.{}", part(&header), part(claims));
        let signature = self.keys.sign(&self.key, Algorithm::Es256, input.as_bytes()).await?;
        Ok(format!("{input}.{}", base64url(&signature)))
    }
}

impl<R, D, S, P, K, C, E> Download<R, D, S, P, K, C, E>
where
    R: ObjectReader,
    D: Database,
    S: SignerSessions,
    P: Presign,
    K: Signer + PublicKeys,
    C: Clock,
    E: Entropy,
{
    /// `GET /files/{id}/receipt` for a caller who was admitted.
    pub async fn receipt(&self, caller: &Caller, request: &Request) -> Result<Response, Problem> {
        let id = request.path_parameters.get("id").and_then(|text| FileId::parse(text).ok());
        let line = Line::new(Self::FUNCTION, "files:receipt")
            .request(&request.request_id)
            .who(caller.tenant.as_str(), &caller.subject, &caller.jti)
            .text("file", &id.map(|id| id.to_string()).unwrap_or_default());
        match self.decide_receipt(caller, id).await {
            Ok(response) => {
                line.decision("allow", "signed").emit();
                Ok(response)
            }
            Err(refusal) => Err(refusal.told(line)),
        }
    }

    async fn decide_receipt(&self, caller: &Caller, id: Option<FileId>) -> Result<Response, Refusal> {
        let id = id.ok_or(Code::NotFound)?;
        let parameters = vec![
            Parameter::Text(caller.tenant.as_str().to_owned()),
            Parameter::Text(caller.subject.clone()),
            Parameter::Uuid(id.uuid()),
            Parameter::Bool(caller.scopes.allows(OF_TENANT)),
        ];
        let answer = self.database.call("api.file_receipt", parameters).await.map_err(Refusal::fault)?;
        let known = match answer.get("outcome").and_then(Value::as_str) {
            Some("found") => answer.get("receipt").and_then(|known| Known::deserialize(known).ok()),
            Some("closed") => return Err(closed(&answer)),
            Some("unknown") => return Err(Code::NotFound.into()),
            _ => None,
        };
        let known = known.ok_or(Code::Internal)?;
        let claims = known.claims(&self.base, caller.tenant.as_str(), id, self.clock.now()).ok_or(Code::Internal)?;
        let receipt = self.receipts.sign(&claims).await.map_err(Refusal::fault)?;
        Ok(Response::json(200, &json!({ "receipt": receipt })))
    }

    /// `GET /.well-known/receipts/jwks.json`: what a receipt is checked with, for anybody.
    pub async fn receipt_keys(&self, request: &Request) -> Result<Response, Problem> {
        match self.receipts.public().await {
            Ok(key) => {
                let keys = json!({ "keys": [key.members] });
                Ok(Response::json(200, &keys).header("cache-control", "public, max-age=300"))
            }
            Err(fault) => {
                let line = Line::new(Self::FUNCTION, "receipts:keys").request(&request.request_id);
                Err(Refusal::fault(fault).told(line))
            }
        }
    }
}

/// What is known for good of a file.
#[derive(Deserialize)]
struct Known {
    subject: String,
    made_by: Maker,
    name: String,
    content_type: String,
    mode: String,
    part_size: Option<i64>,
    size: Option<i64>,
    sha256: Option<String>,
    created_ms: i64,
    received_ms: Option<i64>,
    version_id: Option<String>,
}

/// The token by which it was made; nothing of a file that is older than receipts.
#[derive(Deserialize)]
struct Maker {
    client_id: Option<String>,
    jti: Option<String>,
    device: Option<Value>,
}

impl Known {
    /// The claims; none where the row lacks what every file has whose object is there.
    fn claims(self, issuer: &str, tenant: &str, id: FileId, now: Timestamp) -> Option<Value> {
        let mut checksum = Map::new();
        checksum.insert("algorithm".to_owned(), json!("SHA-256"));
        // S3's words: the digest of an object in parts is that of its parts' digests, so their size must be known too.
        if self.mode == "multipart" {
            checksum.insert("type".to_owned(), json!("COMPOSITE"));
            checksum.insert("part_size".to_owned(), json!(self.part_size?));
        } else {
            checksum.insert("type".to_owned(), json!("FULL_OBJECT"));
        }
        checksum.insert("value".to_owned(), json!(self.sha256?));
        let mut claims = json!({
            "iss": issuer, "iat": now.seconds(), "tenant": tenant, "sub": self.subject,
            "file": {
                "id": id.to_string(), "name": self.name, "content_type": self.content_type, "size": self.size?,
                "checksum": checksum, "version": self.version_id?,
                "created_at": self.created_ms.div_euclid(1000), "received_at": self.received_ms?.div_euclid(1000),
            },
        });
        let made = [
            ("client_id", self.made_by.client_id.map(Value::from)),
            ("token", self.made_by.jti.map(Value::from)),
            ("device", self.made_by.device.filter(Value::is_object)),
        ];
        let members = claims.as_object_mut()?;
        members.extend(made.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Some(claims)
    }
}

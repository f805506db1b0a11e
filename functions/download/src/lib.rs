//! Serves file metadata, one-object URLs and receipts, by id only, to those who may read the file, and tickets that open one once.
//!
//! Somebody else's file and a file that never was get the same answer. A URL is signed for the one version that was checked.

mod config;
mod receipt;
mod tickets;

pub use config::Config;
pub use receipt::Receipts;

use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::{Line, Refusal};
use shared::boot::{Invocation, Routes};
use shared::clock::{Clock, Timestamp};
use shared::details::FileAction;
use shared::entropy::Entropy;
use shared::gate::{Caller, Gate};
use shared::http::{Headers, Request, Response};
use shared::name::Tenant;
use shared::object::{
    ContentType, FileId, FileName, FileStatus, ObjectKey, Presign, ReadTerms, Scan, Sha256Digest, SignedRequest,
    SignerSessions, UrlLife, VersionId,
};
use shared::port::{Database, ObjectReader, Parameter, PublicKeys, Signer};
use shared::problem::{Code, Problem};

/// Any file of the tenant, not only one's own.
const OF_TENANT: &str = "files:read:tenant";

/// The function over its ports.
pub struct Download<R, D, S, P, K, C, E> {
    /// The external base URL, for what is told to callers.
    pub base: String,
    /// Who may come in.
    pub gate: Gate<R, C>,
    /// Files.
    pub database: D,
    /// Download signer sessions.
    pub sessions: S,
    /// Signs for the object bucket.
    pub presign: P,
    /// Signs receipts.
    pub receipts: Receipts<K>,
    /// The time.
    pub clock: C,
    /// Fresh tickets.
    pub entropy: E,
    /// Whether files must have been scanned.
    pub scan: Scan,
}

impl<R, D, S, P, K, C, E> Routes for Download<R, D, S, P, K, C, E>
where
    R: ObjectReader,
    D: Database,
    S: SignerSessions,
    P: Presign,
    K: Signer + PublicKeys,
    C: Clock,
    E: Entropy,
{
    const FUNCTION: &'static str = "download";

    async fn answer(&self, request: &Request, _: &Invocation) -> Result<Response, Problem> {
        let (method, resource) = (request.method.as_str(), request.resource.as_str());
        if (method, resource) == ("GET", "/tickets/{ticket}") {
            return self.open_ticket(request).await;
        }
        if (method, resource) == ("GET", "/.well-known/receipts/jwks.json") {
            return self.receipt_keys(request).await;
        }
        let asked = match (method, resource) {
            ("GET", "/files/{id}") => Asked::Read(Route::Metadata),
            ("GET", "/files/{id}/content") => Asked::Read(Route::Content),
            ("GET", "/files/{id}/receipt") => Asked::Receipt,
            ("POST", "/files/{id}/tickets") => Asked::Ticket,
            _ => return Err(Code::NotFound.into()),
        };
        let caller = self.gate.admit_file(request, &["files:read", OF_TENANT], FileAction::Read).await?;
        match asked {
            Asked::Read(route) => self.read(&caller, request, route).await,
            Asked::Receipt => self.receipt(&caller, request).await,
            Asked::Ticket => self.make_ticket(&caller, request).await,
        }
    }
}

enum Asked {
    Read(Route),
    Receipt,
    Ticket,
}

/// What is asked about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// `GET /files/{id}`
    Metadata,
    /// `GET /files/{id}/content`
    Content,
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
    /// Answers a caller who was admitted.
    pub async fn read(&self, caller: &Caller, request: &Request, route: Route) -> Result<Response, Problem> {
        let id = request.path_parameters.get("id").and_then(|text| FileId::parse(text).ok());
        let line = Line::new(Self::FUNCTION, "files:read")
            .request(&request.request_id)
            .who(caller.tenant.as_str(), &caller.subject, &caller.jti)
            .text("route", &request.resource)
            .text("file", &id.map(|id| id.to_string()).unwrap_or_default());
        match self.decide(caller, request, route, id).await {
            Ok(response) => {
                line.decision("allow", "ok").emit();
                Ok(response)
            }
            Err(refusal) => Err(refusal.told(line)),
        }
    }

    async fn decide(
        &self,
        caller: &Caller,
        request: &Request,
        route: Route,
        id: Option<FileId>,
    ) -> Result<Response, Refusal> {
        let id = id.ok_or(Code::NotFound)?;
        let file = self.find(caller, id).await?;
        match route {
            Route::Metadata => Ok(Response::json(200, &file.metadata())),
            Route::Content => self.content(caller, request, id, &file).await,
        }
    }

    async fn find(&self, caller: &Caller, id: FileId) -> Result<File, Refusal> {
        let parameters = vec![
            Parameter::Text(caller.tenant.as_str().to_owned()),
            Parameter::Text(caller.subject.clone()),
            Parameter::Uuid(id.uuid()),
            Parameter::Bool(caller.scopes.allows(OF_TENANT)),
        ];
        let answer = self.database.call("api.file_for_download", parameters).await.map_err(Refusal::fault)?;
        File::read(id, answer)?.ok_or(Code::NotFound.into())
    }

    async fn content(&self, caller: &Caller, request: &Request, id: FileId, file: &File) -> Result<Response, Refusal> {
        let (signed, expires_at) = self.signed(&caller.tenant, id, file, UrlLife::LONGEST).await?;
        let url = signed.url.expose();
        Ok(if wants_json(&request.headers) {
            Response::json(200, &json!({ "url": url, "expires_at": expires_at.seconds() }))
                .header("referrer-policy", "no-referrer")
        } else {
            Response::redirect(url.to_owned())
        })
    }

    /// A URL for the one version that may be served, and when it dies.
    async fn signed(
        &self,
        tenant: &Tenant,
        id: FileId,
        file: &File,
        asked: u32,
    ) -> Result<(SignedRequest, Timestamp), Refusal> {
        let version = file.servable(self.scan)?;
        let key = ObjectKey::new(tenant.clone(), id);
        let session = self.sessions.session(&key).await.map_err(Refusal::signer)?;
        let now = self.clock.now();
        let life = UrlLife::within(asked, session.expires_at, now).map_err(|_| Code::SignerUnavailable)?;
        let terms = ReadTerms {
            key,
            version: version.clone(),
            content_type: file.content_type.served(),
            disposition: file.name.disposition(),
        };
        let signed = self.presign.get(&session, &terms, now, life).await.map_err(Refusal::fault)?;
        Ok((signed, life.ends(now)))
    }
}

/// A file of the caller's, as the database holds it.
struct File {
    id: FileId,
    name: FileName,
    content_type: ContentType,
    /// Declared, or found once there is an object.
    size: Option<i64>,
    /// The same, as S3 writes it.
    sha256: Option<String>,
    status: FileStatus,
    version: Option<VersionId>,
    scanned: bool,
    created_ms: i64,
}

impl File {
    fn read(id: FileId, answer: Value) -> Result<Option<File>, Refusal> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", content = "file", rename_all = "snake_case")]
        enum Answer {
            Found(Row),
            Unknown,
        }
        #[derive(Deserialize)]
        struct Row {
            name: String,
            content_type: String,
            size: Option<i64>,
            sha256: Option<String>,
            actual_sha256: Option<String>,
            status: String,
            version_id: Option<String>,
            verdict: Option<String>,
            created_ms: i64,
        }
        let row = match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
            Answer::Unknown => return Ok(None),
            Answer::Found(row) => row,
        };
        let internal = |_| Code::Internal;
        let declared = row.sha256.as_deref().map(Sha256Digest::from_hex).transpose().map_err(internal)?;
        Ok(Some(File {
            id,
            name: FileName::clean(&row.name),
            content_type: ContentType::parse(&row.content_type).map_err(internal)?,
            size: row.size,
            sha256: declared.map(|digest| digest.to_string()).or(row.actual_sha256),
            status: FileStatus::parse(&row.status).map_err(internal)?,
            version: row.version_id.as_deref().map(VersionId::parse).transpose().map_err(internal)?,
            scanned: row.verdict.as_deref() == Some("NO_THREATS_FOUND"),
            created_ms: row.created_ms,
        }))
    }

    fn metadata(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "name": self.name.as_str(),
            "content_type": self.content_type.declared(),
            "size": self.size,
            "sha256": self.sha256,
            "status": self.status.as_str(),
            "created_at": self.created_ms.div_euclid(1000),
        })
    }

    /// The version that may be served.
    fn servable(&self, scan: Scan) -> Result<&VersionId, Refusal> {
        match self.status {
            // Found clean while scanning was off is not clean enough once it is on.
            FileStatus::Clean if scan == Scan::GuardDuty && !self.scanned => Err(Code::FileUnscannable.into()),
            FileStatus::Clean => self.version.as_ref().ok_or(Code::Internal.into()),
            FileStatus::Pending | FileStatus::Scanning => Err(Code::FileNotReady.into()),
            FileStatus::Unscannable => Err(Code::FileUnscannable.into()),
            FileStatus::Rejected | FileStatus::Infected | FileStatus::Expired | FileStatus::Deleted => {
                Err(Code::FileUnavailable.into())
            }
        }
    }
}

/// Whether the caller names JSON as something it takes (RFC 9110 §12.5.1). A range such as `*/*` is no wish for it.
fn wants_json(headers: &Headers) -> bool {
    headers.all("accept").flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
        let refused = parts.any(|parameter| matches!(parameter, "q=0" | "q=0." | "q=0.0" | "q=0.00" | "q=0.000"));
        json && !refused
    })
}

/// Why a file in this state gives nothing.
fn closed(answer: &Value) -> Refusal {
    let status = answer.get("status").and_then(Value::as_str).and_then(|text| FileStatus::parse(text).ok());
    match status {
        Some(FileStatus::Pending | FileStatus::Scanning) => Code::FileNotReady,
        Some(FileStatus::Unscannable) => Code::FileUnscannable,
        Some(FileStatus::Rejected | FileStatus::Infected | FileStatus::Expired | FileStatus::Deleted) => {
            Code::FileUnavailable
        }
        Some(FileStatus::Clean) | None => Code::Internal,
    }
    .into()
}

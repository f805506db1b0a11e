//! Creates pending files and signs what fills each: one exact PUT, a form, or parts; signs anew for a file still pending; ends a file
//! for its owner.
//!
//! Nothing half-done: the signing session is had first, the URL is signed offline, and only then is the row written and the
//! URL handed out. Whoever gets no answer has at worst a pending row that nobody can fill. Deleting ends the row; the bytes
//! are removed later, when no URL for their key can be alive.

mod owned;
mod parts;
mod request;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::audit::{Line, Refusal};
use shared::boot::{Invocation, Routes};
use shared::clock::{Clock, Timestamp};
use shared::details::FileAction;
use shared::entropy::{Entropy, uuid_v7};
use shared::gate::{Caller, Gate};
use shared::http::{Request, Response};
use shared::object::{
    FileId, FileStatus, FormTerms, ObjectKey, PartStore, Parts, Presign, SignedForm, SignedRequest, SignerSession,
    SignerSessions, UrlLife, WriteTerms,
};
use shared::port::{Database, ObjectReader, Parameter};
use shared::problem::{Code, Problem};
use uuid::Uuid;

use crate::request::{Bytes, Declared, NewFile, idempotency_key};

/// The variable that names the role whose sessions sign uploads.
pub const SIGNER_ROLE: &str = "PORTCULLIS_UPLOAD_SIGNER_ROLE";
const ACTION: &str = "files:create";
/// How long a pending file may be filled, in seconds.
const DAY: i64 = 24 * 60 * 60;

/// The function over its ports.
pub struct Upload<R, D, S, P, M, C, E> {
    /// Who may come in.
    pub gate: Gate<R, C>,
    /// Files.
    pub database: D,
    /// Upload signer sessions.
    pub sessions: S,
    /// Signs for the object bucket.
    pub presign: P,
    /// Uploads in parts.
    pub parts: M,
    /// The time.
    pub clock: C,
    /// Fresh ids.
    pub entropy: E,
}

impl<R, D, S, P, M, C, E> Routes for Upload<R, D, S, P, M, C, E>
where
    R: ObjectReader,
    D: Database,
    S: SignerSessions,
    P: Presign,
    M: PartStore,
    C: Clock,
    E: Entropy,
{
    const FUNCTION: &'static str = "upload";

    async fn answer(&self, request: &Request, _: &Invocation) -> Result<Response, Problem> {
        let route = match (request.method.as_str(), request.resource.as_str()) {
            ("POST", "/files") => Route::Create,
            ("POST", "/files/{id}/url") => Route::Renew,
            ("POST", "/files/{id}/parts") => Route::Parts,
            ("POST", "/files/{id}/complete") => Route::Complete,
            ("DELETE", "/files/{id}") => Route::Delete,
            _ => return Err(Code::NotFound.into()),
        };
        let scopes = &["files:write"];
        let caller = match route {
            Route::Create => self.gate.admit(request, scopes).await?,
            _ => self.gate.admit_file(request, scopes, FileAction::Write).await?,
        };
        match route {
            Route::Create => self.create(&caller, request).await,
            Route::Renew => self.renew(&caller, request).await,
            Route::Parts => self.sign_parts(&caller, request).await,
            Route::Complete => self.complete(&caller, request).await,
            Route::Delete => self.delete(&caller, request).await,
        }
    }
}

enum Route {
    Create,
    Renew,
    Parts,
    Complete,
    Delete,
}

impl<R, D, S, P, M, C, E> Upload<R, D, S, P, M, C, E>
where
    R: ObjectReader,
    D: Database,
    S: SignerSessions,
    P: Presign,
    M: PartStore,
    C: Clock,
    E: Entropy,
{
    /// `POST /files` for a caller who was admitted: a pending file and the one request that fills it.
    pub async fn create(&self, caller: &Caller, request: &Request) -> Result<Response, Problem> {
        let line = Line::new(Self::FUNCTION, ACTION).request(&request.request_id).who(
            caller.tenant.as_str(),
            &caller.subject,
            &caller.jti,
        );
        match self.decide(caller, request).await {
            Ok(Created { response, file, outcome }) => {
                line.decision("allow", outcome).text("file", &file.to_string()).emit();
                Ok(response)
            }
            Err(refusal) => Err(refusal.told(line)),
        }
    }

    async fn decide(&self, caller: &Caller, request: &Request) -> Result<Created, Refusal> {
        let file = NewFile::read(request)?;
        let repeat = idempotency_key(request)?;

        let id = FileId::from_uuid(uuid_v7(self.clock.now(), &self.entropy)).map_err(|_| Code::Internal)?;
        let key = |id: FileId| ObjectKey::new(caller.tenant.clone(), id);
        // Nothing is signed for parts before they are named, so their file needs no session yet.
        let (now, signer) = match &file.declared.bytes {
            Bytes::Parts(_) => (self.clock.now(), None),
            Bytes::Put { .. } | Bytes::Form { .. } => {
                let (session, now, life) = self.session(&key(id), UrlLife::LONGEST).await?;
                (now, Some((session, life)))
            }
        };
        let signer = signer.as_ref().map(|(session, life)| (session, *life));
        let mut signed = self.sign(caller, signer, id, &file.declared, now).await?;
        let ends = signer.map_or(now, |(_, life)| life.ends(now));
        let (outcome, created_ms) = self.record(Row { caller, id, file: &file, ends, repeat, now }).await?;
        // Parts may be asked for until the file expires.
        let ends = signer.map_or(Timestamp::from_millis(created_ms).plus_seconds(DAY), |_| ends);
        match outcome {
            Outcome::Created => Ok(created(id, "created", &signed, ends)),
            Outcome::Replayed { id, status: FileStatus::Pending } => {
                // The file is another one than the session was asked for, and its session may reach no further.
                let own = match signer {
                    Some((_, life)) => Some((self.session(&key(id), life.seconds()).await?.0, life)),
                    None => None,
                };
                let own = own.as_ref().map(|(session, life)| (session, *life));
                signed = self.sign(caller, own, id, &file.declared, now).await?;
                Ok(created(id, "replayed", &signed, ends))
            }
            // The object is there already, so there is nothing left to sign for.
            Outcome::Replayed { id, status } => Ok(Created {
                response: Response::json(
                    200,
                    &json!({ "id": id.to_string(), "mode": file.declared.bytes.mode(), "status": status.as_str() }),
                ),
                file: id,
                outcome: "replayed",
            }),
            Outcome::Conflict => Err(Code::IdempotencyConflict.into()),
            Outcome::Quota => Err(Code::QuotaExceeded.into()),
        }
    }

    async fn record(&self, row: Row<'_>) -> Result<(Outcome, i64), Refusal> {
        let Row { caller, id, file, ends, repeat, now } = row;
        let (size, sha256, longest, each) = match &file.declared.bytes {
            Bytes::Put { size, sha256 } => (Some(size.signed()), Some(sha256.as_bytes().to_vec()), None, None),
            Bytes::Form { longest } => (None, None, Some(longest.signed()), None),
            Bytes::Parts(parts) => (Some(parts.size().signed()), None, None, i64::try_from(parts.each()).ok()),
        };
        let parameters = vec![
            Parameter::Text(caller.tenant.as_str().to_owned()),
            Parameter::Text(caller.subject.clone()),
            Parameter::Uuid(id.uuid()),
            Parameter::Text(file.name.as_str().to_owned()),
            Parameter::Text(file.declared.content_type.declared().to_owned()),
            Parameter::Text(file.declared.bytes.mode().to_owned()),
            Parameter::OptionalInt(size),
            Parameter::OptionalBytes(sha256),
            Parameter::OptionalInt(longest),
            Parameter::OptionalInt(each),
            Parameter::Int(ends.millis()),
            Parameter::OptionalText(repeat.clone()),
            Parameter::OptionalBytes(repeat.map(|_| file.fingerprint().as_bytes().to_vec())),
            Parameter::Json(maker(caller)),
            Parameter::Int(now.millis()),
        ];
        Outcome::read(self.database.call("api.create_file", parameters).await.map_err(Refusal::fault)?, now)
    }

    async fn sign(
        &self,
        caller: &Caller,
        signer: Option<(&SignerSession, UrlLife)>,
        id: FileId,
        declared: &Declared,
        now: Timestamp,
    ) -> Result<Signed, Refusal> {
        let (key, content_type) = (ObjectKey::new(caller.tenant.clone(), id), declared.content_type);
        let Some((session, life)) = signer else {
            return match declared.bytes {
                Bytes::Parts(parts) => Ok(Signed::Parts(parts)),
                Bytes::Put { .. } | Bytes::Form { .. } => Err(Code::UnsupportedMode.into()),
            };
        };
        let signed = match declared.bytes {
            Bytes::Parts(parts) => Ok(Signed::Parts(parts)),
            Bytes::Put { size, sha256 } => {
                let terms = WriteTerms { key, size, content_type, sha256 };
                self.presign.put(session, &terms, now, life).await.map(Signed::Put)
            }
            Bytes::Form { longest } => {
                let terms = FormTerms { key, longest, content_type };
                self.presign.form(session, &terms, now, life).await.map(Signed::Form)
            }
        };
        signed.map_err(Refusal::fault)
    }
}

/// What is written of a new file.
struct Row<'a> {
    caller: &'a Caller,
    id: FileId,
    file: &'a NewFile,
    ends: Timestamp,
    repeat: Option<String>,
    now: Timestamp,
}

/// What fills a file.
enum Signed {
    Put(SignedRequest),
    Form(SignedForm),
    /// Later, part by part.
    Parts(Parts),
}

impl Signed {
    fn mode(&self) -> &'static str {
        match self {
            Signed::Put(_) => "put",
            Signed::Form(_) => "post",
            Signed::Parts(_) => "multipart",
        }
    }
}

/// Who makes the file, as its receipt will say it; of a device no more than that.
fn maker(caller: &Caller) -> Value {
    let (client_id, jti) = (&caller.client_id, &caller.jti);
    match &caller.device {
        None => json!({ "client_id": client_id, "jti": jti }),
        Some(device) => json!({ "client_id": client_id, "jti": jti,
            "device": { "id": device.id, "source": device.source, "checked_at": device.checked_at.seconds() } }),
    }
}

fn created(id: FileId, outcome: &'static str, signed: &Signed, expires_at: Timestamp) -> Created {
    Created { response: Response::json(201, &plan(id, signed, expires_at)), file: id, outcome }
}

/// The file and what fills it.
fn plan(id: FileId, signed: &Signed, expires_at: Timestamp) -> Value {
    let upload = match signed {
        Signed::Put(put) => {
            let headers: Map<String, Value> =
                put.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({ "method": put.method, "url": put.url.expose(), "headers": headers })
        }
        Signed::Form(form) => {
            let fields: Map<String, Value> =
                form.expose().iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            json!({ "url": form.url, "fields": fields })
        }
        Signed::Parts(parts) => json!({ "part_size": parts.each(), "parts": parts.count() }),
    };
    json!({ "id": id.to_string(), "mode": signed.mode(), "expires_at": expires_at.seconds(), "upload": upload })
}

struct Created {
    response: Response,
    file: FileId,
    outcome: &'static str,
}

enum Outcome {
    Created,
    Replayed {
        id: FileId,
        status: FileStatus,
    },
    Conflict,
    /// Tenant or subject would hold more than they may; nothing was made.
    Quota,
}

impl Outcome {
    /// What happened, and when the file that it is about was made.
    fn read(answer: Value, now: Timestamp) -> Result<(Outcome, i64), Refusal> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", rename_all = "snake_case")]
        enum Answer {
            Created,
            Replayed { id: Uuid, status: String, created_ms: i64 },
            Conflict,
            Quota,
        }
        match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
            Answer::Created => Ok((Outcome::Created, now.millis())),
            Answer::Conflict => Ok((Outcome::Conflict, now.millis())),
            Answer::Quota => Ok((Outcome::Quota, now.millis())),
            Answer::Replayed { id, status, created_ms } => {
                let id = FileId::from_uuid(id).map_err(|_| Code::Internal)?;
                let status = FileStatus::parse(&status).map_err(|_| Code::Internal)?;
                Ok((Outcome::Replayed { id, status }, created_ms))
            }
        }
    }
}

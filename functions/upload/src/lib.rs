//! Creates pending files and signs one exact PUT for each; signs anew for a file still pending; ends a file for its owner.
//!
//! Nothing half-done: the signing session is had first, the URL is signed offline, and only then is the row written and the
//! URL handed out. Whoever gets no answer has at worst a pending row that nobody can fill. Deleting ends the row; the bytes
//! are removed later, when no URL for their key can be alive.

mod config;
mod owned;
mod request;

pub use config::Config;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::audit::Line;
use shared::boot::{Invocation, Routes};
use shared::clock::{Clock, Timestamp};
use shared::details::FileAction;
use shared::entropy::{Entropy, uuid_v7};
use shared::gate::{Caller, Gate};
use shared::http::{Request, Response};
use shared::object::{
    FileId, FileStatus, ObjectKey, Presign, SignedRequest, SignerSession, SignerSessions, UrlLife, WriteTerms,
};
use shared::port::{Database, Fault, ObjectReader, Parameter};
use shared::problem::{Code, Problem};
use uuid::Uuid;

use crate::request::{DeclaredBytes, NewFile, idempotency_key};

const ACTION: &str = "files:create";

/// The function over its ports.
pub struct Upload<R, D, S, P, C, E> {
    /// Who may come in.
    pub gate: Gate<R, C>,
    /// Files.
    pub database: D,
    /// Upload signer sessions.
    pub sessions: S,
    /// Signs for the object bucket.
    pub presign: P,
    /// The time.
    pub clock: C,
    /// Fresh ids.
    pub entropy: E,
}

impl<R, D, S, P, C, E> Routes for Upload<R, D, S, P, C, E>
where
    R: ObjectReader,
    D: Database,
    S: SignerSessions,
    P: Presign,
    C: Clock,
    E: Entropy,
{
    const FUNCTION: &'static str = "upload";

    async fn answer(&self, request: &Request, _: &Invocation) -> Result<Response, Problem> {
        match (request.method.as_str(), request.resource.as_str()) {
            ("POST", "/files") => {
                let caller = self.gate.admit(request, &["files:write"]).await?;
                self.create(&caller, request).await
            }
            ("POST", "/files/{id}/url") => {
                let caller = self.gate.admit_file(request, &["files:write"], FileAction::Write).await?;
                self.renew(&caller, request).await
            }
            ("DELETE", "/files/{id}") => {
                let caller = self.gate.admit_file(request, &["files:write"], FileAction::Write).await?;
                self.delete(&caller, request).await
            }
            _ => Err(Code::NotFound.into()),
        }
    }
}

impl<R, D, S, P, C, E> Upload<R, D, S, P, C, E>
where
    R: ObjectReader,
    D: Database,
    S: SignerSessions,
    P: Presign,
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

        let session = self.sessions.session(&caller.tenant).await.map_err(Refusal::signer)?;
        let now = self.clock.now();
        let life = UrlLife::within(UrlLife::LONGEST, session.expires_at, now).map_err(|_| Code::SignerUnavailable)?;
        let id = FileId::from_uuid(uuid_v7(now, &self.entropy)).map_err(|_| Code::Internal)?;
        let mut signed = self.sign(caller, &session, id, &file.bytes, now, life).await?;

        let answer = self
            .database
            .call(
                "api.create_file",
                vec![
                    Parameter::Text(caller.tenant.as_str().to_owned()),
                    Parameter::Text(caller.subject.clone()),
                    Parameter::Uuid(id.uuid()),
                    Parameter::Text(file.name.as_str().to_owned()),
                    Parameter::Text(file.bytes.content_type.declared().to_owned()),
                    Parameter::Int(file.bytes.size.signed()),
                    Parameter::Bytes(file.bytes.sha256.as_bytes().to_vec()),
                    Parameter::Text("put".to_owned()),
                    Parameter::Int(life.ends(now).millis()),
                    Parameter::OptionalText(repeat.clone()),
                    Parameter::OptionalBytes(repeat.map(|_| file.fingerprint().as_bytes().to_vec())),
                    Parameter::Int(now.millis()),
                ],
            )
            .await
            .map_err(Refusal::fault)?;

        match Outcome::read(answer)? {
            Outcome::Created => Ok(created(id, "created", &signed, life.ends(now))),
            Outcome::Replayed { id, status: FileStatus::Pending } => {
                signed = self.sign(caller, &session, id, &file.bytes, now, life).await?;
                Ok(created(id, "replayed", &signed, life.ends(now)))
            }
            // The object is there already, so there is nothing left to sign for.
            Outcome::Replayed { id, status } => Ok(Created {
                response: Response::json(
                    200,
                    &json!({ "id": id.to_string(), "mode": "put", "status": status.as_str() }),
                ),
                file: id,
                outcome: "replayed",
            }),
            Outcome::Conflict => Err(Code::IdempotencyConflict.into()),
        }
    }

    async fn sign(
        &self,
        caller: &Caller,
        session: &SignerSession,
        id: FileId,
        bytes: &DeclaredBytes,
        now: Timestamp,
        life: UrlLife,
    ) -> Result<SignedRequest, Refusal> {
        let terms = WriteTerms {
            key: ObjectKey::new(caller.tenant.clone(), id),
            size: bytes.size,
            content_type: bytes.content_type,
            sha256: bytes.sha256,
        };
        self.presign.put(session, &terms, now, life).await.map_err(Refusal::fault)
    }
}

fn created(id: FileId, outcome: &'static str, signed: &SignedRequest, expires_at: Timestamp) -> Created {
    Created { response: Response::json(201, &plan(id, signed, expires_at)), file: id, outcome }
}

/// The file and the one request that fills it.
fn plan(id: FileId, signed: &SignedRequest, expires_at: Timestamp) -> Value {
    let headers: Map<String, Value> = signed.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "id": id.to_string(),
        "mode": "put",
        "expires_at": expires_at.seconds(),
        "upload": { "method": signed.method, "url": signed.url.expose(), "headers": headers },
    })
}

struct Created {
    response: Response,
    file: FileId,
    outcome: &'static str,
}

enum Outcome {
    Created,
    Replayed { id: FileId, status: FileStatus },
    Conflict,
}

impl Outcome {
    fn read(answer: Value) -> Result<Outcome, Refusal> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", rename_all = "snake_case")]
        enum Answer {
            Created,
            Replayed { id: Uuid, status: String },
            Conflict,
        }
        match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
            Answer::Created => Ok(Outcome::Created),
            Answer::Conflict => Ok(Outcome::Conflict),
            Answer::Replayed { id, status } => Ok(Outcome::Replayed {
                id: FileId::from_uuid(id).map_err(|_| Code::Internal)?,
                status: FileStatus::parse(&status).map_err(|_| Code::Internal)?,
            }),
        }
    }
}

/// Why there is no file, and the fault behind it where there is one.
struct Refusal {
    code: Code,
    fault: Option<Fault>,
}

impl Refusal {
    fn signer(fault: Fault) -> Refusal {
        Refusal { code: Code::SignerUnavailable, fault: Some(fault) }
    }

    fn fault(fault: Fault) -> Refusal {
        Refusal { code: Problem::from(&fault).code, fault: Some(fault) }
    }

    /// Ends the line of the decision, and says to the caller what he may know of it.
    fn told(self, line: Line) -> Problem {
        match self.fault {
            None => line.decision("deny", self.code.as_str()).emit(),
            Some(fault) => line.decision("fault", self.code.as_str()).fault(&fault).emit(),
        }
        self.code.into()
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Refusal {
        Refusal { code, fault: None }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        problem.code.into()
    }
}

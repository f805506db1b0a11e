//! What the owner of a file does with it after it was made.

use serde::Deserialize;
use serde_json::Value;
use shared::audit::{Line, Refusal};
use shared::boot::Routes;
use shared::clock::Clock;
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::http::{Request, Response};
use shared::object::{
    ContentType, FileId, FileStatus, ObjectKey, PartStore, Presign, Sha256Digest, SignerSessions, Size, UrlLife,
};
use shared::port::{Database, ObjectReader, Parameter};
use shared::problem::{Code, Problem};

use crate::request::{Bytes, Declared, no_body};
use crate::{Upload, plan};

/// One file of one caller, and what is done with it.
pub(crate) struct Act<'a> {
    pub(crate) caller: &'a Caller,
    id: Option<FileId>,
    line: Line,
}

impl<'a> Act<'a> {
    pub(crate) fn new(function: &'static str, action: &'static str, caller: &'a Caller, request: &Request) -> Act<'a> {
        let id = request.path_parameters.get("id").and_then(|text| FileId::parse(text).ok());
        let line = Line::new(function, action)
            .request(&request.request_id)
            .who(caller.tenant.as_str(), &caller.subject, &caller.jti)
            .text("file", &id.map(|id| id.to_string()).unwrap_or_default());
        Act { caller, id, line }
    }

    pub(crate) fn told(self, decided: Result<(Response, &'static str), Refusal>) -> Result<Response, Problem> {
        match decided {
            Ok((response, outcome)) => {
                self.line.decision("allow", outcome).emit();
                Ok(response)
            }
            Err(refusal) => Err(refusal.told(self.line)),
        }
    }

    /// The key of the caller's file.
    pub(crate) fn key(&self, id: FileId) -> ObjectKey {
        ObjectKey::new(self.caller.tenant.clone(), id)
    }

    /// Tenant, subject and file: whose file it is stands in every statement.
    pub(crate) fn parameters(&self) -> Result<(FileId, Vec<Parameter>), Refusal> {
        let id = self.id.ok_or(Code::NotFound)?;
        let whose = vec![
            Parameter::Text(self.caller.tenant.as_str().to_owned()),
            Parameter::Text(self.caller.subject.clone()),
            Parameter::Uuid(id.uuid()),
        ];
        Ok((id, whose))
    }
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
    /// `POST /files/{id}/url` for a caller who was admitted: another URL for the same bytes, while none have arrived.
    pub async fn renew(&self, caller: &Caller, request: &Request) -> Result<Response, Problem> {
        let act = Act::new(Self::FUNCTION, "files:write", caller, request);
        let decided = self.decide_renewal(&act, request).await;
        act.told(decided)
    }

    async fn decide_renewal(&self, act: &Act<'_>, request: &Request) -> Result<(Response, &'static str), Refusal> {
        let (id, mut parameters) = act.parameters()?;
        no_body(request)?;
        let (session, now, life) = self.session(&act.key(id), UrlLife::LONGEST).await?;
        parameters.extend([Parameter::Int(life.ends(now).millis()), Parameter::Int(now.millis())]);
        let answer = self.database.call("api.renew_upload", parameters).await.map_err(Refusal::fault)?;
        let declared = declared(answer)?;
        let signed = self.sign(act.caller, Some((&session, life)), id, &declared, now).await?;
        Ok((Response::json(200, &plan(id, &signed, life.ends(now))), "renewed"))
    }

    /// `DELETE /files/{id}` for a caller who was admitted. Deleting a deleted file is no fault (RFC 9110 §9.2.2).
    pub async fn delete(&self, caller: &Caller, request: &Request) -> Result<Response, Problem> {
        let act = Act::new(Self::FUNCTION, "files:delete", caller, request);
        let decided = self.decide_deletion(&act, request).await;
        act.told(decided)
    }

    async fn decide_deletion(&self, act: &Act<'_>, request: &Request) -> Result<(Response, &'static str), Refusal> {
        let (id, mut parameters) = act.parameters()?;
        no_body(request)?;
        parameters.push(Parameter::Int(self.clock.now().millis()));
        let answer = self.database.call("api.delete_file", parameters).await.map_err(Refusal::fault)?;
        let outcome = match answer.get("upload_id").and_then(Value::as_str) {
            Some(upload) => self.end_parts(act, id, upload).await,
            None => "deleted",
        };
        match answer.get("outcome").and_then(Value::as_str) {
            Some("deleted") => Ok((Response::empty(204), outcome)),
            Some("known") => Ok((Response::empty(204), "known")),
            Some("unknown") => Err(Code::NotFound.into()),
            _ => Err(Code::Internal.into()),
        }
    }
}

/// What a pending file waits for, or why it waits for nothing.
fn declared(answer: Value) -> Result<Declared, Refusal> {
    #[derive(Deserialize)]
    #[serde(tag = "outcome", rename_all = "snake_case")]
    enum Answer {
        Renewed { file: Row },
        Closed { status: String },
        Unknown,
    }
    #[derive(Deserialize)]
    struct Row {
        mode: String,
        content_type: String,
        size: Option<u64>,
        sha256: Option<String>,
        max_size: Option<u64>,
    }
    let row = match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
        Answer::Renewed { file } => file,
        Answer::Unknown => return Err(Code::NotFound.into()),
        Answer::Closed { status } => return Err(closed(&status)),
    };
    let size = |bytes: Option<u64>| bytes.and_then(|bytes| Size::of_put(bytes).ok()).ok_or(Code::Internal);
    let sha256 = row.sha256.as_deref().map(Sha256Digest::from_hex).transpose().map_err(|_| Code::Internal)?;
    let bytes = match row.mode.as_str() {
        "put" => Bytes::Put { size: size(row.size)?, sha256: sha256.ok_or(Code::Internal)? },
        "post" => Bytes::Form { longest: size(row.max_size)? },
        // Its parts have URLs of their own.
        "multipart" => return Err(Code::UnsupportedMode.into()),
        _ => return Err(Code::Internal.into()),
    };
    Ok(Declared { content_type: ContentType::parse(&row.content_type).map_err(|_| Code::Internal)?, bytes })
}

/// Why nothing more is signed for a file in this state.
pub(crate) fn closed(status: &str) -> Refusal {
    match FileStatus::parse(status) {
        Ok(FileStatus::Scanning | FileStatus::Clean | FileStatus::Unscannable) => Code::FileAlreadyUploaded,
        Ok(FileStatus::Rejected | FileStatus::Infected | FileStatus::Expired | FileStatus::Deleted) => {
            Code::FileUnavailable
        }
        Ok(FileStatus::Pending) | Err(_) => Code::Internal,
    }
    .into()
}

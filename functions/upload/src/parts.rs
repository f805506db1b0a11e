//! Large files: signing their parts, and making one object of them.
//!
//! The client names numbers, sizes and digests; key and upload are the server's and never come from outside. S3's upload is
//! begun by the first parts that are asked for and ended by the owner's `DELETE`, by the sweep, or by the bucket's lifecycle.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::audit::Refusal;
use shared::boot::Routes;
use shared::clock::{Clock, Timestamp};
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::http::{Request, Response};
use shared::object::{
    Completion, ContentType, FileId, HeldPart, ObjectKey, Part, PartStore, PartTerms, Presign, Sha256Digest,
    SignerSession, SignerSessions, UploadId, UrlLife,
};
use shared::port::{Database, ObjectReader, Parameter};
use shared::problem::{Code, Problem};

use crate::Upload;
use crate::owned::{Act, closed};
use crate::request::{SomeParts, no_body};

/// What a call of ours needs a session for, in seconds.
const CALL: u32 = 60;

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
    /// `POST /files/{id}/parts` for a caller who was admitted: one URL for each part that is named.
    pub async fn sign_parts(&self, caller: &Caller, request: &Request) -> Result<Response, Problem> {
        let act = Act::new(Self::FUNCTION, "files:write", caller, request);
        let decided = self.decide_parts(&act, request).await;
        act.told(decided)
    }

    async fn decide_parts(&self, act: &Act<'_>, request: &Request) -> Result<(Response, &'static str), Refusal> {
        let (id, mut parameters) = act.parameters()?;
        let asked = SomeParts::read(request)?;
        let key = act.key(id);
        let (session, now, life) = self.session(&key, UrlLife::LONGEST).await?;
        let list = asked.parts.iter().map(|part| {
            let sha256 = shared::encoding::hex(part.sha256.as_bytes());
            json!({ "part": part.number, "size": part.size, "sha256": sha256 })
        });
        parameters.extend([
            Parameter::Json(list.collect()),
            Parameter::Int(life.ends(now).millis()),
            Parameter::Int(now.millis()),
        ]);
        let answer = self.database.call("api.sign_parts", parameters).await.map_err(Refusal::fault)?;
        let open = Open::read(answer)?;
        let (upload, begun) = match open.upload {
            Some(upload) => (upload, false),
            None => (self.begin(act, &session, &key, open.content_type).await?, true),
        };
        // Only who goes on after a stop pays for the question what is there already.
        let held = if asked.resume && !begun { self.held(act, &session, &key, &upload).await? } else { Vec::new() };
        let (mut signed, mut there) = (Vec::new(), Vec::new());
        for part in asked.parts {
            if held.iter().any(|held| is(held, &part)) {
                there.push(part.number);
            } else {
                let terms = PartTerms { key: key.clone(), upload: upload.clone(), part };
                let put = self.presign.part(&session, &terms, now, life).await.map_err(Refusal::fault)?;
                let headers: Map<String, Value> =
                    put.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
                signed.push(json!({
                    "part": part.number, "method": put.method, "url": put.url.expose(), "headers": headers
                }));
            }
        }
        let mut body = json!({ "id": id.to_string(), "expires_at": life.ends(now).seconds(), "parts": signed });
        if let (true, Some(members)) = (asked.resume, body.as_object_mut()) {
            members.insert("uploaded".to_owned(), json!(there));
        }
        Ok((Response::json(200, &body), "signed"))
    }

    /// `POST /files/{id}/complete` for a caller who was admitted: one object of the parts that were signed, and of no other.
    pub async fn complete(&self, caller: &Caller, request: &Request) -> Result<Response, Problem> {
        let act = Act::new(Self::FUNCTION, "files:write", caller, request);
        let decided = self.decide_completion(&act, request).await;
        act.told(decided)
    }

    async fn decide_completion(&self, act: &Act<'_>, request: &Request) -> Result<(Response, &'static str), Refusal> {
        let (id, whose) = act.parameters()?;
        no_body(request)?;
        let mut parameters = whose.clone();
        parameters.push(Parameter::Int(self.clock.now().millis()));
        let answer = self.database.call("api.parts_to_complete", parameters).await.map_err(Refusal::fault)?;
        let planned = match Planned::read(answer)? {
            Planned::Completed { status } => return Ok((completed(id, &status), "known")),
            Planned::Open(planned) => planned,
        };
        let upload = planned.upload.ok_or(Code::PartsMissing)?;
        let key = act.key(id);
        let (session, now, _) = self.session(&key, CALL).await?;
        let Some(held) = self.parts.parts(&session, &key, &upload).await.map_err(Refusal::fault)? else {
            // S3 forgets an upload when it is an object: then an earlier completion came through, and its answer was lost.
            return if planned.tried {
                self.completed(id, whose, now, "there").await
            } else {
                self.gone(act, &upload).await
            };
        };
        // What S3 holds must be what was signed last, all of it and nothing else.
        let whole = planned.count == planned.parts.len()
            && held.len() == planned.parts.len()
            && held.iter().zip(&planned.parts).all(|(held, part)| is(held, part));
        if !whole {
            return Err(Code::PartsMissing.into());
        }
        if let Some(status) = self.trying(act, &upload, now).await? {
            return Ok((completed(id, &status), "known"));
        }
        // Gone since it was listed: somebody else who was admitted made an object of it, or ended the file.
        let done = self.parts.complete(&session, &key, &upload, &held).await.map_err(Refusal::fault)?;
        self.completed(id, whose, now, if done == Completion::Done { "completed" } else { "there" }).await
    }

    /// Writes down that S3 is about to be asked for an object: who finds no upload later knows by it what became of that. The status of
    /// the file where somebody else was first.
    async fn trying(&self, act: &Act<'_>, upload: &UploadId, now: Timestamp) -> Result<Option<String>, Refusal> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", rename_all = "snake_case")]
        enum Answer {
            Trying,
            Completed { status: String },
            Closed { status: String },
            Gone,
            Unknown,
        }
        let (_, mut parameters) = act.parameters()?;
        parameters.extend([Parameter::Text(upload.as_str().to_owned()), Parameter::Int(now.millis())]);
        let answer = self.database.call("api.parts_completing", parameters).await.map_err(Refusal::fault)?;
        match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
            Answer::Trying => Ok(None),
            Answer::Completed { status } => Ok(Some(status)),
            Answer::Closed { status } => Err(closed(&status)),
            Answer::Gone => Err(Code::PartsMissing.into()),
            Answer::Unknown => Err(Code::NotFound.into()),
        }
    }

    /// Writes down that the parts are one object.
    async fn completed(
        &self,
        id: FileId,
        mut parameters: Vec<Parameter>,
        now: Timestamp,
        reason: &'static str,
    ) -> Result<(Response, &'static str), Refusal> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", rename_all = "snake_case")]
        enum Answer {
            Completed { status: String },
            Closed { status: String },
            Unknown,
        }
        parameters.push(Parameter::Int(now.millis()));
        let answer = self.database.call("api.parts_completed", parameters).await.map_err(Refusal::fault)?;
        match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
            Answer::Completed { status } => Ok((completed(id, &status), reason)),
            Answer::Closed { status } => Err(closed(&status)),
            Answer::Unknown => Err(Code::NotFound.into()),
        }
    }

    /// Ends what is left of an upload whose file has ended. What fails here is the sweep's to do again.
    pub(crate) async fn end_parts(&self, act: &Act<'_>, id: FileId, upload: &str) -> &'static str {
        let Ok(upload) = UploadId::parse(upload) else { return "parts_left" };
        let key = act.key(id);
        let Ok((session, ..)) = self.session(&key, CALL).await else { return "parts_left" };
        let ended = self.parts.abort(&session, &key, &upload).await.is_ok() && self.forget(act, &upload).await.is_ok();
        if ended { "parts_ended" } else { "parts_left" }
    }

    /// A session with this much life, or none.
    pub(crate) async fn session(
        &self,
        key: &ObjectKey,
        asked: u32,
    ) -> Result<(SignerSession, Timestamp, UrlLife), Refusal> {
        let session = self.sessions.session(key).await.map_err(Refusal::signer)?;
        let now = self.clock.now();
        let life = UrlLife::within(asked, session.expires_at, now).map_err(|_| Code::SignerUnavailable)?;
        Ok((session, now, life))
    }

    /// Begins the upload. Of several that are begun at once one stays.
    async fn begin(
        &self,
        act: &Act<'_>,
        session: &SignerSession,
        key: &ObjectKey,
        content_type: ContentType,
    ) -> Result<UploadId, Refusal> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", rename_all = "snake_case")]
        enum Answer {
            Begun { upload_id: String },
            Closed { status: String },
            Unknown,
        }
        let ours = self.parts.begin(session, key, content_type).await.map_err(Refusal::fault)?;
        let (_, mut parameters) = act.parameters()?;
        parameters.push(Parameter::Text(ours.as_str().to_owned()));
        let answer = self.database.call("api.begin_parts", parameters).await.map_err(Refusal::fault)?;
        let kept = match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
            Answer::Begun { upload_id } => Ok(UploadId::parse(&upload_id).map_err(|_| Code::Internal)?),
            Answer::Closed { status } => Err(closed(&status)),
            Answer::Unknown => Err(Code::NotFound.into()),
        };
        if kept.as_ref().ok() != Some(&ours) {
            // Nobody will fill it. If it stays all the same, the bucket's lifecycle ends it in a day.
            let _ = self.parts.abort(session, key, &ours).await;
        }
        kept
    }

    async fn held(
        &self,
        act: &Act<'_>,
        session: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Vec<HeldPart>, Refusal> {
        match self.parts.parts(session, key, upload).await.map_err(Refusal::fault)? {
            Some(held) => Ok(held),
            None => self.gone(act, upload).await,
        }
    }

    /// S3 knows the upload no longer: the next parts begin another one.
    async fn gone<T>(&self, act: &Act<'_>, upload: &UploadId) -> Result<T, Refusal> {
        self.forget(act, upload).await?;
        Err(Code::PartsMissing.into())
    }

    /// The next parts begin another upload.
    async fn forget(&self, act: &Act<'_>, upload: &UploadId) -> Result<(), Refusal> {
        let (_, mut parameters) = act.parameters()?;
        parameters.push(Parameter::Text(upload.as_str().to_owned()));
        self.database.call("api.parts_ended", parameters).await.map_err(Refusal::fault).map(|_| ())
    }
}

fn is(held: &HeldPart, part: &Part) -> bool {
    // The number first: up to 10,000 held ones are asked about each of 500.
    held.number == part.number
        && held.size == part.size
        && held.sha256.as_deref().and_then(|text| Sha256Digest::parse(text).ok()) == Some(part.sha256)
}

fn completed(id: FileId, status: &str) -> Response {
    Response::json(200, &json!({ "id": id.to_string(), "mode": "multipart", "status": status }))
}

/// A file that takes parts.
struct Open {
    content_type: ContentType,
    upload: Option<UploadId>,
}

impl Open {
    fn read(answer: Value) -> Result<Open, Refusal> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", rename_all = "snake_case")]
        enum Answer {
            Signed { content_type: String, upload_id: Option<String> },
            Mode,
            Wrong,
            Closed { status: String },
            Unknown,
        }
        match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
            Answer::Signed { content_type, upload_id } => Ok(Open {
                content_type: ContentType::parse(&content_type).map_err(|_| Code::Internal)?,
                upload: upload(upload_id)?,
            }),
            Answer::Mode => Err(Code::UnsupportedMode.into()),
            Answer::Wrong => Err(Code::MalformedRequest.into()),
            Answer::Closed { status } => Err(closed(&status)),
            Answer::Unknown => Err(Code::NotFound.into()),
        }
    }
}

/// What an object is to be made of.
struct Plan {
    upload: Option<UploadId>,
    count: usize,
    parts: Vec<Part>,
    /// Whether S3 was asked for an object of them before.
    tried: bool,
}

enum Planned {
    Open(Plan),
    Completed { status: String },
}

impl Planned {
    fn read(answer: Value) -> Result<Planned, Refusal> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", rename_all = "snake_case")]
        enum Answer {
            Open { upload_id: Option<String>, count: usize, parts: Vec<Row>, tried: bool },
            Completed { status: String },
            Mode,
            Closed { status: String },
            Unknown,
        }
        #[derive(Deserialize)]
        struct Row {
            part: u32,
            size: u64,
            sha256: String,
        }
        match serde_json::from_value(answer).map_err(|_| Code::Internal)? {
            Answer::Completed { status } => Ok(Planned::Completed { status }),
            Answer::Mode => Err(Code::UnsupportedMode.into()),
            Answer::Closed { status } => Err(closed(&status)),
            Answer::Unknown => Err(Code::NotFound.into()),
            Answer::Open { upload_id, count, parts, tried } => {
                let read = |row: Row| {
                    let sha256 = Sha256Digest::from_hex(&row.sha256).map_err(|_| Code::Internal)?;
                    Ok(Part { number: row.part, size: row.size, sha256 })
                };
                let parts = parts.into_iter().map(read).collect::<Result<Vec<Part>, Code>>()?;
                Ok(Planned::Open(Plan { upload: upload(upload_id)?, count, parts, tried }))
            }
        }
    }
}

fn upload(id: Option<String>) -> Result<Option<UploadId>, Refusal> {
    id.as_deref().map(UploadId::parse).transpose().map_err(|_| Code::Internal.into())
}

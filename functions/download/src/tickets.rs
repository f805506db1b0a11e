//! Download tickets: a secret that opens one file once, within minutes, to whoever holds it.
//!
//! A ticket is made by who may read the file and opened without a token. What it answers is a redirect to a URL of seconds.
//! The URL is signed before the ticket is used, so that a fault of the surroundings uses up nothing.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::{Line, Refusal};
use shared::boot::Routes;
use shared::clock::Clock;
use shared::digest::sha256;
use shared::encoding::{base64url, from_base64url};
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::http::{Request, Response};
use shared::name::Tenant;
use shared::object::{FileId, Presign, SignerSessions};
use shared::port::{Database, ObjectReader, Parameter, PublicKeys, Signer};
use shared::problem::{Code, Problem};

use crate::{Download, File, OF_TENANT, closed};

/// The longest life of a ticket, in seconds; what nobody asked otherwise gets.
const LONGEST: i64 = 300;
/// The life of the URL that a ticket opens, in seconds.
const URL_LIFE: u32 = 30;
/// More than a well-formed body needs, in bytes.
const LARGEST_BODY: usize = 1024;

/// The secret itself: 32 random bytes. Only its digest is stored.
struct Secret([u8; 32]);

impl Secret {
    /// Reads the one canonical spelling.
    fn parse(text: &str) -> Option<Secret> {
        from_base64url(text).and_then(|bytes| bytes.try_into().ok()).map(Secret)
    }

    fn hash(&self) -> Parameter {
        Parameter::Bytes(sha256(&self.0).to_vec())
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
    /// `POST /files/{id}/tickets` for a caller who was admitted.
    pub async fn make_ticket(&self, caller: &Caller, request: &Request) -> Result<Response, Problem> {
        let id = request.path_parameters.get("id").and_then(|text| FileId::parse(text).ok());
        let line = Line::new(Self::FUNCTION, "files:ticket")
            .request(&request.request_id)
            .who(caller.tenant.as_str(), &caller.subject, &caller.jti)
            .text("file", &id.map(|id| id.to_string()).unwrap_or_default());
        match self.decide_ticket(caller, request, id).await {
            Ok(response) => {
                line.decision("allow", "made").emit();
                Ok(response)
            }
            Err(refusal) => Err(refusal.told(line)),
        }
    }

    async fn decide_ticket(&self, caller: &Caller, request: &Request, id: Option<FileId>) -> Result<Response, Refusal> {
        let id = id.ok_or(Code::NotFound)?;
        let asked = asked_life(request)?;
        // Through the same door as every reader, and with the same refusals.
        let file = self.find(caller, id).await?;
        file.servable(self.scan)?;
        let mut secret = Secret([0; 32]);
        self.entropy.fill(&mut secret.0);
        let now = self.clock.now();
        // What is revoked is forgotten when the token that it hits has expired, so a ticket lives no longer than its token.
        let expires = now.plus_seconds(asked).min(caller.expires_at);
        if expires <= now {
            return Err(Code::Unauthorized.into());
        }
        let parameters = vec![
            Parameter::Text(caller.tenant.as_str().to_owned()),
            Parameter::Text(caller.subject.clone()),
            Parameter::Uuid(id.uuid()),
            Parameter::Bool(caller.scopes.allows(OF_TENANT)),
            secret.hash(),
            Parameter::Text(caller.client_id.clone()),
            Parameter::Text(caller.jti.clone()),
            Parameter::OptionalText(caller.session.clone()),
            Parameter::OptionalText(caller.device.as_ref().map(|device| device.id.clone())),
            Parameter::Int(expires.millis()),
            Parameter::Int(now.millis()),
        ];
        let answer = self.database.call("api.ticket_put", parameters).await.map_err(Refusal::fault)?;
        match answer.get("outcome").and_then(Value::as_str) {
            Some("made") => {}
            Some("many") => return Err(Code::TooManyRequests.into()),
            Some("unknown") => return Err(Code::NotFound.into()),
            // It changed between two looks.
            Some("closed") => return Err(closed(&answer)),
            _ => return Err(Code::Internal.into()),
        }
        let ticket = base64url(&secret.0);
        let body = json!({
            "ticket": ticket, "url": format!("{}/tickets/{ticket}", self.base), "expires_at": expires.seconds()
        });
        Ok(Response::json(201, &body).header("referrer-policy", "no-referrer"))
    }

    /// `GET /tickets/{ticket}`: the ticket is the credential.
    pub async fn open_ticket(&self, request: &Request) -> Result<Response, Problem> {
        let line = Line::new(Self::FUNCTION, "tickets:open").request(&request.request_id);
        match self.decide_opening(request).await {
            Ok((response, file, tenant, subject)) => {
                line.who(&tenant, &subject, "").text("file", &file).decision("allow", "used").emit();
                Ok(response)
            }
            Err(refusal) => Err(refusal.told(line)),
        }
    }

    async fn decide_opening(&self, request: &Request) -> Result<(Response, String, String, String), Refusal> {
        #[derive(Deserialize)]
        struct Whose {
            tenant: String,
            subject: String,
            id: uuid::Uuid,
        }
        // It could follow the redirect, and S3 takes one credential at a time.
        if request.headers.all("authorization").next().is_some() {
            return Err(Code::MalformedRequest.into());
        }
        let secret =
            request.path_parameters.get("ticket").and_then(|text| Secret::parse(text)).ok_or(Code::NotFound)?;
        let now = self.clock.now();
        let answer = self.database.call("api.ticket_find", vec![secret.hash(), Parameter::Int(now.millis())]).await;
        let answer = answer.map_err(Refusal::fault)?;
        if answer.get("outcome").and_then(Value::as_str) != Some("found") {
            return Err(Code::NotFound.into());
        }
        let Whose { tenant, subject, id } = Whose::deserialize(&answer).map_err(|_| Code::Internal)?;
        let (id, tenant) = (FileId::from_uuid(id), Tenant::parse(&tenant));
        let (id, tenant) = (id.map_err(|_| Code::Internal)?, tenant.map_err(|_| Code::Internal)?);
        let file = File::read(id, answer)?.ok_or(Code::NotFound)?;
        let version = file.servable(self.scan)?.as_str().to_owned();
        let (signed, _) = self.signed(&tenant, id, &file, URL_LIFE).await?;
        let parameters = vec![
            Parameter::Text(tenant.as_str().to_owned()),
            secret.hash(),
            Parameter::Text(version),
            Parameter::Int(self.clock.now().millis()),
        ];
        let used = self.database.call("api.ticket_use", parameters).await.map_err(Refusal::fault)?;
        match used.get("outcome").and_then(Value::as_str) {
            Some("used") => {}
            Some("unknown") => return Err(Code::NotFound.into()),
            _ => return Err(Code::Internal.into()),
        }
        let response = Response::redirect(signed.url.expose().to_owned());
        Ok((response, id.to_string(), tenant.as_str().to_owned(), subject))
    }
}

/// How long the ticket is to live, in seconds: 1 to 300.
fn asked_life(request: &Request) -> Result<i64, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        expires_in: Option<i64>,
    }
    if request.body.is_empty() {
        return Ok(LONGEST);
    }
    match request.json::<Body>(LARGEST_BODY)?.expires_in {
        None => Ok(LONGEST),
        Some(seconds) if seconds >= 1 => Ok(seconds.min(LONGEST)),
        Some(_) => Err(Code::MalformedRequest.into()),
    }
}

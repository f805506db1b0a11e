//! Sessions of people and their refresh tokens, as the database keeps them.

use serde_json::Value;
use shared::access::Person;
use shared::clock::Timestamp;
use shared::digest::sha256;
use shared::dpop::{self, Proof};
use shared::encoding::base64url;
use shared::entropy::Entropy;
use shared::jwt::FUTURE_SKEW;
use shared::port::{Database, Fault, FaultKind, Parameter};
use shared::scope::Scopes;
use shared::secret::SecretString;

use crate::client::Client;
use crate::oauth::Error;
use crate::person::{self, Identity};
use crate::refused::Refused;

/// How long a session lives without being used, in seconds. A page that slept longer exchanges its assertion anew, which asks
/// nothing of the person as long as Access does not.
pub(crate) const IDLE: i64 = 3_600;
/// How long a session lives at most, in seconds.
pub(crate) const ABSOLUTE: i64 = 12 * 3_600;

/// A refresh token on its way out: 256 random bits, of which the database holds the hash.
pub(crate) struct RefreshToken {
    /// What the client is handed.
    pub(crate) text: SecretString,
    hash: Vec<u8>,
}

impl RefreshToken {
    /// A new one.
    pub(crate) fn new<E: Entropy>(entropy: &E) -> Self {
        let mut bits = [0; 32];
        entropy.fill(&mut bits);
        let text = base64url(&bits);
        Self { hash: hash(&text), text: SecretString::new(text) }
    }
}

/// The hash by which a refresh token is known. Whatever text is presented has one.
pub(crate) fn hash(token: &str) -> Vec<u8> {
    sha256(token.as_bytes()).to_vec()
}

/// A session that begins.
pub(crate) struct Beginning<'a> {
    /// Its id.
    pub(crate) sid: &'a str,
    /// Whose.
    pub(crate) person: &'a Person,
    /// With which client.
    pub(crate) client: &'a Client,
    /// The key that it is bound to.
    pub(crate) proof: &'a Proof,
    /// The most that its tokens may do.
    pub(crate) scopes: &'a Scopes,
    /// `iat` of its first access token.
    pub(crate) issued_at: Timestamp,
    /// Its first refresh token.
    pub(crate) refresh: &'a RefreshToken,
    /// When it begins.
    pub(crate) at: Timestamp,
}

/// Begins a session and uses the proof up, both or neither; the outcome is the database's.
pub(crate) async fn start<D: Database>(database: &D, session: Beginning<'_>) -> Result<String, Fault> {
    const FUNCTION: &str = "api.session_start";
    let (client, at) = (session.client, session.at);
    let mut parameters = of_client(client, at);
    parameters.extend(of_proof(session.proof));
    parameters.extend([
        Parameter::Text(session.sid.to_owned()),
        Parameter::Text(session.person.token_subject()),
        Parameter::Text(session.person.iss.clone()),
        Parameter::Texts(session.scopes.iter().map(str::to_owned).collect()),
        Parameter::Int(session.issued_at.seconds()),
        Parameter::Bytes(session.refresh.hash.clone()),
        Parameter::Int(at.plus_seconds(IDLE).millis()),
        Parameter::Int(at.plus_seconds(ABSOLUTE).millis()),
    ]);
    outcome(FUNCTION, &database.call(FUNCTION, parameters).await?)
}

/// A session as a refresh finds it.
pub(crate) struct Found {
    /// What the refresh token would come to now.
    pub(crate) state: String,
    /// The session's id.
    pub(crate) sid: String,
    /// `sub` of its tokens.
    pub(crate) subject: String,
    /// `iss` of the person's assertions.
    pub(crate) iss: String,
    /// The most that its tokens may do.
    pub(crate) scopes: Scopes,
    /// When it ends.
    pub(crate) ends: Timestamp,
    person: Value,
}

impl Found {
    /// What the person may do now.
    pub(crate) fn identity(&self, error: Error) -> Result<Identity, Refused> {
        person::read(LOOK, &self.person, error)
    }
}

const LOOK: &str = "api.session_for_refresh";

/// Looks at what a refresh token is of; `None` for one that this client never had. Changes nothing.
pub(crate) async fn look<D: Database>(
    database: &D,
    client: &Client,
    (token, proof): (&str, &Proof),
    person: &Person,
    now: Timestamp,
) -> Result<Option<Found>, Fault> {
    let mut parameters = vec![
        Parameter::Text(client.tenant.as_str().to_owned()),
        Parameter::Text(client.client_id.as_str().to_owned()),
        Parameter::Bytes(hash(token)),
        Parameter::Text(proof.thumbprint.clone()),
        Parameter::Int(now.millis()),
    ];
    parameters.extend(person::parameters(person));
    let answer = database.call(LOOK, parameters).await?;
    if answer.get("outcome").and_then(Value::as_str) == Some("unknown") {
        return Ok(None);
    }
    found(&answer).map(Some).ok_or_else(|| Fault::new(FaultKind::Invalid, "database", LOOK))
}

fn found(answer: &Value) -> Option<Found> {
    let session = answer.get("session")?;
    let text = |name: &str| session.get(name)?.as_str().map(str::to_owned);
    let scopes: Vec<&str> = session.get("scopes")?.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    Some(Found {
        state: answer.get("state")?.as_str()?.to_owned(),
        sid: text("sid")?,
        subject: text("subject")?,
        iss: text("iss")?,
        scopes: Scopes::parse(&scopes.join(" ")).ok()?,
        ends: Timestamp::from_millis(session.get("absolute_ms")?.as_i64()?),
        person: answer.get("person")?.clone(),
    })
}

/// Uses a refresh token up, and the proof that came with it. `next` is what follows it and when the access token beside it was
/// issued; without it nothing can be handed out, and only what ends a session is done.
pub(crate) async fn refresh<D: Database>(
    database: &D,
    client: &Client,
    (token, proof): (&str, &Proof),
    next: Option<(&RefreshToken, Timestamp)>,
    now: Timestamp,
) -> Result<String, Fault> {
    const FUNCTION: &str = "api.session_refresh";
    let mut parameters = of_client(client, now);
    parameters.extend(of_proof(proof));
    parameters.extend([
        Parameter::Bytes(hash(token)),
        Parameter::OptionalBytes(next.map(|(next, _)| next.hash.clone())),
        Parameter::Int(next.map_or(now, |(_, issued_at)| issued_at).seconds()),
        Parameter::Int(now.plus_seconds(IDLE).millis()),
    ]);
    outcome(FUNCTION, &database.call(FUNCTION, parameters).await?)
}

/// What names a session that its client ends.
pub(crate) enum Of<'a> {
    /// One of its refresh tokens.
    Refresh(&'a str),
    /// Its id, from an access token that was verified.
    Sid(&'a str),
}

/// Ends a session of the client; the outcome is the database's.
pub(crate) async fn end<D: Database>(
    database: &D,
    client: &Client,
    of: Of<'_>,
    now: Timestamp,
) -> Result<String, Fault> {
    const FUNCTION: &str = "api.session_end";
    let (token, sid) = match of {
        Of::Refresh(token) => (Some(hash(token)), None),
        Of::Sid(sid) => (None, Some(sid.to_owned())),
    };
    let parameters = vec![
        Parameter::Text(client.tenant.as_str().to_owned()),
        Parameter::Text(client.client_id.as_str().to_owned()),
        Parameter::OptionalBytes(token),
        Parameter::OptionalText(sid),
        Parameter::Int(now.millis()),
    ];
    outcome(FUNCTION, &database.call(FUNCTION, parameters).await?)
}

fn of_client(client: &Client, now: Timestamp) -> Vec<Parameter> {
    vec![
        Parameter::Text(client.tenant.as_str().to_owned()),
        Parameter::Text(client.client_id.as_str().to_owned()),
        Parameter::Int(client.version),
        Parameter::Int(now.millis()),
    ]
}

fn of_proof(proof: &Proof) -> [Parameter; 3] {
    let ends = proof.issued_at.plus_seconds(dpop::LONGEST + FUTURE_SKEW);
    [
        Parameter::Text(proof.thumbprint.clone()),
        Parameter::Bytes(sha256(proof.jti.as_bytes()).to_vec()),
        Parameter::Int(ends.millis()),
    ]
}

fn outcome(function: &'static str, answer: &Value) -> Result<String, Fault> {
    let outcome = answer.get("outcome").and_then(Value::as_str).map(str::to_owned);
    outcome.ok_or_else(|| Fault::new(FaultKind::Invalid, "database", function))
}

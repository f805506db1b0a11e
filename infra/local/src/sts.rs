//! STS: AssumeRole and GetCallerIdentity over the Query protocol.
//!
//! Absent, and refused as such: session tags, MFA, policy ARNs, federation, web identity.

use std::{
    collections::BTreeMap,
    fmt, io,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use http::{Method, StatusCode};
use serde_json::Value;
use time::{OffsetDateTime, macros::format_description};
use tokio::net::TcpListener;

use crate::{
    account::{Account, Principal, PrincipalKind},
    call,
    faults::{FaultKnobs, Strike},
    http::{self as wire, Request, Response, Server, answer},
    policy::{Context, Decision, check_session_policy, denial},
    request_id,
    sigv4::{self, Authenticated, Payload, Rejection, Scope},
};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const VERSION: &str = "2011-06-15";
const SKEW: Duration = Duration::from_secs(300);
const LIMIT: usize = 64 * 1024;
const LONGEST_POLICY: usize = 2048;

/// The STS of one account. Sessions it issues are valid at every stand-in of that account.
pub struct Sts {
    account: Arc<Account>,
    faults: FaultKnobs,
    calls: Mutex<BTreeMap<String, u64>>,
}

impl fmt::Debug for Sts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sts").field("account", &self.account.id).finish_non_exhaustive()
    }
}

/// A refusal as the Query protocol carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ValidationError", message)
    }

    fn constraint(member: &str, value: &str, rule: &str) -> Self {
        Self::invalid(format!(
            "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: Member must {rule}"
        ))
    }

    fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", message)
    }
}

type Form = BTreeMap<String, String>;

impl Sts {
    /// The STS of this account.
    #[must_use]
    pub fn new(account: Arc<Account>) -> Arc<Self> {
        Arc::new(Self { account, faults: FaultKnobs::default(), calls: Mutex::default() })
    }

    /// Answers on `listener` until the server is dropped.
    ///
    /// # Errors
    /// When the listener is not on loopback.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener) -> io::Result<Server> {
        let sts = Arc::clone(self);
        wire::serve(listener, None, LIMIT, move |request| {
            let sts = Arc::clone(&sts);
            async move {
                let account = Arc::clone(&sts.account);
                call::through(&account, "sts", request, |request| async move {
                    wire::dated(Arc::clone(&sts).answer(request).await, sts.account.clock.now())
                })
                .await
            }
        })
        .await
    }

    /// The faults that calls meet.
    #[must_use]
    pub fn faults(&self) -> &FaultKnobs {
        &self.faults
    }

    /// How often each operation was called, refused calls included.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let id = request_id::fresh();
        let (status, body) = match self.respond(&request).await {
            Ok((action, result)) => (
                StatusCode::OK,
                format!(
                    "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result>\
                     <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
                ),
            ),
            Err(refusal) => {
                let side = if refusal.status.is_server_error() { "Receiver" } else { "Sender" };
                let error =
                    [element("Type", side), element("Code", refusal.code), element("Message", &refusal.message)];
                let error = error.concat();
                (
                    refusal.status,
                    format!(
                        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error>{error}</Error><RequestId>{id}</RequestId>\
                         </ErrorResponse>"
                    ),
                )
            }
        };
        answer(status, &[("content-type", "text/xml"), ("x-amzn-requestid", &id)], body)
    }

    async fn respond(&self, request: &Request) -> Result<(&'static str, String), Refusal> {
        let form = form(request);
        let action = form.as_ref().ok().and_then(|form| match form.get("Action").map(String::as_str) {
            Some("AssumeRole") => Some("AssumeRole"),
            Some("GetCallerIdentity") => Some("GetCallerIdentity"),
            _ => None,
        });
        if let Some(action) = action {
            *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(action.to_owned()).or_default() += 1;
        }
        match self.faults.strike().await {
            Some(Strike::Throttle) => {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded"));
            }
            Some(Strike::Unavailable) => {
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "Service unavailable"));
            }
            None => {}
        }
        let caller = self.authenticate(request)?;
        let form = form?;
        let result = match action {
            Some("AssumeRole") => self.assume_role(&caller, &form)?,
            Some("GetCallerIdentity") => self.caller_identity(&caller, &form)?,
            _ => {
                let asked = form.get("Action").map(String::as_str).unwrap_or_default();
                // An operation that is missing here must be seen by whoever develops, even if the caller hides it.
                let _ = writeln!(io::stderr(), "sts: unknown action {asked:?}");
                let message = format!("Could not find operation {asked} for version {VERSION}");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "InvalidAction", message));
            }
        };
        Ok((action.unwrap_or_default(), result))
    }

    fn authenticate(&self, request: &Request) -> Result<Authenticated, Refusal> {
        let scope = Scope { service: "sts", region: &self.account.region, s3_path: false, skew: SKEW };
        sigv4::verify_header(request, Payload::Bytes(&request.body), scope, &self.account).map_err(|rejection| {
            let (code, message) = wording(&rejection);
            Refusal::new(StatusCode::FORBIDDEN, code, message)
        })
    }

    fn assume_role(&self, caller: &Authenticated, form: &Form) -> Result<String, Refusal> {
        let asked = AssumeRole::read(form)?;
        let refused = |reason: &str| {
            Refusal::denied(denial(&caller.principal, "sts:AssumeRole", asked.role_arn, reason).trim_end().to_owned())
        };
        // Whoever may assume everything still cannot assume what does not exist; AWS answers both alike.
        let prefix = format!("arn:aws:iam::{}:role/", self.account.id);
        let role_name = asked.role_arn.strip_prefix(&prefix).filter(|name| self.account.iam.has_role(name));
        let mut context = Context::new().with("sts:RoleSessionName", asked.session_name);
        if let Some(id) = asked.external_id {
            context = context.with("sts:ExternalId", id);
        }
        if let Decision::Deny { reason } = self.account.iam.assume(caller, asked.role_arn, &context) {
            return Err(refused(&reason));
        }
        let Some(role_name) = role_name else { return Err(refused("")) };

        let mut principal = self.account.session(role_name, asked.session_name, None);
        if let PrincipalKind::Role { session_policy, .. } = &mut principal.kind {
            session_policy.clone_from(&asked.policy);
        }
        let arn = principal.arn.clone();
        let expires = self.account.clock.now() + asked.duration;
        let keys = self.account.credentials.issue(principal, Some(expires));
        let user = [
            element("AssumedRoleId", &format!("{}:{}", unique_id("AROA", role_name), asked.session_name)),
            element("Arn", &arn),
        ];
        let token = keys.session_token.as_deref().unwrap_or_default();
        let credentials = [
            element("AccessKeyId", &keys.access_key_id),
            element("SecretAccessKey", &keys.secret_access_key),
            element("SessionToken", token),
            element("Expiration", &instant(expires)),
        ];
        let mut result = format!(
            "<AssumedRoleUser>{}</AssumedRoleUser><Credentials>{}</Credentials>",
            user.concat(),
            credentials.concat()
        );
        if let Some(length) = asked.policy_length {
            let packed = (length * 100).div_ceil(LONGEST_POLICY);
            result.push_str(&element("PackedPolicySize", &packed.to_string()));
        }
        Ok(result)
    }

    fn caller_identity(&self, caller: &Authenticated, form: &Form) -> Result<String, Refusal> {
        only(form, &[])?;
        let Principal { arn, kind } = &caller.principal;
        let user = match kind {
            PrincipalKind::Operator => unique_id("AIDA", arn),
            PrincipalKind::Role { role_name, session_name, .. } => {
                format!("{}:{session_name}", unique_id("AROA", role_name))
            }
        };
        let parts = [element("Arn", arn), element("UserId", &user), element("Account", &self.account.id)];
        Ok(parts.concat())
    }
}

/// The input of AssumeRole, checked.
struct AssumeRole<'a> {
    role_arn: &'a str,
    session_name: &'a str,
    external_id: Option<&'a str>,
    duration: Duration,
    policy: Option<Value>,
    policy_length: Option<usize>,
}

impl<'a> AssumeRole<'a> {
    fn read(form: &'a Form) -> Result<Self, Refusal> {
        only(form, &["RoleArn", "RoleSessionName", "DurationSeconds", "ExternalId", "Policy"])?;
        let field = |name: &str| form.get(name).map(String::as_str);
        let required = |name: &str, member: &str| {
            field(name).ok_or_else(|| {
                Refusal::invalid(format!(
                    "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not \
                     be null"
                ))
            })
        };
        let role_arn = required("RoleArn", "roleArn")?;
        length("roleArn", role_arn, 20, 2048)?;
        if !is_role_arn(role_arn) {
            return Err(Refusal::invalid(format!("{role_arn} is invalid")));
        }
        let session_name = required("RoleSessionName", "roleSessionName")?;
        length("roleSessionName", session_name, 2, 64)?;
        pattern("roleSessionName", session_name, r"[\w+=,.@-]*", "_+=,.@-")?;
        let external_id = field("ExternalId");
        if let Some(id) = external_id {
            length("externalId", id, 2, 1224)?;
            pattern("externalId", id, r"[\w+=,.@:\/-]*", "_+=,.@:/-")?;
        }
        let (policy, policy_length) = match field("Policy") {
            None => (None, None),
            Some(text) => {
                length("policy", text, 1, LONGEST_POLICY)?;
                (Some(session_policy(text)?), Some(text.len()))
            }
        };
        let duration = Duration::from_secs(duration(field("DurationSeconds"))?);
        Ok(Self { role_arn, session_name, external_id, duration, policy, policy_length })
    }
}

/// Seconds. A role's own maximum is never above an hour here, which is also the most that a chained role gets.
fn duration(text: Option<&str>) -> Result<u64, Refusal> {
    let Some(text) = text else { return Ok(3600) };
    let malformed = || Refusal::new(StatusCode::BAD_REQUEST, "MalformedInput", "DurationSeconds is not an integer");
    let seconds: i64 = text.parse().map_err(|_| malformed())?;
    let shown = |rule: &str| Refusal::constraint("durationSeconds", text, rule);
    match u64::try_from(seconds) {
        Ok(seconds @ 900..=3600) => Ok(seconds),
        Ok(3601..=43_200) => {
            Err(Refusal::invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role."))
        }
        Ok(43_201..) => Err(shown("have value less than or equal to 43200")),
        _ => Err(shown("have value greater than or equal to 900")),
    }
}

fn session_policy(text: &str) -> Result<Value, Refusal> {
    let malformed = |detail: &str| Refusal::new(StatusCode::BAD_REQUEST, "MalformedPolicyDocument", detail);
    let document: Value = serde_json::from_str(text).map_err(|_| malformed("Syntax errors in policy."))?;
    check_session_policy(&document).map_err(|faults| malformed(&faults.join("; ")))?;
    Ok(document)
}

fn is_role_arn(arn: &str) -> bool {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let [prefix, partition, service, region, account, resource] = parts.as_slice() else { return false };
    let account_is_number = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let named = resource.strip_prefix("role/").is_some_and(|name| !name.is_empty());
    *prefix == "arn" && *partition == "aws" && *service == "iam" && region.is_empty() && account_is_number && named
}

fn length(member: &str, value: &str, shortest: usize, longest: usize) -> Result<(), Refusal> {
    match value.chars().count() {
        count if count < shortest => {
            Err(Refusal::constraint(member, value, &format!("have length greater than or equal to {shortest}")))
        }
        count if count > longest => {
            Err(Refusal::constraint(member, value, &format!("have length less than or equal to {longest}")))
        }
        _ => Ok(()),
    }
}

fn pattern(member: &str, value: &str, shown: &str, marks: &str) -> Result<(), Refusal> {
    if value.chars().all(|letter| letter.is_ascii_alphanumeric() || marks.contains(letter)) {
        return Ok(());
    }
    Err(Refusal::constraint(member, value, &format!("satisfy regular expression pattern: {shown}")))
}

/// Refuses every parameter that this stand-in would otherwise silently ignore.
fn only(form: &Form, known: &[&str]) -> Result<(), Refusal> {
    match form.keys().find(|name| !["Action", "Version"].contains(&name.as_str()) && !known.contains(&name.as_str())) {
        Some(name) => Err(Refusal::invalid(format!("Parameter {name} is not implemented by this stand-in."))),
        None => Ok(()),
    }
}

fn form(request: &Request) -> Result<Form, Refusal> {
    let malformed = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, "MalformedInput", message);
    if request.method != Method::POST || request.uri.path() != "/" || request.uri.query().is_some() {
        return Err(malformed("Only POST to / is implemented by this stand-in."));
    }
    let kind = request.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
        return Err(malformed("The content type is not application/x-www-form-urlencoded"));
    }
    let mut form = Form::new();
    for (name, value) in url::form_urlencoded::parse(&request.body) {
        if form.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(malformed(&format!("{name} is given twice")));
        }
    }
    if form.get("Version").is_none_or(|version| version != VERSION) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "InvalidAction", "The version is not 2011-06-15"));
    }
    Ok(form)
}

/// How STS words a refused signature.
fn wording(rejection: &Rejection) -> (&'static str, &'static str) {
    match rejection {
        Rejection::Missing => ("MissingAuthenticationToken", "Request is missing Authentication Token"),
        Rejection::Malformed => ("IncompleteSignature", "Request signature does not conform to AWS standards"),
        Rejection::UnknownKey | Rejection::TokenInvalid => {
            ("InvalidClientTokenId", "The security token included in the request is invalid.")
        }
        Rejection::TokenExpired => ("ExpiredToken", "The security token included in the request is expired"),
        Rejection::WrongScope => {
            ("SignatureDoesNotMatch", "Credential should be scoped to a valid region and service.")
        }
        Rejection::Skew | Rejection::Expired | Rejection::TooLongExpiry => {
            ("SignatureDoesNotMatch", "Signature expired or not yet current")
        }
        Rejection::SignatureMismatch | Rejection::UnsignedHeader(_) => {
            ("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
        }
    }
}

/// An IAM unique id that is the same for the same name: 21 characters.
fn unique_id(prefix: &str, name: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let letters = hash.as_ref().iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32)));
    prefix.chars().chain(letters.map(|letter| char::from(*letter)).take(17)).collect()
}

fn instant(at: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    OffsetDateTime::from(at).format(&format).unwrap_or_default()
}

fn element(name: &str, text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' => escaped.push_str("&#xD;"),
            // What XML 1.0 cannot carry at all: a message echoes the caller's text.
            letter if letter.is_control() && letter != '\n' && letter != '\t' => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    format!("<{name}>{escaped}</{name}>")
}

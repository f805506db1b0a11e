//! What every call to a service goes through: it may be struck by a fault, and it is seen by whoever watches.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use percent_encoding::percent_decode_str;

use crate::account::Account;
use crate::faults::Strike;
use crate::faults::grammar::Kind as Fault;
use crate::faults::plan::Fate;
use crate::http::{Request, Severed};
use crate::view::Span;
use crate::view::record::{Door, Kind, Verdict};
use crate::view::shown;

/// The longest time for which a call hangs.
const HANGS: Duration = Duration::from_secs(120);
/// Answers that are remembered for stale reads, and the largest of them.
const STALE: usize = 256;
const STALE_BODY: usize = 1024 * 1024;
/// Refusals up to here are read for their code.
const REFUSAL: u64 = 64 * 1024;

/// How the running call is struck.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Struck {
    /// Fails as the service fails.
    pub(crate) strike: Option<Strike>,
    /// The caller's session counts as ended.
    pub(crate) expired: bool,
}

tokio::task_local! {
    static STRUCK: Struck;
}

/// How the running call is struck.
pub(crate) fn struck() -> Struck {
    STRUCK.try_with(|struck| *struck).unwrap_or_default()
}

/// Runs `work` as one whose caller's session has ended.
pub(crate) async fn expired<T>(work: impl Future<Output = T>) -> T {
    STRUCK.scope(Struck { expired: true, ..Struck::default() }, work).await
}

/// Answers a call to `service`.
pub(crate) async fn through<B, F>(
    account: &Account,
    service: &'static str,
    request: Request,
    answering: impl FnOnce(Request) -> F,
) -> Response<B>
where
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + From<Bytes>,
{
    if !account.view.on() && !account.faults.armed() {
        return answering(request).await;
    }
    let operation = operation(service, &request);
    let fate = account.faults.meet(service, &operation, |kind| reads(kind, &operation));
    let opened = Opened::of(account, service, &operation, &request);
    if let (Some(opened), Some(rules)) = (&opened, fate.told()) {
        opened.part.struck(&rules);
    }
    let signed = service == "s3" && account.sessions.on() && opened.as_ref().is_some_and(|opened| opened.own.is_some());
    let kept = signed.then(|| request.clone());
    let part = opened.as_ref().map(|opened| opened.part.clone());
    let response = Span::scope(part, meet(account, request, fate, answering)).await;
    if let Some(kept) = kept {
        account.sessions.note_signed(&kept, response.status().as_u16());
    }
    match opened {
        Some(opened) => opened.close(service, response).await,
        None => response,
    }
}

/// Whether a fault of this kind can fall to this operation.
fn reads(kind: Fault, operation: &str) -> bool {
    let read = ["Get", "Head", "List", "Describe"].iter().any(|verb| operation.starts_with(verb));
    !matches!(kind, Fault::Stale(_)) || read
}

async fn meet<B, F>(
    account: &Account,
    request: Request,
    fate: Fate,
    answering: impl FnOnce(Request) -> F,
) -> Response<B>
where
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + From<Bytes>,
{
    if !fate.latency.is_zero() {
        tokio::time::sleep(fate.latency).await;
    }
    let strike = |strike| Struck { strike: Some(strike), ..Struck::default() };
    match fate.kind {
        Some(Fault::Throttle) => STRUCK.scope(strike(Strike::Throttle), answering(request)).await,
        Some(Fault::Unavailable) => STRUCK.scope(strike(Strike::Unavailable), answering(request)).await,
        Some(Fault::Expired) => expired(answering(request)).await,
        Some(Fault::Reset) => severed(),
        Some(Fault::Hang) => {
            tokio::time::sleep(HANGS).await;
            severed()
        }
        Some(Fault::Lost) => {
            drop(answering(request).await);
            severed()
        }
        Some(Fault::Wrong) => changed(answering(request).await, |body| another_sign(body, fate.drawn)).await,
        Some(Fault::Cut) => changed(answering(request).await, |body| body.truncate(body.len() / 2)).await,
        Some(Fault::Stale(life)) => stale(account, request, life, answering).await,
        _ => answering(request).await,
    }
}

/// An answer that never reaches anybody: the connection ends instead.
pub(crate) fn severed<B: From<Bytes>>() -> Response<B> {
    let mut response = Response::new(B::from(Bytes::new()));
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
    response.extensions_mut().insert(Severed);
    response
}

async fn changed<B>(response: Response<B>, change: impl FnOnce(&mut Vec<u8>)) -> Response<B>
where
    B: Body<Data = Bytes> + From<Bytes>,
{
    let (mut parts, body) = response.into_parts();
    let mut bytes = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    change(&mut bytes);
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(parts, B::from(bytes.into()))
}

/// Puts another letter or digit in the place of one; what has none is left as it is.
fn another_sign(body: &mut [u8], drawn: u64) {
    let signs = body.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
    let Some(chosen) = drawn.checked_rem(u64::try_from(signs).unwrap_or(u64::MAX)) else { return };
    let chosen = usize::try_from(chosen).unwrap_or_default();
    if let Some(byte) = body.iter_mut().filter(|byte| byte.is_ascii_alphanumeric()).nth(chosen) {
        *byte = match *byte {
            b'9' => b'0',
            b'z' => b'a',
            b'Z' => b'A',
            other => other + 1,
        };
    }
}

/// Answers that were given to reads, by what was asked and by whom.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<(HashMap<Vec<u8>, Kept>, VecDeque<Vec<u8>>)>);

#[derive(Clone, Debug)]
struct Kept {
    at: Instant,
    status: http::StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

async fn stale<B, F>(
    account: &Account,
    request: Request,
    life: Duration,
    answering: impl FnOnce(Request) -> F,
) -> Response<B>
where
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + From<Bytes>,
{
    let asked = question(account, &request);
    let held = account.remembered.0.lock().unwrap_or_else(PoisonError::into_inner).0.get(&asked).cloned();
    if let Some(kept) = held.filter(|kept| kept.at.elapsed() < life) {
        let mut response = Response::new(B::from(kept.body));
        (*response.status_mut(), *response.headers_mut()) = (kept.status, kept.headers);
        return crate::http::dated(response, account.clock.now());
    }
    let (parts, body) = answering(request).await.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if parts.status.is_success() && body.len() <= STALE_BODY {
        let kept =
            Kept { at: Instant::now(), status: parts.status, headers: parts.headers.clone(), body: body.clone() };
        let mut remembered = account.remembered.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (answers, order) = &mut *remembered;
        if answers.insert(asked.clone(), kept).is_none() {
            order.push_back(asked);
        }
        while order.len() > STALE {
            if let Some(oldest) = order.pop_front() {
                answers.remove(&oldest);
            }
        }
    }
    Response::from_parts(parts, B::from(body))
}

/// What makes two reads the same: who asks, and for what.
fn question(account: &Account, request: &Request) -> Vec<u8> {
    let who = key_id(request).and_then(|id| account.credentials.find(&id)).map(|entry| entry.principal.arn);
    let target = request.headers.get("x-amz-target").map(http::HeaderValue::as_bytes).unwrap_or_default();
    let range = request.headers.get("range").map(http::HeaderValue::as_bytes).unwrap_or_default();
    let uri = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri = uri.split('&').filter(|pair| !pair.contains("X-Amz-")).collect::<Vec<_>>().join("&");
    let mut text = Vec::new();
    for part in [
        who.unwrap_or_default().as_bytes(),
        request.method.as_str().as_bytes(),
        uri.as_bytes(),
        target,
        range,
        &request.body,
    ] {
        text.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        text.extend_from_slice(part);
    }
    digest(&SHA256, &text).as_ref().to_vec()
}

/// A call that is watched.
struct Opened {
    /// The request, where the call is one of its own.
    own: Option<Span>,
    part: Span,
}

impl Opened {
    fn of(account: &Account, service: &'static str, operation: &str, request: &Request) -> Option<Self> {
        let name = format!("{service} {operation}");
        let key = key_id(request);
        if let Some(work) = key.as_deref().and_then(|key| account.view.worked_on_by(key)) {
            return Some(Self { own: None, part: work.open(Kind::Aws, &name) });
        }
        let own = account.view.begin(Door::Service, account.clock.now(), |seen| {
            seen.method = request.method.to_string();
            seen.path = shown::path(&request.uri, std::iter::empty());
            seen.route = Some(name.clone());
            seen.headers = shown::headers(&request.headers);
            let entry = key.and_then(|key| account.credentials.find(&key));
            seen.client = entry.map(|entry| shown::text(entry.principal.arn.rsplit(':').next().unwrap_or_default()));
        })?;
        let part = own.open(Kind::Aws, &name);
        Some(Self { own: Some(own), part })
    }

    async fn close<B>(self, service: &str, response: Response<B>) -> Response<B>
    where
        B: Body<Data = Bytes> + From<Bytes>,
    {
        let (code, response) = code(response).await;
        let status = response.status().as_u16();
        let severed = response.extensions().get::<Severed>().is_some();
        let outcome = match (&code, severed) {
            (_, true) => "no answer".to_owned(),
            (Some(code), _) => format!("{status} {code}"),
            (None, _) => status.to_string(),
        };
        self.part.close(&outcome);
        if let Some(own) = self.own {
            let outcome = match status {
                0..400 => "allow",
                400..500 => "deny",
                _ => "fault",
            };
            let reason = code.unwrap_or_else(|| if severed { "no_answer" } else { "signed" }.to_owned());
            let (outcome, by) = (outcome.to_owned(), service.to_owned());
            own.finish(status, |_| Some(Verdict { outcome, reason, policies: Vec::new(), by }));
        }
        response
    }
}

/// The code of a refusal, which its body names.
async fn code<B>(response: Response<B>) -> (Option<String>, Response<B>)
where
    B: Body<Data = Bytes> + From<Bytes>,
{
    let refused = response.status().is_client_error() || response.status().is_server_error();
    if !refused || response.body().size_hint().upper().is_none_or(|size| size > REFUSAL) {
        return (None, response);
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let between =
        |before: &str, after: char| Some(text.split_once(before)?.1.split(after).next().unwrap_or_default().to_owned());
    let code = between("<Code>", '<').or_else(|| between("\"__type\":\"", '"'));
    let code = code.map(|code| shown::text(code.rsplit('#').next().unwrap_or_default()));
    (code, Response::from_parts(parts, B::from(body)))
}

/// The access key id under which a request is signed.
fn key_id(request: &Request) -> Option<String> {
    let header = request.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match header {
        Some(header) => header.split("Credential=").nth(1)?.split('/').next().map(str::to_owned),
        None => key_in_query(request.uri.query()?),
    }
}

/// The access key id of a signature in a query.
pub(crate) fn key_in_query(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Credential="))?;
    let credential = percent_decode_str(value).decode_utf8().ok()?;
    credential.split('/').next().map(str::to_owned)
}

/// The operation that a request names, as AWS calls it.
fn operation(service: &str, request: &Request) -> String {
    match service {
        "s3" => s3_operation(request).to_owned(),
        "sts" => {
            let form = url::form_urlencoded::parse(&request.body);
            let action = form.into_iter().find(|(name, _)| name == "Action");
            action.map(|(_, action)| plain(&action)).unwrap_or_default()
        }
        _ => {
            let target = request.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
            plain(target.rsplit('.').next().unwrap_or_default())
        }
    }
}

/// A name of an operation, or nothing that could be taken for one.
fn plain(name: &str) -> String {
    let fits = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits && !name.is_empty() { name.to_owned() } else { "?".to_owned() }
}

fn s3_operation(request: &Request) -> &'static str {
    let path = request.uri.path().trim_start_matches('/');
    let object = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let query = request.uri.query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match (request.method.clone(), object) {
        (Method::GET, true) if has("uploadId") => "ListParts",
        (Method::GET, true) => "GetObject",
        (Method::HEAD, true) => "HeadObject",
        (Method::PUT, true) if has("uploadId") => "UploadPart",
        (Method::PUT, true) if request.headers.contains_key("x-amz-copy-source") => "CopyObject",
        (Method::PUT, true) => "PutObject",
        (Method::POST, true) if has("uploads") => "CreateMultipartUpload",
        (Method::POST, true) => "CompleteMultipartUpload",
        (Method::DELETE, true) if has("uploadId") => "AbortMultipartUpload",
        (Method::DELETE, true) => "DeleteObject",
        (Method::GET, false) if has("versions") => "ListObjectVersions",
        (Method::GET, false) if has("uploads") => "ListMultipartUploads",
        (Method::GET, false) if path.is_empty() => "ListBuckets",
        (Method::GET, false) => "ListObjectsV2",
        (Method::HEAD, false) => "HeadBucket",
        (Method::POST, false) if has("delete") => "DeleteObjects",
        (Method::POST, false) => "PostObject",
        (Method::OPTIONS, _) => "Preflight",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_differs_in_one_letter_or_digit() {
        for (body, drawn) in
            [("{\"Plaintext\":\"zZ9\"}", 9), ("{\"Plaintext\":\"zZ9\"}", 10), ("abc", 7), ("9", u64::MAX)]
        {
            let mut wrong = body.as_bytes().to_vec();
            another_sign(&mut wrong, drawn);
            let differ = body.bytes().zip(&wrong).filter(|(before, after)| before != *after).count();
            assert_eq!((differ, wrong.len()), (1, body.len()), "{body}");
            assert!(
                wrong
                    .iter()
                    .zip(body.bytes())
                    .all(|(after, before)| after.is_ascii_alphanumeric() == before.is_ascii_alphanumeric())
            );
        }
        let mut nothing = b"{}".to_vec();
        another_sign(&mut nothing, 3);
        assert_eq!(nothing, b"{}");
        another_sign(&mut [], 3);
    }

    #[test]
    fn operations_of_s3_are_told_apart() {
        for (method, target, wanted) in [
            ("GET", "/b/k", "GetObject"),
            ("GET", "/b/k/?versionId=1", "GetObject"),
            ("GET", "/b/?list-type=2", "ListObjectsV2"),
            ("GET", "/b?versions", "ListObjectVersions"),
            ("GET", "/", "ListBuckets"),
            ("PUT", "/b/k?partNumber=1&uploadId=x", "UploadPart"),
            ("PUT", "/b/k", "PutObject"),
            ("POST", "/b/k?uploads", "CreateMultipartUpload"),
            ("POST", "/b/k?uploadId=x", "CompleteMultipartUpload"),
            ("POST", "/b", "PostObject"),
            ("DELETE", "/b/k", "DeleteObject"),
        ] {
            let request = Request {
                method: method.parse().unwrap(),
                uri: target.parse().unwrap(),
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
                peer: ([127, 0, 0, 1], 1).into(),
            };
            assert_eq!(s3_operation(&request), wanted, "{method} {target}");
        }
    }
}

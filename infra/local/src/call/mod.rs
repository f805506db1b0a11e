//! What every call to a service goes through: it may be struck by a fault, and it is seen by whoever watches.

mod operation;
mod stale;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Body;

pub(crate) use self::operation::key_in_query;
use self::operation::{key_id, operation};
pub(crate) use self::stale::Remembered;
use self::stale::stale;
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
}

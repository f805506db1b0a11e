//! Reads that are answered as they were answered a while ago.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Body;

use super::operation::key_id;
use crate::account::Account;
use crate::http::Request;

/// Answers that are remembered, and the largest of them.
const STALE: usize = 256;
const STALE_BODY: usize = 1024 * 1024;

/// Answers that were given to reads, by what was asked and by whom.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Answers>);

/// By what was asked, and what was asked in its order.
type Answers = (HashMap<Vec<u8>, Kept>, VecDeque<Vec<u8>>);

#[derive(Clone, Debug)]
struct Kept {
    at: Instant,
    status: http::StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

pub(super) async fn stale<B, F>(
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

//! The S3 stand-in: path-style on loopback, strict where s3s alone is not.
//!
//! A request passes the [`guard`] (who signed what), s3s (parsing, chunked bodies, answers), [`access`] (IAM) and
//! [`operations`] (preconditions, digests) before it reaches the [`store`]. Buckets are fixed at the start and behave
//! as versioned ones, with [`lifecycle`] rules; there are no ACLs and no tags: what is not here is refused with 501 and never ignored.

mod access;
mod conditions;
mod cors;
mod digest;
mod encryption;
mod form;
mod guard;
mod lifecycle;
mod listing;
mod multipart;
mod operations;
mod policy_form;
mod refusal;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3ErrorCode, S3Result};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

use self::access::{Access, Caller};
pub use self::cors::Cors;
use self::guard::Admitted;
pub use self::lifecycle::Lifecycle;
use self::lifecycle::Lifecycles;
use self::operations::Operations;
use self::refusal::Refusal;
use self::store::{Found, Store};
use crate::account::{Account, letters};
use crate::call;
use crate::faults::{FaultKnobs, Strike};
use crate::http::{Request, Server, serve};
use crate::kms::Kms;

/// The largest body taken, 256 MiB; larger uploads are multipart ones in any case.
pub const LARGEST_BODY: usize = 256 * 1024 * 1024;

/// A committed write, as S3 tells EventBridge about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCreated {
    /// The bucket's name.
    pub bucket: String,
    /// The key, not URL-encoded.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The ETag without quotes.
    pub etag: String,
    /// The id of the new version.
    pub version_id: String,
    /// Orders the events of one key: compare as text.
    pub sequencer: String,
    /// The API call: `PutObject`, `POST Object` or `CompleteMultipartUpload`.
    pub reason: String,
    /// The id of the request that wrote it.
    pub request_id: String,
    /// The client's address.
    pub source_ip: String,
}

/// One S3 endpoint with its buckets.
pub struct S3 {
    account: Arc<Account>,
    service: S3Service,
    store: Arc<Store>,
    faults: FaultKnobs,
    calls: Mutex<BTreeMap<(&'static str, String), u64>>,
    cors: Mutex<BTreeMap<String, Cors>>,
    lifecycles: Arc<Lifecycles>,
    uploads: Arc<multipart::Uploads>,
    kms: Arc<OnceLock<Arc<Kms>>>,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3").finish_non_exhaustive()
    }
}

impl S3 {
    /// A stand-in with these buckets, empty, whose bodies are spooled under `root`. Every committed write is told to
    /// `events`.
    pub fn new(
        account: Arc<Account>,
        buckets: Vec<String>,
        root: PathBuf,
        events: UnboundedSender<ObjectCreated>,
    ) -> Arc<S3> {
        let store = Arc::new(Store::new(root, buckets, account.clock.now()));
        let uploads = Arc::new(multipart::Uploads::default());
        let (kms, lifecycles) = (Arc::new(OnceLock::new()), Arc::new(Lifecycles::default()));
        let operations = Operations {
            account: Arc::clone(&account),
            store: Arc::clone(&store),
            uploads: Arc::clone(&uploads),
            events,
            kms: Arc::clone(&kms),
            lifecycles: Arc::clone(&lifecycles),
        };
        let mut builder = S3ServiceBuilder::new(operations);
        let mut config = S3Config::default();
        // The guard has judged the time already, on the account's clock; s3s knows only the machine's.
        config.presigned_url_max_skew_time_secs = u32::MAX;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder.set_auth(Secrets(Arc::clone(&account)));
        builder.set_access(Access { account: Arc::clone(&account), store: Arc::clone(&store) });
        Arc::new(S3 {
            account,
            store,
            service: builder.build(),
            faults: FaultKnobs::default(),
            calls: Mutex::default(),
            cors: Mutex::default(),
            lifecycles,
            uploads,
            kms,
        })
    }

    /// Tells S3 whose keys those of SSE-KMS are. From then on a key that is not there, disabled or waiting for its deletion is
    /// refused; without a KMS nothing but policies speaks about keys.
    pub fn set_kms(&self, kms: Arc<Kms>) {
        // Told twice, the first stays.
        let _ = self.kms.set(kms);
    }

    /// Gives a bucket these CORS rules in place of those that it had; at first it has none.
    pub fn set_cors(&self, bucket: &str, cors: Cors) {
        self.cors.lock().unwrap_or_else(PoisonError::into_inner).insert(bucket.to_owned(), cors);
    }

    /// Gives a bucket these lifecycle rules in place of those that it had; at first it has none.
    pub fn set_lifecycle(&self, bucket: &str, lifecycle: Lifecycle) {
        self.lifecycles.set(bucket, Some(lifecycle));
    }

    /// Removes what has ended by the rules since the last time.
    fn settle(&self) {
        let now = self.account.clock.now();
        for (bucket, rules) in self.lifecycles.due(now) {
            self.store.follow(&bucket, &rules, now);
            self.uploads.follow(&bucket, &rules, now);
        }
    }

    /// Serves on this listener until the returned server is dropped.
    ///
    /// # Errors
    /// When the listener is not a loopback one.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener) -> io::Result<Server> {
        let s3 = Arc::clone(self);
        serve(listener, None, LARGEST_BODY, move |request| {
            let s3 = Arc::clone(&s3);
            async move {
                let account = Arc::clone(&s3.account);
                call::through(&account, "s3", request, |request| async move {
                    crate::http::dated(s3.handle(request).await, s3.account.clock.now())
                })
                .await
            }
        })
        .await
    }

    /// The faults of this endpoint.
    pub fn faults(&self) -> &FaultKnobs {
        &self.faults
    }

    /// How many requests came with this method for a path `/bucket/key` that starts with `prefix`, refused ones
    /// included.
    pub fn calls(&self, method: &Method, prefix: &str) -> u64 {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = calls.iter().filter(|((name, path), _)| *name == name_of(method) && path.starts_with(prefix));
        mine.map(|(_, count)| count).sum()
    }

    /// The current body of an object, for the stack's owner: neither signed nor authorised, counted or touched by faults.
    pub async fn look(&self, bucket: &str, key: &str) -> Option<Bytes> {
        self.settle();
        match self.store.find(bucket, key, None) {
            Found::Object { object, .. } => object.read().await.ok(),
            Found::DeleteMarker(_) | Found::Missing | Found::NoSuchVersion => None,
        }
    }

    async fn handle(&self, request: Request) -> Response<Body> {
        let (request_id, host_id) = (letters(16), letters(56));
        let (method, head) = (request.method.clone(), request.method == Method::HEAD);
        self.count(&request);
        self.settle();
        let cors = self.cors_of(&request);
        if let Some(answer) = cors.preflight(&request) {
            return finish(answer, head, &request_id, &host_id).await;
        }
        let origin = request.headers.get(http::header::ORIGIN).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let response = match self.faults.strike().await {
            Some(Strike::Throttle) => {
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate.").respond()
            }
            Some(Strike::Unavailable) => {
                let message = "We encountered an internal error. Please try again.";
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message).respond()
            }
            None => self.dispatch(request, &request_id).await,
        };
        let mut response = finish(response, head, &request_id, &host_id).await;
        cors.open(origin.as_deref(), &method, response.headers_mut());
        response
    }

    fn cors_of(&self, request: &Request) -> Cors {
        let bucket = request.uri.path().trim_start_matches('/').split('/').next().unwrap_or_default();
        self.cors.lock().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned().unwrap_or_default()
    }

    async fn dispatch(&self, request: Request, request_id: &str) -> Response<Body> {
        let Admitted { authenticated, request, form } = match guard::admit(request, &self.account) {
            Ok(admitted) => admitted,
            Err(refusal) => return refusal.respond(),
        };
        let caller = Caller {
            authenticated,
            request_id: request_id.to_owned(),
            source_ip: request.peer.ip().to_string(),
            now: self.account.clock.now(),
            by_form: form.is_some(),
        };
        let mut passed = http::Request::new(Body::from(request.body));
        *passed.method_mut() = request.method;
        *passed.uri_mut() = request.uri;
        *passed.headers_mut() = request.headers;
        passed.extensions_mut().insert(Arc::new(caller));
        let answered = self.service.call(passed).await.unwrap_or_else(|_| {
            let message = "We encountered an internal error. Please try again.";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message).respond()
        });
        match &form {
            Some(taken) => form::answer(taken, answered),
            None => answered,
        }
    }

    fn count(&self, request: &Request) {
        let key = (name_of(&request.method), request.uri.path().to_owned());
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }
}

/// Gives every answer what all answers of S3 carry, and no body where HTTP has none. What is no refusal passes as it is read.
async fn finish(response: Response<Body>, head: bool, request_id: &str, host_id: &str) -> Response<Body> {
    let (mut parts, mut body) = response.into_parts();
    if parts.status.is_client_error() || parts.status.is_server_error() || parts.status == StatusCode::NOT_MODIFIED {
        let said = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let said = refusal::complete(&mut parts.headers, said, request_id, host_id);
        body = if head || parts.status == StatusCode::NOT_MODIFIED {
            parts.headers.remove(http::header::CONTENT_TYPE);
            Body::empty()
        } else {
            Body::from(said)
        };
    }
    for (name, value) in [("x-amz-request-id", request_id), ("x-amz-id-2", host_id)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            parts.headers.insert(name, value);
        }
    }
    parts.headers.insert(http::header::SERVER, HeaderValue::from_static("AmazonS3"));
    Response::from_parts(parts, body)
}

/// The secrets for s3s's own verifier.
struct Secrets(Arc<Account>);

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.credentials.find(access_key) {
            Some(entry) => Ok(SecretKey::from(entry.secret)),
            None => {
                let message = "The AWS Access Key Id you provided does not exist in our records.";
                Err(refusal::error(S3ErrorCode::InvalidAccessKeyId, message))
            }
        }
    }
}

fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::POST => "POST",
        _ => "other",
    }
}

//! The way out to AWS: HTTP/1.1, over TLS to whom [`Trust`] believes.
//!
//! The SDK's own client carries HTTP/2, proxies and the machine's root store with it, and none of it is used here
//! (docs/adr/0026-a-small-way-out-to-aws.md). The pool of connections is hyper-util's, TLS rustls'.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use http::{Extensions, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{
    CaptureConnection, HttpConnector as TcpConnector, HttpInfo, capture_connection,
};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tower_service::Service;

use crate::trust::Trust;
use crate::{CONNECT_TIMEOUT, IDLE};

/// TLS 1.2 and 1.3 to servers that chain to `roots`, without a certificate of our own.
///
/// # Errors
/// Only if the cryptography compiled in knew neither version.
pub fn tls(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A client for the SDKs that opens nothing and parses no certificate until the first request leaves. Its clones share one pool.
#[must_use]
pub fn http_client(trust: Trust) -> SharedHttpClient {
    let opened: OnceLock<SharedHttpConnector> = OnceLock::new();
    http_client_fn(move |_, _| opened.get_or_init(|| open(&trust)).clone())
}

fn open(trust: &Trust) -> SharedHttpConnector {
    let config = trust.amazon_roots().map_err(BoxError::from).and_then(|roots| Ok(tls(roots)?));
    match config {
        Ok(config) => SharedHttpConnector::new(Outward::new(config, IDLE)),
        // Falling through to another trust would let a request out to somebody else.
        Err(error) => SharedHttpConnector::new(Refuse(error.to_string())),
    }
}

/// Lets nothing out.
#[derive(Debug)]
struct Refuse(String);

impl HttpConnector for Refuse {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Err(ConnectorError::user(self.0.clone().into())))
    }
}

struct Outward(Client<Dial, SdkBody>);

impl Outward {
    fn new(config: ClientConfig, idle: Duration) -> Self {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // No protocol is offered, so HTTP/1.1 is what servers speak.
        let https = HttpsConnector::from((tcp, config));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle)
            .build(Dial(https));
        Self(client)
    }
}

impl fmt::Debug for Outward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outward")
    }
}

impl HttpConnector for Outward {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let connection = capture_connection(&mut request);
        if let Some(asked) = request.extensions().get::<CaptureSmithyConnection>() {
            asked.set_connection_retriever(move || metadata(&connection));
        }
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(classified)?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// What the SDK's retries need to keep a connection that failed out of the pool.
fn metadata(connection: &CaptureConnection) -> Option<ConnectionMetadata> {
    let mut builder = ConnectionMetadata::builder().proxied(false);
    {
        let known = connection.connection_metadata();
        let mut extras = Extensions::new();
        known.as_ref()?.get_extras(&mut extras);
        let info = extras.get::<HttpInfo>();
        builder.set_local_addr(info.map(HttpInfo::local_addr)).set_remote_addr(info.map(HttpInfo::remote_addr));
    }
    let connection = connection.clone();
    let poison = move || {
        if let Some(known) = connection.connection_metadata().as_ref() {
            known.poison();
        }
    };
    Some(builder.poison_fn(poison).build())
}

/// Opens a connection within [`CONNECT_TIMEOUT`], the handshake included.
#[derive(Clone)]
struct Dial(HttpsConnector<TcpConnector>);

impl Service<Uri> for Dial {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { tokio::time::timeout(CONNECT_TIMEOUT, connecting).await? })
    }
}

/// How the SDK's retries should see what went wrong: what time or the network did may be tried again.
fn classified(error: legacy::Error) -> ConnectorError {
    if source::<Elapsed>(&error).is_some() {
        return ConnectorError::timeout(error.into());
    }
    let Some(hyper) = source::<hyper::Error>(&error) else {
        return if error.is_connect() || source::<std::io::Error>(&error).is_some() {
            ConnectorError::io(error.into())
        } else {
            ConnectorError::other(error.into(), None)
        };
    };
    if hyper.is_timeout() {
        ConnectorError::timeout(error.into())
    } else if hyper.is_user() {
        ConnectorError::user(error.into())
    } else if hyper.is_closed() || hyper.is_canceled() || source::<std::io::Error>(hyper).is_some() {
        ConnectorError::io(error.into())
    } else if hyper.is_incomplete_message() {
        // A kept connection that the server closed as the request left.
        ConnectorError::other(error.into(), Some(ErrorKind::TransientError))
    } else {
        ConnectorError::other(error.into(), None)
    }
}

fn source<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut chain = std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| error.source());
    chain.find_map(|error| error.downcast_ref())
}

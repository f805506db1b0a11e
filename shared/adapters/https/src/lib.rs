#![doc = include_str!("../README.md")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws::Trust;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use shared::port::{Document, Fault, FaultKind, Fetch};
use shared::url::HttpsUrl;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest time of one fetch, from the name to the last byte.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for one address of a host: an IPv4 address without a route must leave time for the next.
const CONNECT: Duration = Duration::from_millis(600);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A client of the public web; opens nothing until the first fetch and keeps no connection.
pub struct Https {
    trust: Trust,
    timeout: Duration,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Https {
    /// Believes the public web roots, or the configured CA instead of them.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self::with_timeout(trust, TIMEOUT)
    }

    /// As [`Https::new`] with another limit of time.
    #[must_use]
    pub fn with_timeout(trust: Trust, timeout: Duration) -> Self {
        Self { trust, timeout, tls: OnceCell::new() }
    }

    async fn exchange(&self, url: &HttpsUrl, longest: usize) -> Result<Document, Fault> {
        let tls = self.tls.get_or_try_init(|| async { configuration(&self.trust) }).await.map_err(invalid)?;
        let stream = connect(url, Arc::clone(tls)).await.map_err(unavailable)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(64)
            .max_buf_size(32 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(unavailable)?;
        let _driver = Driver(tokio::spawn(async move {
            // What goes wrong here the exchange below sees for itself.
            let _ = connection.await;
        }));
        let request = Request::get(url.target())
            .header(HOST, url.authority())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "portcullis")
            .body(Empty::<Bytes>::new())
            .map_err(invalid)?;
        let response = sender.send_request(request).await.map_err(unavailable)?;
        if response.status() != StatusCode::OK {
            return Err(Fault::new(kind(response.status()), SERVICE, "Get").caused_by(response.status().to_string()));
        }
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match Limited::new(response.into_body(), longest).collect().await {
            Ok(body) => Ok(Document { content_type, body: body.to_bytes().to_vec() }),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(invalid(error)),
            Err(error) => Err(unavailable(error)),
        }
    }
}

impl Fetch for Https {
    async fn get(&self, url: &HttpsUrl, longest: usize) -> Result<Document, Fault> {
        match tokio::time::timeout(self.timeout, self.exchange(url, longest)).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(unavailable(elapsed)),
        }
    }
}

const SERVICE: &str = "https";

/// Ends with the fetch, also when that is given up.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn configuration(trust: &Trust) -> Result<Arc<ClientConfig>, Failed> {
    let roots = if trust.is_custom() {
        trust.roots_or("")?
    } else {
        RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
    };
    Ok(Arc::new(aws::tls(roots)?))
}

async fn connect(url: &HttpsUrl, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, Failed> {
    let name = ServerName::try_from(url.host().to_owned())?;
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((url.host(), url.port())).await?.collect();
    // In the cloud there is a way out over IPv6 only.
    addresses.sort_by_key(SocketAddr::is_ipv4);
    let mut failed: Failed = "the name has no address".into();
    for address in addresses {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(TlsConnector::from(tls).connect(name, stream).await?);
            }
            Ok(Err(error)) => failed = error.into(),
            Err(elapsed) => failed = elapsed.into(),
        }
    }
    Err(failed)
}

fn kind(status: StatusCode) -> FaultKind {
    match status.as_u16() {
        401 | 403 => FaultKind::Denied,
        404 | 410 => FaultKind::NotFound,
        429 => FaultKind::Throttled,
        500.. => FaultKind::Unavailable,
        _ => FaultKind::Invalid,
    }
}

fn unavailable(cause: impl Into<Failed>) -> Fault {
    Fault::new(FaultKind::Unavailable, SERVICE, "Get").caused_by(cause)
}

fn invalid(cause: impl Into<Failed>) -> Fault {
    Fault::new(FaultKind::Invalid, SERVICE, "Get").caused_by(cause)
}

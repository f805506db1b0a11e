//! A client that keeps its connections: a new one for each request would cost more than the request.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use local::journey::Answer;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longer than the gateway waits for a function.
const PATIENCE: Duration = Duration::from_secs(40);
/// What a client of the bucket waits for.
const SIGNED: Duration = Duration::from_secs(8);

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Got {
    /// An answer.
    Answer(Answer),
    /// None, and why.
    Nothing(String),
}

impl Got {
    /// The status and, where the body has one, its stable code.
    #[must_use]
    pub fn outcome(&self) -> String {
        match self {
            Self::Answer(answer) => answer.outcome(),
            Self::Nothing(why) => format!("no answer: {why}"),
        }
    }

    /// The answer, where there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Nothing(_) => None,
        }
    }
}

/// The connections of one traveller, by where they lead.
pub struct Line {
    tls: Arc<rustls::ClientConfig>,
    open: HashMap<String, SendRequest<Full<Bytes>>>,
}

impl Line {
    /// None yet.
    #[must_use]
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self { tls, open: HashMap::new() }
    }

    /// Sends one request and reads the whole answer.
    pub async fn ask(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: Bytes) -> Got {
        let limit = if url.starts_with("https") { PATIENCE } else { SIGNED };
        match tokio::time::timeout(limit, self.exchange(method, url, headers, body)).await {
            Ok(Ok(answer)) => Got::Answer(answer),
            Ok(Err(error)) => Got::Nothing(error.to_string()),
            Err(_) => {
                // What hangs holds its connection: the next request gets another one.
                self.open.clear();
                Got::Nothing(format!("none after {} s", limit.as_secs()))
            }
        }
    }

    async fn exchange(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: Bytes) -> io::Result<Answer> {
        let uri: Uri = url.parse().map_err(io::Error::other)?;
        let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?.as_str().to_owned();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            request = request.header(*name, HeaderValue::from_str(value).map_err(io::Error::other)?);
        }
        let request = request.header("host", &authority).body(Full::new(body)).map_err(io::Error::other)?;
        let mut sender = self.sender(&uri, &authority).await?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        self.open.insert(authority, sender);
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// An open connection, or a new one.
    async fn sender(&mut self, uri: &Uri, authority: &str) -> io::Result<SendRequest<Full<Bytes>>> {
        if let Some(mut sender) = self.open.remove(authority)
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let port = uri.port_u16().ok_or(io::ErrorKind::InvalidInput)?;
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        if uri.scheme_str() != Some("https") {
            return open(stream).await;
        }
        let name = match host.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(host).map_err(io::Error::other)?,
        };
        open(TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?).await
    }
}

async fn open<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the sender, or with the server.
    tokio::spawn(connection);
    sender.ready().await.map_err(io::Error::other)?;
    Ok(sender)
}

//! A small HTTP/1.1 server and client over plain TCP or TLS, for loopback listeners.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A request whose body has been read completely.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method as sent.
    pub method: http::Method,
    /// The target as sent: path and query are raw, neither decoded nor normalised.
    pub uri: http::Uri,
    /// All headers, in order; names are lower case.
    pub headers: http::HeaderMap,
    /// The body, empty when there was none.
    pub body: Bytes,
    /// The other end of the connection.
    pub peer: SocketAddr,
}

/// Marks an answer that is not sent: its connection ends in its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Severed;

/// What a handler answers.
pub type Response = http::Response<Full<Bytes>>;

/// A running server. It and all its connections stop when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// The address it listens on.
    pub addr: SocketAddr,
    accept: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// A listener on a free port of 127.0.0.1.
pub async fn bind() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Serves `handler` on `listener`, over TLS when a configuration is given. Bodies above `limit` bytes are answered 413
/// without reaching the handler.
///
/// # Errors
/// When the listener has no local address, or listens on anything but loopback.
pub async fn serve<F, Fut, B>(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limit: usize,
    handler: F,
) -> io::Result<Server>
where
    F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = http::Response<B>> + Send,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let addr = listener.local_addr()?;
    if !addr.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the local stack listens on loopback only"));
    }
    let acceptor = tls.map(TlsAcceptor::from);
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, peer)) = accepted else { continue };
                    let _ = stream.set_nodelay(true);
                    let (acceptor, handler) = (acceptor.clone(), handler.clone());
                    connections.spawn(async move {
                        match acceptor {
                            None => connection(stream, peer, limit, handler).await,
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    connection(stream, peer, limit, handler).await;
                                }
                            }
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(Server { addr, accept: task.abort_handle() })
}

async fn connection<S, F, Fut, B>(stream: S, peer: SocketAddr, limit: usize, handler: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = http::Response<B>> + Send,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = match Limited::new(body, limit).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => {
                    let mut refused = http::Response::new(B::from(Bytes::new()));
                    *refused.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                    return Ok(refused);
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
            let response = handler(Request { method, uri, headers, body, peer }).await;
            if response.extensions().get::<Severed>().is_some() {
                Err(io::ErrorKind::ConnectionReset.into())
            } else {
                Ok(response)
            }
        }
    });
    // A connection that breaks is the client's business: it sees it, and there is nobody else to tell.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A response with this status and no body.
pub fn empty(status: http::StatusCode) -> Response {
    answer(status, &[], Bytes::new())
}

/// The answer with this moment in its `Date` (RFC 9110 §6.6.1): the SDKs correct their own clock by it, so it must be the stack's.
pub fn dated<B>(mut response: http::Response<B>, now: SystemTime) -> http::Response<B> {
    let form =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let date = OffsetDateTime::from(now).format(form).ok().and_then(|date| date.parse().ok());
    if let Some(date) = date {
        response.headers_mut().insert(http::header::DATE, date);
    }
    response
}

/// A response from parts. Headers that HTTP cannot carry are left out.
pub fn answer(status: http::StatusCode, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(name.as_bytes()), http::HeaderValue::from_str(value))
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Sends one request on a fresh connection and reads the whole answer. The scheme of `request`'s URI decides about TLS;
/// `tls` is needed for `https`. `Host` is set from the URI unless present.
///
/// # Errors
/// Connection, TLS and protocol errors; a URI without host; `https` without a TLS configuration.
pub async fn send(
    request: http::Request<Full<Bytes>>,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> io::Result<http::Response<Bytes>> {
    let uri = request.uri();
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or_else(|| invalid("the address has no host"))?.to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    if !secure {
        return exchange(stream, request).await;
    }
    let connector = TlsConnector::from(tls.ok_or_else(|| invalid("https needs a TLS configuration"))?);
    let name = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(host).map_err(|_| invalid("the host is no server name"))?,
    };
    exchange(connector.connect(name, stream).await?, request).await
}

/// Sends one request over an open connection and reads the whole answer.
pub(crate) async fn exchange<S>(stream: S, request: http::Request<Full<Bytes>>) -> io::Result<http::Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(http::header::HOST)
        && let Some(authority) = parts.uri.authority()
    {
        let host = http::HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?;
        parts.headers.insert(http::header::HOST, host);
    }
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    parts.uri = target.parse().map_err(io::Error::other)?;

    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(http::Request::from_parts(parts, body)).await.map_err(io::Error::other)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    Ok(http::Response::from_parts(parts, body))
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Ca;

    async fn echo(request: Request) -> Response {
        let seen = format!("{} {} {}", request.method, request.uri, request.body.len());
        answer(http::StatusCode::OK, &[("x-seen", &seen)], request.body)
    }

    fn post(url: String, body: &'static [u8]) -> http::Request<Full<Bytes>> {
        http::Request::post(url).body(Full::new(Bytes::from_static(body))).unwrap()
    }

    #[tokio::test]
    async fn a_request_arrives_with_its_target_as_sent() {
        let server = serve(bind().await.unwrap(), None, 10, echo).await.unwrap();
        let answer = send(post(format!("http://{}/a%20b//c?x=%2F", server.addr), b"12345"), None).await.unwrap();
        assert_eq!(answer.headers()["x-seen"], "POST /a%20b//c?x=%2F 5");
        assert_eq!(&answer.body()[..], b"12345");
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_answered_413() {
        let server = serve(bind().await.unwrap(), None, 4, echo).await.unwrap();
        let answer = send(post(format!("http://{}/", server.addr), b"12345"), None).await.unwrap();
        assert_eq!(answer.status(), 413);
    }

    #[tokio::test]
    async fn tls_is_verified_against_the_stacks_own_authority() {
        let (ours, other) = (Ca::generate().unwrap(), Ca::generate().unwrap());
        let tls = ours.server_config(&["localhost", "127.0.0.1"]).unwrap();
        let server = serve(bind().await.unwrap(), Some(tls), 10, echo).await.unwrap();
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("https://{host}:{}/", server.addr.port());
            let client = ours.client_config().unwrap();
            assert_eq!(send(post(url.clone(), b"1"), Some(client)).await.unwrap().status(), 200);
            assert!(send(post(url, b"1"), Some(other.client_config().unwrap())).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_dropped_server_answers_no_more() {
        let server = serve(bind().await.unwrap(), None, 10, echo).await.unwrap();
        let url = format!("http://{}/", server.addr);
        drop(server);
        tokio::task::yield_now().await;
        assert!(send(post(url, b"1"), None).await.is_err());
    }
}

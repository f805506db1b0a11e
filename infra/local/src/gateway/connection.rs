//! The gateway's own connections: as everywhere in the stack, but header names keep the client's spelling, because REST
//! APIs hand them on as they came. hyper knows names in lower case only, so the bytes of the head are kept as they pass.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use crate::http::{Request, Response, Severed, empty};

/// Bytes kept of what was read last; more than any head that passes the limits.
const KEPT: usize = 128 * 1024;

/// Header names as the client wrote them, by their lower-case form.
pub(super) type Spelling = BTreeMap<String, String>;

/// The running gateway. It and all its connections stop when this is dropped.
#[derive(Debug)]
pub struct Serving {
    /// The address it listens on.
    pub addr: SocketAddr,
    accept: AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Serves `handler`; bodies above `limit` bytes are answered 413 without it.
pub(super) fn serve<F, Fut>(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limit: usize,
    handler: F,
) -> io::Result<Serving>
where
    F: Fn(Request, Spelling) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send,
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
                    drop(stream.set_nodelay(true));
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
    Ok(Serving { addr, accept: task.abort_handle() })
}

async fn connection<S, F, Fut>(stream: S, peer: SocketAddr, limit: usize, handler: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request, Spelling) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send,
{
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recorder = Recorder { stream, seen: Arc::clone(&seen) };
    let service = service_fn(move |request: http::Request<Incoming>| {
        let handler = handler.clone();
        let head = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        async move {
            let (parts, body) = request.into_parts();
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            let spelling = spelling(&head, &format!("{} {target} HTTP/1.", parts.method));
            let body = match Limited::new(body, limit).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => return Ok(empty(http::StatusCode::PAYLOAD_TOO_LARGE)),
                Err(error) => return Err(io::Error::other(error)),
            };
            let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
            let response = handler(Request { method, uri, headers, body, peer }, spelling).await;
            if response.extensions().get::<Severed>().is_some() {
                Err(io::ErrorKind::ConnectionReset.into())
            } else {
                Ok(response)
            }
        }
    });
    // A connection that breaks is the client's business: it sees it, and there is nobody else to tell.
    drop(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(recorder), service)
            .await,
    );
}

/// Reads the names between the last request line of this kind and the end of its head. Whatever it misses stays lower
/// case, as if the client had written it so.
fn spelling(read: &[u8], request_line: &str) -> Spelling {
    let text = String::from_utf8_lossy(read);
    let head = text.rfind(request_line).and_then(|at| text.get(at..)).unwrap_or_default();
    let head = head.split("\r\n\r\n").next().unwrap_or_default();
    let names = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| (name.to_ascii_lowercase(), name.to_owned())).collect()
}

/// A stream that remembers what was read last.
struct Recorder<S> {
    stream: S,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorder<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend_from_slice(buffer.filled().get(before..).unwrap_or_default());
        let surplus = seen.len().saturating_sub(KEPT);
        if surplus > KEPT {
            seen.drain(..surplus);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorder<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::spelling;

    #[test]
    fn names_are_those_of_the_last_head_with_that_request_line() {
        let read = b"x-body: 1\r\nGET /a HTTP/1.1\r\nX-Old: 1\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\nX-New:2\r\n\r\nX-Late: 1\r\n";
        let names: Vec<String> = spelling(read, "GET /a HTTP/1.").into_values().collect();
        assert_eq!(names, ["Host", "X-New"]);
        assert!(spelling(read, "GET /b HTTP/1.").is_empty());
    }
}

//! The connector as the SDK's retries see it, against servers that misbehave on the wire.

#![allow(clippy::expect_used, reason = "a test whose world cannot be made has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws::{AwsSettings, CONNECT_TIMEOUT, Connector, Service};
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::error::SdkError;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityError;
use shared::config::{Environment, Reader};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
    <Arn>arn:aws:sts::111122223333:assumed-role/r/s</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>";

fn client(endpoint: &str) -> aws_sdk_sts::Client {
    let environment = Environment::from_pairs([
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL_STS", endpoint),
    ]);
    let reader = Reader::new(&environment);
    let settings = AwsSettings::read(&reader);
    reader.finish().expect("settings are complete");
    aws_sdk_sts::Client::new(&Connector::new(settings).service(Service::Sts))
}

type Failed = SdkError<GetCallerIdentityError>;

/// One attempt.
async fn once(client: &aws_sdk_sts::Client) -> Result<(), Failed> {
    let alone = aws_sdk_sts::config::Builder::new().retry_config(RetryConfig::disabled());
    client.get_caller_identity().customize().config_override(alone).send().await.map(drop)
}

/// Up to three.
async fn patiently(client: &aws_sdk_sts::Client) -> Result<(), Failed> {
    client.get_caller_identity().send().await.map(drop)
}

/// What a server does with the `n`th connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers every request.
    Good,
    /// Answers one, and closes without a word when the next has come.
    ClosesOnTheSecond,
    /// Closes when a request has come.
    Closes,
    /// Sends half an answer's head and closes.
    Halves,
}

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    /// The last manner is that of all further connections.
    async fn start(manners: &'static [Manner]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counts.0.fetch_add(1, Ordering::SeqCst);
                let manner = manners.get(number).or(manners.last()).copied().expect("a manner");
                tokio::spawn(serve(stream, manner, Arc::clone(&counts.1)));
            }
        });
        Self { address, connections, requests }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn counted(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, requests: Arc<AtomicUsize>) {
    let mut answered = 0;
    while request(&mut stream).await.is_some() {
        requests.fetch_add(1, Ordering::SeqCst);
        let whole =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
        match manner {
            Manner::Good => stream.write_all(whole.as_bytes()).await.expect("written"),
            Manner::ClosesOnTheSecond if answered == 0 => stream.write_all(whole.as_bytes()).await.expect("written"),
            Manner::Halves => return stream.write_all(b"HTTP/1.1 200 OK\r\nconte").await.expect("written"),
            Manner::Closes | Manner::ClosesOnTheSecond => return,
        }
        answered += 1;
    }
}

/// Reads one request with its body.
async fn request(stream: &mut TcpStream) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        read.extend(part.get(..count)?);
        let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
            if body.len() >= length {
                return Some(());
            }
        }
    }
}

#[tokio::test]
async fn one_connection_serves_one_call_after_the_other() {
    let server = Server::start(&[Manner::Good]).await;
    let client = client(&server.url());
    for _ in 0..5 {
        once(&client).await.expect("answered");
    }
    assert_eq!(server.counted(), (1, 5));
}

#[tokio::test]
async fn a_kept_connection_that_dies_under_a_request_is_replaced_by_a_retry() {
    let server = Server::start(&[Manner::ClosesOnTheSecond, Manner::Good]).await;
    let client = client(&server.url());
    patiently(&client).await.expect("answered");
    patiently(&client).await.expect("answered on a second connection");
    assert_eq!(server.counted(), (2, 3));
}

#[tokio::test]
async fn a_server_that_hangs_up_is_tried_again_and_told_apart_in_the_end() {
    for manners in [&[Manner::Closes][..], &[Manner::Halves]] {
        let server = Server::start(manners).await;
        let error = patiently(&client(&server.url())).await.expect_err("nobody answers");
        let SdkError::DispatchFailure(failure) = &error else { panic!("{error:?}") };
        assert!(failure.is_io() || failure.as_other().is_some(), "{failure:?}");
        assert_eq!(server.counted(), (3, 3), "three attempts, each on a connection of its own");
    }
}

#[tokio::test]
async fn nobody_there_is_an_io_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    drop(listener);
    let error = once(&client(&url)).await.expect_err("nobody listens");
    assert!(matches!(&error, SdkError::DispatchFailure(failure) if failure.is_io()), "{error:?}");
}

#[tokio::test]
async fn a_handshake_that_nobody_answers_ends_with_the_connect_timeout() {
    // Accepts by its backlog and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let url = format!("https://localhost:{}", listener.local_addr().expect("address").port());
    let since = Instant::now();
    let error = once(&client(&url)).await.expect_err("no handshake");
    assert!(matches!(&error, SdkError::DispatchFailure(failure) if failure.is_timeout()), "{error:?}");
    let took = since.elapsed();
    assert!(took >= CONNECT_TIMEOUT && took < CONNECT_TIMEOUT + Duration::from_millis(900), "{took:?}");
}

/// What the client says first: no protocol is offered, so that no server can choose HTTP/2.
#[tokio::test]
async fn the_handshake_offers_no_other_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let url = format!("https://localhost:{}", listener.local_addr().expect("address").port());
    let asking = tokio::spawn(async move { once(&client(&url)).await });
    let (mut stream, _) = listener.accept().await.expect("asked");
    let mut hello = vec![0; 16_384];
    let count = stream.read(&mut hello).await.expect("a hello");
    let mut acceptor = rustls::server::Acceptor::default();
    acceptor.read_tls(&mut hello.get(..count).expect("as much as was read")).expect("a TLS record");
    let accepted = acceptor.accept().map_err(|(error, _)| error).expect("a hello").expect("a whole one");
    let said = accepted.client_hello();
    assert!(said.alpn().is_none(), "a protocol is offered");
    let groups: Vec<_> = said.named_groups().into_iter().flatten().collect();
    assert!(groups.contains(&&rustls::NamedGroup::X25519MLKEM768), "{groups:?}");
    drop(stream);
    assert!(asking.await.expect("joined").is_err());
}

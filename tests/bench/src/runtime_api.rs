//! A Runtime API for one process that does as little as possible: what is measured is the function.
//!
//! The local stack's own Runtime API has logs, limits and a watchdog, which cost as much as a small function does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than this nothing of the bench may take for anything: a thousand fields take some peers seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

/// A running function process.
pub(crate) struct Sandbox {
    child: Child,
    polled: Option<oneshot::Sender<Vec<u8>>>,
    messages: mpsc::UnboundedReceiver<Message>,
    arn: String,
    calls: u64,
    server: JoinHandle<()>,
}

/// One call: how long the caller waited, and what came back.
pub(crate) struct Call {
    pub(crate) took: Duration,
    pub(crate) answer: Vec<u8>,
}

enum Message {
    /// The process asks for an event; it gets whatever is sent back.
    Polled(oneshot::Sender<Vec<u8>>),
    Answered {
        at: Instant,
        body: Vec<u8>,
        failed: bool,
    },
}

impl Sandbox {
    /// Starts `binary` and waits for its first poll; answers how long that took.
    pub(crate) async fn start(
        binary: &Path,
        environment: &BTreeMap<String, String>,
        log: &Path,
    ) -> io::Result<(Self, Duration)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        let (sender, messages) = mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let sender = sender.clone();
                tokio::spawn(async move {
                    // The function hangs up when it ends, which is not an error of ours.
                    let _ = connection(stream, sender).await;
                });
            }
        });
        let log = File::create(log)?;
        let mut command = Command::new(binary);
        command.env_clear().envs(environment).env("AWS_LAMBDA_RUNTIME_API", address);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let since = Instant::now();
        let child = command.spawn()?;
        let mut sandbox = Self { child, polled: None, messages, arn: String::new(), calls: 0, server };
        sandbox.arn = environment.get("AWS_LAMBDA_FUNCTION_NAME").cloned().unwrap_or_default();
        sandbox.poll().await?;
        Ok((sandbox, since.elapsed()))
    }

    /// Hands over one event and waits for its answer.
    pub(crate) async fn call(&mut self, event: &[u8]) -> io::Result<Call> {
        let answer_to = match self.polled.take() {
            Some(polled) => polled,
            None => {
                self.poll().await?;
                self.polled.take().ok_or_else(|| io::Error::other("no poll"))?
            }
        };
        self.calls += 1;
        let mut packet = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             lambda-runtime-aws-request-id: {:08x}-0000-4000-8000-000000000000\r\n\
             lambda-runtime-deadline-ms: {}\r\n\
             lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:111122223333:function:{}\r\n\
             lambda-runtime-trace-id: Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0\r\n\r\n",
            event.len(),
            self.calls,
            deadline(),
            self.arn,
        )
        .into_bytes();
        packet.extend_from_slice(event);
        let since = Instant::now();
        answer_to.send(packet).map_err(|_| io::Error::other("the function has hung up"))?;
        match self.next().await? {
            Message::Answered { at, body, failed: false } => Ok(Call { took: at - since, answer: body }),
            Message::Answered { body, .. } => {
                Err(io::Error::other(format!("the function failed: {}", String::from_utf8_lossy(&body))))
            }
            Message::Polled(_) => Err(io::Error::other("the function polled again without an answer")),
        }
    }

    /// Nanoseconds on a processor so far, all threads together.
    pub(crate) fn processor_time(&self) -> io::Result<u64> {
        let mut sum = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            sum += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(sum)
    }

    /// The most memory it has held so far, in kibibytes (`VmHWM`).
    pub(crate) fn peak_memory(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok());
        number.ok_or_else(|| io::Error::other("no VmHWM"))
    }

    async fn poll(&mut self) -> io::Result<()> {
        match self.next().await? {
            Message::Polled(answer_to) => self.polled = Some(answer_to),
            Message::Answered { .. } => return Err(io::Error::other("an answer to no event")),
        }
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Message> {
        match timeout(PATIENCE, self.messages.recv()).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) | Err(_) => Err(io::Error::other("the function says nothing")),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves one connection. lambda_runtime sends whole bodies with their length, and nothing else is understood here.
async fn connection(mut stream: TcpStream, messages: mpsc::UnboundedSender<Message>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let (poll, failed, length) = {
            let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
            let line = text.lines().next().unwrap_or_default();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
            (line.starts_with("get "), line.contains("/error "), length)
        };
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let at = Instant::now();
        let body = buffer.drain(..head + length).skip(head).collect();
        if poll {
            let (sender, receiver) = oneshot::channel();
            let _ = messages.send(Message::Polled(sender));
            let Ok(packet) = receiver.await else { return Ok(()) };
            stream.write_all(&packet).await?;
        } else {
            let _ = messages.send(Message::Answered { at, body, failed });
            stream.write_all(ACCEPTED).await?;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the function compares the deadline with the machine's clock")]
fn deadline() -> u128 {
    (SystemTime::now() + Duration::from_secs(60)).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

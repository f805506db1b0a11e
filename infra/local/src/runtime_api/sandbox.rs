//! One process of a function, from spawn to kill.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::json;
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    Event, Outcome, RESPONSE_LIMIT,
    endpoint::{Answer, Delivery, Endpoint, Stage},
};
use crate::clock::Clock;

/// Ends the function when our end of its stdin closes, whether by will or because this process was killed; reports the
/// function's own exit status. Variables that the shell adds are taken away again.
const WATCHDOG: &str = r#"exec 3<&0
env -u PWD -u OLDPWD -u SHLVL -u _ "$@" 3<&- </dev/null & child=$!
{ cat <&3; kill -KILL $child; } >/dev/null 2>&1 & watcher=$!
exec 3<&-
wait $child; status=$?
kill $watcher 2>/dev/null
exit $status"#;

/// How long a process that is to crash has the event.
const CRASHES: Duration = Duration::from_millis(4);

/// What a new process needs.
pub(super) struct Blueprint {
    pub(super) binary: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) log: PathBuf,
    pub(super) expires: SystemTime,
    pub(super) init_limit: Duration,
    pub(super) clock: Clock,
    pub(super) build: u64,
}

/// A running (or just ended) function process.
pub(super) struct Sandbox {
    endpoint: Endpoint,
    child: Child,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
    log_read: u64,
    expires: SystemTime,
    init_limit: Duration,
    clock: Clock,
    initialised: bool,
    build: u64,
    key: String,
}

/// Whether the process may see another event.
pub(super) enum Fate {
    Reusable,
    Ended,
}

/// How one event ended, before it is put into Lambda's words.
enum Ending {
    Answered(Answer),
    InitFailed(Bytes),
    InitTimedOut,
    Exited(Option<ExitStatus>),
    TimedOut,
    /// It was killed with the event in its hands, because a fault says so.
    Crashed,
    /// The process was gone before it took the event: nothing has happened yet.
    Untouched(Option<ExitStatus>),
}

impl Sandbox {
    /// Starts the process that `plan` describes, once it knows the address of its own Runtime API.
    pub(super) async fn spawn(plan: impl FnOnce(String) -> Blueprint) -> io::Result<Self> {
        let endpoint = Endpoint::open().await?;
        let blueprint = plan(endpoint.address());
        let log = OpenOptions::new().create(true).append(true).open(&blueprint.log)?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "sandbox"])
            .arg(&blueprint.binary)
            .env_clear()
            .envs(&blueprint.environment)
            // Ctrl-C is for the stack, which then ends its processes itself.
            .process_group(0)
            .current_dir(blueprint.binary.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let lifeline = child.stdin.take();
        let key = blueprint.environment.get("AWS_ACCESS_KEY_ID").cloned().unwrap_or_default();
        Ok(Self {
            endpoint,
            child,
            lifeline,
            log: blueprint.log,
            log_read: 0,
            expires: blueprint.expires,
            init_limit: blueprint.init_limit,
            clock: blueprint.clock,
            initialised: false,
            build: blueprint.build,
            key,
        })
    }

    /// When the credentials of the process end.
    pub(super) fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Which program it runs, counted.
    pub(super) fn build(&self) -> u64 {
        self.build
    }

    /// The access key id of the process.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Whether it has begun to take events.
    pub(super) fn warm(&self) -> bool {
        self.initialised
    }

    /// Hands over one event and waits for its end. `None`: the process had gone before it took the event.
    pub(super) async fn run(
        &mut self,
        event: &Event,
        function_arn: &str,
        trace_id: String,
        limit: Duration,
        crashes: bool,
    ) -> (Option<Outcome>, Fate) {
        let warm = self.initialised;
        let ending = self.attempt(event, function_arn, trace_id, limit, crashes).await;
        let fate = match &ending {
            Ending::Answered(_) => Fate::Reusable,
            _ => {
                self.kill().await;
                Fate::Ended
            }
        };
        let id = &event.request_id;
        let (payload, failed) = match ending {
            Ending::Answered(Answer::Response(body)) => (body, false),
            Ending::Answered(Answer::Error(body)) | Ending::InitFailed(body) => (body, true),
            Ending::Answered(Answer::TooLarge) => {
                let text =
                    format!("Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes).");
                (error("Function.ResponseSizeTooLarge", &text), true)
            }
            Ending::InitTimedOut => (timed_out(id, self.init_limit), true),
            Ending::TimedOut => (timed_out(id, limit), true),
            Ending::Untouched(_) if warm => return (None, fate),
            Ending::Crashed => (
                error(
                    "Runtime.ExitError",
                    &format!("RequestId: {id} Error: Runtime exited with error: signal: killed"),
                ),
                true,
            ),
            Ending::Exited(status) | Ending::Untouched(status) => (exited(id, status), true),
        };
        let outcome = Outcome {
            payload,
            function_error: failed.then(|| "Unhandled".to_owned()),
            log: self.take_log(),
            request_id: event.request_id.clone(),
        };
        (Some(outcome), fate)
    }

    /// Ends the process at once, as Lambda does with a sandbox.
    pub(super) async fn kill(&mut self) {
        drop(self.lifeline.take());
        drop(self.child.wait().await);
    }

    async fn attempt(
        &mut self,
        event: &Event,
        function_arn: &str,
        trace_id: String,
        limit: Duration,
        crashes: bool,
    ) -> Ending {
        if !self.initialised {
            tokio::select! {
                biased;
                stage = self.endpoint.initialised() => match stage {
                    Stage::InitFailed(body) => return Ending::InitFailed(body),
                    Stage::Polled => self.initialised = true,
                    Stage::Starting => return Ending::Exited(None),
                },
                status = self.child.wait() => return Ending::Exited(status.ok()),
                () = sleep(self.init_limit) => return Ending::InitTimedOut,
            }
        }
        let (answer, mut answered) = oneshot::channel();
        let delivery = Delivery {
            request_id: event.request_id.clone(),
            deadline: deadline(&self.clock, limit),
            function_arn: function_arn.to_owned(),
            trace_id,
            client_context: event.client_context.clone(),
            payload: event.payload.clone(),
            answer,
        };
        if !self.endpoint.deliver(delivery).await {
            return Ending::Untouched(None);
        }
        if crashes {
            drop(timeout(CRASHES, &mut answered).await);
            return Ending::Crashed;
        }
        tokio::select! {
            biased;
            answer = &mut answered => match answer {
                Ok(answer) => Ending::Answered(answer),
                Err(_) => Ending::Exited(self.child.wait().await.ok()),
            },
            status = self.child.wait() => match answered.try_recv() {
                Ok(answer) => Ending::Answered(answer),
                Err(_) if self.endpoint.holds(&event.request_id) => Ending::Exited(status.ok()),
                Err(_) => Ending::Untouched(status.ok()),
            },
            () = sleep(limit) => Ending::TimedOut,
        }
    }

    /// What was written since the last call; exact, because a process serves one event at a time.
    fn take_log(&mut self) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.log_read))?;
            file.read_to_end(&mut text)
        });
        self.log_read += read.unwrap_or(0) as u64;
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// By the clock that the function process compares it with.
fn deadline(clock: &Clock, limit: Duration) -> u128 {
    (clock.of_the_processes() + limit).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

fn error(kind: &str, message: &str) -> Bytes {
    Bytes::from(json!({"errorType": kind, "errorMessage": message}).to_string())
}

fn timed_out(request_id: &str, limit: Duration) -> Bytes {
    let text = format!("RequestId: {request_id} Error: Task timed out after {:.2} seconds", limit.as_secs_f64());
    error("Sandbox.Timedout", &text)
}

fn exited(request_id: &str, status: Option<ExitStatus>) -> Bytes {
    let reason = match status.and_then(|status| status.code()) {
        Some(0) => "Runtime exited without providing a reason".to_owned(),
        Some(134) => "Runtime exited with error: signal: aborted".to_owned(),
        Some(137) => "Runtime exited with error: signal: killed".to_owned(),
        Some(139) => "Runtime exited with error: signal: segmentation fault".to_owned(),
        Some(code) => format!("Runtime exited with error: exit status {code}"),
        None => "Runtime exited without providing a reason".to_owned(),
    };
    error("Runtime.ExitError", &format!("RequestId: {request_id} Error: {reason}"))
}

//! The processes of one function: lazy start, warm reuse, concurrency.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};

use super::{
    Event, Outcome,
    environment::{Surroundings, environment, trace_id},
    sandbox::{Blueprint, Fate, Sandbox},
};
use crate::{account::Account, faults::grammar::Kind as Fault, template::FunctionSpec};

/// Calls of a function without reserved concurrency that may run or wait at the same time, as in a new account.
const ACCOUNT_CONCURRENCY: usize = 1000;
/// Processes are replaced this long before their credentials end.
const CREDENTIAL_MARGIN: Duration = Duration::from_secs(60);

/// What one function needs to be run.
pub(crate) struct Plan {
    pub(crate) spec: FunctionSpec,
    pub(crate) arn: String,
    pub(crate) binary: PathBuf,
    pub(crate) logs: PathBuf,
    /// Processes of a function without reserved concurrency; further calls wait for one of them.
    pub(crate) processes: usize,
    pub(crate) init_limit: Duration,
    pub(crate) credential_life: Duration,
}

/// Why no process saw the event.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The reason as Lambda names it.
    Throttled(&'static str),
    NotStarted(io::Error),
}

/// Knobs with which a test makes a function misbehave.
#[derive(Debug, Default)]
pub(crate) struct Knobs {
    /// Throttle this many invocations.
    pub(crate) throttle: AtomicU32,
    /// Milliseconds to wait before each event.
    pub(crate) delay: AtomicU64,
}

pub(crate) struct Pool {
    plan: Plan,
    account: Arc<Account>,
    surroundings: Arc<RwLock<Surroundings>>,
    permits: Semaphore,
    calls: AtomicUsize,
    idle: Mutex<Vec<Sandbox>>,
    started: AtomicU64,
    /// Of the program: processes of an earlier one take no event any more.
    build: AtomicU64,
    closed: watch::Sender<bool>,
    pub(crate) knobs: Knobs,
}

impl Pool {
    pub(crate) fn new(plan: Plan, account: Arc<Account>, surroundings: Arc<RwLock<Surroundings>>) -> Self {
        let processes = plan.spec.reserved_concurrency.map_or(plan.processes, |reserved| reserved as usize);
        Self {
            plan,
            account,
            surroundings,
            permits: Semaphore::new(processes),
            calls: AtomicUsize::new(0),
            idle: Mutex::default(),
            started: AtomicU64::new(0),
            build: AtomicU64::new(0),
            closed: watch::Sender::new(false),
            knobs: Knobs::default(),
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Processes started so far.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Runs one event to its end. The caller spawns this: a caller that goes away does not stop the function.
    pub(crate) async fn run(&self, event: &Event) -> Result<Outcome, Refused> {
        if self.knobs.throttle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(Refused::Throttled("ReservedFunctionConcurrentInvocationLimitExceeded"));
        }
        let fate = self.account.faults.meet("function", &self.plan.spec.deployment, |_| true);
        if let (Some(seen), Some(rules)) = (&event.seen, fate.told()) {
            seen.struck(&rules);
        }
        if fate.kind == Some(Fault::Throttle) {
            return Err(Refused::Throttled("ReservedFunctionConcurrentInvocationLimitExceeded"));
        }
        let _call = Call::enter(&self.calls).ok_or(Refused::Throttled("ConcurrentInvocationLimitExceeded"))?;
        let permit = if self.plan.spec.reserved_concurrency.is_some() {
            self.permits.try_acquire().ok()
        } else {
            self.permits.acquire().await.ok()
        };
        let _permit = permit.ok_or(Refused::Throttled("ReservedFunctionConcurrentInvocationLimitExceeded"))?;
        let delay = self.knobs.delay.load(Ordering::Relaxed);
        let delay = fate.latency + Duration::from_millis(delay);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let crashes = fate.kind == Some(Fault::Crash);
        let limit = Duration::from_secs(u64::from(self.plan.spec.timeout));
        let invoked = match &event.qualifier {
            Some(qualifier) => format!("{}:{qualifier}", self.plan.arn),
            None => self.plan.arn.clone(),
        };
        let mut closed = self.closed.subscribe();
        loop {
            let mut sandbox = match self.take_idle().await {
                Some(sandbox) => sandbox,
                None => self.spawn().await.map_err(Refused::NotStarted)?,
            };
            let (began, cold) = (Instant::now(), !sandbox.warm());
            let working = event.seen.as_ref().map(|seen| seen.worked_on_by(sandbox.key()));
            let trace = trace_id(self.started());
            let (outcome, fate) = tokio::select! {
                ended = sandbox.run(event, &invoked, trace, limit, crashes) => ended,
                () = async { drop(closed.wait_for(|closed| *closed).await) } => {
                    sandbox.kill().await;
                    return Err(Refused::NotStarted(io::Error::other("the stack is shutting down")));
                }
            };
            drop(working);
            if let (Some(seen), Some(outcome)) = (&event.seen, &outcome) {
                seen.ran(began.elapsed(), cold);
                seen.said(&outcome.log);
            }
            if matches!(fate, Fate::Reusable) && sandbox.build() != self.build.load(Ordering::SeqCst) {
                sandbox.kill().await;
            } else if matches!(fate, Fate::Reusable) {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sandbox);
            }
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
    }

    /// Ends every process; later calls are refused.
    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        self.permits.close();
        self.recycle().await;
    }

    /// Another program has taken the place of the one that ran: no event that comes from now on reaches a process of the old one, and those
    /// that such a process holds end in it.
    pub(crate) async fn renew(&self) {
        self.build.fetch_add(1, Ordering::SeqCst);
        self.recycle().await;
    }

    /// Ends every process that waits for work.
    pub(crate) async fn recycle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for mut sandbox in idle {
            sandbox.kill().await;
        }
    }

    /// Everything the function's processes have written.
    pub(crate) fn log(&self) -> String {
        (1..=self.started())
            .filter_map(|ordinal| fs::read(self.log_file(ordinal)).ok())
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect()
    }

    async fn take_idle(&self) -> Option<Sandbox> {
        loop {
            let mut sandbox = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            let margin = CREDENTIAL_MARGIN.min(self.plan.credential_life / 10);
            let current = sandbox.build() == self.build.load(Ordering::SeqCst);
            if current && sandbox.expires() > self.account.clock.now() + margin {
                return Some(sandbox);
            }
            sandbox.kill().await;
        }
    }

    async fn spawn(&self) -> io::Result<Sandbox> {
        let ordinal = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let log = self.log_file(ordinal);
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        // Read before the program is: a process that started from the old one during a change counts as old.
        let build = self.build.load(Ordering::SeqCst);
        Sandbox::spawn(|runtime_api| {
            let (environment, expires) = self.environment(&runtime_api, ordinal, self.plan.credential_life);
            let (binary, init_limit) = (self.plan.binary.clone(), self.plan.init_limit);
            Blueprint { binary, environment, log, expires, init_limit, clock: self.account.clock.clone(), build }
        })
        .await
    }

    /// What process number `ordinal` sees, with a session of the role that lives for `life`, and when that session ends.
    pub(crate) fn environment(
        &self,
        runtime_api: &str,
        ordinal: u64,
        life: Duration,
    ) -> (BTreeMap<String, String>, SystemTime) {
        let spec = &self.plan.spec;
        let expires = self.account.clock.now() + life;
        let principal = self.account.session(&spec.role_name, &spec.function_name, Some(self.plan.arn.clone()));
        let keys = self.account.credentials.issue(principal, Some(expires));
        let surroundings = self.surroundings.read().unwrap_or_else(PoisonError::into_inner);
        let task_root = self.plan.binary.parent().map(PathBuf::from).unwrap_or_default();
        (environment(spec, &surroundings, &keys, runtime_api, &task_root, ordinal), expires)
    }

    fn log_file(&self, ordinal: u64) -> PathBuf {
        self.plan.logs.join(&self.plan.spec.function_name).join(format!("{ordinal:04}.log"))
    }
}

/// Counts a call for as long as it runs or waits.
struct Call<'a>(&'a AtomicUsize);

impl<'a> Call<'a> {
    fn enter(calls: &'a AtomicUsize) -> Option<Self> {
        let call = Self(calls);
        (calls.fetch_add(1, Ordering::Relaxed) < ACCOUNT_CONCURRENCY).then_some(call)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

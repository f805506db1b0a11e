//! Stands in for RDS Proxy, and for an instance's own IAM authentication, in front of a real Postgres.
//!
//! TLS only; the password is an IAM token that is held to every rule of [`token`]; the role behind its key needs
//! `rds-db:connect` on exactly this resource and user; the user must be a member of `rds_iam`. Then the client's own
//! StartupMessage goes to the server's socket, and bytes flow both ways. A refusal tells the client nothing but the
//! documented sentence: the reason is on the [`trail`](RdsEndpoint::trail).

mod borrow;
mod pins;
mod statements;
pub mod token;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_postgres::types::Type;
use tokio_rustls::TlsAcceptor;

use self::borrow::{Loan, Pool, TIMED_OUT};
use self::pins::Detector;
use self::statements::Watch;
use self::wire::{Opening, Startup};
use crate::account::Account;
use crate::ca::Ca;
use crate::call;
use crate::faults::grammar::Kind as Fault;
use crate::policy::{Context, TrailEntry};
use crate::postgres::connect_as_boot_user;
use crate::view::Span;

/// Longest time from accepting a connection to the password.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time for which a statement hangs because a fault says so.
const HANGS: Duration = Duration::from_secs(120);
const BUFFER: usize = 16 * 1024;

/// SQLSTATE `invalid_password`, with which every failed authentication ends.
const INVALID_PASSWORD: &str = "28P01";
const INVALID_AUTHORIZATION: &str = "28000";
const FEATURE_NOT_SUPPORTED: &str = "0A000";
const TOO_MANY_CONNECTIONS: &str = "53300";

/// One database endpoint: a proxy (`prx-…`) or an instance (`db-…`), by its resource id.
#[derive(Debug)]
pub struct RdsEndpoint {
    account: Arc<Account>,
    tls: Arc<rustls::ServerConfig>,
    resource_id: String,
    socket: PathBuf,
    boot: tokio::sync::Mutex<Option<tokio_postgres::Client>>,
    seen: Mutex<Seen>,
    open: AtomicUsize,
    generation: watch::Sender<u64>,
    knobs: Knobs,
}

#[derive(Debug, Default)]
struct Seen {
    pins: Vec<String>,
    round_trips: BTreeMap<String, u64>,
    connections: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Knobs {
    refuse: AtomicBool,
    lost_answers: AtomicUsize,
    most: AtomicUsize,
    latency: Mutex<Duration>,
    pool: Pool,
}

/// How the way from a client to the server ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// There is nothing to say.
    Silently,
    /// There was no database connection for what the client sent.
    Unborrowed,
}

/// A listening endpoint; stops, with all its connections, on drop.
#[derive(Debug)]
pub struct RdsServer {
    /// Where it listens.
    pub addr: SocketAddr,
    accept: AbortHandle,
}

impl Drop for RdsServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl RdsEndpoint {
    /// An endpoint that calls itself `localhost`, in front of the server whose socket is in `socket`.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn new(account: Arc<Account>, ca: &Ca, resource_id: &str, socket: &Path) -> io::Result<Arc<Self>> {
        Self::named(account, ca, &["localhost", "127.0.0.1"], resource_id, socket)
    }

    /// As [`RdsEndpoint::new`], with other names in its certificate.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn named(
        account: Arc<Account>,
        ca: &Ca,
        names: &[&str],
        resource_id: &str,
        socket: &Path,
    ) -> io::Result<Arc<Self>> {
        let mut tls = rustls::ServerConfig::clone(&*ca.server_config(names)?);
        // libpq 17 and later offer this name and hang up on any other.
        tls.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Arc::new(Self {
            account,
            tls: Arc::new(tls),
            resource_id: resource_id.to_owned(),
            socket: socket.to_owned(),
            boot: tokio::sync::Mutex::new(None),
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            generation: watch::Sender::new(0),
            knobs: Knobs {
                refuse: AtomicBool::new(false),
                lost_answers: AtomicUsize::new(0),
                most: AtomicUsize::new(usize::MAX),
                latency: Mutex::default(),
                pool: Pool::default(),
            },
        }))
    }

    /// Starts accepting. Tokens must name `localhost` and the listener's port.
    ///
    /// # Errors
    /// When the listener has no local address or is not on loopback.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener) -> io::Result<RdsServer> {
        let addr = listener.local_addr()?;
        if !addr.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the local stack listens on loopback only"));
        }
        let dialled: Arc<str> = format!("localhost:{}", addr.port()).into();
        let endpoint = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        if endpoint.knobs.refuse.load(Ordering::SeqCst) {
                            continue;
                        }
                        let _ = stream.set_nodelay(true);
                        let (endpoint, dialled) = (Arc::clone(&endpoint), Arc::clone(&dialled));
                        connections.spawn(async move {
                            // A connection that breaks is the client's business: it sees it.
                            let _ = endpoint.connection(stream, &dialled).await;
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(RdsServer { addr, accept: task.abort_handle() })
    }

    /// What would have pinned a real proxy's sessions, one line each: `user: reason: statement`.
    #[must_use]
    pub fn pins(&self) -> Vec<String> {
        self.seen().pins.clone()
    }

    /// How often clients of `user` have waited for the server since the start (Sync and simple Query messages).
    #[must_use]
    pub fn round_trips(&self, user: &str) -> u64 {
        self.seen().round_trips.get(user).copied().unwrap_or_default()
    }

    /// How many connections of `user` passed authentication since the start.
    #[must_use]
    pub fn connections(&self, user: &str) -> u64 {
        self.seen().connections.get(user).copied().unwrap_or_default()
    }

    /// How many connections are open now, those that have not passed authentication included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// The decisions about `rds-db:connect`, the oldest first, tokens that were no good included.
    #[must_use]
    pub fn trail(&self) -> Vec<TrailEntry> {
        let prefix = self.arn("");
        let mut trail = self.account.iam.trail();
        trail.retain(|entry| entry.resource.starts_with(&prefix));
        trail
    }

    /// Cuts every connection that is open now, as an idle timeout or a failover does.
    pub fn drop_connections(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Closes new connections at once while set.
    pub fn refuse_new(&self, refuse: bool) {
        self.knobs.refuse.store(refuse, Ordering::SeqCst);
    }

    /// The next `count` statements reach the server, and their connections are cut in place of an answer.
    pub fn lose_answers(&self, count: usize) {
        self.knobs.lost_answers.store(count, Ordering::SeqCst);
    }

    /// Delays every chunk towards the server.
    pub fn set_latency(&self, latency: Duration) {
        *self.knobs.latency.lock().unwrap_or_else(PoisonError::into_inner) = latency;
    }

    /// The most connections at a time.
    pub fn set_limit(&self, most: usize) {
        self.knobs.most.store(most, Ordering::SeqCst);
    }

    /// So many database connections for all clients together, each lent for a statement or a transaction, and so long a wait for one
    /// before the client is told that there was none. Without a number there are as many as are asked for, as at first.
    pub fn lend(&self, most: Option<usize>, patience: Duration) {
        self.knobs.pool.set(most, patience);
    }

    /// The ARN that `rds-db:connect` is asked for.
    #[must_use]
    pub fn arn(&self, user: &str) -> String {
        let Account { region, id, .. } = &*self.account;
        format!("arn:aws:rds-db:{region}:{id}:dbuser:{}/{user}", self.resource_id)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self, stream: TcpStream, dialled: &str) -> io::Result<()> {
        let _place = Place::take(&self.open);
        let Ok(opened) = tokio::time::timeout(HANDSHAKE, self.handshake(stream)).await else { return Ok(()) };
        let Some((mut client, startup)) = opened? else { return Ok(()) };
        if let Some((sqlstate, text)) = self.unsupported(&startup) {
            return wire::fatal(&mut client, sqlstate, &text).await;
        }
        let user = startup.parameter("user").unwrap_or_default().to_owned();
        let Ok(password) = tokio::time::timeout(HANDSHAKE, wire::ask_password(&mut client)).await else {
            return Ok(());
        };
        let password = password?;
        let fate = self.account.faults.meet("db", &user, |kind| matches!(kind, Fault::Refuse | Fault::Expired));
        if fate.kind == Some(Fault::Refuse) {
            return Ok(());
        }
        let watch = Watch::new(&self.account, &password);
        let part = watch.as_ref().and_then(|watch| watch.connects(&user));
        if let (Some(part), Some(rules)) = (&part, fate.told()) {
            part.struck(&rules);
        }
        let asked = Span::scope(part.clone(), self.admits(&user, &password, dialled));
        let admitted = if fate.kind == Some(Fault::Expired) { call::expired(asked).await } else { asked.await };
        if let Some(part) = part {
            part.close(if admitted { "let in" } else { INVALID_PASSWORD });
        }
        if !admitted {
            let text = format!(
                "The IAM authentication failed for the role {user}. Check the IAM token for this role and try again."
            );
            return wire::fatal(&mut client, INVALID_PASSWORD, &text).await;
        }
        let Ok(mut server) = UnixStream::connect(self.socket.join(".s.PGSQL.5432")).await else {
            let (sqlstate, text) = TIMED_OUT;
            return wire::fatal(&mut client, sqlstate, text).await;
        };
        server.write_all(&startup.packet).await?;
        *self.seen().connections.entry(user.clone()).or_default() += 1;
        self.pipe(client, server, &user, watch).await
    }

    /// Up to the StartupMessage inside TLS; `None` when there is nothing more to do.
    async fn handshake(
        &self,
        mut stream: TcpStream,
    ) -> io::Result<Option<(tokio_rustls::server::TlsStream<TcpStream>, Startup)>> {
        let mut gss_refused = false;
        loop {
            match wire::read_opening(&mut stream).await? {
                Opening::GssEncryption if !gss_refused => {
                    stream.write_all(b"N").await?;
                    gss_refused = true;
                }
                Opening::Ssl => break,
                Opening::Cancel(packet) => {
                    let mut server = UnixStream::connect(self.socket.join(".s.PGSQL.5432")).await?;
                    server.write_all(&packet).await?;
                    server.shutdown().await?;
                    return Ok(None);
                }
                Opening::GssEncryption | Opening::Startup(_) | Opening::Version(..) => {
                    let text = "This RDS Proxy requires TLS connections.";
                    wire::fatal(&mut stream, INVALID_AUTHORIZATION, text).await?;
                    return Ok(None);
                }
            }
        }
        // Nothing sent in clear may be taken for something sent inside (CVE-2021-23214).
        let mut early = [0; 1];
        if stream.try_read(&mut early).is_ok() {
            return Ok(None);
        }
        stream.write_all(b"S").await?;
        let mut client = TlsAcceptor::from(Arc::clone(&self.tls)).accept(stream).await?;
        match wire::read_opening(&mut client).await? {
            Opening::Startup(startup) => Ok(Some((client, startup))),
            Opening::Version(..) => {
                let text =
                    "Feature not supported: RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol.";
                wire::fatal(&mut client, FEATURE_NOT_SUPPORTED, text).await?;
                Ok(None)
            }
            Opening::Cancel(packet) => {
                let mut server = UnixStream::connect(self.socket.join(".s.PGSQL.5432")).await?;
                server.write_all(&packet).await?;
                server.shutdown().await?;
                Ok(None)
            }
            Opening::Ssl | Opening::GssEncryption => Ok(None),
        }
    }

    /// What the proxy says to a startup message that it does not serve.
    fn unsupported(&self, startup: &Startup) -> Option<(&'static str, String)> {
        if startup.parameter("user").is_none_or(str::is_empty) {
            let text =
                "The user name is missing from the connection startup packet. Provide a user name for this connection.";
            return Some((INVALID_AUTHORIZATION, text.to_owned()));
        }
        if startup.parameter("replication").is_some() {
            let text = "Feature not supported: RDS Proxy currently doesn't support streaming replication mode.";
            return Some((FEATURE_NOT_SUPPORTED, text.to_owned()));
        }
        if startup.parameter("options").is_some_and(|options| !options.is_empty()) && self.is_proxy() {
            let text = "Feature not supported: RDS Proxy currently doesn't support command-line options.";
            return Some((FEATURE_NOT_SUPPORTED, text.to_owned()));
        }
        let most = self.knobs.most.load(Ordering::SeqCst);
        (self.open.load(Ordering::SeqCst) > most).then(|| {
            let text = format!("The maximum number of client connections to the proxy exceeded {most}.");
            (TOO_MANY_CONNECTIONS, text)
        })
    }

    fn is_proxy(&self) -> bool {
        self.resource_id.starts_with("prx-")
    }

    async fn admits(&self, user: &str, password: &str, dialled: &str) -> bool {
        let expected =
            token::Expected { endpoint: dialled, user, region: &self.account.region, now: self.account.clock.now() };
        let find = |id: &str| {
            let entry = self.account.credentials.find(id)?;
            Some(token::Key { secret: entry.secret, session_token: entry.token, expires: entry.expires })
        };
        let entry = match token::verify(password, &expected, find) {
            Ok(id) => self.account.credentials.find(&id),
            Err(refusal) => {
                self.note(user, "", &refusal.to_string());
                return false;
            }
        };
        let Some(entry) = entry else { return false };
        let principal = entry.principal;
        if !self.account.iam.authorize(&principal, "rds-db:connect", &self.arn(user), &Context::new()).allowed() {
            return false;
        }
        let member = self.is_rds_iam_member(user).await;
        match member {
            Ok(true) => true,
            Ok(false) => {
                self.note(user, &principal.arn, "user is not a member of rds_iam");
                false
            }
            Err(error) => {
                self.note(user, &principal.arn, &format!("membership of rds_iam is unknown: {error}"));
                false
            }
        }
    }

    fn note(&self, user: &str, principal: &str, reason: &str) {
        self.account.iam.note(TrailEntry {
            service: "rds-db".to_owned(),
            action: "rds-db:connect".to_owned(),
            principal: principal.to_owned(),
            resource: self.arn(user),
            context: Context::new(),
            session_policy: None,
            allowed: false,
            statement: None,
            within: None,
            reason: reason.to_owned(),
        });
    }

    /// Asks the server itself. Superusers are members of nothing here, unlike in `pg_has_role`.
    async fn is_rds_iam_member(&self, user: &str) -> Result<bool, tokio_postgres::Error> {
        const QUESTION: &str = "WITH RECURSIVE holder(oid) AS (
                SELECT oid FROM pg_roles WHERE rolname = $1 AND rolcanlogin
                UNION SELECT m.roleid FROM pg_auth_members m JOIN holder h ON m.member = h.oid)
            SELECT EXISTS (SELECT 1 FROM holder JOIN pg_roles r USING (oid) WHERE r.rolname = 'rds_iam')";
        let mut boot = self.boot.lock().await;
        if boot.as_ref().is_none_or(tokio_postgres::Client::is_closed) {
            *boot = Some(connect_as_boot_user(&self.socket, "postgres").await?);
        }
        match boot.as_ref() {
            Some(client) => client.query_typed_one(QUESTION, &[(&user, Type::TEXT)]).await?.try_get(0),
            None => Ok(false),
        }
    }

    async fn pipe(
        &self,
        client: impl AsyncRead + AsyncWrite + Unpin,
        server: UnixStream,
        user: &str,
        watch: Option<Watch>,
    ) -> io::Result<()> {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_server, mut to_server) = server.into_split();
        let (armed, loan) = (AtomicBool::new(false), Loan::default());
        let forth = async {
            let mut detector = Detector::default();
            let mut buffer = vec![0; BUFFER];
            loop {
                let read = from_client.read(&mut buffer).await?;
                let chunk = buffer.get(..read).unwrap_or_default();
                if chunk.is_empty() {
                    return io::Result::Ok(Ended::Silently);
                }
                let found = detector.feed(chunk);
                let round_trips = found.round_trips;
                if found.round_trips > 0 && self.loses_an_answer() {
                    armed.store(true, Ordering::SeqCst);
                }
                watch.iter().for_each(|watch| watch.sent(chunk));
                let meets = found.round_trips > 0 && self.account.faults.armed();
                self.count(user, found);
                if meets && let ControlFlow::Break(ended) = self.struck(user, watch.as_ref(), &armed).await {
                    return Ok(ended);
                }
                if !loan.take(&self.knobs.pool, round_trips).await {
                    return Ok(Ended::Unborrowed);
                }
                let latency = *self.knobs.latency.lock().unwrap_or_else(PoisonError::into_inner);
                if !latency.is_zero() {
                    tokio::time::sleep(latency).await;
                }
                to_server.write_all(chunk).await?;
            }
        };
        let back = async {
            let mut buffer = vec![0; BUFFER];
            loop {
                let read = from_server.read(&mut buffer).await?;
                let chunk = buffer.get(..read).unwrap_or_default();
                if armed.load(Ordering::SeqCst) {
                    return io::Result::Ok(Ended::Silently);
                }
                watch.iter().for_each(|watch| watch.received(chunk));
                loan.answered(chunk);
                if chunk.is_empty() {
                    return to_client.shutdown().await.map(|()| Ended::Silently);
                }
                to_client.write_all(chunk).await?;
                to_client.flush().await?;
            }
        };
        let mut generation = self.generation.subscribe();
        let ended = tokio::select! {
            done = forth => done?,
            done = back => done?,
            _ = generation.changed() => Ended::Silently,
        };
        match ended {
            Ended::Silently => Ok(()),
            Ended::Unborrowed => wire::fatal(&mut to_client, TIMED_OUT.0, TIMED_OUT.1).await,
        }
    }

    /// Lets the faults of a statement happen before it is sent on; breaks where it must not be.
    async fn struck(&self, user: &str, watch: Option<&Watch>, armed: &AtomicBool) -> ControlFlow<Ended> {
        let fits = |kind: Fault| !matches!(kind, Fault::Refuse | Fault::Expired);
        let fate = self.account.faults.meet("db", user, fits);
        if let (Some(watch), Some(rules)) = (watch, fate.told()) {
            watch.struck(&rules);
        }
        if !fate.latency.is_zero() {
            tokio::time::sleep(fate.latency).await;
        }
        match fate.kind {
            Some(Fault::Lost) => armed.store(true, Ordering::SeqCst),
            Some(Fault::Failover) => {
                self.drop_connections();
                return ControlFlow::Break(Ended::Silently);
            }
            Some(Fault::Hang) => {
                tokio::time::sleep(HANGS).await;
                return ControlFlow::Break(Ended::Silently);
            }
            Some(Fault::Borrow) => return ControlFlow::Break(Ended::Unborrowed),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn loses_an_answer(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1);
        self.knobs.lost_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }

    fn count(&self, user: &str, found: pins::Seen) {
        let mut seen = self.seen();
        *seen.round_trips.entry(user.to_owned()).or_default() += found.round_trips;
        seen.pins.extend(found.pins.into_iter().map(|pin| format!("{user}: {pin}")));
    }
}

/// One of the connections that count against the limit.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(open: &'a AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(open)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

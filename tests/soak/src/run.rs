//! A run: storms and calms in turn, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use local::lambda::{Kind, Undelivered};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::audit::{Audited, COPIES};
use crate::leaks;
use crate::menu;
use crate::oracle::Weather;
use crate::traveller::{Phase, Plant, Tally, Traveller, Violation};
use crate::world::World;

/// How soon after a storm a small journey must pass.
const RECOVERY: Duration = Duration::from_secs(20);
/// How often an event is handed on that was given up, where the machine has much else to do.
const REPLAYS: u32 = 5;
/// How long what functions are started by may be under way after a storm.
const UNDER_WAY: Duration = Duration::from_secs(60);

/// What a run is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of everything that is drawn.
    pub seed: u64,
    /// As many operations at least; the phase that reaches it is ended in order.
    pub operations: u64,
    /// Rules of every storm, in place of the menu's.
    pub faults: Option<String>,
    /// What rules begin with that are left out of the menu.
    pub without: Vec<String>,
    /// Whether the machine has much else to do.
    pub busy: bool,
    /// Travellers.
    pub workers: usize,
    /// Operations of each in a storm, and in the calm after it.
    pub stretch: [usize; 2],
    /// The folder of the functions.
    pub binaries: PathBuf,
    /// The checkout.
    pub checkout: PathBuf,
    /// A lie.
    pub plant: Option<Plant>,
    /// No further storm after so long.
    pub longest: Option<Duration>,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The violation that ended it.
    pub violation: Option<String>,
    /// Storms.
    pub storms: u64,
    /// Operations in storms, and in calms.
    pub operations: [u64; 2],
    /// What the travellers saw.
    pub tally: Tally,
    /// Calls that were struck, by place and kind.
    pub struck: BTreeMap<String, u64>,
    /// How long after each storm a journey passed, in milliseconds.
    pub recovered: Vec<u128>,
    /// How long a revocation took to reach the gate in a calm, in milliseconds.
    pub refused: Vec<u128>,
    /// What the audits looked at.
    pub audited: Audited,
    /// Events that were given up in a storm and handed on once more.
    pub replayed: usize,
    /// How long it took.
    pub took: Duration,
    /// What the functions last said of faults, where there is a violation.
    pub said: Vec<String>,
}

/// A run that is under way.
struct Run {
    settings: Settings,
    world: Arc<World>,
    workers: Vec<Traveller>,
    scout: Traveller,
    report: Report,
    keys: i64,
    say: fn(&str),
}

/// Soaks a stack of its own; `say` is told of each phase.
///
/// # Errors
/// When the stack does not start or an operator's act on it fails.
pub async fn run(settings: Settings, say: fn(&str)) -> io::Result<Report> {
    let since = Instant::now();
    let world = Arc::new(World::open(&settings.checkout, settings.binaries.clone()).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let worker = |number| {
        let plant = settings.plant.filter(|_| number == 0);
        Traveller::new(&world, settings.seed, number, &stop).map(|one| one.planted(plant))
    };
    let workers = (0..settings.workers).map(worker).collect::<io::Result<Vec<_>>>()?;
    let scout = Traveller::new(&world, settings.seed, settings.workers, &stop)?;
    let mut run = Run { settings, world: Arc::clone(&world), workers, scout, report: Report::default(), keys: 0, say };
    let outcome = run.all().await;
    // A violation ends the run, not the stack's good order.
    let rules = world.stack.account.faults.replace("", Some(0));
    rules.map_err(io::Error::other)?;
    world.stack.stop().await;
    let said = if matches!(outcome, Ok(Err(_))) { last_words(&world) } else { Vec::new() };
    let mut report = run.done();
    report.said = said;
    report.took = since.elapsed();
    report.violation = outcome?.err().map(|violation| violation.to_string());
    if report.violation.is_none() {
        report.violation = left_running(&world).await.map(|left| format!("after the end: {left}"));
    }
    Ok(report)
}

impl Run {
    async fn all(&mut self) -> io::Result<Result<(), Violation>> {
        let begun = Instant::now();
        let mut storm = 0;
        loop {
            let done: u64 = self.workers.iter().map(|one| one.operation).sum();
            let late = self.settings.longest.is_some_and(|longest| begun.elapsed() > longest);
            if done >= self.settings.operations || late {
                break;
            }
            storm += 1;
            if let Err(violation) = self.turn(storm).await? {
                return Ok(Err(violation));
            }
        }
        self.report.storms = storm;
        self.last().await
    }

    /// A storm, and the calm after it.
    async fn turn(&mut self, storm: u64) -> io::Result<Result<(), Violation>> {
        let seed = self.settings.seed;
        let rules = self.settings.faults.clone().unwrap_or_else(|| menu::rules(seed, storm, &self.settings.without));
        (self.say)(&format!("storm {storm}: {rules}\n"));
        let phase =
            Phase { name: format!("storm {storm} [{rules}]"), weather: Weather { rules: rules.clone(), busy: false } };
        let faults = self.world.stack.account.faults.clone();
        faults.replace(&rules, Some(seed.wrapping_add(storm))).map_err(io::Error::other)?;
        let since = Instant::now();
        let [stormy, calm] = self.settings.stretch;
        if let Err(violation) = self.travel(&phase, stormy).await {
            return Ok(Err(violation));
        }
        self.report.operations[0] += u64::try_from(stormy * self.settings.workers).unwrap_or_default();
        let struck = self.note(&faults.told());
        faults.replace("", Some(0)).map_err(io::Error::other)?;
        (self.say)(&format!("  {:.1} s, {struck} calls struck; ", since.elapsed().as_secs_f64()));
        let phase = Phase { name: format!("calm {storm} (after [{rules}])"), weather: self.fine() };
        let marked = match self.recover(&phase).await {
            Ok(marked) => marked,
            Err(violation) => return Ok(Err(violation)),
        };
        if let Err(violation) = self.travel(&phase, calm).await {
            return Ok(Err(violation));
        }
        self.report.operations[1] += u64::try_from(calm * self.settings.workers).unwrap_or_default();
        self.look(&phase, marked, false).await
    }

    fn fine(&self) -> Weather {
        Weather { rules: String::new(), busy: self.settings.busy }
    }

    async fn travel(&mut self, phase: &Phase, operations: usize) -> Result<(), Violation> {
        let mut under_way = tokio::task::JoinSet::new();
        for mut worker in self.workers.drain(..) {
            let phase = phase.clone();
            under_way.spawn(async move {
                let done = worker.travel(&phase, operations).await;
                (worker, done)
            });
        }
        let (mut workers, mut outcome) = (under_way.join_all().await, Ok(()));
        workers.sort_by_key(|(worker, _)| worker.number);
        for (worker, done) in workers {
            self.workers.push(worker);
            outcome = outcome.and(done);
        }
        outcome
    }

    /// Journeys until one passes; answers when its revocation was acknowledged.
    async fn recover(&mut self, phase: &Phase) -> Result<Instant, Violation> {
        let since = Instant::now();
        // The journey itself must pass as if nobody else were there.
        let strict = Phase { name: phase.name.clone(), weather: Weather::default() };
        let marked = loop {
            match self.scout.journey(&strict).await {
                Ok(marked) => break marked,
                Err(violation) if since.elapsed() > RECOVERY => {
                    let got = format!("none passed within {} s, at last {}", RECOVERY.as_secs(), violation.got);
                    return Err(Violation {
                        got,
                        what: format!("a journey after the storm: {}", violation.what),
                        ..violation
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        self.report.recovered.push(since.elapsed().as_millis());
        let took = self.scout.refused(phase, marked).await?;
        self.report.refused.push(took.as_millis());
        (self.say)(&format!(
            "a journey passed after {:.1} s, a revocation is seen after {:.1} s; ",
            marked.saturating_duration_since(since).as_secs_f64(),
            took.as_secs_f64()
        ));
        // From here every copy of the revocations is newer than what was published for this one.
        tokio::time::sleep(COPIES).await;
        Ok(marked)
    }

    /// Everything that was acknowledged is looked for.
    async fn look(&mut self, phase: &Phase, marked: Instant, all: bool) -> io::Result<Result<(), Violation>> {
        if let Err(violation) = self.replay(phase).await {
            return Ok(Err(violation));
        }
        if let Some(plant) = self.settings.plant {
            self.plant(plant).await?;
        }
        let (mut under_way, mut outcome, mut audited) = (tokio::task::JoinSet::new(), Ok(()), Audited::default());
        for mut worker in self.workers.drain(..) {
            let phase = phase.clone();
            under_way.spawn(async move {
                let done = worker.audit(&phase, marked, all).await;
                (worker, done)
            });
        }
        let mut workers = under_way.join_all().await;
        workers.sort_by_key(|(worker, _)| worker.number);
        for (worker, done) in workers {
            self.workers.push(worker);
            match done {
                Ok(seen) => audited += seen,
                Err(violation) => outcome = Err(violation),
            }
        }
        (self.say)(&format!(
            "{} files, {} revoked tokens, {} records\n",
            audited.files, audited.tokens, audited.records
        ));
        self.report.audited += audited;
        if outcome.is_err() {
            return Ok(outcome);
        }
        let lost = self.kept().await?;
        Ok(lost.map_or(Ok(()), |got| Err(self.of_all(phase, "what is kept", got))))
    }

    fn of_all(&self, phase: &Phase, what: &str, got: String) -> Violation {
        let (phase, what) = (phase.name.clone(), what.to_owned());
        Violation { phase, worker: self.settings.workers, operation: self.scout.operation, what, got }
    }

    /// What was given up in the storm lies among the dead letters, and an operator hands it on once more (`make replay`).
    async fn replay(&mut self, phase: &Phase) -> Result<(), Violation> {
        let stack = &self.world.stack;
        if tokio::time::timeout(UNDER_WAY, stack.events.idle()).await.is_err() {
            let got = format!("still under way after {} s", UNDER_WAY.as_secs());
            return Err(self.of_all(phase, "events", got));
        }
        let given_up = stack.lambda.undelivered();
        // On a busy machine what is handed on may meet a limit of time again, and the operator tries again.
        let tries = if self.settings.busy { REPLAYS } else { 1 };
        for event in given_up.iter().skip(self.report.replayed) {
            let mut fault = self.handed_on(event).await;
            for _ in 1..tries {
                if fault.is_none() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                fault = self.handed_on(event).await;
            }
            if let Some(fault) = fault {
                let got = format!("{} does not take it: {fault}; given up before: {}", event.function, event.reason);
                return Err(self.of_all(phase, "an event that is replayed", got));
            }
        }
        self.report.replayed = given_up.len();
        Ok(())
    }

    /// Hands an event to its function once more; what it says against it.
    async fn handed_on(&self, event: &Undelivered) -> Option<String> {
        let lambda = &self.world.stack.lambda;
        match lambda.invoke(&event.function, event.payload.clone(), Kind::RequestResponse).await {
            Ok(outcome) => outcome.function_error.map(|_| String::from_utf8_lossy(&outcome.payload).into_owned()),
            Err(error) => Some(format!("{error:?}")),
        }
    }

    /// What the database has lost of what was acknowledged, and what the stack was asked that nobody may ask.
    async fn kept(&mut self) -> io::Result<Option<String>> {
        let stack = &self.world.stack;
        let stray = stack.lambda.stray_calls();
        let pins = stack.proxy.pins();
        if !stray.is_empty() || !pins.is_empty() {
            return Ok(Some(format!("calls that leave the stack: {stray:?}; pinned connections: {pins:?}")));
        }
        let files: BTreeSet<String> = rows(&self.world, "SELECT id::text FROM files").await?.into_iter().collect();
        let all = self.workers.iter().flat_map(Traveller::known_files);
        if let Some(lost) = all.into_iter().find(|id| !files.contains(*id)) {
            return Ok(Some(format!("the file {lost} is in the database no more")));
        }
        let keys = rows(&self.world, "SELECT count(*)::text FROM data_keys").await?;
        let keys: i64 = keys.first().and_then(|count| count.parse().ok()).unwrap_or_default();
        if keys < self.keys {
            return Ok(Some(format!("{} data keys, and there were {}", keys, self.keys)));
        }
        self.keys = keys;
        Ok(None)
    }

    /// Puts a lie in its place, where it is not the travellers' to tell.
    async fn plant(&mut self, plant: Plant) -> io::Result<()> {
        let remove = |table: &str, which: &str| {
            format!("SET session_replication_role = replica; DELETE FROM {table} WHERE {which}")
        };
        match plant {
            Plant::Unrevoked => {}
            Plant::LostFile => {
                let id = self.workers.iter().flat_map(Traveller::known_files).next().unwrap_or_default().to_owned();
                drop(rows(&self.world, &remove("files", &format!("id = '{id}'"))).await?);
            }
            Plant::LostKey => {
                drop(self.kept().await?);
                drop(
                    rows(&self.world, &remove("data_keys", "id = (SELECT min(id::text)::uuid FROM data_keys)")).await?,
                );
            }
            Plant::Leak => {
                use std::io::Write as _;
                let log = self.world.stack.places.directory.join("logs/portcullis-local-token/0001.log");
                let token = self.workers.iter().flat_map(|one| &one.ledger.tokens).next().map(|one| one.value.clone());
                let mut log = std::fs::OpenOptions::new().append(true).open(log)?;
                writeln!(log, "asked with {}", token.unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// The end: all of it once more, and the logs.
    async fn last(&mut self) -> io::Result<Result<(), Violation>> {
        let phase = Phase { name: "the end".to_owned(), weather: Weather::default() };
        (self.say)("the end: ");
        let marked = match self.recover(&phase).await {
            Ok(marked) => marked,
            Err(violation) => return Ok(Err(violation)),
        };
        self.report.recovered.pop();
        if let Err(violation) = self.look(&phase, marked, true).await? {
            return Ok(Err(violation));
        }
        for function in self.world.stack.lambda.functions() {
            let log = self.world.stack.lambda.log(function);
            if let Some(leak) = leaks::find(&log) {
                return Ok(Err(self.of_all(&phase, &format!("the log of {function}"), leak)));
            }
        }
        Ok(Ok(()))
    }

    /// Adds up what was struck.
    fn note(&mut self, told: &serde_json::Value) -> u64 {
        let mut all = 0;
        for rule in told["rules"].as_array().into_iter().flatten() {
            let source = rule["rule"].as_str().unwrap_or_default();
            let name: Vec<&str> = source.split([' ', '=']).take(2).collect();
            let struck = rule["struck"].as_u64().unwrap_or_default();
            *self.report.struck.entry(name.join(" ")).or_default() += struck;
            all += struck;
        }
        all
    }

    fn done(self) -> Report {
        let mut report = self.report;
        for worker in self.workers.into_iter().chain([self.scout]) {
            let tally = worker.tally;
            report.tally.asked += tally.asked;
            report.tally.right += tally.right;
            report.tally.late += tally.late;
            report.tally.calm += tally.calm;
            for (into, from) in report.tally.fields.iter_mut().zip(tally.fields) {
                *into += from;
            }
            tally.deeds.into_iter().for_each(|(deed, count)| *report.tally.deeds.entry(deed).or_default() += count);
            tally.faults.into_iter().for_each(|(fault, count)| *report.tally.faults.entry(fault).or_default() += count);
        }
        report
    }
}

/// The last lines of each function in which something failed.
fn last_words(world: &World) -> Vec<String> {
    let mut said = Vec::new();
    for function in world.stack.lambda.functions() {
        let log = world.stack.lambda.log(function);
        let failed = |line: &&str| line.contains("fault") && leaks::find(line).is_none();
        let lines: Vec<&str> = log.lines().filter(failed).collect();
        let from = lines.len().saturating_sub(12);
        said.extend(lines.get(from..).unwrap_or_default().iter().map(|line| format!("{function}: {line}")));
    }
    said
}

/// The first column of what the database's owner is answered.
async fn rows(world: &World, sql: &str) -> io::Result<Vec<String>> {
    let (client, connection) =
        tokio_postgres::connect(&world.stack.postgres.admin_url(), NoTls).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let answered = client.simple_query(sql).await.map_err(io::Error::other)?;
    connection.abort();
    let text = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(answered.iter().filter_map(text).collect())
}

/// A function's process that is there after all were stopped.
async fn left_running(world: &World) -> Option<String> {
    let programs: BTreeSet<PathBuf> =
        world.stack.lambda.functions().filter_map(|function| world.stack.lambda.binary(function)).collect();
    let own = std::process::id().to_string();
    let child = |process: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.to_owned();
        let program = std::fs::read_link(process.path().join("exe")).ok()?;
        (parent == own && programs.contains(&program)).then(|| program.display().to_string())
    };
    for _ in 0..20 {
        let left = std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| child(&process));
        left.as_ref()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|process| child(&process))
        .map(|left| format!("{left} still runs"))
}

impl Report {
    /// The report as people read it.
    #[must_use]
    pub fn text(&self) -> String {
        let list = |counts: &mut dyn Iterator<Item = (String, u64)>| {
            let mut counts: Vec<(String, u64)> = counts.collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let struck: u64 = self.struck.values().sum();
        let faults: u64 = self.tally.faults.values().sum();
        let most = |all: &[u128]| {
            let mut all = all.to_vec();
            all.sort_unstable();
            let of = |at: usize| all.get(at).copied().unwrap_or_default();
            format!("median {} ms, at most {} ms", of(all.len() / 2), of(all.len().saturating_sub(1)))
        };
        format!(
            "\n{} operations in {} storms and {} in the calms after them, {} requests, {:.0} s\n\
             operations: {}\n\
             answers: {} right, {faults} faults that may be, {} of them in calms: {}\n\
             struck: {struck} calls: {}\n\
             a journey passed after a storm: {}\n\
             a revocation was seen in a calm: {}\n\
             {} fields encrypted, {} openings; looked for and found: {} times a file, {} times a revoked token refused (and {} times admitted once more by a slow re-read), {} times a record; {} events were given up and replayed\n",
            self.operations[0],
            self.storms,
            self.operations[1],
            self.tally.asked,
            self.took.as_secs_f64(),
            list(&mut self.tally.deeds.iter().map(|(name, count)| ((*name).to_owned(), *count))),
            self.tally.right,
            self.tally.calm,
            list(&mut self.tally.faults.iter().map(|(name, count)| (name.clone(), *count))),
            list(&mut self.struck.iter().map(|(name, count)| (name.clone(), *count))),
            most(&self.recovered),
            most(&self.refused),
            self.tally.fields[0],
            self.tally.fields[1],
            self.audited.files,
            self.audited.tokens,
            self.tally.late,
            self.audited.records,
            self.replayed,
        )
    }
}

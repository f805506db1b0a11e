//! The fleet: requests come through API Gateway to environments of Lambda, which ask S3, SSM, KMS and a database.

use crate::event::{Agenda, Chance, Seconds};
use crate::quota::{Bucket, Servers};

/// What AWS allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quotas {
    /// Requests a second that API Gateway lets in, and at once.
    pub gateway: (f64, f64),
    /// Lambda: how many at once.
    pub concurrency: u64,
    /// Lambda: how many calls a second.
    pub invocations: f64,
    /// Lambda: new environments of one function a second, and at once.
    pub growth: (f64, f64),
    /// KMS: signatures a second.
    pub kms: f64,
    /// SSM: parameters read a second.
    pub ssm: f64,
    /// S3: objects read a second, of one prefix.
    pub s3: f64,
    /// The database: connections behind the proxy.
    pub connections: u64,
}

impl Quotas {
    /// None at all, to see what would be asked for.
    pub const LIFTED: Self = Self {
        gateway: (f64::INFINITY, f64::INFINITY),
        concurrency: u64::MAX,
        invocations: f64::INFINITY,
        growth: (f64::INFINITY, f64::INFINITY),
        kms: f64::INFINITY,
        ssm: f64::INFINITY,
        s3: f64::INFINITY,
        connections: u64::MAX,
    };
}

/// Where a function's signing key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// It signs nothing.
    Nothing,
    /// In KMS: each call asks.
    Kms,
    /// In a parameter: each new environment asks once.
    Ssm,
}

/// One function.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// A warm call's time on its share of a processor.
    pub work: Seconds,
    /// What a new environment takes besides: the platform's part, start-up, and what the first answer takes longer.
    pub cold: Seconds,
    /// Database statements a call.
    pub statements: u64,
    /// Where its key is.
    pub signs: Signs,
    /// Trust objects that a new environment reads; the first of them again when `fresh` is over.
    pub objects: u64,
}

/// A kind of request.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Of a thousand requests.
    pub share: u64,
    /// Whether the authorizer, which is the first function, comes before.
    pub gated: bool,
    /// The function behind it; none where the application itself answers.
    pub function: Option<usize>,
}

/// How long the others take, and for how long what was read is fresh.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// S3, all objects side by side.
    pub s3: Seconds,
    /// KMS.
    pub kms: Seconds,
    /// SSM.
    pub ssm: Seconds,
    /// A statement, on the mean; a connection is held so long.
    pub statement: Seconds,
    /// Whether statements take exactly so long; exponential otherwise.
    pub statement_fixed: bool,
    /// How long revocations are fresh.
    pub fresh: Seconds,
    /// Whoever waits longer for anything gives up.
    pub patience: Seconds,
}

/// Everything that a run is made of.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The authorizer first.
    pub functions: Vec<Function>,
    /// Shares of all of them make a thousand.
    pub kinds: Vec<Kind>,
    /// The others.
    pub waits: Waits,
    /// What is allowed.
    pub quotas: Quotas,
}

/// What comes.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// So many a second on the mean, as independent people come, for so long.
    Rate(f64, Seconds),
    /// So many in one moment.
    AtOnce(u64),
}

/// Who said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// API Gateway's rate.
    Gateway,
    /// Lambda's number at once.
    Concurrency,
    /// Lambda's calls a second.
    Invocations,
    /// Lambda's new environments.
    Growth,
    /// KMS, until patience ended.
    Kms,
    /// SSM, until patience ended.
    Ssm,
    /// S3, to a new environment, until patience ended.
    S3,
    /// No connection until patience ended.
    Database,
}

impl Refusal {
    /// All of them, in the order in which a request meets them.
    pub const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Invocations,
        Self::Concurrency,
        Self::Growth,
        Self::S3,
        Self::Ssm,
        Self::Kms,
        Self::Database,
    ];
}

/// What became of the requests of one part of a run.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Answered.
    pub served: u64,
    /// Refused, by whom: in the order of [`Refusal::ALL`].
    pub refused: [u64; 8],
    /// How long those that were answered took.
    pub took: Vec<Seconds>,
}

impl Part {
    /// All that came.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.served + self.refused.iter().sum::<u64>()
    }

    /// How many this one refused.
    #[must_use]
    pub fn refused_by(&self, refusal: Refusal) -> u64 {
        Refusal::ALL.iter().zip(self.refused).find(|(one, _)| **one == refusal).map_or(0, |(_, count)| count)
    }

    /// The time within which this share of the answered was.
    #[must_use]
    pub fn quantile(&self, at: f64) -> Seconds {
        let mut sorted = self.took.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len().saturating_sub(1) as f64 * at).round() as usize;
        sorted.get(place).copied().unwrap_or_default()
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Those that came while the fleet was cold, and those that came after.
    pub parts: [Part; 2],
    /// The most in one second: requests, calls of Lambda, signatures, parameters, objects.
    pub peaks: Peaks,
    /// Seconds that statements waited for a connection, on the mean.
    pub waited: Seconds,
}

/// The most that was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peaks {
    /// Requests in a second.
    pub gateway: u64,
    /// Calls of Lambda in a second.
    pub invocations: u64,
    /// At once.
    pub concurrency: u64,
    /// New environments of one function in a second.
    pub growth: u64,
    /// Environments in the end.
    pub environments: u64,
    /// Signatures in a second.
    pub kms: u64,
    /// Parameters in a second.
    pub ssm: u64,
    /// Objects in a second.
    pub s3: u64,
    /// Connections in use at once.
    pub connections: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Comes,
    Goes(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Enter,
    Trust,
    Key,
    Work,
    Sign,
    Ask,
    Answer,
    Leave,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    kind: Kind,
    function: usize,
    behind: bool,
    part: usize,
    came: Seconds,
    step: Step,
    cold: bool,
    environment: usize,
    /// Since when it tries what it is refused, and how often it did.
    since: Seconds,
    tries: i32,
    statements: u64,
}

#[derive(Clone, Debug, Default)]
struct Pool {
    idle: Vec<usize>,
    /// When each environment read its revocations.
    read: Vec<Seconds>,
}

struct Run<'a> {
    fleet: &'a Fleet,
    chance: Chance,
    agenda: Agenda<What>,
    requests: Vec<Request>,
    free: Vec<usize>,
    pools: Vec<Pool>,
    at_once: u64,
    most_at_once: u64,
    gateway: Bucket,
    invocations: Bucket,
    growth: Vec<Bucket>,
    kms: Bucket,
    ssm: Bucket,
    s3: Bucket,
    database: Servers<usize>,
    parts: [Part; 2],
    /// From here on the second part is counted.
    warm: Seconds,
}

/// Runs it. What comes before `warm` is the first part.
#[must_use]
pub fn run(fleet: &Fleet, load: Load, warm: Seconds, seed: u64) -> Outcome {
    let quotas = fleet.quotas;
    let plain = |rate: f64| Bucket::new(rate, rate);
    let mut run = Run {
        fleet,
        chance: Chance::new(seed),
        agenda: Agenda::default(),
        requests: Vec::new(),
        free: Vec::new(),
        pools: vec![Pool::default(); fleet.functions.len()],
        at_once: 0,
        most_at_once: 0,
        gateway: Bucket::new(quotas.gateway.0, quotas.gateway.1),
        invocations: plain(quotas.invocations),
        growth: vec![Bucket::new(quotas.growth.0, quotas.growth.1); fleet.functions.len()],
        kms: plain(quotas.kms),
        ssm: plain(quotas.ssm),
        s3: plain(quotas.s3),
        database: Servers::new(quotas.connections),
        parts: [Part::default(), Part::default()],
        warm,
    };
    run.go(load);
    let environments = run.pools.iter().map(|pool| pool.read.len() as u64).sum();
    let waited = if run.database.asked == 0 { 0.0 } else { run.database.waited / run.database.asked as f64 };
    let peaks = Peaks {
        gateway: run.gateway.tally.peak,
        invocations: run.invocations.tally.peak,
        concurrency: run.most_at_once,
        growth: run.growth.iter().map(|bucket| bucket.tally.peak).max().unwrap_or_default(),
        environments,
        kms: run.kms.tally.peak,
        ssm: run.ssm.tally.peak,
        s3: run.s3.tally.peak,
        connections: run.database.peak,
    };
    Outcome { parts: run.parts, peaks, waited }
}

impl Run<'_> {
    fn go(&mut self, load: Load) {
        match load {
            Load::AtOnce(count) => (0..count).for_each(|_| self.agenda.plan(0.0, What::Comes)),
            Load::Rate(rate, _) => {
                let first = self.chance.exponential(1.0 / rate);
                self.agenda.plan(first, What::Comes);
            }
        }
        while let Some((now, what)) = self.agenda.earliest() {
            match what {
                What::Comes => {
                    if let Load::Rate(rate, end) = load {
                        let next = now + self.chance.exponential(1.0 / rate);
                        if next < end {
                            self.agenda.plan(next, What::Comes);
                        }
                    }
                    self.comes(now);
                }
                What::Goes(request) => self.goes(now, request),
            }
        }
    }

    fn comes(&mut self, now: Seconds) {
        let part = usize::from(now >= self.warm);
        if !self.gateway.take(now) {
            self.count(part, Refusal::Gateway);
            return;
        }
        let mut lot = (self.chance.unit() * 1_000.0) as u64;
        let chosen = self.fleet.kinds.iter().find(|kind| {
            let mine = lot < kind.share;
            lot = lot.saturating_sub(kind.share);
            mine
        });
        let Some(&kind) = chosen.or(self.fleet.kinds.last()) else { return };
        let function = if kind.gated { 0 } else { kind.function.unwrap_or_default() };
        let request = Request {
            kind,
            function,
            behind: !kind.gated,
            part,
            came: now,
            step: Step::Enter,
            cold: false,
            environment: 0,
            since: now,
            tries: 0,
            statements: 0,
        };
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(one) = self.requests.get_mut(place) {
                    *one = request;
                }
                place
            }
            None => {
                self.requests.push(request);
                self.requests.len() - 1
            }
        };
        self.goes(now, place);
    }

    /// Goes as far as it can now.
    fn goes(&mut self, now: Seconds, place: usize) {
        let Some(mut request) = self.requests.get(place).copied() else { return };
        loop {
            let went = self.step(now, place, &mut request);
            if let Some(one) = self.requests.get_mut(place) {
                *one = request;
            }
            match went {
                Went::On => {}
                Went::Later(after) => return self.agenda.plan(now + after, What::Goes(place)),
                Went::Waits => return,
                Went::Out(refusal) => {
                    match refusal {
                        Some(refusal) => self.count(request.part, refusal),
                        None => {
                            if let Some(part) = self.parts.get_mut(request.part) {
                                part.served += 1;
                                part.took.push(now - request.came);
                            }
                        }
                    }
                    self.free.push(place);
                    return;
                }
            }
        }
    }

    fn step(&mut self, now: Seconds, place: usize, request: &mut Request) -> Went {
        let Some(&function) = self.fleet.functions.get(request.function) else { return Went::Out(None) };
        let waits = self.fleet.waits;
        let next = |request: &mut Request, step| (request.step, request.since, request.tries) = (step, now, 0);
        match request.step {
            Step::Enter => return self.enter(now, request, &function),
            Step::Trust => {
                let reads = self.reads(now, request, &function);
                // All of them are asked; a new environment needs each, another goes on with what it has.
                let refused = (0..reads).filter(|_| !self.s3.take(now)).count();
                if refused > 0 && request.cold {
                    return self.again(now, request, Refusal::S3);
                }
                next(request, Step::Key);
                return if reads > 0 { Went::Later(waits.s3) } else { Went::On };
            }
            Step::Key => {
                if request.cold && function.signs == Signs::Ssm {
                    if !self.ssm.take(now) {
                        return self.again(now, request, Refusal::Ssm);
                    }
                    next(request, Step::Work);
                    return Went::Later(waits.ssm);
                }
                next(request, Step::Work);
            }
            Step::Work => {
                request.statements = function.statements;
                next(request, Step::Sign);
                return Went::Later(function.work);
            }
            Step::Sign => {
                if function.signs == Signs::Kms {
                    if !self.kms.take(now) {
                        return self.again(now, request, Refusal::Kms);
                    }
                    next(request, Step::Ask);
                    return Went::Later(waits.kms);
                }
                next(request, Step::Ask);
            }
            Step::Ask if request.statements == 0 => next(request, Step::Leave),
            Step::Ask => {
                next(request, Step::Answer);
                return if self.database.come(now, place) { Went::Later(self.statement()) } else { Went::Waits };
            }
            Step::Answer => {
                request.statements -= 1;
                next(request, Step::Ask);
                self.hand_on(now);
            }
            Step::Leave => return self.leave(request),
        }
        Went::On
    }

    /// To an environment, if Lambda lets it.
    fn enter(&mut self, now: Seconds, request: &mut Request, function: &Function) -> Went {
        if !self.invocations.take(now) {
            return Went::Out(Some(Refusal::Invocations));
        }
        if self.at_once >= self.fleet.quotas.concurrency {
            return Went::Out(Some(Refusal::Concurrency));
        }
        let pool = self.pools.get_mut(request.function).zip(self.growth.get_mut(request.function));
        let Some((pool, growth)) = pool else { return Went::Out(None) };
        let idle = pool.idle.pop();
        request.cold = idle.is_none();
        request.environment = match idle {
            Some(environment) => environment,
            None if !growth.take(now) => return Went::Out(Some(Refusal::Growth)),
            None => {
                pool.read.push(f64::NEG_INFINITY);
                pool.read.len() - 1
            }
        };
        self.at_once += 1;
        self.most_at_once = self.most_at_once.max(self.at_once);
        (request.step, request.since, request.tries) = (Step::Trust, now, 0);
        if request.cold { Went::Later(function.cold) } else { Went::On }
    }

    /// How many trust objects are due.
    fn reads(&mut self, now: Seconds, request: &Request, function: &Function) -> u64 {
        let pool = self.pools.get_mut(request.function);
        let Some(read) = pool.and_then(|pool| pool.read.get_mut(request.environment)) else { return 0 };
        let due = now - *read >= self.fleet.waits.fresh;
        if due {
            *read = now;
        }
        if request.cold { function.objects } else { u64::from(due && function.objects > 0) }
    }

    /// Tries the same once more, later by chance, until patience ends.
    fn again(&mut self, now: Seconds, request: &mut Request, refusal: Refusal) -> Went {
        let most = 2.0_f64.min(0.1 * 2.0_f64.powi(request.tries));
        let after = self.chance.unit() * most;
        request.tries += 1;
        if now + after - request.since > self.fleet.waits.patience {
            self.release(request);
            return Went::Out(Some(refusal));
        }
        Went::Later(after)
    }

    fn statement(&mut self) -> Seconds {
        let waits = self.fleet.waits;
        if waits.statement_fixed { waits.statement } else { self.chance.exponential(waits.statement) }
    }

    /// The connection goes to whoever waited longest and has not given up.
    fn hand_on(&mut self, now: Seconds) {
        while let Some(next) = self.database.leave(now) {
            let Some(request) = self.requests.get(next).copied() else { continue };
            if now - request.since <= self.fleet.waits.patience {
                let statement = self.statement();
                self.agenda.plan(now + statement, What::Goes(next));
                return;
            }
            self.release(&request);
            self.count(request.part, Refusal::Database);
            self.free.push(next);
        }
    }

    /// The environment is free for the next.
    fn release(&mut self, request: &Request) {
        self.at_once -= 1;
        if let Some(pool) = self.pools.get_mut(request.function) {
            pool.idle.push(request.environment);
        }
    }

    fn leave(&mut self, request: &mut Request) -> Went {
        self.release(request);
        match request.kind.function {
            Some(function) if !request.behind => {
                (request.function, request.behind, request.step) = (function, true, Step::Enter);
                Went::On
            }
            _ => Went::Out(None),
        }
    }

    fn count(&mut self, part: usize, refusal: Refusal) {
        let slot = Refusal::ALL.iter().position(|one| *one == refusal);
        let part = self.parts.get_mut(part);
        if let Some(count) = part.zip(slot).and_then(|(part, slot)| part.refused.get_mut(slot)) {
            *count += 1;
        }
    }
}

/// What a step came to.
enum Went {
    On,
    Later(Seconds),
    Waits,
    Out(Option<Refusal>),
}

//! The life of signing keys over thousands of random schedules: publishers that run late, twice and at the same time and die between
//! steps; signers and verifiers that cache, cannot read and wake with old data; emergencies. Time passes by events alone.
//!
//! Held: no valid token is refused by a verifier that decides at all; no key signs once it is removed; there are never two active
//! keys; a dropped key's tokens are refused by whoever has read the revocations since. That the simulation can fail is shown by
//! shortening every wait, and by the mistakes that the reference names.
//!
//! A failure prints its seed; `ROTATION_SEED=n` runs that schedule alone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;

use serde_json::Map;
use shared::clock::Timestamp;
use shared::jwks::Algorithm;
use shared::trust::{KeyState, Making, OwnKeys, Revocations, SigningKey, SigningState, TrustObject};
use trust::rotation::{self, Orders, Policy, Seen, Waits, What};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const SKEW: i64 = 10 * SECOND;
const TOKEN: i64 = 900 * SECOND;
/// How long somebody outside keeps our key set at most.
const OUTSIDE: i64 = HOUR;
/// How long we tell them to.
const OUTSIDE_ALLOWED: i64 = 300 * SECOND;
const START: i64 = 1_800_000_000_000;
const HORIZON: i64 = START + 30 * HOUR;
const SCHEDULES: u64 = 2_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: i64) -> i64 {
        (self.next() % limit.max(1) as u64) as i64
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// A mistake that the simulation must notice.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mistake {
    None,
    /// Another wait than the shortest.
    Waits(Waits),
    /// The wait of a new key counts from its making.
    CountsFromMaking,
    /// The signer addresses whatever key is active now, under the name that its own state gives.
    SignsByAlias,
    /// Writes without their condition.
    WritesBlindly,
    /// A dropped key is taken out of the set and not listed as revoked.
    DropsWithoutListing,
}

struct Object<T> {
    version: u64,
    not_after: i64,
    body: Arc<T>,
}

impl<T> Clone for Object<T> {
    fn clone(&self) -> Self {
        Self { body: Arc::clone(&self.body), ..*self }
    }
}

/// A copy as `shared::trust::Cached` keeps it.
struct Copy<T> {
    held: Option<(Object<T>, i64)>,
    /// Until when nothing can be read.
    dark: i64,
}

impl<T> Copy<T> {
    fn new() -> Self {
        Self { held: None, dark: 0 }
    }

    fn current(
        &mut self,
        object: Option<&Object<T>>,
        real: i64,
        now: i64,
        fresh: i64,
        last_good: i64,
    ) -> Option<(Arc<T>, i64)> {
        let serves = |held: &(Object<T>, i64)| now - held.1 <= last_good && now < held.0.not_after;
        let due = !self.held.as_ref().is_some_and(|held| serves(held) && now - held.1 < fresh);
        if due
            && real >= self.dark
            && let Some(object) = object
            && self.held.as_ref().is_none_or(|(held, _)| object.version >= held.version)
        {
            self.held = Some((object.clone(), now));
        }
        self.held.as_ref().filter(|held| serves(held)).map(|(object, read)| (Arc::clone(&object.body), now - read))
    }
}

type Kids = HashSet<String>;

struct Signer {
    offset: i64,
    state: Copy<SigningState>,
}

struct Verifier {
    offset: i64,
    keys: Copy<Kids>,
    revocations: Copy<Kids>,
    /// Asks our key endpoint and keeps the answer, and knows of no revocations.
    outside: Option<Option<Kept>>,
}

/// What somebody outside got from our key endpoint.
struct Kept {
    kids: Arc<Kids>,
    since: i64,
    /// How old it was already.
    age: i64,
}

#[derive(Clone)]
struct Token {
    kid: String,
    signed_by: String,
    issued: i64,
    expires: i64,
    urgent: bool,
}

/// A publisher at work.
struct Run {
    offset: i64,
    ends: i64,
    at: Stage,
    rounds: u32,
    keys: Option<Object<Kids>>,
    state: Option<Object<SigningState>>,
    next: Option<SigningState>,
    now: i64,
    task: Option<(Making, usize, bool)>,
    made: Vec<SigningKey>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Stage {
    ReadKeys,
    ReadState,
    Decide,
    WriteState,
    WriteKeys,
    Make,
    ReadAgain,
    Record,
    Done,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A publisher starts.
    Publish,
    Step(u64),
    /// The revocations are published.
    List,
    Mint(usize),
    Verify(usize),
    Dark(usize),
    Order,
    /// As the event inside, and again after a while.
    Every(Box<Event>),
}

struct World {
    random: Random,
    policy: Policy,
    mistake: Mistake,
    now: i64,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    sequence: u64,
    keys: Option<Object<Kids>>,
    state: Option<Object<SigningState>>,
    listed: Object<Kids>,
    orders: Orders,
    /// When each key was dropped.
    dropped: BTreeMap<String, i64>,
    signers: Vec<Signer>,
    verifiers: Vec<Verifier>,
    tokens: Vec<Token>,
    runs: BTreeMap<u64, Run>,
    /// Until when no write of the key set gets through.
    unwritable: i64,
    made: u64,
    died: u64,
    urgent: HashSet<String>,
    checked: u64,
    activations: u64,
    removals: u64,
    wrong: Option<String>,
}

impl World {
    fn new(seed: u64, mistake: Mistake) -> Self {
        let mut random = Random(seed);
        let mut offset = || random.below(SKEW) - SKEW / 2;
        let signers = (0..3).map(|_| Signer { offset: offset(), state: Copy::new() }).collect();
        let verifiers = (0..4).map(|number| Verifier {
            offset: offset(),
            keys: Copy::new(),
            revocations: Copy::new(),
            outside: (number == 3).then_some(None),
        });
        let verifiers = verifiers.collect();
        let waits = if let Mistake::Waits(waits) = mistake { waits } else { Waits::SHORTEST };
        let period = HOUR + random.below(6 * HOUR);
        let spares = 1 + random.below(2) as usize;
        let listed = Object { version: 0, not_after: START + HOUR, body: Arc::default() };
        let mut world = Self {
            random,
            policy: Policy { algorithm: Algorithm::Es256, period, spares, waits },
            mistake,
            now: START,
            events: BinaryHeap::new(),
            sequence: 0,
            keys: None,
            state: None,
            listed,
            orders: Orders::default(),
            dropped: BTreeMap::new(),
            signers,
            verifiers,
            tokens: Vec::new(),
            runs: BTreeMap::new(),
            unwritable: 0,
            made: 0,
            died: 0,
            urgent: HashSet::new(),
            checked: 0,
            activations: 0,
            removals: 0,
            wrong: None,
        };
        let every = |event: Event| Event::Every(Box::new(event));
        world.after(0, Event::Publish);
        world.after(0, every(Event::Publish));
        world.after(0, every(Event::List));
        for signer in 0..world.signers.len() {
            world.after(MINUTE, every(Event::Mint(signer)));
        }
        for verifier in 0..world.verifiers.len() {
            world.after(2 * MINUTE, every(Event::Verify(verifier)));
        }
        for node in 0..world.signers.len() + world.verifiers.len() {
            let first = world.random.below(4 * HOUR);
            world.after(first, every(Event::Dark(node)));
        }
        let first = 3 * HOUR + world.random.below(6 * HOUR);
        world.after(first, every(Event::Order));
        world
    }

    fn after(&mut self, wait: i64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + wait, self.sequence, event)));
    }

    fn fail(&mut self, what: String) {
        let at = (self.now - START) / SECOND;
        self.wrong.get_or_insert(format!("after {at} s: {what}"));
    }

    fn run(mut self) -> Self {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > HORIZON || self.wrong.is_some() {
                break;
            }
            self.now = at;
            self.handle(event);
        }
        self
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Publish => self.publish(),
            Event::Step(id) => self.step(id),
            Event::List => self.list(),
            Event::Mint(signer) => self.mint(signer),
            Event::Verify(verifier) => self.verify_all(verifier),
            Event::Dark(node) => {
                let length = self.random.below(2 * HOUR);
                self.darken(node, length);
            }
            Event::Order => self.order(),
            Event::Every(event) => {
                let pause = match (event.as_ref(), self.random.below(20)) {
                    // Mostly every few minutes, sometimes twice at once, sometimes late by much.
                    (Event::Publish, 0) => 0,
                    (Event::Publish, 1) => self.random.below(HOUR),
                    (Event::Publish, 2..=5) => MINUTE,
                    (Event::Publish, _) => self.random.below(10 * MINUTE),
                    (Event::List, _) => MINUTE,
                    (Event::Mint(_) | Event::Verify(_), _) => 1 + self.random.below(20 * MINUTE),
                    _ => 1 + self.random.below(8 * HOUR),
                };
                self.handle(event.as_ref().clone());
                self.after(pause, Event::Every(event));
            }
        }
    }

    fn publish(&mut self) {
        let offset = self.random.below(SKEW) - SKEW / 2;
        let id = self.sequence;
        let run = Run {
            offset,
            ends: self.now + 30 * SECOND,
            at: Stage::ReadKeys,
            rounds: 0,
            keys: None,
            state: None,
            next: None,
            now: 0,
            task: None,
            made: Vec::new(),
        };
        self.runs.insert(id, run);
        self.after(0, Event::Step(id));
        if self.random.chance(1) {
            self.unwritable = self.now + self.random.below(3 * HOUR);
        }
    }

    fn step(&mut self, id: u64) {
        let Some(mut run) = self.runs.remove(&id) else { return };
        // A process dies at its limit, and now and then before; what it had sent may still land.
        let writing = matches!(run.at, Stage::WriteState | Stage::WriteKeys | Stage::Record);
        if self.now > run.ends && !writing || self.random.chance(2) {
            self.died += 1;
            return;
        }
        self.perform(&mut run);
        if run.at != Stage::Done && self.now <= run.ends {
            let pause = if self.random.chance(3) { self.random.below(25 * SECOND) } else { self.random.below(500) };
            self.runs.insert(id, run);
            self.after(pause, Event::Step(id));
        } else if run.at != Stage::Done {
            self.died += 1;
        }
    }

    fn perform(&mut self, run: &mut Run) {
        let clock = self.now + run.offset;
        run.at = match run.at {
            Stage::ReadKeys => {
                run.keys = self.keys.clone();
                Stage::ReadState
            }
            Stage::ReadState | Stage::ReadAgain => {
                run.state = self.state.clone();
                if run.at == Stage::ReadState { Stage::Decide } else { Stage::Record }
            }
            Stage::Decide => {
                run.now = clock;
                let now = Timestamp::from_millis(clock);
                let first = run.keys.is_none();
                let plan = match &run.state {
                    None => rotation::genesis(&self.policy, now),
                    Some(state) => {
                        let mut published = run.keys.as_ref().map(|keys| Kids::clone(&keys.body)).unwrap_or_default();
                        if self.mistake == Mistake::CountsFromMaking {
                            published.extend(state.body.keys.iter().map(|key| key.kid.clone()));
                        }
                        let known = !self.random.chance(3);
                        let seen = Seen { published: &published, orders: known.then_some(&self.orders), now };
                        rotation::plan(&state.body, &seen, &self.policy)
                    }
                };
                run.task = plan.state.making.filter(|_| plan.make > 0).map(|making| (making, plan.make, first));
                for one in plan.moves.iter().filter(|one| one.what == What::ActivatedUrgently) {
                    self.urgent.insert(one.kid.clone());
                }
                run.next = Some(plan.state);
                Stage::WriteState
            }
            Stage::WriteState => match self.write_state(run) {
                true => Stage::WriteKeys,
                false => Stage::ReadKeys,
            },
            Stage::WriteKeys => match self.write_keys(run) {
                Some(true) if run.task.is_some() && run.rounds == 0 => Stage::Make,
                Some(true) | None => Stage::Done,
                Some(false) => Stage::ReadKeys,
            },
            Stage::Make => {
                let count = run.task.map_or(0, |task| task.1);
                for _ in 0..count {
                    self.made += 1;
                    run.made.push(key(&format!("k{}", self.made), clock, self.mistake));
                }
                Stage::ReadAgain
            }
            Stage::Record => {
                let next = run
                    .task
                    .zip(run.state.as_ref())
                    .and_then(|((making, _, first), held)| rotation::record(&held.body, making, &run.made, first));
                match next {
                    None => Stage::Done,
                    Some(next) => {
                        run.next = Some(next);
                        run.now = clock;
                        run.rounds = 1;
                        if self.write_state(run) { Stage::ReadKeys } else { Stage::ReadAgain }
                    }
                }
            }
            Stage::Done => Stage::Done,
        };
    }

    fn write_state(&mut self, run: &Run) -> bool {
        let next = run.next.clone().unwrap();
        let life = SigningState::LAST_GOOD;
        if let Some(held) = &run.state
            && *held.body == next
            && held.not_after - run.now > life / 2
        {
            return true;
        }
        let held = self.state.as_ref().map(|state| state.version);
        if held != run.state.as_ref().map(|state| state.version) && self.mistake != Mistake::WritesBlindly {
            return false;
        }
        let before = self.state.as_ref().map(|state| Arc::clone(&state.body)).unwrap_or_default();
        let of = |state: &SigningState, wanted: KeyState| -> Kids {
            state.keys.iter().filter(|key| key.state == wanted).map(|key| key.kid.clone()).collect()
        };
        let (active, was) = (of(&next, KeyState::Active), of(&before, KeyState::Active));
        if active.len() > 1 {
            self.fail(format!("two active keys: {active:?}"));
        }
        if active.is_empty() && !was.is_empty() && !was.iter().all(|kid| self.orders.dropped.contains(kid)) {
            self.fail("a key stopped signing and nobody followed".to_owned());
        }
        self.removals += of(&next, KeyState::Removed).difference(&of(&before, KeyState::Removed)).count() as u64;
        let changed = active != was;
        if changed {
            // Signers that read a moment before the change, and then no more, are those who could do harm.
            self.surprise(true);
        }
        self.state = Some(Object { version: held.unwrap_or(0) + 1, not_after: run.now + life, body: Arc::new(next) });
        if changed {
            self.activations += 1;
            for signer in 0..self.signers.len() {
                let wait = self.random.below(3 * SECOND);
                self.after(wait, Event::Mint(signer));
            }
        }
        true
    }

    /// `None`: the write failed.
    fn write_keys(&mut self, run: &Run) -> Option<bool> {
        if self.now < self.unwritable {
            return None;
        }
        let next = run.next.as_ref().unwrap();
        let live = next.keys.iter().filter(|key| key.state != KeyState::Removed);
        let kids: Kids = live.map(|key| key.kid.clone()).collect();
        if kids.is_empty() {
            return Some(true);
        }
        let life = OwnKeys::LAST_GOOD;
        if let Some(held) = &run.keys
            && *held.body == kids
            && held.not_after - run.now > life / 2
        {
            return Some(true);
        }
        let held = self.keys.as_ref().map(|keys| keys.version);
        if held != run.keys.as_ref().map(|keys| keys.version) && self.mistake != Mistake::WritesBlindly {
            return Some(false);
        }
        if self.keys.as_ref().is_none_or(|keys| *keys.body != kids) {
            self.surprise(false);
        }
        self.keys = Some(Object { version: held.unwrap_or(0) + 1, not_after: run.now + life, body: Arc::new(kids) });
        Some(true)
    }

    /// Lets some read a moment before a change and go dark for about as long as they may.
    fn surprise(&mut self, signers: bool) {
        let (count, first) = if signers { (self.signers.len(), 0) } else { (self.verifiers.len(), self.signers.len()) };
        for node in first..first + count {
            if !self.random.chance(40) {
                continue;
            }
            let real = self.now;
            let (last, offset) = if signers {
                let Signer { offset, state } = &mut self.signers[node];
                state.current(self.state.as_ref(), real, real + *offset, 0, SigningState::LAST_GOOD);
                (SigningState::LAST_GOOD, *offset)
            } else {
                let verifier = &mut self.verifiers[node - first];
                let now = real + verifier.offset;
                verifier.keys.current(self.keys.as_ref(), real, now, 0, OwnKeys::LAST_GOOD);
                (OwnKeys::LAST_GOOD, verifier.offset)
            };
            self.darken(node, last + HOUR);
            let end = last - 1 - offset.rem_euclid(2);
            let event = if signers { Event::Mint(node) } else { Event::Verify(node - first) };
            for before in [0, SECOND, MINUTE, 5 * MINUTE] {
                self.after(end - before, event.clone());
            }
            if !signers && self.verifiers[node - first].outside.is_some() {
                self.after(end + OUTSIDE - 2, event.clone());
                self.after(end + OUTSIDE - MINUTE, event);
            }
        }
    }

    fn darken(&mut self, node: usize, length: i64) {
        let until = self.now + length;
        match self.signers.len() {
            signers if node < signers => self.signers[node].state.dark = until,
            signers => {
                let verifier = &mut self.verifiers[node - signers];
                verifier.keys.dark = until;
                if length < 5 * MINUTE {
                    verifier.revocations.dark = until;
                }
            }
        }
    }

    fn list(&mut self) {
        let version = self.listed.version + 1;
        let kids = if self.mistake == Mistake::DropsWithoutListing { Kids::new() } else { self.orders.dropped.clone() };
        self.listed = Object { version, not_after: self.now + Revocations::LAST_GOOD, body: Arc::new(kids) };
    }

    fn mint(&mut self, signer: usize) {
        let (real, object) = (self.now, self.state.as_ref());
        let Signer { offset, state } = &mut self.signers[signer];
        let now = real + *offset;
        let Some((state, _)) = state.current(object, real, now, SigningState::FRESH, SigningState::LAST_GOOD) else {
            return;
        };
        let Some(key) = state.active(Algorithm::Es256).map(|key| key.kid.clone()) else { return };
        let truth = self.state.as_ref().map(|state| Arc::clone(&state.body)).unwrap_or_default();
        let of = truth.keys.iter().find(|one| one.kid == key).map(|one| one.state);
        if matches!(of, None | Some(KeyState::Removed)) && !self.orders.dropped.contains(&key) {
            self.fail(format!("{key} is removed and signs"));
        }
        let by_alias = truth.active(Algorithm::Es256).filter(|_| self.mistake == Mistake::SignsByAlias);
        let signed_by = by_alias.map_or(key.clone(), |key| key.kid.clone());
        let issued = now.div_euclid(SECOND) * SECOND;
        let life = if self.random.chance(70) { TOKEN } else { 30 * SECOND + self.random.below(TOKEN) };
        let urgent = self.urgent.contains(&key);
        let expires = issued + life.min(TOKEN);
        // Of two tokens by one key the one that ends later asks more of everybody.
        let outlived = |token: &Token| token.kid == key && token.signed_by == signed_by && token.expires <= expires;
        self.tokens.retain(|token| token.expires + SKEW > real && !outlived(token));
        self.tokens.push(Token { kid: key, signed_by, issued, expires, urgent });
        for verifier in 0..self.verifiers.len() {
            let last = (issued + life.min(TOKEN)) - self.verifiers[verifier].offset - real - 1;
            let soon = self.random.below(5 * SECOND);
            self.after(soon, Event::Verify(verifier));
            self.after(last.max(0), Event::Verify(verifier));
        }
    }

    fn verify_all(&mut self, verifier: usize) {
        let tokens = std::mem::take(&mut self.tokens);
        for token in &tokens {
            self.verify(verifier, token);
        }
        self.tokens = tokens;
    }

    fn verify(&mut self, number: usize, token: &Token) {
        let real = self.now;
        let Verifier { offset, keys, revocations, outside } = &mut self.verifiers[number];
        let now = real + *offset;
        if now >= token.expires {
            return;
        }
        if token.issued > now + SKEW {
            return self.fail("a token of the future".to_owned());
        }
        let mut copy = || keys.current(self.keys.as_ref(), real, now, OwnKeys::FRESH, OwnKeys::LAST_GOOD);
        let (known, age) = match outside {
            None => match copy() {
                Some(copy) => copy,
                None => return,
            },
            Some(kept) => {
                if kept.as_ref().is_none_or(|kept| now - kept.since >= OUTSIDE) {
                    *kept = copy().map(|(kids, age)| Kept { kids, since: now, age });
                }
                match kept {
                    Some(kept) => (Arc::clone(&kept.kids), kept.age + now - kept.since),
                    None => return,
                }
            }
        };
        let promised = OwnKeys::FRESH + if outside.is_some() { OUTSIDE_ALLOWED } else { 0 };
        let mut listed = false;
        if outside.is_none() {
            let read = revocations.current(Some(&self.listed), real, now, Revocations::FRESH, Revocations::LAST_GOOD);
            let Some((kids, age)) = read else { return };
            listed = kids.contains(&token.kid);
            // What was dropped a listing before this copy was read is refused, though the set may hold it yet.
            let dropped = self.dropped.get(&token.kid).is_some_and(|dropped| real - age > dropped + MINUTE);
            if dropped && !listed && known.contains(&token.kid) {
                return self.fail(format!("{} was dropped and is believed", token.kid));
            }
        }
        self.checked += 1;
        let genuine = known.contains(&token.kid) && token.signed_by == token.kid;
        // In an emergency without a ripe spare, those who cannot read may not know the key that had to sign.
        let excused = self.orders.dropped.contains(&token.kid) || token.urgent && age > promised;
        if (listed || !genuine) && !excused {
            let who = if outside.is_some() { "outside" } else { "verifier" };
            self.fail(format!(
                "a valid token of {} is refused by {who} {number}, whose copy is {age} ms old",
                token.kid
            ));
        }
    }

    fn order(&mut self) {
        if let Some(state) = self.state.as_ref().map(|state| Arc::clone(&state.body)) {
            if self.random.chance(70) {
                self.orders.replace.extend(state.active(Algorithm::Es256).map(|key| key.kid.clone()));
            } else if !state.keys.is_empty() {
                let which = self.random.below(state.keys.len() as i64) as usize;
                let kid = state.keys[which].kid.clone();
                self.dropped.entry(kid.clone()).or_insert(self.now);
                self.orders.dropped.insert(kid);
                // The nudge.
                self.after(SECOND, Event::Publish);
                self.after(SECOND, Event::List);
            }
        }
    }
}

fn key(kid: &str, now: i64, mistake: Mistake) -> SigningKey {
    SigningKey {
        kid: kid.to_owned(),
        alg: "ES256".to_owned(),
        key: format!("arn:{kid}"),
        state: KeyState::Published,
        created_at: now,
        published_at: (mistake == Mistake::CountsFromMaking).then_some(now),
        activated_at: None,
        retired_at: None,
        removed_at: None,
        jwk: Map::new(),
    }
}

#[expect(clippy::disallowed_methods, reason = "to run one schedule again")]
fn seeds(count: u64) -> Vec<u64> {
    let one = std::env::var("ROTATION_SEED").ok().and_then(|seed| seed.parse().ok());
    one.map_or_else(|| (0..count).collect(), |seed| vec![seed])
}

#[test]
fn no_valid_token_is_refused_and_no_removed_key_signs() {
    let seeds = seeds(SCHEDULES);
    let half = seeds.len().div_ceil(2);
    let worlds = std::thread::scope(|scope| {
        let parts: Vec<_> = seeds
            .chunks(half)
            .map(|part| {
                scope.spawn(move || {
                    part.iter().map(|seed| (*seed, World::new(*seed, Mistake::None).run())).fold(
                        (0, 0, 0, 0),
                        |(checked, activations, removals, died), (seed, world)| {
                            assert_eq!(world.wrong, None, "ROTATION_SEED={seed}");
                            // What a crash leaves behind is bounded: each lost making waits longer than the one before.
                            let held = world.state.as_ref().map_or(0, |state| state.body.keys.len() as u64);
                            let bound = held + 4 * world.died + 4;
                            assert!(world.made <= bound, "ROTATION_SEED={seed}: {} keys made, {held} held", world.made);
                            (
                                checked + world.checked,
                                activations + world.activations,
                                removals + world.removals,
                                died + world.died,
                            )
                        },
                    )
                })
            })
            .collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect::<Vec<_>>()
    });
    let sum = |of: fn(&(u64, u64, u64, u64)) -> u64| worlds.iter().map(of).sum::<u64>();
    let (checked, activations, removals, died) = (sum(|w| w.0), sum(|w| w.1), sum(|w| w.2), sum(|w| w.3));
    println!(
        "{} schedules: {checked} verifications, {activations} handovers, {removals} removals, {died} deaths",
        seeds.len()
    );
    let schedules = seeds.len() as u64;
    assert!(activations > 2 * schedules && removals > schedules && checked > 200 * schedules && died > schedules);
}

#[test]
fn every_mistake_is_noticed() {
    let shortest = Waits::SHORTEST;
    let (fresh, last_good) = (OwnKeys::FRESH, OwnKeys::LAST_GOOD);
    let ripe = |ripe: i64| Mistake::Waits(Waits { ripe, ..shortest });
    let spent = |spent: i64| Mistake::Waits(Waits { spent, ..shortest });
    for (name, mistake) in [
        ("a new key waits for the re-check only", ripe(fresh)),
        ("a new key does not wait for the last good copies", ripe(shortest.ripe - last_good)),
        ("a new key does not wait for the caches outside", ripe(shortest.ripe - OUTSIDE)),
        ("a new key waits a quarter of an hour less", ripe(shortest.ripe - 15 * MINUTE)),
        ("an old key does not wait for the signers' last good copies", spent(shortest.spent - SigningState::LAST_GOOD)),
        ("an old key does not wait for its tokens", spent(shortest.spent - TOKEN)),
        ("an old key waits ten minutes less", spent(shortest.spent - 10 * MINUTE)),
        ("an urgent key does not wait at all", Mistake::Waits(Waits { urgent: 0, ..shortest })),
        ("a new key counts from its making", Mistake::CountsFromMaking),
        ("a signer addresses its key by an alias", Mistake::SignsByAlias),
        ("a publisher writes without a condition", Mistake::WritesBlindly),
        ("a dropped key is not listed", Mistake::DropsWithoutListing),
    ] {
        let noticed = (0..SCHEDULES).find_map(|seed| World::new(seed, mistake).run().wrong.map(|wrong| (seed, wrong)));
        let (seed, wrong) = noticed.unwrap_or_else(|| panic!("not noticed: {name}"));
        println!("{name}: seed {seed}, {wrong}");
    }
}

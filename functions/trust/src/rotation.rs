//! The life of signing keys, as a function: what is held, what was seen and what was ordered → the next state and how many keys to
//! make. It reads no clock and touches nothing.
//!
//! `published → active → retiring → removed`, so that no valid token is ever refused and no retired key ever signs. The waits
//! follow from what others may still hold:
//!
//! - A key signs only after everybody who verifies has it: a verifier may live on a copy of `keys.json` that is an hour old, so
//!   the wait counts from the moment at which the key was *seen* there, and starts over when it is not.
//! - A key leaves only after its last token has expired: a signer may live on a state that is an hour old, so the wait counts from
//!   the moment at which the key stopped being the active one.
//! - Which key signs changes in one write: the old one retires with the same stroke that makes its successor active.

use std::collections::HashSet;

use shared::clock::Timestamp;
use shared::jwks::Algorithm;
use shared::jwt::{FUTURE_SKEW, MAX_ACCESS_LIFE};
use shared::trust::{KeyState, Making, OwnKeys, SigningKey, SigningState, TrustObject};

const SECOND: i64 = 1_000;
/// A day in milliseconds.
pub const DAY: i64 = 86_400 * SECOND;
/// The longest that others may keep our key set: what we allow, and what an API Gateway's own authorizer takes.
const OUTSIDE_CACHES: i64 = 3_600 * SECOND;
/// What we allow them, `max-age` of the key set.
const OUTSIDE_ALLOWED: i64 = 300 * SECOND;
const SKEW: i64 = FUTURE_SKEW * SECOND;
/// How long a write may take to land after the time that it carries: a publisher lives for 30 s.
const LANDING: i64 = 60 * SECOND;
/// How long the maker of a key is waited for before somebody else begins; doubled with every making that was lost.
const MAKING: i64 = 120 * SECOND;
/// How long a removed key is still listed.
const REMEMBERED: i64 = 30 * DAY;
/// More keys than this that verifiers know are a fault of ours, and none is made. Verifiers refuse a set of more than 32.
const MOST_KEYS: usize = 16;

/// How long each step of a key's life waits, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waits {
    /// From published to active.
    pub ripe: i64,
    /// The same when nobody could sign otherwise: verifiers that can read have the key, those in an outage may not.
    pub urgent: i64,
    /// From retiring to removed.
    pub spent: i64,
}

impl Waits {
    /// Below these, somebody could be refused or be accepted wrongly.
    ///
    /// An outside cache is filled by our own key endpoint, which may itself live on its last good copy: the two add up.
    pub const SHORTEST: Self = Self {
        ripe: OwnKeys::LAST_GOOD + max(OwnKeys::FRESH, OUTSIDE_CACHES) + SKEW,
        urgent: OwnKeys::FRESH + OUTSIDE_ALLOWED + SKEW,
        spent: SigningState::LAST_GOOD + MAX_ACCESS_LIFE * SECOND + SKEW + OwnKeys::FRESH + LANDING,
    };
    /// What a deployment waits: a day, so that a person can step in.
    pub const DEFAULT: Self = Self { ripe: DAY, spent: DAY, ..Self::SHORTEST };
}

const _: () = assert!(Waits::DEFAULT.ripe >= Waits::SHORTEST.ripe && Waits::DEFAULT.spent >= Waits::SHORTEST.spent);

const fn max(one: i64, other: i64) -> i64 {
    if one > other { one } else { other }
}

/// What a deployment wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// What tokens are signed with.
    pub algorithm: Algorithm,
    /// How long a key signs before its successor takes over, milliseconds.
    pub period: i64,
    /// How many published keys wait for their turn.
    pub spares: usize,
    /// The waits.
    pub waits: Waits,
}

/// What operators ordered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Orders {
    /// Keys that a successor is to follow as soon as one is ripe.
    pub replace: HashSet<String>,
    /// Keys that must neither sign nor verify any more.
    pub dropped: HashSet<String>,
}

/// What the world looked like when the state was read.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The key ids in `trust/keys.json` as it was read *before* the state.
    pub published: &'a HashSet<String>,
    /// The orders; `None` when nobody could be asked, and then nothing moves.
    pub orders: Option<&'a Orders>,
    /// The time, taken after both were read.
    pub now: Timestamp,
}

/// Something that happened to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// Whose.
    pub kid: String,
    /// What.
    pub what: What,
}

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// It was seen in the published set.
    Published,
    /// It was not there any more, and its wait starts over.
    Unpublished,
    /// It signs from now on.
    Activated,
    /// It signs from now on although not every verifier can be sure to have it: nobody else could.
    ActivatedUrgently,
    /// It signs no more; its tokens stay good.
    Retired,
    /// No token of it can be alive.
    Removed,
    /// An operator dropped it: its tokens are refused.
    Dropped,
}

impl What {
    /// The stable name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "key_published",
            Self::Unpublished => "key_unpublished",
            Self::Activated => "key_activated",
            Self::ActivatedUrgently => "key_activated_urgently",
            Self::Retired => "key_retired",
            Self::Removed => "key_removed",
            Self::Dropped => "key_dropped",
        }
    }
}

/// What is to be done: write `state`, and only when that was written make `make` keys and [`record`] them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The next state.
    pub state: SigningState,
    /// What changed, in order.
    pub moves: Vec<Move>,
    /// How many keys the writer of this state, and nobody else, makes now.
    pub make: usize,
}

/// The very first plan, for a deployment that has neither a state nor published keys: one key that signs, and its spares.
pub fn genesis(policy: &Policy, now: Timestamp) -> Plan {
    let making = Some(Making { since: now.millis(), lost: 0 });
    Plan { state: SigningState { keys: Vec::new(), making }, moves: Vec::new(), make: 1 + policy.spares }
}

/// The next state. A state that nothing has to change in comes back as it is.
pub fn plan(held: &SigningState, seen: &Seen<'_>, policy: &Policy) -> Plan {
    let now = seen.now.millis();
    let mut plan = Plan { state: held.clone(), moves: Vec::new(), make: 0 };
    plan.bring_back_from_the_future(now);
    plan.confirm(seen.published, now);
    let Some(orders) = seen.orders else { return plan };
    plan.drop_ordered(orders, now);
    plan.hand_over(orders, policy, now);
    plan.retire_other_algorithms(policy, now);
    plan.remove_spent(policy, now);
    plan.state.keys.retain(|key| key.removed_at.is_none_or(|removed| now - removed < REMEMBERED));
    plan.make_what_is_missing(policy, now);
    plan
}

/// The state with the keys that were made, if `making` is still what the maker wrote; otherwise somebody else has taken over, and
/// the keys must not be used. `first`: nobody has published any key yet, so the first of them signs at once.
pub fn record(held: &SigningState, making: Making, made: &[SigningKey], first: bool) -> Option<SigningState> {
    if held.making != Some(making) {
        return None;
    }
    let mut state = SigningState { keys: held.keys.clone(), making: None };
    let genesis = first && state.keys.is_empty();
    state.keys.extend(made.iter().cloned());
    if let Some(key) = state.keys.first_mut().filter(|_| genesis) {
        key.state = KeyState::Active;
        key.activated_at = Some(key.created_at);
    }
    Some(state)
}

/// From when on a published key may follow its predecessor, and from when on if nobody else could sign; `None` for any other key.
pub fn turns(key: &SigningKey, policy: &Policy) -> Option<(i64, i64)> {
    let waiting = key.state == KeyState::Published && key.alg == policy.algorithm.as_str();
    let published = key.published_at.filter(|_| waiting)?;
    Some((published + policy.waits.ripe, published + policy.waits.urgent))
}

impl Plan {
    /// A time that lies ahead was written by a clock that was wrong. It counts from now: too long a wait hurts nobody.
    fn bring_back_from_the_future(&mut self, now: i64) {
        let back = |time: &mut i64| {
            if *time > now + SKEW {
                *time = now;
            }
        };
        for key in &mut self.state.keys {
            back(&mut key.created_at);
            let times = [&mut key.published_at, &mut key.activated_at, &mut key.retired_at, &mut key.removed_at];
            times.into_iter().flatten().for_each(back);
            // A state without its time, which no version of this function writes.
            match key.state {
                KeyState::Active => _ = key.activated_at.get_or_insert(now),
                KeyState::Retiring => _ = key.retired_at.get_or_insert(now),
                KeyState::Removed => _ = key.removed_at.get_or_insert(now),
                KeyState::Published => {}
            }
        }
        if let Some(making) = &mut self.state.making {
            back(&mut making.since);
        }
    }

    fn confirm(&mut self, published: &HashSet<String>, now: i64) {
        for key in &mut self.state.keys {
            let what = match (published.contains(&key.kid), key.published_at) {
                (true, None) if key.state != KeyState::Removed => What::Published,
                (false, Some(_)) if key.state == KeyState::Published => What::Unpublished,
                _ => continue,
            };
            key.published_at = (what == What::Published).then_some(now);
            self.moves.push(Move { kid: key.kid.clone(), what });
        }
    }

    fn drop_ordered(&mut self, orders: &Orders, now: i64) {
        for key in &mut self.state.keys {
            if orders.dropped.contains(&key.kid) && key.state != KeyState::Removed {
                let signed = key.state == KeyState::Active;
                key.retired_at = key.retired_at.or(signed.then_some(now));
                self.moves.push(enter(key, KeyState::Removed, What::Dropped, now));
            }
        }
    }

    fn hand_over(&mut self, orders: &Orders, policy: &Policy, now: i64) {
        let alg = policy.algorithm.as_str();
        let in_turn = |key: &&SigningKey| turns(key, policy).is_some();
        let next = self.state.keys.iter().filter(in_turn).min_by_key(|key| key.published_at);
        let Some((next, (ripe, urgent))) = next.and_then(|key| Some((key.kid.clone(), turns(key, policy)?))) else {
            return;
        };
        let active = self.state.keys.iter_mut().find(|key| key.state == KeyState::Active && key.alg == alg);
        let what = match active {
            Some(active) => {
                let age = now - active.activated_at.unwrap_or(now);
                let due = age >= policy.period || orders.replace.contains(&active.kid);
                if !due || now < ripe {
                    return;
                }
                self.moves.push(enter(active, KeyState::Retiring, What::Retired, now));
                What::Activated
            }
            None if now < urgent => return,
            None if now < ripe => What::ActivatedUrgently,
            None => What::Activated,
        };
        if let Some(key) = self.state.keys.iter_mut().find(|key| key.kid == next) {
            self.moves.push(enter(key, KeyState::Active, what, now));
        }
    }

    /// After a change of the algorithm: its keys go once the new one signs; a spare is kept for as long as an overlapping old
    /// deployment could ask for it.
    fn retire_other_algorithms(&mut self, policy: &Policy, now: i64) {
        let Some(since) = self.state.active(policy.algorithm).and_then(|key| key.activated_at) else { return };
        let settled = now - since >= policy.waits.spent;
        for key in self.state.keys.iter_mut().filter(|key| key.alg != policy.algorithm.as_str()) {
            match key.state {
                KeyState::Active => self.moves.push(enter(key, KeyState::Retiring, What::Retired, now)),
                KeyState::Published if settled => self.moves.push(enter(key, KeyState::Removed, What::Removed, now)),
                _ => {}
            }
        }
    }

    fn remove_spent(&mut self, policy: &Policy, now: i64) {
        for key in self.state.keys.iter_mut().filter(|key| key.state == KeyState::Retiring) {
            if key.retired_at.is_some_and(|retired| now - retired >= policy.waits.spent) {
                self.moves.push(enter(key, KeyState::Removed, What::Removed, now));
            }
        }
    }

    fn make_what_is_missing(&mut self, policy: &Policy, now: i64) {
        let of = |state: KeyState| {
            let alg = policy.algorithm.as_str();
            self.state.keys.iter().filter(|key| key.state == state && key.alg == alg).count()
        };
        let wanted = policy.spares + usize::from(of(KeyState::Active) == 0);
        let room =
            MOST_KEYS.saturating_sub(self.state.keys.iter().filter(|key| key.state != KeyState::Removed).count());
        let missing = wanted.saturating_sub(of(KeyState::Published)).min(room);
        self.state.making = match self.state.making {
            _ if missing == 0 => None,
            Some(making) if now - making.since < patience(making.lost) => Some(making),
            lost => {
                self.make = missing;
                Some(Making { since: now, lost: lost.map_or(0, |making| making.lost.saturating_add(1)) })
            }
        };
    }
}

fn enter(key: &mut SigningKey, state: KeyState, what: What, now: i64) -> Move {
    let at = match state {
        KeyState::Published => &mut key.published_at,
        KeyState::Active => &mut key.activated_at,
        KeyState::Retiring => &mut key.retired_at,
        KeyState::Removed => &mut key.removed_at,
    };
    *at = Some(now);
    key.state = state;
    Move { kid: key.kid.clone(), what }
}

fn patience(lost: u32) -> i64 {
    MAKING.saturating_mul(1 << lost.min(16)).min(DAY)
}

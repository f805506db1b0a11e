//! Faults to live with: which of the calls that come are struck, and how.
//!
//! **How it is seeded.** Each rule counts the calls that fit its place, from 1. Whether its n-th call is struck, how long a latency between
//! two bounds is, and which letter of an answer is another one, depends on three things alone: the seed, the rule's own text, and n (a
//! SplitMix64 of them, see [`draw`]). So with the same seed and the same rules the n-th `kms.Decrypt` of two runs meets the same fate, whatever
//! other rules stand beside it and however other calls fall between. Which request's call is the n-th is the only thing that concurrency
//! decides: a test that wants one run to be exactly another sends its requests one after the other. `after=` and `for=` go by the machine's
//! monotonic clock from when the rules were set; rules without them depend on no clock.
//!
//! A seed that is not given is drawn, printed and told with the rules, so that what was seen can be seen again.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::grammar::{self, Kind, Wrong};
use crate::clock::Clock;

/// The faults of one stack. Clones share them; none at first.
#[derive(Clone)]
pub struct Plan(Arc<Inner>);

struct Inner {
    clock: Clock,
    /// Whether there are rules at all: what a call asks first.
    armed: AtomicBool,
    set: RwLock<Arc<Set>>,
    skews: Mutex<Vec<AbortHandle>>,
}

#[derive(Default)]
struct Set {
    text: String,
    seed: u64,
    rules: Vec<Armed>,
    since: Option<Instant>,
}

struct Armed {
    rule: grammar::Rule,
    /// Calls that fitted the place while the rule held.
    met: AtomicU64,
    /// Those of them that were struck.
    struck: AtomicU64,
}

/// What meets one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Waits so long first.
    pub(crate) latency: Duration,
    /// Then this happens.
    pub(crate) kind: Option<Kind>,
    /// For what is still to be drawn, such as which letter is another one.
    pub(crate) drawn: u64,
    /// The rules that struck, as they were written.
    pub(crate) rules: Vec<String>,
}

impl Fate {
    /// The rules in one line, where one struck.
    pub(crate) fn told(&self) -> Option<String> {
        (!self.rules.is_empty()).then(|| self.rules.join("; "))
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plan").field(&self.set().text).finish()
    }
}

impl Plan {
    /// No faults, for a stack of this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, armed: AtomicBool::new(false), set: RwLock::default(), skews: Mutex::default() }))
    }

    /// Puts these rules in place of those before, which count from the beginning again. Without a seed one is drawn.
    ///
    /// # Errors
    /// What is wrong with the text; then the rules before stay.
    pub fn replace(&self, text: &str, seed: Option<u64>) -> Result<(), Wrong> {
        let rules = grammar::read(text)?;
        let armed = |rule| Armed { rule, met: AtomicU64::new(0), struck: AtomicU64::new(0) };
        let seed = seed.unwrap_or_else(random_seed);
        let set = Set {
            text: text.trim().to_owned(),
            seed,
            rules: rules.into_iter().map(armed).collect(),
            since: Some(Instant::now()),
        };
        self.0.armed.store(!set.rules.is_empty(), Ordering::Relaxed);
        let set = Arc::new(set);
        *self.0.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&set);
        self.skew(&set);
        Ok(())
    }

    /// The seed of the rules.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.set().seed
    }

    /// The rules with what came of them: `{"faults", "seed", "rules": [{"rule", "met", "struck"}]}`.
    #[must_use]
    pub fn told(&self) -> Value {
        let set = self.set();
        let rules: Vec<Value> = set
            .rules
            .iter()
            .map(|armed| {
                let [met, struck] = [&armed.met, &armed.struck].map(|count| count.load(Ordering::Relaxed));
                json!({"rule": armed.rule.source, "met": met, "struck": struck})
            })
            .collect();
        json!({"faults": set.text, "seed": set.seed, "rules": rules})
    }

    /// Whether there are any.
    pub(crate) fn armed(&self) -> bool {
        self.0.armed.load(Ordering::Relaxed)
    }

    /// What meets this call. Latencies of several rules add up; of the rest the first rule that strikes does.
    pub(crate) fn meet(&self, service: &str, name: &str, fits: impl Fn(Kind) -> bool) -> Fate {
        let mut fate = Fate::default();
        if !self.armed() {
            return fate;
        }
        let set = self.set();
        let elapsed = set.since.map(|since| since.elapsed()).unwrap_or_default();
        for armed in &set.rules {
            if !armed.rule.place.holds(service, name) || !fits(armed.rule.kind) {
                continue;
            }
            let Some(drawn) = armed.strikes(set.seed, elapsed) else { continue };
            match armed.rule.kind {
                Kind::Latency(least, most) => fate.latency += between(least, most, drawn),
                kind if fate.kind.is_none() => (fate.kind, fate.drawn) = (Some(kind), drawn),
                _ => continue,
            }
            fate.rules.push(armed.rule.source.clone());
        }
        fate
    }

    fn set(&self) -> Arc<Set> {
        Arc::clone(&self.0.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves the clock when its rules say so, and back.
    fn skew(&self, set: &Arc<Set>) {
        let mut skews = self.0.skews.lock().unwrap_or_else(PoisonError::into_inner);
        skews.drain(..).for_each(|task| task.abort());
        self.0.clock.set_skew(0);
        for armed in &set.rules {
            let Kind::Skew(ahead) = armed.rule.kind else { continue };
            let (clock, when) = (self.0.clock.clone(), armed.rule.when);
            if when.after.is_zero() && when.lasts.is_none() {
                clock.set_skew(ahead);
                continue;
            }
            let task = tokio::spawn(async move {
                tokio::time::sleep(when.after).await;
                clock.set_skew(ahead);
                if let Some(lasts) = when.lasts {
                    tokio::time::sleep(lasts).await;
                    clock.set_skew(0);
                }
            });
            skews.push(task.abort_handle());
        }
    }
}

impl Armed {
    /// Counts a call that fits; answers what was drawn for it if it is struck.
    fn strikes(&self, seed: u64, elapsed: Duration) -> Option<u64> {
        let when = &self.rule.when;
        let holds = elapsed >= when.after && when.lasts.is_none_or(|lasts| elapsed < when.after.saturating_add(lasts));
        if !holds {
            return None;
        }
        let number = self.met.fetch_add(1, Ordering::Relaxed) + 1;
        let drawn = draw(seed, &self.rule.source, number);
        let by_chance = drawn % 1_000_000 < u64::from(when.chance);
        if !number.is_multiple_of(when.every) || !by_chance {
            return None;
        }
        let one_more = |struck: u64| (struck < when.first).then_some(struck + 1);
        self.struck.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        // The low digits have decided about the chance already.
        Some(mixed(drawn))
    }
}

/// What falls to the n-th call of a rule: the same for the same seed, rule and number.
#[must_use]
pub fn draw(seed: u64, rule: &str, number: u64) -> u64 {
    let name = rule
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mixed(mixed(seed ^ name).wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The last steps of SplitMix64.
fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn between(least: Duration, most: Duration, drawn: u64) -> Duration {
    let span = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    least + Duration::from_micros(drawn % span)
}

fn random_seed() -> u64 {
    let mut bytes = [0; 4];
    // Small enough to be typed. Nothing depends on nobody guessing it.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str, seed: u64) -> Plan {
        let plan = Plan::new(Clock::system());
        plan.replace(text, Some(seed)).unwrap();
        plan
    }

    fn struck(plan: &Plan, service: &str, name: &str, calls: usize) -> Vec<usize> {
        (1..=calls).filter(|_| plan.meet(service, name, |_| true).kind.is_some()).collect()
    }

    #[test]
    fn the_same_seed_strikes_the_same_calls_and_another_one_others() {
        let one = struck(&plan("kms throttle 10%", 1), "kms", "Sign", 2_000);
        assert_eq!(one, struck(&plan("kms throttle 10%", 1), "kms", "Sign", 2_000));
        assert_ne!(one, struck(&plan("kms throttle 10%", 2), "kms", "Sign", 2_000));
        assert!((140..260).contains(&one.len()), "{}", one.len());
        // Whatever else there is.
        let beside = plan("s3 5xx 50%; kms throttle 10%; db lost 1%", 1);
        let among: Vec<usize> = (1..=2_000)
            .filter(|_| {
                beside.meet("s3", "GetObject", |_| true);
                beside.meet("kms", "Sign", |_| true).kind.is_some()
            })
            .collect();
        assert_eq!(one, among);
    }

    #[test]
    fn every_first_and_the_place_are_kept_to() {
        let plan = plan("kms.Decrypt reset every=3 first=2", 0);
        assert_eq!(struck(&plan, "kms", "Encrypt", 9), [0; 0]);
        assert_eq!(struck(&plan, "kms", "Decrypt", 12), [3, 6]);
        assert_eq!(
            plan.told()["rules"][0],
            json!({"rule": "kms.Decrypt reset every=3 first=2", "met": 12, "struck": 2})
        );
    }

    #[test]
    fn latencies_add_up_and_the_first_of_the_others_strikes() {
        let plan = plan("s3 latency=10ms; s3 latency=1ms..5ms; s3 cut; s3 reset", 0);
        let fate = plan.meet("s3", "GetObject", |_| true);
        assert!((Duration::from_millis(11)..=Duration::from_millis(15)).contains(&fate.latency), "{fate:?}");
        assert_eq!((fate.kind, fate.rules.len()), (Some(Kind::Cut), 3));
    }

    #[test]
    fn rules_that_are_no_rules_leave_those_before() {
        let plan = plan("kms reset", 5);
        assert!(plan.replace("kms resett", Some(6)).is_err());
        assert_eq!((plan.seed(), plan.armed()), (5, true));
        plan.replace("", Some(6)).unwrap();
        assert_eq!((plan.seed(), plan.armed()), (6, false));
        assert_eq!(plan.meet("kms", "Sign", |_| true), Fate::default());
    }

    #[test]
    fn a_rule_holds_for_its_time_only() {
        let plan = plan("kms reset after=1h; s3 reset for=1h", 0);
        assert_eq!(struck(&plan, "kms", "Sign", 5), [0; 0]);
        assert_eq!(struck(&plan, "s3", "GetObject", 2), [1, 2]);
        let armed = Armed {
            rule: grammar::read("kms reset after=2s for=1s").unwrap().remove(0),
            met: 0.into(),
            struck: 0.into(),
        };
        let strikes = |ms| armed.strikes(0, Duration::from_millis(ms)).is_some();
        assert_eq!([1_999, 2_000, 2_999, 3_000].map(strikes), [false, true, true, false]);
    }

    #[tokio::test]
    async fn a_clock_is_put_ahead_and_back() {
        let clock = Clock::at(std::time::UNIX_EPOCH + Duration::from_secs(1_000));
        let plan = Plan::new(clock.clone());
        plan.replace("clock skew=-4m", None).unwrap();
        assert_eq!(clock.seconds(), 760);
        plan.replace("clock skew=1m", None).unwrap();
        assert_eq!(clock.seconds(), 1_060);
        plan.replace("", None).unwrap();
        assert_eq!(clock.seconds(), 1_000);
    }
}

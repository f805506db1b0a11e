//! Signing keys through their life, by the real publisher over a bucket, a registry and a key store in memory: what is written when,
//! what operators order, and that a run may end at any of its calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use shared::clock::{Clock, Timestamp};
use shared::jwks::Algorithm;
use shared::port::{
    CreatedKey, Database, Fault, FaultKind, ObjectReader, ObjectWriter, Parameter, Precondition, Read, SigningKeys,
    Written,
};
use shared::trust::{KeyState, OwnKeys, SigningState, TrustObject};
use testkit::{FixedClock, Registry, TrustBucket};
use trust::rotation::{DAY, Policy, Waits, What};
use trust::{Issues, Publisher, Report};

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
const KEYS: &str = OwnKeys::KEY;
const STATE: &str = SigningState::KEY;

/// Everything outside, which dies at the n-th call: that call has no effect, or its effect and no answer, and after it nothing works.
#[derive(Clone)]
struct Outside {
    bucket: TrustBucket,
    registry: Registry,
    left: Arc<AtomicI64>,
    effect: Arc<AtomicBool>,
    makes: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
}

impl Outside {
    fn new() -> Self {
        Self {
            bucket: TrustBucket::default(),
            registry: Registry::with_tenant("acme"),
            left: Arc::new(AtomicI64::new(i64::MAX)),
            effect: Arc::default(),
            makes: Arc::new(AtomicBool::new(true)),
            made: Arc::default(),
        }
    }

    /// Whether this call has its effect, and whether it is answered.
    fn call(&self) -> (bool, bool) {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1 => (self.effect.load(Ordering::SeqCst), false),
            left => (left > 1, left > 1),
        }
    }

    fn gone<T>() -> Result<T, Fault> {
        Err(Fault::new(FaultKind::Unavailable, "test", "gone"))
    }
}

impl ObjectReader for Outside {
    async fn read(&self, key: &str, known: Option<&str>) -> Result<Read, Fault> {
        if self.call().1 { self.bucket.read(key, known).await } else { Self::gone() }
    }
}

impl ObjectWriter for Outside {
    async fn write(&self, key: &str, body: Vec<u8>, when: Precondition) -> Result<Written, Fault> {
        let (works, answers) = self.call();
        let written = if works { self.bucket.write(key, body, when).await } else { Self::gone() };
        if answers { written } else { Self::gone() }
    }
}

impl Database for Outside {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        let (works, answers) = Outside::call(self);
        let done = if works { self.registry.call(function, parameters).await } else { Self::gone() };
        if answers { done } else { Self::gone() }
    }
}

impl SigningKeys for Outside {
    async fn create(&self, algorithm: Algorithm) -> Result<CreatedKey, Fault> {
        let (works, answers) = self.call();
        if works {
            self.made.fetch_add(1, Ordering::SeqCst);
        }
        tokio::task::yield_now().await;
        if !answers || !self.makes.load(Ordering::SeqCst) {
            return Self::gone();
        }
        let public_der = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
            _ => {
                let pair = Ed25519KeyPair::generate().unwrap();
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
        };
        Ok(CreatedKey { key: format!("arn:{}", self.made.load(Ordering::SeqCst)), public_der })
    }
}

#[derive(Clone)]
struct World {
    outside: Outside,
    clock: FixedClock,
    algorithm: Algorithm,
    spares: usize,
}

impl World {
    fn new() -> Self {
        let (outside, clock) = (Outside::new(), FixedClock::at(START));
        Self { outside, clock, algorithm: Algorithm::Es256, spares: 1 }
    }

    async fn settled() -> Self {
        let world = Self::new();
        world.run().await;
        world.run().await;
        world
    }

    fn publisher(&self) -> Publisher<Outside, Outside, Outside, FixedClock> {
        let algorithm = self.algorithm;
        Publisher {
            database: self.outside.clone(),
            bucket: self.outside.clone(),
            keys: self.outside.clone(),
            clock: self.clock.clone(),
            issues: Issues { issuer: "https://gate.example".into(), audience: "api://acme".into(), algorithm },
            policy: Policy { algorithm, period: 90 * DAY, spares: self.spares, waits: Waits::DEFAULT },
        }
    }

    async fn run(&self) -> Report {
        let report = self.publisher().publish().await;
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        report
    }

    /// What happened in one run, without the kids.
    async fn moves(&self) -> Vec<What> {
        self.run().await.moves.iter().map(|one| one.what).collect()
    }

    /// A run that dies at its `call`-th call. False when it came to its end before.
    async fn dies(&self, call: i64, effect: bool) -> bool {
        self.outside.left.store(call, Ordering::SeqCst);
        self.outside.effect.store(effect, Ordering::SeqCst);
        self.publisher().publish().await;
        self.outside.left.swap(i64::MAX, Ordering::SeqCst) <= 0
    }

    fn state(&self) -> SigningState {
        SigningState::parse(&self.outside.bucket.json(STATE)["body"]).unwrap()
    }

    fn states(&self) -> Vec<KeyState> {
        self.state().keys.iter().map(|key| key.state).collect()
    }

    fn active(&self) -> String {
        self.state().active(self.algorithm).unwrap().kid.clone()
    }

    fn published(&self) -> HashSet<String> {
        let keys = OwnKeys::parse(&self.outside.bucket.json(KEYS)["body"]).unwrap();
        keys.0.iter().map(|key| key.kid.clone()).collect()
    }

    fn revoked(&self) -> Value {
        self.outside.bucket.json("trust/revocations.json")["body"]["kid"].clone()
    }

    fn made(&self) -> usize {
        self.outside.made.load(Ordering::SeqCst)
    }

    fn act(parameters: impl IntoIterator<Item = Parameter>, now: Timestamp) -> Vec<Parameter> {
        let text = |text: &str| Parameter::Text(text.to_owned());
        [text("op"), text("r"), Parameter::Int(now.millis())].into_iter().chain(parameters).collect()
    }

    async fn rotate(&self) -> Value {
        let parameters = Self::act([Parameter::OptionalText(None)], self.clock.now());
        self.outside.registry.call("api.signing_rotate", parameters).await.unwrap()
    }

    async fn drop_key(&self, kid: &str, confirm: bool) -> String {
        let act = Self::act([Parameter::Text(kid.to_owned()), Parameter::Bool(confirm)], self.clock.now());
        let answer = self.outside.registry.call("api.signing_drop", act).await.unwrap();
        answer["outcome"].as_str().unwrap().to_owned()
    }

    fn days(&self, days: i64) {
        self.clock.advance(days * 86_400);
    }
}

#[tokio::test]
async fn a_key_lives_its_life_without_anybody() {
    for (algorithm, spares) in [(Algorithm::Es256, 1), (Algorithm::EdDsa, 2)] {
        let world = World { algorithm, spares, ..World::new() };
        assert_eq!(world.run().await.genesis.len(), 1 + spares);
        assert_eq!(world.moves().await, vec![What::Published; 1 + spares]);
        let (first, known) = (world.active(), world.published());
        world.days(89);
        assert_eq!(world.moves().await, []);
        world.days(1);
        assert_eq!(world.moves().await, [What::Retired, What::Activated]);
        let second = world.active();
        assert!(second != first && known.contains(&second), "the spare was known all the time");
        assert!(world.published().contains(&first), "its tokens are alive");
        assert_eq!(world.published().len(), 2 + spares, "another spare was made with the same run");
        world.clock.advance(60);
        assert_eq!(world.moves().await, [What::Published]);
        world.clock.advance(86_400 - 61);
        assert_eq!(world.moves().await, []);
        world.clock.advance(1);
        assert_eq!(world.moves().await, [What::Removed]);
        assert!(!world.published().contains(&first) && world.published().contains(&second));
        world.days(30);
        world.run().await;
        assert!(!world.states().contains(&KeyState::Removed), "it is forgotten");
        for _ in 0..20 {
            world.days(91);
            for _ in 0..5 {
                world.run().await;
                world.days(1);
            }
        }
        assert_eq!((world.made(), world.state().making), (2 + spares + 20, None));
    }
}

#[tokio::test]
async fn an_order_to_rotate_waits_for_a_ripe_spare_and_is_done_once() {
    let world = World::settled().await;
    let (first, ordered) = (world.active(), world.rotate().await);
    assert_eq!(ordered["outcome"], "ordered");
    assert_eq!(world.rotate().await["outcome"], "unchanged");
    assert_eq!(
        (ordered["key"]["kid"].as_str().unwrap(), world.moves().await),
        (&*first, vec![]),
        "the spare is too young"
    );
    world.clock.advance(86_399);
    assert_eq!(world.moves().await, []);
    world.clock.advance(1);
    assert_eq!(world.moves().await, [What::Retired, What::Activated]);
    assert_eq!(ordered["from_ms"], world.clock.now().millis(), "as it was said");
    for _ in 0..5 {
        world.clock.advance(60);
        world.run().await;
    }
    assert_eq!(world.states(), [KeyState::Retiring, KeyState::Active, KeyState::Published]);
    // The same act, sent again by its kid, orders nothing new.
    let again = World::act([Parameter::OptionalText(Some(first))], world.clock.now());
    let again = world.outside.registry.call("api.signing_rotate", again).await.unwrap();
    assert_eq!((&again["outcome"], &again["key"]["state"]), (&json!("unchanged"), &json!("retiring")));
}

#[tokio::test]
async fn a_dropped_key_is_out_with_one_run_and_its_spare_signs() {
    let world = World::settled().await;
    world.clock.advance(400);
    world.run().await;
    let (first, known) = (world.active(), world.published());
    assert_eq!(world.drop_key(&first, false).await, "dropped");
    assert_eq!(world.drop_key(&first, false).await, "unchanged");
    assert_eq!(world.moves().await, [What::Dropped, What::ActivatedUrgently], "the spare is 400 s old");
    assert!(known.contains(&world.active()) && !world.published().contains(&first));
    assert_eq!(world.revoked(), json!([first]));
    assert_eq!(world.states(), [KeyState::Removed, KeyState::Active, KeyState::Published]);

    // Somebody brings back a state of before; the order stands, and it is refused for ever.
    world.days(40);
    world.run().await;
    let mut envelope = world.outside.bucket.json(STATE);
    let mut keys = envelope["body"]["keys"].as_array().unwrap().clone();
    let mut back = keys[0].clone();
    back["kid"] = json!(first);
    back["state"] = json!("retiring");
    keys.push(back);
    envelope["body"]["keys"] = json!(keys);
    world.outside.bucket.put(STATE, envelope.to_string());
    assert!(world.moves().await.contains(&What::Dropped));
    assert_eq!(world.revoked(), json!([first]));
}

#[tokio::test]
async fn nobody_drops_the_last_key_without_saying_so() {
    let world = World::settled().await;
    let (first, spare) = (world.active(), world.state().keys[1].kid.clone());
    assert_eq!(world.drop_key(&"x".repeat(43), true).await, "signing_key_unknown");
    assert_eq!(world.drop_key(&first, false).await, "nobody_signs", "the spare has just been published");
    assert_eq!(world.drop_key(&spare, false).await, "dropped", "the active one signs on");
    assert_eq!(world.drop_key(&first, false).await, "nobody_signs");
    assert_eq!(world.moves().await, [What::Dropped]);
    assert_eq!(world.drop_key(&first, true).await, "dropped");
    assert_eq!(world.moves().await, [What::Published, What::Dropped], "the spare of the spare is too young as well");
    assert!(world.state().active(Algorithm::Es256).is_none());
    // Two keys are missing now, one to sign and one to wait: they are made at once and sign when verifiers can know them.
    for _ in 0..3 {
        world.clock.advance(60);
        world.run().await;
    }
    assert!(!world.published().contains(&first) && !world.published().contains(&spare));
    world.clock.advance(371);
    assert_eq!(world.moves().await, [What::ActivatedUrgently]);
    assert_eq!(world.outside.bucket.json(KEYS)["body"]["keys"].as_array().unwrap().len(), 2);
    let revoked: HashSet<String> = serde_json::from_value(world.revoked()).unwrap();
    assert_eq!(revoked, HashSet::from([first, spare]));
}

#[tokio::test]
async fn what_trust_reported_long_ago_is_no_reason_to_drop_a_key() {
    let world = World::settled().await;
    world.days(2);
    world.run().await;
    let first = world.active();
    world.clock.advance(181);
    assert_eq!(world.drop_key(&first, false).await, "nobody_signs");
    world.run().await;
    assert_eq!(world.drop_key(&first, false).await, "dropped");
}

#[tokio::test]
async fn another_algorithm_takes_over_and_the_old_keys_go_after_their_tokens() {
    let mut world = World::settled().await;
    let old = world.published();
    world.days(3);
    world.algorithm = Algorithm::EdDsa;
    world.run().await;
    world.clock.advance(60);
    world.run().await;
    assert!(world.state().active(Algorithm::Es256).is_some(), "nobody takes the old one away before the new one signs");
    world.clock.advance(370);
    assert_eq!(world.moves().await, [What::ActivatedUrgently, What::Retired]);
    assert!(world.published().is_superset(&old));
    world.clock.advance(86_400);
    world.run().await;
    world.run().await;
    assert!(world.published().is_disjoint(&old) && world.published().len() == 2);
}

#[tokio::test]
async fn a_key_that_vanished_from_the_published_set_waits_anew() {
    let world = World::settled().await;
    world.days(20);
    world.run().await;
    world.rotate().await;
    world.outside.bucket.remove(KEYS);
    assert_eq!(world.moves().await, [What::Unpublished]);
    assert_eq!(world.moves().await, [What::Published]);
    world.clock.advance(86_399);
    assert_eq!(world.moves().await, []);
    world.clock.advance(1);
    assert_eq!(world.moves().await, [What::Retired, What::Activated]);
}

#[tokio::test]
async fn without_orders_nothing_moves() {
    let world = World::settled().await;
    world.days(100);
    world.outside.registry.set_down(true);
    let report = world.publisher().publish().await;
    assert!(!report.faults.is_empty() && report.moves.is_empty());
    assert!(report.published.contains(&STATE) && report.published.contains(&KEYS), "they are kept alive all the same");
    world.outside.registry.set_down(false);
    assert_eq!(world.moves().await, [What::Retired, What::Activated]);
}

#[tokio::test]
async fn a_key_store_that_fails_for_days_is_asked_less_and_less() {
    let world = World::settled().await;
    world.days(95);
    world.outside.makes.store(false, Ordering::SeqCst);
    let before = world.made();
    for _ in 0..2 * 1_440 {
        world.publisher().publish().await;
        world.clock.advance(60);
    }
    let asked = world.made() - before;
    assert!((10..=12).contains(&asked), "asked {asked} times in two days");
    world.outside.makes.store(true, Ordering::SeqCst);
    world.days(1);
    world.run().await;
    world.run().await;
    assert_eq!(world.state().keys.iter().filter(|key| key.state == KeyState::Published).count(), 1);
}

#[tokio::test]
async fn several_at_once_make_one_key_and_hand_over_once() {
    let world = World::settled().await;
    world.days(95);
    let runs = [world.publisher(), world.publisher(), world.publisher()];
    let (one, two, three) = tokio::join!(runs[0].publish(), runs[1].publish(), runs[2].publish());
    let moves: Vec<What> =
        [&one, &two, &three].into_iter().flat_map(|report| &report.moves).map(|one| one.what).collect();
    assert_eq!(moves.iter().filter(|what| **what == What::Activated).count(), 1, "{moves:?}");
    assert_eq!(world.made(), 3);
    world.run().await;
    assert_eq!(world.states(), [KeyState::Retiring, KeyState::Active, KeyState::Published]);
}

#[tokio::test]
async fn a_run_may_end_at_any_of_its_calls() {
    let mut deaths = 0;
    for effect in [false, true] {
        for scene in ["genesis", "handover", "drop", "removal"] {
            for call in 1.. {
                let world = if scene == "genesis" { World::new() } else { World::settled().await };
                let mut least = 2;
                match scene {
                    "handover" => world.days(95),
                    "drop" => {
                        world.days(2);
                        world.run().await;
                        assert_eq!(world.drop_key(&world.active(), false).await, "dropped");
                    }
                    "removal" => {
                        world.days(95);
                        world.run().await;
                        world.run().await;
                        world.days(2);
                        least = 3;
                    }
                    _ => {}
                }
                if !world.dies(call, effect).await {
                    assert!(call > 10, "{scene} ends after {call} calls");
                    break;
                }
                deaths += 1;
                let case = format!("{scene}, dead at call {call}, with effect: {effect}");
                // Nobody may have both, or what nobody knows.
                if let Ok(state) = SigningState::parse(&world.outside.bucket.json(STATE)["body"]) {
                    assert!(state.keys.iter().filter(|key| key.state == KeyState::Active).count() <= 1, "{case}");
                    if let Some(active) = state.active(Algorithm::Es256).filter(|_| scene != "genesis") {
                        assert!(world.published().contains(&active.kid), "{case}");
                    }
                }
                for _ in 0..3 {
                    world.clock.advance(150);
                    world.run().await;
                }
                let state = world.state();
                let of = |wanted: KeyState| state.keys.iter().filter(|key| key.state == wanted).count();
                assert_eq!((of(KeyState::Active), of(KeyState::Published), state.making), (1, 1, None), "{case}");
                let live: HashSet<String> =
                    state.keys.iter().filter(|key| key.state != KeyState::Removed).map(|key| key.kid.clone()).collect();
                assert_eq!(world.published(), live, "{case}");
                least += usize::from(matches!(scene, "handover" | "drop"));
                let lost = world.made() - least;
                assert!(lost <= if scene == "genesis" { 2 } else { 1 }, "{case}: {lost} keys lost");
            }
        }
    }
    println!("{deaths} deaths");
    assert!(deaths > 80);
}

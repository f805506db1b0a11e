use std::error::Error as _;

use futures::future::join_all;
use serde_json::{Value, json};
use shared::port::FaultKind;

use super::*;
use crate::patience::BUDGET;
use crate::testing::{Answers, VirtualTime, config, parameter, path, refusal};

/// A fresh key: its parameter's name and its PEM.
fn key(algorithm: Algorithm) -> (String, String) {
    let pair = Pair::generate(algorithm).unwrap().unwrap();
    (path().of_key(&pair.kid().unwrap()), pair.to_pem().unwrap().to_string())
}

struct World {
    time: VirtualTime,
    answers: Answers,
    signer: SsmSigner,
}

impl World {
    fn new(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let (time, answers) = (VirtualTime::default(), Answers::new(answers));
        let signer = SsmSigner::new(&config(answers.clone(), &time), path());
        Self { time, answers, signer }
    }

    fn sign(&self, key: &str, algorithm: Algorithm) -> Result<Vec<u8>, Fault> {
        self.time.run(self.signer.sign(key, algorithm, b"abc"))
    }
}

#[test]
fn a_key_is_read_at_its_first_signature_and_never_again() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let (name, pem) = key(algorithm);
        let world = World::new([parameter(&name, &pem)]);
        assert!(world.answers.calls().is_empty(), "nothing is read before the first signature");
        for _ in 0..3 {
            assert!(matches!(world.sign(&name, algorithm).unwrap().len(), 64 | 256));
        }
        let expected = json!({"Name": name, "WithDecryption": true});
        assert_eq!(world.answers.calls(), [("AmazonSSM.GetParameter".to_owned(), expected)]);
    }
}

#[test]
fn however_many_wait_a_key_is_read_once_and_one_fault_is_the_answer_to_all() {
    let (name, pem) = key(Algorithm::EdDsa);
    let world = World::new([refusal("ThrottlingException"), parameter(&name, &pem)]);
    let all = join_all((0..20).map(|_| world.signer.sign(&name, Algorithm::EdDsa, b"abc")));
    assert!(world.time.run(all).iter().all(Result::is_ok));
    assert_eq!(world.answers.calls().len(), 2);

    let refused = [refusal("ThrottlingException"), refusal("AccessDeniedException")];
    let world = World::new(refused.into_iter().chain([parameter(&name, &pem)]));
    let all = join_all((0..20).map(|_| world.signer.sign(&name, Algorithm::EdDsa, b"abc")));
    let kinds: Vec<_> = world.time.run(all).into_iter().map(|signed| signed.unwrap_err().kind).collect();
    assert_eq!(kinds, [FaultKind::Denied; 20]);
    assert_eq!(world.answers.calls().len(), 2);
    assert!(world.sign(&name, Algorithm::EdDsa).is_ok(), "the next call starts anew");
}

#[test]
fn a_caller_that_gives_up_leaves_nothing_behind() {
    let (name, pem) = key(Algorithm::EdDsa);
    let world = World::new([refusal("ThrottlingException"), parameter(&name, &pem)]);
    {
        let mut abandoned = Box::pin(world.signer.sign(&name, Algorithm::EdDsa, b"abc"));
        let waker = std::task::Waker::noop();
        assert!(abandoned.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    }
    assert!(world.sign(&name, Algorithm::EdDsa).is_ok());
    assert_eq!(world.answers.calls().len(), 2);
}

#[test]
fn throttling_and_outages_are_waited_out_and_refusals_are_not() {
    let (name, pem) = key(Algorithm::EdDsa);
    let outage = || (500, json!({"__type": "InternalServerError"}));
    let world = World::new([refusal("ThrottlingException"), outage(), outage(), parameter(&name, &pem)]);
    assert!(world.sign(&name, Algorithm::EdDsa).is_ok());
    assert!(world.time.now() < BUDGET);
    for (code, kind) in [
        ("AccessDeniedException", FaultKind::Denied),
        ("InvalidKeyId", FaultKind::Denied),
        ("ParameterNotFound", FaultKind::NotFound),
        ("ValidationException", FaultKind::Invalid),
    ] {
        let world = World::new([refusal(code), parameter(&name, &pem)]);
        let fault = world.sign(&name, Algorithm::EdDsa).unwrap_err();
        assert_eq!((fault.kind, world.answers.calls().len()), (kind, 1), "{code}");
        assert_eq!(fault.source().unwrap().to_string(), format!("{code}: words of the service"));
    }
}

#[test]
fn an_ended_session_is_waited_out_and_never_remembered_as_a_denial() {
    let (name, pem) = key(Algorithm::EdDsa);
    let ended = || refusal("ExpiredTokenException");
    let world = World::new([ended(), ended(), parameter(&name, &pem)]);
    assert!(world.sign(&name, Algorithm::EdDsa).is_ok(), "the session that comes after it reads the key");
    assert!(world.time.now() < BUDGET);
    assert_eq!(world.answers.calls().len(), 3);

    // One that nothing follows within a call: an outage to whoever waits, a key to whoever asks next.
    let world = World::new((0..500).map(|_| ended()));
    let fault = world.sign(&name, Algorithm::EdDsa).unwrap_err();
    assert_eq!((fault.kind, fault.is_transient()), (FaultKind::Unavailable, true));
    assert_eq!(world.time.now(), BUDGET);
    world.answers.replace([parameter(&name, &pem)]);
    for _ in 0..2 {
        assert!(world.sign(&name, Algorithm::EdDsa).is_ok());
    }
    // What says that somebody is not let in stays a denial, at once.
    for code in ["UnrecognizedClientException", "InvalidSignatureException", "AccessDeniedException"] {
        let world = World::new([refusal(code), parameter(&name, &pem)]);
        assert_eq!(world.sign(&name, Algorithm::EdDsa).unwrap_err().kind, FaultKind::Denied, "{code}");
        assert_eq!(world.answers.calls().len(), 1, "{code}");
    }
}

#[test]
fn patience_ends_before_five_seconds_with_the_last_fault() {
    let (name, _) = key(Algorithm::EdDsa);
    let world = World::new((0..500).map(|_| refusal("ThrottlingException")));
    assert_eq!(world.sign(&name, Algorithm::EdDsa).unwrap_err().kind, FaultKind::Throttled);
    assert_eq!(world.time.now(), BUDGET);
    let calls = world.answers.calls().len();
    assert!((4..=60).contains(&calls), "{calls} calls");

    let world = World::new([]);
    assert_eq!(world.sign(&name, Algorithm::EdDsa).unwrap_err().kind, FaultKind::Unavailable);
    assert_eq!(world.time.now(), BUDGET);
}

#[test]
fn what_is_not_the_named_key_is_refused_and_nothing_of_it_is_told() {
    let (name, pem) = key(Algorithm::EdDsa);
    let (other, stranger) = key(Algorithm::EdDsa);
    let (_, curve) = key(Algorithm::Es256);
    let canary = "canary-9d3e";
    let plain = json!({"Parameter": {"Name": name, "Type": "String", "Value": pem}});
    for (what, answer) in [
        ("another key", parameter(&name, &stranger)),
        ("another parameter", parameter(&other, &pem)),
        ("a key of another kind", parameter(&name, &curve)),
        ("no key", parameter(&name, canary)),
        ("a broken key", parameter(&name, &pem.replace("MC", canary))),
        ("no SecureString", (200, plain)),
        ("no value", (200, json!({"Parameter": {"Name": name, "Type": "SecureString"}}))),
        ("nothing", (200, json!({}))),
    ] {
        let world = World::new([answer, parameter(&name, &pem)]);
        let fault = world.sign(&name, Algorithm::EdDsa).unwrap_err();
        assert_eq!(fault.kind, if what == "nothing" { FaultKind::Invalid } else { FaultKind::Unavailable }, "{what}");
        let shown = format!("{fault} {fault:?} {:?}", world.signer);
        assert!(!shown.contains(canary), "{shown}");
        for secret in [&pem, &stranger, &curve] {
            assert!(secret.lines().all(|line| !shown.contains(line)), "{shown}");
        }
        assert_eq!(world.answers.calls().len(), 1, "{what}");
        assert!(world.sign(&name, Algorithm::EdDsa).is_ok(), "{what} was not kept");
    }
}

#[test]
fn a_key_outside_of_the_path_is_refused_without_a_call() {
    let world = World::new([]);
    let kid = "k".repeat(43);
    for key in [
        "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(),
        format!("/portcullis/signing/prod/{kid}"),
        format!("/portcullis/signing/dev/{kid}:1"),
        "/portcullis/signing/dev".to_owned(),
        kid,
    ] {
        assert_eq!(world.sign(&key, Algorithm::EdDsa).unwrap_err().kind, FaultKind::Invalid, "{key}");
    }
    assert!(world.answers.calls().is_empty());
}

#[test]
fn a_held_key_signs_for_its_own_algorithm_only() {
    let (name, pem) = key(Algorithm::Es256);
    let world = World::new([parameter(&name, &pem)]);
    assert!(world.sign(&name, Algorithm::Es256).is_ok());
    for other in [Algorithm::Rs256, Algorithm::EdDsa, Algorithm::Es384, Algorithm::Ps256] {
        assert_eq!(world.sign(&name, other).unwrap_err().kind, FaultKind::Invalid);
    }
}

#[test]
fn only_the_newest_keys_are_kept() {
    let keys: Vec<_> = (0..=KEPT).map(|_| key(Algorithm::EdDsa)).collect();
    let answers = keys.iter().chain(keys.first()).map(|(name, pem)| parameter(name, pem));
    let world = World::new(answers);
    for (name, _) in keys.iter().chain(keys.first()).chain(keys.last()) {
        assert!(world.sign(name, Algorithm::EdDsa).is_ok());
    }
    assert_eq!(world.answers.calls().len(), KEPT + 2, "the first had to be read again, the last had not");
}

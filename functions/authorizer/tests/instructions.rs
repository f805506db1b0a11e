//! How many instructions the deciding paths take, over those of one bare check of a signature in the same program.
//!
//! Instructions, unlike time, do not depend on what else the machine does; `callgrind` counts them. The profile is the tests' own,
//! which optimises none of our code, so that the ratios are far from what ships (`docs/bench.md` has those): what they hold is that
//! nobody makes a path longer without saying so.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers outside of #[test] functions; a test may fail loudly, and says what it found"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, thread};

use authorizer::Authorizer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Handler as _, Invocation};
use shared::clock::Timestamp;
use shared::encoding::from_base64url;
use shared::entropy::SystemEntropy;
use shared::jwks::{Algorithm, KeySet};
use shared::jwt::access_token;
use shared::name::{Identifier, Tenant};
use shared::pc1::{self, Context, DataKey, MessageIds, Row};
use shared::trust::{Accepts, Revocations, Revoked};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, TrustBucket};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";
/// As often everything is done that is counted: signatures differ, and so do checks of them.
const TIMES: usize = 40;
/// Says which path the program takes that is counted.
const CHOICE: &str = "PORTCULLIS_COUNTED";
const BARE: &str = "bare check of a signature";
/// What may be: path → its instructions over those of the bare check.
const BUDGETS: &str = include_str!("instructions.json");

/// callgrind counts within this function and nowhere else.
#[inline(never)]
fn counted_part(work: &mut dyn FnMut(usize)) {
    for at in 0..TIMES {
        work(at);
    }
}

fn tokens(issuer: &Issuer) -> Vec<String> {
    (0..TIMES).map(|at| issuer.token(NOW, &json!({"jti": format!("0198e1a0-0000-7000-8000-{at:012}")}))).collect()
}

fn bare() {
    let issuer = Issuer::new("k1");
    let jwk = issuer.jwk();
    let part = |name: &str| from_base64url(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], part("x"), part("y")].concat();
    let checks: Vec<_> = tokens(&issuer)
        .into_iter()
        .map(|token| {
            let (signed, signature) = token.rsplit_once('.').unwrap();
            (signed.to_owned(), from_base64url(signature).unwrap())
        })
        .collect();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    counted_part(&mut |at| key.verify(checks[at].0.as_bytes(), &checks[at].1).unwrap());
}

fn strict() {
    let issuer = Issuer::new("k1");
    let (tokens, keys) =
        (tokens(&issuer), KeySet::parse(&json!({"keys": [issuer.jwk()]}), &[Algorithm::Es256]).unwrap());
    counted_part(&mut |at| drop(black_box(access_token(&tokens[at], ISSUER, AUDIENCE, &keys, NOW).unwrap())));
}

/// The whole authorizer, beside 500 revocations and the shipped policies; what is asked was asked before of another token.
fn decision(seen: bool) {
    let (issuer, bucket) = (Issuer::new("k1"), TrustBucket::default());
    issuer.publish(&bucket, NOW);
    let names: Vec<String> = (0..500).map(|at| format!("0198e1a0-0000-7000-9000-{at:012}")).collect();
    let revoked = names.iter().map(|name| (Revoked::Token, name.as_str(), NOW.seconds() + 600));
    issuer.put(&bucket, "trust/revocations.json", NOW, Revocations::body(revoked, &[]));
    let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
    let authorizer: Authorizer<Cedar, _, _> = Authorizer::new(accepts, bucket, FixedClock::at(NOW));
    let event = |token: &str| {
        json!({"type": "REQUEST", "methodArn": format!("arn:aws:execute-api:us-east-1:111122223333:abc/v1/GET{FILE}"),
            "resource": "/files/{id}", "path": FILE, "httpMethod": "GET",
            "multiValueHeaders": {"Authorization": [format!("Bearer {token}")]}, "requestContext": {"requestId": "g-1"}})
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |event: Value| {
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        let answer = runtime.block_on(authorizer.handle(event, &invocation)).unwrap();
        assert_eq!(answer["policyDocument"]["Statement"][0]["Effect"], "Allow");
    };
    let first = issuer.token(NOW, &json!({}));
    ask(event(&first));
    let asked = tokens(&issuer).iter().map(|token| event(if seen { &first } else { token })).collect::<Vec<_>>();
    let mut asked = asked.into_iter();
    counted_part(&mut |_| ask(asked.next().unwrap()));
}

fn seal() {
    let (tenant, table) = (Tenant::parse("acme").unwrap(), Identifier::parse("users").unwrap());
    let (column, row) = (Identifier::parse("email").unwrap(), Row::parse("42").unwrap());
    let key = DataKey::parse(&[7; 32]).unwrap();
    let id = Uuid::from_u128(0x0198_e1a0_0000_7000_8000_0000_0000_0000);
    let context = Context { tenant: &tenant, table: &table, column: &column, row: &row, version: None };
    let mut messages = MessageIds::draw(TIMES, &SystemEntropy);
    counted_part(&mut |_| {
        drop(black_box(pc1::seal(&key, id, messages.next().unwrap(), &context, &[b'x'; 64]).unwrap()));
    });
}

const PATHS: [(&str, fn()); 5] = [
    (BARE, bare),
    ("strict check of a token", strict),
    ("decision, a new token", || decision(false)),
    ("decision, a token seen before", || decision(true)),
    ("one field sealed", seal),
];

#[test]
#[ignore = "the program that is counted, run by the test below"]
#[expect(clippy::disallowed_methods, reason = "what the test below tells it")]
fn counted() {
    let choice = env::var(CHOICE).unwrap();
    let (_, path) = PATHS.into_iter().find(|(name, _)| *name == choice).unwrap();
    path();
}

/// Where `scripts/need-valgrind` unpacked it, or where the machine has it.
fn valgrind() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.local/valgrind/valgrind");
    let runs =
        |program: &PathBuf| Command::new(program).arg("--version").output().is_ok_and(|said| said.status.success());
    ["valgrind".into(), unpacked].into_iter().find(runs)
}

fn instructions(valgrind: &Path, path: &str) -> f64 {
    let mut command = Command::new(valgrind);
    command.args([
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--collect-atstart=no",
        "--toggle-collect=*counted_part*",
    ]);
    command
        .arg(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "counted", "--test-threads=1"])
        .env(CHOICE, path);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{path}: {said}\n{}", String::from_utf8_lossy(&output.stdout));
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok());
    let collected = collected.filter(|count| *count > 0.0);
    collected.unwrap_or_else(|| panic!("{path}: nothing was counted: {said}")) / TIMES as f64
}

#[test]
fn no_path_takes_more_instructions_than_its_budget() {
    let Some(valgrind) = valgrind() else {
        #[expect(clippy::disallowed_methods, reason = "a CI must not go without")]
        let ci = env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "there is no valgrind: scripts/need-valgrind");
        println!("SKIP  there is no valgrind (scripts/need-valgrind): nothing is counted");
        return;
    };
    let count = |(name, _): (&'static str, fn())| {
        let valgrind = valgrind.clone();
        thread::spawn(move || (name, instructions(&valgrind, name)))
    };
    let counts: BTreeMap<_, _> = PATHS.map(count).into_iter().map(|thread| thread.join().unwrap()).collect();
    let budgets: BTreeMap<String, f64> = serde_json::from_str(BUDGETS).unwrap();
    let mut broken = Vec::new();
    for (path, count) in counts.iter().filter(|(path, _)| **path != BARE) {
        let ratio = count / counts[BARE];
        let budget = budgets.get(*path).copied().unwrap_or_else(|| panic!("{path} has no budget"));
        println!(
            "{path}: {count:.0} instructions, {ratio:.3} of the bare check's {:.0}; budget {budget}",
            counts[BARE]
        );
        // What is far below its budget could be made worse by as much, and nobody would hear of it.
        if ratio > budget || ratio < budget * 0.5 {
            broken.push(format!("{path}: {ratio:.2} of the bare check, budget {budget}"));
        }
    }
    assert_eq!(budgets.len(), counts.len() - 1, "a budget of no path");
    assert!(broken.is_empty(), "functions/authorizer/tests/instructions.json: {broken:?}");
}

//! The model against what queueing theory knows exactly.

use fleet::model::{Fleet, Function, Kind, Load, Quotas, Refusal, Signs, Waits, run};
use fleet::quota::Bucket;

const WAITS: Waits =
    Waits { s3: 0.0, kms: 0.0, ssm: 0.0, statement: 0.01, statement_fixed: true, fresh: 5.0, patience: f64::INFINITY };

/// One function and nothing before it.
fn single(work: f64, statements: u64, waits: Waits, quotas: Quotas) -> Fleet {
    let function = Function { name: "one", work, cold: 0.0, statements, signs: Signs::Nothing, objects: 0 };
    Fleet {
        functions: vec![function],
        kinds: vec![Kind { share: 1_000, gated: false, function: Some(0) }],
        waits,
        quotas,
    }
}

/// Erlang's first formula: the share that is lost by `servers` at this load.
fn erlang_b(servers: u64, load: f64) -> f64 {
    (1..=servers).fold(1.0, |blocked, at| load * blocked / (at as f64 + load * blocked))
}

/// Erlang's second: the share that waits.
fn erlang_c(servers: u64, load: f64) -> f64 {
    let blocked = erlang_b(servers, load);
    let busy = load / servers as f64;
    blocked / (1.0 - busy * (1.0 - blocked))
}

fn near(found: f64, expected: f64, within: f64) {
    assert!((found / expected - 1.0).abs() < within, "found {found}, expected {expected}");
}

#[test]
fn so_many_at_once_lose_as_many_as_erlang_says() {
    for (servers, load) in [(5, 4.0), (20, 18.0), (100, 110.0)] {
        let quotas = Quotas { concurrency: servers, ..Quotas::LIFTED };
        let fleet = single(0.02, 0, WAITS, quotas);
        let outcome = run(&fleet, Load::Rate(load / 0.02, 200_000.0 * 0.02 / load), 0.0, 1);
        let part = &outcome.parts[1];
        near(part.refused_by(Refusal::Concurrency) as f64 / part.came() as f64, erlang_b(servers, load), 0.05);
    }
}

#[test]
fn connections_are_waited_for_as_long_as_erlang_says() {
    for (servers, load) in [(1, 0.7), (8, 7.0), (50, 46.0)] {
        let waits = Waits { statement_fixed: false, ..WAITS };
        let fleet = single(0.0, 1, waits, Quotas { connections: servers, ..Quotas::LIFTED });
        let outcome = run(&fleet, Load::Rate(load / 0.01, 3_000_000.0 * 0.01 / load), 0.0, 2);
        let expected = erlang_c(servers, load) * 0.01 / (servers as f64 - load);
        println!("{servers} {load}: {} of {expected}", outcome.waited);
        near(outcome.waited, expected, 0.1);
    }
}

#[test]
fn one_server_of_fixed_times_is_waited_for_half_as_long() {
    for busy in [0.5_f64, 0.8] {
        let fleet = single(0.0, 1, WAITS, Quotas { connections: 1, ..Quotas::LIFTED });
        let outcome = run(&fleet, Load::Rate(busy / 0.01, 400_000.0 * 0.01 / busy), 0.0, 3);
        near(outcome.waited, busy * 0.01 / (2.0 * (1.0 - busy)), 0.05);
    }
}

#[test]
fn a_bucket_never_gives_more_than_its_rate_and_its_room() {
    let mut bucket = Bucket::new(100.0, 50.0);
    let given = (0..10_000).filter(|at| bucket.take(f64::from(*at) / 1_000.0)).count();
    assert_eq!(given, 1_049);
    assert_eq!(bucket.tally.asked - bucket.tally.refused, 1_049);
}

#[test]
fn every_request_is_answered_or_refused_once() {
    let quotas = Quotas { gateway: (900.0, 100.0), concurrency: 12, connections: 2, ..Quotas::LIFTED };
    let waits = Waits { patience: 0.05, ..WAITS };
    let fleet = single(0.01, 1, waits, quotas);
    let outcome = run(&fleet, Load::Rate(1_000.0, 20.0), 5.0, 4);
    let came: u64 = outcome.parts.iter().map(fleet::model::Part::came).sum();
    assert!(came.abs_diff(20_000) < 600, "{came}");
    assert!(outcome.parts.iter().all(|part| part.took.len() as u64 == part.served));
    assert!(outcome.parts[1].refused_by(Refusal::Gateway) > 0 && outcome.parts[1].refused_by(Refusal::Concurrency) > 0);
}

#[test]
fn a_run_is_its_seed() {
    let fleet = single(0.01, 1, WAITS, Quotas { connections: 5, ..Quotas::LIFTED });
    let served = |seed| run(&fleet, Load::Rate(300.0, 20.0), 5.0, seed).parts[1].took.clone();
    assert_eq!(served(7), served(7));
    assert_ne!(served(7), served(8));
}

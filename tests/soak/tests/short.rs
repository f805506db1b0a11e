//! A short soak, so that it cannot rot, and lies that it must find.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may fail loudly, and say what they saw")]

use std::path::{Path, PathBuf};

use soak::run::{Report, Settings, run};
use soak::traveller::Plant;

fn settings(seed: u64, plant: Option<Plant>, stretch: [usize; 2]) -> Settings {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    #[expect(clippy::disallowed_methods, reason = "cargo's own setting")]
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| checkout.join("target"), PathBuf::from);
    let faults = plant.map(|_| "kms throttle 5%".to_owned());
    let operations = if plant.is_some() { 1 } else { 300 };
    let (binaries, workers, longest, without) = (target.join("debug"), 3, None, Vec::new());
    Settings { seed, operations, faults, without, busy: true, workers, stretch, binaries, checkout, plant, longest }
}

async fn found(plant: Plant) -> Report {
    let report = run(settings(5, Some(plant), [40, 10]), |_| {}).await.unwrap();
    println!("{plant:?}: {:?}", report.violation);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_leaks_in_a_few_hundred_operations() {
    let report = run(settings(2026, None, [80, 20]), |text| print!("{text}")).await.unwrap();
    println!("{}", report.text());
    assert_eq!(report.violation, None);
    assert!(report.struck.values().sum::<u64>() > 10, "{:?}", report.struck);
    assert!(report.tally.fields[1] > 0 && report.audited.files > 0 && report.audited.tokens > 0, "{}", report.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_nobody_made_is_found() {
    assert!(found(Plant::Unrevoked).await.violation.unwrap().contains("revocation was acknowledged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_is_found() {
    assert!(found(Plant::LostFile).await.violation.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_that_is_gone_is_found() {
    // A process that has the key in memory still opens what was written under it; one that has not finds it gone before the count does.
    let violation = found(Plant::LostKey).await.violation.unwrap();
    assert!(violation.contains("data keys") || violation.contains("a record that was acknowledged"), "{violation}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_log_is_found() {
    assert!(found(Plant::Leak).await.violation.unwrap().contains("a signed token"));
}

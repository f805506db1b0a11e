//! What is written down stays what the program does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use deploy::command::Exit;
use support::{Checkout, Cloud};

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn the_page_of_costs_is_what_the_templates_cost() {
    let (checkout, cloud) = (Checkout::new(), Cloud::new());
    fs::copy(house().join("docs/cost.md"), checkout.path("docs/cost.md")).unwrap();
    assert_eq!(checkout.run(&cloud, "cost CHECK=1"), Exit::Done, "{}", cloud.text());
    fs::write(checkout.path("docs/cost.md"), "cheap").unwrap();
    assert_eq!(checkout.run(&cloud, "cost CHECK=1"), Exit::Failed);
    assert_eq!(checkout.run(&cloud, "cost"), Exit::Done);
    let (written, committed) = (checkout.path("docs/cost.md"), house().join("docs/cost.md"));
    assert_eq!(fs::read_to_string(written).unwrap(), fs::read_to_string(committed).unwrap());
}

#[test]
fn every_resource_type_has_a_price_or_a_reason_for_none() {
    let prices = template::yaml(&fs::read_to_string(house().join("infra/aws/prices.yaml")).unwrap()).unwrap();
    let known: BTreeSet<&str> = prices["types"].as_object().unwrap().keys().map(String::as_str).collect();
    let allowed = template::STACKS.iter().flat_map(|stack| template::allowed_types(stack.name).unwrap());
    let missing: BTreeSet<&&str> = allowed.filter(|kind| !known.contains(**kind)).collect();
    assert!(missing.is_empty(), "prices.yaml says nothing of {missing:?}");
    for meters in prices["types"].as_object().unwrap().values().filter_map(|meters| meters.as_array()) {
        for meter in meters.iter().filter_map(|meter| meter.as_str()).filter(|meter| *meter != "database") {
            assert!(
                prices["meters"][meter]["price"].is_number() && prices["meters"][meter]["page"].is_string(),
                "{meter}"
            );
        }
    }
}

#[test]
fn a_type_without_a_price_and_old_prices_are_told() {
    let (checkout, cloud) = (Checkout::new(), Cloud::new());
    let folder = checkout.path("infra/aws");
    // A copy that may be changed, in the place of the link to the house's.
    fs::remove_file(&folder).unwrap();
    copy(&house().join("infra/aws"), &folder);
    let prices = fs::read_to_string(folder.join("prices.yaml")).unwrap();
    fs::write(folder.join("prices.yaml"), prices.replace("  AWS::KMS::Key: [kms-key]\n", "")).unwrap();
    assert_eq!(checkout.run(&cloud, "cost"), Exit::Failed);
    assert!(cloud.text().contains("nothing is said of AWS::KMS::Key"), "{}", cloud.text());
    fs::write(folder.join("prices.yaml"), prices.replace("as_of: '2026-11-22'", "as_of: '2026-01-01'")).unwrap();
    assert_eq!(checkout.run(&cloud, "cost"), Exit::Done, "{}", cloud.text());
    assert!(cloud.text().contains("WARNING  the prices of infra/aws/prices.yaml are"), "{}", cloud.text());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(|_| ()).unwrap()
        }
    }
}

#[test]
fn the_calls_of_verify_live_and_their_rights_are_listed() {
    let page = fs::read_to_string(house().join("docs/deploy/verify-live.md")).unwrap();
    for (call, right) in deploy::live::CALLS {
        let right = if right.is_empty() { "–".to_owned() } else { format!("`{right}`") };
        assert!(page.contains(&format!("| `{call}` | {right} |")), "{call}");
        assert!(
            right == "–" || page.contains(&format!("\"{}\"", right.trim_matches('`'))),
            "{right} is not in the policy"
        );
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, deploy::live::CALLS.len());
    for (call, _) in deploy::live::CALLS {
        let verb = call.split(' ').nth(1).unwrap().split('-').next().unwrap();
        assert!(["describe", "get", "head", "list", "detect"].contains(&verb), "{call} may change something");
    }
}

#[test]
fn make_hands_over_every_setting() {
    let makefile = fs::read_to_string(house().join("Makefile")).unwrap();
    let names = makefile.lines().find_map(|line| line.strip_prefix("NAMES := ")).unwrap();
    let names: BTreeSet<&str> = names.split(' ').collect();
    assert_eq!(names, deploy::settings::NAMES.iter().map(|(name, _)| *name).collect());
}

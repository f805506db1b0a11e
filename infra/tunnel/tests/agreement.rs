//! The two sides and the API: what each says of the hosts, and every way in which they can differ.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use support::{API, AUD, GUEST, HOSTS, outputs};
use tunnel::{Access, Disagreement, Gate, Hosts};

fn differ(hosts: &str, access: &str, api: &str, stage: &str) -> Vec<Disagreement> {
    Gate::agree(&Hosts::parse(hosts).unwrap(), &Access::parse(access).unwrap(), api, stage).expect_err("refused")
}

#[test]
fn every_difference_is_found() {
    let outputs = outputs();
    let two = outputs.replace(
        "\"people\":{",
        &format!("\"people\":{{\"guest.example.com\":{{\"aud\":\"{GUEST}\",\"tier\":\"any\"}},"),
    );
    let same = two.replace(GUEST, AUD);
    let hosts = |from: &str, to: &str| HOSTS.replacen(from, to, 1);
    let with_guest = hosts("\"people\": {", "\"people\": { \"guest.example.com\": { \"tier\": \"any\" },");
    use Disagreement as D;
    let cases: Vec<(Vec<D>, Vec<D>)> = vec![
        (differ(&hosts("\"example\"", "\"other\""), &outputs, API, "v1"), vec![D::Team]),
        (differ(&hosts("6ff42ae2", "6ff42ae3"), &outputs, API, "v1"), vec![D::Tunnel]),
        (differ(HOSTS, &outputs, API, "v2"), vec![D::Stage]),
        (differ(&hosts("\"v1\"", "\"v2\""), &outputs, API, "v2"), vec![D::Stage]),
        (differ(&hosts("machines.example.com", "work.example.com"), &outputs, API, "v1"), vec![D::Machines]),
        (
            differ(&hosts("machines.example.com", "api.example.com"), &outputs, API, "v1"),
            vec![D::MachinesArePeople, D::Machines],
        ),
        (
            differ(&hosts("machines.example.com", "machines.example.org"), &outputs, API, "v1"),
            vec![D::Zone("machines.example.org".into()), D::Machines],
        ),
        (differ(&with_guest, &outputs, API, "v1"), vec![D::NoApplication("guest.example.com".into())]),
        (differ(HOSTS, &two, API, "v1"), vec![D::NoHost("guest.example.com".into())]),
        (differ(&with_guest, &same, API, "v1"), vec![D::SharedAudience]),
        (differ(&hosts("managed", "any"), &outputs, API, "v1"), vec![D::Tier("api.example.com".into())]),
        (differ(HOSTS, &outputs.replace(AUD, "4714"), API, "v1"), vec![D::Form("an audience")]),
        (differ(HOSTS, &outputs, "example.com", "v1"), vec![D::Form("the API's host")]),
        (
            differ(&hosts("{ \"api.example.com\": { \"tier\": \"managed\" } }", "{}"), &outputs, API, "v1"),
            vec![D::Nobody, D::NoHost("api.example.com".into())],
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
        assert!(found.iter().all(|fault| !fault.to_string().is_empty()));
    }
}

#[test]
fn files_of_another_shape_are_refused() {
    for text in [
        "",
        "{}",
        "[]",
        &HOSTS.replacen("{", "{ \"extra\": 1,", 1),
        &HOSTS.replacen("\"team\"", "\"teams\"", 1),
        &HOSTS.replacen("\"managed\"", "\"trusted\"", 1),
        &HOSTS.replacen("\"v1\"", "1", 1),
        &HOSTS.replacen("{", "{ \"team\": \"example\",", 1),
    ] {
        assert!(Hosts::parse(text).is_err(), "{text}");
    }
    let outputs = outputs();
    for text in [
        "{}",
        &outputs.replace("\"access\"", "\"acces\""),
        &outputs.replace("\"aud\"", "\"audience\""),
        &outputs.replace("\"stage\"", "\"extra\":1,\"stage\""),
    ] {
        assert!(Access::parse(text).is_err(), "{text}");
    }
}

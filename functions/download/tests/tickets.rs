//! Download tickets in process: who makes one, who opens it, and how often.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use shared::gate::Caller;
use shared::http::{Request, Response};
use shared::object::Scan;
use shared::problem::Code;
use support::{ID, World, answer, start};
use testkit::callers;
use testkit::files::Fact;
use testkit::issuer::ISSUER;
use testkit::objects::CANARY;

/// A world with one clean file of `alice` in `acme`.
fn world() -> World {
    let world = support::world(Scan::Off);
    world.files.record(ID, created("v1"));
    world
}

fn created(version: &str) -> Fact {
    Fact::created(version, "ok", true)
}

fn caller(tenant: &str, subject: &str, scope: &str) -> Caller {
    Caller { expires_at: start().plus_seconds(900), ..callers::machine(tenant, subject, scope, start()) }
}

fn request(name: &str, value: &str, headers: &[(&str, &str)], body: &str) -> Request {
    support::request((name, value), headers, body)
}

impl World {
    async fn make_as(&self, caller: &Caller, body: &str) -> Result<Value, Code> {
        let asked = request("id", &ID.to_string(), &[("content-type", "application/json")], body);
        let made = self.download.make_ticket(caller, &asked).await;
        made.map(|response| answer(&response)).map_err(|problem| problem.code)
    }

    async fn make(&self) -> String {
        let made = self.make_as(&caller("acme", "alice", "files:read"), "").await.unwrap();
        made["ticket"].as_str().unwrap().to_owned()
    }

    async fn open(&self, ticket: &str) -> Result<Response, Code> {
        let opened = self.download.open_ticket(&request("ticket", ticket, &[], "")).await;
        opened.map_err(|problem| problem.code)
    }
}

#[tokio::test]
async fn a_ticket_opens_one_file_once_for_whoever_holds_it() {
    let world = world();
    let made = world.make_as(&caller("acme", "alice", "files:read"), r#"{"expires_in":60}"#).await.unwrap();
    let ticket = made["ticket"].as_str().unwrap();
    assert_eq!((ticket.len(), &made["expires_at"]), (43, &json!(start().seconds() + 60)));
    assert_eq!(made["url"], format!("{ISSUER}/tickets/{ticket}"));
    let opened = world.open(ticket).await.unwrap();
    assert_eq!((opened.status(), opened.find("cache-control")), (302, Some("no-store")));
    assert_eq!(opened.find("referrer-policy"), Some("no-referrer"));
    assert!(opened.find("location").unwrap().contains("versionId=v1"));
    let (terms, life) = world.signing.reads().remove(0);
    assert_eq!((terms.version.as_str(), life.seconds(), terms.key.tenant().as_str()), ("v1", 30, "acme"));
    assert_eq!(world.open(ticket).await.err(), Some(Code::NotFound));
    assert_ne!(world.make().await, world.make().await);
}

#[tokio::test]
async fn no_other_text_is_a_ticket() {
    let world = world();
    let ticket = world.make().await;
    let changed = format!("{}{}", if ticket.starts_with('A') { "B" } else { "A" }, &ticket[1..]);
    let short = ticket[..42].to_owned();
    for text in ["", "x", &changed, &short, &format!("{ticket}="), &format!("{ticket}A"), &format!(" {ticket}")] {
        assert_eq!(world.open(text).await.err(), Some(Code::NotFound), "{text}");
    }
    world.open(&ticket).await.unwrap();
}

#[tokio::test]
async fn a_ticket_ends_with_its_time_its_token_and_its_file() {
    for (asked, token, want) in
        [("", 900, 300), (r#"{"expires_in":301}"#, 900, 300), (r#"{"expires_in":7}"#, 900, 7), ("", 20, 20)]
    {
        let world = world();
        let mut alice = caller("acme", "alice", "files:read");
        alice.expires_at = start().plus_seconds(token);
        let made = world.make_as(&alice, asked).await.unwrap();
        assert_eq!(made["expires_at"], start().seconds() + want);
        let ticket = made["ticket"].as_str().unwrap();
        world.clock.advance(want);
        assert_eq!(world.open(ticket).await.err(), Some(Code::NotFound), "{asked}");
        world.clock.advance(-1);
        world.open(ticket).await.unwrap();
    }
    type End = fn(&World);
    let ends: [(End, Code); 3] = [
        (|world| world.files.change(ID, |row| row.deleted = true), Code::FileUnavailable),
        (|world| world.files.record(ID, created("v2")), Code::FileUnavailable),
        (|world| world.files.revoke("sub", "alice"), Code::NotFound),
    ];
    for (end, want) in ends {
        let world = world();
        let ticket = world.make().await;
        end(&world);
        assert_eq!(world.open(&ticket).await.err(), Some(want));
        assert!(world.signing.reads().is_empty());
    }
}

#[tokio::test]
async fn a_ticket_ends_with_the_session_and_the_device_that_made_it() {
    for (kind, value, ends) in [
        ("sid", "s-1", true),
        ("device", "d-1", true),
        ("client_id", "page", true),
        ("jti", "j", true),
        ("sid", "s-2", false),
        ("device", "s-1", false),
    ] {
        let world = world();
        let person = callers::person("acme", "alice", "files:read", start());
        let ticket = world.make_as(&person, "").await.unwrap()["ticket"].as_str().unwrap().to_owned();
        world.files.revoke(kind, value);
        assert_eq!(world.open(&ticket).await.err(), ends.then_some(Code::NotFound), "{kind} {value}");
    }
}

#[tokio::test]
async fn only_who_may_read_a_file_that_may_be_read_makes_a_ticket() {
    let world = world();
    for (tenant, subject, scope, want) in [
        ("acme", "bob", "files:read", Some(Code::NotFound)),
        ("globex", "alice", "files:read", Some(Code::NotFound)),
        ("globex", "alice", "files:read:tenant", Some(Code::NotFound)),
        ("acme", "bob", "files:read:tenant", None),
        ("acme", "alice", "files:read", None),
    ] {
        assert_eq!(world.make_as(&caller(tenant, subject, scope), "").await.err(), want, "{tenant} {subject} {scope}");
    }
    let alice = caller("acme", "alice", "files:read");
    for body in [r#"{"expires_in":0}"#, r#"{"expires_in":-1}"#, r#"{"expires_in":"7"}"#, r#"{"file":"x"}"#, "[]", "{"] {
        assert_eq!(world.make_as(&alice, body).await.err(), Some(Code::MalformedRequest), "{body}");
    }
    let pending = self::world();
    pending.files.seed(ID, "acme", "alice");
    assert_eq!(pending.make_as(&alice, "").await.err(), Some(Code::FileNotReady));
    pending.files.change(ID, |row| row.deleted = true);
    assert_eq!(pending.make_as(&alice, "").await.err(), Some(Code::FileUnavailable));
}

#[tokio::test]
async fn a_hundred_tickets_of_one_file_are_open_at_most() {
    let world = world();
    let first = world.make().await;
    for _ in 1..100 {
        world.make().await;
    }
    let alice = caller("acme", "alice", "files:read");
    assert_eq!(world.make_as(&alice, "").await.err(), Some(Code::TooManyRequests));
    world.open(&first).await.unwrap();
    world.make().await;
}

#[tokio::test]
async fn a_fault_on_the_way_uses_up_no_ticket() {
    let world = world();
    let ticket = world.make().await;
    world.signing.set_down(true);
    assert_eq!(world.open(&ticket).await.err(), Some(Code::SignerUnavailable));
    world.signing.set_down(false);
    world.signing.set_left(89);
    assert_eq!(world.open(&ticket).await.err(), Some(Code::SignerUnavailable));
    world.signing.set_left(900);
    world.files.set_down(true);
    assert_eq!(world.open(&ticket).await.err(), Some(Code::ServiceUnavailable));
    world.files.set_down(false);
    world.open(&ticket).await.unwrap();
}

#[tokio::test]
async fn a_second_credential_beside_a_ticket_is_refused_before_it_is_used() {
    let world = world();
    let ticket = world.make().await;
    let both = request("ticket", &ticket, &[("Authorization", "Bearer a.b.c")], "");
    assert_eq!(world.download.open_ticket(&both).await.err().map(|problem| problem.code), Some(Code::MalformedRequest));
    world.open(&ticket).await.unwrap();
}

/// Runs the tests named as their own process and looks at all that they log.
#[test]
fn no_log_line_holds_a_ticket_or_a_url() {
    let own = std::env::current_exe().unwrap();
    let named = [
        "a_ticket_opens_one_file_once_for_whoever_holds_it",
        "only_who_may_read_a_file_that_may_be_read_makes_a_ticket",
    ];
    let ran = std::process::Command::new(own).args(["--nocapture", "--exact"]).args(named).output().unwrap();
    let logged = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && logged.contains("\"decision\":\"allow\""), "{logged}");
    assert!(!logged.contains(CANARY) && !logged.contains("objects.test") && !logged.contains("/tickets/"), "{logged}");
}

//! `GET /files/{id}` and its content in process: whose, which, when, and what leaves.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use download::Route;
use serde_json::json;
use shared::boot::Routes as _;
use shared::gate::Caller;
use shared::http::{Request, Response};
use shared::name::Tenant;
use shared::object::Scan;
use shared::problem::Code;
use support::{ID, World, answer, invocation, start, world};
use testkit::callers;
use testkit::files::Fact;
use testkit::objects::CANARY;

fn created(version: &str, finding: &str, scan_off: bool) -> Fact {
    Fact::created(version, finding, scan_off)
}

fn verdict(value: &str) -> Fact {
    Fact::verdict("v1", value)
}

fn clean() -> World {
    let world = world(Scan::Off);
    world.files.record(ID, created("v1", "ok", true));
    world
}

fn caller(tenant: &str, subject: &str, scopes: &str) -> Caller {
    callers::machine(tenant, subject, scopes, start())
}

fn alice() -> Caller {
    caller("acme", "alice", "files:read")
}

fn request(id: &str, headers: &[(&str, &str)]) -> Request {
    support::request(("id", id), headers, "")
}

impl World {
    async fn read(&self, caller: &Caller, id: &str, route: Route, headers: &[(&str, &str)]) -> Result<Response, Code> {
        self.download.read(caller, &request(id, headers), route).await.map_err(|problem| problem.code)
    }

    async fn content(&self, caller: &Caller) -> Result<Response, Code> {
        self.read(caller, &ID.to_string(), Route::Content, &[]).await
    }
}

#[tokio::test]
async fn the_owner_is_redirected_to_the_one_version_that_was_checked() {
    let world = clean();
    let response = world.content(&alice()).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(response.find("cache-control"), Some("no-store"));
    assert_eq!(response.find("referrer-policy"), Some("no-referrer"));
    assert!(response.find("location").unwrap().starts_with(&format!("https://objects.test/t/acme/{ID}?versionId=v1&")));
    let (terms, life) = world.signing.reads().remove(0);
    assert_eq!((terms.version.as_str(), terms.content_type, life.seconds()), ("v1", "text/plain; charset=utf-8", 300));
    assert_eq!(terms.disposition, "attachment; filename=\"report.txt\"; filename*=UTF-8''report.txt");
    assert_eq!(world.signing.tenants(), [Tenant::parse("acme").unwrap()]);
}

#[tokio::test]
async fn who_asks_for_json_gets_the_url_as_json() {
    for (accept, json) in [
        ("application/json", true),
        ("text/html, Application/JSON;q=0.9", true),
        ("*/*", false),
        ("application/*", false),
        ("application/json;q=0", false),
        ("application/jsonp", false),
        ("text/html", false),
    ] {
        let world = clean();
        let response = world.read(&alice(), &ID.to_string(), Route::Content, &[("accept", accept)]).await.unwrap();
        assert_eq!(response.status(), if json { 200 } else { 302 }, "{accept}");
        assert_eq!(response.find("cache-control"), Some("no-store"));
        if json {
            let said = answer(&response);
            assert!(said["url"].as_str().unwrap().contains("versionId=v1"));
            assert_eq!(said["expires_at"], start().seconds() + 300);
            assert_eq!(said.as_object().unwrap().len(), 2);
        }
    }
}

#[tokio::test]
async fn a_foreign_file_and_an_unknown_one_are_the_same_nothing() {
    let strangers = [
        (alice(), "01920000-0000-7000-8000-0000000000f2"),
        (caller("acme", "bob", "files:read"), "01920000-0000-7000-8000-0000000000f1"),
        (caller("globex", "alice", "files:read"), "01920000-0000-7000-8000-0000000000f1"),
        (caller("globex", "alice", "files:read:tenant"), "01920000-0000-7000-8000-0000000000f1"),
        (alice(), "01920000-0000-7000-8000-0000000000F1"),
        (alice(), "01920000-0000-4000-8000-0000000000f1"),
        (alice(), "..%2Ftrust%2Fkeys.json"),
        (alice(), ""),
    ];
    for (caller, id) in strangers {
        for route in [Route::Metadata, Route::Content] {
            let world = clean();
            let refused = world.read(&caller, id, route, &[]).await.unwrap_err();
            assert_eq!(refused, Code::NotFound, "{} of {} asks for {id}", caller.subject, caller.tenant);
            assert!(world.signing.tenants().is_empty() && world.signing.reads().is_empty());
        }
    }
}

#[tokio::test]
async fn a_reader_of_the_tenant_reads_files_of_others_in_it() {
    let bob = caller("acme", "bob", "files:read:tenant");
    assert_eq!(clean().content(&bob).await.unwrap().status(), 302);
}

#[tokio::test]
async fn only_a_clean_file_is_served() {
    let cases: [(&str, Vec<Fact>, Option<Code>); 9] = [
        ("pending", vec![], Some(Code::FileNotReady)),
        ("pending", vec![verdict("NO_THREATS_FOUND")], Some(Code::FileNotReady)),
        ("scanning", vec![created("v1", "ok", false)], Some(Code::FileNotReady)),
        ("clean", vec![created("v1", "ok", false), verdict("NO_THREATS_FOUND")], None),
        ("rejected", vec![created("v1", "size", true)], Some(Code::FileUnavailable)),
        ("rejected", vec![created("v1", "ok", true), created("v2", "ok", true)], Some(Code::FileUnavailable)),
        ("infected", vec![created("v1", "ok", false), verdict("THREATS_FOUND")], Some(Code::FileUnavailable)),
        ("unscannable", vec![created("v1", "ok", false), verdict("UNSUPPORTED")], Some(Code::FileUnscannable)),
        ("unscannable", vec![created("v1", "ok", false), verdict("SOMETHING_NEW")], Some(Code::FileUnscannable)),
    ];
    for (status, facts, want) in cases {
        for scan in [Scan::Off, Scan::GuardDuty] {
            let world = world(scan);
            for fact in facts.clone() {
                world.files.record(ID, fact);
            }
            assert_eq!(world.content(&alice()).await.err(), want, "{facts:?}");
            let metadata = world.read(&alice(), &ID.to_string(), Route::Metadata, &[]).await.unwrap();
            assert_eq!(answer(&metadata)["status"], status);
            assert_eq!(world.signing.reads().len(), usize::from(want.is_none()));
        }
    }
}

#[tokio::test]
async fn a_deleted_file_is_gone() {
    let world = clean();
    world.files.change(ID, |row| row.deleted = true);
    assert_eq!(world.content(&alice()).await.err(), Some(Code::FileUnavailable));
}

#[tokio::test]
async fn a_file_that_was_never_scanned_is_not_served_once_scanning_is_on() {
    let world = world(Scan::GuardDuty);
    world.files.record(ID, created("v1", "ok", true));
    assert_eq!(world.content(&alice()).await.err(), Some(Code::FileUnscannable));
}

#[tokio::test]
async fn metadata_tells_what_was_declared_and_nothing_of_where_it_lies() {
    let world = clean();
    let response = world.read(&alice(), &ID.to_string(), Route::Metadata, &[]).await.unwrap();
    let want = json!({
        "id": ID.to_string(), "name": "report.txt", "content_type": "text/plain", "size": 11,
        "sha256": "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=", "status": "clean", "created_at": 0,
    });
    assert_eq!((response.status(), answer(&response)), (200, want));
}

#[tokio::test]
async fn without_a_session_of_enough_life_nothing_is_signed() {
    let world = clean();
    for left in [119, 65, 0] {
        world.signing.set_left(left);
        assert_eq!(world.content(&alice()).await.err(), Some(Code::SignerUnavailable), "{left} s");
    }
    world.signing.set_down(true);
    assert_eq!(world.content(&alice()).await.err(), Some(Code::SignerUnavailable));
    assert!(world.signing.reads().is_empty());
}

#[tokio::test]
async fn without_the_database_the_answer_is_503() {
    let world = clean();
    world.files.set_down(true);
    assert_eq!(world.content(&alice()).await.err(), Some(Code::ServiceUnavailable));
}

#[tokio::test]
async fn no_refusal_repeats_a_secret() {
    let world = world(Scan::Off);
    let problem = world.download.read(&alice(), &request(&ID.to_string(), &[]), Route::Content).await.unwrap_err();
    assert!(!Response::problem(problem, "r-1").body().contains(CANARY));
}

#[tokio::test]
async fn a_route_that_is_not_built_is_not_found() {
    for (method, resource) in
        [("GET", "/files/{id}/tickets"), ("POST", "/files/{id}/receipt"), ("DELETE", "/files/{id}")]
    {
        let mut asked = request(&ID.to_string(), &[]);
        (asked.method, asked.resource) = (method.to_owned(), resource.to_owned());
        let refused = clean().download.answer(&asked, &invocation()).await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound);
    }
}

#[tokio::test]
async fn a_request_without_a_token_is_not_answered() {
    let world = clean();
    let refused = world.download.answer(&request(&ID.to_string(), &[]), &invocation()).await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthorized);
    assert!(world.files.calls().is_empty());
}

/// Runs the tests named as their own process and looks at all that they log.
#[test]
fn no_log_line_holds_a_url_a_signature_or_a_secret() {
    let own = std::env::current_exe().unwrap();
    let ran = std::process::Command::new(own).args(["--nocapture", "--exact"]).args(LOGGED).output().unwrap();
    let logged = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && logged.contains("\"decision\":\"allow\""), "{logged}");
    assert!(!logged.contains(CANARY) && !logged.contains("https://objects.test"), "{logged}");
}

const LOGGED: [&str; 3] = [
    "the_owner_is_redirected_to_the_one_version_that_was_checked",
    "who_asks_for_json_gets_the_url_as_json",
    "without_a_session_of_enough_life_nothing_is_signed",
];

//! What each function answers under each fault of its surroundings: `faults.txt`, held against the running stack.
//!
//! Every fault meets every call twice: with everything warm, and with processes that have nothing in memory. After each
//! fault the same calls must pass, and no call that was refused may have written anything, unless its row says so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use local::faults::Faults;
use local::lambda::Kind;
use serde_json::{Value, json};
use support::files::{in_parts, new_file, part, put};
use support::{Running, root};

/// Longer than one attempt, and than one statement, may take.
const SLOW: Duration = Duration::from_secs(5);

const CALLS: [&str; 27] = [
    "POST /oauth2/token",
    "POST /oauth2/revoke",
    "POST /oauth2/introspect",
    "POST /files",
    "POST /files/{id}/url",
    "GET /files/{id}",
    "GET /files/{id}/content",
    "GET /files/{id}/receipt",
    "DELETE /files/{id}",
    "POST /files/{id}/parts",
    "POST /files/{id}/complete",
    "POST /files/{id}/tickets",
    "GET /tickets/{ticket}",
    "POST /fields/encrypt",
    "POST /fields/decrypt",
    "POST /fields/index",
    "POST /fields/inspect",
    "POST /fields/rewrap",
    "POST /fields/export",
    "POST /fields/import",
    "object-events: an object was created",
    "object-events: the schedule",
    "trust: the schedule",
    "admin: tenant.put",
    "data-key-maintain: keys.rotate",
    "data-key-maintain: keys.rewrap",
    "data-key-shred: shred",
];

/// The faults in the order in which they are tried, with the signing keys where they are by default.
fn faults() -> Vec<String> {
    let mut all = of_services(&["kms", "sts", "s3"]);
    all.extend(
        ["postgres refuses", "postgres is slow", "an answer is lost", "connections are killed", "none is lent"]
            .map(str::to_owned),
    );
    all
}

/// The faults that only a stack with its signing keys in SSM can have.
fn faults_with_ssm() -> Vec<String> {
    of_services(&["ssm"])
}

fn of_services(services: &[&str]) -> Vec<String> {
    let faults = ["throttles", "is down", "is slow"];
    services.iter().flat_map(|service| faults.map(|fault| format!("{service} {fault}"))).collect()
}

/// Call → fault → the outcomes when warm and when cold.
fn list() -> BTreeMap<String, BTreeMap<String, [String; 2]>> {
    let text = std::fs::read_to_string(root().join("tests/system/faults.txt")).unwrap();
    let mut all: BTreeMap<String, BTreeMap<String, [String; 2]>> = BTreeMap::new();
    let mut call = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let Some(row) = line.strip_prefix("    ") else {
            call = line.to_owned();
            all.insert(call.clone(), BTreeMap::new());
            continue;
        };
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let [fault, warm, cold] = cells[..] else { panic!("{row:?} is no row") };
        all.get_mut(&call).unwrap().insert(fault.to_owned(), [warm.to_owned(), cold.to_owned()]);
    }
    all
}

#[test]
fn the_table_has_every_call_and_every_fault() {
    let list = list();
    assert_eq!(list.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut calls = CALLS.to_vec();
        calls.sort_unstable();
        calls
    });
    let mut wanted = [faults(), faults_with_ssm()].concat();
    wanted.sort();
    for (call, rows) in &list {
        assert_eq!(rows.keys().cloned().collect::<Vec<_>>(), wanted, "{call}");
    }
    let text = std::fs::read_to_string(root().join("infra/aws/openapi.yaml")).unwrap();
    let document: Value = serde_yaml_ng::from_str(&text).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            let name = format!("{} {path}", method.to_uppercase());
            // What is published for everyone uses nothing up.
            let reads_only = operation.get("x-portcullis-open").is_some() && method == "get" && !path.contains('{');
            let known = CALLS.contains(&name.as_str());
            assert!(reads_only || known, "{name} has no rows in tests/system/faults.txt");
        }
    }
}

/// Whose time a call takes.
fn group(call: &str) -> &str {
    match call {
        "GET /files/{id}"
        | "GET /files/{id}/content"
        | "GET /files/{id}/receipt"
        | "POST /files/{id}/tickets"
        | "GET /tickets/{ticket}" => "download",
        "POST /fields/encrypt" | "POST /fields/decrypt" => call,
        // One after the other: two at once would start another environment of the function, which has no key in memory.
        "POST /oauth2/token" | "POST /oauth2/revoke" | "POST /oauth2/introspect" => "token",
        // The same for the deployment that also moves fields.
        "data-key-maintain: keys.rotate" | "data-key-maintain: keys.rewrap" => "upload",
        _ => call.split_once(':').map_or("upload", |(function, _)| function),
    }
}

/// The stack and what the calls are about.
struct World {
    running: Running,
    owner: tokio_postgres::Client,
    token: String,
    pending: String,
    clean: String,
    doomed: String,
    created: Value,
    record: String,
    message: String,
    once: Once,
}

/// What one call uses up: each is made anew before the next one.
#[derive(Default)]
struct Once {
    /// A file whose parts nobody has asked for.
    planned: String,
    /// One whose only part is there.
    whole: String,
    ticket: String,
    /// A subject with a key of its own, that is active and of which nobody knows by which material it was wrapped.
    subject: String,
}

impl World {
    async fn open(parameters: &[(&str, &str)]) -> World {
        let running = Running::start_with(parameters).await;
        // A scheduled run of `trust` would meet the fault that was meant for a call.
        running.stack.events.stop_schedules();
        let owner = running.owner().await;
        let token = running.token("acme-backend").await;
        let file = async || {
            let plan = running.api.call("POST", "/files", Some(&token), Some(&new_file())).await.unwrap().json();
            (plan["id"].as_str().unwrap().to_owned(), plan["upload"].clone())
        };
        let (pending, doomed, (clean, upload)) = (file().await.0, file().await.0, file().await);
        let version = put(&running, &upload).await.header("x-amz-version-id").to_owned();
        let created = json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {
            "bucket": {"name": running.stack.places.object_bucket},
            "object": {"key": format!("t/acme/{clean}"), "version-id": version}}});
        running.stack.events.idle().await;
        let plaintext = URL_SAFE_NO_PAD.encode("ada@example.com");
        let body = field("plaintext", &plaintext);
        let answer = running.api.call("POST", "/fields/encrypt", Some(&token), Some(&body)).await.unwrap().json();
        let record = answer["items"][0]["record"].as_str().unwrap().to_owned();
        let body = field("record", &record);
        let answer = running.api.call("POST", "/fields/export", Some(&token), Some(&body)).await.unwrap().json();
        let message = answer["items"][0]["message"].as_str().unwrap().to_owned();
        World { running, owner, token, pending, clean, doomed, created, record, message, once: Once::default() }
    }

    /// A fresh token: those of a long table would end in the middle of it.
    async fn refresh(&mut self) {
        self.token = self.running.token("acme-backend").await;
    }

    /// What the next calls use up.
    async fn prepare(&mut self) {
        // One after the other: two at once would start another environment, which has no session in memory.
        let planned = in_parts(&self.running, &self.token, false).await;
        let whole = in_parts(&self.running, &self.token, true).await;
        let path = format!("/files/{}/tickets", self.clean);
        let made = self.running.api.call("POST", &path, Some(&self.token), Some(&ticket_terms())).await.unwrap();
        let subject = format!("subject:of-{planned}");
        let mut body = field("plaintext", &URL_SAFE_NO_PAD.encode("ada@example.com"));
        body["items"][0]["scope"] = json!(subject);
        let sealed = self.running.api.call("POST", "/fields/encrypt", Some(&self.token), Some(&body)).await.unwrap();
        assert_eq!(sealed.status, 200, "{}", sealed.outcome());
        let forget = "UPDATE public.data_keys SET key_material_id = NULL WHERE scope = $1";
        let text = tokio_postgres::types::Type::TEXT;
        assert_eq!(self.owner.execute_typed(forget, &[(&subject, text)]).await.unwrap(), 1);
        self.once = Once { planned, whole, ticket: made.json()["ticket"].as_str().unwrap().to_owned(), subject };
    }

    /// Makes one call and says what came of it.
    async fn call(&self, call: &str) -> String {
        if let Some((function, what)) = call.split_once(": ") {
            let event = match what {
                "an object was created" => self.created.clone(),
                "the schedule" => json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}),
                "tenant.put" => json!({"operation": "tenant.put", "operator": "test", "tenant": "acme"}),
                "keys.rotate" => {
                    json!({"operation": what, "operator": "test", "tenant": "acme", "scope": self.once.subject})
                }
                "keys.rewrap" => json!({"operation": what, "operator": "test"}),
                "shred" => json!({"operation": what, "operator": "test", "tenant": "acme", "scope": self.once.subject,
                    "confirm": self.once.subject}),
                other => panic!("{other}"),
            };
            let name = format!("portcullis-local-{function}");
            let outcome = self.running.stack.lambda.invoke(&name, event.to_string().into(), Kind::RequestResponse);
            let outcome = outcome.await.unwrap();
            let body: Value = serde_json::from_slice(&outcome.payload).unwrap();
            return match (&outcome.function_error, body.get("error")) {
                (Some(_), _) => format!("error {}", body["errorType"].as_str().unwrap_or_default()),
                (None, Some(error)) => format!("refusal {}", error["code"].as_str().unwrap_or_default()),
                (None, None) => "ok".to_owned(),
            };
        }
        let api = &self.running.api;
        if call == "POST /oauth2/token" {
            let assertion = api.assertion(self.running.client("acme-backend")).unwrap();
            return api.token_with(&assertion, None).await.unwrap().outcome();
        }
        if let Some(path @ ("/oauth2/revoke" | "/oauth2/introspect")) = call.strip_prefix("POST ") {
            // A live token would be ended, and its nudge would start `trust` in the middle of the next call's fault.
            let token = if path == "/oauth2/revoke" { "garbage" } else { &self.token };
            return api.about(path, self.running.client("acme-backend"), token).await.unwrap().outcome();
        }
        let (method, path) = call.split_once(' ').unwrap();
        let id = match call {
            "POST /files/{id}/url" => &self.pending,
            "DELETE /files/{id}" => &self.doomed,
            "POST /files/{id}/parts" => &self.once.planned,
            "POST /files/{id}/complete" => &self.once.whole,
            _ => &self.clean,
        };
        let body = match call {
            "POST /files" => Some(new_file()),
            "POST /files/{id}/parts" => Some(json!({"parts": [part()]})),
            "POST /files/{id}/tickets" => Some(ticket_terms()),
            "POST /fields/encrypt" => Some(field("plaintext", &URL_SAFE_NO_PAD.encode("ada@example.com"))),
            "POST /fields/import" => Some(field("message", &self.message)),
            "POST /fields/decrypt" | "POST /fields/inspect" | "POST /fields/rewrap" | "POST /fields/export" => {
                Some(field("record", &self.record))
            }
            "POST /fields/index" => {
                let mut body = field("value", &URL_SAFE_NO_PAD.encode("ada@example.com"));
                body["items"][0]["normalisation"] = json!("nfc_casefold");
                body["items"][0]["bits"] = json!(16);
                Some(body)
            }
            _ => None,
        };
        let (path, ticket) =
            (path.replace("{id}", id).replace("{ticket}", &self.once.ticket), call.contains("{ticket}"));
        // A ticket is the credential, and another one beside it is refused.
        let token = (!ticket).then_some(self.token.as_str());
        let answer = api.call(method, &path, token, body.as_ref()).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body);
        for inside in ["127.0.0.1", "postgres", "amazonaws", "rds"] {
            assert!(answer.status < 400 || !text.contains(inside), "{call}: {text}");
        }
        if answer.status == 503 {
            assert!(!answer.header("retry-after").is_empty(), "{call}: no Retry-After");
        }
        match answer.json().pointer("/items/0/error/code").and_then(Value::as_str) {
            Some(code) => format!("{} {code}", answer.status),
            None => answer.outcome(),
        }
    }

    fn strike(&self, fault: &str) {
        let stack = &self.running.stack;
        let (who, what) = fault.split_once(' ').unwrap();
        let knobs = match who {
            "kms" => stack.kms.faults(),
            "sts" => stack.sts.faults(),
            "s3" => stack.s3.faults(),
            "ssm" => stack.ssm.faults(),
            _ => match fault {
                "postgres refuses" => {
                    stack.proxy.refuse_new(true);
                    return stack.proxy.drop_connections();
                }
                "postgres is slow" => return stack.proxy.set_latency(SLOW),
                "an answer is lost" => return stack.proxy.lose_answers(1),
                "connections are killed" => return stack.proxy.drop_connections(),
                "none is lent" => return stack.proxy.lend(Some(0), Duration::from_millis(20)),
                other => panic!("{other}"),
            },
        };
        knobs.set(match what {
            "throttles" => Faults { throttle_next: u32::MAX, ..Faults::default() },
            "is down" => Faults { unavailable: true, ..Faults::default() },
            "is slow" => Faults { latency: SLOW, ..Faults::default() },
            other => panic!("{other}"),
        });
    }

    fn lift(&self) {
        let stack = &self.running.stack;
        for knobs in [stack.kms.faults(), stack.sts.faults(), stack.s3.faults(), stack.ssm.faults()] {
            knobs.set(Faults::default());
        }
        stack.proxy.refuse_new(false);
        stack.proxy.set_latency(Duration::ZERO);
        stack.proxy.lose_answers(0);
        stack.proxy.lend(None, Duration::ZERO);
    }

    /// How much there is of everything that a call may write.
    async fn written(&self) -> Vec<i64> {
        let tables = [
            "files",
            "files WHERE status = 'deleted'",
            "file_facts",
            "file_parts",
            "tickets",
            "tickets WHERE used_ms IS NOT NULL",
            "data_keys",
            "data_keys WHERE state <> 'active'",
            "data_keys WHERE state = 'shredded'",
            "data_keys WHERE key_material_id IS NOT NULL",
            "shred_receipts",
            "assertion_ids",
            "admin_audit",
            "revocations",
        ];
        let counts = tables.map(|what| format!("(SELECT count(*) FROM public.{what})"));
        let row = self.owner.query_typed(&format!("SELECT {}", counts.join(", ")), &[]).await.unwrap().remove(0);
        (0..tables.len()).map(|place| row.get(place)).collect()
    }
}

/// Of one file a hundred tickets may be open: these are over before the table is.
fn ticket_terms() -> Value {
    json!({"expires_in": 60})
}

fn field(name: &str, value: &str) -> Value {
    json!({"items": [{"ref": "1", "table": "users", "column": "email", "row": "42", name: value}]})
}

/// Kills the functions' processes that this test's own stack has started, and waits until they are gone. Each is the child
/// of a watchdog, which is a child of this process.
async fn kill_functions() {
    let mut parents = BTreeMap::new();
    let mut functions = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
        let parent: u32 = rest.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()).unwrap_or_default();
        parents.insert(pid, parent);
        if root().join("functions").join(name).is_dir() {
            functions.push(pid);
        }
    }
    let parent = |pid: &u32| parents.get(pid).copied().unwrap_or_default();
    let own = std::process::id();
    functions.retain(|pid| parent(pid) == own || parent(&parent(pid)) == own);
    assert!(functions.len() > 5, "the functions' processes were not found");
    for pid in &functions {
        tokio::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().await.unwrap();
    }
    // The watchdogs too: a sandbox whose end nobody has seen yet would still be given an event.
    let watchdogs: Vec<u32> = functions.iter().map(parent).filter(|pid| *pid != own).collect();
    for pid in functions.into_iter().chain(watchdogs) {
        let exe = Path::new("/proc").join(pid.to_string()).join("exe");
        while std::fs::read_link(&exe).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_answers_every_fault_as_the_table_says() {
    hold(&[], faults()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_in_ssm_every_function_answers_every_fault_as_the_table_says() {
    hold(&[("Signer", "ssm")], faults_with_ssm()).await;
}

/// Killing the functions of one stack would kill those of another one in this process.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn hold(parameters: &[(&str, &str)], faults: Vec<String>) {
    let _alone = ALONE.lock().await;
    let mut world = World::open(parameters).await;
    let list = list();
    let mut wrong = Vec::new();
    for fault in faults {
        for (at, cold) in [(0, false), (1, true)] {
            world.refresh().await;
            world.prepare().await;
            // Everything is warm, and passes, before any fault: and after the fault before.
            for call in CALLS {
                let outcome = world.call(call).await;
                let passes = outcome == "ok" || outcome.starts_with(['2', '3']) && !outcome.starts_with("207");
                assert!(passes, "{call} before {fault}: {outcome}");
            }
            world.prepare().await;
            // What the calls have set off, a run of `trust` after a nudge for one, ends before the fault begins.
            world.running.stack.events.idle().await;
            if cold {
                kill_functions().await;
            }
            let each = matches!(fault.as_str(), "an answer is lost" | "connections are killed");
            if !each {
                world.strike(&fault);
            }
            let slow = fault.ends_with("is slow") && !fault.starts_with("s3");
            let outcomes: Vec<(&str, String)> = if slow {
                // What takes seconds is waited for together, function by function; the gate does not wait for these.
                let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
                for call in CALLS {
                    groups.entry(group(call)).or_default().push(call);
                }
                let each = groups.into_values().map(async |calls| {
                    let mut outcomes = Vec::new();
                    for call in calls {
                        outcomes.push((call, world.call(call).await));
                    }
                    outcomes
                });
                futures::future::join_all(each).await.concat()
            } else {
                let mut outcomes = Vec::new();
                for call in CALLS {
                    if fault == "an answer is lost" && !cold && call.starts_with("POST /oauth2/") {
                        // A client is remembered for a minute: without this it depends on the clock which statement is hit.
                        world.call(call).await;
                    }
                    world.running.stack.events.idle().await;
                    let before = world.written().await;
                    if each {
                        world.strike(&fault);
                    }
                    let mut outcome = world.call(call).await;
                    world.running.stack.proxy.lose_answers(0);
                    let failed = !(outcome == "ok" || outcome.starts_with(['2', '3']));
                    // What has ended is removed by whoever comes by: less is not written.
                    let more = world.written().await.iter().zip(&before).any(|(after, before)| after > before);
                    if failed && more {
                        outcome += " + written";
                    }
                    outcomes.push((call, outcome));
                }
                outcomes
            };
            for (call, outcome) in outcomes {
                let wanted = list.get(call).and_then(|rows| rows.get(&fault)).map_or("no row", |row| row[at].as_str());
                if wanted != outcome {
                    let how = if cold { "cold" } else { "warm" };
                    wrong.push(format!("{call} · {fault} · {how}: the table says {wanted}, the stack {outcome}"));
                }
            }
            world.lift();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.running.stack.stop().await;
}

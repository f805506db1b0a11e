//! What every deployment asks of AWS, written down: a call that is new, or gone, is a line of `calls.txt`.
//!
//! The journey and what it does not reach, on three stacks: keys in KMS, keys in SSM, the database without a proxy.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use local::journey::Journey;
use local::policy::{Context, TrailEntry};
use local::stack::{ACCOUNT, ENV, REGION};
use serde_json::{Value, json};
use shared::digest::sha256;
use support::{Running, root, send_form};

const FILE: &str = "tests/system/calls.txt";
const HEAD: &str = "\
# What the functions were seen to ask of AWS, and whether their roles let them. Made by `tests/calls.rs` on the running stack and
# compared there; `tests/least_privilege` holds it against `matrix.txt`. A stack's later runs name what the first did not show.
#
#   allow|deny WHO ACTION RESOURCE CONTEXT      {id}, {tenant}, {etag}: whatever it was
#   session WHO POLICY                          the policy by which a function narrowed its signer's session
";

/// Lines of calls and of session policies, without repetition.
#[derive(Default)]
struct Seen {
    calls: BTreeSet<String>,
    sessions: BTreeMap<String, BTreeSet<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_every_deployment_are_those_that_are_written_down() {
    let mut text = HEAD.to_owned();
    let (mut known, mut sessions) = (BTreeSet::new(), BTreeMap::new());
    for (run, parameters) in [
        ("kms rs256 proxy inside", &[][..]),
        ("ssm rs256 proxy inside", &[("Signer", "ssm")][..]),
        ("kms rs256 direct inside", &[("DbMode", "direct")][..]),
    ] {
        let running = Running::start_ahead(parameters).await;
        everything(&running).await;
        let seen = seen(&running);
        running.stack.stop().await;
        writeln!(text, "\nrun {run}").unwrap();
        for call in seen.calls.difference(&known) {
            writeln!(text, "{call}").unwrap();
        }
        known.extend(seen.calls);
        for (who, policies) in seen.sessions {
            assert_eq!(policies.len(), 1, "{who} has sessions of more than one kind: {policies:?}");
            sessions.entry(who).or_insert_with(BTreeSet::new).extend(policies);
        }
    }
    text.push('\n');
    for (who, policies) in sessions {
        assert_eq!(policies.len(), 1, "{who}: {policies:?}");
        policies.into_iter().for_each(|policy| writeln!(text, "session {who} {policy}").unwrap());
    }
    let written = std::fs::read_to_string(root().join(FILE)).unwrap_or_default();
    if written != text {
        let aside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("calls.txt");
        std::fs::write(&aside, &text).unwrap();
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (written.lines().collect(), text.lines().collect());
        let (gone, come): (Vec<_>, Vec<_>) = (old.difference(&new).collect(), new.difference(&old).collect());
        panic!("{FILE}: gone {gone:#?}, new {come:#?}; as it should be: {}", aside.display());
    }
}

/// The journey, and what it does not reach.
async fn everything(running: &Running) {
    let stack = &running.stack;
    // Whether each step says what it should is `journey`'s to tell.
    Journey::new(stack, &running.clients, false).unwrap().travel().await.unwrap();
    let token = running.token("globex-backend").await;
    let call = async |method: &str, path: &str, body: Option<&Value>| {
        let answer = running.api.call(method, path, Some(&token), body).await.unwrap();
        assert!(answer.status < 400, "{method} {path}: {}", answer.outcome());
        answer
    };

    // Fields, with keys in memory and with keys that have to be opened again.
    let item = json!({"ref": "1", "table": "users", "column": "email", "row": "1"});
    let with = |name: &str, value: &Value| {
        let mut item = item.clone();
        item[name] = value.clone();
        json!({"items": [item]})
    };
    for column in ["login", "alias"] {
        let sealed = call("POST", "/fields/encrypt", Some(&with("plaintext", &json!("aGk")))).await.json();
        let record = with("record", &sealed["items"][0]["record"]);
        call("POST", "/fields/decrypt", Some(&record)).await;
        call("POST", "/fields/inspect", Some(&record)).await;
        // Where nobody has encrypted today yet, the key is made by whoever moves a field there.
        let mut moved = record.clone();
        moved["items"][0]["to"] = json!({"table": "users", "column": column, "row": "1"});
        call("POST", "/fields/rewrap", Some(&moved)).await;
        let left = call("POST", "/fields/export", Some(&record)).await.json();
        call("POST", "/fields/import", Some(&with("message", &left["items"][0]["message"]))).await;
        let mut value = with("value", &json!("aGk"));
        value["items"][0]["normalisation"] = json!("nfc_casefold");
        value["items"][0]["bits"] = json!(16);
        value["items"][0].as_object_mut().unwrap().remove("row");
        call("POST", "/fields/index", Some(&value)).await;
        for deployment in ["data-key-encrypt", "data-key-decrypt", "data-key-maintain"] {
            stack.lambda.recycle(&format!("portcullis-{ENV}-{deployment}")).await;
        }
    }

    // The KMS key is rotated, and what it had wrapped is wrapped anew.
    let rotate = json!({"KeyId": stack.places.data_key});
    stack.kms.perform(&stack.account.operator(), None, "RotateKeyOnDemand", &rotate).unwrap();
    let rewrapped = stack.invoke("data-key-maintain", &json!({"operation": "keys.rewrap", "operator": "test"})).await;
    assert_eq!(rewrapped.unwrap()["outcome"], "rewrapped");
    let shred = json!({"operation": "shred", "operator": "test", "tenant": "acme", "scope": "subject:nobody", "confirm": "subject:nobody"});
    assert_eq!(stack.invoke("data-key-shred", &shred).await.unwrap()["error"]["code"], "keys_unknown");

    // A file from its plan to the end of its bytes.
    let content = b"hello";
    let body = json!({"name": "a.txt", "content_type": "text/plain", "size": content.len(), "mode": "put",
        "sha256": STANDARD.encode(sha256(content))});
    let plan = call("POST", "/files", Some(&body)).await.json();
    let path = format!("/files/{}", plan["id"].as_str().unwrap());
    let renewed = call("POST", &format!("{path}/url"), None).await.json();
    let headers = renewed["upload"]["headers"].as_object().unwrap();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    let url = renewed["upload"]["url"].as_str().unwrap();
    let put = running.api.send("PUT", url, &headers, content.as_slice().into()).await.unwrap();
    assert_eq!(put.status, 200, "{}", put.outcome());
    let body = json!({"name": "b.txt", "content_type": "text/plain", "max_size": 9, "mode": "post"});
    let form = send_form(&running.api, &call("POST", "/files", Some(&body)).await.json()["upload"], content).await;
    assert_eq!(form.status, 204, "{}", form.outcome());
    let body = json!({"name": "c.txt", "content_type": "text/plain", "size": content.len(), "mode": "multipart"});
    let parts = json!({"parts": [{"part": 1, "size": content.len(), "sha256": STANDARD.encode(sha256(content))}]});
    for end in ["complete", "delete", "sweep"] {
        let file = format!("/files/{}", call("POST", "/files", Some(&body)).await.json()["id"].as_str().unwrap());
        let signed = call("POST", &format!("{file}/parts"), Some(&parts)).await.json();
        let one = &signed["parts"][0];
        let headers = [("x-amz-checksum-sha256", one["headers"]["x-amz-checksum-sha256"].as_str().unwrap())];
        let put = running.api.send("PUT", one["url"].as_str().unwrap(), &headers, content.as_slice().into()).await;
        assert_eq!(put.unwrap().status, 200);
        match end {
            "complete" => drop(call("POST", &format!("{file}/complete"), None).await),
            "delete" => drop(call("DELETE", &file, None).await),
            _ => {
                let old = "UPDATE public.files SET created_ms = created_ms - 86400000 WHERE upload_id IS NOT NULL";
                running.owner().await.batch_execute(old).await.unwrap();
            }
        }
    }
    for _ in 0..100 {
        stack.events.idle().await;
        if call("GET", &path, None).await.json()["status"] == "clean" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    call("GET", &format!("{path}/receipt"), None).await;
    let answer = call("GET", &format!("{path}/content"), None).await;
    let read = running.api.send("GET", answer.header("location"), &[], Vec::new().into()).await.unwrap();
    assert_eq!((read.status, read.body.as_ref()), (200, content.as_slice()));
    call("DELETE", &path, None).await;
    let aged = "UPDATE public.files SET created_ms = created_ms - 361000, url_expires_ms = url_expires_ms - 361000,
                sweep_ms = sweep_ms - 361000";
    running.owner().await.batch_execute(aged).await.unwrap();

    // What runs by itself. A second run of each meets what the first one wrote.
    for _ in 0..2 {
        for rule in stack.events.scheduled().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            assert!(stack.events.tick(&rule).await, "{rule}");
            stack.events.idle().await;
        }
        // Another key: what was mirrored is replaced, and not only written once.
        stack.access.rotate(local::access::Key::generate().unwrap());
    }

    // What an operator does, and a client with its own token; `trust` is nudged by both.
    for act in [
        json!({"operation": "client.list", "operator": "test", "tenant": "acme"}),
        json!({"operation": "revoke", "operator": "test", "kind": "client_id", "value": "acme-reader"}),
    ] {
        local::seed::act(stack, act).await.unwrap();
    }
    stack.events.idle().await;
    stack.lambda.idle().await;
    let undelivered = stack.lambda.undelivered();
    assert!(undelivered.is_empty(), "{undelivered:?}");
}

fn seen(running: &Running) -> Seen {
    let mut seen = Seen::default();
    for entry in running.stack.account.iam.trail() {
        let Some((role, session)) =
            entry.principal.split_once("assumed-role/").and_then(|(_, rest)| rest.split_once('/'))
        else {
            continue;
        };
        let mut who = role.trim_start_matches(&format!("portcullis-{ENV}-")).to_owned();
        // One tenant is as good as another: a session's own is called acme, and what is in its reach as well.
        let tenant = session.split_once('-').map_or("", |(_, tenant)| tenant);
        let swap = |text: String| match (entry.session_policy.is_some(), tenant) {
            (true, "globex") => {
                text.replace("t/globex/", "t/\0/").replace("t/acme/", "t/globex/").replace("t/\0/", "t/acme/")
            }
            _ => text,
        };
        let places = Places { running };
        if let Some(policy) = &entry.session_policy {
            who.push_str(":acme");
            let policy = swap(places.named(&policy.to_string()));
            seen.sessions.entry(who.clone()).or_default().insert(policy);
        }
        let (verdict, action) = (if entry.allowed { "allow" } else { "deny" }, &entry.action);
        let resource = swap(places.resource(&entry));
        let mut line = format!("{verdict} {who} {action} {resource}");
        for (key, values) in places.context(action, &resource, &entry.context) {
            let values: Vec<String> = values.into_iter().map(&swap).collect();
            write!(line, " {key}={}", values.join(",")).unwrap();
        }
        seen.calls.insert(line);
    }
    seen
}

/// What is known about any call, and tells nothing about this one; and what the matrix says of a resource itself.
const COMMON: &[&str] = &[
    "aws:currenttime",
    "aws:epochtime",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:requestedregion",
    "aws:sourceip",
    "aws:tokenissuetime",
    "kms:calleraccount",
    // A fact about the key, by which the boundary of the roles knows it: data.yaml names each.
    "kms:resourcealiases",
    "kms:encryptionalgorithm",
    "kms:keyorigin",
    "kms:multiregion",
    "lambda:sourcefunctionarn",
    "s3:resourceaccount",
    "s3:signatureversion",
    "s3:versionid",
    "s3:x-amz-content-sha256",
];

/// How AWS writes the keys that have capitals.
const WRITTEN: &[&str] = &[
    "aws:SecureTransport",
    "aws:SourceVpce",
    "aws:TagKeys",
    "aws:RequestTag/portcullis:signing",
    "kms:BypassPolicyLockoutSafetyCheck",
    "kms:EncryptionContextKeys",
    "kms:KeySpec",
    "kms:KeyUsage",
    "kms:MessageType",
    "kms:ReEncryptOnSameKey",
    "kms:SigningAlgorithm",
    "kms:ViaService",
    "s3:ObjectCreationOperation",
    "s3:authType",
    "s3:signatureAge",
    "ssm:Overwrite",
    "sts:RoleSessionName",
];

/// The names that the matrix has for the things of a stack.
struct Places<'a> {
    running: &'a Running,
}

impl Places<'_> {
    fn resource(&self, entry: &TrailEntry) -> String {
        let places = &self.running.stack.places;
        let named = [
            (&places.data_key, "key/data"),
            (&places.bucket_key, "key/bucket"),
            (&places.receipt_key, "key/receipts"),
            (&places.signing_key, "key/parameters"),
        ];
        if let Some((_, name)) = named.iter().find(|(arn, _)| **arn == entry.resource) {
            return (*name).to_owned();
        }
        let tagged = entry.context.values("aws:ResourceTag/portcullis:signing").is_some();
        let arn = entry.resource.as_str();
        let after = |prefix: &str| arn.strip_prefix(prefix).map(ids);
        let regional = |service: &str, rest: &str| format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}");
        let (trust, objects) =
            (format!("arn:aws:s3:::{}", places.trust_bucket), format!("arn:aws:s3:::{}", places.object_bucket));
        if arn == trust {
            return "trust-bucket".to_owned();
        } else if arn == objects {
            return "objects-bucket".to_owned();
        } else if arn == "*" && entry.service == "kms" {
            return "any-key".to_owned();
        }
        let found = after(&format!("{trust}/"))
            .map(|key| key.replace("issuers/access.json", "issuers/{id}.json"))
            .or_else(|| after(&format!("{objects}/")).map(|key| format!("objects/{key}")))
            .or_else(|| {
                after(&regional("kms", "key/")).map(|_| if tagged { "key/signing" } else { "key/new" }.to_owned())
            })
            .or_else(|| {
                after(&format!("arn:aws:iam::{ACCOUNT}:role/portcullis-{ENV}-")).map(|name| format!("role/{name}"))
            })
            .or_else(|| after(&regional("rds-db", "dbuser:prx-0a1b2c3d4e5f60718/")).map(|user| format!("proxy/{user}")))
            .or_else(|| {
                after(&regional("rds-db", "dbuser:db-LOCALSTACKINSTANCE0000000/"))
                    .map(|user| format!("instance/{user}"))
            })
            .or_else(|| {
                after(&regional("ssm", "parameter/portcullis/"))
                    .map(|name| format!("parameter/{}", last_is_an_id(&name)))
            });
        found.unwrap_or_else(|| arn.to_owned())
    }

    fn context(&self, action: &str, resource: &str, context: &Context) -> BTreeMap<String, Vec<String>> {
        let names: Vec<String> = context.values("kms:EncryptionContextKeys").unwrap_or_default().to_vec();
        let mut kept = BTreeMap::new();
        for (key, values) in context.iter().filter(|(key, _)| !COMMON.contains(key)) {
            let of_the_resource = ["key/new", "any-key"].contains(&resource);
            let said = ["kms:keyspec", "kms:keyusage"].contains(&key) && !of_the_resource;
            let plain = key == "aws:securetransport" && !context_is_signed(context);
            // Whether a trust object is read again or asked about depends on how long the last time is ago.
            let asked = key == "s3:if-none-match" && action == "s3:GetObject";
            // Of writes that are no files' it says that they are whole.
            let whole = key == "s3:objectcreationoperation" && !resource.starts_with("objects/");
            if said || plain || asked || whole || key.starts_with("aws:resourcetag/") {
                continue;
            }
            let name = key.strip_prefix("kms:encryptioncontext:").and_then(|lower| {
                names
                    .iter()
                    .find(|name| name.eq_ignore_ascii_case(lower))
                    .map(|name| format!("kms:EncryptionContext:{name}"))
            });
            let written = WRITTEN.iter().find(|written| written.eq_ignore_ascii_case(key));
            let name = name.or_else(|| written.map(|name| (*name).to_owned())).unwrap_or_else(|| key.to_owned());
            let mut values: Vec<String> = values.iter().map(|value| self.value(&name, value)).collect();
            values.sort_unstable();
            kept.insert(name, values);
        }
        kept
    }

    fn value(&self, key: &str, value: &str) -> String {
        let value = ids(&self.named(value));
        match key {
            "aws:SourceVpce" => {
                value.strip_prefix("vpce-local-").map_or(value.clone(), |one| format!("{{{one}-endpoint}}"))
            }
            "s3:signatureAge" => "0".to_owned(),
            "s3:if-match" => "{etag}".to_owned(),
            "sts:RoleSessionName" => {
                value.split_once('-').map_or(value.clone(), |(kind, _)| format!("{kind}-{{tenant}}"))
            }
            "kms:EncryptionContext:tenant" => "{tenant}".to_owned(),
            "kms:EncryptionContext:aws:s3:arn" => {
                value.replace("/t/acme/", "/t/{tenant}/").replace("/t/globex/", "/t/{tenant}/")
            }
            "kms:EncryptionContext:PARAMETER_ARN" => last_is_an_id(&value),
            _ => value,
        }
    }

    /// What differs from stack to stack under its name.
    fn named(&self, text: &str) -> String {
        let places = &self.running.stack.places;
        text.replace(&places.data_key, "{data-key}")
            .replace(&places.bucket_key, "{bucket-key}")
            .replace(&places.receipt_key, "{receipt-key}")
            .replace(&places.signing_key, "{signing-key}")
            .replace(places.trust_bucket, "{trust}")
            .replace(places.object_bucket, "{objects}")
            .replace(ACCOUNT, "{account}")
            .replace(REGION, "{region}")
    }
}

fn context_is_signed(context: &Context) -> bool {
    context.values("s3:signatureAge").is_some()
}

/// UUIDs as `{id}`.
fn ids(text: &str) -> String {
    let is_id = |part: &str| part.len() == 36 && part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    text.split('/').map(|part| if is_id(part) { "{id}" } else { part }).collect::<Vec<_>>().join("/")
}

fn last_is_an_id(text: &str) -> String {
    text.rsplit_once('/').map_or(text.to_owned(), |(before, _)| format!("{before}/{{id}}"))
}

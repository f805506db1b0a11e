//! The decision view of `make dev`: what it shows, what it never shows, and who may look.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use local::dev::rebuild::{self, Programs};
use local::http::{bind, send};
use local::stack::UNTHROTTLED;
use local::view::page::Page;
use serde_json::{Value, json};
use support::{Running, files};

/// A stack that is looked at.
struct Watched {
    running: Running,
    page: Page,
}

impl Watched {
    async fn start() -> Self {
        let running = Running::start().await;
        running.stack.account.view.switch_on();
        let page = Page::serve(Arc::clone(&running.stack.account), bind().await.unwrap()).await.unwrap();
        Self { running, page }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, Value, http::HeaderMap) {
        ask(method, &format!("{}{path}", self.page.url), headers, body).await
    }

    /// Every request that is remembered, whole.
    async fn requests(&self) -> Vec<Value> {
        let (_, news, _) = self.ask("GET", "news?wait=0", &[], "").await;
        let mut whole = Vec::new();
        for seen in news["requests"].as_array().unwrap() {
            whole.push(self.ask("GET", &format!("requests/{}", seen["number"]), &[], "").await.1);
        }
        whole
    }
}

async fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value, http::HeaderMap) {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    let (parts, body) = send(request, None).await.unwrap().into_parts();
    (parts.status, serde_json::from_slice(&body).unwrap_or_default(), parts.headers)
}

fn parts<'a>(seen: &'a Value, kind: &str) -> Vec<&'a Value> {
    seen["parts"].as_array().unwrap().iter().filter(|part| part["kind"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_seen_with_its_whole_way_and_without_its_secrets() {
    let watched = Watched::start().await;
    let running = &watched.running;
    let assertion = running.api.assertion(running.client("acme-backend")).unwrap();
    let token =
        running.api.token_with(&assertion, None).await.unwrap().json()["access_token"].as_str().unwrap().to_owned();
    let body = files::new_file();
    let made = running.api.call("POST", "/files", Some(&token), Some(&body)).await.unwrap();
    assert_eq!(made.status, 201, "{:?}", made.json());
    let upload = made.json()["upload"].clone();
    let url = upload["url"].as_str().unwrap().to_owned();
    let sent = files::put(running, &upload).await;
    assert_eq!(sent.status, 200, "{}", sent.outcome());
    running.encrypt(&token, &["canary-plaintext"]).await;
    let reader = running.token("acme-reader").await;
    let refused = running.api.call("POST", "/files", Some(&reader), Some(&body)).await.unwrap();
    assert_eq!(refused.status, 403);
    let garbage = [("authorization", "Bearer canary.token.here"), ("user-agent", "<script>alert(1)</script>")];
    running
        .api
        .send("GET", &format!("{}/files/x?secret=canary-query", running.stack.places.gateway), &garbage, Bytes::new())
        .await
        .unwrap();

    let requests = watched.requests().await;
    let find = |path: &str, status: u16| {
        let found =
            requests.iter().find(|seen| seen["path"] == path && seen["status"] == status && seen["door"] == "gateway");
        found.unwrap_or_else(|| panic!("{path} {status}: {requests:#?}"))
    };
    let made = find("/files", 201);
    assert_eq!((&made["verdict"]["outcome"], &made["verdict"]["by"]), (&json!("allow"), &json!("authorizer")));
    assert!(!made["verdict"]["policies"].as_array().unwrap().is_empty(), "{made:#}");
    assert_eq!((&made["client"], &made["function"]), (&json!("acme/acme-backend"), &json!("upload")));
    assert_eq!((parts(made, "authorizer").len(), parts(made, "function").len()), (1, 1));
    let database = parts(made, "database");
    assert!(
        database.iter().any(|part| part["name"].as_str().unwrap().starts_with("api.") && part["outcome"] == "ok"),
        "{made:#}"
    );
    assert!(made["parts"].as_array().unwrap().iter().all(|part| part["took"].is_u64()), "{made:#}");
    let calls = requests.iter().flat_map(|seen| parts(seen, "aws")).collect::<Vec<_>>();
    let sign = calls.iter().find(|part| part["name"] == "kms Sign").unwrap();
    assert_eq!((&sign["judged"][0]["action"], &sign["judged"][0]["allowed"]), (&json!("kms:Sign"), &json!(true)));
    assert!(sign["judged"][0]["statement"].as_str().unwrap().contains("token"), "{sign:#}");
    let denied = find("/files", 403);
    assert_eq!(
        (&denied["verdict"]["outcome"], &denied["verdict"]["reason"]),
        (&json!("deny"), &json!("insufficient_scope"))
    );
    assert!(parts(denied, "function").is_empty());
    let times = &made["times"];
    let sum: u64 = ["authorizer", "function", "gateway"].iter().map(|name| times[*name].as_u64().unwrap()).sum();
    assert_eq!(times["total"].as_u64().unwrap(), sum);
    let put = requests.iter().find(|seen| seen["door"] == "service").expect("the signed URL is seen as well");
    assert_eq!(put["status"], json!(sent.status));
    find("/files/x?secret=…", 401);

    let all = serde_json::to_string(&requests).unwrap();
    let signature = url.split("X-Amz-Signature=").nth(1).map(|rest| rest.split('&').next().unwrap().to_owned());
    let session = url.split("X-Amz-Security-Token=").nth(1).map(|rest| rest.split('&').next().unwrap().to_owned());
    let secrets = [Some(token), Some(reader), Some(assertion), signature, session, Some("canary".to_owned())];
    for secret in secrets.into_iter().flatten() {
        assert!(!all.contains(&secret), "{secret} is shown");
    }
    let keys = running.stack.operator.secret_access_key.as_str();
    assert!(!all.contains(keys) && !all.contains("Bearer ") && all.contains("<script>alert(1)</script>"));
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looks_but_who_was_told_where_and_no_other_page_does() {
    let watched = Watched::start().await;
    let url = &watched.page.url;
    assert!(url.starts_with("http://127.0.0.1:"));
    let authority = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let port = authority.rsplit(':').next().unwrap();
    let folder = url.rsplit('/').nth(1).unwrap();
    assert!(folder.len() >= 26);
    let own = format!("http://{authority}");
    let localhost = format!("localhost:{port}");
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[], 200),
        (&[("host", &localhost)], 200),
        (&[("origin", &own)], 200),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "none")], 200),
        // Another name for this address: what DNS rebinding makes.
        (&[("host", "evil.example")], 421),
        (&[("host", &format!("evil.example:{port}"))], 421),
        (&[("host", "127.0.0.1")], 421),
        (&[("host", &format!("127.0.0.1.evil.example:{port}"))], 421),
        (&[("host", &authority), ("host", "evil.example")], 421),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("origin", &format!("http://{localhost}"))], 403),
        (&[("origin", &format!("https://{authority}"))], 403),
        (&[("origin", &own), ("origin", "http://evil.example")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("sec-fetch-site", "same-site")], 403),
    ];
    for (headers, wanted) in cases {
        for path in ["", "page.js", "news?wait=0", "faults", "requests/0"] {
            let (status, _, answered) = watched.ask("GET", path, headers, "").await;
            let wanted = if *wanted == 200 && path == "requests/0" { 404 } else { *wanted };
            assert_eq!(status.as_u16(), wanted, "{path} {headers:?}");
            assert!(!answered.contains_key("access-control-allow-origin"));
        }
    }
    for path in [
        "/",
        "/news",
        "/faults",
        &format!("/{}/", "a".repeat(folder.len())),
        &format!("/{folder}x/"),
        &format!("//{folder}/"),
        &format!("/{folder}"),
    ] {
        let (status, body, _) = ask("GET", &format!("{own}{path}"), &[], "").await;
        assert_eq!((status.as_u16(), body), (404, Value::Null), "{path}");
    }
    for (method, path) in [
        ("POST", "faults"),
        ("DELETE", "faults"),
        ("OPTIONS", "faults"),
        ("PUT", ""),
        ("GET", "../x"),
        ("GET", "requests/-1"),
        ("GET", "requests/99999999999999999999"),
    ] {
        assert_eq!(watched.ask(method, path, &[], "").await.0, StatusCode::NOT_FOUND, "{method} {path}");
    }
    let (_, _, headers) = watched.ask("GET", "", &[], "").await;
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(
        !policy.contains("unsafe")
            && headers["x-content-type-options"] == "nosniff"
            && headers["cache-control"] == "no-store"
    );
    watched.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_set_while_it_runs_and_are_seen_where_they_struck() {
    let watched = Watched::start().await;
    let json = [("content-type", "application/json")];
    for (headers, body, status, error) in [
        (
            &json[..],
            r#"{"faults":"kms trottle"}"#,
            400,
            "faults, character 5: \"trottle\" does not happen to kms; wanted one of throttle, 5xx, expired, reset, lost, hang, wrong, cut, latency, stale",
        ),
        (&json[..], r#"{"faults":"","seed":-1}"#, 400, "the seed is no whole number"),
        (&json[..], r#"{"faults":"","sed":1}"#, 400, "wanted: {\"faults\": text, \"seed\": number}"),
        (&json[..], "[]", 400, "wanted: {\"faults\": text, \"seed\": number}"),
        (&json[..], "{", 400, "the body is not JSON"),
        (&[("content-type", "text/plain")][..], r#"{"faults":""}"#, 415, "the content type must be application/json"),
        (&[][..], r#"{"faults":""}"#, 415, "the content type must be application/json"),
    ] {
        let (got, said, _) = watched.ask("PUT", "faults", headers, body).await;
        assert_eq!((got.as_u16(), &said["error"]), (status, &json!(error)), "{body}");
    }
    let set = r#"{"faults":"kms.Sign 5xx; sts latency=5ms","seed":7}"#;
    let (status, told, _) = watched.ask("PUT", "faults", &json, set).await;
    assert_eq!((status.as_u16(), &told["seed"], &told["rules"][0]["met"]), (200, &json!(7), &json!(0)));
    let running = &watched.running;
    let assertion = running.api.assertion(running.client("acme-backend")).unwrap();
    let answer = running.api.token_with(&assertion, None).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.outcome());
    let (_, told, _) = watched.ask("GET", "faults", &[], "").await;
    assert!(told["rules"][0]["struck"].as_u64().unwrap() >= 1 && told["rules"][1]["met"] == 0, "{told}");
    let requests = watched.requests().await;
    let seen = requests.iter().find(|seen| seen["path"] == "/oauth2/token").unwrap();
    let struck = parts(seen, "aws").into_iter().find(|part| part["name"] == "kms Sign").unwrap().clone();
    assert_eq!(struck["fault"], json!("kms.Sign 5xx"));
    assert!(struck["outcome"].as_str().unwrap().starts_with("500 "), "{struck}");
    watched.ask("PUT", "faults", &json, r#"{"faults":""}"#).await;
    running.token("acme-backend").await;
    running.stack.stop().await;
}

/// Stands for cargo: puts what lies in `next` where cargo would put a program, or says what a compiler says.
const CARGO: &str = r#"#!/bin/sh
echo "$@" >>"$(dirname "$0")/asked"
if [ -e "$(dirname "$0")/broken" ]; then echo 'error[E0425]: cannot find value `x` in this scope' >&2; exit 101; fi
cp "$(dirname "$0")/next" "$(dirname "$0")/built/.token" && mv "$(dirname "$0")/built/.token" "$(dirname "$0")/built/token"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_built_anew_takes_over_and_no_request_is_lost() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir_in(support::root().join(".local")).unwrap();
    let at = |name: &str| home.path().join(name);
    let source = at("functions/token/src/lib.rs");
    std::fs::create_dir_all(source.parent().unwrap()).unwrap();
    std::fs::create_dir(at("built")).unwrap();
    std::fs::write(at("functions/token/Cargo.toml"), "").unwrap();
    std::fs::write(&source, "1").unwrap();
    let real = Programs::link(&support::binaries(), &at("real")).unwrap();
    for entry in std::fs::read_dir(real.folder()).unwrap().flatten() {
        std::fs::hard_link(entry.path(), at("built").join(entry.file_name())).unwrap();
    }
    std::fs::copy(real.folder().join("token"), at("next")).unwrap();
    let cargo = at("cargo");
    std::fs::write(&cargo, CARGO).unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();

    let programs = Programs::link(&at("built"), &at("run")).unwrap();
    let running = Running::start_from(programs.folder().to_path_buf(), UNTHROTTLED).await;
    let stack = Arc::new(running.stack);
    let view = &stack.account.view;
    view.switch_on();
    // Each request holds its process for a while, so that there are some in flight whenever the program changes.
    stack.account.faults.replace("s3 latency=1ms..30ms; function.token latency=1ms..60ms", Some(1)).unwrap();
    let following = rebuild::follow(&stack, programs, cargo.display().to_string(), home.path().to_path_buf(), |_| {});
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (api, stopped) = (running.api.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !*stopped.borrow() {
                    answers.push(api.call("GET", "/.well-known/jwks.json", None, None).await.unwrap().status);
                }
                answers
            })
        })
        .collect();
    let function = "portcullis-local-token";
    let notice = async |wanted: &str| {
        let (mut version, since) = (0, std::time::Instant::now());
        while since.elapsed() < std::time::Duration::from_secs(60) {
            let (now, _, notices) = view.after(0);
            if let Some(found) = notices.into_iter().rev().find(|notice| notice.text.contains(wanted)) {
                return found;
            }
            view.newer(version, std::time::Duration::from_millis(500)).await;
            version = now;
        }
        panic!("nothing was said of {wanted}");
    };
    std::fs::write(at("broken"), "").unwrap();
    std::fs::write(&source, "12").unwrap();
    let failed = notice("not built").await;
    assert_eq!(failed.level, "error");
    assert!(failed.text.contains("error[E0425]: cannot find value `x`"), "{}", failed.text);
    let before = stack.lambda.cold_starts(function);
    std::fs::remove_file(at("broken")).unwrap();
    std::fs::write(&source, "123").unwrap();
    notice("built and put in place").await;
    let answer = running.api.call("GET", "/.well-known/jwks.json", None, None).await.unwrap();
    assert_eq!(answer.status, 200);
    stop.send_replace(true);
    let mut answers = Vec::new();
    for client in clients {
        answers.extend(client.await.unwrap());
    }
    assert!(answers.len() > 20 && answers.iter().all(|status| *status == 200), "{answers:?}");
    assert!(stack.lambda.cold_starts(function) > before, "processes of the new program were started");
    let asked = std::fs::read_to_string(at("asked")).unwrap();
    assert!(
        asked.lines().all(|line| line == "build --workspace --locked --quiet --color never --bin token"),
        "{asked}"
    );
    assert_eq!(asked.lines().count(), 2, "{asked}");
    following.abort();
    stack.stop().await;
}

//! The existing application behind the gate, and the checks that one may add to it, on the running stack.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use local::application::Application;
use local::stack::AUDIENCE;
use serde_json::{Value, json};
use support::{Running, root};

const CLIENT: &str = "acme-legacy";

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_believes_its_headers_is_told_nothing_but_the_truth() {
    let running = Running::start().await;
    let application = Application::start(&running.stack, None).await.unwrap();
    let token = running.token(CLIENT).await;
    let bearer = format!("Bearer {token}");
    let url = format!("{}/app/echo?q=1", running.stack.places.gateway);
    let ask = async |headers: &[(&str, &str)]| {
        let headers = [&[("authorization", bearer.as_str())], headers].concat();
        running.api.send("GET", &url, &headers, Bytes::new()).await.unwrap()
    };
    let seen = ask(&[]).await.json();
    assert_eq!((&seen["who"], &seen["path"], &seen["query"]), (&json!(CLIENT), &json!("/echo"), &json!("q=1")));
    // Each name that the gateway writes over, sent by the client.
    let yaml = std::fs::read_to_string(root().join("infra/aws/app.yaml")).unwrap();
    let written = yaml.split("integration.request.header.").skip(1).filter_map(|rest| rest.split(':').next());
    let mut names = 0;
    for name in written {
        names += 1;
        let answer = ask(&[(name, "admin")]).await;
        if name.starts_with("X-Portcullis-") {
            assert_eq!(answer.outcome(), "403 forbidden", "{name}");
            continue;
        }
        let seen = answer.json();
        assert_eq!((&seen["who"], &seen["headers"][name.to_lowercase()]), (&json!(CLIENT), &json!("")), "{name}");
        let underscored = name.replace('-', "_");
        if underscored != name {
            assert_eq!(ask(&[(underscored.as_str(), "admin")]).await.outcome(), "403 forbidden", "{underscored}");
        }
    }
    assert!(names >= 18, "the names are no longer where they were read: {names}");
    assert_eq!(ask(&[("x-portcullis-groups", "admins")]).await.outcome(), "403 forbidden");
    // Without the check, who gets into its network is believed: that is what the network is closed for, and the check is for.
    let around = application.ask("/echo", &[("x-portcullis-subject", "admin")]).await.unwrap();
    let said: Value = serde_json::from_slice(around.body()).unwrap();
    assert_eq!((around.status().as_u16(), &said["who"]), (200, &json!("admin")));
    let lines = running.stack.lambda.log("portcullis-local-authorizer");
    assert!(lines.contains("reserved_header"), "the log says why");
    running.stack.stop().await;
}

/// One recipe asked about all tokens: the subject of each that it lets in.
fn asked(program: &str, arguments: &[&str], question: &Value) -> Option<Vec<Value>> {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        return None;
    };
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}");
    Some(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{program}: {output:?}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checks_of_ten_lines_let_in_the_gates_own_tokens_and_no_other() {
    let running = Running::start().await;
    let keys = running.api.call("GET", "/.well-known/jwks.json", None, None).await.unwrap().json();
    let (good, narrow) = (running.token(CLIENT).await, running.token("acme-reader").await);
    let parts: Vec<Value> = good
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    let with = |part: usize, member: &str, value: Value| {
        let mut parts = parts.clone();
        parts[part][member] = value;
        parts
    };
    let text = |parts: &[Value]| {
        parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).collect::<Vec<_>>().join(".")
    };
    let signed = async |parts: Vec<Value>| {
        let text = text(&parts);
        let signature = running.stack.sign_as_issuer(text.as_bytes()).await.unwrap();
        format!("Bearer {text}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let (unsigned, seal) = good.rsplit_once('.').unwrap();
    let mut cases = vec![
        ("the gate's own", format!("Bearer {good}"), true),
        ("the same, signed again", signed(parts.clone()).await, true),
        ("under the other scheme", format!("DPoP {good}"), true),
        ("without the scope", format!("Bearer {narrow}"), false),
        ("nothing", String::new(), false),
        ("a scheme", "Bearer".to_owned(), false),
        ("no signature", format!("Bearer {unsigned}."), false),
        ("another signature", format!("Bearer {unsigned}.{}", seal.chars().rev().collect::<String>()), false),
        ("a shorter one", format!("Bearer {unsigned}.{}", &seal[..seal.len() - 4]), false),
        ("four parts", format!("Bearer {good}.{seal}"), false),
        ("other claims", format!("Bearer {}.{seal}", text(&with(1, "sub", json!("admin")))), false),
    ];
    for (what, part, member, value) in [
        ("expired", 1, "exp", json!(1)),
        ("for another API", 1, "aud", json!("https://other.example")),
        ("for two", 1, "aud", json!([AUDIENCE, "https://other.example"])),
        ("of another issuer", 1, "iss", json!("https://other.example")),
        ("of another kind", 0, "typ", json!("JWT")),
        ("no algorithm", 0, "alg", json!("none")),
        ("a symmetric one", 0, "alg", json!("HS256")),
        ("an unknown key", 0, "kid", json!("k")),
        ("no scope", 1, "scope", json!(null)),
        ("a scope that contains it", 1, "scope", json!("application")),
    ] {
        cases.push((what, signed(with(part, member, value)).await, false));
    }
    let tokens: Vec<&String> = cases.iter().map(|(_, token, _)| token).collect();
    let question =
        json!({"keys": keys, "issuer": running.stack.places.gateway, "audience": AUDIENCE, "tokens": tokens});
    let recipes = root().join("docs/recipes");
    let recipes = recipes.to_str().unwrap();
    let python = format!(
        "import json, sys; sys.dont_write_bytecode = True; sys.path.insert(0, {recipes:?}); from ten_lines import caller; q = json.load(sys.stdin); \
         print(json.dumps([(caller(t, q['keys'], q['issuer'], q['audience']) or {{}}).get('sub') for t in q['tokens']]))"
    );
    let node = format!(
        "import {{ caller }} from '{recipes}/ten_lines.mjs'; import {{ readFileSync }} from 'node:fs'; const q = JSON.parse(readFileSync(0)); \
         console.log(JSON.stringify(q.tokens.map((t) => caller(t, q.keys, q.issuer, q.audience)?.sub ?? null)));"
    );
    let php = format!(
        "require '{recipes}/ten_lines.php'; $q = json_decode(stream_get_contents(STDIN), true); \
         echo json_encode(array_map(fn($t) => caller($t, $q['keys'], $q['issuer'], $q['audience'])['sub'] ?? null, $q['tokens']));"
    );
    let programs: [(&str, Vec<&str>); 3] = [
        ("python3", vec!["-c", &python]),
        ("node", vec!["--input-type=module", "-e", &node]),
        ("php", vec!["-r", &php]),
    ];
    for (program, arguments) in programs {
        let Some(said) = asked(program, &arguments, &question) else {
            assert_ne!(program, "python3", "the stack itself needs it");
            continue;
        };
        for ((what, _, good), said) in cases.iter().zip(&said) {
            assert_eq!(*said, if *good { json!(CLIENT) } else { Value::Null }, "{program}: {what}");
        }
        assert_eq!(said.len(), cases.len());
    }
    running.stack.stop().await;
}

//! `local dev` and `local replay` as programs: what somebody does who has an application, a client and a script of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use local::clock::Clock;
use local::http::send;
use local::journey::{Answer, Api, seconds};
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use support::root;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

fn local(words: &[&str]) -> Command {
    let mut command = Command::new(support::binaries().join("local"));
    command.args(words).current_dir(root());
    command
}

fn ended(words: &[&str]) -> (Option<i32>, String) {
    let output = local(words).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn what_cannot_be_run_is_said_before_anything_is_started() {
    let since = Instant::now();
    for words in [&["dance"][..], &["dev", "--seed", "x"], &["dev", "--json", "--quiet"], &["replay"], &[]] {
        let (code, said) = ended(words);
        assert_eq!(code, Some(64), "{words:?}");
        assert!(said.starts_with("usage: local demo"), "{said}");
    }
    let (code, said) = ended(&["dev", "--faults", "kms reset; s3 failover"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("faults, character 15: \"failover\" does not happen to s3; wanted one of "), "{said}");
    let (code, said) = ended(&["replay", "/nowhere/session.jsonl"]);
    assert!(code == Some(1) && said.contains("/nowhere/session.jsonl: "), "{said}");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("a.jsonl");
    std::fs::write(&file, "{\"portcullis_session\":1}\n{\"step\":1}\n").unwrap();
    let (code, said) = ended(&["replay", file.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("a.jsonl, line 2: missing field"), "{said}");
    let (code, said) = ended(&["dev", "--record", file.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("a.jsonl: "), "a session is never written over: {said}");
    assert!(!said.contains("starting"), "{said}");
    assert!(since.elapsed() < Duration::from_secs(60));
}

/// An application of one's own: it answers with what it was asked.
async fn application(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = vec![0; 16 * 1024];
            let read = stream.read(&mut asked).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&asked[..read]).into_owned();
            let body = json!({"line": head.lines().next(), "host": head.lines().find(|line| line.to_lowercase().starts_with("host:"))}).to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
}

/// A token for a client of the manifest, by its key in the file that the manifest names.
async fn token(api: &Api, manifest: &Value, id: &str) -> Answer {
    let client = manifest["clients"].as_array().unwrap().iter().find(|client| client["client_id"] == id).unwrap();
    let pem = std::fs::read_to_string(client["private_key_file"].as_str().unwrap()).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &STANDARD.decode(der).unwrap()).unwrap();
    let now = seconds(&Clock::system());
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "ES256", "typ": "JWT", "kid": client["kid"]}));
    let claims = part(
        json!({"iss": id, "sub": id, "aud": manifest["issuer"], "jti": format!("tool-{now}"), "iat": now, "exp": now + 60}),
    );
    let input = format!("{header}.{claims}");
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    api.token_with(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)), None).await.unwrap()
}

struct Running {
    process: Child,
    manifest: Value,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

async fn start(home: &Path, more: &[&str]) -> Running {
    let words = [&["dev", "--home", home.to_str().unwrap(), "--attached", "--json"], more].concat();
    let process = local(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut running = Running { process, manifest: Value::Null };
    for _ in 0..1_200 {
        let text = std::fs::read_to_string(home.join("portcullis.json")).unwrap_or_default();
        running.manifest = serde_json::from_str(&text).unwrap_or_default();
        if running.manifest["view"].is_string() {
            return running;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the stack did not start");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_application_stands_behind_the_gate_and_its_session_is_sent_again() {
    let home = tempfile::tempdir_in(root().join(".local")).unwrap();
    let file = home.path().join("session.jsonl");
    let record = ["--record", file.to_str().unwrap(), "--faults", "ssm.GetParameterHistory throttle", "--seed", "7"];
    let mut running = start(home.path(), &record).await;
    let manifest = running.manifest.clone();
    application(Path::new(manifest["application"].as_str().unwrap())).await;
    let ca = std::fs::read(manifest["ca_file"].as_str().unwrap()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = Arc::new(tls.with_root_certificates(roots).with_no_client_auth());
    let api = Api::new(manifest["gateway"].as_str().unwrap(), tls, Clock::system());

    let bearer = token(&api, &manifest, "acme-legacy").await.json()["access_token"].as_str().unwrap().to_owned();
    let answer = api.call("GET", "/app/orders/7?page=2", Some(&bearer), None).await.unwrap();
    assert_eq!(
        (answer.status, &answer.json()["line"]),
        (200, &json!("GET /orders/7?page=2 HTTP/1.1")),
        "{:?}",
        answer.json()
    );
    assert_eq!(api.call("GET", "/app/orders/7", None, None).await.unwrap().status, 401);

    let faults = format!("{}faults", manifest["view"].as_str().unwrap());
    let request = http::Request::get(&faults).body(Full::new(Bytes::new())).unwrap();
    let told: Value = serde_json::from_slice(send(request, None).await.unwrap().body()).unwrap();
    assert_eq!((&told["seed"], &told["faults"]), (&json!(7), &json!("ssm.GetParameterHistory throttle")));

    drop(running.process.stdin.take());
    let lines: Vec<Value> = BufReader::new(running.process.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).expect("every line of standard output is JSON"))
        .collect();
    assert!(running.process.wait().unwrap().success());
    assert!(!home.path().join("portcullis.json").exists(), "nothing names a stack that is gone");
    let of = |status: u64| {
        lines.iter().find(|line| line["path"].as_str().unwrap().starts_with("/app/") && line["status"] == status)
    };
    let served = of(200).unwrap();
    assert_eq!(
        (&served["function"], &served["verdict"]["outcome"], &served["path"]),
        (&json!("application"), &json!("allow"), &json!("/app/orders/7?page=…"))
    );
    assert_eq!(of(401).unwrap()["verdict"]["by"], "gateway");

    // The fresh stack has no application: that, and nothing else, is what differs.
    let (code, said) = ended(&["replay", file.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("step 2  GET /app/orders/7?page=2\n  was  200 (allow policy by authorizer)\n  is   503 "),
        "{said}"
    );
    assert!(said.contains("3 steps, 1 different"), "{said}");
}

//! `signed-attacks`: makes the attacks of `docs/attacks-on-files.md` on a server that speaks S3.
//!
//! Takes the server from stdin as JSON, writes one JSON object a line for each attack. Who started it looks what is stored.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use shared::clock::{Clock as _, SystemClock, Timestamp};
use shared::object::SignerSession;
use shared::secret::SecretString;
use system::signed_attacks::{Target, attack};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    let said: Value = serde_json::from_str(&text)?;
    let now = SystemClock.now();
    let target = Target {
        endpoint: member(&said, "/endpoint"),
        bucket: member(&said, "/bucket"),
        bucket_key: member(&said, "/bucket_key"),
        region: member(&said, "/region"),
        upload: session(&said, "upload", now),
        download: session(&said, "download", now),
        other: session(&said, "other", now),
        tls: Some(tls(&member(&said, "/ca_file"))?),
        now,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(attack(&target))?;
    let mut out = io::stdout().lock();
    for row in rows {
        let keeps = row.keeps.map(String::from_utf8_lossy);
        let line = json!({"what": row.what, "wanted": row.wanted, "got": row.got, "key": row.key, "keeps": keeps});
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn session(said: &Value, name: &str, now: Timestamp) -> SignerSession {
    let part = |part: &str| member(said, &format!("/{name}/{part}"));
    SignerSession {
        access_key_id: part("id"),
        secret_access_key: SecretString::new(part("secret")),
        session_token: SecretString::new(part("token")),
        issued_at: now,
        expires_at: now.plus_seconds(900),
    }
}

fn tls(ca_file: &str) -> io::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn member(said: &Value, pointer: &str) -> String {
    said.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

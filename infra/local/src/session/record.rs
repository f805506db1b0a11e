//! Writing a session down.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::names::{self, Given};
use super::{Body, Essentials, Step, VERSION};
use crate::http::Request;
use crate::seed::Client;
use crate::stack::Stack;

/// The largest content of a file that is recorded.
const CONTENT: usize = 1024 * 1024;
/// Header fields that a client sets anew.
const ANEW: [&str; 6] = ["host", "content-length", "connection", "transfer-encoding", "expect", "accept-encoding"];
/// Header fields that hold no secret.
const PLAIN: [&str; 13] = [
    "accept",
    "accept-language",
    "cf-connecting-ip",
    "cf-ipcountry",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "origin",
    "range",
    "user-agent",
    "x-forwarded-for",
    "x-request-id",
];

/// The session of one stack, if one is recorded.
#[derive(Debug, Default)]
pub struct Sessions {
    on: AtomicBool,
    recorder: Mutex<Option<Recorder>>,
}

impl Sessions {
    /// Writes down what is asked from now on.
    pub fn record(&self, mut recorder: Recorder, stack: &Stack, clients: &[Client]) {
        recorder.s3 = stack.endpoint("s3").to_owned();
        recorder.clients = clients
            .iter()
            .map(|client| (client.client_id.to_owned(), client.kid.clone(), client.thumbprint()))
            .collect();
        *self.recorder.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorder);
        self.on.store(true, Ordering::Relaxed);
    }

    /// Whether anything is written down.
    pub(crate) fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// One request at the gateway and its answer.
    pub(crate) fn note(&self, request: &Request, status: u16, body: &Bytes, decision: Option<String>) {
        self.with(|recorder| recorder.note(request, status, body, decision));
    }

    /// One request to a signed URL.
    pub(crate) fn note_signed(&self, request: &Request, status: u16) {
        self.with(|recorder| recorder.note_signed(request, status));
    }

    fn with(&self, work: impl FnOnce(&mut Recorder) -> io::Result<()>) {
        let mut held = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorder) = held.as_mut()
            && let Err(error) = work(recorder)
        {
            // A session that cannot be written to its end is no session; the stack goes on.
            let _ = writeln!(io::stderr().lock(), "the session is not recorded any more: {error}");
            *held = None;
            self.on.store(false, Ordering::Relaxed);
        }
    }
}

/// A file that a session is written to.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    steps: u64,
    given: Given,
    s3: String,
    /// Client id, key id, thumbprint.
    clients: Vec<(String, String, String)>,
}

impl Recorder {
    /// Makes the file, for its owner only.
    ///
    /// # Errors
    /// When it is there already, so that no session is lost, or cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        writeln!(file, "{}", json!({ "portcullis_session": VERSION }))?;
        Ok(Self { file, steps: 0, given: Given::default(), s3: String::new(), clients: Vec::new() })
    }

    fn note(&mut self, request: &Request, status: u16, answer: &Bytes, decision: Option<String>) -> io::Result<()> {
        let said: Value = serde_json::from_slice(answer).unwrap_or_default();
        let code = ["code", "error"].iter().find_map(|name| said.get(*name)?.as_str().map(str::to_owned));
        let trusted = code.as_deref() != Some("invalid_client");
        let mut inexact = false;
        let target = self.target(request.uri.path_and_query().map_or("/", |target| target.as_str()));
        let headers = self.headers(&request.headers, |name| name == "dpop" || !PLAIN.contains(&name), &mut inexact);
        let body = self.body(request, trusted, &mut inexact);
        let answer = Essentials { status, code, decision };
        self.write(Step { step: 0, method: request.method.to_string(), target, headers, body, inexact, answer })?;
        self.given.learn(self.steps, &said);
        Ok(())
    }

    fn note_signed(&mut self, request: &Request, status: u16) -> io::Result<()> {
        let url = format!("{}{}", self.s3, request.uri.path_and_query().map_or("/", |target| target.as_str()));
        // A URL that no answer gave was signed by somebody else, with keys that the next stack does not have.
        let Some(target) = self.given.name(&url).map(str::to_owned) else { return Ok(()) };
        // Its credential is in the URL.
        let headers = self.headers(&request.headers, |name| name == "authorization" || name == "cookie", &mut false);
        let body = match request.body.len() {
            0 => Body::Empty,
            length if length > CONTENT => Body::Bytes(length),
            _ => Body::Content(STANDARD.encode(&request.body)),
        };
        let answer = Essentials { status, code: None, decision: None };
        self.write(Step { step: 0, method: request.method.to_string(), target, headers, body, inexact: false, answer })
    }

    fn write(&mut self, step: Step) -> io::Result<()> {
        self.steps += 1;
        let mut line = serde_json::to_vec(&Step { step: self.steps, ..step })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// The name of a value that an answer gave; else the value.
    fn known(&self, value: &str) -> String {
        self.given.name(value).map_or_else(|| names::quoted(value), str::to_owned)
    }

    fn target(&self, target: &str) -> String {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let segments: Vec<String> = path.split('/').map(|segment| self.known(segment)).collect();
        let path = segments.join("/");
        let Some(query) = query else { return path };
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, value)) if names::is_secret(name) && self.given.name(value).is_none() => {
                format!("{}={}", names::quoted(name), names::secret(value))
            }
            Some((name, value)) => format!("{}={}", names::quoted(name), self.known(value)),
            None => names::quoted(pair),
        });
        format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
    }

    fn headers(&self, headers: &HeaderMap, secret: impl Fn(&str) -> bool, inexact: &mut bool) -> Vec<(String, String)> {
        let kept = headers.iter().filter(|(name, _)| !ANEW.contains(&name.as_str()));
        kept.map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            let written = match name.as_str() {
                name if !secret(name) => self.known(&value),
                "dpop" => self.proof(&value, inexact),
                _ => self.credential(&value, inexact),
            };
            (name.as_str().to_owned(), written)
        })
        .collect()
    }

    /// A value that may be a secret, with its scheme where it has one.
    fn credential(&self, value: &str, inexact: &mut bool) -> String {
        if let Some(name) = self.given.name(value) {
            return name.to_owned();
        }
        let (scheme, rest) = match value.split_once(' ') {
            Some((scheme, rest)) if ["bearer", "dpop", "basic"].contains(&scheme.to_ascii_lowercase().as_str()) => {
                (format!("{scheme} "), rest)
            }
            _ => (String::new(), value),
        };
        match self.given.name(rest) {
            Some(name) => format!("{scheme}{name}"),
            None => {
                *inexact = true;
                format!("{scheme}{}", names::secret(rest))
            }
        }
    }

    fn proof(&self, proof: &str, inexact: &mut bool) -> String {
        let header = part(proof, 0);
        let member =
            |name: &str| header.pointer(&format!("/jwk/{name}")).and_then(Value::as_str).unwrap_or_default().to_owned();
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, member("x"), member("y"));
        let thumbprint =
            URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical.as_bytes()));
        match self.clients.iter().find(|(_, _, own)| *own == thumbprint) {
            Some((client, ..)) if part(proof, 1).get("nonce").is_some() => format!("${{nonce:{client}}}"),
            Some((client, ..)) => format!("${{proof:{client}}}"),
            None => {
                *inexact = true;
                names::secret(proof)
            }
        }
    }

    fn body(&self, request: &Request, trusted: bool, inexact: &mut bool) -> Body {
        if request.body.is_empty() {
            return Body::Empty;
        }
        let kind = request.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/json" => match serde_json::from_slice::<Value>(&request.body) {
                Ok(body) => Body::Json(names::map_leaves(&body, "", &mut |name, value| {
                    self.value(name, value, trusted, inexact)
                })),
                Err(_) => Body::Bytes(request.body.len()),
            },
            "application/x-www-form-urlencoded" => {
                let pairs = url::form_urlencoded::parse(&request.body);
                Body::Form(
                    pairs
                        .map(|(name, value)| (name.clone().into_owned(), self.value(&name, &value, trusted, inexact)))
                        .collect(),
                )
            }
            _ => Body::Bytes(request.body.len()),
        }
    }

    fn value(&self, name: &str, value: &str, trusted: bool, inexact: &mut bool) -> String {
        if let Some(given) = self.given.name(value) {
            return given.to_owned();
        }
        // These name a kind of token, not one.
        if !names::is_secret(name) || name.ends_with("_type") || name.ends_with("_hint") {
            return names::quoted(value);
        }
        let kid = part(value, 0).get("kid").and_then(Value::as_str).map(str::to_owned);
        let signer = self.clients.iter().find(|(client, own, _)| {
            Some(own) == kid.as_ref() && part(value, 1).get("sub").and_then(Value::as_str) == Some(client)
        });
        match signer {
            Some((client, ..)) if name == "client_assertion" && trusted => format!("${{assertion:{client}}}"),
            _ => {
                *inexact = *inexact || name != "plaintext";
                names::secret(value)
            }
        }
    }
}

/// A part of a compact JWS, as JSON.
fn part(token: &str, at: usize) -> Value {
    let part = token.split('.').nth(at).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    part.and_then(|part| serde_json::from_slice(&part).ok()).unwrap_or_default()
}

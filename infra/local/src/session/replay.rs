//! A session against another stack.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::names::{self, Name, Piece};
use super::{Body, Essentials, Session, Step};
use crate::journey::{Answer, Api};
use crate::seed::Client;
use crate::stack::Stack;
use crate::view::record::Door;

/// How long a step waits for what the one before it set going.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a value must not bring into a path or a query.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What came of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    steps: usize,
    by_status: usize,
    different: Vec<Difference>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    step: u64,
    what: String,
    was: String,
    is: String,
}

impl Report {
    /// Whether every answer was what it had been.
    #[must_use]
    pub fn same(&self) -> bool {
        self.different.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Difference { step, what, was, is } in &self.different {
            writeln!(f, "step {step}  {what}\n  was  {was}\n  is   {is}")?;
        }
        let Self { steps, by_status, different } = self;
        write!(f, "{steps} steps, {} different", different.len())?;
        if *by_status > 0 {
            write!(f, " ({by_status} compared by status alone: a credential of theirs is not in the file)")?;
        }
        writeln!(f)
    }
}

struct Player<'a> {
    stack: &'a Stack,
    clients: &'a [Client],
    api: Api,
    answers: HashMap<u64, Value>,
    /// The nonce for proofs that came last.
    nonce: Option<String>,
}

impl Session {
    /// Sends every step to `stack`, one after the other, and compares the answers with those that were.
    ///
    /// # Errors
    /// When the stack cannot be reached, or does not trust itself.
    pub async fn replay(&self, stack: &Stack, clients: &[Client]) -> io::Result<Report> {
        let api = Api::new(&stack.places.gateway, stack.ca.client_config()?, stack.account.clock.clone());
        let mut player = Player { stack, clients, api, answers: HashMap::new(), nonce: None };
        let mut report = Report { steps: self.steps.len(), ..Report::default() };
        for step in &self.steps {
            let what = format!("{} {}", step.method, step.target);
            let (was, is) = match player.play(step).await {
                Ok(is) if step.inexact => {
                    report.by_status += 1;
                    (step.answer.status.to_string(), is.status.to_string())
                }
                Ok(is) => (step.answer.to_string(), is.to_string()),
                Err(why) => (step.answer.to_string(), why),
            };
            if was != is {
                report.different.push(Difference { step: step.step, what, was, is });
            }
        }
        Ok(report)
    }
}

impl Player<'_> {
    /// Sends one step; an error says why it could not be.
    async fn play(&mut self, step: &Step) -> Result<Essentials, String> {
        let signed = !step.target.starts_with('/');
        let target = self.fill(&step.target, step, &|text| {
            if signed { text } else { utf8_percent_encode(&text, ESCAPED).to_string() }
        })?;
        let url = if signed { target } else { format!("{}{target}", self.stack.places.gateway) };
        let plain = |text| text;
        let mut headers = Vec::new();
        for (name, value) in &step.headers {
            headers.push((name.as_str(), self.fill(value, step, &plain)?));
        }
        let body = self.body(step)?;
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (before, ..) = self.stack.account.view.after(u64::MAX);
        let answer = self.api.send(&step.method, &url, &headers, body).await;
        let answer = answer.map_err(|error| format!("no answer: {error}"))?;
        if signed {
            if answer.status < 300 && step.method != "GET" && !url.contains("uploadId=") {
                self.told(before).await;
            }
            return Ok(Essentials { status: answer.status, code: None, decision: None });
        }
        self.nonce =
            Some(answer.header("dpop-nonce").to_owned()).filter(|nonce| !nonce.is_empty()).or(self.nonce.take());
        let said = answer.json();
        let code = ["code", "error"].iter().find_map(|name| said.get(*name)?.as_str().map(str::to_owned));
        let decision = self.decision(&answer);
        self.answers.insert(step.step, said);
        Ok(Essentials { status: answer.status, code, decision })
    }

    /// Waits until the functions have been told of the object that has just come: the next step may ask for it.
    async fn told(&self, before: u64) {
        let view = &self.stack.account.view;
        let told = async {
            let mut version = before;
            loop {
                view.newer(version, PATIENCE).await;
                let (now, seen, _) = view.after(before);
                if seen.iter().any(|seen| seen.door == Door::Invoke && seen.status.is_some()) {
                    return;
                }
                version = now;
            }
        };
        drop(tokio::time::timeout(PATIENCE, told).await);
    }

    fn decision(&self, answer: &Answer) -> Option<String> {
        let (id, view) = (answer.header("x-amzn-requestid"), &self.stack.account.view);
        let (_, seen, _) = view.after(0);
        seen.iter().rev().find(|seen| seen.id == id)?.verdict.as_ref().map(ToString::to_string)
    }

    fn body(&self, step: &Step) -> Result<Bytes, String> {
        let plain = |text| text;
        Ok(match &step.body {
            Body::Empty => Bytes::new(),
            Body::Json(body) => {
                let mut wrong = None;
                let filled = names::map_leaves(body, "", &mut |_, text| {
                    self.fill(text, step, &plain).unwrap_or_else(|why| {
                        wrong.get_or_insert(why);
                        String::new()
                    })
                });
                match wrong {
                    Some(why) => return Err(why),
                    None => filled.to_string().into(),
                }
            }
            Body::Form(pairs) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                for (name, value) in pairs {
                    form.append_pair(name, &self.fill(value, step, &plain)?);
                }
                form.finish().into()
            }
            Body::Content(content) => {
                STANDARD.decode(content).map_err(|_| "its content is no base64".to_owned())?.into()
            }
            Body::Bytes(length) => vec![b'A'; (*length).min(16 * 1024 * 1024)].into(),
        })
    }

    /// A text with what its names stand for.
    fn fill(&self, text: &str, step: &Step, escape: &dyn Fn(String) -> String) -> Result<String, String> {
        let mut filled = String::new();
        for piece in names::pieces(text)? {
            match piece {
                Piece::Text(text) => filled.push_str(&text),
                Piece::Name(name) => filled.push_str(&escape(self.value(&name, step)?)),
            }
        }
        Ok(filled)
    }

    fn value(&self, name: &Name, step: &Step) -> Result<String, String> {
        match name {
            Name::Secret(length) => Ok("A".repeat(*length)),
            Name::Answer(of, pointer) => {
                let value = self.answers.get(of).and_then(|answer| answer.pointer(pointer)?.as_str());
                value.map(str::to_owned).ok_or_else(|| format!("the answer to step {of} has no {pointer} now"))
            }
            Name::Assertion(id) => {
                let client = self.client(id)?;
                self.api.assertion(client).map_err(|error| error.to_string())
            }
            Name::Proof(id, with_nonce) => {
                let client = self.client(id)?;
                let path = self.fill(step.target.split('?').next().unwrap_or_default(), step, &|text| text)?;
                let mut more = self.bound_token(step)?.map_or(json!({}), |token| {
                    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
                    json!({ "ath": URL_SAFE_NO_PAD.encode(digest) })
                });
                if let (true, Some(nonce), Some(more)) = (*with_nonce, &self.nonce, more.as_object_mut()) {
                    more.insert("nonce".to_owned(), json!(nonce));
                }
                self.api.proof(client, &step.method, &path, &more).map_err(|error| error.to_string())
            }
        }
    }

    /// The token that a proof has to name.
    fn bound_token(&self, step: &Step) -> Result<Option<String>, String> {
        let header = step.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let Some((_, value)) = header else { return Ok(None) };
        let filled = self.fill(value, step, &|text| text)?;
        Ok(filled.split_once(' ').map(|(_, token)| token.to_owned()))
    }

    fn client(&self, id: &str) -> Result<&Client, String> {
        let client = self.clients.iter().find(|client| client.client_id == id);
        client.ok_or_else(|| format!("there is no client {id:?} on this stack"))
    }
}

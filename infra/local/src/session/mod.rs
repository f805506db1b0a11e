//! A session: the requests that a stack was sent, written down so that they can be sent to another one.
//!
//! A file of JSON lines, readable by its owner only. The first is `{"portcullis_session": 1}`; each other is a [`Step`]. What was secret, or
//! was made by this stack, stands there as a name (`names`): a token is the one that an earlier answer gave, an assertion is signed anew, a
//! plaintext is so many letters.

mod names;
mod record;
mod replay;

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::record::{Recorder, Sessions};
pub use self::replay::Report;

/// The largest file that is read.
const LARGEST: u64 = 256 * 1024 * 1024;
/// The version of the form.
const VERSION: u64 = 1;

/// One request and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Counts up from 1.
    pub step: u64,
    /// The method.
    pub method: String,
    /// Path and query at the gateway; a name where it went to a signed URL.
    pub target: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
    /// Whether a credential in it cannot be made again: then only the status is compared.
    pub inexact: bool,
    /// What was answered.
    pub answer: Essentials,
}

/// A body in the form in which its parts can have names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Body {
    /// There is none.
    Empty,
    /// JSON.
    Json(Value),
    /// A form, in its order.
    Form(Vec<(String, String)>),
    /// The content of a file that went to a signed URL, base64.
    Content(String),
    /// Something else, of which only the length is known.
    Bytes(usize),
}

/// What of an answer is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Essentials {
    /// The status.
    pub status: u16,
    /// The stable code of a refusal.
    pub code: Option<String>,
    /// Outcome, reason and by whom, as the view tells it.
    pub decision: Option<String>,
}

impl fmt::Display for Essentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match &self.decision {
            Some(decision) => write!(f, " ({decision})"),
            None => Ok(()),
        }
    }
}

/// A session that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    steps: Vec<Step>,
}

impl Session {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or with the first line that is none, and what is wrong with it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let shown = path.display();
        let told = |error: io::Error| io::Error::new(error.kind(), format!("{shown}: {error}"));
        let size = std::fs::metadata(path).map_err(told)?.len();
        if size > LARGEST {
            return Err(io::Error::other(format!("{shown}: larger than {LARGEST} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(told)?;
        Self::parse(&text).map_err(|wrong| io::Error::other(format!("{shown}, {wrong}")))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is none, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let head: Value = lines.next().and_then(|(_, line)| serde_json::from_str(line).ok()).unwrap_or_default();
        match head.get("portcullis_session") {
            None => return Err("line 1: this is no recorded session".to_owned()),
            Some(version) if version.as_u64() != Some(VERSION) => {
                return Err(format!("line 1: a session of form {version}, wanted {VERSION}"));
            }
            Some(_) => {}
        }
        let mut steps: Vec<Step> = Vec::new();
        for (at, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let step: Step = serde_json::from_str(line).map_err(|error| format!("line {at}: {error}"))?;
            let expected = steps.last().map_or(1, |step| step.step + 1);
            if step.step != expected {
                return Err(format!("line {at}: step {}, wanted {expected}", step.step));
            }
            step.check().map_err(|wrong| format!("line {at}: {wrong}"))?;
            steps.push(step);
        }
        Ok(Self { steps })
    }

    /// The steps, in their order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Step {
    /// Whether it can be sent at all: names that are known, of earlier steps, and a target at the gateway or a signed URL.
    fn check(&self) -> Result<(), String> {
        if http::Method::from_bytes(self.method.as_bytes()).is_err() {
            return Err("the method is none".to_owned());
        }
        if !self.target.starts_with('/') && !self.target.starts_with("${") {
            return Err("the target is no path and no signed URL of an earlier step".to_owned());
        }
        let mut wrong = None;
        self.each_text(|text| {
            if let Err(found) = names::check(text, self.step) {
                wrong.get_or_insert(found);
            }
        });
        wrong.map_or(Ok(()), Err)
    }

    fn each_text(&self, mut text: impl FnMut(&str)) {
        text(&self.target);
        self.headers.iter().for_each(|(_, value)| text(value));
        match &self.body {
            Body::Json(body) => names::each_leaf(body, &mut |_, leaf| text(leaf)),
            Body::Form(pairs) => pairs.iter().for_each(|(_, value)| text(value)),
            Body::Empty | Body::Content(_) | Body::Bytes(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;

//! One JSON line per decision. A line is built from names and codes; there is no way to put a token, key or plaintext into
//! it by accident, because it takes no `Debug`.

use std::io::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::policy::Ask;
use crate::port::Fault;
use crate::problem::{Code, Problem};

/// A line on its way to the log.
#[derive(Clone, Debug)]
#[must_use = "a line that is not emitted is a decision nobody sees"]
pub struct Line(Vec<(&'static str, Told)>);

/// The value of a member: as it will stand in the line, or still to be quoted.
#[derive(Clone, Debug)]
enum Told {
    Text(String),
    Json(String),
}

/// The longest text of a line, in characters.
const LONGEST: usize = 256;

impl Line {
    /// A line of `function` about `event` (an action such as `files:create`, or a happening such as `genesis`).
    pub fn new(function: &'static str, event: &'static str) -> Self {
        Self(Vec::with_capacity(24)).text("level", "INFO").text("function", function).text("event", event)
    }

    /// The request it belongs to.
    pub fn request(self, id: &str) -> Self {
        self.text("request_id", id)
    }

    /// Who, by the verified token's tenant, subject and id.
    pub fn who(self, tenant: &str, subject: &str, jti: &str) -> Self {
        self.text("tenant", tenant).text("subject", subject).text("jti", jti)
    }

    /// `allow`, `deny` or `fault`, and the reason code.
    pub fn decision(self, decision: &'static str, reason: &str) -> Self {
        self.text("decision", decision).text("reason", reason)
    }

    /// Any further name or code. The value is cut at 256 characters.
    pub fn text(self, name: &'static str, value: &str) -> Self {
        let end = value.char_indices().nth(LONGEST).map_or(value.len(), |(end, _)| end);
        self.put(name, Told::Text(value.get(..end).unwrap_or_default().to_owned()))
    }

    /// Names or codes of ours, all of them: a list that were cut would hide what somebody put behind enough of the rest. The
    /// caller bounds how many there can be.
    pub fn list(self, name: &'static str, values: impl IntoIterator<Item = String>) -> Self {
        self.json(name, &values.into_iter().collect::<Vec<_>>())
    }

    /// The question that policy was asked, so that it can be asked again of another bundle. Names, scopes, the address and the device
    /// are in it, and no credential: there is none in a question.
    pub fn ask(self, ask: &Ask) -> Self {
        self.json("ask", ask)
    }

    /// A count, size or duration.
    pub fn number(self, name: &'static str, value: i64) -> Self {
        self.json(name, &value)
    }

    /// Makes metrics of numbers, in CloudWatch's embedded metric format: `(name, unit, value)`, namespace `Portcullis`, by function.
    pub fn metrics(self, at: Timestamp, metrics: &[(&'static str, &'static str, i64)]) -> Self {
        let named: Vec<Value> = metrics.iter().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
        let directive = json!([{ "Namespace": "Portcullis", "Dimensions": [["function"]], "Metrics": named }]);
        let line = self.json("_aws", &json!({ "Timestamp": at.millis(), "CloudWatchMetrics": directive }));
        metrics.iter().fold(line, |line, (name, _, value)| line.number(name, *value))
    }

    /// A fault with its chain of causes, at level `ERROR`. The one place where a cause is printed.
    pub fn fault(self, fault: &Fault) -> Self {
        let mut text = fault.to_string();
        let mut cause = std::error::Error::source(fault);
        while let Some(source) = cause {
            text.push_str(": ");
            text.push_str(&source.to_string());
            cause = source.source();
        }
        self.text("level", "ERROR").text("fault", &text)
    }

    /// The line's JSON text.
    pub fn render(&self) -> String {
        let mut out = Vec::with_capacity(2_048);
        out.push(b'{');
        for (at, (name, told)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            // Names and texts as JSON cannot fail to be written to memory.
            let _ = serde_json::to_writer(&mut out, name);
            out.push(b':');
            match told {
                Told::Text(text) => drop(serde_json::to_writer(&mut out, text)),
                Told::Json(json) => out.extend_from_slice(json.as_bytes()),
            }
        }
        out.push(b'}');
        String::from_utf8(out).unwrap_or_default()
    }

    /// Writes the line to standard output, which Lambda carries to the log group.
    pub fn emit(self) {
        let mut line = self.render();
        line.push('\n');
        // A log that cannot be written must not fail the decision.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    }

    fn json(self, name: &'static str, value: &impl Serialize) -> Self {
        self.put(name, Told::Json(serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())))
    }

    /// A member that is there already keeps its place.
    fn put(mut self, name: &'static str, told: Told) -> Self {
        match self.0.iter_mut().find(|(held, _)| *held == name) {
            Some((_, held)) => *held = told,
            None => self.0.push((name, told)),
        }
        self
    }
}

/// Why a request gets nothing, and the fault behind it where there is one.
#[derive(Debug)]
pub struct Refusal {
    code: Code,
    fault: Option<Fault>,
}

impl Refusal {
    /// A fault of what we depend on, with the code that it has for callers.
    pub fn fault(fault: Fault) -> Self {
        Self { code: Problem::from(&fault).code, fault: Some(fault) }
    }

    /// A fault of what gives signing sessions.
    pub fn signer(fault: Fault) -> Self {
        Self { code: Code::SignerUnavailable, fault: Some(fault) }
    }

    /// Ends the line of the decision, and says to the caller what he may know of it.
    pub fn told(self, line: Line) -> Problem {
        match self.fault {
            None => line.decision("deny", self.code.as_str()).emit(),
            Some(fault) => line.decision("fault", self.code.as_str()).fault(&fault).emit(),
        }
        self.code.into()
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, fault: None }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        problem.code.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_is_put_in() {
        let line = Line::new("token", "issue").text("client_id", "a\nb\"}").number("items", 3).render();
        assert!(!line.contains('\n'));
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((back["client_id"].as_str(), back["items"].as_i64()), (Some("a\nb\"}"), Some(3)));
    }

    #[test]
    fn a_member_that_is_said_again_stands_once() {
        let line =
            Line::new("f", "e").decision("allow", "policy").text("level", "ERROR").decision("fault", "policy_error");
        let text = line.number("n", 1).number("n", 2).render();
        assert_eq!(
            text,
            r#"{"level":"ERROR","function":"f","event":"e","decision":"fault","reason":"policy_error","n":2}"#
        );
    }

    #[test]
    fn metrics_are_numbers_that_the_directive_names() {
        let at = Timestamp::from_millis(1_234);
        let line = Line::new("trust", "signing").metrics(at, &[("SigningKeyAge", "Seconds", 7)]).render();
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&back["SigningKeyAge"], &back["function"]), (&json!(7), &json!("trust")));
        assert_eq!(
            back["_aws"],
            json!({ "Timestamp": 1_234, "CloudWatchMetrics": [{ "Namespace": "Portcullis", "Dimensions": [["function"]],
                "Metrics": [{ "Name": "SigningKeyAge", "Unit": "Seconds" }] }] })
        );
    }

    #[test]
    fn a_text_is_cut_and_a_list_is_not() {
        let names = (0..1_000).map(|n| format!("users.column_{n}"));
        let line = Line::new("f", "e").text("long", &"x".repeat(10_000)).list("columns", names).render();
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["long"].as_str().map(str::len), Some(256));
        let line =
            Line::new("f", "e").text("wide", &"\u{e9}".repeat(300)).text("whole", &"\u{e9}".repeat(256)).render();
        let wide: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(["wide", "whole"].map(|name| wide[name].as_str().unwrap().chars().count()), [256, 256]);
        assert_eq!(back["columns"].as_array().map(Vec::len), Some(1_000));
    }
}

//! One JSON line per decision. A line is built from names and codes; there is no way to put a token, key or plaintext into
//! it by accident, because it takes no `Debug`.

use std::io::Write as _;

use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::policy::Ask;
use crate::port::Fault;

/// A line on its way to the log.
#[derive(Clone, Debug)]
#[must_use = "a line that is not emitted is a decision nobody sees"]
pub struct Line(Map<String, Value>);

impl Line {
    /// A line of `function` about `event` (an action such as `files:create`, or a happening such as `genesis`).
    pub fn new(function: &'static str, event: &'static str) -> Self {
        Self(Map::new()).text("level", "INFO").text("function", function).text("event", event)
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
    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        self.0.insert(name.to_owned(), Value::String(value.chars().take(256).collect()));
        self
    }

    /// Names or codes of ours, all of them: a list that were cut would hide what somebody put behind enough of the rest. The
    /// caller bounds how many there can be.
    pub fn list(mut self, name: &'static str, values: impl IntoIterator<Item = String>) -> Self {
        self.0.insert(name.to_owned(), values.into_iter().collect());
        self
    }

    /// The question that policy was asked, so that it can be asked again of another bundle. Names, scopes, the address and the device
    /// are in it, and no credential: there is none in a question.
    pub fn ask(mut self, ask: &Ask) -> Self {
        self.0.insert("ask".to_owned(), serde_json::to_value(ask).unwrap_or_default());
        self
    }

    /// A count, size or duration.
    pub fn number(mut self, name: &'static str, value: i64) -> Self {
        self.0.insert(name.to_owned(), Value::from(value));
        self
    }

    /// Makes metrics of numbers, in CloudWatch's embedded metric format: `(name, unit, value)`, namespace `Portcullis`, by function.
    pub fn metrics(mut self, at: Timestamp, metrics: &[(&'static str, &'static str, i64)]) -> Self {
        let named: Vec<Value> = metrics.iter().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
        let directive = json!([{ "Namespace": "Portcullis", "Dimensions": [["function"]], "Metrics": named }]);
        self.0.insert("_aws".to_owned(), json!({ "Timestamp": at.millis(), "CloudWatchMetrics": directive }));
        metrics.iter().fold(self, |line, (name, _, value)| line.number(name, *value))
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
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Writes the line to standard output, which Lambda carries to the log group.
    pub fn emit(self) {
        let mut line = self.render();
        line.push('\n');
        // A log that cannot be written must not fail the decision.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
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
        assert_eq!(back["columns"].as_array().map(Vec::len), Some(1_000));
    }
}

//! What may be shown of a request. Everything here was written by whoever sent it, who may be an attacker: of what can hold a secret only
//! the name is kept, and no sign that a terminal or a reader would obey.

use http::HeaderMap;
use serde_json::Value;

/// Longest text, in characters.
const LONGEST: usize = 300;
/// Longest notice, in lines.
const LINES: usize = 60;
/// Segments of a path from here on may be secrets: tokens, tickets, keys. Ids are shorter.
const SECRET: usize = 40;
/// Path parameters whose values are no secrets, in documents of ours.
const PLAIN_PARAMETERS: [&str; 2] = ["id", "proxy"];

/// Header fields whose values are shown.
const OPEN_HEADERS: [&str; 18] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cf-connecting-ip",
    "cf-ipcountry",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "if-none-match",
    "origin",
    "range",
    "sec-fetch-site",
    "user-agent",
    "x-amz-date",
    "x-amz-target",
    "x-forwarded-for",
];
/// How many header fields are kept.
const HEADERS: usize = 40;

/// Members of a function's log lines that are shown.
const SAID: [&str; 20] = [
    "function",
    "event",
    "level",
    "decision",
    "reason",
    "action",
    "policies",
    "policy",
    "tenant",
    "subject",
    "route",
    "object",
    "fault",
    "items",
    "candidate",
    "candidate_reason",
    "operation",
    "status",
    "code",
    "client_id",
];
/// How many lines of a function are kept.
const SAID_LINES: usize = 12;

/// One line, without what a terminal would obey, cut.
pub(crate) fn text(text: &str) -> String {
    let mut kept: String =
        text.chars().take(LONGEST).map(|sign| if obeyed(sign) { '\u{fffd}' } else { sign }).collect();
    if text.chars().nth(LONGEST).is_some() {
        kept.push('…');
    }
    kept
}

/// Some lines of a program of ours, such as a compiler.
pub(super) fn lines(said: &str) -> String {
    let mut lines: Vec<String> = said.lines().take(LINES).map(text).collect();
    if said.lines().nth(LINES).is_some() {
        lines.push("…".to_owned());
    }
    lines.join("\n")
}

/// Control characters, and what turns the direction of writing.
fn obeyed(sign: char) -> bool {
    sign.is_control()
        || matches!(sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A path with the names of its query's parameters. `parameters` are those of the route, by their names.
pub(crate) fn path<'a>(uri: &http::Uri, parameters: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let secret: Vec<(&str, &str)> = parameters.filter(|(name, _)| !PLAIN_PARAMETERS.contains(name)).collect();
    let segments = uri.path().split('/').map(|segment| match secret.iter().find(|(_, value)| *value == segment) {
        Some((name, _)) => format!("{{{name}}}"),
        None => mask(segment),
    });
    let path = segments.collect::<Vec<_>>().join("/");
    let names: Vec<String> = uri.query().map(query_names).unwrap_or_default();
    text(&if names.is_empty() { path } else { format!("{path}?{}", names.join("&")) })
}

/// The names of a query's parameters, in its order. What has no `=` is a value as much as a name.
fn query_names(query: &str) -> Vec<String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).take(16);
    pairs
        .map(|pair| pair.split_once('=').map_or_else(|| "…".to_owned(), |(name, _)| format!("{}=…", mask(name))))
        .collect()
}

fn mask(segment: &str) -> String {
    let length = segment.chars().count();
    if length >= SECRET { format!("‹{length} characters›") } else { segment.to_owned() }
}

/// Values where they hold no secret, `…` elsewhere.
pub(crate) fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let value = |name: &str, value: &[u8]| {
        if OPEN_HEADERS.contains(&name) { text(&String::from_utf8_lossy(value)) } else { "…".to_owned() }
    };
    let fields = headers.iter().take(HEADERS);
    fields.map(|(name, given)| (text(name.as_str()), value(name.as_str(), given.as_bytes()))).collect()
}

/// The lines of a function's log that are lines of ours, and of those the members that are no secrets.
pub(super) fn said(log: &str) -> Vec<Vec<(String, String)>> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let shown = lines.filter_map(|line| {
        let members = line.as_object()?;
        let pick = |name: &&str| Some(((*name).to_owned(), plain(members.get(*name)?)?));
        let picked: Vec<_> = SAID.iter().filter_map(pick).collect();
        (!picked.is_empty()).then_some(picked)
    });
    shown.take(SAID_LINES).collect()
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(said) => Some(text(said)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Array(values) => Some(text(&values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))),
        Value::Null | Value::Object(_) => None,
    }
}

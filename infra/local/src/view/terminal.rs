//! The view in a terminal: one line for each request that has ended.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::broadcast::error::RecvError;

use super::View;
use super::record::{Kind, Seen, member};

/// How the lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Plain,
    /// For people whose terminal has colours.
    Colour,
    /// One JSON object a line, for programs: the request without its headers, as the page gets it, with its parts.
    Json,
}

impl Style {
    /// Colours where standard output is a terminal.
    #[must_use]
    pub fn of_stdout(json: bool) -> Self {
        match (json, std::io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Colour,
            (false, false) => Self::Plain,
        }
    }
}

/// Prints every request that ends from now on, until the task is aborted.
#[must_use]
pub fn print(view: &View, style: Style) -> tokio::task::JoinHandle<()> {
    let mut finished = view.finished();
    tokio::spawn(async move {
        loop {
            let line = match finished.recv().await {
                Ok(seen) => line(&seen, style),
                Err(RecvError::Lagged(missed)) => missing(missed, style),
                Err(RecvError::Closed) => return,
            };
            // On a thread that may wait: a terminal can be stopped (Ctrl-S), and the stack must not stop with it.
            let written = tokio::task::spawn_blocking(move || write(&line)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    })
}

fn write(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush())
}

fn missing(missed: u64, style: Style) -> String {
    match style {
        Style::Json => serde_json::json!({ "missed": missed }).to_string(),
        Style::Plain | Style::Colour => format!("              {missed} requests came too fast to be printed"),
    }
}

/// One line.
#[must_use]
pub fn line(seen: &Arc<Seen>, style: Style) -> String {
    if style == Style::Json {
        let mut whole = Seen::clone(seen);
        whole.headers = Vec::new();
        return serde_json::to_string(&whole).unwrap_or_default();
    }
    let times = seen.times.unwrap_or_default();
    let status = seen.status.unwrap_or_default();
    let split = format!(
        "authorizer {} · function {} · gateway {}",
        ms(times.authorizer),
        ms(times.function),
        ms(times.gateway)
    );
    let faults: Vec<&str> = seen.parts.iter().filter_map(|part| part.fault.as_deref()).collect();
    let mut words = vec![
        clock(seen.at),
        paint(style, of_status(status), &status.to_string()),
        format!("{:<6} {}", seen.method, seen.path),
        decision(seen, style),
    ];
    words.extend(refusal(seen).map(|text| paint(style, "33", &text)));
    words.extend(seen.function.as_ref().map(|name| format!("→ {name}")));
    words.push(paint(style, "2", &format!("{} ms ({split})", ms(times.total))));
    if !faults.is_empty() {
        words.push(paint(style, "35", &format!("fault: {}", faults.join("; "))));
    }
    words.push(paint(style, "2", &seen.id));
    words.retain(|word| !word.is_empty());
    words.join("  ")
}

fn decision(seen: &Seen, style: Style) -> String {
    let Some(verdict) = &seen.verdict else { return String::new() };
    let colour = match verdict.outcome.as_str() {
        "allow" => "32",
        "open" => "36",
        _ => "31",
    };
    let mut text = format!("{} {}", verdict.outcome, verdict.reason);
    if !verdict.policies.is_empty() {
        text.push_str(&format!(" [{}]", verdict.policies.join(" ")));
    }
    if verdict.by != "authorizer" {
        text.push_str(&format!(" by {}", verdict.by));
    }
    paint(style, colour, &text)
}

/// What the function refused, after the gate let the request in.
fn refusal(seen: &Seen) -> Option<String> {
    let line = seen.line_of(Kind::Function)?;
    let decision = member(line, "decision").filter(|decision| *decision != "allow")?;
    Some(format!("function: {decision} {}", member(line, "reason").unwrap_or_default()))
}

fn of_status(status: u16) -> &'static str {
    match status {
        200..400 => "32",
        400..500 => "33",
        _ => "31",
    }
}

fn paint(style: Style, colour: &str, text: &str) -> String {
    if style == Style::Colour { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Microseconds as milliseconds.
fn ms(micros: u64) -> String {
    format!("{}.{}", micros / 1_000, micros % 1_000 / 100)
}

fn clock(at: u64) -> String {
    let form = format_description!("[hour]:[minute]:[second].[subsecond digits:3]");
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000);
    at.ok().and_then(|at| at.format(form).ok()).unwrap_or_default()
}

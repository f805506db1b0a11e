//! The model: what is known of a request, in the form in which the page and the terminal get it.

use std::fmt;

use serde::Serialize;

use super::shown;
use crate::policy::TrailEntry;

/// One request and its way.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// Counts up from 0.
    pub number: u64,
    /// Of the last change.
    #[serde(skip)]
    pub version: u64,
    /// The request id that the client was told.
    pub id: String,
    /// When it came, in milliseconds since the epoch, by the stack's clock.
    pub at: u64,
    /// Where it came in.
    pub door: Door,
    /// The method, or the operation of a service.
    pub method: String,
    /// The path without what may be secret in it; of the query the names.
    pub path: String,
    /// The route as the document names it.
    pub route: Option<String>,
    /// The function that answered, or would have.
    pub function: Option<String>,
    /// The verified client, by tenant and subject.
    pub client: Option<String>,
    /// Header fields: values of those that hold no secret, and the names of the others.
    pub headers: Vec<(String, String)>,
    /// Absent while it is under way.
    pub status: Option<u16>,
    /// What was decided about it, and by whom.
    pub verdict: Option<Verdict>,
    /// Absent while it is under way.
    pub times: Option<Times>,
    /// What happened on its behalf, in the order of the beginnings.
    pub parts: Vec<Part>,
    /// How many parts more there were.
    pub left_out: u32,
}

/// Where a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// The REST API.
    Gateway,
    /// A service's own endpoint: a signed URL, the AWS CLI, a function between two events.
    Service,
    /// A function invoked by an operator, a rule or a schedule.
    Invoke,
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The authorizer.
    Authorizer,
    /// The function, or the application behind the gate.
    Function,
    /// A call to an AWS service.
    Aws,
    /// A statement.
    Database,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `allow`, `deny`, `open` (nobody had to decide) or `fault`.
    pub outcome: String,
    /// Why, as a stable code.
    pub reason: String,
    /// The policies that determined it, by id.
    pub policies: Vec<String>,
    /// `authorizer`, `gateway`, or the function's name.
    pub by: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} by {}", self.outcome, self.reason, self.by)
    }
}

/// Durations in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// From the whole request to the whole answer.
    pub total: u64,
    /// What the authorizer's own process took.
    pub authorizer: u64,
    /// What the function's own process took.
    pub function: u64,
    /// The rest: the stack's own.
    pub gateway: u64,
}

impl Times {
    pub(super) fn of(total: u64, parts: &[Part]) -> Self {
        let own = |kind: Kind| -> u64 {
            let of_kind = parts.iter().filter(|part| part.kind == kind);
            of_kind.filter_map(|part| part.own.or(part.took)).fold(0, u64::saturating_add)
        };
        let (authorizer, function) = (own(Kind::Authorizer), own(Kind::Function));
        Self { total, authorizer, function, gateway: total.saturating_sub(authorizer).saturating_sub(function) }
    }
}

/// A part of a request's way.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// `kms Decrypt`, `api.redeem`, a function's name.
    pub name: String,
    /// The part that caused it, by its place.
    pub within: Option<usize>,
    /// When it began, in microseconds from the beginning of the request.
    pub from: u64,
    /// How long it took, in microseconds; absent while it is under way.
    pub took: Option<u64>,
    /// What a function's process itself took of that.
    pub own: Option<u64>,
    /// Whether a process had to be started.
    pub cold: bool,
    /// Status and code, or SQLSTATE.
    pub outcome: String,
    /// What policy was asked, and said.
    pub judged: Vec<Judged>,
    /// What the function wrote about its decision.
    pub said: Vec<Vec<(String, String)>>,
    /// The fault that was put in its way.
    pub fault: Option<String>,
}

impl Part {
    pub(super) fn new(kind: Kind, name: String, within: Option<usize>, from: u64) -> Self {
        let (took, own, cold, outcome) = (None, None, false, String::new());
        Self { kind, name, within, from, took, own, cold, outcome, judged: Vec::new(), said: Vec::new(), fault: None }
    }
}

/// One decision of IAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The action.
    pub action: String,
    /// The resource's ARN.
    pub resource: String,
    /// The outcome.
    pub allowed: bool,
    /// The statement that decided.
    pub statement: Option<String>,
    /// The statement of the permissions boundary within which it is.
    pub within: Option<String>,
    /// Why.
    pub reason: String,
}

/// Something that belongs to no request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Of its making.
    #[serde(skip)]
    pub version: u64,
    /// Milliseconds since the epoch.
    pub at: u64,
    /// `info` or `error`.
    pub level: &'static str,
    /// Some lines.
    pub text: String,
}

impl Judged {
    pub(crate) fn of(entry: &TrailEntry) -> Self {
        Self {
            action: entry.action.clone(),
            resource: shown::text(&entry.resource),
            allowed: entry.allowed,
            statement: entry.statement.clone(),
            within: entry.within.clone(),
            reason: entry.reason.clone(),
        }
    }
}

impl Seen {
    pub(super) fn new(door: Door, at: u64) -> Self {
        Self {
            number: 0,
            version: 0,
            id: String::new(),
            at,
            door,
            method: String::new(),
            path: String::new(),
            route: None,
            function: None,
            client: None,
            headers: Vec::new(),
            status: None,
            verdict: None,
            times: None,
            parts: Vec::new(),
            left_out: 0,
        }
    }

    /// Without headers and parts.
    pub(super) fn outline(&self) -> Self {
        let (headers, parts) = (Vec::new(), Vec::new());
        let (id, method, path, route) = (self.id.clone(), self.method.clone(), self.path.clone(), self.route.clone());
        let (function, client, verdict) = (self.function.clone(), self.client.clone(), self.verdict.clone());
        let Self { number, version, at, door, status, times, left_out, .. } = *self;
        Self {
            number,
            version,
            id,
            at,
            door,
            method,
            path,
            route,
            function,
            client,
            headers,
            status,
            verdict,
            times,
            parts,
            left_out,
        }
    }

    /// The decision line that a part of this kind wrote last.
    pub(crate) fn line_of(&self, kind: Kind) -> Option<&[(String, String)]> {
        let parts = self.parts.iter().rev().filter(|part| part.kind == kind);
        parts
            .filter_map(|part| part.said.iter().rev().find(|line| member(line, "decision").is_some()))
            .next()
            .map(Vec::as_slice)
    }
}

/// A member of a line.
pub(crate) fn member<'a>(line: &'a [(String, String)], name: &str) -> Option<&'a str> {
    line.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
}

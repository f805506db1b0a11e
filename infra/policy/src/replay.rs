//! A decision log, asked again of another bundle.

use std::collections::BTreeMap;

use cedar::Cedar;
use serde_json::Value;
use shared::policy::{Ask, Loaded};

/// What became of a log.
#[derive(Default, Debug)]
pub struct Replay {
    /// Decisions that were asked again.
    pub asked: usize,
    /// Lines about something else, or with no question in them.
    pub passed_over: usize,
    /// Lines whose question this build cannot read; nobody knows what would become of them.
    pub unreadable: usize,
    /// What would be decided otherwise, with how often it was asked.
    pub changes: BTreeMap<Change, usize>,
}

/// A decision that would be another one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Change {
    /// What was decided, and by which policies or for which reason.
    pub was: String,
    /// What would be.
    pub would: String,
    /// About what: subject and tenant, and the route's action or the audience.
    pub about: String,
}

impl Replay {
    /// Asks one line again. Anything may stand before the line's JSON, as tools that fetch logs put times there.
    pub fn line(&mut self, line: &str, bundle: &Loaded<Cedar>) {
        let json =
            line.find('{').and_then(|at| line.get(at..)).and_then(|json| serde_json::from_str::<Value>(json).ok());
        let Some(line) = json.filter(|line| line.get("event").and_then(Value::as_str) != Some("policy_shadow")) else {
            self.passed_over += 1;
            return;
        };
        let (Some(question), Some(was)) = (line.get("ask"), line.get("decision").and_then(Value::as_str)) else {
            self.passed_over += 1;
            return;
        };
        let Ok(ask) = serde_json::from_value::<Ask>(question.clone()) else {
            self.unreadable += 1;
            return;
        };
        self.asked += 1;
        let decision = bundle.decide(&ask);
        if decision.allows() == (was == "allow") {
            return;
        }
        let effect = if decision.allows() { "allow" } else { "deny" };
        let by = line.get("policies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let by: Vec<&str> = by.iter().filter_map(Value::as_str).collect();
        let change = Change {
            was: format!("{was} [{}]", by.join(" ")),
            would: format!("{effect} {} [{}]", decision.reason.as_str(), decision.policies.join(" ")),
            about: about(&ask),
        };
        *self.changes.entry(change).or_default() += 1;
    }

    /// A table of the changes, the most frequent first, and a last line that sums up.
    pub fn render(&self) -> String {
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
        let mut out: String = changes
            .into_iter()
            .map(|(change, times)| format!("{times:>8}  {} -> {}  {}\n", change.was, change.would, change.about))
            .collect();
        let changed: usize = self.changes.values().sum();
        out.push_str(&format!(
            "{} decisions asked again, {changed} would change; {} other lines, {} unreadable questions\n",
            self.asked, self.passed_over, self.unreadable
        ));
        out
    }
}

fn about(ask: &Ask) -> String {
    let what = match &ask.what {
        shared::policy::What::Invoke(invoke) => format!("{} {} {}", invoke.action, invoke.method, invoke.path),
        shared::policy::What::Mint(mint) => format!("mint {} {}", mint.grant, mint.audience),
    };
    format!("{}/{} {what}", ask.principal.tenant, ask.principal.id)
}

//! Policy documents: strict reading and evaluation.

use serde_json::{Map, Value};

use super::TrustedBy;
use super::condition::{self, Test};
use super::context::Context;
use super::pattern::{self, Template};
use super::role_of;

/// What a statement does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `Allow`
    Allow,
    /// `Deny`
    Deny,
}

/// What one policy says, with the id of the statement that said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Explicitly denied.
    Deny(String),
    /// Allowed, and nothing in this policy denies.
    Allow(String),
    /// Neither.
    Silent,
}

/// A policy that has been read completely.
#[derive(Clone, Debug)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Clone, Debug)]
struct Statement {
    sid: String,
    effect: Effect,
    principals: Principals,
    actions: Vec<String>,
    not_actions: bool,
    resources: Vec<Template>,
    not_resources: bool,
    tests: Vec<Test>,
}

#[derive(Clone, Debug, Default)]
struct Principals {
    anyone: bool,
    aws: Vec<String>,
    services: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Identity,
    Trust,
    Resource,
}

impl Policy {
    /// Reads an identity or session policy: no `Principal`, always a resource.
    ///
    /// # Errors
    /// All faults found.
    pub fn identity(document: &Value) -> Result<Policy, Vec<String>> {
        Policy::read(document, Kind::Identity)
    }

    /// Reads a trust policy: always a `Principal`, no resource.
    ///
    /// # Errors
    /// All faults found.
    pub fn trust(document: &Value) -> Result<Policy, Vec<String>> {
        Policy::read(document, Kind::Trust)
    }

    /// Reads the policy of a key or a bucket: always a `Principal` and a resource.
    ///
    /// # Errors
    /// All faults found.
    pub fn resource(document: &Value) -> Result<Policy, Vec<String>> {
        Policy::read(document, Kind::Resource)
    }

    fn read(document: &Value, kind: Kind) -> Result<Policy, Vec<String>> {
        let mut faults = Vec::new();
        let Some(fields) = document.as_object() else {
            return Err(vec!["the policy is not an object".to_owned()]);
        };
        for name in fields.keys().filter(|name| !["Version", "Id", "Statement"].contains(&name.as_str())) {
            faults.push(format!("unknown element `{name}`"));
        }
        if fields.get("Version").and_then(Value::as_str) != Some("2012-10-17") {
            faults.push("Version must be 2012-10-17".to_owned());
        }
        let raw: Vec<&Value> = match fields.get("Statement") {
            Some(Value::Array(statements)) => statements.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => Vec::new(),
        };
        if raw.is_empty() {
            faults.push("no Statement".to_owned());
        }
        let mut statements: Vec<Statement> = Vec::new();
        for (index, statement) in raw.into_iter().enumerate() {
            let mut found = Vec::new();
            if let Some(statement) = Statement::read(statement, index, kind, &mut found) {
                if statements.iter().any(|other| other.sid == statement.sid) {
                    found.push("Sid used twice".to_owned());
                }
                statements.push(statement);
            }
            faults.extend(found.into_iter().map(|fault| format!("statement {index}: {fault}")));
        }
        if faults.is_empty() { Ok(Policy { statements }) } else { Err(faults) }
    }

    /// What this policy says about an action on a resource.
    pub fn evaluate(&self, action: &str, resource: &str, context: &Context) -> Verdict {
        self.verdict(|statement| {
            statement.covers_action(action) && statement.covers_resource(resource, context) && statement.holds(context)
        })
    }

    /// What this trust policy says about somebody's wish to take the role on.
    pub fn trusts(&self, by: TrustedBy<'_>, action: &str, context: &Context) -> Verdict {
        self.verdict(|statement| {
            statement.covers_action(action) && statement.principals.cover(by) && statement.holds(context)
        })
    }

    /// What this policy of a key or a bucket says about somebody's action on it.
    pub fn evaluate_for(&self, by: TrustedBy<'_>, action: &str, resource: &str, context: &Context) -> Verdict {
        self.verdict(|statement| {
            statement.principals.cover(by)
                && statement.covers_action(action)
                && statement.covers_resource(resource, context)
                && statement.holds(context)
        })
    }

    /// The ids of the statements that allow.
    pub fn allow_statements(&self) -> impl Iterator<Item = &str> {
        self.statements.iter().filter(|statement| statement.effect == Effect::Allow).map(|one| one.sid.as_str())
    }

    fn verdict(&self, matches: impl Fn(&Statement) -> bool) -> Verdict {
        let mut allow = None;
        for statement in self.statements.iter().filter(|statement| matches(statement)) {
            match statement.effect {
                Effect::Deny => return Verdict::Deny(statement.sid.clone()),
                Effect::Allow => {
                    allow.get_or_insert_with(|| statement.sid.clone());
                }
            }
        }
        allow.map_or(Verdict::Silent, Verdict::Allow)
    }
}

impl Statement {
    fn read(statement: &Value, index: usize, kind: Kind, faults: &mut Vec<String>) -> Option<Statement> {
        const ELEMENTS: [&str; 8] =
            ["Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition"];
        let Some(fields) = statement.as_object() else {
            faults.push("not an object".to_owned());
            return None;
        };
        for name in fields.keys().filter(|name| !ELEMENTS.contains(&name.as_str())) {
            faults.push(format!("unknown element `{name}`"));
        }
        let effect = match fields.get("Effect").and_then(Value::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => {
                faults.push("Effect must be Allow or Deny".to_owned());
                Effect::Deny
            }
        };
        let (actions, not_actions) = one_of(fields, "Action", "NotAction", faults);
        for action in actions.iter().filter(|action| *action != "*" && !action.contains(':')) {
            faults.push(format!("`{action}` is no action"));
        }
        let has_resource = fields.contains_key("Resource") || fields.contains_key("NotResource");
        let (resources, not_resources) = match kind {
            Kind::Identity | Kind::Resource => one_of(fields, "Resource", "NotResource", faults),
            Kind::Trust => {
                if has_resource {
                    faults.push("a trust policy has no Resource".to_owned());
                }
                (Vec::new(), false)
            }
        };
        let resources = resources
            .iter()
            .filter_map(|resource| {
                if resource != "*" && resource.splitn(6, ':').count() != 6 {
                    faults.push(format!("`{resource}` is no ARN"));
                }
                Template::parse(resource).map_err(|fault| faults.push(fault)).ok()
            })
            .collect();
        let principals = match (kind, fields.get("Principal")) {
            (Kind::Trust | Kind::Resource, Some(principal)) => Principals::read(principal, faults),
            (Kind::Identity, None) => Principals::default(),
            (Kind::Trust | Kind::Resource, None) => {
                faults.push("this policy needs a Principal".to_owned());
                Principals::default()
            }
            (Kind::Identity, Some(_)) => {
                faults.push("an identity policy has no Principal".to_owned());
                Principals::default()
            }
        };
        let tests = fields.get("Condition").map(|block| condition::parse(block, faults)).unwrap_or_default();
        let sid = match fields.get("Sid") {
            None => format!("statement-{index}"),
            Some(Value::String(sid)) if !sid.is_empty() && sid.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                sid.clone()
            }
            Some(_) => {
                faults.push("Sid must be letters and digits".to_owned());
                return None;
            }
        };
        Some(Statement { sid, effect, principals, actions, not_actions, resources, not_resources, tests })
    }

    fn covers_action(&self, action: &str) -> bool {
        self.not_actions != self.actions.iter().any(|one| pattern::action_matches(one, action))
    }

    fn covers_resource(&self, resource: &str, context: &Context) -> bool {
        let mut covered = false;
        for template in &self.resources {
            let Some(tokens) = template.resolve(context, true) else {
                // A variable without a value makes a NotResource statement not match either.
                if self.not_resources {
                    return false;
                }
                continue;
            };
            covered |= pattern::matches(&tokens, resource);
        }
        self.not_resources != covered
    }

    fn holds(&self, context: &Context) -> bool {
        self.tests.iter().all(|test| test.holds(context))
    }
}

impl Principals {
    fn read(principal: &Value, faults: &mut Vec<String>) -> Principals {
        let mut read = Principals::default();
        match principal {
            Value::String(anyone) if anyone == "*" => read.anyone = true,
            Value::Object(kinds) => {
                for (kind, names) in kinds {
                    let names = texts(names).unwrap_or_default();
                    if names.is_empty() {
                        faults.push(format!("Principal {kind} names nobody"));
                    }
                    match kind.as_str() {
                        "AWS" => {
                            read.anyone |= names.iter().any(|name| name == "*");
                            for name in names.iter().filter(|name| name.contains('*') && *name != "*") {
                                faults.push(format!("`{name}`: no wildcard inside a principal"));
                            }
                            read.aws = names;
                        }
                        "Service" => read.services = names,
                        other => faults.push(format!("unknown principal type `{other}`")),
                    }
                }
            }
            _ => faults.push("Principal is neither `*` nor an object".to_owned()),
        }
        read
    }

    fn cover(&self, by: TrustedBy<'_>) -> bool {
        match by {
            // Anybody is anybody: the services of AWS too.
            TrustedBy::Service(service) => self.anyone || self.services.iter().any(|name| name == service),
            TrustedBy::Named(arn) => self.anyone || self.aws.iter().any(|name| *name == arn || *name == role_of(arn)),
            TrustedBy::Session(arn) => arn.contains(":assumed-role/") && self.aws.iter().any(|name| name == arn),
            TrustedBy::Arn(arn) => {
                let account = arn.split(':').nth(4).unwrap_or_default();
                self.anyone
                    || self.aws.iter().any(|name| {
                        *name == arn
                            || *name == role_of(arn)
                            || (!account.is_empty()
                                && (name == account || *name == format!("arn:aws:iam::{account}:root")))
                    })
            }
        }
    }
}

fn one_of(fields: &Map<String, Value>, name: &str, negated: &str, faults: &mut Vec<String>) -> (Vec<String>, bool) {
    let (value, is_negated) = match (fields.get(name), fields.get(negated)) {
        (Some(value), None) => (value, false),
        (None, Some(value)) => (value, true),
        _ => {
            faults.push(format!("needs either {name} or {negated}"));
            return (Vec::new(), false);
        }
    };
    match texts(value) {
        Some(texts) if !texts.is_empty() => (texts, is_negated),
        _ => {
            faults.push(format!("{name} must be text or a list of texts"));
            (Vec::new(), is_negated)
        }
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(texts) => texts.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

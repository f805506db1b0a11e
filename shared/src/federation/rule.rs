//! Which workload a client is.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::terms::WORKLOADS;
use super::workload::Workload;
use crate::issuer::IssuerKind;
use crate::name::{IssuerId, Malformed};

const BAD: Malformed = Malformed("federation rule");

/// One issuer and the exact values that a workload's assertion must carry: `{"issuer":"github","repository_id":"…",…}`.
///
/// The kind of issuer follows from which values are named. A stored rule also holds what the issuer was called when the rule was
/// made (`iss`): an id that is given to another issuer later takes no client along.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    issuer: IssuerId,
    kind: IssuerKind,
    identity: Option<String>,
    pins: BTreeMap<&'static str, String>,
}

impl Rule {
    /// Reads a rule as an operator writes it. A member that nobody knows is refused, because it may narrow what the others allow;
    /// so is every value that is not exact.
    pub fn parse(entry: &Value) -> Result<Self, Malformed> {
        let members = entry.as_object().ok_or(BAD)?;
        let names = |kind: &IssuerKind| {
            kind.terms().and_then(|terms| terms.required.first()).is_some_and(|first| members.contains_key(first.name))
        };
        let mut kinds = WORKLOADS.into_iter().filter(names);
        let (kind, None) = (kinds.next().ok_or(BAD)?, kinds.next()) else { return Err(BAD) };
        let issuer = members.get("issuer").and_then(Value::as_str).ok_or(BAD)?;
        Ok(Self { issuer: IssuerId::parse(issuer)?, kind, identity: None, pins: pins(kind, members)? })
    }

    /// Reads a rule as a client's row holds it.
    pub fn stored(entry: &Value) -> Result<Self, Malformed> {
        let mut members = entry.as_object().cloned().ok_or(BAD)?;
        let Some(Value::String(identity)) = members.remove("iss") else { return Err(BAD) };
        Ok(Self { identity: Some(identity), ..Self::parse(&Value::Object(members))? })
    }

    /// The kind of its issuer.
    pub fn kind(&self) -> IssuerKind {
        self.kind
    }

    /// As an operator writes it.
    pub fn to_value(&self) -> Value {
        let issuer = ("issuer".to_owned(), Value::String(self.issuer.to_string()));
        let pins = self.pins.iter().map(|(name, value)| ((*name).to_owned(), Value::String(value.clone())));
        Value::Object([issuer].into_iter().chain(pins).collect())
    }

    /// Whether it names this workload. One that was not stored names none.
    pub fn names(&self, workload: &Workload) -> bool {
        self.issuer == workload.issuer
            && self.kind == workload.kind
            && self.identity.as_deref() == Some(workload.identity.as_str())
            && self.pins.iter().all(|(name, value)| workload.selectors.get(name) == Some(value))
    }
}

fn pins(kind: IssuerKind, members: &Map<String, Value>) -> Result<BTreeMap<&'static str, String>, Malformed> {
    let terms = kind.terms().ok_or(BAD)?;
    let mut pins = BTreeMap::new();
    for (name, value) in members.iter().filter(|(name, _)| *name != "issuer") {
        let known = terms.required.iter().chain(terms.optional).find(|selector| selector.name == name).ok_or(BAD)?;
        let value = value.as_str().filter(|value| (known.fits)(value)).ok_or(BAD)?;
        pins.insert(known.name, value.to_owned());
    }
    let complete = terms.required.iter().all(|selector| pins.contains_key(selector.name))
        && (terms.one_of.is_empty() || terms.one_of.iter().any(|name| pins.contains_key(name)));
    if complete { Ok(pins) } else { Err(BAD) }
}

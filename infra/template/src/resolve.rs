//! Intrinsic functions, conditions and references.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    Place, cidr, kind, scalar,
    scan::{At, intrinsic},
};

/// What references resolve to.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) stack: String,
    pub(crate) place: Place,
    pub(crate) parameters: BTreeMap<String, Value>,
    pub(crate) mappings: Map<String, Value>,
    pub(crate) conditions: BTreeMap<String, bool>,
    /// The resources that are made under these conditions, unresolved.
    pub(crate) resources: BTreeMap<String, Declared>,
}

/// One resource that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) kind: String,
    pub(crate) properties: Value,
}

impl Scope {
    /// Evaluates all conditions, which may name each other in any order.
    pub(crate) fn evaluate(&mut self, conditions: &Map<String, Value>, faults: &mut Vec<String>) {
        for name in conditions.keys() {
            self.hold(name, conditions, &mut BTreeSet::new(), faults);
        }
    }

    fn hold(
        &mut self,
        name: &str,
        conditions: &Map<String, Value>,
        trail: &mut BTreeSet<String>,
        faults: &mut Vec<String>,
    ) -> bool {
        if let Some(holds) = self.conditions.get(name) {
            return *holds;
        }
        let at = format!("condition {name}");
        let Some(condition) = conditions.get(name) else {
            faults.push(format!("{at}: not declared"));
            return false;
        };
        if !trail.insert(name.to_owned()) {
            faults.push(format!("{at}: depends on itself"));
            return false;
        }
        let holds = self.test(condition, &at, conditions, trail, faults);
        trail.remove(name);
        self.conditions.insert(name.to_owned(), holds);
        holds
    }

    fn test(
        &mut self,
        condition: &Value,
        at: &str,
        conditions: &Map<String, Value>,
        trail: &mut BTreeSet<String>,
        faults: &mut Vec<String>,
    ) -> bool {
        let fields: Vec<(&str, &Value)> =
            condition.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect();
        match fields.as_slice() {
            [("Condition", Value::String(name))] => self.hold(name, conditions, trail, faults),
            [("Fn::Not", Value::Array(parts))] if parts.len() == 1 => {
                !parts.iter().any(|part| self.test(part, at, conditions, trail, faults))
            }
            [(function @ ("Fn::And" | "Fn::Or"), Value::Array(parts))] if (2..=10).contains(&parts.len()) => {
                // Every part is looked at, so that all faults are told.
                let held: Vec<bool> = parts.iter().map(|part| self.test(part, at, conditions, trail, faults)).collect();
                if *function == "Fn::And" { held.iter().all(|one| *one) } else { held.iter().any(|one| *one) }
            }
            [("Fn::Equals", Value::Array(parts))] => match parts.as_slice() {
                [left, right] => {
                    let (left, right) = (self.resolve(left, at, faults), self.resolve(right, at, faults));
                    let text = |value: &Option<Value>| value.as_ref().and_then(scalar);
                    match (text(&left), text(&right)) {
                        (Some(left), Some(right)) => left == right,
                        _ => left == right,
                    }
                }
                _ => {
                    faults.push(format!("{at}: Fn::Equals needs two values"));
                    false
                }
            },
            [("Fn::Contains", Value::Array(parts))] => match parts.as_slice() {
                [list, item] => {
                    let (list, item) = (self.resolve(list, at, faults), self.resolve(item, at, faults));
                    list.as_ref()
                        .and_then(Value::as_array)
                        .is_some_and(|list| list.iter().any(|one| item.as_ref() == Some(one)))
                }
                _ => {
                    faults.push(format!("{at}: Fn::Contains needs a list and a value"));
                    false
                }
            },
            _ => {
                faults.push(format!("{at}: `{condition}` is no condition"));
                false
            }
        }
    }

    /// Holds the template's own rules on its parameters against the values.
    pub(crate) fn rules(
        &mut self,
        rules: &Map<String, Value>,
        conditions: &Map<String, Value>,
        faults: &mut Vec<String>,
    ) {
        for (name, rule) in rules {
            let at = format!("rule {name}");
            for unknown in rule.as_object().into_iter().flat_map(Map::keys) {
                if !["RuleCondition", "Assertions"].contains(&unknown.as_str()) {
                    faults.push(format!("{at}: unknown attribute `{unknown}`"));
                }
            }
            let trail = &mut BTreeSet::new();
            let applies = rule.get("RuleCondition").is_none_or(|one| self.test(one, &at, conditions, trail, faults));
            for assertion in rule.get("Assertions").and_then(Value::as_array).into_iter().flatten() {
                let assert = assertion.get("Assert").cloned().unwrap_or_default();
                if self.test(&assert, &at, conditions, trail, faults) || !applies {
                    continue;
                }
                let text = assertion.get("AssertDescription").and_then(Value::as_str).unwrap_or("does not hold");
                faults.push(format!("{at}: {text}"));
            }
        }
    }

    /// The value with all intrinsics resolved; `None` where it is `AWS::NoValue`.
    pub(crate) fn resolve(&self, value: &Value, at: &str, faults: &mut Vec<String>) -> Option<Value> {
        Resolver { scope: self, faults, visited: BTreeSet::new() }.resolve(value, At::Top(at))
    }

    /// What `Ref` gives for a resource.
    pub(crate) fn reference(&self, id: &str, faults: &mut Vec<String>) -> Option<String> {
        Resolver { scope: self, faults, visited: BTreeSet::new() }.resource(id, At::Top(id))
    }

    /// What `Fn::GetAtt` gives for a resource.
    pub(crate) fn attribute(&self, id: &str, attribute: &str, faults: &mut Vec<String>) -> Option<Value> {
        Resolver { scope: self, faults, visited: BTreeSet::new() }.attribute(id, attribute, At::Top(id))
    }
}

struct Resolver<'a> {
    scope: &'a Scope,
    faults: &'a mut Vec<String>,
    /// The resources whose names are being looked up, so that a circle is a fault and not a hang.
    visited: BTreeSet<String>,
}

impl Resolver<'_> {
    fn resolve(&mut self, value: &Value, at: At<'_>) -> Option<Value> {
        match value {
            Value::Object(fields) => match intrinsic(fields) {
                Some((function, argument)) if fields.len() == 1 => self.call(function, argument, at),
                Some((function, _)) => self.fault(at, &format!("`{function}` beside other keys")),
                None => {
                    let mut object = Map::new();
                    for (name, field) in fields {
                        if let Some(field) = self.resolve(field, At::Key(&at, name)) {
                            object.insert(name.clone(), field);
                        }
                    }
                    Some(Value::Object(object))
                }
            },
            Value::Array(items) => {
                let items = items.iter().enumerate();
                Some(Value::Array(items.filter_map(|(i, item)| self.resolve(item, At::Item(&at, i))).collect()))
            }
            other => Some(other.clone()),
        }
    }

    fn call(&mut self, function: &str, argument: &Value, at: At<'_>) -> Option<Value> {
        let parts = argument.as_array().map(Vec::as_slice).unwrap_or_default();
        match (function, argument) {
            ("Ref", Value::String(name)) if name == "AWS::NoValue" => None,
            ("Ref", Value::String(name)) => self.named(name, at),
            ("Fn::GetAtt", Value::String(text)) if text.contains('.') => {
                let (id, attribute) = text.split_once('.')?;
                self.attribute(id, attribute, at)
            }
            ("Fn::GetAtt", Value::Array(_)) => match parts {
                [Value::String(id), Value::String(attribute)] => self.attribute(id, attribute, at),
                _ => self.fault(at, "Fn::GetAtt needs a resource and an attribute"),
            },
            ("Fn::Sub", Value::String(text)) => self.substitute(text, &Map::new(), at),
            ("Fn::Sub", _) => match parts {
                [Value::String(text), Value::Object(names)] => self.substitute(text, names, at),
                _ => self.fault(at, "Fn::Sub needs a text and its names"),
            },
            ("Fn::Join", _) => match parts {
                [Value::String(between), items] => match self.texts(items, at) {
                    Some(items) => Some(Value::String(items.join(between))),
                    None => self.fault(at, "Fn::Join needs texts"),
                },
                _ => self.fault(at, "Fn::Join needs a separator and a list"),
            },
            ("Fn::Split", _) => match parts {
                [Value::String(between), text] if !between.is_empty() => {
                    let text = self.resolve(text, at)?;
                    let Some(text) = text.as_str() else { return self.fault(at, "Fn::Split needs a text") };
                    Some(text.split(between.as_str()).map(Value::from).collect())
                }
                _ => self.fault(at, "Fn::Split needs a separator and a text"),
            },
            ("Fn::Select", _) => match parts {
                [index, items] => {
                    let index = self.resolve(index, at).as_ref().and_then(scalar);
                    let items = self.resolve(items, at)?;
                    let index = index.and_then(|index| index.parse::<usize>().ok());
                    match index.and_then(|index| items.as_array()?.get(index)) {
                        Some(item) => Some(item.clone()),
                        None => self.fault(at, "Fn::Select has no such item"),
                    }
                }
                _ => self.fault(at, "Fn::Select needs an index and a list"),
            },
            ("Fn::If", _) => match parts {
                [Value::String(condition), then, otherwise] => match self.scope.conditions.get(condition) {
                    Some(true) => self.resolve(then, at),
                    Some(false) => self.resolve(otherwise, at),
                    None => self.fault(at, &format!("unknown condition `{condition}`")),
                },
                _ => self.fault(at, "Fn::If needs a condition and two values"),
            },
            ("Fn::Cidr", _) => {
                let texts: Vec<Option<String>> =
                    parts.iter().map(|part| self.resolve(part, at).as_ref().and_then(scalar)).collect();
                let slices = match texts.as_slice() {
                    [Some(block), Some(count), Some(bits)] => match (count.parse(), bits.parse()) {
                        (Ok(count), Ok(bits)) => cidr::slices(block, count, bits),
                        _ => None,
                    },
                    _ => None,
                };
                match slices {
                    Some(slices) => Some(slices.into_iter().map(Value::from).collect()),
                    None => self.fault(at, "Fn::Cidr needs a block, a count and host bits that fit into it"),
                }
            }
            ("Fn::FindInMap", _) => {
                let keys: Vec<String> =
                    parts.iter().filter_map(|part| self.resolve(part, at).as_ref().and_then(scalar)).collect();
                let found = match keys.as_slice() {
                    [map, first, second] => self.scope.mappings.get(map).and_then(|map| map.get(first)?.get(second)),
                    _ => None,
                };
                match found {
                    Some(found) => Some(found.clone()),
                    None => self.fault(at, "Fn::FindInMap finds nothing"),
                }
            }
            ("Fn::GetAZs", _) => {
                let region = self.resolve(argument, at).as_ref().and_then(scalar).unwrap_or_default();
                if !region.is_empty() && region != self.scope.place.region {
                    return self.fault(at, "Fn::GetAZs of another region");
                }
                Some(
                    ["a", "b", "c"]
                        .iter()
                        .map(|zone| Value::from(format!("{}{zone}", self.scope.place.region)))
                        .collect(),
                )
            }
            (other, _) => self.fault(at, &format!("unknown intrinsic `{other}`")),
        }
    }

    fn named(&mut self, name: &str, at: At<'_>) -> Option<Value> {
        let scope = self.scope;
        if let Some(value) = scope.parameters.get(name) {
            return Some(value.clone());
        }
        let place = &scope.place;
        Some(Value::from(match name {
            "AWS::AccountId" => place.account.clone(),
            "AWS::Region" => place.region.clone(),
            "AWS::Partition" => place.partition.clone(),
            "AWS::URLSuffix" => "amazonaws.com".to_owned(),
            "AWS::StackName" => format!("portcullis-{}-{}", scope.environment(), scope.stack),
            "AWS::StackId" => format!("<{}.AWS::StackId>", scope.stack),
            _ => return self.resource(name, at).map(Value::String),
        }))
    }

    /// What `Ref` gives.
    fn resource(&mut self, id: &str, at: At<'_>) -> Option<String> {
        let known = self.known(id, at)?;
        // A deployed resource's id is known; a name of our choosing stays what the template says.
        match self.scope.place.physical.get(&(self.scope.stack.clone(), id.to_owned())) {
            Some(physical) => Some(physical.clone()),
            None => self.form(known.reference, id, "", at),
        }
    }

    fn attribute(&mut self, id: &str, attribute: &str, at: At<'_>) -> Option<Value> {
        let known = self.known(id, at)?;
        let Some((_, form)) = known.attributes.iter().find(|(name, _)| *name == attribute) else {
            return self.fault(at, &format!("unknown attribute `{id}.{attribute}`"));
        };
        match form.strip_prefix('[').and_then(|form| form.strip_suffix(']')) {
            Some(form) => Some(Value::Array(vec![self.form(form, id, attribute, at)?.into()])),
            None => self.form(form, id, attribute, at).map(Value::String),
        }
    }

    fn known(&mut self, id: &str, at: At<'_>) -> Option<&'static kind::Kind> {
        let Some(resource) = self.scope.resources.get(id) else {
            self.fault(at, &format!("`{id}` is no parameter and no resource that is made here"));
            return None;
        };
        // An unknown type is told where it stands.
        kind::kind(&resource.kind)
    }

    /// Fills in a form of [`kind::Kind`].
    fn form(&mut self, form: &str, id: &str, attribute: &str, at: At<'_>) -> Option<String> {
        let (mut result, mut rest) = (String::new(), form);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}')?;
            result.push_str(before);
            rest = tail;
            let place = &self.scope.place;
            let filled = match name {
                "p" => place.partition.clone(),
                "r" => place.region.clone(),
                "a" => place.account.clone(),
                "symbol" => self.symbol(id, attribute),
                "ref" => self.resource(id, at)?,
                "name" => self.physical_name(id, at)?,
                property => self.property(id, property, at)?,
            };
            result.push_str(&filled);
        }
        result.push_str(rest);
        Some(result)
    }

    fn symbol(&self, id: &str, attribute: &str) -> String {
        let dot = if attribute.is_empty() { "" } else { "." };
        format!("<{}.{id}{dot}{attribute}>", self.scope.stack)
    }

    /// The name the template gives, else a stand-in.
    fn physical_name(&mut self, id: &str, at: At<'_>) -> Option<String> {
        let name = self.scope.resources.get(id).and_then(|one| kind::kind(&one.kind)).and_then(|kind| kind.name);
        match name {
            Some(name) if self.declared(id, name).is_some() => self.property(id, name, at),
            _ => Some(self.symbol(id, "")),
        }
    }

    fn declared(&self, id: &str, property: &str) -> Option<&Value> {
        self.scope.resources.get(id)?.properties.get(property)
    }

    fn property(&mut self, id: &str, property: &str, at: At<'_>) -> Option<String> {
        let scope = self.scope;
        let Some(value) = scope.resources.get(id).and_then(|one| one.properties.get(property)) else {
            return Some(self.symbol(id, property));
        };
        let visit = format!("{id}.{property}");
        if !self.visited.insert(visit.clone()) {
            self.fault(at, &format!("`{id}` names itself"));
            return None;
        }
        let value = self.resolve(value, at);
        self.visited.remove(&visit);
        match value.as_ref().and_then(scalar) {
            // A function is named by its name or its ARN.
            Some(text) if text.starts_with("arn:") => text.rsplit(':').next().map(str::to_owned),
            Some(text) => Some(text),
            None if value.is_none() => Some(self.symbol(id, property)),
            None => {
                self.fault(at, &format!("{property} of `{id}` is no text"));
                None
            }
        }
    }

    fn substitute(&mut self, text: &str, names: &Map<String, Value>, at: At<'_>) -> Option<Value> {
        let (mut result, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            result.push_str(before);
            let Some((name, tail)) = after.split_once('}') else { return self.fault(at, "Fn::Sub: `${` without end") };
            rest = tail;
            if let Some(literal) = name.strip_prefix('!') {
                result.push_str(&format!("${{{literal}}}"));
                continue;
            }
            let value = match (names.get(name), name.split_once('.')) {
                (Some(value), _) => self.resolve(value, at),
                (None, Some((id, attribute))) => self.attribute(id, attribute, at),
                (None, None) => self.named(name, at),
            };
            match value.as_ref().map(scalar) {
                Some(Some(value)) => result.push_str(&value),
                Some(None) => return self.fault(at, &format!("Fn::Sub: `{name}` is no text")),
                None => return None,
            }
        }
        result.push_str(rest);
        Some(Value::String(result))
    }

    fn texts(&mut self, items: &Value, at: At<'_>) -> Option<Vec<String>> {
        self.resolve(items, at)?.as_array()?.iter().map(scalar).collect()
    }

    fn fault(&mut self, at: At<'_>, fault: &str) -> Option<Value> {
        self.faults.push(format!("{at}: {fault}"));
        None
    }
}

impl Scope {
    /// The name of the deployment.
    pub(crate) fn environment(&self) -> String {
        self.parameters.get("Env").and_then(scalar).unwrap_or_default()
    }
}

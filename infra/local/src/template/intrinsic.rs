//! Intrinsic functions, conditions and references.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::scalar;

/// What references resolve to.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    parameters: BTreeMap<String, String>,
    conditions: BTreeMap<String, bool>,
    resources: BTreeMap<String, Resource>,
    account: String,
    region: String,
}

/// One resource that is to be made.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    kind: String,
    properties: Value,
}

impl Resource {
    /// Its type.
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// Its properties, unresolved.
    pub(super) fn properties(&self) -> &Value {
        &self.properties
    }

    /// The property that is its physical name, which is what `Ref` gives.
    fn name_property(&self) -> Option<&'static str> {
        Some(match self.kind.as_str() {
            "AWS::Lambda::Function" => "FunctionName",
            "AWS::IAM::Role" => "RoleName",
            "AWS::Events::Rule" => "Name",
            "AWS::Logs::LogGroup" => "LogGroupName",
            _ => return None,
        })
    }
}

impl Scope {
    /// Evaluates the conditions and keeps the resources whose condition holds.
    pub(super) fn new(
        parameters: BTreeMap<String, String>,
        conditions: &Map<String, Value>,
        resources: &Map<String, Value>,
        account: &str,
        region: &str,
        faults: &mut Vec<String>,
    ) -> Scope {
        let mut scope = Scope {
            parameters,
            conditions: BTreeMap::new(),
            resources: BTreeMap::new(),
            account: account.to_owned(),
            region: region.to_owned(),
        };
        for (name, condition) in conditions {
            let at = format!("condition {name}");
            let holds = match condition.as_object().map(|object| object.iter().collect::<Vec<_>>()).as_deref() {
                Some([(function, Value::Array(sides))]) if *function == "Fn::Equals" && sides.len() == 2 => {
                    let sides: Vec<_> = sides.iter().map(|side| scope.resolve(side, &at, faults)).collect();
                    sides.first() == sides.last()
                }
                _ => {
                    faults.push(format!("{at}: only Fn::Equals of two values"));
                    false
                }
            };
            scope.conditions.insert(name.clone(), holds);
        }
        for (id, resource) in resources {
            let fields = resource.as_object();
            for unknown in fields.into_iter().flat_map(Map::keys) {
                if !["Type", "Properties", "Condition", "DependsOn"].contains(&unknown.as_str()) {
                    faults.push(format!("{id}: unknown attribute `{unknown}`"));
                }
            }
            if let Some(condition) = resource.get("Condition") {
                match condition.as_str().and_then(|name| scope.conditions.get(name)) {
                    None => faults.push(format!("{id}: unknown condition")),
                    Some(false) => continue,
                    Some(true) => {}
                }
            }
            let kind = resource.get("Type").and_then(Value::as_str).unwrap_or_default().to_owned();
            let properties = resource.get("Properties").cloned().unwrap_or_else(|| Value::Object(Map::new()));
            scope.resources.insert(id.clone(), Resource { kind, properties });
        }
        scope
    }

    /// A parameter's value.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// A resource that is to be made.
    pub(super) fn resource(&self, id: &str) -> Option<&Resource> {
        self.resources.get(id)
    }

    /// A regional ARN of this account.
    pub(super) fn arn(&self, service: &str, rest: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{rest}", self.region, self.account)
    }

    /// A role's ARN.
    pub(super) fn role_arn(&self, name: &str) -> String {
        format!("arn:aws:iam::{}:role/{name}", self.account)
    }

    /// The value with all intrinsics resolved; `None` where it is `AWS::NoValue`.
    pub(super) fn resolve(&self, value: &Value, at: &str, faults: &mut Vec<String>) -> Option<Value> {
        Resolver { scope: self, faults, visited: BTreeSet::new() }.resolve(value, at)
    }
}

struct Resolver<'a> {
    scope: &'a Scope,
    faults: &'a mut Vec<String>,
    /// The resources whose names are being looked up, so that a circle is a fault and not a hang.
    visited: BTreeSet<String>,
}

impl Resolver<'_> {
    fn resolve(&mut self, value: &Value, at: &str) -> Option<Value> {
        match value {
            Value::Object(fields) => match intrinsic(fields) {
                Some((function, argument)) if fields.len() == 1 => self.call(function, argument, at),
                Some((function, _)) => self.fault(at, &format!("`{function}` beside other keys")),
                None => {
                    let mut object = Map::new();
                    for (name, field) in fields {
                        if let Some(field) = self.resolve(field, &format!("{at}/{name}")) {
                            object.insert(name.clone(), field);
                        }
                    }
                    Some(Value::Object(object))
                }
            },
            Value::Array(items) => {
                let items = items.iter().enumerate();
                Some(Value::Array(items.filter_map(|(i, item)| self.resolve(item, &format!("{at}/{i}"))).collect()))
            }
            other => Some(other.clone()),
        }
    }

    fn call(&mut self, function: &str, argument: &Value, at: &str) -> Option<Value> {
        match (function, argument) {
            ("Ref", Value::String(name)) => self.reference(name, at),
            ("Fn::GetAtt", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(id), Value::String(attribute)] => self.attribute(id, attribute, at).map(Value::String),
                _ => self.fault(at, "Fn::GetAtt needs a resource and an attribute"),
            },
            ("Fn::Sub", Value::String(text)) => self.substitute(text, &Map::new(), at),
            ("Fn::Sub", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(text), Value::Object(names)] => self.substitute(text, names, at),
                _ => self.fault(at, "Fn::Sub needs a text and its names"),
            },
            ("Fn::Join", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(between), items] => {
                    let Some(items) = self.texts(items, at) else { return self.fault(at, "Fn::Join needs texts") };
                    Some(Value::String(items.join(between)))
                }
                _ => self.fault(at, "Fn::Join needs a separator and a list"),
            },
            ("Fn::Split", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(between), text] if !between.is_empty() => {
                    let text = self.resolve(text, at)?;
                    let Some(text) = text.as_str() else { return self.fault(at, "Fn::Split needs a text") };
                    Some(text.split(between.as_str()).map(Value::from).collect())
                }
                _ => self.fault(at, "Fn::Split needs a separator and a text"),
            },
            ("Fn::Select", Value::Array(parts)) => match parts.as_slice() {
                [index, items] => {
                    let index = scalar(index).and_then(|index| index.parse::<usize>().ok());
                    let items = self.resolve(items, at)?;
                    match index.and_then(|index| items.as_array()?.get(index)) {
                        Some(item) => Some(item.clone()),
                        None => self.fault(at, "Fn::Select has no such item"),
                    }
                }
                _ => self.fault(at, "Fn::Select needs an index and a list"),
            },
            ("Fn::If", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(condition), then, otherwise] => match self.scope.conditions.get(condition) {
                    Some(true) => self.resolve(then, at),
                    Some(false) => self.resolve(otherwise, at),
                    None => self.fault(at, &format!("unknown condition `{condition}`")),
                },
                _ => self.fault(at, "Fn::If needs a condition and two values"),
            },
            (other, _) => self.fault(at, &format!("unknown intrinsic `{other}`")),
        }
    }

    fn reference(&mut self, name: &str, at: &str) -> Option<Value> {
        if name == "AWS::NoValue" {
            return None;
        }
        let resolved = self.named(name, at);
        resolved.map(Value::String)
    }

    fn named(&mut self, name: &str, at: &str) -> Option<String> {
        if let Some(value) = self.pseudo(name) {
            return Some(value);
        }
        if let Some(value) = self.scope.parameters.get(name) {
            return Some(value.clone());
        }
        self.physical_name(name, at)
    }

    fn pseudo(&self, name: &str) -> Option<String> {
        Some(match name {
            "AWS::AccountId" => self.scope.account.clone(),
            "AWS::Region" => self.scope.region.clone(),
            "AWS::Partition" => "aws".to_owned(),
            "AWS::URLSuffix" => "amazonaws.com".to_owned(),
            _ => return None,
        })
    }

    fn attribute(&mut self, id: &str, attribute: &str, at: &str) -> Option<String> {
        let name = self.physical_name(id, at)?;
        let kind = self.scope.resources.get(id).map(|resource| resource.kind.as_str()).unwrap_or_default();
        match (kind, attribute) {
            ("AWS::Lambda::Function", "Arn") => Some(self.scope.arn("lambda", &format!("function:{name}"))),
            ("AWS::IAM::Role", "Arn") => Some(self.scope.role_arn(&name)),
            ("AWS::Events::Rule", "Arn") => Some(self.scope.arn("events", &format!("rule/{name}"))),
            ("AWS::Logs::LogGroup", "Arn") => Some(self.scope.arn("logs", &format!("log-group:{name}:*"))),
            _ => {
                self.fault(at, &format!("unknown attribute `{id}.{attribute}`"));
                None
            }
        }
    }

    fn physical_name(&mut self, id: &str, at: &str) -> Option<String> {
        let scope = self.scope;
        let property = scope.resources.get(id).and_then(Resource::name_property);
        let name = property.and_then(|property| scope.resources.get(id)?.properties.get(property));
        let Some(name) = name else {
            self.fault(at, &format!("`{id}` is no parameter and no resource with a name"));
            return None;
        };
        if !self.visited.insert(id.to_owned()) {
            self.fault(at, &format!("`{id}` names itself"));
            return None;
        }
        let name = self.resolve(name, at);
        self.visited.remove(id);
        match name {
            Some(Value::String(name)) => Some(name),
            _ => {
                self.fault(at, &format!("the name of `{id}` is no text"));
                None
            }
        }
    }

    fn substitute(&mut self, text: &str, names: &Map<String, Value>, at: &str) -> Option<Value> {
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
                (Some(value), _) => self.resolve(value, at).as_ref().and_then(scalar),
                (None, Some((id, attribute))) => self.attribute(id, attribute, at),
                (None, None) => self.named(name, at),
            };
            result.push_str(&value?);
        }
        result.push_str(rest);
        Some(Value::String(result))
    }

    fn texts(&mut self, items: &Value, at: &str) -> Option<Vec<String>> {
        self.resolve(items, at)?.as_array()?.iter().map(scalar).collect()
    }

    fn fault(&mut self, at: &str, fault: &str) -> Option<Value> {
        self.faults.push(format!("{at}: {fault}"));
        None
    }
}

fn intrinsic(fields: &Map<String, Value>) -> Option<(&str, &Value)> {
    fields
        .iter()
        .find(|(name, _)| name.starts_with("Fn::") || *name == "Ref")
        .map(|(name, argument)| (name.as_str(), argument))
}

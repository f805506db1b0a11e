//! Templates as they are deployed: function files merged, the API document inlined, snapshots named by what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use template::{Documents, scalar};

use crate::artifact::{Artifact, sha256};
use crate::layout::{self, Stack};

/// Digits of a digest in a logical id.
const DIGITS: usize = 12;

/// A template that is ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Which stack it is of.
    pub stack: Stack,
    /// The template.
    pub document: Value,
}

/// What snapshots are of: programs by binary, and the parameters that go into functions and API.
#[derive(Clone, Debug, Default)]
pub struct Snapshot<'s> {
    /// Digests of programs, by binary; functions whose program is unknown keep their plain names.
    pub programs: BTreeMap<String, String>,
    /// Parameters as they will be deployed.
    pub parameters: Option<&'s BTreeMap<String, String>>,
}

impl Rendered {
    /// Names the snapshots by what they hold.
    ///
    /// `AWS::Lambda::Version` and `AWS::ApiGateway::Deployment` are made once for each logical id, so an id that stays
    /// leaves the alias on old code and the stage on old routes. A version holds its function's configuration as well as
    /// its code, and configuration holds parameters: all three are in its name. A deployment holds the whole API.
    ///
    /// # Errors
    /// A version of no function of this template, or one that would vanish when its name changes.
    #[must_use = "the template is not changed in place"]
    pub fn snapshot(&self, of: &Snapshot<'_>) -> Result<Self, Vec<String>> {
        let mut names = BTreeMap::new();
        let mut faults = Vec::new();
        let resources = self.resources();
        for (id, resource) in resources {
            match kind(resource) {
                "AWS::Lambda::Version" => {
                    let function = referenced(resource, "FunctionName");
                    let Some((function, properties)) =
                        function.and_then(|name| Some((name, resources.get(name)?.get("Properties")?)))
                    else {
                        faults.push(format!("{id}: FunctionName refers to no function of this template"));
                        continue;
                    };
                    if resource.get("DeletionPolicy").and_then(Value::as_str) != Some("Retain") {
                        faults.push(format!("{id}: without DeletionPolicy Retain there is no version to roll back to"));
                    }
                    let Some(program) = binary(properties).and_then(|binary| of.programs.get(&binary)) else {
                        continue;
                    };
                    let held = format!("{function}\n{program}\n{properties}\n{}", self.values(properties, of));
                    names.insert(id.clone(), suffixed(id, &held));
                }
                "AWS::ApiGateway::Deployment" => {
                    let held: BTreeMap<_, _> = resources.iter().filter(|(_, one)| is_held(kind(one))).collect();
                    let held = serde_json::to_value(held).unwrap_or_default();
                    names.insert(id.clone(), suffixed(id, &format!("{held}\n{}", self.values(&held, of))));
                }
                _ => {}
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut document = renamed(&self.document, &names);
        if let Some(resources) = document.get_mut("Resources").and_then(Value::as_object_mut) {
            for resource in resources.values_mut() {
                place_code(resource, &of.programs);
            }
        }
        Ok(Self { stack: self.stack, document })
    }

    /// The resources.
    pub fn resources(&self) -> &Map<String, Value> {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        self.document.get("Resources").and_then(Value::as_object).unwrap_or(&NONE)
    }

    /// Names of the parameters that it declares, with their defaults.
    pub fn parameters(&self) -> BTreeMap<String, Option<String>> {
        let declared = self.document.get("Parameters").and_then(Value::as_object);
        let default = |declared: &Value| declared.get("Default").and_then(scalar);
        declared.into_iter().flatten().map(|(name, declared)| (name.clone(), default(declared))).collect()
    }

    /// Names of the outputs that it declares.
    pub fn outputs(&self) -> BTreeSet<String> {
        let declared = self.document.get("Outputs").and_then(Value::as_object);
        declared.into_iter().flat_map(Map::keys).cloned().collect()
    }

    /// Binaries that its functions run.
    pub fn binaries(&self) -> BTreeSet<String> {
        let functions = self.resources().values().filter(|resource| kind(resource) == "AWS::Lambda::Function");
        functions.filter_map(|function| binary(function.get("Properties")?)).collect()
    }

    /// Names of its functions after `portcullis-{Env}-`, with the binary that each runs.
    pub fn deployments(&self) -> BTreeMap<String, String> {
        let functions = self.resources().values().filter(|resource| kind(resource) == "AWS::Lambda::Function");
        functions
            .filter_map(|function| {
                let properties = function.get("Properties")?;
                let name = properties.get("FunctionName")?.get("Fn::Sub")?.as_str()?;
                Some((name.strip_prefix("portcullis-${Env}-")?.to_owned(), binary(properties)?))
            })
            .collect()
    }

    /// As JSON, which is YAML too, and the one that everybody reads alike: to CloudFormation, which reads YAML 1.1, a bare `off`
    /// is false.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn text(&self) -> Result<String, Vec<String>> {
        serde_json::to_string_pretty(&self.document).map_err(|error| vec![format!("{}: {error}", self.stack.name)])
    }

    /// As [`Rendered::text`] without blanks: what CloudFormation takes in a request is limited, and the first stack has no
    /// bucket to lie in.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn compact(&self) -> Result<String, Vec<String>> {
        serde_json::to_string(&self.document).map_err(|error| vec![format!("{}: {error}", self.stack.name)])
    }

    /// Values of the parameters that a part of the template reads, through conditions too.
    fn values(&self, part: &Value, of: &Snapshot<'_>) -> String {
        let Some(given) = of.parameters else { return String::new() };
        let conditions = self.document.get("Conditions").cloned().unwrap_or_default();
        let mut names = BTreeSet::new();
        let mut seen = BTreeSet::new();
        names_in(part, &mut names);
        // A condition reads parameters and other conditions, and their names lead to them.
        loop {
            let fresh: Vec<String> = names.difference(&seen).cloned().collect();
            if fresh.is_empty() {
                break;
            }
            for name in fresh {
                if let Some(condition) = conditions.get(&name) {
                    names_in(condition, &mut names);
                }
                seen.insert(name);
            }
        }
        let read = given.iter().filter(|(name, _)| seen.contains(*name));
        read.map(|(name, value)| format!("{name}={value}\n")).collect()
    }
}

/// Reads every template below `infra/aws`, with the function files merged and the API document in its place.
///
/// # Errors
/// All faults found, and stacks that have no template.
pub fn all(folder: &Path) -> Result<Vec<Rendered>, Vec<String>> {
    let documents = Documents::read(folder)?;
    let (mut rendered, mut faults) = (Vec::new(), Vec::new());
    for stack in layout::all() {
        match documents.template(stack.name) {
            Ok(document) => rendered.push(Rendered { stack, document }),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() { Ok(rendered) } else { Err(faults) }
}

/// The functions alone.
///
/// # Errors
/// All faults found.
pub fn functions(folder: &Path) -> Result<Rendered, Vec<String>> {
    let document = Documents::read(folder)?.template(layout::FUNCTIONS.name)?;
    Ok(Rendered { stack: layout::FUNCTIONS, document })
}

/// Writes every template, as it would be deployed with what is built, to a folder.
///
/// # Errors
/// All faults found.
pub fn write(rendered: &[Rendered], programs: &BTreeMap<String, String>, to: &Path) -> Result<(), Vec<String>> {
    let told = |error: std::io::Error| vec![format!("{}: {error}", to.display())];
    fs::create_dir_all(to).map_err(told)?;
    for one in rendered {
        let of = Snapshot { programs: programs.clone(), parameters: None };
        let text = one.snapshot(&of)?.text()?;
        fs::write(to.join(format!("{}.yaml", one.stack.name)), text).map_err(told)?;
    }
    Ok(())
}

/// Where a program lies in the code bucket, below `CodePrefix`.
pub fn code_key(binary: &str, digest: &str) -> String {
    format!("{digest}/{binary}.zip")
}

/// Digests of the programs that are built.
pub fn programs(artifacts: &[Artifact]) -> BTreeMap<String, String> {
    artifacts.iter().map(|artifact| (artifact.binary.clone(), artifact.digest.clone())).collect()
}

fn kind(resource: &Value) -> &str {
    resource.get("Type").and_then(Value::as_str).unwrap_or_default()
}

/// What a deployment of an API is a snapshot of.
fn is_held(kind: &str) -> bool {
    let rest = kind.strip_prefix("AWS::ApiGateway::");
    rest.is_some_and(|rest| {
        matches!(
            rest,
            "RestApi" | "Authorizer" | "GatewayResponse" | "Method" | "Model" | "RequestValidator" | "Resource"
        )
    })
}

fn referenced<'r>(resource: &'r Value, property: &str) -> Option<&'r str> {
    let value = resource.get("Properties")?.get(property)?;
    let attribute = || value.get("Fn::GetAtt")?.get(0)?.as_str();
    value.get("Ref").and_then(Value::as_str).or_else(attribute)
}

/// The binary of a function: the name of its zip.
fn binary(properties: &Value) -> Option<String> {
    let key = properties.get("Code")?.get("S3Key")?;
    let key = key.as_str().or_else(|| key.get("Fn::Sub")?.as_str())?;
    let file = key.rsplit(['/', '}']).next()?;
    Some(file.strip_suffix(".zip")?.to_owned())
}

/// Writes the program's digest into the key of a function's code.
fn place_code(resource: &mut Value, programs: &BTreeMap<String, String>) {
    if kind(resource) != "AWS::Lambda::Function" {
        return;
    }
    let Some(properties) = resource.get_mut("Properties") else { return };
    let Some(binary) = binary(properties) else { return };
    let Some(digest) = programs.get(&binary) else { return };
    let key = properties.get_mut("Code").and_then(|code| code.get_mut("S3Key"));
    let key = key.and_then(|key| if key.is_object() { key.get_mut("Fn::Sub") } else { Some(key) });
    if let Some(Value::String(text)) = key {
        let plain = format!("{binary}.zip");
        if let Some(before) = text.strip_suffix(&plain) {
            *text = format!("{before}{}", code_key(&binary, digest));
        }
    }
}

fn suffixed(id: &str, held: &str) -> String {
    let digest = sha256(held.as_bytes());
    format!("{id}{}", digest.get(..DIGITS).unwrap_or_default())
}

/// The document with logical ids renamed, at their definition and wherever they are referred to.
fn renamed(value: &Value, names: &BTreeMap<String, String>) -> Value {
    let new = |id: &str| names.get(id).cloned();
    match value {
        Value::Object(fields) => {
            let mut out = Map::new();
            for (name, field) in fields {
                let field = match (name.as_str(), field) {
                    ("Ref" | "DependsOn", Value::String(id)) => Value::String(new(id).unwrap_or_else(|| id.clone())),
                    ("DependsOn", Value::Array(ids)) => ids
                        .iter()
                        .map(|id| match id.as_str().and_then(new) {
                            Some(new) => Value::String(new),
                            None => id.clone(),
                        })
                        .collect(),
                    ("Fn::GetAtt", Value::Array(parts)) => {
                        let mut parts = parts.clone();
                        if let Some(first) = parts.first_mut()
                            && let Some(new) = first.as_str().and_then(new)
                        {
                            *first = Value::String(new);
                        }
                        Value::Array(parts)
                    }
                    ("Fn::Sub", Value::String(text)) => Value::String(renamed_text(text, names)),
                    ("Fn::Sub", Value::Array(parts)) => parts
                        .iter()
                        .map(|part| match part {
                            Value::String(text) => Value::String(renamed_text(text, names)),
                            other => renamed(other, names),
                        })
                        .collect(),
                    _ => renamed(field, names),
                };
                let defined = if kind(&field).starts_with("AWS::") { new(name) } else { None };
                out.insert(defined.unwrap_or_else(|| name.clone()), field);
            }
            Value::Object(out)
        }
        Value::Array(items) => items.iter().map(|item| renamed(item, names)).collect(),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => value.clone(),
    }
}

fn renamed_text(text: &str, names: &BTreeMap<String, String>) -> String {
    names.iter().fold(text.to_owned(), |text, (old, new)| {
        text.replace(&format!("${{{old}}}"), &format!("${{{new}}}"))
            .replace(&format!("${{{old}."), &format!("${{{new}."))
    })
}

/// Every name that an intrinsic in `value` could refer to.
fn names_in(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), field) {
                    ("Ref" | "Condition", Value::String(id)) => {
                        names.insert(id.clone());
                    }
                    ("Fn::If", Value::Array(parts)) => {
                        names.extend(parts.first().and_then(Value::as_str).map(str::to_owned));
                    }
                    ("Fn::Sub", Value::String(text)) => substituted(text, names),
                    ("Fn::Sub", Value::Array(parts)) => {
                        parts.first().and_then(Value::as_str).into_iter().for_each(|text| substituted(text, names));
                    }
                    _ => {}
                }
                names_in(field, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names_in(item, names)),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

fn substituted(text: &str, names: &mut BTreeSet<String>) {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else { return };
        names.insert(name.split('.').next().unwrap_or(name).to_owned());
        rest = after;
    }
}

//! The deployed CloudFormation template, read into what the local stack needs of it.
//!
//! Plain templates only: whatever is not understood (section, type, property, intrinsic, reference) is a fault, and all
//! faults are told at once.

mod intrinsic;
mod parameter;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use self::intrinsic::Scope;
use crate::policy::{Policy, TrustedBy, Verdict};

/// What a template deploys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deployment {
    /// Lambda functions.
    pub functions: Vec<FunctionSpec>,
    /// Roles, of functions and of signers.
    pub roles: Vec<RoleSpec>,
    /// EventBridge rules.
    pub rules: Vec<RuleSpec>,
    /// Who may invoke which function from within AWS.
    pub permissions: Vec<PermissionSpec>,
}

/// A Lambda function as the template defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionSpec {
    /// The template's name for it, e.g. `TokenFunction`.
    pub logical_id: String,
    /// `portcullis-{env}-{deployment}`
    pub function_name: String,
    /// `arn:aws:lambda:…:function:{function_name}`
    pub arn: String,
    /// `token`, `data-key-encrypt`, …
    pub deployment: String,
    /// The package whose binary it runs, e.g. `data-key`: the name of its zip.
    pub binary: String,
    /// Its environment variables, resolved.
    pub environment: BTreeMap<String, String>,
    /// The name of its role.
    pub role_name: String,
    /// Seconds.
    pub timeout: u32,
    /// Megabytes.
    pub memory: u32,
    /// Concurrent executions set aside for it, which is also the most it may have.
    pub reserved_concurrency: Option<u32>,
}

/// A role as the template defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleSpec {
    /// The role's name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its inline policies, resolved.
    pub policies: Vec<Value>,
    /// Who may take it on.
    pub trust: Value,
}

/// An EventBridge rule as the template defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// The rule's name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The event pattern, for rules on events.
    pub pattern: Option<Value>,
    /// `rate(1 minute)`, for rules on time.
    pub schedule: Option<String>,
    /// The names of the functions it invokes.
    pub targets: Vec<String>,
    /// The event handed over instead of the matched one.
    pub input: Option<Value>,
}

/// A permission on a function, as its resource policy would state it.
#[derive(Clone, Debug, PartialEq)]
pub struct PermissionSpec {
    /// The function.
    pub function_name: String,
    /// The calling service, e.g. `apigateway.amazonaws.com`.
    pub principal: String,
    /// What may call, with wildcards.
    pub source_arn: String,
}

impl PermissionSpec {
    /// Whether this permission lets `principal`, on behalf of `source`, invoke `function_name`.
    pub fn covers(&self, function_name: &str, principal: &str, source: &str) -> bool {
        self.function_name == function_name
            && self.principal == principal
            && crate::policy::wildcard_matches(&self.source_arn, source)
    }
}

/// A template whose parameters and references are resolved.
#[derive(Clone, Debug)]
pub struct Template {
    scope: Scope,
    deployment: Deployment,
}

/// Reads a template into its deployment.
///
/// # Errors
/// All faults of the template and of the parameters.
pub fn load(
    template: &str,
    parameters: &BTreeMap<String, String>,
    account: &str,
    region: &str,
) -> Result<Deployment, Vec<String>> {
    Template::open(template, parameters, account, region).map(|template| template.deployment)
}

impl Template {
    /// Reads a template and keeps it, so that other documents can be resolved against it.
    ///
    /// # Errors
    /// All faults of the template and of the parameters.
    pub fn open(
        template: &str,
        parameters: &BTreeMap<String, String>,
        account: &str,
        region: &str,
    ) -> Result<Template, Vec<String>> {
        const SECTIONS: [&str; 5] =
            ["AWSTemplateFormatVersion", "Description", "Parameters", "Conditions", "Resources"];
        let document = yaml(template)?;
        let mut faults = Vec::new();
        let empty = Map::new();
        let sections = document.as_object().unwrap_or(&empty);
        for name in sections.keys().filter(|name| !SECTIONS.contains(&name.as_str())) {
            faults.push(format!("unknown section `{name}`"));
        }
        let section = |name: &str| sections.get(name).and_then(Value::as_object).unwrap_or(&empty);
        let values = parameter::values(section("Parameters"), parameters, &mut faults);
        let resources = section("Resources");
        if resources.is_empty() {
            faults.push("no Resources".to_owned());
        }
        let scope = Scope::new(values, section("Conditions"), resources, account, region, &mut faults);
        let deployment = Reader { scope: &scope, faults: &mut faults }.read(resources);
        if faults.is_empty() { Ok(Template { scope, deployment }) } else { Err(faults) }
    }

    /// What the template deploys.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Resolves the intrinsics of another document (the API's) against this template's parameters and resources.
    ///
    /// # Errors
    /// All faults found.
    pub fn resolve(&self, document: &Value) -> Result<Value, Vec<String>> {
        let mut faults = Vec::new();
        let resolved = self.scope.resolve(document, "document", &mut faults);
        match (resolved, faults.is_empty()) {
            (Some(resolved), true) => Ok(resolved),
            (None, true) => Err(vec!["document: resolves to nothing".to_owned()]),
            (_, false) => Err(faults),
        }
    }
}

/// Reads YAML (or JSON) into a JSON value. Tags, the short form of intrinsics among them, are faults; so are duplicate
/// keys and keys that are no text.
///
/// # Errors
/// All faults found.
pub fn yaml(text: &str) -> Result<Value, Vec<String>> {
    let document: serde_yaml_ng::Value =
        serde_yaml_ng::from_str(text).map_err(|error| vec![format!("not YAML: {error}")])?;
    let mut faults = Vec::new();
    let value = plain(document, "", &mut faults);
    if faults.is_empty() { Ok(value) } else { Err(faults) }
}

fn plain(value: serde_yaml_ng::Value, at: &str, faults: &mut Vec<String>) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(float)) => Value::from(float),
            (None, None) => Value::Null,
        },
        Yaml::Sequence(items) => Value::Array(
            items.into_iter().enumerate().map(|(i, item)| plain(item, &format!("{at}/{i}"), faults)).collect(),
        ),
        Yaml::Mapping(fields) => {
            let mut object = Map::new();
            for (name, field) in fields {
                // A status code as a key (`200:`) is what people write in an API document.
                let name = match name {
                    Yaml::String(name) => name,
                    Yaml::Number(number) => number.to_string(),
                    _ => {
                        faults.push(format!("{at}: a key that is no text"));
                        continue;
                    }
                };
                let field = plain(field, &format!("{at}/{name}"), faults);
                object.insert(name, field);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            faults.push(format!("{at}: `{}`: long-form intrinsics only", tagged.tag));
            Value::Null
        }
    }
}

struct Reader<'a> {
    scope: &'a Scope,
    faults: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self, resources: &Map<String, Value>) -> Deployment {
        let mut deployment = Deployment::default();
        for id in resources.keys() {
            let Some((kind, properties)) = self.properties(id) else { continue };
            match kind.as_str() {
                "AWS::Lambda::Function" => deployment.functions.extend(self.function(id, &properties)),
                "AWS::IAM::Role" => deployment.roles.extend(self.role(id, &properties)),
                "AWS::Events::Rule" => deployment.rules.extend(self.rule(id, &properties)),
                "AWS::Lambda::Permission" => deployment.permissions.extend(self.permission(id, &properties)),
                "AWS::Logs::LogGroup" => self.log_group(id, &properties),
                other => self.fault(id, format!("unknown type `{other}`")),
            }
        }
        if self.faults.is_empty() {
            self.check(&mut deployment);
        }
        deployment
    }

    fn properties(&mut self, id: &str) -> Option<(String, Map<String, Value>)> {
        let resource = self.scope.resource(id)?;
        let resolved = self.scope.resolve(resource.properties(), id, self.faults)?;
        let Value::Object(properties) = resolved else {
            self.fault(id, "Properties is no object");
            return None;
        };
        Some((resource.kind().to_owned(), properties))
    }

    fn function(&mut self, id: &str, properties: &Map<String, Value>) -> Option<FunctionSpec> {
        self.only(
            id,
            properties,
            &[
                "FunctionName",
                "Description",
                "Runtime",
                "Handler",
                "Architectures",
                "Code",
                "Role",
                "MemorySize",
                "Timeout",
                "ReservedConcurrentExecutions",
                "LoggingConfig",
                "Environment",
            ],
        );
        if properties.get("Runtime").and_then(Value::as_str) != Some("provided.al2023") {
            self.fault(id, "Runtime must be provided.al2023");
        }
        let function_name = self.text(id, properties, "FunctionName")?;
        let prefix = format!("portcullis-{}-", self.scope.parameter("Env").unwrap_or_default());
        let Some(deployment) = function_name.strip_prefix(&prefix).map(str::to_owned) else {
            self.fault(id, format!("FunctionName must start with `{prefix}`"));
            return None;
        };
        let key = properties.get("Code").and_then(|code| code.get("S3Key")).and_then(Value::as_str).unwrap_or_default();
        let binary = key.rsplit('/').next().and_then(|file| file.strip_suffix(".zip")).unwrap_or_default().to_owned();
        if binary.is_empty() {
            self.fault(id, "Code.S3Key must name a zip");
        }
        let mut environment = BTreeMap::new();
        let variables = properties.get("Environment").and_then(|environment| environment.get("Variables"));
        for (name, value) in variables.and_then(Value::as_object).into_iter().flatten() {
            match scalar(value) {
                Some(text) => {
                    environment.insert(name.clone(), text);
                }
                None => self.fault(id, format!("variable {name} is no text")),
            }
        }
        let role_arn = self.text(id, properties, "Role")?;
        let (timeout, memory) = (self.number(id, properties, "Timeout"), self.number(id, properties, "MemorySize"));
        let reserved_concurrency = match properties.get("ReservedConcurrentExecutions") {
            None => None,
            Some(_) => self.number(id, properties, "ReservedConcurrentExecutions"),
        };
        Some(FunctionSpec {
            logical_id: id.to_owned(),
            arn: self.scope.arn("lambda", &format!("function:{function_name}")),
            function_name,
            deployment,
            binary,
            environment,
            // Replaced by the name when all roles are known.
            role_name: role_arn,
            timeout: timeout?,
            memory: memory?,
            reserved_concurrency,
        })
    }

    fn role(&mut self, id: &str, properties: &Map<String, Value>) -> Option<RoleSpec> {
        self.only(
            id,
            properties,
            &["RoleName", "Description", "AssumeRolePolicyDocument", "Policies", "MaxSessionDuration"],
        );
        let name = self.text(id, properties, "RoleName")?;
        let trust = properties.get("AssumeRolePolicyDocument").cloned().unwrap_or_default();
        if let Err(faults) = Policy::trust(&trust) {
            faults.into_iter().for_each(|fault| self.fault(id, format!("AssumeRolePolicyDocument: {fault}")));
        }
        let mut policies = Vec::new();
        for policy in properties.get("Policies").and_then(Value::as_array).into_iter().flatten() {
            let name = policy.get("PolicyName").and_then(Value::as_str).unwrap_or_default().to_owned();
            let document = policy.get("PolicyDocument").cloned().unwrap_or_default();
            if let Err(faults) = Policy::identity(&document) {
                faults.into_iter().for_each(|fault| self.fault(id, format!("policy `{name}`: {fault}")));
            }
            policies.push(document);
        }
        Some(RoleSpec { arn: self.scope.role_arn(&name), name, policies, trust })
    }

    fn rule(&mut self, id: &str, properties: &Map<String, Value>) -> Option<RuleSpec> {
        self.only(id, properties, &["Name", "Description", "State", "EventPattern", "ScheduleExpression", "Targets"]);
        let name = self.text(id, properties, "Name")?;
        if properties.get("State").and_then(Value::as_str) != Some("ENABLED") {
            self.fault(id, "State must be ENABLED");
        }
        let pattern = properties.get("EventPattern").cloned();
        let schedule = properties.get("ScheduleExpression").and_then(Value::as_str).map(str::to_owned);
        if pattern.is_some() == schedule.is_some() {
            self.fault(id, "needs either EventPattern or ScheduleExpression");
        }
        let (mut targets, mut input) = (Vec::new(), None);
        for target in properties.get("Targets").and_then(Value::as_array).into_iter().flatten() {
            let Some(target) = target.as_object() else { continue };
            self.only(id, target, &["Id", "Arn", "Input"]);
            targets.extend(self.text(id, target, "Arn"));
            if let Some(text) = target.get("Input").and_then(Value::as_str) {
                match serde_json::from_str(text) {
                    Ok(event) => input = Some(event),
                    Err(_) => self.fault(id, "Input is no JSON"),
                }
            }
        }
        if targets.is_empty() {
            self.fault(id, "no Targets");
        }
        let arn = self.scope.arn("events", &format!("rule/{name}"));
        Some(RuleSpec { name, arn, pattern, schedule, targets, input })
    }

    fn permission(&mut self, id: &str, properties: &Map<String, Value>) -> Option<PermissionSpec> {
        self.only(id, properties, &["FunctionName", "Action", "Principal", "SourceArn"]);
        if properties.get("Action").and_then(Value::as_str) != Some("lambda:InvokeFunction") {
            self.fault(id, "Action must be lambda:InvokeFunction");
        }
        Some(PermissionSpec {
            function_name: self.text(id, properties, "FunctionName")?,
            principal: self.text(id, properties, "Principal")?,
            source_arn: self.text(id, properties, "SourceArn")?,
        })
    }

    fn log_group(&mut self, id: &str, properties: &Map<String, Value>) {
        self.only(id, properties, &["LogGroupName", "RetentionInDays"]);
        self.text(id, properties, "LogGroupName");
    }

    /// What one resource says about another.
    fn check(&mut self, deployment: &mut Deployment) {
        let mut names = BTreeSet::new();
        for function in &mut deployment.functions {
            if !names.insert(function.function_name.clone()) {
                self.fault(&function.logical_id, "FunctionName used twice");
            }
            match deployment.roles.iter().find(|role| role.arn == function.role_name) {
                None => self.fault(&function.logical_id, "its role is not in this template"),
                Some(role) => {
                    function.role_name.clone_from(&role.name);
                    if !trusts_lambda(role) {
                        self.fault(&function.logical_id, "its role does not trust lambda.amazonaws.com");
                    }
                }
            }
        }
        for rule in &mut deployment.rules {
            for target in &mut rule.targets {
                match deployment.functions.iter().find(|function| function.arn == *target) {
                    None => self.fault(&rule.name, format!("target `{target}` is no function of this template")),
                    Some(function) => target.clone_from(&function.function_name),
                }
                // EventBridge drops what it may not deliver without telling anybody.
                let allowed = |one: &PermissionSpec| one.covers(target, "events.amazonaws.com", &rule.arn);
                if !deployment.permissions.iter().any(allowed) {
                    self.fault(&rule.name, format!("may not invoke `{target}`"));
                }
            }
        }
        for permission in &deployment.permissions {
            if !names.contains(&permission.function_name) {
                self.fault("permission", format!("`{}` is no function of this template", permission.function_name));
            }
        }
    }

    fn only(&mut self, id: &str, properties: &Map<String, Value>, known: &[&str]) {
        for name in properties.keys().filter(|name| !known.contains(&name.as_str())) {
            self.fault(id, format!("unknown property `{name}`"));
        }
    }

    fn text(&mut self, id: &str, properties: &Map<String, Value>, name: &str) -> Option<String> {
        match properties.get(name).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ => {
                self.fault(id, format!("{name} is missing or no text"));
                None
            }
        }
    }

    fn number(&mut self, id: &str, properties: &Map<String, Value>, name: &str) -> Option<u32> {
        let number = properties.get(name).and_then(scalar).and_then(|text| text.parse().ok());
        if number.is_none() {
            self.fault(id, format!("{name} is missing or no whole number"));
        }
        number
    }

    fn fault(&mut self, id: &str, fault: impl AsRef<str>) {
        self.faults.push(format!("{id}: {}", fault.as_ref()));
    }
}

fn trusts_lambda(role: &RoleSpec) -> bool {
    Policy::trust(&role.trust).is_ok_and(|trust| {
        let verdict = trust.trusts(TrustedBy::Service("lambda.amazonaws.com"), "sts:AssumeRole", &Default::default());
        matches!(verdict, Verdict::Allow(_))
    })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

//! One template, its parameters and references resolved.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    Resource, allowed_types, kind, parameter,
    resolve::{Declared, Scope},
    scalar,
    scan::{At, Names, scan},
};

/// Where templates are deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `aws`
    pub partition: String,
    /// `eu-central-1`
    pub region: String,
    /// Twelve digits.
    pub account: String,
    /// The physical ids of resources that are deployed already, by stack and logical id. All others get stand-ins.
    pub physical: BTreeMap<(String, String), String>,
}

impl Place {
    /// An account and region of the partition `aws` with nothing deployed.
    #[must_use]
    pub fn new(account: &str, region: &str) -> Place {
        Place {
            partition: "aws".to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
            physical: BTreeMap::new(),
        }
    }
}

/// A template whose parameters, conditions and references are resolved.
#[derive(Clone, Debug)]
pub struct Template {
    scope: Scope,
    resources: BTreeMap<String, Resource>,
    outputs: BTreeMap<String, String>,
}

impl Template {
    /// Resolves a template of the stack `stack` (its short name, e.g. `data`) with the `given` parameters.
    ///
    /// # Errors
    /// All faults of the template and of the parameters: an unknown section, type, intrinsic, attribute or name, a
    /// parameter without a value or with one that is not allowed.
    pub fn open(
        stack: &str,
        template: &Value,
        given: &BTreeMap<String, String>,
        place: &Place,
    ) -> Result<Template, Vec<String>> {
        const SECTIONS: [&str; 9] = [
            "AWSTemplateFormatVersion",
            "Description",
            "Metadata",
            "Parameters",
            "Rules",
            "Mappings",
            "Conditions",
            "Resources",
            "Outputs",
        ];
        let mut faults = Vec::new();
        let empty = Map::new();
        let sections = template.as_object().unwrap_or(&empty);
        for name in sections.keys().filter(|name| !SECTIONS.contains(&name.as_str())) {
            faults.push(format!("unknown section `{name}`"));
        }
        let section = |name: &str| sections.get(name).and_then(Value::as_object).unwrap_or(&empty);
        let (parameters, conditions) = (section("Parameters"), section("Conditions"));
        let (resources, outputs) = (section("Resources"), section("Outputs"));
        if resources.is_empty() {
            faults.push("no Resources".to_owned());
        }
        let names = Names { parameters, conditions, resources };
        for (id, value) in resources.iter().chain(outputs) {
            scan(value, &names, At::Top(id), &mut faults);
        }
        let allowed = allowed_types(stack);
        if allowed.is_none() {
            faults.push(format!("no stack is called `{stack}`"));
        }
        for (id, resource) in resources {
            let kind = resource.get("Type").and_then(Value::as_str).unwrap_or_default();
            if kind::kind(kind).is_none() {
                faults.push(format!("{id}: unknown type `{kind}`"));
            } else if allowed.is_some_and(|allowed| !allowed.contains(&kind)) {
                faults.push(format!("{id}: `{kind}` has no place in the stack `{stack}`"));
            }
            for other in depends_on(resource).filter(|other| !resources.contains_key(*other)) {
                faults.push(format!("{id}: DependsOn `{other}`, which is no resource"));
            }
        }
        let no_resources = Names { parameters, conditions, resources: &empty };
        for (name, value) in conditions {
            scan(value, &no_resources, At::Top(&format!("condition {name}")), &mut faults);
        }

        let mut scope = Scope {
            stack: stack.to_owned(),
            place: place.clone(),
            parameters: parameter::values(parameters, given, &mut faults),
            mappings: section("Mappings").clone(),
            conditions: BTreeMap::new(),
            resources: BTreeMap::new(),
        };
        scope.evaluate(conditions, &mut faults);
        scope.rules(section("Rules"), conditions, &mut faults);
        for (id, resource) in resources {
            if made(id, resource, &scope, &mut faults) {
                let kind = resource.get("Type").and_then(Value::as_str).unwrap_or_default().to_owned();
                let properties = resource.get("Properties").cloned().unwrap_or_else(|| Value::Object(Map::new()));
                scope.resources.insert(id.clone(), Declared { kind, properties });
            }
        }
        let mut template = Template { scope, resources: BTreeMap::new(), outputs: BTreeMap::new() };
        for id in template.scope.resources.keys() {
            if let Some(resource) = resources.get(id).and_then(|one| template.resource_of(id, one, &mut faults)) {
                template.resources.insert(id.clone(), resource);
            }
        }
        for (name, output) in outputs {
            if let Some(value) = template.output_of(name, output, &mut faults) {
                template.outputs.insert(name.clone(), value);
            }
        }
        if faults.is_empty() {
            return Ok(template);
        }
        let mut told = BTreeSet::new();
        faults.retain(|fault| told.insert(fault.clone()));
        Err(faults)
    }

    /// Its short name.
    #[must_use]
    pub fn stack(&self) -> &str {
        &self.scope.stack
    }

    /// The resources that are made, by logical id.
    #[must_use]
    pub fn resources(&self) -> &BTreeMap<String, Resource> {
        &self.resources
    }

    /// The outputs by name; lists are joined by commas, as parameters take them.
    #[must_use]
    pub fn outputs(&self) -> &BTreeMap<String, String> {
        &self.outputs
    }

    /// The parameters' values; lists are joined by commas.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, String> {
        self.scope.parameters.iter().map(|(name, value)| (name.clone(), joined(value).unwrap_or_default())).collect()
    }

    /// A parameter's value.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.scope.parameters.get(name).and_then(joined)
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

    fn resource_of(&self, id: &str, resource: &Value, faults: &mut Vec<String>) -> Option<Resource> {
        let declared = self.scope.resources.get(id)?;
        let known = kind::kind(&declared.kind)?;
        let properties = self.scope.resolve(&declared.properties, id, faults)?;
        if !properties.is_object() {
            faults.push(format!("{id}: Properties is no map"));
        }
        let text = |name: &str| resource.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut attributes = BTreeMap::new();
        for (name, _) in known.attributes {
            attributes.insert((*name).to_owned(), self.scope.attribute(id, name, faults)?);
        }
        Some(Resource {
            stack: self.scope.stack.clone(),
            id: id.to_owned(),
            kind: declared.kind.clone(),
            reference: self.scope.reference(id, faults)?,
            attributes,
            properties,
            depends_on: depends_on(resource).map(str::to_owned).collect(),
            condition: text("Condition"),
            deletion_policy: text("DeletionPolicy"),
            update_replace_policy: text("UpdateReplacePolicy"),
        })
    }

    fn output_of(&self, name: &str, output: &Value, faults: &mut Vec<String>) -> Option<String> {
        let at = format!("output {name}");
        for unknown in output.as_object().into_iter().flat_map(Map::keys) {
            if !["Description", "Value", "Condition"].contains(&unknown.as_str()) {
                faults.push(format!("{at}: `{unknown}`: outputs are handed over by name, not exported"));
            }
        }
        if let Some(condition) = output.get("Condition").and_then(Value::as_str) {
            match self.scope.conditions.get(condition) {
                Some(true) => {}
                Some(false) => return None,
                None => faults.push(format!("{at}: unknown condition `{condition}`")),
            }
        }
        let value = self.scope.resolve(output.get("Value")?, &at, faults)?;
        let joined = joined(&value);
        if joined.is_none() {
            faults.push(format!("{at}: no text"));
        }
        joined
    }
}

/// Whether a resource is made under the conditions; its attributes are looked at either way.
fn made(id: &str, resource: &Value, scope: &Scope, faults: &mut Vec<String>) -> bool {
    const ATTRIBUTES: [&str; 8] = [
        "Type",
        "Properties",
        "Condition",
        "DependsOn",
        "DeletionPolicy",
        "UpdateReplacePolicy",
        "UpdatePolicy",
        "Metadata",
    ];
    for unknown in resource.as_object().into_iter().flat_map(Map::keys) {
        if !ATTRIBUTES.contains(&unknown.as_str()) {
            faults.push(format!("{id}: unknown attribute `{unknown}`"));
        }
    }
    match resource.get("Condition") {
        None => true,
        Some(condition) => match condition.as_str().and_then(|name| scope.conditions.get(name)) {
            Some(holds) => *holds,
            None => {
                faults.push(format!("{id}: unknown condition {condition}"));
                false
            }
        },
    }
}

fn depends_on(resource: &Value) -> impl Iterator<Item = &str> {
    let (one, many) = match resource.get("DependsOn") {
        Some(Value::Array(all)) => (None, all.as_slice()),
        one => (one, [].as_slice()),
    };
    one.into_iter().chain(many).map(|name| name.as_str().unwrap_or_default())
}

fn joined(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) => items.iter().map(scalar).collect::<Option<Vec<String>>>().map(|items| items.join(",")),
        other => scalar(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place() -> Place {
        Place::new("123456789012", "eu-central-1")
    }

    fn open(template: &Value, given: &[(&str, &str)]) -> Result<Template, Vec<String>> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Template::open("functions", template, &given, &place())
    }

    #[test]
    fn references_keep_what_is_meant_and_names_are_made_concrete() {
        let template = json!({
            "Parameters": {"Env": {"Type": "String"}, "Groups": {"Type": "CommaDelimitedList", "Default": "a,b"}},
            "Mappings": {"Days": {"logs": {"prod": 90}}},
            "Conditions": {
                "Late": {"Fn::Not": [{"Condition": "Prod"}]},
                "Prod": {"Fn::Or": [{"Fn::Equals": [{"Ref": "Env"}, "prod"]}, {"Condition": "Never"}]},
                "Never": {"Fn::And": [{"Fn::Equals": ["a", "b"]}, {"Fn::Equals": ["a", "a"]}]},
            },
            "Resources": {
                "Function": {"Type": "AWS::Lambda::Function", "Properties": {
                    "FunctionName": {"Fn::Sub": "portcullis-${Env}-token"},
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "VpcConfig": {"SecurityGroupIds": {"Ref": "Groups"}},
                    "Layers": {"Fn::If": ["Prod", {"Ref": "AWS::NoValue"}, ["x"]]},
                    "Blocks": {"Fn::Select": [1, {"Fn::Cidr": ["10.0.0.0/16", 2, 8]}]},
                    "Days": {"Fn::FindInMap": ["Days", "logs", {"Ref": "Env"}]},
                    "Part": {"Fn::Select": [5, {"Fn::Split": [":", {"Fn::GetAtt": ["Queue", "Arn"]}]}]},
                    "Literal": {"Fn::Sub": ["${!kept} ${name}", {"name": {"Fn::Join": ["-", ["a", "b"]]}}]},
                }},
                "Role": {"Type": "AWS::IAM::Role", "Properties": {}},
                "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "q"}},
                "Alias": {"Type": "AWS::Lambda::Alias", "Properties":
                    {"Name": "live", "FunctionName": {"Ref": "Function"}}},
                "Late": {"Type": "AWS::SQS::Queue", "Condition": "Late"},
            },
            "Outputs": {"Alias": {"Value": {"Ref": "Alias"}}, "Late": {"Condition": "Late", "Value": {"Ref": "Late"}}},
        });
        let template = open(&template, &[("Env", "prod")]).unwrap();
        let function = &template.resources()["Function"];
        assert_eq!(function.reference, "portcullis-prod-token");
        let expected = json!({
            "FunctionName": "portcullis-prod-token",
            "Role": "arn:aws:iam::123456789012:role/<functions.Role>",
            "VpcConfig": {"SecurityGroupIds": ["a", "b"]},
            "Blocks": "10.0.1.0/24",
            "Days": 90,
            "Part": "q",
            "Literal": "${kept} a-b",
        });
        assert_eq!(function.properties, expected);
        let alias = "arn:aws:lambda:eu-central-1:123456789012:function:portcullis-prod-token:live";
        assert_eq!(template.outputs().iter().collect::<Vec<_>>(), [(&"Alias".to_owned(), &alias.to_owned())]);
        assert!(!template.resources().contains_key("Late"));
    }

    #[test]
    fn whatever_is_unknown_is_told_at_once_also_in_branches_that_are_not_chosen() {
        let template = json!({
            "Transform": "AWS::Serverless-2016-10-31",
            "Parameters": {"Env": {"Type": "String"}},
            "Conditions": {"Prod": {"Fn::Equals": [{"Ref": "Env"}, "prod"]}, "A": {"Condition": "B"}, "B": {"Condition": "A"}},
            "Resources": {
                "Gateway": {"Type": "AWS::EC2::InternetGateway"},
                "Vpc": {"Type": "AWS::EC2::VPC"},
                "Queue": {"Type": "AWS::SQS::Queue", "Condition": "Nowhere", "Owner": "me", "DependsOn": ["Nothing"]},
                "Role": {"Type": "AWS::IAM::Role", "Properties": {
                    "RoleName": {"Fn::If": ["Prod", "r", {"Fn::ImportValue": "x"}]},
                    "Path": {"Ref": "AWS::Nothing"},
                    "Tags": {"Fn::Sub": "${Missing.Arn} ${Env.Arn}"},
                    "Description": "{{resolve:secretsmanager:x}}",
                    "MaxSessionDuration": {"Fn::GetAtt": ["Rule", "Nothing"]},
                }},
                "Rule": {"Type": "AWS::Events::Rule"},
            },
            "Outputs": {"Out": {"Value": "x", "Export": {"Name": "x"}}},
        });
        let faults = open(&template, &[("Env", "prod"), ("Other", "x")]).unwrap_err();
        for expected in [
            "unknown section `Transform`",
            "Gateway: unknown type",
            "Vpc: `AWS::EC2::VPC` has no place",
            "Queue: unknown condition",
            "Queue: unknown attribute `Owner`",
            "Queue: DependsOn `Nothing`",
            "unknown intrinsic `Fn::ImportValue`",
            "AWS::Nothing",
            "`Missing.Arn`",
            "`Env.Arn`",
            "dynamic reference",
            "unknown attribute `Rule.Nothing`",
            "not exported",
            "parameter Other: not declared",
            "depends on itself",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:#?}");
        }
    }

    #[test]
    fn a_name_that_names_itself_is_a_fault_and_no_hang() {
        let template = json!({"Resources": {
            "A": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::GetAtt": ["B", "QueueName"]}}},
            "B": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::GetAtt": ["A", "QueueName"]}}},
        }});
        assert!(open(&template, &[]).unwrap_err()[0].contains("names itself"));
    }

    #[test]
    fn a_rule_on_parameters_is_held() {
        let template = json!({
            "Parameters": {"A": {"Type": "String"}},
            "Rules": {"Rule": {"RuleCondition": {"Fn::Equals": [{"Ref": "A"}, "x"]},
                "Assertions": [{"Assert": {"Fn::Contains": [["y"], {"Ref": "A"}]}, "AssertDescription": "must be y"}]}},
            "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}},
        });
        assert_eq!(open(&template, &[("A", "x")]).unwrap_err(), ["rule Rule: must be y"]);
        assert!(open(&template, &[("A", "z")]).is_ok());
    }
}

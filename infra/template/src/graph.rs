//! The resources of all stacks, as they would be deployed together.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Place, scalar};

/// A resource with its properties resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The short name of its stack, e.g. `data`.
    pub stack: String,
    /// Its logical id.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// What `Ref` gives: its name or id, or a stand-in `<stack.LogicalId>` for what exists only after deployment.
    pub reference: String,
    /// What `Fn::GetAtt` gives, by attribute.
    pub attributes: BTreeMap<String, Value>,
    /// Its properties; other resources stand in them by [`Resource::reference`] and by attributes.
    pub properties: Value,
    /// The logical ids it waits for.
    pub depends_on: Vec<String>,
    /// The condition it is made under.
    pub condition: Option<String>,
    /// What becomes of it when it leaves the template.
    pub deletion_policy: Option<String>,
    /// What becomes of it when an update replaces it.
    pub update_replace_policy: Option<String>,
}

impl Resource {
    /// The property at a JSON pointer, e.g. `/VpcConfig/SubnetIds`.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<&Value> {
        self.properties.pointer(pointer).filter(|value| !value.is_null())
    }

    /// The scalar at a JSON pointer as text.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<String> {
        self.get(pointer).and_then(scalar)
    }

    /// The items at a JSON pointer; a scalar counts as a list of one.
    #[must_use]
    pub fn list(&self, pointer: &str) -> Vec<&Value> {
        match self.get(pointer) {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().collect(),
            Some(one) => vec![one],
        }
    }

    /// The texts at a JSON pointer; what is no scalar is left out.
    #[must_use]
    pub fn texts(&self, pointer: &str) -> Vec<String> {
        self.list(pointer).into_iter().filter_map(scalar).collect()
    }

    /// Its ARN, where it has one.
    #[must_use]
    pub fn arn(&self) -> Option<&str> {
        const ARNS: [&str; 7] =
            ["Arn", "TopicArn", "DBInstanceArn", "DBProxyArn", "ServiceArn", "TaskDefinitionArn", "AliasArn"];
        let mut found = ARNS.iter().filter_map(|name| self.attributes.get(*name).and_then(Value::as_str));
        found.next().map(|arn| arn.strip_suffix(":*").unwrap_or(arn))
    }

    /// `stack/LogicalId`, as findings name it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.stack, self.id)
    }
}

/// The resources of all stacks of one deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Where it is deployed.
    pub place: Place,
    /// The name of the deployment.
    pub environment: String,
    /// All resources, in deploy order of the stacks.
    pub resources: Vec<Resource>,
    /// The parameters' values, by stack.
    pub parameters: BTreeMap<String, BTreeMap<String, String>>,
    /// The outputs, by stack.
    pub outputs: BTreeMap<String, BTreeMap<String, String>>,
}

impl Graph {
    /// The resources of one type.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Resource> + 'a {
        self.resources.iter().filter(move |resource| resource.kind == kind)
    }

    /// A resource by stack and logical id.
    #[must_use]
    pub fn resource(&self, stack: &str, id: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.stack == stack && resource.id == id)
    }

    /// The resource a property value means: by what `Ref` gives or by its ARN.
    #[must_use]
    pub fn find(&self, kind: &str, value: &str) -> Option<&Resource> {
        let value = value.strip_suffix(":*").unwrap_or(value);
        let meant = |one: &&Resource| one.kind == kind && (one.reference == value || one.arn() == Some(value));
        self.resources.iter().find(meant)
    }

    /// The value of a parameter in whichever stack declares it; `None` where stacks disagree.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut values = self.parameters.values().filter_map(|values| values.get(name));
        let first = values.next()?;
        values.all(|value| value == first).then_some(first.as_str())
    }

    /// The API document as it is deployed: the body of the one REST API.
    #[must_use]
    pub fn api(&self) -> Option<&Value> {
        self.of_kind("AWS::ApiGateway::RestApi").next().and_then(|api| api.get("/Body"))
    }
}

//! All stacks in the order of their deployment, one's outputs the next one's parameters.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use serde_json::Value;

use crate::{Graph, Place, Template, document};

/// A stack of the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Its short name; the deployed one is `portcullis-{Env}-{name}`.
    pub name: &'static str,
    /// Deployed only when asked for.
    pub optional: bool,
    types: &'static [&'static str],
}

/// The stacks in deploy order. After `api` comes `network` once more, with the id of the API.
pub const STACKS: &[Stack] = &[
    Stack { name: "bootstrap", optional: false, types: BOOTSTRAP },
    Stack { name: "network", optional: false, types: NETWORK },
    Stack { name: "data", optional: false, types: DATA },
    Stack { name: "code-signing", optional: true, types: CODE_SIGNING },
    Stack { name: "malware-scan", optional: true, types: MALWARE_SCAN },
    Stack { name: "dns-firewall", optional: true, types: DNS_FIREWALL },
    Stack { name: "app-link", optional: true, types: APP_LINK },
    Stack { name: "functions", optional: false, types: FUNCTIONS },
    Stack { name: "api", optional: false, types: API },
    Stack { name: "edge", optional: false, types: EDGE },
    Stack { name: "watch", optional: false, types: WATCH },
];

/// The short name of a stack that is no part of the deployment: what somebody who runs an application of his own against the local
/// stack has beside it.
pub const OWN: &str = "own";

const OWN_TYPES: &[&str] = &[
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Role",
    "AWS::KMS::Alias",
    "AWS::KMS::Key",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
];

const BOOTSTRAP: &[&str] = &[
    "AWS::ECR::Repository",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::OIDCProvider",
    "AWS::IAM::Role",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
];
const NETWORK: &[&str] = &[
    "AWS::EC2::EgressOnlyInternetGateway",
    "AWS::EC2::FlowLog",
    "AWS::EC2::PrefixList",
    "AWS::EC2::Route",
    "AWS::EC2::RouteTable",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::Subnet",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPC",
    "AWS::EC2::VPCCidrBlock",
    "AWS::EC2::VPCEndpoint",
    "AWS::IAM::Role",
    "AWS::Logs::LogGroup",
];
const DATA: &[&str] = &[
    "AWS::IAM::Role",
    "AWS::KMS::Alias",
    "AWS::KMS::Key",
    "AWS::Logs::LogGroup",
    "AWS::RDS::DBInstance",
    "AWS::RDS::DBParameterGroup",
    "AWS::RDS::DBProxy",
    "AWS::RDS::DBProxyTargetGroup",
    "AWS::RDS::DBSubnetGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
];
const CODE_SIGNING: &[&str] =
    &["AWS::Lambda::CodeSigningConfig", "AWS::Signer::ProfilePermission", "AWS::Signer::SigningProfile"];
const MALWARE_SCAN: &[&str] = &["AWS::GuardDuty::MalwareProtectionPlan", "AWS::IAM::Role"];
const DNS_FIREWALL: &[&str] = &[
    "AWS::Logs::LogGroup",
    "AWS::Logs::ResourcePolicy",
    "AWS::Route53Resolver::FirewallConfig",
    "AWS::Route53Resolver::FirewallDomainList",
    "AWS::Route53Resolver::FirewallRuleGroup",
    "AWS::Route53Resolver::FirewallRuleGroupAssociation",
    "AWS::Route53Resolver::ResolverQueryLoggingConfig",
    "AWS::Route53Resolver::ResolverQueryLoggingConfigAssociation",
];
const APP_LINK: &[&str] = &["AWS::ApiGatewayV2::VpcLink"];
const FUNCTIONS: &[&str] = &[
    "AWS::Events::Rule",
    "AWS::IAM::Role",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
];
const API: &[&str] = &[
    "AWS::ApiGateway::Account",
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::GatewayResponse",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::IAM::Role",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
];
const EDGE: &[&str] =
    &["AWS::ECS::Cluster", "AWS::ECS::Service", "AWS::ECS::TaskDefinition", "AWS::IAM::Role", "AWS::Logs::LogGroup"];
const WATCH: &[&str] = &[
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::Events::Rule",
    "AWS::KMS::Alias",
    "AWS::KMS::Key",
    "AWS::Logs::MetricFilter",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
];

/// The resource types a stack may hold; `None` for an unknown stack.
#[must_use]
pub fn allowed_types(stack: &str) -> Option<&'static [&'static str]> {
    if stack == OWN {
        return Some(OWN_TYPES);
    }
    STACKS.iter().find(|one| one.name == stack).map(|one| one.types)
}

/// What a deployment is asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Parameters of any stack, by name.
    pub parameters: BTreeMap<String, String>,
    /// The optional stacks that are wanted.
    pub optional: BTreeSet<String>,
}

impl Profile {
    /// Reads a file of `Parameter: value` lines.
    ///
    /// # Errors
    /// All faults found.
    pub fn read(text: &str) -> Result<Profile, Vec<String>> {
        let document = document::yaml(text)?;
        let mut faults = Vec::new();
        let mut parameters = BTreeMap::new();
        for (name, value) in document.as_object().into_iter().flatten() {
            match crate::scalar(value) {
                Some(text) => {
                    parameters.insert(name.clone(), text);
                }
                None => faults.push(format!("{name}: no text")),
            }
        }
        if faults.is_empty() { Ok(Profile { parameters, optional: BTreeSet::new() }) } else { Err(faults) }
    }

    /// The same with other values.
    #[must_use]
    pub fn with(&self, parameters: &[(&str, &str)]) -> Profile {
        let mut profile = self.clone();
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        profile.parameters.extend(parameters);
        profile
    }

    /// The same with an optional stack.
    #[must_use]
    pub fn with_stack(&self, name: &str) -> Profile {
        let mut profile = self.clone();
        profile.optional.insert(name.to_owned());
        profile
    }
}

/// The templates of all stacks and the documents they ask for, unresolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// The templates, by the stack's short name; the functions' files are merged.
    pub stacks: BTreeMap<String, Value>,
    /// What templates ask for by [`document::INLINE`], by file name.
    pub inlined: BTreeMap<String, Value>,
}

impl Documents {
    /// Reads a folder of templates, `infra/aws` or a rendered one. Stacks without a file are left out.
    ///
    /// # Errors
    /// All faults found, each with its file.
    pub fn read(folder: &Path) -> Result<Documents, Vec<String>> {
        let (mut documents, mut faults) = (Documents::default(), Vec::new());
        let mut open = |path: &Path| match read(path) {
            Ok(document) => document,
            Err(more) => {
                faults.extend(more);
                None
            }
        };
        for stack in STACKS {
            let file = format!("{}.yaml", stack.name);
            let paths = [folder.join(&file), folder.join("optional").join(&file)];
            if let Some(template) = paths.iter().find_map(|path| open(path)) {
                documents.stacks.insert(stack.name.to_owned(), template);
            }
        }
        for name in ["openapi.yaml", "app.yaml"] {
            if let Some(document) = open(&folder.join(name)) {
                documents.inlined.insert(name.to_owned(), document);
            }
        }
        let parts = folder.join("functions");
        if let Some(header) = open(&parts.join("_stack.yaml")) {
            match functions(&header, &parts) {
                Ok(template) => {
                    documents.stacks.insert("functions".to_owned(), template);
                }
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() { Ok(documents) } else { Err(faults) }
    }

    /// A stack's template with the documents it asks for in their place.
    ///
    /// # Errors
    /// No such template, or it asks for an unknown document.
    pub fn template(&self, stack: &str) -> Result<Value, Vec<String>> {
        let Some(template) = self.stacks.get(stack) else { return Err(vec![format!("{stack}: no template")]) };
        let mut template = template.clone();
        document::inline(&mut template, &self.inlined)?;
        Ok(template)
    }

    /// Resolves all stacks in deploy order. An output of an earlier stack is the parameter of the same name of every
    /// later one; everything else comes from the profile.
    ///
    /// # Errors
    /// All faults found, each with its stack.
    pub fn graph(&self, profile: &Profile, place: &Place) -> Result<Graph, Vec<String>> {
        self.walk(profile, place, None).map(|(graph, _)| graph)
    }

    /// The same, and keeps what it was made of, for [`Documents::graph_after`].
    ///
    /// # Errors
    /// All faults found, each with its stack.
    pub fn open(&self, profile: &Profile, place: &Place) -> Result<Opened, Vec<String>> {
        self.walk(profile, place, None).map(|(graph, stacks)| Opened { graph, documents: self.clone(), stacks })
    }

    /// The graph again after some change of documents or profile: stacks whose template and parameters are the same as
    /// `before` are taken over.
    ///
    /// # Errors
    /// All faults found, each with its stack.
    pub fn graph_after(&self, before: &Opened, profile: &Profile, place: &Place) -> Result<Graph, Vec<String>> {
        self.walk(profile, place, Some(before)).map(|(graph, _)| graph)
    }

    fn walk(
        &self,
        profile: &Profile,
        place: &Place,
        before: Option<&Opened>,
    ) -> Result<(Graph, Vec<Kept>), Vec<String>> {
        let before = before.filter(|before| before.graph.place == *place);
        let mut walk = Walk {
            documents: self,
            profile,
            place,
            before,
            piped: BTreeMap::new(),
            opened: Vec::new(),
            faults: Vec::new(),
        };
        let mut open: Vec<Arc<Template>> = Vec::new();
        let wanted = |stack: &&Stack| !stack.optional || profile.optional.contains(stack.name);
        for stack in STACKS.iter().filter(wanted) {
            open.extend(walk.open(stack.name));
            if stack.name == "api"
                && let Some(place) = open.iter().position(|one| one.stack() == "network")
                && let Some(again) = walk.open("network")
                && let Some(network) = open.get_mut(place)
            {
                *network = again;
            }
        }
        for unknown in
            profile.optional.iter().filter(|name| !STACKS.iter().any(|one| one.optional && one.name == *name))
        {
            walk.faults.push(format!("no optional stack `{unknown}`"));
        }
        let declared: BTreeSet<&str> = self.stacks.values().flat_map(parameters).collect();
        for name in profile.parameters.keys().filter(|name| !declared.contains(name.as_str())) {
            walk.faults.push(format!("profile: no stack has a parameter {name}"));
        }
        if !walk.faults.is_empty() {
            let mut told = BTreeSet::new();
            walk.faults.retain(|fault| told.insert(fault.clone()));
            return Err(walk.faults);
        }
        let by_stack = |of: fn(&Template) -> BTreeMap<String, String>| {
            open.iter().map(|one| (one.stack().to_owned(), of(one))).collect::<BTreeMap<_, _>>()
        };
        let graph = Graph {
            place: place.clone(),
            environment: profile.parameters.get("Env").cloned().unwrap_or_default(),
            parameters: by_stack(Template::parameters),
            outputs: by_stack(|one| one.outputs().clone()),
            resources: open.iter().flat_map(|one| one.resources().values().cloned()).collect(),
        };
        Ok((graph, walk.opened))
    }
}

/// A stack with the parameters it was given.
type Kept = (BTreeMap<String, String>, Arc<Template>);

/// A deployment's graph with the stacks it was made of.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The graph.
    pub graph: Graph,
    documents: Documents,
    stacks: Vec<Kept>,
}

impl Opened {
    /// The stack as it was opened from the same template with the same parameters.
    fn same(&self, stack: &str, documents: &Documents, given: &BTreeMap<String, String>) -> Option<&Arc<Template>> {
        let template = documents.stacks.get(stack);
        let same = self.documents.stacks.get(stack) == template
            && (stack != "api" || self.documents.inlined == documents.inlined);
        let opened = || self.stacks.iter().find(|(before, one)| one.stack() == stack && before == given);
        if same { opened().map(|(_, template)| template) } else { None }
    }
}

struct Walk<'a> {
    documents: &'a Documents,
    profile: &'a Profile,
    place: &'a Place,
    before: Option<&'a Opened>,
    /// The stacks so far, with the parameters they were given.
    opened: Vec<Kept>,
    /// Outputs so far, with the stack they are from.
    piped: BTreeMap<String, (String, String)>,
    faults: Vec<String>,
}

impl Walk<'_> {
    fn open(&mut self, stack: &str) -> Option<Arc<Template>> {
        let Some(document) = self.documents.stacks.get(stack) else {
            self.faults.push(format!("{stack}: no template"));
            return None;
        };
        let mut given = BTreeMap::new();
        for name in parameters(document) {
            let piped = self.piped.get(name).filter(|(from, _)| from != stack);
            match (piped, self.profile.parameters.get(name)) {
                (Some((from, value)), Some(other)) if value != other => {
                    self.faults.push(format!("{stack}: parameter {name} is given, and an output of {from}"));
                }
                (Some((_, value)), _) => {
                    given.insert(name.to_owned(), value.clone());
                }
                (None, Some(value)) => {
                    given.insert(name.to_owned(), value.clone());
                }
                (None, None) => {}
            }
        }
        let opened = match self.before.and_then(|before| before.same(stack, self.documents, &given)) {
            Some(same) => Ok(Arc::clone(same)),
            None => self
                .documents
                .template(stack)
                .and_then(|template| Template::open(stack, &template, &given, self.place))
                .map(Arc::new),
        };
        match opened {
            Ok(opened) => {
                for (name, value) in opened.outputs() {
                    self.pipe(stack, name, value);
                }
                self.opened.push((given, Arc::clone(&opened)));
                Some(opened)
            }
            Err(faults) => {
                self.faults.extend(faults.into_iter().map(|fault| format!("{stack}: {fault}")));
                // So that later stacks tell their own faults, not this one's again.
                let outputs = document.get("Outputs").and_then(Value::as_object);
                for name in outputs.into_iter().flat_map(serde_json::Map::keys) {
                    self.pipe(stack, name, &format!("<{stack}.Outputs.{name}>"));
                }
                None
            }
        }
    }

    fn pipe(&mut self, stack: &str, name: &str, value: &str) {
        let before = self.piped.insert(name.to_owned(), (stack.to_owned(), value.to_owned()));
        if let Some((other, _)) = before.filter(|(other, _)| other != stack) {
            self.faults.push(format!("{stack}: output {name} is one of {other} too"));
        }
    }
}

fn parameters(template: &Value) -> impl Iterator<Item = &str> {
    template.get("Parameters").and_then(Value::as_object).into_iter().flat_map(|all| all.keys().map(String::as_str))
}

/// A file's document; `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Value>, Vec<String>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(vec![format!("{}: {error}", path.display())]),
    };
    let named = |faults: Vec<String>| faults.into_iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    document::yaml(&text).map(Some).map_err(named)
}

fn functions(header: &Value, folder: &Path) -> Result<Value, Vec<String>> {
    let listing = fs::read_dir(folder).map_err(|error| vec![format!("{}: {error}", folder.display())])?;
    let (mut parts, mut faults) = (BTreeMap::new(), Vec::new());
    for entry in listing.filter_map(Result::ok) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "_stack.yaml" || path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        match read(&path) {
            Ok(Some(part)) => {
                parts.insert(name, part);
            }
            Ok(None) => {}
            Err(more) => faults.extend(more),
        }
    }
    match document::merge(header, &parts) {
        Ok(template) if faults.is_empty() => Ok(template),
        Ok(_) => Err(faults),
        Err(more) => Err(faults.into_iter().chain(more).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn documents() -> Documents {
        let stack = |resources: Value, parameters: Value, outputs: Value| {
            let mut parameters = parameters;
            parameters["Env"] = json!({"Type": "String"});
            json!({"Parameters": parameters, "Resources": resources, "Outputs": outputs})
        };
        let queue = json!({"Queue": {"Type": "AWS::SQS::Queue"}});
        let topic = json!({"Topic": {"Type": "AWS::SNS::Topic"}});
        let role = json!({"Role": {"Type": "AWS::IAM::Role", "Properties": {"Path": {"Ref": "VpcId"}}}});
        let network = json!({
            "Vpc": {"Type": "AWS::EC2::VPC"},
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"Description": {"Ref": "ApiId"}}},
        });
        let api = json!({"Api": {"Type": "AWS::ApiGateway::RestApi", "Properties":
            {"Body": {document::INLINE: "openapi.yaml"}}}});
        let text = || json!({"Type": "String"});
        let stacks = [
            ("bootstrap", stack(json!({"Code": {"Type": "AWS::S3::Bucket"}}), json!({}), json!({}))),
            (
                "network",
                stack(
                    network,
                    json!({"ApiId": {"Type": "String", "Default": "*", "AllowedPattern": "\\*|[a-z0-9]+"}}),
                    json!({"VpcId": {"Value": {"Ref": "Vpc"}}}),
                ),
            ),
            ("data", stack(role, json!({"VpcId": text()}), json!({}))),
            ("functions", stack(queue, json!({}), json!({}))),
            ("api", stack(api, json!({}), json!({"ApiId": {"Value": {"Ref": "Api"}}}))),
            ("edge", stack(json!({"Role": {"Type": "AWS::IAM::Role"}}), json!({}), json!({}))),
            ("watch", stack(topic, json!({"ApiId": text()}), json!({}))),
        ];
        Documents {
            stacks: stacks.into_iter().map(|(name, template)| (name.to_owned(), template)).collect(),
            inlined: BTreeMap::from([("openapi.yaml".to_owned(), json!({"paths": {"/a": {}}}))]),
        }
    }

    fn graph(documents: &Documents, parameters: &[(&str, &str)]) -> Result<Graph, Vec<String>> {
        let profile = Profile::default().with(&[("Env", "prod")]).with(parameters);
        documents.graph(&profile, &Place::new("123456789012", "eu-central-1"))
    }

    #[test]
    fn outputs_are_the_parameters_of_later_stacks_and_the_network_comes_twice() {
        let graph = graph(&documents(), &[]).unwrap();
        assert_eq!(graph.resource("data", "Role").unwrap().text("/Path").unwrap(), "<network.Vpc>");
        assert_eq!(graph.resource("network", "Role").unwrap().text("/Description").unwrap(), "<api.Api>");
        assert_eq!(graph.parameters["watch"]["ApiId"], "<api.Api>");
        assert_eq!(graph.api().unwrap(), &json!({"paths": {"/a": {}}}));
        let order: Vec<&str> = graph.resources.iter().map(|one| one.stack.as_str()).collect();
        assert_eq!(order, ["bootstrap", "network", "network", "data", "functions", "api", "edge", "watch"]);
        assert_eq!(graph.find("AWS::EC2::VPC", "<network.Vpc>").unwrap().id, "Vpc");
    }

    #[test]
    fn an_unknown_parameter_and_one_that_is_piped_too_are_faults() {
        let faults = graph(&documents(), &[("Typo", "x"), ("VpcId", "vpc-1")]).unwrap_err();
        assert!(faults.iter().any(|fault| fault.contains("no stack has a parameter Typo")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("given, and an output of network")), "{faults:?}");
    }

    #[test]
    fn a_fault_of_one_stack_is_told_once_and_the_others_with_it() {
        let mut documents = documents();
        documents.stacks.get_mut("network").unwrap()["Resources"]["Vpc"]["Type"] = json!("AWS::EC2::NatGateway");
        documents.stacks.get_mut("watch").unwrap()["Resources"]["Topic"]["Type"] = json!("AWS::Lambda::Url");
        documents.stacks.remove("edge");
        let faults = graph(&documents, &[]).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:#?}");
    }

    #[test]
    fn no_stack_may_hold_a_type_that_the_reader_does_not_know() {
        for stack in STACKS {
            for kind in stack.types {
                assert!(crate::supported_types().contains(kind), "{}: {kind}", stack.name);
            }
        }
    }

    #[test]
    fn a_profile_is_lines_of_scalars() {
        let profile = Profile::read("Zones: '1'\nDbMode: direct\nDays: 7\n").unwrap();
        assert_eq!(profile.parameters["Days"], "7");
        assert!(Profile::read("Zones: [1]").is_err());
    }
}

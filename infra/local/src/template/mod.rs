//! The deployed CloudFormation templates, read into what the local stack needs of them.
//!
//! Plain templates only: whatever is not understood (section, type, property, intrinsic, reference) is a fault, and all
//! faults are told at once. Parameters and intrinsics are resolved by the package `template`, as for the deployment.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use template::{OWN, Place, Resource, scalar};
use uuid::Uuid;

use crate::gateway::Throttle;
use crate::policy::{Policy, TrustedBy, Verdict};

pub use template::yaml;

/// The project's own templates by path below `infra/aws`, as this program was built with them.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// The template of what holds data: of it the policies of keys and buckets and the object bucket's CORS rules are read.
const DATA: &str = "data.yaml";

/// The template of the network: of it the policies of endpoints are read.
const NETWORK: &str = "network.yaml";

/// The template of what exists before anything is deployed: of it the permissions boundary is read.
const BOOTSTRAP: &str = "bootstrap.yaml";

/// The endpoints by the service that is called through them, and the parameter that names each.
const ENDPOINTS: [(&str, &str); 4] =
    [("kms", "KmsEndpointId"), ("s3", "S3EndpointId"), ("ssm", "SsmEndpointId"), ("sts", "StsEndpointId")];

/// What the templates deploy.
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
    /// The way from the functions to AWS.
    pub network: NetworkSpec,
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
    /// Its aliases.
    pub aliases: Vec<String>,
    /// Whether failed events that nobody waits for are kept.
    pub keeps_failures: bool,
}

impl FunctionSpec {
    /// Whether there is something to invoke under this alias or version; under none there always is.
    pub fn answers_to(&self, qualifier: Option<&str>) -> bool {
        qualifier.is_none_or(|name| name == "$LATEST" || self.aliases.iter().any(|alias| alias == name))
    }
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
    /// The policy beyond which it can do nothing, whatever its own policies say.
    pub boundary: Option<Value>,
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
    /// The functions it invokes, each as `NAME` or `NAME:ALIAS`.
    pub targets: Vec<String>,
    /// The event handed over instead of the matched one.
    pub input: Option<Value>,
}

/// A permission on a function, as its resource policy would state it.
#[derive(Clone, Debug, PartialEq)]
pub struct PermissionSpec {
    /// The function as it must be called, `NAME` or `NAME:ALIAS`.
    pub function_name: String,
    /// The calling service, e.g. `apigateway.amazonaws.com`.
    pub principal: String,
    /// What may call, with wildcards.
    pub source_arn: String,
}

impl PermissionSpec {
    /// Whether this permission lets `principal`, on behalf of `source`, invoke `function_name`. A permission on a function
    /// does not reach its aliases, nor the other way round.
    pub fn covers(&self, function_name: &str, principal: &str, source: &str) -> bool {
        self.function_name == function_name
            && self.principal == principal
            && crate::policy::wildcard_matches(&self.source_arn, source)
    }
}

/// The functions that are attached to the network, and its endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkSpec {
    /// Service (`s3`) → id of the endpoint through which it is called.
    pub endpoints: BTreeMap<String, String>,
    /// The ARNs of the attached functions.
    pub functions: BTreeSet<String>,
}

/// The project's own templates, resolved.
#[derive(Clone, Debug)]
pub struct Template {
    deployment: Deployment,
    document: Value,
    throttles: Vec<Throttle>,
}

/// What a template of somebody's own brings beside the project's: see [`own`].
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Its functions, roles and permissions.
    pub deployment: Deployment,
    /// Its keys.
    pub keys: Vec<KeySpec>,
    /// Alias (`alias/…`) and the id of the key that it names.
    pub aliases: Vec<(String, Uuid)>,
    /// The names of its buckets.
    pub buckets: Vec<String>,
    /// Bucket and lifecycle rules, of those that have some.
    pub lifecycles: Vec<(String, Value)>,
    /// Bucket and policy.
    pub policies: Vec<(String, Value)>,
    /// Its API, if it has one.
    pub api: Option<ApiSpec>,
}

/// A KMS key as a template defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySpec {
    /// The template's name for it.
    pub logical_id: String,
    /// Its id, chosen when the template was read.
    pub id: Uuid,
    /// `SYMMETRIC_DEFAULT`, …
    pub spec: String,
    /// Its policy, resolved.
    pub policy: Value,
}

/// A REST API as a template defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiSpec {
    /// Its OpenAPI document, resolved.
    pub document: Value,
    /// The name of its stage.
    pub stage: String,
    /// The variables of the stage.
    pub variables: BTreeMap<String, String>,
    /// The limits of the stage.
    pub throttles: Vec<Throttle>,
}

/// The id of the API of a template of somebody's own.
pub const OWN_API: &str = "own";

/// Reads a template of somebody's own: roles, functions and who may invoke them, keys, buckets, one API.
///
/// # Errors
/// All faults of the template.
#[expect(clippy::disallowed_methods, reason = "the id of a key of somebody's own")]
pub fn own(template: &str, account: &str, region: &str) -> Result<Own, Vec<String>> {
    let (mut place, template) = (Place::new(account, region), yaml(template)?);
    for (id, resource) in template.get("Resources").and_then(Value::as_object).into_iter().flatten() {
        let physical = match resource.get("Type").and_then(Value::as_str) {
            Some("AWS::KMS::Key") => Uuid::new_v4().to_string(),
            Some("AWS::ApiGateway::RestApi") => OWN_API.to_owned(),
            _ => continue,
        };
        place.physical.insert((OWN.to_owned(), id.clone()), physical);
    }
    let opened = template::Template::open(OWN, &template, &BTreeMap::new(), &place)?;
    let mut reader = Reader::new(account, policies(&opened));
    let (mut own, mut aliases) = (Own::default(), Vec::new());
    let (mut document, mut stage) = (None, None);
    for resource in opened.resources().values() {
        match resource.kind.as_str() {
            "AWS::KMS::Key" => own.keys.extend(reader.key(resource)),
            "AWS::KMS::Alias" => own.aliases.extend(reader.alias(resource)),
            "AWS::S3::Bucket" => {
                let known = ["BucketName", "VersioningConfiguration", "LifecycleConfiguration"];
                reader.only(&resource.id, properties_of(resource), &known);
                own.buckets.push(resource.reference.clone());
                own.lifecycles.extend(lifecycle(resource));
            }
            "AWS::S3::BucketPolicy" => own.policies.extend(reader.bucket_policy(resource)),
            "AWS::ApiGateway::RestApi" => document = resource.get("/Body").cloned(),
            "AWS::ApiGateway::Stage" => stage = Some(reader.stage(resource)),
            "AWS::IAM::ManagedPolicy" => {
                let known = ["ManagedPolicyName", "Description", "PolicyDocument"];
                reader.only(&resource.id, properties_of(resource), &known);
            }
            _ => reader.resource(resource, &mut own.deployment, &mut aliases),
        }
    }
    if reader.faults.is_empty() {
        reader.check(&mut own.deployment);
    }
    own.api = document.zip(stage).map(|(document, stage)| ApiSpec { document, ..stage });
    if reader.faults.is_empty() { Ok(own) } else { Err(reader.faults) }
}

/// Reads one template of the stack `functions` into its deployment.
///
/// # Errors
/// All faults of the template and of the parameters.
pub fn load(
    template: &str,
    parameters: &BTreeMap<String, String>,
    account: &str,
    region: &str,
) -> Result<Deployment, Vec<String>> {
    let (place, template) = (Place::new(account, region), yaml(template)?);
    let given = completed(&template, parameters.clone());
    read(&[&template::Template::open("functions", &template, &given, &place)?], &place)
}

impl Template {
    /// Reads the project's own templates, functions and API. `api_id` is the id that the API would get.
    ///
    /// # Errors
    /// All faults of the templates and of the parameters.
    pub fn deployed(
        parameters: &BTreeMap<String, String>,
        account: &str,
        region: &str,
        api_id: &str,
    ) -> Result<Template, Vec<String>> {
        let mut place = Place::new(account, region);
        place.physical.insert(("api".to_owned(), "Api".to_owned()), api_id.to_owned());
        let (functions, api) = (functions()?, api()?);
        let (mut to_functions, mut to_api) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in parameters {
            let [in_functions, in_api] =
                [&functions, &api].map(|one| one.pointer(&format!("/Parameters/{name}")).is_some());
            if in_api {
                to_api.insert(name.clone(), value.clone());
            }
            if in_functions || !in_api {
                to_functions.insert(name.clone(), value.clone());
            }
        }
        let (to_functions, to_api) = (completed(&functions, to_functions), completed(&api, to_api));
        let functions = template::Template::open("functions", &functions, &to_functions, &place);
        let api = template::Template::open("api", &api, &to_api, &place);
        let (functions, api) = match (functions, api) {
            (Ok(functions), Ok(api)) => (functions, api),
            (functions, api) => return Err([functions.err(), api.err()].into_iter().flatten().flatten().collect()),
        };
        let document = api.resources().get("Api").and_then(|api| api.get("/Body")).cloned();
        let document = document.ok_or_else(|| vec!["the API has no body".to_owned()])?;
        let throttles = match api.resources().get("ApiStage") {
            Some(stage) => limits(stage)?,
            None => return Err(vec!["the API has no stage".to_owned()]),
        };
        Ok(Template { deployment: read(&[&functions, &api], &place)?, document, throttles })
    }

    /// How many calls the API's stage takes.
    pub fn throttles(&self) -> &[Throttle] {
        &self.throttles
    }

    /// What the templates deploy.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The API document as it is deployed.
    pub fn document(&self) -> &Value {
        &self.document
    }
}

/// The functions' template as it is merged for deployment, unresolved.
///
/// # Errors
/// All faults found.
pub fn functions() -> Result<Value, Vec<String>> {
    let (mut header, mut parts) = (Value::Null, BTreeMap::new());
    for (path, text) in FILES {
        match path.strip_prefix("functions/") {
            Some("_stack.yaml") => header = yaml(text)?,
            Some(part) => {
                parts.insert(part.to_owned(), yaml(text)?);
            }
            None => {}
        }
    }
    template::merge(&header, &parts)
}

/// The API's template with its body inlined, unresolved.
///
/// # Errors
/// All faults found.
pub fn api() -> Result<Value, Vec<String>> {
    let (mut api, mut documents) = (Value::Null, BTreeMap::new());
    for (path, text) in FILES.iter().filter(|(path, _)| !path.contains('/')) {
        match *path {
            "api.yaml" => api = yaml(text)?,
            BOOTSTRAP | DATA | NETWORK => {}
            other => {
                documents.insert(other.to_owned(), yaml(text)?);
            }
        }
    }
    template::inline(&mut api, &documents)?;
    Ok(api)
}

/// What the template of the data says of the keys and buckets that there are.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// The policies: of a key by its logical id, of a bucket by its name.
    pub policies: Vec<(String, Value)>,
    /// Alias (`alias/…`) and the logical id of the key that it names.
    pub aliases: Vec<(String, String)>,
    /// Bucket and lifecycle rules.
    pub lifecycles: Vec<(String, Value)>,
}

/// The project's keys and buckets as the template has them, with `ids` for the ids of the keys by logical id.
///
/// # Errors
/// All faults of the template and of the parameters.
pub fn data(
    parameters: &BTreeMap<String, String>,
    ids: &BTreeMap<&str, String>,
    account: &str,
    region: &str,
) -> Result<Data, Vec<String>> {
    let text = FILES.iter().find(|(path, _)| *path == DATA).map(|(_, text)| *text);
    let data = yaml(text.ok_or_else(|| vec![format!("no {DATA}")])?)?;
    let declared = data.get("Parameters").and_then(Value::as_object).unwrap_or(&NOTHING);
    let mut given: BTreeMap<String, String> = parameters.clone();
    given.retain(|name, _| declared.contains_key(name));
    let defaults: BTreeSet<&String> =
        declared.iter().filter(|(_, one)| one.get("Default").is_some()).map(|(name, _)| name).collect();
    let mut all = completed(&data, given.clone());
    // What is optional stays as the template has it, except for the way of the functions to KMS.
    all.retain(|name, _| given.contains_key(name) || !defaults.contains(name) || name == "KmsEndpointId");
    all.entry("DataSubnetIds".to_owned()).and_modify(|one| *one = format!("{one}-a,{one}-b"));
    let mut place = Place::new(account, region);
    for (logical, id) in ids {
        place.physical.insert(("data".to_owned(), (*logical).to_owned()), id.clone());
    }
    let opened = template::Template::open("data", &data, &all, &place)?;
    let mut read = Data::default();
    for resource in opened.resources().values() {
        match resource.kind.as_str() {
            "AWS::KMS::Key" => {
                read.policies.extend(resource.get("/KeyPolicy").map(|policy| (resource.id.clone(), policy.clone())));
            }
            "AWS::KMS::Alias" => {
                let target = resource.text("/TargetKeyId").unwrap_or_default();
                let named = ids.iter().find(|(_, id)| target.rsplit('/').next() == Some(id.as_str()));
                read.aliases.extend(resource.text("/AliasName").zip(named.map(|(logical, _)| (*logical).to_owned())));
            }
            "AWS::S3::Bucket" => read.lifecycles.extend(lifecycle(resource)),
            "AWS::S3::BucketPolicy" => {
                let bucket = resource.text("/Bucket");
                read.policies.extend(bucket.zip(resource.get("/PolicyDocument").cloned()));
            }
            _ => {}
        }
    }
    Ok(read)
}

/// A bucket's name and lifecycle rules, if it has some.
fn lifecycle(bucket: &Resource) -> Option<(String, Value)> {
    Some((bucket.reference.clone(), bucket.get("/LifecycleConfiguration")?.clone()))
}

/// The managed policies of a template, by ARN.
fn policies(template: &template::Template) -> BTreeMap<String, Value> {
    let managed = template.resources().values().filter(|one| one.kind == "AWS::IAM::ManagedPolicy");
    managed.filter_map(|one| Some((one.reference.clone(), one.get("/PolicyDocument")?.clone()))).collect()
}

/// The permissions boundary that the roles of a deployment have, by ARN, under the names that its buckets have.
fn boundary(
    environment: &str,
    buckets: &[(&str, String)],
    place: &Place,
) -> Result<BTreeMap<String, Value>, Vec<String>> {
    let text = FILES.iter().find(|(path, _)| *path == BOOTSTRAP).map(|(_, text)| *text);
    let bootstrap = yaml(text.ok_or_else(|| vec![format!("no {BOOTSTRAP}")])?)?;
    let given = BTreeMap::from([("Env".to_owned(), environment.to_owned())]);
    let opened = template::Template::open("bootstrap", &bootstrap, &given, place)?;
    let Place { account, region, .. } = place;
    let mut policies = BTreeMap::new();
    for (arn, policy) in self::policies(&opened) {
        let named = buckets.iter().fold(policy.to_string(), |text, (which, name)| {
            text.replace(&format!("portcullis-{environment}-{which}-{account}-{region}"), name)
        });
        policies.insert(arn, serde_json::from_str(&named).map_err(|error| vec![error.to_string()])?);
    }
    Ok(policies)
}

/// The limits of a stage, the most exact first, as it looks for them.
fn limits(stage: &Resource) -> Result<Vec<Throttle>, Vec<String>> {
    let (mut throttles, mut faults) = (Vec::new(), Vec::new());
    for limit in stage.list("/MethodSettings") {
        let text = |name: &str| limit.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| {
            let number = limit.get(name).and_then(scalar).and_then(|text| text.parse::<f64>().ok());
            number.filter(|number| number.is_finite() && *number >= 0.0)
        };
        let (Some(rate), Some(burst)) = (number("ThrottlingRateLimit"), number("ThrottlingBurstLimit")) else {
            faults.push(format!("{}: MethodSettings without ThrottlingRateLimit and ThrottlingBurstLimit", stage.id));
            continue;
        };
        // `/` and then the path, whose own slashes are written ~1.
        let path = text("ResourcePath");
        let resource = if path == "/*" { path } else { path.trim_start_matches('/').replace("~1", "/") };
        throttles.push(Throttle { resource, method: text("HttpMethod"), rate, burst });
    }
    throttles.sort_by_key(|limit| (limit.resource == "/*", limit.method == "*"));
    if faults.is_empty() { Ok(throttles) } else { Err(faults) }
}

/// The policies of the project's endpoints as the template has them, by service, with every endpoint there is.
///
/// # Errors
/// All faults of the template and of the parameters.
pub fn endpoint_policies(
    parameters: &BTreeMap<String, String>,
    account: &str,
    region: &str,
) -> Result<Vec<(String, Value)>, Vec<String>> {
    let text = FILES.iter().find(|(path, _)| *path == NETWORK).map(|(_, text)| *text);
    let network = yaml(text.ok_or_else(|| vec![format!("no {NETWORK}")])?)?;
    let declared = network.get("Parameters").and_then(Value::as_object).unwrap_or(&NOTHING);
    let mut given: BTreeMap<String, String> = parameters.clone();
    for (name, value) in
        [("KmsEndpoint", "on"), ("StsEndpoint", "on"), ("SsmEndpoint", "on"), ("S3PrefixListId", "pl-00000000")]
    {
        given.insert(name.to_owned(), value.to_owned());
    }
    given.retain(|name, _| declared.contains_key(name));
    let opened = template::Template::open("network", &network, &given, &Place::new(account, region))?;
    let endpoints = opened.resources().values().filter(|one| one.kind == "AWS::EC2::VPCEndpoint");
    let policies = endpoints.filter_map(|endpoint| {
        let service = endpoint.text("/ServiceName")?.rsplit('.').next()?.to_owned();
        Some((service, endpoint.get("/PolicyDocument")?.clone()))
    });
    Ok(policies.collect())
}

/// The CORS rules of the object bucket as the template has them, for pages of these origins (comma-joined); none without one.
///
/// # Errors
/// When the template does not have them where they are looked for.
pub fn object_bucket_cors(origins: &str) -> Result<Vec<Value>, Vec<String>> {
    let lost = || vec![format!("{DATA}: no CORS rules of the object bucket")];
    let (_, text) = FILES.iter().find(|(path, _)| *path == DATA).ok_or_else(lost)?;
    let data = yaml(text)?;
    let cors = "/Resources/ObjectBucketResource/Properties/CorsConfiguration/Fn::If";
    let [condition, then, otherwise] = data.pointer(cors).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
    else {
        return Err(lost());
    };
    if condition != "HasOrigins" || otherwise.get("Ref").is_none_or(|name| name != "AWS::NoValue") {
        return Err(lost());
    }
    let mut rules = then.get("CorsRules").and_then(Value::as_array).cloned().ok_or_else(lost)?;
    let origins: Vec<&str> = origins.split(',').filter(|origin| !origin.is_empty()).collect();
    for rule in &mut rules {
        let named = rule.get_mut("AllowedOrigins").ok_or_else(lost)?;
        if named.get("Ref").is_none_or(|name| name != "AllowedOrigins") {
            return Err(lost());
        }
        *named = origins.clone().into();
    }
    if origins.is_empty() { Ok(Vec::new()) } else { Ok(rules) }
}

/// The given parameters and made-up ids of whatever belongs to a network, which nothing here has.
fn completed(template: &Value, mut given: BTreeMap<String, String>) -> BTreeMap<String, String> {
    const IDS: [(&str, &str); 3] = [("SecurityGroupId", "sg"), ("SubnetIds", "subnet"), ("EndpointId", "vpce")];
    for name in template.get("Parameters").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        for (suffix, kind) in IDS {
            if let Some(whose) = name.strip_suffix(suffix) {
                given.entry(name.clone()).or_insert_with(|| format!("{kind}-{}", whose.to_lowercase()));
            }
        }
    }
    given
}

fn read(templates: &[&template::Template], place: &Place) -> Result<Deployment, Vec<String>> {
    let mut reader = Reader::new(&place.account, BTreeMap::new());
    let mut deployment = Deployment::default();
    let mut aliases = Vec::new();
    for template in templates {
        let environment = template.parameter("Env").unwrap_or_default();
        let buckets = [("trust", "TrustBucket"), ("objects", "ObjectBucket")];
        let buckets = buckets.map(|(which, name)| Some((which, template.parameter(name)?)));
        let buckets: Vec<(&str, String)> = buckets.into_iter().flatten().collect();
        if !environment.is_empty() {
            reader.policies.extend(boundary(&environment, &buckets, place)?);
        }
        reader.environment = Some(environment);
        for (service, parameter) in ENDPOINTS {
            let id = template.parameter(parameter).filter(|id| !id.is_empty());
            deployment.network.endpoints.extend(id.map(|id| (service.to_owned(), id)));
        }
        for resource in template.resources().values() {
            reader.resource(resource, &mut deployment, &mut aliases);
        }
    }
    for (function, alias) in aliases {
        match deployment.functions.iter_mut().find(|one| one.function_name == function) {
            Some(function) => function.aliases.push(alias),
            None => reader.fault(&alias, format!("an alias of `{function}`, which is no function of this template")),
        }
    }
    if reader.faults.is_empty() {
        reader.check(&mut deployment);
    }
    if reader.faults.is_empty() { Ok(deployment) } else { Err(reader.faults) }
}

struct Reader {
    faults: Vec<String>,
    account: String,
    /// The managed policies that a role may have as its boundary, by ARN.
    policies: BTreeMap<String, Value>,
    /// What the names of the project's own functions begin with; nothing is asked of others.
    environment: Option<String>,
}

static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

fn properties_of(resource: &Resource) -> &Map<String, Value> {
    resource.properties.as_object().unwrap_or(&NOTHING)
}

impl Reader {
    fn new(account: &str, policies: BTreeMap<String, Value>) -> Self {
        Self { faults: Vec::new(), account: account.to_owned(), policies, environment: None }
    }

    fn resource(&mut self, resource: &Resource, deployment: &mut Deployment, aliases: &mut Vec<(String, String)>) {
        let empty = Map::new();
        let (id, properties) = (resource.id.as_str(), resource.properties.as_object().unwrap_or(&empty));
        match resource.kind.as_str() {
            "AWS::Lambda::Function" => {
                let function = self.function(resource, properties);
                let attached = function.as_ref().filter(|_| properties.contains_key("VpcConfig"));
                deployment.network.functions.extend(attached.map(|function| function.arn.clone()));
                deployment.functions.extend(function);
            }
            "AWS::Lambda::Alias" => {
                self.only(id, properties, &["FunctionName", "FunctionVersion", "Name", "Description"]);
                self.text(id, properties, "FunctionVersion");
                let names = (self.text(id, properties, "FunctionName"), self.text(id, properties, "Name"));
                aliases.extend(names.0.zip(names.1));
            }
            "AWS::Lambda::Version" => self.only(id, properties, &["FunctionName", "Description"]),
            "AWS::IAM::Role" => deployment.roles.extend(self.role(resource, properties)),
            "AWS::Events::Rule" => deployment.rules.extend(self.rule(resource, properties)),
            "AWS::Lambda::Permission" => deployment.permissions.extend(self.permission(id, properties)),
            "AWS::Logs::LogGroup" => {
                self.only(id, properties, &["LogGroupName", "RetentionInDays"]);
                self.text(id, properties, "LogGroupName");
            }
            // Stood in for by what Lambda counts as undelivered.
            "AWS::SQS::Queue" | "AWS::SQS::QueuePolicy" => {}
            // The gateway reads the body and has the stage in its settings.
            "AWS::ApiGateway::RestApi"
            | "AWS::ApiGateway::Deployment"
            | "AWS::ApiGateway::Stage"
            | "AWS::ApiGateway::Account" => {}
            other => self.fault(id, format!("unknown type `{other}`")),
        }
    }

    fn function(&mut self, resource: &Resource, properties: &Map<String, Value>) -> Option<FunctionSpec> {
        let id = resource.id.as_str();
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
                "TracingConfig",
                "DeadLetterConfig",
                "VpcConfig",
                "LoggingConfig",
                "Environment",
            ],
        );
        if properties.get("Runtime").and_then(Value::as_str) != Some("provided.al2023") {
            self.fault(id, "Runtime must be provided.al2023");
        }
        let function_name = self.text(id, properties, "FunctionName")?;
        let prefix = self.environment.as_ref().map(|name| format!("portcullis-{name}-")).unwrap_or_default();
        let Some(deployment) = function_name.strip_prefix(&prefix).map(str::to_owned) else {
            self.fault(id, format!("FunctionName must start with `{prefix}`"));
            return None;
        };
        let key = resource.text("/Code/S3Key").unwrap_or_default();
        let binary = key.rsplit('/').next().and_then(|file| file.strip_suffix(".zip")).unwrap_or_default().to_owned();
        if binary.is_empty() {
            self.fault(id, "Code.S3Key must name a zip");
        }
        let mut environment = BTreeMap::new();
        for (name, value) in resource.get("/Environment/Variables").and_then(Value::as_object).into_iter().flatten() {
            match scalar(value) {
                Some(text) if stands_in(&text) => {
                    self.fault(id, format!("variable {name} is `{text}`, which exists only after deployment"));
                }
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
            arn: resource.arn().unwrap_or_default().to_owned(),
            function_name,
            deployment,
            binary,
            environment,
            // Replaced by the name when all roles are known.
            role_name: role_arn,
            timeout: timeout?,
            memory: memory?,
            reserved_concurrency,
            aliases: Vec::new(),
            keeps_failures: resource.text("/DeadLetterConfig/TargetArn").is_some(),
        })
    }

    fn role(&mut self, resource: &Resource, properties: &Map<String, Value>) -> Option<RoleSpec> {
        let id = resource.id.as_str();
        self.only(
            id,
            properties,
            &[
                "RoleName",
                "Description",
                "AssumeRolePolicyDocument",
                "PermissionsBoundary",
                "Policies",
                "MaxSessionDuration",
            ],
        );
        let name = self.text(id, properties, "RoleName")?;
        let trust = properties.get("AssumeRolePolicyDocument").cloned().unwrap_or_default();
        if let Err(faults) = Policy::trust(&trust) {
            faults.into_iter().for_each(|fault| self.fault(id, format!("AssumeRolePolicyDocument: {fault}")));
        }
        let mut policies = Vec::new();
        for policy in resource.list("/Policies") {
            let name = policy.get("PolicyName").and_then(Value::as_str).unwrap_or_default().to_owned();
            let document = policy.get("PolicyDocument").cloned().unwrap_or_default();
            if stands_in(&document.to_string()) {
                self.fault(id, format!("policy `{name}` names what exists only after deployment"));
            }
            if let Err(faults) = Policy::identity(&document) {
                faults.into_iter().for_each(|fault| self.fault(id, format!("policy `{name}`: {fault}")));
            }
            policies.push(document);
        }
        let boundary = self.boundary(id, properties);
        Some(RoleSpec { arn: resource.arn().unwrap_or_default().to_owned(), name, policies, trust, boundary })
    }

    /// The policy that a role names as its boundary. One that is not known would be one that is not held.
    fn boundary(&mut self, id: &str, properties: &Map<String, Value>) -> Option<Value> {
        let named = properties.get("PermissionsBoundary")?;
        let Some(document) = named.as_str().and_then(|arn| self.policies.get(arn)).cloned() else {
            self.fault(id, format!("PermissionsBoundary {named} is no policy of these templates"));
            return None;
        };
        if let Err(faults) = Policy::identity(&document) {
            faults.into_iter().for_each(|fault| self.fault(id, format!("PermissionsBoundary: {fault}")));
        }
        Some(document)
    }

    fn key(&mut self, resource: &Resource) -> Option<KeySpec> {
        let (id, properties) = (resource.id.as_str(), properties_of(resource));
        self.only(id, properties, &["Description", "KeyPolicy", "KeySpec", "KeyUsage", "EnableKeyRotation"]);
        let policy = properties.get("KeyPolicy").cloned().unwrap_or_default();
        if let Err(faults) = Policy::resource(&policy) {
            faults.into_iter().for_each(|fault| self.fault(id, format!("KeyPolicy: {fault}")));
        }
        let spec = properties.get("KeySpec").and_then(Value::as_str).unwrap_or("SYMMETRIC_DEFAULT").to_owned();
        let physical = Uuid::parse_str(&resource.reference).ok()?;
        Some(KeySpec { logical_id: id.to_owned(), id: physical, spec, policy })
    }

    fn alias(&mut self, resource: &Resource) -> Option<(String, Uuid)> {
        let (id, properties) = (resource.id.as_str(), properties_of(resource));
        self.only(id, properties, &["AliasName", "TargetKeyId"]);
        let target = self.text(id, properties, "TargetKeyId")?;
        let target = target.rsplit('/').next().and_then(|id| Uuid::parse_str(id).ok());
        if target.is_none() {
            self.fault(id, "TargetKeyId is no key of this template");
        }
        Some((self.text(id, properties, "AliasName")?, target?))
    }

    fn bucket_policy(&mut self, resource: &Resource) -> Option<(String, Value)> {
        let (id, properties) = (resource.id.as_str(), properties_of(resource));
        self.only(id, properties, &["Bucket", "PolicyDocument"]);
        let policy = properties.get("PolicyDocument").cloned().unwrap_or_default();
        if let Err(faults) = Policy::resource(&policy) {
            faults.into_iter().for_each(|fault| self.fault(id, format!("PolicyDocument: {fault}")));
        }
        Some((self.text(id, properties, "Bucket")?, policy))
    }

    /// A stage without its document.
    fn stage(&mut self, resource: &Resource) -> ApiSpec {
        let (id, properties) = (resource.id.as_str(), properties_of(resource));
        self.only(id, properties, &["RestApiId", "DeploymentId", "StageName", "Variables", "MethodSettings"]);
        let mut variables = BTreeMap::new();
        for (name, value) in properties.get("Variables").and_then(Value::as_object).into_iter().flatten() {
            variables.extend(scalar(value).map(|value| (name.clone(), value)));
        }
        let throttles = limits(resource).unwrap_or_else(|faults| {
            self.faults.extend(faults);
            Vec::new()
        });
        ApiSpec { document: Value::Null, stage: resource.reference.clone(), variables, throttles }
    }

    fn rule(&mut self, resource: &Resource, properties: &Map<String, Value>) -> Option<RuleSpec> {
        let id = resource.id.as_str();
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
        for target in resource.list("/Targets") {
            let Some(target) = target.as_object() else { continue };
            self.only(id, target, &["Id", "Arn", "Input", "DeadLetterConfig"]);
            targets.extend(self.text(id, target, "Arn").map(|arn| called(&arn)));
            if !target.contains_key("DeadLetterConfig") {
                self.fault(id, "a target without DeadLetterConfig loses what cannot be delivered");
            }
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
        Some(RuleSpec { name, arn: resource.arn().unwrap_or_default().to_owned(), pattern, schedule, targets, input })
    }

    fn permission(&mut self, id: &str, properties: &Map<String, Value>) -> Option<PermissionSpec> {
        self.only(id, properties, &["FunctionName", "Action", "Principal", "SourceAccount", "SourceArn"]);
        if properties.get("Action").and_then(Value::as_str) != Some("lambda:InvokeFunction") {
            self.fault(id, "Action must be lambda:InvokeFunction");
        }
        if properties.get("SourceAccount").and_then(Value::as_str) != Some(self.account.as_str()) {
            self.fault(id, "SourceAccount must be our own");
        }
        Some(PermissionSpec {
            function_name: called(&self.text(id, properties, "FunctionName")?),
            principal: self.text(id, properties, "Principal")?,
            source_arn: self.text(id, properties, "SourceArn")?,
        })
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
        let find = |called: &str| {
            let (name, qualifier) = called.split_once(':').map_or((called, None), |(name, rest)| (name, Some(rest)));
            let found = deployment.functions.iter().find(|function| function.function_name == name);
            found.filter(|function| function.answers_to(qualifier))
        };
        for rule in &deployment.rules {
            for target in &rule.targets {
                match find(target) {
                    None => self.fault(&rule.name, format!("target `{target}` is no function of this template")),
                    Some(function) if !function.keeps_failures => {
                        self.fault(&rule.name, format!("`{target}` has no DeadLetterConfig for events that fail"));
                    }
                    Some(_) => {}
                }
                // EventBridge drops what it may not deliver without telling anybody.
                let allowed = |one: &PermissionSpec| one.covers(target, "events.amazonaws.com", &rule.arn);
                if !deployment.permissions.iter().any(allowed) {
                    self.fault(&rule.name, format!("may not invoke `{target}`"));
                }
            }
        }
        for permission in deployment.permissions.iter().filter(|one| find(&one.function_name).is_none()) {
            self.fault("permission", format!("`{}` is no function of this template", permission.function_name));
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

/// `NAME` or `NAME:ALIAS` of what is named so or by its ARN.
fn called(function: &str) -> String {
    function.split_once(":function:").map_or(function, |(_, name)| name).to_owned()
}

/// Whether a text holds the stand-in for an id that AWS would make, `<functions.LogicalId>`.
fn stands_in(text: &str) -> bool {
    text.contains("<functions.") || text.contains("<api.")
}

fn trusts_lambda(role: &RoleSpec) -> bool {
    Policy::trust(&role.trust).is_ok_and(|trust| {
        let verdict = trust.trusts(TrustedBy::Service("lambda.amazonaws.com"), "sts:AssumeRole", &Default::default());
        matches!(verdict, Verdict::Allow(_))
    })
}

//! The policies of a deployment, from the project's own templates.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value, json};
use template::{Documents, Graph, Place, Profile};

use crate::root;
use crate::world::Names;

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "us-east-1";

/// The deployments that are judged: the recommended one first, then each parameter that changes a policy.
pub const DEPLOYMENTS: &[&[&str]] = &[
    &["kms", "rs256", "proxy", "inside"],
    &["kms", "es256", "proxy", "inside"],
    &["kms", "eddsa", "proxy", "inside"],
    &["ssm", "rs256", "proxy", "inside"],
    &["kms", "rs256", "direct", "inside"],
    &["kms", "rs256", "proxy", "outside"],
];

/// Somebody's policies.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// Without `portcullis-local-`.
    pub name: String,
    pub identity: Vec<Value>,
    pub trust: Value,
    /// The most that it can ever do, whatever `identity` says.
    pub boundary: Option<Value>,
}

/// All policies that have a say.
#[derive(Clone, Debug)]
pub struct Policies {
    pub roles: Vec<Role>,
    /// Of keys and buckets, by ARN.
    pub resources: BTreeMap<String, Value>,
    /// Of the network's endpoints, by id.
    pub endpoints: BTreeMap<String, Value>,
}

impl Policies {
    /// Those of a deployment with these parameters. The roles of the functions, of their signers and of the database's proxy.
    pub fn of(deployment: &[&str]) -> Policies {
        let graph = graph(deployment);
        let text = |value: Option<String>| value.unwrap_or_default();
        let mut roles = Vec::new();
        for role in graph.of_kind("AWS::IAM::Role").filter(|role| ["functions", "data"].contains(&role.stack.as_str()))
        {
            let boundary = role.text("/PermissionsBoundary").map(|arn| {
                let found = graph.of_kind("AWS::IAM::ManagedPolicy").find(|policy| policy.reference == arn);
                found.and_then(|policy| policy.get("/PolicyDocument")).expect(&arn).clone()
            });
            assert!(role.get("/ManagedPolicyArns").is_none(), "{}: a policy of others", role.id);
            let policies = role.list("/Policies").into_iter();
            roles.push(Role {
                name: text(role.text("/RoleName")).trim_start_matches("portcullis-local-").to_owned(),
                identity: policies.map(|policy| policy["PolicyDocument"].clone()).collect(),
                trust: role.get("/AssumeRolePolicyDocument").cloned().unwrap_or_default(),
                boundary,
            });
        }
        let mut resources = BTreeMap::new();
        for key in graph.of_kind("AWS::KMS::Key") {
            resources.insert(key.arn().unwrap_or_default().to_owned(), key.properties["KeyPolicy"].clone());
        }
        for policy in graph.of_kind("AWS::S3::BucketPolicy") {
            let bucket = format!("arn:aws:s3:::{}", text(policy.text("/Bucket")));
            resources.insert(bucket, policy.properties["PolicyDocument"].clone());
        }
        let endpoints = graph.of_kind("AWS::EC2::VPCEndpoint");
        let endpoints = endpoints.map(|one| (one.reference.clone(), one.properties["PolicyDocument"].clone()));
        Policies { roles, resources, endpoints: endpoints.collect() }
    }

    /// A role by the name of its deployment.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }
}

fn graph(deployment: &[&str]) -> Graph {
    static DOCUMENTS: OnceLock<Documents> = OnceLock::new();
    let folder = root().join("infra/aws");
    let documents =
        DOCUMENTS.get_or_init(|| Documents::read(&folder).unwrap_or_else(|faults| panic!("{}", faults.join("\n"))));
    let has = |one: &str| deployment.contains(&one);
    let algorithm = if has("es256") {
        "ES256"
    } else if has("eddsa") {
        "EdDSA"
    } else {
        "RS256"
    };
    let profile = std::fs::read_to_string(folder.join("profiles/recommended.yaml")).unwrap();
    let profile = Profile::read(&profile).unwrap().with(&[
        ("Env", "local"),
        ("Issuer", "https://api.example.com"),
        ("Audience", "https://api.example.com"),
        ("S3PrefixListId", "pl-6ea54007"),
        ("ImageUri", "111122223333.dkr-ecr.us-east-1.on.aws/portcullis-local-tunnel@sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        ("Signer", if has("ssm") { "ssm" } else { "kms" }),
        ("SsmEndpoint", if has("ssm") { "on" } else { "off" }),
        ("SigningAlg", algorithm),
        ("DbMode", if has("direct") { "direct" } else { "proxy" }),
        ("IssuerKeysNetwork", if has("outside") { "lambda-managed" } else { "vpc-ipv6" }),
    ]);
    let mut place = Place::new(ACCOUNT, REGION);
    for (stack, id, physical) in [
        ("api", "Api", "a1b2c3d4e5"),
        ("data", "DataKey", "data"),
        ("data", "BucketKey", "bucket"),
        ("data", "ReceiptKey", "receipt"),
        ("data", "SigningKey", "signing"),
        ("network", "S3Endpoint", "vpce-s3"),
        ("network", "KmsEndpointInterface", "vpce-kms"),
        ("network", "StsEndpointInterface", "vpce-sts"),
        ("network", "SsmEndpointInterface", "vpce-ssm"),
    ] {
        place.physical.insert((stack.to_owned(), id.to_owned()), physical.to_owned());
    }
    documents.graph(&profile, &place).unwrap_or_else(|faults| panic!("{}", faults.join("\n")))
}

/// What `matrix.txt` and `calls.txt` leave open.
pub fn names() -> Names {
    let outputs = graph(DEPLOYMENTS[0]).outputs["data"].clone();
    let key = |region: &str, account: &str, name: &str| format!("arn:aws:kms:{region}:{account}:key/{name}");
    let mut names: Names = [
        ("account", ACCOUNT),
        ("region", REGION),
        ("trust", &outputs["TrustBucket"]),
        ("objects", &outputs["ObjectBucket"]),
        ("proxy", &outputs["DbProxyResourceId"]),
        ("instance", &outputs["DbResourceId"]),
        ("s3-endpoint", "vpce-s3"),
        ("kms-endpoint", "vpce-kms"),
        ("sts-endpoint", "vpce-sts"),
        ("ssm-endpoint", "vpce-ssm"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for name in ["data", "bucket", "receipt", "signing"] {
        names.insert(format!("{name}-key"), key(REGION, ACCOUNT, name));
        names.insert(format!("{name}-key@eu-west-1"), key("eu-west-1", ACCOUNT, name));
        names.insert(format!("{name}-key@444455556666"), key(REGION, "444455556666", name));
    }
    names
}

/// What a key has for a policy when it was made without one: the account, and through it whatever roles say.
pub fn default_key_policy() -> Value {
    let root = format!("arn:aws:iam::{ACCOUNT}:root");
    json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "Default", "Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*", "Resource": "*"}]})
}

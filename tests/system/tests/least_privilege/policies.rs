//! The policies of a deployment, from the project's own templates.

use std::collections::BTreeMap;

use local::template::{self, RoleSpec};
use serde_json::{Value, json};

use crate::world::Names;

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "us-east-1";
const TEMPLATE: &str = include_str!("../../../../infra/aws/functions.yaml");

/// The deployments that are judged: the recommended one first, then each parameter that changes a policy.
pub const DEPLOYMENTS: &[&[&str]] = &[
    &["kms", "rs256", "proxy"],
    &["kms", "es256", "proxy"],
    &["kms", "eddsa", "proxy"],
    &["ssm", "rs256", "proxy"],
    &["kms", "rs256", "direct"],
];

/// All policies that have a say.
#[derive(Clone, Debug)]
pub struct Policies {
    pub roles: Vec<RoleSpec>,
    /// Of keys and buckets, by ARN.
    pub resources: BTreeMap<String, Value>,
}

impl Policies {
    /// Those of a deployment with these parameters.
    pub fn of(deployment: &[&str]) -> Policies {
        let names = names();
        let has = |one: &str| deployment.contains(&one);
        let algorithm = if has("es256") { "ES256" } else if has("eddsa") { "EdDSA" } else { "RS256" };
        let parameters = [
            ("Env", "local"),
            ("Issuer", "https://localhost:1"),
            ("Audience", "https://api.example"),
            ("TrustBucket", &names["trust"]),
            ("ObjectBucket", &names["objects"]),
            ("DataKeyArn", &names["data-key"]),
            ("BucketKeyArn", &names["bucket-key"]),
            ("SigningKeyArn", &names["signing-key"]),
            ("SigningHost", "https://objects.example"),
            ("Signer", if has("ssm") { "ssm" } else { "kms" }),
            ("SigningAlg", algorithm),
            ("DbMode", if has("direct") { "direct" } else { "proxy" }),
            ("DbHost", "proxy.example"),
            ("DbProxyResourceId", &names["proxy"]),
            ("DbResourceId", &names["instance"]),
            ("DbDirectHost", "db.example"),
            ("Scan", "off"),
            ("CodeBucket", "portcullis-code"),
            ("ApiId", "api123"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let roles = template::load(TEMPLATE, &parameters, ACCOUNT, REGION).unwrap().roles;
        Policies { roles, resources: BTreeMap::new() }
    }

    /// A role by the name of its deployment.
    pub fn role(&self, name: &str) -> Option<&RoleSpec> {
        self.roles.iter().find(|role| role.name == format!("portcullis-local-{name}"))
    }
}

/// What `matrix.txt` and `calls.txt` leave open.
pub fn names() -> Names {
    let key = |region: &str, account: &str, name: &str| format!("arn:aws:kms:{region}:{account}:key/{name}");
    let mut names: Names = [
        ("account", ACCOUNT),
        ("region", REGION),
        ("trust", "portcullis-local-trust"),
        ("objects", "portcullis-local-objects"),
        ("proxy", "prx-0a1b2c3d4e5f60718"),
        ("instance", "db-LOCALSTACKINSTANCE0000000"),
        ("s3-endpoint", "vpce-s3"),
        ("kms-endpoint", "vpce-kms"),
        ("sts-endpoint", "vpce-sts"),
        ("ssm-endpoint", "vpce-ssm"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for name in ["data", "bucket", "signing"] {
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

//! The deployed CloudFormation template, read into what the local stack needs of it.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a template deploys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deployment {
    /// Lambda functions.
    pub functions: Vec<FunctionSpec>,
    /// Roles, of functions and of signers.
    pub roles: Vec<RoleSpec>,
    /// EventBridge rules.
    pub rules: Vec<RuleSpec>,
}

/// A Lambda function as the template defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionSpec {
    /// The template's name for it, e.g. `TokenFunction`.
    pub logical_id: String,
    /// `portcullis-{env}-{deployment}`
    pub function_name: String,
    /// `token`, `data-key-encrypt`, …
    pub deployment: String,
    /// The package whose binary it runs, e.g. `data-key`.
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
    /// The event pattern, for rules on events.
    pub pattern: Option<Value>,
    /// `rate(1 minute)`, for rules on time.
    pub schedule: Option<String>,
    /// The names of the functions it invokes.
    pub targets: Vec<String>,
    /// The event handed over instead of the matched one.
    pub input: Option<Value>,
}

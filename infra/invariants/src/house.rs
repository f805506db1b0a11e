//! What the deployment consists of: the deployments of functions, and what each of them speaks to.

use template::{Graph, Resource};

/// One deployed function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deployment {
    /// The last part of its names, e.g. `data-key-encrypt`.
    pub(crate) name: &'static str,
    /// The first part of its logical ids and outputs, e.g. `DataKeyEncrypt`.
    pub(crate) id: &'static str,
    /// The package whose binary it runs.
    pub(crate) package: &'static str,
    /// Its database login.
    pub(crate) login: Option<&'static str>,
    /// Which endpoints it speaks to.
    pub(crate) speaks: &'static [Service],
    /// Whether events or schedules start it, with nobody waiting for the answer.
    pub(crate) by_event: bool,
}

/// A service that a function reaches inside the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Kms,
    Ssm,
    Sts,
    S3,
}

use Service::{Kms, S3, Ssm, Sts};

pub(crate) const DEPLOYMENTS: &[Deployment] = &[
    deployment("token", "Token", "token", Some("token"), &[Kms, Ssm, S3], false),
    deployment("authorizer", "Authorizer", "authorizer", None, &[S3], false),
    deployment("upload", "Upload", "upload", Some("upload"), &[Sts, S3], false),
    deployment("download", "Download", "download", Some("download"), &[Kms, Sts, S3], false),
    deployment("data-key-encrypt", "DataKeyEncrypt", "data-key", Some("data_key_encrypt"), &[Kms, S3], false),
    deployment("data-key-decrypt", "DataKeyDecrypt", "data-key", Some("data_key_decrypt"), &[Kms, S3], false),
    deployment("data-key-maintain", "DataKeyMaintain", "data-key", Some("data_key_maintain"), &[Kms, S3], true),
    deployment("data-key-shred", "DataKeyShred", "data-key", Some("data_key_shred"), &[], false),
    deployment("object-events", "ObjectEvents", "object-events", Some("object_events"), &[S3], true),
    deployment("trust", "Trust", "trust", Some("trust"), &[Kms, Ssm, S3], true),
    deployment("issuer-keys", "IssuerKeys", "issuer-keys", None, &[S3], true),
    deployment("admin", "Admin", "admin", Some("admin"), &[S3], false),
    deployment("migrate", "Migrate", "migrate", Some("portcullis_owner"), &[], false),
];

const fn deployment(
    name: &'static str,
    id: &'static str,
    package: &'static str,
    login: Option<&'static str>,
    speaks: &'static [Service],
    by_event: bool,
) -> Deployment {
    Deployment { name, id, package, login, speaks, by_event }
}

impl Deployment {
    /// `portcullis-{env}-{name}`, the name of its function, role and log group.
    pub(crate) fn full_name(&self, graph: &Graph) -> String {
        format!("portcullis-{}-{}", graph.environment, self.name)
    }

    /// Its function, where the graph has one.
    pub(crate) fn function<'a>(&self, graph: &'a Graph) -> Option<&'a Resource> {
        let name = self.full_name(graph);
        graph.of_kind("AWS::Lambda::Function").find(|one| one.text("/FunctionName").as_deref() == Some(&name))
    }
}

/// The deployment a function is.
pub(crate) fn of_function(graph: &Graph, function: &Resource) -> Option<&'static Deployment> {
    let name = function.text("/FunctionName")?;
    DEPLOYMENTS.iter().find(|one| one.full_name(graph) == name)
}

/// An output of the network, as a list.
pub(crate) fn network<'a>(graph: &'a Graph, output: &str) -> Vec<&'a str> {
    let value = graph.outputs.get("network").and_then(|outputs| outputs.get(output)).map(String::as_str);
    value.unwrap_or_default().split(',').filter(|item| !item.is_empty()).collect()
}

/// The stage, verb and path of each operation of the API's document, e.g. `GET /files/{id}`, with the operation.
pub(crate) fn operations(graph: &Graph) -> Vec<(String, &serde_json::Value)> {
    const VERBS: [&str; 8] =
        ["get", "put", "post", "delete", "options", "head", "patch", "x-amazon-apigateway-any-method"];
    let mut found = Vec::new();
    let paths = graph.api().and_then(|api| api.get("paths")).and_then(serde_json::Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        for (verb, operation) in item.as_object().into_iter().flatten() {
            if VERBS.contains(&verb.as_str()) {
                let verb = if verb.starts_with("x-") { "ANY".to_owned() } else { verb.to_uppercase() };
                found.push((format!("{verb} {path}"), operation));
            }
        }
    }
    found
}

/// The text between two others, e.g. the function's ARN in an integration's URI.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(inside, _)| inside)
}

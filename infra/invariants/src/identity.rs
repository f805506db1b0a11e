//! C. Identity and secrets: what each role may do, and that nothing secret stands in a setting.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use template::{Graph, Resource};

use crate::{
    Findings,
    house::{DEPLOYMENTS, between, of_function, operations},
    policy::{Statement, documents, identity, role, statements},
};

pub(crate) fn one_role_each(graph: &Graph, findings: &mut Findings) {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for function in graph.of_kind("AWS::Lambda::Function") {
        let name = function.text("/FunctionName").unwrap_or_default();
        let arn = function.text("/Role").unwrap_or_default();
        let Some(role) = graph.find("AWS::IAM::Role", &arn) else {
            findings.at(function, "/Role", format!("`{arn}` is no role of the deployment"));
            continue;
        };
        if let Some(other) = taken.insert(arn, name.clone()) {
            findings.at(function, "/Role", format!("is the role of {other} too"));
        }
        findings.must_be(role, "/RoleName", &name);
        let empty = Value::Null;
        let trusts = statements(role.get("/AssumeRolePolicyDocument").unwrap_or(&empty));
        let lambda = |one: &Statement<'_>| {
            one.actions == ["sts:AssumeRole"]
                && one.principals() == [("Service".to_owned(), "lambda.amazonaws.com".to_owned())]
        };
        if trusts.is_empty() || !trusts.iter().filter(|one| one.allow).all(lambda) {
            findings.at(role, "/AssumeRolePolicyDocument", "must trust Lambda alone");
        }
        let group = format!(":log-group:{name}:");
        let mut logs = false;
        for (at, one) in identity(role).iter().filter(|(_, one)| one.allow) {
            for action in one.actions.iter().filter(|action| action.starts_with("logs:")) {
                logs = true;
                if !["logs:CreateLogStream", "logs:PutLogEvents"].contains(&action.as_str()) {
                    findings.at(role, at, format!("{}: `{action}` is not needed to write logs", one.sid()));
                }
                if one.resources.is_empty() || !one.resources.iter().all(|resource| resource.contains(&group)) {
                    findings.at(role, at, format!("{}: must name its own log group alone", one.sid()));
                }
            }
        }
        if !logs {
            findings.at(role, "/Policies", "may not write its logs");
        }
    }
    for role in graph.of_kind("AWS::IAM::Role") {
        // The execution role may make a role only under the boundary: without it the stack cannot be deployed by it, and
        // whoever deploys otherwise makes a role that nothing bounds.
        let boundary = format!(
            "arn:{}:iam::{}:policy/portcullis-{}-boundary",
            graph.place.partition, graph.place.account, graph.environment
        );
        if role.stack != "bootstrap" {
            findings.must_be(role, "/PermissionsBoundary", &boundary);
            outside_boundary(graph, role, &boundary, findings);
        }
        if !role.list("/ManagedPolicyArns").is_empty() && role.stack != "bootstrap" {
            findings.at(role, "/ManagedPolicyArns", "rights that stand elsewhere and change without us");
        }
    }
    for policy in graph.of_kind("AWS::IAM::ManagedPolicy").filter(|policy| policy.stack != "bootstrap") {
        findings.at(policy, "Type", "rights of a role stand in the role");
    }
}

/// Grants that the boundary does not let through are dead letters: the function would be refused.
fn outside_boundary(graph: &Graph, role: &Resource, boundary: &str, findings: &mut Findings) {
    let Some(policy) = graph.of_kind("AWS::IAM::ManagedPolicy").find(|policy| policy.reference == boundary) else {
        findings.at(role, "/PermissionsBoundary", "no such policy is deployed");
        return;
    };
    let empty = Value::Null;
    let bounds = statements(policy.get("/PolicyDocument").unwrap_or(&empty));
    for (at, one) in identity(role).iter().filter(|(_, one)| one.allow) {
        for action in
            one.actions.iter().filter(|action| !bounds.iter().any(|bound| bound.allow && bound.covers(action)))
        {
            findings.at(role, at, format!("{}: the boundary does not let `{action}` through", one.sid()));
        }
    }
}

/// Actions for which AWS knows no resource, with why they are here.
const NO_RESOURCE: &[&str] = &[
    // Lambda attaches a function to the network with the function's own role.
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
    // A key has no ARN before it exists; the conditions bound what may be made, see `bound_grants`.
    "kms:CreateKey",
    // A token that says only which account asks.
    "ecr:GetAuthorizationToken",
];

pub(crate) fn no_wildcards(graph: &Graph, findings: &mut Findings) {
    for resource in &graph.resources {
        for (at, document) in documents(resource) {
            for one in statements(document) {
                for name in ["NotAction", "NotResource", "NotPrincipal"] {
                    if one.raw.contains_key(name) {
                        findings.at(
                            resource,
                            &at,
                            format!("{}: {name} grants or refuses what nobody listed", one.sid()),
                        );
                    }
                }
                let effect = one.raw.get("Effect").and_then(Value::as_str).unwrap_or_default();
                if !["Allow", "Deny"].contains(&effect) {
                    findings.at(resource, &at, format!("{}: Effect `{effect}`", one.sid()));
                }
                if one.allow {
                    allowed(resource, &at, &one, findings);
                }
            }
        }
    }
    for role in graph.of_kind("AWS::IAM::Role").filter(|role| role.stack != "bootstrap") {
        let statements = identity(role);
        let refused = |action: &str| {
            statements.iter().any(|(_, one)| {
                !one.allow
                    && one.covers(action)
                    && one.resources == ["*"]
                    && one.conditions.len() == 1
                    && one.demands("Null", "lambda:SourceFunctionArn", &["false"])
            })
        };
        for (at, one) in statements.iter().filter(|(_, one)| one.allow) {
            for action in one.actions.iter().filter(|action| action.starts_with("ec2:")) {
                // Lambda itself calls without this key; the code of the function always with it.
                if !refused(action) {
                    findings.at(role, at, format!("{}: the function's code may use `{action}` too", one.sid()));
                }
            }
        }
    }
}

fn allowed(resource: &Resource, at: &str, one: &Statement<'_>, findings: &mut Findings) {
    // The deployment's own roles and boundaries are broad by nature; what bounds them is checked in `deploy_roles`.
    let deploys = resource.stack == "bootstrap" && resource.kind.starts_with("AWS::IAM::");
    let key_policy = resource.kind == "AWS::KMS::Key";
    for action in &one.actions {
        // A family of one operation with and without its twin (`ReEncryptFrom`, `ReEncryptTo`) is no wildcard over services.
        let family = key_policy && ["kms:ReEncrypt*", "kms:GenerateDataKey*"].contains(&action.as_str());
        if action.contains('*') && !family && !deploys {
            findings.at(resource, at, format!("{}: `{action}`", one.sid()));
        }
    }
    let in_role = resource.kind == "AWS::IAM::Role" && at.starts_with("/Policies");
    if in_role && !deploys {
        for wide in one.resources.iter().filter(|one| ["*", "arn:*", "arn:aws:*"].contains(&one.as_str())) {
            for action in one.actions.iter().filter(|action| !NO_RESOURCE.contains(&action.as_str())) {
                findings.at(resource, at, format!("{}: `{action}` on `{wide}`", one.sid()));
            }
        }
        if one.resources.is_empty() {
            findings.at(resource, at, format!("{}: no Resource", one.sid()));
        }
    }
}

pub(crate) fn bound_grants(graph: &Graph, findings: &mut Findings) {
    deployments_are_held(graph, findings);
    for role in graph.of_kind("AWS::IAM::Role").filter(|role| role.stack != "bootstrap") {
        for (at, one) in identity(role).iter().filter(|(_, one)| one.allow) {
            for action in &one.actions {
                if let Some(fault) = loose(graph, role, action, one) {
                    findings.at(role, at, format!("{}: `{action}` {fault}", one.sid()));
                }
            }
        }
    }
}

/// What no policy of a key or bucket may hand to a role under the boundary.
const NEVER: &[&str] = &[
    "kms:CreateGrant",
    "kms:DeleteImportedKeyMaterial",
    "kms:DisableKey",
    "kms:PutKeyPolicy",
    "kms:ScheduleKeyDeletion",
    "s3:DeleteBucketPolicy",
    "s3:DeleteObject",
    "s3:PutBucketPolicy",
    "s3:PutLifecycleConfiguration",
];

/// Nor to a deployment, which writes those policies.
const NO_KEY_ENDS: &[&str] = &["kms:DeleteImportedKeyMaterial", "kms:DisableKey", "kms:ScheduleKeyDeletion"];

/// A right that is only missing can come from a resource's own policy, so what must never be is denied.
fn deployments_are_held(graph: &Graph, findings: &mut Findings) {
    let environment = graph.environment.as_str();
    let ours = |name: &str| format!("portcullis-{environment}-{name}");
    let policies: Vec<&Resource> = graph.of_kind("AWS::IAM::ManagedPolicy").collect();
    let all_of = |policies: &[&Resource], action: &str| {
        policies
            .iter()
            .flat_map(|policy| documents(policy))
            .flat_map(|(_, document)| statements(document))
            .any(|one| !one.allow && one.covers(action) && one.resources == ["*"] && one.conditions.is_empty())
    };
    for boundary in policies.iter().filter(|policy| policy.text("/ManagedPolicyName") == Some(ours("boundary"))) {
        for action in NEVER.iter().filter(|action| !all_of(&[*boundary], action)) {
            findings.at(boundary, "/PolicyDocument", format!("does not deny `{action}`"));
        }
    }
    if let Some(execution) = role(graph, "execution") {
        let attached = execution.texts("/ManagedPolicyArns");
        let held: Vec<&Resource> = policies.iter().copied().filter(|one| attached.contains(&one.reference)).collect();
        for action in NO_KEY_ENDS.iter().filter(|action| !all_of(&held, action)) {
            findings.at(execution, "/ManagedPolicyArns", format!("nothing denies `{action}`"));
        }
    }
    if let Some(deploy) = role(graph, "deploy") {
        let imports = |one: &Statement<'_>| {
            !one.allow
                && one.covers("cloudformation:CreateChangeSet")
                && one.resources == ["*"]
                && one.conditions.len() == 1
                && one.demands("Null", "cloudformation:ImportResourceTypes", &["false"])
        };
        if !identity(deploy).iter().any(|(_, one)| imports(one)) {
            findings.at(deploy, "/Policies", "may take over what exists into a stack");
        }
        for action in NO_KEY_ENDS.iter().filter(|action| !all_of(&[deploy], action)) {
            findings.at(deploy, "/Policies", format!("does not deny `{action}`"));
        }
    }
    for policy in policies {
        for (at, document) in documents(policy) {
            for one in statements(document).iter().filter(|one| one.allow && one.covers("kms:TagResource")) {
                if let Some(fault) = tags_of_others(environment, one) {
                    findings.at(policy, &at, format!("{}: `kms:TagResource` {fault}", one.sid()));
                }
            }
        }
    }
}

/// By its tag a key is a deployment's: whoever tags another's key takes it.
fn tags_of_others(environment: &str, one: &Statement<'_>) -> Option<&'static str> {
    let (env, signing) = ("portcullis:env", "portcullis:signing");
    let puts = |tag: &str| one.demands("StringEquals", &format!("aws:RequestTag/{tag}"), &[environment]);
    let keeps = |tag: &str| one.demands("StringEqualsIfExists", &format!("aws:ResourceTag/{tag}"), &[environment]);
    let none = |tag: &str| one.demands("Null", &format!("aws:ResourceTag/{tag}"), &["true"]);
    match (puts(env), puts(signing)) {
        (true, false) if keeps(env) && none(signing) => None,
        (false, true) if keeps(signing) => None,
        (false, false) => Some("puts on any tag"),
        _ => Some("reaches keys of another deployment, or of another kind"),
    }
}

/// What is too wide about one action of a statement.
fn loose(graph: &Graph, role: &Resource, action: &str, one: &Statement<'_>) -> Option<&'static str> {
    let environment = graph.environment.as_str();
    let tag = |kind: &str| one.demands("StringEquals", &format!("aws:{kind}/portcullis:signing"), &[environment]);
    let only_ours = |key: &str| key.starts_with("arn:") && key.contains(":key/") && key.contains(&graph.place.account);
    let one_key = matches!(one.resources.as_slice(), [key] if only_ours(key) && !key.contains('*'));
    let our_keys = one.resources.iter().all(|key| only_ours(key));
    let exact =
        |from: &str| matches!(one.resources.as_slice(), [single] if single.contains(from) && !single.contains('*'));
    match action {
        "kms:Sign" => match (tag("ResourceTag") || one_key, one.binds("kms:SigningAlgorithm"), our_keys) {
            (true, true, true) => None,
            (_, false, _) => Some("says no signing algorithm"),
            _ => Some("is not bound to our signing keys"),
        },
        "kms:GetPublicKey" => {
            (!(our_keys && (one_key || tag("ResourceTag")))).then_some("is not bound to our signing keys")
        }
        "kms:CreateKey" | "kms:TagResource" => {
            let usage = one.demands("StringEquals", "kms:KeyUsage", &["SIGN_VERIFY"]);
            let spec = one.binds("kms:KeySpec") || action == "kms:TagResource";
            let tags = one.demands("ForAllValues:StringEquals", "aws:TagKeys", &["portcullis:signing"])
                && one.demands("Null", "aws:TagKeys", &["false"]);
            (!(usage && spec && tags && tag("RequestTag"))).then_some("is not bound to signing keys with our tag")
        }
        // What a key consists of: nothing is opened, and the call knows no context.
        "kms:ListKeyRotations" => (!one_key).then_some("must name one key"),
        _ if action.starts_with("kms:") => match (one_key, one.binds("kms:EncryptionContext:")) {
            (false, _) => Some("must name one key"),
            (_, false) => Some("says no encryption context"),
            (true, true) => None,
        },
        "ssm:GetParameter" | "ssm:PutParameter" => {
            let path = graph.parameter("SigningPath").unwrap_or("/portcullis/signing");
            let ours = format!(":parameter{path}/{environment}/*");
            let signing = matches!(one.resources.as_slice(), [single] if single.ends_with(&ours));
            (!signing && !exact(":parameter/")).then_some("must name one parameter, or our signing keys' path")
        }
        // The agent of a task asks for all of its secrets in one call.
        "ssm:GetParameters" => (!exact(":parameter/")).then_some("must name one parameter"),
        _ if action.starts_with("ssm:") => Some("is not used here"),
        "sts:AssumeRole" => (!exact(":role/")).then_some("must name one role"),
        _ if action.starts_with("sts:") => Some("is not used here"),
        "rds-db:connect" => {
            let proxy = role.text("/RoleName").is_some_and(|name| name == format!("portcullis-{environment}-proxy"));
            (!exact(":dbuser:") && !proxy).then_some("must name one login on one database")
        }
        "s3:ListBucket" => {
            // Without it S3 answers 403 for an object that does not exist, and genesis could not tell never from not now.
            // The scanner of AWS asks for it to see that the bucket is ours.
            let may = [("trust", "TrustBucket"), ("malware-scan", "ObjectBucket")].iter().any(|(name, bucket)| {
                let bucket = graph.outputs.get("data").and_then(|outputs| outputs.get(*bucket));
                let arn = bucket.map(|bucket| format!("arn:{}:s3:::{bucket}", graph.place.partition));
                let name = format!("portcullis-{environment}-{name}");
                role.text("/RoleName") == Some(name)
                    && Some(one.resources.as_slice()) == arn.as_ref().map(std::slice::from_ref)
            });
            (!may).then_some("lists what nobody has to list")
        }
        _ if action.starts_with("s3:") && on_bucket(action) => None,
        _ if action.starts_with("s3:") => {
            let prefixed = |resource: &String| {
                let key = resource.split_once(":::").and_then(|(_, path)| path.split_once('/')).map(|(_, key)| key);
                let bucket = resource.split_once(":::").map(|(_, path)| path).unwrap_or_default();
                !bucket.split('/').next().unwrap_or_default().contains('*')
                    && key.is_some_and(|key| !key.is_empty() && !key.starts_with('*'))
            };
            (one.resources.is_empty() || !one.resources.iter().all(prefixed)).then_some("must name a prefix")
        }
        _ => None,
    }
}

/// Actions on a bucket's settings, which know no prefix: what the malware scanner asks of AWS's own service.
fn on_bucket(action: &str) -> bool {
    ["s3:GetBucketNotification", "s3:PutBucketNotification"].contains(&action)
}

pub(crate) fn no_secrets(graph: &Graph, findings: &mut Findings) {
    for function in graph.of_kind("AWS::Lambda::Function") {
        let variables = function.get("/Environment/Variables").and_then(Value::as_object);
        for (name, value) in variables.into_iter().flatten() {
            let value = template::scalar(value).unwrap_or_default();
            if let Some(fault) = secret(name, &value) {
                findings.at(function, &format!("/Environment/Variables/{name}"), fault);
            }
        }
    }
    for task in graph.of_kind("AWS::ECS::TaskDefinition") {
        for container in task.list("/ContainerDefinitions") {
            for variable in container.get("Environment").and_then(Value::as_array).into_iter().flatten() {
                let text = |name: &str| variable.get(name).and_then(template::scalar).unwrap_or_default();
                if let Some(fault) = secret(&text("Name"), &text("Value")) {
                    findings.at(task, &format!("/ContainerDefinitions Environment {}", text("Name")), fault);
                }
            }
            for argument in container.get("Command").and_then(Value::as_array).into_iter().flatten() {
                let argument = argument.as_str().unwrap_or_default();
                if argument.contains("--token") || credential(argument).is_some() {
                    findings.at(task, "/ContainerDefinitions Command", "a credential on the command line");
                }
            }
        }
    }
    for role in graph.of_kind("AWS::IAM::Role") {
        for (at, one) in identity(role).iter().filter(|(_, one)| one.allow) {
            for action in ["secretsmanager:GetSecretValue", "secretsmanager:BatchGetSecretValue"] {
                if one.covers(action) && role.stack != "bootstrap" {
                    findings.at(role, at, format!("{}: `{action}`: there is no secret to read", one.sid()));
                }
            }
        }
    }
}

fn secret(name: &str, value: &str) -> Option<String> {
    let upper = name.to_uppercase();
    let speaking = ["SECRET", "PASSWORD", "PASSWD", "PRIVATE", "CRED", "API_KEY", "TOKEN"];
    if let Some(word) = speaking.iter().find(|word| upper.contains(*word)) {
        return Some(format!("a name with {word} in it"));
    }
    credential(value).map(str::to_owned)
}

/// What a value looks like if it is no id, name or switch.
fn credential(value: &str) -> Option<&'static str> {
    if ["AKIA", "ASIA"].iter().any(|start| {
        value.match_indices(start).any(|(at, _)| {
            let rest = value.get(at + 4..).unwrap_or_default();
            rest.chars().take_while(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit()).count() >= 12
        })
    }) {
        return Some("an access key");
    }
    if value.contains("-----BEGIN") {
        return Some("a key in PEM form");
    }
    if value.contains("eyJ") {
        return Some("a token");
    }
    if value.split_once("://").and_then(|(_, rest)| rest.split('/').next()).is_some_and(|host| host.contains('@')) {
        return Some("a credential in an address");
    }
    // Words, ids and ARNs have marks or one case; what is drawn at random has all kinds in one run.
    let mixed = |run: &str| {
        run.len() >= 32
            && run.contains(|letter: char| letter.is_ascii_digit())
            && run.contains(|letter: char| letter.is_ascii_uppercase())
            && run.contains(|letter: char| letter.is_ascii_lowercase())
    };
    let hex = |run: &str| run.len() >= 40 && run.chars().all(|letter| letter.is_ascii_hexdigit());
    let runs = value.split(|letter: char| !letter.is_ascii_alphanumeric() && !"+/=_".contains(letter));
    runs.into_iter().any(|run| mixed(run) || hex(run)).then_some("a value drawn at random")
}

pub(crate) fn function_settings(graph: &Graph, findings: &mut Findings) {
    let architecture = graph.parameter("Architecture").unwrap_or("arm64");
    let mut by_route: BTreeSet<String> = BTreeSet::new();
    for (_, operation) in operations(graph) {
        let uri = operation.pointer("/x-amazon-apigateway-integration/uri").and_then(Value::as_str).unwrap_or_default();
        by_route.extend(
            between(uri, ":function:", "/invocations").and_then(|name| name.split(':').next()).map(str::to_owned),
        );
    }
    by_route.insert(format!("portcullis-{}-authorizer", graph.environment));
    for function in graph.of_kind("AWS::Lambda::Function") {
        let name = function.text("/FunctionName").unwrap_or_default();
        if function.texts("/Architectures") != [architecture] {
            findings.at(function, "/Architectures", format!("must be {architecture} alone"));
        }
        findings.must_be(function, "/Runtime", "provided.al2023");
        findings.must_be(function, "/Handler", "bootstrap");
        findings.must_be(function, "/TracingConfig/Mode", "Active");
        findings.must_be(function, "/LoggingConfig/LogFormat", "JSON");
        // A line without a level counts as INFO: at WARN the metrics would be dropped.
        findings.must_be(function, "/LoggingConfig/ApplicationLogLevel", "INFO");
        let timeout = function.text("/Timeout").and_then(|text| text.parse::<u32>().ok());
        match timeout {
            None => findings.at(function, "/Timeout", "missing"),
            Some(timeout) if by_route.contains(&name) && timeout >= 29 => {
                findings.at(function, "/Timeout", format!("{timeout} s, and the gateway gives up after 29"));
            }
            Some(_) => {}
        }
        let group = function.text("/LoggingConfig/LogGroup").unwrap_or_default();
        match graph.find("AWS::Logs::LogGroup", &group) {
            Some(group) if group.text("/LogGroupName").as_deref() == Some(&name) => {}
            _ => findings.at(function, "/LoggingConfig/LogGroup", "must be its own group"),
        }
        if of_function(graph, function).is_some_and(|one| one.by_event) {
            keeps_events(graph, function, &name, findings);
        }
        for layer in function.texts("/Layers") {
            findings.at(function, "/Layers", format!("`{layer}` runs with the function's role"));
        }
    }
    for group in graph.of_kind("AWS::Logs::LogGroup") {
        if group.text("/RetentionInDays").and_then(|days| days.parse::<u32>().ok()).is_none_or(|days| days == 0) {
            findings.at(group, "/RetentionInDays", "kept for ever");
        }
    }
}

/// Whether what a function could not handle goes to a queue that it may write to.
fn keeps_events(graph: &Graph, function: &Resource, name: &str, findings: &mut Findings) {
    let mut destinations: Vec<String> = function.text("/DeadLetterConfig/TargetArn").into_iter().collect();
    for config in graph.of_kind("AWS::Lambda::EventInvokeConfig") {
        if config.text("/FunctionName").is_some_and(|one| one == name || one.ends_with(&format!(":{name}"))) {
            destinations.extend(config.text("/DestinationConfig/OnFailure/Destination"));
        }
    }
    let Some(queue) = destinations.iter().find_map(|arn| graph.find("AWS::SQS::Queue", arn)) else {
        findings.at(function, "/DeadLetterConfig", "an event it cannot handle is lost");
        return;
    };
    let arn = queue.arn().unwrap_or_default();
    let deployment =
        DEPLOYMENTS.iter().find(|one| one.full_name(graph) == name).map(|one| one.name).unwrap_or_default();
    let may = role(graph, deployment).is_some_and(|role| {
        identity(role).iter().any(|(_, one)| one.allow && one.covers("sqs:SendMessage") && one.resources == [arn])
    });
    if !may {
        findings.at(function, "/Role", format!("may not write to `{arn}`, where its lost events go"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_names_and_switches_are_told_from_credentials() {
        for value in [
            "arn:aws:kms:eu-central-1:123456789012:key/<data.DataKey>",
            "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "https://portcullis-prod-objects-123456789012-eu-central-1.s3.eu-central-1.amazonaws.com",
            "portcullis-prod.abcdefghijkl.eu-central-1.rds.amazonaws.com",
            "encrypt,index,inspect",
            "5432",
        ] {
            assert_eq!(credential(value), None, "{value}");
        }
        for value in [
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "-----BEGIN PRIVATE KEY-----",
            "eyJhbGciOiJub25lIn0.e30.",
            "postgres://u:p@host/db",
            "00112233445566778899aabbccddeeff00112233",
        ] {
            assert!(credential(value).is_some(), "{value}");
        }
    }
}

//! F. Coherence: what stands in several places says the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use template::{Graph, Resource};

use crate::{
    Findings, Repository,
    house::{DEPLOYMENTS, between, network, of_function, operations},
    policy::{Statement, identity, role},
};

pub(crate) fn one_to_one(graph: &Graph, repository: &Repository, findings: &mut Findings) {
    let mut used: BTreeSet<String> = BTreeSet::new();
    for function in graph.of_kind("AWS::Lambda::Function") {
        let Some(deployment) = of_function(graph, function) else {
            findings.at(function, "/FunctionName", "is no deployment of the house");
            continue;
        };
        let name = deployment.full_name(graph);
        let zip = function.text("/Code/S3Key").unwrap_or_default();
        let file = zip.rsplit('/').next().unwrap_or_default();
        let package = file.strip_suffix(".zip").unwrap_or_default();
        // A release may put a digest before or after the name.
        let package = package.split(['@', '+']).next().unwrap_or_default();
        if package != deployment.package {
            findings.at(function, "/Code/S3Key", format!("`{zip}` is not the zip of {}", deployment.package));
        }
        used.insert(deployment.package.to_owned());
        if role(graph, deployment.name).is_none() {
            findings.at(function, "role", format!("no role is called {name}"));
        }
        let groups =
            graph.of_kind("AWS::Logs::LogGroup").filter(|one| one.text("/LogGroupName").as_deref() == Some(&name));
        if groups.count() != 1 {
            findings.at(function, "log group", format!("no log group is called {name}"));
        }
        if network(graph, &format!("{}SecurityGroupId", deployment.id)).len() != 1 {
            findings.at(function, "security group", format!("the network has no {}SecurityGroupId", deployment.id));
        }
        if !alarms(graph, &name).any(|alarm| alarm.text("/Namespace").as_deref() == Some("AWS/Lambda")) {
            findings.at(function, "alarm", "none watches it");
        }
        let user = function.text("/Environment/Variables/PORTCULLIS_DB_USER");
        if user.as_deref() != deployment.login {
            findings.at(
                function,
                "/Environment/Variables/PORTCULLIS_DB_USER",
                format!("must be {:?}", deployment.login),
            );
        }
    }
    for package in used.symmetric_difference(&repository.packages) {
        let text =
            if used.contains(package) { "is deployed, and no package" } else { "is a package, and not deployed" };
        findings.on(&format!("functions/{package}"), "function", text);
    }
    let deployed: BTreeSet<&str> =
        DEPLOYMENTS.iter().filter(|one| one.function(graph).is_some()).map(|one| one.name).collect();
    for alarm in graph.of_kind("AWS::CloudWatch::Alarm") {
        for name in watched(alarm) {
            let known = deployed.iter().any(|one| name == format!("portcullis-{}-{one}", graph.environment));
            if !known {
                findings.at(alarm, "/Dimensions", format!("watches `{name}`, which is no function"));
            }
        }
        if alarm.text("/TreatMissingData").is_none() {
            findings.at(alarm, "/TreatMissingData", "must say whether silence is good or bad");
        }
        if alarm.list("/AlarmActions").is_empty() {
            findings.at(alarm, "/AlarmActions", "wakes nobody");
        }
    }
    routes(graph, repository, findings);
}

fn watched(alarm: &Resource) -> Vec<String> {
    let dimensions = alarm.list("/Dimensions");
    let function = |one: &&Value| one.get("Name").and_then(Value::as_str) == Some("FunctionName");
    dimensions.into_iter().filter(function).filter_map(|one| one.get("Value").and_then(template::scalar)).collect()
}

fn alarms<'a>(graph: &'a Graph, name: &'a str) -> impl Iterator<Item = &'a Resource> {
    graph.of_kind("AWS::CloudWatch::Alarm").filter(move |alarm| watched(alarm).iter().any(|one| one == name))
}

/// Routes of the document, of the edge, and of the list of refusals, and which function answers each.
fn routes(graph: &Graph, repository: &Repository, findings: &mut Findings) {
    let mut documented = BTreeSet::new();
    for (route, operation) in operations(graph) {
        let named = operation.get("x-portcullis-function").and_then(Value::as_str);
        let uri = operation.pointer("/x-amazon-apigateway-integration/uri").and_then(Value::as_str).unwrap_or_default();
        let kind =
            operation.pointer("/x-amazon-apigateway-integration/type").and_then(Value::as_str).unwrap_or_default();
        let called = between(uri, ":function:", "/invocations").map(|one| one.split(':').next().unwrap_or_default());
        let expected = named.map(|name| format!("portcullis-{}-{name}", graph.environment));
        match (kind, called, expected.as_deref()) {
            ("aws_proxy", Some(called), Some(expected)) if called == expected => {
                if !DEPLOYMENTS.iter().any(|one| one.full_name(graph) == called && one.function(graph).is_some()) {
                    findings.on(&route, "x-portcullis-function", "no such function is deployed");
                }
            }
            ("mock" | "http_proxy", None, _) => {}
            _ => findings.on(&route, "x-portcullis-function", format!("{named:?} is not what `{uri}` calls")),
        }
        if kind == "aws_proxy"
            && operation.pointer("/x-amazon-apigateway-integration/httpMethod") != Some(&Value::from("POST"))
        {
            findings.on(&route, "httpMethod", "a function is always called by POST");
        }
        documented.insert(route);
    }
    let routes_of = |routes: &BTreeSet<(String, String)>| -> BTreeSet<String> {
        routes.iter().map(|(verb, path)| format!("{verb} {path}")).collect()
    };
    let mut in_file = routes_of(&repository.openapi);
    if graph.parameter("AppLinkId").is_some_and(|id| !id.is_empty()) {
        in_file.extend(routes_of(&repository.app));
    }
    for route in documented.symmetric_difference(&in_file) {
        let text = if in_file.contains(route) {
            "is in the document, and not deployed"
        } else {
            "is deployed, and not in the document"
        };
        findings.on(route, "route", text);
    }
    match tunnel::Edge::parse(&repository.routes) {
        Err(error) => findings.on("infra/cloudflare/routes.json", "JSON", error.to_string()),
        Ok(edge) => {
            let routes = repository.openapi.union(&repository.app).cloned().collect();
            for fault in edge.cover(&routes).err().into_iter().flatten() {
                findings.on("infra/cloudflare/routes.json", "routes", fault.to_string());
            }
        }
    }
    let tried: BTreeSet<String> = repository
        .refusals
        .lines()
        .filter(|line| !line.starts_with([' ', '#']) && line.contains(" /"))
        .map(str::to_owned)
        .collect();
    // Those of the application behind the gate too, which not every deployment has.
    let all = routes_of(&repository.openapi).into_iter().chain(routes_of(&repository.app)).collect();
    for route in tried.symmetric_difference(&all) {
        let text = if all.contains(route) { "has no line of refusals" } else { "has refusals, and is no route" };
        findings.on(route, "tests/system/refusals.txt", text);
    }
}

/// One statement as the list shows it, for one of its resources: role, effect, actions, resource, keys of the condition.
type Grant = (String, String, String, String, String);

/// Every statement of the graph's roles (the deployment's own aside), with what differs between accounts left out.
pub(crate) fn grants(graph: &Graph) -> BTreeSet<Grant> {
    let prefix = format!("portcullis-{}-", graph.environment);
    let mut found = BTreeSet::new();
    for role in graph.of_kind("AWS::IAM::Role").filter(|role| role.stack != "bootstrap") {
        let full = role.text("/RoleName").unwrap_or_default();
        let name = full.strip_prefix(&prefix).unwrap_or(&full).to_owned();
        for (_, one) in identity(role) {
            let effect = if one.allow { "allow" } else { "deny" };
            let mut actions = one.actions.clone();
            actions.sort();
            for resource in &one.resources {
                let resource = general(graph, resource);
                found.insert((name.clone(), effect.to_owned(), actions.join(","), resource, keys(graph, &one)));
            }
        }
    }
    found
}

fn keys(graph: &Graph, one: &Statement<'_>) -> String {
    let mut keys: Vec<String> = one
        .conditions
        .iter()
        .map(|one| {
            let values: Vec<String> = one
                .values
                .iter()
                .map(|value| if *value == graph.environment { "{env}".to_owned() } else { general(graph, value) })
                .collect();
            // Which algorithm is a parameter, and that it is said is held by another invariant.
            let chosen = ["kms:SigningAlgorithm", "kms:KeySpec", "kms:MessageType"].contains(&one.key.as_str());
            let values = if chosen { "…".to_owned() } else { values.join("|") };
            format!("{} {}={values}", one.operator, one.key)
        })
        .collect();
    keys.sort();
    keys.join(", ")
}

/// A text without what differs between accounts and deployments.
fn general(graph: &Graph, text: &str) -> String {
    let place = &graph.place;
    let mut text = text.to_owned();
    let outputs = |stack: &str, name: &str| graph.outputs.get(stack).and_then(|all| all.get(name)).cloned();
    for (stack, name) in [
        ("data", "DataKeyArn"),
        ("data", "BucketKeyArn"),
        ("data", "SigningKeyArn"),
        ("data", "TrustBucket"),
        ("data", "ObjectBucket"),
        ("data", "DbProxyResourceId"),
        ("data", "DbResourceId"),
        ("network", "S3EndpointId"),
        ("network", "KmsEndpointId"),
        ("network", "StsEndpointId"),
        ("network", "SsmEndpointId"),
    ] {
        if let Some(value) = outputs(stack, name).filter(|value| !value.is_empty()) {
            text = text.replace(&value, &format!("{{{name}}}"));
        }
    }
    text.replace(&format!("arn:{}:", place.partition), "arn:")
        .replace(&place.account, "{account}")
        .replace(&place.region, "{region}")
        .replace(&format!("portcullis-{}-", graph.environment), "portcullis-{env}-")
        .replace(&format!("/{}/", graph.environment), "/{env}/")
}

/// The list's form of the grants of several graphs. Each line says under which parameters the grant is there.
#[must_use]
pub(crate) fn list(graphs: &[Graph]) -> String {
    let mut lines: BTreeMap<Grant, Vec<&Graph>> = BTreeMap::new();
    for graph in graphs {
        for grant in grants(graph) {
            lines.entry(grant).or_default().push(graph);
        }
    }
    let mut text = String::new();
    let mut last = String::new();
    for ((role, effect, actions, resource, keys), with) in &lines {
        if *role != last {
            text.push_str(&format!("\n{role}\n"));
            last.clone_from(role);
        }
        text.push_str(&format!("  {} {effect} {actions} {resource}\n", when(with, graphs)));
        for key in keys.split(", ").filter(|key| !key.is_empty()) {
            text.push_str(&format!("    if {key}\n"));
        }
    }
    text
}

/// Under which parameters a statement is there: the switches that all graphs with it have in common and none without it.
fn when(with: &[&Graph], all: &[Graph]) -> String {
    if with.len() == all.len() {
        return "always".to_owned();
    }
    let on = |graph: &Graph, (name, value): &(&str, &str)| graph.parameter(name) == Some(value);
    let common: Vec<&(&str, &str)> =
        SWITCHES.iter().filter(|switch| with.iter().all(|graph| on(graph, switch))).collect();
    // The fewest switches that no other graph has together.
    let mut needed: Vec<&(&str, &str)> = Vec::new();
    let mut others: Vec<&Graph> = all.iter().filter(|graph| !with.contains(graph)).collect();
    while !others.is_empty() {
        let left = |switch: &(&str, &str)| others.iter().filter(|graph| on(graph, switch)).copied().collect::<Vec<_>>();
        let best = common.iter().map(|switch| (left(switch), switch)).min_by_key(|(left, _)| left.len());
        match best {
            Some((left, switch)) if left.len() < others.len() => {
                needed.push(switch);
                others = left;
            }
            _ => break,
        }
    }
    let names: Vec<String> = needed.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if others.is_empty() { names.join("&") } else { "?".to_owned() }
}

/// The switches that decide whether a grant is there.
const SWITCHES: &[(&str, &str)] = &[
    ("Signer", "kms"),
    ("Signer", "ssm"),
    ("DbMode", "proxy"),
    ("DbMode", "direct"),
    ("FlowLogs", "on"),
    ("StsEndpoint", "on"),
    ("StsEndpoint", "off"),
    ("Scan", "guardduty"),
    ("IssuerKeysNetwork", "vpc-ipv6"),
    ("IssuerKeysNetwork", "lambda-managed"),
    ("ApiGatewayAccountRole", "on"),
];

/// Reads the list: statements with the parameters they need.
fn listed(text: &str) -> Vec<(String, Grant)> {
    let mut found: Vec<(String, Grant)> = Vec::new();
    let mut role = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        if let Some(key) = line.strip_prefix("    if ") {
            if let Some((_, (_, _, _, _, keys))) = found.last_mut() {
                let comma = if keys.is_empty() { "" } else { ", " };
                keys.push_str(&format!("{comma}{key}"));
            }
        } else if let Some(grant) = line.strip_prefix("  ") {
            let mut words = grant.split_whitespace();
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (when, effect, actions, resource) = (word(), word(), word(), word());
            found.push((when, (role.clone(), effect, actions, resource, String::new())));
        } else {
            role = line.trim().to_owned();
        }
    }
    found
}

/// What each call of an adapter needs. A call that stands in no row is a fault: nobody has looked at it.
const CALLS: &[(&str, &[&str])] = &[
    ("get_object", &["s3:GetObject"]),
    ("head_object", &["s3:GetObjectVersion"]),
    ("put_object", &["s3:PutObject"]),
    ("delete_object", &["s3:DeleteObjectVersion"]),
    ("create_multipart_upload", &["s3:PutObject"]),
    ("upload_part", &["s3:PutObject"]),
    ("complete_multipart_upload", &["s3:PutObject"]),
    ("list_parts", &["s3:ListMultipartUploadParts"]),
    ("abort_multipart_upload", &["s3:AbortMultipartUpload"]),
    ("generate_data_key", &["kms:GenerateDataKey"]),
    ("encrypt", &["kms:Encrypt"]),
    ("decrypt", &["kms:Decrypt"]),
    ("re_encrypt", &["kms:ReEncryptFrom", "kms:ReEncryptTo"]),
    ("list_key_rotations", &["kms:ListKeyRotations"]),
    ("sign", &["kms:Sign"]),
    ("create_key", &["kms:CreateKey", "kms:TagResource"]),
    ("get_public_key", &["kms:GetPublicKey"]),
    ("get_parameter", &["ssm:GetParameter"]),
    ("put_parameter", &["ssm:PutParameter"]),
    ("assume_role", &["sts:AssumeRole"]),
    // Signed and never sent; who holds it is let in.
    ("connect", &["rds-db:connect"]),
];

/// Grants that no adapter's call asks for, and who needs them.
const INDIRECT: &[&str] = &[
    // Lambda, for the function: its logs, traces, network and lost events.
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
    "sqs:SendMessage",
    // A signed URL is used by somebody else.
    "s3:GetObjectVersion",
    // Asked for by S3 when an object is not there.
    "s3:ListBucket",
];

pub(crate) fn listed_grants(graph: &Graph, repository: &Repository, findings: &mut Findings) {
    let found = grants(graph);
    let listed = listed(&repository.grants);
    let holds = |when: &str| {
        when == "always"
            || when
                .split('&')
                .all(|one| one.split_once('=').is_some_and(|(name, value)| graph.parameter(name) == Some(value)))
    };
    let expected: BTreeSet<Grant> =
        listed.iter().filter(|(when, _)| holds(when)).map(|(_, grant)| grant.clone()).collect();
    for (role, effect, actions, resource, keys) in found.difference(&expected) {
        let text = format!("{effect} on `{resource}` [{keys}] is not on the list of grants");
        findings.on(&format!("role {role}"), actions, text);
    }
    for (role, effect, actions, resource, keys) in expected.difference(&found) {
        let text = format!("{effect} on `{resource}` [{keys}] is on the list of grants, and not there");
        findings.on(&format!("role {role}"), actions, text);
    }
    sent(graph, repository, &listed, findings);
}

/// Whether every call of the adapters is granted to somebody, and every grant of a function is used by some call.
fn sent(graph: &Graph, repository: &Repository, listed: &[(String, Grant)], findings: &mut Findings) {
    let mut calls: BTreeSet<&str> = BTreeSet::new();
    for (file, operations) in &repository.adapters {
        for operation in operations {
            if CALLS.iter().any(|(call, _)| call == operation) {
                calls.insert(operation);
            } else {
                findings.on(file, operation, "an operation that stands in no row of the table");
            }
        }
    }
    let needed: BTreeSet<&str> = CALLS
        .iter()
        .filter(|(call, _)| calls.contains(call))
        .flat_map(|(_, actions)| actions.iter().copied())
        .collect();
    let granted: BTreeSet<&str> = listed
        .iter()
        .filter(|(_, (_, effect, ..))| effect == "allow")
        .flat_map(|(_, (_, _, actions, ..))| actions.split(','))
        .collect();
    for action in needed.iter().filter(|action| !granted.contains(*action)) {
        findings.on("shared/adapters", action, "is sent, and granted to nobody");
    }
    let functions: BTreeSet<&str> = DEPLOYMENTS.iter().map(|one| one.name).collect();
    for (role, effect, actions, ..) in grants(graph) {
        if effect != "allow" || !functions.contains(role.as_str()) {
            continue;
        }
        for action in actions.split(',').filter(|action| !needed.contains(action) && !INDIRECT.contains(action)) {
            findings.on(&format!("role {role}"), action, "is granted, and no adapter sends it");
        }
    }
}

pub(crate) fn deploy_settings(_: &Graph, repository: &Repository, findings: &mut Findings) {
    for (file, manifest) in &repository.manifests {
        let mut section = String::new();
        for (i, line) in manifest.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_matches(['[', ']', ' ']).replace([' ', '"', '\''], "");
            }
            let key = line.split('=').next().unwrap_or_default().replace([' ', '"', '\''], "");
            let path = if line.starts_with('[') { section.clone() } else { format!("{section}.{key}") };
            let lambda = file.ends_with("CargoLambda.toml");
            let deploys = path.contains("metadata.lambda")
                || (lambda && path.starts_with("deploy"))
                || (lambda && path.contains(".deploy"));
            if deploys {
                findings.on(
                    file,
                    &format!("line {}", i + 1),
                    "would overwrite what the template says at each code update",
                );
            }
        }
    }
    let root = repository.manifests.get("Cargo.toml").map(String::as_str).unwrap_or_default();
    let release = root.split_once("[profile.release]").map(|(_, rest)| rest).unwrap_or_default();
    let release = release.split("\n[").next().unwrap_or_default();
    let value = |name: &str| {
        let lines = release.lines().filter_map(|line| line.split('#').next()?.split_once('='));
        lines
            .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    for (name, expected) in [("strip", "symbols"), ("lto", "fat"), ("codegen-units", "1"), ("panic", "unwind")] {
        if value(name) != Some(expected) {
            findings.on(
                "Cargo.toml",
                name,
                format!("must be {expected}: cargo-lambda puts in its own where it is missing"),
            );
        }
    }
}

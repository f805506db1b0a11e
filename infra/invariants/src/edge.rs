//! E. Edge: the tunnel and what stands before it.

use std::collections::BTreeSet;

use serde_json::Value;
use template::{Graph, scalar};
use tunnel::{Access, Gate, Hosts};

use crate::{
    Findings, Repository,
    house::{between, network},
};

pub(crate) fn tunnel_rules(graph: &Graph, repository: &Repository, findings: &mut Findings) {
    let outputs = graph.outputs.get("api");
    let output = |name: &str| outputs.and_then(|outputs| outputs.get(name)).map(String::as_str).unwrap_or_default();
    let (hosts, access) = match (Hosts::parse(&repository.hosts), Access::parse(&repository.access)) {
        (Ok(hosts), Ok(access)) => (hosts, access),
        (Err(error), _) | (_, Err(error)) => {
            findings.on("infra/cloudflare", "hosts", error.to_string());
            return;
        }
    };
    let gate = match Gate::agree(&hosts, &access, output("ApiHost"), output("StageName")) {
        Ok(gate) => gate,
        Err(faults) => {
            for fault in faults {
                findings.on("infra/cloudflare", "hosts", fault.to_string());
            }
            return;
        }
    };
    for fault in tunnel::check(&repository.tunnel, &gate).err().into_iter().flatten() {
        findings.on("tunnel configuration", &fault.at, fault.why.to_string());
    }
    // Said a second time in other words, so that neither reader has to be believed: one rule without `access`, no more.
    let Ok(config) = template::yaml(&repository.tunnel) else { return };
    let rules = config.get("ingress").and_then(Value::as_array).cloned().unwrap_or_default();
    let open: Vec<String> = rules
        .iter()
        .filter(|rule| rule.pointer("/originRequest/access/required") != Some(&Value::Bool(true)))
        .filter_map(|rule| rule.get("hostname").and_then(scalar))
        .collect();
    if open != [hosts.machines.clone()] {
        findings.on("tunnel configuration", "ingress", format!("{open:?} are open, must be {} alone", hosts.machines));
    }
}

/// What the tunnel is told beside its rules. What is left to a default changes with a release.
const SETTINGS: &[(&str, &str)] = &[
    ("TUNNEL_EDGE_IP_VERSION", "6"),
    ("TUNNEL_MANAGEMENT_DIAGNOSTICS", "false"),
    ("TUNNEL_METRICS", "127.0.0.1:20241"),
    ("TUNNEL_POST_QUANTUM", "true"),
    ("TUNNEL_TRANSPORT_PROTOCOL", "quic"),
];

pub(crate) fn tunnel_task(graph: &Graph, findings: &mut Findings) {
    for service in graph.of_kind("AWS::ECS::Service") {
        findings.must_be(service, "/LaunchType", "FARGATE");
        findings.must_be(service, "/DeploymentConfiguration/DeploymentCircuitBreaker/Enable", "true");
        findings.must_be(service, "/DeploymentConfiguration/DeploymentCircuitBreaker/Rollback", "true");
        findings.must_be(service, "/EnableExecuteCommand", "false");
        let tasks = graph.parameter("TunnelTasks").unwrap_or("2");
        findings.must_be(service, "/DesiredCount", tasks);
        if !["1", "2"].contains(&tasks) {
            findings.at(service, "/DesiredCount", "one in the lean profile, two otherwise");
        }
        let version = service.text("/PlatformVersion").unwrap_or_else(|| "LATEST".to_owned());
        if !["LATEST", "1.4.0"].contains(&version.as_str()) {
            findings.at(service, "/PlatformVersion", format!("`{version}`, must be 1.4.0 or later"));
        }
        let place = "/NetworkConfiguration/AwsvpcConfiguration";
        if service.texts(&format!("{place}/Subnets")) != network(graph, "EdgeSubnetIds") {
            findings.at(service, &format!("{place}/Subnets"), "must be the subnets of edge");
        }
        if service.texts(&format!("{place}/SecurityGroups")) != network(graph, "TunnelSecurityGroupId") {
            findings.at(service, &format!("{place}/SecurityGroups"), "must be the tunnel's group alone");
        }
        if !service.list("/LoadBalancers").is_empty() || !service.list("/ServiceRegistries").is_empty() {
            findings.at(service, "/LoadBalancers", "nothing calls the tunnel");
        }
    }
    let (services, tasks) =
        (graph.of_kind("AWS::ECS::Service").count(), graph.of_kind("AWS::ECS::TaskDefinition").count());
    if (services, tasks) != (1, 1) {
        findings.on("edge", "AWS::ECS::Service", format!("{services} services and {tasks} tasks, must be one each"));
    }
    for task in graph.of_kind("AWS::ECS::TaskDefinition") {
        if task.texts("/RequiresCompatibilities") != ["FARGATE"] {
            findings.at(task, "/RequiresCompatibilities", "must be FARGATE alone");
        }
        findings.must_be(task, "/NetworkMode", "awsvpc");
        findings.must_be(task, "/RuntimePlatform/CpuArchitecture", "ARM64");
        if !task.list("/Volumes").is_empty() {
            findings.at(task, "/Volumes", "nothing is kept or fetched");
        }
        let containers = task.list("/ContainerDefinitions");
        if containers.len() != 1 {
            findings.at(task, "/ContainerDefinitions", "must be one container");
        }
        for container in containers {
            let text = |pointer: &str| container.pointer(pointer).and_then(scalar).unwrap_or_default();
            let list = |pointer: &str| container.pointer(pointer).map(crate::policy::texts).unwrap_or_default();
            let mut fault = |property: &str, text: String| {
                findings.at(task, &format!("/ContainerDefinitions {property}"), text);
            };
            let digest = text("/Image").split_once("@sha256:").map(|(_, digest)| digest.to_owned()).unwrap_or_default();
            if digest.len() != 64 || !digest.chars().all(|letter| letter.is_ascii_hexdigit()) {
                fault("Image", format!("`{}` is not named by its digest: a tag can be moved", text("/Image")));
            }
            let user = text("/User");
            if user.split(':').next().is_none_or(|user| user.is_empty() || user == "0" || user == "root") {
                fault("User", format!("`{user}` is root"));
            }
            if text("/ReadonlyRootFilesystem") != "true" {
                fault("ReadonlyRootFilesystem", "must be true".to_owned());
            }
            if text("/Privileged") == "true" {
                fault("Privileged", "must be false".to_owned());
            }
            if list("/LinuxParameters/Capabilities/Drop") != ["ALL"]
                || !list("/LinuxParameters/Capabilities/Add").is_empty()
            {
                fault("LinuxParameters", "all capabilities must be dropped".to_owned());
            }
            let health = ["CMD", "cloudflared", "tunnel", "--metrics", "127.0.0.1:20241", "ready"];
            if list("/HealthCheck/Command") != health {
                fault("HealthCheck", format!("must be {}", health.join(" ")));
            }
            for port in container.get("PortMappings").and_then(Value::as_array).into_iter().flatten() {
                fault("PortMappings", format!("{port}: nothing listens"));
            }
            let pairs = |list: &str, value: &str| -> Vec<(String, String)> {
                let items = container.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
                let text = |item: &Value, name: &str| item.get(name).and_then(scalar).unwrap_or_default();
                items.iter().map(|item| (text(item, "Name"), text(item, value))).collect()
            };
            let settings = pairs("Environment", "Value");
            for (name, value) in SETTINGS {
                if !settings.iter().any(|(one, found)| one == name && found == value) {
                    fault(name, format!("must be {value}"));
                }
            }
            for (name, _) in settings.iter().filter(|(name, _)| name.contains("CRED") || name.contains("TOKEN")) {
                fault(name, "must come by ValueFrom".to_owned());
            }
            let secrets = pairs("Secrets", "ValueFrom");
            let ours = |from: &str| from.contains(":ssm:") && from.contains(":parameter/");
            if secrets.len() != 1 || !secrets.iter().all(|(name, from)| name == "TUNNEL_CRED_CONTENTS" && ours(from)) {
                fault("Secrets", "must be TUNNEL_CRED_CONTENTS from one parameter".to_owned());
            }
            let command = [list("/EntryPoint"), list("/Command")].concat().join(" ");
            if !command.contains("--no-autoupdate") {
                fault("Command", "would replace itself by another version".to_owned());
            }
        }
        // What the tunnel itself may do in the account.
        let role = task.text("/TaskRoleArn").unwrap_or_default();
        match graph.find("AWS::IAM::Role", &role) {
            Some(role) if role.list("/Policies").is_empty() && role.list("/ManagedPolicyArns").is_empty() => {}
            _ => findings.at(task, "/TaskRoleArn", "must be a role of ours that may do nothing"),
        }
    }
}

/// Terraform resources there may be. A tunnel or a service token would have its secret in the state.
const TERRAFORM: &[&str] = &[
    "cloudflare_dns_record",
    "cloudflare_ruleset",
    "cloudflare_zero_trust_access_application",
    "cloudflare_zero_trust_access_group",
    "cloudflare_zero_trust_access_policy",
    "cloudflare_zero_trust_device_posture_rule",
];

pub(crate) fn access_applications(graph: &Graph, repository: &Repository, findings: &mut Findings) {
    let mut resources: Vec<(String, String, String, Value)> = Vec::new();
    for (file, source) in &repository.terraform {
        let Some(document) = source.document() else {
            findings.on(file, "HCL", "cannot be read");
            continue;
        };
        for (kind, named) in document.get("resource").and_then(Value::as_object).into_iter().flatten() {
            if !TERRAFORM.contains(&kind.as_str()) {
                findings.on(file, kind, "has no place here");
            }
            for (name, resource) in named.as_object().into_iter().flatten() {
                resources.push((file.clone(), kind.clone(), name.clone(), resource.clone()));
            }
        }
        for block in ["module", "data", "import", "moved"] {
            if document.get(block).is_some() {
                findings.on(file, block, "brings in what does not stand here");
            }
        }
    }
    let of = |kind: &'static str| resources.iter().filter(move |(_, one, _, _)| one == kind);
    let text = |value: &Value, name: &str| value.get(name).and_then(scalar).unwrap_or_default();

    let applications: Vec<_> = of("cloudflare_zero_trust_access_application").collect();
    if applications.len() != 1 {
        findings.on("infra/cloudflare", "applications", "must be one resource, an application for each people host");
    }
    for (file, _, name, application) in applications {
        for (property, expected) in [("for_each", "${var.people}"), ("domain", "${each.key}"), ("type", "self_hosted")]
        {
            if text(application, property) != expected {
                findings.on(file, &format!("{name} {property}"), format!("must be `{expected}`"));
            }
        }
        if text(application, "policies").is_empty() {
            findings.on(file, &format!("{name} policies"), "none");
        }
        for property in ["options_preflight_bypass", "skip_interstitial", "allow_authenticate_via_warp"] {
            if application.get(property).is_some_and(|value| value != &Value::Bool(false)) {
                findings.on(file, &format!("{name} {property}"), "is a way past Access");
            }
        }
    }
    for (file, _, name, policy) in of("cloudflare_zero_trust_access_policy") {
        let decision = text(policy, "decision");
        let tokens = text(policy, "include").contains("service_token");
        let fits = if tokens { decision == "non_identity" } else { decision == "allow" };
        if !fits {
            findings.on(file, &format!("{name} decision"), format!("`{decision}`"));
        }
        if policy.get("include").is_none_or(|include| include.as_array().is_some_and(Vec::is_empty)) {
            findings.on(file, &format!("{name} include"), "includes nobody it names");
        }
    }
    for (file, source) in &repository.terraform {
        let settings: Vec<&str> =
            source.text().lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
        for (i, line) in settings.iter().enumerate() {
            let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let quoted = line.trim_start().starts_with("description") || line.trim_start().starts_with("error_message");
            for word in words.filter(|_| !quoted) {
                if ["bypass", "everyone", "any_valid_service_token"].contains(&word) {
                    findings.on(file, &format!("line {}", i + 1), format!("`{word}` lets in whoever comes"));
                }
                if ["tunnel_secret", "client_secret", "api_token", "api_key"].contains(&word) {
                    findings.on(file, &format!("line {}", i + 1), format!("`{word}` would stand in the state"));
                }
            }
        }
    }
    edge_rules(&resources, repository, findings);
    same_audience(graph, repository, findings);
}

/// The rules that stand before the machine host, which has no Access: limits, and the firewall's.
fn edge_rules(resources: &[(String, String, String, Value)], repository: &Repository, findings: &mut Findings) {
    let hosts = repository.terraform.values().any(|source| {
        source.text().contains("concat(keys(var.people), [var.machines])") && source.text().contains("http.host in {")
    });
    if !hosts {
        findings.on(
            "infra/cloudflare",
            "hosts",
            "the set of all hosts must hold the people hosts and the machine host",
        );
    }
    for (phase, action) in [
        ("http_ratelimit", "block"),
        ("http_request_firewall_custom", "block"),
        ("http_request_transform", "rewrite"),
        ("http_request_cache_settings", "set_cache_settings"),
    ] {
        let ruleset = resources.iter().find(|(_, kind, _, one)| {
            kind == "cloudflare_ruleset" && one.get("phase").and_then(scalar).as_deref() == Some(phase)
        });
        let Some((file, _, name, ruleset)) = ruleset else {
            findings.on("infra/cloudflare", phase, "no rules");
            continue;
        };
        if ruleset.get("count").is_some() || ruleset.get("for_each").is_some() {
            findings.on(file, &format!("{name} count"), "is not always there");
        }
        let rules = ruleset.get("rules").map(Value::to_string).unwrap_or_default();
        if !rules.contains("local.on_hosts") {
            findings.on(file, &format!("{name} rules"), "does not hold on all hosts");
        }
        if !rules.contains(action) || rules.contains("\"skip\"") || rules.contains("\\\"skip\\\"") {
            findings.on(file, &format!("{name} rules"), format!("must {action}"));
        }
    }
}

/// The audience of each host's application is the one that the tunnel demands of it.
fn same_audience(graph: &Graph, repository: &Repository, findings: &mut Findings) {
    let Ok(access) = Access::parse(&repository.access) else {
        findings.on("infra/cloudflare", "access", "cannot be read");
        return;
    };
    let Ok(config) = template::yaml(&repository.tunnel) else {
        findings.on("tunnel configuration", "YAML", "cannot be read");
        return;
    };
    let mut hosts = BTreeSet::new();
    for rule in config.get("ingress").and_then(Value::as_array).into_iter().flatten() {
        let Some(host) = rule.get("hostname").and_then(scalar) else { continue };
        hosts.insert(host.clone());
        let demanded = rule.pointer("/originRequest/access/audTag").map(crate::policy::texts).unwrap_or_default();
        match access.people.get(&host) {
            Some(application) if demanded == [application.aud.as_str()] => {}
            None if host == access.machines && demanded.is_empty() => {}
            _ => findings.on("tunnel configuration", &host, "has no Access application with the audience it demands"),
        }
    }
    for host in access.people.keys().filter(|host| !hosts.contains(*host)) {
        findings.on("tunnel configuration", host, "has an Access application and no rule");
    }
    let stage = graph.outputs.get("api").and_then(|outputs| outputs.get("StageName"));
    if stage != Some(&access.stage) {
        findings.on("infra/cloudflare", "stage", "the edge rewrites to another stage than the API's");
    }
    let served = config.pointer("/ingress/0/service").and_then(scalar).unwrap_or_default();
    if between(&format!("{served}/"), "https://", "/").is_none() {
        findings.on("tunnel configuration", "service", "no https origin");
    }
}

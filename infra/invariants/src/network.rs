//! B. Network: who can reach whom.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use template::{Graph, Resource, scalar};

use crate::{
    Findings,
    exposure::is_gateway,
    house::{DEPLOYMENTS, Service, network, of_function},
    policy::statements,
};

/// One rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    group: String,
    egress: bool,
    protocol: String,
    port: String,
    peer: String,
}

/// Where Cloudflare's side of the tunnel is.
const CLOUDFLARE: [&str; 2] = ["2606:4700:a0::/123", "2606:4700:a8::/123"];

pub(crate) fn exact_edges(graph: &Graph, findings: &mut Findings) {
    let mut found: BTreeMap<Edge, String> = BTreeMap::new();
    for group in graph.of_kind("AWS::EC2::SecurityGroup") {
        // Without a rule of its own a group gets one that allows everything.
        if group.list("/SecurityGroupEgress").is_empty() {
            findings.at(group, "/SecurityGroupEgress", "declares none, and so gets all");
        }
        for (property, egress) in [("/SecurityGroupEgress", true), ("/SecurityGroupIngress", false)] {
            for (i, rule) in group.list(property).into_iter().enumerate() {
                let at = format!("{} {property}/{i}", group.path());
                found.insert(edge(&group.reference, egress, rule), at);
            }
        }
    }
    for (kind, egress) in [("AWS::EC2::SecurityGroupEgress", true), ("AWS::EC2::SecurityGroupIngress", false)] {
        for rule in graph.of_kind(kind) {
            let group = rule.text("/GroupId").unwrap_or_default();
            found.insert(edge(&group, egress, &rule.properties), rule.path());
        }
    }
    let parts = parts(graph);
    let name = |id: &String| parts.get(id).map_or_else(|| id.clone(), |name| (*name).to_owned());
    let expected = expected(graph);
    let impossible = |one: &Edge| one.egress && one.protocol == "-1" && one.peer == "127.0.0.1/32";
    for (one, at) in &found {
        if !expected.contains(one) && !impossible(one) {
            let Edge { egress, protocol, port, .. } = one;
            let arrow = if *egress { "to" } else { "from" };
            let text = format!("{} {arrow} {} {protocol} {port}", name(&one.group), name(&one.peer));
            let (subject, property) = at.split_once(' ').unwrap_or((at, "rule"));
            findings.on(subject, property, format!("{text} is no listed edge"));
        }
    }
    for one in expected.iter().filter(|one| !found.contains_key(*one)) {
        let arrow = if one.egress { "to" } else { "from" };
        let text = format!("{arrow} {} {} {} is missing", name(&one.peer), one.protocol, one.port);
        findings.on(&name(&one.group), "edges", text);
    }
    for list in graph.of_kind("AWS::EC2::PrefixList") {
        let blocks: Vec<String> =
            list.list("/Entries").iter().filter_map(|one| one.get("Cidr").and_then(scalar)).collect();
        if blocks != CLOUDFLARE || list.text("/AddressFamily").as_deref() != Some("IPv6") {
            findings.at(list, "/Entries", format!("{blocks:?} are not Cloudflare's tunnel addresses"));
        }
        if list.text("/MaxEntries").and_then(|most| most.parse::<u8>().ok()).is_none_or(|most| most > 4) {
            findings.at(list, "/MaxEntries", "each counts as a rule of the group, used or not: at most 4");
        }
    }
    for subject in graph.of_kind("AWS::EC2::VPC") {
        let default = subject.attributes.get("DefaultSecurityGroup").and_then(Value::as_str).unwrap_or_default();
        for resource in graph.resources.iter().filter(|one| names(&one.properties, default)) {
            findings.at(resource, "security group", "is the VPC's default one");
        }
    }
}

/// Whether a text stands anywhere in a value.
fn names(value: &Value, text: &str) -> bool {
    match value {
        Value::String(one) => one == text,
        Value::Array(items) => items.iter().any(|item| names(item, text)),
        Value::Object(fields) => fields.values().any(|field| names(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn edge(group: &str, egress: bool, rule: &Value) -> Edge {
    let text = |name: &str| rule.get(name).and_then(scalar);
    let port = match (text("FromPort"), text("ToPort")) {
        (Some(from), Some(to)) if from == to => from,
        (None, None) => "all".to_owned(),
        (from, to) => format!("{}-{}", from.unwrap_or_default(), to.unwrap_or_default()),
    };
    let peers = if egress {
        ["DestinationSecurityGroupId", "DestinationPrefixListId", "CidrIp", "CidrIpv6"]
    } else {
        ["SourceSecurityGroupId", "SourcePrefixListId", "CidrIp", "CidrIpv6"]
    };
    let peer = peers.iter().filter_map(|name| text(name)).collect::<Vec<_>>().join("+");
    Edge { group: group.to_owned(), egress, protocol: text("IpProtocol").unwrap_or_default(), port, peer }
}

/// The security groups by their part in the picture, e.g. `token`, `endpoint kms`.
fn groups(graph: &Graph) -> BTreeMap<String, String> {
    let mut groups = BTreeMap::new();
    let mut put = |name: &str, output: &str| {
        if let [group] = network(graph, output).as_slice() {
            groups.insert(name.to_owned(), (*group).to_owned());
        }
    };
    for deployment in DEPLOYMENTS {
        put(deployment.name, &format!("{}SecurityGroupId", deployment.id));
    }
    put("tunnel", "TunnelSecurityGroupId");
    put("proxy", "ProxySecurityGroupId");
    put("database", "DatabaseSecurityGroupId");
    put("app-link", "AppLinkSecurityGroupId");
    for endpoint in graph.of_kind("AWS::EC2::VPCEndpoint").filter(|one| !is_gateway(one)) {
        if let [group] = endpoint.texts("/SecurityGroupIds").as_slice() {
            groups.insert(format!("endpoint {}", service(endpoint)), group.clone());
        }
    }
    groups
}

fn parts(graph: &Graph) -> BTreeMap<String, String> {
    groups(graph).into_iter().map(|(name, group)| (group, name)).collect()
}

/// `kms` of `com.amazonaws.eu-central-1.kms`.
fn service(endpoint: &Resource) -> String {
    endpoint.text("/ServiceName").and_then(|name| name.rsplit('.').next().map(str::to_owned)).unwrap_or_default()
}

/// All edges there may be and must be, both ends of each.
fn expected(graph: &Graph) -> BTreeSet<Edge> {
    let groups = groups(graph);
    let mut edges = BTreeSet::new();
    let mut out = |from: &str, protocol: &str, port: &str, peer: &str| {
        if let Some(group) = groups.get(from) {
            let (group, protocol) = (group.clone(), protocol.to_owned());
            edges.insert(Edge { group, egress: true, protocol, port: port.to_owned(), peer: peer.to_owned() });
        }
    };
    let s3 = graph.parameter("S3PrefixListId").unwrap_or_default();
    let in_fetch = !network(graph, "FetchSubnetIds").is_empty();
    let proxied = graph.parameter("DbMode") == Some("proxy");
    for list in graph.of_kind("AWS::EC2::PrefixList") {
        out("tunnel", "tcp", "7844", &list.reference);
        out("tunnel", "udp", "7844", &list.reference);
    }
    // Image, layers, logs, the secret and the keys of Access: all by the task's own interface.
    out("tunnel", "tcp", "443", "::/0");
    if in_fetch {
        out("issuer-keys", "tcp", "443", "::/0");
    }
    for deployment in DEPLOYMENTS.iter().filter(|one| one.speaks.contains(&Service::S3)) {
        if deployment.name != "issuer-keys" || in_fetch {
            out(deployment.name, "tcp", "443", s3);
        }
    }
    let mut pairs: Vec<(&str, String, String)> = vec![("tunnel", "endpoint execute-api".to_owned(), "443".to_owned())];
    // The private name of this endpoint catches the tunnel's question for its credentials too.
    pairs.push(("tunnel", "endpoint ssm".to_owned(), "443".to_owned()));
    for deployment in DEPLOYMENTS {
        for (service, name) in [(Service::Kms, "kms"), (Service::Ssm, "ssm"), (Service::Sts, "sts")] {
            if deployment.speaks.contains(&service) {
                pairs.push((deployment.name, format!("endpoint {name}"), "443".to_owned()));
            }
        }
        let database = match deployment.login {
            None => continue,
            Some("portcullis_owner") => "database",
            Some(_) if proxied => "proxy",
            Some(_) => "database",
        };
        pairs.push((deployment.name, database.to_owned(), "5432".to_owned()));
    }
    if proxied {
        pairs.push(("proxy", "database".to_owned(), "5432".to_owned()));
    }
    for (from, to, port) in &pairs {
        if let Some(to) = groups.get(to) {
            out(from, "tcp", port, to);
        }
    }
    let balancer = graph.parameter("AppLoadBalancerSecurityGroupId").unwrap_or_default();
    let app_port = graph.parameter("AppPort").unwrap_or_default();
    if !balancer.is_empty() {
        out("app-link", "tcp", app_port, balancer);
    }
    let target = graph.parameter("TargetDbSecurityGroupId").unwrap_or_default();
    if !target.is_empty() {
        out("data-key-maintain", "tcp", graph.parameter("TargetDbPort").unwrap_or_default(), target);
    }
    let mirrored: Vec<Edge> = edges
        .iter()
        .filter(|one| {
            groups.values().any(|group| *group == one.peer) || [balancer, target].contains(&one.peer.as_str())
        })
        .map(|one| Edge { group: one.peer.clone(), egress: false, peer: one.group.clone(), ..one.clone() })
        .collect();
    edges.extend(mirrored);
    edges
}

pub(crate) fn narrow_endpoints(graph: &Graph, findings: &mut Findings) {
    let work: BTreeSet<String> = network(graph, "WorkSubnetIds").into_iter().map(str::to_owned).collect();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for function in graph.of_kind("AWS::Lambda::Function") {
        for group in function.texts("/VpcConfig/SecurityGroupIds") {
            *used.entry(group).or_default() += 1;
        }
    }
    for endpoint in graph.of_kind("AWS::EC2::VPCEndpoint") {
        for group in endpoint.texts("/SecurityGroupIds") {
            *used.entry(group).or_default() += 1;
        }
    }
    let mut services = BTreeSet::new();
    for endpoint in graph.of_kind("AWS::EC2::VPCEndpoint") {
        let service = service(endpoint);
        if !["s3", "execute-api", "kms", "sts", "ssm"].contains(&service.as_str()) {
            findings.at(endpoint, "/ServiceName", format!("nothing here speaks to `{service}`"));
        }
        if !services.insert(service.clone()) {
            findings.at(endpoint, "/ServiceName", format!("a second endpoint for `{service}`"));
        }
        if is_gateway(endpoint) != (service == "s3") {
            findings.at(endpoint, "/VpcEndpointType", "S3 by a gateway, all others by an interface");
        }
        if !is_gateway(endpoint) {
            let subnets: BTreeSet<String> = endpoint.texts("/SubnetIds").into_iter().collect();
            if subnets != work || work.is_empty() {
                findings.at(endpoint, "/SubnetIds", "must be the subnets of work");
            }
            match endpoint.texts("/SecurityGroupIds").as_slice() {
                [group] if used.get(group) == Some(&1) => {}
                _ => findings.at(endpoint, "/SecurityGroupIds", "must be one group of its own"),
            }
            findings.must_be(endpoint, "/PrivateDnsEnabled", "true");
        }
        if service == "execute-api" {
            // The tunnel has IPv6 only.
            findings.must_be(endpoint, "/IpAddressType", "dualstack");
            findings.must_be(endpoint, "/DnsOptions/DnsRecordIpType", "dualstack");
        }
        endpoint_policy(graph, endpoint, &service, findings);
    }
    for needed in ["s3", "execute-api"] {
        if !services.contains(needed) {
            findings.on("network", "AWS::EC2::VPCEndpoint", format!("none for {needed}"));
        }
    }
}

fn endpoint_policy(graph: &Graph, endpoint: &Resource, service: &str, findings: &mut Findings) {
    let Some(policy) = endpoint.get("/PolicyDocument") else {
        findings.at(endpoint, "/PolicyDocument", "missing, and so allows everything");
        return;
    };
    let place = &graph.place;
    let allows: Vec<_> = statements(policy).into_iter().filter(|one| one.allow).collect();
    if allows.is_empty() {
        findings.at(endpoint, "/PolicyDocument", "allows nothing");
    }
    for allow in allows {
        let at = format!("/PolicyDocument {}", allow.sid());
        let mut fault = |text: &str| findings.at(endpoint, &at, text);
        if allow.actions.is_empty() || allow.actions.iter().any(|action| action.contains('*')) {
            fault("actions must be named");
        }
        if !allow.actions.iter().all(|action| action.starts_with(&format!("{service}:"))) {
            fault("an action of another service");
        }
        if service == "execute-api" {
            let api = graph.of_kind("AWS::ApiGateway::RestApi").next().map(|api| api.reference.as_str());
            let api = api.unwrap_or_default();
            let ours = format!("arn:{}:execute-api:{}:{}:{api}/*", place.partition, place.region, place.account);
            if allow.resources != [ours.as_str()] {
                fault("must be for our API alone");
            }
            // A caller with a bearer token is anonymous to this policy.
            if !allow.conditions.is_empty() || !allow.is_for_everybody() {
                fault("a condition on the caller would lock everybody out");
            }
            continue;
        }
        if !allow.demands("StringEquals", "aws:PrincipalAccount", &[&place.account]) {
            fault("must be for principals of our account");
        }
        let new_key = allow.actions == ["kms:CreateKey"];
        for resource in &allow.resources {
            let ours = match service {
                "s3" => format!("arn:{}:s3:::portcullis-{}-", place.partition, graph.environment),
                "sts" => {
                    format!("arn:{}:iam::{}:role/portcullis-{}-", place.partition, place.account, graph.environment)
                }
                _ => format!("arn:{}:{service}:{}:{}:", place.partition, place.region, place.account),
            };
            let made = new_key && resource == "*";
            if !made && !resource.starts_with(&ours) {
                findings.at(endpoint, &at, format!("`{resource}` is not ours"));
            }
        }
        if allow.resources.is_empty() {
            findings.at(endpoint, &at, "names no resource");
        }
    }
}

pub(crate) fn functions_in_their_tier(graph: &Graph, findings: &mut Findings) {
    let outside = graph.parameter("IssuerKeysNetwork") == Some("lambda-managed");
    let set = |output: &str| network(graph, output).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let (work, fetch) = (set("WorkSubnetIds"), set("FetchSubnetIds"));
    let mut taken = BTreeSet::new();
    for function in graph.of_kind("AWS::Lambda::Function") {
        let Some(deployment) = of_function(graph, function) else {
            findings.at(function, "/FunctionName", "is no deployment of the house");
            continue;
        };
        let mirror = deployment.name == "issuer-keys";
        if mirror && outside {
            if function.get("/VpcConfig").is_some() {
                findings.at(function, "/VpcConfig", "IssuerKeysNetwork says it runs in Lambda's network");
            }
            continue;
        }
        let tier = if mirror { &fetch } else { &work };
        let subnets: BTreeSet<String> = function.texts("/VpcConfig/SubnetIds").into_iter().collect();
        if subnets != *tier || tier.is_empty() {
            let tier = if mirror { "fetch" } else { "work" };
            findings.at(function, "/VpcConfig/SubnetIds", format!("must be the subnets of {tier}"));
        }
        let own = network(graph, &format!("{}SecurityGroupId", deployment.id)).join(",");
        match function.texts("/VpcConfig/SecurityGroupIds").as_slice() {
            [group] if *group == own && taken.insert(group.clone()) => {}
            _ => findings.at(function, "/VpcConfig/SecurityGroupIds", "must be its own group and no other"),
        }
        let ipv6 = function.text("/VpcConfig/Ipv6AllowedForDualStack").as_deref() == Some("true");
        if ipv6 != mirror {
            let text = if mirror { "its only way out is IPv6" } else { "nothing it speaks to is outside" };
            findings.at(function, "/VpcConfig/Ipv6AllowedForDualStack", text);
        }
    }
    let vpcs: BTreeSet<&str> = graph.of_kind("AWS::EC2::VPC").map(|vpc| vpc.reference.as_str()).collect();
    if vpcs.len() != 1 {
        findings.on("network", "AWS::EC2::VPC", format!("{} of them, must be one", vpcs.len()));
    }
    for vpc in graph.of_kind("AWS::EC2::VPC") {
        findings.must_be(vpc, "/EnableDnsSupport", "true");
        findings.must_be(vpc, "/EnableDnsHostnames", "true");
        let watched = graph.of_kind("AWS::EC2::FlowLog").any(|log| {
            log.text("/ResourceId").as_deref() == Some(&vpc.reference)
                && log.text("/TrafficType").as_deref() == Some("ALL")
        });
        if graph.parameter("FlowLogs") != Some("off") && !watched {
            findings.at(vpc, "flow log", "none for all traffic");
        }
    }
}

//! A. Exposure: what could be reached from outside, and what the API lets through.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use template::{Graph, Resource, allowed_types};

use crate::{
    Findings,
    house::{between, network, operations},
    policy::{statements, texts},
};

/// Types that open a door or cost one: on no stack's list, whatever the lists say.
const NEVER: &[&str] = &[
    "AWS::EC2::InternetGateway",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::EC2::NatGateway",
    "AWS::EC2::EIP",
    "AWS::EC2::EIPAssociation",
    "AWS::EC2::CarrierGateway",
    "AWS::EC2::TransitGateway",
    "AWS::EC2::VPCPeeringConnection",
    "AWS::EC2::VPNGateway",
    "AWS::EC2::Instance",
    "AWS::Lambda::Url",
    "AWS::ElasticLoadBalancing::LoadBalancer",
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGateway::DomainName",
    "AWS::CloudFront::Distribution",
    "AWS::GlobalAccelerator::Accelerator",
    "AWS::AppRunner::Service",
    "AWS::Lightsail::Instance",
    "AWS::SecretsManager::Secret",
    "AWS::IAM::User",
    "AWS::IAM::AccessKey",
];

pub(crate) fn known_types(graph: &Graph, findings: &mut Findings) {
    for resource in &graph.resources {
        if NEVER.contains(&resource.kind.as_str()) {
            findings.at(resource, "Type", format!("`{}` is what this deployment never has", resource.kind));
        }
        if !allowed_types(&resource.stack).is_some_and(|types| types.contains(&resource.kind.as_str())) {
            findings.at(resource, "Type", format!("`{}` has no place in this stack", resource.kind));
        }
    }
    for stack in template::STACKS {
        for kind in allowed_types(stack.name).into_iter().flatten().filter(|kind| NEVER.contains(*kind)) {
            findings.on(stack.name, "types", format!("`{kind}` is on the stack's list"));
        }
    }
}

pub(crate) fn one_way_out(graph: &Graph, findings: &mut Findings) {
    let mut tables: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for tier in ["Edge", "Fetch", "Work", "Data"] {
        for subnet in network(graph, &format!("{tier}SubnetIds")) {
            let mut associated = graph
                .of_kind("AWS::EC2::SubnetRouteTableAssociation")
                .filter(|one| one.text("/SubnetId").as_deref() == Some(subnet))
                .filter_map(|one| one.text("/RouteTableId"));
            match (associated.next(), associated.next()) {
                (Some(table), None) => {
                    tables.entry(table).or_default().insert(tier);
                }
                (None, _) => findings.on(subnet, "route table", "the main one, which nobody looks after"),
                (Some(_), Some(_)) => findings.on(subnet, "route table", "more than one"),
            }
        }
    }
    for (table, tiers) in tables.iter().filter(|(_, tiers)| tiers.len() > 1) {
        findings.on(table, "tiers", format!("serves {tiers:?} together"));
    }
    let tier_of = |table: &str| tables.get(table).and_then(|tiers| tiers.iter().next()).copied();
    let mut ways_out = BTreeSet::new();
    for route in graph.of_kind("AWS::EC2::Route") {
        let tier = route.text("/RouteTableId").and_then(|table| tier_of(&table));
        for name in route.properties.as_object().into_iter().flat_map(|all| all.keys()) {
            if !["RouteTableId", "DestinationIpv6CidrBlock", "EgressOnlyInternetGatewayId"].contains(&name.as_str()) {
                findings.at(route, name, "routes lead to the egress-only gateway over IPv6 and nowhere else");
            }
        }
        findings.must_be(route, "/DestinationIpv6CidrBlock", "::/0");
        let gateway = route.text("/EgressOnlyInternetGatewayId").unwrap_or_default();
        if graph.find("AWS::EC2::EgressOnlyInternetGateway", &gateway).is_none() {
            findings.at(route, "EgressOnlyInternetGatewayId", format!("`{gateway}` is no egress-only gateway of ours"));
        }
        match tier {
            Some(tier @ ("Edge" | "Fetch")) => {
                ways_out.insert(tier);
            }
            other => findings.at(route, "RouteTableId", format!("a way out of {}", other.unwrap_or("an unused table"))),
        }
    }
    for tier in tables.values().flatten().filter(|tier| ["Edge", "Fetch"].contains(*tier)) {
        if !ways_out.contains(tier) {
            findings.on("network", tier, "has no way out");
        }
    }
    for endpoint in graph.of_kind("AWS::EC2::VPCEndpoint").filter(|one| is_gateway(one)) {
        let served: BTreeSet<&str> =
            endpoint.texts("/RouteTableIds").iter().filter_map(|table| tier_of(table)).collect();
        // Layers of the tunnel's image come from buckets that this endpoint's policy refuses.
        for tier in served.iter().filter(|tier| !["Work", "Fetch"].contains(*tier)) {
            findings.at(endpoint, "RouteTableIds", format!("serves {tier}"));
        }
    }
}

pub(crate) fn is_gateway(endpoint: &Resource) -> bool {
    endpoint.text("/VpcEndpointType").as_deref() != Some("Interface")
}

pub(crate) fn no_public_address(graph: &Graph, findings: &mut Findings) {
    for subnet in graph.of_kind("AWS::EC2::Subnet") {
        if subnet.text("/Ipv6Native").as_deref() != Some("true") {
            findings.must_be(subnet, "/MapPublicIpOnLaunch", "false");
        } else if subnet.text("/MapPublicIpOnLaunch").as_deref() == Some("true") || subnet.get("/CidrBlock").is_some() {
            findings.at(subnet, "/Ipv6Native", "IPv6 only, and yet with IPv4");
        }
    }
    for service in graph.of_kind("AWS::ECS::Service") {
        findings.must_be(service, "/NetworkConfiguration/AwsvpcConfiguration/AssignPublicIp", "DISABLED");
    }
    for rule in graph.of_kind("AWS::Events::Rule") {
        for target in rule.list("/Targets") {
            if target.pointer("/EcsParameters").is_some() {
                findings.at(rule, "/Targets", "starts a task, which would need a network of its own");
            }
        }
    }
    for database in graph.of_kind("AWS::RDS::DBInstance") {
        findings.must_be(database, "/PubliclyAccessible", "false");
    }
}

pub(crate) fn private_api(graph: &Graph, findings: &mut Findings) {
    let endpoint = network(graph, "ExecuteApiEndpointId").join(",");
    let apis: Vec<&Resource> = graph.of_kind("AWS::ApiGateway::RestApi").collect();
    if apis.len() != 1 {
        findings.on("api", "AWS::ApiGateway::RestApi", format!("{} of them, must be one", apis.len()));
    }
    for api in apis {
        if api.texts("/EndpointConfiguration/Types") != ["PRIVATE"] {
            findings.at(api, "/EndpointConfiguration/Types", "must be PRIVATE alone");
        }
        if endpoint.is_empty() || api.texts("/EndpointConfiguration/VpcEndpointIds") != [endpoint.as_str()] {
            findings.at(api, "/EndpointConfiguration/VpcEndpointIds", "must be our endpoint alone");
        }
        let empty = Value::Null;
        let policy = statements(api.get("/Policy").unwrap_or(&empty));
        let (allows, denies): (Vec<_>, Vec<_>) = policy.iter().partition(|one| one.allow);
        match allows.as_slice() {
            [allow] => {
                let exact = allow.is_for_everybody()
                    && allow.actions == ["execute-api:Invoke"]
                    && allow.resources == ["execute-api:/*"]
                    && allow.conditions.is_empty();
                if !exact {
                    findings.at(
                        api,
                        "/Policy",
                        "the Allow must be execute-api:Invoke on execute-api:/* and nothing else",
                    );
                }
            }
            other => findings.at(api, "/Policy", format!("{} Allows, must be one", other.len())),
        }
        let closed = denies.iter().any(|deny| {
            deny.is_for_everybody()
                && deny.actions == ["execute-api:Invoke"]
                && deny.resources == ["execute-api:/*"]
                && deny.conditions.len() == 1
                && !endpoint.is_empty()
                && deny.demands("StringNotEquals", "aws:SourceVpce", &[&endpoint])
        });
        if !closed {
            // With a Lambda authorizer only explicit denies count before it runs: the Allow alone keeps nobody out.
            findings.at(api, "/Policy", "no Deny for whatever does not come by our endpoint");
        }
        for override_ in ["x-amazon-apigateway-policy", "x-amazon-apigateway-endpoint-configuration"] {
            if api.get(&format!("/Body/{override_}")).is_some() {
                findings.at(api, &format!("/Body/{override_}"), "would stand beside what the template says");
            }
        }
        if graph
            .of_kind("AWS::ApiGateway::Stage")
            .any(|stage| stage.text("/RestApiId").as_deref() != Some(&api.reference))
        {
            findings.at(api, "AWS::ApiGateway::Stage", "a stage of another API");
        }
    }
}

/// The operations without the authorizer. A new one is a new line here.
const OPEN: &[&str] = &[
    "GET /.well-known/jwks.json",
    "GET /.well-known/oauth-authorization-server",
    "GET /.well-known/receipts/jwks.json",
    "GET /health",
    "GET /tickets/{ticket}",
    "POST /oauth2/introspect",
    "POST /oauth2/revoke",
    "POST /oauth2/token",
];

const EXTENSIONS: &[&str] = &[
    "x-portcullis-access",
    "x-portcullis-action",
    "x-portcullis-function",
    "x-portcullis-open",
    "x-portcullis-scopes",
];

pub(crate) fn guarded_routes(graph: &Graph, findings: &mut Findings) {
    let Some(api) = graph.api() else {
        findings.on("api", "Body", "no document");
        return;
    };
    let mut open = BTreeSet::new();
    let mut by_path: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    let mut paths = BTreeSet::new();
    for (route, operation) in operations(graph) {
        let mut fault = |property: &str, text: String| findings.on(&route, property, text);
        for name in operation.as_object().into_iter().flat_map(|fields| fields.keys()) {
            if name.starts_with("x-portcullis-") && !EXTENSIONS.contains(&name.as_str()) {
                fault(name, "is unknown".to_owned());
            }
        }
        let security = operation.get("security").and_then(Value::as_array);
        let guards: Vec<&str> = security
            .into_iter()
            .flatten()
            .flat_map(|one| one.as_object().into_iter().flat_map(|names| names.keys().map(String::as_str)))
            .collect();
        let alternatives = security.map(Vec::len);
        let reason = operation.get("x-portcullis-open").and_then(Value::as_str);
        let guarded = !guards.is_empty();
        let (verb, path) = route.split_once(' ').unwrap_or_default();
        // API Gateway treats a path and its twin with a slash as two; a greedy one covers everything below.
        let twin = path.trim_end_matches('/').trim_end_matches("/{proxy+}").to_owned();
        by_path.entry(format!("{verb} {twin}")).or_default().insert(guarded);
        if !is_plain(path) {
            fault(
                "path",
                "is no path that two readers read alike: small letters, whole parameters, no slash at the end"
                    .to_owned(),
            );
        }
        paths.insert(path.to_owned());
        match reason {
            Some(reason) => {
                if reason.trim().len() < 10 {
                    fault("x-portcullis-open", "no reason".to_owned());
                }
                if guarded || security.is_none() {
                    fault("security", "must be [] where the route is open".to_owned());
                }
                open.insert(route.clone());
            }
            None => {
                if guards != ["gate"] || alternatives != Some(1) {
                    fault("security", format!("{guards:?}, must be the gate and no alternative"));
                }
                for name in
                    ["x-portcullis-action", "x-portcullis-scopes", "x-portcullis-access", "x-portcullis-function"]
                {
                    let absent = match operation.get(name) {
                        Some(Value::Array(items)) => items.is_empty(),
                        Some(Value::String(text)) => text.is_empty(),
                        _ => true,
                    };
                    if absent {
                        fault(name, "missing".to_owned());
                    }
                }
            }
        }
    }
    let listed: BTreeSet<String> = OPEN.iter().map(|&route| route.to_owned()).collect();
    for route in open.difference(&listed) {
        findings.on(route, "x-portcullis-open", "is open, and not on the list of open routes");
    }
    for route in listed.difference(&open) {
        findings.on(route, "x-portcullis-open", "is on the list of open routes, and not there or not open");
    }
    for (path, _) in by_path.iter().filter(|(_, guarded)| guarded.len() > 1) {
        findings.on(path, "security", "one twin of this path is guarded and the other is not");
    }
    one_path_each(&paths, findings);
    let scheme = |pointer: &str| api.pointer(&format!("/components/securitySchemes/gate{pointer}"));
    if scheme("/x-amazon-apigateway-authtype").and_then(Value::as_str) != Some("custom") {
        findings.on("api", "securitySchemes/gate", "is no custom authorizer");
    }
    let uri = scheme("/x-amazon-apigateway-authorizer/authorizerUri").and_then(Value::as_str).unwrap_or_default();
    let function = format!(":function:portcullis-{}-authorizer", graph.environment);
    if !between(uri, "/functions/", "/invocations").is_some_and(|arn| arn.contains(&function)) {
        findings.on("api", "securitySchemes/gate/authorizerUri", format!("`{uri}` is not our authorizer"));
    }
    if api.get("security").is_some() {
        findings.on("api", "security", "API Gateway ignores it at the root");
    }
}

/// Whether a path template has one reading: no capitals, no encoding, no empty segment, a parameter as a whole segment, a greedy one last.
fn is_plain(path: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
    };
    let mut segments = path.split('/').skip(1).peekable();
    let mut plain = path.starts_with('/');
    while let Some(segment) = segments.next() {
        let parameter = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        plain &= match parameter {
            None => word(segment) && !matches!(segment, "." | ".."),
            Some(name) => {
                word(name.strip_suffix('+').unwrap_or(name)) && (!name.ends_with('+') || segments.peek().is_none())
            }
        };
    }
    plain
}

/// No two templates that a request could be taken for: the same but for the names of parameters, or one below the greedy one of another.
fn one_path_each(paths: &BTreeSet<String>, findings: &mut Findings) {
    let shape = |path: &str| -> Vec<String> {
        let segment = |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_lowercase() };
        path.trim_end_matches('/').split('/').map(segment).collect()
    };
    for path in paths {
        let own = shape(path);
        for other in paths.iter().filter(|other| *other != path) {
            let below = path.ends_with("+}") && shape(other).starts_with(own.get(..own.len() - 1).unwrap_or_default());
            if below || shape(other) == own {
                findings.on(other, "path", format!("a request for it could be taken for one of {path}"));
            }
        }
    }
}

pub(crate) fn fresh_decisions(graph: &Graph, findings: &mut Findings) {
    let schemes = graph.api().and_then(|api| api.pointer("/components/securitySchemes")).and_then(Value::as_object);
    for (name, scheme) in schemes.into_iter().flatten() {
        let at = format!("securitySchemes/{name}");
        let Some(authorizer) = scheme.get("x-amazon-apigateway-authorizer") else {
            findings.on("api", &at, "no authorizer");
            continue;
        };
        if authorizer.get("type").and_then(Value::as_str) != Some("request") {
            findings.on("api", &at, "must be of type request: a token authorizer sees one header");
        }
        if authorizer.get("authorizerResultTtlInSeconds").and_then(Value::as_u64) != Some(0) {
            findings.on("api", &at, "authorizerResultTtlInSeconds must be 0, said explicitly: the default is 300 s");
        }
        let source = authorizer.get("identitySource").and_then(Value::as_str).unwrap_or_default();
        if source != "method.request.header.Authorization" {
            findings.on(
                "api",
                &at,
                format!("identity source `{source}`: a listed header that is absent is a 401 before we are asked"),
            );
        }
        if authorizer.get("authorizerCredentials").is_some() {
            findings.on("api", &at, "authorizerCredentials: the permission says who may call, no role does");
        }
    }
    for kind in ["AWS::ApiGateway::Authorizer", "AWS::ApiGatewayV2::Authorizer"] {
        for other in graph.of_kind(kind) {
            findings.at(other, "Type", "the authorizer stands in the document");
        }
    }
}

pub(crate) fn exact_permissions(graph: &Graph, findings: &mut Findings) {
    let api = graph.of_kind("AWS::ApiGateway::RestApi").next().map(|api| api.reference.clone()).unwrap_or_default();
    let stage =
        graph.of_kind("AWS::ApiGateway::Stage").next().and_then(|one| one.text("/StageName")).unwrap_or_default();
    let place = &graph.place;
    let source =
        |rest: &str| format!("arn:{}:execute-api:{}:{}:{api}/{rest}", place.partition, place.region, place.account);
    // Who may be called for what: function in the form it is called, by principal and source.
    let mut wanted: BTreeMap<(String, String, String), bool> = BTreeMap::new();
    for (route, operation) in operations(graph) {
        let uri = operation.pointer("/x-amazon-apigateway-integration/uri").and_then(Value::as_str).unwrap_or_default();
        let Some(function) = between(uri, "/functions/", "/invocations") else { continue };
        let (verb, path) = route.split_once(' ').unwrap_or_default();
        let path =
            path.split('/').map(|part| if part.starts_with('{') { "*" } else { part }).collect::<Vec<_>>().join("/");
        let verb = if verb == "ANY" { "*" } else { verb };
        wanted.insert(
            (name_of(function), "apigateway.amazonaws.com".to_owned(), source(&format!("{stage}/{verb}{path}"))),
            false,
        );
    }
    let uri = graph
        .api()
        .and_then(|api| api.pointer("/components/securitySchemes/gate/x-amazon-apigateway-authorizer/authorizerUri"));
    if let Some(function) = uri.and_then(Value::as_str).and_then(|uri| between(uri, "/functions/", "/invocations")) {
        wanted.insert((name_of(function), "apigateway.amazonaws.com".to_owned(), source("authorizers/*")), false);
    }
    for rule in graph.of_kind("AWS::Events::Rule") {
        for target in rule.list("/Targets") {
            let target = target.get("Arn").and_then(Value::as_str).unwrap_or_default();
            if target.contains(":function:") {
                let arn = rule.arn().unwrap_or_default().to_owned();
                wanted.insert((name_of(target), "events.amazonaws.com".to_owned(), arn), false);
            }
        }
    }
    for permission in graph.of_kind("AWS::Lambda::Permission") {
        findings.must_be(permission, "/Action", "lambda:InvokeFunction");
        findings.must_be(permission, "/SourceAccount", &place.account);
        for name in permission.properties.as_object().into_iter().flat_map(|all| all.keys()) {
            if !["FunctionName", "Action", "Principal", "SourceAccount", "SourceArn"].contains(&name.as_str()) {
                findings.at(permission, name, "has no place in a permission");
            }
        }
        let text = |pointer: &str| permission.text(pointer).unwrap_or_default();
        let key = (name_of(&text("/FunctionName")), text("/Principal"), text("/SourceArn"));
        match wanted.get_mut(&key) {
            Some(met) => *met = true,
            None => {
                let (function, principal, source) = key;
                findings.at(permission, "/SourceArn", format!("{principal} as `{source}` calls `{function}` nowhere"));
            }
        }
    }
    for ((function, principal, source), _) in wanted.iter().filter(|(_, met)| !**met) {
        findings.on(function, "AWS::Lambda::Permission", format!("{principal} may not call it for `{source}`"));
    }
}

/// A function's name with its qualifier, from its name or ARN.
fn name_of(function: &str) -> String {
    function.split_once(":function:").map_or(function, |(_, name)| name).to_owned()
}

/// What an access log may show of the context.
const LOGGED: &[&str] = &[
    "requestId",
    "extendedRequestId",
    "requestTime",
    "requestTimeEpoch",
    "identity.sourceIp",
    "identity.vpceId",
    "httpMethod",
    "resourcePath",
    "stage",
    "protocol",
    "status",
    "responseLatency",
    "responseLength",
    "authorizer.status",
    "authorizer.latency",
    "authorizer.error",
    "authorizer.principalId",
    "integration.status",
    "integration.latency",
    "error.responseType",
    "xrayTraceId",
];

pub(crate) fn quiet_stage(graph: &Graph, findings: &mut Findings) {
    let stages: Vec<&Resource> = graph.of_kind("AWS::ApiGateway::Stage").collect();
    if stages.is_empty() {
        findings.on("api", "AWS::ApiGateway::Stage", "missing");
    }
    for stage in stages {
        findings.must_be(stage, "/TracingEnabled", "true");
        if stage.text("/CacheClusterEnabled").as_deref() == Some("true") {
            findings.at(stage, "/CacheClusterEnabled", "an answer would be given without a decision");
        }
        let log = stage.text("/AccessLogSetting/DestinationArn").unwrap_or_default();
        if graph.find("AWS::Logs::LogGroup", &log).is_none() {
            findings.at(stage, "/AccessLogSetting/DestinationArn", "no log group of ours");
        }
        let format = stage.text("/AccessLogSetting/Format").unwrap_or_default();
        access_log(stage, &format, findings);
        let settings = stage.list("/MethodSettings");
        let all = settings.iter().find(|one| {
            one.get("ResourcePath").and_then(Value::as_str) == Some("/*")
                && one.get("HttpMethod").and_then(Value::as_str) == Some("*")
        });
        if all.is_none() {
            findings.at(stage, "/MethodSettings", "none for all methods of all paths");
        }
        for (i, one) in settings.iter().enumerate() {
            let text = |name: &str| one.get(name).and_then(template::scalar);
            let mut must = |name: &str, allowed: &[&str]| {
                if !allowed.contains(&text(name).unwrap_or_default().as_str()) {
                    findings.at(
                        stage,
                        &format!("/MethodSettings/{i}/{name}"),
                        format!("must be `{}`", allowed.join("` or `")),
                    );
                }
            };
            must("DataTraceEnabled", &["false"]);
            must("CachingEnabled", &["false"]);
            must("LoggingLevel", &["OFF"]);
            for name in ["ThrottlingRateLimit", "ThrottlingBurstLimit"] {
                if !text(name).and_then(|text| text.parse::<f64>().ok()).is_some_and(|limit| limit > 0.0) {
                    findings.at(stage, &format!("/MethodSettings/{i}/{name}"), "no limit");
                }
            }
        }
    }
    gateway_answers(graph, findings);
}

fn access_log(stage: &Resource, format: &str, findings: &mut Findings) {
    // Numbers stand there without quotes: put one in the place of each variable to see whether it is JSON.
    let (mut example, mut rest) = (String::new(), format);
    while let Some((before, after)) = rest.split_once("$context.") {
        example.push_str(before);
        example.push('0');
        let end = after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.').unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        if !LOGGED.contains(&name) {
            findings.at(stage, "/AccessLogSetting/Format", format!("`{name}` is not a field that may be logged"));
        }
        rest = tail;
    }
    example.push_str(rest);
    let parsed = serde_json::from_str::<Value>(&example).ok();
    if parsed.is_none_or(|parsed| parsed.as_object().is_none_or(serde_json::Map::is_empty)) {
        findings.at(stage, "/AccessLogSetting/Format", "is no JSON object");
    }
    if example.contains('$') {
        findings.at(stage, "/AccessLogSetting/Format", "logs more than the context");
    }
}

fn gateway_answers(graph: &Graph, findings: &mut Findings) {
    const NEEDED: &[(&str, &str)] = &[
        ("UNAUTHORIZED", "401"),
        ("ACCESS_DENIED", "403"),
        ("DEFAULT_4XX", ""),
        ("DEFAULT_5XX", ""),
        ("AUTHORIZER_FAILURE", "503"),
        ("AUTHORIZER_CONFIGURATION_ERROR", "503"),
    ];
    let mut answers: BTreeMap<String, Value> = BTreeMap::new();
    let body = graph.api().and_then(|api| api.get("x-amazon-apigateway-gateway-responses")).and_then(Value::as_object);
    for (name, answer) in body.into_iter().flatten() {
        answers.insert(name.clone(), answer.clone());
    }
    for resource in graph.of_kind("AWS::ApiGateway::GatewayResponse") {
        let name = resource.text("/ResponseType").unwrap_or_default();
        let lower = serde_json::json!({
            "statusCode": resource.get("/StatusCode"),
            "responseParameters": resource.get("/ResponseParameters"),
            "responseTemplates": resource.get("/ResponseTemplates"),
        });
        answers.insert(name, lower);
    }
    for (name, status) in NEEDED {
        match answers.get(*name) {
            None => findings.on("api", name, "no gateway response"),
            Some(answer) => {
                let found = answer.get("statusCode").and_then(template::scalar).unwrap_or_default();
                if !status.is_empty() && found != *status {
                    findings.on("api", name, format!("answers {found}, must be {status}"));
                }
            }
        }
    }
    for (name, answer) in &answers {
        let templates: Vec<String> = answer
            .get("responseTemplates")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|all| all.values())
            .flat_map(texts)
            .collect();
        if templates.is_empty() {
            findings.on("api", name, "answers with API Gateway's own text");
        }
        let parameters = answer.get("responseParameters").map(ToString::to_string).unwrap_or_default();
        for text in templates.iter().chain([&parameters]) {
            let mut rest = text.as_str();
            while let Some((_, after)) = rest.split_once('$') {
                if !after.starts_with("context.requestId") {
                    findings.on("api", name, "tells more than the request's id");
                    break;
                }
                rest = after;
            }
        }
    }
}

//! Answers of AWS in the shapes of CloudFormation.

use serde_json::{Map, Value, json};

/// A policy that AWS answers as text; API Gateway escapes its quotes once more.
pub(super) fn policy(answer: Option<&Value>) -> Value {
    let Some(text) = answer.and_then(Value::as_str) else { return answer.cloned().unwrap_or_default() };
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&text.replace("\\\"", "\"").replace("\\/", "/")))
        .unwrap_or_default()
}

/// Names of fields with a capital first letter, as CloudFormation has them and ECS and API Gateway do not. The names inside of
/// a map of a person's words (environment, labels) are no fields, but none of those has lower-case fields of ours.
pub(super) fn capital(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let renamed = fields.iter().map(|(name, field)| {
                let mut letters = name.chars();
                let first = letters.next().map(|letter| letter.to_ascii_uppercase());
                (first.into_iter().chain(letters).collect::<String>(), capital(field))
            });
            Value::Object(renamed.collect())
        }
        Value::Array(items) => items.iter().map(capital).collect(),
        other => other.clone(),
    }
}

/// Rules of a security group, one for each peer.
pub(super) fn rules(group: &Value, egress: bool) -> Vec<Value> {
    let (list, peer_group, peer_list) = if egress {
        ("IpPermissionsEgress", "DestinationSecurityGroupId", "DestinationPrefixListId")
    } else {
        ("IpPermissions", "SourceSecurityGroupId", "SourcePrefixListId")
    };
    let peers = [
        ("IpRanges", "CidrIp", "CidrIp"),
        ("Ipv6Ranges", "CidrIpv6", "CidrIpv6"),
        ("PrefixListIds", "PrefixListId", peer_list),
        ("UserIdGroupPairs", "GroupId", peer_group),
    ];
    let mut rules = Vec::new();
    for permission in items(group, list) {
        for (kind, from, to) in peers {
            for peer in items(permission, kind) {
                let mut rule = Map::new();
                for field in ["IpProtocol", "FromPort", "ToPort"] {
                    if let Some(value) = permission.get(field).filter(|value| !value.is_null()) {
                        rule.insert(field.to_owned(), value.clone());
                    }
                }
                rule.insert(to.to_owned(), peer.get(from).cloned().unwrap_or_default());
                rules.push(Value::Object(rule));
            }
        }
    }
    rules
}

/// A route, unless it is one that every table has or that an endpoint keeps.
pub(super) fn route(table: &str, route: &Value) -> Option<Value> {
    let gateway = route.get("GatewayId").and_then(Value::as_str).unwrap_or_default();
    if gateway == "local" || gateway.starts_with("vpce-") {
        return None;
    }
    let mut properties = Map::new();
    properties.insert("RouteTableId".to_owned(), json!(table));
    for (name, value) in route.as_object().into_iter().flatten() {
        if !["Origin", "State", "InstanceOwnerId"].contains(&name.as_str()) && !value.is_null() {
            properties.insert(name.clone(), value.clone());
        }
    }
    Some(Value::Object(properties))
}

/// An endpoint.
pub(super) fn endpoint(answer: &Value) -> Value {
    let groups: Vec<Value> =
        items(answer, "Groups").into_iter().filter_map(|group| group.get("GroupId").cloned()).collect();
    let mut properties = Map::new();
    for name in ["VpcEndpointType", "ServiceName", "VpcId", "PrivateDnsEnabled", "IpAddressType", "DnsOptions"] {
        if let Some(value) = answer.get(name) {
            properties.insert(name.to_owned(), value.clone());
        }
    }
    for name in ["RouteTableIds", "SubnetIds"] {
        if !items(answer, name).is_empty() {
            properties.insert(name.to_owned(), answer.get(name).cloned().unwrap_or_default());
        }
    }
    if !groups.is_empty() {
        properties.insert("SecurityGroupIds".to_owned(), Value::Array(groups));
    }
    properties.insert("PolicyDocument".to_owned(), policy(answer.get("PolicyDocument")));
    Value::Object(properties)
}

/// What a statement of a function's policy permits.
pub(super) fn permission(statement: &Value) -> Value {
    let condition = |names: [&str; 2]| {
        let operators = statement.get("Condition").and_then(Value::as_object).into_iter().flat_map(Map::values);
        let found = operators.flat_map(|keys| keys.as_object().into_iter().flatten());
        let key = |name: &str| names.iter().any(|one| one.eq_ignore_ascii_case(name));
        found.filter(|(name, _)| key(name)).map(|(_, value)| value.clone()).next()
    };
    let principal = statement.get("Principal").cloned().unwrap_or_default();
    let principal = principal.get("Service").or_else(|| principal.get("AWS")).cloned().unwrap_or(principal);
    let mut properties = Map::new();
    properties.insert("FunctionName".to_owned(), statement.get("Resource").cloned().unwrap_or_default());
    properties.insert("Action".to_owned(), statement.get("Action").cloned().unwrap_or_default());
    properties.insert("Principal".to_owned(), principal);
    for (name, found) in [
        ("SourceArn", condition(["AWS:SourceArn", "aws:SourceArn"])),
        ("SourceAccount", condition(["AWS:SourceAccount", "aws:SourceAccount"])),
    ] {
        if let Some(value) = found {
            properties.insert(name.to_owned(), value);
        }
    }
    Value::Object(properties)
}

/// What a function's configuration says, by the names of CloudFormation.
pub(super) fn function(answer: &Value) -> Vec<(&'static str, Value)> {
    let own = |name: &str| answer.get(name).cloned().unwrap_or_default();
    let inside_a_network = !items(answer.get("VpcConfig").unwrap_or(&Value::Null), "SubnetIds").is_empty();
    let network = match inside_a_network {
        true => {
            let mut network = own("VpcConfig");
            if let Some(fields) = network.as_object_mut() {
                fields.remove("VpcId");
                // False is what the template leaves out.
                if fields.get("Ipv6AllowedForDualStack") == Some(&Value::Bool(false)) {
                    fields.remove("Ipv6AllowedForDualStack");
                }
            }
            network
        }
        false => Value::Null,
    };
    let layers: Vec<Value> =
        items(answer, "Layers").into_iter().filter_map(|layer| layer.get("Arn").cloned()).collect();
    let variables = answer.pointer("/Environment/Variables").cloned();
    vec![
        ("Runtime", own("Runtime")),
        ("Handler", own("Handler")),
        ("Timeout", own("Timeout")),
        ("MemorySize", own("MemorySize")),
        ("Architectures", own("Architectures")),
        ("Role", own("Role")),
        ("TracingConfig", own("TracingConfig")),
        ("LoggingConfig", own("LoggingConfig")),
        ("DeadLetterConfig", own("DeadLetterConfig")),
        ("Environment", variables.map_or(Value::Null, |variables| json!({"Variables": variables}))),
        ("VpcConfig", network),
        ("Layers", if layers.is_empty() { Value::Null } else { Value::Array(layers) }),
    ]
}

/// The settings of a stage, by path and verb, as a list.
pub(super) fn method_settings(stage: &Value) -> Value {
    let settings = stage.get("methodSettings").and_then(Value::as_object);
    let listed = settings.into_iter().flatten().map(|(name, settings)| {
        // `*/*` is all of them; otherwise the path is written with ~1 for each slash.
        let (path, verb) = name.rsplit_once('/').unwrap_or(("*", "*"));
        let path = path.replace("~1", "/");
        let mut fields = capital(settings);
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("ResourcePath".to_owned(), json!(format!("/{}", path.trim_start_matches('/'))));
            fields.insert("HttpMethod".to_owned(), json!(verb));
        }
        fields
    });
    listed.collect()
}

/// The document of a deployed API: its routes and guards as exported, with the words of ours that an export does not keep.
pub(super) fn document(template: &Value, exported: &Value) -> Value {
    let mut document = template.clone();
    let mut paths = Map::new();
    for (path, operations) in exported.get("paths").and_then(Value::as_object).into_iter().flatten() {
        let mut merged = Map::new();
        for (verb, operation) in operations.as_object().into_iter().flatten() {
            if verb == "parameters" {
                continue;
            }
            let mut operation = operation.clone();
            let declared = template.get("paths").and_then(|paths| paths.get(path)?.get(verb));
            if let Some(fields) = operation.as_object_mut() {
                for (name, value) in declared.and_then(Value::as_object).into_iter().flatten() {
                    if name.starts_with("x-portcullis-") {
                        fields.insert(name.clone(), value.clone());
                    }
                }
                // An export leaves out an empty `security`.
                let open = declared
                    .is_some_and(|one| one.get("security").and_then(Value::as_array).is_some_and(Vec::is_empty));
                if open && !fields.contains_key("security") {
                    fields.insert("security".to_owned(), json!([]));
                }
            }
            merged.insert(verb.clone(), operation);
        }
        paths.insert(path.clone(), Value::Object(merged));
    }
    if let Some(fields) = document.as_object_mut() {
        fields.insert("paths".to_owned(), Value::Object(paths));
    }
    document
}

/// The items of a list, none where there is no list.
pub(super) fn items<'v>(value: &'v Value, name: &str) -> Vec<&'v Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_one_rule_for_each_peer() {
        let group = json!({"GroupId": "sg-1", "IpPermissionsEgress": [
            {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [], "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
             "PrefixListIds": [{"PrefixListId": "pl-1"}], "UserIdGroupPairs": [{"GroupId": "sg-2", "UserId": "111122223333"}]},
            {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "127.0.0.1/32"}], "Ipv6Ranges": [], "PrefixListIds": [], "UserIdGroupPairs": []}]});
        assert_eq!(
            rules(&group, true),
            [
                json!({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIpv6": "::/0"}),
                json!({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "DestinationPrefixListId": "pl-1"}),
                json!({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "DestinationSecurityGroupId": "sg-2"}),
                json!({"IpProtocol": "-1", "CidrIp": "127.0.0.1/32"}),
            ]
        );
        assert!(rules(&group, false).is_empty());
    }

    #[test]
    fn policies_are_read_however_they_are_quoted() {
        let plain = json!("{\"Version\":\"2012-10-17\"}");
        let escaped = json!("{\\\"Version\\\":\\\"2012-10-17\\\"}");
        assert_eq!(policy(Some(&plain)), json!({"Version": "2012-10-17"}));
        assert_eq!(policy(Some(&escaped)), json!({"Version": "2012-10-17"}));
        assert_eq!(policy(None), Value::Null);
    }

    #[test]
    fn routes_of_the_network_itself_and_of_endpoints_are_no_ways_out() {
        assert_eq!(
            route("rtb-1", &json!({"DestinationCidrBlock": "10.80.0.0/20", "GatewayId": "local", "State": "active"})),
            None
        );
        assert_eq!(route("rtb-1", &json!({"DestinationPrefixListId": "pl-1", "GatewayId": "vpce-1"})), None);
        assert_eq!(
            route(
                "rtb-1",
                &json!({"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "Origin": "CreateRoute", "State": "active"})
            ),
            Some(json!({"RouteTableId": "rtb-1", "DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}))
        );
    }

    #[test]
    fn a_route_that_only_the_account_has_stands_in_the_document() {
        let template =
            json!({"paths": {"/a": {"get": {"security": [], "x-portcullis-open": "why"}}}, "components": {"x": 1}});
        let exported = json!({"paths": {"/a": {"get": {"responses": {}}}, "/b": {"post": {}}}});
        let document = document(&template, &exported);
        assert_eq!(document["paths"]["/a"]["get"]["x-portcullis-open"], "why");
        assert_eq!(document["paths"]["/a"]["get"]["security"], json!([]));
        assert_eq!(document["paths"]["/b"]["post"], json!({}));
        assert_eq!(document["components"]["x"], 1);
    }
}

//! What is asked of an account, one service after the other.

use std::fs;

use serde_json::{Value, json};

use super::Live;
use super::shape::{self, items};

/// The calls, and the IAM action that each needs: what `docs/deploy/verify-live.md` lists.
pub const CALLS: &[(&str, &str)] = &[
    ("sts get-caller-identity", ""),
    ("cloudformation describe-stacks", "cloudformation:DescribeStacks"),
    ("cloudformation list-stack-resources", "cloudformation:ListStackResources"),
    ("cloudformation get-template", "cloudformation:GetTemplate"),
    ("cloudformation detect-stack-drift", "cloudformation:DetectStackDrift"),
    ("cloudformation describe-stack-drift-detection-status", "cloudformation:DescribeStackDriftDetectionStatus"),
    ("cloudformation describe-stack-resource-drifts", "cloudformation:DescribeStackResourceDrifts"),
    ("ec2 describe-security-groups", "ec2:DescribeSecurityGroups"),
    ("ec2 describe-route-tables", "ec2:DescribeRouteTables"),
    ("ec2 describe-subnets", "ec2:DescribeSubnets"),
    ("ec2 describe-vpc-endpoints", "ec2:DescribeVpcEndpoints"),
    ("ec2 describe-internet-gateways", "ec2:DescribeInternetGateways"),
    ("ec2 describe-nat-gateways", "ec2:DescribeNatGateways"),
    ("ec2 describe-network-interfaces", "ec2:DescribeNetworkInterfaces"),
    ("lambda get-function-configuration", "lambda:GetFunctionConfiguration"),
    ("lambda get-policy", "lambda:GetPolicy"),
    ("lambda list-function-url-configs", "lambda:ListFunctionUrlConfigs"),
    ("iam get-role", "iam:GetRole"),
    ("iam list-role-policies", "iam:ListRolePolicies"),
    ("iam get-role-policy", "iam:GetRolePolicy"),
    ("iam list-attached-role-policies", "iam:ListAttachedRolePolicies"),
    ("kms describe-key", "kms:DescribeKey"),
    ("kms get-key-policy", "kms:GetKeyPolicy"),
    ("kms get-key-rotation-status", "kms:GetKeyRotationStatus"),
    ("kms list-grants", "kms:ListGrants"),
    ("s3api head-object", "s3:GetObject"),
    ("s3api get-bucket-policy", "s3:GetBucketPolicy"),
    ("s3api get-public-access-block", "s3:GetBucketPublicAccessBlock"),
    ("s3api get-bucket-ownership-controls", "s3:GetBucketOwnershipControls"),
    ("s3api get-bucket-encryption", "s3:GetEncryptionConfiguration"),
    ("s3api get-bucket-versioning", "s3:GetBucketVersioning"),
    ("apigateway get-rest-api", "apigateway:GET"),
    ("apigateway get-stage", "apigateway:GET"),
    ("apigateway get-stages", "apigateway:GET"),
    ("apigateway get-export", "apigateway:GET"),
    ("rds describe-db-instances", "rds:DescribeDBInstances"),
    ("rds describe-db-proxies", "rds:DescribeDBProxies"),
    ("ecs describe-services", "ecs:DescribeServices"),
    ("ecs describe-task-definition", "ecs:DescribeTaskDefinition"),
];

impl Live<'_> {
    /// Asks the account about everything that the invariants judge.
    pub fn overlay(&mut self) {
        self.network();
        self.functions();
        self.roles();
        self.keys();
        self.buckets();
        self.api();
        self.databases();
        self.tasks();
        self.beside();
    }

    fn network(&mut self) {
        let Some((_, vpc)) = self.known("AWS::EC2::VPC").into_iter().next() else { return };
        let of_vpc = format!("Name=vpc-id,Values={vpc}");
        if let Some(answer) = self.ask("security groups", &["ec2", "describe-security-groups", "--filters", &of_vpc]) {
            self.security_groups(&answer);
        }
        if let Some(answer) = self.ask("routes", &["ec2", "describe-route-tables", "--filters", &of_vpc]) {
            self.routes(&answer);
        }
        if let Some(answer) = self.ask("subnets", &["ec2", "describe-subnets", "--filters", &of_vpc]) {
            let known = self.known("AWS::EC2::Subnet");
            for subnet in items(&answer, "Subnets") {
                let id = text(subnet, "SubnetId");
                let fields = vec![
                    ("MapPublicIpOnLaunch", subnet.get("MapPublicIpOnLaunch").cloned().unwrap_or_default()),
                    (
                        "Ipv6Native",
                        subnet.get("Ipv6Native").filter(|native| **native == json!(true)).cloned().unwrap_or_default(),
                    ),
                ];
                match known.iter().find(|(_, real)| *real == id) {
                    Some((at, _)) => self.put(*at, fields),
                    None => self.faults.push(format!("the subnet {id} of our network is in no stack")),
                }
            }
        }
        if let Some(answer) = self.ask("endpoints", &["ec2", "describe-vpc-endpoints", "--filters", &of_vpc]) {
            let known = self.known("AWS::EC2::VPCEndpoint");
            for endpoint in items(&answer, "VpcEndpoints") {
                let (id, shaped) = (text(endpoint, "VpcEndpointId"), shape::endpoint(endpoint));
                match known.iter().find(|(_, real)| *real == id) {
                    Some((at, _)) => {
                        let fields = [
                            "VpcEndpointType",
                            "PolicyDocument",
                            "SubnetIds",
                            "SecurityGroupIds",
                            "RouteTableIds",
                            "PrivateDnsEnabled",
                            "IpAddressType",
                            "DnsOptions",
                        ];
                        let fields = fields.map(|name| (name, shaped.get(name).cloned().unwrap_or_default()));
                        self.put(*at, fields.to_vec());
                    }
                    None => self.add("network", &id, "AWS::EC2::VPCEndpoint", &shaped),
                }
            }
        }
        let attached = format!("Name=attachment.vpc-id,Values={vpc}");
        if let Some(answer) = self.ask("gateways", &["ec2", "describe-internet-gateways", "--filters", &attached]) {
            for gateway in items(&answer, "InternetGateways") {
                self.add("network", &text(gateway, "InternetGatewayId"), "AWS::EC2::InternetGateway", &json!({}));
            }
        }
        if let Some(answer) = self.ask("gateways", &["ec2", "describe-nat-gateways", "--filter", &of_vpc]) {
            for gateway in items(&answer, "NatGateways").iter().filter(|one| text(one, "State") != "deleted") {
                self.add("network", &text(gateway, "NatGatewayId"), "AWS::EC2::NatGateway", &json!({}));
            }
        }
        if let Some(answer) = self.ask("interfaces", &["ec2", "describe-network-interfaces", "--filters", &of_vpc]) {
            for interface in items(&answer, "NetworkInterfaces") {
                if let Some(address) = interface.pointer("/Association/PublicIp").and_then(Value::as_str) {
                    let id = text(interface, "NetworkInterfaceId");
                    self.faults.push(format!("the interface {id} has the public address {address}"));
                }
            }
        }
    }

    /// Rules of every group of the network, and that the default group has none.
    fn security_groups(&mut self, answer: &Value) {
        let known = self.known("AWS::EC2::SecurityGroup");
        let balancer = self.graph.parameter("AppLoadBalancerSecurityGroupId").unwrap_or_default().to_owned();
        let mut read = Vec::new();
        for group in items(answer, "SecurityGroups") {
            let id = text(group, "GroupId");
            let (egress, ingress) = (shape::rules(group, true), shape::rules(group, false));
            if text(group, "GroupName") == "default" {
                if egress.len() + ingress.len() > 0 {
                    self.faults.push(format!(
                        "the default security group {id} has {} rules; no template can empty it: aws ec2 revoke-security-group-ingress and -egress",
                        egress.len() + ingress.len()
                    ));
                }
                continue;
            }
            let list = |rules: Vec<Value>| if rules.is_empty() { Value::Null } else { Value::Array(rules) };
            match known.iter().find(|(_, real)| *real == id) {
                Some((at, _)) => {
                    self.put(*at, vec![("SecurityGroupEgress", list(egress)), ("SecurityGroupIngress", list(ingress))]);
                    read.push(id);
                }
                None if id == balancer => {}
                None => self.faults.push(format!("the security group {id} of our network is in no stack")),
            }
        }
        let read: Vec<String> = read.iter().map(|id| self.name_of(id)).collect();
        let is_rule = |kind: &str| matches!(kind, "AWS::EC2::SecurityGroupIngress" | "AWS::EC2::SecurityGroupEgress");
        self.forget(|one| is_rule(&one.kind) && one.text("/GroupId").is_some_and(|group| read.contains(&group)));
    }

    fn routes(&mut self, answer: &Value) {
        self.forget(|one| matches!(one.kind.as_str(), "AWS::EC2::Route" | "AWS::EC2::SubnetRouteTableAssociation"));
        for table in items(answer, "RouteTables") {
            let id = text(table, "RouteTableId");
            for (number, route) in
                items(table, "Routes").iter().filter_map(|route| shape::route(&id, route)).enumerate()
            {
                self.add("network", &format!("{id}/{number}"), "AWS::EC2::Route", &route);
            }
            for association in items(table, "Associations") {
                if let Some(subnet) = association.get("SubnetId") {
                    let properties = json!({"RouteTableId": id, "SubnetId": subnet});
                    let own = text(association, "RouteTableAssociationId");
                    self.add("network", &own, "AWS::EC2::SubnetRouteTableAssociation", &properties);
                }
            }
        }
    }

    fn functions(&mut self) {
        let mut permissions = Vec::new();
        for (at, name) in self.known("AWS::Lambda::Function") {
            let live = ["--function-name", &name, "--qualifier", "live"];
            if let Some(answer) = self.ask(&name, &[&["lambda", "get-function-configuration"][..], &live].concat()) {
                self.put(at, shape::function(&answer));
            }
            // A permission on the function and one on its alias are two policies.
            for qualifier in [&live[..], &live[..2]] {
                if let Some(answer) = self.ask(&name, &[&["lambda", "get-policy"][..], qualifier].concat()) {
                    let policy = shape::policy(answer.get("Policy"));
                    for statement in items(&policy, "Statement") {
                        permissions.push((format!("{name}/{}", text(statement, "Sid")), shape::permission(statement)));
                    }
                }
            }
            if let Some(answer) = self.ask(&name, &["lambda", "list-function-url-configs", "--function-name", &name]) {
                for url in items(&answer, "FunctionUrlConfigs") {
                    self.add(
                        "functions",
                        &text(url, "FunctionUrl"),
                        "AWS::Lambda::Url",
                        &json!({"TargetFunctionArn": name}),
                    );
                }
            }
        }
        // Nothing is forgotten when nothing could be asked.
        if !permissions.is_empty() {
            self.forget(|one| one.kind == "AWS::Lambda::Permission");
            for (id, permission) in permissions {
                let stack = if permission.get("Principal") == Some(&json!("apigateway.amazonaws.com")) {
                    "api"
                } else {
                    "functions"
                };
                self.add(stack, &id, "AWS::Lambda::Permission", &permission);
            }
        }
    }

    fn roles(&mut self) {
        for (at, name) in self.known("AWS::IAM::Role") {
            let of_role = ["--role-name", name.as_str()];
            let Some(role) = self.ask(&name, &[&["iam", "get-role"][..], &of_role].concat()) else { continue };
            let listed = self.ask(&name, &[&["iam", "list-role-policies"][..], &of_role].concat());
            let attached = self.ask(&name, &[&["iam", "list-attached-role-policies"][..], &of_role].concat());
            let (Some(listed), Some(attached)) = (listed, attached) else { continue };
            let mut policies = Vec::new();
            for policy in items(&listed, "PolicyNames").into_iter().filter_map(Value::as_str) {
                let of_policy = [&["iam", "get-role-policy"][..], &of_role, &["--policy-name", policy]].concat();
                if let Some(answer) = self.ask(&name, &of_policy) {
                    let document = shape::policy(answer.get("PolicyDocument"));
                    policies.push(json!({"PolicyName": policy, "PolicyDocument": document}));
                }
            }
            let managed: Vec<Value> = items(&attached, "AttachedPolicies")
                .into_iter()
                .filter_map(|one| one.get("PolicyArn").cloned())
                .collect();
            let list = |items: Vec<Value>| if items.is_empty() { Value::Null } else { Value::Array(items) };
            let boundary =
                role.pointer("/Role/PermissionsBoundary/PermissionsBoundaryArn").cloned().unwrap_or_default();
            self.put(
                at,
                vec![
                    ("AssumeRolePolicyDocument", shape::policy(role.pointer("/Role/AssumeRolePolicyDocument"))),
                    ("Policies", list(policies)),
                    ("ManagedPolicyArns", list(managed)),
                    ("PermissionsBoundary", boundary),
                ],
            );
        }
    }

    fn keys(&mut self) {
        for (at, id) in self.known("AWS::KMS::Key") {
            let of_key = ["--key-id", id.as_str()];
            if let Some(answer) = self.ask(&id, &[&["kms", "describe-key"][..], &of_key].concat())
                && let Some(state) = answer.pointer("/KeyMetadata/KeyState").and_then(Value::as_str)
                && state != "Enabled"
            {
                self.faults.push(format!("the key {id} is {state}"));
            }
            let policy =
                self.ask(&id, &[&["kms", "get-key-policy"][..], &of_key, &["--policy-name", "default"]].concat());
            if let Some(policy) = policy {
                self.put(at, vec![("KeyPolicy", shape::policy(policy.get("Policy")))]);
            }
            if let Some(answer) = self.ask(&id, &[&["kms", "get-key-rotation-status"][..], &of_key].concat()) {
                self.put(
                    at,
                    vec![("EnableKeyRotation", answer.get("KeyRotationEnabled").cloned().unwrap_or_default())],
                );
            }
        }
    }

    fn buckets(&mut self) {
        for (at, name) in self.known("AWS::S3::Bucket") {
            let of_bucket = ["--bucket", name.as_str()];
            let asked = |live: &mut Self, what: &str| live.ask(&name, &[&["s3api", what][..], &of_bucket].concat());
            let before = self.unasked.len();
            let block = asked(self, "get-public-access-block")
                .and_then(|one| one.get("PublicAccessBlockConfiguration").cloned());
            let owners = asked(self, "get-bucket-ownership-controls")
                .and_then(|one| one.pointer("/OwnershipControls/Rules").cloned());
            let sealed = asked(self, "get-bucket-encryption");
            let sealed = sealed.and_then(|one| one.pointer("/ServerSideEncryptionConfiguration/Rules").cloned());
            let versions = asked(self, "get-bucket-versioning").and_then(|one| one.get("Status").cloned());
            if self.unasked.len() == before {
                let sealed =
                    sealed.map(|rules| json!({"ServerSideEncryptionConfiguration": bucket_encryption(&rules)}));
                self.put(
                    at,
                    vec![
                        ("PublicAccessBlockConfiguration", block.unwrap_or_default()),
                        ("OwnershipControls", owners.map(|rules| json!({"Rules": rules})).unwrap_or_default()),
                        ("BucketEncryption", sealed.unwrap_or_default()),
                        (
                            "VersioningConfiguration",
                            versions.map(|status| json!({"Status": status})).unwrap_or_default(),
                        ),
                    ],
                );
            }
            let policy = asked(self, "get-bucket-policy");
            let bucket = self.name_of(&name);
            let of_ours = |one: &template::Resource| {
                one.kind == "AWS::S3::BucketPolicy" && one.text("/Bucket").as_deref() == Some(&bucket)
            };
            let place = self.graph.resources.iter().position(of_ours);
            match (place, policy, self.unasked.len() == before) {
                (Some(place), Some(policy), _) => {
                    self.put(place, vec![("PolicyDocument", shape::policy(policy.get("Policy")))])
                }
                // No policy at all: whatever the template says is not there.
                (Some(place), None, true) => self.put(place, vec![("PolicyDocument", json!({"Statement": []}))]),
                _ => {}
            }
        }
    }

    fn api(&mut self) {
        let Some((at, id)) = self.known("AWS::ApiGateway::RestApi").into_iter().next() else { return };
        if let Some(answer) = self.ask("the API", &["apigateway", "get-rest-api", "--rest-api-id", &id]) {
            // The account answers the full ARN where the template says execute-api:/*.
            let place = &self.graph.place;
            let full = format!("arn:{}:execute-api:{}:{}:{id}/", place.partition, place.region, place.account);
            let policy = shape::policy(answer.get("policy")).to_string().replace(&full, "execute-api:/");
            let endpoints = shape::capital(answer.get("endpointConfiguration").unwrap_or(&Value::Null));
            let policy = serde_json::from_str(&policy).unwrap_or_default();
            self.put(at, vec![("Policy", policy), ("EndpointConfiguration", endpoints)]);
        }
        let Some((stage_at, stage)) = self.known("AWS::ApiGateway::Stage").into_iter().next() else { return };
        let of_stage = ["--rest-api-id", id.as_str(), "--stage-name", stage.as_str()];
        if let Some(answer) = self.ask("the stage", &[&["apigateway", "get-stage"][..], &of_stage].concat()) {
            let own = |name: &str| answer.get(name).cloned().unwrap_or_default();
            self.put(
                stage_at,
                vec![
                    ("TracingEnabled", own("tracingEnabled")),
                    ("CacheClusterEnabled", own("cacheClusterEnabled")),
                    ("AccessLogSetting", shape::capital(&own("accessLogSettings"))),
                    ("MethodSettings", shape::method_settings(&answer)),
                ],
            );
        }
        let folder = self.aws.world().path("target/infra");
        let file = folder.join("live-api.json");
        if let Err(error) = fs::create_dir_all(&folder) {
            self.unasked.push(format!("the routes: {error}"));
            return;
        }
        let path = file.display().to_string();
        // JSON, because the CLI's short form makes a list of two words with a comma.
        let extensions = r#"{"extensions":"integrations,authorizers"}"#;
        let kind = ["--export-type", "oas30", "--accepts", "application/json", "--parameters", extensions, &path];
        if self.ask("the routes", &[&["apigateway", "get-export"][..], &of_stage, &kind].concat()).is_some() {
            let exported = fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
            match exported {
                Some(exported) => {
                    let body =
                        self.graph.resources.get(at).and_then(|api| api.get("/Body")).cloned().unwrap_or_default();
                    let named = self.named(&exported);
                    self.put(at, vec![("Body", shape::document(&body, &named))]);
                }
                None => self.unasked.push("the routes: the export cannot be read".to_owned()),
            }
        }
    }

    fn databases(&mut self) {
        for (at, name) in self.known("AWS::RDS::DBInstance") {
            let Some(answer) = self.ask(&name, &["rds", "describe-db-instances", "--db-instance-identifier", &name])
            else {
                continue;
            };
            let Some(database) = answer.pointer("/DBInstances/0") else { continue };
            let own = |name: &str| database.get(name).cloned().unwrap_or_default();
            let groups: Vec<Value> = items(database, "VpcSecurityGroups")
                .into_iter()
                .filter_map(|one| one.get("VpcSecurityGroupId").cloned())
                .collect();
            self.put(
                at,
                vec![
                    ("StorageEncrypted", own("StorageEncrypted")),
                    ("PubliclyAccessible", own("PubliclyAccessible")),
                    ("EnableIAMDatabaseAuthentication", own("IAMDatabaseAuthenticationEnabled")),
                    ("DeletionProtection", own("DeletionProtection")),
                    ("BackupRetentionPeriod", own("BackupRetentionPeriod")),
                    ("VPCSecurityGroups", Value::Array(groups)),
                ],
            );
        }
        for (at, name) in self.known("AWS::RDS::DBProxy") {
            let Some(answer) = self.ask(&name, &["rds", "describe-db-proxies", "--db-proxy-name", &name]) else {
                continue;
            };
            let Some(proxy) = answer.pointer("/DBProxies/0") else { continue };
            let own = |name: &str| proxy.get(name).cloned().unwrap_or_default();
            let auth = if items(proxy, "Auth").is_empty() { Value::Null } else { own("Auth") };
            self.put(
                at,
                vec![
                    ("RequireTLS", own("RequireTLS")),
                    ("DebugLogging", own("DebugLogging")),
                    ("DefaultAuthScheme", own("DefaultAuthScheme")),
                    ("Auth", auth),
                    ("RoleArn", own("RoleArn")),
                    ("VpcSecurityGroupIds", own("VpcSecurityGroupIds")),
                    ("VpcSubnetIds", own("VpcSubnetIds")),
                ],
            );
        }
    }

    fn tasks(&mut self) {
        let Some((_, cluster)) = self.known("AWS::ECS::Cluster").into_iter().next() else { return };
        for (at, service) in self.known("AWS::ECS::Service") {
            let asked = ["ecs", "describe-services", "--cluster", &cluster, "--services", &service];
            let Some(answer) = self.ask("the tunnel", &asked) else { continue };
            let Some(service) = answer.pointer("/services/0") else { continue };
            let own = |name: &str| shape::capital(service.get(name).unwrap_or(&Value::Null));
            let task = text(service, "taskDefinition");
            self.put(
                at,
                vec![
                    ("DesiredCount", own("desiredCount")),
                    ("LaunchType", own("launchType")),
                    ("EnableExecuteCommand", own("enableExecuteCommand")),
                    ("NetworkConfiguration", own("networkConfiguration")),
                ],
            );
            let Some(answer) = self.ask("the tunnel", &["ecs", "describe-task-definition", "--task-definition", &task])
            else {
                continue;
            };
            let definition = shape::capital(answer.get("taskDefinition").unwrap_or(&Value::Null));
            if let Some((at, _)) = self.known("AWS::ECS::TaskDefinition").into_iter().next() {
                let own = |name: &str| definition.get(name).cloned().unwrap_or_default();
                let role = definition.get("TaskRoleArn").cloned().unwrap_or_default();
                self.put(
                    at,
                    vec![
                        ("ContainerDefinitions", pruned(&own("ContainerDefinitions"))),
                        ("NetworkMode", own("NetworkMode")),
                        ("RuntimePlatform", own("RuntimePlatform")),
                        ("RequiresCompatibilities", own("RequiresCompatibilities")),
                        ("TaskRoleArn", role),
                    ],
                );
            }
        }
    }

    /// What the graph calls an id of the account.
    fn name_of(&self, id: &str) -> String {
        self.named(&Value::String(id.to_owned())).as_str().unwrap_or_default().to_owned()
    }
}

/// Encryption as CloudFormation writes it.
fn bucket_encryption(rules: &Value) -> Value {
    let rule = |rule: &Value| {
        let mut out = serde_json::Map::new();
        if let Some(default) = rule.get("ApplyServerSideEncryptionByDefault") {
            out.insert("ServerSideEncryptionByDefault".to_owned(), default.clone());
        }
        if let Some(key) = rule.get("BucketKeyEnabled") {
            out.insert("BucketKeyEnabled".to_owned(), key.clone());
        }
        Value::Object(out)
    };
    rules.as_array().into_iter().flatten().map(rule).collect()
}

/// Without the empty lists that ECS answers for what nobody said.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(pruned).collect(),
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, field)| !field.as_array().is_some_and(Vec::is_empty));
            Value::Object(kept.map(|(name, field)| (name.clone(), pruned(field))).collect())
        }
        other => other.clone(),
    }
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

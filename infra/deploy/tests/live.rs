//! `verify-live` against an account that is made of the templates: each answer in the shape that AWS documents, with ids as
//! AWS gives them. Then somebody changes the account.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use deploy::command::{Exit, run};
use deploy::world::{Answer, Call, Clock, Console, Programs, World};
use serde_json::{Map, Value, json};
use template::{Documents, Graph, Place, Resource};

const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";

/// Changes one answer: the call as text, and the answer. A text is the code of a refusal.
type Meddling = fn(&str, &mut Value);

struct Account {
    graph: Graph,
    documents: Documents,
    meddling: Meddling,
    said: RefCell<Vec<String>>,
    calls: RefCell<Vec<(String, Value)>>,
    lines: RefCell<Vec<Vec<String>>>,
}

impl Account {
    fn new(profile: &str, meddling: Meddling) -> Self {
        let folder = house().join("infra/aws");
        let documents = Documents::read(&folder).unwrap();
        let text = fs::read_to_string(folder.join(format!("profiles/{profile}.yaml"))).unwrap();
        let profile = deploy::cost::asked(template::Profile::read(&text).unwrap().parameters);
        let names = documents.graph(&profile, &Place::new(ACCOUNT, REGION)).unwrap();
        let mut place = Place::new(ACCOUNT, REGION);
        for (number, resource) in names.resources.iter().enumerate() {
            if resource.reference.starts_with('<') {
                let id = physical(resource, number);
                place.physical.insert((resource.stack.clone(), resource.id.clone()), id);
            }
        }
        let graph = documents.graph(&profile, &place).unwrap();
        Self {
            graph,
            documents,
            meddling,
            said: RefCell::default(),
            calls: RefCell::default(),
            lines: RefCell::default(),
        }
    }

    /// Runs `verify-live` and answers its exit and what it said.
    fn verify(&self) -> (Exit, String) {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir_all(scratch.path().join("infra")).unwrap();
        std::os::unix::fs::symlink(house().join("infra/aws"), scratch.path().join("infra/aws")).unwrap();
        let environment = BTreeMap::new();
        let world =
            World { root: scratch.path(), environment: &environment, programs: self, clock: self, console: self };
        let line = ["verify-live", "ENV=prod", "REGION=us-east-1"].map(str::to_owned);
        let exit = run(world, &line);
        (exit, self.said.borrow().join("\n"))
    }

    fn stack(&self, name: &str) -> Option<&str> {
        let part = name.strip_prefix("portcullis-prod-")?;
        self.graph.parameters.get_key_value(part).map(|(name, _)| name.as_str())
    }

    fn of(&self, kind: &'static str) -> Vec<&Resource> {
        self.graph.of_kind(kind).collect()
    }

    fn by_reference(&self, kind: &'static str, reference: &str) -> &Resource {
        self.graph
            .of_kind(kind)
            .find(|one| one.reference == reference)
            .unwrap_or_else(|| panic!("no {kind} {reference}"))
    }

    fn answer(&self, call: &[String]) -> Option<Value> {
        let option = |name: &str| call.iter().position(|one| one == name).map(|at| call[at + 1].clone());
        let stack = || option("--stack-name").and_then(|name| self.stack(&name).map(str::to_owned));
        let function = || option("--function-name").unwrap();
        let pairs = |all: Option<&BTreeMap<String, String>>, name: &str, value: &str| -> Vec<Value> {
            all.into_iter().flatten().map(|(k, v)| json!({name: k, value: v})).collect()
        };
        let operation = format!("{} {}", call[0], call[1]);
        Some(match operation.as_str() {
            "sts get-caller-identity" => {
                json!({"UserId": "AIDAEXAMPLE", "Account": ACCOUNT, "Arn": format!("arn:aws:iam::{ACCOUNT}:user/ann")})
            }
            "cloudformation describe-stacks" => {
                let stack = stack()?;
                json!({"Stacks": [{
                    "StackName": option("--stack-name"), "StackStatus": "UPDATE_COMPLETE", "CreationTime": "2026-01-01T00:00:00Z",
                    "Outputs": pairs(self.graph.outputs.get(&stack), "OutputKey", "OutputValue"),
                    "Parameters": pairs(self.graph.parameters.get(&stack), "ParameterKey", "ParameterValue"),
                }]})
            }
            "cloudformation get-template" => {
                let document = self.documents.template(&stack()?).unwrap();
                // The CLI answers a YAML template as text and a JSON one as a document.
                let yaml = self.graph.parameter("DbMode") == Some("direct");
                let body = if yaml { json!(serde_yaml_ng::to_string(&document).unwrap()) } else { document };
                json!({"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]})
            }
            "cloudformation list-stack-resources" => {
                let stack = stack()?;
                let own = self.graph.resources.iter().filter(|one| one.stack == stack);
                let listed: Vec<Value> = own
                    .map(|one| json!({"LogicalResourceId": one.id, "PhysicalResourceId": one.reference, "ResourceType": one.kind,
                        "ResourceStatus": "CREATE_COMPLETE", "LastUpdatedTimestamp": "2026-01-01T00:00:00Z"}))
                    .collect();
                json!({"StackResourceSummaries": listed})
            }
            "cloudformation detect-stack-drift" => json!({"StackDriftDetectionId": "d-1"}),
            "cloudformation describe-stack-drift-detection-status" => {
                json!({"StackId": "s", "StackDriftDetectionId": "d-1", "DetectionStatus": "DETECTION_COMPLETE", "Timestamp": "2026-01-01T00:00:00Z"})
            }
            "cloudformation describe-stack-resource-drifts" => json!({"StackResourceDrifts": []}),
            "ec2 describe-security-groups" => self.security_groups(),
            "ec2 describe-route-tables" => self.route_tables(),
            "ec2 describe-subnets" => {
                let listed: Vec<Value> = self
                    .of("AWS::EC2::Subnet")
                    .into_iter()
                    .map(|one| {
                        json!({
                            "SubnetId": one.reference,
                            "MapPublicIpOnLaunch": one.get("/MapPublicIpOnLaunch").cloned().unwrap_or(json!(false)),
                            "Ipv6Native": one.get("/Ipv6Native").cloned().unwrap_or(json!(false)),
                        })
                    })
                    .collect();
                json!({"Subnets": listed})
            }
            "ec2 describe-vpc-endpoints" => self.endpoints(),
            "ec2 describe-internet-gateways" => json!({"InternetGateways": []}),
            "ec2 describe-nat-gateways" => json!({"NatGateways": []}),
            "ec2 describe-network-interfaces" => json!({"NetworkInterfaces": [{"NetworkInterfaceId": "eni-1"}]}),
            "lambda get-function-configuration" => {
                let one = self.by_reference("AWS::Lambda::Function", &function());
                let own = |name: &str| one.properties.get(name).cloned().unwrap_or_default();
                let mut network = own("VpcConfig");
                if let Some(fields) = network.as_object_mut() {
                    fields.insert("VpcId".to_owned(), json!(self.of("AWS::EC2::VPC")[0].reference));
                    fields.entry("Ipv6AllowedForDualStack").or_insert(json!(false));
                }
                let mut answer = json!({
                    "FunctionName": function(), "Runtime": own("Runtime"), "Handler": own("Handler"), "Timeout": own("Timeout"),
                    "MemorySize": own("MemorySize"), "Architectures": own("Architectures"), "Role": own("Role"), "CodeSize": 1,
                    "TracingConfig": own("TracingConfig"), "LoggingConfig": own("LoggingConfig"), "Environment": own("Environment"),
                    "VpcConfig": network, "DeadLetterConfig": own("DeadLetterConfig"), "State": "Active", "Version": "1", "CodeSha256": "c2FtZQ==",
                });
                answer.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                answer
            }
            "lambda get-policy" => {
                // The policy of the alias has all statements, that of the function none.
                option("--qualifier")?;
                let name = format!(":function:{}:", function());
                // A template may name a function short; AWS answers its ARN.
                let full = |one: &Resource| match one.text("/FunctionName").unwrap() {
                    arn if arn.starts_with("arn:") => arn,
                    name => format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"),
                };
                let statements: Vec<Value> = self.of("AWS::Lambda::Permission").into_iter()
                    .filter(|one| format!("{}:", full(one)).contains(&name))
                    .map(|one| json!({
                        "Sid": one.id, "Effect": "Allow", "Principal": {"Service": one.text("/Principal")}, "Action": one.text("/Action"),
                        "Resource": full(one),
                        "Condition": {"StringEquals": {"AWS:SourceAccount": one.text("/SourceAccount")}, "ArnLike": {"AWS:SourceArn": one.text("/SourceArn")}},
                    }))
                    .collect();
                if statements.is_empty() {
                    return None;
                }
                json!({"Policy": json!({"Version": "2012-10-17", "Id": "default", "Statement": statements}).to_string(), "RevisionId": "r"})
            }
            "lambda list-function-url-configs" => json!({"FunctionUrlConfigs": []}),
            "iam get-role" => {
                let one = self.by_reference("AWS::IAM::Role", &option("--role-name").unwrap());
                let boundary = one.text("/PermissionsBoundary");
                json!({"Role": {"RoleName": one.reference, "Path": "/", "RoleId": "AROAEXAMPLE", "Arn": one.arn(), "CreateDate": "2026-01-01T00:00:00Z",
                    "AssumeRolePolicyDocument": one.get("/AssumeRolePolicyDocument"),
                    "PermissionsBoundary": boundary.map(|arn| json!({"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": arn}))}})
            }
            "iam list-role-policies" => {
                let one = self.by_reference("AWS::IAM::Role", &option("--role-name").unwrap());
                let names: Vec<Value> =
                    one.list("/Policies").into_iter().map(|policy| policy["PolicyName"].clone()).collect();
                json!({"PolicyNames": names})
            }
            "iam get-role-policy" => {
                let one = self.by_reference("AWS::IAM::Role", &option("--role-name").unwrap());
                let name = option("--policy-name").unwrap();
                let policy =
                    one.list("/Policies").into_iter().find(|policy| policy["PolicyName"] == json!(name)).unwrap();
                json!({"RoleName": one.reference, "PolicyName": name, "PolicyDocument": policy["PolicyDocument"]})
            }
            "iam list-attached-role-policies" => {
                let one = self.by_reference("AWS::IAM::Role", &option("--role-name").unwrap());
                let attached: Vec<Value> = one
                    .texts("/ManagedPolicyArns")
                    .into_iter()
                    .map(|arn| json!({"PolicyName": arn.rsplit('/').next(), "PolicyArn": arn}))
                    .collect();
                json!({"AttachedPolicies": attached})
            }
            "kms list-grants" => json!({"Grants": [], "Truncated": false}),
            "s3api head-object" => json!({"ContentLength": 1, "ChecksumSHA256": "c2FtZQ=="}),
            "apigateway get-stages" => {
                json!({"item": [{"stageName": self.of("AWS::ApiGateway::Stage")[0].text("/StageName"), "deploymentId": "dep123"}]})
            }
            "kms describe-key" => json!({"KeyMetadata": {"KeyId": option("--key-id"), "KeyState": "Enabled"}}),
            "kms get-key-policy" => {
                let one = self.by_reference("AWS::KMS::Key", &option("--key-id").unwrap());
                json!({"Policy": one.get("/KeyPolicy").unwrap().to_string(), "PolicyName": "default"})
            }
            "kms get-key-rotation-status" => {
                let one = self.by_reference("AWS::KMS::Key", &option("--key-id").unwrap());
                json!({"KeyRotationEnabled": one.get("/EnableKeyRotation").cloned().unwrap_or(json!(false))})
            }
            "s3api get-public-access-block" => {
                json!({"PublicAccessBlockConfiguration": self.bucket(&option("--bucket")?).get("/PublicAccessBlockConfiguration")})
            }
            "s3api get-bucket-ownership-controls" => {
                json!({"OwnershipControls": self.bucket(&option("--bucket")?).get("/OwnershipControls")})
            }
            "s3api get-bucket-encryption" => {
                let rules: Vec<Value> = self.bucket(&option("--bucket")?).list("/BucketEncryption/ServerSideEncryptionConfiguration").into_iter()
                    .map(|rule| json!({"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"], "BucketKeyEnabled": rule.get("BucketKeyEnabled").cloned().unwrap_or(json!(false))}))
                    .collect();
                json!({"ServerSideEncryptionConfiguration": {"Rules": rules}})
            }
            "s3api get-bucket-versioning" => {
                let status = self.bucket(&option("--bucket")?).get("/VersioningConfiguration/Status").cloned();
                status.map_or(Value::Null, |status| json!({"Status": status}))
            }
            "s3api get-bucket-policy" => {
                let bucket = option("--bucket")?;
                let policy = self
                    .graph
                    .of_kind("AWS::S3::BucketPolicy")
                    .find(|one| one.text("/Bucket") == Some(bucket.clone()))?;
                json!({"Policy": policy.get("/PolicyDocument").unwrap().to_string()})
            }
            "apigateway get-rest-api" => {
                let api = self.of("AWS::ApiGateway::RestApi")[0];
                // As API Gateway answers: quotes escaped once more, the API's own ARN written out.
                let full = format!("arn:aws:execute-api:{REGION}:{ACCOUNT}:{}/*", api.reference);
                let policy =
                    api.get("/Policy").unwrap().to_string().replace("execute-api:/*", &full).replace('"', "\\\"");
                json!({"id": api.reference, "name": "portcullis-prod", "policy": policy, "endpointConfiguration": {
                    "types": api.get("/EndpointConfiguration/Types"), "vpcEndpointIds": api.get("/EndpointConfiguration/VpcEndpointIds"),
                    "ipAddressType": api.get("/EndpointConfiguration/IpAddressType")}})
            }
            "apigateway get-stage" => {
                let stage = self.of("AWS::ApiGateway::Stage")[0];
                let mut settings = Map::new();
                for one in stage.list("/MethodSettings") {
                    let path = one["ResourcePath"].as_str().unwrap().trim_start_matches('/').replace('/', "~1");
                    let mut fields = lower(one);
                    fields.as_object_mut().unwrap().retain(|name, _| name != "resourcePath" && name != "httpMethod");
                    for name in ["throttlingRateLimit", "throttlingBurstLimit"] {
                        fields[name] = number(&fields[name]);
                    }
                    settings.insert(format!("{path}/{}", one["HttpMethod"].as_str().unwrap()), fields);
                }
                json!({"stageName": stage.text("/StageName"), "deploymentId": "dep123", "tracingEnabled": stage.get("/TracingEnabled"),
                    "cacheClusterEnabled": stage.get("/CacheClusterEnabled").cloned().unwrap_or(json!(false)),
                    "accessLogSettings": lower(stage.get("/AccessLogSetting").unwrap()), "methodSettings": settings})
            }
            "apigateway get-export" => {
                let mut body = self.of("AWS::ApiGateway::RestApi")[0].get("/Body").unwrap().clone();
                for operation in body["paths"]
                    .as_object_mut()
                    .unwrap()
                    .values_mut()
                    .flat_map(|path| path.as_object_mut().unwrap().values_mut())
                {
                    if let Some(fields) = operation.as_object_mut() {
                        let left_out = |name: &str, value: &Value| {
                            name.starts_with("x-portcullis-") || (name == "security" && value == &json!([]))
                        };
                        fields.retain(|name, value| !left_out(name, value));
                    }
                }
                (self.meddling)("the document", &mut body);
                let file = &call[call.iter().position(|one| one == "--output").unwrap() - 1];
                fs::write(file, body.to_string()).unwrap();
                json!({"contentType": "application/octet-stream", "contentDisposition": "attachment"})
            }
            "rds describe-db-instances" => {
                let one = self.by_reference("AWS::RDS::DBInstance", &option("--db-instance-identifier")?);
                let own = |name: &str| one.get(&format!("/{name}")).cloned().unwrap_or_default();
                let groups: Vec<Value> = one
                    .texts("/VPCSecurityGroups")
                    .into_iter()
                    .map(|id| json!({"VpcSecurityGroupId": id, "Status": "active"}))
                    .collect();
                json!({"DBInstances": [{"DBInstanceIdentifier": one.reference, "StorageEncrypted": own("StorageEncrypted"), "PubliclyAccessible": own("PubliclyAccessible"),
                    "IAMDatabaseAuthenticationEnabled": own("EnableIAMDatabaseAuthentication"), "DeletionProtection": own("DeletionProtection"),
                    "BackupRetentionPeriod": number(&own("BackupRetentionPeriod")), "VpcSecurityGroups": groups}]})
            }
            "rds describe-db-proxies" => {
                let one = self.by_reference("AWS::RDS::DBProxy", &option("--db-proxy-name")?);
                let own = |name: &str| one.get(&format!("/{name}")).cloned().unwrap_or_default();
                json!({"DBProxies": [{"DBProxyName": one.reference, "RequireTLS": own("RequireTLS"), "DebugLogging": own("DebugLogging"),
                    "DefaultAuthScheme": own("DefaultAuthScheme"), "Auth": [], "RoleArn": own("RoleArn"),
                    "VpcSecurityGroupIds": own("VpcSecurityGroupIds"), "VpcSubnetIds": own("VpcSubnetIds")}]})
            }
            "ecs describe-services" => {
                let one = self.of("AWS::ECS::Service")[0];
                let own = |name: &str| lower(&one.get(&format!("/{name}")).cloned().unwrap_or_default());
                json!({"services": [{"serviceArn": one.reference, "desiredCount": number(&own("DesiredCount")), "launchType": own("LaunchType"),
                    "enableExecuteCommand": own("EnableExecuteCommand"), "networkConfiguration": own("NetworkConfiguration"),
                    "taskDefinition": one.text("/TaskDefinition")}]})
            }
            "ecs describe-task-definition" => {
                let one = self.of("AWS::ECS::TaskDefinition")[0];
                let mut definition = lower(&one.properties);
                for container in definition["containerDefinitions"].as_array_mut().unwrap() {
                    // What nobody said comes back as empty lists.
                    container["mountPoints"] = json!([]);
                    container["volumesFrom"] = json!([]);
                }
                json!({"taskDefinition": definition})
            }
            other => panic!("verify-live asked `{other}`, which is not in its list of calls"),
        })
    }

    fn bucket(&self, name: &str) -> &Resource {
        self.by_reference("AWS::S3::Bucket", name)
    }

    fn security_groups(&self) -> Value {
        let permission = |rule: &Value, egress: bool| {
            let (group, list) = if egress {
                ("DestinationSecurityGroupId", "DestinationPrefixListId")
            } else {
                ("SourceSecurityGroupId", "SourcePrefixListId")
            };
            let peers = |name: &str, field: &str| rule.get(name).map_or(json!([]), |peer| json!([{field: peer}]));
            let mut answer = json!({"IpProtocol": rule["IpProtocol"], "IpRanges": peers("CidrIp", "CidrIp"), "Ipv6Ranges": peers("CidrIpv6", "CidrIpv6"),
                "PrefixListIds": peers(list, "PrefixListId"), "UserIdGroupPairs": peers(group, "GroupId")});
            for port in ["FromPort", "ToPort"] {
                if let Some(value) = rule.get(port).and_then(template::scalar) {
                    answer[port] = json!(value.parse::<u16>().unwrap());
                }
            }
            answer
        };
        let mut listed = vec![
            json!({"GroupId": "sg-0default0default", "GroupName": "default", "IpPermissions": [], "IpPermissionsEgress": []}),
        ];
        for group in self.of("AWS::EC2::SecurityGroup") {
            let rules = |property: &str, kind: &'static str, egress: bool| -> Vec<Value> {
                let own = group.list(property).into_iter().cloned();
                let others = self
                    .of(kind)
                    .into_iter()
                    .filter(|one| one.text("/GroupId").as_ref() == Some(&group.reference))
                    .map(|one| one.properties.clone());
                own.chain(others).map(|rule| permission(&rule, egress)).collect()
            };
            listed.push(json!({"GroupId": group.reference, "GroupName": group.id,
                "IpPermissions": rules("/SecurityGroupIngress", "AWS::EC2::SecurityGroupIngress", false),
                "IpPermissionsEgress": rules("/SecurityGroupEgress", "AWS::EC2::SecurityGroupEgress", true)}));
        }
        json!({"SecurityGroups": listed})
    }

    fn route_tables(&self) -> Value {
        let tables = self.of("AWS::EC2::RouteTable").into_iter().map(|table| {
            let mut routes = vec![
                json!({"DestinationCidrBlock": "10.80.0.0/20", "GatewayId": "local", "Origin": "CreateRouteTable", "State": "active"}),
                json!({"DestinationPrefixListId": "pl-0123456789abcdef0", "GatewayId": "vpce-0123456789abcdef0", "Origin": "CreateRoute", "State": "active"}),
            ];
            for route in self.of("AWS::EC2::Route").into_iter().filter(|one| one.text("/RouteTableId").as_ref() == Some(&table.reference)) {
                let mut answer = route.properties.clone();
                answer.as_object_mut().unwrap().remove("RouteTableId");
                answer["Origin"] = json!("CreateRoute");
                answer["State"] = json!("active");
                routes.push(answer);
            }
            let associations: Vec<Value> = self.of("AWS::EC2::SubnetRouteTableAssociation").into_iter()
                .filter(|one| one.text("/RouteTableId").as_ref() == Some(&table.reference))
                .map(|one| json!({"Main": false, "RouteTableAssociationId": one.reference, "RouteTableId": table.reference, "SubnetId": one.text("/SubnetId")}))
                .collect();
            json!({"RouteTableId": table.reference, "Routes": routes, "Associations": associations})
        });
        let main = json!({"RouteTableId": "rtb-0main0main0main00", "Associations": [{"Main": true, "RouteTableAssociationId": "rtbassoc-main", "RouteTableId": "rtb-0main0main0main00"}],
            "Routes": [{"DestinationCidrBlock": "10.80.0.0/20", "GatewayId": "local", "Origin": "CreateRouteTable", "State": "active"}]});
        json!({"RouteTables": tables.chain([main]).collect::<Vec<_>>()})
    }

    fn endpoints(&self) -> Value {
        let listed: Vec<Value> = self.of("AWS::EC2::VPCEndpoint").into_iter().map(|one| {
            let own = |name: &str| one.get(&format!("/{name}")).cloned();
            let groups: Vec<Value> = one.texts("/SecurityGroupIds").into_iter().map(|id| json!({"GroupId": id, "GroupName": "g"})).collect();
            let list = |name: &str| own(name).unwrap_or(json!([]));
            json!({"VpcEndpointId": one.reference, "VpcEndpointType": one.text("/VpcEndpointType").unwrap_or("Gateway".to_owned()), "ServiceName": own("ServiceName"),
                "PolicyDocument": own("PolicyDocument").unwrap().to_string(), "RouteTableIds": list("RouteTableIds"), "SubnetIds": list("SubnetIds"), "Groups": groups,
                "PrivateDnsEnabled": own("PrivateDnsEnabled").unwrap_or(json!(false)), "IpAddressType": own("IpAddressType").unwrap_or(json!("ipv4")),
                "DnsOptions": own("DnsOptions").unwrap_or(json!({"DnsRecordIpType": "ipv4"}))})
        }).collect();
        json!({"VpcEndpoints": listed})
    }
}

impl Programs for Account {
    fn run(&self, call: &Call) -> io::Result<Answer> {
        let operation = format!("{} {}", call.arguments[0], call.arguments[1]);
        assert!(
            deploy::live::CALLS.iter().any(|(known, _)| *known == operation),
            "`{operation}` is not in the list of calls"
        );
        let Some(mut answer) = self.answer(&call.arguments) else {
            let code =
                if operation.starts_with("cloudformation") { "ValidationError" } else { "ResourceNotFoundException" };
            let stderr = format!("\nAn error occurred ({code}) when calling the X operation: it does not exist\n");
            return Ok(Answer { status: 254, stderr, ..Answer::default() });
        };
        self.lines.borrow_mut().push(call.arguments.clone());
        (self.meddling)(&call.arguments.join(" "), &mut answer);
        if let Some(code) = answer.as_str() {
            let stderr =
                format!("\nAn error occurred ({code}) when calling the X operation: does not exist, or may not\n");
            return Ok(Answer { status: 254, stderr, ..Answer::default() });
        }
        self.calls.borrow_mut().push((operation, answer.clone()));
        Ok(Answer { stdout: if answer.is_null() { String::new() } else { answer.to_string() }, ..Answer::default() })
    }
}

impl Clock for Account {
    fn now(&self) -> u64 {
        1_800_000_000
    }
    fn wait(&self, _: u64) {}
}

impl Console for Account {
    fn say(&self, line: &str) {
        self.said.borrow_mut().push(line.to_owned());
    }
    fn ask(&self, _: &str) -> Option<String> {
        None
    }
}

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// An id as AWS makes it.
fn physical(resource: &Resource, number: usize) -> String {
    let short = |start: &str| format!("{start}-0{number:016x}");
    match resource.kind.as_str() {
        "AWS::EC2::VPC" => short("vpc"),
        "AWS::EC2::Subnet" => short("subnet"),
        "AWS::EC2::SecurityGroup" => short("sg"),
        "AWS::EC2::RouteTable" => short("rtb"),
        "AWS::EC2::VPCEndpoint" => short("vpce"),
        "AWS::EC2::EgressOnlyInternetGateway" => short("eigw"),
        "AWS::EC2::PrefixList" => short("pl"),
        "AWS::KMS::Key" => format!("{number:08x}-1234-5678-9abc-0123456789ab"),
        "AWS::ApiGateway::RestApi" => "a1b2c3d4e5".to_owned(),
        _ => format!("portcullis-prod-{}-{}-{number:012X}", resource.stack, resource.id),
    }
}

/// A number that a template may write as text.
fn number(value: &Value) -> Value {
    let text = template::scalar(value).unwrap();
    json!(text.parse::<u64>().unwrap())
}

/// Names of fields with a small first letter, as ECS and API Gateway have them.
fn lower(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, field)| {
                    let mut letters = name.chars();
                    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
                    (first.into_iter().chain(letters).collect(), lower(field))
                })
                .collect(),
        ),
        Value::Array(items) => items.iter().map(lower).collect(),
        other => other.clone(),
    }
}

#[test]
fn everything_holds_on_an_account_that_is_as_the_templates_say() {
    for profile in ["recommended", "lean"] {
        let account = Account::new(profile, |_, _| {});
        let (exit, said) = account.verify();
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("holds")).collect();
        assert_eq!(exit, Exit::Done, "{profile}\n{}", lines.join("\n"));
        // For check_calls.py, which compares them with the AWS CLI and the models of botocore.
        let lines: Vec<Value> = account.lines.borrow().iter().map(|line| json!(line)).collect();
        fs::write(format!("{}/calls-live-{profile}.json", env!("CARGO_TARGET_TMPDIR")), Value::from(lines).to_string())
            .unwrap();
        let calls: Vec<Value> = account.calls.borrow().iter().map(|(call, answer)| json!([call, answer])).collect();
        let file = format!("{}/live-answers-{profile}.json", env!("CARGO_TARGET_TMPDIR"));
        fs::write(file, Value::from(calls).to_string()).unwrap();
    }
}

#[test]
fn whatever_somebody_changes_is_found() {
    let cases: &[(&str, &str, Meddling)] = &[
        ("a rule that lets everybody at the database", "exact-edges", |call, answer| {
            if call.starts_with("ec2 describe-security-groups") {
                let rule = json!({"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432, "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [], "PrefixListIds": [], "UserIdGroupPairs": []});
                answer["SecurityGroups"][1]["IpPermissions"].as_array_mut().unwrap().push(rule);
            }
        }),
        ("a rule that is gone", "exact-edges", |call, answer| {
            if call.starts_with("ec2 describe-security-groups") {
                let groups = answer["SecurityGroups"].as_array_mut().unwrap();
                let group = groups.iter_mut().find(|one| !one["IpPermissions"].as_array().unwrap().is_empty()).unwrap();
                group["IpPermissions"] = json!([]);
            }
        }),
        ("rules of the default group", "the default security group", |call, answer| {
            if call.starts_with("ec2 describe-security-groups") {
                answer["SecurityGroups"][0]["IpPermissionsEgress"] = json!([{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [], "PrefixListIds": [], "UserIdGroupPairs": []}]);
            }
        }),
        ("a route to a NAT gateway", "one-way-out", |call, answer| {
            if call.starts_with("ec2 describe-route-tables") {
                let route = json!({"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-0123456789abcdef0", "Origin": "CreateRoute", "State": "active"});
                answer["RouteTables"][0]["Routes"].as_array_mut().unwrap().push(route);
            }
        }),
        ("an internet gateway", "known-types", |call, answer| {
            if call.starts_with("ec2 describe-internet-gateways") {
                *answer = json!({"InternetGateways": [{"InternetGatewayId": "igw-0123456789abcdef0"}]});
            }
        }),
        ("a subnet that hands out public addresses", "no-public-address", |call, answer| {
            if call.starts_with("ec2 describe-subnets") {
                let subnets = answer["Subnets"].as_array_mut().unwrap();
                subnets.iter_mut().find(|one| one["Ipv6Native"] == json!(false)).unwrap()["MapPublicIpOnLaunch"] =
                    json!(true);
            }
        }),
        ("an interface with a public address", "has the public address 192.0.2.1", |call, answer| {
            if call.starts_with("ec2 describe-network-interfaces") {
                answer["NetworkInterfaces"][0]["Association"] = json!({"PublicIp": "192.0.2.1"});
            }
        }),
        ("an endpoint whose policy allows everything", "narrow-endpoints", |call, answer| {
            if call.starts_with("ec2 describe-vpc-endpoints") {
                answer["VpcEndpoints"][0]["PolicyDocument"] =
                    json!(r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}"#);
            }
        }),
        ("a function that left its network", "functions-in-their-tier", |call, answer| {
            if call.starts_with("lambda get-function-configuration --function-name portcullis-prod-token ") {
                answer["VpcConfig"] = json!({"SubnetIds": [], "SecurityGroupIds": [], "VpcId": ""});
            }
        }),
        ("a function URL", "known-types", |call, answer| {
            if call.starts_with("lambda list-function-url-configs --function-name portcullis-prod-admin") {
                *answer = json!({"FunctionUrlConfigs": [{"FunctionUrl": "https://x.lambda-url.us-east-1.on.aws/", "AuthType": "NONE"}]});
            }
        }),
        ("a permission for everybody", "exact-permissions", |call, answer| {
            if call.starts_with("lambda get-policy --function-name portcullis-prod-token --qualifier") {
                let mut policy: Value = serde_json::from_str(answer["Policy"].as_str().unwrap()).unwrap();
                policy["Statement"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"Sid": "x", "Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction",
                    "Resource": "arn:aws:lambda:us-east-1:111122223333:function:portcullis-prod-token:live"}));
                answer["Policy"] = json!(policy.to_string());
            }
        }),
        ("a managed policy on a function's role", "one-role-each", |call, answer| {
            if call.starts_with("iam list-attached-role-policies --role-name portcullis-prod-token ") {
                *answer = json!({"AttachedPolicies": [{"PolicyName": "AdministratorAccess", "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}]});
            }
        }),
        ("a statement with a wildcard", "no-wildcards", |call, answer| {
            if call.starts_with("iam get-role-policy --role-name portcullis-prod-upload ") {
                answer["PolicyDocument"]["Statement"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"}));
            }
        }),
        ("a key that the account's root may use", "key-policies", |call, answer| {
            if call.starts_with("kms get-key-policy") {
                answer["Policy"] = json!(
                    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}]}"#
                );
            }
        }),
        ("a key that is about to vanish", "is PendingDeletion", |call, answer| {
            if call.starts_with("kms describe-key") {
                answer["KeyMetadata"]["KeyState"] = json!("PendingDeletion");
            }
        }),
        ("a grant on a key", "is granted to", |call, answer| {
            if call.starts_with("kms list-grants") {
                answer["Grants"] = json!([{"GrantId": "g", "GranteePrincipal": "arn:aws:iam::999999999999:root", "Operations": ["Decrypt"]}]);
            }
        }),
        ("a second stage", "a stage x that is in no template", |call, answer| {
            if call.starts_with("apigateway get-stages") {
                answer["item"].as_array_mut().unwrap().push(json!({"stageName": "x", "deploymentId": "dep124"}));
            }
        }),
        ("a canary", "to a canary", |call, answer| {
            if call.starts_with("apigateway get-stages") {
                answer["item"][0]["canarySettings"] = json!({"percentTraffic": 1.0, "deploymentId": "dep124"});
            }
        }),
        ("another program", "a program that is not its stack's", |call, answer| {
            if call.starts_with("lambda get-function-configuration --function-name portcullis-prod-authorizer ") {
                answer["CodeSha256"] = json!("b3RoZXI=");
            }
        }),
        ("drift on the second page", "AWS::S3::Bucket", |call, answer| {
            if call.starts_with("cloudformation describe-stack-resource-drifts") && !call.contains("--next-token") {
                answer["NextToken"] = json!("page-2");
            } else if call.contains("--next-token page-2") {
                answer["StackResourceDrifts"] = json!([{"LogicalResourceId": "TrustBucket", "ResourceType": "AWS::S3::Bucket",
                    "StackResourceDriftStatus": "MODIFIED", "PropertyDifferences": []}]);
            }
        }),
        ("a bucket without its policy", "closed-buckets", |call, answer| {
            if call.starts_with("s3api get-bucket-policy") {
                answer["Policy"] = json!(r#"{"Version":"2012-10-17","Statement":[]}"#);
            }
        }),
        ("a bucket that the public may be let into", "closed-buckets", |call, answer| {
            if call.starts_with("s3api get-public-access-block") {
                answer["PublicAccessBlockConfiguration"]["BlockPublicPolicy"] = json!(false);
            }
        }),
        ("an API whose policy lost its Deny", "private-api", |call, answer| {
            if call.starts_with("apigateway get-rest-api") {
                answer["policy"] = json!(
                    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"execute-api:Invoke","Resource":"arn:aws:execute-api:us-east-1:111122223333:a1b2c3d4e5/*"}]}"#
                );
            }
        }),
        ("an API that became regional", "private-api", |call, answer| {
            if call.starts_with("apigateway get-rest-api") {
                answer["endpointConfiguration"]["types"] = json!(["REGIONAL"]);
            }
        }),
        ("a stage that logs bodies", "quiet-stage", |call, answer| {
            if call.starts_with("apigateway get-stage") {
                answer["methodSettings"]["*/*"]["dataTraceEnabled"] = json!(true);
            }
        }),
        ("a route that nobody guards", "guarded-routes", |call, answer| {
            if call == "the document" {
                answer["paths"]["/debug"] = json!({"get": {"responses": {}}});
            }
        }),
        ("a guarded route that lost its guard", "guarded-routes", |call, answer| {
            if call == "the document" {
                answer["paths"]["/files"]["post"].as_object_mut().unwrap().remove("security");
            }
        }),
        ("a database that the internet may reach", "no-public-address", |call, answer| {
            if call.starts_with("rds describe-db-instances") {
                answer["DBInstances"][0]["PubliclyAccessible"] = json!(true);
            }
        }),
        ("a proxy that takes plain text", "database-proxy", |call, answer| {
            if call.starts_with("rds describe-db-proxies") {
                answer["DBProxies"][0]["RequireTLS"] = json!(false);
            }
        }),
        ("a tunnel task that one can step into", "tunnel-task", |call, answer| {
            if call.starts_with("ecs describe-services") {
                answer["services"][0]["enableExecuteCommand"] = json!(true);
            }
        }),
        ("another image in the tunnel task", "tunnel-task", |call, answer| {
            if call.starts_with("ecs describe-task-definition") {
                answer["taskDefinition"]["containerDefinitions"][0]["image"] = json!("example.com/tunnel:latest");
            }
        }),
        ("an endpoint that was never narrowed to the API", "the parameter ApiId is `*`", |call, answer| {
            if call.starts_with("cloudformation describe-stacks --stack-name portcullis-prod-network") {
                let parameters = answer["Stacks"][0]["Parameters"].as_array_mut().unwrap();
                parameters.iter_mut().find(|one| one["ParameterKey"] == "ApiId").unwrap()["ParameterValue"] =
                    json!("*");
            }
        }),
        ("drift that CloudFormation sees", "DRIFT  data/", |call, answer| {
            if call.starts_with("cloudformation describe-stack-resource-drifts --stack-name portcullis-prod-data") {
                *answer = json!({"StackResourceDrifts": [{"LogicalResourceId": "Database", "ResourceType": "AWS::RDS::DBInstance", "StackResourceDriftStatus": "MODIFIED",
                    "PropertyDifferences": [{"PropertyPath": "/BackupRetentionPeriod", "DifferenceType": "NOT_EQUAL"}]}]});
            }
        }),
    ];
    for (what, expected, meddling) in cases {
        let (exit, said) = Account::new("recommended", *meddling).verify();
        let told: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("FAILS") || line.starts_with("FAULT") || line.starts_with("DRIFT"))
            .collect();
        assert_eq!(exit, Exit::Failed, "{what} was not found");
        assert!(told.iter().any(|line| line.contains(expected)), "{what}: {expected} is not in {told:#?}");
    }
}

#[test]
fn what_could_not_be_asked_is_no_pass() {
    let cases: &[(&str, Meddling)] = &[
        ("kms get-key-policy", |call, answer| {
            if call.starts_with("kms get-key-policy") {
                *answer = json!("AccessDenied");
            }
        }),
        ("drift of data", |call, answer| {
            if call.starts_with("cloudformation detect-stack-drift --stack-name portcullis-prod-data") {
                *answer = json!("AccessDenied");
            }
        }),
        ("the stack watch is not there", |call, answer| {
            if call.starts_with("cloudformation describe-stacks --stack-name portcullis-prod-watch") {
                *answer = json!("ValidationError");
            }
        }),
        ("the stack watch is UPDATE_IN_PROGRESS", |call, answer| {
            if call.starts_with("cloudformation describe-stacks --stack-name portcullis-prod-watch") {
                answer["Stacks"][0]["StackStatus"] = json!("UPDATE_IN_PROGRESS");
            }
        }),
    ];
    for (expected, meddling) in cases {
        let (exit, said) = Account::new("lean", *meddling).verify();
        let told: Vec<&str> = said.lines().filter(|line| !line.starts_with("holds")).collect();
        assert_eq!(exit.code(), 2, "{expected}: {told:#?}");
        assert!(told.iter().any(|line| line.starts_with("not asked") && line.contains(expected)), "{told:#?}");
        assert!(!said.contains("everything holds"), "{told:#?}");
    }
}

#[test]
fn a_stack_that_is_there_and_does_not_stand_is_a_fault() {
    fn fallen(call: &str, answer: &mut Value, part: &str, status: &str) {
        if call.starts_with(&format!("cloudformation describe-stacks --stack-name portcullis-prod-{part}")) {
            answer["Stacks"][0]["StackStatus"] = json!(status);
        }
    }
    let cases: &[(&str, Meddling)] = &[
        ("FAULT  the stack watch is UPDATE_ROLLBACK_FAILED", |call, answer| {
            fallen(call, answer, "watch", "UPDATE_ROLLBACK_FAILED");
        }),
        ("FAULT  the stack edge is ROLLBACK_COMPLETE", |call, answer| {
            fallen(call, answer, "edge", "ROLLBACK_COMPLETE");
        }),
        ("the stack bootstrap is DELETE_FAILED", |call, answer| fallen(call, answer, "", "DELETE_FAILED")),
    ];
    for (expected, meddling) in cases {
        let (exit, said) = Account::new("lean", *meddling).verify();
        assert_eq!(exit, Exit::Failed, "{expected}");
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}

#[test]
fn a_deployment_that_was_made_without_a_tunnel_needs_none() {
    let (exit, said) = Account::new("lean", |call, answer| {
        if call.starts_with("cloudformation describe-stacks --stack-name portcullis-prod-edge") {
            *answer = json!("ValidationError");
        }
        if call.starts_with("cloudformation describe-stacks --stack-name portcullis-prod-watch") {
            let parameters = answer["Stacks"][0]["Parameters"].as_array_mut().unwrap();
            parameters.iter_mut().find(|one| one["ParameterKey"] == "Tunnel").unwrap()["ParameterValue"] = json!("off");
        }
    })
    .verify();
    assert!(!said.contains("the stack edge is not there"), "{said}");
    assert_ne!(exit.code(), 2, "{said}");
}

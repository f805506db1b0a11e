//! For every invariant, what it must catch.

use invariants::{Repository, Terraform};
use serde_json::json;
use template::{Documents, Graph};

use super::edit::{Edit, Mutant, add, api, at, drop_sid, grant, push, put, remove, sid, swap};

const USUAL: &str = "recommended as it is";

fn t(invariant: u8, name: &'static str, edit: impl Fn(&mut Documents) + Sync + 'static) -> Mutant {
    Mutant { invariant, name, deployment: USUAL, edit: Edit::Templates(Box::new(edit)) }
}

fn g(invariant: u8, name: &'static str, edit: impl Fn(&mut Graph) + Sync + 'static) -> Mutant {
    Mutant { invariant, name, deployment: USUAL, edit: Edit::Graph(Box::new(edit)) }
}

fn r(invariant: u8, name: &'static str, edit: impl Fn(&mut Repository) + Sync + 'static) -> Mutant {
    Mutant { invariant, name, deployment: USUAL, edit: Edit::Repository(Box::new(edit)) }
}

fn on(deployment: &'static str, mutant: Mutant) -> Mutant {
    Mutant { deployment, ..mutant }
}

pub(crate) fn all() -> Vec<Mutant> {
    [exposure(), api_settings(), network(), roles(), grants(), data(), database(), edge(), coherence()]
        .into_iter()
        .flatten()
        .collect()
}

fn exposure() -> Vec<Mutant> {
    let door = |name, stack: &'static str, kind: &'static str| {
        g(1, name, move |graph| add(graph, stack, "Door", kind, json!({})))
    };
    vec![
        door("an internet gateway", "network", "AWS::EC2::InternetGateway"),
        door("a NAT gateway", "network", "AWS::EC2::NatGateway"),
        door("an elastic address", "network", "AWS::EC2::EIP"),
        door("a function URL", "functions", "AWS::Lambda::Url"),
        door("a public load balancer", "edge", "AWS::ElasticLoadBalancingV2::LoadBalancer"),
        door("an HTTP API", "api", "AWS::ApiGatewayV2::Api"),
        door("a distribution of CloudFront", "api", "AWS::CloudFront::Distribution"),
        door("a user with keys", "bootstrap", "AWS::IAM::User"),
        door("a function in the edge stack", "edge", "AWS::Lambda::Function"),
        t(2, "a way out of work", |d| {
            let route = json!({"Type": "AWS::EC2::Route", "Properties": {
                "RouteTableId": {"Ref": "WorkRouteTable"}, "DestinationIpv6CidrBlock": "::/0",
                "EgressOnlyInternetGatewayId": {"Ref": "EgressGateway"}}});
            let resources = d.stacks.get_mut("network").unwrap().pointer_mut("/Resources").unwrap();
            put(resources, "WorkWayOut", route);
        }),
        t(2, "a way out over IPv4", |d| {
            put(at(d, "network", "EdgeWayOut/Properties"), "DestinationCidrBlock", json!("0.0.0.0/0"));
        }),
        t(2, "a way out by another gateway", |d| {
            let route = at(d, "network", "FetchWayOut/Properties");
            remove(route, "EgressOnlyInternetGatewayId");
            put(route, "NatGatewayId", json!("nat-0123456789abcdef0"));
        }),
        t(2, "the tunnel's way out is gone", |d| {
            put(at(d, "network", "EdgeWayOut/Properties"), "RouteTableId", json!({"Ref": "FetchRouteTable"}));
        }),
        t(2, "work shares the table of edge", |d| {
            put(at(d, "network", "WorkRoutesA/Properties"), "RouteTableId", json!({"Ref": "EdgeRouteTable"}));
        }),
        t(2, "the S3 gateway serves edge", |d| {
            push(at(d, "network", "S3Endpoint/Properties/RouteTableIds"), json!({"Ref": "EdgeRouteTable"}));
        }),
        t(2, "a subnet of data on the main table", |d| {
            put(at(d, "network", "DataRoutesA/Properties"), "SubnetId", json!({"Ref": "DataSubnetB"}));
        }),
        t(3, "public addresses in work", |d| {
            put(at(d, "network", "WorkSubnetA/Properties"), "MapPublicIpOnLaunch", json!(true));
        }),
        t(3, "public addresses left to the default", |d| {
            remove(at(d, "network", "DataSubnetA/Properties"), "MapPublicIpOnLaunch");
        }),
        t(3, "IPv4 in edge", |d| put(at(d, "network", "EdgeSubnetA/Properties"), "Ipv6Native", json!(false))),
        t(3, "a public address for the tunnel", |d| {
            let place = at(d, "edge", "TunnelService/Properties/NetworkConfiguration/AwsvpcConfiguration");
            put(place, "AssignPublicIp", json!("ENABLED"));
        }),
        t(3, "a public database", |d| put(at(d, "data", "Database/Properties"), "PubliclyAccessible", json!(true))),
        t(3, "a database public by default", |d| remove(at(d, "data", "Database/Properties"), "PubliclyAccessible")),
        t(4, "a regional API", |d| {
            put(at(d, "api", "Api/Properties/EndpointConfiguration"), "Types", json!(["REGIONAL"]));
        }),
        t(4, "bound to no endpoint", |d| {
            remove(at(d, "api", "Api/Properties/EndpointConfiguration"), "VpcEndpointIds");
        }),
        t(4, "the Deny is gone", |d| drop_sid(d, "api", "Api", "NobodyFromElsewhere")),
        t(4, "the Deny spares callers without an endpoint", |d| {
            let condition = sid(d, "api", "Api", "NobodyFromElsewhere").get_mut("Condition").unwrap();
            let inside = condition.get("StringNotEquals").unwrap().clone();
            remove(condition, "StringNotEquals");
            put(condition, "StringNotEqualsIfExists", inside);
        }),
        t(4, "the Deny names another endpoint", |d| {
            let deny = sid(d, "api", "Api", "NobodyFromElsewhere");
            put(deny, "Condition", json!({"StringNotEquals": {"aws:SourceVpce": "vpce-0123456789abcdef0"}}));
        }),
        t(4, "the Deny has a way around it", |d| {
            let condition = sid(d, "api", "Api", "NobodyFromElsewhere").get_mut("Condition").unwrap();
            put(condition, "Bool", json!({"aws:SecureTransport": "false"}));
        }),
        t(4, "the Allow is the only lock", |d| {
            put(
                sid(d, "api", "Api", "WhoeverTheAuthorizerAllows"),
                "Condition",
                json!({"StringEquals": {"aws:SourceVpce": {"Ref": "ExecuteApiEndpointId"}}}),
            );
        }),
        t(4, "a second Allow", |d| {
            push(
                at(d, "api", "Api/Properties/Policy/Statement"),
                json!({"Effect": "Allow", "Principal": "*", "Action": "execute-api:*", "Resource": "*"}),
            );
        }),
        t(4, "a policy in the document", |d| {
            put(api(d, ""), "x-amazon-apigateway-policy", json!({"Statement": []}));
        }),
    ]
}

fn api_settings() -> Vec<Mutant> {
    const AUTHORIZER: &str = "/components/securitySchemes/gate/x-amazon-apigateway-authorizer";
    vec![
        t(5, "a route without a guard", |d| remove(api(d, "/paths/~1files/post"), "security")),
        t(5, "a route whose guard is a choice", |d| push(api(d, "/paths/~1files/post/security"), json!({}))),
        t(5, "a guarded route made open, with a reason", |d| {
            let operation = api(d, "/paths/~1files~1{id}/get");
            put(operation, "security", json!([]));
            put(operation, "x-portcullis-open", json!("a reason that sounds well"));
        }),
        t(5, "an open route without a reason", |d| {
            put(api(d, "/paths/~1oauth2~1token/post"), "x-portcullis-open", json!(""));
        }),
        t(5, "an unguarded twin with a slash", |d| {
            let mut operation = api(d, "/paths/~1files/post").clone();
            put(&mut operation, "security", json!([]));
            put(&mut operation, "x-portcullis-open", json!("a reason that sounds well"));
            put(api(d, "/paths"), "/files/", json!({"post": operation}));
        }),
        t(5, "a greedy route beside the guarded ones", |d| {
            let mut operation = api(d, "/paths/~1files/post").clone();
            put(&mut operation, "security", json!([]));
            put(&mut operation, "x-portcullis-open", json!("a reason that sounds well"));
            put(api(d, "/paths"), "/{proxy+}", json!({"x-amazon-apigateway-any-method": operation}));
        }),
        t(5, "a default route", |d| {
            let operation = api(d, "/paths/~1files/post").clone();
            put(api(d, "/paths"), "/$default", json!({"post": operation}));
        }),
        t(5, "a guarded twin in capitals", |d| {
            let operation = api(d, "/paths/~1files/post").clone();
            put(api(d, "/paths"), "/Files", json!({"post": operation}));
        }),
        t(5, "a guarded twin with an encoded slash", |d| {
            let operation = api(d, "/paths/~1files/post").clone();
            put(api(d, "/paths"), "/files%2Fnew", json!({"post": operation}));
        }),
        t(5, "a guarded twin with an empty segment", |d| {
            let operation = api(d, "/paths/~1files/post").clone();
            put(api(d, "/paths"), "//files", json!({"post": operation}));
        }),
        t(5, "a guarded route below a greedy one", |d| {
            let operation = api(d, "/paths/~1files/post").clone();
            put(api(d, "/paths"), "/fields/{proxy+}", json!({"x-amazon-apigateway-any-method": operation}));
        }),
        t(5, "a guarded route without its action", |d| {
            remove(api(d, "/paths/~1files/post"), "x-portcullis-action");
        }),
        t(5, "a misspelt extension", |d| {
            put(api(d, "/paths/~1files/post"), "x-portcullis-acces", json!("required"));
        }),
        t(5, "another function decides", |d| {
            put(
                api(d, AUTHORIZER),
                "authorizerUri",
                json!({"Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:portcullis-${Env}-token:live/invocations"}),
            );
        }),
        t(5, "the gate is an API key", |d| {
            put(api(d, "/components/securitySchemes/gate"), "x-amazon-apigateway-authtype", json!("apiKey"));
        }),
        t(6, "decisions kept for five minutes", |d| {
            put(api(d, AUTHORIZER), "authorizerResultTtlInSeconds", json!(300));
        }),
        t(6, "decisions kept as long as the default says", |d| {
            remove(api(d, AUTHORIZER), "authorizerResultTtlInSeconds");
        }),
        t(6, "an authorizer that sees the token alone", |d| put(api(d, AUTHORIZER), "type", json!("token"))),
        t(6, "machines need an assertion", |d| {
            put(
                api(d, AUTHORIZER),
                "identitySource",
                json!("method.request.header.Authorization, method.request.header.Cf-Access-Jwt-Assertion"),
            );
        }),
        t(6, "called by a role", |d| {
            put(
                api(d, AUTHORIZER),
                "authorizerCredentials",
                json!("arn:aws:iam::123456789012:role/portcullis-prod-admin"),
            );
        }),
        t(7, "anybody may invoke", |d| {
            put(at(d, "api", "IssueTokenPermission/Properties"), "Principal", json!("*"));
        }),
        t(7, "any source may invoke", |d| remove(at(d, "api", "IssueTokenPermission/Properties"), "SourceArn")),
        t(7, "any account may invoke", |d| remove(at(d, "api", "IssueTokenPermission/Properties"), "SourceAccount")),
        t(7, "any route of the API may invoke", |d| {
            put(
                at(d, "api", "IssueTokenPermission/Properties"),
                "SourceArn",
                json!({"Fn::Sub": "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/*"}),
            );
        }),
        t(7, "the authorizer may be called by routes", |d| {
            put(
                at(d, "api", "AuthorizerPermission/Properties"),
                "SourceArn",
                json!({"Fn::Sub": "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/*/*/*"}),
            );
        }),
        t(7, "a permission on the function and not on its alias", |d| {
            put(
                at(d, "api", "CreateFilePermission/Properties"),
                "FunctionName",
                json!({"Fn::Sub": "portcullis-${Env}-upload"}),
            );
        }),
        t(7, "a permission is missing", |d| {
            put(
                at(d, "api", "ReadFilePermission/Properties"),
                "FunctionName",
                json!({"Fn::Sub": "portcullis-${Env}-upload:live"}),
            );
        }),
        t(7, "a permission to do everything", |d| {
            put(at(d, "api", "AuthorizerPermission/Properties"), "Action", json!("lambda:*"));
        }),
        t(7, "any rule may start trust", |d| {
            put(
                at(d, "functions", "TrustSchedulePermission/Properties"),
                "SourceArn",
                json!({"Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/*"}),
            );
        }),
        t(8, "tracing off", |d| put(at(d, "api", "ApiStage/Properties"), "TracingEnabled", json!(false))),
        t(8, "no access log", |d| remove(at(d, "api", "ApiStage/Properties"), "AccessLogSetting")),
        t(8, "no throttle", |d| remove(at(d, "api", "ApiStage/Properties/MethodSettings/0"), "ThrottlingRateLimit")),
        t(8, "throttled on one path only", |d| {
            put(at(d, "api", "ApiStage/Properties/MethodSettings/0"), "ResourcePath", json!("/files"));
        }),
        t(8, "bodies in the log", |d| {
            put(at(d, "api", "ApiStage/Properties/MethodSettings/0"), "DataTraceEnabled", json!(true));
        }),
        t(8, "execution logs", |d| {
            put(at(d, "api", "ApiStage/Properties/MethodSettings/0"), "LoggingLevel", json!("INFO"));
        }),
        t(8, "answers kept", |d| {
            put(at(d, "api", "ApiStage/Properties/MethodSettings/0"), "CachingEnabled", json!(true));
        }),
        t(8, "the caller's header in the access log", |d| {
            put(
                at(d, "api", "ApiStage/Properties/AccessLogSetting"),
                "Format",
                json!("{\"requestId\":\"$context.requestId\",\"auth\":\"$input.params('Authorization')\"}"),
            );
        }),
        t(8, "claims in the access log", |d| {
            put(
                at(d, "api", "ApiStage/Properties/AccessLogSetting"),
                "Format",
                json!("{\"requestId\":\"$context.requestId\",\"who\":\"$context.authorizer.claims\"}"),
            );
        }),
        t(8, "an access log that is no JSON", |d| {
            put(at(d, "api", "ApiStage/Properties/AccessLogSetting"), "Format", json!("$context.requestId"));
        }),
        t(8, "no answer of ours to 401", |d| {
            remove(api(d, "/x-amazon-apigateway-gateway-responses"), "UNAUTHORIZED");
        }),
        t(8, "a failing authorizer answers 500", |d| {
            put(api(d, "/x-amazon-apigateway-gateway-responses/AUTHORIZER_FAILURE"), "statusCode", json!(500));
        }),
        t(8, "an answer that tells why", |d| {
            put(
                api(d, "/x-amazon-apigateway-gateway-responses/ACCESS_DENIED/responseTemplates"),
                "application/json",
                json!("{\"message\":$context.error.messageString}"),
            );
        }),
    ]
}

fn network() -> Vec<Mutant> {
    let rule = |peer: serde_json::Value| {
        let mut rule = json!({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443});
        rule.as_object_mut().unwrap().extend(peer.as_object().unwrap().clone());
        rule
    };
    let reach = move |name, group: &'static str, peer: serde_json::Value| {
        let rule = rule(peer);
        t(9, name, move |d| {
            push(at(d, "network", &format!("{group}/Properties/SecurityGroupEgress")), rule.clone());
        })
    };
    vec![
        reach("the token function reaches everything", "TokenSecurityGroup", json!({"CidrIpv6": "::/0"})),
        reach("the tunnel reaches IPv4", "TunnelSecurityGroup", json!({"CidrIp": "0.0.0.0/0"})),
        reach(
            "the tunnel reaches the database",
            "TunnelSecurityGroup",
            json!({"DestinationSecurityGroupId": {"Ref": "DatabaseSecurityGroup"}}),
        ),
        reach(
            "the authorizer reaches KMS",
            "AuthorizerSecurityGroup",
            json!({"DestinationSecurityGroupId": {"Ref": "KmsEndpointSecurityGroup"}}),
        ),
        reach(
            "admin reaches KMS",
            "AdminSecurityGroup",
            json!({"DestinationSecurityGroupId": {"Ref": "KmsEndpointSecurityGroup"}}),
        ),
        t(9, "a group without egress gets all of it", |d| {
            remove(at(d, "network", "DatabaseSecurityGroup/Properties"), "SecurityGroupEgress");
        }),
        t(9, "the API's endpoint admits everybody", |d| {
            let rule = at(d, "network", "TunnelToApi/Properties");
            remove(rule, "SourceSecurityGroupId");
            put(rule, "CidrIpv6", json!("::/0"));
        }),
        t(9, "all ports of the database", |d| {
            let rule = at(d, "network", "TokenToDatabase/Properties");
            put(rule, "FromPort", json!(0));
            put(rule, "ToPort", json!(65535));
        }),
        t(9, "an edge with one end", |d| {
            put(
                at(d, "network", "TokenToKms/Properties"),
                "SourceSecurityGroupId",
                json!({"Ref": "TrustSecurityGroup"}),
            );
        }),
        t(9, "functions go around the proxy", |d| {
            put(at(d, "network", "UploadToDatabase/Properties"), "GroupId", json!({"Ref": "DatabaseSecurityGroup"}));
        }),
        t(9, "the tunnel dials elsewhere", |d| {
            push(at(d, "network", "CloudflareEdge/Properties/Entries"), json!({"Cidr": "2001:db8::/32"}));
        }),
        t(9, "a prefix list as long as the quota", |d| {
            put(at(d, "network", "CloudflareEdge/Properties"), "MaxEntries", json!(60));
        }),
        t(10, "an endpoint without a policy", |d| {
            remove(at(d, "network", "KmsEndpointInterface/Properties"), "PolicyDocument");
        }),
        t(10, "an endpoint for all actions", |d| {
            put(sid(d, "network", "KmsEndpointInterface", "Sign"), "Action", json!("kms:*"));
        }),
        t(10, "an endpoint for foreign buckets", |d| {
            put(sid(d, "network", "S3Endpoint", "TrustObjects"), "Resource", json!("arn:aws:s3:::*"));
        }),
        t(10, "an endpoint for foreign accounts", |d| {
            remove(
                sid(d, "network", "StsEndpointInterface", "BecomeUploadSigner").pointer_mut("/Condition").unwrap(),
                "StringEquals",
            );
        }),
        t(10, "the API's endpoint for other APIs", |d| {
            put(
                sid(d, "network", "ApiEndpoint", "OurApi"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:*/*"}),
            );
        }),
        t(10, "the API's endpoint asks who calls", |d| {
            put(
                sid(d, "network", "ApiEndpoint", "OurApi"),
                "Condition",
                json!({"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}),
            );
        }),
        t(10, "an endpoint in edge", |d| {
            put(at(d, "network", "StsEndpointInterface/Properties"), "SubnetIds", json!([{"Ref": "EdgeSubnetA"}]));
        }),
        t(10, "two endpoints with one group", |d| {
            put(
                at(d, "network", "StsEndpointInterface/Properties"),
                "SecurityGroupIds",
                json!([{"Ref": "KmsEndpointSecurityGroup"}]),
            );
        }),
        t(10, "an endpoint that nobody finds", |d| {
            put(at(d, "network", "KmsEndpointInterface/Properties"), "PrivateDnsEnabled", json!(false));
        }),
        t(10, "the API by IPv4 alone", |d| {
            put(at(d, "network", "ApiEndpoint/Properties"), "IpAddressType", json!("ipv4"));
        }),
        t(10, "an endpoint for a service that nobody uses", |d| {
            put(
                at(d, "network", "StsEndpointInterface/Properties"),
                "ServiceName",
                json!("com.amazonaws.eu-central-1.secretsmanager"),
            );
        }),
        t(11, "a function outside of the network", |d| {
            remove(at(d, "functions", "TokenFunction/Properties"), "VpcConfig")
        }),
        t(11, "a function in fetch", |d| {
            let place = at(d, "functions", "UploadFunction/Properties/VpcConfig/Fn::If/1");
            put(place, "SubnetIds", json!({"Ref": "FetchSubnetIds"}));
        }),
        t(11, "a function with another's group", |d| {
            let place = at(d, "functions", "AuthorizerFunction/Properties/VpcConfig/Fn::If/1");
            put(place, "SecurityGroupIds", json!([{"Ref": "TokenSecurityGroupId"}]));
        }),
        t(11, "a function with one group more", |d| {
            let place = at(d, "functions", "AuthorizerFunction/Properties/VpcConfig/Fn::If/1/SecurityGroupIds");
            push(place, json!({"Ref": "TokenSecurityGroupId"}));
        }),
        t(11, "IPv6 for a function of work", |d| {
            let place = at(d, "functions", "DownloadFunction/Properties/VpcConfig/Fn::If/1");
            put(place, "Ipv6AllowedForDualStack", json!(true));
        }),
        t(11, "flow logs of refusals only", |d| {
            put(at(d, "network", "FlowLog/Properties"), "TrafficType", json!("REJECT"));
        }),
        t(11, "no names in the network", |d| {
            put(at(d, "network", "Vpc/Properties"), "EnableDnsHostnames", json!(false));
        }),
        on(
            "recommended IssuerKeysNetwork=lambda-managed",
            t(11, "the mirror inside although it should be outside", |d| {
                let place = at(d, "functions", "IssuerKeysFunction/Properties");
                put(place, "VpcConfig", json!({"SubnetIds": {"Ref": "WorkSubnetIds"}}));
            }),
        ),
    ]
}

fn roles() -> Vec<Mutant> {
    vec![
        t(12, "two functions with one role", |d| {
            let place = at(d, "functions", "UploadFunction/Properties");
            put(place, "Role", json!({"Fn::GetAtt": ["TokenRole", "Arn"]}));
        }),
        t(12, "a role that people may take on too", |d| {
            push(
                at(d, "functions", "TokenRole/Properties/AssumeRolePolicyDocument/Statement"),
                json!({"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "sts:AssumeRole"}),
            );
        }),
        t(12, "a managed policy", |d| {
            put(
                at(d, "functions", "TokenRole/Properties"),
                "ManagedPolicyArns",
                json!(["arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"]),
            );
        }),
        t(12, "logs of another function", |d| {
            put(
                sid(d, "functions", "TokenRole", "WriteLogs"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:portcullis-${Env}-trust:*"}),
            );
        }),
        t(12, "logs anywhere", |d| {
            put(
                sid(d, "functions", "TokenRole", "WriteLogs"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:*"}),
            );
        }),
        t(12, "log groups of its own making", |d| {
            let statement = sid(d, "functions", "TokenRole", "WriteLogs");
            push(statement.get_mut("Action").unwrap(), json!("logs:CreateLogGroup"));
        }),
        t(12, "a role without the boundary", |d| {
            remove(at(d, "functions", "UploadSignerRole/Properties"), "PermissionsBoundary");
        }),
        t(12, "a boundary that lets too little through", |d| drop_sid(d, "bootstrap", "Boundary", "Database")),
        t(13, "NotAction", |d| {
            let statement = sid(d, "functions", "TokenRole", "ReadTrust");
            remove(statement, "Action");
            put(statement, "NotAction", json!("s3:PutObject"));
        }),
        t(13, "NotResource", |d| {
            let statement = sid(d, "functions", "TokenRole", "ReadTrust");
            remove(statement, "Resource");
            put(statement, "NotResource", json!("arn:aws:s3:::other/*"));
        }),
        t(13, "NotPrincipal", |d| {
            let statement = sid(d, "data", "TrustBucketPolicy", "NobodyDeletes");
            remove(statement, "Principal");
            put(statement, "NotPrincipal", json!({"AWS": "arn:aws:iam::123456789012:root"}));
        }),
        t(13, "all reading actions", |d| {
            put(sid(d, "functions", "AuthorizerRole", "ReadTrust"), "Action", json!("s3:Get*"));
        }),
        t(13, "every resource", |d| {
            put(sid(d, "functions", "ObjectEventsRole", "PurgeVersions"), "Resource", json!("*"));
        }),
        t(13, "interfaces by the function's code", |d| drop_sid(d, "functions", "TokenRole", "NoInterfacesByCode")),
        t(13, "interfaces by code of other functions", |d| {
            put(
                sid(d, "functions", "TokenRole", "NoInterfacesByCode"),
                "Condition",
                json!({"ArnNotLike": {"lambda:SourceFunctionArn": "arn:aws:lambda:*:*:function:portcullis-*"}}),
            );
        }),
        t(13, "a key policy for all of KMS", |d| {
            put(sid(d, "data", "DataKey", "DecryptOpensFieldKeys"), "Action", json!("kms:*"));
        }),
        t(16, "an access key in the environment", |d| {
            let place = at(d, "functions", "TokenFunction/Properties/Environment/Variables");
            put(place, "PORTCULLIS_ISSUER", json!("AKIAIOSFODNN7EXAMPLE"));
        }),
        t(16, "a private key in the environment", |d| {
            let place = at(d, "functions", "TokenFunction/Properties/Environment/Variables");
            put(place, "PORTCULLIS_ISSUER", json!("-----BEGIN PRIVATE KEY-----MIIE"));
        }),
        t(16, "a token in the environment", |d| {
            let place = at(d, "functions", "IssuerKeysFunction/Properties/Environment/Variables");
            put(place, "PORTCULLIS_ENV", json!("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"));
        }),
        t(16, "a password by its name", |d| {
            let place = at(d, "functions", "TokenFunction/Properties/Environment/Variables");
            put(place, "PORTCULLIS_DB_PASSWORD", json!("x"));
        }),
        t(16, "a credential in an address", |d| {
            let place = at(d, "functions", "AdminFunction/Properties/Environment/Variables");
            put(place, "PORTCULLIS_DB_HOST", json!("postgres://admin:x@db/portcullis"));
        }),
        t(16, "a value drawn at random", |d| {
            let place = at(d, "functions", "UploadFunction/Properties/Environment/Variables");
            put(place, "PORTCULLIS_AUDIENCE", json!("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"));
        }),
        t(16, "a secret from the secrets manager", |d| {
            grant(
                d,
                "functions",
                "TokenRole",
                json!({"Sid": "Read", "Effect": "Allow", "Action": "secretsmanager:GetSecretValue",
                    "Resource": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x"}),
            );
        }),
        t(16, "the tunnel's credentials in its environment", |d| {
            push(
                at(d, "edge", "TunnelTask/Properties/ContainerDefinitions/0/Environment"),
                json!({"Name": "TUNNEL_CRED_CONTENTS", "Value": "x"}),
            );
        }),
        t(17, "another architecture", |d| {
            put(at(d, "functions", "TokenFunction/Properties"), "Architectures", json!(["x86_64"]));
        }),
        t(17, "another runtime", |d| {
            put(at(d, "functions", "TokenFunction/Properties"), "Runtime", json!("provided.al2"));
        }),
        t(17, "longer than the gateway waits", |d| {
            put(at(d, "functions", "TokenFunction/Properties"), "Timeout", json!(30));
        }),
        t(17, "no traces", |d| remove(at(d, "functions", "TokenFunction/Properties"), "TracingConfig")),
        t(17, "logs as text", |d| {
            put(at(d, "functions", "TokenFunction/Properties/LoggingConfig"), "LogFormat", json!("Text"));
        }),
        t(17, "logs without metrics", |d| {
            put(at(d, "functions", "TokenFunction/Properties/LoggingConfig"), "ApplicationLogLevel", json!("WARN"));
        }),
        t(17, "another function's log group", |d| {
            put(at(d, "functions", "TokenFunction/Properties/LoggingConfig"), "LogGroup", json!({"Ref": "TrustLogs"}));
        }),
        t(17, "logs for ever", |d| remove(at(d, "functions", "TokenLogs/Properties"), "RetentionInDays")),
        t(17, "events that are lost", |d| remove(at(d, "functions", "TrustFunction/Properties"), "DeadLetterConfig")),
        t(17, "a queue that it may not write to", |d| {
            let statements = at(d, "functions", "TrustRole/Properties/Policies/0/PolicyDocument/Statement");
            let before = statements.as_array().unwrap().len();
            statements.as_array_mut().unwrap().retain(|one| one["Action"] != "sqs:SendMessage");
            assert_eq!(statements.as_array().unwrap().len() + 1, before);
        }),
        t(17, "foreign code beside ours", |d| {
            put(
                at(d, "functions", "TokenFunction/Properties"),
                "Layers",
                json!(["arn:aws:lambda:eu-central-1:999999999999:layer:agent:1"]),
            );
        }),
    ]
}

fn grants() -> Vec<Mutant> {
    let mine = |action: &str, resource: &str| json!({"Sid": "More", "Effect": "Allow", "Action": action, "Resource": resource});
    let more = move |name, role: &'static str, action: &'static str, resource: &'static str| {
        t(14, name, move |d| grant(d, "functions", role, mine(action, resource)))
    };
    vec![
        t(14, "every key", |d| {
            put(
                sid(d, "functions", "DataKeyDecryptRole", "OpenFieldKeys"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:key/*"}),
            );
        }),
        t(14, "a key under any context", |d| {
            remove(sid(d, "functions", "DataKeyDecryptRole", "OpenFieldKeys"), "Condition");
        }),
        t(14, "a key under any purpose", |d| {
            let place = sid(d, "functions", "DataKeyDecryptRole", "OpenFieldKeys");
            put(place, "Condition", json!({"StringLike": {"kms:EncryptionContext:purpose": "*"}}));
        }),
        t(14, "a key through S3 for any bucket", |d| {
            remove(
                sid(d, "functions", "UploadSignerRole", "EncryptThroughS3").pointer_mut("/Condition").unwrap(),
                "StringLike",
            );
        }),
        t(14, "any algorithm", |d| {
            let place = sid(d, "functions", "TokenRole", "Sign").pointer_mut("/Condition/StringEquals").unwrap();
            remove(place, "kms:SigningAlgorithm");
        }),
        t(14, "signing with any key", |d| {
            let place = sid(d, "functions", "TokenRole", "Sign").pointer_mut("/Condition/StringEquals").unwrap();
            remove(place, "aws:ResourceTag/portcullis:signing");
        }),
        t(14, "keys of any use", |d| {
            let place =
                sid(d, "functions", "TrustRole", "CreateSigningKeys").pointer_mut("/Condition/StringEquals").unwrap();
            remove(place, "kms:KeyUsage");
        }),
        t(14, "keys with any tag", |d| {
            let place = sid(d, "functions", "TrustRole", "CreateSigningKeys").pointer_mut("/Condition").unwrap();
            remove(place, "ForAllValues:StringEquals");
        }),
        t(14, "a boundary that a key's policy may overrule", |d| {
            drop_sid(d, "bootstrap", "Boundary", "WhateverAResourcePolicySays");
        }),
        t(14, "a boundary that a bucket's policy may overrule", |d| {
            let place = sid(d, "bootstrap", "Boundary", "WhateverAResourcePolicySays");
            place["Action"].as_array_mut().unwrap().retain(|action| action != "s3:PutBucketPolicy");
        }),
        t(14, "deployments that end keys", |d| drop_sid(d, "bootstrap", "ExecutionData", "NoKeyEnds")),
        t(14, "deployments that end keys of others", |d| {
            let place = sid(d, "bootstrap", "ExecutionData", "NoKeyEnds");
            put(place, "Condition", json!({"StringEquals": {"aws:ResourceTag/portcullis:env": {"Ref": "Env"}}}));
        }),
        t(14, "deployments that tag keys of others", |d| {
            remove(&mut sid(d, "bootstrap", "ExecutionData", "TagKeys")["Condition"], "StringEqualsIfExists");
        }),
        t(14, "deployments that tag signing keys", |d| {
            remove(&mut sid(d, "bootstrap", "ExecutionData", "TagKeys")["Condition"], "Null");
        }),
        t(14, "signing keys of others made ours by their tag", |d| {
            remove(&mut sid(d, "bootstrap", "Boundary", "TagSigningKeys")["Condition"], "StringEqualsIfExists");
        }),
        on(
            "recommended GitHub",
            t(14, "deployments that take over what exists", |d| drop_sid(d, "bootstrap", "DeployRole", "NoImports")),
        ),
        on(
            "recommended GitHub",
            t(14, "a deploy role that a key's policy may name", |d| {
                drop_sid(d, "bootstrap", "DeployRole", "WhateverAResourcePolicySays");
            }),
        ),
        more("every parameter", "AdminRole", "ssm:GetParameter", "arn:aws:ssm:eu-central-1:123456789012:parameter/*"),
        t(14, "every role", |d| {
            put(
                sid(d, "functions", "UploadRole", "BecomeSigner"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/portcullis-*"}),
            );
        }),
        t(14, "every login", |d| {
            put(
                sid(d, "functions", "TokenRole", "ConnectDatabase"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:rds-db:${AWS::Region}:${AWS::AccountId}:dbuser:${DbProxyResourceId}/*"}),
            );
        }),
        t(14, "the login on every database", |d| {
            put(
                sid(d, "functions", "TokenRole", "ConnectDatabase"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:rds-db:${AWS::Region}:${AWS::AccountId}:dbuser:*/token"}),
            );
        }),
        t(14, "the whole bucket", |d| {
            put(
                sid(d, "functions", "ObjectEventsRole", "PurgeVersions"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:s3:::${ObjectBucket}/*"}),
            );
        }),
        more(
            "a listing of files",
            "DownloadRole",
            "s3:ListBucket",
            "arn:aws:s3:::portcullis-prod-objects-123456789012-eu-central-1",
        ),
        on(
            "recommended Signer=ssm",
            t(14, "parameters of other paths", |d| {
                put(
                    sid(d, "functions", "TokenRole", "ReadSigningKeys"),
                    "Resource",
                    json!({"Fn::Sub": "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter/portcullis/*"}),
                );
            }),
        ),
    ]
}

fn data() -> Vec<Mutant> {
    vec![
        t(15, "a key that never changes", |d| {
            put(at(d, "data", "DataKey/Properties"), "EnableKeyRotation", json!(false))
        }),
        t(15, "a key gone in a week", |d| put(at(d, "data", "DataKey/Properties"), "PendingWindowInDays", json!(7))),
        t(15, "the account may use the key", |d| {
            let place = sid(d, "data", "DataKey", "DecryptOpensFieldKeys").pointer_mut("/Condition").unwrap();
            remove(place, "ArnEquals");
        }),
        t(15, "everybody may use the key", |d| {
            put(sid(d, "data", "DataKey", "DecryptOpensFieldKeys"), "Principal", json!("*"));
        }),
        t(15, "another's role may use the key", |d| {
            put(
                sid(d, "data", "DataKey", "DecryptOpensFieldKeys").pointer_mut("/Condition").unwrap(),
                "ArnEquals",
                json!({"aws:PrincipalArn": "arn:aws:iam::123456789012:role/somebody"}),
            );
        }),
        t(15, "administrators may use the key", |d| {
            let place = sid(d, "data", "DataKey", "Administer").get_mut("Action").unwrap();
            push(place, json!("kms:Decrypt"));
        }),
        t(15, "a function administers its key", |d| {
            put(sid(d, "data", "DataKey", "DecryptOpensFieldKeys"), "Action", json!("kms:PutKeyPolicy"));
        }),
        t(15, "the field key under any context", |d| {
            let place = sid(d, "data", "DataKey", "DecryptOpensFieldKeys").pointer_mut("/Condition").unwrap();
            remove(place, "StringEquals");
        }),
        t(15, "a key that goes with its stack", |d| remove(at(d, "data", "DataKey"), "DeletionPolicy")),
        t(15, "a database that goes with an update", |d| {
            put(at(d, "data", "Database"), "UpdateReplacePolicy", json!("Delete"));
        }),
        t(15, "a bucket that goes with its stack", |d| {
            put(at(d, "data", "ObjectBucketResource"), "DeletionPolicy", json!("Delete"));
        }),
        t(15, "a key that nobody can administer", |d| drop_sid(d, "data", "BucketKey", "Administer")),
        t(18, "a public access block with a hole", |d| {
            let place = at(d, "data", "ObjectBucketResource/Properties/PublicAccessBlockConfiguration");
            put(place, "RestrictPublicBuckets", json!(false));
        }),
        t(18, "no public access block", |d| {
            remove(at(d, "bootstrap", "CodeBucketResource/Properties"), "PublicAccessBlockConfiguration");
        }),
        t(18, "access lists", |d| {
            let place = at(d, "data", "TrustBucketResource/Properties/OwnershipControls/Rules/0");
            put(place, "ObjectOwnership", json!("ObjectWriter"));
        }),
        t(18, "no encryption by default", |d| {
            remove(at(d, "data", "ObjectBucketResource/Properties"), "BucketEncryption");
        }),
        t(18, "plain HTTP", |d| drop_sid(d, "data", "ObjectBucketPolicy", "Tls")),
        t(18, "old TLS", |d| drop_sid(d, "data", "TrustBucketPolicy", "OldTls")),
        t(18, "plain HTTP for listings", |d| {
            put(
                sid(d, "data", "ObjectBucketPolicy", "Tls"),
                "Resource",
                json!([{"Fn::Sub": "${ObjectBucketResource.Arn}/*"}]),
            );
        }),
        t(18, "uploads that are never finished", |d| {
            let rules = at(d, "data", "ObjectBucketResource/Properties/LifecycleConfiguration/Rules");
            rules.as_array_mut().unwrap().retain(|rule| rule["Id"] != "unfinished-uploads-end");
        }),
        t(18, "nudges for ever", |d| {
            let rules = at(d, "data", "TrustBucketResource/Properties/LifecycleConfiguration/Rules");
            rules.as_array_mut().unwrap().retain(|rule| rule["Id"] != "nudges-end");
        }),
        t(18, "trust objects from any network", |d| drop_sid(d, "data", "TrustBucketPolicy", "OutsideVpc")),
        t(18, "listings from any network", |d| drop_sid(d, "data", "ObjectBucketPolicy", "ListOutsideVpc")),
        t(18, "one role more from any network", |d| {
            let condition = sid(d, "data", "TrustBucketPolicy", "OutsideVpc").pointer_mut("/Condition").unwrap();
            put(
                condition,
                "ArnNotEquals",
                json!({"aws:PrincipalArn": "arn:aws:iam::123456789012:role/portcullis-prod-authorizer"}),
            );
        }),
        t(18, "any network where no endpoint is said", |d| {
            let condition = sid(d, "data", "TrustBucketPolicy", "OutsideVpc").pointer_mut("/Condition").unwrap();
            let inside = condition.get("StringNotEquals").unwrap().clone();
            remove(condition, "StringNotEquals");
            put(condition, "StringNotEqualsIfExists", inside);
        }),
        t(18, "a bucket for everybody", |d| {
            push(
                at(d, "data", "ObjectBucketPolicy/Properties/PolicyDocument/Statement"),
                json!({"Sid": "Open", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
                    "Resource": {"Fn::Sub": "${ObjectBucketResource.Arn}/t/*"}}),
            );
        }),
        on(
            "recommended ObjectAccess=private",
            t(18, "signed URLs from anywhere although it is private", |d| {
                let condition = sid(d, "data", "ObjectBucketPolicy", "OutsideVpc").pointer_mut("/Condition").unwrap();
                put(
                    condition,
                    "ArnNotEquals",
                    json!({"aws:PrincipalArn": "arn:aws:iam::123456789012:role/portcullis-prod-upload-signer"}),
                );
            }),
        ),
        t(19, "former trust objects are gone", |d| {
            put(at(d, "data", "TrustBucketResource/Properties/VersioningConfiguration"), "Status", json!("Suspended"));
        }),
        t(19, "token writes what trust writes", |d| {
            put(
                sid(d, "functions", "TokenRole", "NudgeTrust"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:s3:::${TrustBucket}/trust/keys.json"}),
            );
        }),
        t(19, "the mirror writes everything", |d| {
            put(
                sid(d, "functions", "IssuerKeysRole", "MirrorKeys"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:s3:::${TrustBucket}/trust/*"}),
            );
        }),
        t(19, "the authorizer writes", |d| {
            put(sid(d, "functions", "AuthorizerRole", "ReadTrust"), "Action", json!(["s3:GetObject", "s3:PutObject"]));
        }),
        t(19, "the authorizer decrypts", |d| {
            grant(
                d,
                "functions",
                "AuthorizerRole",
                json!({"Sid": "More", "Effect": "Allow", "Action": "kms:Decrypt", "Resource": {"Ref": "DataKeyArn"},
                    "Condition": {"StringEquals": {"kms:EncryptionContext:purpose": "field"}}}),
            );
        }),
        t(19, "trust deletes what it wrote", |d| {
            let place = sid(d, "functions", "TrustRole", "PublishTrust");
            put(place, "Action", json!(["s3:PutObject", "s3:DeleteObject"]));
        }),
        t(19, "the bucket refuses no other writer", |d| drop_sid(d, "data", "TrustBucketPolicy", "TrustWrites")),
        t(19, "the bucket takes a second writer", |d| {
            put(
                sid(d, "data", "TrustBucketPolicy", "IssuerKeysWrites").pointer_mut("/Condition").unwrap(),
                "ArnNotEquals",
                json!({"aws:PrincipalArn": [
                    "arn:aws:iam::123456789012:role/portcullis-prod-issuer-keys",
                    "arn:aws:iam::123456789012:role/portcullis-prod-admin",
                ]}),
            );
        }),
    ]
}

fn database() -> Vec<Mutant> {
    let database = |name, property: &'static str, value: serde_json::Value| {
        t(20, name, move |d| put(at(d, "data", "Database/Properties"), property, value.clone()))
    };
    let proxy = |name, property: &'static str, value: serde_json::Value| {
        t(21, name, move |d| put(at(d, "data", "Proxy/Properties"), property, value.clone()))
    };
    vec![
        database("a database in plain text", "StorageEncrypted", json!(false)),
        database("a database without IAM", "EnableIAMDatabaseAuthentication", json!(false)),
        database("a database that can be deleted", "DeletionProtection", json!(false)),
        database("an owner with a password", "MasterUserAuthenticationType", json!("password")),
        database("a password", "MasterUserPassword", json!("x")),
        database("a password that RDS keeps", "ManageMasterUserPassword", json!(true)),
        database("no backups", "BackupRetentionPeriod", json!(0)),
        database("a parameter group that is not ours", "DBParameterGroupName", json!("default.postgres17")),
        database(
            "one group more",
            "VPCSecurityGroups",
            json!([{"Ref": "DatabaseSecurityGroupId"}, "sg-0a1b2c3d4e5f60718"]),
        ),
        t(20, "a database that takes plain connections", |d| {
            put(at(d, "data", "DatabaseParameters/Properties/Parameters"), "rds.force_ssl", json!("0"));
        }),
        t(20, "a database in other subnets", |d| {
            put(at(d, "data", "DatabaseSubnets/Properties"), "SubnetIds", json!(["subnet-0123456789abcdef0"]));
        }),
        proxy("a proxy that takes plain connections", "RequireTLS", json!(false)),
        proxy("a proxy that logs statements", "DebugLogging", json!(true)),
        proxy("a proxy without IAM", "DefaultAuthScheme", json!("NONE")),
        proxy(
            "a secret behind the proxy",
            "Auth",
            json!([{"AuthScheme": "SECRETS", "SecretArn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x"}]),
        ),
        proxy("a proxy with another group", "VpcSecurityGroupIds", json!([{"Ref": "DatabaseSecurityGroupId"}])),
        t(21, "the proxy connects as the owner", |d| {
            let place = sid(d, "data", "ProxyRole", "ConnectDatabase").get_mut("Resource").unwrap();
            push(
                place,
                json!({"Fn::Sub": "arn:${AWS::Partition}:rds-db:${AWS::Region}:${AWS::AccountId}:dbuser:${Database.DbiResourceId}/portcullis_owner"}),
            );
        }),
        t(21, "the proxy connects as anybody", |d| {
            put(
                sid(d, "data", "ProxyRole", "ConnectDatabase"),
                "Resource",
                json!({"Fn::Sub": "arn:${AWS::Partition}:rds-db:${AWS::Region}:${AWS::AccountId}:dbuser:${Database.DbiResourceId}/*"}),
            );
        }),
        t(21, "a login that the proxy refuses", |d| {
            sid(d, "data", "ProxyRole", "ConnectDatabase")["Resource"].as_array_mut().unwrap().pop().unwrap();
        }),
        t(21, "the proxy may do something else", |d| {
            put(
                sid(d, "data", "ProxyRole", "ConnectDatabase"),
                "Action",
                json!(["rds-db:connect", "rds:DescribeDBInstances"]),
            );
        }),
        t(21, "a function may be the proxy", |d| {
            let place = at(d, "data", "ProxyRole/Properties/AssumeRolePolicyDocument/Statement/0");
            put(place, "Principal", json!({"Service": ["rds.amazonaws.com", "lambda.amazonaws.com"]}));
        }),
    ]
}

fn edge() -> Vec<Mutant> {
    const ACCESS: &str = "      access:
        required: true
        teamName: example
        audTag:
          - 4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2
";
    const API: &str = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com";
    let tunnel = |name, from: &'static str, to: &'static str| {
        r(22, name, move |repository| swap(&mut repository.tunnel, from, to))
    };
    let task = |name, pointer: &'static str, property: &'static str, value: serde_json::Value| {
        t(23, name, move |d| put(at(d, "edge", pointer), property, value.clone()))
    };
    const CONTAINER: &str = "TunnelTask/Properties/ContainerDefinitions/0";
    let terraform = |name, file: &'static str, from: &'static str, to: &'static str| {
        r(24, name, move |repository| {
            let path = format!("infra/cloudflare/terraform/{file}");
            let mut text = repository.terraform[&path].text().to_owned();
            swap(&mut text, from, to);
            repository.terraform.insert(path, Terraform::new(text));
        })
    };
    vec![
        tunnel("a people host without Access", ACCESS, ""),
        tunnel("Access that is not required", "required: true", "required: false"),
        tunnel("another team's Access", "teamName: example", "teamName: somebody"),
        tunnel(
            "Access at the top, where it is ignored",
            "ingress:\n",
            "originRequest:\n  access: {required: true}\ningress:\n",
        ),
        r(22, "another origin", |repository| {
            swap(&mut repository.tunnel, &format!("service: https://{API}"), "service: https://origin.example.com")
        }),
        r(22, "the public name as Host", |repository| {
            swap(&mut repository.tunnel, &format!("httpHostHeader: {API}"), "httpHostHeader: api.example.com")
        }),
        tunnel("TLS unverified", "    originRequest:\n", "    originRequest:\n      noTLSVerify: true\n"),
        tunnel(
            "a rule by path",
            "  - hostname: machines.example.com\n",
            "  - hostname: machines.example.com\n    path: /oauth2\n",
        ),
        tunnel("every host", "hostname: machines.example.com", "hostname: '*.example.com'"),
        tunnel("a last rule that leads somewhere", "http_status:404", "hello-world"),
        tunnel("a proxy into the network", "    originRequest:\n", "    originRequest:\n      proxyType: socks\n"),
        tunnel("private networks", "ingress:\n", "warp-routing:\n  enabled: true\ningress:\n"),
        tunnel(
            "a shell",
            "  - service: http_status:404",
            "  - hostname: ssh.example.com\n    service: ssh://localhost:22\n  - service: http_status:404",
        ),
        task(
            "an image by its tag",
            CONTAINER,
            "Image",
            json!("123456789012.dkr-ecr.eu-central-1.on.aws/portcullis-prod-tunnel:latest"),
        ),
        task("root", CONTAINER, "User", json!("0:0")),
        task("a file system that can be written", CONTAINER, "ReadonlyRootFilesystem", json!(false)),
        task("a privileged container", CONTAINER, "Privileged", json!(true)),
        task("capabilities kept", CONTAINER, "LinuxParameters", json!({})),
        task("a port", CONTAINER, "PortMappings", json!([{"ContainerPort": 20241}])),
        task("a health check of another thing", CONTAINER, "HealthCheck", json!({"Command": ["CMD", "true"]})),
        t(23, "metrics on every address", |d| {
            for variable in at(d, "edge", CONTAINER)["Environment"].as_array_mut().unwrap() {
                if variable["Name"] == "TUNNEL_METRICS" {
                    variable["Value"] = json!("0.0.0.0:20241");
                }
            }
        }),
        t(23, "diagnostics left to the default", |d| {
            let variables = at(d, "edge", CONTAINER)["Environment"].as_array_mut().unwrap();
            variables.retain(|one| one["Name"] != "TUNNEL_MANAGEMENT_DIAGNOSTICS");
        }),
        t(23, "a secret that is no parameter", |d| {
            at(d, "edge", CONTAINER)["Secrets"][0]["ValueFrom"] =
                json!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:x");
        }),
        task("a shell beside the API", "TunnelService/Properties", "EnableExecuteCommand", json!(true)),
        task(
            "a deployment that does not stop",
            "TunnelService/Properties/DeploymentConfiguration/DeploymentCircuitBreaker",
            "Enable",
            json!(false),
        ),
        task("no task", "TunnelService/Properties", "DesiredCount", json!(0)),
        task("tasks on machines of ours", "TunnelService/Properties", "LaunchType", json!("EC2")),
        task("another processor", "TunnelTask/Properties/RuntimePlatform", "CpuArchitecture", json!("X86_64")),
        task(
            "the tunnel in work",
            "TunnelService/Properties/NetworkConfiguration/AwsvpcConfiguration",
            "Subnets",
            json!(["<network.WorkSubnetA>"]),
        ),
        task(
            "a tunnel with rights in the account",
            "TunnelTask/Properties",
            "TaskRoleArn",
            json!({"Fn::GetAtt": ["TunnelStartRole", "Arn"]}),
        ),
        terraform(
            "a policy that bypasses",
            "access.tf",
            "decision         = \"allow\"",
            "decision         = \"bypass\"",
        ),
        terraform("a policy for everyone", "access.tf", "{ email_domain = { domain = domain } }", "{ everyone = {} }"),
        terraform(
            "any service token",
            "access.tf",
            "{ service_token = { token_id = id } }",
            "{ any_valid_service_token = {} }",
        ),
        terraform(
            "people by tokens",
            "access.tf",
            "decision         = \"non_identity\"",
            "decision         = \"allow\"",
        ),
        terraform("an application for some of the hosts", "access.tf", "for_each = var.people", "for_each = {}"),
        terraform(
            "an application for a path",
            "access.tf",
            "domain                     = each.key",
            "domain                     = \"${each.key}/files\"",
        ),
        terraform(
            "no limits before the machine host",
            "edge.tf",
            "phase   = \"http_ratelimit\"",
            "phase   = \"http_config_settings\"",
        ),
        terraform(
            "no firewall before the machine host",
            "edge.tf",
            "phase   = \"http_request_firewall_custom\"",
            "phase   = \"http_config_settings\"",
        ),
        terraform(
            "rules without the machine host",
            "hosts.tf",
            "concat(keys(var.people), [var.machines])",
            "keys(var.people)",
        ),
        terraform(
            "a tunnel whose secret stands in the state",
            "hosts.tf",
            "resource \"cloudflare_dns_record\"",
            "resource \"cloudflare_zero_trust_tunnel_cloudflared\" \"tunnel\" {}\nresource \"cloudflare_dns_record\"",
        ),
        r(24, "another audience than the application's", |repository| {
            swap(&mut repository.access, "4714c1358e65", "000000000000");
        }),
        r(24, "another stage than the API's", |repository| swap(&mut repository.access, "\"v1\"", "\"v2\"")),
    ]
}

fn coherence() -> Vec<Mutant> {
    vec![
        r(25, "a package that is not deployed", |repository| {
            repository.packages.insert("billing".to_owned());
        }),
        r(25, "a function without a package", |repository| {
            repository.packages.remove("admin");
        }),
        t(25, "another program's zip", |d| {
            put(at(d, "functions", "TokenFunction/Properties/Code"), "S3Key", json!("admin.zip"));
        }),
        t(25, "another login", |d| {
            let place = at(d, "functions", "TokenFunction/Properties/Environment/Variables");
            put(place, "PORTCULLIS_DB_USER", json!("admin"));
        }),
        t(25, "a function that nobody watches", |d| {
            for (id, resource) in d.stacks.get_mut("watch").unwrap()["Resources"].as_object_mut().unwrap() {
                if id.starts_with("Token") && resource["Type"] == "AWS::CloudWatch::Alarm" {
                    for one in resource["Properties"]["Dimensions"].as_array_mut().into_iter().flatten() {
                        one["Value"] = json!({"Fn::Sub": "portcullis-${Env}-trust"});
                    }
                }
            }
        }),
        t(25, "an alarm for a function that is gone", |d| {
            let place = at(d, "watch", "TokenErrors/Properties/Dimensions/0");
            put(place, "Value", json!({"Fn::Sub": "portcullis-${Env}-billing"}));
        }),
        t(25, "an alarm that silence does not ring", |d| {
            remove(at(d, "watch", "TokenErrors/Properties"), "TreatMissingData");
        }),
        t(25, "a route to another function", |d| {
            put(api(d, "/paths/~1files/post"), "x-portcullis-function", json!("download"));
        }),
        t(25, "a route that is not in the file", |d| {
            let operation = api(d, "/paths/~1files/post").clone();
            put(api(d, "/paths"), "/more", json!({"post": operation}));
        }),
        r(25, "a route without refusals", |repository| {
            swap(&mut repository.refusals, "\nPOST /files\n", "\nPOST /other\n")
        }),
        r(25, "a route that the edge refuses", |repository| swap(&mut repository.routes, "\"/fields/\",", "")),
        t(26, "one action more", |d| {
            put(
                sid(d, "functions", "ObjectEventsRole", "PurgeVersions"),
                "Action",
                json!(["s3:DeleteObjectVersion", "s3:PutObject"]),
            );
        }),
        t(26, "one resource more", |d| {
            let place = sid(d, "functions", "IssuerKeysRole", "ReadIssuers").get_mut("Resource").unwrap();
            push(place, json!({"Fn::Sub": "arn:${AWS::Partition}:s3:::${TrustBucket}/trust/signing-state.json"}));
        }),
        t(26, "a condition less", |d| {
            let place = sid(d, "functions", "UploadSignerRole", "PutOnce").pointer_mut("/Condition").unwrap();
            remove(place, "NumericLessThanEquals");
        }),
        t(26, "a longer signature", |d| {
            put(
                sid(d, "functions", "UploadSignerRole", "PutOnce")
                    .pointer_mut("/Condition/NumericLessThanEquals")
                    .unwrap(),
                "s3:signatureAge",
                json!(3_600_000),
            );
        }),
        t(26, "a right less", |d| drop_sid(d, "functions", "TrustRole", "PublishTrust")),
        t(26, "a refusal less", |d| drop_sid(d, "functions", "TokenRole", "OnlyThroughEndpoints")),
        t(26, "a refusal with a hole", |d| {
            put(
                sid(d, "functions", "TokenRole", "OnlyThroughEndpoints"),
                "Action",
                json!(["kms:Sign", "s3:GetObject", "ssm:GetParameter"]),
            );
        }),
        r(26, "a line less on the list", |repository| {
            let line = repository.grants.lines().find(|line| line.contains("xray:")).unwrap().to_owned();
            swap(&mut repository.grants, &line, "");
        }),
        r(26, "an adapter that sends more", |repository| {
            let operations = repository.adapters.values_mut().find(|all| all.contains("get_object")).unwrap();
            operations.insert("list_objects_v2".to_owned());
        }),
        r(27, "deploy settings in a package", |repository| {
            let manifest = repository.manifests.get_mut("functions/token/Cargo.toml").unwrap();
            manifest.push_str("\n[package.metadata.lambda.deploy]\nmemory = 512\n");
        }),
        r(27, "deploy settings in the workspace", |repository| {
            let manifest = repository.manifests.get_mut("Cargo.toml").unwrap();
            manifest.push_str("\n[workspace.metadata.lambda]\ndeploy = { role = \"x\" }\n");
        }),
        r(27, "deploy settings in a file of their own", |repository| {
            repository
                .manifests
                .insert("CargoLambda.toml".to_owned(), "[deploy]\nenable_function_url = true\n".to_owned());
        }),
        r(27, "a panic that kills the sandbox", |repository| {
            let manifest = repository.manifests.get_mut("Cargo.toml").unwrap();
            let (before, release) =
                manifest.split_once("[profile.release]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            *manifest = format!("{before}[profile.release]{}", release.replacen("\"unwind\"", "\"abort\"", 1));
        }),
        r(27, "a profile left to cargo-lambda", |repository| {
            swap(repository.manifests.get_mut("Cargo.toml").unwrap(), "strip = \"symbols\"\n", "");
        }),
    ]
}

//! What is known of each resource type: which property is its name, what `Ref` gives, which attributes there are.

/// What a resource type answers to `Ref` and `Fn::GetAtt`.
///
/// In the forms `{p}`, `{r}` and `{a}` are partition, region and account, `{name}` is the physical name, `{ref}` what
/// `Ref` gives, `{symbol}` a stand-in that names the resource and the attribute, and any other word the property of that
/// name. A form in brackets is a list of one.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) kind: &'static str,
    /// The property that is the physical name, where the type has one.
    pub(crate) name: Option<&'static str>,
    pub(crate) reference: &'static str,
    pub(crate) attributes: &'static [(&'static str, &'static str)],
}

/// Whether a text holds the stand-in for what exists only after deployment: `<stack.LogicalId.Attribute>`.
pub(crate) fn is_symbolic(text: &str) -> bool {
    text.split_once('<').is_some_and(|(_, rest)| rest.contains('>'))
}

/// Every resource type this reader knows; any other is a fault.
#[must_use]
pub fn supported_types() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.kind).collect()
}

pub(crate) fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.kind == name)
}

const fn named(
    kind: &'static str,
    name: &'static str,
    reference: &'static str,
    attributes: &'static [(&'static str, &'static str)],
) -> Kind {
    Kind { kind, name: Some(name), reference, attributes }
}

/// A type without a name of our choosing: `Ref` gives an id that AWS makes.
const fn made(kind: &'static str, attributes: &'static [(&'static str, &'static str)]) -> Kind {
    Kind { kind, name: None, reference: "{symbol}", attributes }
}

const KINDS: &[Kind] = &[
    // API Gateway
    made("AWS::ApiGateway::Account", &[]),
    made("AWS::ApiGateway::Authorizer", &[("AuthorizerId", "{ref}")]),
    made("AWS::ApiGateway::Deployment", &[("DeploymentId", "{ref}")]),
    made("AWS::ApiGateway::DomainNameV2", &[("DomainNameArn", "{ref}"), ("DomainNameId", "{symbol}")]),
    made("AWS::ApiGateway::DomainNameAccessAssociation", &[("DomainNameAccessAssociationArn", "{ref}")]),
    made("AWS::ApiGateway::BasePathMappingV2", &[]),
    made("AWS::ApiGateway::GatewayResponse", &[("Id", "{ref}")]),
    made("AWS::ApiGateway::RestApi", &[("RestApiId", "{ref}"), ("RootResourceId", "{symbol}")]),
    named("AWS::ApiGateway::Stage", "StageName", "{name}", &[]),
    made("AWS::ApiGatewayV2::VpcLink", &[("VpcLinkId", "{ref}")]),
    // CloudWatch
    named("AWS::CloudWatch::Alarm", "AlarmName", "{name}", &[("Arn", "arn:{p}:cloudwatch:{r}:{a}:alarm:{name}")]),
    named(
        "AWS::CloudWatch::CompositeAlarm",
        "AlarmName",
        "{name}",
        &[("Arn", "arn:{p}:cloudwatch:{r}:{a}:alarm:{name}")],
    ),
    named("AWS::CloudWatch::Dashboard", "DashboardName", "{name}", &[]),
    named(
        "AWS::CloudTrail::Trail",
        "TrailName",
        "{name}",
        &[("Arn", "arn:{p}:cloudtrail:{r}:{a}:trail/{name}"), ("SnsTopicArn", "{symbol}")],
    ),
    // network; the VPC's IPv6 block is from the range for documentation
    made(
        "AWS::EC2::VPC",
        &[
            ("VpcId", "{ref}"),
            ("CidrBlock", "{CidrBlock}"),
            ("CidrBlockAssociations", "[{symbol}]"),
            ("DefaultNetworkAcl", "{symbol}"),
            ("DefaultSecurityGroup", "{symbol}"),
            ("Ipv6CidrBlocks", "[2001:db8:0:a00::/56]"),
        ],
    ),
    made("AWS::EC2::VPCCidrBlock", &[("Id", "{ref}")]),
    made("AWS::EC2::EgressOnlyInternetGateway", &[("Id", "{ref}")]),
    made(
        "AWS::EC2::Subnet",
        &[
            ("SubnetId", "{ref}"),
            ("AvailabilityZone", "{AvailabilityZone}"),
            ("CidrBlock", "{CidrBlock}"),
            ("Ipv6CidrBlocks", "[{Ipv6CidrBlock}]"),
            ("VpcId", "{VpcId}"),
        ],
    ),
    made("AWS::EC2::RouteTable", &[("RouteTableId", "{ref}")]),
    made("AWS::EC2::Route", &[("CidrBlock", "{symbol}")]),
    made("AWS::EC2::SubnetRouteTableAssociation", &[("Id", "{ref}")]),
    made("AWS::EC2::SecurityGroup", &[("GroupId", "{ref}"), ("Id", "{ref}"), ("VpcId", "{VpcId}")]),
    made("AWS::EC2::SecurityGroupIngress", &[("Id", "{ref}")]),
    made("AWS::EC2::SecurityGroupEgress", &[("Id", "{ref}")]),
    made(
        "AWS::EC2::VPCEndpoint",
        &[("Id", "{ref}"), ("DnsEntries", "[{symbol}-zone:{symbol}]"), ("NetworkInterfaceIds", "[{symbol}]")],
    ),
    made("AWS::EC2::PrefixList", &[("PrefixListId", "{ref}"), ("Arn", "arn:{p}:ec2:{r}:{a}:prefix-list/{ref}")]),
    made("AWS::EC2::FlowLog", &[("Id", "{ref}")]),
    // ECR and ECS
    named(
        "AWS::ECR::Repository",
        "RepositoryName",
        "{name}",
        &[("Arn", "arn:{p}:ecr:{r}:{a}:repository/{name}"), ("RepositoryUri", "{a}.dkr.ecr.{r}.amazonaws.com/{name}")],
    ),
    named("AWS::ECS::Cluster", "ClusterName", "{name}", &[("Arn", "arn:{p}:ecs:{r}:{a}:cluster/{name}")]),
    made("AWS::ECS::Service", &[("Name", "{ServiceName}"), ("ServiceArn", "{ref}")]),
    named(
        "AWS::ECS::TaskDefinition",
        "Family",
        "arn:{p}:ecs:{r}:{a}:task-definition/{name}:1",
        &[("TaskDefinitionArn", "{ref}")],
    ),
    // events and queues
    named("AWS::Events::Rule", "Name", "{name}", &[("Arn", "arn:{p}:events:{r}:{a}:rule/{name}")]),
    named(
        "AWS::Scheduler::Schedule",
        "Name",
        "{name}",
        &[("Arn", "arn:{p}:scheduler:{r}:{a}:schedule/default/{name}")],
    ),
    named(
        "AWS::SNS::Topic",
        "TopicName",
        "arn:{p}:sns:{r}:{a}:{name}",
        &[("TopicArn", "{ref}"), ("TopicName", "{name}")],
    ),
    made("AWS::SNS::TopicPolicy", &[("Id", "{ref}")]),
    made("AWS::SNS::Subscription", &[("Arn", "{ref}")]),
    named(
        "AWS::SQS::Queue",
        "QueueName",
        "https://sqs.{r}.amazonaws.com/{a}/{name}",
        &[("Arn", "arn:{p}:sqs:{r}:{a}:{name}"), ("QueueName", "{name}"), ("QueueUrl", "{ref}")],
    ),
    made("AWS::SQS::QueuePolicy", &[("Id", "{ref}")]),
    // scanning and signing
    made(
        "AWS::GuardDuty::MalwareProtectionPlan",
        &[("MalwareProtectionPlanId", "{ref}"), ("Arn", "arn:{p}:guardduty:{r}:{a}:malware-protection-plan/{ref}")],
    ),
    named(
        "AWS::Signer::SigningProfile",
        "ProfileName",
        "{name}",
        &[
            ("Arn", "arn:{p}:signer:{r}:{a}:/signing-profiles/{name}"),
            ("ProfileVersionArn", "arn:{p}:signer:{r}:{a}:/signing-profiles/{name}/{symbol}"),
            ("ProfileName", "{name}"),
            ("ProfileVersion", "{symbol}"),
        ],
    ),
    made("AWS::Signer::ProfilePermission", &[]),
    // identity and keys
    named("AWS::IAM::Role", "RoleName", "{name}", &[("Arn", "arn:{p}:iam::{a}:role/{name}"), ("RoleId", "{symbol}")]),
    named("AWS::IAM::ManagedPolicy", "ManagedPolicyName", "arn:{p}:iam::{a}:policy/{name}", &[("PolicyArn", "{ref}")]),
    made("AWS::IAM::OIDCProvider", &[("Arn", "{ref}")]),
    made("AWS::KMS::Key", &[("Arn", "arn:{p}:kms:{r}:{a}:key/{ref}"), ("KeyId", "{ref}")]),
    named("AWS::KMS::Alias", "AliasName", "{name}", &[]),
    // functions
    named("AWS::Lambda::Function", "FunctionName", "{name}", &[("Arn", "arn:{p}:lambda:{r}:{a}:function:{name}")]),
    made(
        "AWS::Lambda::Version",
        &[("Version", "{symbol}"), ("FunctionArn", "arn:{p}:lambda:{r}:{a}:function:{FunctionName}:{symbol}")],
    ),
    named(
        "AWS::Lambda::Alias",
        "Name",
        "arn:{p}:lambda:{r}:{a}:function:{FunctionName}:{name}",
        &[("AliasArn", "{ref}")],
    ),
    made("AWS::Lambda::Permission", &[("Id", "{ref}")]),
    made("AWS::Lambda::EventInvokeConfig", &[]),
    made("AWS::Lambda::EventSourceMapping", &[("Id", "{ref}")]),
    made("AWS::Lambda::CodeSigningConfig", &[("CodeSigningConfigArn", "{ref}"), ("CodeSigningConfigId", "{symbol}")]),
    // logs
    named("AWS::Logs::LogGroup", "LogGroupName", "{name}", &[("Arn", "arn:{p}:logs:{r}:{a}:log-group:{name}:*")]),
    named("AWS::Logs::MetricFilter", "FilterName", "{name}", &[]),
    named("AWS::Logs::ResourcePolicy", "PolicyName", "{name}", &[]),
    made("AWS::Logs::QueryDefinition", &[("QueryDefinitionId", "{ref}")]),
    // database
    named("AWS::RDS::DBSubnetGroup", "DBSubnetGroupName", "{name}", &[]),
    named("AWS::RDS::DBParameterGroup", "DBParameterGroupName", "{name}", &[("DBParameterGroupName", "{name}")]),
    named(
        "AWS::RDS::DBInstance",
        "DBInstanceIdentifier",
        "{name}",
        &[
            ("DBInstanceArn", "arn:{p}:rds:{r}:{a}:db:{name}"),
            ("DbiResourceId", "{symbol}"),
            ("Endpoint.Address", "{symbol}"),
            ("Endpoint.Port", "5432"),
        ],
    ),
    named(
        "AWS::RDS::DBProxy",
        "DBProxyName",
        "{name}",
        &[("DBProxyArn", "arn:{p}:rds:{r}:{a}:db-proxy:{symbol}"), ("Endpoint", "{symbol}"), ("VpcId", "{symbol}")],
    ),
    made("AWS::RDS::DBProxyTargetGroup", &[("TargetGroupArn", "{ref}")]),
    made("AWS::RDS::EventSubscription", &[]),
    // name resolution
    made("AWS::Route53Resolver::FirewallDomainList", &[("Id", "{ref}"), ("Arn", "{symbol}")]),
    made("AWS::Route53Resolver::FirewallRuleGroup", &[("Id", "{ref}"), ("Arn", "{symbol}")]),
    made("AWS::Route53Resolver::FirewallRuleGroupAssociation", &[("Id", "{ref}"), ("Arn", "{symbol}")]),
    made("AWS::Route53Resolver::FirewallConfig", &[("Id", "{ref}")]),
    made("AWS::Route53Resolver::ResolverQueryLoggingConfig", &[("Id", "{ref}"), ("Arn", "{symbol}")]),
    made("AWS::Route53Resolver::ResolverQueryLoggingConfigAssociation", &[("Id", "{ref}")]),
    // storage
    named(
        "AWS::S3::Bucket",
        "BucketName",
        "{name}",
        &[
            ("Arn", "arn:{p}:s3:::{name}"),
            ("DomainName", "{name}.s3.amazonaws.com"),
            ("DualStackDomainName", "{name}.s3.dualstack.{r}.amazonaws.com"),
            ("RegionalDomainName", "{name}.s3.{r}.amazonaws.com"),
        ],
    ),
    made("AWS::S3::BucketPolicy", &[]),
    named("AWS::SSM::Parameter", "Name", "{name}", &[("Type", "{Type}"), ("Value", "{Value}")]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_type_stands_twice() {
        let types: BTreeSet<&str> = supported_types().into_iter().collect();
        assert_eq!(types.len(), KINDS.len());
    }

    #[test]
    fn only_what_exists_after_deployment_is_symbolic() {
        assert!(is_symbolic("arn:aws:kms:us-east-1:1:key/<data.DataKey>"));
        assert!(!is_symbolic("*") && !is_symbolic("a > b"));
    }
}

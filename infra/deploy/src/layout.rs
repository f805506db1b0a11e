//! The stacks, their files, and the order that makes a first deployment work.

/// One stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Its name after `portcullis-{Env}-`, and that of its template.
    pub name: &'static str,
    /// What it holds, in a few words.
    pub holds: &'static str,
}

const fn stack(name: &'static str, holds: &'static str) -> Stack {
    Stack { name, holds }
}

/// Code bucket, image repository, deploy roles.
pub const BOOTSTRAP: Stack = stack("bootstrap", "code bucket, image repository, deploy roles");
/// The network.
pub const NETWORK: Stack = stack("network", "VPC, endpoints, security groups");
/// What keeps data.
pub const DATA: Stack = stack("data", "keys, buckets, database");
/// The functions.
pub const FUNCTIONS: Stack = stack("functions", "functions, roles, schedules");
/// The API.
pub const API: Stack = stack("api", "private REST API");
/// The tunnel.
pub const EDGE: Stack = stack("edge", "tunnel tasks");
/// Alarms.
pub const WATCH: Stack = stack("watch", "alarms, dashboard");

/// Stacks of deployments that want them. They come after the data and before the functions: those take what the signing
/// and the link give.
pub const OPTIONAL: &[Stack] = &[
    stack("code-signing", "signed code only"),
    stack("malware-scan", "scanner of uploaded objects"),
    stack("dns-firewall", "names that the network may resolve"),
    stack("app-link", "link to an existing application"),
];

/// The optional stack of a name.
pub fn optional(name: &str) -> Option<Stack> {
    OPTIONAL.iter().copied().find(|stack| stack.name == name)
}

/// Every stack, in order.
pub fn all() -> impl Iterator<Item = Stack> {
    let (before, after) = ([BOOTSTRAP, NETWORK, DATA], [FUNCTIONS, API, EDGE, WATCH]);
    before.into_iter().chain(OPTIONAL.iter().copied()).chain(after)
}

/// Functions that are invoked once in a deployment, in order, and why.
pub const INVOKED: &[(&str, &str)] = &[
    ("migrate", "schema, logins and grants"),
    ("trust", "publishes the trust objects; the first run makes the signing keys"),
    ("issuer-keys", "mirrors the issuers' keys"),
];

/// The full name of a stack, or of whatever else carries the deployment's name.
pub fn name(env: &str, part: &str) -> String {
    format!("portcullis-{env}-{part}")
}

/// Whether losing a resource of this type loses data, addresses that others hold, or keys.
pub fn is_stateful(kind: &str) -> bool {
    matches!(
        kind,
        "AWS::ApiGateway::RestApi"
            | "AWS::CloudTrail::Trail"
            | "AWS::ECR::Repository"
            | "AWS::KMS::Key"
            | "AWS::Logs::LogGroup"
            | "AWS::RDS::DBCluster"
            | "AWS::RDS::DBInstance"
            | "AWS::S3::Bucket"
            | "AWS::SQS::Queue"
            | "AWS::SSM::Parameter"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stacks_are_those_of_the_graph_in_the_same_order() {
        let ours: Vec<&str> = all().map(|stack| stack.name).collect();
        let graph: Vec<&str> = template::STACKS.iter().map(|stack| stack.name).collect();
        assert_eq!(ours, graph);
        let optional: Vec<bool> = all().map(|stack| OPTIONAL.contains(&stack)).collect();
        assert_eq!(optional, template::STACKS.iter().map(|stack| stack.optional).collect::<Vec<_>>());
    }
}

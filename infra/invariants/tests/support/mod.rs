//! The deployments that the invariants are held against.
#![allow(unused_imports, dead_code, reason = "each test uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

pub(crate) mod caught;
pub(crate) mod edit;
pub(crate) mod mutants;

use std::path::{Path, PathBuf};

use invariants::Repository;
use template::{Documents, Graph, Place, Profile};

/// What Terraform would answer for the example hosts.
const ACCESS: &str = r#"{"access": {"value": {
    "team": "example", "tunnel_id": "6ff42ae2-765d-4adf-8112-31c55c1551ef", "stage": "v1",
    "machines": "machines.example.com",
    "people": {"api.example.com":
        {"aud": "4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2", "tier": "managed"}}}}}"#;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn documents() -> Documents {
    Documents::read(&root().join("infra/aws")).unwrap_or_else(|faults| panic!("{}", faults.join("\n")))
}

pub(crate) fn repository() -> Repository {
    Repository::read(&root(), ACCESS).unwrap_or_else(|faults| panic!("{}", faults.join("\n")))
}

/// An account in which the API is the one that the example of the tunnel's configuration names.
pub(crate) fn place() -> Place {
    let mut place = Place::new("123456789012", "eu-central-1");
    place.physical.insert(("api".to_owned(), "Api".to_owned()), "a1b2c3d4e5".to_owned());
    place
}

/// What every deployment has to say.
const SETTINGS: &[(&str, &str)] = &[
    ("Env", "prod"),
    ("Issuer", "https://api.example.com"),
    ("Audience", "https://api.example.com"),
    ("Scan", "off"),
    ("S3PrefixListId", "pl-6ea54007"),
    (
        "ImageUri",
        "123456789012.dkr-ecr.eu-central-1.on.aws/portcullis-prod-tunnel@sha256:\
         2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    ),
];

/// A profile of `infra/aws/profiles` with what every deployment has to say.
pub(crate) fn profile(name: &str) -> Profile {
    let path = root().join(format!("infra/aws/profiles/{name}.yaml"));
    let profile = match std::fs::read_to_string(&path) {
        Ok(text) => Profile::read(&text).unwrap_or_else(|faults| panic!("{name}: {}", faults.join("\n"))),
        Err(_) => panic!("{}: missing", path.display()),
    };
    profile.with(SETTINGS)
}

/// Every deployment that the invariants are held against, by name.
pub(crate) fn deployments() -> Vec<(String, Profile)> {
    let mut all = Vec::new();
    for name in ["recommended", "lean"] {
        let base = profile(name);
        let mut put = |what: &str, profile: Profile| all.push((format!("{name} {what}"), profile));
        put("as it is", base.clone());
        put("Zones=1", base.with(&[("Zones", "1")]));
        put("Zones=2", base.with(&[("Zones", "2")]));
        put("DbMode=proxy", base.with(&[("DbMode", "proxy")]));
        put("DbMode=direct", base.with(&[("DbMode", "direct")]));
        put("Signer=ssm", base.with(&[("Signer", "ssm"), ("SsmEndpoint", "on")]));
        put("SigningAlg=ES256", base.with(&[("SigningAlg", "ES256")]));
        put("SigningAlg=EdDSA", base.with(&[("SigningAlg", "EdDSA")]));
        put("IssuerKeysNetwork=lambda-managed", base.with(&[("IssuerKeysNetwork", "lambda-managed")]));
        put("ObjectAccess=private", base.with(&[("ObjectAccess", "private")]));
        put(
            "ObjectAccess=private by an endpoint of theirs",
            base.with(&[
                ("ObjectAccess", "private"),
                ("ObjectEndpointId", "vpce-0123456789abcdef0"),
                ("ObjectEndpointHost", "bucket.vpce-0123456789abcdef0-abcdefgh.s3.eu-central-1.vpce.amazonaws.com"),
            ]),
        );
        put("Scan=guardduty", base.with(&[("Scan", "guardduty")]).with_stack("malware-scan"));
        put("FlowLogs=off", base.with(&[("FlowLogs", "off")]));
        put("StsEndpoint=off", base.with(&[("StsEndpoint", "off")]));
        put("Reserve=on", base.with(&[("Reserve", "on")]));
        put("ApiGatewayAccountRole=on", base.with(&[("ApiGatewayAccountRole", "on")]));
        put("KeyAdministrators", base.with(&[("KeyAdministrators", "arn:aws:iam::123456789012:role/keys-*")]));
        put("DbSnapshot", base.with(&[("DbSnapshot", "portcullis-prod-1-final"), ("DbGeneration", "2")]));
        put("GitHub", base.with(&[("GitHubRepository", "example/gate")]));
        put("code signing", base.clone().with_stack("code-signing"));
        put("DNS firewall", base.with(&[("AccessTeam", "example")]).with_stack("dns-firewall"));
        put("application", application(&base));
        put(
            "everything at once",
            application(&base)
                .with(&[
                    ("Signer", "ssm"),
                    ("SsmEndpoint", "on"),
                    ("KmsEndpoint", "on"),
                    ("IssuerKeysNetwork", "lambda-managed"),
                    ("Scan", "guardduty"),
                    ("ObjectAccess", "private"),
                    ("AccessTeam", "example"),
                    ("AlarmEmail", "ops@example.com"),
                    ("GitHubRepository", "example/gate"),
                ])
                .with_stack("malware-scan")
                .with_stack("dns-firewall")
                .with_stack("code-signing"),
        );
    }
    all
}

fn application(base: &Profile) -> Profile {
    base.with(&[
        ("AppLoadBalancerSecurityGroupId", "sg-0a1b2c3d4e5f60718"),
        ("AppPort", "443"),
        ("TargetDbSecurityGroupId", "sg-0f1e2d3c4b5a69788"),
        (
            "AppLoadBalancerArn",
            "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/legacy/0123456789abcdef",
        ),
    ])
    .with_stack("app-link")
}

/// The graphs of all deployments, with their names.
pub(crate) fn graphs() -> Vec<(String, Result<Graph, Vec<String>>)> {
    let documents = documents();
    let place = place();
    let usual =
        documents.open(&profile("recommended"), &place).unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
    in_parallel(&deployments(), |(name, profile)| (name.clone(), documents.graph_after(&usual, profile, &place)))
}

/// Runs over all items on all cores, and keeps their order.
pub(crate) fn in_parallel<I: Sync, O: Send>(items: &[I], run: impl Fn(&I) -> O + Sync) -> Vec<O> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let size = items.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> =
            items.chunks(size).map(|chunk| scope.spawn(move || chunk.iter().map(run).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

//! D. Data: keys, buckets, database.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use template::{Graph, Resource};

use crate::{
    Findings,
    house::{DEPLOYMENTS, network},
    policy::{Statement, identity, overlap, role, statements},
};

/// Actions that use a key, in lower case and by their beginning; all others administer it.
const USE: &[&str] = &[
    "kms:encrypt",
    "kms:decrypt",
    "kms:generatedatakey",
    "kms:reencrypt",
    "kms:sign",
    "kms:verify",
    "kms:generatemac",
    "kms:verifymac",
    "kms:derivesharedsecret",
    "kms:creategrant",
];

pub(crate) fn key_policies(graph: &Graph, findings: &mut Findings) {
    for key in graph.of_kind("AWS::KMS::Key") {
        let symmetric = key.text("/KeySpec").is_none_or(|spec| spec == "SYMMETRIC_DEFAULT");
        if symmetric {
            findings.must_be(key, "/EnableKeyRotation", "true");
        }
        findings.must_be(key, "/PendingWindowInDays", "30");
        let empty = Value::Null;
        let policy = statements(key.get("/KeyPolicy").unwrap_or(&empty));
        for one in policy.iter().filter(|one| one.allow) {
            key_statement(graph, key, one, findings);
        }
        if !policy.iter().any(|one| one.allow && one.covers("kms:PutKeyPolicy")) {
            findings.at(key, "/KeyPolicy", "nobody may change it: the key would be out of reach");
        }
    }
    for (kind, also) in [
        ("AWS::KMS::Key", [].as_slice()),
        // Kept for ever, but a first deployment that fails half-way leaves nothing behind.
        ("AWS::S3::Bucket", ["RetainExceptOnCreate"].as_slice()),
        ("AWS::RDS::DBInstance", ["Snapshot"].as_slice()),
    ] {
        for resource in graph.of_kind(kind) {
            for (name, policy) in [
                ("DeletionPolicy", &resource.deletion_policy),
                ("UpdateReplacePolicy", &resource.update_replace_policy),
            ] {
                let kept = policy.as_deref().is_some_and(|policy| policy == "Retain" || also.contains(&policy));
                if !kept {
                    findings.at(resource, name, "what it holds would be lost");
                }
            }
        }
    }
}

fn key_statement(graph: &Graph, key: &Resource, one: &Statement<'_>, findings: &mut Findings) {
    let at = format!("/KeyPolicy {}", one.sid());
    let place = &graph.place;
    let root = format!("arn:{}:iam::{}:root", place.partition, place.account);
    let service = one.principals().iter().all(|(kind, _)| kind == "Service") && !one.principals().is_empty();
    let uses: Vec<&String> = one.actions.iter().filter(|action| is_use(action)).collect();
    if !uses.is_empty() && uses.len() != one.actions.len() {
        findings.at(key, &at, "one statement both uses and administers");
    }
    if service {
        return;
    }
    if one.principals() != [("AWS".to_owned(), root.clone())] {
        findings.at(key, &at, "must name the account, and the roles by a condition: they need not exist yet");
    }
    let names: Vec<&String> = one
        .conditions
        .iter()
        .filter(|one| ["ArnEquals", "ArnLike"].contains(&one.operator.as_str()))
        .filter(|one| one.key.eq_ignore_ascii_case("aws:PrincipalArn"))
        .flat_map(|one| &one.values)
        .collect();
    if names.is_empty() {
        findings.at(key, &at, "without aws:PrincipalArn the account hands the key to whatever a role says");
    }
    let ours = format!("arn:{}:iam::{}:role/portcullis-{}-", place.partition, place.account, graph.environment);
    let chosen = graph.parameter("KeyAdministrators").unwrap_or_default();
    let managed = !uses.is_empty() && one.binds("kms:ViaService") && !one.covers("kms:Sign");
    for name in names {
        let administrator = *name == root || chosen.split(',').any(|one| one == name);
        let exact = name.starts_with(&ours) && !name.contains('*');
        // RDS works in the name of whoever creates the database: the one use that administrators have.
        if !exact && !(administrator && (uses.is_empty() || managed)) {
            findings.at(key, &at, format!("`{name}` is no role of ours"));
        }
    }
    let functions: BTreeSet<String> = DEPLOYMENTS.iter().map(|one| format!("{ours}{}", one.name)).collect();
    let by_function = one.conditions.iter().flat_map(|one| &one.values).any(|value| functions.contains(value));
    if uses.is_empty() && by_function {
        let reads = ["kms:ListKeyRotations", "kms:DescribeKey", "kms:GetPublicKey", "kms:GetKeyRotationStatus"];
        if !one.actions.iter().all(|action| reads.contains(&action.as_str())) {
            findings.at(key, &at, "a function administers the key");
        }
    }
    if !uses.is_empty()
        && !one.binds("kms:EncryptionContext:")
        && !one.binds("kms:ViaService")
        && !one.binds("kms:SigningAlgorithm")
    {
        findings.at(key, &at, "uses the key under any context");
    }
}

fn is_use(action: &str) -> bool {
    let action = action.to_ascii_lowercase();
    action == "kms:*" || USE.iter().any(|known| action.starts_with(known))
}

/// The bucket policy of a bucket.
fn policy_of<'a>(graph: &'a Graph, bucket: &Resource) -> Vec<Statement<'a>> {
    graph
        .of_kind("AWS::S3::BucketPolicy")
        .filter(|policy| policy.text("/Bucket").as_deref() == Some(&bucket.reference))
        .filter_map(|policy| policy.get("/PolicyDocument"))
        .flat_map(statements)
        .collect()
}

/// The output of the data stack that names a bucket.
fn is_output(graph: &Graph, bucket: &Resource, output: &str) -> bool {
    graph.outputs.get("data").and_then(|outputs| outputs.get(output)) == Some(&bucket.reference)
}

pub(crate) fn closed_buckets(graph: &Graph, findings: &mut Findings) {
    for bucket in graph.of_kind("AWS::S3::Bucket") {
        for block in ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"] {
            findings.must_be(bucket, &format!("/PublicAccessBlockConfiguration/{block}"), "true");
        }
        let owners: Vec<String> = bucket
            .list("/OwnershipControls/Rules")
            .iter()
            .filter_map(|rule| rule.get("ObjectOwnership").and_then(template::scalar))
            .collect();
        if owners != ["BucketOwnerEnforced"] {
            findings.at(bucket, "/OwnershipControls", "must be BucketOwnerEnforced: no access lists");
        }
        if bucket.list("/BucketEncryption/ServerSideEncryptionConfiguration").is_empty() {
            findings.at(bucket, "/BucketEncryption", "no default encryption");
        }
        if bucket.get("/WebsiteConfiguration").is_some() || bucket.get("/AccessControl").is_some() {
            findings.at(bucket, "/WebsiteConfiguration", "published by a website or an access list");
        }
        let policy = policy_of(graph, bucket);
        let arn = bucket.arn().unwrap_or_default().to_owned();
        let everything = |one: &Statement<'_>| {
            !one.allow
                && one.is_for_everybody()
                && one.actions == ["s3:*"]
                && one.resources.contains(&arn)
                && one.resources.contains(&format!("{arn}/*"))
                && one.conditions.len() == 1
        };
        if !policy.iter().any(|one| everything(one) && one.demands("Bool", "aws:SecureTransport", &["false"])) {
            findings.at(bucket, "bucket policy", "does not refuse plain HTTP");
        }
        if !policy.iter().any(|one| everything(one) && one.demands("NumericLessThan", "s3:TlsVersion", &["1.2"])) {
            findings.at(bucket, "bucket policy", "does not refuse TLS before 1.2");
        }
        for one in policy.iter().filter(|one| one.allow && one.is_for_everybody()) {
            findings.at(bucket, "bucket policy", format!("{}: allows everybody", one.sid()));
        }
        let lasts = |field: &str| {
            let rules = bucket.list("/LifecycleConfiguration/Rules").into_iter().cloned().collect::<Vec<_>>();
            rules.into_iter().filter(|rule| rule.get("Status").and_then(Value::as_str) == Some("Enabled")).find(
                |rule| {
                    rule.pointer(field)
                        .and_then(template::scalar)
                        .and_then(|days| days.parse::<u32>().ok())
                        .is_some_and(|days| days <= 7)
                },
            )
        };
        if lasts("/AbortIncompleteMultipartUpload/DaysAfterInitiation").is_none() {
            findings.at(bucket, "/LifecycleConfiguration", "unfinished uploads stay for ever");
        }
        if is_output(graph, bucket, "TrustBucket") {
            let nudges = lasts("/ExpirationInDays").and_then(|rule| rule.get("Prefix").and_then(template::scalar));
            if nudges.as_deref() != Some("trust-inbox/") {
                findings.at(bucket, "/LifecycleConfiguration", "nudges under trust-inbox/ stay for ever");
            }
        }
        let exempt: &[&str] = if is_output(graph, bucket, "TrustBucket") {
            if graph.parameter("IssuerKeysNetwork") == Some("lambda-managed") { &["issuer-keys"] } else { &[] }
        } else if is_output(graph, bucket, "ObjectBucket") {
            // Signed URLs are judged with the signer's rights and the client's network.
            match graph.parameter("ObjectAccess") {
                Some("private") => &["malware-scan"],
                _ => &["upload-signer", "download-signer", "malware-scan"],
            }
        } else {
            continue;
        };
        outside(graph, bucket, &policy, &arn, exempt, findings);
    }
    for bucket in ["TrustBucket", "ObjectBucket"] {
        let found = graph.of_kind("AWS::S3::Bucket").filter(|one| is_output(graph, one, bucket)).count();
        if found != 1 {
            findings.on("data", bucket, "is no bucket of the deployment");
        }
    }
}

/// Whether objects and listings are refused to whatever does not come by our endpoint, with the listed exemptions only.
fn outside(
    graph: &Graph,
    bucket: &Resource,
    policy: &[Statement<'_>],
    arn: &str,
    exempt: &[&str],
    findings: &mut Findings,
) {
    let endpoint = network(graph, "S3EndpointId").join(",");
    let also = graph.parameter("ObjectEndpointId").filter(|id| !id.is_empty());
    let place = &graph.place;
    let names: BTreeSet<String> = exempt
        .iter()
        .map(|name| {
            format!("arn:{}:iam::{}:role/portcullis-{}-{name}", place.partition, place.account, graph.environment)
        })
        .collect();
    let closes = |one: &&Statement<'_>, resource: &str| {
        let endpoints = one.condition("StringNotEquals", "aws:SourceVpce").map(|one| one.values.clone());
        let ours = endpoints.is_some_and(|list| {
            !list.is_empty()
                && list.iter().all(|one| *one == endpoint || also == Some(one.as_str()))
                && !endpoint.is_empty()
        });
        let exempted: BTreeSet<String> = one
            .condition("ArnNotEquals", "aws:PrincipalArn")
            .map(|one| one.values.iter().cloned().collect())
            .unwrap_or_default();
        let others = one.conditions.len() - 1 - usize::from(!exempted.is_empty());
        !one.allow
            && one.is_for_everybody()
            && one.resources.iter().any(|one| one == resource)
            && ours
            && exempted.is_subset(&names)
            && others == 0
    };
    let objects = format!("{arn}/*");
    if !policy.iter().filter(|one| one.actions == ["s3:*"]).any(|one| closes(&one, &objects)) {
        findings.at(bucket, "bucket policy", "objects can be reached by another network than ours");
    }
    let listings = ["s3:ListBucket", "s3:ListBucketVersions"];
    let listed =
        policy.iter().filter(|one| listings.iter().all(|action| one.covers(action))).any(|one| closes(&one, arn));
    if !listed {
        findings.at(bucket, "bucket policy", "can be listed from another network than ours");
    }
}

/// Which role writes what in the trust bucket. Readers trust an object because of this table.
const WRITERS: &[(&str, &[&str])] = &[
    (
        "trust",
        &[
            "trust/keys.json",
            "trust/policies.json",
            "trust/posture.json",
            "trust/profiles.json",
            "trust/revocations.json",
            "trust/signing-state.json",
        ],
    ),
    ("issuer-keys", &["trust/issuers/*"]),
    ("token", &["trust-inbox/token/*"]),
    ("admin", &["trust-inbox/admin/*"]),
];

pub(crate) fn one_writer(graph: &Graph, findings: &mut Findings) {
    let trust = graph.of_kind("AWS::S3::Bucket").find(|bucket| is_output(graph, bucket, "TrustBucket"));
    let Some(trust) = trust else {
        findings.on("data", "TrustBucket", "missing");
        return;
    };
    findings.must_be(trust, "/VersioningConfiguration/Status", "Enabled");
    let arn = trust.arn().unwrap_or_default();
    let key_of = |resource: &str| {
        if resource == "*" {
            return Some("*".to_owned());
        }
        resource.strip_prefix(arn).map(|rest| rest.trim_start_matches('/').to_owned())
    };
    let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for role in graph.of_kind("AWS::IAM::Role").filter(|role| role.stack != "bootstrap") {
        let full = role.text("/RoleName").unwrap_or_default();
        let prefix = format!("portcullis-{}-", graph.environment);
        let name = full.strip_prefix(&prefix).unwrap_or(&full).to_owned();
        for (at, one) in identity(role).iter().filter(|(_, one)| one.allow) {
            let reads = |action: &str| action.starts_with("s3:Get") || action.starts_with("s3:List");
            let (changing, other): (Vec<&String>, Vec<&String>) =
                one.actions.iter().filter(|action| action.starts_with("s3:")).partition(|action| !reads(action));
            for key in one.resources.iter().filter_map(|resource| key_of(resource)) {
                if !changing.is_empty() {
                    written.entry(key.clone()).or_default().insert(name.clone());
                    let may = WRITERS
                        .iter()
                        .find(|(writer, _)| *writer == name)
                        .is_some_and(|(_, keys)| keys.contains(&key.as_str()));
                    if !may || changing.iter().any(|action| *action != "s3:PutObject") {
                        findings.at(role, at, format!("{}: {changing:?} on `{key}`", one.sid()));
                    }
                }
                let authorizer = name == "authorizer";
                if authorizer && (!changing.is_empty() || other.iter().any(|action| *action != "s3:GetObject")) {
                    findings.at(role, at, format!("{}: the authorizer reads, and does nothing else", one.sid()));
                }
            }
        }
    }
    let keys: Vec<(&String, &BTreeSet<String>)> = written.iter().collect();
    for (i, (key, writers)) in keys.iter().enumerate() {
        if writers.len() > 1 {
            findings.on("trust bucket", key, format!("is written by {writers:?}"));
        }
        for (other, others) in keys.iter().skip(i + 1) {
            if overlap(key, other) && writers != others {
                findings.on("trust bucket", key, format!("is written by {writers:?}, and by {others:?} as `{other}`"));
            }
        }
    }
    authorizer_only_reads(graph, findings);
    refused_to_others(graph, trust, findings);
}

/// The authorizer has no right but to read the trust objects and to write its logs and traces.
fn authorizer_only_reads(graph: &Graph, findings: &mut Findings) {
    let Some(role) = role(graph, "authorizer") else { return };
    for (at, one) in identity(role).iter().filter(|(_, one)| one.allow) {
        for action in &one.actions {
            let plain = ["logs:", "xray:", "ec2:"].iter().any(|service| action.starts_with(service));
            if !plain && action != "s3:GetObject" {
                findings.at(
                    role,
                    at,
                    format!("{}: `{action}`: the authorizer reads trust objects and nothing else", one.sid()),
                );
            }
        }
    }
}

/// The bucket's own policy says the same as the roles, whoever writes a role later.
fn refused_to_others(graph: &Graph, trust: &Resource, findings: &mut Findings) {
    let arn = trust.arn().unwrap_or_default();
    let place = &graph.place;
    let policy = policy_of(graph, trust);
    for (writer, keys) in WRITERS {
        let name =
            format!("arn:{}:iam::{}:role/portcullis-{}-{writer}", place.partition, place.account, graph.environment);
        for key in *keys {
            let resource = format!("{arn}/{key}");
            let refused = policy.iter().any(|one| {
                !one.allow
                    && one.is_for_everybody()
                    && one.covers("s3:PutObject")
                    && one.resources.contains(&resource)
                    && one.conditions.len() == 1
                    && one.demands("ArnNotEquals", "aws:PrincipalArn", &[&name])
            });
            if !refused {
                findings.at(trust, "bucket policy", format!("does not refuse `{key}` to all but {writer}"));
            }
        }
    }
}

pub(crate) fn database(graph: &Graph, findings: &mut Findings) {
    let databases: Vec<&Resource> = graph.of_kind("AWS::RDS::DBInstance").collect();
    if databases.len() != 1 {
        findings.on("data", "AWS::RDS::DBInstance", format!("{} of them, must be one", databases.len()));
    }
    for database in databases {
        findings.must_be(database, "/StorageEncrypted", "true");
        findings.must_be(database, "/EnableIAMDatabaseAuthentication", "true");
        findings.must_be(database, "/DeletionProtection", "true");
        // A snapshot brings its own owner, and RDS refuses to be told another.
        if database.get("/DBSnapshotIdentifier").is_none() {
            findings.must_be(database, "/MasterUserAuthenticationType", "iam-db-auth");
        }
        let days = database.text("/BackupRetentionPeriod").and_then(|days| days.parse::<u32>().ok());
        if days.is_none_or(|days| days < 7) {
            findings.at(database, "/BackupRetentionPeriod", "at least 7 days");
        }
        for name in database.properties.as_object().into_iter().flat_map(|all| all.keys()) {
            if name.contains("Password") || name.contains("Secret") {
                findings.at(database, &format!("/{name}"), "a password");
            }
        }
        let group = database.text("/DBParameterGroupName").unwrap_or_default();
        match graph.find("AWS::RDS::DBParameterGroup", &group) {
            Some(group) => findings.must_be(group, "/Parameters/rds.force_ssl", "1"),
            None => findings.at(database, "/DBParameterGroupName", "not ours: TLS is not forced"),
        }
        if database.texts("/VPCSecurityGroups") != network(graph, "DatabaseSecurityGroupId") {
            findings.at(database, "/VPCSecurityGroups", "must be the database's group alone");
        }
        let subnets = database.text("/DBSubnetGroupName").unwrap_or_default();
        let subnets =
            graph.find("AWS::RDS::DBSubnetGroup", &subnets).map(|group| group.texts("/SubnetIds")).unwrap_or_default();
        if subnets.is_empty() || subnets != network(graph, "DataSubnetIds") {
            findings.at(database, "/DBSubnetGroupName", "must be the subnets of data");
        }
    }
}

pub(crate) fn database_proxy(graph: &Graph, findings: &mut Findings) {
    let proxies: Vec<&Resource> = graph.of_kind("AWS::RDS::DBProxy").collect();
    let proxied = graph.parameter("DbMode") == Some("proxy");
    if proxies.len() != usize::from(proxied) {
        findings.on(
            "data",
            "AWS::RDS::DBProxy",
            format!("{} of them with DbMode {:?}", proxies.len(), graph.parameter("DbMode")),
        );
    }
    for proxy in proxies {
        findings.must_be(proxy, "/DefaultAuthScheme", "IAM_AUTH");
        findings.must_be(proxy, "/RequireTLS", "true");
        findings.must_be(proxy, "/DebugLogging", "false");
        if proxy.get("/Auth").is_some() {
            findings.at(proxy, "/Auth", "a secret behind the proxy");
        }
        if proxy.texts("/VpcSecurityGroupIds") != network(graph, "ProxySecurityGroupId") {
            findings.at(proxy, "/VpcSecurityGroupIds", "must be the proxy's group alone");
        }
        if proxy.texts("/VpcSubnetIds") != network(graph, "DataSubnetIds") {
            findings.at(proxy, "/VpcSubnetIds", "must be the subnets of data");
        }
        let arn = proxy.text("/RoleArn").unwrap_or_default();
        let Some(role) = graph.find("AWS::IAM::Role", &arn) else {
            findings.at(proxy, "/RoleArn", "no role of the deployment");
            continue;
        };
        let place = &graph.place;
        let database = graph.of_kind("AWS::RDS::DBInstance").next();
        let id =
            database.and_then(|one| one.attributes.get("DbiResourceId")).and_then(Value::as_str).unwrap_or_default();
        let logins: BTreeSet<String> = DEPLOYMENTS
            .iter()
            .filter(|one| one.function(graph).is_some())
            .filter_map(|one| one.login)
            .filter(|login| *login != "portcullis_owner")
            .map(|login| {
                format!("arn:{}:rds-db:{}:{}:dbuser:{id}/{login}", place.partition, place.region, place.account)
            })
            .collect();
        let mut granted = BTreeSet::new();
        for (at, one) in identity(role).iter().filter(|(_, one)| one.allow) {
            if one.actions != ["rds-db:connect"] {
                findings.at(role, at, format!("{}: may only connect", one.sid()));
            }
            granted.extend(one.resources.iter().cloned());
        }
        for login in granted.symmetric_difference(&logins) {
            let text = if granted.contains(login) { "is no login of a function" } else { "cannot connect" };
            findings.at(role, "/Policies", format!("`{login}` {text}"));
        }
        let trusts = statements(role.get("/AssumeRolePolicyDocument").unwrap_or(&Value::Null));
        if !trusts.iter().all(|one| one.principals() == [("Service".to_owned(), "rds.amazonaws.com".to_owned())]) {
            findings.at(role, "/AssumeRolePolicyDocument", "must trust RDS alone");
        }
    }
}

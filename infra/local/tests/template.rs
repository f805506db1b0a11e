//! The deployed template, and what its reader refuses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers beside the tests")]

use std::collections::BTreeMap;

use local::clock::Clock;
use local::policy::Iam;
use local::template::{self, Deployment, NetworkSpec, Template};
use serde_json::json;

const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";

fn parameters(changes: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = [
        ("Env", "test"),
        ("Issuer", "https://localhost:1"),
        ("Audience", "https://api.example"),
        ("TrustBucket", "trust-bucket"),
        ("ObjectBucket", "object-bucket"),
        ("DataKeyArn", "arn:aws:kms:us-east-1:111122223333:key/data"),
        ("BucketKeyArn", "arn:aws:kms:us-east-1:111122223333:key/bucket"),
        ("ReceiptKeyArn", "arn:aws:kms:us-east-1:111122223333:key/receipts"),
        ("SigningHost", "http://127.0.0.1:2"),
        ("DbHost", "localhost"),
        ("DbPort", "3"),
        ("DbProxyResourceId", "prx-1"),
        ("DbResourceId", "db-1"),
        ("DbDirectHost", "127.0.0.1"),
        ("DbDirectPort", "4"),
        ("Scan", "off"),
        ("CodeBucket", "code"),
        ("SigningKeyArn", "arn:aws:kms:us-east-1:111122223333:key/signing"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    parameters.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    parameters
}

fn load(changes: &[(&str, &str)]) -> Deployment {
    Template::deployed(&parameters(changes), ACCOUNT, REGION, "api123").unwrap().deployment().clone()
}

#[test]
fn the_template_deploys_each_function_with_its_own_role_of_the_same_name() {
    let deployment = load(&[]);
    let found: Vec<(&str, &str)> =
        deployment.functions.iter().map(|one| (one.deployment.as_str(), one.binary.as_str())).collect();
    let expected = [
        ("admin", "admin"),
        ("authorizer", "authorizer"),
        ("data-key-decrypt", "data-key"),
        ("data-key-encrypt", "data-key"),
        ("data-key-maintain", "data-key"),
        ("data-key-shred", "data-key"),
        ("download", "download"),
        ("issuer-keys", "issuer-keys"),
        ("migrate", "migrate"),
        ("object-events", "object-events"),
        ("token", "token"),
        ("trust", "trust"),
        ("upload", "upload"),
    ];
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    for function in &deployment.functions {
        assert_eq!(function.role_name, function.function_name);
        assert_eq!(function.function_name, format!("portcullis-test-{}", function.deployment));
        assert_eq!(function.reserved_concurrency, None);
    }
    let signers: Vec<&str> =
        deployment.roles.iter().map(|role| role.name.as_str()).filter(|name| name.ends_with("signer")).collect();
    assert_eq!(signers.len(), 2);
    assert_eq!(deployment.roles.len(), 15);
}

/// The variables of every deployment, so that a change on one side is a visible change here.
#[test]
fn every_function_gets_exactly_its_variables() {
    let database = ["DB_HOST", "DB_MODE", "DB_NAME", "DB_PORT", "DB_USER"];
    let gate = ["AUDIENCE", "ENV", "ISSUER", "TRUST_BUCKET"];
    let with = |groups: &[&[&str]]| -> Vec<String> {
        let mut names: Vec<String> = groups.concat().iter().map(|name| format!("PORTCULLIS_{name}")).collect();
        names.sort();
        names
    };
    let expected: BTreeMap<&str, Vec<String>> = [
        ("token", with(&[&gate, &database, &["SIGNER", "SIGNING_ALG"]])),
        ("authorizer", with(&[&gate])),
        (
            "upload",
            with(&[
                &gate,
                &database,
                &["OBJECT_BUCKET", "BUCKET_KEY_ARN", "SIGNING_HOST", "SIGNER_REACH", "UPLOAD_SIGNER_ROLE"],
            ]),
        ),
        (
            "download",
            with(&[
                &gate,
                &database,
                &[
                    "OBJECT_BUCKET",
                    "BUCKET_KEY_ARN",
                    "RECEIPT_KEY_ARN",
                    "SIGNING_HOST",
                    "SIGNER_REACH",
                    "DOWNLOAD_SIGNER_ROLE",
                    "SCAN",
                ],
            ]),
        ),
        ("data-key-encrypt", with(&[&gate, &database, &["DATA_KEY_ARN", "OPERATIONS"]])),
        (
            "data-key-decrypt",
            with(&[&gate, &database, &["DATA_KEY_ARN", "DEVICE_COLUMNS", "HONEY_KEYS", "OPERATIONS", "PURPOSES"]]),
        ),
        (
            "data-key-maintain",
            with(&[
                &gate,
                &database,
                &["DATA_KEY_ARN", "DEVICE_COLUMNS", "HONEY_KEYS", "IMPORT_KEYS", "OPERATIONS", "PURPOSES"],
                &["TARGET_HOST", "TARGET_MODE", "TARGET_NAME", "TARGET_PORT", "TARGET_USER"],
            ]),
        ),
        ("data-key-shred", with(&[&database, &["ENV", "OPERATIONS"]])),
        ("object-events", with(&[&database, &["ENV", "OBJECT_BUCKET", "BUCKET_KEY_ARN", "SCAN"]])),
        ("trust", with(&[&gate, &database, &["SIGNER", "SIGNING_ALG", "SIGNING_DAYS", "SIGNING_SPARES"]])),
        ("issuer-keys", with(&[&["ENV", "TRUST_BUCKET"]])),
        ("admin", with(&[&database, &["ENV", "TRUST_BUCKET"]])),
        ("migrate", with(&[&database, &["ENV"]])),
    ]
    .into();
    let deployment = load(&[]);
    for function in &deployment.functions {
        let names: Vec<String> = function.environment.keys().cloned().collect();
        assert_eq!(names, expected[function.deployment.as_str()], "{}", function.deployment);
    }
}

#[test]
fn the_database_is_reached_through_the_proxy_except_by_migrate_or_by_choice() {
    for (mode, host, port, resource) in [("proxy", "localhost", "3", "prx-1"), ("direct", "127.0.0.1", "4", "db-1")] {
        let deployment = load(&[("DbMode", mode)]);
        let without = ["authorizer", "issuer-keys"];
        for function in deployment.functions.iter().filter(|one| !without.contains(&one.deployment.as_str())) {
            let value = |name: &str| function.environment[&format!("PORTCULLIS_{name}")].clone();
            let direct = function.deployment == "migrate";
            let (host, port, mode) = if direct { ("127.0.0.1", "4", "direct") } else { (host, port, mode) };
            assert_eq!((value("DB_HOST"), value("DB_PORT"), value("DB_MODE")), (host.into(), port.into(), mode.into()));
            let login = if direct { "portcullis_owner".to_owned() } else { function.deployment.replace('-', "_") };
            assert_eq!(value("DB_USER"), login);
            let role = deployment.roles.iter().find(|role| role.name == function.role_name).unwrap();
            let resource = if direct { "db-1" } else { resource };
            let arn = format!("arn:aws:rds-db:us-east-1:111122223333:dbuser:{resource}/{login}");
            assert!(role.policies[0].to_string().contains(&arn), "{arn}");
        }
    }
}

#[test]
fn events_and_the_schedule_start_only_what_they_should() {
    let deployment = load(&[]);
    let mut rules: Vec<(&str, Vec<String>, bool)> = deployment
        .rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule.targets.clone(), rule.schedule.is_some()))
        .collect();
    rules.sort();
    assert_eq!(
        rules,
        [
            ("portcullis-test-ended-keys", vec!["portcullis-test-data-key-maintain:live".to_owned()], true),
            ("portcullis-test-file-sweep", vec!["portcullis-test-object-events:live".to_owned()], true),
            ("portcullis-test-issuer-keys-schedule", vec!["portcullis-test-issuer-keys:live".to_owned()], true),
            ("portcullis-test-object-created", vec!["portcullis-test-object-events:live".to_owned()], false),
            ("portcullis-test-scan-verdict", vec!["portcullis-test-object-events:live".to_owned()], false),
            ("portcullis-test-trust-inbox", vec!["portcullis-test-trust:live".to_owned()], false),
            ("portcullis-test-trust-schedule", vec!["portcullis-test-trust:live".to_owned()], true),
        ]
    );
    let created = deployment.rules.iter().find(|rule| rule.name.ends_with("object-created")).unwrap();
    let pattern = created.pattern.as_ref().unwrap();
    assert_eq!(
        pattern["detail"],
        json!({"bucket": {"name": ["object-bucket"]}, "object": {"key": [{"prefix": "t/"}]}})
    );
}

#[test]
fn the_gateway_may_invoke_only_the_functions_of_its_routes() {
    let deployment = load(&[]);
    let api = |rest: &str| format!("arn:aws:execute-api:us-east-1:111122223333:api123/{rest}");
    let allowed = |function: &str, source: &str| {
        let name = format!("portcullis-test-{function}:live");
        deployment.permissions.iter().any(|one| one.covers(&name, "apigateway.amazonaws.com", source))
    };
    for (function, source, expected) in [
        ("token", "v1/POST/oauth2/token", true),
        ("token", "v1/POST/files", false),
        ("authorizer", "authorizers/abc123", true),
        ("upload", "v1/POST/files", true),
        ("upload", "v1/GET/files/1", false),
        ("upload", "v1/DELETE/files/1", true),
        ("upload", "v1/POST/files/1/url", true),
        ("upload", "v1/POST/files/1/content", false),
        ("download", "v1/DELETE/files/1", false),
        ("download", "v1/GET/files/1/content", true),
        ("token", "v1/POST/oauth2/revoke", true),
        ("token", "v1/POST/oauth2/introspect", true),
        ("data-key-encrypt", "v1/POST/fields/index", true),
        ("data-key-encrypt", "v1/POST/fields/inspect", true),
        ("data-key-decrypt", "v1/POST/fields/inspect", false),
        ("data-key-encrypt", "v1/POST/fields/decrypt", false),
        ("data-key-decrypt", "v1/POST/fields/decrypt", true),
        ("data-key-maintain", "v1/POST/fields/decrypt", false),
        ("data-key-maintain", "v1/POST/fields/rewrap", true),
        ("data-key-decrypt", "v1/POST/fields/rewrap", false),
        ("data-key-maintain", "v1/POST/fields/export", true),
        ("data-key-maintain", "v1/POST/fields/import", true),
        ("data-key-decrypt", "v1/POST/fields/export", false),
        ("data-key-shred", "v1/POST/fields/rewrap", false),
        ("admin", "v1/POST/files", false),
    ] {
        assert_eq!(allowed(function, &api(source)), expected, "{function} {source}");
    }
}

#[test]
fn the_signing_algorithm_decides_about_keys_and_signatures() {
    for (algorithm, sign, spec, message) in [
        ("RS256", "RSASSA_PKCS1_V1_5_SHA_256", "RSA_2048", "DIGEST"),
        ("ES256", "ECDSA_SHA_256", "ECC_NIST_P256", "DIGEST"),
        ("EdDSA", "ED25519_SHA_512", "ECC_NIST_EDWARDS25519", "RAW"),
    ] {
        let deployment = load(&[("SigningAlg", algorithm)]);
        let policy = |name: &str| {
            let role = deployment.roles.iter().find(|role| role.name == format!("portcullis-test-{name}")).unwrap();
            role.policies[0].to_string()
        };
        assert!(policy("token").contains(&format!(r#""kms:SigningAlgorithm":"{sign}""#)));
        assert!(policy("token").contains(&format!(r#""kms:MessageType":"{message}""#)));
        assert!(policy("trust").contains(&format!(r#""kms:KeySpec":"{spec}""#)));
    }
}

#[test]
fn singletons_reserve_concurrency_only_where_asked() {
    let deployment = load(&[("Reserve", "on")]);
    let reserved: Vec<&str> = deployment
        .functions
        .iter()
        .filter(|function| function.reserved_concurrency == Some(1))
        .map(|function| function.deployment.as_str())
        .collect();
    assert_eq!(reserved, ["issuer-keys", "migrate", "trust"]);
}

#[test]
fn every_policy_of_the_template_is_understood() {
    assert!(Iam::new(ACCOUNT, REGION, Clock::system(), &load(&[]).roles).is_ok());
}

// ---- refusals ----------------------------------------------------------------------------------------------------

const SMALL: &str = r#"
Parameters:
  Env: {Type: String, AllowedPattern: '[a-z]{1,8}'}
Conditions:
  Always: {Fn::Equals: [a, a]}
Resources:
  AFunction:
    Type: AWS::Lambda::Function
    Properties:
      FunctionName: {Fn::Sub: 'portcullis-${Env}-a'}
      Runtime: provided.al2023
      Handler: bootstrap
      Code: {S3Bucket: b, S3Key: a.zip}
      Role: {Fn::GetAtt: [ARole, Arn]}
      MemorySize: 128
      Timeout: 3
      Environment:
        Variables:
          PORTCULLIS_X: x
  ARole:
    Type: AWS::IAM::Role
    Properties:
      RoleName: a
      AssumeRolePolicyDocument:
        Version: '2012-10-17'
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}]
      Policies:
        - PolicyName: a
          PolicyDocument:
            Version: '2012-10-17'
            Statement:
              - Effect: Allow
                Action: s3:GetObject
                Resource: arn:aws:s3:::b/*
                Condition: {StringEquals: {s3:authType: REST-HEADER}}
"#;

fn small(from: &str, to: &str) -> Result<Deployment, Vec<String>> {
    assert!(from.is_empty() || SMALL.contains(from), "{from}");
    let text = if from.is_empty() { SMALL.to_owned() } else { SMALL.replace(from, to) };
    template::load(&text, &[("Env".to_owned(), "x".to_owned())].into(), ACCOUNT, REGION)
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    assert!(small("", "").is_ok());
    let mut wrong = Vec::new();
    for (from, to, fault) in [
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::ImportValue: x}", "unknown intrinsic `Fn::ImportValue`"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Ref: Nothing}", "`Nothing` is no parameter"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::Sub: 'a${Nothing.Arn}'}", "`Nothing` is no parameter"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::Sub: 'a${Env'}", "without end"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::GetAtt: [ARole, Tag]}", "unknown attribute `ARole.Tag`"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::GetAtt: [ARole, RoleId]}", "exists only after deployment"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::If: [Never, a, b]}", "unknown condition `Never`"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::Select: [2, [a, b]]}", "no such item"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Ref: Env, Other: x}", "`Ref` beside other keys"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: !Ref Env", "long-form intrinsics only"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: [a]", "is no text"),
        ("Fn::Equals: [a, a]", "Fn::Matches: [a, a]", "condition Always"),
        ("'portcullis-${Env}-a'", "'portcullis-${AFunction}-a'", "names itself"),
        ("'portcullis-${Env}-a'", "'other-${Env}-a'", "must start with"),
        ("AWS::Lambda::Function", "AWS::Lambda::Url", "unknown type `AWS::Lambda::Url`"),
        ("Runtime: provided.al2023", "Runtime: nodejs22.x", "Runtime must be"),
        ("Handler: bootstrap", "Layers: []", "unknown property `Layers`"),
        ("a.zip", "a.tar", "must name a zip"),
        ("[ARole, Arn]", "[AFunction, Arn]", "its role is not in this template"),
        ("lambda.amazonaws.com", "ec2.amazonaws.com", "does not trust lambda.amazonaws.com"),
        ("StringEquals: {", "StringSounds: {", "unknown condition operator `StringSounds`"),
        ("s3:authType: REST", "s3:authTipe: REST", "unknown condition key `s3:authTipe`"),
        ("Resource: arn", "Resources: arn", "unknown element `Resources`"),
        ("Conditions:", "Transform: x\nConditions:", "unknown section `Transform`"),
        ("'[a-z]{1,8}'", "'[a-c]'", "does not fit its pattern"),
        ("{Type: String, ", "{Type: Map, ", "unknown type `Map`"),
        ("Timeout: 3", "Timeout: 3\n      Timeout: 4", "not YAML"),
    ] {
        match small(from, to) {
            Ok(_) => wrong.push(format!("{to}: wanted `{fault}`, was accepted")),
            Err(faults) if faults.iter().any(|found| found.contains(fault)) => {}
            Err(faults) => wrong.push(format!("{to}: wanted `{fault}`, got {faults:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = template::load(SMALL, &[("Other".to_owned(), "x".to_owned())].into(), ACCOUNT, REGION).unwrap_err();
    for expected in ["Other: not declared", "Env: no value"] {
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected} in {faults:?}");
    }
    let text = SMALL.replace("Handler: bootstrap", "Layers: []").replace("StringEquals: {", "StringSounds: {");
    let faults = template::load(&text, &[("Env".to_owned(), "x".to_owned())].into(), ACCOUNT, REGION).unwrap_err();
    for expected in ["`Layers`", "`StringSounds`"] {
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected} in {faults:?}");
    }
}

#[test]
fn a_rule_without_permission_on_its_target_is_refused() {
    let refused = |from: &str, to: &str| {
        let text = template::functions().unwrap().to_string();
        assert_eq!(text.matches(from).count(), 1, "{from}");
        template::load(&text.replace(from, to), &parameters(&[]), ACCOUNT, REGION).unwrap_err()
    };
    assert_eq!(
        refused(
            r#""SourceArn":{"Fn::GetAtt":["TrustInboxRule","Arn"]}"#,
            r#""SourceArn":{"Fn::GetAtt":["TrustScheduleRule","Arn"]}"#
        ),
        ["portcullis-test-trust-inbox: may not invoke `portcullis-test-trust:live`"]
    );
    // The function is not its alias.
    assert_eq!(
        refused(r#""Arn":{"Ref":"IssuerKeysAlias"}"#, r#""Arn":{"Fn::GetAtt":["IssuerKeysFunction","Arn"]}"#),
        ["portcullis-test-issuer-keys-schedule: may not invoke `portcullis-test-issuer-keys`"]
    );
    let faults = refused(r#""DeadLetterConfig":{"TargetArn":{"Fn::GetAtt":["IssuerKeysDeadLetters","Arn"]}},"#, "");
    assert_eq!(
        faults,
        [
            "portcullis-test-issuer-keys-schedule: `portcullis-test-issuer-keys:live` has no DeadLetterConfig for events that fail"
        ]
    );
}

#[test]
fn the_api_names_its_functions_by_alias_before_they_exist() {
    let template = Template::deployed(&parameters(&[]), ACCOUNT, REGION, "api123").unwrap();
    assert_eq!(
        template.document()["paths"]["/oauth2/token"]["post"]["x-amazon-apigateway-integration"]["uri"],
        "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-1:111122223333:function:portcullis-test-token:live/invocations"
    );
    assert!(template.deployment().functions.iter().all(|function| function.aliases == ["live"]));
}

#[test]
fn every_function_is_in_the_network_except_where_a_parameter_says_otherwise() {
    let everywhere = load(&[]);
    assert_eq!(everywhere.network.functions.len(), everywhere.functions.len());
    let endpoints = ["kms", "s3", "ssm", "sts"].map(|service| (service.to_owned(), format!("vpce-{service}")));
    assert_eq!(everywhere.network.endpoints, endpoints.into());
    let mirror_outside = load(&[("IssuerKeysNetwork", "lambda-managed")]);
    let outside: Vec<&str> = mirror_outside
        .functions
        .iter()
        .filter(|function| !mirror_outside.network.functions.contains(&function.arn))
        .map(|function| function.deployment.as_str())
        .collect();
    assert_eq!(outside, ["issuer-keys"]);
    for deployment in [load(&[("Network", "none")]), mirror_outside] {
        for function in deployment.functions.iter().filter(|one| !deployment.network.functions.contains(&one.arn)) {
            let role = deployment.roles.iter().find(|role| role.name == function.role_name).unwrap();
            let policy = role.policies[0].to_string();
            for absent in ["ec2:", "SourceVpce"] {
                assert!(!policy.contains(absent), "{}: {absent}", role.name);
            }
        }
    }
    assert_eq!(load(&[("Network", "none")]).network, NetworkSpec { functions: [].into(), ..everywhere.network });
}

#[test]
fn functions_with_a_database_connection_are_bounded_where_asked() {
    let bounded = load(&[("ApiConcurrency", "8")]);
    let bounded: Vec<&str> = bounded
        .functions
        .iter()
        .filter(|function| function.reserved_concurrency == Some(8))
        .map(|function| function.deployment.as_str())
        .collect();
    assert_eq!(bounded, ["data-key-decrypt", "data-key-encrypt", "data-key-maintain", "download", "token", "upload"]);
}

/// A new function is one file, one parameter and one output. This names what is missing of them.
#[test]
fn a_function_is_one_file_that_holds_all_of_it() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../aws/functions");
    let read = |name: &str| template::yaml(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap();
    let stack = read("_stack.yaml");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "_stack.yaml")
        .collect();
    names.sort();
    let (mut outputs, mut groups) = (Vec::new(), Vec::new());
    for name in &names {
        let deployment = name.strip_suffix(".yaml").unwrap();
        let pascal: String = deployment.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let part = read(name);
        let resources = part["Resources"].as_object().unwrap();
        let text = part.to_string();
        for (suffix, kind) in [
            ("Function", "AWS::Lambda::Function"),
            ("Role", "AWS::IAM::Role"),
            ("Logs", "AWS::Logs::LogGroup"),
            ("Version", "AWS::Lambda::Version"),
            ("Alias", "AWS::Lambda::Alias"),
        ] {
            assert_eq!(resources[&format!("{pascal}{suffix}")]["Type"], kind, "{name}: {pascal}{suffix}");
        }
        let own = format!("portcullis-${{Env}}-{deployment}");
        let function = &resources[&format!("{pascal}Function")]["Properties"];
        assert_eq!(function["FunctionName"]["Fn::Sub"], own.as_str());
        assert_eq!(function["TracingConfig"]["Mode"], "Active", "{name}");
        assert_eq!(resources[&format!("{pascal}Role")]["Properties"]["RoleName"]["Fn::Sub"], own.as_str());
        let logs = format!("log-group:{own}:*");
        assert!(text.contains(&logs), "{name}: its log group only");
        assert_eq!(text.matches(":log-group:").count(), 1, "{name}: its log group only");
        let group = format!("{pascal}SecurityGroupId");
        assert_eq!(text.matches("SecurityGroupId\"").count(), 1, "{name}: its own security group only");
        assert!(text.contains(&format!(r#"{{"Ref":"{group}"}}"#)), "{name}: its own security group");
        assert_eq!(stack["Outputs"][&format!("{pascal}FunctionArn")]["Value"]["Ref"], format!("{pascal}Alias"));
        groups.push(group);
        outputs.push(format!("{pascal}FunctionArn"));
    }
    let keys = |section: &str| -> Vec<String> { stack[section].as_object().unwrap().keys().cloned().collect() };
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(sorted(keys("Outputs")), sorted(outputs));
    let declared = keys("Parameters").into_iter().filter(|name| name.ends_with("SecurityGroupId")).collect();
    assert_eq!(sorted(declared), sorted(groups));
}

#[test]
fn a_boundary_that_is_no_policy_of_the_templates_is_refused_and_never_skipped() {
    let named =
        |arn: &str| small("      RoleName: a\n", &format!("      RoleName: a\n      PermissionsBoundary: {arn}\n"));
    let own = format!("arn:aws:iam::{ACCOUNT}:policy/portcullis-x-boundary");
    let boundary = named(&own).unwrap().roles[0].boundary.clone().unwrap();
    assert!(boundary.to_string().contains("alias/portcullis-x-*"), "{boundary}");
    for other in [&own.replace("-x-", "-y-"), "arn:aws:iam::aws:policy/AdministratorAccess", "[a]", "''"] {
        let faults = named(other).unwrap_err().join("; ");
        assert!(faults.contains("is no policy of these templates"), "{other}: {faults}");
    }
}

#[test]
fn a_template_of_somebodys_own_brings_its_own_boundary_and_lifecycle_rules() {
    const OWN: &str = r#"
Resources:
  Boundary:
    Type: AWS::IAM::ManagedPolicy
    Properties:
      ManagedPolicyName: most
      PolicyDocument:
        Version: '2012-10-17'
        Statement: [{Effect: Allow, Action: 's3:GetObject', Resource: '*'}]
  Reader:
    Type: AWS::IAM::Role
    Properties:
      RoleName: reader
      PermissionsBoundary: {Ref: Boundary}
      AssumeRolePolicyDocument:
        Version: '2012-10-17'
        Statement: [{Effect: Allow, Principal: {AWS: 'arn:aws:iam::123456789012:root'}, Action: sts:AssumeRole}]
  Kept:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: kept
      LifecycleConfiguration:
        Rules: [{Id: a, Status: Enabled, ExpirationInDays: 1}]
"#;
    let read = template::own(OWN, "123456789012", REGION).unwrap();
    assert!(read.deployment.roles[0].boundary.is_some());
    assert_eq!(read.lifecycles[0].0, "kept");
    let faults = template::own(&OWN.replace("{Ref: Boundary}", "arn:aws:iam::aws:policy/Most"), "123456789012", REGION);
    assert!(faults.unwrap_err().join("; ").contains("is no policy of these templates"));
}

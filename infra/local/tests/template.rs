//! The deployed template, and what its reader refuses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers beside the tests")]

use std::collections::BTreeMap;

use local::clock::Clock;
use local::policy::Iam;
use local::template::{self, Deployment, Template};
use serde_json::json;

const TEMPLATE: &str = include_str!("../../aws/functions.yaml");
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
        ("SigningHost", "http://127.0.0.1:2"),
        ("DbHost", "localhost"),
        ("DbPort", "3"),
        ("DbProxyResourceId", "prx-1"),
        ("DbResourceId", "db-1"),
        ("DbDirectHost", "127.0.0.1"),
        ("DbDirectPort", "4"),
        ("Scan", "off"),
        ("CodeBucket", "code"),
        ("ApiId", "api123"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    parameters.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    parameters
}

fn load(changes: &[(&str, &str)]) -> Deployment {
    template::load(TEMPLATE, &parameters(changes), ACCOUNT, REGION).unwrap()
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
    assert_eq!(deployment.roles.len(), 13);
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
            with(&[&gate, &database, &["OBJECT_BUCKET", "BUCKET_KEY_ARN", "SIGNING_HOST", "UPLOAD_SIGNER_ROLE"]]),
        ),
        (
            "download",
            with(&[
                &gate,
                &database,
                &["OBJECT_BUCKET", "BUCKET_KEY_ARN", "SIGNING_HOST", "DOWNLOAD_SIGNER_ROLE", "SCAN"],
            ]),
        ),
        ("data-key-encrypt", with(&[&gate, &database, &["DATA_KEY_ARN", "OPERATIONS"]])),
        ("data-key-decrypt", with(&[&gate, &database, &["DATA_KEY_ARN", "OPERATIONS"]])),
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
            ("portcullis-test-file-sweep", vec!["portcullis-test-object-events".to_owned()], true),
            ("portcullis-test-issuer-keys-schedule", vec!["portcullis-test-issuer-keys".to_owned()], true),
            ("portcullis-test-object-created", vec!["portcullis-test-object-events".to_owned()], false),
            ("portcullis-test-trust-inbox", vec!["portcullis-test-trust".to_owned()], false),
            ("portcullis-test-trust-schedule", vec!["portcullis-test-trust".to_owned()], true),
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
        let name = format!("portcullis-test-{function}");
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
    for (from, to, fault) in [
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::ImportValue: x}", "unknown intrinsic `Fn::ImportValue`"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Ref: Nothing}", "`Nothing` is no parameter"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::Sub: 'a${Nothing.Arn}'}", "`Nothing` is no parameter"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::Sub: 'a${Env'}", "without end"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::GetAtt: [ARole, RoleId]}", "unknown attribute `ARole.RoleId`"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::If: [Never, a, b]}", "unknown condition `Never`"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Fn::Select: [2, [a, b]]}", "no such item"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: {Ref: Env, Other: x}", "`Ref` beside other keys"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: !Ref Env", "long-form intrinsics only"),
        ("PORTCULLIS_X: x", "PORTCULLIS_X: [a]", "is no text"),
        ("Fn::Equals: [a, a]", "Fn::Not: [{Fn::Equals: [a, a]}]", "only Fn::Equals"),
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
        ("'[a-z]{1,8}'", "'(a|b)'", "beyond this reader"),
        ("'[a-z]{1,8}'", "'[a-c]'", "does not fit its pattern"),
        ("{Type: String, ", "{Type: 'List<String>', ", "unknown type `List<String>`"),
        ("Timeout: 3", "Timeout: 3\n      Timeout: 4", "not YAML"),
    ] {
        let faults = small(from, to).expect_err(to);
        assert!(faults.iter().any(|found| found.contains(fault)), "{to}: wanted `{fault}`, got {faults:?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let text = SMALL.replace("Handler: bootstrap", "Layers: []").replace("StringEquals: {", "StringSounds: {");
    let faults = template::load(&text, &[("Other".to_owned(), "x".to_owned())].into(), ACCOUNT, REGION).unwrap_err();
    for expected in ["Other: not declared", "Env: no value", "`Layers`", "`StringSounds`"] {
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected} in {faults:?}");
    }
}

#[test]
fn a_rule_without_permission_on_its_target_is_refused() {
    let text = TEMPLATE.replace("Fn::GetAtt: [TrustInboxRule, Arn]", "Fn::GetAtt: [TrustScheduleRule, Arn]");
    let faults = template::load(&text, &parameters(&[]), ACCOUNT, REGION).unwrap_err();
    assert_eq!(faults, ["portcullis-test-trust-inbox: may not invoke `portcullis-test-trust`"]);
}

#[test]
fn another_document_is_resolved_against_the_template() {
    let template = Template::open(TEMPLATE, &parameters(&[]), ACCOUNT, REGION).unwrap();
    let document = json!({"uri": {"Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${TokenFunction.Arn}/invocations"}});
    let resolved = template.resolve(&document).unwrap();
    assert_eq!(
        resolved["uri"],
        "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-1:111122223333:function:portcullis-test-token/invocations"
    );
    assert!(template.resolve(&json!({"uri": {"Fn::Sub": "${NoFunction.Arn}"}})).is_err());
}

//! The checklist of the service's refusals, the tiers and versions, and what a role may reach.

use serde_json::json;

use super::*;
use crate::{clock::Clock, kms::KeySpec, kms::KeyUsage, policy::Iam, template::RoleSpec};

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";

struct World {
    account: Arc<Account>,
    kms: Arc<Kms>,
    ssm: Arc<Ssm>,
    key: String,
}

fn role(name: &str, statements: &Value) -> RoleSpec {
    let version = "2012-10-17";
    RoleSpec {
        boundary: None,
        name: name.to_owned(),
        arn: format!("arn:aws:iam::{ACCOUNT}:role/{name}"),
        policies: vec![json!({ "Version": version, "Statement": statements })],
        trust: json!({ "Version": version, "Statement": [{
            "Effect": "Allow", "Principal": { "Service": "lambda.amazonaws.com" }, "Action": "sts:AssumeRole",
        }] }),
    }
}

fn arn(name: &str) -> String {
    format!("arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{}", name.trim_start_matches('/'))
}

fn world() -> World {
    let reads = |resource: &str| json!({ "Effect": "Allow", "Action": "ssm:Get*", "Resource": arn(resource) });
    let opens = |condition: &Value| json!({ "Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*", "Condition": condition });
    let through = json!({ "StringEquals": {
        "kms:EncryptionContext:PARAMETER_ARN": arn("/app/x"), "kms:ViaService": "ssm.us-east-1.amazonaws.com",
    } });
    let roles = [
        role("reader", &json!([reads("/app/x"), opens(&through)])),
        role("blind", &json!([reads("/app/x")])),
        role("below", &json!([reads("/app/*"), opens(&through)])),
        role(
            "first",
            &json!([{ "Effect": "Allow", "Action": "ssm:PutParameter", "Resource": arn("/app/*"),
            "Condition": { "StringNotEquals": { "ssm:Overwrite": "true" } } }]),
        ),
        role(
            "flat",
            &json!([{ "Effect": "Allow", "Action": "ssm:GetParametersByPath", "Resource": arn("/app"),
            "Condition": { "StringEquals": { "ssm:Recursive": "false" } } }]),
        ),
    ];
    let account = Arc::new(Account::new(Iam::new(ACCOUNT, REGION, Clock::system(), &roles).unwrap()));
    let kms = Kms::new(Arc::clone(&account));
    let key = kms.create_key(KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, &[]).unwrap();
    kms.create_service_alias("ssm", &key).unwrap();
    let ssm = Ssm::new(Arc::clone(&account), Arc::clone(&kms));
    World { account, kms, ssm, key }
}

impl World {
    fn call(&self, operation: &str, input: Value) -> Result<Value, Refusal> {
        self.ssm.perform(&self.account.operator(), operation, &input)
    }

    #[track_caller]
    fn may(&self, operation: &str, input: Value) -> Value {
        self.call(operation, input).unwrap()
    }

    fn as_role(&self, role: &str, operation: &str, input: Value) -> Result<Value, &'static str> {
        let caller = self.account.session(role, "test", None);
        self.ssm.perform(&caller, operation, &input).map_err(|refusal| refusal.code)
    }

    #[track_caller]
    fn refused(&self, operation: &str, input: Value, code: &str) -> String {
        let refusal = self.call(operation, input.clone()).expect_err(&input.to_string());
        assert_eq!(refusal.code, code, "{operation} {input}: {refusal}");
        refusal.message.unwrap_or_default()
    }

    fn value(&self, name: &str) -> Value {
        self.may("GetParameter", json!({ "Name": name, "WithDecryption": true }))["Parameter"]["Value"].clone()
    }
}

fn put(name: &str, value: &str) -> Value {
    json!({ "Name": name, "Value": value, "Type": "String" })
}

fn secure(name: &str, value: &str) -> Value {
    json!({ "Name": name, "Value": value, "Type": "SecureString" })
}

fn again(mut input: Value, more: &Value) -> Value {
    input["Overwrite"] = json!(true);
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    input
}

#[test]
fn whatever_the_checklist_refuses_is_refused() {
    let world = world();
    world.may("PutParameter", put("/app/x", "one"));
    world.may("PutParameter", json!({ "Name": "/app/big", "Value": "one", "Type": "String", "Tier": "Advanced" }));
    let disabled = world.kms.create_key(KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, &[]).unwrap();
    let pair = world.kms.create_key(KeySpec::EccNistP256, KeyUsage::SignVerify, &[]).unwrap();
    world.kms.perform(&world.account.operator(), None, "DisableKey", &json!({ "KeyId": disabled })).unwrap();
    let deep = format!("/{}", ["a"; 16].join("/"));
    let with = |mut input: Value, name: &str, value: Value| {
        input[name] = value;
        input
    };
    for (operation, input, code) in [
        ("GetParameter", json!({ "Name": "/app/none" }), "ParameterNotFound"),
        ("GetParameter", json!({ "Name": "/app/x:2" }), "ParameterVersionNotFound"),
        ("GetParameter", json!({ "Name": "/app/x:prod" }), "ParameterVersionNotFound"),
        ("GetParameter", json!({ "Name": "/app/x:" }), "ValidationException"),
        ("GetParameter", json!({ "Name": "/app/x:1:1" }), "ValidationException"),
        ("GetParameter", json!({ "Name": "" }), "ValidationException"),
        ("GetParameter", json!({}), "ValidationException"),
        ("GetParameter", json!({ "Name": 7 }), "SerializationException"),
        ("GetParameter", json!([]), "SerializationException"),
        ("GetParameter", json!({ "Name": "/app/x", "Unknown": 1 }), "ValidationException"),
        ("GetParameter", json!({ "Name": arn("/app/x").replace(ACCOUNT, "999999999999") }), "ValidationException"),
        ("DescribeParameters", json!({}), "UnknownOperationException"),
        ("PutParameter", put("/app/x", "two"), "ParameterAlreadyExists"),
        ("PutParameter", again(secure("/app/x", "two"), &json!({})), "HierarchyTypeMismatchException"),
        ("PutParameter", json!({ "Name": "/app/y", "Value": "v" }), "ValidationException"),
        ("PutParameter", put("/app/y", ""), "ValidationException"),
        ("PutParameter", put("/app/y", &"v".repeat(4097)), "ValidationException"),
        ("PutParameter", with(put("/app/y", &"v".repeat(8193)), "Tier", json!("Advanced")), "ValidationException"),
        ("PutParameter", again(put("/app/big", "v"), &json!({ "Tier": "Standard" })), "ValidationException"),
        ("PutParameter", with(put("/app/y", "v"), "Type", json!("Text")), "ValidationException"),
        ("PutParameter", with(put("/app/y", "v"), "KeyId", json!(world.key)), "ValidationException"),
        ("PutParameter", with(put("/app/y", "v"), "AllowedPattern", json!(".*")), "ValidationException"),
        ("PutParameter", with(put("/app/y", "v"), "DataType", json!("aws:ec2:image")), "ValidationException"),
        ("PutParameter", put("app/y", "v"), "ValidationException"),
        ("PutParameter", put("/app//y", "v"), "ValidationException"),
        ("PutParameter", put("/app/y/", "v"), "ValidationException"),
        ("PutParameter", put("/app/y:1", "v"), "ValidationException"),
        ("PutParameter", put("/aws/y", "v"), "ValidationException"),
        ("PutParameter", put("SSM-y", "v"), "ValidationException"),
        ("PutParameter", put(&deep, "v"), "HierarchyLevelLimitExceededException"),
        ("PutParameter", put(&format!("/{}", "y".repeat(1000)), "v"), "ValidationException"),
        ("PutParameter", with(secure("/app/y", "v"), "KeyId", json!("alias/none")), "InvalidKeyId"),
        ("PutParameter", with(secure("/app/y", "v"), "KeyId", json!(disabled)), "InvalidKeyId"),
        ("PutParameter", with(secure("/app/y", "v"), "KeyId", json!(pair)), "InvalidKeyId"),
        ("GetParameters", json!({ "Names": [] }), "ValidationException"),
        ("GetParameters", json!({ "Names": vec!["/app/x"; 11] }), "ValidationException"),
        ("GetParametersByPath", json!({ "Path": "app" }), "ValidationException"),
        ("GetParametersByPath", json!({ "Path": "/app", "MaxResults": 11 }), "ValidationException"),
        ("GetParametersByPath", json!({ "Path": "/app", "NextToken": "x" }), "InvalidNextToken"),
        ("GetParameterHistory", json!({ "Name": "/app/none" }), "ParameterNotFound"),
        ("GetParameterHistory", json!({ "Name": "/app/x:1" }), "ValidationException"),
        ("LabelParameterVersion", json!({ "Name": "/app/none", "Labels": ["a"] }), "ParameterNotFound"),
        (
            "LabelParameterVersion",
            json!({ "Name": "/app/x", "ParameterVersion": 2, "Labels": ["a"] }),
            "ParameterVersionNotFound",
        ),
        ("LabelParameterVersion", json!({ "Name": "/app/x", "Labels": [] }), "ValidationException"),
        ("LabelParameterVersion", json!({ "Name": "/app/x", "Labels": ["a".repeat(101)] }), "ValidationException"),
        ("DeleteParameter", json!({ "Name": "/app/none" }), "ParameterNotFound"),
        ("DeleteParameter", json!({ "Name": "/app/x:1" }), "ValidationException"),
    ] {
        world.refused(operation, input, code);
    }
    assert_eq!(world.value("/app/x"), "one");
    world.refused("GetParameter", json!({ "Name": "/app/y" }), "ParameterNotFound");
}

#[test]
fn a_refusal_never_shows_the_value() {
    let world = world();
    let canary = "canary-41aa";
    world.may("PutParameter", put("/app/x", "v"));
    for input in [
        put("/app/x", canary),
        put("/app//y", canary),
        put("/app/y", &canary.repeat(500)),
        again(secure("/app/x", canary), &json!({})),
        json!({ "Name": "/app/y", "Value": canary, "Type": "SecureString", "KeyId": "alias/none" }),
        json!({ "Name": "/app/y", "Value": [canary], "Type": "String" }),
    ] {
        let refusal = world.call("PutParameter", input).unwrap_err();
        assert!(!format!("{refusal} {refusal:?} {:?}", world.ssm).contains(canary));
    }
}

#[test]
fn versions_labels_and_selectors() {
    let world = world();
    assert_eq!(world.may("PutParameter", put("/app/x", "one")), json!({ "Version": 1, "Tier": "Standard" }));
    assert_eq!(world.may("PutParameter", again(put("/app/x", "two"), &json!({})))["Version"], 2);
    assert_eq!((world.value("/app/x"), world.value("/app/x:1")), (json!("two"), json!("one")));
    let shown = world.may("GetParameter", json!({ "Name": arn("/app/x") + ":1" }))["Parameter"].clone();
    assert_eq!(
        (&shown["Name"], &shown["Selector"], &shown["ARN"], &shown["DataType"], &shown["Version"]),
        (&json!("/app/x"), &json!(":1"), &json!(arn("/app/x")), &json!("text"), &json!(1))
    );
    assert!(shown["LastModifiedDate"].is_f64());

    let labels = json!({ "Name": "/app/x", "ParameterVersion": 1, "Labels": ["prod", "1st", "aws-x", "ssm", "a b"] });
    assert_eq!(
        world.may("LabelParameterVersion", labels),
        json!({ "InvalidLabels": ["1st", "aws-x", "ssm", "a b"], "ParameterVersion": 1 })
    );
    assert_eq!(world.value("/app/x:prod"), "one");
    world.may("LabelParameterVersion", json!({ "Name": "/app/x", "Labels": ["prod"] }));
    assert_eq!(world.value("/app/x:prod"), "two", "a label sits on one version");
    let many: Vec<_> = (0..9).map(|number| format!("l{number}")).collect();
    world.may("LabelParameterVersion", json!({ "Name": "/app/x", "Labels": many }));
    world.refused(
        "LabelParameterVersion",
        json!({ "Name": "/app/x", "Labels": ["eleven"] }),
        "ParameterVersionLabelLimitExceeded",
    );
    let history = world.may("GetParameterHistory", json!({ "Name": "/app/x" }))["Parameters"].clone();
    assert_eq!((history[0]["Labels"].clone(), history[1]["Labels"].as_array().unwrap().len()), (json!([]), 10));
    assert_eq!((&history[0]["Value"], &history[1]["Value"]), (&json!("one"), &json!("two")));

    world.may("DeleteParameter", json!({ "Name": "/app/x" }));
    assert_eq!(world.may("PutParameter", put("/app/x", "new"))["Version"], 1);
    // A plain name's ARN has one slash as well.
    world.may("PutParameter", put("plain", "v"));
    assert_eq!(world.may("GetParameter", json!({ "Name": arn("plain") }))["Parameter"]["ARN"], arn("plain"));
}

#[test]
fn the_oldest_of_a_hundred_versions_goes_unless_it_has_a_label() {
    let world = world();
    world.may("PutParameter", put("x", "1"));
    for number in 2..=101 {
        world.may("PutParameter", again(put("x", &number.to_string()), &json!({})));
    }
    world.refused("GetParameter", json!({ "Name": "x:1" }), "ParameterVersionNotFound");
    assert_eq!((world.value("x:2"), world.value("x")), (json!("2"), json!("101")));
    world.may("LabelParameterVersion", json!({ "Name": "x", "ParameterVersion": 2, "Labels": ["keep"] }));
    world.refused("PutParameter", again(put("x", "102"), &json!({})), "ParameterMaxVersionLimitExceeded");
    let page = world.may("GetParameterHistory", json!({ "Name": "x", "MaxResults": 50 }));
    let second = world.may("GetParameterHistory", json!({ "Name": "x", "NextToken": page["NextToken"] }));
    assert_eq!(second["Parameters"].as_array().unwrap().len(), 50);
    assert_eq!((&second["Parameters"][49]["Version"], second.get("NextToken")), (&json!(101), None));
}

#[test]
fn several_parameters_at_once_and_by_path() {
    let world = world();
    for name in ["/app/a", "/app/b", "/app/deep/c", "/apple/d", "e"] {
        world.may("PutParameter", put(name, name));
    }
    let answer = world.may("GetParameters", json!({ "Names": ["/app/b", "/app/none", "e", "/app/a:9"] }));
    assert_eq!(answer["InvalidParameters"], json!(["/app/none", "/app/a:9"]));
    let names = |answer: &Value| -> Vec<String> {
        let found = answer["Parameters"].as_array().unwrap();
        found.iter().map(|found| found["Name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&answer), ["/app/b", "e"]);
    for (input, expected) in [
        (json!({ "Path": "/app" }), vec!["/app/a", "/app/b"]),
        (json!({ "Path": "/app/" }), vec!["/app/a", "/app/b"]),
        (json!({ "Path": "/app", "Recursive": true }), vec!["/app/a", "/app/b", "/app/deep/c"]),
        (json!({ "Path": "/", "Recursive": true }), vec!["/app/a", "/app/b", "/app/deep/c", "/apple/d"]),
        (json!({ "Path": "/none" }), vec![]),
    ] {
        assert_eq!(names(&world.may("GetParametersByPath", input.clone())), expected, "{input}");
    }
    let first = world.may("GetParametersByPath", json!({ "Path": "/app", "Recursive": true, "MaxResults": 2 }));
    let rest = json!({ "Path": "/app", "Recursive": true, "MaxResults": 2, "NextToken": first["NextToken"] });
    let rest = world.may("GetParametersByPath", rest);
    assert_eq!((names(&first), names(&rest)), (vec!["/app/a".into(), "/app/b".into()], vec!["/app/deep/c".into()]));
    assert!(rest.get("NextToken").is_none());
}

#[test]
fn a_secure_string_is_what_kms_sealed_for_its_arn() {
    let world = world();
    world.may("PutParameter", secure("/app/x", "canary-77fe"));
    let sealed = world.may("GetParameter", json!({ "Name": "/app/x" }))["Parameter"]["Value"].clone();
    assert!(!sealed.to_string().contains("canary"));
    assert_eq!(world.value("/app/x"), "canary-77fe");
    let open = |context: Value| {
        let input = json!({ "CiphertextBlob": sealed, "EncryptionContext": context });
        world.kms.perform(&world.account.operator(), None, "Decrypt", &input).map_err(|refusal| refusal.code)
    };
    assert_eq!(open(json!({ "PARAMETER_ARN": arn("/app/x") })).unwrap()["Plaintext"], "Y2FuYXJ5LTc3ZmU=");
    for context in [json!({}), json!({ "PARAMETER_ARN": arn("/app/y") }), json!({ "parameter_arn": arn("/app/x") })] {
        assert_eq!(open(context), Err("InvalidCiphertextException"));
    }
    let history = world.may("GetParameterHistory", json!({ "Name": "/app/x", "WithDecryption": true }));
    let entry = &history["Parameters"][0];
    assert_eq!((&entry["KeyId"], &entry["Value"]), (&json!("alias/aws/ssm"), &json!("canary-77fe")));
    assert_eq!(entry["LastModifiedUser"], world.account.operator().arn);
}

#[test]
fn the_advanced_tier_seals_under_a_data_key_and_never_goes_back() {
    let world = world();
    let long = "v".repeat(8192);
    let tiered = |tier: &str, value: &str| json!({ "Name": "/app/x", "Value": value, "Type": "SecureString", "Tier": tier, "Overwrite": true });
    assert_eq!(world.may("PutParameter", tiered("Intelligent-Tiering", "v"))["Tier"], "Standard");
    assert_eq!(world.may("PutParameter", tiered("Intelligent-Tiering", &long))["Tier"], "Advanced");
    assert_eq!(world.value("/app/x"), long.as_str());
    assert_eq!(world.may("PutParameter", tiered("Intelligent-Tiering", "v"))["Tier"], "Advanced");
    world.refused("PutParameter", tiered("Standard", "v"), "ValidationException");
    assert_eq!((world.value("/app/x"), world.value("/app/x:1")), (json!("v"), json!("v")));
}

#[test]
fn a_disabled_key_leaves_the_ciphertext_readable_only() {
    let world = world();
    world.may("PutParameter", secure("/app/x", "v"));
    let key = |operation: &str| {
        world.kms.perform(&world.account.operator(), None, operation, &json!({ "KeyId": world.key })).unwrap();
    };
    key("DisableKey");
    let text = world.refused("GetParameter", json!({ "Name": "/app/x", "WithDecryption": true }), "InvalidKeyId");
    assert!(text.contains("is disabled.") && text.contains("DisabledException"), "{text}");
    world.may("GetParameter", json!({ "Name": "/app/x" }));
    key("EnableKey");
    assert_eq!(world.value("/app/x"), "v");
    // While KMS itself is down, nothing is opened and nothing is stored.
    let down = crate::faults::Faults { unavailable: true, ..Default::default() };
    world.kms.faults().set(down);
    for (operation, input) in [
        ("GetParameter", json!({ "Name": "/app/x", "WithDecryption": true })),
        ("PutParameter", again(secure("/app/x", "w"), &json!({}))),
    ] {
        assert_eq!(world.call(operation, input).unwrap_err().status, 500);
    }
    world.kms.faults().set(crate::faults::Faults::default());
    assert_eq!(world.value("/app/x"), "v");
}

#[test]
fn a_role_reaches_its_own_parameter_only_and_only_with_the_right_on_the_key() {
    let world = world();
    for name in ["/app/x", "/app/y"] {
        world.may("PutParameter", secure(name, "v"));
    }
    let get = |name: &str| json!({ "Name": name, "WithDecryption": true });
    assert_eq!(world.as_role("reader", "GetParameter", get("/app/x")).unwrap()["Parameter"]["Value"], "v");
    for (who, operation, input) in [
        ("reader", "GetParameter", get("/app/y")),
        ("reader", "GetParameter", get("/app/none")),
        ("reader", "GetParameter", get(&arn("/app/y"))),
        ("reader", "GetParameters", json!({ "Names": ["/app/x", "/app/y"] })),
        ("reader", "GetParametersByPath", json!({ "Path": "/app" })),
        ("reader", "GetParameterHistory", get("/app/y")),
        ("reader", "PutParameter", again(secure("/app/x", "w"), &json!({}))),
        ("reader", "DeleteParameter", json!({ "Name": "/app/x" })),
        ("reader", "LabelParameterVersion", json!({ "Name": "/app/x", "Labels": ["a"] })),
        ("blind", "GetParameter", get("/app/x")),
        ("below", "GetParameter", get("/app/y")),
        ("first", "PutParameter", again(put("/app/z", "w"), &json!({}))),
        ("first", "PutParameter", secure("/app/z", "w")),
        ("flat", "GetParametersByPath", json!({ "Path": "/app", "Recursive": true })),
    ] {
        assert_eq!(
            world.as_role(who, operation, input.clone()),
            Err("AccessDeniedException"),
            "{who} {operation} {input}"
        );
    }
    assert!(world.as_role("blind", "GetParameter", json!({ "Name": "/app/x" })).is_ok(), "the ciphertext needs no key");
    assert!(world.as_role("first", "PutParameter", put("/app/z", "w")).is_ok());
    assert!(world.as_role("flat", "GetParametersByPath", json!({ "Path": "/app" })).is_ok());
}

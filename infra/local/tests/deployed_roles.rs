//! The roles of the deployed template, asked of KMS and STS: what each needs it gets, and nothing beside it.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it by panicking")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use local::{
    account::Account,
    clock::Clock,
    kms::{KeySpec, KeyUsage, Kms, KmsError},
    policy::{Context, Iam},
    ssm::Ssm,
    template::Template,
};
use serde_json::{Value, json};
use uuid::Uuid;

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";
/// The object bucket of the deployment below.
const OBJECTS: &str = "arn:aws:s3:::objects";
const THROUGH_S3: &str = "s3.us-east-1.amazonaws.com";

struct Stack {
    account: Arc<Account>,
    kms: Arc<Kms>,
    ssm: Arc<Ssm>,
    data: String,
    bucket: String,
    receipts: String,
    signing: String,
}

impl Stack {
    fn start(algorithm: &str) -> Self {
        Self::start_with("kms", algorithm)
    }

    fn start_with(signer: &str, algorithm: &str) -> Self {
        let (data_id, bucket_id, signing_id) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let receipts_id = Uuid::from_u128(4);
        let receipts = Kms::key_arn(ACCOUNT, REGION, receipts_id);
        let [data, bucket, signing] = [data_id, bucket_id, signing_id].map(|id| Kms::key_arn(ACCOUNT, REGION, id));
        let parameters = BTreeMap::from(
            [
                ("Env", "dev"),
                ("Issuer", "https://localhost:1"),
                ("Audience", "api"),
                ("TrustBucket", "trust"),
                ("ObjectBucket", "objects"),
                ("DataKeyArn", &data),
                ("BucketKeyArn", &bucket),
                ("ReceiptKeyArn", &receipts),
                ("SigningHost", "http://127.0.0.1:1"),
                ("DbHost", "localhost"),
                ("DbProxyResourceId", "prx-1"),
                ("DbResourceId", "db-1"),
                ("DbDirectHost", "localhost"),
                ("Scan", "off"),
                ("Signer", signer),
                ("SigningKeyArn", &signing),
                ("SigningAlg", algorithm),
                ("CodeBucket", "code"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let template = Template::deployed(&parameters, ACCOUNT, REGION, "api1").unwrap();
        let deployment = template.deployment();
        let iam = Iam::new(ACCOUNT, REGION, Clock::system(), &deployment.roles).unwrap();
        let account = Arc::new(Account::new(iam.in_network(deployment.network.clone())));
        let kms = Kms::new(Arc::clone(&account));
        assert_eq!(kms.create_key_with_id(data_id, KeySpec::SymmetricDefault, &[]).unwrap(), data);
        assert_eq!(kms.create_key_with_id(bucket_id, KeySpec::SymmetricDefault, &[]).unwrap(), bucket);
        assert!(kms.create_key_with_id(data_id, KeySpec::SymmetricDefault, &[]).is_err());
        assert_eq!(kms.create_key_with_id(signing_id, KeySpec::SymmetricDefault, &[]).unwrap(), signing);
        assert_eq!(kms.create_key_with_id(receipts_id, KeySpec::EccNistP256, &[]).unwrap(), receipts);
        // As data.yaml names them: the boundary knows the deployment's keys by their aliases.
        for (alias, key) in
            [("data", &data), ("bucket", &bucket), ("receipts", &receipts), ("signing-parameters", &signing)]
        {
            kms.create_alias(&format!("alias/portcullis-dev-{alias}"), key).unwrap();
        }
        let ssm = Ssm::new(Arc::clone(&account), Arc::clone(&kms));
        Self { account, kms, ssm, data, bucket, receipts, signing }
    }

    fn call(&self, deployment: &str, via: Option<&str>, operation: &str, input: &Value) -> Result<Value, KmsError> {
        let name = format!("portcullis-dev-{deployment}");
        let caller = self.account.session(&name, &name, Some(self.account.function_arn(&name)));
        self.kms.perform(&caller, via, operation, input)
    }

    fn parameter(&self, deployment: &str, operation: &str, input: &Value) -> Result<Value, &'static str> {
        let name = format!("portcullis-dev-{deployment}");
        let caller = self.account.session(&name, &name, Some(self.account.function_arn(&name)));
        self.ssm.perform(&caller, operation, input).map_err(|refusal| refusal.code)
    }

    #[track_caller]
    fn may(&self, deployment: &str, via: Option<&str>, operation: &str, input: &Value) -> Value {
        self.call(deployment, via, operation, input).unwrap()
    }

    #[track_caller]
    fn may_not(&self, deployment: &str, via: Option<&str>, operation: &str, input: &Value) {
        let answered = self.call(deployment, via, operation, input).map_err(|error| error.code);
        assert_eq!(answered, Err("AccessDeniedException"), "{deployment} {operation} {input}");
    }
}

fn context(purpose: &str) -> Value {
    json!({ "tenant": "acme", "purpose": purpose, "data_key_id": "01" })
}

fn create(spec: &str, environment: &str) -> Value {
    json!({
        "KeySpec": spec, "KeyUsage": "SIGN_VERIFY",
        "Tags": [{ "TagKey": "portcullis:signing", "TagValue": environment }],
    })
}

fn signing(key: &Value, algorithm: &str, kind: &str) -> Value {
    let message = STANDARD.encode([1; 32]);
    json!({ "KeyId": key, "Message": message, "MessageType": kind, "SigningAlgorithm": algorithm })
}

#[test]
fn trust_makes_signing_keys_of_the_configured_kind_and_token_signs_with_them_alone() {
    for (configured, spec, algorithm, kind, other_spec, other_kind) in [
        ("RS256", "RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256", "DIGEST", "ECC_NIST_P256", "RAW"),
        ("ES256", "ECC_NIST_P256", "ECDSA_SHA_256", "DIGEST", "RSA_2048", "RAW"),
        ("EdDSA", "ECC_NIST_EDWARDS25519", "ED25519_SHA_512", "RAW", "RSA_2048", "DIGEST"),
    ] {
        let stack = Stack::start(configured);
        let made = stack.may("trust", None, "CreateKey", &create(spec, "dev"));
        let key = &made["KeyMetadata"]["Arn"];
        stack.may("trust", None, "GetPublicKey", &json!({ "KeyId": key }));
        stack.may("token", None, "Sign", &signing(key, algorithm, kind));

        stack.may_not("trust", None, "CreateKey", &create(other_spec, "dev"));
        stack.may_not("trust", None, "CreateKey", &create(spec, "prod"));
        stack.may_not("trust", None, "CreateKey", &json!({ "KeySpec": spec, "KeyUsage": "SIGN_VERIFY" }));
        stack.may_not("trust", None, "CreateKey", &json!({}));
        stack.may_not("trust", None, "Sign", &signing(key, algorithm, kind));
        stack.may_not("token", None, "CreateKey", &create(spec, "dev"));
        stack.may_not("token", None, "Sign", &signing(key, algorithm, other_kind));
        for tags in [&[][..], &[("portcullis:signing", "prod")]] {
            let foreign = KeySpec::ALL.into_iter().find(|known| known.as_str() == spec).unwrap();
            let foreign = json!(stack.kms.create_key(foreign, KeyUsage::SignVerify, tags).unwrap());
            stack.may_not("token", None, "Sign", &signing(&foreign, algorithm, kind));
            stack.may_not("trust", None, "GetPublicKey", &json!({ "KeyId": foreign }));
        }
        for stranger in [
            "authorizer",
            "upload",
            "download",
            "data-key-encrypt",
            "data-key-decrypt",
            "data-key-maintain",
            "data-key-shred",
            "admin",
            "migrate",
        ] {
            stack.may_not(stranger, None, "Sign", &signing(key, algorithm, kind));
        }
    }
}

#[test]
fn the_encrypt_role_makes_field_keys_it_cannot_open_and_the_decrypt_role_opens_them() {
    let stack = Stack::start("RS256");
    let generate =
        |key: &str, context: Value| json!({ "KeyId": key, "KeySpec": "AES_256", "EncryptionContext": context });
    let made = stack.may("data-key-encrypt", None, "GenerateDataKey", &generate(&stack.data, context("field")));
    let open =
        json!({ "CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": context("field"), "KeyId": stack.data });
    assert_eq!(stack.may("data-key-decrypt", None, "Decrypt", &open)["Plaintext"], made["Plaintext"]);
    stack.may_not("data-key-encrypt", None, "Decrypt", &open);

    let wrap = json!({ "KeyId": stack.data, "Plaintext": made["Plaintext"], "EncryptionContext": context("writer") });
    let wrapped = stack.may("data-key-encrypt", None, "Encrypt", &wrap);
    let unwrap = json!({ "CiphertextBlob": wrapped["CiphertextBlob"], "EncryptionContext": context("writer") });
    stack.may("data-key-encrypt", None, "Decrypt", &unwrap);
    stack.may_not("data-key-decrypt", None, "Decrypt", &unwrap);
    stack.may_not("data-key-decrypt", None, "GenerateDataKey", &generate(&stack.data, context("field")));

    let moved = stack.may("data-key-maintain", None, "GenerateDataKey", &generate(&stack.data, context("field")));
    assert_eq!(stack.may("data-key-maintain", None, "Decrypt", &open)["Plaintext"], made["Plaintext"]);
    let wrap_moved =
        |to: &str| json!({ "KeyId": stack.data, "Plaintext": moved["Plaintext"], "EncryptionContext": context(to) });
    stack.may("data-key-maintain", None, "Encrypt", &wrap_moved("writer"));
    for purpose in ["field", "index"] {
        stack.may_not("data-key-maintain", None, "Encrypt", &wrap_moved(purpose));
    }
    stack.may_not("data-key-maintain", None, "Decrypt", &unwrap);
    stack.may_not("data-key-maintain", None, "GenerateDataKey", &generate(&stack.data, context("index")));
    stack.may("data-key-maintain", None, "ListKeyRotations", &json!({ "KeyId": stack.data }));
    let anew = |blob: &Value, purpose: &str, to: &str| {
        json!({ "CiphertextBlob": blob, "SourceKeyId": stack.data, "DestinationKeyId": to,
            "SourceEncryptionContext": context(purpose), "DestinationEncryptionContext": context(purpose) })
    };
    stack.may("data-key-maintain", None, "ReEncrypt", &anew(&made["CiphertextBlob"], "field", &stack.data));
    stack.may_not("data-key-maintain", None, "ReEncrypt", &anew(&made["CiphertextBlob"], "field", &stack.bucket));
    stack.may_not("data-key-maintain", None, "ReEncrypt", &anew(&wrapped["CiphertextBlob"], "writer", &stack.data));
    let mut renamed = anew(&made["CiphertextBlob"], "field", &stack.data);
    renamed["DestinationEncryptionContext"] = context("writer");
    stack.may_not("data-key-maintain", None, "ReEncrypt", &renamed);
    for stranger in ["data-key-encrypt", "data-key-decrypt", "data-key-shred", "admin", "migrate"] {
        stack.may_not(stranger, None, "ReEncrypt", &anew(&made["CiphertextBlob"], "field", &stack.data));
    }

    let index = stack.may("data-key-encrypt", None, "GenerateDataKey", &generate(&stack.data, context("index")));
    let open_index = json!({ "CiphertextBlob": index["CiphertextBlob"], "EncryptionContext": context("index") });
    stack.may("data-key-encrypt", None, "Decrypt", &open_index);
    stack.may_not("data-key-decrypt", None, "Decrypt", &open_index);
    stack.may_not("data-key-decrypt", None, "GenerateDataKey", &generate(&stack.data, context("index")));
    let wrap = json!({ "KeyId": stack.data, "Plaintext": index["Plaintext"], "EncryptionContext": context("index") });
    stack.may_not("data-key-encrypt", None, "Encrypt", &wrap);

    let mut spelt = context("field");
    let tenant = spelt.as_object_mut().unwrap().remove("tenant").unwrap();
    spelt["Tenant"] = tenant;
    for wrong in [json!({}), context("other"), spelt] {
        stack.may_not("data-key-encrypt", None, "GenerateDataKey", &generate(&stack.data, wrong));
    }
    stack.may_not("data-key-encrypt", None, "GenerateDataKey", &generate(&stack.bucket, context("field")));
    for stranger in
        ["token", "authorizer", "upload", "download", "trust", "admin", "migrate", "object-events", "issuer-keys"]
    {
        stack.may_not(stranger, None, "GenerateDataKey", &generate(&stack.data, context("field")));
        stack.may_not(stranger, None, "Decrypt", &open);
    }
}

#[test]
fn receipts_are_signed_by_download_with_their_own_key_and_in_one_way() {
    let stack = Stack::start("ES256");
    let (receipts, public) = (json!(stack.receipts), json!({ "KeyId": stack.receipts }));
    stack.may("download", None, "Sign", &signing(&receipts, "ECDSA_SHA_256", "DIGEST"));
    stack.may("download", None, "GetPublicKey", &public);
    stack.may_not("download", None, "Sign", &signing(&receipts, "ECDSA_SHA_256", "RAW"));
    let token = stack.may("trust", None, "CreateKey", &create("ECC_NIST_P256", "dev"));
    let token = &token["KeyMetadata"]["Arn"];
    stack.may("token", None, "Sign", &signing(token, "ECDSA_SHA_256", "DIGEST"));
    stack.may_not("download", None, "Sign", &signing(token, "ECDSA_SHA_256", "DIGEST"));
    stack.may_not("download", None, "GetPublicKey", &json!({ "KeyId": token }));
    for who in ["token", "trust", "upload", "data-key-encrypt", "object-events", "download-signer"] {
        stack.may_not(who, None, "Sign", &signing(&receipts, "ECDSA_SHA_256", "DIGEST"));
        stack.may_not(who, None, "GetPublicKey", &public);
    }
}

#[test]
fn the_bucket_key_is_used_through_s3_only() {
    let stack = Stack::start("RS256");
    let bucket = |key: &str, arn: &str| json!({ "KeyId": key, "KeySpec": "AES_256", "EncryptionContext": { "aws:s3:arn": arn } });
    // With a bucket key the context is the bucket's ARN, without one the object's.
    let generate = bucket(&stack.bucket, OBJECTS);
    stack.may("upload-signer", Some(THROUGH_S3), "GenerateDataKey", &generate);
    stack.may_not("upload-signer", None, "GenerateDataKey", &generate);
    stack.may_not("upload-signer", Some("s3.eu-west-1.amazonaws.com"), "GenerateDataKey", &generate);
    stack.may_not("upload-signer", Some(THROUGH_S3), "GenerateDataKey", &bucket(&stack.data, OBJECTS));
    stack.may_not("upload-signer", Some(THROUGH_S3), "GenerateDataKey", &bucket(&stack.bucket, "arn:aws:s3:::another"));
    let plain = json!({ "KeyId": stack.bucket, "KeySpec": "AES_256" });
    stack.may_not("upload-signer", Some(THROUGH_S3), "GenerateDataKey", &plain);
}

#[test]
fn each_signer_role_is_assumed_by_its_own_function_alone() {
    let stack = Stack::start("RS256");
    let hour = stack.account.clock.now() + Duration::from_secs(3600);
    for (signer, owner) in [("upload-signer", "upload"), ("download-signer", "download")] {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/portcullis-dev-{signer}");
        for deployment in [
            "upload",
            "download",
            "token",
            "authorizer",
            "data-key-encrypt",
            "object-events",
            "trust",
            "admin",
            "issuer-keys",
        ] {
            let name = format!("portcullis-dev-{deployment}");
            let caller = stack.account.session(&name, &name, Some(stack.account.function_arn(&name)));
            stack.account.credentials.issue(caller.clone(), Some(hour));
            let context = Context::new().with("sts:RoleSessionName", "acme");
            let decision = stack.account.iam.assume(&caller, &role, &context);
            assert_eq!(decision.allowed(), deployment == owner, "{deployment} {signer} {decision:?}");
        }
    }
}

const EVERYBODY: [&str; 13] = [
    "token",
    "authorizer",
    "upload",
    "download",
    "data-key-encrypt",
    "data-key-decrypt",
    "data-key-maintain",
    "data-key-shred",
    "issuer-keys",
    "object-events",
    "trust",
    "admin",
    "migrate",
];

fn key_parameter(stack: &Stack, path: &str) -> Value {
    json!({ "Name": format!("{path}/kid"), "Value": "pem", "Type": "SecureString", "KeyId": stack.signing,
        "Overwrite": false, "Tier": "Standard" })
}

#[test]
fn with_keys_in_parameters_trust_only_writes_them_and_token_only_reads_them() {
    let stack = Stack::start_with("ssm", "RS256");
    let (own, foreign) = ("/portcullis/signing/dev", "/portcullis/signing/prod");
    let get = |path: &str| json!({ "Name": format!("{path}/kid"), "WithDecryption": true });
    let denied = Err("AccessDeniedException");

    stack.parameter("trust", "PutParameter", &key_parameter(&stack, own)).unwrap();
    assert_eq!(stack.parameter("token", "GetParameter", &get(own)).unwrap()["Parameter"]["Value"], "pem");

    // Whoever could replace a key would be the issuer.
    let mut replaced = key_parameter(&stack, own);
    replaced["Overwrite"] = json!(true);
    assert_eq!(stack.parameter("trust", "PutParameter", &replaced), denied);
    assert_eq!(stack.parameter("trust", "PutParameter", &key_parameter(&stack, own)), Err("ParameterAlreadyExists"));
    let mut elsewhere = key_parameter(&stack, own);
    elsewhere["Name"] = json!(format!("{own}/other"));
    elsewhere["KeyId"] = json!(stack.data);
    assert_eq!(stack.parameter("trust", "PutParameter", &elsewhere), denied, "sealed under another key");

    let operator = stack.account.operator();
    stack.ssm.perform(&operator, "PutParameter", &key_parameter(&stack, foreign)).unwrap();
    assert_eq!(stack.parameter("trust", "PutParameter", &key_parameter(&stack, foreign)), denied);
    assert_eq!(stack.parameter("token", "GetParameter", &get(foreign)), denied, "another deployment's keys");

    // Nobody else has any of it, and these two have nothing more.
    let sealed = stack.ssm.perform(&operator, "GetParameter", &json!({ "Name": format!("{own}/kid") })).unwrap();
    let context = json!({ "PARAMETER_ARN": format!("arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{own}/kid") });
    let open = json!({ "CiphertextBlob": sealed["Parameter"]["Value"], "EncryptionContext": context });
    for who in EVERYBODY {
        for (operation, input) in [
            ("GetParameter", get(own)),
            ("GetParameter", json!({ "Name": format!("{own}/kid") })),
            ("GetParameters", json!({ "Names": [format!("{own}/kid")] })),
            ("GetParametersByPath", json!({ "Path": own })),
            ("GetParameterHistory", get(own)),
            ("PutParameter", {
                let mut fresh = key_parameter(&stack, own);
                fresh["Name"] = json!(format!("{own}/{who}"));
                fresh
            }),
            ("LabelParameterVersion", json!({ "Name": format!("{own}/kid"), "Labels": ["a"] })),
            ("DeleteParameter", json!({ "Name": format!("{own}/kid") })),
        ] {
            let allowed = matches!((who, operation), ("token", "GetParameter") | ("trust", "PutParameter"));
            let outcome = stack.parameter(who, operation, &input);
            assert_eq!(outcome.is_ok(), allowed, "{who} {operation}: {outcome:?}");
        }
        // The key serves through SSM only, and the KMS signer's rights are not there.
        stack.may_not(who, None, "Decrypt", &open);
        stack.may_not(
            who,
            None,
            "Encrypt",
            &json!({ "KeyId": stack.signing, "Plaintext": "AAAA", "EncryptionContext": context }),
        );
        stack.may_not(who, None, "CreateKey", &create("RSA_2048", "dev"));
        let tagged = stack.kms.create_key(KeySpec::EccNistP256, KeyUsage::SignVerify, &[("portcullis:signing", "dev")]);
        stack.may_not(who, None, "Sign", &signing(&json!(tagged.unwrap()), "ECDSA_SHA_256", "DIGEST"));
    }
}

#[test]
fn with_keys_in_kms_nobody_has_a_right_on_a_parameter() {
    let stack = Stack::start("RS256");
    let own = "/portcullis/signing/dev";
    stack.ssm.perform(&stack.account.operator(), "PutParameter", &key_parameter(&stack, own)).unwrap();
    for who in EVERYBODY {
        let mut fresh = key_parameter(&stack, own);
        fresh["Name"] = json!(format!("{own}/fresh"));
        for (operation, input) in [("GetParameter", json!({ "Name": format!("{own}/kid") })), ("PutParameter", fresh)] {
            assert_eq!(stack.parameter(who, operation, &input), Err("AccessDeniedException"), "{who} {operation}");
        }
    }
}

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_lc_rs::{
    digest,
    signature::{self, UnparsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    error::KmsError,
    keyring::{Conditions, Keyring},
};

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;
const INVALID_CIPHERTEXT: &str = "InvalidCiphertextException";

/// A keyring whose caller may do everything, and what it was asked to do.
struct Bench {
    ring: Keyring,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        Self { ring: Keyring::new("123456789012", "us-east-1"), now: NOW }
    }

    fn call(&self, operation: &str, input: Value) -> Result<Value, KmsError> {
        self.ring.call(operation, &input, self.now, &|_, _, _| Ok(()))
    }

    #[track_caller]
    fn ok(&self, operation: &str, input: Value) -> Value {
        match self.call(operation, input.clone()) {
            Ok(answer) => answer,
            Err(error) => panic!("{operation} {input}: {error}"),
        }
    }

    #[track_caller]
    fn refused(&self, operation: &str, input: Value, code: &str) -> Option<String> {
        match self.call(operation, input.clone()) {
            Ok(answer) => panic!("{operation} {input} answered {answer}"),
            Err(error) => {
                assert_eq!(error.code, code, "{operation} {input}: {error}");
                assert_eq!(error.status, 400);
                error.message
            }
        }
    }

    fn symmetric(&self) -> String {
        self.key(json!({}))
    }

    fn signing(&self, spec: &str) -> String {
        self.key(json!({ "KeySpec": spec, "KeyUsage": "SIGN_VERIFY" }))
    }

    fn key(&self, input: Value) -> String {
        text(&self.ok("CreateKey", input)["KeyMetadata"]["Arn"])
    }

    fn encrypt(&self, key: &str, context: Value) -> Vec<u8> {
        let input = json!({ "KeyId": key, "Plaintext": b64(b"attack at dawn"), "EncryptionContext": context });
        bytes(&self.ok("Encrypt", input)["CiphertextBlob"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn id_of(arn: &str) -> &str {
    arn.rsplit_once('/').unwrap().1
}

#[test]
fn a_data_key_has_the_asked_length_however_its_key_is_named() {
    let bench = Bench::new();
    let key = bench.symmetric();
    bench.ok("CreateAlias", json!({ "AliasName": "alias/data", "TargetKeyId": key }));
    let alias = "arn:aws:kms:us-east-1:123456789012:alias/data";
    for name in [key.as_str(), id_of(&key), "alias/data", alias] {
        for (member, value, length) in [
            ("KeySpec", json!("AES_256"), 32),
            ("KeySpec", json!("AES_128"), 16),
            ("NumberOfBytes", json!(1), 1),
            ("NumberOfBytes", json!(1024), 1024),
        ] {
            let answer = bench.ok("GenerateDataKey", json!({ "KeyId": name, member: value }));
            assert_eq!(answer["KeyId"], json!(key));
            let material = text(&answer["KeyMaterialId"]);
            assert!(material.len() == 64 && material.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
            let plaintext = bytes(&answer["Plaintext"]);
            assert_eq!(plaintext.len(), length);
            let opened = bench.ok("Decrypt", json!({ "CiphertextBlob": answer["CiphertextBlob"] }));
            assert_eq!(bytes(&opened["Plaintext"]), plaintext);
            assert_eq!(opened["KeyMaterialId"], answer["KeyMaterialId"]);
            assert_eq!(opened["KeyId"], json!(key));
            assert_eq!(opened["EncryptionAlgorithm"], "SYMMETRIC_DEFAULT");
        }
    }
    let sealed = bench.ok("GenerateDataKeyWithoutPlaintext", json!({ "KeyId": key, "KeySpec": "AES_256" }));
    assert!(sealed.get("Plaintext").is_none());
    let opened = bench.ok("Decrypt", json!({ "CiphertextBlob": sealed["CiphertextBlob"], "KeyId": key }));
    assert_eq!(bytes(&opened["Plaintext"]).len(), 32);
}

#[test]
fn a_request_that_breaks_the_model_is_refused_with_its_text() {
    let bench = Bench::new();
    let key = bench.symmetric();
    let too_long = b64(&vec![7; 4097]);
    let either = "Please specify either number of bytes or key spec.";
    let at_most = "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length \
                   less than or equal to 4096";
    let least = "1 validation error detected: Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have \
                 value greater than or equal to 1";
    for (operation, input, code, message) in [
        ("GenerateDataKey", json!({ "KeyId": key }), "ValidationException", Some(either)),
        (
            "GenerateDataKey",
            json!({ "KeyId": key, "KeySpec": "AES_256", "NumberOfBytes": 32 }),
            "ValidationException",
            Some(either),
        ),
        ("GenerateDataKey", json!({ "KeyId": key, "NumberOfBytes": 0 }), "ValidationException", Some(least)),
        ("GenerateDataKey", json!({ "KeyId": key, "NumberOfBytes": 1025 }), "ValidationException", None),
        ("GenerateDataKey", json!({ "KeyId": key, "KeySpec": "AES_512" }), "ValidationException", None),
        ("GenerateDataKey", json!({ "KeySpec": "AES_256" }), "ValidationException", None),
        ("GenerateRandom", json!({ "NumberOfBytes": 1025 }), "ValidationException", None),
        ("GenerateRandom", json!({}), "ValidationException", None),
        ("Encrypt", json!({ "KeyId": key, "Plaintext": too_long }), "ValidationException", Some(at_most)),
        ("Encrypt", json!({ "KeyId": key, "Plaintext": "" }), "ValidationException", None),
        ("Encrypt", json!({ "KeyId": key }), "ValidationException", None),
        ("Encrypt", json!({ "KeyId": key, "Plaintext": "%%" }), "SerializationException", None),
        ("Encrypt", json!({ "KeyId": 7, "Plaintext": "AA==" }), "SerializationException", None),
        (
            "Encrypt",
            json!({ "KeyId": key, "Plaintext": "AA==", "EncryptionContext": { "a": 1 } }),
            "SerializationException",
            None,
        ),
        ("Encrypt", json!([]), "SerializationException", None),
        ("Encrypt", json!({ "KeyId": key, "Plaintext": "AA==", "Surprise": 1 }), "ValidationException", None),
        (
            "Encrypt",
            json!({ "KeyId": key, "Plaintext": "AA==", "GrantTokens": ["x"] }),
            "UnsupportedOperationException",
            None,
        ),
        (
            "Encrypt",
            json!({ "KeyId": key, "Plaintext": "AA==", "EncryptionAlgorithm": "RSAES_OAEP_SHA_256" }),
            "InvalidKeyUsageException",
            None,
        ),
        ("Decrypt", json!({ "CiphertextBlob": b64(&vec![1; 6145]) }), "ValidationException", None),
        ("CreateKey", json!({ "KeySpec": "RSA_2048" }), "ValidationException", None),
        ("CreateKey", json!({ "KeySpec": "HMAC_256" }), "ValidationException", None),
        (
            "CreateKey",
            json!({ "KeySpec": "HMAC_224", "KeyUsage": "GENERATE_VERIFY_MAC" }),
            "UnsupportedOperationException",
            None,
        ),
        (
            "CreateKey",
            json!({ "KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT_DECRYPT" }),
            "UnsupportedOperationException",
            None,
        ),
        ("CreateKey", json!({ "KeyUsage": "SIGN_VERIFY" }), "ValidationException", None),
        (
            "CreateKey",
            json!({ "KeySpec": "ECC_NIST_P256", "KeyUsage": "ENCRYPT_DECRYPT" }),
            "ValidationException",
            None,
        ),
        ("CreateKey", json!({ "Policy": "no" }), "MalformedPolicyDocumentException", None),
        ("CreateKey", json!({ "MultiRegion": true }), "UnsupportedOperationException", None),
        ("CreateKey", json!({ "Tags": [{ "TagKey": "aws:x", "TagValue": "" }] }), "TagException", None),
        (
            "CreateKey",
            json!({ "Tags": [{ "TagKey": "a", "TagValue": "1" }, { "TagKey": "a", "TagValue": "2" }] }),
            "TagException",
            None,
        ),
        ("CreateAlias", json!({ "AliasName": "data", "TargetKeyId": key }), "ValidationException", None),
        ("CreateAlias", json!({ "AliasName": "alias/a b", "TargetKeyId": key }), "ValidationException", None),
        ("CreateAlias", json!({ "AliasName": "alias/aws/s3", "TargetKeyId": key }), "NotAuthorizedException", None),
        ("ScheduleKeyDeletion", json!({ "KeyId": key, "PendingWindowInDays": 6 }), "ValidationException", None),
        ("ScheduleKeyDeletion", json!({ "KeyId": key, "PendingWindowInDays": 31 }), "ValidationException", None),
        ("EnableKeyRotation", json!({ "KeyId": key, "RotationPeriodInDays": 89 }), "ValidationException", None),
        ("CreateGrant", json!({ "KeyId": key }), "UnknownOperationException", None),
    ] {
        let answered = bench.refused(operation, input, code);
        if message.is_some() {
            assert_eq!(answered.as_deref(), message);
        }
    }
}

#[test]
fn a_key_that_does_not_exist_is_not_found() {
    let bench = Bench::new();
    let key = bench.symmetric();
    let unknown = "11111111-2222-4333-8444-555555555555";
    let unknown_arn = format!("arn:aws:kms:us-east-1:123456789012:key/{unknown}");
    let absent = format!("Key '{unknown_arn}' does not exist");
    let foreign = key.replace("123456789012", "210987654321");
    for (name, message) in [
        (unknown, absent.as_str()),
        (&unknown_arn, &absent),
        ("nonsense", "Invalid keyId 'nonsense'"),
        (&unknown.replace('-', ""), "Invalid keyId '11111111222243338444555555555555'"),
        (&key.replace("us-east-1", "eu-west-1"), "Invalid arn eu-west-1"),
        (&foreign, &format!("Key '{foreign}' does not exist")),
        ("alias/none", "Alias arn:aws:kms:us-east-1:123456789012:alias/none is not found."),
    ] {
        let input = json!({ "KeyId": name, "KeySpec": "AES_256" });
        assert_eq!(bench.refused("GenerateDataKey", input, "NotFoundException").as_deref(), Some(message));
    }
}

#[test]
fn a_blob_opens_under_exactly_its_context() {
    let bench = Bench::new();
    let key = bench.symmetric();
    let blob = b64(&bench.encrypt(&key, json!({ "tenant": "acme", "purpose": "field" })));
    let plain = b64(&bench.encrypt(&key, json!({})));
    let decrypt = |blob: &str, context: Value| {
        bench.call("Decrypt", json!({ "CiphertextBlob": blob, "EncryptionContext": context }))
    };
    assert!(decrypt(&blob, json!({ "purpose": "field", "tenant": "acme" })).is_ok());
    for context in [
        json!({ "tenant": "globex", "purpose": "field" }),
        json!({ "tenant": "acme", "purpose": "field", "more": "" }),
        json!({ "tenant": "acme" }),
        json!({}),
        Value::Null,
        json!({ "Tenant": "acme", "purpose": "field" }),
        json!({ "tenant": "Acme", "purpose": "field" }),
        json!({ "tenant": "field", "purpose": "acme" }),
        json!({ "tenantacme": "", "purpose": "field" }),
        json!({ "tenan": "tacme", "purpose": "field" }),
    ] {
        let error = decrypt(&blob, context.clone()).unwrap_err();
        assert_eq!((error.code, error.message), (INVALID_CIPHERTEXT, None), "{context}");
    }
    assert!(decrypt(&plain, Value::Null).is_ok());
    assert!(decrypt(&plain, json!({})).is_ok());
    assert_eq!(decrypt(&plain, json!({ "a": "" })).unwrap_err().code, INVALID_CIPHERTEXT);
}

#[test]
fn any_flipped_bit_any_cut_and_any_addition_is_an_invalid_ciphertext() {
    let bench = Bench::new();
    let key = bench.symmetric();
    let blob = bench.encrypt(&key, json!({ "a": "b" }));
    for named in [Value::Null, json!(key)] {
        let refused = |blob: &[u8]| {
            let input = json!({ "CiphertextBlob": b64(blob), "EncryptionContext": { "a": "b" }, "KeyId": named });
            assert_eq!(bench.refused("Decrypt", input, INVALID_CIPHERTEXT), None);
        };
        for place in 0..blob.len() {
            for bit in 0..8 {
                let mut altered = blob.clone();
                altered[place] ^= 1 << bit;
                refused(&altered);
            }
        }
        for length in 1..blob.len() {
            refused(&blob[..length]);
        }
        refused(&[blob.as_slice(), &[0]].concat());
        refused(&[7; 200]);
    }
}

#[test]
fn no_two_blobs_are_alike_and_their_lengths_vary() {
    let bench = Bench::new();
    let key = bench.symmetric();
    let blobs: BTreeSet<_> = (0..64).map(|_| bench.encrypt(&key, json!({}))).collect();
    assert_eq!(blobs.len(), 64);
    let lengths: BTreeSet<_> = blobs.iter().map(Vec::len).collect();
    assert!(lengths.len() > 8, "{lengths:?}");
    let largest = json!({ "KeyId": key, "Plaintext": b64(&[1; 4096]) });
    assert!(bytes(&bench.ok("Encrypt", largest)["CiphertextBlob"]).len() <= 6144);
}

#[test]
fn naming_another_key_for_a_blob_is_an_incorrect_key() {
    let bench = Bench::new();
    let (key, other, signing) = (bench.symmetric(), bench.symmetric(), bench.signing("ECC_NIST_P256"));
    let blob = b64(&bench.encrypt(&key, json!({})));
    let message = "The key ID in the request does not identify a CMK that can perform this operation.";
    for wrong in [&other, &signing] {
        let input = json!({ "CiphertextBlob": blob, "KeyId": wrong });
        assert_eq!(bench.refused("Decrypt", input, "IncorrectKeyException").as_deref(), Some(message));
        let input = json!({ "CiphertextBlob": blob, "SourceKeyId": wrong, "DestinationKeyId": key });
        bench.refused("ReEncrypt", input, "IncorrectKeyException");
    }
    bench.ok("Decrypt", json!({ "CiphertextBlob": blob, "KeyId": key }));
}

#[test]
fn re_encryption_moves_key_and_context_and_leaves_the_old_blob_valid() {
    let bench = Bench::new();
    let (from, to) = (bench.symmetric(), bench.symmetric());
    let blob = b64(&bench.encrypt(&from, json!({ "v": "1" })));
    let input = json!({
        "CiphertextBlob": blob, "SourceEncryptionContext": { "v": "1" },
        "DestinationKeyId": to, "DestinationEncryptionContext": { "v": "2" },
    });
    let moved = bench.ok("ReEncrypt", input);
    assert_eq!((&moved["SourceKeyId"], &moved["KeyId"]), (&json!(from), &json!(to)));
    let materials = |name: &str| text(&moved[name]);
    assert_ne!(materials("SourceKeyMaterialId"), materials("DestinationKeyMaterialId"));
    let opened =
        bench.ok("Decrypt", json!({ "CiphertextBlob": moved["CiphertextBlob"], "EncryptionContext": { "v": "2" } }));
    assert_eq!(bytes(&opened["Plaintext"]), b"attack at dawn");
    bench.ok("Decrypt", json!({ "CiphertextBlob": blob, "EncryptionContext": { "v": "1" } }));

    let same = json!({
        "CiphertextBlob": blob, "SourceKeyId": from, "SourceEncryptionContext": { "v": "1" },
        "DestinationKeyId": from, "DestinationEncryptionContext": { "v": "3" },
    });
    assert_eq!(bench.ok("ReEncrypt", same)["KeyId"], json!(from));
    let wrong = json!({ "CiphertextBlob": blob, "SourceEncryptionContext": { "v": "9" }, "DestinationKeyId": to });
    bench.refused("ReEncrypt", wrong, INVALID_CIPHERTEXT);
}

/// Every operation that needs an enabled key, with input that works while it is one.
fn uses_of(bench: &Bench, key: &str, signing: &str, other: &str) -> Vec<(&'static str, Value)> {
    let blob = b64(&bench.encrypt(key, json!({})));
    let foreign = b64(&bench.encrypt(other, json!({})));
    let message = json!({ "KeyId": signing, "Message": b64(b"m"), "SigningAlgorithm": "ECDSA_SHA_256" });
    let signature = bench.ok("Sign", message.clone())["Signature"].clone();
    let mut verify = message.clone();
    verify["Signature"] = signature;
    vec![
        ("Encrypt", json!({ "KeyId": key, "Plaintext": "AA==" })),
        ("Decrypt", json!({ "CiphertextBlob": blob })),
        ("ReEncrypt", json!({ "CiphertextBlob": blob, "DestinationKeyId": other })),
        ("ReEncrypt", json!({ "CiphertextBlob": foreign, "DestinationKeyId": key })),
        ("GenerateDataKey", json!({ "KeyId": key, "KeySpec": "AES_256" })),
        ("GenerateDataKeyWithoutPlaintext", json!({ "KeyId": key, "KeySpec": "AES_256" })),
        ("Sign", message),
        ("Verify", verify),
        ("GetPublicKey", json!({ "KeyId": signing })),
        ("RotateKeyOnDemand", json!({ "KeyId": key })),
    ]
}

#[test]
fn a_disabled_key_does_nothing_and_works_again_once_enabled() {
    let bench = Bench::new();
    let (key, signing, other) = (bench.symmetric(), bench.signing("ECC_NIST_P256"), bench.symmetric());
    let uses = uses_of(&bench, &key, &signing, &other);
    for name in [&key, &signing] {
        bench.ok("DisableKey", json!({ "KeyId": name }));
    }
    for (operation, input) in &uses {
        let message = bench.refused(operation, input.clone(), "DisabledException").unwrap();
        assert!(message == format!("{key} is disabled.") || message == format!("{signing} is disabled."), "{message}");
    }
    assert_eq!(bench.ok("DescribeKey", json!({ "KeyId": key }))["KeyMetadata"]["KeyState"], "Disabled");
    for name in [&key, &signing] {
        bench.ok("EnableKey", json!({ "KeyId": name }));
    }
    for (operation, input) in uses {
        bench.ok(operation, input);
    }
}

#[test]
fn a_key_pending_deletion_does_nothing_and_is_gone_when_its_window_ends() {
    let mut bench = Bench::new();
    let (key, signing, other) = (bench.symmetric(), bench.signing("ECC_NIST_P256"), bench.symmetric());
    let uses = uses_of(&bench, &key, &signing, &other);
    bench.ok("CreateAlias", json!({ "AliasName": "alias/k", "TargetKeyId": key }));
    let message = bench.refused("CancelKeyDeletion", json!({ "KeyId": key }), "KMSInvalidStateException");
    assert_eq!(message, Some(format!("{key} is not pending deletion.")));
    bench.ok("ScheduleKeyDeletion", json!({ "KeyId": signing }));
    let scheduled = bench.ok("ScheduleKeyDeletion", json!({ "KeyId": key, "PendingWindowInDays": 7 }));
    assert_eq!(scheduled["DeletionDate"], json!((NOW + 7 * DAY) as f64 / 1000.0));
    for (operation, input) in uses {
        let message = bench.refused(operation, input, "KMSInvalidStateException").unwrap();
        assert!(message.ends_with(" is pending deletion."), "{message}");
    }
    for (operation, input) in [
        ("EnableKey", json!({ "KeyId": key })),
        ("DisableKey", json!({ "KeyId": key })),
        ("ScheduleKeyDeletion", json!({ "KeyId": key })),
        ("CreateAlias", json!({ "AliasName": "alias/late", "TargetKeyId": key })),
        ("TagResource", json!({ "KeyId": key, "Tags": [{ "TagKey": "a", "TagValue": "b" }] })),
    ] {
        bench.refused(operation, input, "KMSInvalidStateException");
    }
    bench.ok("CancelKeyDeletion", json!({ "KeyId": signing }));
    bench.refused("GetPublicKey", json!({ "KeyId": signing }), "DisabledException");
    bench.now = NOW + 7 * DAY;
    bench.refused("DescribeKey", json!({ "KeyId": key }), "NotFoundException");
    bench.refused("DescribeKey", json!({ "KeyId": "alias/k" }), "NotFoundException");
}

#[test]
fn a_dry_run_checks_everything_and_does_nothing() {
    let bench = Bench::new();
    let (key, signing, other) = (bench.symmetric(), bench.signing("ECC_NIST_P256"), bench.symmetric());
    let message = "The request would have succeeded, but the DryRun option is set.";
    for (operation, mut input) in uses_of(&bench, &key, &signing, &other) {
        if matches!(operation, "GetPublicKey" | "RotateKeyOnDemand") {
            continue;
        }
        input["DryRun"] = json!(true);
        let answered = bench.refused(operation, input.clone(), "DryRunOperationException");
        assert_eq!(answered.as_deref(), Some(message));
        input["DryRun"] = json!(false);
        bench.ok(operation, input);
    }
    let broken = json!({ "CiphertextBlob": b64(&[1; 99]), "DryRun": true });
    bench.refused("Decrypt", broken, INVALID_CIPHERTEXT);
    bench.ok("DisableKey", json!({ "KeyId": key }));
    let disabled = json!({ "KeyId": key, "KeySpec": "AES_256", "DryRun": true });
    bench.refused("GenerateDataKey", disabled, "DisabledException");
}

#[test]
fn a_key_serves_its_own_usage_only() {
    let bench = Bench::new();
    let (key, signing) = (bench.symmetric(), bench.signing("ECC_NIST_P256"));
    let usage = |operation: &str| format!("{signing} key usage is SIGN_VERIFY which is not valid for {operation}.");
    for (operation, input) in [
        ("Encrypt", json!({ "KeyId": signing, "Plaintext": "AA==" })),
        ("GenerateDataKey", json!({ "KeyId": signing, "KeySpec": "AES_256" })),
        ("GenerateDataKeyWithoutPlaintext", json!({ "KeyId": signing, "KeySpec": "AES_256" })),
    ] {
        assert_eq!(bench.refused(operation, input, "InvalidKeyUsageException"), Some(usage(operation)));
    }
    let message = json!({ "KeyId": key, "Message": "AA==", "SigningAlgorithm": "ECDSA_SHA_256" });
    let wanted = format!("{key} key usage is ENCRYPT_DECRYPT which is not valid for Sign.");
    assert_eq!(bench.refused("Sign", message, "InvalidKeyUsageException"), Some(wanted));
    let other = json!({ "KeyId": signing, "Message": "AA==", "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256" });
    assert_eq!(
        bench.refused("Sign", other, "InvalidKeyUsageException").as_deref(),
        Some("Algorithm RSASSA_PKCS1_V1_5_SHA_256 is incompatible with key spec ECC_NIST_P256.")
    );
    bench.refused("GetPublicKey", json!({ "KeyId": key }), "UnsupportedOperationException");
    bench.refused("RotateKeyOnDemand", json!({ "KeyId": signing }), "UnsupportedOperationException");
    bench.refused("GetKeyRotationStatus", json!({ "KeyId": signing }), "UnsupportedOperationException");
}

type Signing = (&'static str, &'static str, Option<&'static digest::Algorithm>, &'static dyn VerificationAlgorithm);

static SIGNING: [Signing; 10] = [
    ("RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256", Some(&digest::SHA256), &signature::RSA_PKCS1_2048_8192_SHA256),
    ("RSA_2048", "RSASSA_PKCS1_V1_5_SHA_384", Some(&digest::SHA384), &signature::RSA_PKCS1_2048_8192_SHA384),
    ("RSA_2048", "RSASSA_PKCS1_V1_5_SHA_512", Some(&digest::SHA512), &signature::RSA_PKCS1_2048_8192_SHA512),
    ("RSA_2048", "RSASSA_PSS_SHA_256", Some(&digest::SHA256), &signature::RSA_PSS_2048_8192_SHA256),
    ("RSA_2048", "RSASSA_PSS_SHA_384", Some(&digest::SHA384), &signature::RSA_PSS_2048_8192_SHA384),
    ("RSA_2048", "RSASSA_PSS_SHA_512", Some(&digest::SHA512), &signature::RSA_PSS_2048_8192_SHA512),
    ("ECC_NIST_P256", "ECDSA_SHA_256", Some(&digest::SHA256), &signature::ECDSA_P256_SHA256_ASN1),
    ("ECC_NIST_P384", "ECDSA_SHA_384", Some(&digest::SHA384), &signature::ECDSA_P384_SHA384_ASN1),
    ("ECC_NIST_P521", "ECDSA_SHA_512", Some(&digest::SHA512), &signature::ECDSA_P521_SHA512_ASN1),
    ("ECC_NIST_EDWARDS25519", "ED25519_SHA_512", None, &signature::ED25519),
];

#[test]
fn signatures_over_messages_and_digests_verify_with_the_published_key() {
    let bench = Bench::new();
    let message = b"header.payload";
    let mut keys = BTreeMap::new();
    for (spec, algorithm, hash, verifier) in &SIGNING {
        let key = keys.entry(*spec).or_insert_with(|| bench.signing(spec));
        let published = bench.ok("GetPublicKey", json!({ "KeyId": key }));
        assert!(published["SigningAlgorithms"].as_array().unwrap().contains(&json!(algorithm)));
        assert_eq!((&published["KeySpec"], &published["CustomerMasterKeySpec"]), (&json!(spec), &json!(spec)));
        assert_eq!((&published["KeyUsage"], &published["KeyId"]), (&json!("SIGN_VERIFY"), &json!(key)));
        let public = UnparsedPublicKey::new(*verifier, bytes(&published["PublicKey"]));
        let mut inputs = vec![("RAW", message.to_vec())];
        inputs.extend(hash.map(|hash| ("DIGEST", digest::digest(hash, message).as_ref().to_vec())));
        for (kind, input) in inputs {
            let mut request = json!({
                "KeyId": key, "Message": b64(&input), "MessageType": kind, "SigningAlgorithm": algorithm,
            });
            let answer = bench.ok("Sign", request.clone());
            assert_eq!((&answer["KeyId"], &answer["SigningAlgorithm"]), (&json!(key), &json!(algorithm)));
            let signature = bytes(&answer["Signature"]);
            assert!(public.verify(message, &signature).is_ok(), "{algorithm} {kind}");
            for (other_kind, other) in [("RAW", message.to_vec())]
                .into_iter()
                .chain(hash.map(|hash| ("DIGEST", digest::digest(hash, message).as_ref().to_vec())))
            {
                let verify = json!({
                    "KeyId": key, "Message": b64(&other), "MessageType": other_kind, "SigningAlgorithm": algorithm,
                    "Signature": b64(&signature),
                });
                assert_eq!(bench.ok("Verify", verify)["SignatureValid"], json!(true));
            }
            let mut altered = signature.clone();
            *altered.last_mut().unwrap() ^= 1;
            for bad in [altered, vec![0; signature.len()], vec![1]] {
                request["Signature"] = json!(b64(&bad));
                assert_eq!(bench.refused("Verify", request.clone(), "KMSInvalidSignatureException"), None);
            }
        }
    }
}

#[test]
fn pss_signatures_have_a_salt_as_long_as_the_digest() {
    let bench = Bench::new();
    let key = bench.signing("RSA_2048");
    let public = bytes(&bench.ok("GetPublicKey", json!({ "KeyId": key }))["PublicKey"]);
    for kind in ["RAW", "DIGEST"] {
        let message = [9; 32];
        let input = json!({ "KeyId": key, "Message": b64(&message), "MessageType": kind, "SigningAlgorithm": "RSASSA_PSS_SHA_256" });
        let signature = bytes(&bench.ok("Sign", input)["Signature"]);
        let verified = |salt: signature::RsaPssSaltLength| -> bool {
            let parameters: &'static signature::RsaParameters =
                Box::leak(Box::new(signature::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(salt)));
            let public = UnparsedPublicKey::new(parameters, &public);
            match kind {
                "RAW" => public.verify(&message, &signature).is_ok(),
                _ => {
                    let digest = digest::Digest::import_less_safe(&message, &digest::SHA256).unwrap();
                    public.verify_digest(&digest, &signature).is_ok()
                }
            }
        };
        assert!(verified(signature::RsaPssSaltLength::Custom(32)));
        assert!(!verified(signature::RsaPssSaltLength::Max));
    }
}

#[test]
fn a_message_that_does_not_fit_its_type_is_refused() {
    let bench = Bench::new();
    let (rsa, p256, edwards) =
        (bench.signing("RSA_2048"), bench.signing("ECC_NIST_P256"), bench.signing("ECC_NIST_EDWARDS25519"));
    for (key, algorithm, kind, length, code) in [
        (&rsa, "RSASSA_PKCS1_V1_5_SHA_256", "DIGEST", 31, "ValidationException"),
        (&rsa, "RSASSA_PKCS1_V1_5_SHA_256", "DIGEST", 33, "ValidationException"),
        (&rsa, "RSASSA_PSS_SHA_384", "DIGEST", 32, "ValidationException"),
        (&rsa, "RSASSA_PKCS1_V1_5_SHA_512", "DIGEST", 48, "ValidationException"),
        (&p256, "ECDSA_SHA_256", "DIGEST", 48, "ValidationException"),
        (&p256, "ECDSA_SHA_256", "DIGEST", 1, "ValidationException"),
        (&p256, "ECDSA_SHA_256", "RAW", 4097, "ValidationException"),
        (&p256, "ECDSA_SHA_256", "RAW", 0, "ValidationException"),
        (&p256, "ECDSA_SHA_256", "EXTERNAL_MU", 64, "ValidationException"),
        (&p256, "ECDSA_SHA_256", "OTHER", 32, "ValidationException"),
        (&p256, "ECDSA_SHA_384", "DIGEST", 48, "InvalidKeyUsageException"),
        (&edwards, "ED25519_SHA_512", "DIGEST", 64, "ValidationException"),
        (&edwards, "ED25519_PH_SHA_512", "RAW", 64, "ValidationException"),
        (&edwards, "ED25519_PH_SHA_512", "DIGEST", 64, "UnsupportedOperationException"),
        (&edwards, "ED25519_SHA_512", "RAW", 4097, "ValidationException"),
    ] {
        let input = json!({
            "KeyId": key, "Message": b64(&vec![1; length]), "MessageType": kind, "SigningAlgorithm": algorithm,
        });
        let message = bench.refused("Sign", input.clone(), code);
        if kind == "DIGEST" && code == "ValidationException" && algorithm != "ED25519_SHA_512" {
            assert_eq!(message, Some(format!("Digest is invalid length for algorithm {algorithm}.")));
        }
        let mut verify = input;
        verify["Signature"] = json!("AAAA");
        bench.refused("Verify", verify, code);
    }
}

#[test]
fn rotation_changes_the_material_of_new_data_keys_and_old_blobs_still_open() {
    let mut bench = Bench::new();
    let key = bench.symmetric();
    let delay = Duration::from_secs(5);
    bench.ring.write().rotation_delay = delay;
    let material =
        |bench: &Bench| text(&bench.ok("DescribeKey", json!({ "KeyId": key }))["KeyMetadata"]["CurrentKeyMaterialId"]);
    let (before, old) = (material(&bench), b64(&bench.encrypt(&key, json!({}))));
    assert_eq!(bench.ok("RotateKeyOnDemand", json!({ "KeyId": key })), json!({ "KeyId": key }));
    let status = bench.ok("GetKeyRotationStatus", json!({ "KeyId": key }));
    assert_eq!(status["OnDemandRotationStartDate"], json!(NOW as f64 / 1000.0));
    assert_eq!(material(&bench), before);
    bench.refused("RotateKeyOnDemand", json!({ "KeyId": key }), "ConflictException");
    bench.now += 5000;
    assert!(bench.ok("GetKeyRotationStatus", json!({ "KeyId": key })).get("OnDemandRotationStartDate").is_none());
    let after = material(&bench);
    assert_ne!(after, before);
    let fresh = bench.ok("GenerateDataKey", json!({ "KeyId": key, "KeySpec": "AES_256" }));
    assert_eq!(fresh["KeyMaterialId"], json!(after));
    let opened = bench.ok("Decrypt", json!({ "CiphertextBlob": old }));
    assert_eq!(
        (bytes(&opened["Plaintext"]).as_slice(), &opened["KeyMaterialId"]),
        (&b"attack at dawn"[..], &json!(before))
    );
    let moved = bench.ok("ReEncrypt", json!({ "CiphertextBlob": old, "DestinationKeyId": key }));
    assert_eq!((&moved["SourceKeyMaterialId"], &moved["DestinationKeyMaterialId"]), (&json!(before), &json!(after)));
    for _ in 1..25 {
        bench.ok("RotateKeyOnDemand", json!({ "KeyId": key }));
        bench.now += 5000;
    }
    let message = bench.refused("RotateKeyOnDemand", json!({ "KeyId": key }), "LimitExceededException").unwrap();
    assert!(message.starts_with("The on-demand rotations limit has been reached for the given keyId."));
    bench.ok("Decrypt", json!({ "CiphertextBlob": old }));
}

#[test]
fn every_key_material_is_listed_and_exactly_one_is_current() {
    let mut bench = Bench::new();
    let (key, signing) = (bench.symmetric(), bench.signing("ECC_NIST_P256"));
    let all = |bench: &Bench| {
        bench.ok("ListKeyRotations", json!({ "KeyId": key, "IncludeKeyMaterial": "ALL_KEY_MATERIAL" }))["Rotations"]
            .as_array()
            .unwrap()
            .clone()
    };
    let [only] = &all(&bench)[..] else { panic!() };
    assert_eq!((&only["KeyMaterialState"], only.get("RotationDate")), (&json!("CURRENT"), None));
    assert_eq!(bench.ok("ListKeyRotations", json!({ "KeyId": key }))["Rotations"], json!([]));
    for _ in 0..2 {
        bench.ok("RotateKeyOnDemand", json!({ "KeyId": key }));
        bench.now += 1;
    }
    let listed = all(&bench);
    let states: Vec<_> = listed.iter().map(|one| one["KeyMaterialState"].as_str().unwrap()).collect();
    assert_eq!(states, ["NON_CURRENT", "NON_CURRENT", "CURRENT"]);
    assert_eq!(listed[0]["KeyMaterialId"], only["KeyMaterialId"]);
    let fresh = bench.ok("GenerateDataKey", json!({ "KeyId": key, "KeySpec": "AES_256" }));
    assert_eq!(fresh["KeyMaterialId"], listed[2]["KeyMaterialId"]);
    let page = bench.ok("ListKeyRotations", json!({ "KeyId": key, "Limit": 1 }));
    assert_eq!((&page["Rotations"], &page["Truncated"]), (&json!([listed[1]]), &json!(true)));
    bench.refused("ListKeyRotations", json!({ "KeyId": signing }), "UnsupportedOperationException");
    bench.refused("ListKeyRotations", json!({ "KeyId": key, "IncludeKeyMaterial": "NONE" }), "ValidationException");
    bench.ok("ScheduleKeyDeletion", json!({ "KeyId": key, "PendingWindowInDays": 7 }));
    bench.refused("ListKeyRotations", json!({ "KeyId": key }), "KMSInvalidStateException");
}

#[test]
fn an_alias_moves_between_keys_of_one_usage_and_management_never_follows_it() {
    let bench = Bench::new();
    let (first, second, signing) = (bench.symmetric(), bench.symmetric(), bench.signing("ECC_NIST_P256"));
    let target = |key: &str| json!({ "AliasName": "alias/data", "TargetKeyId": key });
    bench.refused("UpdateAlias", target(&first), "NotFoundException");
    bench.ok("CreateAlias", target(&first));
    bench.refused("CreateAlias", target(&second), "AlreadyExistsException");
    bench.ok("UpdateAlias", target(&second));
    let named = bench.ok("DescribeKey", json!({ "KeyId": "alias/data" }));
    assert_eq!(named["KeyMetadata"]["Arn"], json!(second));
    bench.refused("UpdateAlias", target(&signing), "ValidationException");
    for operation in ["DisableKey", "ScheduleKeyDeletion", "RotateKeyOnDemand", "ListResourceTags"] {
        bench.refused(operation, json!({ "KeyId": "alias/data" }), "NotFoundException");
    }
    let listed = bench.ok("ListAliases", json!({ "KeyId": second }));
    assert_eq!(listed["Aliases"][0]["AliasName"], "alias/data");
    bench.ok("DeleteAlias", json!({ "AliasName": "alias/data" }));
    bench.refused("DescribeKey", json!({ "KeyId": "alias/data" }), "NotFoundException");
}

#[test]
fn tags_are_kept_and_lists_come_in_pages() {
    let bench = Bench::new();
    let key = bench.key(json!({ "Tags": [{ "TagKey": "portcullis:signing", "TagValue": "dev" }] }));
    let more: Vec<_> = (0..4).map(|n| json!({ "TagKey": format!("t{n}"), "TagValue": "" })).collect();
    bench.ok("TagResource", json!({ "KeyId": key, "Tags": more }));
    bench.ok("UntagResource", json!({ "KeyId": key, "TagKeys": ["t3"] }));
    let first = bench.ok("ListResourceTags", json!({ "KeyId": key, "Limit": 3 }));
    assert_eq!((first["Tags"].as_array().unwrap().len(), &first["Truncated"]), (3, &json!(true)));
    assert_eq!(first["Tags"][0], json!({ "TagKey": "portcullis:signing", "TagValue": "dev" }));
    let rest = bench.ok("ListResourceTags", json!({ "KeyId": key, "Limit": 3, "Marker": first["NextMarker"] }));
    assert_eq!((rest["Tags"].as_array().unwrap().len(), &rest["Truncated"]), (1, &json!(false)));
    bench.refused("ListResourceTags", json!({ "KeyId": key, "Marker": "x" }), "InvalidMarkerException");
}

type Asked = (String, String, Conditions);

fn asked_by(bench: &Bench, operation: &str, input: &Value) -> Vec<Asked> {
    let asked = RefCell::new(Vec::new());
    let record = |action: &str, resource: &str, conditions: &Conditions| {
        asked.borrow_mut().push((action.to_owned(), resource.to_owned(), conditions.clone()));
        Ok(())
    };
    bench.ring.call(operation, input, NOW, &record).unwrap();
    asked.into_inner()
}

#[test]
fn every_decision_is_asked_on_the_key_arn_with_what_the_request_says() {
    let bench = Bench::new();
    let key = bench.key(json!({ "Tags": [{ "TagKey": "role", "TagValue": "data" }] }));
    let (other, signing) = (bench.symmetric(), bench.signing("ECC_NIST_P256"));
    bench.ok("CreateAlias", json!({ "AliasName": "alias/data", "TargetKeyId": key }));
    let one = |values: &Conditions, name: &str| values.get(name).map(|values| values.join(","));
    let context = json!({ "tenant": "acme", "purpose": "field" });

    let request = json!({ "KeyId": "alias/data", "KeySpec": "AES_256", "EncryptionContext": context });
    let [(action, resource, said)] = &asked_by(&bench, "GenerateDataKey", &request)[..] else { panic!() };
    assert_eq!((action.as_str(), resource), ("kms:GenerateDataKey", &key));
    for (name, value) in [
        ("kms:EncryptionContext:tenant", "acme"),
        ("kms:EncryptionContext:purpose", "field"),
        ("kms:EncryptionContextKeys", "purpose,tenant"),
        ("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT"),
        ("kms:KeySpec", "SYMMETRIC_DEFAULT"),
        ("kms:KeyUsage", "ENCRYPT_DECRYPT"),
        ("kms:RequestAlias", "alias/data"),
        ("kms:ResourceAliases", "alias/data"),
        ("aws:ResourceTag/role", "data"),
    ] {
        assert_eq!(one(said, name).as_deref(), Some(value), "{name}");
    }

    let blob = b64(&bench.encrypt(&key, context.clone()));
    let decrypt = json!({ "CiphertextBlob": blob, "EncryptionContext": context });
    let [(action, resource, said)] = &asked_by(&bench, "Decrypt", &decrypt)[..] else { panic!() };
    assert_eq!((action.as_str(), resource), ("kms:Decrypt", &key));
    assert_eq!(one(said, "kms:RequestAlias"), None);

    let moved = json!({
        "CiphertextBlob": blob, "SourceEncryptionContext": context, "DestinationKeyId": other,
        "DestinationEncryptionContext": { "tenant": "globex" },
    });
    let [from, to] = &asked_by(&bench, "ReEncrypt", &moved)[..] else { panic!() };
    assert_eq!(
        (from.0.as_str(), &from.1, to.0.as_str(), &to.1),
        ("kms:ReEncryptFrom", &key, "kms:ReEncryptTo", &other)
    );
    assert_eq!(one(&from.2, "kms:EncryptionContext:tenant").as_deref(), Some("acme"));
    assert_eq!(one(&to.2, "kms:EncryptionContext:tenant").as_deref(), Some("globex"));
    assert_eq!(one(&to.2, "kms:ReEncryptOnSameKey").as_deref(), Some("false"));

    let message = json!({ "KeyId": signing, "Message": b64(&[1; 32]), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256" });
    let [(action, resource, said)] = &asked_by(&bench, "Sign", &message)[..] else { panic!() };
    assert_eq!((action.as_str(), resource), ("kms:Sign", &signing));
    assert_eq!(one(said, "kms:SigningAlgorithm").as_deref(), Some("ECDSA_SHA_256"));
    assert_eq!(one(said, "kms:MessageType").as_deref(), Some("DIGEST"));

    let create = json!({
        "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY",
        "Tags": [{ "TagKey": "portcullis:signing", "TagValue": "dev" }],
    });
    let [(create, everywhere, said), (tag, new_key, _)] = &asked_by(&bench, "CreateKey", &create)[..] else { panic!() };
    assert_eq!((create.as_str(), everywhere.as_str(), tag.as_str()), ("kms:CreateKey", "*", "kms:TagResource"));
    assert!(new_key.starts_with("arn:aws:kms:us-east-1:123456789012:key/"));
    assert_eq!(one(said, "aws:RequestTag/portcullis:signing").as_deref(), Some("dev"));
    assert_eq!(one(said, "aws:TagKeys").as_deref(), Some("portcullis:signing"));
    assert_eq!(one(said, "kms:KeySpec").as_deref(), Some("ECC_NIST_P256"));
}

#[test]
fn a_denied_call_learns_and_changes_nothing() {
    let bench = Bench::new();
    let (key, signing, other) = (bench.symmetric(), bench.signing("ECC_NIST_P256"), bench.symmetric());
    let denied = |_: &str, _: &str, _: &Conditions| Err(KmsError::new("AccessDeniedException", "no"));
    let mut calls = uses_of(&bench, &key, &signing, &other);
    calls.extend([
        ("CreateKey", json!({})),
        ("DescribeKey", json!({ "KeyId": key })),
        ("DisableKey", json!({ "KeyId": key })),
        ("ScheduleKeyDeletion", json!({ "KeyId": key })),
        ("TagResource", json!({ "KeyId": key, "Tags": [] })),
        ("ListResourceTags", json!({ "KeyId": key })),
        ("CreateAlias", json!({ "AliasName": "alias/x", "TargetKeyId": key })),
        ("ListAliases", json!({})),
        ("ListKeys", json!({})),
        ("GenerateRandom", json!({ "NumberOfBytes": 1 })),
    ]);
    let before = bench.ring.save();
    for (operation, input) in calls {
        let error = bench.ring.call(operation, &input, NOW, &denied).unwrap_err();
        assert_eq!(error.code, "AccessDeniedException", "{operation}");
    }
    assert_eq!(bench.ring.save(), before);
}

#[test]
fn a_mac_is_of_its_message_key_and_algorithm_alone() {
    let bench = Bench::new();
    let mac_key = |spec: &str| bench.key(json!({ "KeySpec": spec, "KeyUsage": "GENERATE_VERIFY_MAC" }));
    for (spec, algorithm, length) in
        [("HMAC_256", "HMAC_SHA_256", 32), ("HMAC_384", "HMAC_SHA_384", 48), ("HMAC_512", "HMAC_SHA_512", 64)]
    {
        let (key, other) = (mac_key(spec), mac_key(spec));
        let input = json!({ "KeyId": key, "Message": b64(b"message"), "MacAlgorithm": algorithm });
        let mac = bytes(&bench.ok("GenerateMac", input.clone())["Mac"]);
        assert_eq!(mac.len(), length);
        let with = |changes: Value| {
            let mut input = input.clone();
            input["Mac"] = json!(b64(&mac));
            input.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            input
        };
        assert_eq!(bench.ok("VerifyMac", with(json!({})))["MacValid"], json!(true));
        let mut flipped = mac.clone();
        flipped[length - 1] ^= 1;
        for wrong in [json!({ "Mac": b64(&flipped) }), json!({ "Message": b64(b"other") }), json!({ "KeyId": other })] {
            bench.refused("VerifyMac", with(wrong), "KMSInvalidMacException");
        }
        bench.refused("GenerateMac", with(json!({ "MacAlgorithm": "HMAC_SHA_224" })), "ValidationException");
        let another = if spec == "HMAC_256" { "HMAC_SHA_512" } else { "HMAC_SHA_256" };
        let mut input = input.clone();
        input["MacAlgorithm"] = json!(another);
        bench.refused("GenerateMac", input, "InvalidKeyUsageException");
        bench.refused("Encrypt", json!({ "KeyId": key, "Plaintext": "AA==" }), "InvalidKeyUsageException");
        bench.refused("RotateKeyOnDemand", json!({ "KeyId": key }), "UnsupportedOperationException");
        bench.ok("DisableKey", json!({ "KeyId": key }));
        bench.refused("VerifyMac", with(json!({})), "DisabledException");
    }
    let message = json!({ "KeyId": bench.symmetric(), "Message": "AA==", "MacAlgorithm": "HMAC_SHA_256" });
    bench.refused("GenerateMac", message, "InvalidKeyUsageException");
}

#[test]
fn a_data_key_pair_is_sealed_under_its_context_and_shown_only_where_asked_for() {
    let bench = Bench::new();
    let key = bench.symmetric();
    let input = json!({ "KeyId": key, "KeyPairSpec": "ECC_NIST_P256", "EncryptionContext": { "tenant": "acme" } });
    let made = bench.ok("GenerateDataKeyPair", input.clone());
    let open =
        |context: Value| json!({ "CiphertextBlob": made["PrivateKeyCiphertextBlob"], "EncryptionContext": context });
    assert_eq!(bench.ok("Decrypt", open(json!({ "tenant": "acme" })))["Plaintext"], made["PrivateKeyPlaintext"]);
    bench.refused("Decrypt", open(json!({})), INVALID_CIPHERTEXT);
    let blind = bench.ok("GenerateDataKeyPairWithoutPlaintext", input.clone());
    assert!(blind.get("PrivateKeyPlaintext").is_none() && blind.get("PublicKey").is_some());
    assert_ne!(blind["PublicKey"], made["PublicKey"]);
    let dry = json!({ "KeyId": key, "KeyPairSpec": "ECC_NIST_P256", "DryRun": true });
    bench.refused("GenerateDataKeyPair", dry, "DryRunOperationException");
    let unknown = json!({ "KeyId": key, "KeyPairSpec": "ECC_SECG_P256K1" });
    bench.refused("GenerateDataKeyPair", unknown, "UnsupportedOperationException");
    let signing = json!({ "KeyId": bench.signing("ECC_NIST_P256"), "KeyPairSpec": "ECC_NIST_P256" });
    bench.refused("GenerateDataKeyPair", signing, "InvalidKeyUsageException");
}

#[test]
fn a_key_that_rotates_by_itself_does_so_when_its_period_is_over_and_opens_what_it_sealed() {
    let mut bench = Bench::new();
    let key = bench.symmetric();
    let blob = b64(&bench.encrypt(&key, json!({})));
    let first = bench.ok("Decrypt", json!({ "CiphertextBlob": blob }))["KeyMaterialId"].clone();
    bench.ok("EnableKeyRotation", json!({ "KeyId": key, "RotationPeriodInDays": 90 }));
    let status = |bench: &Bench| bench.ok("GetKeyRotationStatus", json!({ "KeyId": key }));
    assert_eq!(status(&bench)["RotationPeriodInDays"], json!(90));
    let current =
        |bench: &Bench| bench.ok("DescribeKey", json!({ "KeyId": key }))["KeyMetadata"]["CurrentKeyMaterialId"].clone();
    bench.now += 90 * DAY - 1;
    assert_eq!(current(&bench), first);
    bench.now += 1;
    let second = current(&bench);
    assert_ne!(second, first);
    assert_eq!(bench.ok("Decrypt", json!({ "CiphertextBlob": blob }))["KeyMaterialId"], first);
    let kinds: Vec<String> = bench.ok("ListKeyRotations", json!({ "KeyId": key }))["Rotations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rotation| text(&rotation["RotationType"]))
        .collect();
    assert_eq!(kinds, ["AUTOMATIC"]);
    bench.ok("DisableKeyRotation", json!({ "KeyId": key }));
    bench.now += 365 * DAY;
    assert_eq!(current(&bench), second);
    assert_eq!(status(&bench)["KeyRotationEnabled"], json!(false));
    let signing = bench.signing("ECC_NIST_P256");
    bench.refused("EnableKeyRotation", json!({ "KeyId": signing }), "UnsupportedOperationException");
    bench.ok("DisableKey", json!({ "KeyId": key }));
    bench.refused("EnableKeyRotation", json!({ "KeyId": key }), "DisabledException");
}

#[test]
fn what_was_saved_works_as_before_and_only_for_its_own_account() {
    let bench = Bench::new();
    let key = bench.symmetric();
    let blob = b64(&bench.encrypt(&key, json!({ "a": "b" })));
    bench.ok("RotateKeyOnDemand", json!({ "KeyId": key }));
    bench.ok("CreateAlias", json!({ "AliasName": "alias/data", "TargetKeyId": key }));
    let signing =
        ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_EDWARDS25519"].map(|spec| bench.signing(spec));
    let mac_key = bench.key(json!({ "KeySpec": "HMAC_384", "KeyUsage": "GENERATE_VERIFY_MAC" }));
    let mac = json!({ "KeyId": mac_key, "Message": "AA==", "MacAlgorithm": "HMAC_SHA_384" });
    let made = bench.ok("GenerateMac", mac.clone());
    bench.ok("EnableKeyRotation", json!({ "KeyId": key }));
    let saved = bench.ring.save();
    let again = Bench { ring: Keyring::load("123456789012", "us-east-1", &saved).unwrap(), now: NOW };
    again.ok("Decrypt", json!({ "CiphertextBlob": blob, "EncryptionContext": { "a": "b" }, "KeyId": "alias/data" }));
    for key in &signing {
        for (operation, input) in [("GetPublicKey", json!({ "KeyId": key })), ("DescribeKey", json!({ "KeyId": key }))]
        {
            assert_eq!(again.ok(operation, input.clone()), bench.ok(operation, input));
        }
    }
    assert_eq!(again.ok("GenerateMac", mac), made);
    let status = json!({ "KeyId": key });
    assert_eq!(again.ok("GetKeyRotationStatus", status.clone()), bench.ok("GetKeyRotationStatus", status));
    assert!(Keyring::load("210987654321", "us-east-1", &saved).is_none());
    assert!(Keyring::load("123456789012", "eu-west-1", &saved).is_none());
    assert!(Keyring::load("123456789012", "us-east-1", &saved[1..]).is_none());
}

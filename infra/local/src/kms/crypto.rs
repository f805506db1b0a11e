//! Symmetric operations: Encrypt, Decrypt, ReEncrypt, data keys, random bytes.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    blob::{Sealed, seal},
    error::KmsError,
    key::KeySpec,
    keyring::{Call, Conditions, Found},
    pair::Pair,
};

pub(crate) const ENCRYPT: &[&str] =
    &["KeyId", "Plaintext", "EncryptionContext", "GrantTokens", "EncryptionAlgorithm", "DryRun"];
pub(crate) const DECRYPT: &[&str] =
    &["CiphertextBlob", "EncryptionContext", "GrantTokens", "KeyId", "EncryptionAlgorithm", "DryRun"];
pub(crate) const RE_ENCRYPT: &[&str] = &[
    "CiphertextBlob",
    "SourceEncryptionContext",
    "SourceKeyId",
    "DestinationKeyId",
    "DestinationEncryptionContext",
    "SourceEncryptionAlgorithm",
    "DestinationEncryptionAlgorithm",
    "GrantTokens",
    "DryRun",
];
pub(crate) const GENERATE_DATA_KEY_PAIR: &[&str] =
    &["KeyId", "EncryptionContext", "KeyPairSpec", "GrantTokens", "DryRun"];
pub(crate) const GENERATE_DATA_KEY: &[&str] =
    &["KeyId", "EncryptionContext", "NumberOfBytes", "KeySpec", "GrantTokens", "DryRun"];

const SYMMETRIC: &str = "SYMMETRIC_DEFAULT";
const ALGORITHMS: &[&str] = &["SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"];
const PAIRS: &[&str] = &[
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    "SM2",
    "ECC_NIST_EDWARDS25519",
];
const LONGEST_PLAINTEXT: usize = 4096;
const LONGEST_CIPHERTEXT: usize = 6144;

type Context = BTreeMap<String, String>;

pub(crate) fn encrypt(call: &Call<'_>) -> Result<Value, KmsError> {
    let plaintext = call.input.required_blob("Plaintext", 1, LONGEST_PLAINTEXT)?;
    let context = call.input.context("EncryptionContext")?;
    let algorithm = algorithm(call, "EncryptionAlgorithm")?;
    call.without_grants()?;
    let found = call.key("KeyId")?;
    call.admit(&found, conditions(&context, algorithm))?;
    let blob = encrypt_under(call, &found, algorithm, &context, &plaintext)?;
    Ok(json!({
        "CiphertextBlob": STANDARD.encode(blob), "KeyId": found.key.arn, "EncryptionAlgorithm": algorithm,
    }))
}

pub(crate) fn decrypt(call: &Call<'_>) -> Result<Value, KmsError> {
    let blob = call.input.required_blob("CiphertextBlob", 1, LONGEST_CIPHERTEXT)?;
    let context = call.input.context("EncryptionContext")?;
    let algorithm = algorithm(call, "EncryptionAlgorithm")?;
    call.without_grants()?;
    let source = Source::admit(call, &blob, "KeyId", "kms:Decrypt", conditions(&context, algorithm))?;
    let (plaintext, material) = source.open(call, algorithm, &context)?;
    call.unless_dry_run()?;
    Ok(json!({
        "KeyId": source.found.key.arn,
        "Plaintext": STANDARD.encode(plaintext),
        "EncryptionAlgorithm": algorithm,
        "KeyMaterialId": material,
    }))
}

pub(crate) fn re_encrypt(call: &Call<'_>) -> Result<Value, KmsError> {
    let blob = call.input.required_blob("CiphertextBlob", 1, LONGEST_CIPHERTEXT)?;
    let (from_context, to_context) =
        (call.input.context("SourceEncryptionContext")?, call.input.context("DestinationEncryptionContext")?);
    let from_algorithm = algorithm(call, "SourceEncryptionAlgorithm")?;
    let to_algorithm = algorithm(call, "DestinationEncryptionAlgorithm")?;
    call.without_grants()?;
    let destination = call.key("DestinationKeyId")?;
    let same = Sealed::parse(&blob).is_ok_and(|sealed| sealed.key == destination.key.id);
    let with_same_key = |mut conditions: Conditions| {
        conditions.insert("kms:ReEncryptOnSameKey".to_owned(), vec![same.to_string()]);
        conditions
    };
    let from = with_same_key(conditions(&from_context, from_algorithm));
    let source = Source::admit(call, &blob, "SourceKeyId", "kms:ReEncryptFrom", from)?;
    call.admit_as("kms:ReEncryptTo", &destination, with_same_key(conditions(&to_context, to_algorithm)))?;
    let (plaintext, from_material) = source.open(call, from_algorithm, &from_context)?;
    let blob = encrypt_under(call, &destination, to_algorithm, &to_context, &plaintext)?;
    Ok(json!({
        "CiphertextBlob": STANDARD.encode(blob),
        "SourceKeyId": source.found.key.arn,
        "KeyId": destination.key.arn,
        "SourceEncryptionAlgorithm": from_algorithm,
        "DestinationEncryptionAlgorithm": to_algorithm,
        "SourceKeyMaterialId": from_material,
        "DestinationKeyMaterialId": destination.key.material("ReEncrypt")?.id.to_string(),
    }))
}

pub(crate) fn generate_data_key(call: &Call<'_>) -> Result<Value, KmsError> {
    let (mut answer, plaintext) = data_key(call)?;
    if let Some(members) = answer.as_object_mut() {
        members.insert("Plaintext".to_owned(), json!(STANDARD.encode(plaintext)));
    }
    Ok(answer)
}

pub(crate) fn generate_data_key_without_plaintext(call: &Call<'_>) -> Result<Value, KmsError> {
    data_key(call).map(|(answer, _)| answer)
}

pub(crate) fn generate_random(call: &Call<'_>) -> Result<Value, KmsError> {
    let length = call.input.integer("NumberOfBytes", 1, 1024)?.ok_or_else(|| KmsError::missing("NumberOfBytes"))?;
    (call.authorize)("kms:GenerateRandom", "*", &Conditions::new())?;
    Ok(json!({ "Plaintext": STANDARD.encode(random_bytes(length)?) }))
}

fn data_key(call: &Call<'_>) -> Result<(Value, Vec<u8>), KmsError> {
    let spec = call.input.choice("KeySpec", &["AES_256", "AES_128"])?;
    let length = match (spec, call.input.integer("NumberOfBytes", 1, 1024)?) {
        (Some("AES_128"), None) => 16,
        (Some(_), None) => 32,
        (None, Some(length)) => length,
        _ => return Err(KmsError::invalid("Please specify either number of bytes or key spec.")),
    };
    let context = call.input.context("EncryptionContext")?;
    call.without_grants()?;
    let found = call.key("KeyId")?;
    call.admit(&found, conditions(&context, SYMMETRIC))?;
    let plaintext = random_bytes(length)?;
    let blob = encrypt_under(call, &found, SYMMETRIC, &context, &plaintext)?;
    let answer = json!({
        "CiphertextBlob": STANDARD.encode(blob),
        "KeyId": found.key.arn,
        "KeyMaterialId": found.key.material(call.operation)?.id.to_string(),
    });
    Ok((answer, plaintext))
}

pub(crate) fn generate_data_key_pair(call: &Call<'_>) -> Result<Value, KmsError> {
    let (mut answer, pair) = data_key_pair(call)?;
    if let Some(members) = answer.as_object_mut() {
        members.insert("PrivateKeyPlaintext".to_owned(), json!(STANDARD.encode(pair.pkcs8())));
    }
    Ok(answer)
}

pub(crate) fn generate_data_key_pair_without_plaintext(call: &Call<'_>) -> Result<Value, KmsError> {
    data_key_pair(call).map(|(answer, _)| answer)
}

fn data_key_pair(call: &Call<'_>) -> Result<(Value, Pair), KmsError> {
    let spec = call.input.choice("KeyPairSpec", PAIRS)?.ok_or_else(|| KmsError::missing("KeyPairSpec"))?;
    let context = call.input.context("EncryptionContext")?;
    call.without_grants()?;
    let found = call.key("KeyId")?;
    let mut conditions = conditions(&context, SYMMETRIC);
    conditions.insert("kms:DataKeyPairSpec".to_owned(), vec![spec.to_owned()]);
    call.admit(&found, conditions)?;
    found.key.usable()?;
    found.key.material(call.operation)?;
    let made = KeySpec::from_name(spec).ok_or_else(|| {
        KmsError::unsupported(format!("Data key pairs of {spec} are not implemented by this stand-in."))
    })?;
    call.unless_dry_run()?;
    let pair = Pair::generate(made)?;
    let blob = encrypt_under(call, &found, SYMMETRIC, &context, pair.pkcs8())?;
    let answer = json!({
        "PrivateKeyCiphertextBlob": STANDARD.encode(blob),
        "PublicKey": STANDARD.encode(pair.public()),
        "KeyId": found.key.arn,
        "KeyPairSpec": spec,
        "KeyMaterialId": found.key.material(call.operation)?.id.to_string(),
    });
    Ok((answer, pair))
}

/// State, usage and algorithm, then the end of a dry run, then the encryption.
fn encrypt_under(
    call: &Call<'_>,
    found: &Found,
    algorithm: &str,
    context: &Context,
    plaintext: &[u8],
) -> Result<Vec<u8>, KmsError> {
    found.key.usable()?;
    let material = found.key.material(call.operation)?;
    if algorithm != SYMMETRIC {
        return Err(KmsError::wrong_algorithm(algorithm, found.key.spec.as_str()));
    }
    call.unless_dry_run()?;
    seal(found.key.id, material, context, plaintext)
}

/// A ciphertext with the key it names, once the caller may use that key.
struct Source<'a> {
    sealed: Sealed<'a>,
    found: Found,
    expected: Option<Found>,
}

impl<'a> Source<'a> {
    /// Authorises on the key the caller expects, where it names one, else on the key the ciphertext names.
    fn admit(
        call: &Call<'_>,
        blob: &'a [u8],
        member: &str,
        action: &str,
        conditions: Conditions,
    ) -> Result<Self, KmsError> {
        let expected = call.optional_key(member)?;
        if let Some(expected) = &expected {
            call.admit_as(action, expected, conditions.clone())?;
        }
        let sealed = Sealed::parse(blob)?;
        let found = call.key_by_id(sealed.key).ok_or_else(KmsError::invalid_ciphertext)?;
        if expected.is_none() {
            call.admit_as(action, &found, conditions)?;
        }
        Ok(Self { sealed, found, expected })
    }

    fn open(&self, call: &Call<'_>, algorithm: &str, context: &Context) -> Result<(Vec<u8>, String), KmsError> {
        let key = &self.found.key;
        if self.expected.as_ref().is_some_and(|expected| expected.key.id != key.id) {
            return Err(KmsError::incorrect_key());
        }
        key.usable()?;
        key.material(call.operation)?;
        if algorithm != SYMMETRIC {
            return Err(KmsError::wrong_algorithm(algorithm, key.spec.as_str()));
        }
        let material = key.material_of(self.sealed.material).ok_or_else(KmsError::invalid_ciphertext)?;
        Ok((self.sealed.open(material, context)?, material.id.to_string()))
    }
}

fn algorithm<'a>(call: &'a Call<'_>, member: &str) -> Result<&'a str, KmsError> {
    Ok(call.input.choice(member, ALGORITHMS)?.unwrap_or(SYMMETRIC))
}

fn conditions(context: &Context, algorithm: &str) -> Conditions {
    let mut conditions = Conditions::new();
    conditions.insert("kms:EncryptionAlgorithm".to_owned(), vec![algorithm.to_owned()]);
    if !context.is_empty() {
        conditions.insert("kms:EncryptionContextKeys".to_owned(), context.keys().cloned().collect());
    }
    for (name, value) in context {
        conditions.insert(format!("kms:EncryptionContext:{name}"), vec![value.clone()]);
    }
    conditions
}

fn random_bytes(length: i64) -> Result<Vec<u8>, KmsError> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| KmsError::internal())?];
    rand::fill(&mut bytes).map_err(|_| KmsError::internal())?;
    Ok(bytes)
}

//! Sign, Verify, GetPublicKey.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    error::KmsError,
    key::Substance,
    keyring::{Call, Conditions, Found},
    pair::{MessageType, Pair},
};

pub(crate) const SIGN: &[&str] = &["KeyId", "Message", "MessageType", "GrantTokens", "SigningAlgorithm", "DryRun"];
pub(crate) const VERIFY: &[&str] =
    &["KeyId", "Message", "MessageType", "Signature", "SigningAlgorithm", "GrantTokens", "DryRun"];

const ALGORITHMS: &[&str] = &[
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
    "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384",
    "RSASSA_PKCS1_V1_5_SHA_512",
    "ECDSA_SHA_256",
    "ECDSA_SHA_384",
    "ECDSA_SHA_512",
    "SM2DSA",
    "ML_DSA_SHAKE_256",
    "ED25519_SHA_512",
    "ED25519_PH_SHA_512",
];

pub(crate) fn sign(call: &Call<'_>) -> Result<Value, KmsError> {
    let request = Request::read(call)?;
    let signature = request.pair()?.sign(request.algorithm, request.kind, &request.message)?;
    call.unless_dry_run()?;
    Ok(json!({
        "KeyId": request.found.key.arn,
        "Signature": STANDARD.encode(signature),
        "SigningAlgorithm": request.algorithm,
    }))
}

pub(crate) fn verify(call: &Call<'_>) -> Result<Value, KmsError> {
    let signature = call.input.required_blob("Signature", 1, 6144)?;
    let request = Request::read(call)?;
    request.pair()?.verify(request.algorithm, request.kind, &request.message, &signature)?;
    call.unless_dry_run()?;
    Ok(json!({ "KeyId": request.found.key.arn, "SignatureValid": true, "SigningAlgorithm": request.algorithm }))
}

pub(crate) fn public_key(call: &Call<'_>) -> Result<Value, KmsError> {
    let found = call.key("KeyId")?;
    call.admit(&found, Conditions::new())?;
    let key = &found.key;
    key.usable()?;
    let Substance::Asymmetric(pair) = &key.substance else {
        return Err(KmsError::unsupported(format!("{} is a symmetric key, which has no public key.", key.arn)));
    };
    Ok(json!({
        "KeyId": key.arn,
        "PublicKey": STANDARD.encode(pair.public()),
        "CustomerMasterKeySpec": key.spec.as_str(),
        "KeySpec": key.spec.as_str(),
        "KeyUsage": key.spec.usage().as_str(),
        "SigningAlgorithms": key.spec.signing_algorithms(),
    }))
}

/// What Sign and Verify have in common, authorised and checked against the key.
struct Request<'a> {
    found: Found,
    algorithm: &'a str,
    kind: MessageType,
    message: Vec<u8>,
}

impl<'a> Request<'a> {
    fn read(call: &'a Call<'_>) -> Result<Self, KmsError> {
        let message = call.input.required_blob("Message", 1, 4096)?;
        let kind = match call.input.choice("MessageType", &["RAW", "DIGEST", "EXTERNAL_MU"])? {
            None | Some("RAW") => MessageType::Raw,
            Some("DIGEST") => MessageType::Digest,
            Some(_) => return Err(KmsError::invalid("MessageType EXTERNAL_MU is only valid for ML-DSA keys.")),
        };
        let algorithm =
            call.input.choice("SigningAlgorithm", ALGORITHMS)?.ok_or_else(|| KmsError::missing("SigningAlgorithm"))?;
        call.without_grants()?;
        let found = call.key("KeyId")?;
        let conditions = Conditions::from([
            ("kms:SigningAlgorithm".to_owned(), vec![algorithm.to_owned()]),
            ("kms:MessageType".to_owned(), vec![kind.as_str().to_owned()]),
        ]);
        call.admit(&found, conditions)?;
        let key = &found.key;
        key.usable()?;
        if !matches!(key.substance, Substance::Asymmetric(_)) {
            return Err(key.wrong_usage(call.operation));
        }
        if !key.spec.signing_algorithms().contains(&algorithm) {
            return Err(KmsError::wrong_algorithm(algorithm, key.spec.as_str()));
        }
        Ok(Self { found, algorithm, kind, message })
    }

    fn pair(&self) -> Result<&Pair, KmsError> {
        match &self.found.key.substance {
            Substance::Asymmetric(pair) => Ok(pair),
            Substance::Symmetric { .. } | Substance::Mac(_) => Err(KmsError::internal()),
        }
    }
}

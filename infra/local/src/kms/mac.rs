//! GenerateMac, VerifyMac.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    error::KmsError,
    key::Substance,
    keyring::{Call, Conditions, Found},
};

pub(crate) const GENERATE: &[&str] = &["KeyId", "Message", "MacAlgorithm", "GrantTokens", "DryRun"];
pub(crate) const VERIFY: &[&str] = &["KeyId", "Message", "MacAlgorithm", "Mac", "GrantTokens", "DryRun"];

const ALGORITHMS: &[&str] = &["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"];

pub(crate) fn generate(call: &Call<'_>) -> Result<Value, KmsError> {
    let request = Request::read(call)?;
    call.unless_dry_run()?;
    let mac = hmac::sign(&request.key, &request.message);
    Ok(json!({
        "KeyId": request.found.key.arn, "Mac": STANDARD.encode(mac), "MacAlgorithm": request.algorithm,
    }))
}

pub(crate) fn verify(call: &Call<'_>) -> Result<Value, KmsError> {
    let mac = call.input.required_blob("Mac", 1, 6144)?;
    let request = Request::read(call)?;
    hmac::verify(&request.key, &request.message, &mac).map_err(|_| KmsError::invalid_mac())?;
    call.unless_dry_run()?;
    Ok(json!({ "KeyId": request.found.key.arn, "MacValid": true, "MacAlgorithm": request.algorithm }))
}

/// What both have in common, authorised and checked against the key.
struct Request<'a> {
    found: Found,
    algorithm: &'a str,
    key: hmac::Key,
    message: Vec<u8>,
}

impl<'a> Request<'a> {
    fn read(call: &'a Call<'_>) -> Result<Self, KmsError> {
        let message = call.input.required_blob("Message", 1, 4096)?;
        let algorithm =
            call.input.choice("MacAlgorithm", ALGORITHMS)?.ok_or_else(|| KmsError::missing("MacAlgorithm"))?;
        call.without_grants()?;
        let found = call.key("KeyId")?;
        call.admit(&found, Conditions::from([("kms:MacAlgorithm".to_owned(), vec![algorithm.to_owned()])]))?;
        let key = &found.key;
        key.usable()?;
        let Substance::Mac(secret) = &key.substance else { return Err(key.wrong_usage(call.operation)) };
        if key.spec.mac().is_none_or(|(name, _)| name != algorithm) {
            return Err(KmsError::wrong_algorithm(algorithm, key.spec.as_str()));
        }
        let rule = match algorithm {
            "HMAC_SHA_256" => hmac::HMAC_SHA256,
            "HMAC_SHA_384" => hmac::HMAC_SHA384,
            _ => hmac::HMAC_SHA512,
        };
        let key = hmac::Key::new(rule, secret);
        Ok(Self { found, algorithm, key, message })
    }
}

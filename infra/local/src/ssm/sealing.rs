//! SecureString: sealed and opened by KMS, with the caller's rights, bound to the parameter's ARN.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::aws_json::Refusal;

/// Calls KMS as the caller, by way of SSM; refusals are SSM's own already.
pub(super) type ThroughKms<'a> = &'a dyn Fn(&str, &Value) -> Result<Value, Refusal>;

/// Seals a value: base64 of what KMS's `Encrypt` answers, or for the advanced tier of an envelope under a data key.
pub(super) fn seal(kms: ThroughKms<'_>, key: &str, arn: &str, value: &str, advanced: bool) -> Result<String, Refusal> {
    let context = json!({ "PARAMETER_ARN": arn });
    if !advanced {
        let input = json!({ "KeyId": key, "Plaintext": STANDARD.encode(value), "EncryptionContext": context });
        return text(&kms("Encrypt", &input)?, "CiphertextBlob").map(str::to_owned);
    }
    let made = kms("GenerateDataKey", &json!({ "KeyId": key, "KeySpec": "AES_256", "EncryptionContext": context }))?;
    let wrapped = bytes(&made, "CiphertextBlob")?;
    let sealed = enclose(&bytes(&made, "Plaintext")?, arn, value).map_err(|_| internal())?;
    let length = u16::try_from(wrapped.len()).map_err(|_| internal())?;
    Ok(STANDARD.encode([&length.to_be_bytes(), wrapped.as_slice(), sealed.as_slice()].concat()))
}

/// Opens what [`seal`] made.
pub(super) fn open(kms: ThroughKms<'_>, arn: &str, stored: &str, advanced: bool) -> Result<String, Refusal> {
    let context = json!({ "PARAMETER_ARN": arn });
    let plaintext = if advanced {
        let stored = STANDARD.decode(stored).map_err(|_| internal())?;
        let (length, rest) = stored.split_first_chunk::<2>().ok_or_else(internal)?;
        let (wrapped, sealed) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(internal)?;
        let opened =
            kms("Decrypt", &json!({ "CiphertextBlob": STANDARD.encode(wrapped), "EncryptionContext": context }))?;
        disclose(&bytes(&opened, "Plaintext")?, arn, sealed).map_err(|_| internal())?
    } else {
        bytes(&kms("Decrypt", &json!({ "CiphertextBlob": stored, "EncryptionContext": context }))?, "Plaintext")?
    };
    String::from_utf8(plaintext).map_err(|_| internal())
}

/// What KMS refused, as SSM passes it on.
pub(super) fn refusal(refused: Refusal) -> Refusal {
    match (refused.code, refused.status) {
        ("AccessDeniedException", _) => refused,
        (_, 500..) => internal(),
        (code, status) => {
            let message = refused.message.unwrap_or_default();
            let detail = format!("{message} (Service: AWSKMS; Status Code: {status}; Error Code: {code})");
            Refusal::new("InvalidKeyId", detail.trim_start().to_owned())
        }
    }
}

fn enclose(key: &[u8], arn: &str, value: &str) -> Result<Vec<u8>, Unspecified> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key)?;
    let mut sealed = value.as_bytes().to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::from(arn.as_bytes()), &mut sealed)?;
    Ok([nonce.as_ref(), sealed.as_slice()].concat())
}

fn disclose(key: &[u8], arn: &str, sealed: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Unspecified)?;
    let mut sealed = sealed.to_vec();
    let key = RandomizedNonceKey::new(&AES_256_GCM, key)?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    key.open_in_place(nonce, Aad::from(arn.as_bytes()), &mut sealed).map(|value| value.to_vec())
}

fn text<'a>(answer: &'a Value, member: &str) -> Result<&'a str, Refusal> {
    answer.get(member).and_then(Value::as_str).ok_or_else(internal)
}

fn bytes(answer: &Value, member: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD.decode(text(answer, member)?).map_err(|_| internal())
}

fn internal() -> Refusal {
    Refusal::failure("InternalServerError")
}

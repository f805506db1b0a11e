//! Server-side encryption: what a write may ask for, and how it is echoed. The bytes themselves stay as they are; what
//! matters here is who may use which key.

use s3s::dto::ServerSideEncryption;
use s3s::{S3ErrorCode, S3Result};

use super::access;
use super::refusal::{error, not_implemented, with_status};
use super::store::Encryption;
use crate::account::Account;

/// The encryption a write asks for; a key id alone is completed to its ARN.
///
/// # Errors
/// `InvalidArgument` for contradictions, `KMS.NotFoundException` for a key of another account or region.
pub(crate) fn requested(
    (algorithm, key_id, bucket_key): (Option<&ServerSideEncryption>, Option<&str>, Option<bool>),
    account: &Account,
) -> S3Result<Encryption> {
    let invalid = |message: &'static str| error(S3ErrorCode::InvalidArgument, message);
    match algorithm.map(ServerSideEncryption::as_str) {
        None | Some(ServerSideEncryption::AES256) if key_id.is_none() => Ok(Encryption::Managed),
        Some(ServerSideEncryption::AWS_KMS) => {
            // Without a key AWS takes the account's `aws/s3`, which no part of Portcullis uses.
            let Some(key_id) = key_id else { return Err(not_implemented()) };
            let prefix = format!("arn:aws:kms:{}:{}:key/", account.region, account.id);
            let id = key_id.strip_prefix(&prefix).unwrap_or(key_id);
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                let refused =
                    error(S3ErrorCode::Custom("KMS.NotFoundException".into()), format!("Invalid keyId '{key_id}'"));
                return Err(with_status(refused, http::StatusCode::BAD_REQUEST));
            }
            Ok(Encryption::Kms { key_arn: format!("{prefix}{id}"), bucket_key: bucket_key.unwrap_or_default() })
        }
        Some(ServerSideEncryption::AWS_KMS_DSSE) => Err(not_implemented()),
        Some(ServerSideEncryption::AES256) | None => Err(invalid(
            "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms",
        )),
        Some(_) => Err(invalid("The encryption method specified is not supported")),
    }
}

/// What S3 binds data keys to: the object, or the bucket where a bucket key serves all of its objects.
pub(crate) fn context(bucket: &str, key: &str, bucket_key: bool) -> String {
    if bucket_key { access::bucket_arn(bucket) } else { access::object_arn(bucket, key) }
}

/// The answer's fields: algorithm, key ARN, bucket key.
pub(crate) fn echo(encryption: &Encryption) -> (Option<ServerSideEncryption>, Option<String>, Option<bool>) {
    match encryption {
        Encryption::Managed => (Some(ServerSideEncryption::from_static(ServerSideEncryption::AES256)), None, None),
        Encryption::Kms { key_arn, bucket_key } => (
            Some(ServerSideEncryption::from_static(ServerSideEncryption::AWS_KMS)),
            Some(key_arn.clone()),
            bucket_key.then_some(true),
        ),
    }
}

//! Authorization: the IAM action, resource and condition keys of each operation.

use std::sync::Arc;
use std::time::SystemTime;

use http::{Extensions, HeaderMap};
use s3s::access::{S3Access, S3AccessContext};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::refusal::{error, not_implemented, with_status};
use super::store::Store;
use crate::account::Account;
use crate::kms::Kms;
use crate::policy::{Context, Decision, denial};
use crate::sigv4::{self, AuthType, Authenticated};

/// Who sent this request; travels with it through s3s.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) authenticated: Authenticated,
    pub(crate) request_id: String,
    pub(crate) source_ip: String,
    pub(crate) now: SystemTime,
    /// Whether it came as a form.
    pub(crate) by_form: bool,
}

/// The IAM check before each operation.
pub(crate) struct Access {
    pub(crate) account: Arc<Account>,
    pub(crate) store: Arc<Store>,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let caller = caller(context.extensions_mut())?;
        let (operation, path, headers) = (context.s3_op().name(), context.s3_path(), context.headers());
        let query = query(context.uri());
        let versioned = query.iter().any(|(name, _)| name == "versionId");
        let action = match (operation, versioned) {
            ("GetObject" | "HeadObject", false) => "s3:GetObject",
            ("GetObject" | "HeadObject", true) => "s3:GetObjectVersion",
            ("PutObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload", _) => "s3:PutObject",
            ("ListParts", _) => "s3:ListMultipartUploadParts",
            ("AbortMultipartUpload", _) => "s3:AbortMultipartUpload",
            ("DeleteObject", false) => "s3:DeleteObject",
            ("DeleteObject", true) => "s3:DeleteObjectVersion",
            ("ListObjectsV2" | "ListObjects" | "HeadBucket", _) => "s3:ListBucket",
            ("ListBuckets", _) => "s3:ListAllMyBuckets",
            ("GetBucketLifecycleConfiguration", _) => "s3:GetLifecycleConfiguration",
            ("PutBucketLifecycleConfiguration" | "DeleteBucketLifecycle", _) => "s3:PutLifecycleConfiguration",
            _ => return Err(not_implemented()),
        };
        let resource = match path {
            S3Path::Root => "arn:aws:s3:::*".to_owned(),
            S3Path::Bucket { bucket } => bucket_arn(bucket),
            S3Path::Object { bucket, key } => object_arn(bucket, key),
        };
        if let S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } = path
            && !self.store.has(bucket)
        {
            return Err(error(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist"));
        }
        if let Some(owner) = headers.get("x-amz-expected-bucket-owner")
            && owner.as_bytes() != self.account.id.as_bytes()
        {
            return Err(error(S3ErrorCode::AccessDenied, "Access Denied"));
        }
        let mut keys = request_keys(&caller, &self.account);
        keys.extend(header_keys(headers));
        keys.extend(query_keys(operation, action, &query));
        authorize(&self.account, &caller, action, &resource, keys)
    }
}

/// The caller that the guard attached.
///
/// # Errors
/// `AccessDenied` for a request that did not come through the guard.
pub(crate) fn caller(extensions: &Extensions) -> S3Result<Arc<Caller>> {
    let caller = extensions.get::<Arc<Caller>>().cloned();
    caller.ok_or_else(|| error(S3ErrorCode::AccessDenied, "Access Denied"))
}

/// Whether the caller may list the bucket; without that right a missing key is not told from a forbidden one.
pub(crate) fn may_list(account: &Account, caller: &Caller, bucket: &str) -> bool {
    let keys = request_keys(caller, account);
    authorize(account, caller, "s3:ListBucket", &bucket_arn(bucket), keys).is_ok()
}

/// The permission on a KMS key that S3 uses in the caller's name.
///
/// # Errors
/// `AccessDenied` when the caller's policies do not allow it.
pub(crate) fn use_key(
    (account, kms): (&Account, Option<&Arc<Kms>>),
    caller: &Caller,
    action: &str,
    key_arn: &str,
    encryption_context: &str,
) -> S3Result<()> {
    let via = format!("s3.{}.amazonaws.com", account.region);
    let keys = vec![
        ("kms:ViaService".to_owned(), via),
        ("kms:CallerAccount".to_owned(), account.id.clone()),
        ("kms:EncryptionContext:aws:s3:arn".to_owned(), encryption_context.to_owned()),
        ("kms:EncryptionContextKeys".to_owned(), "aws:s3:arn".to_owned()),
        ("aws:SourceIp".to_owned(), caller.source_ip.clone()),
    ];
    let said = kms.map(|kms| kms.said_of(key_arn)).unwrap_or_default();
    let keys = said.into_iter().chain(keys).collect();
    authorize(account, caller, action, key_arn, keys)?;
    let Some(Err(refused)) = kms.map(|kms| kms.sealing(key_arn)) else { return Ok(()) };
    let code = S3ErrorCode::Custom(format!("KMS.{}", refused.code).into());
    let refused = error(code, refused.message.unwrap_or_default());
    Err(with_status(refused, http::StatusCode::BAD_REQUEST))
}

/// The ARN of a bucket.
pub(crate) fn bucket_arn(bucket: &str) -> String {
    format!("arn:aws:s3:::{bucket}")
}

/// The ARN of an object.
pub(crate) fn object_arn(bucket: &str, key: &str) -> String {
    format!("arn:aws:s3:::{bucket}/{key}")
}

type Keys = Vec<(String, String)>;

fn authorize(account: &Account, caller: &Caller, action: &str, resource: &str, keys: Keys) -> S3Result<()> {
    let context = keys.iter().fold(Context::new(), |context, (key, value)| context.with(key, value));
    match account.iam.authorize(&caller.authenticated, action, resource, &context) {
        Decision::Allow => Ok(()),
        Decision::Deny { reason } => {
            let message = denial(&caller.authenticated.principal, action, &format!("\"{resource}\""), &reason);
            Err(S3Error::with_message(S3ErrorCode::AccessDenied, message))
        }
    }
}

fn request_keys(caller: &Caller, account: &Account) -> Keys {
    let auth_type = match caller.authenticated.auth_type {
        AuthType::Header => "REST-HEADER",
        AuthType::Query => "REST-QUERY-STRING",
        AuthType::Form => "POST",
    };
    let mut keys = vec![
        ("aws:SourceIp".to_owned(), caller.source_ip.clone()),
        ("s3:authType".to_owned(), auth_type.to_owned()),
        ("s3:signatureversion".to_owned(), sigv4::ALGORITHM.to_owned()),
        ("s3:ResourceAccount".to_owned(), account.id.clone()),
    ];
    if caller.authenticated.auth_type != AuthType::Header {
        let age = caller.now.duration_since(caller.authenticated.date).unwrap_or_default();
        keys.push(("s3:signatureAge".to_owned(), age.as_millis().to_string()));
    }
    keys
}

fn header_keys(headers: &HeaderMap) -> Keys {
    [
        ("x-amz-server-side-encryption", "s3:x-amz-server-side-encryption"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "s3:x-amz-server-side-encryption-aws-kms-key-id"),
        ("x-amz-content-sha256", "s3:x-amz-content-sha256"),
        ("x-amz-storage-class", "s3:x-amz-storage-class"),
        ("if-none-match", "s3:if-none-match"),
        ("if-match", "s3:if-match"),
    ]
    .into_iter()
    .filter_map(|(header, key)| Some((key.to_owned(), headers.get(header)?.to_str().ok()?.to_owned())))
    .collect()
}

fn query_keys(operation: &str, action: &str, query: &[(String, String)]) -> Keys {
    let mut keys: Keys = Vec::new();
    if action == "s3:PutObject" {
        // Beginning an upload and sending a part of it make no object.
        let creates = matches!(operation, "PutObject" | "CompleteMultipartUpload");
        keys.push(("s3:ObjectCreationOperation".to_owned(), creates.to_string()));
    }
    let known: &[(&str, &str)] = match action {
        "s3:ListBucket" => &[("prefix", "s3:prefix"), ("delimiter", "s3:delimiter"), ("max-keys", "s3:max-keys")],
        _ => &[("versionId", "s3:VersionId")],
    };
    for (name, key) in known {
        keys.extend(
            query.iter().filter(|(given, _)| given == name).map(|(_, value)| ((*key).to_owned(), value.clone())),
        );
    }
    keys
}

fn query(uri: &http::Uri) -> Vec<(String, String)> {
    sigv4::query_pairs(uri.query().unwrap_or_default())
}

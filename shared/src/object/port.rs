use std::fmt;
use std::future::Future;

use super::{ContentType, ObjectKey, Sha256Digest, Size, UploadId, UrlLife, VersionId};
use crate::clock::Timestamp;
use crate::port::Fault;
use crate::secret::SecretString;

/// Short-lived credentials that may sign URLs for the objects of one tenant, or for one object, and do nothing else.
#[derive(Clone, Debug)]
pub struct SignerSession {
    /// Names the credentials; public, it stands in every URL they sign.
    pub access_key_id: String,
    /// Signs.
    pub secret_access_key: SecretString,
    /// Travels in the URL, inside the signature.
    pub session_token: SecretString,
    /// When STS was asked for them; what a revocation is compared with.
    pub issued_at: Timestamp,
    /// When they, and every URL they signed, die.
    pub expires_at: Timestamp,
}

/// How far a signer session reaches: what somebody can do who takes one out of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignerReach {
    /// All objects of one tenant. A session serves for minutes.
    Tenant,
    /// One object. STS is asked for each.
    Object,
}

/// Signer sessions.
pub trait SignerSessions: Send + Sync + 'static {
    /// A session that may sign for this object and no other tenant's, as fresh as can be had.
    fn session(&self, key: &ObjectKey) -> impl Future<Output = Result<SignerSession, Fault>> + Send;
}

/// Everything that a signed PUT fixes.
#[derive(Clone, Debug)]
pub struct WriteTerms {
    /// The object to be written, once.
    pub key: ObjectKey,
    /// Its exact size.
    pub size: Size,
    /// Its exact type.
    pub content_type: ContentType,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// Everything that a signed GET fixes.
#[derive(Clone, Debug)]
pub struct ReadTerms {
    /// The object to be read.
    pub key: ObjectKey,
    /// Its one version that was checked.
    pub version: VersionId,
    /// What the answer's `Content-Type` will be.
    pub content_type: &'static str,
    /// What the answer's `Content-Disposition` will be.
    pub disposition: String,
}

/// Everything that a signed form fixes. A form cannot say that there must be no object yet: within its life its holder may
/// write again, and a second version ends the file.
#[derive(Clone, Debug)]
pub struct FormTerms {
    /// The object to be written.
    pub key: ObjectKey,
    /// Its largest size; the smallest is one byte.
    pub longest: Size,
    /// Its exact type.
    pub content_type: ContentType,
}

/// One part of a large object: its number from 1, its size and the digest of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its place.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub sha256: Sha256Digest,
}

/// Everything that a signed PUT of a part fixes.
#[derive(Clone, Debug)]
pub struct PartTerms {
    /// The object that the part will be one of.
    pub key: ObjectKey,
    /// The upload that it belongs to.
    pub upload: UploadId,
    /// The part.
    pub part: Part,
}

/// A part as S3 holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldPart {
    /// Its place.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Base64 SHA-256 that S3 verified while it took the bytes.
    pub sha256: Option<String>,
    /// Its entity tag, as it came.
    pub etag: String,
}

/// How making one object of its parts ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// They are one object now.
    Done,
    /// There is an object under the key already; nothing was changed.
    There,
    /// S3 knows no such upload any more: it was ended or completed meanwhile, since its parts were listed.
    Gone,
}

/// Objects in parts, with a signer session's rights: what a client cannot be given a URL for.
pub trait PartStore: Send + Sync + 'static {
    /// Begins an upload, encrypted under the bucket's key, each part with its SHA-256.
    fn begin(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        content_type: ContentType,
    ) -> impl Future<Output = Result<UploadId, Fault>> + Send;

    /// The parts that have arrived, in order; `None` where there is no such upload.
    fn parts(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> impl Future<Output = Result<Option<Vec<HeldPart>>, Fault>> + Send;

    /// Makes one object of exactly these parts, if there is none yet.
    fn complete(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[HeldPart],
    ) -> impl Future<Output = Result<Completion, Fault>> + Send;

    /// Ends an upload and its parts. One that is not there counts as ended.
    fn abort(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// A URL that is a credential: it prints itself nowhere, [`SignedUrl::expose`] is the only way to the text.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl(String);

impl SignedUrl {
    /// Takes a URL that carries a signature.
    pub fn new(url: String) -> SignedUrl {
        SignedUrl(url)
    }

    /// The URL, for the answer to its owner and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A request that a client may send once to the bucket.
#[derive(Clone, Debug)]
pub struct SignedRequest {
    /// `PUT` or `GET`.
    pub method: &'static str,
    /// Where to.
    pub url: SignedUrl,
    /// The headers that are signed and must be sent byte for byte, without `host` and `content-length`, which a browser
    /// sets itself.
    pub headers: Vec<(String, String)>,
}

/// A form that a client may send to the bucket as `multipart/form-data` (S3 `POST Object`): these fields, then the file.
/// Policy and signature among them are a credential, so it prints no value.
#[derive(Clone)]
pub struct SignedForm {
    /// Where to; says nothing but the bucket.
    pub url: String,
    fields: Vec<(&'static str, String)>,
}

impl SignedForm {
    /// Takes fields that are signed together.
    pub fn new(url: String, fields: Vec<(&'static str, String)>) -> SignedForm {
        SignedForm { url, fields }
    }

    /// The fields, for the answer to their owner and for nothing else.
    pub fn expose(&self) -> &[(&'static str, String)] {
        &self.fields
    }
}

impl fmt::Debug for SignedForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| *name).collect();
        f.debug_struct("SignedForm").field("url", &self.url).field("fields", &names).finish()
    }
}

/// Signs URLs and forms offline, with a session's credentials.
pub trait Presign: Send + Sync + 'static {
    /// A PUT of exactly this object, encrypted under the bucket's key, if there is none yet.
    fn put(
        &self,
        session: &SignerSession,
        terms: &WriteTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> impl Future<Output = Result<SignedRequest, Fault>> + Send;

    /// A PUT of exactly this part.
    fn part(
        &self,
        session: &SignerSession,
        terms: &PartTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> impl Future<Output = Result<SignedRequest, Fault>> + Send;

    /// A form that writes this object, encrypted under the bucket's key.
    fn form(
        &self,
        session: &SignerSession,
        terms: &FormTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> impl Future<Output = Result<SignedForm, Fault>> + Send;

    /// A GET of exactly this version.
    fn get(
        &self,
        session: &SignerSession,
        terms: &ReadTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> impl Future<Output = Result<SignedRequest, Fault>> + Send;
}

/// What the bucket says about one version of an object. Nothing here is trusted: it is compared with what was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// The version the answer is about.
    pub version: String,
    /// The entity tag without quotes.
    pub etag: String,
    /// Its size in bytes.
    pub size: i64,
    /// Its stored type.
    pub content_type: Option<String>,
    /// Base64 SHA-256 that S3 verified while it took the bytes.
    pub sha256: Option<String>,
    /// `aws:kms` where it must be.
    pub encryption: Option<String>,
    /// ARN of the key it is encrypted under.
    pub encryption_key: Option<String>,
}

/// What asking for one version gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// The version is there.
    Found(ObjectHead),
    /// No such object or version.
    Missing,
}

/// Looks at objects, and ends them, with the function's own rights.
pub trait ObjectStore: Send + Sync + 'static {
    /// Asks for size, type, checksum and encryption of one version.
    fn head(&self, key: &ObjectKey, version: &VersionId) -> impl Future<Output = Result<Head, Fault>> + Send;

    /// The newest version of an object. `None` where there is none that this bucket tells us of.
    fn newest(&self, key: &ObjectKey) -> impl Future<Output = Result<Option<VersionId>, Fault>> + Send;

    /// Reads one version through, and keeps nothing of it but its digest. `None` where there is no such object or version.
    fn hash(
        &self,
        key: &ObjectKey,
        version: &VersionId,
    ) -> impl Future<Output = Result<Option<Sha256Digest>, Fault>> + Send;

    /// Reads at most `longest` bytes from the start of one version. `None` where there is no such object or version.
    fn start(
        &self,
        key: &ObjectKey,
        version: &VersionId,
        longest: u32,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, Fault>> + Send;

    /// Ends an upload in parts that no object came of. One that is not there counts as ended.
    fn abort(&self, key: &ObjectKey, upload: &UploadId) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Ends one version for good. A version that is not there counts as ended.
    fn delete(&self, key: &ObjectKey, version: &VersionId) -> impl Future<Output = Result<(), Fault>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-5b1e";

    #[test]
    fn a_signed_request_prints_no_url() {
        let request = SignedRequest {
            method: "PUT",
            url: SignedUrl::new(format!("https://b/k?X-Amz-Signature={CANARY}")),
            headers: Vec::new(),
        };
        assert!(!format!("{request:?} {request:#?}").contains(CANARY));
        assert!(request.url.expose().contains(CANARY));
    }

    #[test]
    fn a_signed_form_prints_the_names_of_its_fields_and_no_value() {
        let fields = vec![("policy", CANARY.to_owned()), ("x-amz-signature", CANARY.to_owned())];
        let form = SignedForm::new("https://b/".to_owned(), fields);
        let printed = format!("{form:?} {form:#?}");
        assert!(!printed.contains(CANARY) && printed.contains("x-amz-signature"), "{printed}");
        assert_eq!(form.expose().len(), 2);
    }

    #[test]
    fn a_session_prints_neither_secret_nor_token() {
        let session = SignerSession {
            access_key_id: "ASIAEXAMPLE".to_owned(),
            secret_access_key: SecretString::new(CANARY.to_owned()),
            session_token: SecretString::new(CANARY.to_owned()),
            issued_at: Timestamp::from_seconds(0),
            expires_at: Timestamp::from_seconds(900),
        };
        assert!(!format!("{session:?} {session:#?}").contains(CANARY));
    }
}

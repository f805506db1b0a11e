//! The object bucket as its own role sees it, and the signing of URLs for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::clock::{Clock, Timestamp};
use shared::name::Tenant;
use shared::object::{
    Completion, ContentType, FormTerms, Head, HeldPart, ObjectHead, ObjectKey, ObjectStore, PartStore, PartTerms,
    Presign, ReadTerms, Sha256Digest, SignedForm, SignedRequest, SignedUrl, SignerSession, SignerSessions, UploadId,
    UrlLife, VersionId, WriteTerms,
};
use shared::port::{Fault, FaultKind};
use shared::secret::SecretString;

use crate::clock::FixedClock;

/// The key that [`Objects`] are encrypted under.
pub const BUCKET_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// Stands in every secret that [`Signing`] hands out, and in every URL it signs.
pub const CANARY: &str = "canary-c81d";

/// Versions of objects. Clones share them.
#[derive(Clone, Default)]
pub struct Objects(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    versions: BTreeMap<(String, String), ObjectHead>,
    bodies: BTreeMap<(String, String), Vec<u8>>,
    aborted: Vec<(String, String)>,
    asked: usize,
    down: bool,
    stuck: BTreeSet<String>,
}

impl Objects {
    /// Stores a version as a client would who keeps to what was signed.
    pub fn put(&self, key: &str, version: &str, content_type: &str, body: &[u8]) {
        let head = ObjectHead {
            version: version.to_owned(),
            etag: format!("etag-{version}"),
            size: i64::try_from(body.len()).unwrap_or(i64::MAX),
            content_type: Some(content_type.to_owned()),
            sha256: Some(Sha256Digest::of(body).to_string()),
            encryption: Some("aws:kms".to_owned()),
            encryption_key: Some(BUCKET_KEY.to_owned()),
        };
        let mut held = self.held();
        held.versions.insert((key.to_owned(), version.to_owned()), head);
        held.bodies.insert((key.to_owned(), version.to_owned()), body.to_vec());
    }

    /// Changes what the bucket says about a version.
    pub fn change(&self, key: &str, version: &str, change: impl FnOnce(&mut ObjectHead)) {
        if let Some(head) = self.held().versions.get_mut(&(key.to_owned(), version.to_owned())) {
            change(head);
        }
    }

    /// Which versions of a key are there.
    pub fn versions(&self, key: &str) -> Vec<String> {
        self.held().versions.keys().filter(|(of, _)| of == key).map(|(_, version)| version.clone()).collect()
    }

    /// Which uploads in parts were ended, by key.
    pub fn aborted(&self) -> Vec<(String, String)> {
        self.held().aborted.clone()
    }

    /// A version or an upload that refuses to be deleted, or does no longer.
    pub fn set_stuck(&self, version: &str, stuck: bool) {
        let mut held = self.held();
        if stuck {
            held.stuck.insert(version.to_owned());
        } else {
            held.stuck.remove(version);
        }
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.held().asked
    }

    /// Makes every call fail as unavailable, or work again.
    pub fn set_down(&self, down: bool) {
        self.held().down = down;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObjectStore for Objects {
    async fn head(&self, key: &ObjectKey, version: &VersionId) -> Result<Head, Fault> {
        let mut held = self.held();
        held.asked += 1;
        if held.down {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "HeadObject"));
        }
        let found = held.versions.get(&(key.to_string(), version.as_str().to_owned())).cloned();
        Ok(found.map_or(Head::Missing, Head::Found))
    }

    async fn newest(&self, key: &ObjectKey) -> Result<Option<VersionId>, Fault> {
        let mut held = self.held();
        held.asked += 1;
        if held.down {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "HeadObject"));
        }
        let key = key.to_string();
        let versions = held.versions.keys().filter(|(of, _)| *of == key);
        Ok(versions.max().and_then(|(_, version)| VersionId::parse(version).ok()))
    }

    async fn hash(&self, key: &ObjectKey, version: &VersionId) -> Result<Option<Sha256Digest>, Fault> {
        let mut held = self.held();
        held.asked += 1;
        if held.down {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "GetObject"));
        }
        let version = (key.to_string(), version.as_str().to_owned());
        let body = held.bodies.get(&version).filter(|_| held.versions.contains_key(&version));
        Ok(body.map(|body| Sha256Digest::of(body)))
    }

    async fn start(&self, key: &ObjectKey, version: &VersionId, longest: u32) -> Result<Option<Vec<u8>>, Fault> {
        let mut held = self.held();
        held.asked += 1;
        if held.down {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "GetObject"));
        }
        let version = (key.to_string(), version.as_str().to_owned());
        let body = held.bodies.get(&version).filter(|_| held.versions.contains_key(&version));
        let longest = usize::try_from(longest).unwrap_or(usize::MAX);
        Ok(body.map(|body| body.iter().take(longest).copied().collect()))
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), Fault> {
        let mut held = self.held();
        held.asked += 1;
        if held.down || held.stuck.contains(upload.as_str()) {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "AbortMultipartUpload"));
        }
        held.aborted.push((key.to_string(), upload.as_str().to_owned()));
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, version: &VersionId) -> Result<(), Fault> {
        let mut held = self.held();
        held.asked += 1;
        if held.down {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "DeleteObject"));
        }
        if held.stuck.contains(version.as_str()) {
            return Err(Fault::new(FaultKind::Denied, "s3", "DeleteObject"));
        }
        held.versions.remove(&(key.to_string(), version.as_str().to_owned()));
        Ok(())
    }
}

/// STS and a presigner in one: sessions with as much life as a test wants, URLs that show what was asked for and nothing that
/// S3 would accept. Clones share what happened.
#[derive(Clone)]
pub struct Signing {
    clock: FixedClock,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    left: i64,
    down: bool,
    writes: Vec<(WriteTerms, UrlLife)>,
    forms: Vec<(FormTerms, UrlLife)>,
    parts: Vec<(PartTerms, UrlLife)>,
    uploads: BTreeMap<(String, String), BTreeMap<u32, HeldPart>>,
    begun: usize,
    completed: BTreeSet<String>,
    calls: Vec<&'static str>,
    failing: Option<&'static str>,
    reads: Vec<(ReadTerms, UrlLife)>,
    tenants: Vec<Tenant>,
    keys: Vec<String>,
}

impl Signing {
    /// Sessions of 900 s by `clock`.
    pub fn new(clock: FixedClock) -> Signing {
        let seen = Seen {
            left: 900,
            down: false,
            writes: Vec::new(),
            forms: Vec::new(),
            parts: Vec::new(),
            uploads: BTreeMap::new(),
            begun: 0,
            completed: BTreeSet::new(),
            calls: Vec::new(),
            failing: None,
            reads: Vec::new(),
            tenants: Vec::new(),
            keys: Vec::new(),
        };
        Signing { clock, seen: Arc::new(Mutex::new(seen)) }
    }

    /// Sessions have this many seconds left from now on.
    pub fn set_left(&self, seconds: i64) {
        self.seen().left = seconds;
    }

    /// STS does not answer, or does again.
    pub fn set_down(&self, down: bool) {
        self.seen().down = down;
    }

    /// What was signed for writing.
    pub fn writes(&self) -> Vec<(WriteTerms, UrlLife)> {
        self.seen().writes.clone()
    }

    /// Which forms were signed.
    pub fn forms(&self) -> Vec<(FormTerms, UrlLife)> {
        self.seen().forms.clone()
    }

    /// Which parts were signed.
    pub fn parts(&self) -> Vec<(PartTerms, UrlLife)> {
        self.seen().parts.clone()
    }

    /// What was asked of uploads in parts.
    pub fn calls(&self) -> Vec<&'static str> {
        self.seen().calls.clone()
    }

    /// Makes one kind of these calls fail as unavailable, or work again.
    pub fn set_failing(&self, call: Option<&'static str>) {
        self.seen().failing = call;
    }

    /// The uploads that are neither ended nor an object.
    pub fn open_uploads(&self) -> Vec<String> {
        self.seen().uploads.keys().map(|(_, upload)| upload.clone()).collect()
    }

    /// The keys whose parts became one object.
    pub fn completed(&self) -> Vec<String> {
        self.seen().completed.iter().cloned().collect()
    }

    /// Sends a part as a client would who keeps to what was signed.
    pub fn send(&self, terms: &PartTerms) {
        let part = HeldPart {
            number: terms.part.number,
            size: terms.part.size,
            sha256: Some(terms.part.sha256.to_string()),
            etag: format!("etag-{}", terms.part.number),
        };
        let upload = (terms.key.to_string(), terms.upload.as_str().to_owned());
        if let Some(parts) = self.seen().uploads.get_mut(&upload) {
            parts.insert(part.number, part);
        }
    }

    /// Changes what S3 holds of an upload.
    pub fn change(&self, key: &str, upload: &str, change: impl FnOnce(&mut BTreeMap<u32, HeldPart>)) {
        if let Some(parts) = self.seen().uploads.get_mut(&(key.to_owned(), upload.to_owned())) {
            change(parts);
        }
    }

    /// Ends an upload without telling anybody, as a lifecycle does.
    pub fn lose(&self, key: &str, upload: &str) {
        self.seen().uploads.remove(&(key.to_owned(), upload.to_owned()));
    }

    fn call(&self, name: &'static str) -> Result<MutexGuard<'_, Seen>, Fault> {
        let mut seen = self.seen();
        seen.calls.push(name);
        if seen.failing == Some(name) { Err(Fault::new(FaultKind::Unavailable, "s3", name)) } else { Ok(seen) }
    }

    /// What was signed for reading.
    pub fn reads(&self) -> Vec<(ReadTerms, UrlLife)> {
        self.seen().reads.clone()
    }

    /// For which objects sessions were asked for.
    pub fn keys(&self) -> Vec<String> {
        self.seen().keys.clone()
    }

    /// Whose sessions were asked for.
    pub fn tenants(&self) -> Vec<Tenant> {
        self.seen().tenants.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignerSessions for Signing {
    async fn session(&self, key: &ObjectKey) -> Result<SignerSession, Fault> {
        let mut seen = self.seen();
        if seen.down {
            return Err(Fault::new(FaultKind::Unavailable, "sts", "AssumeRole"));
        }
        seen.tenants.push(key.tenant().clone());
        seen.keys.push(key.to_string());
        let now = self.clock.now();
        Ok(SignerSession {
            access_key_id: "ASIAEXAMPLE".to_owned(),
            secret_access_key: SecretString::new(CANARY.to_owned()),
            session_token: SecretString::new(CANARY.to_owned()),
            issued_at: now,
            expires_at: now.plus_seconds(seen.left),
        })
    }
}

impl Presign for Signing {
    async fn put(
        &self,
        _: &SignerSession,
        terms: &WriteTerms,
        _: Timestamp,
        life: UrlLife,
    ) -> Result<SignedRequest, Fault> {
        self.seen().writes.push((terms.clone(), life));
        Ok(SignedRequest {
            method: "PUT",
            url: SignedUrl::new(format!("https://objects.test/{}?X-Amz-Signature={CANARY}", terms.key)),
            headers: vec![
                ("content-type".to_owned(), terms.content_type.declared().to_owned()),
                ("x-amz-checksum-sha256".to_owned(), terms.sha256.to_string()),
            ],
        })
    }

    async fn part(
        &self,
        _: &SignerSession,
        terms: &PartTerms,
        _: Timestamp,
        life: UrlLife,
    ) -> Result<SignedRequest, Fault> {
        self.seen().parts.push((terms.clone(), life));
        let url =
            format!("https://objects.test/{}?partNumber={}&X-Amz-Signature={CANARY}", terms.key, terms.part.number);
        let headers = vec![("x-amz-checksum-sha256".to_owned(), terms.part.sha256.to_string())];
        Ok(SignedRequest { method: "PUT", url: SignedUrl::new(url), headers })
    }

    async fn form(
        &self,
        _: &SignerSession,
        terms: &FormTerms,
        _: Timestamp,
        life: UrlLife,
    ) -> Result<SignedForm, Fault> {
        self.seen().forms.push((terms.clone(), life));
        let fields = vec![
            ("key", terms.key.to_string()),
            ("Content-Type", terms.content_type.declared().to_owned()),
            ("x-amz-signature", CANARY.to_owned()),
        ];
        Ok(SignedForm::new("https://objects.test/".to_owned(), fields))
    }

    async fn get(
        &self,
        _: &SignerSession,
        terms: &ReadTerms,
        _: Timestamp,
        life: UrlLife,
    ) -> Result<SignedRequest, Fault> {
        self.seen().reads.push((terms.clone(), life));
        let version = terms.version.as_str();
        let url =
            SignedUrl::new(format!("https://objects.test/{}?versionId={version}&X-Amz-Signature={CANARY}", terms.key));
        Ok(SignedRequest { method: "GET", url, headers: Vec::new() })
    }
}

impl PartStore for Signing {
    async fn begin(&self, _: &SignerSession, key: &ObjectKey, _: ContentType) -> Result<UploadId, Fault> {
        let mut seen = self.call("begin")?;
        seen.begun += 1;
        let upload = format!("upload-{}", seen.begun);
        seen.uploads.insert((key.to_string(), upload.clone()), BTreeMap::new());
        UploadId::parse(&upload).map_err(|_| Fault::new(FaultKind::Invalid, "s3", "begin"))
    }

    async fn parts(
        &self,
        _: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Option<Vec<HeldPart>>, Fault> {
        let seen = self.call("parts")?;
        let held = seen.uploads.get(&(key.to_string(), upload.as_str().to_owned()));
        Ok(held.map(|parts| parts.values().cloned().collect()))
    }

    async fn complete(
        &self,
        _: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
        _: &[HeldPart],
    ) -> Result<Completion, Fault> {
        let mut seen = self.call("complete")?;
        if seen.completed.contains(&key.to_string()) {
            return Ok(Completion::There);
        }
        if seen.uploads.remove(&(key.to_string(), upload.as_str().to_owned())).is_none() {
            return Ok(Completion::Gone);
        }
        seen.completed.insert(key.to_string());
        Ok(Completion::Done)
    }

    async fn abort(&self, _: &SignerSession, key: &ObjectKey, upload: &UploadId) -> Result<(), Fault> {
        let mut seen = self.call("abort")?;
        seen.uploads.remove(&(key.to_string(), upload.as_str().to_owned()));
        Ok(())
    }
}

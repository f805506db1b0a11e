//! The object bucket as its own role sees it, and the signing of URLs for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::clock::{Clock, Timestamp};
use shared::name::Tenant;
use shared::object::{
    Head, ObjectHead, ObjectKey, ObjectStore, Presign, ReadTerms, Sha256Digest, SignedRequest, SignedUrl,
    SignerSession, SignerSessions, UrlLife, VersionId, WriteTerms,
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
        self.held().versions.insert((key.to_owned(), version.to_owned()), head);
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

    /// A version that refuses to be deleted, or does no longer.
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
    reads: Vec<(ReadTerms, UrlLife)>,
    tenants: Vec<Tenant>,
}

impl Signing {
    /// Sessions of 900 s by `clock`.
    pub fn new(clock: FixedClock) -> Signing {
        let seen = Seen { left: 900, down: false, writes: Vec::new(), reads: Vec::new(), tenants: Vec::new() };
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

    /// What was signed for reading.
    pub fn reads(&self) -> Vec<(ReadTerms, UrlLife)> {
        self.seen().reads.clone()
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
    async fn session(&self, tenant: &Tenant) -> Result<SignerSession, Fault> {
        let mut seen = self.seen();
        if seen.down {
            return Err(Fault::new(FaultKind::Unavailable, "sts", "AssumeRole"));
        }
        seen.tenants.push(tenant.clone());
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

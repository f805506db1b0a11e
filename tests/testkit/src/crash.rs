//! One lost call among all that a story makes: whatever is behind a port, and whether it had its effect before its answer got lost.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use shared::object::{
    Completion, ContentType, Head, HeldPart, ObjectKey, ObjectStore, PartStore, Sha256Digest, SignerSession,
    SignerSessions, UploadId, VersionId,
};
use shared::port::{Database, Fault, FaultKind, Parameter};

/// Loses one call. Clones share it, so that one counts the calls of several ports.
#[derive(Clone, Debug)]
pub struct Fuse {
    made: Arc<AtomicUsize>,
    at: usize,
    after: bool,
}

impl Fuse {
    /// Loses the call with this number, counted from 0: before it had an effect, or after.
    pub fn new(at: usize, after: bool) -> Fuse {
        Fuse { made: Arc::default(), at, after }
    }

    /// How many calls were made so far.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// This port, behind the fuse.
    pub fn behind<P>(&self, port: P) -> Fragile<P> {
        Fragile { port, fuse: self.clone() }
    }

    async fn through<T>(&self, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let lost = || Err(Fault::new(FaultKind::Unavailable, "crash", "Crash"));
        let burns = self.made.fetch_add(1, Ordering::Relaxed) == self.at;
        if burns && !self.after {
            return lost();
        }
        let answer = call.await;
        if burns { lost() } else { answer }
    }
}

/// A port behind a [`Fuse`].
#[derive(Clone, Debug)]
pub struct Fragile<P> {
    port: P,
    fuse: Fuse,
}

impl<P: Database> Database for Fragile<P> {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        self.fuse.through(self.port.call(function, parameters)).await
    }
}

impl<P: ObjectStore> ObjectStore for Fragile<P> {
    async fn head(&self, key: &ObjectKey, version: &VersionId) -> Result<Head, Fault> {
        self.fuse.through(self.port.head(key, version)).await
    }

    async fn newest(&self, key: &ObjectKey) -> Result<Option<VersionId>, Fault> {
        self.fuse.through(self.port.newest(key)).await
    }

    async fn hash(&self, key: &ObjectKey, version: &VersionId) -> Result<Option<Sha256Digest>, Fault> {
        self.fuse.through(self.port.hash(key, version)).await
    }

    async fn start(&self, key: &ObjectKey, version: &VersionId, longest: u32) -> Result<Option<Vec<u8>>, Fault> {
        self.fuse.through(self.port.start(key, version, longest)).await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), Fault> {
        self.fuse.through(self.port.abort(key, upload)).await
    }

    async fn delete(&self, key: &ObjectKey, version: &VersionId) -> Result<(), Fault> {
        self.fuse.through(self.port.delete(key, version)).await
    }
}

impl<P: SignerSessions> SignerSessions for Fragile<P> {
    async fn session(&self, key: &ObjectKey) -> Result<SignerSession, Fault> {
        self.fuse.through(self.port.session(key)).await
    }
}

impl<P: PartStore> PartStore for Fragile<P> {
    async fn begin(&self, session: &SignerSession, key: &ObjectKey, kind: ContentType) -> Result<UploadId, Fault> {
        self.fuse.through(self.port.begin(session, key, kind)).await
    }

    async fn parts(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Option<Vec<HeldPart>>, Fault> {
        self.fuse.through(self.port.parts(session, key, upload)).await
    }

    async fn complete(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[HeldPart],
    ) -> Result<Completion, Fault> {
        self.fuse.through(self.port.complete(session, key, upload, parts)).await
    }

    async fn abort(&self, session: &SignerSession, key: &ObjectKey, upload: &UploadId) -> Result<(), Fault> {
        self.fuse.through(self.port.abort(session, key, upload)).await
    }
}

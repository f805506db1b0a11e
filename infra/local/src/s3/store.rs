//! Objects: every write is a new, immutable version with an id of its own, as in a versioned bucket.
//!
//! Bodies are spooled to a file first; a version exists from the moment its entry is in the index, and the condition of a
//! conditional write is judged under the same lock that inserts it, so of any number of writers one wins.

use std::collections::{BTreeMap, VecDeque};
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures::Stream;
use futures::stream::try_unfold;
use s3s::dto::Checksum;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::lifecycle::Rule;
use crate::account::letters;

/// What a client declares about an object and gets back on every read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) expires: Option<s3s::dto::Timestamp>,
    pub(crate) metadata: Option<s3s::dto::Metadata>,
    pub(crate) encryption: Encryption,
    pub(crate) checksum: Checksum,
}

/// The server-side encryption of a version, as it is echoed; bytes at rest are not encrypted here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// SSE-S3, what AWS applies to every object of a bucket without another default.
    #[default]
    Managed,
    /// SSE-KMS under the key with this ARN.
    Kms { key_arn: String, bucket_key: bool },
}

/// One version of one key, or the marker that a delete without a version id leaves behind.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) modified: SystemTime,
    pub(crate) content: Content,
}

/// What a version holds.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    DeleteMarker,
    Object(Arc<Object>),
}

/// The bytes (in files, one after the other) and attributes of a version.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) attributes: Attributes,
    pieces: Vec<Arc<Spooled>>,
}

/// As much of an object as is in memory at once, for one reader.
const STEP: u64 = 256 * 1024;

impl Object {
    /// The whole body, for the small objects of the stack's owner.
    pub(crate) async fn read(&self) -> std::io::Result<Bytes> {
        let mut whole = Vec::new();
        for piece in &self.pieces {
            File::open(&piece.file).await?.read_to_end(&mut whole).await?;
        }
        Ok(Bytes::from(whole))
    }

    /// The bytes from `start` to before `end`, read as they are asked for. A version that is deleted meanwhile is read to its end.
    pub(crate) fn stream(self: &Arc<Self>, start: u64, end: u64) -> impl Stream<Item = std::io::Result<Bytes>> + use<> {
        let mut rest = VecDeque::new();
        let mut at = 0;
        for (place, piece) in self.pieces.iter().enumerate() {
            let (from, to) = (start.max(at), end.min(at + piece.size));
            if from < to {
                rest.push_back((place, from - at, to - from));
            }
            at += piece.size;
        }
        let reading = Reading { object: Arc::clone(self), rest, open: None };
        try_unfold(reading, |mut reading| async move {
            loop {
                match &mut reading.open {
                    Some((file, left)) if *left > 0 => {
                        let length = usize::try_from(STEP.min(*left)).map_err(std::io::Error::other)?;
                        let mut bytes = vec![0; length];
                        file.read_exact(&mut bytes).await?;
                        *left -= bytes.len() as u64;
                        return Ok(Some((Bytes::from(bytes), reading)));
                    }
                    _ => {
                        let Some((place, from, length)) = reading.rest.pop_front() else { return Ok(None) };
                        let piece = reading.object.pieces.get(place).ok_or(std::io::ErrorKind::NotFound)?;
                        let mut file = File::open(&piece.file).await?;
                        file.seek(SeekFrom::Start(from)).await?;
                        reading.open = Some((file, length));
                    }
                }
            }
        })
    }
}

/// One reader of an object: which pieces are still to come, from where and how much; the file that is open, and what is left in it.
struct Reading {
    object: Arc<Object>,
    rest: VecDeque<(usize, u64, u64)>,
    open: Option<(File, u64)>,
}

/// The precondition of a write, judged against the current version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    Always,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: "etag"`
    Matches(String),
}

/// How a commit ended.
#[derive(Debug)]
pub(crate) enum Committed {
    Stored {
        sequencer: String,
    },
    /// The condition with this header name did not hold.
    PreconditionFailed(&'static str),
    /// `If-Match` on a key that has no current object.
    NoSuchKey,
}

/// How a read ended.
#[derive(Debug)]
pub(crate) enum Found {
    Object {
        version: Version,
        object: Arc<Object>,
    },
    Missing,
    /// The current version, or the named one, is a delete marker.
    DeleteMarker(Version),
    NoSuchVersion,
}

/// Bytes on disk. Nobody reads them before they are committed; the last who holds them removes them.
#[derive(Debug)]
pub(crate) struct Spooled {
    pub(crate) version_id: String,
    pub(crate) size: u64,
    file: PathBuf,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// What a version is to be made of.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) version_id: String,
    pieces: Vec<Arc<Spooled>>,
}

impl From<Spooled> for Body {
    fn from(spooled: Spooled) -> Body {
        Body { version_id: spooled.version_id.clone(), pieces: vec![Arc::new(spooled)] }
    }
}

impl From<Vec<Arc<Spooled>>> for Body {
    fn from(pieces: Vec<Arc<Spooled>>) -> Body {
        Body { version_id: version_id(), pieces }
    }
}

impl Body {
    pub(crate) fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }
}

type Versions = BTreeMap<String, Vec<Version>>;

/// All buckets of one stand-in.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    created: SystemTime,
    buckets: BTreeMap<String, Mutex<Versions>>,
    sequence: AtomicU64,
}

impl Store {
    /// A store whose bodies live in files under `root`; the buckets are fixed from the start.
    pub(crate) fn new(root: PathBuf, buckets: Vec<String>, created: SystemTime) -> Store {
        let buckets = buckets.into_iter().map(|name| (name, Mutex::new(Versions::new()))).collect();
        Store { root, created, buckets, sequence: AtomicU64::new(1) }
    }

    pub(crate) fn has(&self, bucket: &str) -> bool {
        self.buckets.contains_key(bucket)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.buckets.keys().cloned().collect()
    }

    pub(crate) fn created(&self) -> SystemTime {
        self.created
    }

    /// Writes a body where nobody sees it, under the id its version will have.
    pub(crate) async fn spool(&self, body: Bytes) -> std::io::Result<Spooled> {
        tokio::fs::create_dir_all(&self.root).await?;
        let version_id = version_id();
        let file = self.root.join(&version_id);
        let spooled = Spooled { version_id, size: body.len() as u64, file };
        tokio::fs::write(&spooled.file, &body).await?;
        Ok(spooled)
    }

    /// Makes a body the current version of `key` if `condition` holds at this instant.
    pub(crate) fn commit(
        &self,
        bucket: &str,
        key: &str,
        body: Body,
        description: (String, Attributes),
        condition: &WriteCondition,
        now: SystemTime,
    ) -> Committed {
        let Some(mut keys) = self.lock(bucket) else { return Committed::NoSuchKey };
        let current = keys.get(key).and_then(|versions| versions.last()).and_then(|version| match &version.content {
            Content::Object(object) => Some(object.etag.as_str()),
            Content::DeleteMarker => None,
        });
        match (condition, current) {
            (WriteCondition::Absent, Some(_)) => return Committed::PreconditionFailed("If-None-Match"),
            (WriteCondition::Matches(_), None) => return Committed::NoSuchKey,
            (WriteCondition::Matches(wanted), Some(etag)) if wanted != etag => {
                return Committed::PreconditionFailed("If-Match");
            }
            _ => {}
        }
        let (etag, attributes) = description;
        let object = Arc::new(Object { size: body.size(), etag, attributes, pieces: body.pieces });
        let version = Version { id: body.version_id, modified: now, content: Content::Object(object) };
        keys.entry(key.to_owned()).or_default().push(version);
        let sequencer = format!("{:018X}", self.sequence.fetch_add(1, Ordering::Relaxed));
        Committed::Stored { sequencer }
    }

    /// The current version of a key, or the one named.
    pub(crate) fn find(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Found {
        let Some(keys) = self.lock(bucket) else { return Found::Missing };
        let versions = keys.get(key);
        let version = match version_id {
            None => versions.and_then(|versions| versions.last()),
            Some(id) => match versions.and_then(|versions| versions.iter().find(|version| version.id == id)) {
                Some(version) => Some(version),
                None => return Found::NoSuchVersion,
            },
        };
        match version {
            None => Found::Missing,
            Some(version) => match &version.content {
                Content::Object(object) => Found::Object { version: version.clone(), object: Arc::clone(object) },
                Content::DeleteMarker => Found::DeleteMarker(version.clone()),
            },
        }
    }

    /// Deletes as a versioned bucket does: without a version id a marker becomes current, with one that version is gone
    /// for good. Returns the id concerned and whether it is a marker; deleting what does not exist succeeds.
    pub(crate) fn delete(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
        now: SystemTime,
    ) -> Option<(String, bool)> {
        let mut keys = self.lock(bucket)?;
        let Some(wanted) = version_id else {
            let marker = Version { id: self::version_id(), modified: now, content: Content::DeleteMarker };
            let id = marker.id.clone();
            keys.entry(key.to_owned()).or_default().push(marker);
            return Some((id, true));
        };
        let versions = keys.get_mut(key)?;
        let position = versions.iter().position(|version| version.id == wanted)?;
        let removed = versions.remove(position);
        if versions.is_empty() {
            keys.remove(key);
        }
        let marker = matches!(removed.content, Content::DeleteMarker);
        Some((removed.id, marker))
    }

    /// Does what these rules of a bucket say has to be done by now.
    pub(crate) fn follow(&self, bucket: &str, rules: &[Rule], now: SystemTime) {
        let Some(mut keys) = self.lock(bucket) else { return };
        keys.retain(|key, versions| {
            if let Some(Version { modified, content: Content::Object(_), .. }) = versions.last() {
                let ended = rules.iter().filter_map(|rule| rule.expires(key, *modified)).min();
                if let Some(ended) = ended.filter(|ended| *ended <= now) {
                    versions.push(Version { id: version_id(), modified: ended, content: Content::DeleteMarker });
                }
            }
            let replaced: Vec<SystemTime> = versions.iter().skip(1).map(|version| version.modified).collect();
            let mut at = 0;
            versions.retain(|_| {
                let (newer, since) = (replaced.len().saturating_sub(at + 1), replaced.get(at).copied());
                at += 1;
                !since.is_some_and(|since| rules.iter().any(|rule| rule.former_is_over(key, since, newer, now)))
            });
            match versions.as_slice() {
                [] => false,
                [Version { modified, content: Content::DeleteMarker, .. }] => {
                    !rules.iter().any(|rule| rule.marker_is_over(key, *modified, now))
                }
                _ => true,
            }
        });
    }

    /// Every current object whose key starts with `prefix`, in the order of the keys' bytes.
    pub(crate) fn list(&self, bucket: &str, prefix: &str) -> Vec<(String, SystemTime, Arc<Object>)> {
        let Some(keys) = self.lock(bucket) else { return Vec::new() };
        keys.range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, versions)| match versions.last() {
                Some(Version { modified, content: Content::Object(object), .. }) => {
                    Some((key.clone(), *modified, Arc::clone(object)))
                }
                _ => None,
            })
            .collect()
    }

    // A writer that panicked left the index as it was before its push: what it holds is whole.
    fn lock(&self, bucket: &str) -> Option<MutexGuard<'_, Versions>> {
        self.buckets.get(bucket).map(|keys| keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// 32 characters like the version ids of AWS: opaque, no order to be read from them.
fn version_id() -> String {
    letters(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(root: &tempfile::TempDir) -> Store {
        Store::new(root.path().join("objects"), vec!["b".to_owned()], SystemTime::UNIX_EPOCH)
    }

    async fn put(store: &Store, key: &str, body: &'static [u8], condition: &WriteCondition) -> Committed {
        let spooled = store.spool(Bytes::from_static(body)).await.unwrap();
        let description = (format!("etag-{}", String::from_utf8_lossy(body)), Attributes::default());
        store.commit("b", key, spooled.into(), description, condition, SystemTime::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_condition_that_fails_leaves_neither_a_version_nor_a_file() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        assert!(matches!(put(&store, "k", b"1", &WriteCondition::Absent).await, Committed::Stored { .. }));
        for condition in [WriteCondition::Absent, WriteCondition::Matches("etag-2".to_owned())] {
            assert!(matches!(put(&store, "k", b"2", &condition).await, Committed::PreconditionFailed(_)));
        }
        let missing = put(&store, "other", b"2", &WriteCondition::Matches("etag-1".to_owned())).await;
        assert!(matches!(missing, Committed::NoSuchKey));
        assert_eq!(std::fs::read_dir(root.path().join("objects")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn versions_outlive_an_overwrite_and_a_delete_and_die_only_by_id() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        put(&store, "k", b"1", &WriteCondition::Always).await;
        let Found::Object { version: first, .. } = store.find("b", "k", None) else { panic!("no object") };
        put(&store, "k", b"2", &WriteCondition::Matches("etag-1".to_owned())).await;
        let Found::Object { object, .. } = store.find("b", "k", Some(&first.id)) else { panic!("no first version") };
        assert_eq!(object.read().await.unwrap(), "1");

        let (marker, is_marker) = store.delete("b", "k", None, SystemTime::UNIX_EPOCH).unwrap();
        assert!(is_marker);
        assert!(matches!(store.find("b", "k", None), Found::DeleteMarker(_)));
        assert!(matches!(put(&store, "k", b"3", &WriteCondition::Absent).await, Committed::Stored { .. }));

        assert_eq!(store.delete("b", "k", Some(&first.id), SystemTime::UNIX_EPOCH), Some((first.id.clone(), false)));
        assert!(matches!(store.find("b", "k", Some(&first.id)), Found::NoSuchVersion));
        assert_eq!(store.delete("b", "k", Some(&marker), SystemTime::UNIX_EPOCH), Some((marker, true)));
        assert_eq!(store.delete("b", "k", Some("unknown"), SystemTime::UNIX_EPOCH), None);
    }

    #[tokio::test]
    async fn an_object_of_pieces_is_read_from_anywhere_to_anywhere_also_while_it_is_deleted() {
        use futures::TryStreamExt as _;
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let mut pieces = Vec::new();
        for piece in [&b"hello "[..], b"", b"wor", b"ld"] {
            pieces.push(Arc::new(store.spool(Bytes::copy_from_slice(piece)).await.unwrap()));
        }
        let description = ("etag".to_owned(), Attributes::default());
        store.commit("b", "k", pieces.into(), description, &WriteCondition::Absent, SystemTime::UNIX_EPOCH);
        let Found::Object { version, object } = store.find("b", "k", None) else { panic!("no object") };
        assert_eq!((object.size, object.read().await.unwrap()), (11, Bytes::from_static(b"hello world")));
        let read = async |start: usize, end: usize| {
            let found: Vec<Bytes> = object.stream(start as u64, end as u64).try_collect().await.unwrap();
            found.concat()
        };
        for start in 0..=11 {
            for end in start..=11 {
                assert_eq!(read(start, end).await, &b"hello world"[start..end], "{start} to {end}");
            }
        }
        let reader = object.stream(0, 11);
        drop(object);
        store.delete("b", "k", Some(&version.id), SystemTime::UNIX_EPOCH).unwrap();
        drop(version);
        assert_eq!(reader.try_collect::<Vec<Bytes>>().await.unwrap().concat(), b"hello world");
        assert_eq!(std::fs::read_dir(root.path().join("objects")).unwrap().count(), 0, "the last reader is gone");
    }

    #[tokio::test]
    async fn keys_are_strings_and_not_paths() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        for key in ["a", "a/b", "a/../b", "../../etc/passwd", &"x".repeat(1024)] {
            assert!(matches!(put(&store, key, b"1", &WriteCondition::Absent).await, Committed::Stored { .. }), "{key}");
        }
        assert_eq!(store.list("b", "a/").len(), 2);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }
}

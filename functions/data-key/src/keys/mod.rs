//! Data keys in memory: from whom they come, how long they stay, and when KMS may be asked at all.

mod index;
mod messages;
mod reader;
mod writer;

pub(crate) use index::{IndexKeys, Indexing};
pub(crate) use messages::Wrapped;
pub(crate) use reader::{Opening, ReaderKeys};
pub(crate) use writer::{FOR_MOVERS, FOR_WRITERS, Sealing, WriterKeys};

use std::sync::{Arc, Mutex, PoisonError};

use shared::audit::Line;
use shared::clock::{Clock, Timestamp};
use shared::digest::sha256;
use shared::encoding::from_hex;
use shared::entropy::Entropy;
use shared::name::Tenant;
use shared::pc1::DataKey;
use shared::port::{Database, Fault, FaultKind, KeyContext, KeyWrapping};
use uuid::Uuid;

use crate::cache::Cache;
use crate::refusal::Refusal;

/// The most keys in memory, of all tenants together; where there is no room, the tenant that holds the most makes it.
pub(crate) const MAX_CACHED: usize = 1_000;
/// Seconds that a key stays in memory.
pub(crate) const KEY_LIFE: i64 = 300;
/// Seconds for which a denial by KMS stands without another call.
pub(crate) const DENIAL_LIFE: i64 = 30;
/// The most data keys of one batch.
pub(crate) const MAX_KEYS: usize = 256;
/// The most calls to KMS at once.
pub(crate) const PARALLEL: usize = 32;
/// Milliseconds that must be left for a call to KMS.
pub(crate) const LEAST_TIME: i64 = 500;

/// Why no key came: for the items that wait for it, or for everybody.
pub(crate) enum Failed {
    Refused(Refusal),
    Fault(Fault),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The keys of the deployment that moves records: it opens and seals, with one memory of what KMS unwrapped.
pub(crate) struct Mover<W, D, C, E> {
    pub(crate) kms: Arc<Kms<W>>,
    pub(crate) clock: C,
    pub(crate) reader: ReaderKeys<W, D, C>,
    pub(crate) writer: WriterKeys<W, D, C, E>,
}

impl<W: KeyWrapping, D: Database, C: Clock, E: Entropy> Mover<W, D, C, E> {
    /// Lets go of every key whose time has come.
    pub(crate) fn sweep(&self, now: Timestamp) {
        self.reader.sweep(now);
        self.writer.sweep(now);
    }
}

/// KMS behind the rules that hold for every call to it, and what it answered while that may stay in memory.
pub(crate) struct Kms<W> {
    pub(crate) wrapping: W,
    pub(crate) key_arn: String,
    denials: Mutex<Cache<(Tenant, String), ()>>,
    unwrapped: Mutex<Cache<(KeyContext, [u8; 32]), Kept>>,
}

/// A key in memory, and until when it may stay there, whoever holds it.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) key: Arc<DataKey>,
    pub(crate) until: Timestamp,
}

impl<W: KeyWrapping> Kms<W> {
    pub(crate) fn new(wrapping: W, key_arn: String) -> Self {
        let (denials, unwrapped) = (Mutex::new(Cache::new(MAX_CACHED)), Mutex::new(Cache::new(MAX_CACHED)));
        Self { wrapping, key_arn, denials, unwrapped }
    }

    /// Whether a call about `subject` may be started now.
    fn permits(&self, tenant: &Tenant, subject: &str, now: Timestamp, deadline: Timestamp) -> Result<(), Refusal> {
        if deadline.millis_since(now) < LEAST_TIME {
            return Err(Refusal::Deadline);
        }
        let denied = locked(&self.denials).find(&(tenant.clone(), subject.to_owned()), now).is_some();
        if denied { Err(Refusal::KmsDenied) } else { Ok(()) }
    }

    /// What a failed call means; denials are remembered, whatever may pass by itself is not.
    fn refused(&self, tenant: &Tenant, subject: &str, now: Timestamp, fault: &Fault) -> Refusal {
        Line::new("data-key", "kms").text("tenant", tenant.as_str()).text("key", subject).fault(fault).emit();
        let refusal = Refusal::from(fault);
        if refusal == Refusal::KmsDenied {
            let until = now.plus_seconds(DENIAL_LIFE);
            locked(&self.denials).hold((tenant.clone(), subject.to_owned()), (), now, until);
        }
        refusal
    }

    /// Unwraps a key of the row's `kms_key_arn`, which must be ours. What two ways lead to costs one call.
    async fn unwrap(
        &self,
        context: &KeyContext,
        row_arn: &str,
        wrapped: &[u8],
        now: Timestamp,
        deadline: Timestamp,
    ) -> Result<Kept, Refusal> {
        if row_arn != self.key_arn {
            return Err(Refusal::ForeignKmsKey);
        }
        let known = (context.clone(), sha256(wrapped));
        {
            let mut unwrapped = locked(&self.unwrapped);
            unwrapped.sweep(now);
            if let Some(kept) = unwrapped.find(&known, now) {
                return Ok(kept.clone());
            }
        }
        let subject = context.data_key_id.to_string();
        self.permits(&context.tenant, &subject, now, deadline)?;
        match self.wrapping.unwrap(context, wrapped).await {
            Ok(answer) => {
                let key = DataKey::parse(answer.plaintext.expose()).map_err(|_| Refusal::KeyRefused)?;
                Ok(self.keep(known, key, now))
            }
            Err(fault) => Err(self.refused(&context.tenant, &subject, now, &fault)),
        }
    }

    /// Lets go of every key whose time has come.
    fn sweep(&self, now: Timestamp) {
        locked(&self.unwrapped).sweep(now);
    }

    /// Lets go of a key that was destroyed, whatever wrapping it came from.
    fn forget(&self, context: &KeyContext) {
        locked(&self.unwrapped).forget_all(|(known, _)| known == context);
    }

    /// Keeps a key that was just made or unwrapped.
    fn keep(&self, known: (KeyContext, [u8; 32]), key: DataKey, now: Timestamp) -> Kept {
        let kept = Kept { key: Arc::new(key), until: now.plus_seconds(KEY_LIFE) };
        locked(&self.unwrapped).hold(known, kept.clone(), now, kept.until);
        kept
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What the mutex guards is a cache: after a panic elsewhere it is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn context(tenant: &Tenant, purpose: &'static str, data_key_id: Uuid) -> KeyContext {
    KeyContext { tenant: tenant.clone(), purpose, data_key_id }
}

/// An answer of the database that is not what its function promises.
pub(crate) fn broken(operation: &'static str) -> Fault {
    Fault::new(FaultKind::Invalid, "rds", operation).caused_by("the answer is not of its documented form")
}

pub(crate) fn bytes(operation: &'static str, text: &str) -> Result<Vec<u8>, Fault> {
    from_hex(text).ok_or_else(|| broken(operation))
}

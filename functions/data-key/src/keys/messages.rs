//! Data keys of messages that somebody else wrote, unwrapped by the KMS key that the message names.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use shared::clock::{Clock, Timestamp};
use shared::name::Tenant;
use shared::pc1::DataKey;
use shared::port::{KeyWrapping, MessageKeys};

use super::{Kms, PARALLEL};
use crate::refusal::Refusal;

/// A wrapped data key, as its message has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wrapped {
    pub(crate) key_arn: String,
    /// The whole encryption context of the message.
    pub(crate) context: BTreeMap<String, String>,
    pub(crate) blob: Vec<u8>,
}

impl<W: KeyWrapping + MessageKeys> Kms<W> {
    /// Unwraps each of them once. They are kept for the batch and no longer: two messages seldom have one key.
    pub(crate) async fn open_wrapped<C: Clock>(
        &self,
        tenant: &Tenant,
        wrapped: BTreeSet<Wrapped>,
        clock: &C,
        deadline: Timestamp,
    ) -> BTreeMap<Wrapped, Result<DataKey, Refusal>> {
        let fetches = wrapped.into_iter().map(|wrapped| async move {
            let opened = self.open_one(tenant, &wrapped, clock.now(), deadline).await;
            (wrapped, opened)
        });
        let fetches: Vec<_> = fetches.collect();
        stream::iter(fetches).buffer_unordered(PARALLEL).collect().await
    }

    async fn open_one(
        &self,
        tenant: &Tenant,
        wrapped: &Wrapped,
        now: Timestamp,
        deadline: Timestamp,
    ) -> Result<DataKey, Refusal> {
        self.permits(tenant, &wrapped.key_arn, now, deadline)?;
        match self.wrapping.open(&wrapped.key_arn, &wrapped.context, &wrapped.blob).await {
            Ok(key) => DataKey::parse(key.expose()).map_err(|_| Refusal::KeyRefused),
            Err(fault) => Err(self.refused(tenant, &wrapped.key_arn, now, &fault)),
        }
    }
}

//! The foreign issuers and their keys, as a verifier reads them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Cached, Refusal, Stale};
use crate::clock::Clock;
use crate::federation::{self, IssuerKeys, Workload};
use crate::issuer::{Profile, Profiles};
use crate::jwt::Reason;
use crate::name::IssuerId;
use crate::port::ObjectReader;

/// What a verifier needs to judge assertions of foreign issuers. Nothing is read before the first of them comes.
pub struct Issuers<R, C> {
    reader: R,
    clock: C,
    profiles: Cached<Profiles>,
    keys: Mutex<HashMap<IssuerId, Arc<Cached<IssuerKeys>>>>,
}

impl<R: ObjectReader, C: Clock> Issuers<R, C> {
    /// Read through `reader`.
    pub fn new(reader: R, clock: C) -> Self {
        Self { reader, clock, profiles: Cached::default(), keys: Mutex::default() }
    }

    /// Verifies a workload's assertion for `audience` as one of `issuer` ([`federation::claimed`]).
    ///
    /// A key that is not known makes the issuer's keys be read again, at most every half minute.
    pub async fn workload(&self, token: &str, issuer: &str, audience: &str) -> Result<Workload, Refusal> {
        let profiles = self.profiles.current(&self.reader, &self.clock).await.map_err(Refusal::Stale)?;
        let profile = profiles.of_workload(issuer).ok_or(Refusal::Credential(Reason::WrongIssuer))?;
        let verify = |keys: &IssuerKeys| federation::verify(token, profile, keys, audience, self.clock.now());
        let keys = self.keys(profile, false).await.map_err(Refusal::Stale)?;
        let verified = match verify(&keys) {
            Err(Reason::UnknownKey) => verify(&*self.keys(profile, true).await.map_err(Refusal::Stale)?),
            verified => verified,
        };
        verified.map_err(Refusal::Credential)
    }

    async fn keys(&self, profile: &Profile, early: bool) -> Result<Arc<IssuerKeys>, Stale> {
        let cached = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(keys.entry(profile.id().clone()).or_default())
        };
        cached.at(&profile.id().object_key(), &self.reader, &self.clock, early).await
    }
}

//! What a verifier needs to judge an assertion of a foreign issuer: the profiles, and the issuer's mirrored keys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::{Cached, Refusal, TrustObject};
use crate::access::{self, Assertion};
use crate::clock::{Clock, Timestamp};
use crate::issuer::{ALGORITHMS, Profile, Profiles};
use crate::jwks::KeySet;
use crate::jwt::Reason;
use crate::name::Malformed;
use crate::port::ObjectReader;

/// `trust/issuers/{id}.json`: the public keys of one foreign issuer, as `issuer-keys` mirrored them. They serve until the
/// object's own end.
#[derive(Clone, Debug)]
pub struct IssuerKeys(pub KeySet);

impl TrustObject for IssuerKeys {
    const KEY: &'static str = "trust/issuers/";
    const FRESH: i64 = 60_000;
    const LAST_GOOD: i64 = i64::MAX;

    /// The mirror spells the algorithm of every key out, so that the set can be read before its profile is.
    fn parse(body: &Value) -> Result<Self, Malformed> {
        KeySet::parse(body, &ALGORITHMS).map(Self)
    }
}

/// Foreign issuers, read through `reader` and kept.
pub struct Foreign<R, C> {
    reader: R,
    clock: C,
    profiles: Cached<Profiles>,
    keys: Mutex<BTreeMap<String, Arc<Cached<IssuerKeys>>>>,
}

impl<R: ObjectReader, C: Clock> Foreign<R, C> {
    /// Nothing is read yet.
    pub fn new(reader: R, clock: C) -> Self {
        Self { reader, clock, profiles: Cached::default(), keys: Mutex::default() }
    }

    /// The clock that decisions use.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The profiles of all foreign issuers.
    pub async fn profiles(&self) -> Result<Arc<Profiles>, Refusal> {
        self.profiles.current(&self.reader, &self.clock).await.map_err(Refusal::Stale)
    }

    /// The keys of one of them. `profile` is one that [`Foreign::profiles`] answered, so that nobody chooses what is read.
    pub async fn keys(&self, profile: &Profile) -> Result<Arc<IssuerKeys>, Refusal> {
        let kept = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(keys.entry(profile.id().as_str().to_owned()).or_default())
        };
        let current = kept.current_at(&profile.id().object_key(), &self.reader, &self.clock).await;
        current.map_err(Refusal::Stale)
    }

    /// Verifies an assertion of Cloudflare Access, under the profile of its own issuer and application.
    pub async fn access(&self, assertion: &str) -> Result<Assertion, Refusal> {
        let flawed = |flaw| Refusal::Credential(Reason::Assertion(flaw));
        let profiles = self.profiles().await?;
        let profile = access::profile_of(assertion, &profiles).map_err(flawed)?;
        let keys = self.keys(profile).await?;
        access::verify(assertion, profile, &keys.0, self.clock.now()).map_err(flawed)
    }
}

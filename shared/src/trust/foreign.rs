//! What a verifier needs to judge an assertion of a foreign issuer: the profiles, and the issuer's mirrored keys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::{Cached, Refusal, TrustObject};
use crate::access::{self, Assertion, Flaw};
use crate::clock::{Clock, Timestamp};
use crate::federation::{self, Workload};
use crate::issuer::{ALGORITHMS, Profile, Profiles};
use crate::jwks::{KeySet, Usage};
use crate::jwt::Reason;
use crate::name::Malformed;
use crate::port::ObjectReader;

/// `trust/issuers/{id}.json`: the public keys of one foreign issuer, as `issuer-keys` mirrored them. They serve until the
/// object's own end.
#[derive(Clone, Debug)]
pub struct IssuerKeys {
    keys: KeySet,
    usage: Usage,
}

static NONE: KeySet = KeySet::none();

impl IssuerKeys {
    /// The keys that are for `usage`. The mirror writes keys of one use only: where another kind of issuer had this name before, none.
    pub fn of(&self, usage: Usage) -> &KeySet {
        if self.usage == usage { &self.keys } else { &NONE }
    }
}

impl TrustObject for IssuerKeys {
    const KEY: &'static str = "trust/issuers/";
    const FRESH: i64 = 60_000;
    const LAST_GOOD: i64 = i64::MAX;

    /// The mirror spells the algorithm of every key out, so that the set can be read before its profile is.
    fn parse(body: &Value) -> Result<Self, Malformed> {
        let read = |usage| KeySet::parse_for(body, &ALGORITHMS, usage).map(|keys| Self { keys, usage });
        read(Usage::Signature).or_else(|_| read(Usage::JwtSvid))
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
    ///
    /// `early`: a key was not found among them, so that they are read again before that is due, at most every half minute.
    pub async fn keys(&self, profile: &Profile, early: bool) -> Result<Arc<IssuerKeys>, Refusal> {
        let kept = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(keys.entry(profile.id().as_str().to_owned()).or_default())
        };
        let current = kept.at(&profile.id().object_key(), &self.reader, &self.clock, early).await;
        current.map_err(Refusal::Stale)
    }

    /// Verifies an assertion of Cloudflare Access, under the profile of its own issuer and application.
    pub async fn access(&self, assertion: &str) -> Result<Assertion, Refusal> {
        let flawed = |flaw| Refusal::Credential(Reason::Assertion(flaw));
        let profiles = self.profiles().await?;
        let profile = access::profile_of(assertion, &profiles).map_err(flawed)?;
        let verify =
            |keys: &IssuerKeys| access::verify(assertion, profile, keys.of(Usage::Signature), self.clock.now());
        let mut verified = verify(&*self.keys(profile, false).await?);
        if verified == Err(Flaw::UnknownKey) {
            verified = verify(&*self.keys(profile, true).await?);
        }
        verified.map_err(flawed)
    }

    /// Verifies a workload's assertion for `audience`, our issuer URL, as one of `issuer` ([`federation::claimed`]).
    pub async fn workload(&self, assertion: &str, issuer: &str, audience: &str) -> Result<Workload, Refusal> {
        let profiles = self.profiles().await?;
        let profile = profiles.of_workload(issuer).ok_or(Refusal::Credential(Reason::WrongIssuer))?;
        let verify = |keys: &IssuerKeys| federation::verify(assertion, profile, keys, audience, self.clock.now());
        let mut verified = verify(&*self.keys(profile, false).await?);
        if verified == Err(Reason::UnknownKey) {
            verified = verify(&*self.keys(profile, true).await?);
        }
        verified.map_err(Refusal::Credential)
    }
}

#[cfg(test)]
mod tests;

//! Trust objects: small public objects in S3 that verifiers read and keep, with a limit on how old they may be.
//!
//! A frozen sandbox wakes with old data and has no background, so freshness is judged before deciding: what is due is read
//! again within one short window, what cannot be read serves as last good for its declared time, and past that nobody passes.

mod cached;
mod foreign;
mod objects;
pub mod posture;
mod revocations;
mod verified;

pub use cached::{Cached, Stale};
pub use foreign::{Foreign, IssuerKeys};
pub use objects::{KeyState, Making, OwnKeys, SigningKey, SigningState};
pub use posture::Posture;
pub use revocations::{Revocations, Revoked};

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{Clock, Timestamp};
use crate::json;
use crate::jwt::{self, AccessToken, Reason, Signed};
use crate::name::Malformed;
use crate::port::ObjectReader;
use verified::Verified;

/// The largest trust object that is read, in bytes.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What every trust object is wrapped in. Times are milliseconds since the epoch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Rises with every publication; a lower one than held is refused.
    pub version: i64,
    /// When it was published.
    pub issued_at: i64,
    /// Past this moment it must not be used.
    pub not_after: i64,
    /// The object itself.
    pub body: Value,
}

impl Envelope {
    /// Reads an envelope; duplicate members at any depth are refused.
    pub fn open(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_BYTES {
            return Err(Malformed("trust object"));
        }
        let object = json::object(bytes, 16)?;
        serde_json::from_value(Value::Object(object)).map_err(|_| Malformed("trust object"))
    }

    /// The envelope's bytes.
    pub fn seal(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A kind of trust object: where it lies, how often it is read again, how long it serves unread, and its body.
pub trait TrustObject: Sized + Send + Sync + 'static {
    /// The key in the trust bucket.
    const KEY: &'static str;
    /// Milliseconds after which it is read again.
    const FRESH: i64;
    /// Milliseconds since the last successful read after which it must not serve.
    const LAST_GOOD: i64;

    /// Reads the body.
    fn parse(body: &Value) -> Result<Self, Malformed>;

    /// Reads the body that replaces this one. What of it is the same already may be kept.
    fn follow(&self, body: &Value) -> Result<Self, Malformed> {
        let _ = self;
        Self::parse(body)
    }
}

/// What a verifier needs to judge a token of our own issuer.
pub struct Trust<R, C> {
    reader: R,
    clock: C,
    keys: Cached<OwnKeys>,
    revocations: Cached<Revocations>,
    verified: Verified,
}

/// The issuer and audience that a verifier accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepts {
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audience: String,
}

/// A token that was admitted: verified, alive and not revoked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admitted(Arc<Signed>);

impl Deref for Admitted {
    type Target = AccessToken;

    fn deref(&self) -> &AccessToken {
        &self.0.token
    }
}

/// Why a token was not admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The credential is at fault.
    Credential(Reason),
    /// Nobody can be judged: the trust data is too old or was never loaded.
    Stale(Stale),
}

impl Refusal {
    /// The stable name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credential(reason) => reason.as_str(),
            Self::Stale(_) => "trust_stale",
        }
    }
}

impl<R: ObjectReader, C: Clock> Trust<R, C> {
    /// Trust data read through `reader`; nothing is read yet.
    pub fn new(reader: R, clock: C) -> Self {
        let (keys, revocations) = (Cached::default(), Cached::default());
        Self { reader, clock, keys, revocations, verified: Verified::new() }
    }

    /// The clock that decisions use.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Another trust object, read through the same reader.
    pub async fn object<T: TrustObject>(&self, kept: &Cached<T>) -> Result<Arc<T>, Stale> {
        kept.current(&self.reader, &self.clock).await
    }

    /// Verifies an access token: signature and claims under our own keys, then revocations at most 5 s old when S3 answers.
    ///
    /// Of a token that was verified before, signature and claims are remembered for as long as its key is among ours.
    pub async fn admit(&self, token: &str, accepts: &Accepts) -> Result<Admitted, Refusal> {
        let (keys, revocations) = self.current().await.map_err(Refusal::Stale)?;
        let signed = self.verified.token(token, accepts, &keys.0, self.clock.now()).map_err(Refusal::Credential)?;
        if revocations.hits(&signed.token) {
            return Err(Refusal::Credential(Reason::Revoked));
        }
        Ok(Admitted(signed))
    }

    /// Verifies that an access token is ours and alive, whatever has been revoked. It admits nobody: it is for ending a
    /// token, which must work while revocations cannot be read.
    pub async fn genuine(&self, token: &str, accepts: &Accepts) -> Result<AccessToken, Refusal> {
        let keys = self.keys.current(&self.reader, &self.clock).await.map_err(Refusal::Stale)?;
        jwt::access_token(token, &accepts.issuer, &accepts.audience, &keys.0, self.clock.now())
            .map_err(Refusal::Credential)
    }

    async fn current(&self) -> Result<(Arc<OwnKeys>, Arc<Revocations>), Stale> {
        let (keys, revocations) = tokio::join!(
            self.keys.current(&self.reader, &self.clock),
            self.revocations.current(&self.reader, &self.clock)
        );
        Ok((keys?, revocations?))
    }
}

#[cfg(test)]
mod tests;

//! Binding a token to a key of the client (RFC 9449 §5): the proof, the nonce that ties it to the moment, and when it is demanded.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use shared::clock::Timestamp;
use shared::dpop::nonce::{NonceKey, is_good};
use shared::dpop::{self, Expected, Flaw, Proof, Target, Window};
use shared::encoding::from_hex;
use shared::entropy::Entropy;
use shared::http::Request;
use shared::port::{Database, Fault, FaultKind, Parameter};

use crate::client::Client;
use crate::oauth::Error;
use crate::refused::{Refused, refused};

const OPERATION: &str = "api.nonce_keys";
/// How long the keys of nonces are kept in memory, in seconds. They change once a day, and the former one stays good.
const KEPT: i64 = 3600;

/// Judges the proofs that come to the token endpoint.
pub(crate) struct Bindings {
    target: Option<Target>,
    keys: Mutex<Option<Held>>,
}

/// The keys of nonces as they were read, newest first, and when the next one is due.
struct Held {
    read: Timestamp,
    until: Timestamp,
    keys: Vec<NonceKey>,
}

impl Bindings {
    /// For the token endpoint of `issuer`. Nothing is read yet.
    pub(crate) fn new(issuer: &str) -> Self {
        Self { target: Target::new(issuer, "/oauth2/token").ok(), keys: Mutex::new(None) }
    }

    /// The proof that the token is to be bound to; `None` where the client sent none and need not. Consumes nothing.
    ///
    /// A proof without a good nonce is answered with a nonce, after everything else about it has held.
    pub(crate) async fn proof<D: Database, E: Entropy>(
        &self,
        (database, entropy): (&D, &E),
        request: &Request,
        client: &Client,
        now: Timestamp,
    ) -> Result<Option<Proof>, Refused> {
        let flawed = |flaw: Flaw| refused(Error::INVALID_DPOP_PROOF, flaw.as_str()).of(client);
        let Some(proof) = dpop::header(&request.headers).map_err(flawed)? else {
            return if client.dpop { Err(flawed(Flaw::Missing)) } else { Ok(None) };
        };
        let target = self.target.as_ref().ok_or_else(|| flawed(Flaw::WrongTarget))?;
        let expected = Expected { method: &request.method, target, token: None, window: Window::Wide };
        let proof = dpop::verify(proof, &expected, now).map_err(flawed)?;
        let keys = self.keys(database, entropy, now).await.map_err(|fault| Refused::from(fault).of(client))?;
        if proof.nonce.as_deref().is_some_and(|nonce| is_good(nonce, &keys, now)) {
            return Ok(Some(proof));
        }
        let reason = if proof.nonce.is_some() { "nonce_not_good" } else { "nonce_missing" };
        let mut refusal = refused(Error::USE_DPOP_NONCE, reason).of(client).settled();
        refusal.nonce = keys.first().map(|key| key.issue(now, entropy));
        Err(refusal)
    }

    /// A nonce for the client's next proof; none where the keys are not in memory.
    pub(crate) fn next<E: Entropy>(&self, entropy: &E, now: Timestamp) -> Option<String> {
        let held = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().and_then(|held| held.keys.first()).map(|key| key.issue(now, entropy))
    }

    async fn keys<D: Database, E: Entropy>(
        &self,
        database: &D,
        entropy: &E,
        now: Timestamp,
    ) -> Result<Vec<NonceKey>, Fault> {
        {
            let held = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            // Beyond `until` others make nonces with a key that is not among these.
            let current = |held: &&Held| (0..KEPT * 1000).contains(&now.millis_since(held.read)) && now < held.until;
            if let Some(held) = held.as_ref().filter(current) {
                return Ok(held.keys.clone());
            }
        }
        let mut candidate = [0; 32];
        entropy.fill(&mut candidate);
        let parameters = vec![Parameter::Bytes(candidate.to_vec()), Parameter::Int(now.millis())];
        let answer = database.call(OPERATION, parameters).await?;
        let held = read(&answer, now).ok_or_else(|| Fault::new(FaultKind::Invalid, "database", OPERATION))?;
        let keys = held.keys.clone();
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(keys)
    }
}

fn read(answer: &Value, now: Timestamp) -> Option<Held> {
    let key = |key: &Value| Some(NonceKey::new(&from_hex(key.as_str()?)?.try_into().ok()?));
    let keys: Vec<_> = answer.get("keys")?.as_array()?.iter().map(key).collect::<Option<_>>()?;
    let until = Timestamp::from_millis(answer.get("until_ms")?.as_i64()?);
    Some(Held { read: now, until, keys }).filter(|held| !held.keys.is_empty())
}

//! Signatures with a private key that is read once and kept in memory.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws::Lazy;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::Builder;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::types::{Parameter, ParameterType};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, default_async_sleep};
use aws_types::SdkConfig;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use shared::entropy::{Entropy, SystemEntropy};
use shared::jwks::Algorithm;
use shared::name::ParameterPath;
use shared::port::{Fault, Signer};
use shared::secret::SecretString;

use crate::fault;
use crate::pair::Pair;
use crate::patience::patiently;

const OPERATION: &str = "GetParameter";
/// How many key pairs are kept: the active one, its predecessor, and room for a switch.
const KEPT: usize = 3;

type Loaded = BoxFuture<'static, Result<Arc<Pair>, Fault>>;

/// Signs with the private key in the parameter that is named at each call, which is read at its first use only.
///
/// However many callers wait for a key, it is read once; a failed read is the answer to all who waited for it, and the next
/// call starts anew. `Debug` shows the path and nothing else.
#[derive(Clone)]
pub struct SsmSigner<E = SystemEntropy> {
    client: Lazy<Client>,
    path: ParameterPath,
    sleep: Option<SharedAsyncSleep>,
    entropy: Arc<E>,
    keys: Arc<Mutex<Keys>>,
}

#[derive(Default)]
struct Keys {
    held: VecDeque<(String, Arc<Pair>)>,
    loading: HashMap<String, WeakShared<Loaded>>,
}

impl SsmSigner {
    /// A signer with the keys under `path`. Nothing is sent before the first signature.
    pub fn new(config: &SdkConfig, path: ParameterPath) -> Self {
        Self::with_entropy(config, path, SystemEntropy)
    }
}

impl<E: Entropy> SsmSigner<E> {
    /// As [`SsmSigner::new`], with another source for the length of pauses.
    pub fn with_entropy(config: &SdkConfig, path: ParameterPath, entropy: E) -> Self {
        // Throttling is expected after many cold starts at once and needs more patience than the SDK's three attempts.
        let sleep = config.sleep_impl().or_else(default_async_sleep);
        let config = config.clone();
        let client =
            Lazy::new(move || Client::from_conf(Builder::from(&config).retry_config(RetryConfig::disabled()).build()));
        Self { client, path, sleep, entropy: Arc::new(entropy), keys: Arc::default() }
    }

    async fn pair(&self, key: &str, algorithm: Algorithm) -> Result<Arc<Pair>, Fault> {
        let loading = {
            let mut keys = lock(&self.keys);
            if let Some((_, pair)) = keys.held.iter().find(|(name, _)| name == key) {
                return Ok(Arc::clone(pair));
            }
            match keys.loading.get(key).and_then(WeakShared::upgrade) {
                Some(loading) => loading,
                None => {
                    let loading = self.load(key, algorithm)?;
                    keys.loading.retain(|_, weak| weak.upgrade().is_some());
                    keys.loading.extend(loading.downgrade().map(|weak| (key.to_owned(), weak)));
                    loading
                }
            }
        };
        loading.await
    }

    /// Reads a parameter and keeps what it holds. Lives as long as anybody waits for it.
    fn load(&self, key: &str, algorithm: Algorithm) -> Result<Shared<Loaded>, Fault> {
        let kid = self.path.kid_of(key).ok_or_else(|| fault::broken(OPERATION, "a key outside of the signing path"))?;
        let (kid, key) = (kid.to_owned(), key.to_owned());
        let (client, sleep) = (self.client.clone(), self.sleep.clone());
        let (entropy, keys) = (Arc::clone(&self.entropy), Arc::clone(&self.keys));
        let loaded: Loaded = async move {
            let parameter = match sleep {
                Some(sleep) => patiently(OPERATION, &sleep, entropy.as_ref(), || read(&client, &key)).await?,
                None => read(&client, &key).await?,
            };
            let text = secure_string(parameter, &key)?;
            let unusable = |_| fault::unusable(OPERATION, "the parameter holds no key of the algorithm");
            let pair = Pair::from_pem(algorithm, text.expose()).map_err(unusable)?;
            if pair.kid().map_err(unusable)? != kid {
                return Err(fault::unusable(OPERATION, "the parameter holds another key than its name says"));
            }
            let pair = Arc::new(pair);
            let mut keys = lock(&keys);
            keys.held.push_front((key, Arc::clone(&pair)));
            keys.held.truncate(KEPT);
            Ok(pair)
        }
        .boxed();
        Ok(loaded.shared())
    }
}

impl<E: Entropy> Signer for SsmSigner<E> {
    async fn sign(&self, key: &str, algorithm: Algorithm, input: &[u8]) -> Result<Vec<u8>, Fault> {
        let pair = self.pair(key, algorithm).await?;
        if pair.algorithm != algorithm {
            return Err(fault::broken("Sign", "the key is for another algorithm"));
        }
        pair.sign(input).map_err(|_| fault::broken("Sign", "the key does not sign"))
    }
}

impl<E> fmt::Debug for SsmSigner<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SsmSigner").field("path", &self.path).finish_non_exhaustive()
    }
}

async fn read(client: &Client, key: &str) -> Result<Parameter, Fault> {
    let answer = client.get_parameter().name(key).with_decryption(true).send().await;
    let answer = answer.map_err(|error| fault::of(OPERATION, true, &error))?;
    answer.parameter.ok_or_else(|| fault::broken(OPERATION, "no parameter"))
}

fn secure_string(parameter: Parameter, key: &str) -> Result<SecretString, Fault> {
    let value = parameter.value.map(SecretString::new).ok_or_else(|| fault::unusable(OPERATION, "no value"))?;
    if parameter.name.as_deref() != Some(key) {
        return Err(fault::unusable(OPERATION, "the answer names another parameter"));
    }
    // A plain String would be readable without any right on the key.
    if parameter.r#type != Some(ParameterType::SecureString) {
        return Err(fault::unusable(OPERATION, "the parameter is no SecureString"));
    }
    Ok(value)
}

fn lock(keys: &Mutex<Keys>) -> MutexGuard<'_, Keys> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! A KMS that really wraps: AES-256-GCM under a key of its own, with the encryption context as additional data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use shared::entropy::{Entropy as _, SystemEntropy};
use shared::port::{
    Fault, FaultKind, Generated, KeyContext, KeyRewrapping, KeyWrapping, MessageKeys, Rewrapped, Unwrapped,
};
use shared::secret::SecretBytes;

/// A call that was made, with the context it named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// `GenerateDataKey`, `Encrypt`, `Decrypt` or `ReEncrypt`.
    pub operation: &'static str,
    /// The context of the call.
    pub context: KeyContext,
}

/// Wraps data keys. Clones share the key and the memory of calls.
#[derive(Clone)]
pub struct Wrapping(Arc<Mutex<State>>);

struct State {
    /// Every material, the current one last.
    materials: Vec<[u8; 32]>,
    calls: Vec<Call>,
    fault: Option<FaultKind>,
    length: usize,
    wrapped: Vec<Vec<u8>>,
    opened: usize,
}

impl Default for Wrapping {
    fn default() -> Self {
        let materials = vec![material()];
        Self(Arc::new(Mutex::new(State {
            materials,
            calls: Vec::new(),
            fault: None,
            length: 32,
            wrapped: Vec::new(),
            opened: 0,
        })))
    }
}

impl Wrapping {
    /// The calls so far, forgotten by asking.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// Makes every call fail so, or work again.
    pub fn set_fault(&self, fault: Option<FaultKind>) {
        self.state().fault = fault;
    }

    /// Rotates the KMS key: what is wrapped from now on is wrapped by another material, and what was wrapped before still opens.
    pub fn rotate(&self) {
        self.state().materials.push(material());
    }

    /// Makes the plaintext of answers to `unwrap` this long, whatever was wrapped.
    pub fn set_length(&self, length: usize) {
        self.state().length = length;
    }

    /// Every data key that was ever handled here, for tests that look for one where none may be.
    pub fn keys_seen(&self) -> Vec<Vec<u8>> {
        self.state().wrapped.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn called(&self, operation: &'static str, context: &KeyContext) -> Result<(), Fault> {
        let fault = {
            let mut state = self.state();
            state.calls.push(Call { operation, context: context.clone() });
            state.fault
        };
        // Whoever else is ready runs meanwhile, as it would while a call is on its way.
        tokio::task::yield_now().await;
        match fault {
            Some(kind) => Err(Fault::new(kind, "kms", operation)),
            None => Ok(()),
        }
    }
}

fn material() -> [u8; 32] {
    let mut key = [0; 32];
    SystemEntropy.fill(&mut key);
    key
}

impl State {
    /// What other writers of messages wrap under: their key is never rotated here.
    fn first(&self) -> [u8; 32] {
        self.materials.first().copied().unwrap_or_default()
    }

    /// The id of the current material.
    fn current(&self) -> String {
        format!("material-{}", self.materials.len())
    }

    fn seal(&mut self, context: &KeyContext, key: &[u8], operation: &'static str) -> Result<Vec<u8>, Fault> {
        let mut nonce = [0; NONCE_LEN];
        SystemEntropy.fill(&mut nonce);
        let mut blob = key.to_vec();
        let invalid = |_| Fault::new(FaultKind::Invalid, "kms", operation);
        let current = self.materials.last().copied().unwrap_or_default();
        UnboundKey::new(&AES_256_GCM, &current)
            .map(LessSafeKey::new)
            .and_then(|cipher| {
                cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad(context)), &mut blob)
            })
            .map_err(invalid)?;
        self.wrapped.push(key.to_vec());
        Ok([&nonce[..], &blob].concat())
    }

    /// The key, and the id of the material that had wrapped it.
    fn open(&self, context: &KeyContext, wrapped: &[u8]) -> Option<(Vec<u8>, String)> {
        let (nonce, blob) = wrapped.split_first_chunk::<NONCE_LEN>()?;
        self.materials.iter().enumerate().find_map(|(at, material)| {
            let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, material).ok()?);
            let (mut blob, nonce) = (blob.to_vec(), Nonce::assume_unique_for_key(*nonce));
            let key = cipher.open_in_place(nonce, Aad::from(aad(context)), &mut blob).ok()?.to_vec();
            Some((key, format!("material-{}", at + 1)))
        })
    }
}

impl KeyWrapping for Wrapping {
    async fn generate(&self, context: &KeyContext) -> Result<Generated, Fault> {
        self.called("GenerateDataKey", context).await?;
        let mut key = vec![0; 32];
        SystemEntropy.fill(&mut key);
        let mut state = self.state();
        let wrapped = state.seal(context, &key, "GenerateDataKey")?;
        Ok(Generated { plaintext: SecretBytes::new(key), wrapped, material: Some(state.current()) })
    }

    async fn wrap(&self, context: &KeyContext, key: &SecretBytes) -> Result<Vec<u8>, Fault> {
        self.called("Encrypt", context).await?;
        self.state().seal(context, key.expose(), "Encrypt")
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Unwrapped, Fault> {
        self.called("Decrypt", context).await?;
        let state = self.state();
        let opened = state.open(context, wrapped);
        let (mut key, material) = opened.ok_or_else(|| Fault::new(FaultKind::Invalid, "kms", "Decrypt"))?;
        key.resize(state.length, 0);
        Ok(Unwrapped { plaintext: SecretBytes::new(key), material: Some(material) })
    }
}

impl KeyRewrapping for Wrapping {
    async fn current_material(&self) -> Result<String, Fault> {
        let (fault, current) = {
            let state = self.state();
            (state.fault, state.current())
        };
        tokio::task::yield_now().await;
        fault.map_or(Ok(current), |kind| Err(Fault::new(kind, "kms", "ListKeyRotations")))
    }

    async fn rewrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Rewrapped, Fault> {
        self.called("ReEncrypt", context).await?;
        let mut state = self.state();
        let opened = state.open(context, wrapped);
        let (key, _) = opened.ok_or_else(|| Fault::new(FaultKind::Invalid, "kms", "ReEncrypt"))?;
        let wrapped = state.seal(context, &key, "ReEncrypt")?;
        Ok(Rewrapped { wrapped, material: Some(state.current()) })
    }
}

fn aad(context: &KeyContext) -> Vec<u8> {
    format!("{}|{}|{}", context.tenant, context.purpose, context.data_key_id).into_bytes()
}

/// Under any key ARN: the wrapped key names it, and the context, as additional data.
fn foreign_aad(key_arn: &str, context: &BTreeMap<String, String>) -> Vec<u8> {
    format!("{key_arn}|{context:?}").into_bytes()
}

impl Wrapping {
    /// Wraps a data key as another writer of messages would, under a key of his.
    pub fn wrap_for_message(&self, key_arn: &str, context: &BTreeMap<String, String>, key: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        SystemEntropy.fill(&mut nonce);
        let mut blob = key.to_vec();
        let sealed = UnboundKey::new(&AES_256_GCM, &self.state().first()).map(LessSafeKey::new).and_then(|cipher| {
            let aad = Aad::from(foreign_aad(key_arn, context));
            cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut blob)
        });
        if sealed.is_err() { Vec::new() } else { [&nonce[..], &blob].concat() }
    }

    /// How many keys of messages were opened so far, forgotten by asking.
    pub fn take_opened(&self) -> usize {
        std::mem::take(&mut self.state().opened)
    }
}

impl MessageKeys for Wrapping {
    async fn open(
        &self,
        key_arn: &str,
        context: &BTreeMap<String, String>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, Fault> {
        let invalid = || Fault::new(FaultKind::Invalid, "kms", "Decrypt");
        let fault = {
            let mut state = self.state();
            state.opened += 1;
            state.fault
        };
        tokio::task::yield_now().await;
        if let Some(kind) = fault {
            return Err(Fault::new(kind, "kms", "Decrypt"));
        }
        let (nonce, blob) = wrapped.split_first_chunk::<NONCE_LEN>().ok_or_else(invalid)?;
        let mut blob = blob.to_vec();
        let cipher =
            UnboundKey::new(&AES_256_GCM, &self.state().first()).map(LessSafeKey::new).map_err(|_| invalid())?;
        let aad = Aad::from(foreign_aad(key_arn, context));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let key = cipher.open_in_place(nonce, aad, &mut blob).map_err(|_| invalid())?;
        Ok(SecretBytes::new(key.to_vec()))
    }
}

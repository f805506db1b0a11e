//! One KMS key: its specification, usage, state, and what it is made of.

use std::{collections::BTreeMap, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{blob::random, error::KmsError, pair::Pair};

/// Epoch milliseconds.
pub(crate) type Millis = u64;

/// What a key can be. Other specifications of the service are refused at `CreateKey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeySpec {
    /// AES-256, for encryption.
    SymmetricDefault,
    /// RSA with a modulus of 2048 bits, for signatures.
    #[serde(rename = "RSA_2048")]
    Rsa2048,
    /// RSA with a modulus of 3072 bits, for signatures.
    #[serde(rename = "RSA_3072")]
    Rsa3072,
    /// RSA with a modulus of 4096 bits, for signatures.
    #[serde(rename = "RSA_4096")]
    Rsa4096,
    /// ECDSA on P-256.
    #[serde(rename = "ECC_NIST_P256")]
    EccNistP256,
    /// ECDSA on P-384.
    #[serde(rename = "ECC_NIST_P384")]
    EccNistP384,
    /// ECDSA on P-521.
    #[serde(rename = "ECC_NIST_P521")]
    EccNistP521,
    /// Ed25519.
    EccNistEdwards25519,
    /// HMAC with SHA-256.
    #[serde(rename = "HMAC_256")]
    Hmac256,
    /// HMAC with SHA-384.
    #[serde(rename = "HMAC_384")]
    Hmac384,
    /// HMAC with SHA-512.
    #[serde(rename = "HMAC_512")]
    Hmac512,
}

const RSA_ALGORITHMS: &[&str] = &[
    "RSASSA_PKCS1_V1_5_SHA_256",
    "RSASSA_PKCS1_V1_5_SHA_384",
    "RSASSA_PKCS1_V1_5_SHA_512",
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
];

impl KeySpec {
    /// Every specification the stand-in makes keys of.
    pub const ALL: [Self; 11] = [
        Self::SymmetricDefault,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::EccNistP256,
        Self::EccNistP384,
        Self::EccNistP521,
        Self::EccNistEdwards25519,
        Self::Hmac256,
        Self::Hmac384,
        Self::Hmac512,
    ];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SymmetricDefault => "SYMMETRIC_DEFAULT",
            Self::Rsa2048 => "RSA_2048",
            Self::Rsa3072 => "RSA_3072",
            Self::Rsa4096 => "RSA_4096",
            Self::EccNistP256 => "ECC_NIST_P256",
            Self::EccNistP384 => "ECC_NIST_P384",
            Self::EccNistP521 => "ECC_NIST_P521",
            Self::EccNistEdwards25519 => "ECC_NIST_EDWARDS25519",
            Self::Hmac256 => "HMAC_256",
            Self::Hmac384 => "HMAC_384",
            Self::Hmac512 => "HMAC_512",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|spec| spec.as_str() == name)
    }

    /// The one usage that keys of this specification have here.
    pub(crate) fn usage(self) -> KeyUsage {
        match self {
            Self::SymmetricDefault => KeyUsage::EncryptDecrypt,
            Self::Hmac256 | Self::Hmac384 | Self::Hmac512 => KeyUsage::GenerateVerifyMac,
            _ => KeyUsage::SignVerify,
        }
    }

    pub(crate) fn signing_algorithms(self) -> &'static [&'static str] {
        match self {
            Self::SymmetricDefault | Self::Hmac256 | Self::Hmac384 | Self::Hmac512 => &[],
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => RSA_ALGORITHMS,
            Self::EccNistP256 => &["ECDSA_SHA_256"],
            Self::EccNistP384 => &["ECDSA_SHA_384"],
            Self::EccNistP521 => &["ECDSA_SHA_512"],
            Self::EccNistEdwards25519 => &["ED25519_SHA_512", "ED25519_PH_SHA_512"],
        }
    }

    /// The one algorithm of a key for MACs, with the length of its secret in bytes.
    pub(crate) fn mac(self) -> Option<(&'static str, usize)> {
        match self {
            Self::Hmac256 => Some(("HMAC_SHA_256", 32)),
            Self::Hmac384 => Some(("HMAC_SHA_384", 48)),
            Self::Hmac512 => Some(("HMAC_SHA_512", 64)),
            _ => None,
        }
    }
}

/// What a key is for; fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyUsage {
    /// Encrypt, decrypt and make data keys.
    EncryptDecrypt,
    /// Sign and verify.
    SignVerify,
    /// Make and verify MACs.
    GenerateVerifyMac,
}

impl KeyUsage {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EncryptDecrypt => "ENCRYPT_DECRYPT",
            Self::SignVerify => "SIGN_VERIFY",
            Self::GenerateVerifyMac => "GENERATE_VERIFY_MAC",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeyState {
    Enabled,
    Disabled,
    PendingDeletion { at: Millis, days: i64 },
}

impl KeyState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion { .. } => "PendingDeletion",
        }
    }
}

/// 32 bytes, shown as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaterialId(pub(crate) [u8; 32]);

impl fmt::Display for MaterialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One generation of a symmetric key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Material {
    #[serde(serialize_with = "write_id", deserialize_with = "read_id")]
    pub(crate) id: MaterialId,
    #[serde(serialize_with = "write_bytes", deserialize_with = "read_array")]
    pub(crate) secret: [u8; 32],
    pub(crate) since: Millis,
    /// Whether it came by a rotation that nobody asked for at that time.
    #[serde(default)]
    pub(crate) automatic: bool,
}

impl Material {
    pub(crate) fn generate(now: Millis) -> Result<Self, KmsError> {
        Ok(Self { id: MaterialId(random()?), secret: random()?, since: now, automatic: false })
    }
}

#[derive(Clone)]
pub(crate) enum Substance {
    /// Every generation, the current one last; never empty.
    Symmetric {
        past: Vec<Material>,
        current: Material,
    },
    Asymmetric(Arc<Pair>),
    /// The secret of a key for MACs.
    Mac(Arc<[u8]>),
}

impl Substance {
    /// Makes what a key of this specification consists of. Slow for RSA: no lock may be held.
    pub(crate) fn generate(spec: KeySpec, now: Millis) -> Result<Self, KmsError> {
        match spec {
            KeySpec::SymmetricDefault => Ok(Self::Symmetric { past: Vec::new(), current: Material::generate(now)? }),
            _ => match spec.mac() {
                Some((_, length)) => Ok(Self::Mac(random::<64>()?.into_iter().take(length).collect())),
                None => Ok(Self::Asymmetric(Arc::new(Pair::generate(spec)?))),
            },
        }
    }

    /// Every generation, the first one first; none of a key that has no rotation.
    pub(crate) fn generations(&self) -> impl Iterator<Item = &Material> {
        let (past, current) = match self {
            Self::Symmetric { past, current } => (past.as_slice(), Some(current)),
            Self::Asymmetric(_) | Self::Mac(_) => (&[][..], None),
        };
        past.iter().chain(current)
    }
}

/// A key as the service keeps it; replaced as a whole when something about it changes.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: Uuid,
    pub(crate) arn: String,
    pub(crate) spec: KeySpec,
    pub(crate) state: KeyState,
    pub(crate) description: String,
    pub(crate) policy: Option<String>,
    pub(crate) created: Millis,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) substance: Substance,
    /// When a rotation on demand was asked for that is not done yet.
    pub(crate) rotating_since: Option<Millis>,
    /// The rotation that happens by itself, where it is switched on.
    pub(crate) rotation: Option<Rotation>,
}

/// Rotation by itself: every so many days, for the next time at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rotation {
    pub(crate) days: i64,
    pub(crate) next: Millis,
}

impl Rotation {
    /// Every `days` days.
    pub(crate) fn every(days: i64, now: Millis) -> Self {
        Self { days, next: 0 }.renewed(now)
    }

    /// The same with a next time as far from `now` as its period is long.
    pub(crate) fn renewed(self, now: Millis) -> Self {
        let period = u64::try_from(self.days).unwrap_or_default().saturating_mul(86_400_000);
        Self { next: now.saturating_add(period), ..self }
    }
}

impl Key {
    /// Refuses a key that may not be used for cryptography now.
    pub(crate) fn usable(&self) -> Result<(), KmsError> {
        match self.state {
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => Err(KmsError::disabled(&self.arn)),
            KeyState::PendingDeletion { .. } => Err(self.pending_deletion()),
        }
    }

    /// Refuses a key that is about to be deleted; a disabled one passes.
    pub(crate) fn kept(&self) -> Result<(), KmsError> {
        match self.state {
            KeyState::PendingDeletion { .. } => Err(self.pending_deletion()),
            _ => Ok(()),
        }
    }

    fn pending_deletion(&self) -> KmsError {
        KmsError::invalid_state(format!("{} is pending deletion.", self.arn))
    }

    /// The generation new ciphertexts use.
    pub(crate) fn material(&self, operation: &str) -> Result<&Material, KmsError> {
        match &self.substance {
            Substance::Symmetric { current, .. } => Ok(current),
            Substance::Asymmetric(_) | Substance::Mac(_) => Err(self.wrong_usage(operation)),
        }
    }

    /// The generation a ciphertext names.
    pub(crate) fn material_of(&self, id: MaterialId) -> Option<&Material> {
        self.substance.generations().find(|material| material.id == id)
    }

    pub(crate) fn wrong_usage(&self, operation: &str) -> KmsError {
        KmsError::wrong_usage(&self.arn, self.spec.usage().as_str(), operation)
    }

    /// The `KeyMetadata` structure of the API.
    pub(crate) fn metadata(&self, account: &str) -> Value {
        let mut metadata = json!({
            "AWSAccountId": account,
            "KeyId": self.id.to_string(),
            "Arn": self.arn,
            "CreationDate": seconds(self.created),
            "Enabled": self.state == KeyState::Enabled,
            "Description": self.description,
            "KeyUsage": self.spec.usage().as_str(),
            "KeyState": self.state.as_str(),
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": self.spec.as_str(),
            "KeySpec": self.spec.as_str(),
            "MultiRegion": false,
        });
        let mut put = |name: &str, value: Value| {
            if let Some(members) = metadata.as_object_mut() {
                members.insert(name.to_owned(), value);
            }
        };
        if let KeyState::PendingDeletion { at, .. } = self.state {
            put("DeletionDate", json!(seconds(at)));
        }
        match &self.substance {
            Substance::Symmetric { current, .. } => {
                put("EncryptionAlgorithms", json!(["SYMMETRIC_DEFAULT"]));
                put("CurrentKeyMaterialId", json!(current.id.to_string()));
            }
            Substance::Asymmetric(_) => put("SigningAlgorithms", json!(self.spec.signing_algorithms())),
            Substance::Mac(_) => put("MacAlgorithms", json!(self.spec.mac().map(|(name, _)| [name]))),
        }
        metadata
    }
}

/// A timestamp as awsJson carries it: epoch seconds with fraction.
pub(crate) fn seconds(at: Millis) -> f64 {
    at as f64 / 1000.0
}

/// A key in the form that outlives the process. Holds private keys in clear.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedKey {
    id: Uuid,
    arn: String,
    spec: KeySpec,
    state: KeyState,
    description: String,
    policy: Option<String>,
    created: Millis,
    tags: BTreeMap<String, String>,
    symmetric: Vec<Material>,
    pkcs8: Option<String>,
    rotating_since: Option<Millis>,
    #[serde(default)]
    rotation: Option<Rotation>,
    #[serde(default)]
    mac: Option<String>,
}

impl From<&Key> for SavedKey {
    fn from(key: &Key) -> Self {
        let (pkcs8, mac) = match &key.substance {
            Substance::Symmetric { .. } => (None, None),
            Substance::Asymmetric(pair) => (Some(STANDARD.encode(pair.pkcs8())), None),
            Substance::Mac(secret) => (None, Some(STANDARD.encode(secret))),
        };
        let symmetric = key.substance.generations().cloned().collect();
        let Key { id, arn, spec, state, description, policy, created, tags, rotating_since, rotation, .. } =
            key.clone();
        Self {
            id,
            arn,
            spec,
            state,
            description,
            policy,
            created,
            tags,
            symmetric,
            pkcs8,
            rotating_since,
            rotation,
            mac,
        }
    }
}

impl SavedKey {
    /// The key again; `None` when what was saved does not fit together.
    pub(crate) fn restore(self) -> Option<Key> {
        let Self { spec, mut symmetric, .. } = self;
        let substance = match (spec.mac(), spec, self.pkcs8, self.mac) {
            (None, KeySpec::SymmetricDefault, None, None) => {
                let current = symmetric.pop()?;
                Substance::Symmetric { past: symmetric, current }
            }
            (None, spec, Some(pkcs8), None) if spec != KeySpec::SymmetricDefault => {
                Substance::Asymmetric(Arc::new(Pair::from_pkcs8(spec, &STANDARD.decode(pkcs8).ok()?).ok()?))
            }
            (Some((_, length)), _, None, Some(secret)) => {
                Substance::Mac(STANDARD.decode(secret).ok().filter(|secret| secret.len() == length)?.into())
            }
            _ => return None,
        };
        Some(Key {
            id: self.id,
            arn: self.arn,
            spec,
            state: self.state,
            description: self.description,
            policy: self.policy,
            created: self.created,
            tags: self.tags,
            substance,
            rotating_since: self.rotating_since,
            rotation: self.rotation,
        })
    }
}

fn write_id<S: Serializer>(id: &MaterialId, serializer: S) -> Result<S::Ok, S::Error> {
    write_bytes(&id.0, serializer)
}

fn read_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MaterialId, D::Error> {
    read_array(deserializer).map(MaterialId)
}

fn write_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn read_array<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
    bytes.try_into().map_err(|_| D::Error::custom("32 bytes expected"))
}

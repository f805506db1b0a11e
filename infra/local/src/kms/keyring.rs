//! The pure core: keys, aliases and the operations on them, without HTTP, signatures or a clock of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    crypto,
    error::KmsError,
    key::{Key, KeySpec, KeyState, Material, Millis, SavedKey, Substance},
    mac, manage, sign,
};
use crate::aws_json::Input;

/// Condition keys of one decision, e.g. `kms:EncryptionContext:tenant`.
pub(crate) type Conditions = BTreeMap<String, Vec<String>>;

/// Asks whether the caller may do `action` on `resource`; the error is the answer the caller gets.
pub(crate) type Authorize<'a> = &'a dyn Fn(&str, &str, &Conditions) -> Result<(), KmsError>;

type Operation = fn(&Call<'_>) -> Result<Value, KmsError>;

/// Every operation: name, members it takes, what it does. Whatever is not here does not exist.
const OPERATIONS: &[(&str, &[&str], Operation)] = &[
    ("CancelKeyDeletion", &["KeyId"], manage::cancel_key_deletion),
    ("CreateAlias", &["AliasName", "TargetKeyId"], manage::create_alias),
    ("CreateKey", manage::CREATE_KEY, manage::create_key),
    ("Decrypt", crypto::DECRYPT, crypto::decrypt),
    ("DeleteAlias", &["AliasName"], manage::delete_alias),
    ("DescribeKey", &["KeyId"], manage::describe_key),
    ("DisableKey", &["KeyId"], manage::disable_key),
    ("DisableKeyRotation", &["KeyId"], manage::disable_key_rotation),
    ("EnableKey", &["KeyId"], manage::enable_key),
    ("EnableKeyRotation", &["KeyId", "RotationPeriodInDays"], manage::enable_key_rotation),
    ("Encrypt", crypto::ENCRYPT, crypto::encrypt),
    ("GenerateDataKey", crypto::GENERATE_DATA_KEY, crypto::generate_data_key),
    ("GenerateDataKeyPair", crypto::GENERATE_DATA_KEY_PAIR, crypto::generate_data_key_pair),
    (
        "GenerateDataKeyPairWithoutPlaintext",
        crypto::GENERATE_DATA_KEY_PAIR,
        crypto::generate_data_key_pair_without_plaintext,
    ),
    ("GenerateDataKeyWithoutPlaintext", crypto::GENERATE_DATA_KEY, crypto::generate_data_key_without_plaintext),
    ("GenerateMac", mac::GENERATE, mac::generate),
    ("GenerateRandom", &["NumberOfBytes"], crypto::generate_random),
    ("GetKeyRotationStatus", &["KeyId"], manage::key_rotation_status),
    ("GetPublicKey", &["KeyId"], sign::public_key),
    ("ListAliases", &["KeyId", "Limit", "Marker"], manage::list_aliases),
    ("ListKeyRotations", &["IncludeKeyMaterial", "KeyId", "Limit", "Marker"], manage::list_key_rotations),
    ("ListKeys", &["Limit", "Marker"], manage::list_keys),
    ("ListResourceTags", &["KeyId", "Limit", "Marker"], manage::list_resource_tags),
    ("ReEncrypt", crypto::RE_ENCRYPT, crypto::re_encrypt),
    ("RotateKeyOnDemand", &["KeyId"], manage::rotate_key_on_demand),
    ("ScheduleKeyDeletion", &["KeyId", "PendingWindowInDays"], manage::schedule_key_deletion),
    ("Sign", sign::SIGN, sign::sign),
    ("TagResource", &["KeyId", "Tags"], manage::tag_resource),
    ("UntagResource", &["KeyId", "TagKeys"], manage::untag_resource),
    ("UpdateAlias", &["AliasName", "TargetKeyId"], manage::update_alias),
    ("Verify", sign::VERIFY, sign::verify),
    ("VerifyMac", mac::VERIFY, mac::verify),
];

/// The keys and aliases of one account in one region.
pub(crate) struct Keyring {
    pub(crate) account: String,
    pub(crate) region: String,
    state: RwLock<State>,
    stock: Mutex<Vec<(KeySpec, Substance)>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) keys: BTreeMap<Uuid, Arc<Key>>,
    pub(crate) aliases: BTreeMap<String, Alias>,
    /// How long a rotation on demand takes.
    pub(crate) rotation_delay: Duration,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Alias {
    pub(crate) target: Uuid,
    pub(crate) created: Millis,
    pub(crate) updated: Millis,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    account: String,
    region: String,
    keys: Vec<SavedKey>,
    aliases: BTreeMap<String, Alias>,
}

impl Keyring {
    pub(crate) fn new(account: impl Into<String>, region: impl Into<String>) -> Self {
        Self { account: account.into(), region: region.into(), state: RwLock::default(), stock: Mutex::default() }
    }

    /// Whether an operation of this name exists here.
    pub(crate) fn knows(operation: &str) -> bool {
        OPERATIONS.iter().any(|(name, ..)| *name == operation)
    }

    /// Runs one operation of the API. May take long (RSA generation), never waits.
    pub(crate) fn call(
        &self,
        operation: &str,
        input: &Value,
        now: Millis,
        authorize: Authorize<'_>,
    ) -> Result<Value, KmsError> {
        let (operation, members, run) =
            OPERATIONS.iter().find(|(name, ..)| *name == operation).ok_or_else(KmsError::unknown_operation)?;
        self.settle(now)?;
        run(&Call { ring: self, operation, input: Input::parse(input, members)?, now, authorize })
    }

    /// Everything, private keys included, as bytes that [`Keyring::load`] takes.
    pub(crate) fn save(&self) -> Vec<u8> {
        let state = self.read();
        let saved = Saved {
            account: self.account.clone(),
            region: self.region.clone(),
            keys: state.keys.values().map(|key| SavedKey::from(key.as_ref())).collect(),
            aliases: state.aliases.clone(),
        };
        serde_json::to_vec(&saved).unwrap_or_default()
    }

    /// What was saved; `None` when it is damaged or belongs to another account or region, whose ARNs it would carry.
    pub(crate) fn load(account: &str, region: &str, bytes: &[u8]) -> Option<Self> {
        let saved: Saved = serde_json::from_slice(bytes).ok()?;
        if saved.account != account || saved.region != region {
            return None;
        }
        let keys = saved
            .keys
            .into_iter()
            .map(|key| key.restore().map(|key| (key.id, Arc::new(key))))
            .collect::<Option<BTreeMap<_, _>>>()?;
        let state = State { keys, aliases: saved.aliases, ..State::default() };
        Some(Self { account: saved.account, region: saved.region, state: RwLock::new(state), stock: Mutex::default() })
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the substance of one future key ahead of time, because RSA takes long.
    pub(crate) fn stock_up(&self, spec: KeySpec, now: Millis) -> Result<(), KmsError> {
        let substance = Substance::generate(spec, now)?;
        self.stock.lock().unwrap_or_else(PoisonError::into_inner).push((spec, substance));
        Ok(())
    }

    /// What a new key consists of: from stock, where there is any, else made now.
    pub(crate) fn substance(&self, spec: KeySpec, now: Millis) -> Result<Substance, KmsError> {
        let stocked = {
            let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
            let place = stock.iter().position(|(of, _)| *of == spec);
            place.map(|place| stock.swap_remove(place).1)
        };
        stocked.map_or_else(|| Substance::generate(spec, now), Ok)
    }

    /// The aliases of the key of this ARN.
    pub(crate) fn aliases_of(&self, arn: &str) -> Vec<String> {
        let state = self.read();
        let Some(id) = state.keys.values().find(|key| key.arn == arn).map(|key| key.id) else { return Vec::new() };
        state.aliases.iter().filter(|(_, alias)| alias.target == id).map(|(name, _)| name.clone()).collect()
    }

    /// Refuses a key that seals nothing now.
    pub(crate) fn sealing(&self, arn: &str, now: Millis) -> Result<(), KmsError> {
        self.settle(now)?;
        let held = self.read().keys.values().find(|key| key.arn == arn).cloned();
        let key = held.ok_or_else(|| KmsError::not_found(format!("Key '{arn}' does not exist")))?;
        key.usable()?;
        key.material("GenerateDataKey").map(|_| ())
    }

    /// The policies that keys were made with, by ARN.
    pub(crate) fn policies(&self) -> Vec<(String, Value)> {
        let state = self.read();
        let held = state.keys.values().filter_map(|key| Some((key.arn.clone(), key.policy.as_deref()?)));
        held.filter_map(|(arn, policy)| Some((arn, serde_json::from_str(policy).ok()?))).collect()
    }

    /// Puts a new key under an id that nobody has.
    pub(crate) fn place(
        &self,
        id: Uuid,
        spec: KeySpec,
        tags: BTreeMap<String, String>,
        policy: Option<String>,
        now: Millis,
    ) -> Result<String, KmsError> {
        let key = Key {
            id,
            arn: self.arn(&format!("key/{id}")),
            spec,
            state: KeyState::Enabled,
            description: String::new(),
            policy,
            created: now,
            tags,
            substance: self.substance(spec, now)?,
            rotating_since: None,
            rotation: None,
        };
        let arn = key.arn.clone();
        let mut state = self.write();
        if state.keys.contains_key(&id) {
            return Err(KmsError::new("AlreadyExistsException", format!("Key '{arn}' already exists")));
        }
        state.keys.insert(id, Arc::new(key));
        Ok(arn)
    }

    /// Gives a key an alias under `alias/aws/`.
    pub(crate) fn reserve_alias(&self, name: &str, key: &str, now: Millis) -> Result<(), KmsError> {
        let mut state = self.write();
        let target = state.keys.values().find(|held| held.arn == key).map(|held| held.id);
        let target = target.ok_or_else(|| KmsError::not_found(format!("Key '{key}' does not exist")))?;
        state.aliases.insert(name.to_owned(), Alias { target, created: now, updated: now });
        Ok(())
    }

    pub(crate) fn arn(&self, resource: &str) -> String {
        format!("arn:aws:kms:{}:{}:{resource}", self.region, self.account)
    }

    /// Changes one key under the lock; `change` sees it as it is now, so it checks states itself.
    pub(crate) fn update<T>(
        &self,
        id: Uuid,
        change: impl FnOnce(&mut Key) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        let mut state = self.write();
        let missing = || KmsError::not_found(format!("Key '{}' does not exist", self.arn(&format!("key/{id}"))));
        let slot = state.keys.get_mut(&id).ok_or_else(missing)?;
        let mut key = slot.as_ref().clone();
        let answer = change(&mut key)?;
        *slot = Arc::new(key);
        Ok(answer)
    }

    /// Does what time has made due: deletions whose window ended, rotations whose delay is over.
    fn settle(&self, now: Millis) -> Result<(), KmsError> {
        let delay = u64::try_from(self.read().rotation_delay.as_millis()).unwrap_or(u64::MAX);
        let gone = |key: &Key| matches!(key.state, KeyState::PendingDeletion { at, .. } if at <= now);
        let rotated = |key: &Key| key.rotating_since.is_some_and(|since| since.saturating_add(delay) <= now);
        let due = |key: &Key| key.rotation.filter(|rotation| rotation.next <= now && key.state == KeyState::Enabled);
        if !self.read().keys.values().any(|key| gone(key) || rotated(key) || due(key).is_some()) {
            return Ok(());
        }
        let mut state = self.write();
        state.keys.retain(|_, key| !gone(key));
        let State { keys, aliases, .. } = &mut *state;
        aliases.retain(|_, alias| keys.contains_key(&alias.target));
        for slot in keys.values_mut().filter(|key| rotated(key)) {
            let key = Arc::make_mut(slot);
            key.rotating_since = None;
            if let Substance::Symmetric { past, current } = &mut key.substance {
                past.push(std::mem::replace(current, Material::generate(now)?));
            }
        }
        for slot in keys.values_mut() {
            let Some(rotation) = due(slot) else { continue };
            let key = Arc::make_mut(slot);
            key.rotation = Some(rotation.renewed(now));
            if let Substance::Symmetric { past, current } = &mut key.substance {
                past.push(std::mem::replace(current, Material { automatic: true, ..Material::generate(now)? }));
            }
        }
        Ok(())
    }
}

/// A key that a request named, as it was when it was looked up.
pub(crate) struct Found {
    pub(crate) key: Arc<Key>,
    /// The alias it was named by.
    alias: Option<String>,
}

/// One request on its way through an operation.
pub(crate) struct Call<'a> {
    pub(crate) ring: &'a Keyring,
    pub(crate) operation: &'a str,
    pub(crate) input: Input<'a>,
    pub(crate) now: Millis,
    pub(crate) authorize: Authorize<'a>,
}

impl Call<'_> {
    /// The key that a mandatory member names by id, ARN, alias or alias ARN.
    pub(crate) fn key(&self, member: &str) -> Result<Found, KmsError> {
        self.optional_key(member)?.ok_or_else(|| KmsError::missing(member))
    }

    pub(crate) fn optional_key(&self, member: &str) -> Result<Option<Found>, KmsError> {
        self.input.text(member, 1, 2048)?.map(|name| self.find(name)).transpose()
    }

    /// The key that a management operation names: by id or ARN, not by alias.
    pub(crate) fn managed_key(&self, member: &str) -> Result<Found, KmsError> {
        let name = self.input.required_text(member, 1, 2048)?;
        let found = self.find(name)?;
        if found.alias.is_some() {
            return Err(KmsError::not_found(format!("Invalid keyId '{name}'")));
        }
        Ok(found)
    }

    /// The key a ciphertext names, if it exists.
    pub(crate) fn key_by_id(&self, id: Uuid) -> Option<Found> {
        self.ring.read().keys.get(&id).map(|key| Found { key: Arc::clone(key), alias: None })
    }

    fn find(&self, name: &str) -> Result<Found, KmsError> {
        let resource = match name.strip_prefix("arn:") {
            None => name,
            Some(rest) => self.resource_of_arn(name, rest)?,
        };
        let state = self.ring.read();
        let (id, alias) = if resource.starts_with("alias/") {
            let missing = || KmsError::not_found(format!("Alias {} is not found.", self.ring.arn(resource)));
            (state.aliases.get(resource).ok_or_else(missing)?.target, Some(resource.to_owned()))
        } else {
            let is_uuid = resource.len() == 36;
            let id = Uuid::parse_str(resource).ok().filter(|_| is_uuid);
            (id.ok_or_else(|| KmsError::not_found(format!("Invalid keyId '{resource}'")))?, None)
        };
        let missing = || KmsError::not_found(format!("Key '{}' does not exist", self.ring.arn(&format!("key/{id}"))));
        let key = state.keys.get(&id).cloned().ok_or_else(missing)?;
        Ok(Found { key, alias })
    }

    fn resource_of_arn<'n>(&self, arn: &str, rest: &'n str) -> Result<&'n str, KmsError> {
        let invalid = || KmsError::new("InvalidArnException", format!("Invalid arn {arn}"));
        let mut parts = rest.splitn(5, ':');
        let mut next = || parts.next().ok_or_else(invalid);
        let (partition, service, region, account, resource) = (next()?, next()?, next()?, next()?, next()?);
        if partition != "aws" || service != "kms" {
            return Err(invalid());
        }
        if region != self.ring.region {
            return Err(KmsError::not_found(format!("Invalid arn {region}")));
        }
        if account != self.ring.account {
            return Err(KmsError::not_found(format!("Key '{arn}' does not exist")));
        }
        match resource.strip_prefix("key/") {
            Some(id) => Ok(id),
            None if resource.starts_with("alias/") => Ok(resource),
            None => Err(invalid()),
        }
    }

    /// Authorises this operation's own action on a key.
    pub(crate) fn admit(&self, found: &Found, own: Conditions) -> Result<(), KmsError> {
        self.admit_as(&format!("kms:{}", self.operation), found, own)
    }

    /// Authorises an action on a key, always by the key's ARN, with what the service says about the key.
    pub(crate) fn admit_as(&self, action: &str, found: &Found, own: Conditions) -> Result<(), KmsError> {
        let key = &found.key;
        let mut conditions = own;
        let mut put = |name: &str, values: Vec<String>| conditions.insert(name.to_owned(), values);
        put("kms:KeySpec", vec![key.spec.as_str().to_owned()]);
        put("kms:KeyUsage", vec![key.spec.usage().as_str().to_owned()]);
        put("kms:KeyOrigin", vec!["AWS_KMS".to_owned()]);
        put("kms:MultiRegion", vec!["false".to_owned()]);
        put("kms:CallerAccount", vec![self.ring.account.clone()]);
        if let Some(alias) = &found.alias {
            put("kms:RequestAlias", vec![alias.clone()]);
        }
        let state = self.ring.read();
        let aliases: Vec<_> =
            state.aliases.iter().filter(|(_, alias)| alias.target == key.id).map(|(name, _)| name.clone()).collect();
        drop(state);
        if !aliases.is_empty() {
            put("kms:ResourceAliases", aliases);
        }
        for (name, value) in &key.tags {
            put(&format!("aws:ResourceTag/{name}"), vec![value.clone()]);
        }
        (self.authorize)(action, &key.arn, &conditions)
    }

    /// Ends a dry run, once everything else has been checked.
    pub(crate) fn unless_dry_run(&self) -> Result<(), KmsError> {
        if self.input.flag("DryRun")? { Err(KmsError::dry_run()) } else { Ok(()) }
    }

    /// Grants do not exist here: naming one must not pass for having one.
    pub(crate) fn without_grants(&self) -> Result<(), KmsError> {
        if self.input.texts("GrantTokens")?.is_empty() {
            return Ok(());
        }
        Err(KmsError::unsupported("Grants are not implemented by this stand-in."))
    }
}

//! Keys, aliases, tags, states and rotation.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    blob::random,
    error::KmsError,
    key::{Key, KeySpec, KeyState, KeyUsage, Millis, Rotation, Substance, seconds},
    keyring::{Alias, Call, Conditions, Found},
};
use crate::policy::Policy;

pub(crate) const CREATE_KEY: &[&str] = &[
    "BypassPolicyLockoutSafetyCheck",
    "CustomKeyStoreId",
    "Description",
    "KeySpec",
    "KeyUsage",
    "MultiRegion",
    "Origin",
    "Policy",
    "Tags",
    "XksKeyId",
];

const SPECS: &[&str] = &[
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "ECC_NIST_P256",
    "ECC_NIST_P384",
    "ECC_NIST_P521",
    "ECC_SECG_P256K1",
    "SYMMETRIC_DEFAULT",
    "HMAC_224",
    "HMAC_256",
    "HMAC_384",
    "HMAC_512",
    "SM2",
    "ML_DSA_44",
    "ML_DSA_65",
    "ML_DSA_87",
    "ECC_NIST_EDWARDS25519",
];
const USAGES: &[&str] = &["SIGN_VERIFY", "ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"];
const DAY: Millis = 86_400_000;
const MOST_ROTATIONS: usize = 25;

pub(crate) fn create_key(call: &Call<'_>) -> Result<Value, KmsError> {
    let input = &call.input;
    let description = input.text("Description", 0, 8192)?.unwrap_or_default().to_owned();
    let policy = input.text("Policy", 1, 131_072)?.map(str::to_owned);
    let spec = spec_for(input.choice("KeySpec", SPECS)?, input.choice("KeyUsage", USAGES)?)?;
    let origin = input.choice("Origin", &["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"])?;
    let elsewhere = origin.is_some_and(|origin| origin != "AWS_KMS");
    if elsewhere || input.has("CustomKeyStoreId") || input.has("XksKeyId") || input.flag("MultiRegion")? {
        return Err(KmsError::unsupported(
            "Only single-Region keys of origin AWS_KMS are implemented by this stand-in.",
        ));
    }
    if let Some(policy) = &policy {
        let document: Value = serde_json::from_str(policy).unwrap_or_default();
        Policy::resource(&document).map_err(|faults| {
            let message = format!("Policy contains a statement with invalid syntax: {}", faults.join("; "));
            KmsError::new("MalformedPolicyDocumentException", message)
        })?;
    }
    let tags = input.tags("Tags")?;
    let id = uuid::Builder::from_random_bytes(random()?).into_uuid();
    let arn = call.ring.arn(&format!("key/{id}"));

    let mut conditions = Conditions::from([
        ("kms:KeySpec".to_owned(), vec![spec.as_str().to_owned()]),
        ("kms:KeyUsage".to_owned(), vec![spec.usage().as_str().to_owned()]),
        ("kms:KeyOrigin".to_owned(), vec!["AWS_KMS".to_owned()]),
        ("kms:MultiRegion".to_owned(), vec!["false".to_owned()]),
        ("kms:CallerAccount".to_owned(), vec![call.ring.account.clone()]),
        (
            "kms:BypassPolicyLockoutSafetyCheck".to_owned(),
            vec![input.flag("BypassPolicyLockoutSafetyCheck")?.to_string()],
        ),
    ]);
    conditions.extend(tag_conditions(&tags));
    (call.authorize)("kms:CreateKey", "*", &conditions)?;
    if !tags.is_empty() {
        (call.authorize)("kms:TagResource", &arn, &conditions)?;
    }

    let substance = call.ring.substance(spec, call.now)?;
    let state = KeyState::Enabled;
    let created = call.now;
    let key = Key {
        id,
        arn,
        spec,
        state,
        description,
        policy,
        created,
        tags,
        substance,
        rotating_since: None,
        rotation: None,
    };
    let metadata = key.metadata(&call.ring.account);
    call.ring.write().keys.insert(id, Arc::new(key));
    Ok(json!({ "KeyMetadata": metadata }))
}

fn spec_for(spec: Option<&str>, usage: Option<&str>) -> Result<KeySpec, KmsError> {
    let name = spec.unwrap_or("SYMMETRIC_DEFAULT");
    let usage = match usage {
        Some(usage) => usage,
        None if name == "SYMMETRIC_DEFAULT" => KeyUsage::EncryptDecrypt.as_str(),
        None => {
            return Err(KmsError::invalid(
                "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
            ));
        }
    };
    let unsupported =
        || KmsError::unsupported(format!("KeySpec {name} with KeyUsage {usage} is not implemented by this stand-in."));
    let known = KeySpec::from_name(name);
    let exists = name.starts_with("RSA_") && usage == "ENCRYPT_DECRYPT"
        || name.starts_with("ECC_NIST_P") && usage == "KEY_AGREEMENT"
        || name == "HMAC_224" && usage == "GENERATE_VERIFY_MAC";
    match known {
        Some(spec) if usage == spec.usage().as_str() => Ok(spec),
        Some(_) if !exists => Err(KmsError::invalid(format!("KeyUsage {usage} is not compatible with KeySpec {name}"))),
        _ => Err(unsupported()),
    }
}

pub(crate) fn describe_key(call: &Call<'_>) -> Result<Value, KmsError> {
    let found = call.key("KeyId")?;
    call.admit(&found, Conditions::new())?;
    Ok(json!({ "KeyMetadata": found.key.metadata(&call.ring.account) }))
}

pub(crate) fn list_keys(call: &Call<'_>) -> Result<Value, KmsError> {
    (call.authorize)("kms:ListKeys", "*", &Conditions::new())?;
    let entries = {
        let state = call.ring.read();
        state.keys.values().map(|key| json!({ "KeyId": key.id.to_string(), "KeyArn": key.arn })).collect()
    };
    page(call, "Keys", entries, 100, 1000)
}

pub(crate) fn enable_key(call: &Call<'_>) -> Result<Value, KmsError> {
    change_state(call, KeyState::Enabled)
}

pub(crate) fn disable_key(call: &Call<'_>) -> Result<Value, KmsError> {
    change_state(call, KeyState::Disabled)
}

fn change_state(call: &Call<'_>, state: KeyState) -> Result<Value, KmsError> {
    let found = admitted(call)?;
    call.ring.update(found.key.id, |key| {
        key.kept()?;
        key.state = state;
        Ok(json!({}))
    })
}

pub(crate) fn schedule_key_deletion(call: &Call<'_>) -> Result<Value, KmsError> {
    let days = call.input.integer("PendingWindowInDays", 7, 30)?.unwrap_or(30);
    let found = call.managed_key("KeyId")?;
    let window = ("kms:ScheduleKeyDeletionPendingWindowInDays".to_owned(), vec![days.to_string()]);
    call.admit(&found, Conditions::from([window]))?;
    let at = call.now.saturating_add(u64::try_from(days).unwrap_or_default().saturating_mul(DAY));
    call.ring.update(found.key.id, |key| {
        key.kept()?;
        key.state = KeyState::PendingDeletion { at, days };
        Ok(json!({
            "KeyId": key.arn, "DeletionDate": seconds(at), "KeyState": "PendingDeletion", "PendingWindowInDays": days,
        }))
    })
}

pub(crate) fn cancel_key_deletion(call: &Call<'_>) -> Result<Value, KmsError> {
    let found = admitted(call)?;
    call.ring.update(found.key.id, |key| {
        if key.kept().is_ok() {
            return Err(KmsError::invalid_state(format!("{} is not pending deletion.", key.arn)));
        }
        key.state = KeyState::Disabled;
        Ok(json!({ "KeyId": key.arn }))
    })
}

pub(crate) fn tag_resource(call: &Call<'_>) -> Result<Value, KmsError> {
    let tags = call.input.tags("Tags")?;
    if !call.input.has("Tags") {
        return Err(KmsError::missing("Tags"));
    }
    let found = call.managed_key("KeyId")?;
    call.admit(&found, tag_conditions(&tags))?;
    call.ring.update(found.key.id, |key| {
        key.kept()?;
        key.tags.extend(tags);
        if key.tags.len() > 50 {
            return Err(KmsError::new("LimitExceededException", "Too many tags"));
        }
        Ok(json!({}))
    })
}

pub(crate) fn untag_resource(call: &Call<'_>) -> Result<Value, KmsError> {
    let names = call.input.texts("TagKeys")?;
    if !call.input.has("TagKeys") {
        return Err(KmsError::missing("TagKeys"));
    }
    let found = call.managed_key("KeyId")?;
    call.admit(&found, Conditions::from([("aws:TagKeys".to_owned(), names.clone())]))?;
    call.ring.update(found.key.id, |key| {
        key.kept()?;
        key.tags.retain(|name, _| !names.contains(name));
        Ok(json!({}))
    })
}

pub(crate) fn list_resource_tags(call: &Call<'_>) -> Result<Value, KmsError> {
    let found = admitted(call)?;
    let tags = found.key.tags.iter().map(|(key, value)| json!({ "TagKey": key, "TagValue": value })).collect();
    page(call, "Tags", tags, 50, 50)
}

pub(crate) fn create_alias(call: &Call<'_>) -> Result<Value, KmsError> {
    let (name, found) = alias_request(call)?;
    let arn = call.ring.arn(&name);
    admit_alias(call, &arn)?;
    call.admit(&found, Conditions::new())?;
    found.key.kept()?;
    let mut state = call.ring.write();
    if state.aliases.contains_key(&name) {
        return Err(KmsError::new("AlreadyExistsException", format!("An alias with the name {arn} already exists")));
    }
    state.aliases.insert(name, Alias { target: found.key.id, created: call.now, updated: call.now });
    Ok(json!({}))
}

pub(crate) fn update_alias(call: &Call<'_>) -> Result<Value, KmsError> {
    let (name, found) = alias_request(call)?;
    let arn = call.ring.arn(&name);
    admit_alias(call, &arn)?;
    let missing = || KmsError::not_found(format!("Alias {arn} is not found."));
    let held = call.ring.read().aliases.get(&name).cloned().ok_or_else(missing)?;
    let present = call.key_by_id(held.target).ok_or_else(missing)?;
    call.admit(&present, Conditions::new())?;
    call.admit(&found, Conditions::new())?;
    found.key.kept()?;
    if present.key.spec.usage() != found.key.spec.usage() {
        return Err(KmsError::invalid(format!("Alias {arn} cannot be moved to a key of another usage.")));
    }
    let moved = Alias { target: found.key.id, created: held.created, updated: call.now };
    call.ring.write().aliases.insert(name, moved);
    Ok(json!({}))
}

pub(crate) fn delete_alias(call: &Call<'_>) -> Result<Value, KmsError> {
    let name = alias_name(call)?;
    let arn = call.ring.arn(&name);
    admit_alias(call, &arn)?;
    let missing = || KmsError::not_found(format!("Alias {arn} is not found."));
    let target = call.ring.read().aliases.get(&name).map(|alias| alias.target).ok_or_else(missing)?;
    let found = call.key_by_id(target).ok_or_else(missing)?;
    call.admit(&found, Conditions::new())?;
    call.ring.write().aliases.remove(&name);
    Ok(json!({}))
}

pub(crate) fn list_aliases(call: &Call<'_>) -> Result<Value, KmsError> {
    (call.authorize)("kms:ListAliases", "*", &Conditions::new())?;
    let only = match call.input.has("KeyId") {
        true => Some(call.managed_key("KeyId")?.key.id),
        false => None,
    };
    let entries = {
        let state = call.ring.read();
        let wanted = state.aliases.iter().filter(|(_, alias)| only.is_none_or(|id| id == alias.target));
        wanted.map(|(name, alias)| alias_entry(call, name, alias)).collect()
    };
    page(call, "Aliases", entries, 50, 100)
}

fn alias_entry(call: &Call<'_>, name: &str, alias: &Alias) -> Value {
    json!({
        "AliasName": name,
        "AliasArn": call.ring.arn(name),
        "TargetKeyId": alias.target.to_string(),
        "CreationDate": seconds(alias.created),
        "LastUpdatedDate": seconds(alias.updated),
    })
}

fn alias_request(call: &Call<'_>) -> Result<(String, Found), KmsError> {
    Ok((alias_name(call)?, call.managed_key("TargetKeyId")?))
}

fn alias_name(call: &Call<'_>) -> Result<String, KmsError> {
    let name = call.input.required_text("AliasName", 1, 256)?;
    let Some(own) = name.strip_prefix("alias/") else {
        return Err(KmsError::invalid("Invalid identifier"));
    };
    if own.is_empty() || !own.chars().all(|letter| letter.is_ascii_alphanumeric() || "/_-".contains(letter)) {
        let rule = "satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$";
        return Err(KmsError::constraint("AliasName", &format!(" '{name}'"), rule));
    }
    if own.starts_with("aws/") {
        return Err(KmsError::new("NotAuthorizedException", "alias/aws/ is reserved"));
    }
    Ok(name.to_owned())
}

fn admit_alias(call: &Call<'_>, arn: &str) -> Result<(), KmsError> {
    (call.authorize)(&format!("kms:{}", call.operation), arn, &Conditions::new())
}

pub(crate) fn rotate_key_on_demand(call: &Call<'_>) -> Result<Value, KmsError> {
    let found = admitted(call)?;
    call.ring.update(found.key.id, |key| {
        key.usable()?;
        symmetric(key)?;
        let asked = key.substance.generations().skip(1).filter(|material| !material.automatic).count();
        if key.rotating_since.is_some() {
            return Err(KmsError::new("ConflictException", format!("{} already has a rotation in progress.", key.arn)));
        }
        if asked >= MOST_ROTATIONS {
            return Err(KmsError::new(
                "LimitExceededException",
                "The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be \
                 performed for this key.",
            ));
        }
        key.rotating_since = Some(call.now);
        Ok(json!({ "KeyId": key.arn }))
    })
}

/// Refuses what has no rotation.
fn symmetric(key: &Key) -> Result<(), KmsError> {
    match &key.substance {
        Substance::Symmetric { .. } => Ok(()),
        _ => Err(KmsError::unsupported(format!("{} has no rotation.", key.arn))),
    }
}

pub(crate) fn enable_key_rotation(call: &Call<'_>) -> Result<Value, KmsError> {
    let days = call.input.integer("RotationPeriodInDays", 90, 2560)?.unwrap_or(365);
    let found = call.managed_key("KeyId")?;
    let period = ("kms:RotationPeriodInDays".to_owned(), vec![days.to_string()]);
    call.admit(&found, Conditions::from([period]))?;
    call.ring.update(found.key.id, |key| {
        key.usable()?;
        symmetric(key)?;
        key.rotation = Some(Rotation::every(days, call.now));
        Ok(json!({}))
    })
}

pub(crate) fn disable_key_rotation(call: &Call<'_>) -> Result<Value, KmsError> {
    let found = admitted(call)?;
    call.ring.update(found.key.id, |key| {
        key.usable()?;
        symmetric(key)?;
        key.rotation = None;
        Ok(json!({}))
    })
}

pub(crate) fn key_rotation_status(call: &Call<'_>) -> Result<Value, KmsError> {
    let found = admitted(call)?;
    let key = &found.key;
    key.kept()?;
    symmetric(key)?;
    let mut status = json!({ "KeyId": key.arn, "KeyRotationEnabled": key.rotation.is_some() });
    if let (Some(rotation), Some(members)) = (key.rotation, status.as_object_mut()) {
        members.insert("RotationPeriodInDays".to_owned(), json!(rotation.days));
        members.insert("NextRotationDate".to_owned(), json!(seconds(rotation.next)));
    }
    if let (Some(since), Some(members)) = (key.rotating_since, status.as_object_mut()) {
        members.insert("OnDemandRotationStartDate".to_owned(), json!(seconds(since)));
    }
    Ok(status)
}

/// Every rotation there was; with `ALL_KEY_MATERIAL` the material the key began with as well.
pub(crate) fn list_key_rotations(call: &Call<'_>) -> Result<Value, KmsError> {
    let wanted = call.input.choice("IncludeKeyMaterial", &["ALL_KEY_MATERIAL", "ROTATIONS_ONLY"])?;
    let found = admitted(call)?;
    let key = &found.key;
    key.kept()?;
    symmetric(key)?;
    let current = key.substance.generations().last().map(|material| material.id);
    let entries = key.substance.generations().enumerate().map(|(number, material)| {
        let state = if Some(material.id) == current { "CURRENT" } else { "NON_CURRENT" };
        let mut entry = json!({
            "KeyId": key.id.to_string(), "KeyMaterialId": material.id.to_string(), "KeyMaterialState": state,
        });
        if let (true, Some(members)) = (number > 0, entry.as_object_mut()) {
            members.insert("RotationDate".to_owned(), json!(seconds(material.since)));
            let kind = if material.automatic { "AUTOMATIC" } else { "ON_DEMAND" };
            members.insert("RotationType".to_owned(), json!(kind));
        }
        entry
    });
    let first = usize::from(wanted != Some("ALL_KEY_MATERIAL"));
    page(call, "Rotations", entries.skip(first).collect(), 100, 1000)
}

/// The key that is named, for whoever may do this with it, whatever else is asked.
fn admitted(call: &Call<'_>) -> Result<Found, KmsError> {
    let found = call.managed_key("KeyId")?;
    call.admit(&found, Conditions::new())?;
    Ok(found)
}

fn tag_conditions(tags: &std::collections::BTreeMap<String, String>) -> Conditions {
    let mut conditions = Conditions::new();
    if !tags.is_empty() {
        conditions.insert("aws:TagKeys".to_owned(), tags.keys().cloned().collect());
    }
    for (name, value) in tags {
        conditions.insert(format!("aws:RequestTag/{name}"), vec![value.clone()]);
    }
    conditions
}

/// One page of a list; the marker is the place where the next one starts.
fn page(call: &Call<'_>, name: &str, entries: Vec<Value>, usual: i64, most: i64) -> Result<Value, KmsError> {
    let limit = usize::try_from(call.input.integer("Limit", 1, most)?.unwrap_or(usual)).unwrap_or_default();
    let start: usize = match call.input.text("Marker", 1, 1024)? {
        None => 0,
        Some(marker) => marker.parse().map_err(|_| KmsError::new("InvalidMarkerException", "Invalid marker"))?,
    };
    let end = start.saturating_add(limit);
    let more = end < entries.len();
    let shown: Vec<_> = entries.into_iter().skip(start).take(limit).collect();
    let mut answer = json!({ "Truncated": more });
    if let Some(members) = answer.as_object_mut() {
        members.insert(name.to_owned(), Value::Array(shown));
        if more {
            members.insert("NextMarker".to_owned(), json!(end.to_string()));
        }
    }
    Ok(answer)
}

//! What is known of a tenant's devices: `device.put`, `device.remove`, `device.list`.

use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::device::{Device, is_id};
use shared::port::Parameter;
use shared::trust::posture::{LISTED, MOST_KEYS, is_thumbprint};

use crate::act::{Act, tenant, text};
use crate::fields::Fields;
use crate::refusal::{Code, Refusal};

/// The most devices of one act.
const MOST: usize = 500;
/// How far a device's clock may be ahead of ours, in seconds.
const SKEW: i64 = 10;

/// `devices`: of each its `id`, what is known of it, when it was looked at (`checked_at`, now), and `keys` where the list of them is to be
/// another one.
pub(crate) fn put(fields: &mut Fields, now: Timestamp) -> Result<Act, Refusal> {
    let refused = || Refusal::of(Code::InvalidDevice, "devices");
    let tenant = tenant(fields)?;
    let listed = fields.value("devices")?;
    let listed = listed.as_array().ok_or(Refusal::of(Code::WrongType, "devices"))?;
    if !(1..=MOST).contains(&listed.len()) {
        return Err(refused());
    }
    let mut devices: Vec<(Device, Value)> = Vec::new();
    for entry in listed {
        let (device, keys) = read(entry, now).ok_or_else(refused)?;
        if devices.iter().any(|(other, _)| other.id == device.id) {
            return Err(refused());
        }
        devices.push((device, keys));
    }
    let target = match devices.as_slice() {
        [(one, _)] => one.id.clone(),
        many => format!("{} devices", many.len()),
    };
    let devices = devices.iter().map(|(device, keys)| json!({ "device": device.to_value(), "keys": keys })).collect();
    Ok(Act {
        operation: "device.put",
        function: "api.device_put",
        target,
        parameters: vec![text(&tenant), Parameter::Json(devices)],
        moves_trust: true,
    })
}

/// One device as tokens say it, and its keys or `null`. Who it was that looked is not the operator's to say.
fn read(entry: &Value, now: Timestamp) -> Option<(Device, Value)> {
    let mut claim = entry.as_object()?.clone();
    let keys = match claim.remove("keys") {
        None => Value::Null,
        Some(keys) => {
            let listed: Vec<&str> = keys.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
            let once = |key: &&str| listed.iter().filter(|other| *other == key).count() == 1;
            let fit = listed.len() <= MOST_KEYS && listed.iter().all(|key| is_thumbprint(key) && once(key));
            fit.then(|| json!(listed))?
        }
    };
    if claim.insert("source".to_owned(), json!(LISTED)).is_some() {
        return None;
    }
    claim.entry("checked_at").or_insert_with(|| json!(now.seconds()));
    let device = Device::parse(&Value::Object(claim)).ok()?;
    (device.checked_at <= now.plus_seconds(SKEW)).then_some((device, keys))
}

/// Takes a device out of the list: its keys are on none any more.
pub(crate) fn remove(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let id = fields.text("id")?;
    if !is_id(&id) {
        return Err(Refusal::of(Code::InvalidDevice, "id"));
    }
    Ok(Act {
        operation: "device.remove",
        function: "api.device_remove",
        target: id.clone(),
        parameters: vec![text(&tenant), Parameter::Text(id)],
        moves_trust: true,
    })
}

/// A page of a tenant's devices; `after` is the `next` of the page before.
pub(crate) fn list(fields: &mut Fields) -> Result<Act, Refusal> {
    let tenant = tenant(fields)?;
    let after = fields.optional_text("after")?;
    if after.as_deref().is_some_and(|after| !is_id(after)) {
        return Err(Refusal::of(Code::InvalidDevice, "after"));
    }
    let limit = fields.optional_int("limit")?.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Refusal::of(Code::InvalidLimit, "limit"));
    }
    Ok(Act {
        operation: "device.list",
        function: "api.device_list",
        target: tenant.to_string(),
        parameters: vec![text(&tenant), Parameter::OptionalText(after), Parameter::Int(limit)],
        moves_trust: false,
    })
}

//! Devices and service tokens: the rules of the functions in plain words, which is also what Postgres is compared with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::port::Parameter;

use super::{State, int, merge, text, version};

/// By tenant and id.
pub(super) type Devices = BTreeMap<(String, String), Value>;

/// The most devices of all tenants together.
const MOST: usize = 10_000;

impl State {
    pub(super) fn devices(&mut self, function: &str, parameters: &[Parameter]) -> Option<Value> {
        use Parameter::{Int, Json, OptionalText, Text};
        match (function, parameters) {
            (
                "api.client_service",
                [Text(operator), Text(request), Int(now), Text(tenant), Text(client_id), OptionalText(service)],
            ) => {
                let held = self.services.get(client_id).cloned();
                let row = self.clients.get_mut(client_id).filter(|row| text(row, "tenant") == *tenant);
                let outcome = match row {
                    None => "client_unknown",
                    Some(_) if held == *service => "unchanged",
                    Some(row) => {
                        let version = version(row) + 1;
                        merge(row, json!({ "version": version, "updated_ms": now }));
                        match service {
                            Some(service) => self.services.insert(client_id.clone(), service.clone()),
                            None => self.services.remove(client_id),
                        };
                        "updated"
                    }
                };
                self.act(*now, operator, request, "client.service", client_id, outcome);
                Some(match outcome {
                    "client_unknown" => json!({ "outcome": outcome }),
                    _ => json!({ "outcome": outcome, "client_id": client_id, "service": service }),
                })
            }
            ("api.device_put", [Text(operator), Text(request), Int(now), Text(tenant), Json(devices)]) => {
                let devices = devices.as_array()?;
                let (outcome, created, updated) = self.put_devices(tenant, devices, *now)?;
                let target = match devices.as_slice() {
                    [one] => text(one.get("device")?, "id"),
                    many => format!("{} devices", many.len()),
                };
                self.act(*now, operator, request, "device.put", &target, outcome);
                Some(match outcome {
                    "put" | "unchanged" => json!({ "outcome": outcome, "created": created, "updated": updated }),
                    _ => json!({ "outcome": outcome }),
                })
            }
            ("api.device_remove", [Text(operator), Text(request), Int(now), Text(tenant), Text(id)]) => {
                let outcome = match self.devices.remove(&(tenant.clone(), id.clone())) {
                    Some(_) => "removed",
                    None if self.tenants.contains_key(tenant) => "device_unknown",
                    None => "tenant_unknown",
                };
                self.act(*now, operator, request, "device.remove", id, outcome);
                Some(json!({ "outcome": outcome }))
            }
            (
                "api.device_list",
                [Text(operator), Text(request), Int(now), Text(tenant), OptionalText(after), Int(limit)],
            ) => {
                let known = self.tenants.contains_key(tenant);
                let outcome = if known { "listed" } else { "tenant_unknown" };
                self.act(*now, operator, request, "device.list", tenant, outcome);
                if !known {
                    return Some(json!({ "outcome": outcome }));
                }
                let (after, limit) = (after.as_deref().unwrap_or_default(), usize::try_from(*limit).ok()?.min(500));
                let mine = self.devices.iter().filter(|((of, id), _)| of == tenant && id.as_str() > after);
                let page: Vec<(&String, &Value)> = mine.take(limit).map(|((_, id), row)| (id, row)).collect();
                let next = page.last().filter(|_| page.len() == limit).map(|(id, _)| *id);
                let devices: Vec<&Value> = page.iter().map(|(_, row)| *row).collect();
                Some(json!({ "outcome": outcome, "devices": devices, "next": next }))
            }
            ("api.trust_devices", []) => {
                let mut tenants: BTreeMap<&String, Vec<Value>> = BTreeMap::new();
                for ((tenant, _), row) in &self.devices {
                    let entry = json!({ "device": row.get("device"), "keys": row.get("keys") });
                    tenants.entry(tenant).or_default().push(entry);
                }
                Some(json!({ "tenants": tenants }))
            }
            _ => None,
        }
    }

    fn put_devices(&mut self, tenant: &str, devices: &[Value], now: i64) -> Option<(&'static str, u64, u64)> {
        if !self.tenants.contains_key(tenant) {
            return Some(("tenant_unknown", 0, 0));
        }
        let before = self.devices.clone();
        let (mut created, mut updated) = (0, 0);
        for entry in devices {
            let (device, keys) = (entry.get("device")?, entry.get("keys").filter(|keys| keys.is_array()));
            let at = (tenant.to_owned(), text(device, "id"));
            let Some(held) = self.devices.get_mut(&at) else {
                let row = json!({ "device": device, "keys": keys.unwrap_or(&json!([])), "version": 1, "created_ms": now,
                    "updated_ms": now });
                self.devices.insert(at, row);
                created += 1;
                continue;
            };
            let checked = |device: &Value| int(device, "checked_at");
            let known = held.get("device").cloned().unwrap_or_default();
            let device = if checked(device) >= checked(&known) { device.clone() } else { known };
            let keys = keys.or_else(|| held.get("keys")).cloned()?;
            if held.get("device") != Some(&device) || held.get("keys") != Some(&keys) {
                let version = version(held) + 1;
                merge(held, json!({ "device": device, "keys": keys, "version": version, "updated_ms": now }));
                updated += 1;
            }
        }
        let mut seen = BTreeSet::new();
        let mine = self.devices.iter().filter(|((of, _), _)| of == tenant);
        let mut keys = mine.filter_map(|(_, row)| row.get("keys")?.as_array()).flatten().map(Value::to_string);
        let outcome = if !keys.all(|key| seen.insert(key)) {
            "device_key_taken"
        } else if created > 0 && self.devices.len() > MOST {
            "device_limit"
        } else {
            return Some((if created + updated > 0 { "put" } else { "unchanged" }, created, updated));
        };
        self.devices = before;
        Some((outcome, 0, 0))
    }
}

//! Tenants, clients, issuers, revocations, signing keys and used assertions in memory, behind the same functions that Postgres offers to `token`,
//! `admin` and `trust`.

mod devices;
mod people;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use shared::encoding::hex;
use shared::port::{Database, Fault, FaultKind, Parameter};
use shared::trust::{Revocations, Revoked};

use crate::policies::Policies;

/// A database that knows the foundation's functions. Clones share it.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tenants: BTreeMap<String, Value>,
    clients: BTreeMap<String, Value>,
    issuers: BTreeMap<String, Value>,
    revocations: BTreeMap<(String, String), (i64, i64)>,
    assertions: BTreeMap<(String, Vec<u8>), i64>,
    proofs: BTreeMap<(String, Vec<u8>), i64>,
    nonce_keys: Vec<(String, i64)>,
    signing: BTreeMap<String, Value>,
    audiences: BTreeMap<String, Vec<String>>,
    services: BTreeMap<String, String>,
    devices: devices::Devices,
    quotas: BTreeMap<(String, String), (Option<i64>, Option<i64>)>,
    policies: Policies,
    people: people::People,
    acts: Vec<Value>,
    calls: Vec<&'static str>,
    down: bool,
}

impl Registry {
    /// A registry that holds an enabled tenant.
    pub fn with_tenant(tenant: &str) -> Self {
        let registry = Self::default();
        registry.add_tenant(tenant);
        registry
    }

    /// Adds an enabled tenant.
    pub fn add_tenant(&self, tenant: &str) {
        let row = json!({ "tenant": tenant, "name": tenant, "enabled": true, "version": 1 });
        self.with(|state| state.tenants.insert(tenant.to_owned(), row));
    }

    /// Adds or replaces a client row as `api.client_for_token` answers it, with its `client_id` and `tenant`. A row that is
    /// replaced gets the next version.
    pub fn add_client(&self, mut row: Value) {
        let client_id = text(&row, "client_id");
        self.with(|state| {
            if let Some(held) = state.clients.get(&client_id) {
                let version = version(held) + 1;
                merge(&mut row, json!({ "version": version }));
            }
            state.clients.insert(client_id, row)
        });
    }

    /// The rows of `admin_audit`, in order.
    pub fn acts(&self) -> Vec<Value> {
        self.with(|state| state.acts.clone())
    }

    /// The functions called so far, forgotten by asking.
    pub fn take_calls(&self) -> Vec<&'static str> {
        self.with(|state| std::mem::take(&mut state.calls))
    }

    /// The ids of the tokens that are revoked one by one, with the time until which each is remembered.
    pub fn revoked(&self) -> Vec<(String, i64)> {
        self.with(|state| {
            let single = state.revocations.iter().filter(|((kind, _), _)| kind == "jti");
            single.map(|((_, jti), (exp, _))| (jti.clone(), *exp)).collect()
        })
    }

    /// The sessions that ever began, by their ids, and why each ended where it did.
    pub fn sessions(&self) -> Vec<(String, Option<&'static str>)> {
        self.with(|state| state.people.ends())
    }

    /// How many proofs are remembered.
    pub fn proofs(&self) -> usize {
        self.with(|state| state.proofs.len())
    }

    /// How many assertion ids are remembered.
    pub fn assertions(&self) -> usize {
        self.with(|state| state.assertions.len())
    }

    /// Makes every call fail as unavailable, or work again.
    pub fn set_down(&self, down: bool) {
        self.with(|state| state.down = down);
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Database for Registry {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        tokio::task::yield_now().await;
        self.with(|state| {
            if state.down {
                return Err(Fault::new(FaultKind::Unavailable, "postgres", function));
            }
            state.calls.push(function);
            // Wrong arguments are what Postgres calls them: a fault of ours.
            state.call(function, &parameters).ok_or(Fault::new(FaultKind::Invalid, "postgres", function))
        })
    }
}

impl State {
    fn call(&mut self, function: &str, parameters: &[Parameter]) -> Option<Value> {
        use Parameter::{Bool, Bytes, Int, Json, OptionalBytes, OptionalInt, OptionalText, Text, Texts};
        match (function, parameters) {
            ("api.client_for_token", [Text(client_id)]) => Some(self.client_for_token(client_id)),
            (
                "api.consume_assertion",
                [Text(tenant), Text(client), Int(version), OptionalBytes(hash), Int(expires), Int(now)],
            ) => Some(self.consume(tenant, client, *version, hash.as_deref(), *expires, *now)),
            (
                "api.consume_with_proof",
                [
                    Text(tenant),
                    Text(client),
                    Int(version),
                    OptionalBytes(hash),
                    Int(expires),
                    Int(now),
                    Text(jkt),
                    Bytes(proof),
                    Int(ends),
                ],
            ) => {
                let once = (hash.as_deref(), *expires);
                Some(self.consume_with_proof(tenant, client, *version, once, (jkt, proof, *ends), *now))
            }
            ("api.nonce_keys", [Bytes(candidate), Int(now)]) => {
                if self.nonce_keys.first().is_none_or(|(_, made)| *made <= now - 86_400_000) {
                    self.nonce_keys.insert(0, (hex(candidate), *now));
                }
                let newest: Vec<_> = self.nonce_keys.iter().take(2).map(|(key, _)| key).collect();
                let until = self.nonce_keys.first().map(|(_, made)| made + 86_400_000);
                Some(json!({ "keys": newest, "until_ms": until }))
            }
            (
                "api.revoke_own",
                [
                    Text(tenant),
                    Text(client),
                    Int(version),
                    OptionalBytes(hash),
                    Int(expires),
                    Int(now),
                    Text(jti),
                    Int(exp),
                ],
            ) => {
                if *exp > now / 1000 + 910 {
                    return None;
                }
                let consumed = self.consume(tenant, client, *version, hash.as_deref(), *expires, *now);
                if text(&consumed, "outcome") != "ok" {
                    return Some(consumed);
                }
                self.end("jti", jti, *exp);
                Some(json!({ "outcome": "revoked" }))
            }
            ("api.tenant_put", [Text(operator), Text(request), Int(now), Text(tenant), Text(name), Bool(enabled)]) => {
                let row = json!({ "name": name, "tenant": tenant, "enabled": enabled });
                let outcome = store(&mut self.tenants, tenant, row, *now);
                if outcome != "unchanged" && !enabled {
                    self.end("tenant", tenant, now / 1000 + 20);
                }
                self.act(*now, operator, request, "tenant.put", tenant, outcome);
                let mut view = self.tenants.get(tenant)?.clone();
                view.as_object_mut()?.retain(|name, _| !name.ends_with("_ms"));
                Some(json!({ "outcome": outcome, "tenant": view }))
            }
            (
                "api.client_put",
                [
                    Text(operator),
                    Text(request),
                    Int(now),
                    Text(tenant),
                    Text(client_id),
                    Text(name),
                    Json(jwks),
                    Texts(algorithms),
                    Texts(scopes),
                    Bool(dpop),
                    Int(ttl),
                    Bool(enabled),
                    Json(federation),
                ],
            ) => {
                let bound = self.bound(federation);
                let row = json!({ "client_id": client_id, "tenant": tenant, "name": name, "jwks": jwks, "algorithms": algorithms,
                    "federation": bound, "scopes": scopes, "dpop": dpop, "ttl_seconds": ttl, "enabled": enabled });
                let holder = self.clients.get(client_id).map(|row| text(row, "tenant"));
                let outcome = match holder {
                    _ if !self.tenants.contains_key(tenant) => "tenant_unknown",
                    Some(holder) if holder != *tenant => "client_id_taken",
                    _ if bound.is_none() => "federation_issuer_unknown",
                    _ if self.overlaps(client_id, &bound.unwrap_or_default()) => "federation_taken",
                    _ => store(&mut self.clients, client_id, row, *now),
                };
                if matches!(outcome, "created" | "updated") && !enabled {
                    self.end("client_id", client_id, now / 1000 + 20);
                }
                self.act(*now, operator, request, "client.put", client_id, outcome);
                Some(match outcome {
                    "created" | "updated" | "unchanged" => {
                        json!({ "outcome": outcome, "client": self.view(client_id) })
                    }
                    _ => json!({ "outcome": outcome }),
                })
            }
            ("api.client_disable", [Text(operator), Text(request), Int(now), Text(tenant), Text(client_id)]) => {
                let held = self.clients.get(client_id).filter(|row| text(row, "tenant") == *tenant).cloned();
                let outcome = match &held {
                    None => "client_unknown",
                    Some(row) if flag(row, "enabled") => "disabled",
                    Some(_) => "unchanged",
                };
                if let (Some(mut row), "disabled") = (held, outcome) {
                    let version = version(&row) + 1;
                    merge(&mut row, json!({ "enabled": false, "version": version, "updated_ms": now }));
                    self.clients.insert(client_id.clone(), row);
                    self.end("client_id", client_id, now / 1000 + 20);
                }
                self.act(*now, operator, request, "client.disable", client_id, outcome);
                Some(match outcome {
                    "client_unknown" => json!({ "outcome": outcome }),
                    _ => json!({ "outcome": outcome, "client": self.view(client_id) }),
                })
            }
            (
                "api.client_list",
                [Text(operator), Text(request), Int(now), Text(tenant), OptionalText(after), Int(limit)],
            ) => {
                let known = self.tenants.contains_key(tenant);
                let outcome = if known { "listed" } else { "tenant_unknown" };
                self.act(*now, operator, request, "client.list", tenant, outcome);
                if !known {
                    return Some(json!({ "outcome": outcome }));
                }
                let limit = usize::try_from(*limit).ok()?.min(500);
                let after = after.as_deref().unwrap_or_default();
                let mine =
                    self.clients.iter().filter(|(id, row)| id.as_str() > after && text(row, "tenant") == *tenant);
                let page: Vec<(&String, &Value)> = mine.take(limit).collect();
                let next = page.last().filter(|_| page.len() == limit).map(|(id, _)| *id);
                let clients: Vec<Option<Value>> = page.iter().map(|(id, _)| self.view(id)).collect();
                Some(json!({ "outcome": outcome, "clients": clients, "next": next }))
            }
            (
                "api.client_audiences",
                [Text(operator), Text(request), Int(now), Text(tenant), Text(client_id), Texts(audiences)],
            ) => {
                let held = self.audiences.get(client_id).cloned().unwrap_or_default();
                let row = self.clients.get_mut(client_id).filter(|row| text(row, "tenant") == *tenant);
                let outcome = match row {
                    None => "client_unknown",
                    Some(_) if held == *audiences => "unchanged",
                    Some(row) => {
                        let version = version(row) + 1;
                        merge(row, json!({ "version": version, "updated_ms": now }));
                        self.audiences.insert(client_id.clone(), audiences.clone());
                        "updated"
                    }
                };
                self.act(*now, operator, request, "client.audiences", client_id, outcome);
                Some(match outcome {
                    "client_unknown" => json!({ "outcome": outcome }),
                    _ => json!({ "outcome": outcome, "client_id": client_id, "audiences": audiences }),
                })
            }
            (
                "api.quota_put",
                [
                    Text(operator),
                    Text(request),
                    Int(now),
                    Text(tenant),
                    Text(subject),
                    OptionalInt(files),
                    OptionalInt(bytes),
                ],
            ) => {
                let (whose, quota) = ((tenant.clone(), subject.clone()), (*files, *bytes));
                let outcome = match (self.quotas.get(&whose).copied(), quota) {
                    _ if !self.tenants.contains_key(tenant) => "tenant_unknown",
                    (None, (None, None)) => "unchanged",
                    (Some(_), (None, None)) => "removed",
                    (None, _) => "created",
                    (Some(held), quota) if held == quota => "unchanged",
                    (Some(_), _) => "updated",
                };
                match outcome {
                    "removed" => drop(self.quotas.remove(&whose)),
                    "created" | "updated" => drop(self.quotas.insert(whose, quota)),
                    _ => {}
                }
                self.act(*now, operator, request, "quota.put", tenant, outcome);
                if outcome == "tenant_unknown" {
                    return Some(json!({ "outcome": outcome }));
                }
                let subject = Some(subject).filter(|subject| !subject.is_empty());
                Some(json!({ "outcome": outcome, "subject": subject, "files": files, "bytes": bytes }))
            }
            (
                "api.quota_list",
                [Text(operator), Text(request), Int(now), Text(tenant), OptionalText(after), Int(limit)],
            ) => {
                let known = self.tenants.contains_key(tenant);
                let outcome = if known { "listed" } else { "tenant_unknown" };
                self.act(*now, operator, request, "quota.list", tenant, outcome);
                if !known {
                    return Some(json!({ "outcome": outcome }));
                }
                let limit = usize::try_from(*limit).ok()?.min(500);
                let own = self.quotas.iter().filter(|((of, _), _)| of == tenant);
                let rest = own.filter(|((_, subject), _)| after.as_ref().is_none_or(|after| subject > after));
                let page: Vec<_> = rest.take(limit).collect();
                let next = page.last().filter(|_| page.len() == limit).map(|((_, subject), _)| subject);
                let nothing = json!({ "files": 0, "bytes": 0 });
                let quotas = page.iter().map(|((_, subject), (files, bytes))| {
                    let held = if subject == "*" { Value::Null } else { nothing.clone() };
                    let subject = Some(subject).filter(|subject| !subject.is_empty());
                    json!({ "subject": subject, "files": files, "bytes": bytes, "held": held })
                });
                let quotas: Vec<Value> = quotas.collect();
                Some(json!({ "outcome": outcome, "held": nothing, "quotas": quotas, "next": next }))
            }
            ("api.revoke", [Text(operator), Text(request), Int(now), Text(kind), Text(value), Int(epoch)]) => {
                let entry = (kind.clone(), value.clone());
                self.end(kind, value, *epoch);
                self.act(*now, operator, request, "revoke", &format!("{kind}:{value}"), "revoked");
                let (epoch, dead) = self.revocations.get(&entry)?;
                Some(json!({ "outcome": "revoked", "kind": kind, "value": value, "epoch": epoch, "dead_ms": dead }))
            }
            (
                "api.issuer_put",
                [
                    Text(operator),
                    Text(request),
                    Int(now),
                    Text(id),
                    Text(kind),
                    Text(issuer),
                    OptionalText(audience),
                    Texts(algorithms),
                    Text(jwks_url),
                ],
            ) => {
                let row = json!({ "id": id, "kind": kind, "issuer": issuer, "audience": audience, "algorithms": algorithms,
                    "jwks_url": jwks_url });
                let same =
                    |held: &Value| text(held, "issuer") == *issuer && held.get("audience") == row.get("audience");
                let outcome = match self.issuers.get(id) {
                    _ if self.issuers.iter().any(|(other, held)| other != id && same(held)) => "issuer_taken",
                    None if self.issuers.len() >= 64 => "issuer_limit",
                    _ => store(&mut self.issuers, id, row, *now),
                };
                self.act(*now, operator, request, "issuer.put", id, outcome);
                Some(match outcome {
                    "issuer_taken" | "issuer_limit" => json!({ "outcome": outcome }),
                    _ => json!({ "outcome": outcome, "issuer": self.issuers.get(id) }),
                })
            }
            ("api.issuer_remove", [Text(operator), Text(request), Int(now), Text(id)]) => {
                let outcome = if self.issuers.remove(id).is_some() { "removed" } else { "issuer_unknown" };
                self.people.forget_issuer(id);
                self.act(*now, operator, request, "issuer.remove", id, outcome);
                Some(json!({ "outcome": outcome }))
            }
            ("api.trust_issuers", []) => {
                let published = |row: &Value| {
                    let mut row = row.clone();
                    if let Some(row) = row.as_object_mut() {
                        row.retain(|name, value| {
                            !matches!(name.as_str(), "version" | "created_ms" | "updated_ms") && !value.is_null()
                        });
                    }
                    row
                };
                Some(json!({ "issuers": self.issuers.values().map(published).collect::<Vec<_>>() }))
            }
            ("api.policy_put", [Text(operator), Text(request), Int(now), Text(hash), Json(bundle)]) => {
                let answer = self.policies.put(hash, bundle, *now);
                self.act(*now, operator, request, "policy.put", hash, &text(&answer, "outcome"));
                Some(answer)
            }
            ("api.policy_promote", [Text(operator), Text(request), Int(now), Text(hash)]) => {
                let answer = self.policies.promote(hash, *now);
                self.act(*now, operator, request, "policy.promote", hash, &text(&answer, "outcome"));
                Some(answer)
            }
            ("api.policy_list", [Text(operator), Text(request), Int(now)]) => {
                self.act(*now, operator, request, "policy.list", "policies", "listed");
                Some(self.policies.list())
            }
            ("api.trust_policies", []) => Some(self.policies.published()),
            ("api.trust_signing", [Int(now), Json(keys)]) => self.signing(*now, keys.as_array()?),
            ("api.signing_list", [Text(operator), Text(request), Int(now)]) => {
                self.act(*now, operator, request, "signing.list", "signing", "listed");
                let mut keys: Vec<&Value> = self.signing.values().collect();
                keys.sort_by_key(|key| (int(key, "created_ms"), text(key, "kid")));
                Some(json!({ "outcome": "listed", "keys": keys }))
            }
            ("api.signing_rotate", [Text(operator), Text(request), Int(now), OptionalText(kid)]) => {
                let found = self.signing.values_mut().filter(|key| match kid {
                    Some(kid) => text(key, "kid") == *kid,
                    None => text(key, "state") == "active" && int(key, "dropped_ms").is_none(),
                });
                let found = found.max_by_key(|key| int(key, "activated_ms"));
                let (outcome, key) = match found {
                    None => ("signing_key_unknown", None),
                    Some(key) if text(key, "state") != "active" || int(key, "replace_ms").is_some() => {
                        ("unchanged", Some(key.clone()))
                    }
                    Some(key) => {
                        merge(key, json!({ "replace_ms": now }));
                        ("ordered", Some(key.clone()))
                    }
                };
                let target = key.as_ref().map(|key| text(key, "kid")).or(kid.clone()).unwrap_or("signing".into());
                self.act(*now, operator, request, "signing.rotate", &target, outcome);
                let waiting = |key: &&Value| text(key, "state") == "published" && int(key, "dropped_ms").is_none();
                let next = self.signing.values().filter(waiting).filter(|key| int(key, "ripe_ms").is_some());
                let next = next.min_by_key(|key| int(key, "ripe_ms"));
                Some(match key {
                    None => json!({ "outcome": outcome }),
                    Some(key) => json!({ "outcome": outcome, "key": key, "successor": next.map(|key| text(key, "kid")),
                        "from_ms": next.and_then(|key| int(key, "ripe_ms")).map(|ripe| ripe.max(*now)) }),
                })
            }
            ("api.signing_drop", [Text(operator), Text(request), Int(now), Text(kid), Bool(confirm)]) => {
                let could = |key: &&Value| {
                    text(key, "kid") != *kid
                        && int(key, "dropped_ms").is_none()
                        && int(key, "seen_ms").is_some_and(|seen| seen >= now - 180_000)
                        && match text(key, "state").as_str() {
                            "active" => true,
                            "published" => int(key, "urgent_ms").is_some(),
                            _ => false,
                        }
                };
                let order = |key: &&Value| (text(key, "state") != "active", int(key, "urgent_ms"));
                let next = self.signing.values().filter(could).min_by_key(order).cloned();
                let from = next.as_ref().map(|key| match text(key, "state").as_str() {
                    "active" => *now,
                    _ => int(key, "urgent_ms").unwrap_or(*now).max(*now),
                });
                let outcome = match self.signing.get(kid) {
                    None => "signing_key_unknown",
                    Some(key) if int(key, "dropped_ms").is_some() => "unchanged",
                    Some(key) if text(key, "state") != "removed" && !confirm && from != Some(*now) => "nobody_signs",
                    Some(_) => "dropped",
                };
                if let (Some(key), "dropped") = (self.signing.get_mut(kid), outcome) {
                    merge(key, json!({ "dropped_ms": now }));
                    self.revocations.insert(("kid".to_owned(), kid.clone()), (now / 1000, 253_402_300_799_000));
                }
                self.act(*now, operator, request, "signing.drop", kid, outcome);
                Some(match self.signing.get(kid) {
                    None => json!({ "outcome": outcome }),
                    Some(key) => json!({ "outcome": outcome, "key": key, "signer": next.map(|key| text(&key, "kid")),
                        "from_ms": from }),
                })
            }
            ("api.trust_snapshot", [Int(now)]) => Some(self.snapshot(*now)),
            _ => self.devices(function, parameters).or_else(|| self.people(function, parameters)),
        }
    }

    /// What an operator is shown of a client.
    fn view(&self, client_id: &str) -> Option<Value> {
        let mut row = self.clients.get(client_id)?.clone();
        let service = self.services.get(client_id).map_or(Value::Null, |service| json!(service));
        merge(&mut row, json!({ "service": service }));
        Some(row)
    }

    fn client_for_token(&self, client_id: &str) -> Value {
        let Some(row) = self.clients.get(client_id) else { return json!({ "outcome": "unknown" }) };
        let mut row = row.clone();
        let tenant_enabled = self.tenants.get(&text(&row, "tenant")).is_some_and(|tenant| flag(tenant, "enabled"));
        let enabled = flag(&row, "enabled") && tenant_enabled;
        let audiences = self.audiences.get(client_id).map(|audiences| json!(audiences));
        let audiences = audiences.or_else(|| row.get("audiences").cloned()).unwrap_or(json!([]));
        let service = self.services.get(client_id).map(|service| json!(service));
        let service = service.or_else(|| row.get("service").cloned()).unwrap_or(Value::Null);
        merge(&mut row, json!({ "enabled": enabled, "audiences": audiences, "service": service }));
        if let Some(row) = row.as_object_mut() {
            row.retain(|name, _| !matches!(name.as_str(), "name" | "created_ms" | "updated_ms"));
        }
        json!({ "outcome": "found", "client": row })
    }

    /// The rules as they are stored; none where an issuer is not there or of another kind.
    fn bound(&self, rules: &Value) -> Option<Vec<Value>> {
        let bound = |rule: &Value| {
            let issuer = self.issuers.get(&text(rule, "issuer"))?;
            let mut rule = rule.clone();
            let kind = rule.as_object_mut()?.remove("kind")?;
            merge(&mut rule, json!({ "iss": issuer.get("issuer")? }));
            (issuer.get("kind") == Some(&kind)).then_some(rule)
        };
        rules.as_array()?.iter().map(bound).collect()
    }

    /// Whether a workload could be told by a rule of these and by one of another client.
    fn overlaps(&self, client_id: &str, rules: &[Value]) -> bool {
        let others = self.clients.iter().filter(|(id, _)| id.as_str() != client_id);
        let theirs: Vec<&Value> = others.filter_map(|(_, row)| row.get("federation")?.as_array()).flatten().collect();
        let both = |mine: &Value, other: &Value| {
            let mut names = mine.as_object().into_iter().flatten();
            names.all(|(name, value)| other.get(name).is_none_or(|held| held == value))
        };
        rules.iter().any(|mine| theirs.iter().any(|other| both(mine, other)))
    }

    fn consume(&mut self, tenant: &str, client: &str, seen: i64, hash: Option<&[u8]>, expires: i64, now: i64) -> Value {
        let current = self.client_for_token(client);
        let row = current.get("client").cloned().unwrap_or_default();
        if text(&row, "tenant") != tenant || version(&row) != seen || !flag(&row, "enabled") {
            return json!({ "outcome": "client_changed" });
        }
        let Some(hash) = hash else { return json!({ "outcome": "ok" }) };
        let id = (client.to_owned(), hash.to_owned());
        if self.assertions.contains_key(&id) {
            return json!({ "outcome": "replayed" });
        }
        self.assertions.retain(|_, expires| *expires >= now);
        self.assertions.insert(id, expires);
        json!({ "outcome": "ok" })
    }

    fn consume_with_proof(
        &mut self,
        tenant: &str,
        client: &str,
        seen: i64,
        (hash, expires): (Option<&[u8]>, i64),
        (jkt, proof, ends): (&str, &[u8], i64),
        now: i64,
    ) -> Value {
        let id = (jkt.to_owned(), proof.to_owned());
        let replayed = self.proofs.contains_key(&id);
        // The proof is looked at last, and a replay of it undoes the rest.
        let before = self.assertions.clone();
        let consumed = self.consume(tenant, client, seen, hash, expires, now);
        if text(&consumed, "outcome") != "ok" {
            return consumed;
        }
        if replayed {
            self.assertions = before;
            return json!({ "outcome": "proof_replayed" });
        }
        self.proofs.retain(|_, ends| *ends >= now);
        self.proofs.insert(id, ends);
        consumed
    }

    fn signing(&mut self, now: i64, keys: &[Value]) -> Option<Value> {
        for key in keys {
            let kid = text(key, "kid");
            let held = self.signing.get(&kid).cloned();
            if held.as_ref().and_then(|held| int(held, "seen_ms")).is_some_and(|seen| seen > now) {
                continue;
            }
            let mut row = json!({ "replace_ms": null, "dropped_ms": null });
            if let Some(held) = held {
                row = held;
                let moves = ["state", "activated_ms", "retired_ms", "removed_ms", "ripe_ms", "urgent_ms"];
                for name in moves {
                    merge(&mut row, json!({ name: key.get(name) }));
                }
            } else {
                merge(&mut row, key.clone());
            }
            merge(&mut row, json!({ "seen_ms": now }));
            self.signing.insert(kid, row);
        }
        let kids = |of: &dyn Fn(&Value) -> bool| -> Vec<String> {
            self.signing.iter().filter(|(_, key)| of(key)).map(|(kid, _)| kid.clone()).collect()
        };
        let replace = kids(&|key| int(key, "replace_ms").is_some() && text(key, "state") == "active");
        Some(json!({ "replace": replace, "dropped": kids(&|key| int(key, "dropped_ms").is_some()) }))
    }

    fn end(&mut self, kind: &str, value: &str, epoch: i64) {
        let dead = if kind == "jti" { (epoch + 10) * 1000 } else { (epoch + 910) * 1000 };
        let held = self.revocations.entry((kind.to_owned(), value.to_owned())).or_insert((epoch, dead));
        *held = (held.0.max(epoch), held.1.max(dead));
        self.people.revoked(kind, value, epoch);
    }

    fn act(&mut self, now: i64, operator: &str, request: &str, operation: &str, target: &str, outcome: &str) {
        self.acts.push(json!({ "at_ms": now, "operator": operator, "request_id": request, "operation": operation,
            "target": target, "outcome": outcome }));
    }

    fn snapshot(&mut self, now: i64) -> Value {
        let (revocations, assertions) = (self.revocations.len(), self.assertions.len());
        self.revocations.retain(|_, (_, dead)| *dead >= now);
        self.assertions.retain(|_, expires| *expires >= now);
        let of = |kind: Revoked| {
            let entries = self.revocations.iter().filter(move |((held, _), _)| held == kind.as_str());
            entries.map(move |((_, value), (epoch, _))| (kind, value.as_str(), *epoch))
        };
        use Revoked::{Client, Device, Session, Subject, Tenant, Token};
        let entries = [Subject, Session, Client, Tenant, Device, Token].into_iter().flat_map(of);
        let kid = self.revocations.keys().filter(|(kind, _)| kind == "kid").map(|(_, kid)| kid.as_str());
        let body = Revocations::body(entries, &kid.collect::<Vec<_>>());
        json!({
            "revocations": body,
            "swept": { "revocations": revocations - self.revocations.len(), "assertion_ids": assertions - self.assertions.len() },
        })
    }
}

/// Inserts or replaces a row as the tables do: a version that rises, and nothing written when nothing changed.
fn store<K: Ord + Clone>(rows: &mut BTreeMap<K, Value>, key: &K, mut row: Value, now: i64) -> &'static str {
    let held = rows.get(key).cloned();
    let same = held.as_ref().is_some_and(|held| {
        row.as_object().is_some_and(|row| row.iter().all(|(name, value)| held.get(name) == Some(value)))
    });
    if same {
        return "unchanged";
    }
    let created = held.as_ref().and_then(|held| held.get("created_ms").cloned()).unwrap_or(json!(now));
    let version = held.as_ref().map_or(0, version) + 1;
    merge(&mut row, json!({ "version": version, "created_ms": created, "updated_ms": now }));
    rows.insert(key.clone(), row);
    if held.is_some() { "updated" } else { "created" }
}

fn merge(row: &mut Value, with: Value) {
    if let (Some(row), Value::Object(with)) = (row.as_object_mut(), with) {
        row.extend(with);
    }
}

fn text(row: &Value, name: &str) -> String {
    row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn flag(row: &Value, name: &str) -> bool {
    row.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn int(row: &Value, name: &str) -> Option<i64> {
    row.get(name).and_then(Value::as_i64)
}

fn version(row: &Value) -> i64 {
    row.get("version").and_then(Value::as_i64).unwrap_or(0)
}

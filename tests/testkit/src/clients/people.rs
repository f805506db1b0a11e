//! People and their sessions: the rules of the functions in plain words, which is also what Postgres is compared with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::port::Parameter;

use super::{State, flag, store, text, version};

type Selector = (String, String, String);

#[derive(Default)]
pub(super) struct People {
    identities: BTreeMap<Selector, Value>,
    sessions: BTreeMap<String, Session>,
    tokens: BTreeMap<Vec<u8>, Token>,
}

struct Session {
    tenant: String,
    client_id: String,
    subject: String,
    iss: String,
    jkt: String,
    scopes: Vec<String>,
    created: i64,
    idle: i64,
    absolute: i64,
    ended: Option<&'static str>,
}

struct Token {
    sid: String,
    parent: Option<Vec<u8>>,
    used: Option<i64>,
    dead: bool,
}

impl State {
    pub(super) fn people(&mut self, function: &str, parameters: &[Parameter]) -> Option<Value> {
        use Parameter::{Bool, Bytes, Int, Json, OptionalBytes, OptionalText, Text, Texts};
        match (function, parameters) {
            (
                "api.identity_put",
                [
                    Text(operator),
                    Text(request),
                    Int(now),
                    Text(tenant),
                    Text(issuer),
                    Text(kind),
                    Text(value),
                    Texts(groups),
                    Texts(scopes),
                    Bool(enabled),
                ],
            ) => {
                let at = (issuer.clone(), kind.clone(), value.clone());
                let iss = self.issuers.get(issuer).map(|row| text(row, "issuer"));
                let row = json!({ "issuer": issuer, "iss": iss, "match": kind, "value": value, "tenant": tenant, "groups": groups, "scopes": scopes,
                    "enabled": enabled });
                let holder = self.people.identities.get(&at).map(|row| text(row, "tenant"));
                let outcome = match holder {
                    _ if !self.tenants.contains_key(tenant) => "tenant_unknown",
                    _ if !self.issuers.contains_key(issuer) => "issuer_unknown",
                    Some(holder) if holder != *tenant => "identity_taken",
                    _ => store(&mut self.people.identities, &at, row, *now),
                };
                self.act(*now, operator, request, "identity.put", &format!("{issuer} {kind}:{value}"), outcome);
                Some(match outcome {
                    "created" | "updated" | "unchanged" => {
                        json!({ "outcome": outcome, "identity": self.people.identities.get(&at) })
                    }
                    _ => json!({ "outcome": outcome }),
                })
            }
            (
                "api.identity_remove",
                [Text(operator), Text(request), Int(now), Text(tenant), Text(issuer), Text(kind), Text(value)],
            ) => {
                let at = (issuer.clone(), kind.clone(), value.clone());
                let mine = self.people.identities.get(&at).is_some_and(|row| text(row, "tenant") == *tenant);
                let outcome = if mine { "removed" } else { "identity_unknown" };
                if mine {
                    self.people.identities.remove(&at);
                }
                self.act(*now, operator, request, "identity.remove", &format!("{issuer} {kind}:{value}"), outcome);
                Some(json!({ "outcome": outcome }))
            }
            ("api.identity_list", [Text(operator), Text(request), Int(now), Text(tenant), Json(after), Int(limit)]) => {
                let known = self.tenants.contains_key(tenant);
                let outcome = if known { "listed" } else { "tenant_unknown" };
                self.act(*now, operator, request, "identity.list", tenant, outcome);
                if !known {
                    return Some(json!({ "outcome": outcome }));
                }
                let limit = usize::try_from(*limit).ok()?.min(500);
                let after = (text(after, "issuer"), text(after, "match"), text(after, "value"));
                let mine =
                    self.people.identities.iter().filter(|(at, row)| **at > after && text(row, "tenant") == *tenant);
                let page: Vec<(&Selector, &Value)> = mine.take(limit).collect();
                let next = page.last().filter(|_| page.len() == limit);
                let next =
                    next.map(|((issuer, kind, value), _)| json!({ "issuer": issuer, "match": kind, "value": value }));
                let identities: Vec<&Value> = page.iter().map(|(_, row)| *row).collect();
                Some(json!({ "outcome": outcome, "identities": identities, "next": next }))
            }
            (
                "api.person_for_token",
                [Text(issuer), Text(iss), Text(subject), OptionalText(email), OptionalText(domain), Texts(groups)],
            ) => Some(self.person((issuer, iss), subject, email.as_deref(), domain.as_deref(), groups)),
            (
                "api.session_start",
                [
                    Text(tenant),
                    Text(client),
                    Int(version),
                    Int(now),
                    Text(jkt),
                    Bytes(proof),
                    Int(ends),
                    Text(sid),
                    Text(subject),
                    Text(iss),
                    Texts(scopes),
                    Int(iat),
                    Bytes(hash),
                    Int(idle),
                    Int(absolute),
                ],
            ) => {
                let outcome = if !self.client_is(tenant, client, *version) {
                    "client_changed"
                } else if self.is_revoked(tenant, client, subject, sid, *iat) {
                    "too_soon"
                } else if !self.use_proof(jkt, proof, *ends, *now) {
                    "proof_replayed"
                } else {
                    let session = Session {
                        tenant: tenant.clone(),
                        client_id: client.clone(),
                        subject: subject.clone(),
                        iss: iss.clone(),
                        jkt: jkt.clone(),
                        scopes: scopes.clone(),
                        created: *now,
                        idle: *idle,
                        absolute: *absolute,
                        ended: None,
                    };
                    self.people.sessions.insert(sid.clone(), session);
                    let token = Token { sid: sid.clone(), parent: None, used: None, dead: false };
                    self.people.tokens.insert(hash.clone(), token);
                    "ok"
                };
                Some(json!({ "outcome": outcome }))
            }
            (
                "api.session_for_refresh",
                [
                    Text(tenant),
                    Text(client),
                    Bytes(hash),
                    Text(jkt),
                    Int(now),
                    Text(issuer),
                    Text(iss),
                    Text(subject),
                    OptionalText(email),
                    OptionalText(domain),
                    Texts(groups),
                ],
            ) => {
                let person = self.person((issuer, iss), subject, email.as_deref(), domain.as_deref(), groups);
                let Some((sid, session)) = self.people.session_of(hash, tenant, client) else {
                    return Some(json!({ "outcome": "unknown" }));
                };
                Some(json!({ "outcome": "found", "state": self.people.state(hash, jkt, *now), "person": person,
                    "session": { "sid": sid, "tenant": session.tenant, "subject": session.subject, "iss": session.iss,
                        "scopes": session.scopes, "absolute_ms": session.absolute } }))
            }
            (
                "api.session_refresh",
                [
                    Text(tenant),
                    Text(client),
                    Int(version),
                    Int(now),
                    Text(jkt),
                    Bytes(proof),
                    Int(ends),
                    Bytes(hash),
                    OptionalBytes(next),
                    Int(iat),
                    Int(idle),
                ],
            ) => self.session_refresh(
                (tenant, client, *version),
                (jkt, proof, *ends),
                (hash, next.as_deref()),
                (*iat, *idle),
                *now,
            ),
            ("api.session_end", [Text(tenant), Text(client), OptionalBytes(hash), OptionalText(sid), Int(now)]) => {
                let sid = sid.clone().or_else(|| Some(self.people.tokens.get(hash.as_ref()?)?.sid.clone()));
                let mine = |session: &&Session| session.tenant == *tenant && session.client_id == *client;
                let found = sid.as_ref().and_then(|sid| self.people.sessions.get(sid)).filter(mine);
                Some(match (sid.clone(), found.map(|session| session.ended)) {
                    (Some(sid), Some(Some("revoked"))) => json!({ "outcome": "unchanged", "sid": sid }),
                    (Some(sid), Some(_)) => {
                        self.end("sid", &sid, now / 1000 + 20);
                        json!({ "outcome": "revoked", "sid": sid })
                    }
                    _ => json!({ "outcome": "unknown" }),
                })
            }
            _ => None,
        }
    }

    fn person(
        &self,
        (issuer, iss): (&str, &str),
        subject: &str,
        email: Option<&str>,
        domain: Option<&str>,
        groups: &[String],
    ) -> Value {
        let row = |kind: &str, value: &str| {
            let row = self.people.identities.get(&(issuer.to_owned(), kind.to_owned(), value.to_owned()));
            row.filter(|row| text(row, "iss") == iss)
        };
        let kinds: [(&str, Vec<&str>); 4] = [
            ("subject", vec![subject]),
            ("email", email.into_iter().collect()),
            ("domain", domain.into_iter().collect()),
            ("group", groups.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()),
        ];
        let rows = |(kind, values): (&'static str, Vec<&str>)| {
            (kind, values.into_iter().filter_map(|value| row(kind, value)).collect::<Vec<_>>())
        };
        let Some((by, rows)) = kinds.into_iter().map(rows).find(|(_, rows)| !rows.is_empty()) else {
            return json!({ "outcome": "unknown" });
        };
        let tenants: BTreeSet<String> = rows.iter().map(|row| text(row, "tenant")).collect();
        if rows.iter().any(|row| !flag(row, "enabled")) {
            return json!({ "outcome": "disabled" });
        }
        if tenants.len() > 1 {
            return json!({ "outcome": "ambiguous" });
        }
        let all = |name: &str| -> BTreeSet<String> {
            let lists = rows.iter().filter_map(|row| row.get(name)?.as_array());
            lists.flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        json!({ "outcome": "found", "tenant": tenants.first(), "by": by, "groups": all("groups"), "scopes": all("scopes") })
    }

    fn session_refresh(
        &mut self,
        (tenant, client, version): (&str, &str, i64),
        (jkt, proof, ends): (&str, &[u8], i64),
        (hash, next): (&[u8], Option<&[u8]>),
        (iat, idle): (i64, i64),
        now: i64,
    ) -> Option<Value> {
        if !self.client_is(tenant, client, version) {
            return Some(json!({ "outcome": "client_changed" }));
        }
        let Some((sid, session)) = self.people.session_of(hash, tenant, client) else {
            return Some(json!({ "outcome": "unknown" }));
        };
        let (sid, subject) = (sid.to_owned(), session.subject.clone());
        let state = self.people.state(hash, jkt, now);
        let answer = |outcome: &str| Some(json!({ "outcome": outcome, "sid": sid }));
        match state {
            "expired" => {
                self.people.sessions.get_mut(&sid)?.ended.get_or_insert("expired");
                return answer(state);
            }
            "ended" | "wrong_key" => return answer(state),
            "current" | "retry" if self.is_revoked(tenant, client, &subject, &sid, iat) => return answer("too_soon"),
            _ => {}
        }
        if next.is_none() && state != "reused" && !self.proofs.contains_key(&(jkt.to_owned(), proof.to_owned())) {
            return None;
        }
        if !self.use_proof(jkt, proof, ends, now) {
            return answer("proof_replayed");
        }
        if state == "reused" {
            self.people.sessions.get_mut(&sid)?.ended = Some("reused");
            self.end("sid", &sid, now / 1000 + 20);
            return answer(state);
        }
        let people = &mut self.people;
        if state == "current" {
            let parent = people.tokens.get(hash)?.parent.clone();
            for (other, token) in &mut people.tokens {
                token.dead |= parent.is_some() && token.parent == parent && other != hash;
            }
            people.tokens.get_mut(hash)?.used = Some(now);
        }
        let follows = Token { sid: sid.clone(), parent: Some(hash.to_owned()), used: None, dead: false };
        people.tokens.insert(next?.to_owned(), follows);
        let session = people.sessions.get_mut(&sid)?;
        session.idle = session.idle.max(idle.min(session.absolute));
        answer(if state == "current" { "rotated" } else { "retried" })
    }

    fn client_is(&self, tenant: &str, client: &str, seen: i64) -> bool {
        let current = self.client_for_token(client);
        let row = current.get("client").cloned().unwrap_or_default();
        text(&row, "tenant") == tenant && version(&row) == seen && flag(&row, "enabled")
    }

    fn is_revoked(&self, tenant: &str, client: &str, subject: &str, sid: &str, iat: i64) -> bool {
        let of = [("tenant", tenant), ("client_id", client), ("sub", subject), ("sid", sid)];
        let epoch = |(kind, value): &(&str, &str)| self.revocations.get(&((*kind).to_owned(), (*value).to_owned()));
        of.iter().filter_map(epoch).any(|(epoch, _)| *epoch >= iat)
    }

    fn use_proof(&mut self, jkt: &str, proof: &[u8], ends: i64, now: i64) -> bool {
        let id = (jkt.to_owned(), proof.to_owned());
        if self.proofs.contains_key(&id) {
            return false;
        }
        self.proofs.retain(|_, ends| *ends >= now);
        self.proofs.insert(id, ends);
        true
    }
}

impl People {
    /// Ends the sessions that a revocation is about.
    pub(super) fn revoked(&mut self, kind: &str, value: &str, epoch: i64) {
        for (sid, session) in &mut self.sessions {
            let hit = match kind {
                "sub" => session.subject == value,
                "sid" => sid == value,
                "client_id" => session.client_id == value,
                "tenant" => session.tenant == value,
                _ => false,
            };
            if hit && session.created < (epoch + 1) * 1000 {
                session.ended.get_or_insert("revoked");
            }
        }
    }

    /// The sessions and why each ended.
    pub(super) fn ends(&self) -> Vec<(String, Option<&'static str>)> {
        self.sessions.iter().map(|(sid, session)| (sid.clone(), session.ended)).collect()
    }

    /// What goes with an issuer.
    pub(super) fn forget_issuer(&mut self, issuer: &str) {
        self.identities.retain(|(of, _, _), _| of != issuer);
    }

    fn session_of(&self, hash: &[u8], tenant: &str, client: &str) -> Option<(&str, &Session)> {
        let token = self.tokens.get(hash)?;
        let session = self.sessions.get(&token.sid)?;
        (session.tenant == tenant && session.client_id == client).then_some((token.sid.as_str(), session))
    }

    /// Used once; by the holder of the key twice more within 20 s as long as no successor was used; anything else ends the session.
    fn state(&self, hash: &[u8], jkt: &str, now: i64) -> &'static str {
        let Some(token) = self.tokens.get(hash) else { return "unknown" };
        let Some(session) = self.sessions.get(&token.sid) else { return "unknown" };
        let children = || self.tokens.values().filter(|child| child.parent.as_deref() == Some(hash));
        match (session.ended, token.used) {
            (Some("expired"), _) => "expired",
            (Some(_), _) => "ended",
            _ if now >= session.idle || now >= session.absolute => "expired",
            (None, None) if !token.dead => {
                if jkt == session.jkt {
                    "current"
                } else {
                    "wrong_key"
                }
            }
            (None, Some(used))
                if !token.dead
                    && now - used <= 20_000
                    && jkt == session.jkt
                    && children().count() <= 2
                    && children().all(|child| child.used.is_none() && !child.dead) =>
            {
                "retry"
            }
            _ => "reused",
        }
    }
}

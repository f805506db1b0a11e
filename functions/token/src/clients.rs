//! The clients that were asked for lately, so that a token costs one statement.
//!
//! What is remembered decides nothing by itself: the statement that uses an assertion up demands that the row is still the one
//! that was read and enabled, and whoever is refused on the ground of a remembered row is judged again by the row as it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::clock::Timestamp;
use shared::name::ClientId;
use shared::port::{Database, Fault};

use crate::client::{self, Client};

/// How long a row is remembered, in milliseconds.
const KEPT: i64 = 60_000;
/// How many rows are remembered.
const MOST: usize = 512;

/// Rows of enabled clients and when each was read.
#[derive(Default)]
pub(crate) struct Clients {
    held: Mutex<HashMap<ClientId, (Arc<Client>, Timestamp)>>,
}

impl Clients {
    /// The client as it was read a short while ago.
    pub(crate) fn kept(&self, id: &ClientId, now: Timestamp) -> Option<Arc<Client>> {
        let held = self.lock();
        held.get(id).filter(|(_, read)| is_young(*read, now)).map(|(client, _)| Arc::clone(client))
    }

    /// The client as it is now; `None` for an unknown or disabled one, which is not remembered.
    pub(crate) async fn read<D: Database>(
        &self,
        database: &D,
        id: &ClientId,
        now: Timestamp,
    ) -> Result<Option<Arc<Client>>, Fault> {
        let found = client::find(database, id).await?.map(Arc::new);
        let mut held = self.lock();
        held.remove(id);
        if let Some(client) = &found {
            if held.len() >= MOST {
                held.retain(|_, (_, read)| is_young(*read, now));
            }
            let oldest = held.iter().min_by_key(|(_, (_, read))| *read).map(|(id, _)| id.clone());
            if let (true, Some(oldest)) = (held.len() >= MOST, oldest) {
                held.remove(&oldest);
            }
            held.insert(id.clone(), (Arc::clone(client), now));
        }
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, (Arc<Client>, Timestamp)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_young(read: Timestamp, now: Timestamp) -> bool {
    (0..KEPT).contains(&now.millis_since(read))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use testkit::{Issuer, Registry};

    use super::*;

    fn row(client_id: &str) -> Value {
        json!({"client_id": client_id, "tenant": "acme", "name": "", "jwks": {"keys": [Issuer::new("k").jwk()]},
            "algorithms": ["ES256"], "scopes": ["app"], "dpop": false, "ttl_seconds": 300, "enabled": true, "version": 1})
    }

    #[tokio::test]
    async fn no_more_clients_are_remembered_than_fit_and_none_for_longer_than_a_minute() {
        let (clients, registry) = (Clients::default(), Registry::with_tenant("acme"));
        let at = |millis| Timestamp::from_millis(1_800_000_000_000 + millis);
        let template = row("x");
        let mut read = 0;
        for number in 0..MOST + 10 {
            let id = ClientId::parse(&format!("c-{number}")).unwrap();
            let mut row = template.clone();
            row["client_id"] = json!(id.as_str());
            registry.add_client(row);
            read += 1;
            assert!(clients.read(&registry, &id, at(read)).await.unwrap().is_some());
        }
        assert_eq!(clients.lock().len(), MOST);
        let id = |number: usize| ClientId::parse(&format!("c-{number}")).unwrap();
        assert!(clients.kept(&id(9), at(read)).is_none(), "the oldest went first");
        assert!(clients.kept(&id(10), at(read)).is_some());
        let last = id(MOST + 9);
        for (millis, kept) in [(read, true), (read + KEPT - 1, true), (read + KEPT, false), (read - 1, false)] {
            assert_eq!(clients.kept(&last, at(millis)).is_some(), kept, "{millis}");
        }
        clients.read(&registry, &id(0), at(read + 2 * KEPT)).await.unwrap();
        assert_eq!(clients.lock().len(), 1, "what is too old makes room first");
    }

    #[tokio::test]
    async fn whoever_is_not_there_or_disabled_is_not_remembered_and_ends_what_was() {
        let (clients, registry) = (Clients::default(), Registry::with_tenant("acme"));
        let (id, now) = (ClientId::parse("one").unwrap(), Timestamp::from_seconds(1_800_000_000));
        assert!(clients.read(&registry, &id, now).await.unwrap().is_none());
        registry.add_client(row("one"));
        assert!(clients.read(&registry, &id, now).await.unwrap().is_some() && clients.kept(&id, now).is_some());
        let mut disabled = row("one");
        disabled["enabled"] = json!(false);
        registry.add_client(disabled);
        assert!(clients.read(&registry, &id, now).await.unwrap().is_none() && clients.kept(&id, now).is_none());
    }
}

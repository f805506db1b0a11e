//! The table of policy bundles, as migration 0013 has it.

use serde_json::{Value, json};

/// Bundles in the order they came.
#[derive(Clone, Default)]
pub(crate) struct Policies(Vec<Row>);

#[derive(Clone)]
struct Row {
    version: i64,
    hash: String,
    bundle: Value,
    state: &'static str,
    created: i64,
    promoted: Option<i64>,
}

impl Row {
    fn view(&self) -> Value {
        json!({ "version": self.version, "hash": self.hash, "state": self.state, "created_ms": self.created,
            "promoted_ms": self.promoted })
    }
}

impl Policies {
    fn add(&mut self, hash: &str, bundle: Value, state: &'static str, now: i64) -> Value {
        let version = self.0.last().map_or(1, |row| row.version + 1);
        let promoted = (state == "active").then_some(now);
        let row = Row { version, hash: hash.to_owned(), bundle, state, created: now, promoted };
        let view = row.view();
        self.0.push(row);
        view
    }

    pub(crate) fn put(&mut self, hash: &str, bundle: &Value, now: i64) -> Value {
        let known = |row: &&Row| row.hash == hash && matches!(row.state, "candidate" | "active");
        if let Some(row) = self.0.iter().find(known) {
            return json!({ "outcome": "unchanged", "policy": row.view() });
        }
        for row in self.0.iter_mut().filter(|row| row.state == "candidate") {
            row.state = "withdrawn";
        }
        json!({ "outcome": "candidate", "policy": self.add(hash, bundle.clone(), "candidate", now) })
    }

    pub(crate) fn promote(&mut self, hash: &str, now: i64) -> Value {
        if let Some(row) = self.0.iter().find(|row| row.state == "active" && row.hash == hash) {
            return json!({ "outcome": "unchanged", "policy": row.view(), "former": null });
        }
        let eligible = |row: &&Row| row.hash == hash && matches!(row.state, "candidate" | "former");
        let Some(row) = self.0.iter().rfind(eligible).cloned() else { return json!({ "outcome": "policy_unknown" }) };
        let mut former = Value::Null;
        for held in self.0.iter_mut().filter(|held| held.state == "active") {
            held.state = "former";
            former = held.view();
        }
        let policy = if row.state == "candidate" {
            let held = self.0.iter_mut().find(|held| held.version == row.version).unwrap();
            (held.state, held.promoted) = ("active", Some(now));
            held.view()
        } else {
            self.add(hash, row.bundle, "active", now)
        };
        json!({ "outcome": "promoted", "policy": policy, "former": former })
    }

    pub(crate) fn list(&self) -> Value {
        json!({ "outcome": "listed", "policies": self.0.iter().rev().map(Row::view).collect::<Vec<_>>() })
    }

    pub(crate) fn published(&self) -> Value {
        let of = |state: &str| {
            let row = self.0.iter().find(|row| row.state == state)?;
            Some(json!({ "version": row.version, "hash": row.hash, "bundle": row.bundle }))
        };
        json!({ "active": of("active"), "candidate": of("candidate") })
    }
}

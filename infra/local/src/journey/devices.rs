//! Devices: who is on one that is in order, and who is not.

use std::io;

use serde_json::{Value, json};

use super::Journey;
use crate::seed::act;

/// The device on which the key of `acme-bound` was made, which stands for the page's too.
pub(super) const DEVICE: &str = "laptop-7";
const SHIPPED: &str = include_str!("../../../../shared/policies/default.json");
const ENCRYPTED: &str = r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when { context.token.bound } unless {
    context has device && context.device has disk_encrypted && context.device.disk_encrypted };"#;

impl Journey<'_> {
    /// Before anybody has asked for anything: bound tokens of `acme` are good on devices whose disk is encrypted, and one device is known.
    /// Verifiers read policies and devices once a minute, so what comes later would have to be waited for.
    pub(super) async fn know_a_device(&self) -> io::Result<()> {
        let mut bundle: Value = serde_json::from_str(SHIPPED).map_err(io::Error::other)?;
        bundle["tenants"] = json!({"acme": [{"id": "encrypted", "text": ENCRYPTED}]});
        // The shipped examples are about acme too.
        for example in bundle["examples"].as_array_mut().into_iter().flatten() {
            example["ask"]["principal"]["tenant"] = json!("initech");
        }
        let put = act(self.stack, json!({"operation": "policy.put", "operator": "demo", "bundle": bundle})).await?;
        let hash = &put["policy"]["hash"];
        act(self.stack, json!({"operation": "policy.promote", "operator": "demo", "hash": hash})).await?;
        let device = json!({"id": DEVICE, "disk_encrypted": true, "keys": [self.client("acme-bound")?.thumbprint()]});
        act(self.stack, json!({"operation": "device.put", "operator": "demo", "tenant": "acme", "devices": [device]}))
            .await?;
        self.stack.invoke("trust", &json!({})).await?;
        Ok(())
    }
}

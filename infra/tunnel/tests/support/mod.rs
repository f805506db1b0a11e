#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers outside of #[test] functions; a test may fail loudly")]

use std::path::{Path, PathBuf};

use tunnel::{Access, Gate, Hosts};

pub(crate) const API: &str = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com";
pub(crate) const AUD: &str = "4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2";
pub(crate) const GUEST: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

pub(crate) const HOSTS: &str = r#"{
  "team": "example", "zone": "example.com", "tunnel_id": "6ff42ae2-765d-4adf-8112-31c55c1551ef", "stage": "v1",
  "people": { "api.example.com": { "tier": "managed" } }, "machines": "machines.example.com"
}"#;

/// As `terraform output -json` prints it, with an output that is not ours.
pub(crate) fn outputs() -> String {
    format!(
        r#"{{"access":{{"sensitive":false,"type":["object",{{}}],"value":{{"machines":"machines.example.com",
        "people":{{"api.example.com":{{"aud":"{AUD}","tier":"managed"}}}},"stage":"v1","team":"example",
        "tunnel_id":"6ff42ae2-765d-4adf-8112-31c55c1551ef"}}}},
        "tunnel_cname":{{"sensitive":false,"type":"string","value":"6ff42ae2-765d-4adf-8112-31c55c1551ef.cfargotunnel.com"}}}}"#
    )
}

pub(crate) fn gate() -> Gate {
    Gate::agree(&Hosts::parse(HOSTS).unwrap(), &Access::parse(&outputs()).unwrap(), API, "v1").unwrap()
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

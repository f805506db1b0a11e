//! Workloads that bring an assertion of their own platform instead of a registered key: AWS roles, GitHub Actions jobs,
//! Kubernetes service accounts, SPIFFE workloads (RFC 7521 §4.2, draft-ietf-oauth-rfc7523bis).
//!
//! Each kind of issuer has [`terms`]: what its assertions must be, and by which of their claims a workload may be told from the
//! others. A [`Rule`] of a client names one issuer and exact values of such claims; there is no pattern to get wrong.

mod rule;
pub(crate) mod terms;
mod workload;

pub use self::rule::Rule;
pub(crate) use self::terms::is_spiffe_domain;
pub use self::workload::{Claimed, Workload, claimed, verify};

#[cfg(test)]
mod tests;

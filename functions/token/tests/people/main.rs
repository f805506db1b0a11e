//! People at the token endpoint: exchange, refresh, revocation, introspection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod exchange;
mod refresh;
mod service;
mod world;

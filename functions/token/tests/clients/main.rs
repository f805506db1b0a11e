//! Clients at the token endpoint: who they are by what their platform signs, and what asking for them costs.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod federated;
mod remembered;
mod world;

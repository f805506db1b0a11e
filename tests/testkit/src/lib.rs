//! Small honest fakes for the ports of shared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test kit may fail loudly")]

pub mod access;
pub mod attacks;
pub mod callers;
pub mod clients;
pub mod clock;
pub mod crash;
pub mod data_keys;
pub mod files;
pub mod issuer;
pub mod memory;
pub mod objects;
pub mod platform;
mod policies;
pub mod trust_bucket;
pub mod virtual_time;
pub mod wrapping;

pub use access::Team;
pub use clients::Registry;
pub use clock::FixedClock;
pub use files::Files;
pub use issuer::Issuer;
pub use objects::{Objects, Signing};
pub use platform::Platform;
pub use trust_bucket::TrustBucket;
pub use virtual_time::VirtualTime;

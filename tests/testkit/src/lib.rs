//! Small honest fakes for the ports of shared.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test kit may fail loudly")]

pub mod clients;
pub mod clock;
pub mod issuer;
pub mod trust_bucket;

pub use clients::Registry;
pub use clock::FixedClock;
pub use issuer::Issuer;
pub use trust_bucket::TrustBucket;

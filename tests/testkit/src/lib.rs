//! Small honest fakes for the ports of shared.

pub mod clients;
pub mod clock;
pub mod trust_bucket;

pub use clients::Registry;
pub use clock::FixedClock;
pub use trust_bucket::TrustBucket;

//! S3 behind the ports of shared.
//!
//! Two clients that must not be mixed up: [`Bucket`] reads and writes with the function's own role over the network;
//! [`Presigner`] signs URLs for the host that the *client* will use, with a signer session, and never sends anything.

mod bucket;
mod fault;
mod presigner;

pub use bucket::Bucket;
pub use presigner::Presigner;

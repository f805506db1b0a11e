//! S3 behind the ports of shared.
//!
//! Clients that must not be mixed up: [`Bucket`] reads and writes with the function's own role over the network; [`Parts`] goes
//! the same way with a signer session, for what no client can be given a URL for;
//! [`Presigner`] signs URLs and forms for the host that the *client* will use, with a signer session, and never sends anything.

mod bucket;
mod fault;
mod form;
mod parts;
mod presigner;
mod query;
mod stamp;

pub use bucket::Bucket;
pub use parts::Parts;
pub use presigner::Presigner;

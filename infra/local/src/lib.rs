//! The local stack: strict stand-ins for AWS around the real function binaries, on loopback only.
//!
//! Nothing here depends on `shared` or on a function: the same code on both sides of a signature, a policy or an
//! event would prove nothing about either.

pub mod account;
pub mod ca;
pub mod clock;
pub mod faults;
pub mod http;
pub mod kms;
pub mod policy;
mod request_id;
pub mod s3;
pub mod sigv4;
pub mod sts;
pub mod template;

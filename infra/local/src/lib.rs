//! The local stack: strict stand-ins for AWS around the real function binaries, on loopback only.
//!
//! Nothing here depends on `shared` or on a function: the same code on both sides of a signature, a policy or an
//! event would prove nothing about either.

pub mod account;
pub mod ca;
pub mod clock;
pub mod http;
pub mod policy;
pub mod postgres;
pub mod rds;
pub mod sigv4;
pub mod template;

//! The local stack: strict stand-ins for AWS around the real function binaries, on loopback only.

pub mod faults;
pub mod kms;

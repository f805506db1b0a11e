//! The local stack: strict stand-ins for AWS around the real function binaries, on loopback only.
//!
//! Nothing here depends on `shared` or on a function: the same code on both sides of a signature, a policy or an
//! event would prove nothing about either.

pub mod access;
pub mod account;
pub mod application;
pub mod aws_json;
pub mod ca;
pub(crate) mod call;
pub mod clock;
pub mod dev;
pub mod events;
pub mod faults;
pub mod function_files;
pub mod gateway;
pub mod http;
pub mod journey;
pub mod kms;
pub mod lambda;
pub mod own;
pub mod policy;
pub mod postgres;
pub mod rds;
pub mod request_id;
pub mod runtime_api;
pub mod s3;
pub mod seed;
pub mod session;
pub mod sigv4;
pub mod ssm;
pub mod stack;
pub mod sts;
pub mod template;
pub mod view;

//! The pure core of Portcullis: decisions, formats and ports.
//!
//! Nothing here links an AWS SDK or a database driver, and nothing reads the clock, the environment or randomness except
//! through [`clock`], [`config`] and [`entropy`].

pub mod access;
pub mod audit;
pub mod blind_index;
pub mod boot;
pub mod clock;
pub mod config;
pub mod credential;
pub mod details;
pub mod device;
pub mod digest;
pub mod dpop;
pub mod encoding;
pub mod entropy;
pub mod esdk;
pub mod federation;
pub mod gate;
pub mod http;
pub mod issuer;
pub mod json;
pub mod jwk;
pub mod jwks;
pub mod jwt;
pub mod key_store;
pub mod name;
pub mod object;
pub mod pc1;
pub mod policy;
pub mod port;
pub mod problem;
pub mod recent;
pub mod scope;
pub mod secret;
pub mod trust;
pub mod url;

#[cfg(test)]
mod rsa;

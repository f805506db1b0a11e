//! Encrypts and decrypts database fields under data keys that KMS wraps, and makes their blind indexes.
//!
//! One program, deployed once for each right: the deployment that encrypts cannot open what it wrote yesterday, the one that
//! decrypts cannot make a record. Tenant and rights come from the verified token, the place of a field from the request, and
//! nothing that decides comes from the record.

mod batch;
mod cache;
pub mod config;
mod decrypt;
mod encrypt;
mod export;
mod handler;
mod import;
mod index;
mod inspect;
mod keys;
mod maintain;
mod refusal;
mod rewrap;
mod scope;

pub use config::{Config, Deployment, DeviceColumns, ImportKeys, Operation, Operations, Purposes, Settings};
pub use handler::{DataKey, World};
pub use maintain::{Code as MaintenanceCode, Denied, Maintained, Maintenance, MaintenanceWorld, Program, Shredder};
pub use refusal::Refusal;

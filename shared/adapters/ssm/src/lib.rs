//! Signing keys in SSM Parameter Store: SecureString parameters behind the ports of shared.
//!
//! One parameter per key, named by the key's id under one path; the key pair in it is PKCS#8 and is used in this process.
//! Nothing is read before the first signature.

mod fault;
mod keys;
mod pair;
mod patience;
mod pem;
mod signer;

pub use keys::SsmSigningKeys;
pub use signer::SsmSigner;

#[cfg(test)]
mod testing;

//! KMS: symmetric and signing keys, strict in its refusals.

mod blob;
mod crypto;
mod error;
mod input;
mod key;
mod keyring;
mod manage;
mod pair;
mod sign;

#[cfg(test)]
mod tests;

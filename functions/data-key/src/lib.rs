//! Encrypts and decrypts database fields under data keys that KMS wraps.

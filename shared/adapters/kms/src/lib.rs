//! KMS behind the ports of shared.

//! Publishes the trust objects from Postgres and drives the signing keys.

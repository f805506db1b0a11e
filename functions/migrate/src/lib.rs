//! Schema, database roles and grants.

//! Operators' acts: tenants, clients, revocations.

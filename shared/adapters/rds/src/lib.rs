//! Postgres behind RDS Proxy: IAM tokens, verify-full TLS, typed statements.

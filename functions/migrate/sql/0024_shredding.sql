-- Destroying data keys is a login's own. The deployment that answers callers, moves records and wraps keys anew cannot do it any more,
-- whoever may invoke it and whatever runs in its environment; the one that can does nothing else and opens no key.

DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'data_key_shred') THEN
        CREATE ROLE data_key_shred LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
    END IF;
    ALTER ROLE data_key_shred SET statement_timeout = '5s';
    ALTER ROLE data_key_shred SET lock_timeout = '2s';
    ALTER ROLE data_key_shred SET idle_in_transaction_session_timeout = '5s';
    ALTER ROLE data_key_shred SET search_path = pg_catalog;
    ALTER ROLE data_key_shred SET timezone = 'UTC';
    GRANT rds_iam TO data_key_shred;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO data_key_shred', current_database());
    GRANT USAGE ON SCHEMA api TO data_key_shred;
END
$roles$;

REVOKE EXECUTE ON FUNCTION api.shred_data_keys(text, text, bigint, text, text, uuid[], bigint) FROM data_key_maintain;
GRANT EXECUTE ON FUNCTION api.shred_data_keys(text, text, bigint, text, text, uuid[], bigint) TO data_key_shred;

-- The deployment that moves records: its login, and the active keys as it may open them.
--
-- It opens what readers open, and seals under the same active keys as the encrypt login; so it learns the readers' wrapping of
-- them and never the writers'. A key that it makes is wrapped for both, as any other.

DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'data_key_maintain') THEN
        CREATE ROLE data_key_maintain LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
    END IF;
    ALTER ROLE data_key_maintain SET statement_timeout = '5s';
    ALTER ROLE data_key_maintain SET lock_timeout = '2s';
    ALTER ROLE data_key_maintain SET idle_in_transaction_session_timeout = '5s';
    ALTER ROLE data_key_maintain SET search_path = pg_catalog;
    ALTER ROLE data_key_maintain SET timezone = 'UTC';
    GRANT rds_iam TO data_key_maintain;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO data_key_maintain', current_database());
    GRANT USAGE ON SCHEMA api TO data_key_maintain;
END
$roles$;

-- A key as writers see it, with the readers' wrapping in place of theirs.
CREATE FUNCTION internal.data_key_to_move(p_tenant text, p_key jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (p_key - 'writer_wrapped') || jsonb_build_object('wrapped', encode(k.wrapped, 'hex'))
      FROM public.data_keys k
     WHERE k.tenant = p_tenant AND k.id = (p_key ->> 'id')::uuid
$$;

-- As api.current_data_keys.
CREATE FUNCTION api.current_data_keys_to_move(p_tenant text, p_wanted jsonb, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_taken CONSTANT jsonb := api.current_data_keys(p_tenant, p_wanted, p_now_ms);
    v_keys  jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT coalesce(jsonb_agg(internal.data_key_to_move(p_tenant, taken.key)), '[]') INTO v_keys
      FROM jsonb_array_elements(v_taken -> 'keys') AS taken(key);
    RETURN jsonb_build_object('keys', v_keys);
END
$$;

-- As api.insert_data_key.
CREATE FUNCTION api.insert_data_key_to_move(
    p_tenant text, p_id uuid, p_scope text, p_kms_key_arn text, p_key_material_id text,
    p_wrapped bytea, p_writer_wrapped bytea, p_messages bigint, p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_taken CONSTANT jsonb := api.insert_data_key(p_tenant, p_id, p_scope, p_kms_key_arn, p_key_material_id,
                                                  p_wrapped, p_writer_wrapped, p_messages, p_now_ms);
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    RETURN v_taken || jsonb_build_object('key', internal.data_key_to_move(p_tenant, v_taken -> 'key'));
END
$$;

-- The keys among `p_ids` that are the tenant's own and not destroyed, marked as exported before anybody learns how they are wrapped:
-- a receipt of destruction names what was exported, whichever of the two came first.
CREATE FUNCTION api.export_data_keys(p_tenant text, p_ids uuid[], p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF cardinality(p_ids) > 256 THEN
        RAISE EXCEPTION 'too many keys' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    UPDATE public.data_keys SET exported_at = to_timestamp(p_now_ms / 1000.0)
     WHERE tenant = p_tenant AND id = ANY (p_ids) AND purpose = 'field' AND state <> 'shredded' AND exported_at IS NULL;
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', k.id, 'kms_key_arn', k.kms_key_arn, 'wrapped', encode(k.wrapped, 'hex'))), '[]')
      INTO v_keys
      FROM public.data_keys k
     WHERE k.tenant = p_tenant AND k.id = ANY (p_ids) AND k.purpose = 'field' AND k.state <> 'shredded'
       AND k.exported_at IS NOT NULL;
    RETURN jsonb_build_object('keys', v_keys);
END
$$;

REVOKE ALL ON FUNCTION
    internal.data_key_to_move(text, jsonb),
    api.export_data_keys(text, uuid[], bigint),
    api.current_data_keys_to_move(text, jsonb, bigint),
    api.insert_data_key_to_move(text, uuid, text, text, text, bytea, bytea, bigint, bigint)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    api.export_data_keys(text, uuid[], bigint),
    api.current_data_keys_to_move(text, jsonb, bigint),
    api.insert_data_key_to_move(text, uuid, text, text, text, bytea, bytea, bigint, bigint),
    api.data_keys_for_decrypt(text, uuid[]),
    api.data_keys_for_inspect(text, uuid[], bigint)
TO data_key_maintain;

-- Keys of blind indexes, one active per tenant, and what `inspect` may know of a key.
--
-- An index key ends with no day: an index that changed overnight would find nothing. Its `encrypt_until` is infinite, and the
-- table's unique index keeps it alone. It is never wrapped for writers: `purpose=index` is the encrypt login's own.

CREATE FUNCTION internal.index_key(p_tenant text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('id', k.id, 'kms_key_arn', k.kms_key_arn, 'wrapped', encode(k.wrapped, 'hex'))
      FROM public.data_keys k
     WHERE k.tenant = p_tenant AND k.scope = 'index' AND k.purpose = 'index' AND k.state = 'active'
$$;

-- {"outcome":"found","key":{id,kms_key_arn,wrapped}} | {"outcome":"none"}
CREATE FUNCTION api.current_index_key(p_tenant text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_key jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    v_key := internal.index_key(p_tenant);
    IF v_key IS NULL THEN
        RETURN jsonb_build_object('outcome', 'none');
    END IF;
    RETURN jsonb_build_object('outcome', 'found', 'key', v_key);
END
$$;

-- Makes an index key the tenant's, or answers the key of whoever was faster: `inserted` or `lost`, and the key in force.
CREATE FUNCTION api.insert_index_key(
    p_tenant text, p_id uuid, p_kms_key_arn text, p_key_material_id text, p_wrapped bytea, p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_outcome text;
    v_key     jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    INSERT INTO public.data_keys (id, tenant, scope, purpose, kms_key_arn, key_material_id, wrapped,
                                  context, created_at, encrypt_until, reserved, state)
    VALUES (p_id, p_tenant, 'index', 'index', p_kms_key_arn, p_key_material_id, p_wrapped,
            jsonb_build_object('tenant', p_tenant, 'purpose', 'index', 'data_key_id', p_id),
            to_timestamp(p_now_ms / 1000.0), 'infinity', 0, 'active')
    ON CONFLICT (tenant, scope, purpose) WHERE state = 'active' DO NOTHING;
    v_outcome := CASE WHEN FOUND THEN 'inserted' ELSE 'lost' END;
    v_key := internal.index_key(p_tenant);
    IF v_key IS NULL THEN
        RAISE EXCEPTION 'no key came into force' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'key', v_key);
END
$$;

-- What a record's header points at: the field keys among `p_ids` that are the tenant's own, without any wrapping. A key past
-- its day says `decrypt_only`, whether or not somebody has closed it already.
CREATE FUNCTION api.data_keys_for_inspect(p_tenant text, p_ids uuid[], p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF cardinality(p_ids) > 256 THEN
        RAISE EXCEPTION 'too many keys' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', k.id, 'scope', k.scope,
               'state', CASE WHEN k.state = 'active' AND k.encrypt_until <= to_timestamp(p_now_ms / 1000.0)
                             THEN 'decrypt_only' ELSE k.state END,
               'created_at', floor(extract(epoch FROM k.created_at))::bigint)), '[]')
      INTO v_keys
      FROM public.data_keys k
     WHERE k.tenant = p_tenant AND k.id = ANY (p_ids) AND k.purpose = 'field';
    RETURN jsonb_build_object('keys', v_keys);
END
$$;

REVOKE ALL ON FUNCTION
    internal.index_key(text),
    api.current_index_key(text),
    api.insert_index_key(text, uuid, text, text, bytea, bigint),
    api.data_keys_for_inspect(text, uuid[], bigint)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    api.current_index_key(text),
    api.insert_index_key(text, uuid, text, text, bytea, bigint)
TO data_key_encrypt;
GRANT EXECUTE ON FUNCTION api.data_keys_for_inspect(text, uuid[], bigint) TO data_key_encrypt, data_key_decrypt;

-- Data keys: wrapped by KMS, one active field key per tenant, scope and day.
--
-- The encrypt login learns the writer's wrapping of a key while the key is active, the decrypt login the other wrapping;
-- neither learns both, and neither touches the table. `context` is a copy for audits: nobody hands it to KMS.

CREATE TABLE public.data_keys (
    id              uuid        PRIMARY KEY,
    tenant          text        NOT NULL REFERENCES public.tenants,
    scope           text        NOT NULL CHECK (
                                    scope ~ '^column:[A-Za-z_][A-Za-z0-9_]{0,62}/[A-Za-z_][A-Za-z0-9_]{0,62}$'
                                    OR scope ~ '^subject:[A-Za-z0-9._~-]{1,128}$'
                                    OR scope = 'index'),
    purpose         text        NOT NULL CHECK (purpose IN ('field', 'index')),
    kms_key_arn     text        NOT NULL CHECK (kms_key_arn ~ '^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/[A-Za-z0-9-]+$'),
    key_material_id text        CHECK (length(key_material_id) BETWEEN 1 AND 64),
    wrapped         bytea       CHECK (octet_length(wrapped) BETWEEN 1 AND 6144),
    writer_wrapped  bytea       CHECK (octet_length(writer_wrapped) BETWEEN 1 AND 6144),
    context         jsonb       NOT NULL,
    created_at      timestamptz NOT NULL,
    encrypt_until   timestamptz NOT NULL CHECK (encrypt_until > created_at),
    reserved        bigint      NOT NULL CHECK (reserved BETWEEN 0 AND 4294967296),
    state           text        NOT NULL CHECK (state IN ('active', 'decrypt_only', 'shredded')),
    exported_at     timestamptz,
    shredded_at     timestamptz,
    CONSTRAINT shredded_is_gone CHECK ((state = 'shredded') = (wrapped IS NULL)),
    CONSTRAINT shredded_is_dated CHECK ((state = 'shredded') = (shredded_at IS NOT NULL)),
    CONSTRAINT writers_need_an_active_field_key CHECK (writer_wrapped IS NULL OR (state = 'active' AND purpose = 'field')),
    CONSTRAINT index_keys_have_the_index_scope CHECK ((purpose = 'index') = (scope = 'index'))
);
CREATE INDEX data_keys_by_scope ON public.data_keys (tenant, scope, purpose, state);
CREATE UNIQUE INDEX data_keys_one_active ON public.data_keys (tenant, scope, purpose) WHERE state = 'active';

ALTER TABLE public.data_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON public.data_keys TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));

CREATE FUNCTION internal.data_key_moves_forward() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c_order CONSTANT text[] := ARRAY['active', 'decrypt_only', 'shredded'];
BEGIN
    IF array_position(c_order, NEW.state) < array_position(c_order, OLD.state) OR NEW.reserved < OLD.reserved THEN
        RAISE EXCEPTION 'a data key never moves backwards' USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.id, NEW.tenant, NEW.scope, NEW.purpose, NEW.created_at, NEW.encrypt_until)
        IS DISTINCT FROM (OLD.id, OLD.tenant, OLD.scope, OLD.purpose, OLD.created_at, OLD.encrypt_until) THEN
        RAISE EXCEPTION 'a data key stays what it is' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER moves_forward BEFORE UPDATE ON public.data_keys
    FOR EACH ROW EXECUTE FUNCTION internal.data_key_moves_forward();

-- Takes `p_messages` messages of a scope's active key, or closes the key when its day or its messages have ended.
-- Answers null when the scope has no usable key.
CREATE FUNCTION internal.take_data_key(p_tenant text, p_scope text, p_messages bigint, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c_cap  CONSTANT bigint := 4294967296;
    v_now  CONSTANT timestamptz := to_timestamp(p_now_ms / 1000.0);
    v_key  public.data_keys;
BEGIN
    IF p_messages > 0 THEN
        UPDATE public.data_keys SET reserved = reserved + p_messages
         WHERE tenant = p_tenant AND scope = p_scope AND purpose = 'field' AND state = 'active'
           AND encrypt_until > v_now AND reserved + p_messages <= c_cap
        RETURNING * INTO v_key;
    ELSE
        SELECT * INTO v_key FROM public.data_keys
         WHERE tenant = p_tenant AND scope = p_scope AND purpose = 'field' AND state = 'active' AND encrypt_until > v_now;
    END IF;
    IF v_key.id IS NULL THEN
        UPDATE public.data_keys SET state = 'decrypt_only', writer_wrapped = NULL
         WHERE tenant = p_tenant AND scope = p_scope AND purpose = 'field' AND state = 'active'
           AND (encrypt_until <= v_now OR reserved + p_messages > c_cap);
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object(
        'scope', v_key.scope,
        'id', v_key.id,
        'kms_key_arn', v_key.kms_key_arn,
        'writer_wrapped', encode(v_key.writer_wrapped, 'hex'),
        'encrypt_until', (extract(epoch FROM v_key.encrypt_until) * 1000)::bigint,
        'messages', p_messages);
END
$$;

-- The active field keys of some scopes, with messages reserved as asked: `[{"scope", "messages"}]`. A scope without a usable
-- key is absent from the answer.
CREATE FUNCTION api.current_data_keys(p_tenant text, p_wanted jsonb, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_wanted record;
    v_key    jsonb;
    v_keys   jsonb := '[]';
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF jsonb_array_length(p_wanted) > 256 THEN
        RAISE EXCEPTION 'too many scopes' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    -- One order for all callers, so that no two of them wait for each other.
    FOR v_wanted IN
        SELECT w.scope, w.messages FROM jsonb_to_recordset(p_wanted) AS w(scope text, messages bigint) ORDER BY w.scope COLLATE "C"
    LOOP
        IF v_wanted.messages IS NULL OR v_wanted.messages NOT BETWEEN 0 AND 100000 THEN
            RAISE EXCEPTION 'a reservation out of range' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        v_key := internal.take_data_key(p_tenant, v_wanted.scope, v_wanted.messages, p_now_ms);
        IF v_key IS NOT NULL THEN
            v_keys := v_keys || v_key;
        END IF;
    END LOOP;
    RETURN jsonb_build_object('keys', v_keys);
END
$$;

-- Makes a field key active for a day, or answers the key of whoever was faster: `inserted` or `lost`, and the key in force
-- with `p_messages` messages reserved.
CREATE FUNCTION api.insert_data_key(
    p_tenant text, p_id uuid, p_scope text, p_kms_key_arn text, p_key_material_id text,
    p_wrapped bytea, p_writer_wrapped bytea, p_messages bigint, p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c_day CONSTANT interval := '24 hours';
    v_now CONSTANT timestamptz := to_timestamp(p_now_ms / 1000.0);
    v_key jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF p_messages IS NULL OR p_messages NOT BETWEEN 0 AND 100000 THEN
        RAISE EXCEPTION 'a reservation out of range' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A winner can reach its day's end between the two statements; then there is room for ours.
    FOR v_attempt IN 1..3 LOOP
        INSERT INTO public.data_keys (id, tenant, scope, purpose, kms_key_arn, key_material_id, wrapped, writer_wrapped,
                                      context, created_at, encrypt_until, reserved, state)
        VALUES (p_id, p_tenant, p_scope, 'field', p_kms_key_arn, p_key_material_id, p_wrapped, p_writer_wrapped,
                jsonb_build_object('tenant', p_tenant, 'purpose', 'field', 'data_key_id', p_id),
                v_now, v_now + c_day, 0, 'active')
        ON CONFLICT (tenant, scope, purpose) WHERE state = 'active' DO NOTHING;
        IF FOUND THEN
            v_key := internal.take_data_key(p_tenant, p_scope, p_messages, p_now_ms);
            RETURN jsonb_build_object('outcome', 'inserted', 'key', v_key);
        END IF;
        v_key := internal.take_data_key(p_tenant, p_scope, p_messages, p_now_ms);
        IF v_key IS NOT NULL THEN
            RETURN jsonb_build_object('outcome', 'lost', 'key', v_key);
        END IF;
    END LOOP;
    RAISE EXCEPTION 'no key came into force' USING ERRCODE = 'serialization_failure';
END
$$;

-- What opens records: the keys among `p_ids` that are the tenant's own. Any other id is absent, whoever it belongs to.
CREATE FUNCTION api.data_keys_for_decrypt(p_tenant text, p_ids uuid[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF cardinality(p_ids) > 256 THEN
        RAISE EXCEPTION 'too many keys' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', k.id, 'scope', k.scope, 'state', k.state, 'kms_key_arn', k.kms_key_arn,
               'wrapped', encode(k.wrapped, 'hex'))), '[]')
      INTO v_keys
      FROM public.data_keys k
     WHERE k.tenant = p_tenant AND k.id = ANY (p_ids) AND k.purpose = 'field';
    RETURN jsonb_build_object('keys', v_keys);
END
$$;

REVOKE ALL ON FUNCTION
    internal.data_key_moves_forward(), internal.take_data_key(text, text, bigint, bigint),
    api.current_data_keys(text, jsonb, bigint),
    api.insert_data_key(text, uuid, text, text, text, bytea, bytea, bigint, bigint),
    api.data_keys_for_decrypt(text, uuid[])
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    api.current_data_keys(text, jsonb, bigint),
    api.insert_data_key(text, uuid, text, text, text, bytea, bytea, bigint, bigint)
TO data_key_encrypt;
GRANT EXECUTE ON FUNCTION api.data_keys_for_decrypt(text, uuid[]) TO data_key_decrypt;

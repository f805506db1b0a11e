-- Maintenance of data keys, by the login of the maintaining deployment: closing keys before their day ends and once it has,
-- wrapping them anew after the KMS key was rotated, and destroying them.
--
-- Each function changes rows and writes the audit in one statement, so that a lost answer costs nothing: what is sent again finds
-- the work done. Rows of all tenants are read where the act is above tenants; they are changed as their own tenant's, one by one.

-- What was destroyed, when, on whose word. A receipt holds no key and outlives them all.
CREATE TABLE public.shred_receipts (
    id         uuid   PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant     text   NOT NULL REFERENCES public.tenants,
    at_ms      bigint NOT NULL,
    operator   text   NOT NULL CHECK (length(operator) BETWEEN 1 AND 128),
    request_id text   NOT NULL CHECK (length(request_id) BETWEEN 1 AND 128),
    keys       jsonb  NOT NULL CHECK (jsonb_typeof(keys) = 'array'),
    digest     text   NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$')
);
ALTER TABLE public.shred_receipts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- No UPDATE and no DELETE: a receipt stays as it was given.
CREATE POLICY of_tenant_read ON public.shred_receipts FOR SELECT TO CURRENT_USER
    USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY of_tenant_given ON public.shred_receipts FOR INSERT TO CURRENT_USER
    WITH CHECK (tenant = current_setting('portcullis.tenant', true));

-- From when on no environment can still encrypt under the key, once somebody asked to shred it; and the receipt of its end.
ALTER TABLE public.data_keys
    ADD COLUMN shred_after timestamptz,
    ADD COLUMN receipt     uuid REFERENCES public.shred_receipts,
    ADD CONSTRAINT shredding_is_closed CHECK (shred_after IS NULL OR state <> 'active');

CREATE POLICY across_tenants_read ON public.data_keys FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

-- Closes a tenant's active field keys, of one scope or of all: {"outcome":"rotated"|"unchanged","closed":n} | {"outcome":"tenant_unknown"}.
CREATE FUNCTION api.rotate_data_keys(p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_scope text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_closed  bigint;
    v_outcome text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF NOT EXISTS (SELECT FROM public.tenants t WHERE t.tenant = p_tenant) THEN
        RETURN jsonb_build_object('outcome', 'tenant_unknown');
    END IF;
    UPDATE public.data_keys SET state = 'decrypt_only', writer_wrapped = NULL
     WHERE tenant = p_tenant AND purpose = 'field' AND state = 'active' AND (p_scope IS NULL OR scope = p_scope);
    GET DIAGNOSTICS v_closed = ROW_COUNT;
    v_outcome := CASE WHEN v_closed > 0 THEN 'rotated' ELSE 'unchanged' END;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'keys.rotate', p_tenant, coalesce(p_scope, 'all scopes'),
                                v_outcome, jsonb_build_object('closed', v_closed));
    RETURN jsonb_build_object('outcome', v_outcome, 'closed', v_closed);
END
$$;

-- Closes the field keys of all tenants whose day has ended and whom nobody has asked for since, at most p_limit of them: a wrapping for
-- writers is not to outlive its day. {"outcome":"rotated"|"unchanged","closed":n}, and there may be more where n = p_limit.
CREATE FUNCTION api.close_ended_data_keys(p_operator text, p_request_id text, p_now_ms bigint, p_limit bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_ended   record;
    v_count   bigint;
    v_closed  bigint := 0;
    v_outcome text;
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'a limit out of range' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR v_ended IN SELECT * FROM internal.ended_data_keys(p_now_ms, p_limit) LOOP
        PERFORM internal.enter_tenant(v_ended.tenant);
        UPDATE public.data_keys SET state = 'decrypt_only', writer_wrapped = NULL
         WHERE id = v_ended.id AND tenant = v_ended.tenant AND state = 'active';
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_closed := v_closed + v_count;
    END LOOP;
    v_outcome := CASE WHEN v_closed > 0 THEN 'rotated' ELSE 'unchanged' END;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'keys.rotate', NULL, 'ended keys', v_outcome,
                                jsonb_build_object('closed', v_closed));
    RETURN jsonb_build_object('outcome', v_outcome, 'closed', v_closed);
END
$$;

-- All of them are read before the first is changed: who changes has entered a tenant and sees no other.
CREATE FUNCTION internal.ended_data_keys(p_now_ms bigint, p_limit bigint) RETURNS SETOF public.data_keys
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM internal.across_tenants(true);
    RETURN QUERY SELECT * FROM public.data_keys k
     WHERE k.purpose = 'field' AND k.state = 'active' AND k.encrypt_until <= to_timestamp(p_now_ms / 1000.0)
     ORDER BY k.tenant COLLATE "C", k.scope COLLATE "C" LIMIT p_limit;
    PERFORM internal.across_tenants(false);
END
$$;
CREATE INDEX data_keys_active_by_end ON public.data_keys (encrypt_until) WHERE state = 'active' AND purpose = 'field';

-- How many keys another material than p_material wraps, of all that are left: {"stale":n,"foreign":n,"keys":n}. `foreign` are those of
-- another KMS key, which no ReEncrypt of ours can open.
CREATE FUNCTION api.count_stale_data_keys(p_kms_key_arn text, p_material text, p_after uuid) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_counts jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT jsonb_build_object(
               'stale', count(*) FILTER (WHERE k.kms_key_arn = p_kms_key_arn AND k.key_material_id IS DISTINCT FROM p_material),
               'foreign', count(*) FILTER (WHERE k.kms_key_arn <> p_kms_key_arn),
               'keys', count(*))
      INTO v_counts
      FROM public.data_keys k
     WHERE k.state <> 'shredded' AND (p_after IS NULL OR k.id > p_after);
    PERFORM internal.across_tenants(false);
    RETURN v_counts;
END
$$;

-- A page of them in order of id: {"keys":[{id,tenant,purpose,wrapped}]}.
CREATE FUNCTION api.stale_data_keys(p_kms_key_arn text, p_material text, p_after uuid, p_limit bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys jsonb;
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION 'a limit out of range' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM internal.across_tenants(true);
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', k.id, 'tenant', k.tenant, 'purpose', k.purpose, 'wrapped', encode(k.wrapped, 'hex')) ORDER BY k.id), '[]')
      INTO v_keys
      FROM (SELECT s.* FROM public.data_keys s
             WHERE s.state <> 'shredded' AND s.kms_key_arn = p_kms_key_arn AND s.key_material_id IS DISTINCT FROM p_material
               AND (p_after IS NULL OR s.id > p_after)
             ORDER BY s.id LIMIT p_limit) k;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_build_object('keys', v_keys);
END
$$;

-- Stores keys that were wrapped anew, `[{id,tenant,from,wrapped,material}]`, each only while its row still holds the wrapping that it was
-- made of (`from`, its SHA-256): {"stored":[id…]}. A key that was shredded meanwhile stays shredded.
CREATE FUNCTION api.store_rewrapped_keys(p_operator text, p_request_id text, p_now_ms bigint, p_keys jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_key    record;
    v_id     uuid;
    v_stored jsonb := '[]';
BEGIN
    IF jsonb_array_length(p_keys) > 200 THEN
        RAISE EXCEPTION 'too many keys' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    FOR v_key IN
        SELECT r.* FROM jsonb_to_recordset(p_keys) AS r(id uuid, tenant text, "from" text, wrapped text, material text) ORDER BY r.id
    LOOP
        PERFORM internal.enter_tenant(v_key.tenant);
        UPDATE public.data_keys k SET wrapped = decode(v_key.wrapped, 'hex'), key_material_id = v_key.material
         WHERE k.id = v_key.id AND k.tenant = v_key.tenant AND k.state <> 'shredded'
           AND sha256(k.wrapped) = decode(v_key."from", 'hex')
        RETURNING k.id INTO v_id;
        IF FOUND THEN
            v_stored := v_stored || to_jsonb(v_id);
        END IF;
    END LOOP;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'keys.rewrap', NULL, 'data keys', 'rewrapped',
                                jsonb_build_object('stored', jsonb_array_length(v_stored)));
    RETURN jsonb_build_object('stored', v_stored);
END
$$;

CREATE FUNCTION internal.receipt_view(p_receipt public.shred_receipts) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', p_receipt.id, 'tenant', p_receipt.tenant, 'shredded_ms', p_receipt.at_ms, 'operator', p_receipt.operator,
        'request_id', p_receipt.request_id, 'keys', p_receipt.keys, 'digest', p_receipt.digest)
$$;

-- Destroys the keys of a scope, or those that p_ids names, at most 1,000 at a time. A subject's key is gone at once: every batch reads its
-- row. Any other key can be in the memory of an environment that encrypts, for p_grace_ms at most: it is closed first, and destroyed by
-- the same act once that time has passed, so that nothing is ever acknowledged and then unreadable. A key whose day ended that long
-- ago is in no such memory any more.
--
-- {"outcome":"shredded"|"waiting"|"unchanged","shredded":n,"waiting":n,"not_before_ms"?,"more":bool,"receipts":[…]}
-- | {"outcome":"tenant_unknown"|"keys_unknown"}. Sent again it answers the receipts that it gave, the newest 16 of them.
CREATE FUNCTION api.shred_data_keys(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_scope text, p_ids uuid[], p_grace_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c_most   CONSTANT bigint := 1000;
    v_now    CONSTANT timestamptz := to_timestamp(p_now_ms / 1000.0);
    v_grace  CONSTANT interval := p_grace_ms * interval '1 millisecond';
    v_key     public.data_keys;
    v_gone    jsonb := '[]';
    v_digest  text;
    v_receipt uuid;
    v_known   bigint := 0;
    v_waiting bigint := 0;
    v_seen    bigint := 0;
    v_not_before timestamptz;
    v_receipts jsonb;
    v_outcome text;
BEGIN
    IF (p_scope IS NULL) = (p_ids IS NULL) OR cardinality(p_ids) NOT BETWEEN 1 AND c_most OR p_grace_ms NOT BETWEEN 0 AND 3600000
       OR p_grace_ms IS NULL THEN
        RAISE EXCEPTION 'what to shred is not said' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM internal.enter_tenant(p_tenant);
    IF NOT EXISTS (SELECT FROM public.tenants t WHERE t.tenant = p_tenant) THEN
        RETURN jsonb_build_object('outcome', 'tenant_unknown');
    END IF;
    SELECT count(*) INTO v_known FROM public.data_keys k
     WHERE k.tenant = p_tenant AND (k.scope = p_scope OR k.id = ANY (p_ids));
    IF v_known = 0 OR v_known < cardinality(p_ids) THEN
        RETURN jsonb_build_object('outcome', 'keys_unknown');
    END IF;
    v_receipt := gen_random_uuid();
    FOR v_key IN
        SELECT * FROM public.data_keys k
         WHERE k.tenant = p_tenant AND k.state <> 'shredded' AND (k.scope = p_scope OR k.id = ANY (p_ids))
         ORDER BY k.scope COLLATE "C", k.id LIMIT c_most FOR UPDATE
    LOOP
        v_seen := v_seen + 1;
        IF v_key.scope NOT LIKE 'subject:%' AND coalesce(v_key.shred_after, v_key.encrypt_until + v_grace) > v_now THEN
            IF v_key.shred_after IS NULL THEN
                v_key.shred_after := v_now + v_grace;
                UPDATE public.data_keys SET state = 'decrypt_only', writer_wrapped = NULL, shred_after = v_key.shred_after
                 WHERE id = v_key.id;
            END IF;
            v_waiting := v_waiting + 1;
            v_not_before := greatest(v_not_before, v_key.shred_after);
            CONTINUE;
        END IF;
        v_gone := v_gone || jsonb_build_object(
            'id', v_key.id, 'scope', v_key.scope, 'purpose', v_key.purpose,
            'created_ms', (extract(epoch FROM v_key.created_at) * 1000)::bigint, 'messages_reserved', v_key.reserved,
            'wrapped_sha256', encode(sha256(v_key.wrapped), 'hex'),
            'exported_ms', (extract(epoch FROM v_key.exported_at) * 1000)::bigint);
    END LOOP;
    IF jsonb_array_length(v_gone) > 0 THEN
        SELECT encode(sha256(convert_to(string_agg((g ->> 'id') || ' ' || (g ->> 'wrapped_sha256'), E'\n' ORDER BY (g ->> 'id') COLLATE "C"), 'UTF8')), 'hex')
          INTO v_digest FROM jsonb_array_elements(v_gone) g;
        INSERT INTO public.shred_receipts (id, tenant, at_ms, operator, request_id, keys, digest)
        VALUES (v_receipt, p_tenant, p_now_ms, p_operator, p_request_id, v_gone, v_digest);
        UPDATE public.data_keys k
           SET state = 'shredded', wrapped = NULL, writer_wrapped = NULL, shredded_at = v_now, receipt = v_receipt
          FROM jsonb_array_elements(v_gone) g
         WHERE k.id = (g ->> 'id')::uuid AND k.tenant = p_tenant;
    END IF;
    SELECT coalesce(jsonb_agg(internal.receipt_view(r) ORDER BY r.at_ms DESC, r.id), '[]') INTO v_receipts
      FROM (SELECT s.* FROM public.shred_receipts s
             WHERE s.tenant = p_tenant AND s.id IN (
                   SELECT k.receipt FROM public.data_keys k
                    WHERE k.tenant = p_tenant AND k.state = 'shredded' AND (k.scope = p_scope OR k.id = ANY (p_ids)))
             ORDER BY s.at_ms DESC, s.id LIMIT 16) r;
    v_outcome := CASE WHEN v_waiting > 0 THEN 'waiting' WHEN jsonb_array_length(v_gone) > 0 THEN 'shredded' ELSE 'unchanged' END;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'shred', p_tenant, coalesce(p_scope, 'named keys'), v_outcome,
                                jsonb_build_object('shredded', jsonb_array_length(v_gone), 'waiting', v_waiting, 'digest', v_digest));
    RETURN jsonb_strip_nulls(jsonb_build_object(
        'outcome', v_outcome, 'shredded', jsonb_array_length(v_gone), 'waiting', v_waiting,
        'not_before_ms', (extract(epoch FROM v_not_before) * 1000)::bigint, 'more', v_seen = c_most, 'receipts', v_receipts));
END
$$;

REVOKE ALL ON FUNCTION
    api.rotate_data_keys(text, text, bigint, text, text),
    api.close_ended_data_keys(text, text, bigint, bigint), internal.ended_data_keys(bigint, bigint),
    api.count_stale_data_keys(text, text, uuid), api.stale_data_keys(text, text, uuid, bigint),
    api.store_rewrapped_keys(text, text, bigint, jsonb), internal.receipt_view(public.shred_receipts),
    api.shred_data_keys(text, text, bigint, text, text, uuid[], bigint)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    api.rotate_data_keys(text, text, bigint, text, text),
    api.close_ended_data_keys(text, text, bigint, bigint),
    api.count_stale_data_keys(text, text, uuid), api.stale_data_keys(text, text, uuid, bigint),
    api.store_rewrapped_keys(text, text, bigint, jsonb),
    api.shred_data_keys(text, text, bigint, text, text, uuid[], bigint)
TO data_key_maintain;

-- Proofs of possession at the token endpoint (RFC 9449): each counts once, and nonces that every environment can check.

CREATE TABLE public.proof_ids (
    tenant      text NOT NULL,
    jkt         text NOT NULL CHECK (length(jkt) = 43),
    jti_hash    bytea NOT NULL CHECK (length(jti_hash) = 32),
    expires_ms  bigint NOT NULL,
    PRIMARY KEY (jkt, jti_hash)
);
CREATE INDEX proof_ids_by_expiry ON public.proof_ids (tenant, expires_ms);
ALTER TABLE public.proof_ids ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON public.proof_ids TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));

-- The keys of nonces. Whoever reads one can make nonces, which are no credential: a nonce only ties a proof to its minutes.
CREATE TABLE public.nonce_keys (
    created_ms  bigint PRIMARY KEY,
    key         bytea NOT NULL CHECK (length(key) = 32)
);
ALTER TABLE public.nonce_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY across_tenants ON public.nonce_keys TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

-- Uses up a client's assertion and a proof, both or neither:
-- {"outcome":"ok"|"replayed"|"client_changed"|"proof_replayed"}. p_proof_expires_ms is when the proof can pass no more.
CREATE FUNCTION api.consume_with_proof(
    p_tenant text, p_client_id text, p_client_version bigint, p_jti_hash bytea, p_expires_ms bigint, p_now_ms bigint,
    p_jkt text, p_proof_hash bytea, p_proof_expires_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_consumed jsonb;
BEGIN
    v_consumed := api.consume_assertion(p_tenant, p_client_id, p_client_version, p_jti_hash, p_expires_ms, p_now_ms);
    IF v_consumed ->> 'outcome' <> 'ok' THEN
        RETURN v_consumed;
    END IF;
    INSERT INTO proof_ids (tenant, jkt, jti_hash, expires_ms)
    VALUES (p_tenant, p_jkt, p_proof_hash, p_proof_expires_ms)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        -- Undoes what the call above has consumed.
        RAISE EXCEPTION 'a proof was used before' USING ERRCODE = 'PC001';
    END IF;
    DELETE FROM proof_ids
     WHERE (jkt, jti_hash) IN (
           SELECT p.jkt, p.jti_hash FROM proof_ids p
            WHERE p.tenant = p_tenant AND p.expires_ms < p_now_ms
            ORDER BY p.expires_ms LIMIT 8 FOR UPDATE SKIP LOCKED);
    RETURN v_consumed;
EXCEPTION WHEN SQLSTATE 'PC001' THEN
    RETURN jsonb_build_object('outcome', 'proof_replayed');
END
$$;

-- The keys of nonces, newest first, in hex, and when the next one is due: {"keys":["…"],"until_ms":…}. Where the newest is a day
-- old p_candidate becomes the newest; what no living nonce can have been made with is removed. Whoever keeps the answer beyond
-- until_ms would not know the nonces of those who have asked again.
CREATE FUNCTION api.nonce_keys(p_candidate bytea, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_keys  jsonb;
    v_until bigint;
BEGIN
    PERFORM internal.across_tenants(true);
    IF NOT EXISTS (SELECT FROM nonce_keys k WHERE k.created_ms > p_now_ms - 86400000) THEN
        -- One environment makes it; the others find it.
        PERFORM pg_advisory_xact_lock(7025180341218052);
        INSERT INTO nonce_keys (key, created_ms)
        SELECT p_candidate, p_now_ms
         WHERE NOT EXISTS (SELECT FROM nonce_keys k WHERE k.created_ms > p_now_ms - 86400000);
        DELETE FROM nonce_keys k WHERE k.created_ms < p_now_ms - 3 * 86400000;
    END IF;
    SELECT coalesce(jsonb_agg(encode(k.key, 'hex') ORDER BY k.created_ms DESC), '[]'::jsonb), max(k.created_ms) + 86400000
      INTO v_keys, v_until
      FROM (SELECT * FROM nonce_keys ORDER BY created_ms DESC LIMIT 2) k;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_build_object('keys', v_keys, 'until_ms', v_until);
END
$$;

REVOKE ALL ON FUNCTION api.consume_with_proof(text, text, bigint, bytea, bigint, bigint, text, bytea, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION api.nonce_keys(bytea, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.consume_with_proof(text, text, bigint, bytea, bigint, bigint, text, bytea, bigint) TO token;
GRANT EXECUTE ON FUNCTION api.nonce_keys(bytea, bigint) TO token;

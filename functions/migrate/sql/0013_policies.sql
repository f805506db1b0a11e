-- Policy bundles: one that decides, at most one that may follow, and those that were. A bundle was validated before it came here;
-- verifiers validate it again before they use it.

CREATE TABLE public.policies (
    version     bigint PRIMARY KEY CHECK (version > 0),
    hash        text   NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$'),
    bundle      jsonb  NOT NULL CHECK (jsonb_typeof(bundle) = 'object'),
    state       text   NOT NULL CHECK (state IN ('candidate', 'active', 'former', 'withdrawn')),
    created_ms  bigint NOT NULL,
    promoted_ms bigint,
    -- What decided once has been promoted; what never did cannot be gone back to.
    CHECK (state IN ('candidate', 'withdrawn') OR promoted_ms IS NOT NULL)
);
CREATE UNIQUE INDEX policies_one_active    ON public.policies (state) WHERE state = 'active';
CREATE UNIQUE INDEX policies_one_candidate ON public.policies (state) WHERE state = 'candidate';

ALTER TABLE public.policies ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY across_tenants ON public.policies TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

-- One act at a time: which bundle follows which is judged over all rows.
CREATE FUNCTION internal.lock_policies() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7025180341218054);
END
$$;

CREATE FUNCTION internal.policy_view(p_row public.policies) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('version', p_row.version, 'hash', p_row.hash, 'state', p_row.state, 'created_ms', p_row.created_ms,
                              'promoted_ms', p_row.promoted_ms)
$$;

CREATE FUNCTION internal.add_policy(p_hash text, p_bundle jsonb, p_state text, p_now_ms bigint) RETURNS public.policies
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_row policies;
BEGIN
    INSERT INTO policies (version, hash, bundle, state, created_ms, promoted_ms)
    SELECT coalesce(max(p.version), 0) + 1, p_hash, p_bundle, p_state, p_now_ms, CASE WHEN p_state = 'active' THEN p_now_ms END
      FROM policies p
    RETURNING * INTO v_row;
    -- The history is for going back, not for ever: the audit keeps who did what.
    DELETE FROM policies p WHERE p.state IN ('former', 'withdrawn') AND p.version <= v_row.version - 100;
    RETURN v_row;
END
$$;

-- Makes a bundle the candidate: {"outcome":"candidate"|"unchanged","policy":{…}}. What is candidate or active already stays.
CREATE FUNCTION api.policy_put(p_operator text, p_request_id text, p_now_ms bigint, p_hash text, p_bundle jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text := 'unchanged';
    v_row policies;
BEGIN
    PERFORM internal.across_tenants(true);
    PERFORM internal.lock_policies();
    SELECT * INTO v_row FROM policies p WHERE p.hash = p_hash AND p.state IN ('candidate', 'active') ORDER BY p.state DESC LIMIT 1;
    IF v_row.version IS NULL THEN
        v_outcome := 'candidate';
        UPDATE policies SET state = 'withdrawn' WHERE state = 'candidate';
        v_row := internal.add_policy(p_hash, p_bundle, 'candidate', p_now_ms);
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'policy.put', NULL, p_hash, v_outcome,
                                jsonb_build_object('version', v_row.version));
    RETURN jsonb_build_object('outcome', v_outcome, 'policy', internal.policy_view(v_row));
END
$$;

-- Makes the candidate of this hash decide, or again what has decided before: {"outcome":"promoted"|"unchanged","policy":{…},"former"?:{…}}
-- | {"outcome":"policy_unknown"}. The hash is named so that nobody promotes what somebody else put meanwhile.
CREATE FUNCTION api.policy_promote(p_operator text, p_request_id text, p_now_ms bigint, p_hash text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text := 'promoted';
    v_row policies;
    v_former policies;
BEGIN
    PERFORM internal.across_tenants(true);
    PERFORM internal.lock_policies();
    SELECT * INTO v_former FROM policies p WHERE p.state = 'active';
    IF v_former.hash = p_hash THEN
        v_outcome := 'unchanged';
        v_row := v_former;
        v_former := NULL;
    ELSE
        SELECT * INTO v_row FROM policies p
         WHERE p.hash = p_hash AND (p.state = 'candidate' OR p.state = 'former') ORDER BY p.version DESC LIMIT 1;
        IF v_row.version IS NULL THEN
            v_outcome := 'policy_unknown';
            v_former := NULL;
        ELSE
            UPDATE policies SET state = 'former' WHERE state = 'active' RETURNING * INTO v_former;
            IF v_row.state = 'candidate' THEN
                UPDATE policies SET state = 'active', promoted_ms = p_now_ms WHERE version = v_row.version RETURNING * INTO v_row;
            ELSE
                v_row := internal.add_policy(v_row.hash, v_row.bundle, 'active', p_now_ms);
            END IF;
        END IF;
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'policy.promote', NULL, p_hash, v_outcome,
                                jsonb_build_object('version', v_row.version, 'former', v_former.hash));
    IF v_row.version IS NULL THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'policy', internal.policy_view(v_row),
        'former', CASE WHEN v_former.version IS NOT NULL THEN internal.policy_view(v_former) END);
END
$$;

-- {"outcome":"listed","policies":[…]}, the newest first.
CREATE FUNCTION api.policy_list(p_operator text, p_request_id text, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_policies jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT coalesce(jsonb_agg(internal.policy_view(p) ORDER BY p.version DESC), '[]') INTO v_policies FROM policies p;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'policy.list', NULL, 'policies', 'listed', '{}');
    RETURN jsonb_build_object('outcome', 'listed', 'policies', v_policies);
END
$$;

-- {"active":{version,hash,bundle}|null,"candidate":{…}|null}, as it is published.
CREATE FUNCTION api.trust_policies() RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_policies jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT jsonb_build_object('active', NULL, 'candidate', NULL)
           || coalesce(jsonb_object_agg(p.state, jsonb_build_object('version', p.version, 'hash', p.hash, 'bundle', p.bundle)), '{}')
      INTO v_policies
      FROM policies p WHERE p.state IN ('active', 'candidate');
    PERFORM internal.across_tenants(false);
    RETURN v_policies;
END
$$;

-- Other APIs that a client may ask tokens for (RFC 8707).
ALTER TABLE public.clients
    ADD COLUMN audiences text[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT clients_audiences_check CHECK (cardinality(audiences) <= 16 AND NOT ('' = ANY (audiences)));

-- What the token endpoint reads of a client is what it was, and the audiences.
ALTER FUNCTION api.client_for_token(text) SET SCHEMA internal;
ALTER FUNCTION internal.client_for_token(text) SECURITY INVOKER;
REVOKE ALL ON FUNCTION internal.client_for_token(text) FROM token;

CREATE FUNCTION api.client_for_token(p_client_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_answer jsonb := internal.client_for_token(p_client_id);
    v_audiences text[];
BEGIN
    IF v_answer ->> 'outcome' <> 'found' THEN
        RETURN v_answer;
    END IF;
    PERFORM internal.across_tenants(true);
    SELECT c.audiences INTO v_audiences FROM clients c WHERE c.client_id = p_client_id;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_set(v_answer, '{client,audiences}', to_jsonb(coalesce(v_audiences, '{}')));
END
$$;

-- Which other APIs a client may ask tokens for, all of them: {"outcome":"updated"|"unchanged","client_id","audiences"}
-- | {"outcome":"client_unknown"}.
CREATE FUNCTION api.client_audiences(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_client_id text, p_audiences text[]
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE clients c SET audiences = p_audiences, version = c.version + 1, updated_ms = p_now_ms
     WHERE c.client_id = p_client_id AND c.tenant = p_tenant AND c.audiences IS DISTINCT FROM p_audiences;
    v_outcome := CASE WHEN FOUND THEN 'updated'
                      WHEN EXISTS (SELECT FROM clients c WHERE c.client_id = p_client_id AND c.tenant = p_tenant) THEN 'unchanged'
                      ELSE 'client_unknown' END;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'client.audiences', p_tenant, p_client_id, v_outcome,
                                jsonb_build_object('audiences', to_jsonb(p_audiences)));
    IF v_outcome = 'client_unknown' THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'client_id', p_client_id, 'audiences', to_jsonb(p_audiences));
END
$$;

REVOKE ALL ON FUNCTION
    api.policy_put(text, text, bigint, text, jsonb),
    api.policy_promote(text, text, bigint, text),
    api.policy_list(text, text, bigint),
    api.client_for_token(text),
    api.client_audiences(text, text, bigint, text, text, text[]),
    api.trust_policies()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.client_for_token(text) TO token;
GRANT EXECUTE ON FUNCTION api.client_audiences(text, text, bigint, text, text, text[]) TO admin;
GRANT EXECUTE ON FUNCTION api.policy_put(text, text, bigint, text, jsonb) TO admin;
GRANT EXECUTE ON FUNCTION api.policy_promote(text, text, bigint, text) TO admin;
GRANT EXECUTE ON FUNCTION api.policy_list(text, text, bigint) TO admin;
GRANT EXECUTE ON FUNCTION api.trust_policies() TO trust;

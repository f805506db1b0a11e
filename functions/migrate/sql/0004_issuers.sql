-- Foreign issuers: whose assertions may be believed. They stand above tenants; which tenant a person or workload of an issuer belongs
-- to is another table's business.

CREATE TABLE public.issuers (
    id         text   PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,47}$' AND id <> 'own'),
    kind       text   NOT NULL CHECK (kind IN ('cloudflare-access', 'generic')),
    issuer     text   NOT NULL CHECK (issuer LIKE 'https://%' AND length(issuer) <= 255),
    audience   text   NOT NULL CHECK (length(audience) BETWEEN 1 AND 255),
    algorithms text[] NOT NULL CHECK (algorithms <@ ARRAY['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'] AND cardinality(algorithms) > 0),
    jwks_url   text   NOT NULL CHECK (jwks_url LIKE 'https://%' AND length(jwks_url) <= 512),
    version    bigint NOT NULL DEFAULT 1,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    -- Two applications of one issuer differ by audience; two entries for the same assertions could only contradict each other.
    UNIQUE (issuer, audience)
);

ALTER TABLE public.issuers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY across_tenants ON public.issuers TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

CREATE FUNCTION internal.issuer_view(p_row public.issuers) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', p_row.id, 'kind', p_row.kind, 'issuer', p_row.issuer, 'audience', p_row.audience,
        'algorithms', to_jsonb(p_row.algorithms), 'jwks_url', p_row.jwks_url, 'version', p_row.version,
        'created_ms', p_row.created_ms, 'updated_ms', p_row.updated_ms)
$$;

-- {"outcome":"created"|"updated"|"unchanged","issuer":{…}} | {"outcome":"issuer_taken"} | {"outcome":"issuer_limit"}
CREATE FUNCTION api.issuer_put(
    p_operator text, p_request_id text, p_now_ms bigint, p_id text, p_kind text, p_issuer text, p_audience text, p_algorithms text[],
    p_jwks_url text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
    v_row issuers;
BEGIN
    PERFORM internal.across_tenants(true);
    -- One at a time: the limit and the uniqueness are judged over all rows, and operators are few.
    PERFORM pg_advisory_xact_lock(7025180341218050);
    SELECT * INTO v_row FROM issuers WHERE id = p_id;
    IF EXISTS (SELECT FROM issuers i WHERE i.issuer = p_issuer AND i.audience = p_audience AND i.id <> p_id) THEN
        v_outcome := 'issuer_taken';
    ELSIF v_row.id IS NULL AND (SELECT count(*) FROM issuers) >= 64 THEN
        v_outcome := 'issuer_limit';
    ELSIF v_row.id IS NULL THEN
        v_outcome := 'created';
        INSERT INTO issuers (id, kind, issuer, audience, algorithms, jwks_url, created_ms, updated_ms)
        VALUES (p_id, p_kind, p_issuer, p_audience, p_algorithms, p_jwks_url, p_now_ms, p_now_ms)
        RETURNING * INTO v_row;
    ELSIF (v_row.kind, v_row.issuer, v_row.audience, v_row.algorithms, v_row.jwks_url)
          IS DISTINCT FROM (p_kind, p_issuer, p_audience, p_algorithms, p_jwks_url) THEN
        v_outcome := 'updated';
        UPDATE issuers
           SET kind = p_kind, issuer = p_issuer, audience = p_audience, algorithms = p_algorithms, jwks_url = p_jwks_url,
               version = version + 1, updated_ms = p_now_ms
         WHERE id = p_id
        RETURNING * INTO v_row;
    ELSE
        v_outcome := 'unchanged';
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'issuer.put', NULL, p_id, v_outcome, jsonb_build_object(
        'kind', p_kind, 'issuer', p_issuer, 'audience', p_audience, 'algorithms', to_jsonb(p_algorithms), 'jwks_url', p_jwks_url));
    IF v_outcome IN ('issuer_taken', 'issuer_limit') THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'issuer', internal.issuer_view(v_row));
END
$$;

-- {"outcome":"removed"} | {"outcome":"issuer_unknown"}
CREATE FUNCTION api.issuer_remove(p_operator text, p_request_id text, p_now_ms bigint, p_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
BEGIN
    PERFORM internal.across_tenants(true);
    DELETE FROM issuers WHERE id = p_id;
    v_outcome := CASE WHEN FOUND THEN 'removed' ELSE 'issuer_unknown' END;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'issuer.remove', NULL, p_id, v_outcome, '{}');
    RETURN jsonb_build_object('outcome', v_outcome);
END
$$;

-- {"issuers":[{id,kind,issuer,audience,algorithms,jwks_url}]}, by id, as they are published.
CREATE FUNCTION api.trust_issuers() RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_issuers jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT coalesce(jsonb_agg(internal.issuer_view(i) - ARRAY['version', 'created_ms', 'updated_ms'] ORDER BY i.id COLLATE "C"), '[]')
      INTO v_issuers
      FROM issuers i;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_build_object('issuers', v_issuers);
END
$$;

GRANT EXECUTE ON FUNCTION api.issuer_put(text, text, bigint, text, text, text, text, text[], text) TO admin;
GRANT EXECUTE ON FUNCTION api.issuer_remove(text, text, bigint, text) TO admin;
GRANT EXECUTE ON FUNCTION api.trust_issuers() TO trust;

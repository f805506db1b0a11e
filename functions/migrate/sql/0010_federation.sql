-- Workloads that authenticate by an assertion of their own platform: which issuers know workloads, and which workloads a client is.

-- Issuers: a workload's assertion is for our own issuer URL, so that its issuer has no audience of its own and stands for itself
-- once. A SPIFFE trust domain is named by its URI.
ALTER TABLE public.issuers
    DROP CONSTRAINT issuers_kind_check,
    DROP CONSTRAINT issuers_issuer_check,
    ALTER COLUMN audience DROP NOT NULL,
    ADD CONSTRAINT issuers_kind_check
        CHECK (kind IN ('cloudflare-access', 'aws-sts', 'github-actions', 'kubernetes', 'spiffe', 'generic')),
    ADD CONSTRAINT issuers_issuer_check
        CHECK (length(issuer) <= 255 AND issuer LIKE CASE kind WHEN 'spiffe' THEN 'spiffe://_%' ELSE 'https://%' END),
    ADD CONSTRAINT issuers_audience_of_kind CHECK ((audience IS NOT NULL) = (kind IN ('cloudflare-access', 'generic')));
CREATE UNIQUE INDEX issuers_of_workloads ON public.issuers (issuer) WHERE audience IS NULL;

-- {"outcome":"created"|"updated"|"unchanged","issuer":{…}} | {"outcome":"issuer_taken"} | {"outcome":"issuer_limit"}
CREATE OR REPLACE FUNCTION api.issuer_put(
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
    IF EXISTS (SELECT FROM issuers i WHERE i.issuer = p_issuer AND i.audience IS NOT DISTINCT FROM p_audience AND i.id <> p_id) THEN
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

-- {"issuers":[{id,kind,issuer,audience?,algorithms,jwks_url}]}, by id, as they are published.
CREATE OR REPLACE FUNCTION api.trust_issuers() RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_issuers jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT coalesce(jsonb_agg(jsonb_strip_nulls(internal.issuer_view(i) - ARRAY['version', 'created_ms', 'updated_ms'])
                              ORDER BY i.id COLLATE "C"), '[]')
      INTO v_issuers
      FROM issuers i;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_build_object('issuers', v_issuers);
END
$$;

-- Clients: own keys, workloads, or both; who has no key has an empty set. A rule of `federation` is {"issuer","iss",…exact values of claims}; `iss` is what the issuer
-- was called when the rule was made, so that an id that comes to mean another issuer takes no client along.
ALTER TABLE public.clients
    ADD COLUMN federation jsonb NOT NULL DEFAULT '[]',
    ADD CONSTRAINT clients_federation_check CHECK (jsonb_typeof(federation) = 'array' AND jsonb_array_length(federation) <= 16),
    -- Whoever proves nothing by intention says so by the algorithm `none`.
    ADD CONSTRAINT clients_proof_check CHECK (
        jsonb_array_length(jwks -> 'keys') > 0 OR jsonb_array_length(federation) > 0 OR 'none' = ANY (algorithms));
CREATE INDEX clients_by_federation ON public.clients USING gin (federation jsonb_path_ops) WHERE federation <> '[]';

CREATE OR REPLACE FUNCTION internal.client_view(p_row public.clients) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'client_id', p_row.client_id, 'tenant', p_row.tenant, 'name', p_row.name, 'jwks', p_row.jwks,
        'algorithms', to_jsonb(p_row.algorithms), 'federation', p_row.federation, 'scopes', to_jsonb(p_row.scopes), 'dpop', p_row.dpop,
        'ttl_seconds', p_row.ttl_seconds, 'enabled', p_row.enabled, 'version', p_row.version,
        'created_ms', p_row.created_ms, 'updated_ms', p_row.updated_ms)
$$;

-- {"outcome":"found","client":{client_id,tenant,jwks,algorithms,federation,scopes,dpop,ttl_seconds,enabled,version}} |
-- {"outcome":"unknown"}. `enabled` is false as well when the whole tenant is disabled.
CREATE OR REPLACE FUNCTION api.client_for_token(p_client_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_client jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT jsonb_build_object(
               'client_id', c.client_id, 'tenant', c.tenant, 'jwks', c.jwks, 'algorithms', to_jsonb(c.algorithms),
               'federation', c.federation, 'scopes', to_jsonb(c.scopes), 'dpop', c.dpop, 'ttl_seconds', c.ttl_seconds,
               'enabled', c.enabled AND t.enabled, 'version', c.version)
      INTO v_client
      FROM clients c JOIN tenants t USING (tenant)
     WHERE c.client_id = p_client_id;
    PERFORM internal.across_tenants(false);
    IF v_client IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    RETURN jsonb_build_object('outcome', 'found', 'client', v_client);
END
$$;

-- Uses up a client's assertion: {"outcome":"ok"|"replayed"|"client_changed"}. p_jti_hash is null where the assertion may be used
-- again; the client must be the one that was read all the same.
-- p_expires_ms is the time until which the id must be remembered: the assertion's end plus the accepted clock skew.
CREATE OR REPLACE FUNCTION api.consume_assertion(
    p_tenant text, p_client_id text, p_client_version bigint, p_jti_hash bytea, p_expires_ms bigint, p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    -- No lock: what a disabling under way cannot stop here, its epoch refuses (see client_disable).
    PERFORM FROM clients c
      WHERE c.client_id = p_client_id AND c.tenant = p_tenant AND c.version = p_client_version AND c.enabled
        AND EXISTS (SELECT FROM tenants t WHERE t.tenant = p_tenant AND t.enabled);
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'client_changed');
    END IF;
    IF p_jti_hash IS NULL THEN
        RETURN jsonb_build_object('outcome', 'ok');
    END IF;
    INSERT INTO assertion_ids (tenant, client_id, jti_hash, expires_ms)
    VALUES (p_tenant, p_client_id, p_jti_hash, p_expires_ms)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'replayed');
    END IF;
    DELETE FROM assertion_ids
     WHERE (client_id, jti_hash) IN (
           SELECT a.client_id, a.jti_hash FROM assertion_ids a
            WHERE a.tenant = p_tenant AND a.expires_ms < p_now_ms AND a.jti_hash <> p_jti_hash
            ORDER BY a.expires_ms LIMIT 8 FOR UPDATE SKIP LOCKED);
    RETURN jsonb_build_object('outcome', 'ok');
END
$$;

-- The rules as they are stored, or null where one names an issuer that is not there or is of another kind. A rule comes as
-- {"issuer","kind",…values}.
CREATE FUNCTION internal.bound_federation(p_rules jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_bound jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT coalesce(jsonb_agg(rule - 'kind' || jsonb_build_object('iss', i.issuer) ORDER BY place), '[]')
      INTO v_bound
      FROM jsonb_array_elements(p_rules) WITH ORDINALITY AS r (rule, place)
      JOIN issuers i ON i.id = rule ->> 'issuer' AND i.kind = rule ->> 'kind';
    PERFORM internal.across_tenants(false);
    RETURN CASE WHEN jsonb_array_length(v_bound) = jsonb_array_length(p_rules) THEN v_bound END;
END
$$;

-- Whether some workload could be told by a rule of p_rules and by one of another client. Rules are exact values: two of one issuer
-- cannot both hold where they name different values of one claim.
CREATE FUNCTION internal.federation_overlaps(p_client_id text, p_rules jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_overlaps boolean;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT EXISTS (
        SELECT FROM jsonb_array_elements(p_rules) AS mine (rule)
          JOIN clients c ON c.federation <> '[]' AND c.client_id <> p_client_id
           AND c.federation @> jsonb_build_array(jsonb_build_object('issuer', mine.rule -> 'issuer'))
         CROSS JOIN jsonb_array_elements(c.federation) AS theirs (rule)
         WHERE NOT EXISTS (
               SELECT FROM jsonb_each_text(mine.rule) m JOIN jsonb_each_text(theirs.rule) t USING (key) WHERE m.value <> t.value))
      INTO v_overlaps;
    PERFORM internal.across_tenants(false);
    RETURN v_overlaps;
END
$$;

-- {"outcome":"created"|"updated"|"unchanged","client":{…}} | {"outcome":"tenant_unknown"} | {"outcome":"client_id_taken"} |
-- {"outcome":"federation_issuer_unknown"} | {"outcome":"federation_taken"}
DROP FUNCTION api.client_put(text, text, bigint, text, text, text, jsonb, text[], text[], boolean, bigint, boolean);
CREATE FUNCTION api.client_put(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_client_id text, p_name text, p_jwks jsonb,
    p_algorithms text[], p_scopes text[], p_dpop boolean, p_ttl_seconds bigint, p_enabled boolean, p_federation jsonb DEFAULT '[]'
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_holder text;
    v_outcome text;
    v_federation jsonb;
    v_row clients;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    PERFORM FROM tenants WHERE tenant = p_tenant FOR SHARE;
    IF NOT FOUND THEN
        v_outcome := 'tenant_unknown';
    ELSE
        IF p_federation <> '[]' THEN
            -- One at a time: that no two clients are one workload is judged over all rows, and operators are few.
            PERFORM pg_advisory_xact_lock(7025180341218053);
        END IF;
        v_federation := internal.bound_federation(p_federation);
        PERFORM internal.across_tenants(true);
        SELECT tenant INTO v_holder FROM clients WHERE client_id = p_client_id;
        PERFORM internal.across_tenants(false);
        IF v_holder <> p_tenant THEN
            v_outcome := 'client_id_taken';
        ELSIF v_federation IS NULL THEN
            v_outcome := 'federation_issuer_unknown';
        ELSIF internal.federation_overlaps(p_client_id, v_federation) THEN
            v_outcome := 'federation_taken';
        ELSE
            INSERT INTO clients (client_id, tenant, name, jwks, algorithms, federation, scopes, dpop, ttl_seconds, enabled, created_ms, updated_ms)
            VALUES (p_client_id, p_tenant, p_name, p_jwks, p_algorithms, v_federation, p_scopes, p_dpop, p_ttl_seconds, p_enabled, p_now_ms, p_now_ms)
            ON CONFLICT (client_id) DO NOTHING
            RETURNING * INTO v_row;
            IF FOUND THEN
                v_outcome := 'created';
            ELSE
                UPDATE clients
                   SET name = p_name, jwks = p_jwks, algorithms = p_algorithms, federation = v_federation, scopes = p_scopes, dpop = p_dpop,
                       ttl_seconds = p_ttl_seconds, enabled = p_enabled, version = version + 1, updated_ms = p_now_ms
                 WHERE client_id = p_client_id
                   AND (name, jwks, algorithms, federation, scopes, dpop, ttl_seconds, enabled)
                       IS DISTINCT FROM (p_name, p_jwks, p_algorithms, v_federation, p_scopes, p_dpop, p_ttl_seconds, p_enabled)
                RETURNING * INTO v_row;
                IF FOUND THEN
                    v_outcome := 'updated';
                ELSE
                    -- Not there for this tenant although the insert met it: another tenant took the id a moment ago.
                    SELECT * INTO v_row FROM clients WHERE client_id = p_client_id;
                    v_outcome := CASE WHEN FOUND THEN 'unchanged' ELSE 'client_id_taken' END;
                END IF;
            END IF;
        END IF;
    END IF;
    IF v_outcome IN ('created', 'updated') AND NOT p_enabled THEN
        PERFORM internal.put_revocation('client_id', p_client_id, internal.ending_epoch(p_now_ms), internal.epoch_dead_ms(internal.ending_epoch(p_now_ms)), p_now_ms);
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'client.put', p_tenant, p_client_id, v_outcome,
        jsonb_build_object('name', p_name, 'jwks', p_jwks, 'algorithms', to_jsonb(p_algorithms), 'federation', coalesce(v_federation, p_federation),
                           'scopes', to_jsonb(p_scopes), 'dpop', p_dpop, 'ttl_seconds', p_ttl_seconds, 'enabled', p_enabled));
    IF v_row.client_id IS NULL THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'client', internal.client_view(v_row));
END
$$;

GRANT EXECUTE ON FUNCTION
    api.client_put(text, text, bigint, text, text, text, jsonb, text[], text[], boolean, bigint, boolean, jsonb) TO admin;

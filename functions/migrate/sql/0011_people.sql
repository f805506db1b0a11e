-- People: which of a foreign issuer's people belong to which tenant and what they may do there, and the clients they come with.

-- A public client holds no key: its one "algorithm" is `none`, and its tokens are bound to a key of the moment (RFC 6749 §2.1,
-- RFC 7591 `token_endpoint_auth_method`).
ALTER TABLE public.clients DROP CONSTRAINT clients_algorithms_check;
ALTER TABLE public.clients ADD CONSTRAINT clients_algorithms_check
    CHECK (algorithms <@ ARRAY['ES256', 'PS256', 'EdDSA', 'none'] AND cardinality(algorithms) > 0);
ALTER TABLE public.clients ADD CONSTRAINT clients_public_check
    CHECK ('none' <> ALL (algorithms) OR (algorithms = ARRAY['none'] AND dpop AND jsonb_array_length(jwks -> 'keys') = 0));

-- One row says who: a subject, an e-mail address, an e-mail domain or a group of one issuer. Nobody is matched by two tenants' rows
-- of the same kind and value, so one person is in two tenants at most by two groups, and then in none. Addresses and domains are
-- held in lower case. A row that is not enabled shuts out whom it matches. `iss` is what the issuer was called when the row was last
-- put, so that an id that comes to mean another issuer takes nobody along.
CREATE TABLE public.identities (
    issuer      text    NOT NULL REFERENCES public.issuers ON DELETE CASCADE,
    iss         text    NOT NULL,
    match       text    NOT NULL CHECK (match IN ('subject', 'email', 'domain', 'group')),
    value       text    NOT NULL CHECK (octet_length(value) BETWEEN 1 AND 256 AND (match IN ('subject', 'group') OR value = lower(value))),
    tenant      text    NOT NULL REFERENCES public.tenants,
    groups      text[]  NOT NULL CHECK (cardinality(groups) <= 32),
    scopes      text[]  NOT NULL CHECK (cardinality(scopes) > 0),
    enabled     boolean NOT NULL,
    version     bigint  NOT NULL DEFAULT 1,
    created_ms  bigint  NOT NULL,
    updated_ms  bigint  NOT NULL,
    PRIMARY KEY (issuer, match, value)
);
CREATE INDEX identities_by_tenant ON public.identities (tenant, issuer, match, value);

ALTER TABLE public.identities ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON public.identities TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY across_tenants ON public.identities FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

CREATE FUNCTION internal.identity_view(p_row public.identities) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'issuer', p_row.issuer, 'iss', p_row.iss, 'match', p_row.match, 'value', p_row.value, 'tenant', p_row.tenant, 'groups', to_jsonb(p_row.groups),
        'scopes', to_jsonb(p_row.scopes), 'enabled', p_row.enabled, 'version', p_row.version, 'created_ms', p_row.created_ms,
        'updated_ms', p_row.updated_ms)
$$;

-- Who a verified person is, whose assertion was by p_iss under the profile p_issuer: {"outcome":"found","tenant","groups","scopes","by"} | {"outcome":"unknown"|"ambiguous"|"disabled"}.
-- The most specific kind with a row decides alone: subject, then address, then domain, then groups. Several groups' rows count
-- together; they must be of one tenant, and none of them disabled.
CREATE FUNCTION internal.person(p_issuer text, p_iss text, p_subject text, p_email text, p_domain text, p_groups text[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_kind text;
    v_value text[];
    v_rows identities[];
BEGIN
    PERFORM internal.across_tenants(true);
    FOREACH v_kind IN ARRAY ARRAY['subject', 'email', 'domain', 'group'] LOOP
        v_value := CASE v_kind WHEN 'subject' THEN ARRAY[p_subject] WHEN 'email' THEN ARRAY[p_email]
                               WHEN 'domain' THEN ARRAY[p_domain] ELSE p_groups END;
        SELECT array_agg(i ORDER BY i.value COLLATE "C") INTO v_rows
          FROM identities i WHERE i.issuer = p_issuer AND i.iss = p_iss AND i.match = v_kind AND i.value = ANY (v_value);
        EXIT WHEN v_rows IS NOT NULL;
    END LOOP;
    PERFORM internal.across_tenants(false);
    IF v_rows IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF EXISTS (SELECT FROM unnest(v_rows) r WHERE NOT r.enabled) THEN
        RETURN jsonb_build_object('outcome', 'disabled');
    ELSIF (SELECT count(DISTINCT r.tenant) FROM unnest(v_rows) r) > 1 THEN
        RETURN jsonb_build_object('outcome', 'ambiguous');
    END IF;
    RETURN jsonb_build_object(
        'outcome', 'found', 'tenant', v_rows[1].tenant, 'by', v_kind,
        'groups', (SELECT coalesce(jsonb_agg(DISTINCT g.name COLLATE "C"), '[]') FROM unnest(v_rows) r, unnest(r.groups) AS g (name)),
        'scopes', (SELECT jsonb_agg(DISTINCT s.name COLLATE "C") FROM unnest(v_rows) r, unnest(r.scopes) AS s (name)));
END
$$;

CREATE FUNCTION api.person_for_token(p_issuer text, p_iss text, p_subject text, p_email text, p_domain text, p_groups text[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN internal.person(p_issuer, p_iss, p_subject, p_email, p_domain, p_groups);
END
$$;

-- {"outcome":"created"|"updated"|"unchanged","identity":{…}} | {"outcome":"tenant_unknown"|"issuer_unknown"|"identity_taken"}
CREATE FUNCTION api.identity_put(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_issuer text, p_match text, p_value text, p_groups text[],
    p_scopes text[], p_enabled boolean
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_iss text;
    v_holder text;
    v_outcome text;
    v_row identities;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    PERFORM FROM tenants WHERE tenant = p_tenant FOR SHARE;
    IF NOT FOUND THEN
        v_outcome := 'tenant_unknown';
    ELSE
        PERFORM internal.across_tenants(true);
        SELECT issuer INTO v_iss FROM issuers WHERE id = p_issuer FOR SHARE;
        SELECT tenant INTO v_holder FROM identities WHERE issuer = p_issuer AND match = p_match AND value = p_value;
        PERFORM internal.across_tenants(false);
        IF v_iss IS NULL THEN
            v_outcome := 'issuer_unknown';
        ELSIF v_holder <> p_tenant THEN
            v_outcome := 'identity_taken';
        ELSE
            INSERT INTO identities (issuer, iss, match, value, tenant, groups, scopes, enabled, created_ms, updated_ms)
            VALUES (p_issuer, v_iss, p_match, p_value, p_tenant, p_groups, p_scopes, p_enabled, p_now_ms, p_now_ms)
            ON CONFLICT (issuer, match, value) DO NOTHING
            RETURNING * INTO v_row;
            IF FOUND THEN
                v_outcome := 'created';
            ELSE
                UPDATE identities
                   SET iss = v_iss, groups = p_groups, scopes = p_scopes, enabled = p_enabled, version = version + 1, updated_ms = p_now_ms
                 WHERE issuer = p_issuer AND match = p_match AND value = p_value
                   AND (iss, groups, scopes, enabled) IS DISTINCT FROM (v_iss, p_groups, p_scopes, p_enabled)
                RETURNING * INTO v_row;
                IF FOUND THEN
                    v_outcome := 'updated';
                ELSE
                    -- Not there for this tenant although the insert met it: another tenant took it a moment ago.
                    SELECT * INTO v_row FROM identities WHERE issuer = p_issuer AND match = p_match AND value = p_value;
                    v_outcome := CASE WHEN FOUND THEN 'unchanged' ELSE 'identity_taken' END;
                END IF;
            END IF;
        END IF;
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'identity.put', p_tenant, p_issuer || ' ' || p_match || ':' || p_value, v_outcome,
        jsonb_build_object('groups', to_jsonb(p_groups), 'scopes', to_jsonb(p_scopes), 'enabled', p_enabled));
    IF v_row.issuer IS NULL THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'identity', internal.identity_view(v_row));
END
$$;

-- {"outcome":"removed"|"identity_unknown"}
CREATE FUNCTION api.identity_remove(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_issuer text, p_match text, p_value text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    DELETE FROM identities WHERE tenant = p_tenant AND issuer = p_issuer AND match = p_match AND value = p_value;
    v_outcome := CASE WHEN FOUND THEN 'removed' ELSE 'identity_unknown' END;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'identity.remove', p_tenant, p_issuer || ' ' || p_match || ':' || p_value,
                                v_outcome, '{}');
    RETURN jsonb_build_object('outcome', v_outcome);
END
$$;

-- {"outcome":"listed","identities":[…],"next":{issuer,match,value}|null} in order of issuer, kind and value, after p_after |
-- {"outcome":"tenant_unknown"}
CREATE FUNCTION api.identity_list(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_after jsonb, p_limit bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text := 'listed';
    v_identities jsonb;
    v_last jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    PERFORM FROM tenants WHERE tenant = p_tenant;
    IF NOT FOUND THEN
        v_outcome := 'tenant_unknown';
    ELSE
        SELECT coalesce(jsonb_agg(internal.identity_view(i) ORDER BY i.issuer COLLATE "C", i.match COLLATE "C", i.value COLLATE "C"), '[]')
          INTO v_identities
          FROM (SELECT * FROM identities
                 WHERE tenant = p_tenant
                   AND (issuer COLLATE "C", match COLLATE "C", value COLLATE "C")
                       > (coalesce(p_after ->> 'issuer', ''), coalesce(p_after ->> 'match', ''), coalesce(p_after ->> 'value', ''))
                 ORDER BY issuer COLLATE "C", match COLLATE "C", value COLLATE "C" LIMIT least(p_limit, 500)) i;
        IF jsonb_array_length(v_identities) = least(p_limit, 500) THEN
            v_last := v_identities -> -1;
        END IF;
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'identity.list', p_tenant, p_tenant, v_outcome, '{}');
    IF v_outcome <> 'listed' THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'identities', v_identities, 'next', CASE WHEN v_last IS NOT NULL THEN
        jsonb_build_object('issuer', v_last -> 'issuer', 'match', v_last -> 'match', 'value', v_last -> 'value') END);
END
$$;

REVOKE ALL ON FUNCTION api.person_for_token(text, text, text, text, text, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION api.identity_put(text, text, bigint, text, text, text, text, text[], text[], boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION api.identity_remove(text, text, bigint, text, text, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION api.identity_list(text, text, bigint, text, jsonb, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.person_for_token(text, text, text, text, text, text[]) TO token;
GRANT EXECUTE ON FUNCTION api.identity_put(text, text, bigint, text, text, text, text, text[], text[], boolean) TO admin;
GRANT EXECUTE ON FUNCTION api.identity_remove(text, text, bigint, text, text, text, text) TO admin;
GRANT EXECUTE ON FUNCTION api.identity_list(text, text, bigint, text, jsonb, bigint) TO admin;

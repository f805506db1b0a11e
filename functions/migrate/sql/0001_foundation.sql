-- The foundation: one login per deployment, what a tenant and a client are, and the acts of token, admin and trust.
--
-- Run by portcullis_owner, directly, in one transaction. Logins may execute functions of schema `api` and touch no table;
-- every function is SECURITY DEFINER with a pinned search_path, and row-level security is forced on the owner too, so that a
-- function sees the rows of the tenant it was told and no others. Where an act is above tenants, the function says so by
-- `internal.across_tenants(true)` and only the policies named `across_tenants` listen to that.
-- Times come in as epoch milliseconds from the caller's clock. A domain outcome is a value; an SQL error is a fault.

-- Whatever a later migration creates is closed until it is granted.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA api;
CREATE SCHEMA internal;

-- Roles belong to the cluster and may be there already, when another database of it was migrated before.
DO $roles$
DECLARE
    v_login text;
    v_timeout text;
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    FOREACH v_login IN ARRAY ARRAY['token', 'upload', 'download', 'data_key_encrypt', 'data_key_decrypt', 'object_events',
                                   'trust', 'admin']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = v_login) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', v_login);
        END IF;
        -- Published snapshots and sweeps read more than one request's rows.
        v_timeout := CASE WHEN v_login IN ('trust', 'object_events') THEN '20s' ELSE '5s' END;
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', v_login, v_timeout);
        EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', v_login, '2s');
        EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', v_login, '5s');
        EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog', v_login);
        EXECUTE format('ALTER ROLE %I SET timezone = %L', v_login, 'UTC');
        EXECUTE format('GRANT rds_iam TO %I', v_login);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), v_login);
        EXECUTE format('GRANT USAGE ON SCHEMA api TO %I', v_login);
    END LOOP;
END
$roles$;

-- Tables ---------------------------------------------------------------------------------------------------------------

CREATE TABLE public.tenants (
    tenant     text    PRIMARY KEY CHECK (tenant ~ '^[a-z0-9][a-z0-9-]{0,47}$'),
    name       text    NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    enabled    boolean NOT NULL,
    version    bigint  NOT NULL DEFAULT 1,
    created_ms bigint  NOT NULL,
    updated_ms bigint  NOT NULL
);

-- client_id is unique across tenants: a client proves itself before anybody knows whose it is.
CREATE TABLE public.clients (
    client_id   text    PRIMARY KEY CHECK (client_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    tenant      text    NOT NULL REFERENCES public.tenants,
    name        text    NOT NULL CHECK (length(name) <= 200),
    jwks        jsonb   NOT NULL CHECK (jsonb_typeof(jwks -> 'keys') = 'array'),
    algorithms  text[]  NOT NULL CHECK (algorithms <@ ARRAY['ES256', 'PS256', 'EdDSA'] AND cardinality(algorithms) > 0),
    scopes      text[]  NOT NULL CHECK (cardinality(scopes) > 0),
    dpop        boolean NOT NULL,
    ttl_seconds bigint  NOT NULL CHECK (ttl_seconds BETWEEN 30 AND 900),
    enabled     boolean NOT NULL,
    version     bigint  NOT NULL DEFAULT 1,
    created_ms  bigint  NOT NULL,
    updated_ms  bigint  NOT NULL
);
CREATE INDEX clients_by_tenant ON public.clients (tenant, client_id);

-- SHA-256 of the `jti` of every client assertion that was used, kept until no clock accepts the assertion any more.
CREATE TABLE public.assertion_ids (
    tenant     text   NOT NULL,
    client_id  text   NOT NULL,
    jti_hash   bytea  NOT NULL CHECK (length(jti_hash) = 32),
    expires_ms bigint NOT NULL,
    PRIMARY KEY (client_id, jti_hash)
);
CREATE INDEX assertion_ids_by_expiry ON public.assertion_ids (expires_ms);

-- `epoch` refuses every token of the value with iat <= epoch; a `jti` is refused itself, until `epoch` = its own exp.
CREATE TABLE public.revocations (
    kind       text   NOT NULL CHECK (kind IN ('sub', 'sid', 'client_id', 'tenant', 'device', 'jti', 'kid')),
    value      text   NOT NULL CHECK (length(value) BETWEEN 1 AND 255),
    epoch      bigint NOT NULL,
    dead_ms    bigint NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (kind, value)
);
CREATE INDEX revocations_by_death ON public.revocations (dead_ms);

CREATE TABLE public.admin_audit (
    id         uuid   PRIMARY KEY DEFAULT gen_random_uuid(),
    at_ms      bigint NOT NULL,
    operator   text   NOT NULL CHECK (length(operator) BETWEEN 1 AND 128),
    request_id text   NOT NULL CHECK (length(request_id) BETWEEN 1 AND 128),
    operation  text   NOT NULL,
    tenant     text,
    target     text   NOT NULL,
    outcome    text   NOT NULL,
    detail     jsonb  NOT NULL
);
CREATE INDEX admin_audit_by_time ON public.admin_audit (at_ms);

-- Row-level security ---------------------------------------------------------------------------------------------------

ALTER TABLE public.tenants       ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE public.clients       ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE public.assertion_ids ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE public.revocations   ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE public.admin_audit   ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY of_tenant ON public.tenants       TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY of_tenant ON public.clients       TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY of_tenant ON public.assertion_ids TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));

CREATE POLICY across_tenants ON public.tenants FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');
CREATE POLICY across_tenants ON public.clients FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');
CREATE POLICY across_tenants_seen ON public.assertion_ids FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');
-- Locking a row before deleting it asks for an UPDATE policy; writing one is refused all the same.
CREATE POLICY across_tenants_locked ON public.assertion_ids FOR UPDATE TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on') WITH CHECK (false);
CREATE POLICY across_tenants_swept ON public.assertion_ids FOR DELETE TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');
CREATE POLICY across_tenants ON public.revocations TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');
-- INSERT alone: what was done stays written, for the owner's functions too.
CREATE POLICY across_tenants ON public.admin_audit FOR INSERT TO CURRENT_USER
    WITH CHECK (current_setting('portcullis.all_tenants', true) = 'on');

-- Helpers, for the owner's functions only ------------------------------------------------------------------------------

CREATE FUNCTION internal.enter_tenant(p_tenant text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('portcullis.tenant', p_tenant, true), set_config('portcullis.all_tenants', 'off', true);
END
$$;

CREATE FUNCTION internal.across_tenants(p_on boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('portcullis.all_tenants', CASE WHEN p_on THEN 'on' ELSE 'off' END, true);
END
$$;

CREATE FUNCTION internal.record_act(
    p_now_ms bigint, p_operator text, p_request_id text, p_operation text, p_tenant text, p_target text, p_outcome text, p_detail jsonb
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM internal.across_tenants(true);
    INSERT INTO admin_audit (at_ms, operator, request_id, operation, tenant, target, outcome, detail)
    VALUES (p_now_ms, p_operator, p_request_id, p_operation, p_tenant, p_target, p_outcome, p_detail);
    PERFORM internal.across_tenants(false);
END
$$;

-- A token lives 900 s at most and a verifier's clock may be 10 s behind: after that an epoch has nothing left to hit.
CREATE FUNCTION internal.epoch_dead_ms(p_epoch bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT (p_epoch + 900 + 10) * 1000 $$;

-- The epoch of what ends now. A token can be signed until this act commits, by a clock that is ahead of the operator's: the
-- caller's connect and statement timeouts take 6 s, the accepted skew 10 s. Nothing new is signed afterwards, so that the only
-- price is that whoever is enabled again at once gets refused tokens for these seconds.
CREATE FUNCTION internal.ending_epoch(p_now_ms bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT p_now_ms / 1000 + 20 $$;

CREATE FUNCTION internal.put_revocation(p_kind text, p_value text, p_epoch bigint, p_dead_ms bigint, p_now_ms bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM internal.across_tenants(true);
    INSERT INTO revocations AS held (kind, value, epoch, dead_ms, created_ms)
    VALUES (p_kind, p_value, p_epoch, p_dead_ms, p_now_ms)
    ON CONFLICT (kind, value) DO UPDATE
        SET epoch = greatest(held.epoch, excluded.epoch), dead_ms = greatest(held.dead_ms, excluded.dead_ms);
    PERFORM internal.across_tenants(false);
END
$$;

-- token ----------------------------------------------------------------------------------------------------------------

-- {"outcome":"found","client":{client_id,tenant,jwks,algorithms,scopes,dpop,ttl_seconds,enabled,version}} | {"outcome":"unknown"}
-- `enabled` is false as well when the whole tenant is disabled.
CREATE FUNCTION api.client_for_token(p_client_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_client jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT jsonb_build_object(
               'client_id', c.client_id, 'tenant', c.tenant, 'jwks', c.jwks, 'algorithms', to_jsonb(c.algorithms),
               'scopes', to_jsonb(c.scopes), 'dpop', c.dpop, 'ttl_seconds', c.ttl_seconds,
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

-- Uses up a client assertion once: {"outcome":"ok"|"replayed"|"client_changed"}.
-- p_expires_ms is the time until which the id must be remembered: the assertion's exp plus the accepted clock skew.
CREATE FUNCTION api.consume_assertion(
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

-- admin ----------------------------------------------------------------------------------------------------------------

-- {"outcome":"created"|"updated"|"unchanged","tenant":{…}}; disabling a tenant ends its tokens too.
CREATE FUNCTION api.tenant_put(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_name text, p_enabled boolean
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
    v_row tenants;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    INSERT INTO tenants (tenant, name, enabled, created_ms, updated_ms)
    VALUES (p_tenant, p_name, p_enabled, p_now_ms, p_now_ms)
    ON CONFLICT (tenant) DO NOTHING
    RETURNING * INTO v_row;
    IF FOUND THEN
        v_outcome := 'created';
    ELSE
        UPDATE tenants SET name = p_name, enabled = p_enabled, version = version + 1, updated_ms = p_now_ms
         WHERE tenant = p_tenant AND (name, enabled) IS DISTINCT FROM (p_name, p_enabled)
        RETURNING * INTO v_row;
        IF FOUND THEN
            v_outcome := 'updated';
        ELSE
            v_outcome := 'unchanged';
            SELECT * INTO v_row FROM tenants WHERE tenant = p_tenant;
        END IF;
    END IF;
    IF v_outcome <> 'unchanged' AND NOT p_enabled THEN
        PERFORM internal.put_revocation('tenant', p_tenant, internal.ending_epoch(p_now_ms), internal.epoch_dead_ms(internal.ending_epoch(p_now_ms)), p_now_ms);
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'tenant.put', p_tenant, p_tenant, v_outcome,
                                jsonb_build_object('name', p_name, 'enabled', p_enabled));
    RETURN jsonb_build_object('outcome', v_outcome, 'tenant', jsonb_build_object(
        'tenant', v_row.tenant, 'name', v_row.name, 'enabled', v_row.enabled, 'version', v_row.version));
END
$$;

CREATE FUNCTION internal.client_view(p_row public.clients) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'client_id', p_row.client_id, 'tenant', p_row.tenant, 'name', p_row.name, 'jwks', p_row.jwks,
        'algorithms', to_jsonb(p_row.algorithms), 'scopes', to_jsonb(p_row.scopes), 'dpop', p_row.dpop,
        'ttl_seconds', p_row.ttl_seconds, 'enabled', p_row.enabled, 'version', p_row.version,
        'created_ms', p_row.created_ms, 'updated_ms', p_row.updated_ms)
$$;

-- {"outcome":"created"|"updated"|"unchanged","client":{…}} | {"outcome":"tenant_unknown"} | {"outcome":"client_id_taken"}
CREATE FUNCTION api.client_put(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_client_id text, p_name text, p_jwks jsonb,
    p_algorithms text[], p_scopes text[], p_dpop boolean, p_ttl_seconds bigint, p_enabled boolean
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_holder text;
    v_outcome text;
    v_row clients;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    PERFORM FROM tenants WHERE tenant = p_tenant FOR SHARE;
    IF NOT FOUND THEN
        v_outcome := 'tenant_unknown';
    ELSE
        PERFORM internal.across_tenants(true);
        SELECT tenant INTO v_holder FROM clients WHERE client_id = p_client_id;
        PERFORM internal.across_tenants(false);
        IF v_holder <> p_tenant THEN
            v_outcome := 'client_id_taken';
        ELSE
            INSERT INTO clients (client_id, tenant, name, jwks, algorithms, scopes, dpop, ttl_seconds, enabled, created_ms, updated_ms)
            VALUES (p_client_id, p_tenant, p_name, p_jwks, p_algorithms, p_scopes, p_dpop, p_ttl_seconds, p_enabled, p_now_ms, p_now_ms)
            ON CONFLICT (client_id) DO NOTHING
            RETURNING * INTO v_row;
            IF FOUND THEN
                v_outcome := 'created';
            ELSE
                UPDATE clients
                   SET name = p_name, jwks = p_jwks, algorithms = p_algorithms, scopes = p_scopes, dpop = p_dpop,
                       ttl_seconds = p_ttl_seconds, enabled = p_enabled, version = version + 1, updated_ms = p_now_ms
                 WHERE client_id = p_client_id
                   AND (name, jwks, algorithms, scopes, dpop, ttl_seconds, enabled)
                       IS DISTINCT FROM (p_name, p_jwks, p_algorithms, p_scopes, p_dpop, p_ttl_seconds, p_enabled)
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
        jsonb_build_object('name', p_name, 'jwks', p_jwks, 'algorithms', to_jsonb(p_algorithms), 'scopes', to_jsonb(p_scopes),
                           'dpop', p_dpop, 'ttl_seconds', p_ttl_seconds, 'enabled', p_enabled));
    IF v_row.client_id IS NULL THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'client', internal.client_view(v_row));
END
$$;

-- {"outcome":"disabled"|"unchanged","client":{…}} | {"outcome":"client_unknown"}; its tokens end with it.
CREATE FUNCTION api.client_disable(p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_client_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
    v_row clients;
    v_epoch bigint := internal.ending_epoch(p_now_ms);
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE clients SET enabled = false, version = version + 1, updated_ms = p_now_ms
     WHERE client_id = p_client_id AND tenant = p_tenant AND enabled
    RETURNING * INTO v_row;
    IF FOUND THEN
        v_outcome := 'disabled';
        PERFORM internal.put_revocation('client_id', p_client_id, v_epoch, internal.epoch_dead_ms(v_epoch), p_now_ms);
    ELSE
        SELECT * INTO v_row FROM clients WHERE client_id = p_client_id AND tenant = p_tenant;
        v_outcome := CASE WHEN FOUND THEN 'unchanged' ELSE 'client_unknown' END;
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'client.disable', p_tenant, p_client_id, v_outcome, '{}');
    IF v_row.client_id IS NULL THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'client', internal.client_view(v_row));
END
$$;

-- {"outcome":"listed","clients":[…],"next":client_id|null} in order of client_id, after p_after | {"outcome":"tenant_unknown"}
CREATE FUNCTION api.client_list(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_after text, p_limit bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text := 'listed';
    v_clients jsonb;
    v_count bigint;
    v_last text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    PERFORM FROM tenants WHERE tenant = p_tenant;
    IF NOT FOUND THEN
        v_outcome := 'tenant_unknown';
    ELSE
        SELECT coalesce(jsonb_agg(internal.client_view(c) ORDER BY c.client_id COLLATE "C"), '[]'), count(*), max(c.client_id COLLATE "C")
          INTO v_clients, v_count, v_last
          FROM (SELECT * FROM clients
                 WHERE tenant = p_tenant AND client_id COLLATE "C" > coalesce(p_after, '')
                 ORDER BY client_id COLLATE "C" LIMIT least(p_limit, 500)) c;
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'client.list', p_tenant, p_tenant, v_outcome, '{}');
    IF v_outcome <> 'listed' THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'clients', v_clients,
                              'next', CASE WHEN v_count = least(p_limit, 500) THEN v_last END);
END
$$;

-- {"outcome":"revoked","kind","value","epoch","dead_ms"}: `epoch` as it stands now, which an earlier act may have set later.
-- For `jti`, p_epoch is the token's own exp.
CREATE FUNCTION api.revoke(
    p_operator text, p_request_id text, p_now_ms bigint, p_kind text, p_value text, p_epoch bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_row revocations;
BEGIN
    PERFORM internal.put_revocation(p_kind, p_value, p_epoch,
        CASE WHEN p_kind = 'jti' THEN (p_epoch + 10) * 1000 ELSE internal.epoch_dead_ms(p_epoch) END, p_now_ms);
    PERFORM internal.across_tenants(true);
    SELECT * INTO v_row FROM revocations WHERE kind = p_kind AND value = p_value;
    PERFORM internal.across_tenants(false);
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'revoke', CASE WHEN p_kind = 'tenant' THEN p_value END,
                                p_kind || ':' || p_value, 'revoked', jsonb_build_object('epoch', p_epoch));
    RETURN jsonb_build_object('outcome', 'revoked', 'kind', v_row.kind, 'value', v_row.value, 'epoch', v_row.epoch,
                              'dead_ms', v_row.dead_ms);
END
$$;

-- trust ----------------------------------------------------------------------------------------------------------------

-- {"revocations":{"epochs":{…},"jti":{…},"kid":[…]},"swept":{"revocations":n,"assertion_ids":n}}, the first as it is published.
-- Dead entries leave, a bounded number at a time; one that is still stored is not published.
CREATE FUNCTION api.trust_snapshot(p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_epochs jsonb;
    v_jti jsonb;
    v_kid jsonb;
    v_revocations bigint;
    v_assertion_ids bigint;
BEGIN
    PERFORM internal.across_tenants(true);
    DELETE FROM revocations
     WHERE (kind, value) IN (SELECT r.kind, r.value FROM revocations r WHERE r.dead_ms < p_now_ms LIMIT 10000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_revocations = ROW_COUNT;
    DELETE FROM assertion_ids
     WHERE (client_id, jti_hash) IN (
           SELECT a.client_id, a.jti_hash FROM assertion_ids a WHERE a.expires_ms < p_now_ms LIMIT 10000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_assertion_ids = ROW_COUNT;

    SELECT jsonb_object_agg(k.kind, coalesce(e.entries, '{}'))
      INTO v_epochs
      FROM unnest(ARRAY['sub', 'sid', 'client_id', 'tenant', 'device']) AS k (kind)
      LEFT JOIN (SELECT r.kind, jsonb_object_agg(r.value, r.epoch) AS entries FROM revocations r WHERE r.dead_ms >= p_now_ms GROUP BY r.kind) e
             USING (kind);
    SELECT coalesce(jsonb_object_agg(r.value, r.epoch), '{}') INTO v_jti FROM revocations r WHERE r.kind = 'jti' AND r.dead_ms >= p_now_ms;
    SELECT coalesce(jsonb_agg(r.value ORDER BY r.value), '[]') INTO v_kid FROM revocations r WHERE r.kind = 'kid' AND r.dead_ms >= p_now_ms;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_build_object(
        'revocations', jsonb_build_object('epochs', v_epochs, 'jti', v_jti, 'kid', v_kid),
        'swept', jsonb_build_object('revocations', v_revocations, 'assertion_ids', v_assertion_ids));
END
$$;

-- Grants ---------------------------------------------------------------------------------------------------------------

GRANT EXECUTE ON FUNCTION api.client_for_token(text) TO token;
GRANT EXECUTE ON FUNCTION api.consume_assertion(text, text, bigint, bytea, bigint, bigint) TO token;
GRANT EXECUTE ON FUNCTION api.tenant_put(text, text, bigint, text, text, boolean) TO admin;
GRANT EXECUTE ON FUNCTION api.client_put(text, text, bigint, text, text, text, jsonb, text[], text[], boolean, bigint, boolean) TO admin;
GRANT EXECUTE ON FUNCTION api.client_disable(text, text, bigint, text, text) TO admin;
GRANT EXECUTE ON FUNCTION api.client_list(text, text, bigint, text, text, bigint) TO admin;
GRANT EXECUTE ON FUNCTION api.revoke(text, text, bigint, text, text, bigint) TO admin;
GRANT EXECUTE ON FUNCTION api.trust_snapshot(bigint) TO trust;

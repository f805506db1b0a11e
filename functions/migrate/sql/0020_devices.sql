-- Devices, what was last known of each, and the keys that were made on them; service tokens of Cloudflare Access that clients come with.

-- One row a device of a tenant. `posture` is the claim of a token, as the operator's own management last saw the device; `keys` are thumbprints
-- (RFC 7638) of keys that were made on it, by which a bound token is known to be used there.
CREATE TABLE public.devices (
    tenant     text   NOT NULL REFERENCES public.tenants,
    id         text   NOT NULL CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}$'),
    posture    jsonb  NOT NULL CHECK (jsonb_typeof(posture) = 'object' AND posture ->> 'id' = id),
    checked_at bigint NOT NULL CHECK (checked_at >= 0),
    keys       text[] NOT NULL CHECK (cardinality(keys) <= 8),
    version    bigint NOT NULL DEFAULT 1,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);

ALTER TABLE public.devices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON public.devices TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY across_tenants ON public.devices FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

CREATE FUNCTION internal.device_view(p_row public.devices) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('device', p_row.posture, 'keys', to_jsonb(p_row.keys), 'version', p_row.version,
                              'created_ms', p_row.created_ms, 'updated_ms', p_row.updated_ms)
$$;

-- Stores what is known of devices, [{"device":{…},"keys":[…]|null}], all or none: {"outcome":"put"|"unchanged","created":n,"updated":n}
-- | {"outcome":"tenant_unknown"|"device_key_taken"|"device_limit"}. What was looked at before what is held is not taken over; keys that
-- are not named stay. A key is on one device of a tenant, judged when all of them are in, so that it may move.
CREATE FUNCTION api.device_put(p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_devices jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
    v_entry jsonb;
    v_keys text[];
    v_row devices;
    v_created bigint := 0;
    v_updated bigint := 0;
    v_count bigint;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    PERFORM FROM tenants WHERE tenant = p_tenant FOR SHARE;
    IF NOT FOUND THEN
        v_outcome := 'tenant_unknown';
    ELSE
        -- One at a time: whose a key is and how many there are is judged over all rows.
        PERFORM pg_advisory_xact_lock(7025180341218055);
        BEGIN
            FOR v_entry IN SELECT e.value FROM jsonb_array_elements(p_devices) e LOOP
                v_keys := CASE WHEN jsonb_typeof(v_entry -> 'keys') = 'array'
                               THEN ARRAY(SELECT jsonb_array_elements_text(v_entry -> 'keys')) END;
                SELECT * INTO v_row FROM devices d WHERE d.tenant = p_tenant AND d.id = v_entry -> 'device' ->> 'id';
                IF NOT FOUND THEN
                    INSERT INTO devices (tenant, id, posture, checked_at, keys, created_ms, updated_ms)
                    VALUES (p_tenant, v_entry -> 'device' ->> 'id', v_entry -> 'device', (v_entry -> 'device' ->> 'checked_at')::bigint,
                            coalesce(v_keys, '{}'), p_now_ms, p_now_ms);
                    v_created := v_created + 1;
                    CONTINUE;
                END IF;
                IF (v_entry -> 'device' ->> 'checked_at')::bigint >= v_row.checked_at THEN
                    v_row.posture := v_entry -> 'device';
                    v_row.checked_at := (v_entry -> 'device' ->> 'checked_at')::bigint;
                END IF;
                UPDATE devices d
                   SET posture = v_row.posture, checked_at = v_row.checked_at, keys = coalesce(v_keys, v_row.keys),
                       version = d.version + 1, updated_ms = p_now_ms
                 WHERE d.tenant = p_tenant AND d.id = v_row.id
                   AND (d.posture, d.keys) IS DISTINCT FROM (v_row.posture, coalesce(v_keys, v_row.keys));
                IF FOUND THEN
                    v_updated := v_updated + 1;
                END IF;
            END LOOP;
            IF EXISTS (SELECT FROM devices d, unnest(d.keys) AS k (thumbprint) WHERE d.tenant = p_tenant
                        GROUP BY k.thumbprint HAVING count(*) > 1) THEN
                RAISE EXCEPTION USING ERRCODE = 'PC001';
            END IF;
            PERFORM internal.across_tenants(true);
            SELECT count(*) INTO v_count FROM devices;
            PERFORM internal.across_tenants(false);
            IF v_created > 0 AND v_count > 10000 THEN
                RAISE EXCEPTION USING ERRCODE = 'PC002';
            END IF;
            v_outcome := CASE WHEN v_created + v_updated > 0 THEN 'put' ELSE 'unchanged' END;
        EXCEPTION
            WHEN SQLSTATE 'PC001' THEN v_outcome := 'device_key_taken';
            WHEN SQLSTATE 'PC002' THEN v_outcome := 'device_limit';
        END;
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'device.put', p_tenant,
        CASE jsonb_array_length(p_devices) WHEN 1 THEN p_devices -> 0 -> 'device' ->> 'id' ELSE jsonb_array_length(p_devices) || ' devices' END,
        v_outcome,
        jsonb_build_object('keys', (SELECT coalesce(jsonb_object_agg(e.value -> 'device' ->> 'id', e.value -> 'keys'), '{}')
                                      FROM jsonb_array_elements(p_devices) e WHERE jsonb_typeof(e.value -> 'keys') = 'array')));
    IF v_outcome IN ('put', 'unchanged') THEN
        RETURN jsonb_build_object('outcome', v_outcome, 'created', v_created, 'updated', v_updated);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome);
END
$$;

-- {"outcome":"removed"|"device_unknown"|"tenant_unknown"}
CREATE FUNCTION api.device_remove(p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    DELETE FROM devices d WHERE d.tenant = p_tenant AND d.id = p_id;
    v_outcome := CASE WHEN FOUND THEN 'removed'
                      WHEN EXISTS (SELECT FROM tenants t WHERE t.tenant = p_tenant) THEN 'device_unknown'
                      ELSE 'tenant_unknown' END;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'device.remove', p_tenant, p_id, v_outcome, '{}');
    RETURN jsonb_build_object('outcome', v_outcome);
END
$$;

-- A page of a tenant's devices, by id: {"outcome":"listed","devices":[{device,keys,…}],"next":id|null} | {"outcome":"tenant_unknown"}
CREATE FUNCTION api.device_list(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_after text, p_limit bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text := 'listed';
    v_devices jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF NOT EXISTS (SELECT FROM tenants t WHERE t.tenant = p_tenant) THEN
        v_outcome := 'tenant_unknown';
    ELSE
        SELECT coalesce(jsonb_agg(internal.device_view(d) ORDER BY d.id COLLATE "C"), '[]') INTO v_devices
          FROM (SELECT * FROM devices d WHERE d.tenant = p_tenant AND (p_after IS NULL OR d.id COLLATE "C" > p_after)
                 ORDER BY d.id COLLATE "C" LIMIT least(p_limit, 500)) d;
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'device.list', p_tenant, p_tenant, v_outcome, '{}');
    IF v_outcome <> 'listed' THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'devices', v_devices, 'next',
        CASE WHEN jsonb_array_length(v_devices) = least(p_limit, 500) THEN v_devices -> -1 -> 'device' ->> 'id' END);
END
$$;

-- {"tenants":{"…":[{"device":{…},"keys":[…]}]}}, as it is published.
CREATE FUNCTION api.trust_devices() RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_tenants jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT coalesce(jsonb_object_agg(t.tenant, t.devices), '{}') INTO v_tenants
      FROM (SELECT d.tenant, jsonb_agg(jsonb_build_object('device', d.posture, 'keys', to_jsonb(d.keys)) ORDER BY d.id COLLATE "C") AS devices
              FROM devices d GROUP BY d.tenant) t;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_build_object('tenants', v_tenants);
END
$$;

-- An application of Cloudflare Access that lets managed devices in alone is a kind of its own: whoever comes by it is on such a device.
ALTER TABLE public.issuers
    DROP CONSTRAINT issuers_kind_check,
    DROP CONSTRAINT issuers_audience_of_kind,
    ADD CONSTRAINT issuers_kind_check
        CHECK (kind IN ('cloudflare-access', 'cloudflare-access-managed', 'aws-sts', 'github-actions', 'kubernetes', 'spiffe', 'generic')),
    ADD CONSTRAINT issuers_audience_of_kind
        CHECK ((audience IS NOT NULL) = (kind IN ('cloudflare-access', 'cloudflare-access-managed', 'generic')));

-- The service token of Cloudflare Access that a client's tokens must come with, by its client id.
ALTER TABLE public.clients ADD COLUMN service text CHECK (service ~ '^[0-9a-f]{32}\.access$');

-- {"outcome":"updated"|"unchanged","client_id","service"} | {"outcome":"client_unknown"}
CREATE FUNCTION api.client_service(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_client_id text, p_service text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE clients c SET service = p_service, version = c.version + 1, updated_ms = p_now_ms
     WHERE c.client_id = p_client_id AND c.tenant = p_tenant AND c.service IS DISTINCT FROM p_service;
    v_outcome := CASE WHEN FOUND THEN 'updated'
                      WHEN EXISTS (SELECT FROM clients c WHERE c.client_id = p_client_id AND c.tenant = p_tenant) THEN 'unchanged'
                      ELSE 'client_unknown' END;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'client.service', p_tenant, p_client_id, v_outcome,
                                jsonb_build_object('service', p_service));
    IF v_outcome = 'client_unknown' THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'client_id', p_client_id, 'service', p_service);
END
$$;

-- What the token endpoint reads of a client is what it was, and the service token.
CREATE OR REPLACE FUNCTION api.client_for_token(p_client_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_answer jsonb := internal.client_for_token(p_client_id);
    v_audiences text[];
    v_service text;
BEGIN
    IF v_answer ->> 'outcome' <> 'found' THEN
        RETURN v_answer;
    END IF;
    PERFORM internal.across_tenants(true);
    SELECT c.audiences, c.service INTO v_audiences, v_service FROM clients c WHERE c.client_id = p_client_id;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_set(jsonb_set(v_answer, '{client,audiences}', to_jsonb(coalesce(v_audiences, '{}'))),
                     '{client,service}', coalesce(to_jsonb(v_service), 'null'));
END
$$;

REVOKE ALL ON FUNCTION
    api.device_put(text, text, bigint, text, jsonb),
    api.device_remove(text, text, bigint, text, text),
    api.device_list(text, text, bigint, text, text, bigint),
    api.client_service(text, text, bigint, text, text, text),
    api.trust_devices()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    api.device_put(text, text, bigint, text, jsonb),
    api.device_remove(text, text, bigint, text, text),
    api.device_list(text, text, bigint, text, text, bigint),
    api.client_service(text, text, bigint, text, text, text)
TO admin;
GRANT EXECUTE ON FUNCTION api.trust_devices() TO trust;

-- Who made a file: what a receipt says, and what ends the tickets of a session or a device.
--
-- Functions whose arguments changed stand beside the ones they replace, as before. A file made before this has no maker
-- but its subject, and its receipt says no more than that.

-- Tables ---------------------------------------------------------------------------------------------------------------

-- {"client_id","jti","device"?:{"id","source","checked_at"}}: of the token that asked for the file. Of a device no
-- more than a receipt tells.
ALTER TABLE public.files
    ADD COLUMN made_by jsonb CHECK (jsonb_typeof(made_by) = 'object' AND length(made_by::text) <= 2048);

ALTER TABLE public.tickets
    ADD COLUMN sid    text CHECK (length(sid) BETWEEN 1 AND 255),
    ADD COLUMN device text CHECK (length(device) BETWEEN 1 AND 255);

-- upload ---------------------------------------------------------------------------------------------------------------

-- {"outcome":"created","id","status","created_ms"} | {"outcome":"replayed","id","status","created_ms"} | {"outcome":"conflict"}
-- As before, with who made it. A repeated request changes no maker: the file is the first one's.
CREATE FUNCTION api.create_file(
    p_tenant text, p_subject text, p_id uuid, p_name text, p_content_type text, p_mode text, p_size bigint, p_sha256 bytea,
    p_max_size bigint, p_part_size bigint, p_url_expires_ms bigint, p_idempotency_key text, p_request_hash bytea, p_made_by jsonb,
    p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_held files%ROWTYPE;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE files SET idempotency_key = NULL, request_hash = NULL
     WHERE subject = p_subject AND idempotency_key = p_idempotency_key AND created_ms <= p_now_ms - 86400000;

    -- Of two requests at once the second waits here for the first one's commit.
    INSERT INTO files (id, tenant, subject, object_key, name, content_type, mode, size, sha256, max_size, part_size,
                       url_expires_ms, idempotency_key, request_hash, made_by, created_ms)
    VALUES (p_id, p_tenant, p_subject, 't/' || p_tenant || '/' || p_id, p_name, p_content_type, p_mode, p_size, p_sha256,
            p_max_size, p_part_size, p_url_expires_ms, p_idempotency_key, p_request_hash, p_made_by, p_now_ms)
    ON CONFLICT (tenant, subject, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING;
    IF FOUND THEN
        RETURN jsonb_build_object('outcome', 'created', 'id', p_id, 'status', 'pending', 'created_ms', p_now_ms);
    END IF;

    SELECT * INTO STRICT v_held FROM files WHERE subject = p_subject AND idempotency_key = p_idempotency_key FOR UPDATE;
    IF v_held.request_hash <> p_request_hash THEN
        RETURN jsonb_build_object('outcome', 'conflict');
    END IF;
    IF v_held.status = 'pending' THEN
        UPDATE files SET url_expires_ms = greatest(url_expires_ms, p_url_expires_ms) WHERE id = v_held.id;
    END IF;
    RETURN jsonb_build_object('outcome', 'replayed', 'id', v_held.id, 'status', v_held.status,
                              'created_ms', v_held.created_ms);
END
$$;

-- download -------------------------------------------------------------------------------------------------------------

-- {"outcome":"found","receipt":{subject,made_by,name,content_type,mode,part_size,size,sha256,created_ms,received_ms,version_id}}
-- | {"outcome":"closed","status"} | {"outcome":"unknown"}
-- What is known for good of a file whose object is there and as declared; before and after that its state alone.
CREATE FUNCTION api.file_receipt(p_tenant text, p_subject text, p_id uuid, p_of_tenant boolean) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file     files%ROWTYPE;
    v_received bigint;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files WHERE id = p_id AND tenant = p_tenant AND (p_of_tenant OR subject = p_subject);
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.status NOT IN ('scanning', 'clean', 'unscannable') THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', v_file.status);
    END IF;
    SELECT recorded_ms INTO v_received FROM file_facts
     WHERE object_key = v_file.object_key AND kind = 'created' AND value = 'ok' AND version_id = v_file.version_id
     ORDER BY recorded_ms LIMIT 1;
    RETURN jsonb_build_object('outcome', 'found', 'receipt', jsonb_build_object(
        'subject', v_file.subject, 'made_by', coalesce(v_file.made_by, '{}'), 'name', v_file.name,
        'content_type', v_file.content_type, 'mode', v_file.mode, 'part_size', v_file.part_size,
        'size', coalesce(v_file.actual_size, v_file.size),
        'sha256', coalesce(encode(v_file.sha256, 'base64'), v_file.actual_sha256),
        'created_ms', v_file.created_ms, 'received_ms', v_received, 'version_id', v_file.version_id));
END
$$;

-- {"outcome":"made"} | {"outcome":"many"} | {"outcome":"unknown"} | {"outcome":"closed","status"}
-- As before, and the ticket ends with the session and the device that made it too.
CREATE FUNCTION api.ticket_put(
    p_tenant text, p_subject text, p_id uuid, p_of_tenant boolean, p_hash bytea, p_client_id text, p_jti text, p_sid text,
    p_device text, p_expires_ms bigint, p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_made jsonb;
BEGIN
    v_made := api.ticket_put(p_tenant, p_subject, p_id, p_of_tenant, p_hash, p_client_id, p_jti, p_expires_ms, p_now_ms);
    IF v_made ->> 'outcome' = 'made' THEN
        UPDATE tickets SET sid = p_sid, device = p_device WHERE hash = p_hash;
    END IF;
    RETURN v_made;
END
$$;

-- Whether whoever made the ticket was shut out since, or his token, session or device was. The caller sees across tenants.
CREATE OR REPLACE FUNCTION internal.ticket_is_revoked(p_ticket public.tickets) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (
               SELECT FROM revocations r
                WHERE (r.kind = 'jti' AND r.value = p_ticket.jti)
                   OR (p_ticket.created_ms / 1000 <= r.epoch
                       AND (r.kind, r.value) IN (('sub', p_ticket.subject), ('client_id', p_ticket.client_id), ('tenant', p_ticket.tenant),
                                                 ('sid', p_ticket.sid), ('device', p_ticket.device))))
        OR NOT EXISTS (SELECT FROM tenants t WHERE t.tenant = p_ticket.tenant AND t.enabled)
$$;

-- Grants ---------------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
    api.create_file(text, text, uuid, text, text, text, bigint, bytea, bigint, bigint, bigint, text, bytea, jsonb, bigint),
    api.file_receipt(text, text, uuid, boolean),
    api.ticket_put(text, text, uuid, boolean, bytea, text, text, text, text, bigint, bigint)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    api.create_file(text, text, uuid, text, text, text, bigint, bytea, bigint, bigint, bigint, text, bytea, jsonb, bigint)
TO upload;
GRANT EXECUTE ON FUNCTION
    api.file_receipt(text, text, uuid, boolean),
    api.ticket_put(text, text, uuid, boolean, bytea, text, text, text, text, bigint, bigint)
TO download;

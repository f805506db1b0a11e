-- Download tickets: a secret that opens one file once, within minutes, to whoever holds it.
--
-- Only the secret's digest is here. A ticket dies with its use, its time, its file, the token that made it and whoever made
-- it: what is revoked is looked up when the ticket is opened, not when it was made.

CREATE TABLE public.tickets (
    hash       bytea  PRIMARY KEY CHECK (length(hash) = 32),
    tenant     text   NOT NULL REFERENCES public.tenants,
    file_id    uuid   NOT NULL REFERENCES public.files,
    subject    text   NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    client_id  text   NOT NULL CHECK (length(client_id) BETWEEN 1 AND 255),
    jti        text   NOT NULL CHECK (length(jti) BETWEEN 1 AND 255),
    created_ms bigint NOT NULL,
    expires_ms bigint NOT NULL CHECK (expires_ms > created_ms AND expires_ms <= created_ms + 300000),
    used_ms    bigint
);
CREATE INDEX tickets_by_file ON public.tickets (file_id, expires_ms);

ALTER TABLE public.tickets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON public.tickets TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY across_tenants ON public.tickets FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

-- download -------------------------------------------------------------------------------------------------------------

-- {"outcome":"made"} | {"outcome":"many"} | {"outcome":"unknown"} | {"outcome":"closed","status"}
-- For whoever may read the file, and for a file that may be served. `many` when a hundred of this file's tickets are open.
-- What ended a day ago goes on the way.
CREATE FUNCTION api.ticket_put(
    p_tenant text, p_subject text, p_id uuid, p_of_tenant boolean, p_hash bytea, p_client_id text, p_jti text,
    p_expires_ms bigint, p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_status text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT status INTO v_status FROM files
     WHERE id = p_id AND tenant = p_tenant AND (p_of_tenant OR subject = p_subject) FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_status <> 'clean' THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', v_status);
    END IF;
    DELETE FROM tickets WHERE file_id = p_id AND expires_ms <= p_now_ms - 86400000;
    IF (SELECT count(*) FROM tickets WHERE file_id = p_id AND used_ms IS NULL AND expires_ms > p_now_ms) >= 100 THEN
        RETURN jsonb_build_object('outcome', 'many');
    END IF;
    INSERT INTO tickets (hash, tenant, file_id, subject, client_id, jti, created_ms, expires_ms)
    VALUES (p_hash, p_tenant, p_id, p_subject, p_client_id, p_jti, p_now_ms, p_expires_ms);
    RETURN jsonb_build_object('outcome', 'made');
END
$$;

-- {"outcome":"found","tenant","file":{…as api.file_for_download}} | {"outcome":"unknown"}
-- What a ticket is for, without using it: the URL is signed first. Nothing is told of one that is used, over or revoked.
CREATE FUNCTION api.ticket_find(p_hash bytea, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_ticket tickets%ROWTYPE;
    v_dead   boolean;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT * INTO v_ticket FROM tickets WHERE hash = p_hash AND used_ms IS NULL AND expires_ms > p_now_ms;
    v_dead := NOT FOUND OR internal.ticket_is_revoked(v_ticket);
    PERFORM internal.enter_tenant(coalesce(v_ticket.tenant, ''));
    IF v_dead THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    RETURN api.file_for_download(v_ticket.tenant, v_ticket.subject, v_ticket.file_id, true)
        || jsonb_build_object('tenant', v_ticket.tenant, 'subject', v_ticket.subject, 'id', v_ticket.file_id);
END
$$;

-- {"outcome":"used"} | {"outcome":"unknown"}: of any number of uses one wins, while the file is still what was signed for.
CREATE FUNCTION api.ticket_use(p_tenant text, p_hash bytea, p_version_id text, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE tickets t SET used_ms = p_now_ms
      FROM files f
     WHERE t.hash = p_hash AND t.tenant = p_tenant AND t.used_ms IS NULL AND t.expires_ms > p_now_ms
       AND f.id = t.file_id AND f.status = 'clean' AND f.version_id = p_version_id;
    RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'used' ELSE 'unknown' END);
END
$$;

-- Whether whoever made the ticket was shut out since, or his token was. The caller sees across tenants.
CREATE FUNCTION internal.ticket_is_revoked(p_ticket public.tickets) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (
               SELECT FROM revocations r
                WHERE (r.kind = 'jti' AND r.value = p_ticket.jti)
                   OR (r.kind = 'sub' AND r.value = p_ticket.subject AND p_ticket.created_ms / 1000 <= r.epoch)
                   OR (r.kind = 'client_id' AND r.value = p_ticket.client_id AND p_ticket.created_ms / 1000 <= r.epoch)
                   OR (r.kind = 'tenant' AND r.value = p_ticket.tenant AND p_ticket.created_ms / 1000 <= r.epoch))
        OR NOT EXISTS (SELECT FROM tenants t WHERE t.tenant = p_ticket.tenant AND t.enabled)
$$;

-- Grants ---------------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
    api.ticket_put(text, text, uuid, boolean, bytea, text, text, bigint, bigint),
    api.ticket_find(bytea, bigint),
    api.ticket_use(text, bytea, text, bigint),
    internal.ticket_is_revoked(public.tickets)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    api.ticket_put(text, text, uuid, boolean, bytea, text, text, bigint, bigint),
    api.ticket_find(bytea, bigint),
    api.ticket_use(text, bytea, text, bigint)
TO download;

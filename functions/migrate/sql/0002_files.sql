-- Files: what was declared, what is known to have happened to the object, and the state that follows from both.
--
-- A state is derived, never set by an event: facts are inserted once each, then the state is computed anew from all of
-- them under the row's lock. Events may come twice, late and in any order; the same facts give the same state.

-- Tables ---------------------------------------------------------------------------------------------------------------

CREATE TABLE public.files (
    id                 uuid   PRIMARY KEY,
    tenant             text   NOT NULL REFERENCES public.tenants,
    subject            text   NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    object_key         text   NOT NULL UNIQUE,
    name               text   NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 200),
    content_type       text   NOT NULL CHECK (length(content_type) BETWEEN 1 AND 127),
    size               bigint NOT NULL CHECK (size > 0),
    sha256             bytea  NOT NULL CHECK (length(sha256) = 32),
    mode               text   NOT NULL CHECK (mode = 'put'),
    url_expires_ms     bigint NOT NULL,
    version_id         text,
    etag               text,
    verdict            text,
    status             text   NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'scanning', 'clean', 'rejected', 'infected', 'unscannable', 'expired', 'deleted')),
    idempotency_key    text   CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    request_hash       bytea  CHECK (length(request_hash) = 32),
    created_ms         bigint NOT NULL,
    deleted_ms         bigint,
    CHECK (object_key = 't/' || tenant || '/' || id),
    CHECK ((idempotency_key IS NULL) = (request_hash IS NULL)),
    CHECK (status <> 'clean' OR version_id IS NOT NULL)
);
CREATE UNIQUE INDEX files_by_idempotency_key ON public.files (tenant, subject, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- `created` says what the bucket held and whether it was as declared; `verdict` what the scanner said about a version.
-- `scan_off` keeps with the fact that scanning was switched off when it was recorded: a later setting judges nothing anew.
CREATE TABLE public.file_facts (
    bucket      text    NOT NULL,
    object_key  text    NOT NULL REFERENCES public.files (object_key),
    tenant      text    NOT NULL,
    version_id  text    NOT NULL CHECK (length(version_id) BETWEEN 1 AND 1024),
    etag        text    NOT NULL,
    kind        text    NOT NULL CHECK (kind IN ('created', 'verdict')),
    value       text    NOT NULL CHECK (length(value) BETWEEN 1 AND 64),
    size        bigint,
    scan_off    boolean NOT NULL DEFAULT false,
    recorded_ms bigint  NOT NULL,
    PRIMARY KEY (bucket, object_key, version_id, etag, kind, value)
);
CREATE INDEX file_facts_by_object ON public.file_facts (object_key);

ALTER TABLE public.files      ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE public.file_facts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY of_tenant ON public.files      TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY of_tenant ON public.file_facts TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));

-- upload ---------------------------------------------------------------------------------------------------------------

-- {"outcome":"created","id","status"} | {"outcome":"replayed","id","status"} | {"outcome":"conflict"}
-- `replayed` is the file that the same Idempotency-Key and body made within 24 hours, with its URL life raised while it is
-- still pending; `conflict` the same key with another body.
CREATE FUNCTION api.create_file(
    p_tenant text, p_subject text, p_id uuid, p_name text, p_content_type text, p_size bigint, p_sha256 bytea, p_mode text,
    p_url_expires_ms bigint, p_idempotency_key text, p_request_hash bytea, p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_held files%ROWTYPE;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE files SET idempotency_key = NULL, request_hash = NULL
     WHERE subject = p_subject AND idempotency_key = p_idempotency_key AND created_ms <= p_now_ms - 86400000;

    -- Of two requests at once the second waits here for the first one's commit.
    INSERT INTO files (id, tenant, subject, object_key, name, content_type, size, sha256, mode, url_expires_ms,
                       idempotency_key, request_hash, created_ms)
    VALUES (p_id, p_tenant, p_subject, 't/' || p_tenant || '/' || p_id, p_name, p_content_type, p_size, p_sha256, p_mode,
            p_url_expires_ms, p_idempotency_key, p_request_hash, p_now_ms)
    ON CONFLICT (tenant, subject, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING;
    IF FOUND THEN
        RETURN jsonb_build_object('outcome', 'created', 'id', p_id, 'status', 'pending');
    END IF;

    SELECT * INTO STRICT v_held FROM files WHERE subject = p_subject AND idempotency_key = p_idempotency_key FOR UPDATE;
    IF v_held.request_hash <> p_request_hash THEN
        RETURN jsonb_build_object('outcome', 'conflict');
    END IF;
    IF v_held.status = 'pending' THEN
        UPDATE files SET url_expires_ms = greatest(url_expires_ms, p_url_expires_ms) WHERE id = v_held.id;
    END IF;
    RETURN jsonb_build_object('outcome', 'replayed', 'id', v_held.id, 'status', v_held.status);
END
$$;

-- download -------------------------------------------------------------------------------------------------------------

-- {"outcome":"found","file":{id,name,content_type,size,sha256,status,version_id,verdict,created_ms}} | {"outcome":"unknown"}
-- Somebody else's file is as unknown as one that never was. `p_of_tenant` opens the whole tenant, never another one.
CREATE FUNCTION api.file_for_download(p_tenant text, p_subject text, p_id uuid, p_of_tenant boolean) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT jsonb_build_object(
               'id', id, 'name', name, 'content_type', content_type, 'size', size, 'sha256', encode(sha256, 'hex'),
               'status', status, 'version_id', version_id, 'verdict', verdict, 'created_ms', created_ms)
      INTO v_file
      FROM files
     WHERE id = p_id AND tenant = p_tenant AND (p_of_tenant OR subject = p_subject);
    IF v_file IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    RETURN jsonb_build_object('outcome', 'found', 'file', v_file);
END
$$;

-- object-events --------------------------------------------------------------------------------------------------------

-- {"outcome":"found","file":{content_type,size,sha256,status}} | {"outcome":"unknown"}: what the object must be.
-- Tenant and id are those of the object's own key, which the row must bear.
CREATE FUNCTION api.file_for_event(p_tenant text, p_id uuid) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT jsonb_build_object('content_type', content_type, 'size', size, 'sha256', encode(sha256, 'hex'), 'status', status)
      INTO v_file
      FROM files
     WHERE id = p_id AND tenant = p_tenant;
    IF v_file IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    RETURN jsonb_build_object('outcome', 'found', 'file', v_file);
END
$$;

-- The state that the facts about a file amount to. The caller holds the row's lock and has entered the tenant.
CREATE FUNCTION internal.derive_file_status(p_id uuid) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file     files%ROWTYPE;
    v_created  file_facts%ROWTYPE;
    v_versions bigint;
    v_failed   boolean;
    v_threat   boolean;
    v_verdict  text;
    v_status   text;
BEGIN
    SELECT * INTO STRICT v_file FROM files WHERE id = p_id;
    SELECT count(DISTINCT (version_id, etag)) FILTER (WHERE kind = 'created'),
           coalesce(bool_or(value <> 'ok') FILTER (WHERE kind = 'created'), false),
           coalesce(bool_or(value = 'THREATS_FOUND') FILTER (WHERE kind = 'verdict'), false)
      INTO v_versions, v_failed, v_threat
      FROM file_facts WHERE object_key = v_file.object_key;

    IF v_versions = 1 THEN
        SELECT * INTO v_created FROM file_facts
         WHERE object_key = v_file.object_key AND kind = 'created' ORDER BY value <> 'ok' DESC LIMIT 1;
        -- A version that got two verdicts is judged by the worse.
        SELECT value INTO v_verdict FROM file_facts
         WHERE object_key = v_file.object_key AND kind = 'verdict' AND version_id = v_created.version_id
         ORDER BY value = 'NO_THREATS_FOUND', value LIMIT 1;
    END IF;

    v_status := CASE
        WHEN v_file.deleted_ms IS NOT NULL    THEN 'deleted'
        WHEN v_file.status = 'expired'        THEN 'expired'
        WHEN v_threat                         THEN 'infected'
        WHEN v_versions > 1 OR v_failed       THEN 'rejected'
        WHEN v_versions = 0                   THEN 'pending'
        WHEN v_verdict = 'NO_THREATS_FOUND'   THEN 'clean'
        WHEN v_verdict IS NOT NULL            THEN 'unscannable'
        WHEN v_created.scan_off               THEN 'clean'
        ELSE 'scanning'
    END;
    UPDATE files
       SET status = v_status,
           version_id = v_created.version_id,
           etag = v_created.etag,
           verdict = CASE WHEN v_threat THEN 'THREATS_FOUND'
                          WHEN v_status = 'clean' AND v_verdict IS NULL THEN 'unscanned'
                          ELSE v_verdict END
     WHERE id = p_id;
    RETURN v_status;
END
$$;

-- {"outcome":"recorded"|"known","status"} | {"outcome":"unknown"}
-- `p_finding` is `ok` or the first check that failed. Recording a fact again changes nothing.
CREATE FUNCTION api.record_created(
    p_tenant text, p_id uuid, p_bucket text, p_version_id text, p_etag text, p_size bigint, p_finding text, p_scan_off boolean,
    p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_key text;
    v_new boolean;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT object_key INTO v_key FROM files WHERE id = p_id AND tenant = p_tenant FOR UPDATE;
    IF v_key IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    INSERT INTO file_facts (bucket, object_key, tenant, version_id, etag, kind, value, size, scan_off, recorded_ms)
    VALUES (p_bucket, v_key, p_tenant, p_version_id, p_etag, 'created', p_finding, p_size, p_scan_off, p_now_ms)
    ON CONFLICT DO NOTHING;
    v_new := FOUND;
    RETURN jsonb_build_object('outcome', CASE WHEN v_new THEN 'recorded' ELSE 'known' END,
                              'status', internal.derive_file_status(p_id));
END
$$;

-- Grants ---------------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
    api.create_file(text, text, uuid, text, text, bigint, bytea, text, bigint, text, bytea, bigint),
    api.file_for_download(text, text, uuid, boolean),
    api.file_for_event(text, uuid),
    api.record_created(text, uuid, text, text, text, bigint, text, boolean, bigint),
    internal.derive_file_status(uuid)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.create_file(text, text, uuid, text, text, bigint, bytea, text, bigint, text, bytea, bigint) TO upload;
GRANT EXECUTE ON FUNCTION api.file_for_download(text, text, uuid, boolean) TO download;
GRANT EXECUTE ON FUNCTION api.file_for_event(text, uuid) TO object_events;
GRANT EXECUTE ON FUNCTION api.record_created(text, uuid, text, text, text, bigint, text, boolean, bigint) TO object_events;

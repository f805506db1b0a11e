-- The end of files: deletion by the owner, expiry of what was never filled, and the removal of bytes that nobody may read.
--
-- Ending a file and removing its bytes are two things. The row ends at once and stays as a tombstone: while a URL for the
-- key may still be alive, an object that were gone would open the key again. The bytes go after the last URL has died and
-- a minute more, version by version, and each version's end is a fact like its beginning.

ALTER TABLE public.files
    ADD COLUMN sweep_ms  bigint,   -- when a sweep last took it in hand
    ADD COLUMN purged_ms bigint;   -- when the last version that is known of was gone

ALTER TABLE public.file_facts
    DROP CONSTRAINT file_facts_kind_check,
    ADD CONSTRAINT file_facts_kind_check CHECK (kind IN ('created', 'verdict', 'purged'));

CREATE INDEX files_pending ON public.files (created_ms) WHERE status = 'pending';
CREATE INDEX files_unpurged ON public.files (url_expires_ms)
    WHERE purged_ms IS NULL AND status IN ('rejected', 'infected', 'expired', 'deleted');

-- Seen across tenants, changed only inside the tenant that each row names.
CREATE POLICY across_tenants ON public.files FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

-- Whatever is learnt of an object after its purge, by whichever function, puts the file up for another one.
CREATE FUNCTION internal.reopen_purge() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE files SET purged_ms = NULL WHERE object_key = NEW.object_key AND purged_ms IS NOT NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER late_version AFTER INSERT ON public.file_facts
    FOR EACH ROW WHEN (NEW.kind <> 'purged') EXECUTE FUNCTION internal.reopen_purge();

-- upload ---------------------------------------------------------------------------------------------------------------

-- {"outcome":"renewed","file":{content_type,size,sha256}} | {"outcome":"closed","status"} | {"outcome":"unknown"}
-- The URL's end is on the row before the URL exists. A pending file of a day or more is closed as `expired`, which the next
-- sweep makes it.
CREATE FUNCTION api.renew_upload(p_tenant text, p_subject text, p_id uuid, p_url_expires_ms bigint, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file files%ROWTYPE;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files WHERE id = p_id AND tenant = p_tenant AND subject = p_subject FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.status <> 'pending' THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', v_file.status);
    END IF;
    IF v_file.created_ms <= p_now_ms - 86400000 THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', 'expired');
    END IF;
    UPDATE files SET url_expires_ms = greatest(url_expires_ms, p_url_expires_ms) WHERE id = p_id;
    RETURN jsonb_build_object('outcome', 'renewed', 'file', jsonb_build_object(
        'content_type', v_file.content_type, 'size', v_file.size, 'sha256', encode(v_file.sha256, 'hex')));
END
$$;

-- {"outcome":"deleted"} | {"outcome":"known"} | {"outcome":"unknown"}: deleted now, was so before, not the caller's.
CREATE FUNCTION api.delete_file(p_tenant text, p_subject text, p_id uuid, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_deleted_ms bigint;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT deleted_ms INTO v_deleted_ms FROM files WHERE id = p_id AND tenant = p_tenant AND subject = p_subject FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_deleted_ms IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'known');
    END IF;
    UPDATE files SET deleted_ms = p_now_ms WHERE id = p_id;
    PERFORM internal.derive_file_status(p_id);
    RETURN jsonb_build_object('outcome', 'deleted');
END
$$;

-- object-events --------------------------------------------------------------------------------------------------------

-- {"files":[{tenant,id,status,versions}]}: files whose bytes may go now, and which versions are known and not yet gone.
-- Pending files of a day or more are made `expired` on the way. What is handed out is not handed out again for ten
-- minutes: two sweeps at once share the work, and one object that cannot be removed holds up nobody else's.
CREATE FUNCTION api.files_to_sweep(p_now_ms bigint, p_limit bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_due  files[];
    v_file files%ROWTYPE;
    v_all  jsonb := '[]';
BEGIN
    PERFORM internal.across_tenants(true);
    v_due := ARRAY(
        SELECT f FROM files f
         WHERE (   (status = 'pending' AND created_ms <= p_now_ms - 86400000)
                OR (purged_ms IS NULL AND status IN ('rejected', 'infected', 'expired', 'deleted')))
           AND url_expires_ms <= p_now_ms - 60000
           AND (sweep_ms IS NULL OR sweep_ms <= p_now_ms - 600000)
         ORDER BY sweep_ms NULLS FIRST, id
         LIMIT greatest(p_limit, 0));
    FOREACH v_file IN ARRAY v_due LOOP
        PERFORM internal.enter_tenant(v_file.tenant);
        UPDATE files
           SET sweep_ms = p_now_ms, status = CASE status WHEN 'pending' THEN 'expired' ELSE status END
         WHERE id = v_file.id AND status = v_file.status AND url_expires_ms = v_file.url_expires_ms
           AND sweep_ms IS NOT DISTINCT FROM v_file.sweep_ms
        RETURNING status INTO v_file.status;
        CONTINUE WHEN NOT FOUND;
        v_all := v_all || jsonb_build_object(
            'tenant', v_file.tenant, 'id', v_file.id, 'status', v_file.status,
            'versions', to_jsonb(internal.versions_left(v_file.object_key)));
    END LOOP;
    PERFORM internal.enter_tenant('');
    RETURN jsonb_build_object('files', v_all);
END
$$;

CREATE FUNCTION internal.versions_left(p_object_key text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT ARRAY(SELECT version_id FROM file_facts WHERE object_key = p_object_key AND kind <> 'purged'
                 EXCEPT
                 SELECT version_id FROM file_facts WHERE object_key = p_object_key AND kind = 'purged'
                 ORDER BY 1)
$$;

-- {"outcome":"purged"} | {"outcome":"kept"} | {"outcome":"unknown"}: no known version is left, another one is, or the file
-- is not one whose bytes may go. `p_versions` are gone from the bucket.
CREATE FUNCTION api.file_purged(p_tenant text, p_id uuid, p_bucket text, p_versions text[], p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_key text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT object_key INTO v_key FROM files
     WHERE id = p_id AND tenant = p_tenant AND status IN ('rejected', 'infected', 'expired', 'deleted') FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    INSERT INTO file_facts (bucket, object_key, tenant, version_id, etag, kind, value, recorded_ms)
    SELECT DISTINCT p_bucket, v_key, p_tenant, version_id, '', 'purged', 'ok', p_now_ms
      FROM file_facts WHERE object_key = v_key AND kind <> 'purged' AND version_id = ANY (p_versions)
    ON CONFLICT DO NOTHING;
    IF cardinality(internal.versions_left(v_key)) > 0 THEN
        RETURN jsonb_build_object('outcome', 'kept');
    END IF;
    UPDATE files SET purged_ms = p_now_ms WHERE id = p_id AND purged_ms IS NULL;
    RETURN jsonb_build_object('outcome', 'purged');
END
$$;

-- Grants ---------------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
    api.renew_upload(text, text, uuid, bigint, bigint),
    api.delete_file(text, text, uuid, bigint),
    api.files_to_sweep(bigint, bigint),
    api.file_purged(text, uuid, text, text[], bigint),
    internal.reopen_purge(),
    internal.versions_left(text)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.renew_upload(text, text, uuid, bigint, bigint) TO upload;
GRANT EXECUTE ON FUNCTION api.delete_file(text, text, uuid, bigint) TO upload;
GRANT EXECUTE ON FUNCTION api.files_to_sweep(bigint, bigint) TO object_events;
GRANT EXECUTE ON FUNCTION api.file_purged(text, uuid, text, text[], bigint) TO object_events;

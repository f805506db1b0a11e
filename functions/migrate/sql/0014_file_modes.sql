-- Three ways to upload: one exact PUT, a form of unknown size, and parts.
--
-- What a file is declared to be differs: a PUT has size and digest, a form only its largest size, parts a size and one
-- digest each. What it turned out to be follows from its facts, as its state does: `actual_size` and `actual_sha256` are
-- those of its one version that is as declared, whatever order the events came in.
--
-- Functions whose arguments changed stand beside the ones they replace: while a deployment goes on, the code of before is
-- still running. Nothing of this release calls the older ones.

-- Tables ---------------------------------------------------------------------------------------------------------------

-- `max_size` is a form's; `part_size` that of every part but the last; `upload_id` S3's name for parts that are not one
-- object yet, and never told to anybody; `completed_ms` when S3 said that they are.
ALTER TABLE public.files
    ALTER COLUMN size   DROP NOT NULL,
    ALTER COLUMN sha256 DROP NOT NULL,
    DROP CONSTRAINT files_mode_check,
    ADD CONSTRAINT files_mode_check CHECK (mode IN ('put', 'post', 'multipart')),
    ADD COLUMN max_size      bigint CHECK (max_size > 0),
    ADD COLUMN part_size     bigint CHECK (part_size > 0),
    ADD COLUMN upload_id     text   CHECK (length(upload_id) BETWEEN 1 AND 1024),
    ADD COLUMN completed_ms  bigint,
    ADD COLUMN actual_size   bigint,
    ADD COLUMN actual_sha256 text,
    ADD CONSTRAINT files_declared CHECK (CASE mode
        WHEN 'put'  THEN size IS NOT NULL AND sha256 IS NOT NULL AND max_size IS NULL AND part_size IS NULL
        WHEN 'post' THEN size IS NULL AND sha256 IS NULL AND max_size IS NOT NULL AND part_size IS NULL
        ELSE size IS NOT NULL AND sha256 IS NULL AND max_size IS NULL AND part_size IS NOT NULL AND size <= part_size * 10000
    END),
    ADD CONSTRAINT files_parts CHECK (mode = 'multipart' OR (upload_id IS NULL AND completed_ms IS NULL));

-- The digest of the object as a whole: base64, and for an object of parts the digest of their digests with their number.
ALTER TABLE public.file_facts ADD COLUMN sha256 text CHECK (length(sha256) <= 64);

-- What was signed for each part, last.
CREATE TABLE public.file_parts (
    file_id uuid    NOT NULL REFERENCES public.files,
    tenant  text    NOT NULL,
    part    integer NOT NULL CHECK (part BETWEEN 1 AND 10000),
    size    bigint  NOT NULL CHECK (size > 0),
    sha256  bytea   NOT NULL CHECK (length(sha256) = 32),
    PRIMARY KEY (file_id, part)
);

ALTER TABLE public.file_parts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON public.file_parts TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));

-- Helpers --------------------------------------------------------------------------------------------------------------

-- What the caller may see of how a file was declared.
CREATE FUNCTION internal.declared(p_file public.files) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT jsonb_build_object('mode', p_file.mode, 'content_type', p_file.content_type, 'size', p_file.size,
                              'sha256', encode(p_file.sha256, 'hex'), 'max_size', p_file.max_size,
                              'part_size', p_file.part_size, 'created_ms', p_file.created_ms)
$$;

-- How many parts a file has.
CREATE FUNCTION internal.part_count(p_file public.files) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT (p_file.size + p_file.part_size - 1) / p_file.part_size
$$;

-- The state that the facts about a file amount to. The caller holds the row's lock and has entered the tenant.
CREATE OR REPLACE FUNCTION internal.derive_file_status(p_id uuid) RETURNS text
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
         WHERE object_key = v_file.object_key AND kind = 'created' ORDER BY value <> 'ok' DESC, value LIMIT 1;
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
           actual_size = CASE WHEN NOT v_failed THEN v_created.size END,
           actual_sha256 = CASE WHEN NOT v_failed THEN v_created.sha256 END,
           verdict = CASE WHEN v_threat THEN 'THREATS_FOUND'
                          WHEN v_status = 'clean' AND v_verdict IS NULL THEN 'unscanned'
                          ELSE v_verdict END
     WHERE id = p_id;
    RETURN v_status;
END
$$;

-- upload ---------------------------------------------------------------------------------------------------------------

-- {"outcome":"created","id","status","created_ms"} | {"outcome":"replayed","id","status","created_ms"} | {"outcome":"conflict"}
-- As before, for every mode: what a mode does not declare is null.
CREATE FUNCTION api.create_file(
    p_tenant text, p_subject text, p_id uuid, p_name text, p_content_type text, p_mode text, p_size bigint, p_sha256 bytea,
    p_max_size bigint, p_part_size bigint, p_url_expires_ms bigint, p_idempotency_key text, p_request_hash bytea, p_now_ms bigint
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
                       url_expires_ms, idempotency_key, request_hash, created_ms)
    VALUES (p_id, p_tenant, p_subject, 't/' || p_tenant || '/' || p_id, p_name, p_content_type, p_mode, p_size, p_sha256,
            p_max_size, p_part_size, p_url_expires_ms, p_idempotency_key, p_request_hash, p_now_ms)
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

-- {"outcome":"renewed","file":{mode,content_type,size,sha256,max_size,part_size,created_ms}} | {"outcome":"closed","status"}
-- | {"outcome":"unknown"}
CREATE OR REPLACE FUNCTION api.renew_upload(p_tenant text, p_subject text, p_id uuid, p_url_expires_ms bigint, p_now_ms bigint)
RETURNS jsonb
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
    RETURN jsonb_build_object('outcome', 'renewed', 'file', internal.declared(v_file));
END
$$;

-- {"outcome":"signed","content_type","upload_id"} | {"outcome":"mode"} | {"outcome":"wrong"} | {"outcome":"closed","status"}
-- | {"outcome":"unknown"}
-- Remembers what parts are about to be signed for: `p_parts` is [{part,size,sha256}], the digest in hexadecimal. `mode` when
-- the file is not one of parts; `wrong` when one of them is none of its parts or has another size: nothing is remembered.
CREATE FUNCTION api.sign_parts(
    p_tenant text, p_subject text, p_id uuid, p_parts jsonb, p_url_expires_ms bigint, p_now_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file  files%ROWTYPE;
    v_count bigint;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files WHERE id = p_id AND tenant = p_tenant AND subject = p_subject FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.mode <> 'multipart' THEN
        RETURN jsonb_build_object('outcome', 'mode');
    END IF;
    IF v_file.status <> 'pending' OR v_file.completed_ms IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', CASE v_file.status WHEN 'pending' THEN 'scanning' ELSE v_file.status END);
    END IF;
    IF v_file.created_ms <= p_now_ms - 86400000 THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', 'expired');
    END IF;
    v_count := internal.part_count(v_file);
    IF EXISTS (SELECT FROM jsonb_to_recordset(p_parts) AS p (part integer, size bigint, sha256 text)
                WHERE p.part NOT BETWEEN 1 AND v_count
                   OR p.size <> CASE WHEN p.part < v_count THEN v_file.part_size
                                     ELSE v_file.size - (v_count - 1) * v_file.part_size END) THEN
        RETURN jsonb_build_object('outcome', 'wrong');
    END IF;
    INSERT INTO file_parts (file_id, tenant, part, size, sha256)
    SELECT p_id, p_tenant, p.part, p.size, decode(p.sha256, 'hex')
      FROM jsonb_to_recordset(p_parts) AS p (part integer, size bigint, sha256 text)
    ON CONFLICT (file_id, part) DO UPDATE SET sha256 = EXCLUDED.sha256 WHERE file_parts.sha256 <> EXCLUDED.sha256;
    UPDATE files SET url_expires_ms = greatest(url_expires_ms, p_url_expires_ms) WHERE id = p_id;
    RETURN jsonb_build_object('outcome', 'signed', 'content_type', v_file.content_type, 'upload_id', v_file.upload_id);
END
$$;

-- {"outcome":"begun","upload_id"} | {"outcome":"closed","status"} | {"outcome":"unknown"}
-- Of several uploads begun for one file at once the first stays; the answer names it, and the others are to be ended.
CREATE FUNCTION api.begin_parts(p_tenant text, p_subject text, p_id uuid, p_upload_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file files%ROWTYPE;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files
     WHERE id = p_id AND tenant = p_tenant AND subject = p_subject AND mode = 'multipart' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.status <> 'pending' OR v_file.completed_ms IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', CASE v_file.status WHEN 'pending' THEN 'scanning' ELSE v_file.status END);
    END IF;
    UPDATE files SET upload_id = coalesce(upload_id, p_upload_id) WHERE id = p_id;
    RETURN jsonb_build_object('outcome', 'begun', 'upload_id', coalesce(v_file.upload_id, p_upload_id));
END
$$;

-- {"outcome":"open","upload_id","count","size","parts":[{part,size,sha256}]} | {"outcome":"completed","status"}
-- | {"outcome":"mode"} | {"outcome":"closed","status"} | {"outcome":"unknown"}: what the object is to be made of, in order.
CREATE FUNCTION api.parts_to_complete(p_tenant text, p_subject text, p_id uuid, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file files%ROWTYPE;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files WHERE id = p_id AND tenant = p_tenant AND subject = p_subject;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.mode <> 'multipart' THEN
        RETURN jsonb_build_object('outcome', 'mode');
    END IF;
    IF v_file.status IN ('pending', 'scanning', 'clean', 'unscannable') AND v_file.completed_ms IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'completed', 'status', v_file.status);
    END IF;
    IF v_file.status <> 'pending' THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', v_file.status);
    END IF;
    IF v_file.created_ms <= p_now_ms - 86400000 THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', 'expired');
    END IF;
    RETURN jsonb_build_object(
        'outcome', 'open', 'upload_id', v_file.upload_id, 'count', internal.part_count(v_file), 'size', v_file.size,
        'parts', coalesce((SELECT jsonb_agg(jsonb_build_object('part', part, 'size', size, 'sha256', encode(sha256, 'hex')) ORDER BY part)
                             FROM file_parts WHERE file_id = p_id), '[]'));
END
$$;

-- {"outcome":"completed","status"} | {"outcome":"unknown"}: S3 said that the parts are one object.
CREATE FUNCTION api.parts_completed(p_tenant text, p_subject text, p_id uuid, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_status text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE files SET completed_ms = coalesce(completed_ms, p_now_ms), upload_id = NULL
     WHERE id = p_id AND tenant = p_tenant AND subject = p_subject AND mode = 'multipart'
    RETURNING status INTO v_status;
    IF v_status IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    RETURN jsonb_build_object('outcome', 'completed', 'status', v_status);
END
$$;

-- {"outcome":"forgotten"} | {"outcome":"known"}: S3 knows this upload no longer, so the next parts begin another one.
CREATE FUNCTION api.parts_ended(p_tenant text, p_subject text, p_id uuid, p_upload_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE files SET upload_id = NULL
     WHERE id = p_id AND tenant = p_tenant AND subject = p_subject AND upload_id = p_upload_id;
    RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'forgotten' ELSE 'known' END);
END
$$;

-- {"outcome":"deleted","upload_id"} | {"outcome":"known","upload_id"} | {"outcome":"unknown"}: deleted now, was so before, not
-- the caller's. `upload_id` is what is left to end of parts that are no object.
CREATE OR REPLACE FUNCTION api.delete_file(p_tenant text, p_subject text, p_id uuid, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file files%ROWTYPE;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files WHERE id = p_id AND tenant = p_tenant AND subject = p_subject FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.deleted_ms IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'known', 'upload_id', v_file.upload_id);
    END IF;
    UPDATE files SET deleted_ms = p_now_ms WHERE id = p_id;
    PERFORM internal.derive_file_status(p_id);
    RETURN jsonb_build_object('outcome', 'deleted', 'upload_id', v_file.upload_id);
END
$$;

-- download -------------------------------------------------------------------------------------------------------------

-- {"outcome":"found","file":{id,name,content_type,mode,size,sha256,part_size,status,version_id,verdict,created_ms}}
-- | {"outcome":"unknown"}
-- Size and digest are the object's own once there is one: `sha256` in base64, with the number of parts behind it where the
-- object was made of parts and it is the digest of their digests.
CREATE OR REPLACE FUNCTION api.file_for_download(p_tenant text, p_subject text, p_id uuid, p_of_tenant boolean) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file jsonb;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT jsonb_build_object(
               'id', id, 'name', name, 'content_type', content_type, 'mode', mode, 'part_size', part_size,
               'size', coalesce(size, actual_size), 'sha256', encode(sha256, 'hex'), 'actual_sha256', actual_sha256,
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

-- {"outcome":"found","file":{mode,content_type,size,sha256,max_size,parts,parts_sha256,status}} | {"outcome":"unknown"}: what the
-- object must be. `parts_sha256` is the digest of the digests of its parts, in order, once all of them were signed.
CREATE OR REPLACE FUNCTION api.file_for_event(p_tenant text, p_id uuid) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file   files%ROWTYPE;
    v_count  bigint;
    v_signed bigint;
    v_digest bytea;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files WHERE id = p_id AND tenant = p_tenant;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.mode = 'multipart' THEN
        v_count := internal.part_count(v_file);
        SELECT count(*), sha256(string_agg(sha256, ''::bytea ORDER BY part)) INTO v_signed, v_digest
          FROM file_parts WHERE file_id = p_id;
        IF v_signed <> v_count THEN
            v_digest := NULL;
        END IF;
    END IF;
    RETURN jsonb_build_object('outcome', 'found', 'file', internal.declared(v_file) || jsonb_build_object(
        'status', v_file.status, 'parts', v_count, 'parts_sha256', encode(v_digest, 'hex')));
END
$$;

-- {"outcome":"recorded"|"known","status"} | {"outcome":"unknown"}
-- As before, with the object's digest.
CREATE FUNCTION api.record_created(
    p_tenant text, p_id uuid, p_bucket text, p_version_id text, p_etag text, p_size bigint, p_sha256 text, p_finding text,
    p_scan_off boolean, p_now_ms bigint
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
    INSERT INTO file_facts (bucket, object_key, tenant, version_id, etag, kind, value, size, sha256, scan_off, recorded_ms)
    VALUES (p_bucket, v_key, p_tenant, p_version_id, p_etag, 'created', p_finding, p_size, p_sha256, p_scan_off, p_now_ms)
    ON CONFLICT DO NOTHING;
    v_new := FOUND;
    RETURN jsonb_build_object('outcome', CASE WHEN v_new THEN 'recorded' ELSE 'known' END,
                              'status', internal.derive_file_status(p_id));
END
$$;

-- {"outcome":"recorded"|"known","status"} | {"outcome":"unknown"}: what a scanner said of a version. It may be the first that is
-- heard of it.
CREATE FUNCTION api.record_verdict(
    p_tenant text, p_id uuid, p_bucket text, p_version_id text, p_etag text, p_verdict text, p_now_ms bigint
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
    INSERT INTO file_facts (bucket, object_key, tenant, version_id, etag, kind, value, recorded_ms)
    VALUES (p_bucket, v_key, p_tenant, p_version_id, p_etag, 'verdict', p_verdict, p_now_ms)
    ON CONFLICT DO NOTHING;
    v_new := FOUND;
    RETURN jsonb_build_object('outcome', CASE WHEN v_new THEN 'recorded' ELSE 'known' END,
                              'status', internal.derive_file_status(p_id));
END
$$;

-- {"files":[{tenant,id,status,versions,upload_id}]}: as before, and which parts that are no object are to be ended.
CREATE OR REPLACE FUNCTION api.files_to_sweep(p_now_ms bigint, p_limit bigint) RETURNS jsonb
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
        RETURNING status, upload_id INTO v_file.status, v_file.upload_id;
        CONTINUE WHEN NOT FOUND;
        v_all := v_all || jsonb_build_object(
            'tenant', v_file.tenant, 'id', v_file.id, 'status', v_file.status, 'upload_id', v_file.upload_id,
            'versions', to_jsonb(internal.versions_left(v_file.object_key)));
    END LOOP;
    PERFORM internal.enter_tenant('');
    RETURN jsonb_build_object('files', v_all);
END
$$;

-- {"outcome":"purged"} | {"outcome":"kept"} | {"outcome":"unknown"}: as before. `p_upload_id` are parts that were ended; while
-- others are left, the file is not purged. What was signed for its parts is of no use any more and goes too.
CREATE FUNCTION api.file_purged(p_tenant text, p_id uuid, p_bucket text, p_versions text[], p_upload_id text, p_now_ms bigint)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_key       text;
    v_upload_id text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE files SET upload_id = nullif(upload_id, p_upload_id)
     WHERE id = p_id AND tenant = p_tenant AND status IN ('rejected', 'infected', 'expired', 'deleted')
    RETURNING object_key, upload_id INTO v_key, v_upload_id;
    IF v_key IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    INSERT INTO file_facts (bucket, object_key, tenant, version_id, etag, kind, value, recorded_ms)
    SELECT DISTINCT p_bucket, v_key, p_tenant, version_id, '', 'purged', 'ok', p_now_ms
      FROM file_facts WHERE object_key = v_key AND kind <> 'purged' AND version_id = ANY (p_versions)
    ON CONFLICT DO NOTHING;
    IF v_upload_id IS NOT NULL OR cardinality(internal.versions_left(v_key)) > 0 THEN
        RETURN jsonb_build_object('outcome', 'kept');
    END IF;
    DELETE FROM file_parts WHERE file_id = p_id;
    UPDATE files SET purged_ms = p_now_ms WHERE id = p_id AND purged_ms IS NULL;
    RETURN jsonb_build_object('outcome', 'purged');
END
$$;

-- Grants ---------------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
    internal.declared(public.files),
    internal.part_count(public.files),
    api.create_file(text, text, uuid, text, text, text, bigint, bytea, bigint, bigint, bigint, text, bytea, bigint),
    api.sign_parts(text, text, uuid, jsonb, bigint, bigint),
    api.begin_parts(text, text, uuid, text),
    api.parts_to_complete(text, text, uuid, bigint),
    api.parts_completed(text, text, uuid, bigint),
    api.parts_ended(text, text, uuid, text),
    api.record_created(text, uuid, text, text, text, bigint, text, text, boolean, bigint),
    api.record_verdict(text, uuid, text, text, text, text, bigint),
    api.file_purged(text, uuid, text, text[], text, bigint)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    api.create_file(text, text, uuid, text, text, text, bigint, bytea, bigint, bigint, bigint, text, bytea, bigint),
    api.sign_parts(text, text, uuid, jsonb, bigint, bigint),
    api.begin_parts(text, text, uuid, text),
    api.parts_to_complete(text, text, uuid, bigint),
    api.parts_completed(text, text, uuid, bigint),
    api.parts_ended(text, text, uuid, text)
TO upload;
GRANT EXECUTE ON FUNCTION
    api.record_created(text, uuid, text, text, text, bigint, text, text, boolean, bigint),
    api.record_verdict(text, uuid, text, text, text, text, bigint),
    api.file_purged(text, uuid, text, text[], text, bigint)
TO object_events;

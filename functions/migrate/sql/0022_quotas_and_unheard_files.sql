-- Quotas, how many files and bytes a tenant, and each subject of it, may hold; and files of whose object nobody told.
--
-- What is held is counted where it changes, by a trigger: no function can forget it, and a limit is a look at two rows. A
-- file counts from its plan on, with all that it was signed for, until the last version that is known of is gone. To give it
-- free at the moment of its deletion would let URLs that are still good fill the place over and over.

-- Tables ---------------------------------------------------------------------------------------------------------------

-- `subject` is empty for the tenant as a whole, and `*` for each subject that has no row of its own. Null is no limit.
CREATE TABLE public.quotas (
    tenant     text   NOT NULL REFERENCES public.tenants,
    subject    text   NOT NULL CHECK (length(subject) <= 255),
    files      bigint CHECK (files >= 0),
    bytes      bigint CHECK (bytes >= 0),
    updated_ms bigint NOT NULL,
    PRIMARY KEY (tenant, subject),
    CHECK (files IS NOT NULL OR bytes IS NOT NULL)
);

-- The same rows for what is held. Plans may add up to more than a bigint.
CREATE TABLE public.file_usage (
    tenant  text    NOT NULL REFERENCES public.tenants,
    subject text    NOT NULL,
    files   bigint  NOT NULL,
    bytes   numeric NOT NULL,
    PRIMARY KEY (tenant, subject)
);

-- Counting ---------------------------------------------------------------------------------------------------------------

CREATE FUNCTION internal.files_held(p_file public.files) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE WHEN p_file.purged_ms IS NULL THEN 1 ELSE 0 END
$$;

CREATE FUNCTION internal.bytes_held(p_file public.files) RETURNS numeric
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE WHEN p_file.purged_ms IS NULL THEN coalesce(p_file.actual_size, p_file.size, p_file.max_size)::numeric ELSE 0 END
$$;

-- The subject's row first and the tenant's second, always: two files of one tenant wait for each other and never both.
CREATE FUNCTION internal.count_file() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file  files%ROWTYPE;
    v_files bigint := 0;
    v_bytes numeric := 0;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        v_file := OLD;
        v_files := - internal.files_held(OLD);
        v_bytes := - internal.bytes_held(OLD);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        v_file := NEW;
        v_files := v_files + internal.files_held(NEW);
        v_bytes := v_bytes + internal.bytes_held(NEW);
    END IF;
    IF v_files <> 0 OR v_bytes <> 0 THEN
        INSERT INTO file_usage AS held (tenant, subject, files, bytes) VALUES (v_file.tenant, v_file.subject, v_files, v_bytes)
        ON CONFLICT (tenant, subject) DO UPDATE SET files = held.files + excluded.files, bytes = held.bytes + excluded.bytes;
        INSERT INTO file_usage AS held (tenant, subject, files, bytes) VALUES (v_file.tenant, '', v_files, v_bytes)
        ON CONFLICT (tenant, subject) DO UPDATE SET files = held.files + excluded.files, bytes = held.bytes + excluded.bytes;
    END IF;
    RETURN NULL;
END
$$;

-- What is there already. Nobody writes files between this count and the trigger.
LOCK TABLE public.files IN SHARE ROW EXCLUSIVE MODE;
SELECT internal.across_tenants(true);
INSERT INTO public.file_usage (tenant, subject, files, bytes)
SELECT f.tenant, coalesce(f.subject, ''), sum(internal.files_held(f)), sum(internal.bytes_held(f))
  FROM public.files f GROUP BY GROUPING SETS ((f.tenant, f.subject), (f.tenant));
SELECT internal.across_tenants(false);

CREATE TRIGGER counted AFTER INSERT OR DELETE OR UPDATE OF size, max_size, actual_size, purged_ms ON public.files
    FOR EACH ROW EXECUTE FUNCTION internal.count_file();

ALTER TABLE public.quotas     ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE public.file_usage ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON public.quotas     TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY of_tenant ON public.file_usage TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));

-- upload ---------------------------------------------------------------------------------------------------------------

-- Whether a tenant, or this subject of it, holds more than it may. The caller has entered the tenant.
CREATE FUNCTION internal.is_over_quota(p_tenant text, p_subject text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM quotas q JOIN file_usage u
               ON u.tenant = q.tenant AND u.subject = CASE q.subject WHEN '' THEN '' ELSE p_subject END
         WHERE q.tenant = p_tenant
           AND (q.subject IN ('', p_subject)
                OR (q.subject = '*' AND NOT EXISTS (SELECT FROM quotas o WHERE o.tenant = p_tenant AND o.subject = p_subject)))
           AND (u.files > q.files OR u.bytes > q.bytes))
$$;

-- {"outcome":"created","id","status","created_ms"} | {"outcome":"replayed","id","status","created_ms"} | {"outcome":"conflict"}
-- | {"outcome":"quota"}: as before, unless tenant or subject would hold more than they may. Of files made at once the counted row lets
-- one in after the other, and each sees what all before it hold.
CREATE OR REPLACE FUNCTION api.create_file(
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
        IF internal.is_over_quota(p_tenant, p_subject) THEN
            DELETE FROM files WHERE id = p_id;
            RETURN jsonb_build_object('outcome', 'quota');
        END IF;
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

-- admin ----------------------------------------------------------------------------------------------------------------

-- {"outcome":"created"|"updated"|"unchanged"|"removed","subject","files","bytes"} | {"outcome":"tenant_unknown"}
-- `p_subject` as in the table. Neither files nor bytes is no quota.
CREATE FUNCTION api.quota_put(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_subject text, p_files bigint, p_bytes bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF NOT EXISTS (SELECT FROM tenants WHERE tenant = p_tenant) THEN
        v_outcome := 'tenant_unknown';
    ELSIF p_files IS NULL AND p_bytes IS NULL THEN
        DELETE FROM quotas WHERE tenant = p_tenant AND subject = p_subject;
        v_outcome := CASE WHEN FOUND THEN 'removed' ELSE 'unchanged' END;
    ELSE
        INSERT INTO quotas (tenant, subject, files, bytes, updated_ms) VALUES (p_tenant, p_subject, p_files, p_bytes, p_now_ms)
        ON CONFLICT (tenant, subject) DO NOTHING;
        IF FOUND THEN
            v_outcome := 'created';
        ELSE
            UPDATE quotas SET files = p_files, bytes = p_bytes, updated_ms = p_now_ms
             WHERE tenant = p_tenant AND subject = p_subject AND (files, bytes) IS DISTINCT FROM (p_files, p_bytes);
            v_outcome := CASE WHEN FOUND THEN 'updated' ELSE 'unchanged' END;
        END IF;
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'quota.put', p_tenant, p_tenant, v_outcome,
                                jsonb_build_object('subject', p_subject, 'files', p_files, 'bytes', p_bytes));
    IF v_outcome = 'tenant_unknown' THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'subject', nullif(p_subject, ''), 'files', p_files, 'bytes', p_bytes);
END
$$;

-- {"outcome":"listed","held":{files,bytes},"quotas":[{subject,files,bytes,"held":{files,bytes}|null}],"next"} | {"outcome":"tenant_unknown"}
-- The tenant's own quota has no subject, and comes first; that of each subject has nothing that it holds.
CREATE FUNCTION api.quota_list(p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_after text, p_limit bigint)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text := 'listed';
    v_quotas  jsonb;
    v_held    jsonb;
    v_count   bigint;
    v_last    text;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    PERFORM FROM tenants WHERE tenant = p_tenant;
    IF NOT FOUND THEN
        v_outcome := 'tenant_unknown';
    ELSE
        SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'subject', nullif(q.subject, ''), 'files', q.files, 'bytes', q.bytes,
                   'held', CASE q.subject WHEN '*' THEN NULL
                           ELSE jsonb_build_object('files', coalesce(u.files, 0), 'bytes', coalesce(u.bytes, 0)) END)
                   ORDER BY q.subject COLLATE "C"), '[]'),
               count(*), max(q.subject COLLATE "C")
          INTO v_quotas, v_count, v_last
          FROM (SELECT * FROM quotas
                 WHERE tenant = p_tenant AND (p_after IS NULL OR subject COLLATE "C" > p_after)
                 ORDER BY subject COLLATE "C" LIMIT least(p_limit, 500)) q
          LEFT JOIN file_usage u ON u.tenant = q.tenant AND u.subject = q.subject;
        SELECT jsonb_build_object('files', files, 'bytes', bytes) INTO v_held
          FROM file_usage WHERE tenant = p_tenant AND subject = '';
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'quota.list', p_tenant, p_tenant, v_outcome, '{}');
    IF v_outcome <> 'listed' THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'held', coalesce(v_held, '{"files":0,"bytes":0}'), 'quotas', v_quotas,
                              'next', CASE WHEN v_count = least(p_limit, 500) THEN v_last END);
END
$$;

-- object-events --------------------------------------------------------------------------------------------------------

-- When a sweep last looked for the object of a file that no event told of.
ALTER TABLE public.files ADD COLUMN looked_ms bigint;

-- {"files":[{tenant,id}]}: pending files that no URL can fill any more, so that what there is of them is there. An event may be lost; what
-- was uploaded must not be. What is handed out is not handed out again for an hour.
CREATE FUNCTION api.files_unheard(p_now_ms bigint, p_limit bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_due  files[];
    v_file files%ROWTYPE;
    v_all  jsonb := '[]';
BEGIN
    PERFORM internal.across_tenants(true);
    v_due := ARRAY(
        SELECT f FROM files f
         WHERE status = 'pending' AND url_expires_ms <= p_now_ms - 60000
           -- Of parts that nobody was given a URL for there is no object.
           AND (mode <> 'multipart' OR url_expires_ms > created_ms)
           AND (looked_ms IS NULL OR looked_ms <= p_now_ms - 3600000)
         ORDER BY looked_ms NULLS FIRST, id
         LIMIT greatest(p_limit, 0));
    FOREACH v_file IN ARRAY v_due LOOP
        PERFORM internal.enter_tenant(v_file.tenant);
        UPDATE files SET looked_ms = p_now_ms
         WHERE id = v_file.id AND status = 'pending' AND looked_ms IS NOT DISTINCT FROM v_file.looked_ms;
        CONTINUE WHEN NOT FOUND;
        v_all := v_all || jsonb_build_object('tenant', v_file.tenant, 'id', v_file.id);
    END LOOP;
    PERFORM internal.enter_tenant('');
    RETURN jsonb_build_object('files', v_all);
END
$$;

-- Grants ---------------------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
    internal.files_held(public.files),
    internal.bytes_held(public.files),
    internal.count_file(),
    internal.is_over_quota(text, text),
    api.files_unheard(bigint, bigint),
    api.quota_put(text, text, bigint, text, text, bigint, bigint),
    api.quota_list(text, text, bigint, text, text, bigint)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.quota_put(text, text, bigint, text, text, bigint, bigint) TO admin;
GRANT EXECUTE ON FUNCTION api.quota_list(text, text, bigint, text, text, bigint) TO admin;
GRANT EXECUTE ON FUNCTION api.files_unheard(bigint, bigint) TO object_events;

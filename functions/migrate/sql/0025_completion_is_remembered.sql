-- Whoever asks for a completion again, because no answer came, is told that it has happened.
--
-- S3 forgets an upload when it makes an object of it, and then says of it what it says of one that never was (NoSuchUpload). So it is
-- written down, in the statement that is asked first anyway, that a completion of all parts was tried: a later one that finds no upload
-- has found its own success. Only parts_ended, which gives an upload up, takes that back.
ALTER TABLE files ADD COLUMN completing_ms bigint;

CREATE OR REPLACE FUNCTION api.parts_to_complete(p_tenant text, p_subject text, p_id uuid, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file files%ROWTYPE;
    v_signed bigint;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files WHERE id = p_id AND tenant = p_tenant AND subject = p_subject FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.mode <> 'multipart' THEN
        RETURN jsonb_build_object('outcome', 'mode');
    END IF;
    -- Nothing but a completion makes an object of parts: where S3's event was heard, there was one, whether or not it could be written down.
    IF v_file.status IN ('scanning', 'clean', 'unscannable') OR (v_file.status = 'pending' AND v_file.completed_ms IS NOT NULL) THEN
        RETURN jsonb_build_object('outcome', 'completed', 'status', v_file.status);
    END IF;
    IF v_file.status <> 'pending' THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', v_file.status);
    END IF;
    IF v_file.created_ms <= p_now_ms - 86400000 THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', 'expired');
    END IF;
    SELECT count(*) INTO v_signed FROM file_parts WHERE file_id = p_id;
    IF v_file.completing_ms IS NULL AND v_file.upload_id IS NOT NULL AND v_signed = internal.part_count(v_file) THEN
        UPDATE files SET completing_ms = p_now_ms WHERE id = p_id;
    END IF;
    RETURN jsonb_build_object(
        'outcome', 'open', 'upload_id', v_file.upload_id, 'count', internal.part_count(v_file), 'size', v_file.size,
        'tried', v_file.completing_ms IS NOT NULL,
        'parts', coalesce((SELECT jsonb_agg(jsonb_build_object('part', part, 'size', size, 'sha256', encode(sha256, 'hex')) ORDER BY part)
                             FROM file_parts WHERE file_id = p_id), '[]'));
END
$$;

CREATE OR REPLACE FUNCTION api.parts_completed(p_tenant text, p_subject text, p_id uuid, p_now_ms bigint) RETURNS jsonb
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
    IF v_status NOT IN ('pending', 'scanning', 'clean', 'unscannable') THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', v_status);
    END IF;
    RETURN jsonb_build_object('outcome', 'completed', 'status', v_status);
END
$$;

CREATE OR REPLACE FUNCTION api.parts_ended(p_tenant text, p_subject text, p_id uuid, p_upload_id text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    UPDATE files SET upload_id = NULL, completing_ms = NULL
     WHERE id = p_id AND tenant = p_tenant AND subject = p_subject AND upload_id = p_upload_id;
    RETURN jsonb_build_object('outcome', CASE WHEN FOUND THEN 'forgotten' ELSE 'known' END);
END
$$;

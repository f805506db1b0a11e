-- That a completion was tried is written down when it is tried.
--
-- Since 0025 the question which parts there should be wrote it down, before S3 was asked which have arrived. Had somebody else then ended the
-- upload in S3 (an operator by hand, the bucket's rule), a later completion would have found no upload and taken that for its own success.
-- Now the question only asks; what was tried is written by a statement of its own, between S3's list of all parts and S3's completion.
CREATE OR REPLACE FUNCTION api.parts_to_complete(p_tenant text, p_subject text, p_id uuid, p_now_ms bigint) RETURNS jsonb
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
    RETURN jsonb_build_object(
        'outcome', 'open', 'upload_id', v_file.upload_id, 'count', internal.part_count(v_file), 'size', v_file.size,
        'tried', v_file.completing_ms IS NOT NULL,
        'parts', coalesce((SELECT jsonb_agg(jsonb_build_object('part', part, 'size', size, 'sha256', encode(sha256, 'hex')) ORDER BY part)
                             FROM file_parts WHERE file_id = p_id), '[]'));
END
$$;

-- 'trying': S3 may be asked to make an object of this upload. 'completed' and 'closed': somebody else was first. 'gone': the upload was given
-- up meanwhile.
CREATE FUNCTION api.parts_completing(p_tenant text, p_subject text, p_id uuid, p_upload_id text, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_file files%ROWTYPE;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_file FROM files WHERE id = p_id AND tenant = p_tenant AND subject = p_subject AND mode = 'multipart' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    IF v_file.status IN ('scanning', 'clean', 'unscannable') OR (v_file.status = 'pending' AND v_file.completed_ms IS NOT NULL) THEN
        RETURN jsonb_build_object('outcome', 'completed', 'status', v_file.status);
    END IF;
    IF v_file.status <> 'pending' THEN
        RETURN jsonb_build_object('outcome', 'closed', 'status', v_file.status);
    END IF;
    IF v_file.upload_id IS DISTINCT FROM p_upload_id THEN
        RETURN jsonb_build_object('outcome', 'gone');
    END IF;
    UPDATE files SET completing_ms = coalesce(completing_ms, p_now_ms) WHERE id = p_id;
    RETURN jsonb_build_object('outcome', 'trying');
END
$$;
REVOKE ALL ON FUNCTION api.parts_completing(text, text, uuid, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.parts_completing(text, text, uuid, text, bigint) TO upload;

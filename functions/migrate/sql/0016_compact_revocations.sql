-- Revocations as they are published: twelve bytes an entry, so that a hundred thousand are one small object.

-- {"revocations":{"entries":"…","kid":["…"]},"swept":{"revocations":n,"assertion_ids":n}}, the first as it is published: for each
-- value the first eight bytes of SHA-256 over kind:value and the second up to which its tokens are refused (big-endian, four
-- bytes; of a single token the largest there is), in ascending order, base64url without padding.
-- Dead entries leave, a bounded number at a time; one that is still stored is not published.
CREATE OR REPLACE FUNCTION api.trust_snapshot(p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_entries text;
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

    SELECT encode(string_agg(e.mark || substring(int8send(e.until) FROM 5), ''::bytea ORDER BY e.mark), 'base64')
      INTO v_entries
      FROM (SELECT substring(sha256(convert_to(r.kind || ':' || r.value, 'UTF8')) FROM 1 FOR 8) AS mark,
                   max(CASE WHEN r.kind = 'jti' THEN 4294967295 ELSE least(greatest(r.epoch, 0), 4294967295) END) AS until
              FROM revocations r
             WHERE r.kind <> 'kid' AND r.dead_ms >= p_now_ms
             GROUP BY 1) e;
    SELECT coalesce(jsonb_agg(r.value ORDER BY r.value), '[]') INTO v_kid FROM revocations r WHERE r.kind = 'kid' AND r.dead_ms >= p_now_ms;
    PERFORM internal.across_tenants(false);
    RETURN jsonb_build_object(
        'revocations', jsonb_build_object('entries', coalesce(translate(v_entries, E'+/=\n', '-_'), ''), 'kid', v_kid),
        'swept', jsonb_build_object('revocations', v_revocations, 'assertion_ids', v_assertion_ids));
END
$$;

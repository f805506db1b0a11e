-- Signing keys as `trust` last reported them, and what operators ordered about them. The keys' life is led by `trust` alone, in the
-- trust bucket: this is where operators look, and where their orders wait for it.

CREATE TABLE public.signing_keys (
    kid          text   PRIMARY KEY CHECK (kid ~ '^[A-Za-z0-9_-]{43}$'),
    alg          text   NOT NULL CHECK (alg IN ('RS256', 'ES256', 'EdDSA')),
    key          text   NOT NULL CHECK (length(key) BETWEEN 1 AND 2048),
    state        text   NOT NULL CHECK (state IN ('published', 'active', 'retiring', 'removed')),
    created_ms   bigint NOT NULL,
    activated_ms bigint,
    retired_ms   bigint,
    removed_ms   bigint,
    -- From when on a published key may follow the active one, and from when on if nobody else can sign.
    ripe_ms      bigint,
    urgent_ms    bigint,
    seen_ms      bigint NOT NULL,
    replace_ms   bigint,
    dropped_ms   bigint
);

ALTER TABLE public.signing_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY across_tenants ON public.signing_keys TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');

-- Reports and orders one at a time: whether somebody is left to sign is judged over all rows.
CREATE FUNCTION internal.lock_signing() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7025180341218051);
END
$$;

CREATE FUNCTION internal.signing_key_view(p_row public.signing_keys) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'kid', p_row.kid, 'alg', p_row.alg, 'key', p_row.key, 'state', p_row.state, 'created_ms', p_row.created_ms,
        'activated_ms', p_row.activated_ms, 'retired_ms', p_row.retired_ms, 'removed_ms', p_row.removed_ms, 'ripe_ms', p_row.ripe_ms,
        'urgent_ms', p_row.urgent_ms, 'seen_ms', p_row.seen_ms, 'replace_ms', p_row.replace_ms, 'dropped_ms', p_row.dropped_ms)
$$;

-- Who signs if nobody but p_without goes: the active key, or else the published one whose turn comes first; null if nobody knows.
-- What was reported more than three minutes ago is no knowledge.
CREATE FUNCTION internal.next_signer(p_without text, p_now_ms bigint) RETURNS public.signing_keys
LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT k FROM public.signing_keys k
     WHERE k.kid <> p_without AND k.dropped_ms IS NULL AND k.seen_ms >= p_now_ms - 180000
       AND (k.state = 'active' OR (k.state = 'published' AND k.urgent_ms IS NOT NULL))
     ORDER BY k.state <> 'active', k.urgent_ms, k.kid COLLATE "C" LIMIT 1
$$;

-- {"replace":[kid…],"dropped":[kid…]}: the orders that wait. p_keys is every key of the signing state, as it stands at p_now_ms.
CREATE FUNCTION api.trust_signing(p_now_ms bigint, p_keys jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_orders jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    PERFORM internal.lock_signing();
    INSERT INTO signing_keys AS held (kid, alg, key, state, created_ms, activated_ms, retired_ms, removed_ms, ripe_ms, urgent_ms, seen_ms)
    SELECT r.kid, r.alg, r.key, r.state, r.created_ms, r.activated_ms, r.retired_ms, r.removed_ms, r.ripe_ms, r.urgent_ms, p_now_ms
      FROM jsonb_to_recordset(p_keys) AS r (
           kid text, alg text, key text, state text, created_ms bigint, activated_ms bigint, retired_ms bigint, removed_ms bigint,
           ripe_ms bigint, urgent_ms bigint)
    ON CONFLICT (kid) DO UPDATE
       SET state = excluded.state, activated_ms = excluded.activated_ms, retired_ms = excluded.retired_ms,
           removed_ms = excluded.removed_ms, ripe_ms = excluded.ripe_ms, urgent_ms = excluded.urgent_ms, seen_ms = excluded.seen_ms
     WHERE held.seen_ms <= excluded.seen_ms;
    SELECT jsonb_build_object(
               'replace', coalesce(jsonb_agg(k.kid ORDER BY k.kid COLLATE "C") FILTER (WHERE k.replace_ms IS NOT NULL AND k.state = 'active'), '[]'),
               'dropped', coalesce(jsonb_agg(k.kid ORDER BY k.kid COLLATE "C") FILTER (WHERE k.dropped_ms IS NOT NULL), '[]'))
      INTO v_orders
      FROM signing_keys k;
    PERFORM internal.across_tenants(false);
    RETURN v_orders;
END
$$;

-- {"outcome":"listed","keys":[…]}, the newest last.
CREATE FUNCTION api.signing_list(p_operator text, p_request_id text, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_keys jsonb;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT coalesce(jsonb_agg(internal.signing_key_view(k) ORDER BY k.created_ms, k.kid COLLATE "C"), '[]') INTO v_keys FROM signing_keys k;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'signing.list', NULL, 'signing', 'listed', '{}');
    RETURN jsonb_build_object('outcome', 'listed', 'keys', v_keys);
END
$$;

-- Orders that a key be followed by its successor as soon as one is ripe: {"outcome":"ordered"|"unchanged","key","successor"?,"from_ms"?}
-- | {"outcome":"signing_key_unknown"}. p_kid names the key, so that an act that is sent again orders nothing new; null: the active one.
CREATE FUNCTION api.signing_rotate(p_operator text, p_request_id text, p_now_ms bigint, p_kid text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
    v_row signing_keys;
    v_next signing_keys;
BEGIN
    PERFORM internal.across_tenants(true);
    PERFORM internal.lock_signing();
    SELECT * INTO v_row FROM signing_keys k
     WHERE CASE WHEN p_kid IS NULL THEN k.state = 'active' AND k.dropped_ms IS NULL ELSE k.kid = p_kid END
     ORDER BY k.activated_ms DESC NULLS LAST, k.kid COLLATE "C" LIMIT 1;
    IF v_row.kid IS NULL THEN
        v_outcome := 'signing_key_unknown';
    ELSIF v_row.state <> 'active' OR v_row.replace_ms IS NOT NULL THEN
        v_outcome := 'unchanged';
    ELSE
        v_outcome := 'ordered';
        UPDATE signing_keys SET replace_ms = p_now_ms WHERE kid = v_row.kid RETURNING * INTO v_row;
    END IF;
    SELECT * INTO v_next FROM signing_keys k
     WHERE k.state = 'published' AND k.dropped_ms IS NULL AND k.ripe_ms IS NOT NULL ORDER BY k.ripe_ms, k.kid COLLATE "C" LIMIT 1;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'signing.rotate', NULL, coalesce(v_row.kid, p_kid, 'signing'),
                                v_outcome, '{}');
    IF v_row.kid IS NULL THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'key', internal.signing_key_view(v_row), 'successor', v_next.kid,
                              'from_ms', CASE WHEN v_next.kid IS NOT NULL THEN greatest(v_next.ripe_ms, p_now_ms) END);
END
$$;

-- Ends a key at once: {"outcome":"dropped"|"unchanged","key","signer"?,"from_ms"?} | {"outcome":"signing_key_unknown"}
-- | {"outcome":"nobody_signs","signer"?,"from_ms"?}: unless p_confirm, a key stays while no other can sign from now on.
-- The key is refused for ever: whoever has it can date its tokens as he likes, and an older state may be brought back by a person.
CREATE FUNCTION api.signing_drop(p_operator text, p_request_id text, p_now_ms bigint, p_kid text, p_confirm boolean) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_outcome text;
    v_row signing_keys;
    v_next signing_keys;
BEGIN
    PERFORM internal.across_tenants(true);
    PERFORM internal.lock_signing();
    SELECT * INTO v_row FROM signing_keys k WHERE k.kid = p_kid;
    v_next := internal.next_signer(p_kid, p_now_ms);
    IF v_row.kid IS NULL THEN
        v_outcome := 'signing_key_unknown';
    ELSIF v_row.dropped_ms IS NOT NULL THEN
        v_outcome := 'unchanged';
    ELSIF v_row.state <> 'removed' AND NOT p_confirm
          AND (v_next.kid IS NULL OR (v_next.state <> 'active' AND v_next.urgent_ms > p_now_ms)) THEN
        v_outcome := 'nobody_signs';
    ELSE
        v_outcome := 'dropped';
        UPDATE signing_keys SET dropped_ms = p_now_ms WHERE kid = p_kid RETURNING * INTO v_row;
        PERFORM internal.put_revocation('kid', p_kid, p_now_ms / 1000, 253402300799000, p_now_ms);
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'signing.drop', NULL, p_kid, v_outcome,
                                jsonb_build_object('confirm', p_confirm));
    IF v_row.kid IS NULL THEN
        RETURN jsonb_build_object('outcome', v_outcome);
    END IF;
    RETURN jsonb_build_object('outcome', v_outcome, 'key', internal.signing_key_view(v_row), 'signer', v_next.kid,
        'from_ms', CASE WHEN v_next.kid IS NULL THEN NULL WHEN v_next.state = 'active' THEN p_now_ms
                        ELSE greatest(v_next.urgent_ms, p_now_ms) END);
END
$$;

REVOKE ALL ON FUNCTION
    api.trust_signing(bigint, jsonb),
    api.signing_list(text, text, bigint),
    api.signing_rotate(text, text, bigint, text),
    api.signing_drop(text, text, bigint, text, boolean)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.trust_signing(bigint, jsonb) TO trust;
GRANT EXECUTE ON FUNCTION api.signing_list(text, text, bigint) TO admin;
GRANT EXECUTE ON FUNCTION api.signing_rotate(text, text, bigint, text) TO admin;
GRANT EXECUTE ON FUNCTION api.signing_drop(text, text, bigint, text, boolean) TO admin;

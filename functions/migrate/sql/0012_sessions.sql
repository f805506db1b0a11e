-- Sessions of people and their refresh tokens. A session is a family of tokens: each is used once and followed by the next, and
-- whoever shows that two hold the family ends it.

CREATE TABLE public.sessions (
    sid         text   PRIMARY KEY CHECK (length(sid) = 36),
    tenant      text   NOT NULL REFERENCES public.tenants,
    client_id   text   NOT NULL REFERENCES public.clients,
    subject     text   NOT NULL CHECK (subject LIKE 'access|%' AND length(subject) <= 128),
    iss         text   NOT NULL CHECK (length(iss) <= 255),
    jkt         text   NOT NULL CHECK (length(jkt) = 43),
    scopes      text[] NOT NULL CHECK (cardinality(scopes) > 0),
    generation  bigint NOT NULL DEFAULT 1,
    created_ms  bigint NOT NULL,
    idle_ms     bigint NOT NULL,
    absolute_ms bigint NOT NULL CHECK (absolute_ms <= created_ms + 86400000 AND idle_ms <= absolute_ms),
    ended_ms    bigint,
    ended       text   CHECK (ended IN ('reused', 'revoked', 'expired')),
    CHECK ((ended IS NULL) = (ended_ms IS NULL))
);
CREATE INDEX sessions_by_subject ON public.sessions (subject) WHERE ended IS NULL;
CREATE INDEX sessions_by_client ON public.sessions (client_id) WHERE ended IS NULL;
CREATE INDEX sessions_by_tenant ON public.sessions (tenant, absolute_ms);

-- SHA-256 of each token. `parent` is the token it followed, `dead` that a sibling was used before it.
CREATE TABLE public.refresh_tokens (
    token_hash bytea   PRIMARY KEY CHECK (length(token_hash) = 32),
    tenant     text    NOT NULL,
    sid        text    NOT NULL REFERENCES public.sessions ON DELETE CASCADE,
    parent     bytea   REFERENCES public.refresh_tokens ON DELETE CASCADE,
    created_ms bigint  NOT NULL,
    used_ms    bigint,
    dead       boolean NOT NULL DEFAULT false
);
CREATE INDEX refresh_tokens_by_session ON public.refresh_tokens (sid);
CREATE INDEX refresh_tokens_by_parent ON public.refresh_tokens (parent);

ALTER TABLE public.sessions       ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE public.refresh_tokens ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON public.sessions       TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
CREATE POLICY of_tenant ON public.refresh_tokens TO CURRENT_USER USING (tenant = current_setting('portcullis.tenant', true));
-- A revocation ends sessions of whatever tenant; nothing else about them can be changed across tenants.
CREATE POLICY across_tenants_seen ON public.sessions FOR SELECT TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on');
CREATE POLICY across_tenants_ended ON public.sessions FOR UPDATE TO CURRENT_USER
    USING (current_setting('portcullis.all_tenants', true) = 'on')
    WITH CHECK (current_setting('portcullis.all_tenants', true) = 'on' AND ended IS NOT NULL);

-- Whoever begins a session and whoever revokes what it is of wait for each other: no session begins unseen.
CREATE FUNCTION internal.session_lock(p_kind text, p_value text) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT hashtextextended(p_kind || ':' || p_value, 7025180341218053) $$;

-- As before (0001), and the sessions that the revocation is about end with it: those that had begun by its epoch.
CREATE OR REPLACE FUNCTION internal.put_revocation(p_kind text, p_value text, p_epoch bigint, p_dead_ms bigint, p_now_ms bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM internal.across_tenants(true);
    INSERT INTO revocations AS held (kind, value, epoch, dead_ms, created_ms)
    VALUES (p_kind, p_value, p_epoch, p_dead_ms, p_now_ms)
    ON CONFLICT (kind, value) DO UPDATE
        SET epoch = greatest(held.epoch, excluded.epoch), dead_ms = greatest(held.dead_ms, excluded.dead_ms);
    IF p_kind IN ('sub', 'client_id', 'tenant') THEN
        PERFORM pg_advisory_xact_lock(internal.session_lock(p_kind, p_value));
    END IF;
    IF p_kind IN ('sub', 'sid', 'client_id', 'tenant') THEN
        UPDATE sessions
           SET ended = 'revoked', ended_ms = p_now_ms
         WHERE ended IS NULL AND created_ms < (p_epoch + 1) * 1000
           AND CASE p_kind WHEN 'sub' THEN subject = p_value WHEN 'sid' THEN sid = p_value
                           WHEN 'client_id' THEN client_id = p_value ELSE tenant = p_value END;
    END IF;
    PERFORM internal.across_tenants(false);
END
$$;

-- Whether a token of these, issued at p_iat, would be dead on arrival.
CREATE FUNCTION internal.is_revoked(p_tenant text, p_client_id text, p_subject text, p_sid text, p_iat bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_revoked boolean;
BEGIN
    PERFORM internal.across_tenants(true);
    SELECT EXISTS (
        SELECT FROM revocations r
         WHERE r.epoch >= p_iat AND ((r.kind = 'tenant' AND r.value = p_tenant) OR (r.kind = 'client_id' AND r.value = p_client_id)
            OR (r.kind = 'sub' AND r.value = p_subject) OR (r.kind = 'sid' AND r.value = p_sid)))
      INTO v_revoked;
    PERFORM internal.across_tenants(false);
    RETURN v_revoked;
END
$$;

CREATE FUNCTION internal.client_is(p_tenant text, p_client_id text, p_client_version bigint) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM public.clients c JOIN public.tenants t USING (tenant)
                    WHERE c.client_id = p_client_id AND c.tenant = p_tenant AND c.version = p_client_version AND c.enabled AND t.enabled)
$$;

-- Uses a proof up; false where it was used before.
CREATE FUNCTION internal.use_proof(p_tenant text, p_jkt text, p_proof_hash bytea, p_proof_expires_ms bigint, p_now_ms bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO proof_ids (tenant, jkt, jti_hash, expires_ms)
    VALUES (p_tenant, p_jkt, p_proof_hash, p_proof_expires_ms)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM proof_ids
     WHERE (jkt, jti_hash) IN (
           SELECT p.jkt, p.jti_hash FROM proof_ids p
            WHERE p.tenant = p_tenant AND p.expires_ms < p_now_ms
            ORDER BY p.expires_ms LIMIT 8 FOR UPDATE SKIP LOCKED);
    RETURN true;
END
$$;

-- Begins a session with its first refresh token, and uses the proof up, both or neither:
-- {"outcome":"ok"|"client_changed"|"too_soon"|"proof_replayed"}. p_iat is the signed token's own.
CREATE FUNCTION api.session_start(
    p_tenant text, p_client_id text, p_client_version bigint, p_now_ms bigint, p_jkt text, p_proof_hash bytea, p_proof_expires_ms bigint,
    p_sid text, p_subject text, p_iss text, p_scopes text[], p_iat bigint, p_token_hash bytea, p_idle_ms bigint, p_absolute_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(internal.session_lock('sub', p_subject));
    PERFORM pg_advisory_xact_lock_shared(internal.session_lock('client_id', p_client_id));
    PERFORM pg_advisory_xact_lock_shared(internal.session_lock('tenant', p_tenant));
    PERFORM internal.enter_tenant(p_tenant);
    IF NOT internal.client_is(p_tenant, p_client_id, p_client_version) THEN
        RETURN jsonb_build_object('outcome', 'client_changed');
    ELSIF internal.is_revoked(p_tenant, p_client_id, p_subject, p_sid, p_iat) THEN
        RETURN jsonb_build_object('outcome', 'too_soon');
    ELSIF NOT internal.use_proof(p_tenant, p_jkt, p_proof_hash, p_proof_expires_ms, p_now_ms) THEN
        RETURN jsonb_build_object('outcome', 'proof_replayed');
    END IF;
    INSERT INTO sessions (sid, tenant, client_id, subject, iss, jkt, scopes, created_ms, idle_ms, absolute_ms)
    VALUES (p_sid, p_tenant, p_client_id, p_subject, p_iss, p_jkt, p_scopes, p_now_ms, p_idle_ms, p_absolute_ms);
    INSERT INTO refresh_tokens (token_hash, tenant, sid, created_ms) VALUES (p_token_hash, p_tenant, p_sid, p_now_ms);
    -- A day after its end nobody asks for a session any more, not even to be told that it was reused.
    DELETE FROM sessions
     WHERE sid IN (SELECT s.sid FROM sessions s WHERE s.tenant = p_tenant AND s.absolute_ms < p_now_ms - 86400000
                    ORDER BY s.absolute_ms LIMIT 4 FOR UPDATE SKIP LOCKED);
    RETURN jsonb_build_object('outcome', 'ok');
END
$$;

-- What a refresh token that is presented now would come to, by the rules that api.session_refresh keeps:
-- 'current' | 'retry' | 'reused' | 'ended' | 'expired' | 'wrong_key'.
CREATE FUNCTION internal.refresh_state(p_session public.sessions, p_token public.refresh_tokens, p_jkt text, p_now_ms bigint) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_children bigint;
    v_touched bigint;
BEGIN
    IF p_session.ended IS NOT NULL THEN
        RETURN CASE p_session.ended WHEN 'expired' THEN 'expired' ELSE 'ended' END;
    ELSIF p_now_ms >= p_session.idle_ms OR p_now_ms >= p_session.absolute_ms THEN
        RETURN 'expired';
    ELSIF p_token.used_ms IS NULL AND NOT p_token.dead THEN
        RETURN CASE WHEN p_jkt = p_session.jkt THEN 'current' ELSE 'wrong_key' END;
    END IF;
    -- The answer of the first use may have been lost: the same holder gets another successor, twice at most, within 20 s, as long
    -- as none of them was used.
    SELECT count(*), count(*) FILTER (WHERE t.used_ms IS NOT NULL OR t.dead) INTO v_children, v_touched
      FROM refresh_tokens t WHERE t.parent = p_token.token_hash;
    IF NOT p_token.dead AND p_now_ms - p_token.used_ms <= 20000 AND p_jkt = p_session.jkt AND v_children <= 2 AND v_touched = 0 THEN
        RETURN 'retry';
    END IF;
    RETURN 'reused';
END
$$;

-- What there is to know before a refresh is signed: {"outcome":"unknown"} | {"outcome":"found","state","session":{sid,tenant,subject,
-- iss,scopes,absolute_ms},"person":{…}}; `person` as api.person_for_token says it. Changes nothing.
CREATE FUNCTION api.session_for_refresh(
    p_tenant text, p_client_id text, p_token_hash bytea, p_jkt text, p_now_ms bigint,
    p_issuer text, p_iss text, p_subject text, p_email text, p_domain text, p_groups text[]
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_token refresh_tokens;
    v_session sessions;
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_token FROM refresh_tokens WHERE token_hash = p_token_hash AND tenant = p_tenant;
    SELECT * INTO v_session FROM sessions WHERE sid = v_token.sid AND tenant = p_tenant AND client_id = p_client_id;
    IF v_session.sid IS NULL THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    RETURN jsonb_build_object(
        'outcome', 'found', 'state', internal.refresh_state(v_session, v_token, p_jkt, p_now_ms),
        'session', jsonb_build_object('sid', v_session.sid, 'tenant', v_session.tenant, 'subject', v_session.subject, 'iss', v_session.iss,
                                      'scopes', to_jsonb(v_session.scopes), 'absolute_ms', v_session.absolute_ms),
        'person', internal.person(p_issuer, p_iss, p_subject, p_email, p_domain, p_groups));
END
$$;

-- Uses a refresh token up, and the proof that came with it:
-- {"outcome":"rotated"|"retried"|"reused"|"ended"|"expired"|"wrong_key"|"unknown"|"client_changed"|"too_soon"|"proof_replayed"}.
-- Only the first two store p_next_hash, and are refused where it is null: without a signed token nothing is used up. `reused` ends the
-- session and its tokens; what it did is committed like any other outcome.
CREATE FUNCTION api.session_refresh(
    p_tenant text, p_client_id text, p_client_version bigint, p_now_ms bigint, p_jkt text, p_proof_hash bytea, p_proof_expires_ms bigint,
    p_token_hash bytea, p_next_hash bytea, p_iat bigint, p_idle_ms bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_sid text;
    v_token refresh_tokens;
    v_session sessions;
    v_state text;
    v_epoch bigint := internal.ending_epoch(p_now_ms);
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF NOT internal.client_is(p_tenant, p_client_id, p_client_version) THEN
        RETURN jsonb_build_object('outcome', 'client_changed');
    END IF;
    SELECT sid INTO v_sid FROM refresh_tokens WHERE token_hash = p_token_hash AND tenant = p_tenant;
    SELECT * INTO v_session FROM sessions WHERE sid = v_sid AND tenant = p_tenant AND client_id = p_client_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    -- Read again under the lock: another request of the family may have been first.
    SELECT * INTO v_token FROM refresh_tokens WHERE token_hash = p_token_hash;
    v_state := internal.refresh_state(v_session, v_token, p_jkt, p_now_ms);
    IF v_state = 'expired' THEN
        UPDATE sessions SET ended = 'expired', ended_ms = p_now_ms WHERE sid = v_sid AND ended IS NULL;
    END IF;
    IF v_state IN ('ended', 'expired', 'wrong_key') THEN
        RETURN jsonb_build_object('outcome', v_state, 'sid', v_sid);
    END IF;
    IF v_state IN ('current', 'retry') AND internal.is_revoked(p_tenant, p_client_id, v_session.subject, v_sid, p_iat) THEN
        RETURN jsonb_build_object('outcome', 'too_soon', 'sid', v_sid);
    END IF;
    -- A request that somebody sends once more, byte by byte, shows nothing about who holds the token.
    IF NOT internal.use_proof(p_tenant, p_jkt, p_proof_hash, p_proof_expires_ms, p_now_ms) THEN
        RETURN jsonb_build_object('outcome', 'proof_replayed', 'sid', v_sid);
    END IF;
    IF v_state = 'reused' THEN
        UPDATE sessions SET ended = 'reused', ended_ms = p_now_ms WHERE sid = v_sid;
        PERFORM internal.put_revocation('sid', v_sid, v_epoch, internal.epoch_dead_ms(v_epoch), p_now_ms);
        RETURN jsonb_build_object('outcome', 'reused', 'sid', v_sid);
    END IF;
    IF p_next_hash IS NULL THEN
        RAISE EXCEPTION 'nothing was signed for this token' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF v_state = 'current' THEN
        UPDATE refresh_tokens SET used_ms = p_now_ms WHERE token_hash = p_token_hash;
        UPDATE refresh_tokens SET dead = true WHERE parent = v_token.parent AND token_hash <> p_token_hash;
        UPDATE sessions SET generation = generation + 1 WHERE sid = v_sid;
    END IF;
    INSERT INTO refresh_tokens (token_hash, tenant, sid, parent, created_ms) VALUES (p_next_hash, p_tenant, v_sid, p_token_hash, p_now_ms);
    UPDATE sessions SET idle_ms = greatest(idle_ms, least(p_idle_ms, absolute_ms)) WHERE sid = v_sid;
    RETURN jsonb_build_object('outcome', CASE v_state WHEN 'current' THEN 'rotated' ELSE 'retried' END, 'sid', v_sid);
END
$$;

-- A public client ends a session of its own, by one of its refresh tokens or by the sid of an access token that was verified:
-- {"outcome":"revoked"|"unchanged"|"unknown"}.
CREATE FUNCTION api.session_end(p_tenant text, p_client_id text, p_token_hash bytea, p_sid text, p_now_ms bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_session sessions;
    v_epoch bigint := internal.ending_epoch(p_now_ms);
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    SELECT * INTO v_session FROM sessions s
     WHERE s.tenant = p_tenant AND s.client_id = p_client_id
       AND s.sid = coalesce(p_sid, (SELECT t.sid FROM refresh_tokens t WHERE t.token_hash = p_token_hash AND t.tenant = p_tenant))
       FOR UPDATE;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    ELSIF v_session.ended = 'revoked' THEN
        RETURN jsonb_build_object('outcome', 'unchanged', 'sid', v_session.sid);
    END IF;
    PERFORM internal.put_revocation('sid', v_session.sid, v_epoch, internal.epoch_dead_ms(v_epoch), p_now_ms);
    RETURN jsonb_build_object('outcome', 'revoked', 'sid', v_session.sid);
END
$$;

REVOKE ALL ON FUNCTION api.session_start(text, text, bigint, bigint, text, bytea, bigint, text, text, text, text[], bigint, bytea, bigint, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION api.session_for_refresh(text, text, bytea, text, bigint, text, text, text, text, text, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION api.session_refresh(text, text, bigint, bigint, text, bytea, bigint, bytea, bytea, bigint, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION api.session_end(text, text, bytea, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.session_start(text, text, bigint, bigint, text, bytea, bigint, text, text, text, text[], bigint, bytea, bigint, bigint) TO token;
GRANT EXECUTE ON FUNCTION api.session_for_refresh(text, text, bytea, text, bigint, text, text, text, text, text, text[]) TO token;
GRANT EXECUTE ON FUNCTION api.session_refresh(text, text, bigint, bigint, text, bytea, bigint, bytea, bytea, bigint, bigint) TO token;
GRANT EXECUTE ON FUNCTION api.session_end(text, text, bytea, text, bigint) TO token;

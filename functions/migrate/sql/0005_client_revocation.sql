-- A client ends its own access token (RFC 7009).

-- Uses up the client's assertion and ends the token, or does neither: {"outcome":"revoked"|"replayed"|"client_changed"}.
-- p_token_exp is the token's own exp in seconds. That the token is the client's own was verified by its signature.
CREATE FUNCTION api.revoke_own(
    p_tenant text, p_client_id text, p_client_version bigint, p_jti_hash bytea, p_expires_ms bigint, p_now_ms bigint,
    p_token_jti text, p_token_exp bigint
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_consumed jsonb;
BEGIN
    -- No token lives longer, so an entry that would stay longer is a mistake of the caller.
    IF p_token_exp IS NULL OR p_token_exp > p_now_ms / 1000 + 900 + 10 THEN
        RAISE EXCEPTION 'a token that lives too long' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    v_consumed := api.consume_assertion(p_tenant, p_client_id, p_client_version, p_jti_hash, p_expires_ms, p_now_ms);
    IF v_consumed ->> 'outcome' <> 'ok' THEN
        RETURN v_consumed;
    END IF;
    PERFORM internal.put_revocation('jti', p_token_jti, p_token_exp, (p_token_exp + 10) * 1000, p_now_ms);
    RETURN jsonb_build_object('outcome', 'revoked');
END
$$;

REVOKE ALL ON FUNCTION api.revoke_own(text, text, bigint, bytea, bigint, bigint, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.revoke_own(text, text, bigint, bytea, bigint, bigint, text, bigint) TO token;

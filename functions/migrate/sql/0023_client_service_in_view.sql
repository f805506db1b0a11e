-- What an operator is shown of a client names the service token of Cloudflare Access that its tokens must come with, or null.
--
-- It is part of who the client is: whoever asks which clients there are must see it without asking the database.
CREATE OR REPLACE FUNCTION internal.client_view(p_row public.clients) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'client_id', p_row.client_id, 'tenant', p_row.tenant, 'name', p_row.name, 'jwks', p_row.jwks,
        'algorithms', to_jsonb(p_row.algorithms), 'federation', p_row.federation, 'scopes', to_jsonb(p_row.scopes), 'dpop', p_row.dpop,
        'service', p_row.service, 'ttl_seconds', p_row.ttl_seconds, 'enabled', p_row.enabled, 'version', p_row.version,
        'created_ms', p_row.created_ms, 'updated_ms', p_row.updated_ms)
$$;

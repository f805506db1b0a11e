-- What operators had done to columns of other databases: the rows there are not ours, the word that it was done is.

-- {"outcome":"begun"} | {"outcome":"tenant_unknown"}
CREATE FUNCTION api.column_migrated(
    p_operator text, p_request_id text, p_now_ms bigint, p_tenant text, p_column text, p_step text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM internal.enter_tenant(p_tenant);
    IF NOT EXISTS (SELECT FROM public.tenants t WHERE t.tenant = p_tenant) THEN
        RETURN jsonb_build_object('outcome', 'tenant_unknown');
    END IF;
    PERFORM internal.record_act(p_now_ms, p_operator, p_request_id, 'column.migrate', p_tenant, p_column, 'begun',
                                jsonb_build_object('step', p_step));
    RETURN jsonb_build_object('outcome', 'begun');
END
$$;
REVOKE ALL ON FUNCTION api.column_migrated(text, text, bigint, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.column_migrated(text, text, bigint, text, text, text) TO data_key_maintain;

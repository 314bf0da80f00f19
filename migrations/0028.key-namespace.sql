-- An idempotency key is `<namespace>/<name>` of a Redemption resource, or `http:<name>` of a request over HTTP, which has
-- no namespace. This function and resources/keys.py are the two places that read a key. It is not STRICT: PostgreSQL then
-- inlines it, and uses the index of 0029.
-- depends: 0027.sync-triggers

CREATE FUNCTION vouchers.key_namespace(key text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN starts_with(key, 'http:') THEN NULL ELSE split_part(key, '/', 1) END;

REVOKE ALL ON FUNCTION vouchers.key_namespace(text) FROM PUBLIC;

-- At once: `migrate` may stop before it sets the other rights.
DO $body$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION vouchers.key_namespace(text) TO %I', current_setting('vouchers.runtime_role'));
END
$body$;

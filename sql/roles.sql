-- Roles, one per program, each with the least it needs. Applied at every start before the
-- migrations, by a role that may create roles. neargpu_owner owns everything and cannot
-- log in. Grants on the objects stand in grants.sql.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'neargpu_owner') THEN
        CREATE ROLE neargpu_owner NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'neargpu_server') THEN
        CREATE ROLE neargpu_server LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'neargpu_billd') THEN
        CREATE ROLE neargpu_billd LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'neargpu_report') THEN
        CREATE ROLE neargpu_report LOGIN;
    END IF;
END $$;
-- A client that hangs in a transaction must not hold the market's locks.
ALTER ROLE neargpu_server SET statement_timeout = '30s';
ALTER ROLE neargpu_server SET lock_timeout = '10s';
ALTER ROLE neargpu_server SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE neargpu_billd SET statement_timeout = '60s';
ALTER ROLE neargpu_billd SET lock_timeout = '20s';
ALTER ROLE neargpu_billd SET idle_in_transaction_session_timeout = '30s';
ALTER ROLE neargpu_report SET default_transaction_read_only = on;
ALTER ROLE neargpu_report SET statement_timeout = '60s';
-- Reports are short: compiling a plan takes longer than running it.
ALTER ROLE neargpu_report SET jit = off;
-- PostgreSQL lets every role take advisory locks, which order the market's money, and write
-- large objects and messages into the WAL, in a read-only transaction too. Here only the
-- owner's functions take locks. A role that is no superuser cannot say so and leaves it.
DO $$
DECLARE v_function regprocedure;
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RETURN;
    END IF;
    FOR v_function IN
        SELECT oid FROM pg_proc
         WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^(pg_(try_)?advisory_|lo_|lowrite|pg_logical_emit_message)'
           AND has_function_privilege('neargpu_report', oid, 'EXECUTE')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO neargpu_owner', v_function);
    END LOOP;
END $$;

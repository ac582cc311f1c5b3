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

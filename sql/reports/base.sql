-- Reports for administrators: views that a read-only role may query with any SQL client,
-- also by `neargpu admin report NAME` and GET /v1/reports/NAME. Units stand as column
-- comments. Hours and days are UTC. docs/reports.md describes each, with its formula.
--
-- A view reads the period and filters from the session's settings (report.since, report.until,
-- report.site, …), which report.run() sets, so that it can add up within them; without them
-- it is about all there is. Most read roll-ups (sql/api/rollup.sql): `rolls` says which.

-- What stands here is made anew as a whole.
DO $$
DECLARE v record;
BEGIN
    FOR v IN SELECT c.oid::regclass AS name FROM pg_class c
              WHERE c.relnamespace = 'report'::regnamespace AND c.relkind = 'v' AND c.relname NOT LIKE 'check\_%'
    LOOP
        EXECUTE format('DROP VIEW IF EXISTS %s CASCADE', v.name);
    END LOOP;
END $$;
DROP TABLE IF EXISTS report.catalog;
CREATE TABLE report.catalog (
    name text PRIMARY KEY,
    description text NOT NULL,
    time_column text,       -- its rows begin in [from, to)
    days integer,           -- how long back without a period; null with a period: all there is
    period boolean NOT NULL, -- takes from and to
    filters text[] NOT NULL, -- of site, provider, tenant, model, currency
    sort text NOT NULL,     -- ORDER BY list
    rolls text[] NOT NULL,  -- kinds of roll-ups it reads; none: the tables themselves
    chart jsonb             -- how to draw it: {kind, x, y, series, value}
);

CREATE OR REPLACE FUNCTION report.since() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(current_setting('report.since', true), '')::timestamptz, '-infinity')
$$;
CREATE OR REPLACE FUNCTION report.until() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(current_setting('report.until', true), '')::timestamptz, 'infinity')
$$;
-- A filter, null when it is not set.
CREATE OR REPLACE FUNCTION report.only(p_filter text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT nullif(current_setting('report.' || p_filter, true), '')
$$;

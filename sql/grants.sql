-- What each role may do, stated anew after every change of the functions: nothing to
-- PUBLIC, functions of schema api to the program they are for, reports to be read.
REVOKE ALL ON SCHEMA ng, api, report FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ng, api, report FROM PUBLIC, neargpu_server, neargpu_billd, neargpu_report;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA ng FROM PUBLIC, neargpu_server, neargpu_billd, neargpu_report;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ng, api, report FROM PUBLIC, neargpu_server, neargpu_billd, neargpu_report;

GRANT USAGE ON SCHEMA api TO neargpu_server, neargpu_billd;
GRANT USAGE ON SCHEMA report TO neargpu_report;
GRANT SELECT ON ALL TABLES IN SCHEMA report TO neargpu_report;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA report TO neargpu_report;
-- Functions inside views run as their reader.
GRANT EXECUTE ON FUNCTION ng.money_mul(bigint, bigint, bigint) TO neargpu_report;

DO $$
DECLARE v record;
BEGIN
    FOR v IN
        SELECT p.oid::regprocedure AS sig, p.proname
          FROM pg_proc p WHERE p.pronamespace = 'api'::regnamespace AND p.prokind = 'f'
    LOOP
        IF v.proname LIKE 'billing\_%' OR v.proname = 'check_all' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO neargpu_billd', v.sig);
        ELSE
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO neargpu_server', v.sig);
        END IF;
    END LOOP;
END $$;

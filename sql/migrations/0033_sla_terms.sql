-- A longer outage is never credited less. Of a list that is so each part is so too: rows may
-- be added one by one.
CREATE FUNCTION ng.check_sla_terms() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v record;
BEGIN
    SELECT a.share_ppm AS share, a.credit_ppm AS credit, b.share_ppm AS more, b.credit_ppm AS less INTO v
      FROM sla_terms a JOIN sla_terms b ON b.share_ppm > a.share_ppm AND b.credit_ppm < a.credit_ppm
     ORDER BY b.share_ppm, a.share_ppm DESC LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'from % %% of the time % %% are credited, less than the % %% from % %% on', trim_scale(v.more / 10000.0),
            trim_scale(v.less / 10000.0), trim_scale(v.credit / 10000.0), trim_scale(v.share / 10000.0)
            USING ERRCODE = 'check_violation', CONSTRAINT = 'sla_terms_rise';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER rise AFTER INSERT OR UPDATE ON ng.sla_terms FOR EACH STATEMENT EXECUTE FUNCTION ng.check_sla_terms();

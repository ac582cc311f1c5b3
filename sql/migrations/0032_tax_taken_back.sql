-- A rate or rule that has not begun was on no invoice: it may be taken back, and what it
-- was to end goes on. What has begun only ends, and not in the past.
CREATE OR REPLACE FUNCTION ng.tax_end_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF lower(OLD.during) IS DISTINCT FROM lower(NEW.during) OR upper(OLD.during) <= clock_timestamp() OR upper(NEW.during) < now() THEN
        RAISE EXCEPTION '%: only an end that has not come is changed, to one that has not', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION ng.tax_not_begun() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF lower_inf(OLD.during) OR lower(OLD.during) <= clock_timestamp() THEN
        RAISE EXCEPTION '%: what has begun is not taken back', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END $$;
DROP TRIGGER append_only ON ng.tax_rate;
DROP TRIGGER append_only ON ng.tax_rule;
CREATE TRIGGER append_only BEFORE UPDATE OF class, rate_ppm, set_by ON ng.tax_rate
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OF tenant_id, meter, gpu_model, class, set_by ON ng.tax_rule
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER not_begun BEFORE DELETE ON ng.tax_rate FOR EACH ROW EXECUTE FUNCTION ng.tax_not_begun();
CREATE TRIGGER not_begun BEFORE DELETE ON ng.tax_rule FOR EACH ROW EXECUTE FUNCTION ng.tax_not_begun();

-- Taxes: classes with a rate from a date on, who or what is of another class than the
-- standard one, and of each invoice and credit note the base and the tax per class. Data:
-- what a change of the law needs is rows. The functions stand in sql/api/tax.sql.
CREATE DOMAIN ng.tax_class AS text CHECK (VALUE IN ('standard', 'reduced', 'zero', 'exempt', 'outside'));

-- No positive rate has two classes at a time: tax is computed once per rate.
CREATE TABLE ng.tax_rate (
    class ng.tax_class NOT NULL,
    rate_ppm integer NOT NULL CHECK (rate_ppm BETWEEN 0 AND 1000000),
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    set_by text NOT NULL,
    CHECK (class IN ('standard', 'reduced') OR rate_ppm = 0),
    EXCLUDE USING gist (class WITH =, during WITH &&),
    EXCLUDE USING gist (rate_ppm WITH =, during WITH &&) WHERE (rate_ppm > 0)
);
INSERT INTO ng.tax_rate (class, rate_ppm, during, set_by)
SELECT c, 0, tstzrange '(,)', 'market' FROM unnest(ARRAY['zero', 'exempt', 'outside']) c
UNION ALL SELECT 'standard', tax_ppm, '(,)', 'market' FROM ng.market;
-- The market's row comes after the migrations at its first start.
CREATE FUNCTION ng.market_tax() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.tax_rate (class, rate_ppm, during, set_by) VALUES ('standard', NEW.tax_ppm, '(,)', 'market');
    RETURN NULL;
END $$;
CREATE TRIGGER tax AFTER INSERT ON ng.market FOR EACH ROW EXECUTE FUNCTION ng.market_tax();

-- A tenant (one abroad: its class goes before all others), or what is sold: GPUs, those of
-- one model, paths. What has no row is standard.
CREATE TABLE ng.tax_rule (
    tenant_id uuid REFERENCES ng.tenant,
    meter text CHECK (meter IN ('gpu', 'path')),
    gpu_model text CHECK (gpu_model <> ''),
    class ng.tax_class NOT NULL,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    set_by text NOT NULL,
    subject text NOT NULL GENERATED ALWAYS AS (coalesce('tenant/' || tenant_id::text, meter || coalesce('/' || gpu_model, ''))) STORED,
    CHECK (num_nonnulls(tenant_id, meter) = 1),
    CHECK (gpu_model IS NULL OR meter = 'gpu'),
    EXCLUDE USING gist (subject WITH =, during WITH &&)
);
-- Their past is what invoices were made with: rows only come, and end.
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF class, rate_ppm, set_by ON ng.tax_rate
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF tenant_id, meter, gpu_model, class, set_by ON ng.tax_rule
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.tax_rate
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.tax_rule
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE FUNCTION ng.tax_end_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF lower(OLD.during) IS DISTINCT FROM lower(NEW.during) OR NOT upper_inf(OLD.during) OR upper_inf(NEW.during) THEN
        RAISE EXCEPTION '%: a row that holds without end gets an end, nothing else', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER end_only BEFORE UPDATE OF during ON ng.tax_rate FOR EACH ROW EXECUTE FUNCTION ng.tax_end_only();
CREATE TRIGGER end_only BEFORE UPDATE OF during ON ng.tax_rule FOR EACH ROW EXECUTE FUNCTION ng.tax_end_only();

-- ---- invoices ----

CREATE TABLE ng.invoice_tax (
    number text NOT NULL REFERENCES ng.invoice,
    class ng.tax_class NOT NULL,
    rate_ppm integer NOT NULL CHECK (rate_ppm BETWEEN 0 AND 1000000),
    base_micro bigint NOT NULL CHECK (base_micro >= 0), -- in whole minor units
    tax_micro bigint NOT NULL CHECK (tax_micro >= 0),
    PRIMARY KEY (number, class)
);
CREATE UNIQUE INDEX invoice_tax_rate ON ng.invoice_tax (number, rate_ppm) WHERE rate_ppm > 0;
INSERT INTO ng.invoice_tax SELECT number, 'standard', tax_ppm, net_micro, tax_micro FROM ng.invoice;
ALTER TABLE ng.invoice_line ADD COLUMN tax_class ng.tax_class NOT NULL DEFAULT 'standard';
-- Null: the rates are in invoice_tax, and in the log under the invoice's number; those of
-- before stay in the log as they were written.
ALTER TABLE ng.invoice ALTER COLUMN tax_ppm DROP NOT NULL;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.invoice_tax
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.invoice_tax
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
-- When the transaction ends: net is the sum of the lines, a class's base that of its lines,
-- its tax its rate of the base, rounded once, and the taxes are the invoice's.
CREATE OR REPLACE FUNCTION ng.check_invoice_sum() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v invoice;
    v_minor bigint;
BEGIN
    SELECT * INTO STRICT v FROM invoice WHERE number = NEW.number;
    v_minor := minor_micro(v.currency);
    IF v.net_micro IS DISTINCT FROM (SELECT sum(amount_micro) FROM invoice_line WHERE number = v.number) THEN
        RAISE EXCEPTION 'invoice % is not the sum of its lines', v.number USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (SELECT FROM (SELECT tax_class AS class, sum(amount_micro) AS base FROM invoice_line WHERE number = v.number GROUP BY 1) l
                 FULL JOIN (SELECT class, base_micro FROM invoice_tax WHERE number = v.number) t ON t.class = l.class
                WHERE l.base IS DISTINCT FROM t.base_micro) THEN
        RAISE EXCEPTION 'invoice %: the base of a tax is not the sum of its lines', v.number USING ERRCODE = 'check_violation';
    END IF;
    IF v.tax_micro IS DISTINCT FROM (SELECT sum(tax_micro) FROM invoice_tax WHERE number = v.number)
        OR EXISTS (SELECT FROM invoice_tax t WHERE t.number = v.number
                      AND t.tax_micro IS DISTINCT FROM money_mul(t.base_micro, t.rate_ppm, 1000000 * v_minor) * v_minor) THEN
        RAISE EXCEPTION 'invoice %: a tax is not what its rate and base give', v.number USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER taxes_sum AFTER INSERT ON ng.invoice_tax DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ng.check_invoice_sum();

-- ---- credit notes ----

-- Of a note against an invoice: what of it is of which class. One that lessens the next
-- invoice has no tax and no rows.
CREATE TABLE ng.credit_note_tax (
    number text NOT NULL REFERENCES ng.credit_note,
    class ng.tax_class NOT NULL,
    rate_ppm integer NOT NULL CHECK (rate_ppm BETWEEN 0 AND 1000000),
    base_micro bigint NOT NULL CHECK (base_micro > 0),
    tax_micro bigint NOT NULL CHECK (tax_micro >= 0),
    PRIMARY KEY (number, class)
);
INSERT INTO ng.credit_note_tax SELECT number, 'standard', tax_ppm, net_micro, tax_micro FROM ng.credit_note WHERE invoice IS NOT NULL;
ALTER TABLE ng.credit_note ALTER COLUMN tax_ppm DROP NOT NULL; -- null as of invoices
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.credit_note_tax
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.credit_note_tax
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
-- When the transaction ends, beside check_credit_note: a note's classes are its sums, and no
-- class of an invoice gives back more than it took.
CREATE FUNCTION ng.check_credit_note_tax() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v credit_note;
BEGIN
    SELECT * INTO STRICT v FROM credit_note WHERE number = NEW.number;
    IF (SELECT coalesce(sum(base_micro), 0) <> CASE WHEN v.invoice IS NULL THEN 0 ELSE v.net_micro END
               OR coalesce(sum(tax_micro), 0) <> v.tax_micro FROM credit_note_tax WHERE number = v.number) THEN
        RAISE EXCEPTION 'credit note % is not the sum of its taxes', v.number USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (SELECT FROM (SELECT t.class, sum(t.base_micro) AS base, sum(t.tax_micro) AS tax
                              FROM credit_note c JOIN credit_note_tax t ON t.number = c.number WHERE c.invoice = v.invoice GROUP BY 1) n
                 LEFT JOIN invoice_tax i ON i.number = v.invoice AND i.class = n.class
                WHERE i.class IS NULL OR n.tax > i.tax_micro) THEN
        RAISE EXCEPTION 'credit note %: invoice % had less tax', v.number, v.invoice USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER taxes_sum AFTER INSERT ON ng.credit_note DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ng.check_credit_note_tax();
CREATE CONSTRAINT TRIGGER taxes_sum AFTER INSERT ON ng.credit_note_tax DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ng.check_credit_note_tax();

-- Where the issuer is, printed under its name.
ALTER TABLE ng.market ADD COLUMN issuer_address text;

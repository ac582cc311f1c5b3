-- Which tax is on what, and since when (sql/migrations/0020_invoice_tax.sql). An invoice's
-- period never spans a change of taxes, so that each line has one class and a class one rate.

CREATE OR REPLACE FUNCTION ng.tax_class_of(p_tenant uuid, p_meter text, p_model text, p_at timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT class FROM ng.tax_rule WHERE tenant_id = p_tenant AND during @> p_at),
                    (SELECT class FROM ng.tax_rule WHERE meter = p_meter AND gpu_model = p_model AND during @> p_at),
                    (SELECT class FROM ng.tax_rule WHERE meter = p_meter AND gpu_model IS NULL AND during @> p_at),
                    'standard')::text
$$;
-- Null: the class has no rate then.
CREATE OR REPLACE FUNCTION ng.tax_rate_of(p_class text, p_at timestamptz) RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT rate_ppm FROM ng.tax_rate WHERE class = p_class AND during @> p_at
$$;
-- The first instant after p_at at which another rate or class holds for something the tenant
-- may be charged for; null: none.
CREATE OR REPLACE FUNCTION ng.tax_change_after(p_tenant uuid, p_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT min(x.at)
      FROM (SELECT lower(r.during) AS at FROM ng.tax_rate r JOIN ng.tax_rate o ON o.class = r.class AND upper(o.during) = lower(r.during)
            UNION ALL
            SELECT unnest(ARRAY[lower(during), upper(during)]) FROM ng.tax_rule WHERE tenant_id IS NULL OR tenant_id = p_tenant) x
     WHERE x.at > p_at
$$;
-- What the invoice will add to a quoted plan, should all of it be used: its GPUs and its
-- paths each in their class, as taxes are at p_at. rate_ppm is null when there are several.
CREATE OR REPLACE FUNCTION ng.plan_tax(p_tenant uuid, p_plan jsonb, p_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    WITH gpu AS (
        SELECT ng.tax_class_of(p_tenant, 'gpu', n.gpu_model, p_at) AS class,
               ng.money_mul((p_plan->>'gpus')::bigint * (p_plan->>'len_us')::bigint, (s->>'price_micro')::bigint, 3600000000) AS amount
          FROM jsonb_array_elements(p_plan->'slots') s LEFT JOIN ng.node n ON n.id = (s->>'node_id')::integer),
    part AS (
        SELECT class, amount FROM gpu
        UNION ALL
        SELECT ng.tax_class_of(p_tenant, 'path', NULL, p_at), (p_plan->>'total_micro')::bigint - coalesce((SELECT sum(amount) FROM gpu), 0)
         WHERE jsonb_array_length(p_plan->'lanes') > 0),
    classed AS (
        SELECT class, ng.tax_rate_of(class, p_at) AS ppm, sum(amount) AS amount FROM part GROUP BY class)
    SELECT jsonb_build_object('micro', coalesce(sum(ng.money_mul(CASE WHEN x.only THEN (p_plan->>'total_micro')::bigint ELSE amount::bigint END,
               ppm, 1000000)), 0), 'rate_ppm', CASE WHEN bool_and(x.only) THEN max(ppm) END)
      FROM classed CROSS JOIN (SELECT count(*) = 1 AS only FROM classed) x
$$;
-- Base and tax per class, the highest rate first.
CREATE OR REPLACE FUNCTION ng.invoice_taxes_json(p_number text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('class', class, 'rate_ppm', rate_ppm, 'base_micro', base_micro, 'tax_micro', tax_micro)
                              ORDER BY rate_ppm DESC, class), '[]')
      FROM ng.invoice_tax WHERE number = p_number
$$;
CREATE OR REPLACE FUNCTION ng.credit_note_taxes_json(p_number text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('class', class, 'rate_ppm', rate_ppm, 'base_micro', base_micro, 'tax_micro', tax_micro)
                              ORDER BY rate_ppm DESC, class), '[]')
      FROM ng.credit_note_tax WHERE number = p_number
$$;
-- As the log has them: amounts as texts.
CREATE OR REPLACE FUNCTION ng.log_taxes(p_taxes jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('class', t->>'class', 'rate_ppm', t->'rate_ppm', 'base_micro', t->>'base_micro',
               'tax_micro', t->>'tax_micro') ORDER BY n), '[]')
      FROM jsonb_array_elements(p_taxes) WITH ORDINALITY AS x(t, n)
$$;

-- ---- what administrators say ----

CREATE OR REPLACE FUNCTION api.tax_list() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object(
        'rates', (SELECT coalesce(jsonb_agg(jsonb_build_object('class', class, 'rate_ppm', rate_ppm,
                      'from_us', CASE WHEN lower_inf(during) THEN NULL ELSE us(lower(during)) END,
                      'to_us', CASE WHEN upper_inf(during) THEN NULL ELSE us(upper(during)) END, 'set_by', set_by)
                      ORDER BY array_position(ARRAY['standard', 'reduced', 'zero', 'exempt', 'outside'], class::text), during), '[]') FROM tax_rate),
        'rules', (SELECT coalesce(jsonb_agg(jsonb_build_object('tenant', t.name, 'meter', r.meter, 'gpu_model', r.gpu_model, 'class', r.class,
                      'from_us', us(lower(r.during)), 'to_us', CASE WHEN upper_inf(r.during) THEN NULL ELSE us(upper(r.during)) END,
                      'set_by', r.set_by) ORDER BY t.name, r.meter, r.gpu_model NULLS FIRST, r.during), '[]')
                    FROM tax_rule r LEFT JOIN tenant t ON t.id = r.tenant_id))
$$;
-- From when something new holds: now, or later; what was charged is not taxed anew. Under
-- the billing lock, so that no invoice is made meanwhile.
CREATE OR REPLACE FUNCTION ng.tax_from(p_body jsonb) RETURNS timestamptz
LANGUAGE plpgsql AS $$
DECLARE v_from timestamptz;
BEGIN
    PERFORM ng.billing_lock();
    v_from := coalesce(ng.body_time(p_body, 'from'), clock_timestamp());
    IF v_from < clock_timestamp() - interval '1 s' THEN
        PERFORM ng.refuse(20, '/from: has passed: what was charged is not taxed anew');
    END IF;
    RETURN greatest(v_from, clock_timestamp());
END $$;
-- What another set for this very instant holds already.
CREATE OR REPLACE FUNCTION ng.tax_not_now(p_from timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_from <= clock_timestamp() THEN
        PERFORM ng.refuse(6, format('another is set from %s on, which has begun: set it from an instant to come', ng.log_time(p_from)));
    END IF;
END $$;
-- {class: standard or reduced, rate_ppm, from?}. The first rate of a class holds since ever:
-- nothing was of it. It holds until the next one that is set; one set before for the same
-- instant to come is taken back for it. Said again, nothing changes.
CREATE OR REPLACE FUNCTION api.tax_rate_set(p_body jsonb, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_class text := p_body->>'class';
    v_ppm bigint;
    v_from timestamptz;
    v_old tax_rate;
BEGIN
    PERFORM body_only(p_body, 'class', 'rate_ppm', 'from');
    v_ppm := body_int(p_body, 'rate_ppm');
    IF v_class IS NULL OR v_class NOT IN ('standard', 'reduced') THEN
        PERFORM refuse(20, '/class: standard or reduced: the others are without tax');
    ELSIF v_ppm IS NULL OR v_ppm NOT BETWEEN 0 AND 1000000 THEN
        PERFORM refuse(20, '/rate_ppm: from 0 to 1000000');
    END IF;
    v_from := tax_from(p_body);
    SELECT * INTO v_old FROM tax_rate WHERE class = v_class AND during @> v_from;
    IF v_old.rate_ppm = v_ppm THEN
        RETURN api.tax_list();
    ELSIF lower(v_old.during) = v_from THEN
        PERFORM tax_not_now(v_from);
        DELETE FROM tax_rate WHERE class = v_class AND during = v_old.during;
        UPDATE tax_rate SET during = tstzrange(lower(during), upper(v_old.during))
         WHERE class = v_class AND upper(during) = v_from AND rate_ppm = v_ppm;
        IF FOUND THEN
            RETURN api.tax_list();
        END IF;
    ELSE
        UPDATE tax_rate SET during = tstzrange(lower(during), v_from) WHERE class = v_class AND during = v_old.during;
    END IF;
    INSERT INTO tax_rate (class, rate_ppm, during, set_by)
    VALUES (v_class, v_ppm, tstzrange(CASE WHEN v_old.class IS NOT NULL THEN v_from END, upper(v_old.during)), p_by);
    RETURN api.tax_list();
EXCEPTION WHEN exclusion_violation THEN
    PERFORM refuse(6, format('the other class has a rate of %s ppm: two classes of one rate are one', v_ppm));
END $$;
-- {tenant | meter [gpu_model], class, from?}: until the next one that is set, as a rate is.
CREATE OR REPLACE FUNCTION api.tax_rule_set(p_body jsonb, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_class text := p_body->>'class';
    v_meter text := p_body->>'meter';
    v_model text := p_body->>'gpu_model';
    v_tenant uuid;
    v_from timestamptz;
    v_old tax_rule;
    v_until timestamptz;
BEGIN
    PERFORM body_only(p_body, 'tenant', 'meter', 'gpu_model', 'class', 'from');
    IF num_nonnulls(p_body->>'tenant', v_meter) <> 1 OR v_meter NOT IN ('gpu', 'path') OR v_model IS NOT NULL AND v_meter IS DISTINCT FROM 'gpu' THEN
        PERFORM refuse(20, 'either /tenant, or /meter: gpu (with a /gpu_model, or of all) or path');
    ELSIF v_model IS NOT NULL THEN
        PERFORM body_text(p_body, 'gpu_model');
    END IF;
    v_from := tax_from(p_body);
    IF v_class IS NULL OR tax_rate_of(v_class, v_from) IS NULL THEN
        PERFORM refuse(20, '/class: none that has a rate then: standard, reduced, zero, exempt or outside');
    END IF;
    IF v_meter IS NULL THEN
        v_tenant := (tenant_named(body_text(p_body, 'tenant'))).id;
    END IF;
    SELECT * INTO v_old FROM tax_rule WHERE (tenant_id, meter, gpu_model) IS NOT DISTINCT FROM (v_tenant, v_meter, v_model) AND during @> v_from;
    SELECT min(lower(during)) INTO v_until FROM tax_rule
     WHERE (tenant_id, meter, gpu_model) IS NOT DISTINCT FROM (v_tenant, v_meter, v_model) AND lower(during) > v_from;
    IF v_old.class = v_class THEN
        RETURN api.tax_list();
    ELSIF lower(v_old.during) = v_from THEN
        PERFORM tax_not_now(v_from);
        DELETE FROM tax_rule WHERE subject = v_old.subject AND during = v_old.during;
        UPDATE tax_rule SET during = tstzrange(lower(during), v_until)
         WHERE subject = v_old.subject AND upper(during) = v_from AND class = v_class;
        IF FOUND THEN
            RETURN api.tax_list();
        END IF;
    ELSE
        UPDATE tax_rule SET during = tstzrange(lower(during), v_from) WHERE subject = v_old.subject AND during = v_old.during;
    END IF;
    INSERT INTO tax_rule (tenant_id, meter, gpu_model, class, during, set_by)
    VALUES (v_tenant, v_meter, v_model, v_class, tstzrange(v_from, v_until), p_by);
    RETURN api.tax_list();
END $$;

-- ---- what an invoice must be when its transaction ends ----

-- Net is the sum of the lines, a class's base that of its lines, its tax its rate of the
-- base, rounded once, and the taxes are the invoice's.
CREATE OR REPLACE FUNCTION ng.check_invoice(p_number text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v ng.invoice;
    v_minor bigint;
    v_lines numeric;
    v_bases boolean;
BEGIN
    SELECT * INTO STRICT v FROM ng.invoice WHERE number = p_number;
    v_minor := ng.minor_micro(v.currency);
    SELECT sum(l.base), bool_and(l.base IS NOT DISTINCT FROM t.base_micro) INTO v_lines, v_bases
      FROM (SELECT tax_class AS class, sum(amount_micro) AS base FROM ng.invoice_line WHERE number = p_number GROUP BY 1) l
      FULL JOIN (SELECT class, base_micro FROM ng.invoice_tax WHERE number = p_number) t ON t.class = l.class;
    IF v.net_micro IS DISTINCT FROM v_lines THEN
        RAISE EXCEPTION 'invoice % is not the sum of its lines', v.number USING ERRCODE = 'check_violation';
    ELSIF NOT v_bases THEN
        RAISE EXCEPTION 'invoice %: the base of a tax is not the sum of its lines', v.number USING ERRCODE = 'check_violation';
    END IF;
    IF v.tax_micro IS DISTINCT FROM (SELECT sum(tax_micro) FROM ng.invoice_tax WHERE number = p_number)
        OR EXISTS (SELECT FROM ng.invoice_tax t WHERE t.number = p_number
                      AND t.tax_micro IS DISTINCT FROM ng.money_mul(t.base_micro, t.rate_ppm, 1000000 * v_minor) * v_minor) THEN
        RAISE EXCEPTION 'invoice %: a tax is not what its rate and base give', v.number USING ERRCODE = 'check_violation';
    END IF;
END $$;
-- Of the invoice's row and of its taxes.
CREATE OR REPLACE FUNCTION ng.check_invoice_sum() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    PERFORM check_invoice(NEW.number);
    RETURN NULL;
END $$;
-- Lines are looked at once a statement, not once a line, or an invoice would take the square
-- of its lines: a statement leaves a row here, whose check is deferred as the others are.
CREATE TABLE IF NOT EXISTS ng.invoice_check (number text NOT NULL);
CREATE OR REPLACE FUNCTION ng.invoice_lines_made() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    INSERT INTO invoice_check SELECT DISTINCT number FROM made;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ng.check_invoice_lines() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    PERFORM check_invoice(NEW.number);
    DELETE FROM invoice_check WHERE number = NEW.number;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS lines_sum ON ng.invoice_line;
CREATE OR REPLACE TRIGGER lines_made AFTER INSERT ON ng.invoice_line REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.invoice_lines_made();
DROP TRIGGER IF EXISTS lines_sum ON ng.invoice_check;
CREATE CONSTRAINT TRIGGER lines_sum AFTER INSERT ON ng.invoice_check DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ng.check_invoice_lines();

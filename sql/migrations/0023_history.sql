-- What is only added to is so for the owner of the tables as well: records that came
-- without a guard, truncation, cursors that must not go back.

-- Disputes decide what is settled: opened once, closed once.
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF reservation_id, reason, opened_by, opened_at ON ng.dispute
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_closed BEFORE UPDATE OF closed_by, closed_at ON ng.dispute
    FOR EACH ROW WHEN (OLD.closed_at IS NOT NULL) EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.dispute
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.settle_parked
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- Evidence.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.receipt_fork
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.receipt_fork
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF node_id, receipt_key, since ON ng.node_key
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.node_key
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- What was offered: of an old quote the request and the plan go, and its hash stays. A
-- price ends, and is not another one.
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF id, tenant_id, created_at, expires_at, hash ON ng.quote
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.quote
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF node_id, currency, per_gpu_hour_micro, set_by ON ng.price
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.price
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- Whose a reservation is, in which currency, and since when.
CREATE TRIGGER append_only BEFORE UPDATE OF id, tenant_id, created_at, currency ON ng.reservation
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.reservation
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- Cursors: what was charged, given back, settled, set against promotional credit once is
-- never so again. The conditions are in the triggers, so that an update that is right calls
-- nothing.
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF reservation_id, node_id ON ng.meter
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER only_grows BEFORE UPDATE ON ng.meter
    FOR EACH ROW WHEN (NEW.seq < OLD.seq OR NEW.gpu_ms < OLD.gpu_ms OR NEW.amount_micro < OLD.amount_micro
        OR NEW.fee_micro < OLD.fee_micro OR OLD.closed AND NOT NEW.closed)
    EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.meter
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF reservation_id, provider_id ON ng.refund_share
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER only_grows BEFORE UPDATE ON ng.refund_share
    FOR EACH ROW WHEN (NEW.gross_micro < OLD.gross_micro OR NEW.fee_micro < OLD.fee_micro) EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.refund_share
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF account ON ng.settle_cursor
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER only_grows BEFORE UPDATE ON ng.settle_cursor
    FOR EACH ROW WHEN (NEW.transfer_id < OLD.transfer_id) EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.settle_cursor
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF account, reservation_id ON ng.settle_less
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.settle_less
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF tenant_id, currency ON ng.promo_cursor
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER only_grows BEFORE UPDATE ON ng.promo_cursor
    FOR EACH ROW WHEN (NEW.transfer_id < OLD.transfer_id) EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.promo_cursor
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- A statement's trigger is not inherited by partitions: each month of use gets its own.
CREATE FUNCTION ng.guard_months() RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_month regclass;
BEGIN
    FOR v_month IN
        SELECT c.oid FROM pg_class c
         WHERE (c.oid = 'ng.usage'::regclass OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent = 'ng.usage'::regclass))
           AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'append_only_truncate')
    LOOP
        EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change()', v_month);
    END LOOP;
END $$;
SELECT ng.guard_months();

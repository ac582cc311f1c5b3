-- Rolling holds: of a long lease the next window is held, not all of it.

-- How much of a lease's time is held ahead; null: all of it.
ALTER TABLE ng.market ADD COLUMN hold_window_us bigint DEFAULT 86400000000
    CHECK (hold_window_us BETWEEN 30000000 AND 2678400000000); -- half a minute to a month, as long as a lease can be

ALTER TABLE ng.reservation
    ADD COLUMN paid_until timestamptz,   -- up to where its price is held; null: to its end
    ADD COLUMN hold_due_at timestamptz,  -- when billd next looks whether to hold more
    ADD COLUMN funds_low_at timestamptz; -- since when the tenant's money does not reach
CREATE INDEX reservation_low ON ng.reservation (tenant_id) WHERE funds_low_at IS NOT NULL;
CREATE INDEX reservation_hold_due ON ng.reservation (hold_due_at) WHERE hold_due_at IS NOT NULL;

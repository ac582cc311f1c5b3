-- When neargpu-billd last went through all roll-ups, and how long it leaves them then.
ALTER TABLE ng.roll_state ADD COLUMN turn_at timestamptz, ADD COLUMN wait_us bigint CHECK (wait_us >= 0);

-- Who an invoice is addressed to, as the tenant says it; taken into each invoice's document
-- when it is issued.
ALTER TABLE ng.tenant ADD COLUMN billing jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(billing) = 'object');

-- That an attempt to light a path was never answered is a fact of its own: a later attempt
-- that is refused does not say that the earlier one did nothing.
ALTER TABLE ng.path_booking ADD COLUMN doubtful boolean NOT NULL DEFAULT false;

-- Hours by site and model, without the provider: one row for each of utilisation_hourly, which
-- adds up nothing then. Made of the rows by provider, in the same transaction.
CREATE TABLE ng.roll_capacity_site (
    hour timestamptz NOT NULL,
    site_id integer NOT NULL,
    gpu_model text NOT NULL,
    gpu_ms bigint NOT NULL,
    booked_ms bigint NOT NULL,
    PRIMARY KEY (hour, site_id, gpu_model)
);
CREATE TABLE ng.roll_use_site (
    hour timestamptz NOT NULL,
    site_id integer NOT NULL,
    gpu_model text NOT NULL,
    gpu_ms bigint NOT NULL,
    PRIMARY KEY (hour, site_id, gpu_model)
);
INSERT INTO ng.roll_capacity_site
SELECT hour, site_id, gpu_model, sum(gpu_ms), sum(firm_ms + spot_ms) FROM ng.roll_capacity GROUP BY 1, 2, 3;
INSERT INTO ng.roll_use_site SELECT hour, site_id, gpu_model, sum(gpu_ms) FROM ng.roll_use GROUP BY 1, 2, 3;

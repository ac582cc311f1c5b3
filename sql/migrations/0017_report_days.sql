-- Roll-ups by day of what 0013 has by hour: a report by day reads a twenty-fourth of the rows.
CREATE TABLE ng.roll_use_day (
    day timestamptz NOT NULL,
    site_id integer NOT NULL,
    provider_id uuid NOT NULL,
    gpu_model text NOT NULL,
    spot boolean NOT NULL,
    gpu_ms bigint NOT NULL,
    receipts bigint NOT NULL,
    late bigint NOT NULL,
    late_gpu_ms bigint NOT NULL,
    worst_late_ms bigint NOT NULL,
    PRIMARY KEY (day, site_id, provider_id, gpu_model, spot)
);
CREATE TABLE ng.roll_latency_day (
    day timestamptz NOT NULL,
    kind text NOT NULL,
    bucket smallint NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (day, kind, bucket)
);
INSERT INTO ng.roll_use_day
SELECT date_trunc('day', hour, 'UTC'), site_id, provider_id, gpu_model, spot, sum(gpu_ms), sum(receipts), sum(late), sum(late_gpu_ms),
       max(worst_late_ms)
  FROM ng.roll_use GROUP BY 1, 2, 3, 4, 5;
INSERT INTO ng.roll_latency_day
SELECT date_trunc('day', hour, 'UTC'), kind, bucket, sum(requests) FROM ng.roll_latency GROUP BY 1, 2, 3;

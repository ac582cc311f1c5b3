/* Random histories of the market through the SQL functions that the server calls: gangs
 * over several providers, paths, spot and its preemption, holds, standing orders, every
 * change and its dry run, receipts in any order, path equipment, billing rounds, lost
 * nodes. After every step: nothing is sold twice, what is over blocks no lanes, lanes
 * last as long as their reservation, a node that is cut off stops before its GPUs are
 * another's, the check views are empty, a dry run left no trace. At the end every hold
 * is used or given back. Time is the test's own. model_market [SEED [STEPS]]. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

#define NODES  4
#define GPUS   4
#define PATHS  2
#define LANES  4
#define MIN_US INT64_C(60000000)

static struct market m;
static unsigned seed;
static int64_t now_us;
static int made; /* reservations, numbered from 1 */
static int node_id[NODES], site_id[NODES], path_id[PATHS];
static char state[6]; /* SQLSTATE of the last refusal, "" when it was granted */
static struct tally {
    const char *name;
    long granted, refused;
} tallies[32], *tally = tallies;

static int pick(int n)
{
    return (int)(rand_r(&seed) % (unsigned)n);
}

static int64_t upto(int64_t us)
{
    return us / 1000000 * pick(1000001);
}

/* The first value; "" of a refusal, which must be one that the market gives. */
static char *ask(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *ask(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *sql = NULL;
    ck_assert_int_ge(vasprintf(&sql, fmt, ap), 0);
    va_end(ap);
    PGresult *r = PQexec(m.admin, sql);
    const char *code = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    ck_assert_msg(code == NULL || strncmp(code, "NG0", 3) == 0, "%s\n%s",
                  PQerrorMessage(m.admin), sql);
    snprintf(state, sizeof state, "%s", code != NULL ? code : "");
    (*(code == NULL ? &tally->granted : &tally->refused))++;
    char *out = xstrdup(code == NULL && PQntuples(r) > 0 ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
    free(sql);
    return out;
}
#define DO(...) free(ask(__VA_ARGS__))

static int64_t number(const char *sql)
{
    return market_sql(&m, "%s", sql);
}

/* Some reservation in one of these states ("'a', 'b'"); "" when there is none. */
static char *some(const char *states)
{
    char *sql = xasprintf("SELECT id FROM ng.reservation WHERE state IN (%s) ORDER BY "
                          "md5(id::text || '%d') LIMIT 1",
                          states, pick(1000000));
    char *id = testdb_one(m.admin, sql);
    free(sql);
    return id;
}

/* ---- the market, and what the server does in one call ---- */

static const char helpers[] =
    "CREATE SCHEMA t;"
    "CREATE TABLE t.on (id bigint PRIMARY KEY);" /* equipment that is lit */
    "CREATE TABLE t.told (node integer, id uuid, gpus int4range, during int8range);"
    "CREATE FUNCTION t.col(l jsonb, k text) RETURNS bigint[] LANGUAGE sql AS $$"
    " SELECT coalesce(array_agg((e->>k)::bigint ORDER BY n), '{}')"
    "  FROM jsonb_array_elements(l) WITH ORDINALITY AS x(e, n) $$;"
    "CREATE FUNCTION t.book(id uuid, tenant uuid, now bigint, s bigint, e bigint, "
    "request text,"
    "  total bigint, spot boolean, hold bigint, waits boolean, v jsonb, b jsonb, l "
    "jsonb)"
    " RETURNS text LANGUAGE sql AS $$"
    " SELECT outcome FROM api.book(ARRAY[id], ARRAY[tenant], ARRAY[CASE WHEN hold > 0 "
    "THEN id END], ARRAY[now],"
    "  ARRAY[s], ARRAY[e], ARRAY[request], ARRAY['[]'], ARRAY['JPY'], "
    "ARRAY[0::bigint], ARRAY[total], ARRAY[total],"
    "  ARRAY[id::text], ARRAY[sha256('x')], ARRAY[spot], ARRAY[NULL::text], "
    "ARRAY[hold], ARRAY[waits],"
    "  array_fill(1, ARRAY[jsonb_array_length(b)]), t.col(b, 'node_id')::int[], "
    "t.col(b, 'site_id')::int[],"
    "  t.col(b, 'first')::int[], t.col(b, 'count')::int[], t.col(b, 'from_us'), "
    "t.col(b, 'to_us'),"
    "  t.col(b, 'per_gpu_hour_micro'), array_fill(1, ARRAY[jsonb_array_length(l)]), "
    "t.col(l, 'path_id')::int[],"
    "  t.col(l, 'first')::int[], t.col(l, 'count')::int[], t.col(l, 'from_us'), "
    "t.col(l, 'to_us'),"
    "  t.col(l, 'price_micro'), ARRAY(SELECT (x->>'id')::uuid FROM "
    "jsonb_array_elements(v) x), t.col(v, 'cut')) $$;"
    /* Spot leases in the way of b, cut when b begins. */
    "CREATE FUNCTION t.victims(b jsonb) RETURNS jsonb LANGUAGE sql AS $$"
    " SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object('id', r.id, 'cut', "
    "(e->>'from_us')::bigint)), '[]')"
    "  FROM jsonb_array_elements(b) e JOIN ng.node n ON n.id = (e->>'node_id')::int"
    "  JOIN ng.booking k ON k.gpus && int4range(lower(n.gpus) + (e->>'first')::int,"
    "    lower(n.gpus) + (e->>'first')::int + (e->>'count')::int)"
    "   AND k.during && ng.span((e->>'from_us')::bigint, (e->>'to_us')::bigint)"
    "  JOIN ng.reservation r ON r.id = k.reservation_id AND r.spot AND r.preempted_by "
    "IS NULL $$;"
    /* A node asks, hears, and may be cut off from then on. */
    "CREATE FUNCTION t.hear(p_node int, now bigint) RETURNS bigint LANGUAGE sql AS $$"
    " WITH gone AS (DELETE FROM t.told WHERE node = p_node), new AS ("
    "  INSERT INTO t.told SELECT p_node, (x->>'reservation')::uuid, g.r,"
    "    int8range((x->>'not_before_us')::bigint, "
    "greatest((x->>'not_before_us')::bigint, (x->>'not_after_us')::bigint))"
    "   FROM jsonb_array_elements(api.desired(p_node, '[]', now)->'leases') x"
    "   CROSS JOIN LATERAL (SELECT int4range(min(no), max(no) + 1) AS r FROM ng.gpu"
    "     WHERE uuid IN (SELECT jsonb_array_elements_text(x->'gpus'))) g RETURNING 1)"
    " SELECT count(*) FROM new $$;"
    "CREATE FUNCTION t.bill(part int) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n "
    "bigint; BEGIN"
    " SELECT count(api.billing_post(reservation_id, node_id, seq, gpu_ms, a, "
    "ng.money_mul(a, fee_ppm, 1000000))) INTO n"
    "  FROM api.billing_claim(part), LATERAL (SELECT ng.money_mul(least(gpu_ms, "
    "max_gpu_ms), per_gpu_hour_micro, 3600000) AS a) x;"
    " RETURN n; END $$;"
    "CREATE FUNCTION t.bill_paths(part int) RETURNS bigint LANGUAGE plpgsql AS $$ "
    "DECLARE n bigint; BEGIN"
    " SELECT count(api.billing_path_post(booking, lane_ms, a, ng.money_mul(a, fee_ppm, "
    "1000000))) INTO n"
    "  FROM api.billing_path_claim(part), LATERAL (SELECT ng.money_mul(lane_ms, "
    "per_lane_hour_micro, 3600000) AS a) x;"
    " RETURN n; END $$;"
    /* What is due is tried: a server may die before it tells (p 1), the operator fail
       (p 2). */
    "CREATE FUNCTION t.paths(p int, now bigint) RETURNS void LANGUAGE plpgsql AS $$ "
    "DECLARE x jsonb; BEGIN"
    " FOR x IN SELECT * FROM jsonb_array_elements(api.paths_due(now, 30, 8)->'due') "
    "LOOP"
    "  IF p <> 2 AND x->>'action' = 'light' THEN INSERT INTO t.on SELECT "
    "(x->>'id')::bigint ON CONFLICT DO NOTHING;"
    "  ELSIF p <> 2 THEN DELETE FROM t.on WHERE id = (x->>'id')::bigint; END IF;"
    "  IF p <> 1 THEN PERFORM api.path_set((x->>'id')::bigint, CASE WHEN p = 2 THEN "
    "NULL"
    "   WHEN x->>'action' = 'light' THEN 'lit' ELSE 'released' END, CASE WHEN p = 2 "
    "THEN 'no' END, now); END IF;"
    " END LOOP; END $$;"
    /* All that a dry run could leave. */
    "CREATE FUNCTION t.all() RETURNS text LANGUAGE sql AS $$ SELECT md5(concat("
    " (SELECT string_agg(r::text, '' ORDER BY id) FROM ng.reservation r),"
    " (SELECT string_agg(r::text, '' ORDER BY id) FROM ng.booking r),"
    " (SELECT string_agg(r::text, '' ORDER BY id) FROM ng.path_booking r),"
    " (SELECT string_agg(r::text, '' ORDER BY id) FROM ng.account r),"
    " (SELECT string_agg(r::text, '' ORDER BY reservation_id) FROM ng.waiting r),"
    " (SELECT string_agg(r::text, '' ORDER BY reservation_id) FROM ng.revocation r),"
    " (SELECT count(*) FROM ng.transfer), (SELECT count(*) FROM ng.event))) $$;"
    "CREATE FUNCTION t.wrong(now bigint) RETURNS TABLE (what text) LANGUAGE sql AS $$"
    " SELECT name || ' ' || breaches FROM api.check_all() WHERE breaches > 0"
    "  AND name NOT IN ('check_unbilled', 'check_receipt_fork')"
    " UNION ALL SELECT 'lanes of what is over: ' || k.id FROM ng.path_booking k"
    "  JOIN ng.reservation r ON r.id = k.reservation_id AND r.state IN ('ended', "
    "'cancelled', 'failed', 'waiting')"
    "  WHERE upper(k.during) > ng.ts(now)"
    " UNION ALL SELECT 'lanes end before their reservation: ' || k.id FROM "
    "ng.path_booking k"
    "  JOIN ng.reservation r ON r.id = k.reservation_id AND r.state IN ('held', "
    "'confirmed', 'active')"
    "  WHERE upper(k.during) <> upper(r.during)"
    " UNION ALL SELECT 'GPUs end before their reservation: ' || b.id FROM ng.booking b"
    "  JOIN ng.reservation r ON r.id = b.reservation_id AND r.state IN ('held', "
    "'confirmed', 'active')"
    "  WHERE (isempty(b.during) OR upper(b.during) < upper(r.during)) AND NOT EXISTS "
    "(SELECT FROM ng.receipt x"
    "   WHERE x.reservation_id = r.id AND x.node_id = b.node_id AND x.kind = "
    "'teardown')"
    " UNION ALL SELECT 'GPUs of what never ran: ' || b.id FROM ng.booking b"
    "  JOIN ng.reservation r ON r.id = b.reservation_id AND r.state IN ('cancelled', "
    "'waiting') WHERE NOT isempty(b.during)"
    " UNION ALL SELECT 'GPUs of what was torn down: ' || b.id FROM ng.booking b JOIN "
    "ng.receipt x"
    "  ON x.reservation_id = b.reservation_id AND x.node_id = b.node_id AND x.kind = "
    "'teardown'"
    "  WHERE upper(b.during) > upper(x.during)"
    " UNION ALL SELECT 'a node that is cut off runs ' || o.id || ' on GPUs of ' || "
    "b.reservation_id FROM t.told o"
    "  JOIN ng.booking b ON b.gpus && o.gpus AND b.reservation_id <> o.id"
    "   AND b.during && tstzrange(ng.ts(lower(o.during)), ng.ts(upper(o.during)))"
    " UNION ALL SELECT 'lanes lit twice: ' || a.id FROM t.on x JOIN ng.path_booking a "
    "ON a.id = x.id"
    "  JOIN ng.path_booking b ON b.id > a.id AND b.lanes && a.lanes JOIN t.on y ON "
    "y.id = b.id"
    " UNION ALL SELECT 'lit, and nobody knows: ' || id FROM t.on WHERE id NOT IN "
    "(SELECT id FROM ng.path_booking)"
    " UNION ALL SELECT 'hold is not its parts: ' || id FROM ng.reservation WHERE state "
    "IN ('held', 'waiting', 'cancelled')"
    "   AND held_micro <> captured_micro + released_micro $$;";

static void set_up(void)
{
    testdb_sql(m.admin, helpers);
    testdb_sql(m.admin,
               "INSERT INTO ng.site (name, city, lat, lon, residency) VALUES ('tokyo', "
               "'Tokyo', 35, 139, 'jp');"
               "INSERT INTO ng.provider (name, fee_ppm) VALUES ('zeta', 0), "
               "('carrier', 20000)");
    for (int i = 0; i < NODES; i++) {
        node_id[i] = (int)market_sql(
            &m,
            "INSERT INTO ng.node (site_id, provider_id, name, spiffe_id, receipt_key, "
            "gpus, state) SELECT s.id, p.id, 'm%d', 'spiffe://m%d', sha256('%d'), "
            "int4range(%d, %d), 'up' FROM ng.site s, ng.provider p WHERE s.name = '%s' "
            "AND p.name = '%s' RETURNING id",
            i, i, i, 1000 + i * GPUS, 1000 + (i + 1) * GPUS,
            i < 2 ? "fukuoka" : "tokyo", i % 2 == 0 ? "acme" : "zeta");
        site_id[i] = (int)market_sql(&m, "SELECT site_id FROM ng.node WHERE id = %d",
                                     node_id[i]);
        if (i > 0) /* the first sells no spot; notices 1, 2 and 3 minutes */
            DO("INSERT INTO ng.spot_terms VALUES (%d, 'JPY', 30000000, %" PRId64 ")",
               node_id[i], i * MIN_US);
    }
    testdb_sql(
        m.admin,
        "INSERT INTO ng.gpu (no, node_id, ix, uuid, model, memory_mib, minor, state) "
        "SELECT g, id, "
        "g - lower(gpus), 'G-' || g, 'H100', 81559, 0, 'idle' FROM ng.node, "
        "generate_series(lower(gpus), upper(gpus) - 1) g WHERE lower(gpus) >= 1000");
    for (int i = 0; i < PATHS; i++) {
        DO("SELECT api.path_create('p%d', 'carrier', 'fukuoka', 'tokyo', %d, "
           "1250000000, "
           "10000, true, 7000001, 60000000, 'a', NULL, NULL)",
           i, LANES);
        path_id[i] =
            (int)market_sql(&m, "SELECT id FROM ng.path WHERE name = 'p%d'", i);
    }
    DO("SELECT api.topup('lab', 30000000000, 'JPY', NULL, 'a', NULL, NULL)");
}

/* ---- a place, taken without looking ---- */

struct place {
    char *bookings, *paths; /* as api.resv_move takes them */
    int64_t from_us, to_us, total;
};

static int64_t money(int64_t units, int64_t us, int64_t price)
{
    return (int64_t)(((__int128)units * us * price + HOUR_US / 2) / HOUR_US);
}

static void add_lanes(struct place *p, struct strbuf *l, int path)
{
    int count = 1 + pick(2);
    int64_t price = 7000001;
    strbuf_addf(l,
                "%s{\"path_id\":%d,\"first\":%d,\"count\":%d,\"from_us\":%" PRId64
                ",\"to_us\":%" PRId64 ",\"price_micro\":%" PRId64 "}",
                path > 0 ? "," : "", path_id[path], pick(LANES - count + 1), count,
                p->from_us - MIN_US, p->to_us, price);
    p->total += money(count, p->to_us - p->from_us, price);
}

static void place_some(struct place *p, bool spot)
{
    struct strbuf b = {0}, l = {0};
    int nodes = pick(3) > 0 ? 1 : 2 + pick(2), count = 1 + pick(GPUS), at = pick(NODES);
    int paths = pick(3) > 0 ? 0 : 1 + pick(PATHS);
    int64_t price = spot ? 30000000 : 100000000 + pick(1000);
    *p = (struct place){.from_us = now_us + (pick(3) == 0 ? 0 : upto(4 * HOUR_US))};
    p->to_us = p->from_us + 10 * MIN_US + upto(3 * HOUR_US);
    for (int i = 0; i < nodes; i++) {
        int n = (at + i) % NODES;
        strbuf_addf(&b,
                    "%s{\"node_id\":%d,\"site_id\":%d,\"first\":%d,\"count\":%d,"
                    "\"from_us\":%" PRId64 ",\"to_us\":%" PRId64
                    ",\"per_gpu_hour_micro\":%" PRId64 "}",
                    i > 0 ? "," : "", node_id[n], site_id[n], pick(GPUS - count + 1),
                    count, p->from_us, p->to_us, price + i);
        p->total += money(count, p->to_us - p->from_us, price + i);
    }
    for (int i = 0; i < paths; i++)
        add_lanes(p, &l, i);
    p->bookings = xasprintf("[%s]", strbuf_str(&b));
    p->paths = xasprintf("[%s]", strbuf_str(&l));
    strbuf_done(&b);
    strbuf_done(&l);
}

static void place_done(struct place *p)
{
    free(p->bookings);
    free(p->paths);
}

/* ---- steps ---- */

static void book(const char *waiting, bool spot, bool preempts)
{
    struct place p;
    place_some(&p, spot);
    if (preempts && p.from_us < now_us + 4 * MIN_US) {
        place_done(&p);
        return;
    }
    int64_t hold_us = waiting == NULL && !preempts && pick(6) == 0 && p.from_us > now_us
                          ? now_us + 1 + upto(p.from_us - now_us)
                          : 0;
    char *id = waiting != NULL ? xstrdup(waiting)
                               : xasprintf("00000000-0000-7000-8000-%012d", ++made);
    char *wait = xasprintf("{\"wait\":%s}", pick(2) == 0 ? "true" : "false");
    char *victims =
        preempts ? ask("SELECT t.victims('%s')", p.bookings) : xstrdup("[]");
    char *got = ask("SELECT t.book('%s', '%s', %" PRId64 ", %" PRId64 ", %" PRId64
                    ", '%s', %" PRId64 ", %s, %" PRId64 ", %s, '%s', '%s', '%s')",
                    id, m.tenant, now_us, p.from_us, p.to_us, wait, p.total,
                    spot ? "true" : "false", hold_us,
                    waiting != NULL ? "true" : "false", victims, p.bookings, p.paths);
    if (strcmp(got, "ok") != 0) {
        tally->granted--;
        tally->refused++;
    }
    free(got);
    free(victims);
    free(wait);
    free(id);
    place_done(&p);
}

static void step_book(void)
{
    book(NULL, false, false);
}
static void step_spot(void)
{
    book(NULL, true, false);
}
static void step_preempt(void)
{
    book(NULL, false, true);
}

static void step_wait(void)
{
    DO("SELECT api.wait_put('00000000-0000-7000-8000-%012d', '%s', '{\"wait\":true}', "
       "%" PRId64 ", %s, %" PRId64 ", NULL, sha256('x'))",
       ++made, m.tenant, now_us + MIN_US + upto(12 * HOUR_US),
       pick(2) == 0 ? "true" : "false", now_us);
}

static void step_wait_book(void)
{
    char *id = some("'waiting'");
    if (*id != '\0') {
        bool spot =
            market_sql(&m, "SELECT spot::int FROM ng.reservation WHERE id = '%s'", id);
        book(id, spot, false);
    }
    free(id);
}

static void step_wait_plan(void)
{
    char *id = some("'waiting'");
    DO("SELECT api.wait_plan('[{\"id\":\"%s\",\"position\":%d,\"predicted_us\":%" PRId64
       ",\"why\":\"\"}]')",
       id, 1 + pick(9), now_us + upto(HOUR_US));
    free(id);
}

/* Runs one change of a reservation, half the time dry before. */
#define CHANGE(fmt, ...)                                                         \
    do {                                                                         \
        if (pick(2) == 0) {                                                      \
            char *before = testdb_one(m.admin, "SELECT t.all()");                \
            free(ask(fmt, __VA_ARGS__, "true", now_us));                         \
            char *after = testdb_one(m.admin, "SELECT t.all()");                 \
            ck_assert_msg(strcmp(before, after) == 0, "a dry run left a trace"); \
            free(before);                                                        \
            free(after);                                                         \
        }                                                                        \
        free(ask(fmt, __VA_ARGS__, "false", now_us));                            \
    } while (0)

/* What has not started is told to a node early: it is not opened without the tenant. */
static void untell(const char *id)
{
    DO("DELETE FROM t.told o USING ng.reservation r WHERE o.id = '%s' AND r.id = o.id "
       "AND "
       "lower(o.during) >= %" PRId64,
       id, now_us);
}

static void step_extend(void)
{
    char *id = some("'confirmed', 'active', 'held'");
    if (*id != '\0') {
        int64_t end_us =
            market_sql(
                &m, "SELECT ng.us(upper(during)) FROM ng.reservation WHERE id = '%s'",
                id) +
            upto(2 * HOUR_US) - HOUR_US;
        CHANGE("SELECT api.resv_extend(NULL, '%s', %" PRId64 ", 0, %s, %" PRId64 ")",
               id, end_us);
    }
    free(id);
}

static void step_shrink(void)
{
    char *id = some("'confirmed'");
    if (*id != '\0') {
        CHANGE("SELECT api.resv_shrink(NULL, '%s', %d, 0, %s, %" PRId64 ")", id,
               1 + pick(GPUS));
        untell(id);
    }
    free(id);
}

static void move(bool keep)
{
    char *id = some("'confirmed'");
    struct place p;
    if (*id != '\0') {
        place_some(
            &p,
            market_sql(&m, "SELECT spot::int FROM ng.reservation WHERE id = '%s'", id));
        CHANGE("SELECT api.resv_move(NULL, '%s', 0, '%s', '%s', %" PRId64 ", %" PRId64
               ", NULL, NULL, NULL, %s, %s, %" PRId64 ")",
               id, p.bookings, p.paths, p.from_us, p.to_us, keep ? "true" : "false");
        if (state[0] == '\0')
            DO("DELETE FROM t.told WHERE id = '%s'", id);
        place_done(&p);
    }
    free(id);
}

static void step_move(void)
{
    move(false);
}
static void step_replace(void)
{
    move(true);
}

static void step_cancel(void)
{
    char *id = some("'confirmed', 'active', 'held', 'waiting'");
    if (*id != '\0') {
        CHANGE("SELECT api.resv_cancel(NULL, '%s', 'r', %s, %" PRId64 ")", id);
        untell(id);
    }
    free(id);
}

static void step_fail(void)
{
    char *id = some("'confirmed', 'active', 'held', 'waiting'");
    if (*id != '\0') {
        DO("SELECT api.resv_fail('%s', 'f', 0, %" PRId64 ")", id, now_us);
        untell(id);
    }
    free(id);
}

static void step_confirm(void)
{
    char *id = some("'held'");
    if (*id != '\0')
        DO("SELECT api.resv_confirm('%s', '%s', NULL, NULL, %" PRId64 ")", m.tenant, id,
           now_us);
    free(id);
}

static void step_time(void)
{
    now_us += pick(4) > 0 ? upto(2 * MIN_US) : upto(HOUR_US / 2);
    DO("SELECT api.transitions(%" PRId64 ", 120000000)", now_us);
    /* What a node knows of and is over is nobody's any more. */
    DO("DELETE FROM t.told WHERE upper(during) <= %" PRId64, now_us);
}

static void step_hear(void)
{
    DO("SELECT t.hear(%d, %" PRId64 ")", node_id[pick(NODES)], now_us);
}

/* The next receipt of some lease, or the one after it, or the last again. */
static void step_receipt(void)
{
    static const char *const kinds[] = {"ready", "interval", "interval", "teardown"};
    char *at = testdb_one(
        m.admin, "SELECT b.reservation_id || ' ' || b.node_id FROM ng.booking b JOIN "
                 "ng.reservation r ON r.id = b.reservation_id AND r.state IN "
                 "('confirmed', 'active', 'ended', 'failed') AND NOT isempty(b.during) "
                 "ORDER BY random() LIMIT 1");
    char id[40] = "";
    int node = 0;
    if (sscanf(at, "%39s %d", id, &node) == 2) {
        int skip = pick(8) == 0 ? 1 : 0;
        const char *kind = kinds[pick(4)];
        DO("SELECT api.receipts(%d, "
           "jsonb_build_array(jsonb_build_object('reservation', "
           "'%s', 'seq', n + 1 + %d, 'hash', encode(sha256((n + %d)::text::bytea), "
           "'hex'), 'prev', coalesce(h, ''), 'kind', '%s', 'from_us', %" PRId64
           ", 'to_us', %" PRId64
           ", 'gpu_ms', greatest(g, least(g + %d, w)), 'gaps', '[]'::jsonb, 'jws', "
           "'j')), %" PRId64 ") FROM (SELECT coalesce(max(seq), 0) AS n, "
           "coalesce(max(gpu_ms), 0) AS g, (SELECT encode(hash, 'hex') FROM ng.receipt "
           "x WHERE x.reservation_id = '%s' AND x.node_id = %d ORDER BY seq DESC LIMIT "
           "1) AS h, (SELECT sum(upper(b.gpus) - lower(b.gpus)) * greatest(0, (%" PRId64
           " - ng.us(lower(v.during))) / 1000) FROM ng.booking b JOIN ng.reservation v "
           "ON v.id = b.reservation_id WHERE v.id = '%s' AND b.node_id = %d GROUP BY "
           "v.during) AS w FROM ng.receipt WHERE reservation_id = '%s' AND node_id = "
           "%d) y",
           node, id, skip, skip, kind, now_us - MIN_US, now_us, pick(4000000), now_us,
           id, node, now_us, id, node, id, node);
        if (strcmp(kind, "teardown") == 0) /* it runs there no more */
            DO("DELETE FROM t.told WHERE id = '%s' AND node = %d AND EXISTS (SELECT "
               "FROM "
               "ng.receipt WHERE reservation_id = '%s' AND node_id = %d AND kind = "
               "'teardown')",
               id, node, id, node);
    }
    free(at);
}

/* The operator's equipment. */
static void step_paths(void)
{
    DO("SELECT t.paths(%d, %" PRId64 ")", pick(6), now_us);
}

static void step_bill(void)
{
    DO("SELECT t.bill(%d)", 1 + pick(20));
    DO("SELECT t.bill_paths(%d)", 1 + pick(20));
    DO("SELECT api.billing_release(interval '%s', 100)",
       pick(4) == 0 ? "-10 years" : "1 day");
}

/* Windows of other lengths later: what is held stays as it was agreed. */
static void step_hold(void)
{
    if (pick(8) == 0)
        DO("UPDATE ng.market SET hold_window_us = nullif(%d, 1) * 60000000::bigint",
           1 + pick(90));
    DO("SELECT api.billing_hold(ng.ts(%" PRId64 "), %d)", now_us, 1 + pick(20));
}

static const struct step {
    const char *name;
    void (*run)(void);
    int weight;
} steps[] = {{"book", step_book, 8},
             {"spot", step_spot, 8},
             {"preempt", step_preempt, 8},
             {"wait", step_wait, 3},
             {"wait_book", step_wait_book, 5},
             {"wait_plan", step_wait_plan, 1},
             {"extend", step_extend, 6},
             {"shrink", step_shrink, 2},
             {"move", step_move, 4},
             {"replace", step_replace, 3},
             {"cancel", step_cancel, 2},
             {"fail", step_fail, 1},
             {"confirm", step_confirm, 3},
             {"time", step_time, 8},
             {"hear", step_hear, 8},
             {"receipt", step_receipt, 8},
             {"paths", step_paths, 5},
             {"bill", step_bill, 3},
             {"hold", step_hold, 4}};
#define STEPS (sizeof steps / sizeof steps[0])

static void check(long step, const char *name)
{
    char *sql =
        xasprintf("SELECT string_agg(what, '; ') FROM t.wrong(%" PRId64 ")", now_us);
    char *got = testdb_one(m.admin, sql);
    ck_assert_msg(*got == '\0', "step %ld, %s: %s", step, name, got);
    free(got);
    free(sql);
}

static void step(long number_)
{
    int sum = 0, at;
    size_t i = 0;
    for (size_t k = 0; k < STEPS; k++)
        sum += steps[k].weight;
    for (at = pick(sum); at >= steps[i].weight; i++)
        at -= steps[i].weight;
    tally = &tallies[i];
    tally->name = steps[i].name;
    steps[i].run();
    check(number_, steps[i].name);
}

/* Everything ends; the money is somebody's. */
static void drain(void)
{
    tally = &tallies[STEPS];
    now_us += 400 * 24 * HOUR_US;
    for (int i = 0; i < 3; i++)
        DO("SELECT api.transitions(%" PRId64 ", 120000000)", now_us);
    for (int i = 0; i < 200; i++) {
        now_us += MIN_US;
        DO("SELECT t.paths(0, %" PRId64 ")", now_us);
    }
    while (number("SELECT t.bill(100)") > 0 || number("SELECT t.bill_paths(100)") > 0) {
    }
    while (number("SELECT api.billing_release(interval '-10 years', 100)") > 0) {
    }
    check(-1, "drain");
    ck_assert_int_eq(number("SELECT count(*) FROM ng.reservation WHERE held_micro <> "
                            "captured_micro + released_micro OR state NOT IN ('ended', "
                            "'cancelled', 'failed')"),
                     0);
    ck_assert_int_eq(
        number("SELECT sum(balance_micro) FROM ng.account WHERE kind = 'hold'"), 0);
    ck_assert_int_eq(number("SELECT count(*) FROM ng.receipt_due"), 0);
    ck_assert_int_eq(
        number(
            "SELECT count(*) FROM ng.path_booking WHERE state IN ('lit', 'planned')"),
        0);
    ck_assert_int_eq(number("SELECT count(*) FROM t.on"), 0);
    ck_assert_int_eq(number("SELECT count(*) FROM ng.waiting"), 0);
    ck_assert_int_eq(
        number("SELECT sum(CASE WHEN a.id = t.cr THEN 1 ELSE -1 END * "
               "amount_micro) FROM ng.transfer t JOIN ng.account a ON a.id "
               "IN (t.dr, t.cr)"),
        0);
}

static long count = 800;

START_TEST(histories)
{
    market_open(&m, 0, 0);
    now_us = m.now_us;
    set_up();
    for (long i = 0; i < count; i++)
        step(i);
    drain();
    for (size_t i = 0; i < STEPS; i++)
        printf("%s %ld/%ld ", steps[i].name, tallies[i].granted, tallies[i].refused);
    printf("(granted/refused)\n");
    market_close(&m);
}
END_TEST

int main(int argc, char **argv)
{
    setenv("CK_FORK", "no", 1);
    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL);
    if (argc > 2)
        count = strtol(argv[2], NULL, 10);
    printf("seed %u, %ld steps\n", seed, count);
    fflush(stdout);
    Suite *suite = suite_create("model_market");
    TCase *tc = tcase_create("model_market");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, histories);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

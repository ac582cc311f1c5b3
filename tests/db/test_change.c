/* Changes of a reservation on a real database: end, GPUs, place, failing and pruning;
 * each tried without doing it (dry run), repeated, refused. And the upgrade of a
 * database of the first version that is full of reservations. */
#include <stdio.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/xalloc.h"
#include "server/db/migrate.h"
#include "server/db/sqlfiles.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

#define DAY_US  (24 * HOUR_US)
#define PER_GPU INT64_C(100000000)

static struct market m;
static int64_t slot_us = 3 * DAY_US; /* each test has hours of its own */

static int64_t hours(int n)
{
    int64_t at = slot_us;
    slot_us += n * HOUR_US;
    return at;
}

static json_t *get(const char *id)
{
    return market_ok(&m, STORE_RESV_GET, STORE_ARGS(S_NULL, S_TEXT(id)));
}

static int64_t held(void)
{
    return market_int(
        market_ok(&m, STORE_WALLET, STORE_ARGS(S_TEXT(m.tenant), S_INT(1))),
        "held_micro");
}

/* Two nodes, 4 GPUs each, an hour. */
static int64_t gang(int64_t at, char id[UUID_TEXT])
{
    struct market_booking b;
    struct market_booked r;
    market_booking(&m, &b, 0, 0, 4, at, HOUR_US);
    market_booking_add(&m, &b, 1, 2, 4);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    memcpy(id, r.id, UUID_TEXT);
    return b.book.start_us;
}

static const json_t *change(const json_t *r, int64_t delta, int64_t total, bool dry)
{
    const json_t *c = json_object_get(r, "change");
    ck_assert_int_eq(market_int(c, "delta_micro"), delta);
    ck_assert_int_eq(market_int(c, "new_total_micro"), total);
    ck_assert_int_eq(json_is_true(json_object_get(c, "dry_run")), dry);
    return c;
}

/* A reservation without what may differ between two equal ones. */
static json_t *snapshot(const char *id)
{
    return json_deep_copy(get(id));
}

static void unchanged(json_t *was_take)
{
    json_t *is = get(market_text(was_take, "id"));
    ck_assert(json_equal(was_take, is));
    json_decref(was_take);
}

/* ---- end ---- */

#define EXTEND(id, end, gen, dry, now)                                      \
    STORE_RESV_EXTEND, STORE_ARGS(S_TEXT(m.tenant), S_TEXT(id), S_INT(end), \
                                  S_INT(gen), S_BOOL(dry), S_INT(now))

START_TEST(test_extend_dry)
{
    char id[UUID_TEXT];
    int64_t start = gang(hours(4), id), before = held();
    json_t *was = snapshot(id);
    json_t *r = market_ok(&m, EXTEND(id, start + 2 * HOUR_US, 1, true, m.now_us));
    change(r, 8 * PER_GPU, 16 * PER_GPU, true);
    ck_assert_int_eq(market_int(r, "end_us"), start + 2 * HOUR_US);
    unchanged(was);
    ck_assert_int_eq(held(), before);
    r = market_ok(&m, EXTEND(id, start + 2 * HOUR_US, 1, false, m.now_us));
    change(r, 8 * PER_GPU, 16 * PER_GPU, false);
    ck_assert_int_eq(held() - before, 8 * PER_GPU);
    change(market_ok(&m, EXTEND(id, start + 2 * HOUR_US, 1, false, m.now_us)), 0,
           16 * PER_GPU, false);
    change(market_ok(&m, EXTEND(id, start + HOUR_US, 2, true, m.now_us)), -8 * PER_GPU,
           8 * PER_GPU, true);
    change(market_ok(&m, EXTEND(id, start + HOUR_US, 2, false, m.now_us)), -8 * PER_GPU,
           8 * PER_GPU, false);
    ck_assert_int_eq(held(), before);
    market_check(&m);
}
END_TEST

START_TEST(test_extend_bounds)
{
    /* As for a new request; SQL has client/lib/bounds.h's limits. */
    char id[UUID_TEXT];
    ck_assert_int_eq(market_sql(&m, "SELECT ng.lease_max_us()"), LEASE_MAX_US);
    ck_assert_int_eq(market_sql(&m, "SELECT ng.horizon_us()"), HORIZON_US);
    int64_t start = gang(300 * DAY_US, id);
    market_ok(&m, EXTEND(id, start + LEASE_MAX_US, 0, true, m.now_us));
    market_refused(&m, ERR_BAD_REQUEST,
                   EXTEND(id, start + LEASE_MAX_US + 1, 0, true, m.now_us));
    market_refused(
        &m, ERR_BAD_REQUEST,
        EXTEND(id, start + LEASE_MAX_US, 0, true, start - HORIZON_US - DAY_US));
}
END_TEST

/* ---- GPUs ---- */

#define SHRINK(id, gpus, gen, dry, now)                                      \
    STORE_RESV_SHRINK, STORE_ARGS(S_TEXT(m.tenant), S_TEXT(id), S_INT(gpus), \
                                  S_INT(gen), S_BOOL(dry), S_INT(now))

START_TEST(test_shrink)
{
    char id[UUID_TEXT];
    int64_t start = gang(hours(2), id), before = held();
    json_t *was = snapshot(id);
    change(market_ok(&m, SHRINK(id, 1, 1, true, m.now_us)), -6 * PER_GPU, 2 * PER_GPU,
           true);
    unchanged(was);
    market_refused(&m, ERR_CONFLICT, SHRINK(id, 1, 7, false, m.now_us));
    market_refused(&m, ERR_CONFLICT, SHRINK(id, 5, 1, false, m.now_us));
    market_refused(&m, ERR_CONFLICT, SHRINK(id, 0, 1, false, m.now_us));
    market_refused(&m, ERR_CONFLICT, SHRINK(id, 1, 1, false, start));
    json_t *r = market_ok(&m, SHRINK(id, 1, 1, false, m.now_us));
    change(r, -6 * PER_GPU, 2 * PER_GPU, false);
    ck_assert_int_eq(market_int(r, "per_hour_micro"), 2 * PER_GPU);
    json_t *a = json_array_get(json_object_get(r, "allocations"), 1);
    ck_assert_int_eq(market_int(a, "first"), 2);
    ck_assert_int_eq(market_int(a, "count"), 1);
    ck_assert_int_eq(market_int(json_object_get(r, "request"), "gpus"), 1);
    ck_assert_int_eq(before - held(), 6 * PER_GPU);
    change(market_ok(&m, SHRINK(id, 1, 1, false, m.now_us)), 0, 2 * PER_GPU, false);
    struct market_booking b; /* the others are free */
    struct market_booked other;
    market_booking(&m, &b, 0, 1, 7, start - m.now_us, HOUR_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &other);
    market_check(&m);
}
END_TEST

/* ---- place ---- */

struct target {
    json_t *bookings, *paths, *prices, *data, *extra;
    int64_t start_us, end_us;
};

static void target_add(struct target *t, int n, int first, int count, int64_t micro)
{
    json_array_append_new(t->bookings,
                          json_pack("{s:i,s:i,s:i,s:i,s:I,s:I,s:I}", "node_id",
                                    m.node[n], "site_id", m.site, "first", first,
                                    "count", count, "from_us", (json_int_t)t->start_us,
                                    "to_us", (json_int_t)t->end_us,
                                    "per_gpu_hour_micro", (json_int_t)micro));
}

static void target_new(struct target *t, int64_t start_us, int64_t len_us)
{
    *t = (struct target){json_array(),
                         json_array(),
                         json_object(),
                         json_array(),
                         json_pack("{s:{s:i}}", "request", "gpus", 4),
                         start_us,
                         start_us + len_us};
}

static void target_free(struct target *t)
{
    json_decref(t->bookings);
    json_decref(t->paths);
    json_decref(t->prices);
    json_decref(t->data);
    json_decref(t->extra);
}

#define MOVE(id, gen, t, keep, dry, now)                                         \
    STORE_RESV_MOVE,                                                             \
        STORE_ARGS(S_NULL, S_TEXT(id), S_INT(gen), S_JSON((t)->bookings),        \
                   S_JSON((t)->paths), S_INT((t)->start_us), S_INT((t)->end_us), \
                   S_JSON((t)->prices), S_JSON((t)->data), S_JSON((t)->extra),   \
                   S_BOOL(keep), S_BOOL(dry), S_INT(now))

START_TEST(test_move)
{
    char id[UUID_TEXT];
    int64_t start = gang(hours(4), id), before = held();
    json_t *was = snapshot(id);
    struct target t;
    target_new(&t, start + HOUR_US / 2, HOUR_US); /* over its own old place */
    target_add(&t, 1, 0, 4, 2 * PER_GPU);
    target_add(&t, 2, 0, 4, 2 * PER_GPU);
    change(market_ok(&m, MOVE(id, 1, &t, false, true, m.now_us)), 8 * PER_GPU,
           16 * PER_GPU, true);
    unchanged(was);
    market_refused(&m, ERR_CONFLICT, MOVE(id, 5, &t, false, false, m.now_us));
    market_refused(&m, ERR_CONFLICT, MOVE(id, 1, &t, false, false, start));
    json_t *r = market_ok(&m, MOVE(id, 1, &t, false, false, m.now_us));
    change(r, 8 * PER_GPU, 16 * PER_GPU, false);
    ck_assert_int_eq(market_int(r, "start_us"), start + HOUR_US / 2);
    json_t *a = json_object_get(r, "allocations");
    ck_assert_uint_eq(json_array_size(a), 2);
    ck_assert_int_eq(market_int(json_array_get(a, 0), "node_id"), m.node[1]);
    ck_assert_int_eq(market_int(json_array_get(a, 0), "rank"), 0);
    ck_assert_int_eq(market_int(json_array_get(a, 0), "epoch"), t.start_us);
    ck_assert_int_eq(market_int(json_object_get(r, "request"), "gpus"), 4);
    ck_assert_int_eq(held() - before, 8 * PER_GPU);
    /* As after a lost answer. */
    change(market_ok(&m, MOVE(id, 1, &t, false, false, m.now_us)), 0, 16 * PER_GPU,
           false);
    /* The feed tells the two left and the two taken. */
    ck_assert_int_eq(market_sql(&m,
                                "SELECT count(*) FROM ng.event, "
                                "jsonb_array_elements(payload->'bookings') WHERE kind "
                                "= 'reservation.moved' AND reservation_id = '%s'",
                                id),
                     4);
    struct market_booking b; /* the old place is free */
    struct market_booked other;
    market_booking(&m, &b, 0, 0, 4, start - m.now_us, HOUR_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &other);
    target_free(&t);
    market_check(&m);
}
END_TEST

START_TEST(test_move_whole_or_not)
{
    char id[UUID_TEXT];
    int64_t start = gang(hours(4), id), before = held();
    struct market_booking b;
    struct market_booked other;
    market_booking(&m, &b, 3, 5, 1, start - m.now_us, HOUR_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &other);
    before = held();
    json_t *was = snapshot(id);
    struct target t;
    target_new(&t, start, HOUR_US);
    target_add(&t, 2, 0, 4, PER_GPU);
    target_add(&t, 3, 4, 4, PER_GPU); /* one of them is taken */
    market_refused(&m, ERR_CONFLICT, MOVE(id, 0, &t, false, false, m.now_us));
    target_free(&t);
    target_new(&t, start, HOUR_US);
    target_add(&t, 2, 0, 4, PER_GPU);
    target_add(&t, 3, 6, 4, PER_GPU); /* beyond the node */
    market_refused(&m, ERR_CONFLICT, MOVE(id, 0, &t, false, false, m.now_us));
    target_free(&t);
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = balance_micro - 1 WHERE "
                        "kind = 'wallet'");
    target_new(&t, start, HOUR_US);
    target_add(&t, 2, 0, 8, PER_GPU);
    target_add(&t, 0, 0, 8, PER_GPU);
    market_refused(&m, ERR_FUNDS, MOVE(id, 0, &t, false, false, m.now_us));
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = -1000000000000000 WHERE "
                        "kind = 'wallet'");
    target_free(&t);
    unchanged(was);
    ck_assert_int_eq(held(), before);
    market_check(&m);
}
END_TEST

/* Who decided on what it was, before another server placed it anew, gives up nothing.
 */
static void not_given_up(const char *id)
{
    market_refused(&m, ERR_CONFLICT, STORE_RESV_FAIL,
                   STORE_ARGS(S_TEXT(id), S_TEXT("lost"), S_INT(1), S_INT(m.now_us)));
    ck_assert_str_eq(market_text(get(id), "state"), "confirmed");
}

START_TEST(test_lost_node)
{
    char id[UUID_TEXT], whole[UUID_TEXT];
    struct market_booking b;
    struct market_booked r;
    int64_t at = hours(4), start = gang(at, id), before;
    market_booking(&m, &b, 1, 6, 1, at, HOUR_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    memcpy(whole, r.id, UUID_TEXT);
    json_t *j = market_ok(&m, STORE_RESV_LOST, STORE_ARGS(S_INT(start - 1)));
    ck_assert_uint_eq(json_array_size(json_object_get(j, "reservations")), 0);
    char sql[100];
    snprintf(sql, sizeof sql, "UPDATE ng.node SET state = 'lost' WHERE id = %d",
             m.node[1]);
    testdb_sql(m.admin, sql);
    j = market_ok(&m, STORE_RESV_LOST, STORE_ARGS(S_INT(start - 1)));
    j = json_object_get(j, "reservations");
    ck_assert_uint_ge(json_array_size(j), 2);
    bool found = false;
    for (size_t i = 0; i < json_array_size(j); i++) {
        json_t *x = json_array_get(j, i);
        found = found || strcmp(market_text(x, "id"), id) == 0;
        ck_assert_int_eq(
            json_integer_value(json_array_get(json_object_get(x, "lost"), 0)),
            m.node[1]);
    }
    ck_assert(found);
    j = market_ok(&m, STORE_SITE_RESV, STORE_ARGS(S_TEXT("fukuoka"), S_INT(start)));
    ck_assert_uint_ge(json_array_size(json_object_get(j, "reservations")), 2);
    market_refused(&m, ERR_NOT_FOUND, STORE_SITE_RESV,
                   STORE_ARGS(S_TEXT("atlantis"), S_INT(start)));

    /* Elsewhere and cheaper: the tenant pays what it paid, the provider gets that. */
    before = held();
    struct target t;
    target_new(&t, start, HOUR_US);
    target_add(&t, 0, 0, 4, PER_GPU);
    target_add(&t, 2, 0, 4, PER_GPU / 2);
    j = market_ok(&m, MOVE(id, 0, &t, true, false, m.now_us));
    change(j, 0, 8 * PER_GPU, false);
    ck_assert_int_eq(market_int(json_array_get(json_object_get(j, "allocations"), 1),
                                "per_gpu_hour_micro"),
                     PER_GPU);
    ck_assert_int_eq(held(), before);
    ck_assert_int_eq(market_sql(&m,
                                "SELECT count(*) FROM ng.event WHERE reservation_id = "
                                "'%s' AND kind = 'reservation.replaced'",
                                id),
                     1);
    target_free(&t);
    /* Back to the lost one is no way out. */
    target_new(&t, start, HOUR_US);
    target_add(&t, 1, 0, 4, PER_GPU);
    market_refused(&m, ERR_CONFLICT, MOVE(id, 0, &t, true, false, m.now_us));
    target_free(&t);

    not_given_up(id);
    /* The other cannot be helped: everything comes back. */
    j = market_ok(&m, STORE_RESV_FAIL,
                  STORE_ARGS(S_TEXT(whole), S_TEXT("node n2 at fukuoka lost"), S_INT(0),
                             S_INT(m.now_us)));
    ck_assert_str_eq(market_text(j, "state"), "failed");
    ck_assert_str_eq(market_text(j, "fault"), "node n2 at fukuoka lost");
    ck_assert_int_eq(before - held(), PER_GPU);
    market_ok(&m, STORE_RESV_FAIL,
              STORE_ARGS(S_TEXT(whole), S_TEXT("again"), S_INT(1), S_INT(m.now_us)));
    ck_assert_str_eq(market_text(get(whole), "fault"), "node n2 at fukuoka lost");
    snprintf(sql, sizeof sql, "UPDATE ng.node SET state = 'up' WHERE id = %d",
             m.node[1]);
    testdb_sql(m.admin, sql);
    market_check(&m);
}
END_TEST

START_TEST(test_cancel_dry)
{
    char id[UUID_TEXT];
    int64_t start = gang(hours(2), id);
    json_t *was = snapshot(id);
#define CANCEL(dry, now)                                                       \
    STORE_RESV_CANCEL, STORE_ARGS(S_TEXT(m.tenant), S_TEXT(id), S_TEXT("bye"), \
                                  S_BOOL(dry), S_INT(now))
    change(market_ok(&m, CANCEL(true, m.now_us)), -8 * PER_GPU, 0, true);
    change(market_ok(&m, CANCEL(true, start + HOUR_US / 2)), -4 * PER_GPU, 4 * PER_GPU,
           true);
    unchanged(was);
    change(market_ok(&m, CANCEL(false, m.now_us)), -8 * PER_GPU, 0, false);
    change(market_ok(&m, CANCEL(false, m.now_us)), 0, 0, false);
    market_check(&m);
}
END_TEST

static void random_change(struct store *s, const char *on, int64_t start,
                          struct store_to to)
{
    struct target t;
    int64_t from = start + random() % 8 * HOUR_US;
    bool dry = random() % 4 == 0;
    target_new(&t, from, (1 + random() % 2) * HOUR_US);
    target_add(&t, (int)(random() % 4), (int)(random() % 2) * 4, 4, PER_GPU);
    target_add(&t, (int)(random() % 4), (int)(random() % 2) * 4, 4, PER_GPU);
    switch (random() % 8) {
    case 0: store_call(s, EXTEND(on, from + HOUR_US, 0, dry, m.now_us), to); break;
    case 1: store_call(s, SHRINK(on, 1 + random() % 4, 0, dry, m.now_us), to); break;
    default: store_call(s, MOVE(on, 0, &t, random() % 4 == 0, dry, m.now_us), to);
    }
    target_free(&t);
}

/* Random changes by two servers at once on a few reservations and nodes: no error but a
 * refusal, the books stay right. */
START_TEST(test_random_changes)
{
    enum { RESVS = 12, STEPS = 400 };
    static struct market_booked answer[STEPS];
    char id[RESVS][UUID_TEXT];
    struct market other = m;
    uint32_t seed;
    digest_random(&seed, sizeof seed);
    printf("seed %u\n", seed);
    srandom(seed);
    other.store =
        store_new(m.base, &(struct store_opts){.conninfo = testdb_conninfo(
                                                   m.db, "neargpu_server", "neargpu"),
                                               .readers = 4,
                                               .writers = 1,
                                               .origin = "test-2"});
    int64_t at = hours(20), start = m.now_us + at;
    for (int i = 0; i < RESVS; i++) {
        struct market_booking b;
        struct market_booked r;
        market_booking(&m, &b, i % 4, 0, 4, at + i / 4 * HOUR_US, HOUR_US);
        market_booking_add(&m, &b, (i + 1) % 4, 4, 4);
        market_book_ok(&m, &b, STORE_BOOK_OK, &r);
        memcpy(id[i], r.id, UUID_TEXT);
    }
    for (int i = 0; i < STEPS; i++) {
        random_change(random() % 2 != 0 ? m.store : other.store, id[random() % RESVS],
                      start, store_to(market_booked, &answer[i], 0));
    }
    int ok = 0, refused = 0;
    for (int i = 0; i < STEPS; i++) {
        market_wait(&m, &answer[i].done);
        ok += answer[i].status == STORE_OK;
        refused += answer[i].status == STORE_FAILED && answer[i].code == ERR_CONFLICT;
        ck_assert_msg(answer[i].status == STORE_OK || answer[i].code == ERR_CONFLICT,
                      "step %d: %s", i, err_code_name(answer[i].code));
    }
    printf("%d changes done, %d refused\n", ok, refused);
    ck_assert_int_gt(ok, 20);
    ck_assert_int_gt(refused, 20);
    for (int i = 0; i < RESVS; i++)
        ck_assert_int_eq(market_sql(&m,
                                    "SELECT count(*) FROM ng.booking WHERE "
                                    "reservation_id = '%s' AND NOT isempty(during)",
                                    id[i]),
                         2);
    /* What a reservation holds is the price of what it has. */
    ck_assert_int_eq(
        market_sql(&m, "SELECT count(*) FROM ng.reservation WHERE state = 'confirmed' "
                       "AND (total_micro <> ng.resv_price(id, upper(during)) OR "
                       "held_micro - released_micro <> total_micro)"),
        0);
    store_free(other.store);
    market_check(&m);
}
END_TEST

START_TEST(test_prune)
{
    testdb_sql(
        m.admin,
        "INSERT INTO ng.idempotency SELECT 'p', 'old' || i, decode(repeat('00', "
        "32), 'hex'), '{}', now() - interval '15 days' FROM generate_series(1, "
        "3) i; INSERT INTO ng.idempotency SELECT 'p', 'new', decode(repeat('00',"
        " 32), 'hex'), '{}', now() - interval '13 days';"
        "INSERT INTO ng.match_log (at, kind, outcome, match_us, gpus, duration_s) "
        "SELECT now() - i * interval '1 day', 'offers', 'ok', 1, 1, 1 FROM "
        "generate_series(90, 95) i; INSERT INTO ng.quote SELECT "
        "gen_random_uuid(), id, now(), now() - interval '31 days', '{}', '[1]', "
        "decode(repeat('00', 32), 'hex') FROM ng.tenant LIMIT 1;"
        "UPDATE ng.event SET at = at - interval '20 days' WHERE id <= 5");
    json_t *r = market_ok(&m, STORE_PRUNE, STORE_ARGS(S_INT(m.now_us)));
    ck_assert_int_eq(market_int(r, "idempotency"), 3);
    ck_assert_int_eq(market_int(r, "match_log"), 3); /* 93 to 95 */
    ck_assert_int_eq(market_int(r, "quotes"), 1);
    ck_assert_int_eq(market_int(r, "events"), 5);
    ck_assert_int_eq(market_int(r, "tokens"), 0);
    ck_assert(json_is_false(json_object_get(r, "more")));
    r = market_ok(&m, STORE_PRUNE, STORE_ARGS(S_INT(m.now_us)));
    ck_assert_int_eq(market_int(r, "events"), 0);
}
END_TEST

/* ---- upgrade ---- */

static int migrate(const struct sqlfile *files, struct migrate_result *done)
{
    struct err err;
    struct migrate_opts o = {
        .conninfo = testdb_conninfo(m.db, "postgres", "old"),
        .market_name = "old.local",
        .currency = "JPY",
        .issuer_name = "Old",
        .fee_ppm = 50000,
        .tax_ppm = 100000,
        .files = files,
    };
    int rc = migrate_run(&o, done, &err);
    if (rc != 0)
        fprintf(stderr, "%s\n", err.text);
    return rc;
}

/* Roles and the first migration, as the first version had them. */
static void first_version(struct sqlfile first[3])
{
    size_t n = 0;
    for (const struct sqlfile *f = sqlfiles; f->path != NULL; f++)
        if (strcmp(f->path, "sql/roles.sql") == 0 ||
            strcmp(f->path, "sql/migrations/0001_market.sql") == 0)
            first[n++] = *f;
    ck_assert_uint_eq(n, 2);
    first[n] = (struct sqlfile){NULL, NULL};
}

static const char full[] =
    "INSERT INTO ng.provider (name, fee_ppm) VALUES ('p1', 20000);"
    "INSERT INTO ng.tenant (name) VALUES ('t1');"
    "INSERT INTO ng.site (name, city, lat, lon, residency) VALUES ('s1', 'S', 1, 1, "
    "'jp');"
    "INSERT INTO ng.account (kind, tenant_id, currency, guarded, floor_micro) SELECT "
    "k, "
    "id, 'JPY', true, CASE k WHEN 'wallet' THEN -1000000000 ELSE 0 END FROM ng.tenant, "
    "unnest(ARRAY['wallet', 'hold']) k;"
    "INSERT INTO ng.node (site_id, provider_id, name, spiffe_id, receipt_key, gpus, "
    "state) SELECT 1, id, 'n1', 'x', decode(repeat('00', 32), 'hex'), '[1,9)', 'up' "
    "FROM "
    "ng.provider;"
    "INSERT INTO ng.gpu SELECT i, 1, i - 1, 'G' || i, 'H100', 1, '', i, 'idle' FROM "
    "generate_series(1, 8) i;"
    "INSERT INTO ng.reservation (id, tenant_id, state, created_at, during, request, "
    "currency, per_hour_micro, total_micro, effective_micro, fee_ppm, held_micro, "
    "idem_key, idem_hash) SELECT ('00000000-0000-7000-8000-' || lpad(i::text, 12, "
    "'0'))::uuid, t.id, 'confirmed', now(), tstzrange(now() + i * interval '1 h', "
    "now() "
    "+ (i + 1) * interval '1 h'), '{}', 'JPY', 1000, 1000, 1000, 20000, 1000, 'k' || "
    "i, "
    "decode(repeat('00', 32), 'hex') FROM generate_series(1, 500) i, ng.tenant t;"
    "INSERT INTO ng.booking (reservation_id, node_id, site_id, gpus, during, epoch, "
    "per_gpu_hour_micro) SELECT id, 1, 1, '[1,2)', during, (extract(epoch FROM "
    "lower(during)) * 1000000)::bigint, 1000 FROM ng.reservation;"
    "INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro, reservation_id, "
    "ref) "
    "SELECT 'hold', 1, 2, 'JPY', 1000, id, id || '/hold' FROM ng.reservation;"
    "UPDATE ng.account SET balance_micro = CASE kind WHEN 'wallet' THEN -500000 ELSE "
    "500000 END;"
    "INSERT INTO ng.invoice SELECT 'INV-2025-000001', id, 'JPY', "
    "'[2025-01-01,2025-02-01)', now(), 155000000, 100000, 16000000, 171000000, '{}' "
    "FROM ng.tenant;"
    "INSERT INTO ng.invoice_line VALUES ('INV-2025-000001', 1, 'x', NULL, 0, "
    "155000000);"
    "INSERT INTO ng.account (kind, currency, guarded) VALUES ('tax_output', 'JPY', "
    "false);"
    "INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro, ref) VALUES "
    "('tax', "
    "1, 3, 'JPY', 16000000, 'INV-2025-000001/wallet');"
    "UPDATE ng.account SET balance_micro = balance_micro - 16000000 WHERE kind = "
    "'wallet'";

START_TEST(test_upgrade)
{
    struct migrate_result done;
    struct sqlfile first[3];
    PGconn *pg = testdb_connect(m.db, "postgres", "postgres");
    testdb_sql(pg, "CREATE DATABASE old");
    PQfinish(pg);
    first_version(first);
    ck_assert_int_eq(migrate(first, &done), 0);
    ck_assert_int_eq(done.applied, 1);
    pg = testdb_connect(m.db, "postgres", "old");
    testdb_sql(pg, full);
    ck_assert_int_eq(migrate(NULL, &done), 0);
    ck_assert_int_ge(done.applied, 1); /* all that came since */
    ck_assert(done.functions);
    ck_assert_int_eq(migrate(NULL, &done), 0);
    ck_assert_int_eq(done.applied, 0);
    static const struct {
        const char *sql, *want;
    } ask[] = {
        {"SELECT count(*) FROM api.check_all() WHERE breaches > 0", "0"},
        {"SELECT count(*) FROM ng.reservation WHERE state = 'confirmed'", "500"},
        {"SELECT jsonb_array_length(api.resv_list(NULL, 'confirmed', NULL, "
         "500)->'reservations')",
         "500"},
        /* Its invoice has its one tax, and is in the log as it was. */
        {"SELECT concat_ws(' ', i->'taxes', i->'tax_ppm', b ? 'taxes', b->'tax_ppm', "
         "b#>'{lines,0}' ? 'tax_class') FROM api.invoice_get(NULL, 'INV-2025-000001') "
         "i, ng.log_body('invoice', 'INV-2025-000001') b",
         "[{\"class\": \"standard\", \"rate_ppm\": 100000, \"tax_micro\": 16000000, "
         "\"base_micro\": 155000000}] 100000 f 100000 f"},
        {"SELECT rate_ppm FROM ng.tax_rate WHERE class = 'standard'", "100000"},
        /* It lives on: rated with the fee it had, moved, cancelled. */
        {"SELECT fee_ppm FROM ng.use_terms('00000000-0000-7000-8000-000000000007', 1, "
         "now())",
         "20000"},
        {"SELECT api.resv_extend(NULL, '00000000-0000-7000-8000-000000000500', "
         "ng.us(now() + interval '502 h'), 0, true, ng.us(now()))#>>'{change,dry_run}'",
         "true"},
        {"SELECT api.resv_cancel(NULL, '00000000-0000-7000-8000-000000000007', 'x', "
         "false, ng.us(now()))->>'state'",
         "cancelled"},
        {"SELECT api.resv_move(NULL, '00000000-0000-7000-8000-000000000008', 1, "
         "jsonb_build_array(jsonb_build_object('node_id', 1, 'site_id', 1, 'first', 3, "
         "'count', 1, 'from_us', ng.us(now() + interval '8 h'), 'to_us', ng.us(now() + "
         "interval '9 h'), 'per_gpu_hour_micro', 900)), '[]', ng.us(now() + interval "
         "'8 h'), ng.us(now() + interval '9 h'), '{}', NULL, NULL, false, false, "
         "ng.us(now()))#>>'{change,delta_micro}'",
         "-100"},
        {"SELECT count(*) FROM api.check_all() WHERE breaches > 0", "0"},
    };
    for (size_t i = 0; i < sizeof ask / sizeof ask[0]; i++) {
        char *got = testdb_one(pg, ask[i].sql);
        ck_assert_msg(strcmp(got, ask[i].want) == 0, "%s: %s, not %s", ask[i].sql, got,
                      ask[i].want);
        free(got);
    }
    PQfinish(pg);
}
END_TEST

static void setup(void)
{
    market_open(&m, 4, INT64_C(1000000000000000));
}

static void teardown(void)
{
    market_close(&m);
}

int main(void)
{
    setenv("CK_FORK", "no", 1);
    Suite *suite = suite_create("change");
    TCase *tc = tcase_create("change");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_extend_dry);
    tcase_add_test(tc, test_extend_bounds);
    tcase_add_test(tc, test_shrink);
    tcase_add_test(tc, test_move);
    tcase_add_test(tc, test_move_whole_or_not);
    tcase_add_test(tc, test_lost_node);
    tcase_add_test(tc, test_cancel_dry);
    tcase_add_test(tc, test_random_changes);
    tcase_add_test(tc, test_prune);
    tcase_add_test(tc, test_upgrade);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

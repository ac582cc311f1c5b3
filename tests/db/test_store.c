/* Every operation of the store, on a real database: people and places, agents, the
 * feed, the load of the world, pages, repeated requests, reports, the match log. */
#include <stdio.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/xalloc.h"
#include "server/db/store_ops.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

static struct market m;
static uint8_t hash_a[32] = {0xaa}, hash_b[32] = {0xbb};

static void setup(void)
{
    market_open(&m, 2, INT64_C(1000000000000));
}

static void teardown(void)
{
    market_close(&m);
}

#define IDEM(key, hash) S_TEXT("admin:1"), S_TEXT(key), S_BYTES(hash, 32)
#define NO_IDEM         S_TEXT("admin:1"), S_NULL, S_NULL

START_TEST(test_market)
{
    json_t *r = market_ok(&m, STORE_MARKET, STORE_NO_ARGS);
    ck_assert_str_eq(market_text(r, "currency"), "JPY");
    ck_assert_int_eq(market_int(r, "fee_ppm"), 50000);
}
END_TEST

START_TEST(test_tenants)
{
    uint8_t key[32] = {21}, key2[32] = {22};
    json_t *r =
        market_ok(&m, STORE_TENANT_CREATE,
                  STORE_ARGS(S_TEXT("uni"), S_TEXT("Asia/Tokyo"), S_INT(5000000),
                             S_BYTES(key, 32), IDEM("k1", hash_a)));
    char *id = xstrdup(market_text(r, "id"));
    r = market_ok(&m, STORE_TENANT_CREATE,
                  STORE_ARGS(S_TEXT("uni"), S_TEXT("Asia/Tokyo"), S_INT(5000000),
                             S_BYTES(key2, 32), IDEM("k1", hash_a)));
    ck_assert_str_eq(market_text(r, "id"), id);
    ck_assert(json_is_true(json_object_get(r, "replayed")));
    market_refused(&m, ERR_KEY_REUSED, STORE_TENANT_CREATE,
                   STORE_ARGS(S_TEXT("uni2"), S_NULL, S_INT(0), S_BYTES(key2, 32),
                              IDEM("k1", hash_b)));
    market_refused(
        &m, ERR_CONFLICT, STORE_TENANT_CREATE,
        STORE_ARGS(S_TEXT("uni"), S_NULL, S_INT(0), S_BYTES(key2, 32), NO_IDEM));
    market_refused(
        &m, ERR_BAD_REQUEST, STORE_TENANT_CREATE,
        STORE_ARGS(S_TEXT("No Slug"), S_NULL, S_INT(0), S_BYTES(hash_b, 32), NO_IDEM));
    market_refused(&m, ERR_BAD_REQUEST, STORE_TENANT_CREATE,
                   STORE_ARGS(S_TEXT("zoned"), S_TEXT("Mars/Base"), S_INT(0),
                              S_BYTES(hash_b, 32), NO_IDEM));
    r = market_ok(&m, STORE_TOPUP,
                  STORE_ARGS(S_TEXT("uni"), S_INT(7000000), S_TEXT("JPY"),
                             S_TEXT("wire-1"), IDEM("k2", hash_a)));
    ck_assert_int_eq(market_int(r, "balance_micro"), 7000000);
    r = market_ok(&m, STORE_TOPUP,
                  STORE_ARGS(S_TEXT("uni"), S_INT(7000000), S_TEXT("JPY"),
                             S_TEXT("wire-1"), IDEM("k2", hash_a)));
    ck_assert_int_eq(market_int(r, "balance_micro"), 7000000);
    /* The same reference is one transfer, whatever the key. */
    market_refused(&m, ERR_CONFLICT, STORE_TOPUP,
                   STORE_ARGS(S_TEXT("uni"), S_INT(7000000), S_TEXT("JPY"),
                              S_TEXT("wire-1"), IDEM("k3", hash_a)));
    market_refused(
        &m, ERR_BAD_REQUEST, STORE_TOPUP,
        STORE_ARGS(S_TEXT("uni"), S_INT(1), S_TEXT("USD"), S_TEXT("w"), NO_IDEM));
    market_refused(
        &m, ERR_NOT_FOUND, STORE_TOPUP,
        STORE_ARGS(S_TEXT("nobody"), S_INT(1), S_TEXT("JPY"), S_TEXT("w"), NO_IDEM));
    r = market_ok(&m, STORE_WALLET, STORE_ARGS(S_TEXT(id), S_INT(10)));
    ck_assert_int_eq(market_int(r, "available_micro"), 12000000);
    ck_assert_uint_eq(json_array_size(json_object_get(r, "transfers")), 1);
    ck_assert_int_eq(
        market_int(json_array_get(json_object_get(r, "transfers"), 0), "amount_micro"),
        7000000);
    free(id);
}
END_TEST

START_TEST(test_pages)
{
    for (int i = 0; i < 5; i++) {
        char name[16];
        uint8_t key[32] = {(uint8_t)(60 + i)};
        snprintf(name, sizeof name, "page-%d", i % 10);
        market_ok(&m, STORE_PROVIDER_CREATE,
                  STORE_ARGS(S_TEXT(name), S_INT(1000 * i), S_BYTES(key, 32), NO_IDEM));
    }
    char cursor[64] = "";
    int seen = 0, calls = 0;
    do {
        json_t *r = market_ok(
            &m, STORE_PROVIDER_LIST,
            STORE_ARGS(cursor[0] != '\0' ? S_TEXT(cursor) : S_NULL, S_INT(2)));
        json_t *list = json_object_get(r, "providers");
        ck_assert_uint_le(json_array_size(list), 2);
        ck_assert_ptr_null(json_object_get(json_array_get(list, 0), "_key"));
        seen += (int)json_array_size(list);
        const char *next = json_string_value(json_object_get(r, "next"));
        snprintf(cursor, sizeof cursor, "%s", next != NULL ? next : "");
        ck_assert_int_lt(calls++, 10);
    } while (cursor[0] != '\0');
    ck_assert_int_eq(seen, 6);
    ck_assert_int_eq(calls, 3);
    json_t *r = market_ok(&m, STORE_TENANT_LIST, STORE_ARGS(S_NULL, S_INT(100)));
    ck_assert(json_is_null(json_object_get(r, "next")));
    /* An empty list is a list. */
    r = market_ok(&m, STORE_INVOICE_LIST,
                  STORE_ARGS(S_TEXT(m.tenant), S_NULL, S_INT(5)));
    ck_assert(json_is_array(json_object_get(r, "invoices")));
    market_refused(&m, ERR_NOT_FOUND, STORE_INVOICE_GET,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT("INV-1")));
    r = market_ok(&m, STORE_RESV_LIST,
                  STORE_ARGS(S_TEXT(m.tenant), S_NULL, S_NULL, S_INT(5)));
    ck_assert(json_is_array(json_object_get(r, "reservations")));
    r = market_ok(&m, STORE_USAGE,
                  STORE_ARGS(S_NULL, S_TEXT(m.provider), S_NULL, S_INT(1), S_INT(2),
                             S_NULL, S_INT(5)));
    ck_assert(json_is_array(json_object_get(r, "usage")));
}
END_TEST

START_TEST(test_sites_nodes_prices)
{
    json_t *r = market_ok(&m, STORE_SITE_LIST, STORE_NO_ARGS);
    json_t *s = json_array_get(json_object_get(r, "sites"), 0);
    ck_assert_int_eq(market_int(s, "nodes"), 2);
    ck_assert_int_eq(market_int(s, "gpus"), 16);
    market_refused(&m, ERR_CONFLICT, STORE_SITE_CREATE,
                   STORE_ARGS(S_TEXT("fukuoka"), S_TEXT("F"), S_REAL(1), S_REAL(1),
                              S_TEXT("jp"), S_NULL, NO_IDEM));
    market_refused(&m, ERR_BAD_REQUEST, STORE_SITE_CREATE,
                   STORE_ARGS(S_TEXT("north"), S_TEXT("F"), S_REAL(91), S_REAL(1),
                              S_TEXT("jp"), S_NULL, NO_IDEM));
    r = market_ok(&m, STORE_NODE_LIST,
                  STORE_ARGS(S_TEXT(m.provider), S_NULL, S_INT(10)));
    json_t *n = json_array_get(json_object_get(r, "nodes"), 0);
    ck_assert_str_eq(market_text(n, "name"), "n1");
    ck_assert_int_eq(market_int(n, "idle"), 8);
    ck_assert_str_eq(market_text(n, "state"), "up");
    ck_assert_int_eq(market_int(n, "price_micro"), 100000000);
    r = market_ok(&m, STORE_PRICE_SET,
                  STORE_ARGS(S_TEXT(m.provider), S_TEXT("fukuoka"), S_NULL,
                             S_TEXT("H100"), S_INT(90000000), S_TEXT("JPY"), S_NULL,
                             S_NULL));
    ck_assert_int_eq(market_int(r, "nodes"), 2);
    market_refused(&m, ERR_NOT_FOUND, STORE_PRICE_SET,
                   STORE_ARGS(S_TEXT(m.provider), S_NULL, S_NULL, S_TEXT("A100"),
                              S_INT(90000000), S_TEXT("JPY"), S_NULL, S_NULL));
    market_refused(&m, ERR_NOT_FOUND, STORE_PRICE_SET,
                   STORE_ARGS(S_TEXT(m.provider), S_NULL, S_NULL, S_TEXT("H10"),
                              S_INT(90000000), S_TEXT("JPY"), S_NULL, S_NULL));
    market_refused(&m, ERR_BAD_REQUEST, STORE_PRICE_SET,
                   STORE_ARGS(S_TEXT(m.provider), S_NULL, S_NULL, S_NULL, S_INT(-1),
                              S_TEXT("JPY"), S_NULL, S_NULL));
    r = market_ok(&m, STORE_PRICE_LIST, STORE_ARGS(S_TEXT(m.provider)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "prices")), 2);
    ck_assert_int_eq(market_int(json_array_get(json_object_get(r, "prices"), 0),
                                "per_gpu_hour_micro"),
                     90000000);
}
END_TEST

/* An inventory of `count` GPUs named from `from`, all in one state. */
static json_t *inventory(const char *name, int from, int count, const char *state)
{
    json_t *gpus = json_array();
    for (int g = 0; g < count; g++)
        json_array_append_new(
            gpus, json_pack("{s:i,s:o,s:s,s:i,s:i,s:s}", "index", g, "uuid",
                            json_sprintf("GPU-%s-%d", name, from + g), "model", "H100",
                            "memory_mib", 81559, "minor", g, "state", state));
    json_t *o = json_pack("{s:{s:s},s:o}", "agent", "address", "a:1", "gpus", gpus);
    ck_assert_ptr_nonnull(o);
    return o;
}

static void sync_priced(int64_t micro)
{
    json_t *o = inventory("0", 0, 8, "idle");
    json_object_set_new(
        o, "price",
        json_pack("{s:s,s:I}", "currency", "JPY", "micro", (json_int_t)micro));
    market_ok(&m, STORE_SYNC, STORE_ARGS(S_INT(m.node[0]), S_JSON(o), S_INT(m.now_us)));
    json_decref(o);
}

static int64_t price_of_first(void)
{
    json_t *r = market_ok(&m, STORE_NODE_LIST,
                          STORE_ARGS(S_TEXT(m.provider), S_NULL, S_INT(10)));
    return market_int(json_array_get(json_object_get(r, "nodes"), 0), "price_micro");
}

/* The agent repeats its configuration at every sync; only a change of it counts. */
START_TEST(test_price_set_by_command_stays)
{
    sync_priced(100000000);
    ck_assert_int_eq(price_of_first(), 100000000);
    market_ok(&m, STORE_PRICE_SET,
              STORE_ARGS(S_TEXT(m.provider), S_NULL, S_NULL, S_NULL, S_INT(90000000),
                         S_TEXT("JPY"), S_NULL, S_NULL));
    sync_priced(100000000);
    ck_assert_int_eq(price_of_first(), 90000000);
    sync_priced(80000000);
    ck_assert_int_eq(price_of_first(), 80000000);
}
END_TEST

START_TEST(test_datasets)
{
    json_t *r =
        market_ok(&m, STORE_DATASET_ADD,
                  STORE_ARGS(S_TEXT(m.tenant), S_TEXT("genome"), S_TEXT("storage:9000"),
                             S_TEXT("fukuoka"), S_NULL, S_NULL, S_INT(1000), NO_IDEM));
    int id = (int)market_int(r, "id");
    ck_assert_str_eq(market_text(r, "site"), "fukuoka");
    market_refused(&m, ERR_CONFLICT, STORE_DATASET_ADD,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT("genome"), S_TEXT("x:1"), S_NULL,
                              S_NULL, S_NULL, S_NULL, NO_IDEM));
    /* A node that the server told to measure it reports. */
    json_t *observed = inventory("0", 0, 8, "idle");
    json_object_set_new(observed, "probes",
                        json_pack("[{s:i,s:i,s:i,s:i,s:i,s:I}]", "dataset", id,
                                  "min_us", 100, "p50_us", 200, "p99_us", 300, "count",
                                  10, "at_us", (json_int_t)m.now_us));
    market_ok(&m, STORE_SYNC,
              STORE_ARGS(S_INT(m.node[0]), S_JSON(observed), S_INT(m.now_us)));
    json_decref(observed);
    r = market_ok(&m, STORE_DATASET_GET,
                  STORE_ARGS(S_TEXT(m.tenant), S_TEXT("genome")));
    ck_assert_int_eq(
        market_int(json_array_get(json_object_get(r, "rtts"), 0), "p50_us"), 200);
    r = market_ok(&m, STORE_DATASET_LIST, STORE_ARGS(S_TEXT(m.tenant)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "datasets")), 1);
    market_ok(&m, STORE_DATASET_REMOVE, STORE_ARGS(S_TEXT(m.tenant), S_TEXT("genome")));
    market_refused(&m, ERR_NOT_FOUND, STORE_DATASET_GET,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT("genome")));
    market_refused(&m, ERR_NOT_FOUND, STORE_DATASET_REMOVE,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT("genome")));
}
END_TEST

START_TEST(test_enrolment)
{
    uint8_t code[32] = {31}, key[32] = {32}, thief[32] = {33}, cert[32] = {34},
            next[32] = {35};
    market_ok(&m, STORE_JOIN_CODE,
              STORE_ARGS(S_TEXT(m.provider), S_TEXT("fukuoka"), S_TEXT("fresh"),
                         S_BYTES(code, 32), S_INT(clock_now_us() + HOUR_US), NO_IDEM));
    json_t *r = market_ok(
        &m, STORE_ENROLL,
        STORE_ARGS(S_BYTES(code, 32), S_BYTES(key, 32), S_TEXT("test.local")));
    int64_t node = market_int(r, "node_id");
    ck_assert_str_eq(market_text(r, "spiffe_id"),
                     "spiffe://test.local/site/fukuoka/node/fresh");
    r = market_ok(
        &m, STORE_ENROLL,
        STORE_ARGS(S_BYTES(code, 32), S_BYTES(key, 32), S_TEXT("test.local")));
    ck_assert_int_eq(market_int(r, "node_id"), node); /* the answer was lost */
    market_refused(&m, ERR_UNAUTHENTICATED, STORE_ENROLL,
                   STORE_ARGS(S_BYTES(code, 32), S_BYTES(thief, 32), S_TEXT("x")));
    market_refused(&m, ERR_UNAUTHENTICATED, STORE_ENROLL,
                   STORE_ARGS(S_BYTES(thief, 32), S_BYTES(thief, 32), S_TEXT("x")));
    market_ok(&m, STORE_JOIN_CODE,
              STORE_ARGS(S_TEXT(m.provider), S_TEXT("fukuoka"), S_TEXT("late"),
                         S_BYTES(thief, 32), S_INT(clock_now_us() - 1), NO_IDEM));
    market_refused(&m, ERR_UNAUTHENTICATED, STORE_ENROLL,
                   STORE_ARGS(S_BYTES(thief, 32), S_BYTES(key, 32), S_TEXT("x")));
    market_refused(&m, ERR_NOT_FOUND, STORE_JOIN_CODE,
                   STORE_ARGS(S_TEXT(m.provider), S_TEXT("nowhere"), S_TEXT("x"),
                              S_BYTES(next, 32), S_INT(m.now_us), NO_IDEM));
    /* Certificates: the first counts at once, the next when it is used. */
    market_ok(&m, STORE_CERT_SET, STORE_ARGS(S_INT(node), S_BYTES(cert, 32)));
    market_ok(&m, STORE_CERT_SET, STORE_ARGS(S_INT(node), S_BYTES(next, 32)));
    char sql[200];
    snprintf(sql, sizeof sql,
             "SELECT get_byte(cert_sha256, 0) || ' ' || get_byte(next_cert_sha256, 0) "
             "FROM ng.node WHERE id = %d",
             (int)node);
    char *got = testdb_one(m.admin, sql);
    ck_assert_str_eq(got, "34 35");
    free(got);
    market_ok(&m, STORE_CERT_USED, STORE_ARGS(S_INT(node), S_BYTES(next, 32)));
    snprintf(
        sql, sizeof sql,
        "SELECT get_byte(cert_sha256, 0) || coalesce(' ' || next_cert_sha256::text, "
        "'') FROM ng.node WHERE id = %d",
        (int)node);
    got = testdb_one(m.admin, sql);
    ck_assert_str_eq(got, "35");
    free(got);
    /* Another provider's node name is not to be had. */
    uint8_t key2[32] = {36};
    r = market_ok(&m, STORE_PROVIDER_CREATE,
                  STORE_ARGS(S_TEXT("rival"), S_NULL, S_BYTES(key2, 32), NO_IDEM));
    char *rival = xstrdup(market_text(r, "id"));
    market_refused(&m, ERR_FORBIDDEN, STORE_JOIN_CODE,
                   STORE_ARGS(S_TEXT(rival), S_TEXT("fukuoka"), S_TEXT("fresh"),
                              S_BYTES(key2, 32), S_INT(m.now_us), NO_IDEM));
    free(rival);
}
END_TEST

static void sync_gpus(int64_t node, json_t *observed_take, enum err_code want)
{
    const struct store_result *r =
        market_call(&m, STORE_SYNC,
                    STORE_ARGS(S_INT(node), S_JSON(observed_take), S_INT(m.now_us)));
    json_decref(observed_take);
    ck_assert_msg(r->err.code == want, "%s", r->err.text);
}

static void node_is(int64_t node, const char *want)
{
    char sql[300];
    snprintf(sql, sizeof sql,
             "SELECT (upper(gpus) - lower(gpus)) || ' ' || offered || ' ' || (SELECT "
             "string_agg(substr(uuid, 7), ',' ORDER BY no) FROM ng.gpu WHERE node_id = "
             "n.id) FROM ng.node n WHERE id = %d",
             (int)node);
    char *got = testdb_one(m.admin, sql);
    ck_assert_str_eq(got, want);
    free(got);
}

START_TEST(test_inventory_changes)
{
    uint8_t code[32] = {41}, key[32] = {42};
    market_ok(&m, STORE_JOIN_CODE,
              STORE_ARGS(S_TEXT(m.provider), S_TEXT("fukuoka"), S_TEXT("inv"),
                         S_BYTES(code, 32), S_INT(clock_now_us() + HOUR_US), NO_IDEM));
    int64_t node = market_int(market_ok(&m, STORE_ENROLL,
                                        STORE_ARGS(S_BYTES(code, 32), S_BYTES(key, 32),
                                                   S_TEXT("test.local"))),
                              "node_id");
    sync_gpus(node, inventory("x", 0, 4, "idle"), ERR_NONE);
    node_is(node, "4 15 0,1,2,3");
    sync_gpus(node, inventory("x", 0, 3, "idle"), ERR_NONE); /* GPU 3 fell off */
    node_is(node, "4 7 0,1,2,3");
    sync_gpus(node, inventory("x", 0, 3, "busy"), ERR_NONE); /* the owner uses them */
    node_is(node, "4 0 0,1,2,3");
    /* GPU 0 was replaced by 4. */
    json_t *o = inventory("x", 1, 4, "idle");
    sync_gpus(node, o, ERR_NONE);
    node_is(node, "4 15 4,1,2,3");
    /* Grown: a new block, since nothing is booked. */
    sync_gpus(node, inventory("x", 1, 8, "idle"), ERR_NONE);
    node_is(node, "8 255 1,2,3,4,5,6,7,8");
    /* A GPU that another node has. */
    sync_gpus(node, inventory("0", 0, 1, "idle"), ERR_CONFLICT);
    node_is(node, "8 255 1,2,3,4,5,6,7,8");
    /* Blocks never overlap, not even one given up and one made later. */
    char *n =
        testdb_one(m.admin, "SELECT count(*) FROM ng.node a JOIN ng.node b ON a.id "
                            "< b.id AND a.gpus && b.gpus");
    ck_assert_str_eq(n, "0");
    free(n);
}
END_TEST

START_TEST(test_desired_version)
{
    struct market_booking b;
    struct market_booked booked;
    json_t *none = json_array();
    json_t *r = market_ok(&m, STORE_DESIRED,
                          STORE_ARGS(S_INT(m.node[0]), S_JSON(none), S_INT(m.now_us)));
    char *first = xstrdup(market_text(r, "version"));
    market_booking(&m, &b, 0, 6, 2, 2 * HOUR_US, HOUR_US);
    market_book(&m, &b, &booked);
    market_wait(&m, &booked.done);
    ck_assert_int_eq(booked.outcome, STORE_BOOK_OK);
    r = market_ok(&m, STORE_DESIRED,
                  STORE_ARGS(S_INT(m.node[0]), S_JSON(none), S_INT(m.now_us)));
    ck_assert_str_ne(market_text(r, "version"), first);
    json_t *lease = json_array_get(json_object_get(r, "leases"), 0);
    ck_assert_str_eq(market_text(lease, "reservation"), booked.id);
    ck_assert_int_eq(market_int(lease, "not_before_us"), b.book.start_us);
    ck_assert_int_eq(market_int(lease, "epoch"), b.book.start_us);
    ck_assert_uint_eq(json_array_size(json_object_get(lease, "gpus")), 2);
    /* Too far ahead, over, or another node's: not told. */
    r = market_ok(&m, STORE_DESIRED,
                  STORE_ARGS(S_INT(m.node[0]), S_JSON(none),
                             S_INT(b.book.start_us - 25 * HOUR_US)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "leases")), 0);
    r = market_ok(&m, STORE_DESIRED,
                  STORE_ARGS(S_INT(m.node[0]), S_JSON(none), S_INT(b.book.end_us)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "leases")), 0);
    json_t *leases = json_pack("[s,s]", booked.id, "not-an-id");
    r = market_ok(&m, STORE_DESIRED,
                  STORE_ARGS(S_INT(m.node[1]), S_JSON(leases), S_INT(m.now_us)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "leases")), 0);
    ck_assert_uint_eq(json_array_size(json_object_get(r, "end")), 2);
    json_decref(leases);
    json_decref(none);
    json_decref(b.request);
    free(first);
}
END_TEST

START_TEST(test_feed)
{
    struct market_booking b;
    struct market_booked booked;
    json_t *r = market_ok(&m, STORE_FEED_HEAD, STORE_NO_ARGS);
    char *cursor = xstrdup(market_text(r, "cursor"));
    market_booking(&m, &b, 1, 0, 2, 50 * HOUR_US, HOUR_US);
    market_book(&m, &b, &booked);
    market_wait(&m, &booked.done);
    r = market_ok(&m, STORE_CHANGES,
                  STORE_ARGS(S_TEXT(cursor), S_INT(100), S_BOOL(true)));
    json_t *events = json_object_get(r, "events");
    json_t *e = json_array_get(events, json_array_size(events) - 1);
    ck_assert_str_eq(market_text(e, "kind"), "reservation.confirmed");
    ck_assert_str_eq(market_text(e, "origin"), "test-1");
    ck_assert_str_eq(market_text(e, "reservation_id"), booked.id);
    json_t *k =
        json_array_get(json_object_get(json_object_get(e, "payload"), "bookings"), 0);
    ck_assert_int_eq(market_int(k, "booking"), booked.booking_id[0]);
    ck_assert_int_eq(market_int(k, "node_id"), m.node[1]);
    ck_assert_int_eq(market_int(k, "from_us"), b.book.start_us);
    char *after = xstrdup(market_text(r, "cursor"));
    /* Whoever made the booking may pass over it, with the same cursor after it. */
    int64_t all = market_int(r, "read");
    ck_assert_uint_eq(json_array_size(events), (size_t)all);
    r = market_ok(&m, STORE_CHANGES,
                  STORE_ARGS(S_TEXT(cursor), S_INT(100), S_BOOL(false)));
    ck_assert_int_eq(market_int(r, "read"), all);
    ck_assert_uint_eq(json_array_size(json_object_get(r, "events")), (size_t)all - 1);
    ck_assert_str_eq(market_text(r, "cursor"), after);
    free(cursor);
    cursor = after;
    r = market_ok(&m, STORE_CHANGES,
                  STORE_ARGS(S_TEXT(cursor), S_INT(100), S_BOOL(true)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "events")), 0);
    ck_assert_str_eq(market_text(r, "cursor"), cursor);
    /* A change whose transaction is still open hides all that began after it, so that
     * none is skipped. */
    PGconn *slow = testdb_connect(m.db, "postgres", "neargpu");
    testdb_sql(slow, "BEGIN; SELECT ng.tell('node.changed', NULL, NULL, 1)");
    market_ok(&m, STORE_RESV_CANCEL,
              STORE_ARGS(S_TEXT(m.tenant), S_TEXT(booked.id), S_TEXT(""), S_BOOL(false),
                         S_INT(m.now_us)));
    r = market_ok(&m, STORE_CHANGES,
                  STORE_ARGS(S_TEXT(cursor), S_INT(100), S_BOOL(true)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "events")), 0);
    testdb_sql(slow, "COMMIT");
    PQfinish(slow);
    r = market_ok(&m, STORE_CHANGES,
                  STORE_ARGS(S_TEXT(cursor), S_INT(100), S_BOOL(true)));
    events = json_object_get(r, "events");
    ck_assert_uint_eq(json_array_size(events), 2);
    ck_assert_str_eq(market_text(json_array_get(events, 0), "kind"), "node.changed");
    e = json_array_get(events, 1);
    ck_assert_str_eq(market_text(e, "kind"), "reservation.cancelled");
    k = json_array_get(json_object_get(json_object_get(e, "payload"), "bookings"), 0);
    ck_assert_int_eq(market_int(k, "from_us"), market_int(k, "to_us"));
    /* What a tenant and a provider see of it. */
    r = market_ok(&m, STORE_EVENTS,
                  STORE_ARGS(S_TEXT(m.tenant), S_NULL, S_TEXT(cursor), S_INT(100)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "events")), 1);
    r = market_ok(&m, STORE_EVENTS,
                  STORE_ARGS(S_NULL, S_TEXT(m.provider), S_TEXT(cursor), S_INT(100)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "events")), 2);
    r = market_ok(&m, STORE_EVENTS,
                  STORE_ARGS(S_TEXT(m.provider), S_NULL, S_NULL, S_INT(9)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "events")), 0);
    market_refused(&m, ERR_BAD_REQUEST, STORE_CHANGES,
                   STORE_ARGS(S_TEXT("x"), S_INT(1), S_BOOL(true)));
    free(cursor);
    json_decref(b.request);
}
END_TEST

/* ---- rows -------------------------------------------------------------------------
 */

struct seen {
    int done;
    size_t rows;
    char first[20][120];
};

static void keep_row(void *arg, uint64_t id, const struct store_result *r)
{
    struct seen *s = arg;
    (void)id;
    ck_assert_msg(r->status == STORE_OK, "%s", r->err.text);
    s->rows = store_rows(r);
    for (int c = 0; s->rows > 0 && c < 20 && c < PQnfields(r->rows); c++)
        snprintf(s->first[c], sizeof s->first[c], "%s", store_text(r, 0, c));
    s->done++;
}

static struct seen world(enum store_op op, const struct store_arg *args, size_t count)
{
    struct seen s = {0};
    store_call(m.store, op, args, count, store_to(keep_row, &s, 0));
    market_wait(&m, &s.done);
    return s;
}

START_TEST(test_world)
{
    struct seen s = world(STORE_WORLD_KEYS, STORE_NO_ARGS);
    ck_assert_uint_ge(s.rows, 3);
    ck_assert_uint_eq(strlen(s.first[0]), 64);
    s = world(STORE_WORLD_SITES, STORE_ARGS(S_INT(m.site)));
    ck_assert_uint_eq(s.rows, 1);
    ck_assert_str_eq(s.first[1], "fukuoka");
    s = world(STORE_WORLD_NODES, STORE_ARGS(S_INT(m.node[0])));
    ck_assert_uint_eq(s.rows, 1);
    ck_assert_str_eq(s.first[3], "acme");
    ck_assert_str_eq(s.first[9], "8");
    ck_assert_str_eq(s.first[12], "255");
    ck_assert_str_eq(s.first[13], "[]");
    ck_assert_str_eq(s.first[15], "up");
    ck_assert_ptr_nonnull(strstr(s.first[19], "[\"GPU-0-0\",\"GPU-0-1\""));
    s = world(STORE_WORLD_NODES, STORE_ARGS(S_NULL));
    ck_assert_uint_ge(s.rows, 2);
    s = world(STORE_WORLD_DATASETS, STORE_ARGS(S_NULL));
    s = world(STORE_WORLD_RTTS, STORE_ARGS(S_NULL));
    s = world(STORE_WORLD_BOOKINGS, STORE_ARGS(S_INT(m.now_us)));
    ck_assert_uint_eq(s.rows, 1); /* the cancelled one blocks nothing */
    ck_assert_str_eq(s.first[2], "6");
    ck_assert_str_eq(s.first[3], "2");
}
END_TEST

START_TEST(test_quotes_and_tokens)
{
    const char *id = "01890a5d-ac96-774b-bcce-b302099a8057";
    json_t *request = json_pack("{s:i}", "gpus", 8),
           *plan = json_pack("{s:s}", "a", "b");
    market_ok(&m, STORE_QUOTE_PUT,
              STORE_ARGS(S_TEXT(id), S_TEXT(m.tenant), S_INT(1000), S_INT(2000),
                         S_JSON(request), S_JSON(plan), S_BYTES(hash_a, 32), NO_IDEM));
    json_t *r =
        market_ok(&m, STORE_QUOTE_GET, STORE_ARGS(S_TEXT(m.tenant), S_TEXT(id)));
    ck_assert_int_eq(market_int(r, "expires_us"), 2000);
    ck_assert(json_equal(json_object_get(r, "request"), request));
    ck_assert(json_equal(json_object_get(r, "plan"), plan));
    market_refused(&m, ERR_NOT_FOUND, STORE_QUOTE_GET,
                   STORE_ARGS(S_TEXT(m.provider), S_TEXT(id)));
    market_refused(&m, ERR_BAD_REQUEST, STORE_QUOTE_GET,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT("no uuid")));
    char *resv = testdb_one(m.admin, "SELECT id FROM ng.reservation LIMIT 1");
    json_t *tokens =
        json_pack("[{s:s,s:i,s:s,s:s,s:i,s:i}]", "jti", id, "node_id", m.node[0], "jkt",
                  "t", "kid", "k", "issued_us", 1, "expires_us", 2);
    for (int i = 0; i < 2; i++)
        market_ok(&m, STORE_TOKEN_LOG, STORE_ARGS(S_TEXT(resv), S_JSON(tokens)));
    json_decref(tokens);
    json_decref(request);
    json_decref(plan);
    free(resv);
}
END_TEST

START_TEST(test_nodes_overdue)
{
    int64_t now = m.now_us + 100000000;
    json_t *r = market_ok(&m, STORE_NODES_OVERDUE,
                          STORE_ARGS(S_INT(now), S_INT(90000000), S_INT(200000000)));
    ck_assert_uint_ge(json_array_size(json_object_get(r, "unknown")), 2);
    ck_assert_uint_eq(json_array_size(json_object_get(r, "lost")), 0);
    r = market_ok(&m, STORE_NODES_OVERDUE,
                  STORE_ARGS(S_INT(now), S_INT(90000000), S_INT(200000000)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "unknown")), 0);
    r = market_ok(&m, STORE_NODES_OVERDUE,
                  STORE_ARGS(S_INT(now), S_INT(90000000), S_INT(95000000)));
    ck_assert_uint_ge(json_array_size(json_object_get(r, "lost")), 2);
    json_t *o = inventory("-", 0, 0, "idle"); /* it is back */
    sync_gpus(m.node[0], o, ERR_NONE);
    r = market_ok(&m, STORE_ADMIN_STATUS, STORE_NO_ARGS);
    ck_assert_int_eq(market_int(json_object_get(r, "nodes"), "up"), 1);
    ck_assert_uint_ge(json_array_size(json_object_get(r, "checks")), 5);
}
END_TEST

START_TEST(test_reports)
{
    json_t *r = market_ok(&m, STORE_REPORT_LIST, STORE_NO_ARGS);
    json_t *list = json_incref(json_object_get(r, "reports"));
    ck_assert_uint_ge(json_array_size(list), 5);
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v)
    {
        r = market_ok(&m, STORE_REPORT,
                      STORE_ARGS(S_TEXT(market_text(v, "name")), S_NULL, S_NULL, S_NULL,
                                 S_NULL, S_NULL, S_NULL, S_NULL));
        ck_assert_uint_ge(json_array_size(json_object_get(r, "columns")), 2);
        ck_assert(json_is_array(json_object_get(r, "rows")));
    }
    json_decref(list);
    market_refused(&m, ERR_NOT_FOUND, STORE_REPORT,
                   STORE_ARGS(S_TEXT("pg_authid"), S_NULL, S_NULL, S_NULL, S_NULL,
                              S_NULL, S_NULL, S_NULL));
}
END_TEST

START_TEST(test_match_log)
{
    struct store_match_log l = {.at_us = m.now_us,
                                .tenant_id = m.tenant,
                                .kind = "reserve",
                                .outcome = "ok",
                                .match_us = 12,
                                .gpu_model = "H100",
                                .gpus = 8,
                                .duration_s = 3600,
                                .site_id = m.site,
                                .why = ""};
    for (int i = 0; i < 500; i++) {
        l.tenant_id = i % 2 == 0 ? m.tenant : "";
        store_log_match(m.store, &l);
    }
    char *n = NULL;
    int64_t end_us = clock_boot_us() + 5000000;
    do {
        struct timeval tv = {.tv_usec = 50000};
        event_base_loopexit(m.base, &tv);
        event_base_loop(m.base, EVLOOP_ONCE);
        free(n);
        n = testdb_one(m.admin, "SELECT count(*) || ' ' || count(tenant_id) FROM "
                                "ng.match_log WHERE rtt_us IS NULL");
    } while (strcmp(n, "500 250") != 0 && clock_boot_us() < end_us);
    ck_assert_str_eq(n, "500 250");
    free(n);
}
END_TEST

START_TEST(test_reads_are_repeated)
{
    /* Connections killed under a running read: it is asked again, nobody notices. */
    struct seen s = {0};
    PGconn *locker = testdb_connect(m.db, "postgres", "neargpu");
    testdb_sql(locker, "BEGIN; LOCK TABLE ng.site IN ACCESS EXCLUSIVE MODE");
    store_call(m.store, STORE_WORLD_SITES, STORE_ARGS(S_NULL),
               store_to(keep_row, &s, 0));
    char *n = NULL;
    int64_t end_us = clock_boot_us() + 5000000;
    do {
        event_base_loop(m.base, EVLOOP_NONBLOCK);
        free(n);
        n = testdb_one(locker, "SELECT count(pg_terminate_backend(pid)) FROM "
                               "pg_stat_activity WHERE wait_event_type = 'Lock'");
    } while (strcmp(n, "1") != 0 && clock_boot_us() < end_us);
    ck_assert_str_eq(n, "1");
    free(n);
    testdb_sql(locker, "COMMIT");
    PQfinish(locker);
    market_wait(&m, &s.done);
    ck_assert_uint_ge(s.rows, 1);
    struct store_stats st;
    store_stats(m.store, &st);
    ck_assert_uint_ge(st.reconnects, 1);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1);
    Suite *suite = suite_create("store");
    TCase *tc = tcase_create("store");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_market);
    tcase_add_test(tc, test_tenants);
    tcase_add_test(tc, test_pages);
    tcase_add_test(tc, test_sites_nodes_prices);
    tcase_add_test(tc, test_datasets);
    tcase_add_test(tc, test_price_set_by_command_stays);
    tcase_add_test(tc, test_enrolment);
    tcase_add_test(tc, test_inventory_changes);
    tcase_add_test(tc, test_desired_version);
    tcase_add_test(tc, test_feed);
    tcase_add_test(tc, test_world);
    tcase_add_test(tc, test_quotes_and_tokens);
    tcase_add_test(tc, test_reports);
    tcase_add_test(tc, test_match_log);
    tcase_add_test(tc, test_reads_are_repeated);
    tcase_add_test(tc, test_nodes_overdue);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

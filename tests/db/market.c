/* market: see the header. */
#include "tests/db/market.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "server/db/migrate.h"
#include "tests/unit/unit.h"

static struct {
    int done;
    struct store_result r;
} last;

static void on_done(void *arg, uint64_t id, const struct store_result *r)
{
    (void)arg;
    (void)id;
    json_decref(last.r.json);
    last.r = *r;
    last.r.rows = NULL;
    json_incref(last.r.json);
    last.done++;
}

void market_wait(struct market *m, const int *flag)
{
    int64_t end_us = clock_boot_us() + 20000000;
    while (*flag == 0 && clock_boot_us() < end_us) {
        struct timeval tv = {.tv_usec = 50000};
        event_base_loopexit(m->base, &tv);
        event_base_loop(m->base, EVLOOP_ONCE);
    }
    ck_assert_msg(*flag != 0, "no answer");
}

const struct store_result *market_call(struct market *m, enum store_op op,
                                       const struct store_arg *args, size_t count)
{
    last.done = 0;
    store_call(m->store, op, args, count, store_to(on_done, NULL, 0));
    ck_assert_int_eq(last.done, 0);
    market_wait(m, &last.done);
    return &last.r;
}

json_t *market_ok(struct market *m, enum store_op op, const struct store_arg *args,
                  size_t count)
{
    const struct store_result *r = market_call(m, op, args, count);
    ck_assert_msg(r->status == STORE_OK, "operation %d: %s", op, r->err.text);
    return r->json;
}

void market_refused(struct market *m, enum err_code code, enum store_op op,
                    const struct store_arg *args, size_t count)
{
    const struct store_result *r = market_call(m, op, args, count);
    ck_assert_msg(r->status == STORE_FAILED, "operation %d was not refused", op);
    ck_assert_msg(r->err.code == code, "operation %d: %s, not %s: %s", op,
                  err_code_name(r->err.code), err_code_name(code), r->err.text);
}

int64_t market_int(const json_t *obj, const char *name)
{
    const json_t *v = json_object_get(obj, name);
    ck_assert_msg(json_is_integer(v), "%s is no integer", name);
    return json_integer_value(v);
}

const char *market_text(const json_t *obj, const char *name)
{
    const json_t *v = json_object_get(obj, name);
    ck_assert_msg(json_is_string(v), "%s is no text", name);
    return json_string_value(v);
}

static void add_node(struct market *m, int i)
{
    uint8_t code[32] = {(uint8_t)(i + 1), 9}, key[32] = {(uint8_t)(i + 1), 7};
    char name[16];
    snprintf(name, sizeof name, "n%d", i + 1);
    market_ok(m, STORE_JOIN_CODE,
              STORE_ARGS(S_TEXT(m->provider), S_TEXT("fukuoka"), S_TEXT(name),
                         S_BYTES(code, 32), S_INT(m->now_us + HOUR_US), S_TEXT("p"),
                         S_NULL, S_NULL));
    json_t *r = market_ok(
        m, STORE_ENROLL,
        STORE_ARGS(S_BYTES(code, 32), S_BYTES(key, 32), S_TEXT("test.local")));
    m->node[i] = (int)market_int(r, "node_id");
    m->site = (int)market_int(r, "site_id");
    json_t *gpus = json_array();
    for (int g = 0; g < 8; g++)
        json_array_append_new(gpus,
                              json_pack("{s:i,s:o,s:s,s:i,s:s,s:i,s:s}", "index", g,
                                        "uuid", json_sprintf("GPU-%d-%d", i, g),
                                        "model", "H100-SXM5-80GB", "memory_mib", 81559,
                                        "pci", "0", "minor", g, "state", "idle"));
    json_t *observed = json_pack(
        "{s:{s:s,s:s,s:i,s:s},s:o,s:{s:s,s:i},s:[],s:[],s:[]}", "agent", "version", "1",
        "boot_id", "b", "seq", 1, "address", "127.0.0.1:1", "gpus", gpus, "price",
        "currency", "JPY", "micro", 100000000, "windows", "leases", "probes");
    market_ok(m, STORE_SYNC,
              STORE_ARGS(S_INT(m->node[i]), S_JSON(observed), S_INT(m->now_us)));
    json_decref(observed);
}

void market_open(struct market *m, int nodes, int64_t credit_micro)
{
    struct err err;
    struct migrate_result done;
    uint8_t key[32] = {1};
    memset(m, 0, sizeof *m);
    m->db = testdb_start();
    PGconn *pg = testdb_connect(m->db, "postgres", "postgres");
    testdb_sql(pg, "CREATE DATABASE neargpu");
    PQfinish(pg);
    struct migrate_opts o = {
        .conninfo = testdb_conninfo(m->db, "postgres", "neargpu"),
        .market_name = "test.local",
        .currency = "JPY",
        .issuer_name = "Test",
        .fee_ppm = 50000,
        .tax_ppm = 100000,
        .admin_key_hash = key,
    };
    if (migrate_run(&o, &done, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    m->admin = testdb_connect(m->db, "postgres", "neargpu");
    m->base = event_base_new();
    m->now_us = clock_now_us();
    char *report = xstrdup(testdb_conninfo(m->db, "neargpu_report", "neargpu"));
    m->store =
        store_new(m->base, &(struct store_opts){.conninfo = testdb_conninfo(
                                                    m->db, "neargpu_server", "neargpu"),
                                                .report_conninfo = report,
                                                .readers = 2,
                                                .writers = 1,
                                                .origin = "test-1"});
    free(report);
    market_ok(m, STORE_SITE_CREATE,
              STORE_ARGS(S_TEXT("fukuoka"), S_TEXT("Fukuoka"), S_REAL(33.59),
                         S_REAL(130.4), S_TEXT("jp"), S_NULL, S_TEXT("a"), S_NULL,
                         S_NULL));
    uint8_t provider_key[32] = {2}, tenant_key[32] = {3};
    json_t *r = market_ok(m, STORE_PROVIDER_CREATE,
                          STORE_ARGS(S_TEXT("acme"), S_NULL, S_BYTES(provider_key, 32),
                                     S_TEXT("a"), S_NULL, S_NULL));
    snprintf(m->provider, sizeof m->provider, "%s", market_text(r, "id"));
    r = market_ok(m, STORE_TENANT_CREATE,
                  STORE_ARGS(S_TEXT("lab"), S_NULL, S_INT(credit_micro),
                             S_BYTES(tenant_key, 32), S_TEXT("a"), S_NULL, S_NULL));
    snprintf(m->tenant, sizeof m->tenant, "%s", market_text(r, "id"));
    m->nodes = nodes;
    for (int i = 0; i < nodes; i++)
        add_node(m, i);
}

void market_close(struct market *m)
{
    store_free(m->store);
    event_base_free(m->base);
    PQfinish(m->admin);
    testdb_remove(m->db);
    json_decref(last.r.json);
    last.r.json = NULL;
}

/* ---- bookings ----------------------------------------------------------------- */

void market_booking(struct market *m, struct market_booking *b, int n, int first,
                    int count, int64_t at_us, int64_t len_us)
{
    uint8_t random[10];
    memset(b, 0, sizeof *b);
    digest_random(random, sizeof random);
    uuid_v7(m->now_us, random, b->book.id);
    snprintf(b->key, sizeof b->key, "%s", b->book.id);
    memcpy(b->book.tenant_id, m->tenant, sizeof b->book.tenant_id);
    b->book.now_us = m->now_us;
    b->book.start_us = m->now_us + at_us;
    b->book.end_us = b->book.start_us + len_us;
    b->request = json_object();
    memcpy(b->book.currency, "JPY", 4);
    market_booking_add(m, b, n, first, count);
}

void market_booking_add(struct market *m, struct market_booking *b, int n, int first,
                        int count)
{
    struct store_booking *k = &b->on[b->book.booking_count++];
    *k = (struct store_booking){.node_id = m->node[n],
                                .site_id = m->site,
                                .first = first,
                                .count = count,
                                .from_us = b->book.start_us,
                                .to_us = b->book.end_us,
                                .per_gpu_hour_micro = 100000000};
    b->book.per_hour_micro += 100000000 * (int64_t)count;
    b->book.total_micro +=
        (int64_t)((__int128)(k->to_us - k->from_us) * count * 100000000 / HOUR_US);
    b->book.effective_micro = b->book.total_micro;
}

void market_booked(void *arg, uint64_t id, const struct store_result *r)
{
    struct market_booked *to = arg;
    (void)id;
    to->done++;
    to->status = r->status;
    to->code = r->err.code;
    if (r->booked == NULL)
        return;
    to->outcome = r->booked->outcome;
    memcpy(to->id, r->booked->id, sizeof to->id);
    to->booking_count = r->booked->booking_count;
    for (size_t i = 0; i < to->booking_count && i < 4; i++)
        to->booking_id[i] = r->booked->booking_id[i];
    to->lane_booking_count = r->booked->lane_booking_count;
    for (size_t i = 0; i < to->lane_booking_count && i < 4; i++)
        to->lane_booking_id[i] = r->booked->lane_booking_id[i];
}

void market_booking_path(struct market_booking *b, int path, int first, int count,
                         int64_t price_micro, int64_t setup_us)
{
    struct store_path_booking *k = &b->paths[b->book.path_count++];
    *k = (struct store_path_booking){.path_id = path,
                                     .first = first,
                                     .count = count,
                                     .from_us = b->book.start_us - setup_us,
                                     .to_us = b->book.end_us,
                                     .price_micro = price_micro};
    b->book.per_hour_micro += price_micro * count;
    b->book.total_micro += (int64_t)((__int128)(b->book.end_us - b->book.start_us) *
                                     count * price_micro / HOUR_US);
    b->book.effective_micro = b->book.total_micro;
}

void market_book(struct market *m, const struct market_booking *b,
                 struct market_booked *ret)
{
    struct store_book in = b->book;
    memset(ret, 0, sizeof *ret);
    in.bookings = b->on;
    in.paths = b->paths;
    in.preempts = b->preempts;
    in.idem_key = b->key;
    in.idem_hash = b->hash;
    in.request = b->request;
    store_book(m->store, &in, store_to(market_booked, ret, 0));
}

void market_book_ok(struct market *m, struct market_booking *b,
                    enum store_book_outcome want, struct market_booked *ret)
{
    market_book(m, b, ret);
    market_wait(m, &ret->done);
    ck_assert_msg(ret->status == STORE_OK, "booking failed: %d", ret->code);
    ck_assert_int_eq(ret->outcome, want);
    json_decref(b->request);
    b->request = NULL;
}

int64_t market_sql(struct market *m, const char *fmt, ...)
{
    va_list ap;
    char sql[1000];
    va_start(ap, fmt);
    int n = vsnprintf(sql, sizeof sql, fmt, ap);
    va_end(ap);
    ck_assert_int_lt(n, (int)sizeof sql);
    char *got = testdb_one(m->admin, sql);
    int64_t v = strtoll(got, NULL, 10);
    free(got);
    return v;
}

void market_check(struct market *m)
{
    char *got =
        testdb_one(m->admin, "SELECT coalesce(string_agg(name || ' ' || breaches, "
                             "', '), '') FROM api.check_all() WHERE breaches > 0");
    ck_assert_str_eq(got, "");
    free(got);
}

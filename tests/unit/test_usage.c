/* usage and spool: chains of receipts, in memory and across deaths and boots. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/spool.h"
#include "client/agent/usage.h"
#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define RES "01890000-0000-7000-8000-00000000000a"

static const char gpus[2][TOKEN_GPU_UUID_MAX] = {"GPU-a", "GPU-b"};

static struct usage_point point(enum usage_kind kind, int64_t s, const char *boot)
{
    static struct usage_evidence e = {"GPU-a", 5, -1, 7};
    return (struct usage_point){.kind = kind,
                                .issuer = "spiffe://m/site/s/node/n",
                                .now_us = 1000000000 * INT64_C(1000000) + s * US_PER_S,
                                .boot_us = s * US_PER_S,
                                .boot_id = boot,
                                .gpus = gpus,
                                .gpu_count = 2,
                                .epoch = 3,
                                .evidence = &e,
                                .evidence_count = 1};
}

static int64_t number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* One step of a chain; the payload's gpu_ms. */
static int64_t step(struct usage_chain *c, struct usage_point p, json_t **ret)
{
    struct usage_chain next;
    struct err err;
    json_t *payload;
    ck_assert_msg(usage_next(c, &p, &payload, &next, &err) == 0, "%s", err.text);
    usage_commit(&next, "text");
    *c = next;
    int64_t ms = number(payload, "gpu_ms");
    if (ret != NULL)
        *ret = payload;
    else
        json_decref(payload);
    return ms;
}

START_TEST(test_chain)
{
    struct usage_chain c = {.reservation = RES};
    json_t *p;
    ck_assert_int_eq(step(&c, point(USAGE_READY, 10, "b1"), &p), 0);
    ck_assert_str_eq(json_string_value(json_object_get(p, "prev")), "");
    ck_assert_int_eq(number(p, "seq"), 1);
    json_decref(p);
    ck_assert_int_eq(step(&c, point(USAGE_INTERVAL, 70, "b1"), NULL), 120000);
    ck_assert_int_eq(step(&c, point(USAGE_TEARDOWN, 100, "b1"), &p), 180000);
    ck_assert_int_eq(number(p, "seq"), 3);
    ck_assert_uint_eq(strlen(json_string_value(json_object_get(p, "prev"))), 43);
    ck_assert(json_is_null(json_object_get(
        json_array_get(json_object_get(p, "evidence"), 0), "memory_mib")));
    json_decref(p);
}
END_TEST

/* Any slicing of the same time gives the same sum. */
START_TEST(test_telescopes)
{
    struct usage_chain many = {.reservation = RES}, one = {.reservation = RES};
    step(&many, point(USAGE_READY, 0, "b1"), NULL);
    step(&one, point(USAGE_READY, 0, "b1"), NULL);
    for (int i = 1; i < 100; i++) {
        struct usage_point p = point(USAGE_INTERVAL, i, "b1");
        p.boot_us += i * 7 % 1000; /* microseconds that do not divide */
        step(&many, p, NULL);
    }
    ck_assert_int_eq(step(&many, point(USAGE_TEARDOWN, 200, "b1"), NULL),
                     step(&one, point(USAGE_TEARDOWN, 200, "b1"), NULL));
}
END_TEST

START_TEST(test_reboot_is_a_gap)
{
    struct usage_chain c = {.reservation = RES};
    json_t *p;
    step(&c, point(USAGE_READY, 1000, "b1"), NULL);
    step(&c, point(USAGE_INTERVAL, 1060, "b1"), NULL);
    struct usage_point back = point(USAGE_INTERVAL, 1300, "b2");
    back.boot_us = 20 * US_PER_S; /* the new boot's clock is small */
    ck_assert_int_eq(step(&c, back, &p), 120000);
    ck_assert_uint_eq(json_array_size(json_object_get(p, "gaps")), 1);
    ck_assert_int_eq(number(p, "boot_from_us"), number(p, "boot_to_us"));
    json_decref(p);
    back.now_us += 10 * US_PER_S;
    back.boot_us += 10 * US_PER_S;
    ck_assert_int_eq(step(&c, back, &p), 140000);
    ck_assert_uint_eq(json_array_size(json_object_get(p, "gaps")), 0);
    json_decref(p);
}
END_TEST

START_TEST(test_clocks_never_run_back)
{
    struct usage_chain c = {.reservation = RES};
    json_t *p;
    step(&c, point(USAGE_READY, 100, "b1"), NULL);
    step(&c, point(USAGE_INTERVAL, 200, "b1"), NULL);
    ck_assert_int_eq(step(&c, point(USAGE_INTERVAL, 150, "b1"), &p), 200000);
    ck_assert_str_eq(json_string_value(json_object_get(p, "from")),
                     json_string_value(json_object_get(p, "to")));
    json_decref(p);
}
END_TEST

START_TEST(test_order_is_kept)
{
    struct usage_chain c = {.reservation = RES}, next;
    struct err err;
    json_t *p;
    struct usage_point interval = point(USAGE_INTERVAL, 1, "b1"),
                       ready = point(USAGE_READY, 1, "b1");
    ck_assert_int_eq(usage_next(&c, &interval, &p, &next, &err), -1);
    step(&c, ready, NULL);
    ck_assert_int_eq(usage_next(&c, &ready, &p, &next, &err), -1);
    step(&c, point(USAGE_TEARDOWN, 2, "b1"), NULL);
    ck_assert_int_eq(usage_next(&c, &interval, &p, &next, &err), -1);
}
END_TEST

/* --- spool --- */

struct world {
    char dir[64];
    EVP_PKEY *key;
    struct spool *spool;
};

static void reopen(struct world *w)
{
    struct err err;
    spool_free(w->spool);
    ck_assert_msg(spool_open(w->dir, w->key, &w->spool, &err) == 0, "%s", err.text);
}

static void world_init(struct world *w)
{
    struct err err;
    memset(w, 0, sizeof(*w));
    snprintf(w->dir, sizeof(w->dir), "/tmp/test_usage.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    ck_assert_int_eq(jws_keygen(&w->key, &err), 0);
    reopen(w);
}

static void world_done(struct world *w)
{
    struct err err;
    spool_free(w->spool);
    EVP_PKEY_free(w->key);
    ck_assert_int_eq(fsx_remove_tree(w->dir, &err), 0);
}

static void put(struct world *w, enum usage_kind kind, int64_t s)
{
    struct usage_point p = point(kind, s, "b1");
    struct err err;
    ck_assert_msg(spool_add(w->spool, RES, &p, &err) == 0, "%s", err.text);
}

static size_t pending(const struct world *w)
{
    json_t *list = spool_pending(w->spool, SPOOL_BATCH_MAX, 0);
    size_t n = json_array_size(list);
    json_decref(list);
    return n;
}

/* Each text names the hash of the one before it; returns the last text's hash. */
static void check_links(const struct world *w)
{
    json_t *list = spool_pending(w->spool, SPOOL_BATCH_MAX, 0);
    char prev[JWS_KID_MAX] = "";
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        const char *from = strchr(text, '.') + 1;
        uint8_t raw[8192], hash[SHA256_LEN];
        ptrdiff_t len = b64_decode(from, strcspn(from, "."), raw, sizeof(raw));
        ck_assert_int_gt(len, 0);
        json_t *p = json_loadb((char *)raw, (size_t)len, 0, NULL);
        ck_assert_str_eq(json_string_value(json_object_get(p, "prev")), prev);
        json_decref(p);
        digest_sha256(text, strlen(text), hash);
        b64_encode(hash, sizeof(hash), prev);
    }
    json_decref(list);
}

START_TEST(test_spool_survives)
{
    struct world w;
    world_init(&w);
    put(&w, USAGE_READY, 0);
    put(&w, USAGE_INTERVAL, 60);
    reopen(&w); /* killed */
    ck_assert_int_eq(spool_chain(w.spool, RES)->seq, 2);
    ck_assert_int_eq(spool_chain(w.spool, RES)->gpu_us, 120 * US_PER_S);
    put(&w, USAGE_INTERVAL, 120);
    ck_assert_uint_eq(pending(&w), 3);
    check_links(&w);
    world_done(&w);
}
END_TEST

START_TEST(test_spool_acks)
{
    struct world w;
    char path[128];
    world_init(&w);
    put(&w, USAGE_READY, 0);
    put(&w, USAGE_INTERVAL, 60);
    put(&w, USAGE_INTERVAL, 120);
    spool_ack(w.spool, RES, 2);
    ck_assert_uint_eq(pending(&w), 1);
    snprintf(path, sizeof(path), "%s/spool/" RES "/2", w.dir);
    ck_assert_int_ne(access(path, F_OK), 0);
    spool_ack(w.spool, RES, 3);
    spool_ack(w.spool, RES, 1); /* late */
    spool_ack(w.spool, RES, 9); /* of none we made */
    ck_assert(!spool_has_pending(w.spool, 0));
    reopen(&w); /* the newest stays: the chain goes on from it */
    ck_assert(!spool_has_pending(w.spool, 0));
    put(&w, USAGE_TEARDOWN, 130);
    reopen(&w);
    ck_assert_uint_eq(pending(&w), 1);
    ck_assert_int_eq(spool_chain(w.spool, RES)->seq, 4);
    spool_ack(w.spool, RES, 4);
    ck_assert_ptr_null(spool_chain(w.spool, RES));
    snprintf(path, sizeof(path), "%s/spool/" RES, w.dir);
    ck_assert_int_ne(access(path, F_OK), 0);
    world_done(&w);
}
END_TEST

START_TEST(test_spool_broken_is_not_restarted)
{
    struct world w;
    char path[128];
    struct err err;
    world_init(&w);
    put(&w, USAGE_READY, 0);
    snprintf(path, sizeof(path), "%s/spool/" RES "/1", w.dir);
    ck_assert_int_eq(fsx_write(path, "rubbish", 7, 0600, &err), 0);
    reopen(&w);
    struct usage_point p = point(USAGE_READY, 5, "b1");
    ck_assert_int_eq(spool_add(w.spool, RES, &p, &err), -1);
    ck_assert(!spool_has_pending(w.spool, 0));
    world_done(&w);
}
END_TEST

/* A receipt lost from the disk cannot be sent; it is not asked for all the time. */
START_TEST(test_spool_unreadable_is_held)
{
    struct world w;
    char path[128];
    world_init(&w);
    put(&w, USAGE_READY, 0);
    put(&w, USAGE_INTERVAL, 60);
    snprintf(path, sizeof(path), "%s/spool/" RES "/1", w.dir);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_uint_eq(pending(&w), 0);
    ck_assert(!spool_has_pending(w.spool, SPOOL_HOLD_US - 1));
    ck_assert(spool_has_pending(w.spool, SPOOL_HOLD_US));
    world_done(&w);
}
END_TEST

START_TEST(test_spool_hold)
{
    struct world w;
    world_init(&w);
    put(&w, USAGE_READY, 0);
    spool_hold(w.spool, RES, 100);
    ck_assert(!spool_has_pending(w.spool, 99));
    ck_assert(spool_has_pending(w.spool, 100));
    world_done(&w);
}
END_TEST

UNIT_MAIN("usage",
          UNIT_CASE(test_chain) UNIT_CASE(test_telescopes)
              UNIT_CASE(test_reboot_is_a_gap) UNIT_CASE(test_clocks_never_run_back)
                  UNIT_CASE(test_order_is_kept) UNIT_CASE(test_spool_survives)
                      UNIT_CASE(test_spool_acks)
                          UNIT_CASE(test_spool_broken_is_not_restarted)
                              UNIT_CASE(test_spool_hold)
                                  UNIT_CASE(test_spool_unreadable_is_held))

/* advert: idle detection, windows, body. */
#include <stdio.h>
#include <string.h>

#include "client/agent/advert.h"
#include "client/lib/timefmt.h"
#include "tests/unit/unit.h"

static const struct advert_limits limits = {1024, 50000};

static enum advert_hold hold_by_name(void *arg, const char *uuid)
{
    const char *held = arg;
    if (held == NULL || strstr(held, uuid) == NULL)
        return ADVERT_FREE;
    return held[0] == '!' ? ADVERT_HELD_QUARANTINED : ADVERT_HELD;
}

static struct gpu_info gpu(const char *uuid)
{
    struct gpu_info g = {.memory_mib = 80000, .minor = 1, .major = 195};
    snprintf(g.uuid, sizeof(g.uuid), "%s", uuid);
    snprintf(g.model, sizeof(g.model), "H100");
    snprintf(g.device, sizeof(g.device), "/dev/nvidia1");
    return g;
}

static enum advert_state after(struct advert *a, struct gpu_info g, const char *held)
{
    advert_observe(a, &g, 1, &limits, hold_by_name, (void *)held);
    return advert_find(a, g.uuid)->state;
}

START_TEST(test_hysteresis)
{
    struct advert a = {.count = 0};
    struct gpu_info free_gpu = gpu("GPU-a"), used = free_gpu;
    used.process_count = 1;
    ck_assert_int_eq(after(&a, free_gpu, NULL), ADVERT_IDLE);
    ck_assert_int_eq(after(&a, used, NULL), ADVERT_BUSY); /* at once */
    ck_assert_int_eq(after(&a, free_gpu, NULL), ADVERT_BUSY);
    ck_assert_int_eq(after(&a, used, NULL), ADVERT_BUSY); /* counts anew */
    ck_assert_int_eq(after(&a, free_gpu, NULL), ADVERT_BUSY);
    ck_assert_int_eq(after(&a, free_gpu, NULL), ADVERT_IDLE);
}
END_TEST

START_TEST(test_thresholds)
{
    static const struct {
        int64_t mem, util;
        int procs;
        enum advert_state want;
    } rows[] = {
        {0, 0, 0, ADVERT_IDLE},    {1024, 50000, 0, ADVERT_IDLE},
        {1025, 0, 0, ADVERT_BUSY}, {0, 50001, 0, ADVERT_BUSY},
        {-1, -1, -1, ADVERT_IDLE}, {0, 0, 1, ADVERT_BUSY},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct advert a = {.count = 0};
        struct gpu_info g = gpu("GPU-a");
        g.mem_used_mib = rows[i].mem;
        g.utilisation_ppm = rows[i].util;
        g.process_count = rows[i].procs;
        ck_assert_msg(after(&a, g, NULL) == rows[i].want, "row %zu", i);
    }
}
END_TEST

START_TEST(test_holds_and_loss)
{
    struct advert a = {.count = 0};
    struct gpu_info g = gpu("GPU-a"), used = g;
    used.process_count = 3;
    ck_assert_int_eq(after(&a, g, "GPU-a"), ADVERT_LEASED);
    ck_assert_int_eq(after(&a, used, "GPU-a"), ADVERT_LEASED); /* the tenant's own */
    ck_assert_int_eq(after(&a, g, "!GPU-a"), ADVERT_QUARANTINED);
    g.lost = true;
    ck_assert_int_eq(after(&a, g, "GPU-a"), ADVERT_LOST);
    ck_assert_int_eq(after(&a, g, "!GPU-a"), ADVERT_QUARANTINED);
    g.lost = false;
    after(&a, g, NULL);
    ck_assert(advert_observe(&a, NULL, 0, &limits, hold_by_name, NULL));
    ck_assert_int_eq(advert_find(&a, "GPU-a")->state, ADVERT_LOST);
    ck_assert_ptr_null(advert_find(&a, "GPU-b"));
}
END_TEST

START_TEST(test_clean_after_lease_is_idle_at_once)
{
    struct advert a = {.count = 0};
    struct gpu_info g = gpu("GPU-a"), used = g;
    used.process_count = 1;
    after(&a, g, NULL);
    ck_assert_int_eq(after(&a, used, "GPU-a"), ADVERT_LEASED);
    advert_hold(&a, hold_by_name, NULL);
    ck_assert_int_eq(advert_find(&a, "GPU-a")->state, ADVERT_BUSY);
    advert_clean(&a, "GPU-a");
    advert_hold(&a, hold_by_name, NULL);
    ck_assert_int_eq(advert_find(&a, "GPU-a")->state, ADVERT_IDLE);
}
END_TEST

START_TEST(test_rules)
{
    static const struct {
        const char *text;
        unsigned days;
        int from, to;
    } good[] = {
        {"mon-fri 18:00-08:00", 0x1f, 1080, 480},
        {"sat,sun 00:00-24:00", 0x60, 0, 1440},
        {"daily 22:30-06:15", 0x7f, 1350, 375},
        {"sat-mon 01:00-02:00", 0x61, 60, 120},
        {"wed 00:00-00:00", 0x04, 0, 0},
    };
    static const char *const bad[] = {
        "",
        "mon",
        "mon 8:00-09:00",
        "mon 08:00",
        "mon 08:00-25:00",
        "mon 24:00-01:00",
        "mon-fri",
        "monday 08:00-09:00",
        "mon,, 08:00-09:00",
        "mon 08:60-09:00",
        "xyz 08:00-09:00",
        "mon 08:00-09:00 x",
        "mon- 08:00-09:00",
    };
    struct advert_rule r;
    struct err err;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        ck_assert_msg(advert_rule_parse(good[i].text, &r, &err) == 0, "%s",
                      good[i].text);
        ck_assert_uint_eq(r.days, good[i].days);
        ck_assert_int_eq(r.from_min, good[i].from);
        ck_assert_int_eq(r.to_min, good[i].to);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(advert_rule_parse(bad[i], &r, &err) == -1, "%s", bad[i]);
}
END_TEST

START_TEST(test_offsets)
{
    struct err err;
    int s;
    ck_assert_int_eq(advert_offset_parse("+09:00", &s, &err), 0);
    ck_assert_int_eq(s, 32400);
    ck_assert_int_eq(advert_offset_parse("-05:30", &s, &err), 0);
    ck_assert_int_eq(s, -19800);
    ck_assert_int_eq(advert_offset_parse("Z", &s, &err), 0);
    ck_assert_int_eq(s, 0);
    ck_assert_int_eq(advert_offset_parse("09:00", &s, &err), -1);
    ck_assert_int_eq(advert_offset_parse("+15:00", &s, &err), -1);
    ck_assert_int_eq(advert_offset_parse("JST", &s, &err), -1);
}
END_TEST

static int64_t at(const char *text)
{
    int64_t us;
    struct err err;
    ck_assert_msg(timefmt_parse(text, &us, &err) == 0, "%s", err.text);
    return us;
}

START_TEST(test_windows)
{
    struct advert_window w[ADVERT_WINDOWS_MAX];
    struct advert_rule r[2];
    struct err err;
    ck_assert_int_eq(advert_rule_parse("mon-fri 18:00-08:00", &r[0], &err), 0);
    ck_assert_int_eq(advert_rule_parse("sat,sun 00:00-24:00", &r[1], &err), 0);
    /* Wednesday 2026-11-25 03:00 in Japan: inside Tuesday night's window. */
    int64_t now = at("2026-11-24T18:00:00Z");
    size_t n = advert_windows(r, 2, 32400, now, w, ADVERT_WINDOWS_MAX);
    ck_assert_int_eq(w[0].from_us, at("2026-11-24T18:00:00+09:00"));
    ck_assert_int_eq(w[0].to_us, at("2026-11-25T08:00:00+09:00"));
    ck_assert_int_eq(w[1].from_us, at("2026-11-25T18:00:00+09:00"));
    /* Friday evening runs into the weekend, which runs to Sunday midnight: one. */
    ck_assert_int_eq(w[3].from_us, at("2026-11-27T18:00:00+09:00"));
    ck_assert_int_eq(w[3].to_us, at("2026-11-30T00:00:00+09:00"));
    for (size_t i = 0; i < n; i++) {
        ck_assert(w[i].from_us < w[i].to_us && w[i].to_us > now);
        ck_assert(i == 0 || w[i - 1].to_us < w[i].from_us);
        ck_assert(w[i].from_us < now + 14 * 24 * US_PER_HOUR);
    }
    ck_assert_uint_eq(advert_windows(r, 0, 0, now, w, ADVERT_WINDOWS_MAX), 0);
    /* All week round: one window without a seam. */
    ck_assert_int_eq(advert_rule_parse("daily 00:00-24:00", &r[0], &err), 0);
    ck_assert_uint_eq(advert_windows(r, 1, -18000, now, w, ADVERT_WINDOWS_MAX), 1);
}
END_TEST

START_TEST(test_body)
{
    struct advert a = {.count = 0};
    struct advert_window w = {0, US_PER_S};
    after(&a, gpu("GPU-a"), NULL);
    struct gpu_info mig = gpu("GPU-m");
    mig.mig = true;
    struct gpu_info both[2] = {gpu("GPU-a"), mig};
    advert_observe(&a, both, 2, &limits, hold_by_name, NULL);
    struct advert_body b = {.version = "0.1",
                            .boot_id = "b",
                            .address = "h:1",
                            .seq = 7,
                            .gpus = &a,
                            .currency = "JPY",
                            .price_micro = 5,
                            .windows = &w,
                            .window_count = 1,
                            .desired_version = "",
                            .wait = "20s"};
    json_t *body = advert_sync_body(&b);
    json_t *gpus = json_object_get(body, "gpus");
    ck_assert_uint_eq(json_array_size(gpus), 1); /* a MIG GPU is not told */
    ck_assert_str_eq(
        json_string_value(json_object_get(json_array_get(gpus, 0), "state")), "idle");
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(body, "price"), "micro")),
        5);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "windows")), 1);
    json_decref(body);
    b.currency = NULL;
    body = advert_sync_body(&b);
    ck_assert(json_is_null(json_object_get(body, "price")));
    json_decref(body);
}
END_TEST

UNIT_MAIN("advert", UNIT_CASE(test_hysteresis) UNIT_CASE(test_thresholds)
                        UNIT_CASE(test_holds_and_loss)
                            UNIT_CASE(test_clean_after_lease_is_idle_at_once)
                                UNIT_CASE(test_rules) UNIT_CASE(test_offsets)
                                    UNIT_CASE(test_windows) UNIT_CASE(test_body))

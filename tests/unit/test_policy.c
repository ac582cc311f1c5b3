/* policy and policy_file: what the provider's own rules refuse, whatever a grant says;
 * a file that changes; a file that cannot be trusted. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/agent/policy.h"
#include "client/agent/policy_file.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "tests/unit/unit.h"

#define TEN   "019307d0-7b3a-7c3e-8a5b-0123456789aa"
#define OTHER "019307d0-7b3a-7c3e-8a5b-0123456789bb"

static int64_t at(const char *text)
{
    int64_t us;
    struct err err;
    ck_assert_msg(timefmt_parse(text, &us, &err) == 0, "%s", err.text);
    return us;
}

static struct order order_of(const char *from, const char *to)
{
    struct order o = {.tenant = TEN, .gpu_count = 2};
    o.not_before_us = at(from);
    o.not_after_us = at(to);
    return o;
}

START_TEST(test_tenants)
{
    struct order o = order_of("2026-01-05T10:00:00Z", "2026-01-05T11:00:00Z");
    char *us[] = {(char *)TEN, NULL}, *them[] = {(char *)OTHER, NULL};
    static const struct {
        bool us, denied_us, denied_them, good;
    } rows[] = {{true, false, false, true},
                {true, true, false, false}, /* denied wins */
                {true, false, true, true},
                {false, false, false, false}};
    struct err err;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct policy p = {.tenants = rows[i].us ? us : them,
                           .denied = rows[i].denied_us     ? us
                                     : rows[i].denied_them ? them
                                                           : NULL};
        ck_assert_msg((policy_check(&p, &o, 0, &err) == 0) == rows[i].good, "%zu", i);
        if (!rows[i].good)
            ck_assert_int_eq(err.code, ERR_FORBIDDEN);
    }
}
END_TEST

/* 2026-01-05 is a Monday. */
static const struct {
    const char *rules[3];
    int offset_s;
    const char *from, *to;
    bool good;
} hours[] = {
    {{NULL}, 0, "2026-01-05T10:00:00Z", "2026-02-01T00:00:00Z", true},
    {{"mon-fri 09:00-17:00"}, 0, "2026-01-05T10:00:00Z", "2026-01-05T17:00:00Z", true},
    {{"mon-fri 09:00-17:00"}, 0, "2026-01-05T10:00:00Z", "2026-01-05T17:00:01Z", false},
    {{"mon-fri 09:00-17:00"}, 0, "2026-01-05T08:59:59Z", "2026-01-05T10:00:00Z", false},
    {{"mon-fri 09:00-17:00"}, 0, "2026-01-04T10:00:00Z", "2026-01-04T11:00:00Z", false},
    /* the same hours in Tokyo */
    {{"mon-fri 09:00-17:00"},
     32400,
     "2026-01-05T00:00:00Z",
     "2026-01-05T08:00:00Z",
     true},
    {{"mon-fri 09:00-17:00"},
     32400,
     "2026-01-05T10:00:00Z",
     "2026-01-05T11:00:00Z",
     false},
    /* over midnight, and rules that touch */
    {{"mon 18:00-08:00"}, 0, "2026-01-05T20:00:00Z", "2026-01-06T08:00:00Z", true},
    {{"mon 18:00-24:00", "tue 00:00-06:00"},
     0,
     "2026-01-05T20:00:00Z",
     "2026-01-06T06:00:00Z",
     true},
    {{"mon 18:00-24:00", "tue 00:01-06:00"},
     0,
     "2026-01-05T20:00:00Z",
     "2026-01-06T06:00:00Z",
     false},
    /* longer than windows are told ahead */
    {{"daily 00:00-24:00"}, 0, "2026-01-05T20:00:00Z", "2026-02-05T20:00:00Z", true},
    {{"mon-sat 00:00-24:00"}, 0, "2026-01-05T20:00:00Z", "2026-02-05T20:00:00Z", false},
};

START_TEST(test_hours)
{
    for (size_t i = 0; i < sizeof(hours) / sizeof(hours[0]); i++) {
        struct advert_rule rules[3];
        struct err err;
        struct policy p = {.hours = rules, .offset_s = hours[i].offset_s};
        while (hours[i].rules[p.hour_count] != NULL) {
            ck_assert_int_eq(advert_rule_parse(hours[i].rules[p.hour_count],
                                               &rules[p.hour_count], &err),
                             0);
            p.hour_count++;
        }
        struct order o = order_of(hours[i].from, hours[i].to);
        int rc = policy_check(&p, &o, 0, &err);
        ck_assert_msg((rc == 0) == hours[i].good, "row %zu: %s", i,
                      rc != 0 ? err.text : "accepted");
    }
}
END_TEST

struct world {
    char path[64];
    struct policy_file *file;
};

static void put(const struct world *w, const char *text)
{
    char next[96];
    struct err err;
    snprintf(next, sizeof(next), "%s.new", w->path);
    ck_assert_int_eq(fsx_write(next, text, strlen(text), 0644, &err), 0);
    ck_assert_int_eq(rename(next, w->path), 0);
}

static void world_init(struct world *w, const char *text)
{
    snprintf(w->path, sizeof(w->path), "/tmp/test_policy.XXXXXX");
    int fd = mkstemp(w->path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    put(w, text);
    w->file = policy_file_new(w->path);
}

static void world_done(struct world *w)
{
    policy_file_free(w->file);
    unlink(w->path);
}

static int ask(struct world *w, struct err *err)
{
    struct order o = order_of("2026-01-05T10:00:00Z", "2026-01-05T12:00:00Z");
    const struct policy *p;
    if (policy_file_get(w->file, &p, err) != 0)
        return -1;
    return policy_check(p, &o, 1, err);
}

START_TEST(test_file_is_read_again)
{
    struct world w;
    struct err err;
    world_init(&w, "# anyone, three GPUs\nmax_gpus_per_tenant = 3\n");
    ck_assert_msg(ask(&w, &err) == 0, "%s", err.text);
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"max_gpus_per_tenant = 2\n", "max_gpus_per_tenant"},
        {"max_duration = 1h\n", "max_duration"},
        {"allowed_tenants = " OTHER "\n", "allowed_tenants"},
        {"denied_tenants = " OTHER "\ndenied_tenants = " TEN "\n", "denied_tenants"},
        {"allowed_hours = mon 11:00-20:00\n", "2026-01-05 10:00"},
        {"allowed_hours = mon 10:00-20:00\nhours_utc_offset = +09:00\n",
         "2026-01-05 19:00"}, /* until 11:00 UTC is allowed: refused from 20:00 */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        put(&w, rows[i].text);
        ck_assert_msg(ask(&w, &err) == -1, "row %zu", i);
        ck_assert_int_eq(err.code, ERR_FORBIDDEN);
        if (i != 5)
            ck_assert_msg(strstr(err.text, rows[i].says) != NULL, "row %zu: %s", i,
                          err.text);
        put(&w, "allowed_tenants = " TEN "\n");
        ck_assert_msg(ask(&w, &err) == 0, "row %zu: %s", i, err.text);
    }
    world_done(&w);
}
END_TEST

/* Whatever is wrong with it, nothing starts; and when it is put right, things do. */
START_TEST(test_bad_file_allows_nothing)
{
    static const char *const rows[] = {
        "max_gpus_per_tenant = many\n",
        "max_gpus = 1\n",
        "max_duration = 2h\nmax_duration = 3h\n",
        "max_duration\n",
        "allowed_tenants = everyone\n",
        "denied_tenants = acme\n",
        "allowed_hours = night\n",
        "hours_utc_offset = JST\n",
        "max_gpus_per_tenant = -1\n",
    };
    struct world w;
    struct err err;
    world_init(&w, "");
    ck_assert_int_eq(ask(&w, &err), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        put(&w, rows[i]);
        ck_assert_msg(ask(&w, &err) == -1, "row %zu", i);
        ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
        /* The tenant is not told what stands in it; the provider is. */
        ck_assert_ptr_null(strstr(err.text, w.path));
        ck_assert_int_eq(policy_file_check(w.path, &err), -1);
        ck_assert_ptr_nonnull(strstr(err.text, w.path));
        put(&w, "");
        ck_assert_int_eq(ask(&w, &err), 0);
    }
    ck_assert_int_eq(chmod(w.path, 0664), 0); /* others could have written it */
    ck_assert_int_eq(ask(&w, &err), -1);
    ck_assert_int_eq(chmod(w.path, 0644), 0);
    ck_assert_int_eq(ask(&w, &err), 0);
    ck_assert_int_eq(unlink(w.path), 0);
    ck_assert_int_eq(ask(&w, &err), -1);
    ck_assert_int_eq(mkdir(w.path, 0700), 0);
    ck_assert_int_eq(ask(&w, &err), -1);
    ck_assert_int_eq(rmdir(w.path), 0);
    put(&w, "");
    ck_assert_int_eq(ask(&w, &err), 0);
    world_done(&w);
}
END_TEST

UNIT_MAIN("policy", UNIT_CASE(test_tenants) UNIT_CASE(test_hours)
                        UNIT_CASE(test_file_is_read_again)
                            UNIT_CASE(test_bad_file_allows_nothing))

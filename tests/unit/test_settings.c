/* settings: what is refused, what follows from what, and the sample file. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/settings.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "tests/unit/unit.h"

static int load(const char *text, struct settings *s, struct err *err)
{
    char path[] = "/tmp/test_settings.XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int rc = settings_load(path, s, err);
    unlink(path);
    return rc;
}

START_TEST(test_defaults)
{
    struct settings s;
    struct err err;
    ck_assert_msg(settings_load(NULL, &s, &err) == 0, "%s", err.text);
    ck_assert_str_eq(s.inventory, "nvml");
    ck_assert_str_eq(s.cgroup_base, "neargpu");
    ck_assert_int_eq(s.sample_interval_us, 5 * US_PER_S);
    ck_assert_uint_ne(s.uid, 0);
    ck_assert_uint_eq(s.rule_count, 0);
    settings_done(&s);
}
END_TEST

START_TEST(test_reads)
{
    struct settings s;
    struct err err;
    ck_assert_msg(load("inventory = sim\nsim_file = /tmp/g\ncurrency = JPY\n"
                       "price_per_gpu_hour = 300\nwindows = mon-fri 18:00-08:00\n"
                       "windows = sat,sun 00:00-24:00\nwindows_utc_offset = +09:00\n"
                       "state_dir = /srv/a\n",
                       &s, &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(s.rule_count, 2);
    ck_assert_int_eq(s.offset_s, 32400);
    ck_assert_int_eq(s.price_micro, 300000000);
    ck_assert_int_eq(strncmp(s.cgroup_base, "neargpu-", 8), 0);
    char base[64];
    snprintf(base, sizeof(base), "%s", s.cgroup_base);
    settings_done(&s);
    ck_assert_int_eq(load("state_dir = /srv/b\n", &s, &err), 0);
    ck_assert_str_ne(s.cgroup_base, base); /* two agents never share one */
    settings_done(&s);
}
END_TEST

START_TEST(test_refuses)
{
    static const struct {
        const char *text, *names;
    } rows[] = {
        {"server = http://h:1\n", "server"},
        {"inventory = rocm\n", "inventory"},
        {"inventory = sim\n", "sim_file"},
        {"price_per_gpu_hour = 3\n", "currency"},
        {"currency = XQQ\n", "currency"},
        {"windows = always\n", "windows"},
        {"windows_utc_offset = JST\n", "windows_utc_offset"},
        {"job_user = root\n", "job_user"},
        {"job_user = no-such-user-here\n", "job_user"},
        {"cgroup_base = a/b\n", "cgroup_base"},
        {"cgroup_base = ..\n", "cgroup_base"},
        {"colour = red\n", "colour"},
    };
    struct settings s;
    struct err err;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ck_assert_msg(load(rows[i].text, &s, &err) == -1, "row %zu", i);
        ck_assert_msg(strstr(err.text, rows[i].names) != NULL, "row %zu: %s", i,
                      err.text);
    }
}
END_TEST

START_TEST(test_sample_file)
{
    char *file, *made = conf_sample(settings_keys, settings_key_count);
    struct err err;
    ck_assert_msg(fsx_read(SAMPLE_CONF, 1 << 20, &file, NULL, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(strcmp(file, made) == 0,
                  "packaging/examples/agent.conf is not what `neargpu-agent "
                  "sample-conf` prints");
    free(file);
    free(made);
}
END_TEST

UNIT_MAIN("settings", UNIT_CASE(test_defaults) UNIT_CASE(test_reads)
                          UNIT_CASE(test_refuses) UNIT_CASE(test_sample_file))

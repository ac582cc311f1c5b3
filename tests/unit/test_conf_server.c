/* Tests of neargpud's configuration: defaults are whole, options win over the file,
 * what is wrong is refused. */
#include "server/conf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "tests/unit/unit.h"

static int load(int argc, char **argv, struct server_conf *ret, struct err *err)
{
    struct opt_values v;
    if (opt_parse(&server_program, argc, argv, &v, err) != 0)
        return -1;
    int rc = server_conf_load(&v, ret, err);
    opt_done(&v);
    return rc;
}

static void write_file(char path[64], const char *text)
{
    struct err err;
    snprintf(path, 64, "/tmp/neargpu-conf.XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(fsx_write(path, text, strlen(text), 0600, &err), 0);
}

START_TEST(test_nothing_said)
{
    struct server_conf c;
    struct err err;
    char path[64];
    write_file(path, "");
    char *argv[] = {"neargpud", "--conf", path, NULL};
    ck_assert_msg(load(3, argv, &c, &err) == 0, "%s", err.text);
    ck_assert_str_eq(c.listen[0], "127.0.0.1:7443");
    ck_assert_ptr_null(c.listen[1]);
    ck_assert_str_eq(c.currency, "JPY");
    ck_assert_str_eq(c.pki_dir, "/var/lib/neargpu/pki");
    ck_assert(c.rate_limits);
    server_conf_done(&c);
    unlink(path);
}
END_TEST

START_TEST(test_options_win)
{
    struct server_conf c;
    struct err err;
    char path[64];
    write_file(path, "data_dir = /a\nlisten = 0.0.0.0:1\nlisten = [::]:1\n"
                     "currency = USD\nmarket = gpu.example\n");
    char *argv[] = {"neargpud", "--conf",  path,         "--data-dir", "/b",
                    "--listen", "[::1]:0", "--currency", "EUR",        NULL};
    ck_assert_msg(load(9, argv, &c, &err) == 0, "%s", err.text);
    ck_assert_str_eq(c.data_dir, "/b");
    ck_assert_str_eq(c.pki_dir, "/b/pki");
    ck_assert_str_eq(c.listen[0], "[::1]:0");
    ck_assert_ptr_null(c.listen[1]);
    ck_assert_str_eq(c.currency, "EUR");
    ck_assert_str_eq(c.market, "gpu.example");
    server_conf_done(&c);
    unlink(path);
}
END_TEST

START_TEST(test_path_hook)
{
    static const char *const good[] = {"/bin/true", "https://net.example/hook?a=1"};
    for (size_t i = 0; i < 2; i++) {
        struct server_conf c;
        struct err err;
        char path[64], text[100];
        snprintf(text, sizeof(text), "path_hook = %s\nlost_after = 91s\n", good[i]);
        write_file(path, text);
        char *argv[] = {"neargpud", "--conf", path, NULL};
        ck_assert_msg(load(3, argv, &c, &err) == 0, "%s", err.text);
        ck_assert_str_eq(c.path_hook, good[i]);
        ck_assert_ptr_null(c.path_hook_key_file);
        server_conf_done(&c);
        unlink(path);
    }
}
END_TEST

START_TEST(test_refused)
{
    static const char *const bad[] = {
        "currency = XXQ\n",         "market = Has Blank\n",
        "log_level = loud\n",       "colour = red\n",
        "fee_ppm = 1000001\n",      "admin_database = dbname=x\n",
        "probe_interval = 10ms\n",  "issuer_registration = T123\n",
        "writer_connections = 3\n", "path_hook = light-path\n",
        "path_hook = http://a/b\n", "path_hook = /nonexistent/hook\n",
        "lost_after = 60s\n",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct server_conf c;
        struct err err;
        char path[64];
        write_file(path, bad[i]);
        char *argv[] = {"neargpud", "--conf", path, NULL};
        ck_assert_msg(load(3, argv, &c, &err) == -1, "%s", bad[i]);
        unlink(path);
    }
}
END_TEST

/* The sample is what the table says, and it is accepted. */
START_TEST(test_sample)
{
    struct server_conf c;
    struct err err;
    char path[64];
    char *sample = conf_sample(server_conf_keys, server_conf_count);
    for (char *p = sample; (p = strchr(p, '\n')) != NULL; p++)
        if (p[1] == '#' && p[2] != ' ' && strstr(p, " = ") != NULL &&
            strchr(p + 1, '\n') != NULL && strstr(p, " = ") < strchr(p + 1, '\n'))
            p[1] = ' '; /* uncommented where there is a default */
    write_file(path, sample);
    char *argv[] = {"neargpud", "--conf", path, NULL};
    ck_assert_msg(load(3, argv, &c, &err) == 0, "%s", err.text);
    server_conf_done(&c);
    free(sample);
    unlink(path);
}
END_TEST

UNIT_MAIN("server conf",
          UNIT_CASE(test_nothing_said) UNIT_CASE(test_options_win)
              UNIT_CASE(test_path_hook) UNIT_CASE(test_refused) UNIT_CASE(test_sample))

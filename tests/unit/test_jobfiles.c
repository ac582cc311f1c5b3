/* What lies in a job's directory and in mountinfo: spec.json, the output log, the
 * cgroup mounts of different systems. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/agent/cgroup.h"
#include "client/agent/keeper_log.h"
#include "client/agent/launch.h"
#include "client/agent/lease_init.h"
#include "client/lib/frame.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

static char dir[64];
static int dir_fd;
static struct err err;

#define ok(call) ck_assert_msg((call) == 0, "%s: %s", #call, err.text)

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/ngjob-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void teardown(void)
{
    close(dir_fd);
    ok(fsx_remove_tree(dir, &err));
}

START_TEST(test_spec_round_trip)
{
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)"echo \"ü\\n\"\t", NULL};
    char *envp[] = {(char *)"A=b=c", (char *)"EMPTY=", NULL};
    char *hide[] = {(char *)"/mnt/secret", NULL};
    struct launch_node nodes[] = {{(char *)"/dev/nvidia3", (char *)"nvidia3", 195, 3},
                                  {(char *)"/dev/nvidia-caps/nvidia-cap7",
                                   (char *)"nvidia-caps/nvidia-cap7", 237, 7}};
    struct launch_spec in = {.lease = (char *)"r",
                             .job = (char *)"j",
                             .base = (char *)"b",
                             .argv = argv,
                             .envp = envp,
                             .hide = hide,
                             .cwd = (char *)"/data",
                             .uid = 1000,
                             .gid = 1001,
                             .nodes = nodes,
                             .node_count = 2,
                             .drain_us = 5,
                             .output_max = 6,
                             .nofile = 7,
                             .nproc = 8,
                             .want_stdin = true};
    struct launch_spec out = {0};
    ok(launch_spec_write(dir, &in, &err));
    ok(launch_spec_read(dir, &out, &err));
    ck_assert_str_eq(out.argv[2], argv[2]);
    ck_assert_ptr_null(out.argv[3]);
    ck_assert_str_eq(out.envp[0], "A=b=c");
    ck_assert_str_eq(out.hide[0], "/mnt/secret");
    ck_assert_str_eq(out.base, "b");
    ck_assert_str_eq(out.cwd, "/data");
    ck_assert(out.uid == 1000 && out.gid == 1001 && out.want_stdin);
    ck_assert(out.drain_us == 5 && out.output_max == 6 && out.nofile == 7 &&
              out.nproc == 8);
    ck_assert_uint_eq(out.node_count, 2);
    ck_assert_str_eq(out.nodes[1].inside, "nvidia-caps/nvidia-cap7");
    ck_assert(out.nodes[1].major == 237 && out.nodes[1].minor == 7);
    launch_spec_done(&out);
    struct stat st; /* it holds the job's environment */
    char *path = xasprintf("%s/spec.json", dir);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    free(path);
}
END_TEST

START_TEST(test_bad_specs_are_refused)
{
    char *argv[] = {(char *)"true", NULL}, *none[] = {NULL};
    char *noname[] = {(char *)"=x", NULL}, *latin[] = {(char *)"\xff", NULL};
    struct launch_node up = {(char *)"/dev/x", (char *)"../etc/passwd", 1, 1};
    struct launch_node deep = {(char *)"/dev/x", (char *)"a/../../b", 1, 1};
    struct launch_node rel = {(char *)"dev/x", (char *)"x", 1, 1};
    const struct launch_spec good = {
        .lease = (char *)"r", .job = (char *)"j", .argv = argv, .uid = 1, .gid = 1};
    struct launch_spec bad[14];
    for (size_t i = 0; i < 14; i++)
        bad[i] = good;
    bad[0].uid = 0;
    bad[1].gid = 0;
    bad[2].argv = none;
    bad[3].envp = noname;
    bad[4].nodes = &up, bad[4].node_count = 1;
    bad[5].nodes = &deep, bad[5].node_count = 1;
    bad[6].nodes = &rel, bad[6].node_count = 1;
    bad[7].lease = (char *)"../r";
    bad[8].job = (char *)"";
    bad[9].cwd = (char *)"tmp";
    bad[10].argv = latin;
    bad[11].uid = (uid_t)-1;
    bad[12].drain_us = -1;
    bad[13].base = (char *)"..";
    ok(launch_spec_write(dir, &good, &err));
    for (size_t i = 0; i < 14; i++)
        ck_assert_msg(launch_spec_write(dir, &bad[i], &err) == -1, "spec %zu", i);
}
END_TEST

static struct keeper_log open_log(int64_t max)
{
    struct keeper_log log;
    ok(keeper_log_open(&log, dir_fd, "output", max, &err));
    return log;
}

START_TEST(test_log_offsets)
{
    struct keeper_log log = open_log(1 << 20);
    ck_assert_int_eq(log.size, 0);
    keeper_log_add(&log, 'o', "hello", 5);
    keeper_log_add(&log, 'e', "", 0); /* nothing: no frame */
    keeper_log_add(&log, 'e', "x", 1);
    ck_assert_int_eq(log.size, 10 + 6);
    for (int64_t at = -1; at <= 17; at++)
        ck_assert_int_eq(keeper_log_is_boundary(&log, at),
                         at == 0 || at == 10 || at == 16);
    /* A torn frame at the end, as after a power cut, is cut off. */
    ck_assert_int_eq(pwrite(log.fd, "o\0\0\0\5hel", 8, log.size), 8);
    keeper_log_close(&log);
    log = open_log(1 << 20);
    ck_assert_int_eq(log.size, 16);
    struct stat st;
    ck_assert_int_eq(fstat(log.fd, &st), 0);
    ck_assert_int_eq(st.st_size, 16);
    keeper_log_close(&log);
}
END_TEST

START_TEST(test_log_boundaries_in_a_large_one)
{
    static char block[RUN_FRAME_MAX];
    struct keeper_log log = open_log(INT64_C(1) << 30);
    int64_t at[400];
    for (int i = 0; i < 400; i++) {
        at[i] = log.size;
        keeper_log_add(&log, i % 3 ? 'o' : 'e', block, (size_t)(1 + i * 7919 % 65536));
    }
    ck_assert_int_gt(log.size, 10 << 20);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 400; i++) {
            ck_assert(keeper_log_is_boundary(&log, at[i]));
            ck_assert(!keeper_log_is_boundary(&log, at[i] + 1));
        }
        ck_assert(keeper_log_is_boundary(&log, log.size));
        keeper_log_close(&log); /* the same from a walk over the file */
        log = open_log(INT64_C(1) << 30);
    }
    keeper_log_close(&log);
}
END_TEST

START_TEST(test_log_bound)
{
    static char block[1000];
    struct keeper_log log = open_log(5000);
    for (int i = 0; i < 20; i++)
        keeper_log_add(&log, 'o', block, sizeof(block));
    ck_assert(log.full);
    ck_assert_int_le(log.size, 5000);
    ck_assert_int_eq(log.dropped, 16 * 1000);
    char tail[150];
    ck_assert_int_gt(pread(log.fd, tail, sizeof(tail) - 1, 4 * 1005), 20);
    ck_assert_int_eq(tail[0], 'e');
    keeper_log_close(&log);
    log = open_log(5000); /* a new keeper goes on dropping */
    int64_t size = log.size;
    keeper_log_add(&log, 'o', block, sizeof(block));
    ck_assert_int_le(log.size, 5000);
    ck_assert_int_le(log.size - size, 200);
    keeper_log_close(&log);
}
END_TEST

START_TEST(test_first_account_of_the_end_stays)
{
    struct job_exit first = {false, 3, "exited"}, second = {true, 9, "killed"};
    char *path = xasprintf("%s/exit", dir), *text, buf[24];
    ok(job_exit_write(dir_fd, &first, &err));
    ok(job_exit_write(dir_fd, &second, &err));
    ok(fsx_read(path, 256, &text, NULL, &err));
    ck_assert_str_eq(text, "{\"exit\":3,\"reason\":\"exited\"}\n");
    free(text);
    free(path);
    ck_assert_str_eq(job_exit_reason(dir_fd, buf, "killed"), "killed");
    ok(launch_set_reason(dir, "revoked", &err));
    ck_assert_str_eq(job_exit_reason(dir_fd, buf, "killed"), "revoked");
    ok(launch_set_reason(dir, "bad\"reason", &err)); /* goes into JSON */
    ck_assert_str_eq(job_exit_reason(dir_fd, buf, "killed"), "bad");
}
END_TEST

START_TEST(test_mounts)
{
    static const struct {
        const char *text, *v2, *memory, *pids;
    } rows[] = {
        {"24 30 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 "
         "rw,nsdelegate\n",
         "/sys/fs/cgroup", "", ""},
        {"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
         "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
         "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
         "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
         "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"},
        {"1 2 0:1 / /c rw - cgroup c rw,cpu,memory\n2 2 0:1 / /u rw - cgroup2 c rw\n",
         "/u", "/c", ""},
        {"1 2 0:1 / /c rw - cgroup c rw,pids,memory\n2 2 0:1 / /u rw - cgroup2 c rw\n",
         "/u", "/c", "/c"},
        /* A name that only contains the word. */
        {"1 2 0:1 / /c rw - cgroup c rw,name=mempids\n2 2 0:1 / /u rw - cgroup2 c rw\n",
         "/u", "", ""},
        {"nonsense\n\n2 2 0:1 / /u rw - cgroup2 c rw\n", "/u", "", ""},
    };
    struct cgroup_mounts m;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ok(cgroup_parse_mounts(rows[i].text, &m, &err));
        ck_assert_str_eq(m.v2, rows[i].v2);
        ck_assert_str_eq(m.v1_memory, rows[i].memory);
        ck_assert_str_eq(m.v1_pids, rows[i].pids);
    }
    ck_assert_int_eq(cgroup_parse_mounts("", &m, &err), -1);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jobfiles");
    TCase *tc = tcase_create("jobfiles");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_spec_round_trip);
    tcase_add_test(tc, test_bad_specs_are_refused);
    tcase_add_test(tc, test_log_offsets);
    tcase_add_test(tc, test_log_boundaries_in_a_large_one);
    tcase_add_test(tc, test_log_bound);
    tcase_add_test(tc, test_first_account_of_the_end_stays);
    tcase_add_test(tc, test_mounts);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

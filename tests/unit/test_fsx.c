/* test_fsx: real files in a directory of its own; log and clock beside them, because
 * they are the other small edges. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

static char dir[64];

static void setup(void)
{
    memcpy(dir, "/tmp/test_fsx.XXXXXX", 21);
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    struct err e;
    ck_assert_msg(fsx_remove_tree(dir, &e) == 0, "%s", e.text);
}

static char *at(const char *name)
{
    static char path[4][200];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof(path[0]), "%s/%s", dir, name);
    return path[turn];
}

START_TEST(test_write_read)
{
    struct err e;
    char *data;
    size_t len;
    ck_assert_int_eq(fsx_write(at("f"), "a\0b", 3, 0640, &e), 0);
    ck_assert_int_eq(fsx_read(at("f"), 3, &data, &len, &e), 0);
    ck_assert_uint_eq(len, 3);
    ck_assert_mem_eq(data, "a\0b", 4);
    free(data);
    struct stat st;
    ck_assert_int_eq(stat(at("f"), &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0640);
    data = NULL;
    ck_assert_int_eq(fsx_read(at("f"), 2, &data, &len, &e), -1);
    ck_assert_int_eq(e.code, ERR_TOO_LARGE);
    ck_assert_ptr_null(data);
    ck_assert_int_eq(fsx_read(at("none"), 2, &data, &len, &e), -1);
    ck_assert_int_eq(e.code, ERR_NOT_FOUND);
    ck_assert_int_eq(fsx_write(at("f"), "", 0, 0600, &e), 0);
    ck_assert_int_eq(fsx_read(at("f"), 2, &data, NULL, &e), 0);
    ck_assert_str_eq(data, "");
    free(data);
    ck_assert_int_eq(fsx_write(at("no/such/f"), "", 0, 0600, &e), -1);
    ck_assert_int_eq(e.code, ERR_IO);
}
END_TEST

/* A replaced file is another file: a reader keeps the old content whole. */
START_TEST(test_write_is_atomic)
{
    struct err e;
    ck_assert_int_eq(fsx_write(at("f"), "old", 3, 0600, &e), 0);
    int fd = open(at("f"), O_RDONLY);
    ck_assert_int_eq(fsx_write(at("f"), "new", 3, 0600, &e), 0);
    char buf[4] = {0};
    ck_assert_int_eq(read(fd, buf, 3), 3);
    ck_assert_str_eq(buf, "old");
    close(fd);
    /* Nothing else is left behind, also when the rename fails. */
    ck_assert_int_eq(mkdir(at("d"), 0700), 0);
    ck_assert_int_eq(fsx_write(at("d"), "x", 1, 0600, &e), -1);
    ck_assert_int_eq(rmdir(at("d")), 0);
    ck_assert_int_eq(unlink(at("f")), 0);
    ck_assert_int_eq(rmdir(dir), 0);
    ck_assert_int_eq(mkdir(dir, 0700), 0);
}
END_TEST

START_TEST(test_secret)
{
    struct err e;
    char *data;
    ck_assert_int_eq(fsx_write(at("k"), "key", 3, 0600, &e), 0);
    ck_assert_int_eq(fsx_read_secret(at("k"), 10, &data, NULL, &e), 0);
    free(data);
    static const mode_t open_modes[] = {0640, 0604, 0620, 0610, 0601, 0644};
    for (size_t i = 0; i < sizeof(open_modes) / sizeof(open_modes[0]); i++) {
        ck_assert_int_eq(chmod(at("k"), open_modes[i]), 0);
        ck_assert_msg(fsx_read_secret(at("k"), 10, &data, NULL, &e) == -1,
                      "accepted mode %o", (unsigned)open_modes[i]);
        ck_assert_ptr_nonnull(strstr(e.text, "chmod 600"));
    }
    ck_assert_int_eq(mkfifo(at("p"), 0600), 0);
    ck_assert_int_eq(fsx_read_secret(at("p"), 10, &data, NULL, &e), -1);
    ck_assert_int_eq(fsx_read_secret(dir, 10, &data, NULL, &e), -1);
    if (geteuid() == 0) {
        ck_assert_int_eq(fsx_write(at("o"), "key", 3, 0600, &e), 0);
        ck_assert_int_eq(chown(at("o"), 65534, 65534), 0);
        ck_assert_int_eq(fsx_read_secret(at("o"), 10, &data, NULL, &e), -1);
        ck_assert_ptr_nonnull(strstr(e.text, "chown 0"));
    }
}
END_TEST

START_TEST(test_mkdirs)
{
    struct err e;
    ck_assert_int_eq(fsx_mkdirs(at("a/b/c"), 0700, &e), 0);
    ck_assert_int_eq(fsx_mkdirs(at("a/b/c/"), 0700, &e), 0);
    ck_assert_int_eq(access(at("a/b/c"), F_OK), 0);
    ck_assert_int_eq(fsx_write(at("a/f"), "", 0, 0600, &e), 0);
    ck_assert_int_eq(fsx_mkdirs(at("a/f"), 0700, &e), -1);
    ck_assert_int_eq(fsx_mkdirs(at("a/f/g"), 0700, &e), -1);
}
END_TEST

START_TEST(test_remove_tree)
{
    struct err e;
    ck_assert_int_eq(fsx_mkdirs(at("t/x/y"), 0700, &e), 0);
    ck_assert_int_eq(fsx_mkdirs(at("outside"), 0700, &e), 0);
    ck_assert_int_eq(fsx_write(at("outside/kept"), "k", 1, 0600, &e), 0);
    ck_assert_int_eq(fsx_write(at("t/x/f"), "k", 1, 0600, &e), 0);
    ck_assert_int_eq(symlink(at("outside"), at("t/x/link")), 0);
    ck_assert_int_eq(symlink("/nowhere", at("t/dangling")), 0);
    ck_assert_msg(fsx_remove_tree(at("t"), &e) == 0, "%s", e.text);
    ck_assert_int_eq(access(at("t"), F_OK), -1);
    ck_assert_int_eq(access(at("outside/kept"), F_OK), 0);
    ck_assert_int_eq(fsx_remove_tree(at("t"), &e), 0);
    ck_assert_int_eq(symlink(at("outside"), at("link")), 0);
    ck_assert_int_eq(fsx_remove_tree(at("link"), &e), 0);
    ck_assert_int_eq(access(at("outside/kept"), F_OK), 0);
}
END_TEST

START_TEST(test_nonblock)
{
    int fd[2];
    char c;
    ck_assert_int_eq(pipe(fd), 0);
    ck_assert_int_eq(fsx_set_nonblock(fd[0], NULL), 0);
    ck_assert_int_eq(read(fd[0], &c, 1), -1);
    ck_assert_int_eq(errno, EAGAIN);
    close(fd[0]);
    close(fd[1]);
    ck_assert_int_eq(fsx_set_nonblock(fd[0], NULL), -1);
}
END_TEST

/* Runs log_at with stderr in a pipe and returns what came out. */
static void logged(char *out, size_t cap, enum log_level min, enum log_level level,
                   const char *text)
{
    int fd[2], keep = dup(STDERR_FILENO);
    ck_assert_int_eq(pipe(fd), 0);
    dup2(fd[1], STDERR_FILENO);
    log_init("prog", min);
    log_at(level, "%s", text);
    dup2(keep, STDERR_FILENO);
    close(keep);
    close(fd[1]);
    ssize_t n = read(fd[0], out, cap - 1);
    close(fd[0]);
    out[n < 0 ? 0 : n] = '\0';
}

START_TEST(test_log)
{
    char out[4096];
    logged(out, sizeof(out), LOG_LVL_INFO, LOG_LVL_WARN, "one\ntwo\x1b[31m");
    ck_assert_str_eq(out + 24, " warn prog: one?two?[31m\n");
    ck_assert_int_eq(out[10], 'T');
    ck_assert_int_eq(out[19], '.');
    ck_assert_int_eq(out[23], 'Z');
    logged(out, sizeof(out), LOG_LVL_INFO, LOG_LVL_DEBUG, "hidden");
    ck_assert_str_eq(out, "");
    char big[3000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    logged(out, sizeof(out), LOG_LVL_DEBUG, LOG_LVL_ERROR, big);
    ck_assert_uint_eq(strlen(out), 2047);
    ck_assert_int_eq(out[2046], '\n');
}
END_TEST

START_TEST(test_clock)
{
    int64_t a = clock_boot_us(), now = clock_now_us(), b = clock_boot_us();
    ck_assert_int_le(a, b);
    ck_assert_int_gt(now, INT64_C(1700000000000000));
    ck_assert_int_gt(a, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fsx");
    TCase *tc = tcase_create("fsx");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_write_read);
    tcase_add_test(tc, test_write_is_atomic);
    tcase_add_test(tc, test_secret);
    tcase_add_test(tc, test_mkdirs);
    tcase_add_test(tc, test_remove_tree);
    tcase_add_test(tc, test_nonblock);
    tcase_add_test(tc, test_log);
    tcase_add_test(tc, test_clock);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

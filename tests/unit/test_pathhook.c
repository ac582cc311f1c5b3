/* Tests of path hooks, with real programs: what they are given, how they end, that a
 * slow one and all it started are killed, and that others' children are left alone. */
#include "server/flow/pathhook.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

static char dir[64], script[96], out[96];
static struct event_base *base;

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/neargpu-hook.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(script, sizeof(script), "%s/hook", dir);
    snprintf(out, sizeof(out), "%s/out", dir);
    base = event_base_new();
}

static void teardown(void)
{
    unlink(script);
    unlink(out);
    rmdir(dir);
    event_base_free(base);
}

static void write_script(const char *text)
{
    struct err err;
    char *whole = xasprintf("#!/bin/sh\nout=%s\n%s\n", out, text);
    ck_assert_int_eq(fsx_write(script, whole, strlen(whole), 0700, &err), 0);
    free(whole);
}

static struct pathhook *hook_make(int64_t limit_us)
{
    struct pathhook_opts opts = {.base = base, .hook = script, .limit_us = limit_us};
    return pathhook_new(&opts);
}

struct answer {
    int count;
    uint64_t id;
    bool good;
    char text[ERR_TEXT_MAX];
};

static void on_done(void *arg, uint64_t id, const struct err *err)
{
    struct answer *a = arg;
    a->count++;
    a->id = id;
    a->good = err == NULL;
    snprintf(a->text, sizeof(a->text), "%s", err != NULL ? err->text : "");
}

static void start(struct pathhook *h, struct answer *a, uint64_t id)
{
    struct err err;
    struct pathhook_job job = {"light", "tokyo-osaka", "{\"lanes\":2}", on_done, a, id};
    ck_assert_msg(pathhook_start(h, &job, &err) == 0, "%s", err.text);
}

static void run_until(struct answer *a, int count)
{
    while (a->count < count)
        ck_assert_int_ne(event_base_loop(base, EVLOOP_ONCE), -1);
}

static char *read_out(void)
{
    struct err err;
    char *text = NULL;
    size_t len;
    ck_assert_msg(fsx_read(out, 4096, &text, &len, &err) == 0, "%s", err.text);
    return text;
}

START_TEST(test_given)
{
    struct answer a = {0};
    int fds[2];
    setup();
    ck_assert_int_eq(pipe(fds), 0); /* neither end may be inherited */
    setenv("SECRET", "x", 1);
    write_script(
        "cat >\"$out\"; echo \" $1 $2 $#\" >>\"$out\"; "
        "env | grep -c SECRET >>\"$out\"; ls /proc/self/fd | wc -l >>\"$out\"");
    struct pathhook *h = hook_make(0);
    start(h, &a, 7);
    ck_assert_uint_eq(pathhook_room(h), PATHHOOK_RUNNING_MAX - 1);
    ck_assert_int_eq(a.count, 0);
    run_until(&a, 1);
    ck_assert_msg(a.good, "%s", a.text);
    ck_assert_uint_eq(a.id, 7);
    ck_assert_uint_eq(pathhook_room(h), PATHHOOK_RUNNING_MAX);
    char *text = read_out();
    /* 0, 1, 2 and the directory that ls reads. */
    ck_assert_str_eq(text, "{\"lanes\":2} light tokyo-osaka 2\n0\n4\n");
    free(text);
    close(fds[0]);
    close(fds[1]);
    pathhook_free(h);
    teardown();
}
END_TEST

START_TEST(test_failed)
{
    struct answer a = {0};
    setup();
    struct pathhook *h = hook_make(0);
    write_script("i=0; while [ $i -lt 20000 ]; do echo chatter >&2; i=$((i+1)); done; "
                 "printf 'no such\\tport\\n' >&2; exit 3");
    start(h, &a, 1);
    run_until(&a, 1);
    ck_assert(!a.good);
    ck_assert_msg(strncmp(a.text, "exit status 3: ", 15) == 0, "%s", a.text);
    size_t len = strlen(a.text);
    ck_assert_msg(len > 30 && strcmp(a.text + len - 12, "no such port") == 0, "%s",
                  a.text);
    write_script("kill -9 $$");
    start(h, &a, 1);
    run_until(&a, 2);
    ck_assert_str_eq(a.text, "ended by signal 9");
    unlink(script);
    struct err err;
    struct pathhook_job job = {"light", "x", "{}", on_done, &a, 1};
    ck_assert_int_eq(pathhook_start(h, &job, &err), -1);
    ck_assert_uint_eq(pathhook_room(h), PATHHOOK_RUNNING_MAX);
    pathhook_free(h);
    teardown();
}
END_TEST

/* The time limit ends all of it; so does the end of the program itself. */
START_TEST(test_killed)
{
    struct answer a = {0};
    setup();
    struct pathhook *h = hook_make(200000);
    write_script("sleep 300 & echo $! >\"$out\"; echo waiting >&2; wait");
    start(h, &a, 1);
    run_until(&a, 1);
    ck_assert_msg(strstr(a.text, "not done within") != NULL &&
                      strstr(a.text, "waiting") != NULL,
                  "%s", a.text);
    char *text = read_out();
    pid_t left = (pid_t)strtol(text, NULL, 10);
    for (int i = 0; i < 100 && kill(left, 0) == 0; i++)
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    ck_assert_int_ne(kill(left, 0), 0);
    free(text);
    pathhook_free(h);
    h = hook_make(0);
    write_script("sleep 300 & echo $! >\"$out\"; exit 0");
    start(h, &a, 1);
    run_until(&a, 2);
    ck_assert(a.good);
    text = read_out();
    left = (pid_t)strtol(text, NULL, 10);
    for (int i = 0; i < 100 && kill(left, 0) == 0; i++)
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    ck_assert_int_ne(kill(left, 0), 0);
    free(text);
    pathhook_free(h);
    teardown();
}
END_TEST

/* Several at once, a bound, others' children, and an end in the middle. */
START_TEST(test_many)
{
    struct answer a = {0};
    struct err err;
    setup();
    struct pathhook *h = hook_make(0);
    pid_t other = fork();
    if (other == 0)
        _exit(5);
    write_script("read x; [ \"$x\" = '{\"lanes\":2}' ]; sleep 0.1");
    for (int i = 0; i < PATHHOOK_RUNNING_MAX; i++)
        start(h, &a, (uint64_t)i);
    struct pathhook_job job = {"light", "x", "{}", on_done, &a, 1};
    ck_assert_int_eq(pathhook_start(h, &job, &err), -1);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
    run_until(&a, PATHHOOK_RUNNING_MAX);
    int status = 0;
    ck_assert_int_eq(waitpid(other, &status, 0), other);
    ck_assert_int_eq(WEXITSTATUS(status), 5);
    write_script("exec sleep 300");
    start(h, &a, 9);
    pathhook_free(h); /* kills it, tells nobody */
    ck_assert_int_eq(a.count, PATHHOOK_RUNNING_MAX);
    ck_assert_int_eq(waitpid(-1, &status, WNOHANG), -1); /* no zombie */
    teardown();
}
END_TEST

UNIT_MAIN("pathhook", UNIT_CASE(test_given) UNIT_CASE(test_failed)
                          UNIT_CASE(test_killed) UNIT_CASE(test_many))

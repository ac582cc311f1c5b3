/* enforce_pty: jobs with a terminal of their own. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/lib/frame.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_rig.h"

struct talk { /* attached to a job with a terminal */
    int fd;
    struct frame_reader in;
    struct strbuf out;
    bool other; /* a frame of output that was not `o` */
    char *x;
    int64_t got; /* bytes of log read, heads included */
};

static void say(struct talk *t, char type, const void *data, size_t len)
{
    struct strbuf b = STRBUF_INIT;
    frame_put(&b, type, data, len);
    ck_assert_int_eq(send(t->fd, b.data, b.len, MSG_NOSIGNAL), (int)b.len);
    strbuf_done(&b);
}

static void type(struct talk *t, const char *text)
{
    say(t, 'i', text, strlen(text));
}

static void attach(struct talk *t, int64_t offset)
{
    struct err err;
    char *dir = rig_lease_dir("res1"), *ask = xasprintf("{\"offset\":%ld}", offset);
    memset(t, 0, sizeof(*t));
    t->got = offset;
    rig_ok(launch_attach(dir, "j1", &t->fd, &err), &err);
    frame_reader_init(&t->in);
    say(t, 'a', ask, strlen(ask));
    free(ask);
    free(dir);
}

static void detach(struct talk *t)
{
    close(t->fd);
    frame_reader_done(&t->in);
    strbuf_done(&t->out);
    free(t->x);
}

static void take(struct talk *t)
{
    char block[65536];
    struct frame f;
    struct err err;
    ssize_t n = recv(t->fd, block, sizeof(block), 0);
    ck_assert_msg(n > 0, "the keeper is gone; output: %s", t->out.data);
    frame_feed(&t->in, block, (size_t)n);
    while (frame_next(&t->in, &f, &err) == 1) {
        if (f.type == 'x' || f.type == 'E') {
            t->x = xstrndup((const char *)f.data, f.len);
            continue;
        }
        t->got += (int64_t)f.len + FRAME_HEAD_LEN;
        t->other = t->other || f.type != 'o';
        strbuf_add(&t->out, f.data, f.len);
    }
}

/* Until the output has `text`, or (NULL) until the job's end. */
static void await(struct talk *t, const char *text)
{
    int64_t until = rig_now() + 10000000;
    while (text != NULL ? t->out.data == NULL || strstr(t->out.data, text) == NULL
                        : t->x == NULL) {
        struct pollfd p = {t->fd, POLLIN, 0};
        ck_assert_msg(rig_now() < until, "no %s in: %s",
                      text != NULL ? text : "end of the job", t->out.data);
        if (poll(&p, 1, 100) > 0)
            take(t);
    }
}

static void start(struct talk *t, const char *script)
{
    struct err err;
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    rig_lease("res1", -1, 30000);
    struct launch_spec s = rig_spec("res1", "j1", -1, argv);
    s.pty = true;
    s.rows = 30;
    s.cols = 100;
    s.term = xstrdup("vt100");
    rig_ok(rig_start_spec(&s, &err), &err);
    launch_spec_done(&s);
    attach(t, 0);
}

START_TEST(test_job_has_a_terminal_of_its_own)
{
    struct talk t;
    start(&t, "tty; stty size; echo $TERM; ls /dev/pts | tr '\\n' ' '; echo;"
              "for i in 0 1 2; do test -t $i && echo is $i >&2; done;"
              "echo again > /dev/tty; echo more > /dev/pts/0");
    await(&t, NULL);
    ck_assert_str_eq(t.out.data, "/dev/pts/0\r\n30 100\r\nvt100\r\n0 ptmx \r\n"
                                 "is 0\r\nis 1\r\nis 2\r\nagain\r\nmore\r\n");
    ck_assert(!t.other);
    ck_assert_str_eq(t.x, "{\"exit\":0,\"reason\":\"exited\"}");
    detach(&t);
    rig_end("res1");
}
END_TEST

START_TEST(test_keys_reach_the_foreground)
{
    struct talk t;
    start(&t, "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 1; done");
    await(&t, "ready");
    type(&t, "\003");
    await(&t, NULL);
    ck_assert_ptr_nonnull(strstr(t.out.data, "^Ccaught"));
    ck_assert_str_eq(t.x, "{\"exit\":3,\"reason\":\"exited\"}");
    detach(&t);
    rig_end("res1");
}
END_TEST

START_TEST(test_window_changes)
{
    struct talk t;
    start(&t, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done");
    await(&t, "ready");
    static const char size[] = "{\"rows\":51,\"cols\":300}";
    say(&t, 'w', size, sizeof(size) - 1);
    await(&t, NULL);
    ck_assert_ptr_nonnull(strstr(t.out.data, "51 300\r\n"));
    detach(&t);
    rig_end("res1");
}
END_TEST

START_TEST(test_bad_windows_are_refused)
{
    static const char *const bad[] = {"{\"rows\":0,\"cols\":80}", "{\"rows\":24}",
                                      "{\"rows\":24,\"cols\":4097}", "24x80",
                                      "{\"rows\":24,\"cols\":80,\"x\":1}"};
    struct talk t;
    start(&t, "exec sleep 20");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct talk other;
        attach(&other, 0);
        say(&other, 'w', bad[i], strlen(bad[i]));
        await(&other, NULL);
        ck_assert_msg(strstr(other.x, "\"error\"") != NULL, "%s: %s", bad[i], other.x);
        detach(&other);
    }
    detach(&t);
    rig_end("res1");
}
END_TEST

START_TEST(test_end_of_input_is_told)
{
    struct talk t;
    start(&t, "stty -echo; echo ready; cat | tr a-z A-Z; echo over");
    await(&t, "ready");
    type(&t, "line\nno end of line");
    say(&t, 'I', "", 0);
    await(&t, NULL);
    ck_assert_ptr_nonnull(strstr(t.out.data, "LINE\r\nNO END OF LINEover\r\n"));
    detach(&t);
    rig_end("res1");
}
END_TEST

START_TEST(test_terminal_outlives_its_keeper)
{
    struct talk t;
    start(&t, "echo ready; read line; echo got $line; stty size");
    await(&t, "ready\r\n");
    char *dir = rig_lease_dir("res1"), *lock = xasprintf("%s/jobs/j1/keeper.lock", dir);
    int64_t seen = t.got;
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(lock, O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(fcntl(fd, F_GETLK, &l), 0);
    ck_assert_int_eq(kill(l.l_pid, SIGKILL), 0);
    close(fd);
    detach(&t);
    rig_pause_ms(50);
    attach(&t, seen);
    type(&t, "on\n");
    await(&t, NULL);
    ck_assert_str_eq(t.out.data, "on\r\ngot on\r\n30 100\r\n");
    ck_assert(launch_is_started(dir, "j1"));
    free(lock);
    free(dir);
    detach(&t);
    rig_end("res1");
}
END_TEST

START_TEST(test_long_output_is_whole)
{
    struct talk t;
    start(&t, "stty -opost; seq 1 60000");
    await(&t, NULL);
    size_t lines = 0;
    long last = 0;
    for (const char *p = t.out.data; (p = strchr(p, '\n')) != NULL; p++, lines++)
        if (p[1] != '\0')
            last = strtol(p + 1, NULL, 10);
    ck_assert_uint_eq(lines, 60000);
    ck_assert_int_eq(last, 60000);
    detach(&t);
    rig_end("res1");
}
END_TEST

START_TEST(test_specs_that_are_refused)
{
    struct err err;
    static const char *const argv[] = {"/bin/true", NULL};
    static const struct {
        const char *term, *image;
        uint16_t rows;
        enum err_code code;
    } rows[] = {
        {"vt 100", NULL, 24, ERR_BAD_REQUEST},
        {"-x", NULL, 24, ERR_BAD_REQUEST},
        {"", NULL, 24, ERR_BAD_REQUEST},
        {NULL, NULL, 4097, ERR_BAD_REQUEST},
        {NULL, "a b", 0, ERR_BAD_REQUEST},
        {NULL, "--privileged", 0, ERR_BAD_REQUEST},
    };
    rig_lease("res1", -1, 30000);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct launch_spec s = rig_spec("res1", "j1", -1, argv);
        s.pty = true;
        s.rows = rows[i].rows;
        s.term = rows[i].term != NULL ? xstrdup(rows[i].term) : NULL;
        s.image = rows[i].image != NULL ? xstrdup(rows[i].image) : NULL;
        ck_assert_int_eq(rig_start_spec(&s, &err), -1);
        ck_assert_msg(err.code == rows[i].code, "row %zu: %s", i, err.text);
        launch_spec_done(&s);
    }
    rig_end("res1");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_pty");
    rig_add(s, "terminal", test_job_has_a_terminal_of_its_own);
    rig_add(s, "keys", test_keys_reach_the_foreground);
    rig_add(s, "window", test_window_changes);
    rig_add(s, "bad_window", test_bad_windows_are_refused);
    rig_add(s, "end_of_input", test_end_of_input_is_told);
    rig_add(s, "keeper_killed", test_terminal_outlives_its_keeper);
    rig_add(s, "long_output", test_long_output_is_whole);
    rig_add(s, "refused_specs", test_specs_that_are_refused);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}

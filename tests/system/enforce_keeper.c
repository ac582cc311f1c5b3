/* enforce_keeper: the job's output, input and those attached, with the keeper and the
 * launcher dying in between. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/agent/keeper.h"
#include "client/lib/frame.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_rig.h"

#define SH(script)                    \
    (const char *const[])             \
    {                                 \
        "/bin/sh", "-c", script, NULL \
    }

struct client {
    int fd;
    struct frame_reader in;
    struct strbuf out; /* o and e payloads */
    char *x, *refused;
    int64_t offset; /* of the log, as wire.md counts it */
};

static void put(struct client *c, char type, const char *payload)
{
    struct strbuf b = STRBUF_INIT;
    frame_put(&b, type, payload, strlen(payload));
    ck_assert_int_eq(send(c->fd, b.data, b.len, MSG_NOSIGNAL), (int)b.len);
    strbuf_done(&b);
}

static struct client attach(const char *lease, const char *job, int64_t offset)
{
    struct err err;
    struct client c = {.offset = offset};
    char *dir = rig_lease_dir(lease),
         *ask = xasprintf("{\"offset\":%ld}", (long)offset);
    rig_ok(launch_attach(dir, job, &c.fd, &err), &err);
    frame_reader_init(&c.in);
    put(&c, 'a', ask);
    free(ask);
    free(dir);
    return c;
}

static void detach(struct client *c)
{
    close(c->fd);
    frame_reader_done(&c->in);
    strbuf_done(&c->out);
    free(c->x);
    free(c->refused);
}

static void take(struct client *c, const struct frame *f)
{
    if (f->type == 'o' || f->type == 'e') {
        strbuf_add(&c->out, f->data, f->len);
        c->offset += (int64_t)f->len + FRAME_HEAD_LEN;
    } else if (f->type == 'x') {
        c->x = xstrndup((const char *)f->data, f->len);
    } else if (f->type == 'E') {
        c->refused = xstrndup((const char *)f->data, f->len);
    } else {
        ck_abort_msg("frame of type %c", f->type);
    }
}

/* Reads until `want` is in the output, or the stream ended (want NULL). */
static void read_until(struct client *c, const char *want)
{
    struct err err;
    struct frame f;
    int64_t until = rig_now() + 10000000;
    while (want == NULL || strstr(strbuf_str(&c->out), want) == NULL) {
        char block[4096];
        struct pollfd p = {c->fd, POLLIN, 0};
        ck_assert_msg(rig_now() < until, "no `%s` in: %.200s", want,
                      strbuf_str(&c->out));
        if (poll(&p, 1, 100) <= 0)
            continue;
        ssize_t n = recv(c->fd, block, sizeof(block), 0);
        if (n <= 0) {
            ck_assert_msg(want == NULL, "stream ended without `%s`: %.200s", want,
                          strbuf_str(&c->out));
            return;
        }
        frame_feed(&c->in, block, (size_t)n);
        while (frame_next(&c->in, &f, &err) == 1)
            take(c, &f);
    }
}

static pid_t keeper_of(const char *lease, const char *job)
{
    char *path = xasprintf("%s/leases/%s/jobs/%s/keeper.lock", rig.state, lease, job);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert(fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0);
    close(fd);
    free(path);
    return lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

static void start(const char *job, const char *script, bool want_stdin)
{
    struct err err;
    struct launch_spec s = rig_spec("res1", job, -1, SH(script));
    s.want_stdin = want_stdin;
    rig_ok(rig_start_spec(&s, &err), &err);
    launch_spec_done(&s);
}

START_TEST(test_attach_again_at_the_offset)
{
    rig_lease("res1", -1, 20000);
    start("j1", "echo one; echo two >&2; read x; echo three", true);
    struct client a = attach("res1", "j1", 0);
    read_until(&a, "two");
    int64_t seen = a.offset;
    ck_assert_int_eq(seen, 2 * (4 + FRAME_HEAD_LEN));
    detach(&a);
    struct client b = attach("res1", "j1", seen);
    put(&b, 'i', "go\n");
    read_until(&b, NULL);
    ck_assert_str_eq(strbuf_str(&b.out), "three\n");
    ck_assert_str_eq(b.x, "{\"exit\":0,\"reason\":\"exited\"}");
    detach(&b);
    /* After the end, and after the keeper left: all of it again. */
    char *dir = rig_lease_dir("res1");
    struct err err;
    rig_ok(launch_close(dir, &err), &err);
    free(dir);
    ck_assert_int_eq(keeper_of("res1", "j1"), 0);
    struct client c = attach("res1", "j1", 0);
    read_until(&c, NULL);
    ck_assert_str_eq(strbuf_str(&c.out), "one\ntwo\nthree\n");
    ck_assert_str_eq(c.x, "{\"exit\":0,\"reason\":\"exited\"}");
    detach(&c);
    rig_end("res1");
}
END_TEST

START_TEST(test_wrong_offsets_and_frames_are_refused)
{
    static const struct {
        char type;
        const char *payload, *says;
    } rows[] = {
        {'a', "{\"offset\":3}", "not the start of a frame"},
        {'a', "{\"offset\":1000000}", "not the start of a frame"},
        {'a', "{\"offset\":-1}", "offset"},
        {'a', "{\"other\":1}", "other"},
        {'a', "nonsense", "bad_request"},
        {'i', "data", "first frame"},
        {'z', "", "first frame"},
    };
    rig_lease("res1", -1, 20000);
    start("j1", "echo one; exec sleep 100", false);
    struct client ok = attach("res1", "j1", 0);
    read_until(&ok, "one");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err err;
        struct client c = {0};
        char *dir = rig_lease_dir("res1");
        rig_ok(launch_attach(dir, "j1", &c.fd, &err), &err);
        free(dir);
        frame_reader_init(&c.in);
        put(&c, rows[i].type, rows[i].payload);
        read_until(&c, NULL);
        ck_assert_msg(c.refused != NULL && strstr(c.refused, rows[i].says) != NULL,
                      "row %zu: %s", i, c.refused);
        detach(&c);
    }
    detach(&ok);
    rig_end("res1");
}
END_TEST

START_TEST(test_input_end_and_signals)
{
    rig_lease("res1", -1, 20000);
    start("j1", "cat; echo end", true);
    struct client a = attach("res1", "j1", 0);
    put(&a, 'i', "some ");
    put(&a, 'i', "input\n");
    read_until(&a, "some input");
    put(&a, 'I', "");
    read_until(&a, NULL);
    ck_assert_str_eq(strbuf_str(&a.out), "some input\nend\n");
    detach(&a);
    start("j2", "trap 'echo usr1; exit 5' USR1; echo up; while :; do sleep 0.01; done",
          false);
    struct client b = attach("res1", "j2", 0);
    read_until(&b, "up");
    put(&b, 's', "10");
    read_until(&b, NULL);
    ck_assert_ptr_nonnull(strstr(strbuf_str(&b.out), "usr1"));
    ck_assert_str_eq(b.x, "{\"exit\":5,\"reason\":\"exited\"}");
    detach(&b);
    start("j3", "exec sleep 100", false);
    char *dir = rig_lease_dir("res1");
    struct err err;
    rig_ok(launch_signal(dir, "j3", SIGTERM, &err), &err);
    struct client c = attach("res1", "j3", 0);
    read_until(&c, NULL);
    ck_assert_str_eq(c.x, "{\"signal\":15,\"reason\":\"exited\"}");
    ck_assert_int_eq(launch_signal(dir, "j3", SIGTERM, &err), -1);
    ck_assert_int_eq(err.code, ERR_NOT_FOUND);
    detach(&c);
    free(dir);
    rig_end("res1");
}
END_TEST

/* More input than FIFO and keeper hold: nobody loses a byte. */
START_TEST(test_large_input)
{
    rig_lease("res1", -1, 20000);
    start("j1", "sleep 0.3; wc -c", true);
    struct client a = attach("res1", "j1", 0);
    int flags = fcntl(a.fd, F_GETFL);
    ck_assert_int_eq(fcntl(a.fd, F_SETFL, flags & ~O_NONBLOCK), 0);
    char block[1001];
    memset(block, 'x', 1000);
    block[1000] = '\0';
    for (int i = 0; i < 2000; i++)
        put(&a, 'i', block);
    put(&a, 'I', "");
    read_until(&a, NULL);
    ck_assert_str_eq(strbuf_str(&a.out), "2000000\n");
    detach(&a);
    rig_end("res1");
}
END_TEST

START_TEST(test_keeper_dies_job_does_not_notice)
{
    struct err err;
    rig_lease("res1", -1, 20000);
    start("j1",
          "echo before; read a; echo got $a; i=0; while [ $i -lt 2000 ]; do echo line "
          "$i; "
          "i=$((i+1)); done; read b; echo got $b",
          true);
    struct client a = attach("res1", "j1", 0);
    read_until(&a, "before");
    kill(keeper_of("res1", "j1"), SIGKILL);
    read_until(&a, NULL);
    ck_assert_ptr_null(a.x);
    /* Attaching brings a new keeper; the job has neither seen EOF nor SIGPIPE. */
    struct client b = attach("res1", "j1", a.offset);
    put(&b, 'i', "first\n");
    read_until(&b, "line 1999\n");
    ck_assert_int_eq(strncmp(strbuf_str(&b.out), "got first\nline 0\n", 17), 0);
    kill(keeper_of("res1", "j1"), SIGKILL);
    char *dir = rig_lease_dir("res1"), *job = xasprintf("%s/jobs/j1", dir);
    while (keeper_of("res1", "j1") != 0)
        rig_pause_ms(1);
    rig_ok(launch_respawn_keeper(job, NULL, &err), &err);
    ck_assert_int_eq(launch_respawn_keeper(job, NULL, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    struct client c = attach("res1", "j1", b.offset);
    put(&c, 'i', "second\n");
    read_until(&c, NULL);
    ck_assert_str_eq(strbuf_str(&c.out), "got second\n");
    ck_assert_str_eq(c.x, "{\"exit\":0,\"reason\":\"exited\"}");
    detach(&a);
    detach(&b);
    detach(&c);
    free(job);
    free(dir);
    rig_end("res1");
}
END_TEST

/* The job ends while no keeper is there: neither its last output nor its end is lost.
 */
START_TEST(test_job_ends_without_a_keeper)
{
    rig_lease("res1", -1, 20000);
    start("j1", "sleep 0.3; echo last words; exit 9", false);
    kill(keeper_of("res1", "j1"), SIGKILL);
    rig_pause_ms(600);
    struct client a = attach("res1", "j1", 0);
    read_until(&a, NULL);
    ck_assert_str_eq(strbuf_str(&a.out), "last words\n");
    ck_assert_str_eq(a.x, "{\"exit\":9,\"reason\":\"exited\"}");
    detach(&a);
    rig_end("res1");
}
END_TEST

START_TEST(test_launcher_dies_job_goes_on)
{
    rig_lease("res1", -1, 20000);
    pid_t pid = fork();
    if (pid == 0) {
        start("j1", "read a; echo got $a", true);
        struct client c = attach("res1", "j1", 0);
        (void)c;
        kill(getpid(), SIGKILL);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status));
    struct client a = attach("res1", "j1", 0);
    put(&a, 'i', "it\n");
    read_until(&a, NULL);
    ck_assert_str_eq(strbuf_str(&a.out), "got it\n");
    detach(&a);
    rig_end("res1");
}
END_TEST

START_TEST(test_slow_client_does_not_hold_the_job)
{
    rig_lease("res1", -1, 20000);
    start("j1", "read go; head -c 8000000 /dev/zero; echo; echo all written >&2", true);
    struct client slow = attach("res1", "j1", 0); /* never reads */
    struct client a = attach("res1", "j1", 0);
    put(&a, 'i', "go\n");
    read_until(&a, NULL);
    ck_assert_uint_eq(a.out.len, 8000000 + 1 + 12);
    read_until(&slow, NULL); /* it was all kept for it */
    ck_assert_uint_eq(slow.out.len, a.out.len);
    detach(&slow);
    detach(&a);
    rig_end("res1");
}
END_TEST

START_TEST(test_number_of_clients_is_bounded)
{
    struct client c[KEEPER_CLIENTS_MAX + 1];
    rig_lease("res1", -1, 20000);
    start("j1", "echo up; exec sleep 100", false);
    for (int i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        c[i] = attach("res1", "j1", 0);
        read_until(&c[i], "up");
    }
    struct err err;
    char *dir = rig_lease_dir("res1");
    struct client *last = &c[KEEPER_CLIENTS_MAX];
    *last = (struct client){0};
    rig_ok(launch_attach(dir, "j1", &last->fd, &err), &err);
    frame_reader_init(&last->in);
    read_until(last, NULL);
    ck_assert_ptr_nonnull(strstr(last->refused, "too many"));
    for (int i = 0; i <= KEEPER_CLIENTS_MAX; i++)
        detach(&c[i]);
    /* Their places are free again. */
    rig_pause_ms(50);
    struct client again = attach("res1", "j1", 0);
    read_until(&again, "up");
    detach(&again);
    free(dir);
    rig_end("res1");
}
END_TEST

START_TEST(test_output_is_bounded)
{
    struct err err;
    rig_lease("res1", -1, 20000);
    struct launch_spec s =
        rig_spec("res1", "j1", -1, SH("head -c 3000000 /dev/zero; echo end >&2"));
    s.output_max = 1000000;
    rig_ok(rig_start_spec(&s, &err), &err);
    launch_spec_done(&s);
    struct client a = attach("res1", "j1", 0);
    read_until(&a, NULL);
    ck_assert_int_le(a.offset, 1000000);
    ck_assert_int_gt(a.offset, 900000);
    ck_assert_str_eq(a.x, "{\"exit\":0,\"reason\":\"exited\"}");
    ck_assert_ptr_nonnull(memmem(a.out.data, a.out.len, "output log is full", 18));
    detach(&a);
    rig_end("res1");
}
END_TEST

START_TEST(test_list_of_jobs)
{
    struct err err;
    struct launch_job *jobs;
    size_t count;
    rig_lease("res1", -1, 20000);
    char *dir = rig_lease_dir("res1");
    rig_ok(launch_jobs(dir, &jobs, &count, &err), &err);
    ck_assert_uint_eq(count, 0);
    launch_jobs_free(jobs, count);
    start("zz", "exit 4", false);
    struct client a = attach("res1", "zz", 0);
    read_until(&a, NULL);
    detach(&a);
    start("aa", "exec sleep 100", false);
    rig_ok(launch_jobs(dir, &jobs, &count, &err), &err);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(jobs[0].job, "zz");
    ck_assert(jobs[0].started && jobs[0].ended);
    ck_assert_str_eq(jobs[0].exit_json, "{\"exit\":4,\"reason\":\"exited\"}");
    ck_assert_str_eq(jobs[1].job, "aa");
    ck_assert(jobs[1].started && !jobs[1].ended && jobs[1].keeper_alive);
    launch_jobs_free(jobs, count);
    int fd;
    ck_assert_int_eq(launch_attach(dir, "nosuch", &fd, &err), -1);
    ck_assert_int_eq(err.code, ERR_NOT_FOUND);
    free(dir);
    rig_end("res1");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_keeper");
    rig_add(s, "offset", test_attach_again_at_the_offset);
    rig_add(s, "refused", test_wrong_offsets_and_frames_are_refused);
    rig_add(s, "input", test_input_end_and_signals);
    rig_add(s, "large_input", test_large_input);
    rig_add(s, "keeper_dies", test_keeper_dies_job_does_not_notice);
    rig_add(s, "ends_alone", test_job_ends_without_a_keeper);
    rig_add(s, "launcher_dies", test_launcher_dies_job_goes_on);
    rig_add(s, "slow", test_slow_client_does_not_hold_the_job);
    rig_add(s, "clients", test_number_of_clients_is_bounded);
    rig_add(s, "bounded", test_output_is_bounded);
    rig_add(s, "list", test_list_of_jobs);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}

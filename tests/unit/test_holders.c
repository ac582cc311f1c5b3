/* holders and scrub: who still has a GPU, found with real processes and real devices (a
 * memory device stands for the GPU); the provider's program after a lease. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/agent/holders.h"
#include "client/agent/scrub.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "tests/unit/unit.h"

#define GPU "/dev/full" /* on any machine, and hardly ever held */

static dev_t gpu_number(void)
{
    struct stat st;
    ck_assert_int_eq(stat(GPU, &st), 0);
    return st.st_rdev;
}

static int find(uid_t job_uid, int64_t began, struct holder *ret)
{
    dev_t dev = gpu_number();
    struct holders_query q = {&dev, 1, job_uid, began};
    struct err err;
    return holders_find(&q, ret, &err);
}

/* A child that does `fn`, then waits to be ended. */
static pid_t child_of(void (*fn)(void))
{
    int ready[2];
    char c;
    ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        fn();
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

static void hold_fd(void)
{
    (void)prctl(PR_SET_NAME, "left\nover", 0, 0, 0);
    if (open(GPU, O_RDWR | O_CLOEXEC) < 0)
        _exit(1);
}

/* As a job: whatever is not root's is judged more strictly. */
static void hold_fd_as_job(void)
{
    hold_fd();
    if (geteuid() == 0 && setuid(4242) != 0)
        _exit(1);
}

/* The descriptor is closed: only the mapping holds it. */
static void hold_mapping(void)
{
    int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
    if (fd < 0 || mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
        _exit(1);
    close(fd);
}

START_TEST(test_descriptor)
{
    struct holder h;
    int64_t before = clock_boot_us();
    ck_assert_int_eq(find(4242, before, &h), 0);
    pid_t pid = child_of(hold_fd);
    ck_assert_int_eq(find(4242, before - 1000000, &h), 1);
    ck_assert_int_eq(h.pid, pid);
    ck_assert(!h.mapped);
    ck_assert_str_eq(h.name, "left?over"); /* goes into a message */
    end(pid);
    ck_assert_int_eq(find(4242, before - 1000000, &h), 0);
}
END_TEST

START_TEST(test_who_counts)
{
    struct holder h;
    pid_t pid = child_of(hold_fd);
    struct timespec nap = {0, 30000000};
    (void)nanosleep(&nap, NULL);
    /* The owner's, from before the lease: no; a job's user: always. */
    ck_assert_int_eq(find(4242, clock_boot_us(), &h), 0);
    ck_assert_int_eq(find(4242, INT64_MAX, &h), 0);
    end(pid);
    if (geteuid() == 0) {
        pid = child_of(hold_fd_as_job);
        ck_assert_int_eq(find(4242, INT64_MAX, &h), 1);
        ck_assert_int_eq(h.pid, pid);
        end(pid);
    }
    int own = open(GPU, O_RDWR | O_CLOEXEC); /* the agent itself, by NVML */
    ck_assert_int_ge(own, 0);
    ck_assert_int_eq(find(4242, 0, &h), 0);
    close(own);
}
END_TEST

START_TEST(test_mapping)
{
    struct stat st;
    struct holder h;
    struct err err;
    dev_t dev[2];
    ck_assert_int_eq(stat("/dev/zero", &st), 0);
    dev[0] = gpu_number();
    dev[1] = st.st_rdev;
    struct holders_query q = {dev, 2, 4242, clock_boot_us() - 1000000};
    pid_t pid = child_of(hold_mapping);
    int rc = holders_find(&q, &h, &err);
    end(pid);
    ck_assert_int_eq(rc, 1);
    ck_assert_int_eq(h.pid, pid);
    ck_assert(h.mapped);
}
END_TEST

/* A descriptor that was sent to a stranger is found with the stranger. */
START_TEST(test_passed_on)
{
    int pair[2];
    struct holder h;
    int64_t began = clock_boot_us() - 1000000;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    pid_t taker = fork();
    if (taker == 0) {
        char c, buf[CMSG_SPACE(sizeof(int))];
        struct iovec io = {&c, 1};
        struct msghdr m = {.msg_iov = &io,
                           .msg_iovlen = 1,
                           .msg_control = buf,
                           .msg_controllen = sizeof(buf)};
        if (recvmsg(pair[1], &m, 0) != 1 || write(pair[1], "k", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    int fd = open(GPU, O_RDWR | O_CLOEXEC);
    char c = 'f', buf[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec io = {&c, 1};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = buf,
                       .msg_controllen = sizeof(buf)};
    struct cmsghdr *cm = CMSG_FIRSTHDR(&m);
    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cm), &fd, sizeof(int));
    ck_assert_int_eq(sendmsg(pair[0], &m, 0), 1);
    ck_assert_int_eq(read(pair[0], &c, 1), 1);
    close(fd);
    ck_assert_int_eq(find(4242, began, &h), 1);
    ck_assert_int_eq(h.pid, taker);
    end(taker);
    close(pair[0]);
    close(pair[1]);
}
END_TEST

/* --- scrub --- */

static struct gpu_info gpu(const char *uuid)
{
    struct gpu_info g = {.minor = 3};
    snprintf(g.uuid, sizeof(g.uuid), "%s", uuid);
    snprintf(g.pci, sizeof(g.pci), "0000:3b:00.0");
    return g;
}

START_TEST(test_scrub_words)
{
    struct gpu_info g = gpu("GPU-a");
    char **w = scrub_words("  /bin/reset --gpu %u\t-p%p:%m 100%% ", &g);
    ck_assert_ptr_nonnull(w);
    static const char *const want[] = {"/bin/reset", "--gpu", "GPU-a",
                                       "-p0000:3b:00.0:3", "100%"};
    for (size_t i = 0; i < 5; i++)
        ck_assert_str_eq(w[i], want[i]);
    ck_assert_ptr_null(w[5]);
    scrub_words_free(w);
    ck_assert_ptr_null(scrub_words("", &g));
    ck_assert_ptr_null(scrub_words("  ", &g));
    ck_assert_ptr_null(scrub_words("/bin/x %z", &g));
    ck_assert_ptr_null(scrub_words("/bin/x %", &g));
}
END_TEST

/* Runs it for two GPUs; the result of the last poll. */
static int scrub(const char *command, int64_t timeout_us, struct err *err)
{
    struct gpu_info a = gpu("GPU-a"), b = gpu("GPU-b");
    const struct gpu_info *const gpus[] = {&a, &b};
    struct scrub *s;
    int rc;
    if (scrub_begin(command, timeout_us, gpus, 2, &s, err) != 0)
        return -2;
    for (int64_t until = clock_boot_us() + 5000000;
         (rc = scrub_poll(s, err)) == 0 && clock_boot_us() < until;)
        (void)poll(NULL, 0, 5);
    ck_assert_int_eq(scrub_poll(s, err), rc); /* and says so again */
    scrub_free(s);
    return rc;
}

START_TEST(test_scrub)
{
    struct err err;
    char dir[] = "/tmp/test_scrub.XXXXXX", text[600], path[96];
    char *log = NULL;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/do", dir);
    snprintf(text, sizeof(text),
             "#!/bin/sh\necho $1 $# \"$HOME\" >>%s/log\ncase $2 in\n"
             "bad) echo first; echo 'ECC error 79' >&2; exit 3;;\n"
             "slow) sleep 100 & wait;;\nkill) kill -9 $$;;\nesac\n",
             dir);
    ck_assert_int_eq(fsx_write(path, text, strlen(text), 0700, &err), 0);
    snprintf(text, sizeof(text), "%s %%u good", path);
    ck_assert_msg(scrub(text, 2000000, &err) == 1, "%s", err.text);
    snprintf(path, sizeof(path), "%s/log", dir);
    ck_assert_int_eq(fsx_read(path, 4096, &log, NULL, &err), 0);
    ck_assert_str_eq(log, "GPU-a 2 \nGPU-b 2 \n"); /* each once, in order, no HOME */
    free(log);
    snprintf(text, sizeof(text), "%s/do %%u bad", dir);
    ck_assert_int_eq(scrub(text, 2000000, &err), -1);
    ck_assert_msg(strstr(err.text, "GPU-a ended with 3") != NULL &&
                      strstr(err.text, "ECC error 79") != NULL,
                  "%s", err.text);
    snprintf(text, sizeof(text), "%s/do %%u kill", dir);
    ck_assert_int_eq(scrub(text, 2000000, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "signal 9"));
    int64_t from = clock_boot_us();
    snprintf(text, sizeof(text), "%s/do %%u slow", dir);
    ck_assert_int_eq(scrub(text, 200000, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "not done"));
    ck_assert_int_lt(clock_boot_us() - from, 2000000);
    ck_assert_int_eq(scrub("/nowhere/at/all", 2000000, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "No such file"));
    ck_assert_int_eq(scrub("/bin/true %z", 2000000, &err), -2);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

UNIT_MAIN("holders", UNIT_CASE(test_descriptor) UNIT_CASE(test_who_counts)
                         UNIT_CASE(test_mapping) UNIT_CASE(test_passed_on)
                             UNIT_CASE(test_scrub_words) UNIT_CASE(test_scrub))

/* enforce_launch: what a launched job sees, may do, and how its end is told. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/agent/deadline.h"
#include "client/agent/keeper.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_rig.h"

#define ARGV(...)                 \
    (const char *const[])         \
    {                             \
        __VA_ARGS__, (char *)NULL \
    }
#define SH(script) ARGV("/bin/sh", "-c", script)

START_TEST(test_devices_seen_by_a_job)
{
    rig_lease("res1", 0, 20000);
    char *out = rig_run("res1", "j1", 0,
                        ARGV(RIG_PROBE, "probe", "open", "/dev/nvidia0", "/dev/nvidia1",
                             "/dev/null", "/dev/ptmx", "/dev/kmsg"));
    ck_assert_str_eq(out, "/dev/nvidia0=ENXIO\n/dev/nvidia1=ENOENT\n/dev/null=OK\n"
                          "/dev/ptmx=OK\n/dev/kmsg=ENOENT");
    free(out);
    rig_end("res1");
}
END_TEST

START_TEST(test_exit_codes)
{
    static const struct {
        const char *script, *x;
    } rows[] = {
        {"exit 0", "{\"exit\":0,\"reason\":\"exited\"}"},
        {"exit 42", "{\"exit\":42,\"reason\":\"exited\"}"},
        {"kill -9 $$", "{\"signal\":9,\"reason\":\"exited\"}"},
        {"kill -11 $$", "{\"signal\":11,\"reason\":\"exited\"}"},
        {"sleep 100 & exit 3", "{\"exit\":3,\"reason\":\"exited\"}"},
    };
    rig_lease("res1", -1, 20000);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err err;
        char job[16], *x;
        snprintf(job, sizeof(job), "j%zu", i);
        rig_ok(rig_start("res1", job, -1, SH(rows[i].script), &err), &err);
        free(rig_output("res1", job, 0, 10000, &x));
        ck_assert_msg(x != NULL && strcmp(x, rows[i].x) == 0, "%s: %s", rows[i].script,
                      x);
        free(x);
    }
    rig_end("res1");
}
END_TEST

START_TEST(test_refused_launches_say_why)
{
    struct err err;
    rig_lease("res1", 0, 20000);
    ck_assert_int_eq(rig_start("res1", "j1", -1, ARGV("/no/such/command"), &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "cannot execute /no/such/command"));
    struct launch_spec s = rig_spec("res1", "j2", 0, SH("exit 0"));
    s.nodes[0].minor = 1; /* the node is another device than the one granted */
    ck_assert_int_eq(rig_start_spec(&s, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "is not the character device 242:1"));
    launch_spec_done(&s);
    s = rig_spec("res1", "j3", -1, SH("exit 0"));
    s.uid = 0;
    ck_assert_int_eq(rig_start_spec(&s, &err), -1);
    ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    launch_spec_done(&s);
    s = rig_spec("res1", "j4", -1, SH("exit 0"));
    s.cwd = xstrdup("/root");
    ck_assert_int_eq(rig_start_spec(&s, &err), 0); /* hidden, but there: empty */
    launch_spec_done(&s);
    ck_assert_int_eq(rig_start("nolease", "j1", -1, SH("exit 0"), &err), -1);
    ck_assert_int_eq(rig_start("res1", "j4", -1, SH("exit 0"), &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    rig_end("res1");
}
END_TEST

START_TEST(test_no_gate_no_job)
{
    struct err err;
    rig_lease("res1", 0, 20000);
    char *bare = rig_cgroup("bare", NULL), *dir = rig_lease_dir("bare");
    rig_ok(cgroup_make(bare, &err), &err);
    rig_ok(fsx_mkdirs(dir, 0700, &err), &err);
    rig_ok(deadline_write(dir, rig.boot_id, rig_now() + 20000000, &err), &err);
    ck_assert_int_eq(rig_start("bare", "j1", -1, SH("exit 0"), &err), -1);
    ck_assert_msg(strstr(err.text, "no device gate") != NULL, "%s", err.text);
    free(dir);
    free(bare);
}
END_TEST

START_TEST(test_privileges)
{
    rig_lease("res1", -1, 20000);
    char *out = rig_run("res1", "j1", -1, ARGV(RIG_PROBE, "probe", "whoami"));
    ck_assert_str_eq(out, "Uid:\t65534\t65534\t65534\t65534\n"
                          "Gid:\t65534\t65534\t65534\t65534\n"
                          "Groups:\t \n"
                          "CapInh:\t0000000000000000\n"
                          "CapPrm:\t0000000000000000\n"
                          "CapEff:\t0000000000000000\n"
                          "CapBnd:\t0000000000000000\n"
                          "CapAmb:\t0000000000000000\n"
                          "NoNewPrivs:\t1\n"
                          "Seccomp:\t2");
    free(out);
    rig_end("res1");
}
END_TEST

START_TEST(test_system_calls_refused)
{
    rig_lease("res1", -1, 20000);
    char *out = rig_run("res1", "j1", -1, ARGV(RIG_PROBE, "probe", "calls"));
    ck_assert_str_eq(
        out, "mount=EPERM\numount=EPERM\nchroot=EPERM\nunshare=EPERM\n"
             "clone=EPERM\nclone3=ENOSYS\nsetns=EPERM\nptrace=EPERM\nbpf=EPERM\n"
             "keyctl=EPERM\nperf=EPERM\nuserfaultfd=EPERM\nio_uring=EPERM\n"
             "handle=EPERM\nmodule=EPERM\nmknod=EPERM\nmkblk=EPERM\nmkfifo=OK\n"
             "tiocsti=EPERM\nsetuid=EPERM\nkill1=EPERM");
    free(out);
    rig_end("res1");
}
END_TEST

START_TEST(test_files_seen_by_a_job)
{
    rig_lease("res1", 0, 20000);
    char *script = xasprintf(
        "pwd; echo $$; ls /proc | grep -c '^[0-9]'; ls -A /sys/fs /root /home %s | "
        "grep -v : | grep -c .; ls -A /run; touch /etc/x 2>&1; touch ok && echo wrote; "
        "touch /tmp/a /dev/shm/b && echo private; cat /proc/self/cgroup | grep ^0; "
        "ls %s/gpu1 && (: < %s/gpu1) 2>&1 | sed 's/.*: //'",
        rig.state, rig.nodes, rig.nodes);
    char *out = rig_run("res1", "j1", 0, SH(script));
    char *want = xasprintf("/run/neargpu/work\n2\n%d\n0\nneargpu\n"
                           "touch: cannot touch '/etc/x': Read-only file system\n"
                           "wrote\nprivate\n0::/\n%s/gpu1\nPermission denied",
                           4, rig.nodes);
    /* The number of processes depends on the pipeline; all it has to be is small. */
    char *line = strstr(out, "\n2\n");
    ck_assert_msg(line != NULL, "%s", out);
    ck_assert_int_lt(strtol(line + 3, NULL, 10), 8);
    char *rest = strchr(line + 3, '\n'), *want_rest = strstr(want, "\n0\nneargpu");
    ck_assert_str_eq(rest, want_rest);
    free(want);
    free(out);
    free(script);
    rig_end("res1");
}
END_TEST

START_TEST(test_work_directory_is_the_leases)
{
    rig_lease("res1", -1, 20000);
    rig_lease("res2", -1, 20000);
    free(rig_run("res1", "j1", -1, SH("echo data > kept")));
    char *same = rig_run("res1", "j2", -1, SH("cat kept"));
    char *other = rig_run("res2", "j1", -1, SH("ls kept 2>&1 | grep -c No.such"));
    ck_assert_str_eq(same, "data");
    ck_assert_str_eq(other, "1");
    free(same);
    free(other);
    rig_end("res1");
    rig_end("res2");
}
END_TEST

START_TEST(test_two_jobs_at_once_one_ends)
{
    struct err err;
    rig_lease("res1", -1, 20000);
    rig_ok(rig_start("res1", "long", -1, SH("sleep 100"), &err), &err);
    char *out = rig_run("res1", "short", -1, SH("echo done"));
    ck_assert_str_eq(out, "done");
    ck_assert(rig_populated("res1"));
    free(out);
    rig_end("res1");
}
END_TEST

START_TEST(test_environment)
{
    struct err err;
    char *x;
    rig_lease("res1", -1, 20000);
    struct launch_spec s = rig_spec("res1", "j1", -1, SH("env | sort"));
    s.envp = xcalloc(2, sizeof(char *));
    s.envp[0] = xstrdup("CUDA_VISIBLE_DEVICES=GPU-1");
    rig_ok(rig_start_spec(&s, &err), &err);
    launch_spec_done(&s);
    char *out = rig_output("res1", "j1", 0, 5000, &x);
    ck_assert_str_eq(out,
                     "CUDA_VISIBLE_DEVICES=GPU-1\nHOME=/run/neargpu/work\n"
                     "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:"
                     "/bin\nPWD=/run/neargpu/work\n");
    free(out);
    free(x);
    rig_end("res1");
}
END_TEST

/* Files come with the launch; what the tenant put in their place is replaced, and not
 * written through. */
START_TEST(test_files_of_a_launch)
{
    struct err err;
    char *x;
    rig_lease("res1", -1, 20000);
    char *victim = xasprintf("%s/victim", rig.dir);
    rig_ok(fsx_write(victim, "mine", 4, 0666, &err), &err);
    char *dir = rig_lease_dir("res1"), *planted = xasprintf("%s/work/hostfile", dir);
    ck_assert_int_eq(symlink(victim, planted), 0);
    struct launch_spec s =
        rig_spec("res1", "j1", -1, SH("cat hostfile; stat -c '%a %u' hostfile; ls -A"));
    s.files = xcalloc(1, sizeof(*s.files));
    s.files[0] =
        (struct launch_file){xstrdup("hostfile"), xstrdup("10.0.0.1 slots=2\n")};
    s.file_count = 1;
    rig_ok(rig_start_spec(&s, &err), &err);
    launch_spec_done(&s);
    char *out = rig_output("res1", "j1", 0, 5000, &x);
    ck_assert_str_eq(out, "10.0.0.1 slots=2\n600 65534\nhostfile\nprobe\n");
    free(out);
    free(x);
    rig_ok(fsx_read(victim, 100, &out, NULL, &err), &err);
    ck_assert_str_eq(out, "mine");
    free(out);
    s = rig_spec("res1", "j2", -1, SH("exit 0"));
    s.files = xcalloc(1, sizeof(*s.files));
    s.files[0] = (struct launch_file){xstrdup("../up"), xstrdup("x")};
    s.file_count = 1;
    ck_assert_int_eq(rig_start_spec(&s, &err), -1);
    ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    launch_spec_done(&s);
    free(planted);
    free(dir);
    free(victim);
    rig_end("res1");
}
END_TEST

/* Nothing of keeper or lease-init is open in the job; no core, no bpf fd, no log. */
START_TEST(test_descriptors_and_limits)
{
    rig_lease("res1", -1, 20000);
    char *out = rig_run("res1", "j2", -1,
                        SH("exec 3</dev/null; ls /proc/$$/fd; ulimit -c; "
                           "cat /proc/$$/oom_score_adj"));
    ck_assert_str_eq(out, "0\n1\n2\n3\n0\n500");
    free(out);
    rig_end("res1");
}
END_TEST

/* Keeper and lease-init come before the job; the job is as nice as its launcher. */
START_TEST(test_priority)
{
    char want[64];
    int mine = getpriority(PRIO_PROCESS, 0);
    int its = mine - KEEPER_NICE < -20 ? -20 : mine - KEEPER_NICE;
    rig_lease("res1", -1, 20000);
    snprintf(want, sizeof(want), "%d %d", mine, its);
    char *out =
        rig_run("res1", "j1", -1, SH("echo $(ps -o ni= -p $$) $(ps -o ni= -p 1)"));
    ck_assert_str_eq(out, want);
    free(out);
    rig_end("res1");
}
END_TEST

/* The network is the host's, its abstract sockets are not. */
START_TEST(test_abstract_sockets_of_the_host)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int len = snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "%s", rig.base);
    socklen_t size =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, size), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    rig_lease("res1", -1, 20000);
    char *out =
        rig_run("res1", "j1", -1, ARGV(RIG_PROBE, "probe", "abstract", rig.base));
    if (rig_landlock() >= 6)
        ck_assert_str_eq(out, "EPERM");
    free(out);
    close(fd);
    rig_end("res1");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_launch");
    rig_add(s, "devices", test_devices_seen_by_a_job);
    rig_add(s, "exit_codes", test_exit_codes);
    rig_add(s, "refused", test_refused_launches_say_why);
    rig_add(s, "no_gate", test_no_gate_no_job);
    rig_add(s, "privileges", test_privileges);
    rig_add(s, "calls", test_system_calls_refused);
    rig_add(s, "files", test_files_seen_by_a_job);
    rig_add(s, "work", test_work_directory_is_the_leases);
    rig_add(s, "two_jobs", test_two_jobs_at_once_one_ends);
    rig_add(s, "environment", test_environment);
    rig_add(s, "launch_files", test_files_of_a_launch);
    rig_add(s, "descriptors", test_descriptors_and_limits);
    rig_add(s, "priority", test_priority);
    rig_add(s, "abstract", test_abstract_sockets_of_the_host);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}

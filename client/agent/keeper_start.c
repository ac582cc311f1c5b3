/* keeper_start: makes the job's cgroup and its lease-init, or finds them again. */
#include "client/agent/keeper_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/agent/cgroup.h"
#include "client/agent/devprog.h"
#include "client/agent/lease_init.h"
#include "client/lib/clock.h"
#include "client/lib/xalloc.h"

bool keeper_file_exists(const struct keeper *k, const char *name)
{
    return faccessat(k->job_fd, name, F_OK, 0) == 0;
}

void keeper_watch_cgroup(struct keeper *k)
{
    char *path = xasprintf("%s/cgroup.events", k->cgroup_dir);
    k->events_fd = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
}

static int fifo(const struct keeper *k, const char *name, int flags)
{
    return openat(k->job_fd, name, flags | O_CLOEXEC | O_NOFOLLOW);
}

int keeper_adopt_job(struct keeper *k, struct err *err)
{
    k->out_r = fifo(k, "stdout", O_RDONLY | O_NONBLOCK);
    k->err_r = fifo(k, "stderr", O_RDONLY | O_NONBLOCK);
    k->ctl = fifo(k, "ctl", O_RDWR | O_NONBLOCK);
    if (k->out_r < 0 || k->err_r < 0 || k->ctl < 0)
        return err_sys(err, errno, "open the job's FIFOs");
    /* ENXIO: the job has closed its input; nothing to write to any more. */
    if (k->spec.want_stdin && !keeper_file_exists(k, "stdin_eof"))
        k->in_w = fifo(k, "stdin", O_WRONLY | O_NONBLOCK);
    keeper_watch_cgroup(k);
    return 0;
}

/* No gate, no job: whoever called is not trusted to have opened the lease. */
static int check_gate(const struct cgroup_mounts *m, const struct keeper *k,
                      struct err *err)
{
    uint32_t count = 0;
    bool multi = false;
    char *dir = cgroup_path(m->v2, k->spec.base, k->spec.lease, NULL);
    int rc = cgroup_gate_query(dir, &count, &multi, err);
    if (rc == 0 && (count == 0 || !multi))
        rc = err_set(err, ERR_CONFLICT, "lease %s has no device gate", k->spec.lease);
    free(dir);
    return rc;
}

/* A delegated job has less than the lease: a second gate on its own cgroup. The kernel
 * asks both, so it can only take away. */
static int narrow_gate(const struct keeper *k, struct err *err)
{
    const struct launch_spec *s = &k->spec;
    if (s->end_boot_us == 0)
        return 0;
    struct devprog_rule *rules = xcalloc(s->node_count + 1, sizeof(*rules));
    struct devprog *prog = xcalloc(1, sizeof(*prog));
    for (size_t i = 0; i < s->node_count; i++)
        rules[i] = (struct devprog_rule){'c', s->nodes[i].major, s->nodes[i].minor,
                                         DEVPROG_READ | DEVPROG_WRITE};
    int rc = devprog_build(rules, s->node_count, s->end_boot_us, prog, err);
    if (rc == 0)
        rc = cgroup_gate_set(k->cgroup_dir, prog, err);
    free(prog);
    free(rules);
    return rc;
}

static int v1_open(const char *mount, bool on_v2, const struct launch_spec *spec)
{
    if (on_v2 || mount[0] == '\0')
        return -1;
    char *dir = cgroup_path(mount, spec->base, spec->lease, NULL);
    /* lease-init has one thread, and moving a thread is much faster than a process. */
    char *path = xasprintf("%s/tasks", dir);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    free(path);
    free(dir);
    return fd;
}

static int work_dir(const struct keeper *k, struct err *err)
{
    char *path = xasprintf("%s/work", k->lease_dir);
    int rc = 0;
    if ((mkdir(path, 0700) < 0 && errno != EEXIST) ||
        lchown(path, k->spec.uid, k->spec.gid) < 0)
        rc = err_sys(err, errno, "make %s", path);
    free(path);
    return rc;
}

/* The directory is the tenant's: whatever it has put there under this name, a link to
 * elsewhere too, is replaced as a name and never followed or written through. */
static int write_file(int dir_fd, const struct keeper *k, const struct launch_file *f,
                      struct err *err)
{
    char tmp[96];
    size_t len = strlen(f->text), done = 0;
    snprintf(tmp, sizeof(tmp), ".%.40s.%ld", k->spec.job, (long)getpid());
    (void)unlinkat(dir_fd, tmp, 0);
    int fd =
        openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(err, errno, "write %s", f->name);
    while (done < len) {
        ssize_t n = write(fd, f->text + done, len - done);
        if (n < 0 && errno != EINTR)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    int rc = 0;
    if (done < len || fchown(fd, k->spec.uid, k->spec.gid) < 0 ||
        renameat(dir_fd, tmp, dir_fd, f->name) < 0)
        rc = err_sys(err, errno, "write %s", f->name);
    close(fd);
    if (rc < 0)
        (void)unlinkat(dir_fd, tmp, 0);
    return rc;
}

static int write_files(const struct keeper *k, struct err *err)
{
    if (k->spec.file_count == 0)
        return 0;
    char *path = xasprintf("%s/work", k->lease_dir);
    int dir_fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
    if (dir_fd < 0)
        rc = err_sys(err, errno, "open %s", path);
    for (size_t i = 0; rc == 0 && i < k->spec.file_count; i++)
        rc = write_file(dir_fd, k, &k->spec.files[i], err);
    if (dir_fd >= 0)
        close(dir_fd);
    free(path);
    return rc;
}

/* Durable before the job exists: whoever finds it never starts the job again. The file
 * systems of Linux keep the way to a new file with it: the directories above, which are
 * new as well, take part in the same commit. The rest of a job is of no use after a
 * power cut, which no job survives. */
static int mark_started(const struct keeper *k, struct err *err)
{
    int fd =
        openat(k->job_fd, "started", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(err, errno, "mark the job as started");
    int rc = dprintf(fd, "%" PRId64 "\n", clock_now_us()) > 0 && fsync(fd) == 0 &&
                     fsync(k->job_fd) == 0
                 ? 0
                 : err_sys(err, errno, "mark the job as started");
    close(fd);
    return rc;
}

static int open_fifos(struct keeper *k, struct lease_init *li, struct err *err)
{
    li->in_r = li->in_w = -1;
    if (k->spec.want_stdin) {
        int both = fifo(k, "stdin", O_RDWR);
        li->in_r = fifo(k, "stdin", O_RDONLY);
        li->in_w = fifo(k, "stdin", O_WRONLY);
        k->in_w = fifo(k, "stdin", O_WRONLY | O_NONBLOCK);
        if (both >= 0)
            close(both);
        if (li->in_r < 0 || li->in_w < 0 || k->in_w < 0)
            return err_sys(err, errno, "open stdin");
    }
    li->out = fifo(k, "stdout", O_RDWR);
    li->err = fifo(k, "stderr", O_RDWR);
    k->out_r = fifo(k, "stdout", O_RDONLY | O_NONBLOCK);
    k->err_r = fifo(k, "stderr", O_RDONLY | O_NONBLOCK);
    k->ctl = fifo(k, "ctl", O_RDWR | O_NONBLOCK);
    li->ctl = k->ctl;
    if (li->out < 0 || li->err < 0 || k->out_r < 0 || k->err_r < 0 || k->ctl < 0)
        return err_sys(err, errno, "open the job's FIFOs");
    return 0;
}

static pid_t clone_into(int cgroup_fd)
{
    struct clone_args args = {.flags = CLONE_INTO_CGROUP | CLONE_NEWPID | CLONE_NEWNS |
                                       CLONE_NEWIPC | CLONE_NEWUTS,
                              .exit_signal = SIGCHLD,
                              .cgroup = (uint64_t)cgroup_fd};
    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* Empty when the job was executed; "CODE text" when not. */
static int read_report(int fd, struct err *err)
{
    char text[ERR_TEXT_MAX + 16];
    size_t len = 0;
    ssize_t n;
    while (len < sizeof(text) - 1 &&
           ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0 ||
            (n < 0 && errno == EINTR)))
        len += n > 0 ? (size_t)n : 0;
    if (len == 0)
        return 0;
    text[len] = '\0';
    char *rest;
    long code = strtol(text, &rest, 10);
    return err_set(err, (enum err_code)code, "%s", *rest == ' ' ? rest + 1 : rest);
}

static void close_child_ends(struct lease_init *li)
{
    int fds[] = {li->in_r,        li->in_w,        li->out,        li->err,
                 li->v1_procs[0], li->v1_procs[1], li->v1_procs[2]};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int run_init(struct keeper *k, struct lease_init *li, struct err *err)
{
    int cgroup_fd = open(k->cgroup_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int report[2];
    if (cgroup_fd < 0)
        return err_sys(err, errno, "open %s", k->cgroup_dir);
    if (pipe2(report, O_CLOEXEC) < 0) {
        close(cgroup_fd);
        return err_sys(err, errno, "pipe");
    }
    li->report = report[1];
    pid_t pid = clone_into(cgroup_fd);
    if (pid == 0)
        lease_init_run(li);
    int rc = pid > 0 ? 0 : err_sys(err, errno, "clone3 into %s", k->cgroup_dir);
    close(cgroup_fd);
    close(report[1]);
    if (rc == 0)
        rc = read_report(report[0], err);
    close(report[0]);
    return rc;
}

int keeper_start_job(struct keeper *k, struct err *err)
{
    struct cgroup_mounts m;
    if (cgroup_find_mounts(&m, err) < 0 || check_gate(&m, k, err) < 0 ||
        cgroup_make(k->cgroup_dir, err) < 0 || narrow_gate(k, err) < 0 ||
        work_dir(k, err) < 0 || write_files(k, err) < 0)
        return -1;
    struct lease_init li = {.spec = &k->spec,
                            .lease_dir = k->lease_dir,
                            .state_dir = k->state_dir,
                            .deadline = k->deadline,
                            .job_fd = k->job_fd,
                            .nicer = k->nicer,
                            .in_r = -1,
                            .in_w = -1,
                            .out = -1,
                            .err = -1,
                            .v1_procs = {v1_open(m.v1_memory, m.v2_memory, &k->spec),
                                         v1_open(m.v1_pids, m.v2_pids, &k->spec),
                                         v1_open(m.v1_cpu, m.v2_cpu, &k->spec)}};
    /* Its own timer and watch: the two must not take each other's events. */
    int rc = deadline_open(&li.deadline, k->lease_dir, err);
    deadline_cap(&li.deadline, k->spec.end_boot_us);
    if (rc == 0)
        rc = open_fifos(k, &li, err);
    if (rc == 0)
        rc = mark_started(k, err);
    if (rc == 0) {
        keeper_watch_cgroup(k);
        rc = run_init(k, &li, err);
    }
    close_child_ends(&li);
    deadline_close(&li.deadline);
    if (rc < 0) {
        struct err ignored;
        if (cgroup_kill(k->cgroup_dir, &ignored) < 0)
            return rc;
        while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
            ;
    }
    return rc;
}

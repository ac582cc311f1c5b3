/* gate: the device gate of cgroup.h, by raw bpf(2). Nothing here keeps a bpf fd: each
 * is closed before return, since a program fd inherited by a job would let it detach.
 */
#include "client/agent/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GATE_PROGS_MAX 64 /* the kernel's own bound for one cgroup */

static int bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int prog_load(const struct devprog *prog, struct err *err)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.expected_attach_type = BPF_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)prog->insns;
    attr.insn_cnt = (uint32_t)prog->count;
    attr.license = (uint64_t)(uintptr_t) "Dual MIT/GPL";
    memcpy(attr.prog_name, "neargpu_gate", sizeof("neargpu_gate"));
    int fd = bpf(BPF_PROG_LOAD, &attr);
    if (fd >= 0)
        return fd;
    int saved = errno;
    /* Once more with the verifier's log: only the refused program pays for it. */
    char *log = calloc(1, 1 << 16);
    if (log != NULL) {
        attr.log_buf = (uint64_t)(uintptr_t)log;
        attr.log_size = 1 << 16;
        attr.log_level = 1;
        int again = bpf(BPF_PROG_LOAD, &attr);
        if (again >= 0) {
            free(log);
            return again;
        }
        size_t len = strlen(log);
        err_sys(err, saved, "load the device gate (%s)",
                len > 120 ? log + len - 120 : log);
        free(log);
        return -1;
    }
    return err_sys(err, saved, "load the device gate");
}

static int gate_ids(int dir_fd, uint32_t ids[GATE_PROGS_MAX], uint32_t *ret_count,
                    uint32_t *ret_flags)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.query.target_fd = (uint32_t)dir_fd;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attr.query.prog_cnt = GATE_PROGS_MAX;
    if (bpf(BPF_PROG_QUERY, &attr) < 0)
        return -1;
    *ret_count = attr.query.prog_cnt;
    *ret_flags = attr.query.attach_flags;
    return 0;
}

/* The program of ours that is attached now, as an fd; -1 when there is none. */
static int gate_current(int dir_fd)
{
    uint32_t ids[GATE_PROGS_MAX], count, flags;
    if (gate_ids(dir_fd, ids, &count, &flags) < 0)
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        union bpf_attr attr;
        memset(&attr, 0, sizeof(attr));
        attr.prog_id = ids[i];
        int fd = bpf(BPF_PROG_GET_FD_BY_ID, &attr);
        if (fd < 0)
            continue;
        struct bpf_prog_info info;
        memset(&info, 0, sizeof(info));
        memset(&attr, 0, sizeof(attr));
        attr.info.bpf_fd = (uint32_t)fd;
        attr.info.info_len = sizeof(info);
        attr.info.info = (uint64_t)(uintptr_t)&info;
        if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) == 0 &&
            strncmp(info.name, "neargpu_gate", sizeof(info.name)) == 0)
            return fd;
        close(fd);
    }
    return -1;
}

int cgroup_gate_set(const char *dir, const struct devprog *prog, struct err *err)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return err_sys(err, errno, "open %s", dir);
    int rc = -1, old_fd = -1;
    int fd = prog_load(prog, err);
    if (fd < 0)
        goto out;
    old_fd = gate_current(dir_fd);
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)dir_fd;
    attr.attach_bpf_fd = (uint32_t)fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    if (old_fd >= 0) {
        attr.attach_flags |= BPF_F_REPLACE;
        attr.replace_bpf_fd = (uint32_t)old_fd;
    }
    if (bpf(BPF_PROG_ATTACH, &attr) == 0)
        rc = 0;
    else if (errno == EPERM)
        err_set(err, ERR_UNAVAILABLE,
                "attach the device gate to %s: a device program stands there or above "
                "that suffers no second one (attached without allow_multi)",
                dir);
    else
        err_sys(err, errno, "attach the device gate to %s", dir);
out:
    if (old_fd >= 0)
        close(old_fd);
    if (fd >= 0)
        close(fd);
    close(dir_fd);
    return rc;
}

int cgroup_gate_clear(const char *dir, struct err *err)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return errno == ENOENT ? 0 : err_sys(err, errno, "open %s", dir);
    int rc = 0, fd = gate_current(dir_fd);
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)dir_fd;
    attr.attach_bpf_fd = (uint32_t)fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    if (fd >= 0 && bpf(BPF_PROG_DETACH, &attr) < 0)
        rc = err_sys(err, errno, "take the device gate off %s", dir);
    if (fd >= 0)
        close(fd);
    close(dir_fd);
    return rc;
}

int cgroup_gate_query(const char *dir, uint32_t *ret_count, bool *ret_multi,
                      struct err *err)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return err_sys(err, errno, "open %s", dir);
    uint32_t ids[GATE_PROGS_MAX], flags = 0;
    int rc = gate_ids(dir_fd, ids, ret_count, &flags);
    if (rc < 0)
        rc = err_sys(err, errno, "query the device gate of %s", dir);
    else
        *ret_multi = (flags & BPF_F_ALLOW_MULTI) != 0;
    close(dir_fd);
    return rc;
}

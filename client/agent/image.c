/* image: see image.h. */
#include "client/agent/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/agent/cdi.h"
#include "client/agent/cgroup.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"

#define CDI_DIR   "/run/cdi" /* podman looks into /etc/cdi and /var/run/cdi */
#define LIMIT_MAX INT64_C(1048576)
#define FIXED_MAX 64 /* arguments that are not the tenant's */

static int make_dir(const char *path, struct err *err)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_sys(err, errno, "mkdir %s", path);
    return 0;
}

/* The gate refuses mknod; runc then binds the node of the same name. */
static int check_nodes(const struct launch_spec *spec, struct err *err)
{
    for (size_t i = 0; i < spec->node_count; i++) {
        const struct launch_node *n = &spec->nodes[i];
        if (strncmp(n->outside, "/dev/", 5) != 0 ||
            strcmp(n->outside + 5, n->inside) != 0)
            return err_set(err, ERR_UNAVAILABLE,
                           "a container would not find %s under that name", n->outside);
    }
    return 0;
}

static int put_cdi(const struct launch_spec *spec, struct err *err)
{
    json_t *doc = cdi_spec(spec->nodes, spec->node_count);
    if (doc == NULL)
        return err_set(err, ERR_BAD_REQUEST, "a device's path is not UTF-8");
    char *text = jsonx_dump(doc);
    int rc = fsx_write(CDI_DIR "/neargpu.json", text, strlen(text), 0600, err);
    free(text);
    json_decref(doc);
    return rc;
}

int image_enter(const struct launch_spec *spec, const char *lease_dir, struct err *err)
{
    char *own = xasprintf("%s/jobs/%s/podman", lease_dir, spec->job);
    int rc = check_nodes(spec, err);
    if (rc == 0 &&
        (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
         mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0))
        rc = err_sys(err, errno, "private mounts");
    if (rc == 0 && (make_dir(CDI_DIR, err) < 0 || make_dir(IMAGE_DIR, err) < 0 ||
                    make_dir(own, err) < 0))
        rc = -1;
    /* The short name is for podman, whose sockets have long ones of their own. */
    if (rc == 0 && (mount("tmpfs", CDI_DIR, "tmpfs", MS_NOSUID | MS_NODEV,
                          "size=1m,mode=0700") < 0 ||
                    mount(own, IMAGE_DIR, NULL, MS_BIND, NULL) < 0))
        rc = err_sys(err, errno, "mount podman's directories");
    if (rc == 0)
        rc = put_cdi(spec, err);
    free(own);
    return rc;
}

struct words {
    char **list;
    size_t count;
};

static void add(struct words *w, const char *text)
{
    w->list[w->count++] = xstrdup(text);
}

static void add_take(struct words *w, char *text_take)
{
    w->list[w->count++] = text_take;
}

static void add_globals(struct words *w, const struct launch_spec *s)
{
    static const char *const fixed[] = {
        "--root",           IMAGE_DIR "/root",
        "--runroot",        IMAGE_DIR "/run",
        "--tmpdir",         IMAGE_DIR "/tmp",
        "--storage-driver", "overlay",
        "--cgroup-manager", "cgroupfs",
        "--events-backend", "none",
        "--runtime",        "runc",
    };
    add(w, s->podman);
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        add(w, fixed[i]);
    add(w, "--storage-opt");
    add_take(w, xasprintf("overlay.imagestore=%s", s->image_store));
}

char **image_argv(const struct launch_spec *spec, const char *work_dir, int64_t nofile,
                  int64_t nproc)
{
    static const char *const fixed[] = {
        "run",
        "--rm",
        "--pull=never",
        "--network=host",
        "--cgroupns=private",
        "--cgroups=no-conmon",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--log-driver=none",
        "--ulimit=core=0:0", /* the host's handler would write it, outside */
        "--device=" CDI_DEVICE,
        "--env=HOME=" LAUNCH_WORK,
    };
    size_t argc = 0, envc = 0;
    while (spec->argv[argc] != NULL)
        argc++;
    while (spec->envp != NULL && spec->envp[envc] != NULL)
        envc++;
    struct words w = {xcalloc(FIXED_MAX + argc + envc, sizeof(char *)), 0};
    add_globals(&w, spec);
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        add(&w, fixed[i]);
    if (spec->want_stdin || spec->pty)
        add(&w, "--interactive");
    if (spec->pty)
        add(&w, "--tty");
    if (spec->pty && spec->term != NULL)
        add_take(&w, xasprintf("--env=TERM=%s", spec->term));
    add_take(&w, xasprintf("--cgroup-parent=/%s/%s/img-%s",
                           spec->base != NULL ? spec->base : CGROUP_BASE, spec->lease,
                           spec->job));
    add_take(&w, xasprintf("--user=%u:%u", (unsigned)spec->uid, (unsigned)spec->gid));
    add_take(&w, xasprintf("--ulimit=nofile=%" PRId64 ":%" PRId64, nofile, nofile));
    add_take(&w, xasprintf("--ulimit=nproc=%" PRId64 ":%" PRId64, nproc, nproc));
    add_take(&w, xasprintf("--volume=%s:" LAUNCH_WORK, work_dir));
    add_take(&w,
             xasprintf("--workdir=%s", spec->cwd != NULL ? spec->cwd : LAUNCH_WORK));
    for (size_t i = 0; i < envc; i++)
        add_take(&w, xasprintf("--env=%s", spec->envp[i]));
    add(&w, "--entrypoint="); /* what runs is what the grant's proof names */
    add(&w, spec->image);
    for (size_t i = 0; i < argc; i++)
        add(&w, spec->argv[i]);
    return w.list;
}

static int64_t hard_limit(int what, int64_t wanted)
{
    struct rlimit now;
    int64_t most = wanted > 0 && wanted < LIMIT_MAX ? wanted : LIMIT_MAX;
    if (getrlimit(what, &now) == 0 && now.rlim_max != RLIM_INFINITY &&
        (int64_t)now.rlim_max < most)
        most = (int64_t)now.rlim_max;
    return most;
}

int image_exec(const struct launch_spec *spec, const char *lease_dir, struct err *err)
{
    static char *env[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=" IMAGE_DIR, NULL};
    char *work = xasprintf("%s/work", lease_dir);
    char **argv = image_argv(
        spec, work, hard_limit(RLIMIT_NOFILE, spec->nofile > 0 ? spec->nofile : 65536),
        hard_limit(RLIMIT_NPROC, spec->nproc));
    free(work);
    if (chdir("/") == 0)
        execve(argv[0], argv, env);
    return err_sys(err, errno, "cannot execute %s", argv[0]);
}

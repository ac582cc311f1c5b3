/* command_cleanup: takes everything of this node's leases out of the kernel. Works
 * without the agent and without its state; repeating it is harmless. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client/agent/cgroup.h"
#include "client/agent/commands.h"
#include "client/agent/enforce.h"
#include "client/agent/settings.h"
#include "client/lib/clock.h"
#include "client/lib/xalloc.h"

#define CLEANUP_WAIT_US    INT64_C(5000000)
#define CLEANUP_KEEPERS_US INT64_C(2000000)

static int end_one(struct enforce *e, const char *id, struct err *err)
{
    const struct timespec nap = {0, 5000000};
    int64_t until = clock_boot_us() + CLEANUP_WAIT_US;
    if (e->ops->deny(e, id, err) != 0)
        return -1;
    for (;;) {
        if (e->ops->kill(e, id, err) != 0)
            return -1;
        if (e->ops->close(e, id, err) == 0)
            return 0;
        if (err->code != ERR_CONFLICT || clock_boot_us() > until)
            return -1;
        (void)nanosleep(&nap, NULL);
    }
}

static int end_all(struct enforce *e, size_t *ret_ended, struct err *err)
{
    char **ids = NULL;
    size_t count = 0;
    struct err one;
    int rc = 0;
    if (e->ops->list(e, &ids, &count, err) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (end_one(e, ids[i], &one) != 0)
            rc = err_set(err, one.code, "lease %s: %s", ids[i], one.text);
        else
            (*ret_ended)++;
        free(ids[i]);
    }
    free(ids);
    return rc;
}

/* Keepers write down how their jobs ended and go by themselves; one that does not is
 * ended. */
static int remove_dir(const char *dir, struct err *err)
{
    const struct timespec nap = {0, 20000000};
    int64_t until = clock_boot_us() + CLEANUP_KEEPERS_US;
    bool killed = false;
    for (;;) {
        if (cgroup_remove(dir, err) == 0)
            return 0;
        if (err->code != ERR_CONFLICT || killed)
            return -1;
        if (clock_boot_us() > until) {
            char *keepers = xasprintf("%s/" CGROUP_KEEPERS, dir);
            int rc = cgroup_kill(keepers, err);
            free(keepers);
            if (rc != 0)
                return -1;
            killed = true;
        }
        (void)nanosleep(&nap, NULL);
    }
}

static int remove_base(const char *base, struct err *err)
{
    struct cgroup_mounts m;
    int rc = 0;
    if (cgroup_find_mounts(&m, err) != 0)
        return -1;
    const char *roots[] = {m.v2, m.v1_memory, m.v1_pids, m.v1_cpu};
    for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
        if (roots[i][0] == '\0')
            continue;
        char *dir = cgroup_path(roots[i], base, NULL, NULL);
        if (remove_dir(dir, err) != 0)
            rc = -1;
        free(dir);
    }
    return rc;
}

int command_cleanup(const struct opt_values *v)
{
    struct settings conf;
    struct enforce *e = NULL;
    struct err err;
    size_t ended = 0;
    if (settings_load(command_conf_path(v), &conf, &err) != 0)
        return command_fail(&err);
    int rc = enforce_cgroup_new(conf.cgroup_base, &e, &err);
    if (rc == 0)
        rc = end_all(e, &ended, &err);
    if (e != NULL)
        e->ops->free(e);
    if (rc == 0)
        rc = remove_base(conf.cgroup_base, &err);
    settings_done(&conf);
    if (rc != 0)
        return command_fail(&err);
    printf("%zu leases ended\n", ended);
    return 0;
}

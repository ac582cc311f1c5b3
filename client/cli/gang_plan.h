/* gang_plan: who is who in a gang: the nodes of a reservation in the order of their
 * ranks, and the environment by which a rank finds its place among the others, in the
 * words of torch.distributed and torchrun, of MPI, and our own. Pure.
 *
 * One process on each node: RANK is the node's. One for each GPU: a node's ranks are
 * neighbours, LOCAL_RANK the index of its own among the node's GPUs, all of which every
 * process sees, as torchrun leaves it. */
#ifndef NEARGPU_GANG_PLAN_H
#define NEARGPU_GANG_PLAN_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "client/lib/err.h"

#define GANG_HOSTFILE      "hostfile" /* in the work directory of the lease */
#define GANG_HOSTFILE_PATH "/run/neargpu/work/" GANG_HOSTFILE
/* Below the ports that systems hand out by themselves (32768 and up). */
#define GANG_PORT_MIN   20000
#define GANG_PORT_COUNT 10000

struct gang_node {
    const char *name, *site, *address; /* borrowed from the reservation */
    char *host;                        /* of the address, without port; "" if none */
    const char *group;                 /* data set its group is near; NULL: none */
    const json_t *gpus;                /* uuids */
    int first;                         /* RANK of its first process */
    int processes;
};

struct gang_plan {
    json_t *resv; /* owned */
    struct gang_node *nodes;
    size_t count;
    int world;               /* processes in all */
    const char *coordinator; /* site of rank 0 */
    bool per_gpu;
    int port;
};

/* node NULL: all of them. ERR_NOT_FOUND: no such node; ERR_CONFLICT: it has none yet.
 */
int gang_plan_make(const json_t *resv, const char *node, bool per_gpu,
                   struct gang_plan *ret, struct err *err) MUST_USE;
void gang_plan_done(struct gang_plan *p);
/* {"NAME":"value"} of one process; new reference. */
json_t *gang_plan_env(const struct gang_plan *p, size_t node, int local,
                      const char *run);
/* "HOST slots=N" lines, by rank; caller frees. */
char *gang_plan_hostfile(const struct gang_plan *p);

#endif

/* gang_plan: see gang_plan.h. */
#include "client/cli/gang_plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/addr.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

static const char *text_of(const json_t *obj, const char *member)
{
    const char *text = json_string_value(json_object_get(obj, member));
    return text != NULL ? text : "";
}

static char *host_of(const char *address)
{
    struct addr a;
    if (!addr_split(address, strlen(address), &a))
        return xstrdup("");
    return xstrdup(a.host);
}

struct row {
    const json_t *allocation;
    int64_t rank;
};

static int by_rank(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* Groups stand in the reservation with their site and size; ranks of one are
 * neighbours. */
static void set_groups(struct gang_plan *p)
{
    const json_t *groups = json_object_get(p->resv, "groups");
    size_t n = json_array_size(groups), in = n;
    int64_t *left = xcalloc(n + 1, sizeof(*left));
    for (size_t i = 0; i < n; i++)
        left[i] =
            json_integer_value(json_object_get(json_array_get(groups, i), "nodes"));
    for (size_t k = 0; k < p->count; k++) {
        struct gang_node *node = &p->nodes[k];
        if (in == n || left[in] == 0) /* the next group at this node's site */
            for (in = 0; in < n; in++)
                if (left[in] > 0 && strcmp(text_of(json_array_get(groups, in), "site"),
                                           node->site) == 0)
                    break;
        if (in == n)
            continue;
        left[in]--;
        node->group = text_of(json_array_get(groups, in), "data");
    }
    free(left);
}

/* Tenants that share a node should not meet on one port: by the reservation's id
 * (FNV-1a). */
static int port_of(const char *id)
{
    uint32_t hash = 2166136261u;
    for (; *id != '\0'; id++)
        hash = (hash ^ (unsigned char)*id) * 16777619u;
    return GANG_PORT_MIN + (int)(hash % GANG_PORT_COUNT);
}

static void fill(struct gang_plan *p, const struct row *rows)
{
    for (size_t i = 0; i < p->count; i++) {
        struct gang_node *n = &p->nodes[i];
        const json_t *a = rows[i].allocation;
        n->name = text_of(a, "node");
        n->site = text_of(a, "site");
        n->address = text_of(a, "address");
        n->host = host_of(n->address);
        n->gpus = json_object_get(a, "gpus");
        n->first = p->world;
        n->processes = p->per_gpu ? (int)json_array_size(n->gpus) : 1;
        p->world += n->processes;
    }
    set_groups(p);
    const char *coordinator =
        json_string_value(json_object_get(p->resv, "coordinator"));
    p->coordinator = coordinator != NULL ? coordinator : p->nodes[0].site;
    p->port = port_of(text_of(p->resv, "id"));
}

int gang_plan_make(const json_t *resv, const char *node, bool per_gpu,
                   struct gang_plan *ret, struct err *err)
{
    const json_t *places = json_object_get(resv, "allocations"), *a;
    size_t n = json_array_size(places), count = 0, i;
    struct row *rows = xcalloc(n + 1, sizeof(*rows));
    json_array_foreach(places, i, a)
    {
        const json_t *rank = json_object_get(a, "rank");
        if (node != NULL && strcmp(text_of(a, "node"), node) != 0)
            continue;
        rows[count++] = (struct row){a, json_is_integer(rank) ? json_integer_value(rank)
                                                              : (int64_t)i};
    }
    if (count == 0) {
        free(rows);
        return n == 0 ? err_set(err, ERR_CONFLICT, "the reservation has no nodes")
                      : err_set(err, ERR_NOT_FOUND, "the reservation has no node %s",
                                node);
    }
    qsort(rows, count, sizeof(*rows), by_rank);
    *ret = (struct gang_plan){.resv = json_incref((json_t *)(uintptr_t)resv),
                              .nodes = xcalloc(count, sizeof(*ret->nodes)),
                              .count = count,
                              .per_gpu = per_gpu};
    fill(ret, rows);
    free(rows);
    return 0;
}

void gang_plan_done(struct gang_plan *p)
{
    for (size_t i = 0; i < p->count; i++)
        free(p->nodes[i].host);
    free(p->nodes);
    json_decref(p->resv);
    *p = (struct gang_plan){NULL};
}

static void set_text(json_t *env, const char *name, const char *value)
{
    json_object_set_new(env, name, json_string(value));
}

static void set_int(json_t *env, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, value);
    set_text(env, name, text);
}

static void set_own(const struct gang_plan *p, size_t node, int local, json_t *env)
{
    const struct gang_node *n = &p->nodes[node];
    struct strbuf hosts = STRBUF_INIT;
    for (size_t i = 0; i < p->count; i++)
        strbuf_addf(&hosts, "%s%s", i > 0 ? "," : "", p->nodes[i].host);
    set_int(env, "NEARGPU_RANK", n->first + local);
    set_int(env, "NEARGPU_NODES", (int64_t)p->count);
    set_text(env, "NEARGPU_HOSTS", strbuf_str(&hosts));
    set_text(env, "NEARGPU_HOSTFILE", GANG_HOSTFILE_PATH);
    set_text(env, "NEARGPU_COORDINATOR", p->coordinator);
    if (n->group != NULL)
        set_text(env, "NEARGPU_GROUP", n->group);
    if (p->per_gpu)
        set_text(env, "NEARGPU_GPU",
                 json_string_value(json_array_get(n->gpus, (size_t)local)));
    strbuf_done(&hosts);
}

json_t *gang_plan_env(const struct gang_plan *p, size_t node, int local,
                      const char *run)
{
    const struct gang_node *n = &p->nodes[node];
    json_t *env = json_object();
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"RANK", n->first + local},
        {"WORLD_SIZE", p->world},
        {"LOCAL_RANK", local},
        {"LOCAL_WORLD_SIZE", n->processes},
        {"GROUP_RANK", (int64_t)node},
        {"NODE_RANK", (int64_t)node},
        {"NNODES", (int64_t)p->count},
        {"NPROC_PER_NODE", (int64_t)json_array_size(n->gpus)},
        {"MASTER_PORT", p->port},
        /* torchrun reads these where its options are not given. */
        {"PET_NNODES", (int64_t)p->count},
        {"PET_NODE_RANK", (int64_t)node},
        {"PET_NPROC_PER_NODE", (int64_t)json_array_size(n->gpus)},
        {"PET_MASTER_PORT", p->port},
        {"OMPI_COMM_WORLD_RANK", n->first + local},
        {"OMPI_COMM_WORLD_SIZE", p->world},
        {"OMPI_COMM_WORLD_LOCAL_RANK", local},
        {"OMPI_COMM_WORLD_LOCAL_SIZE", n->processes},
        {"OMPI_COMM_WORLD_NODE_RANK", local},
        {"PMI_RANK", n->first + local},
        {"PMI_SIZE", p->world},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        set_int(env, numbers[i].name, numbers[i].value);
    set_text(env, "MASTER_ADDR", p->nodes[0].host);
    set_text(env, "PET_MASTER_ADDR", p->nodes[0].host);
    set_text(env, "NEARGPU_RUN", run);
    set_own(p, node, local, env);
    return env;
}

char *gang_plan_hostfile(const struct gang_plan *p)
{
    struct strbuf out = STRBUF_INIT;
    for (size_t i = 0; i < p->count; i++)
        strbuf_addf(&out, "%s slots=%zu\n", p->nodes[i].host,
                    json_array_size(p->nodes[i].gpus));
    return strbuf_steal(&out);
}

/* leases_view: what others see of the leases: the market, and the advert of GPUs. See
 * leases.h. Changes nothing. */
#include <string.h>

#include "client/agent/leases_impl.h"

json_t *leases_json(const struct leases *l)
{
    json_t *list = json_array();
    for (const struct live *v = l->list; v != NULL; v = v->next) {
        if (!uuid_is_valid(v->j.id))
            continue; /* a cgroup of nobody's, being ended */
        json_t *o = json_object(), *gpus = json_array();
        for (size_t i = 0; i < v->j.gpu_count; i++)
            json_array_append_new(gpus, json_string(v->j.gpus[i]));
        json_object_set_new(o, "reservation", json_string(v->j.id));
        json_object_set_new(
            o, "state",
            json_string(v->rebooted ? "opening" : lease_state_wire(v->j.state)));
        json_object_set_new(o, "epoch", json_integer(v->j.epoch));
        json_object_set_new(o, "gpus", gpus);
        json_array_append_new(list, o);
    }
    return list;
}

enum advert_hold leases_hold(void *arg, const char *uuid)
{
    const struct leases *l = arg;
    enum advert_hold hold = ADVERT_FREE;
    for (const struct live *v = l->list; v != NULL; v = v->next) {
        if (v->j.state == LEASE_DONE)
            continue;
        /* A cgroup without a journal: whichever GPUs it has, it may have this one. */
        if (v->j.gpu_count == 0 && strcmp(v->j.reason, "orphan") == 0)
            return ADVERT_HELD_QUARANTINED;
        for (size_t i = 0; i < v->j.gpu_count; i++) {
            if (strcmp(v->j.gpus[i], uuid) != 0)
                continue;
            if (v->j.state == LEASE_QUARANTINED)
                return ADVERT_HELD_QUARANTINED;
            hold = ADVERT_HELD;
        }
    }
    return hold;
}

/* slowdown_custom: a profile from a tenant's own numbers. The table is the only place
 * where their names, bounds and meaning stand. Bounds are wide (they keep out slips of
 * unit, not unusual jobs) and far below where a double loses a byte. */
#include <string.h>

#include "server/core/slowdown.h"

#define IN(kind)  (1u << SLOWDOWN_##kind)
#define STREAMING (IN(STREAM) | IN(STARTUP) | IN(REQUEST))
#define BULK      (IN(COLD) | IN(CHECKPOINT) | IN(FEDERATED))
#define LOADING   (IN(STREAM) | IN(COLD) | IN(STARTUP) | IN(CHECKPOINT))
#define YEAR_S    31622400.0
#define PETABYTE  1e15
#define FIELD(f)  #f, offsetof(struct slowdown_profile, f)

const struct slowdown_field slowdown_fields[] = {
    {FIELD(demand_Bps_per_gpu), 0, 1e13, STREAMING, IN(STREAM),
     "bytes per second one GPU reads at full speed"},
    {FIELD(request_bytes), 1, 1e12, STREAMING | BULK, 0, "bytes of one read request"},
    {FIELD(outstanding_per_gpu), 1, 1e6, STREAMING | BULK, 0,
     "read requests in flight per GPU (prefetch)"},
    {FIELD(trips_per_request), 0, 1e4, STREAMING | BULK, 0,
     "extra serial round trips of a read; kind request: all of a response"},
    {FIELD(step_s), 1e-6, 1e6, STREAMING, 0, "seconds of one step"},
    {FIELD(trips_per_step), 0, 1e6, STREAMING, 0,
     "round trips a step waits for; 0 where reads are prefetched"},
    {FIELD(startup_bytes), 0, PETABYTE, LOADING, IN(COLD) | IN(STARTUP),
     "bytes read once: the model, or the data set of a cold epoch"},
    {FIELD(startup_local_s), 0, YEAR_S, LOADING, 0,
     "seconds the same takes with the data local"},
    {FIELD(checkpoint_bytes), 0, PETABYTE, LOADING, IN(CHECKPOINT),
     "bytes of one checkpoint"},
    {FIELD(checkpoint_interval_s), 1, YEAR_S, LOADING, IN(CHECKPOINT),
     "seconds from one checkpoint to the next"},
    {FIELD(sync_Bps), 0, 1e13, IN(SYNC), IN(SYNC),
     "bytes exchanged per second of computing"},
    {FIELD(sync_trips_Hz), 0, 1e6, IN(SYNC) | IN(FEDERATED), 0,
     "round trips per second of computing"},
    {FIELD(response_bytes), 0, 1e12, IN(REQUEST), 0,
     "bytes of a request and its response"},
    {FIELD(response_local_s), 1e-6, YEAR_S, IN(REQUEST), IN(REQUEST),
     "response time of a user next to the GPU, seconds"},
    {FIELD(model_bytes), 0, PETABYTE, IN(FEDERATED), IN(FEDERATED),
     "bytes of the model, sent both ways each round"},
    {FIELD(round_s), 1e-3, YEAR_S, IN(FEDERATED), IN(FEDERATED),
     "seconds of computing of one round"},
};
const size_t slowdown_field_count = sizeof slowdown_fields / sizeof slowdown_fields[0];

static const struct slowdown_field *find_field(const char *name)
{
    for (size_t i = 0; i < slowdown_field_count; i++) {
        if (strcmp(slowdown_fields[i].name, name) == 0) {
            return &slowdown_fields[i];
        }
    }
    return NULL;
}

static int put_number(const struct slowdown_number *n, struct slowdown_profile *p,
                      unsigned *seen, struct err *err)
{
    const struct slowdown_field *f = find_field(n->name);
    if (f == NULL) {
        return err_set(err, ERR_BAD_REQUEST, "custom.%.40s: no such number", n->name);
    }
    unsigned bit = 1u << (f - slowdown_fields);
    if (*seen & bit) {
        return err_set(err, ERR_BAD_REQUEST, "custom.%s: given twice", f->name);
    }
    if (!(f->kinds & 1u << p->kind)) {
        return err_set(err, ERR_BAD_REQUEST, "custom.%s: means nothing for kind %s",
                       f->name, slowdown_kind_name(p->kind));
    }
    /* Written so that NaN is out of bounds. */
    if (!(n->value >= f->min && n->value <= f->max)) {
        return err_set(err, ERR_BAD_REQUEST, "custom.%s: %g is not in %g..%g (%s)",
                       f->name, n->value, f->min, f->max, f->what);
    }
    *seen |= bit;
    memcpy((char *)p + f->offset, &n->value, sizeof n->value);
    return 0;
}

int slowdown_profile_from(const char *kind, const struct slowdown_number *numbers,
                          size_t count, struct slowdown_profile *ret, struct err *err)
{
    struct slowdown_profile p = {.name = "custom",
                                 .kind = SLOWDOWN_STREAM,
                                 .gpu = "any",
                                 .source = "the tenant",
                                 .assumed = ""};
    unsigned seen = 0;
    if (kind != NULL && !slowdown_kind_find(kind, &p.kind)) {
        return err_set(err, ERR_BAD_REQUEST,
                       "custom.kind: \"%.40s\" is none of stream, cold, startup, "
                       "checkpoint, sync, request, federated",
                       kind);
    }
    for (size_t i = 0; i < count; i++) {
        if (put_number(&numbers[i], &p, &seen, err) != 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < slowdown_field_count; i++) {
        const struct slowdown_field *f = &slowdown_fields[i];
        if (f->needed & 1u << p.kind && !(seen & 1u << i)) {
            return err_set(err, ERR_BAD_REQUEST, "custom.%s: needed for kind %s (%s)",
                           f->name, slowdown_kind_name(p.kind), f->what);
        }
    }
    *ret = p;
    return 0;
}

/* advert: what a node tells the market about its GPUs: which are idle, when they may be
 * booked, and the body of a sync. Pure: samples, leases and `now` are handed in.
 *
 * A GPU is the owner's first: one sample with a process on it, or with more memory or
 * load than the thresholds, makes it busy at once; it is idle again only after
 * ADVERT_IDLE_SAMPLES idle samples in a row. A GPU in a lease is leased whatever runs
 * on it; a quarantined one stays so until its owner says otherwise. */
#ifndef NEARGPU_AGENT_ADVERT_H
#define NEARGPU_AGENT_ADVERT_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent/gpu.h"
#include "client/lib/err.h"

#define ADVERT_IDLE_SAMPLES 2
#define ADVERT_RULES_MAX    16
#define ADVERT_DAYS         14  /* windows are told this far ahead */
#define ADVERT_WINDOWS_MAX  256 /* 16 rules on 14 days, and two more days of slack */

enum advert_state {
    ADVERT_IDLE,
    ADVERT_LEASED,
    ADVERT_BUSY,
    ADVERT_LOST,
    ADVERT_QUARANTINED
};
const char *advert_state_name(enum advert_state s);

struct advert_limits {
    int64_t memory_mib;      /* more in use: the owner is at work */
    int64_t utilisation_ppm; /* likewise */
};

struct advert_gpu {
    struct gpu_info info;
    enum advert_state state;
    int idle_samples; /* in a row, saturating */
    bool seen;        /* a first sample was taken */
};

struct advert {
    struct advert_gpu gpus[GPUS_PER_NODE_MAX];
    size_t count;
};

/* Who holds a GPU at this moment, by uuid. */
enum advert_hold { ADVERT_FREE, ADVERT_HELD, ADVERT_HELD_QUARANTINED };
typedef enum advert_hold advert_hold_fn(void *arg, const char *uuid);

/* Takes one sample of every GPU. A GPU missing from the sample is lost. Returns whether
 * any state changed. */
bool advert_observe(struct advert *a, const struct gpu_info *sample, size_t count,
                    const struct advert_limits *limits, advert_hold_fn *hold,
                    void *arg);
/* Only the holds, without a new sample (a lease began or ended). */
bool advert_hold(struct advert *a, advert_hold_fn *hold, void *arg);
/* The GPU was just seen clean at the end of a lease: it is idle without waiting. */
void advert_clean(struct advert *a, const char *uuid);
const struct advert_gpu *advert_find(const struct advert *a, const char *uuid);
/* Fit to be offered and granted: here, not lost, not in MIG mode, its device known. */
bool advert_is_offerable(const struct gpu_info *g);

/* A weekly rule: "mon-fri 18:00-08:00" (to at or before from: the next day),
 * "sat,sun 00:00-24:00", "daily 22:00-06:00"; minutes are local to the node's zone. */
struct advert_rule {
    unsigned days; /* bit 0 = Monday */
    int from_min, to_min;
};
int advert_rule_parse(const char *text, struct advert_rule *ret,
                      struct err *err) MUST_USE;
/* "+09:00", "-05:30", "Z" -> seconds east of UTC. */
int advert_offset_parse(const char *text, int *ret_s, struct err *err) MUST_USE;

struct advert_window {
    int64_t from_us, to_us;
};
/* Concrete windows that end after now and begin within ADVERT_DAYS, sorted, merged, at
 * most cap. Returns how many. */
size_t advert_windows(const struct advert_rule *rules, size_t count, int offset_s,
                      int64_t now_us, struct advert_window *out, size_t cap);

/* One sync body; strings are borrowed, arrays are consumed (NULL: empty). */
struct advert_body {
    const char *version, *boot_id, *address;
    const char *fabric;   /* NULL: not told */
    const char *instance; /* "" or NULL: not told */
    int64_t seq;
    const struct advert *gpus;
    const char *currency; /* NULL: no price is told */
    int64_t price_micro;
    const struct advert_window *windows;
    size_t window_count;
    json_t *leases, *probes;
    json_t *ssh; /* NULL: no SSH here */
    const char *desired_version, *wait;
};
json_t *advert_sync_body(const struct advert_body *b);

#endif

/* fuzz_desired: any bytes as the market's reply to a sync. What is accepted keeps to
 * the bounds that the agent's arrays and its journal stand on. */
#include <assert.h>
#include <string.h>

#include "client/agent/desired.h"
#include "client/lib/jsonx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REPLY_MAX (1024 * 1024)

static void is_order(const struct order *o)
{
    assert(uuid_is_valid(o->id) && uuid_is_valid(o->tenant));
    assert(o->gpu_count >= 1 && o->gpu_count <= GPUS_PER_NODE_MAX);
    for (size_t i = 0; i < o->gpu_count; i++) {
        assert(o->gpus[i][0] != '\0');
        assert(memchr(o->gpus[i], '\0', sizeof(o->gpus[i])) != NULL);
        for (size_t k = 0; k < i; k++)
            assert(strcmp(o->gpus[i], o->gpus[k]) != 0);
    }
    assert(o->not_before_us < o->not_after_us);
    assert(o->epoch >= 0 && o->generation >= 0 && o->drain_us >= 0);
    assert(o->memory_max_bytes >= 0 && o->pids_max >= 0 && o->on_lost_us >= -1);
    assert(o->holder_count <= JOURNAL_HOLDERS_MAX);
    for (size_t i = 0; i < o->holder_count; i++)
        assert(memchr(o->holders[i], '\0', JOURNAL_HOLDER_MAX) != NULL);
}

static void is_plain(const char *text)
{
    for (; *text != '\0'; text++)
        assert(*text >= ' ' && *text <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct desired d;
    struct err err = {0};
    json_t *reply = jsonx_parse((const char *)data, size, REPLY_MAX, &err);
    if (reply == NULL)
        return 0;
    if (desired_parse(reply, &d, &err) != 0) {
        assert(err.code != 0 && err.text[0] != '\0');
        json_decref(reply);
        return 0;
    }
    assert(d.lease_count <= DESIRED_LEASES_MAX && d.probe_count <= DESIRED_PROBES_MAX);
    assert(memchr(d.version, '\0', sizeof(d.version)) != NULL);
    for (size_t i = 0; i < d.lease_count; i++)
        is_order(&d.leases[i]);
    for (size_t i = 0; i < d.end_count; i++)
        is_plain(d.end[i].reason);
    for (size_t i = 0; i < d.ack_count; i++)
        assert(d.acks[i].seq >= 0);
    assert(d.probe_interval_us >= 0 && d.receipt_interval_us >= 0);
    desired_done(&d);
    json_decref(reply);
    return 0;
}

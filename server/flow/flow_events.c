/* GET /v1/events: what happened, as server-sent events, from the outbox table. The id
 * of each event is the cursor to go on from: a client that reconnects with
 * Last-Event-ID misses nothing; without one it is told what happens from now on. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"

#define EVENTS_AT_ONCE 100
#define KEEPALIVE_US   (15 * US_PER_S) /* shorter than what proxies wait */

struct events {
    struct db_slot db;
    char *cursor;
};

static enum flow_turn events_send(struct flow *f);

static enum flow_turn events_start(struct flow *f)
{
    static const char *const names[] = {"from", NULL};
    struct events *s = f->state;
    const char *from = flow_query(f, "from"), *last = f->rq->last_event_id;
    struct err err;
    if (flow_query_check(f, names, &err) != 0)
        return flow_fail(f, &err);
    if (last[0] != '\0' || from != NULL) {
        s->cursor = xstrdup(last[0] != '\0' ? last : from);
        size_t len = strspn(s->cursor, "0123456789:");
        if (s->cursor[len] != '\0' || strchr(s->cursor, ':') == NULL || len > 40) {
            err_set(&err, ERR_BAD_REQUEST, "Last-Event-ID: not an id of an event");
            return flow_fail(f, &err);
        }
        return FLOW_MORE;
    }
    return db_call(f, STORE_FEED_HEAD, STORE_NO_ARGS);
}

static enum flow_turn events_begin(struct flow *f)
{
    struct events *s = f->state;
    if (s->cursor == NULL && db_failed(f))
        return db_fail(f);
    if (s->cursor == NULL)
        s->cursor = xstrdup(json_string_value(json_object_get(s->db.json, "cursor")));
    flow_header(f, "Cache-Control", "no-store");
    flow_stream_begin(f, 200, "text/event-stream");
    return FLOW_MORE;
}

static enum flow_turn events_read(struct flow *f)
{
    struct events *s = f->state;
    flow_goto(f, events_send);
    return db_call(f, STORE_EVENTS,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(db_provider_scope(f)),
                              S_TEXT(s->cursor), S_INT(EVENTS_AT_ONCE)));
}

static int write_events(struct flow *f, const json_t *events)
{
    struct strbuf out = STRBUF_INIT;
    const json_t *e;
    size_t i;
    json_array_foreach(events, i, e)
    {
        json_t *wire = render_times(e);
        json_object_del(wire, "cursor");
        char *text = jsonx_dump(wire);
        strbuf_addf(&out, "id: %s\nevent: %s\ndata: %s\n\n",
                    json_string_value(json_object_get(e, "cursor")),
                    json_string_value(json_object_get(e, "kind")), text);
        free(text);
        json_decref(wire);
    }
    if (i == 0)
        strbuf_adds(&out, ":\n\n");
    int rc = flow_stream_write(f, out.data, out.len);
    strbuf_done(&out);
    return rc;
}

static enum flow_turn events_send(struct flow *f)
{
    struct events *s = f->state;
    if (!s->db.answered)
        return FLOW_AGAIN;
    if (db_failed(f))
        return FLOW_DONE; /* the client comes again with its last id */
    const json_t *events = json_object_get(s->db.json, "events");
    const char *cursor = json_string_value(json_object_get(s->db.json, "cursor"));
    if (write_events(f, events) != 0)
        return FLOW_DONE;
    if (cursor != NULL) {
        free(s->cursor);
        s->cursor = xstrdup(cursor);
    }
    flow_goto(f, events_read);
    if (json_array_size(events) == EVENTS_AT_ONCE)
        return FLOW_MORE;
    flow_wait_until(f, f->now_us + KEEPALIVE_US);
    return FLOW_WAIT;
}

static void events_done(struct flow *f)
{
    struct events *s = f->state;
    free(s->cursor);
    db_done(f);
}

static const struct flow_step events_steps[] = {{"start", events_start},
                                                {"begin", events_begin},
                                                {"read", events_read},
                                                {"send", events_send}};
const struct flow_kind flow_events =
    FLOW_KIND_POLL("flow_events", struct events, events_steps, events_done);

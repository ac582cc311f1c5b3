/* audit: see audit.h. One batch in flight, one gathering. */
#include "server/flow/audit.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/log.h"
#include "client/lib/xalloc.h"

struct audit {
    struct store *store;
    struct event *timer;
    json_t *rows, *flying; /* flying: NULL, or sent and not answered */
    uint64_t dropped;
};

static void arm(struct audit *a)
{
    struct timeval tv = {AUDIT_PAUSE_US / 1000000, AUDIT_PAUSE_US % 1000000};
    if (!event_pending(a->timer, EV_TIMEOUT, NULL))
        event_add(a->timer, &tv);
}

static void on_answer(void *arg, uint64_t id, const struct store_result *r)
{
    struct audit *a = arg;
    (void)id;
    if (r->status != STORE_OK)
        log_warn("the audit log has a hole of %zu rows: %s", json_array_size(a->flying),
                 r->err.text);
    json_decref(a->flying);
    a->flying = NULL;
    if (json_array_size(a->rows) > 0)
        arm(a);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct audit *a = arg;
    (void)fd;
    (void)what;
    if (a->flying != NULL || json_array_size(a->rows) == 0)
        return;
    if (a->dropped > 0)
        log_warn("the audit log has a hole of %" PRIu64 " rows: the database lags",
                 a->dropped);
    a->dropped = 0;
    a->flying = json_array();
    for (size_t i = 0; i < AUDIT_BATCH && i < json_array_size(a->rows); i++)
        json_array_append(a->flying, json_array_get(a->rows, i));
    json_t *rest = json_array();
    for (size_t i = json_array_size(a->flying); i < json_array_size(a->rows); i++)
        json_array_append(rest, json_array_get(a->rows, i));
    json_decref(a->rows);
    a->rows = rest;
    const struct store_arg args[] = {S_JSON(a->flying)};
    store_call(a->store, STORE_AUDIT_PUT, args, 1, store_to(on_answer, a, 0));
}

struct audit *audit_new(struct event_base *base, struct store *store)
{
    struct audit *a = xcalloc(1, sizeof(*a));
    a->store = store;
    a->rows = json_array();
    a->timer = event_new(base, -1, 0, on_timer, a);
    if (a->timer == NULL)
        abort();
    return a;
}

void audit_free(struct audit *a)
{
    if (a == NULL)
        return;
    event_free(a->timer);
    json_decref(a->rows);
    json_decref(a->flying);
    free(a);
}

static bool is_kept(const struct audit_row *row)
{
    if (row->status == 401 || row->status == 403)
        return true;
    if (strcmp(row->method, "GET") == 0 || strcmp(row->method, "HEAD") == 0 ||
        strcmp(row->method, "-") == 0)
        return false;
    return strcmp(row->path, "/v1/agent/sync") != 0 &&
           strcmp(row->path, "/v1/agent/receipts") != 0;
}

void audit_add(struct audit *a, const struct audit_row *row)
{
    if (!is_kept(row))
        return;
    if (json_array_size(a->rows) >= AUDIT_WAIT_MAX) {
        a->dropped++;
        return;
    }
    json_array_append_new(
        a->rows, json_pack("{s:I, s:s, s:s, s:s, s:s, s:i, s:s}", "at_us",
                           (json_int_t)row->at_us, "actor", row->actor, "address",
                           row->address, "method", row->method, "path", row->path,
                           "status", row->status, "request_id", row->request_id));
    if (a->flying == NULL)
        arm(a);
}

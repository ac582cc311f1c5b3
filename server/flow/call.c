#include "server/flow/call.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

static void clear(struct db_slot *db)
{
    json_decref(db->json);
    free(db->booking_id);
    memset(db, 0, sizeof(*db));
}

void db_done(struct flow *f)
{
    clear(db_of(f));
}

static void keep_booked(struct db_slot *db, const struct store_booked *b)
{
    db->outcome = b->outcome;
    memcpy(db->id, b->id, sizeof(db->id));
    if (b->booking_count == 0)
        return;
    db->booking_count = b->booking_count;
    db->booking_id =
        xcalloc(b->booking_count + b->lane_booking_count + 1, sizeof(*db->booking_id));
    memcpy(db->booking_id, b->booking_id, b->booking_count * sizeof(*db->booking_id));
    for (size_t i = 0; i < b->lane_booking_count; i++)
        db->booking_id[b->booking_count + i] = b->lane_booking_id[i];
}

static void on_answer(void *runner, uint64_t flow_id, const struct store_result *r)
{
    struct flow *f = flow_find(runner, flow_id);
    if (f == NULL)
        return;
    struct db_slot *db = db_of(f);
    db->answered = true;
    db->status = r->status;
    if (r->status != STORE_OK) {
        db->err = r->err;
    } else if (r->booked != NULL) {
        keep_booked(db, r->booked);
    } else {
        db->json = json_incref(r->json);
    }
    flow_wake(runner, flow_id);
}

enum flow_turn db_call(struct flow *f, enum store_op op, const struct store_arg *args,
                       size_t count)
{
    clear(db_of(f));
    store_call(world_of(f)->store, op, args, count,
               store_to(on_answer, f->runner, f->id));
    return FLOW_WAIT;
}

enum flow_turn db_book(struct flow *f, const struct store_book *book)
{
    clear(db_of(f));
    store_book(world_of(f)->store, book, store_to(on_answer, f->runner, f->id));
    return FLOW_WAIT;
}

bool db_failed(const struct flow *f)
{
    return db_of(f)->status != STORE_OK;
}

enum flow_turn db_fail(struct flow *f)
{
    return flow_fail(f, &db_of(f)->err);
}

void db_idem(const struct flow *f, struct db_idem *ret)
{
    const struct flow_principal *who = &f->rq->who;
    const char *kind, *id;
    memset(ret, 0, sizeof(*ret));
    if (who->role == ROLE_TENANT)
        kind = "tenant:", id = who->tenant_id;
    else if (who->role == ROLE_PROVIDER)
        kind = "provider:", id = who->provider_id;
    else
        kind = "admin:", id = who->key_id;
    size_t len = strlen(kind);
    memcpy(ret->principal, kind, len);
    memcpy(ret->principal + len, id, strlen(id) + 1);
    ret->key = f->rq->idempotency_key[0] != '\0' ? f->rq->idempotency_key : NULL;

    /* Method and path too: one key must not mean two different things. */
    struct strbuf text = STRBUF_INIT;
    strbuf_addf(&text, "%s\n%s\n", f->rq->method, f->rq->path);
    if (f->rq->raw_len > 0)
        strbuf_add(&text, f->rq->raw_body, f->rq->raw_len);
    digest_sha256(text.data, text.len, ret->hash);
    strbuf_done(&text);
}

int db_page(const struct flow *f, const char *const *allowed, struct db_page *ret,
            struct err *err)
{
    const char *names[FLOW_QUERY_MAX] = {"cursor", "limit"};
    for (size_t i = 0; allowed[i] != NULL; i++)
        names[i + 2] = allowed[i];
    if (flow_query_check(f, names, err) != 0)
        return -1;
    const char *limit = flow_query(f, "limit");
    *ret = (struct db_page){flow_query(f, "cursor"), LIST_PAGE_MAX};
    return limit == NULL
               ? 0
               : request_int("limit", limit, 1, LIST_PAGE_MAX, &ret->limit, err);
}

int db_page_by_number(const struct flow *f, struct db_page *ret, struct err *err)
{
    static const char *const none[] = {NULL};
    int64_t id;
    if (db_page(f, none, ret, err) != 0)
        return -1;
    return ret->cursor == NULL
               ? 0
               : request_int("cursor", ret->cursor, 0, INT64_MAX, &id, err);
}

enum flow_turn db_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *out = render_times(db_of(f)->json);
    render_all_money(out, world_of(f)->currency);
    return flow_reply_json(f, 200, out);
}

int db_query_time(const struct flow *f, const char *name, struct store_arg *ret,
                  struct err *err)
{
    const char *text = flow_query(f, name);
    int64_t us;
    *ret = S_NULL;
    if (text == NULL)
        return 0;
    if (timefmt_parse(text, &us, err) != 0)
        return err_prefix(err, "%s", name);
    *ret = S_INT(us);
    return 0;
}

bool db_no_query(struct flow *f, struct err *err)
{
    static const char *const none[] = {NULL};
    return flow_query_check(f, none, err) == 0;
}

const char *db_tenant_scope(const struct flow *f)
{
    return f->rq->who.role == ROLE_TENANT ? f->rq->who.tenant_id : NULL;
}

const char *db_provider_scope(const struct flow *f)
{
    return f->rq->who.role == ROLE_PROVIDER ? f->rq->who.provider_id : NULL;
}

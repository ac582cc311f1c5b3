/* call: a flow's question to the database. The state of every flow that asks begins
 * with a `struct db_slot db`; db_call() asks and returns FLOW_WAIT, and the next step
 * reads the slot. Answers to flows that have ended are dropped. */
#ifndef NEARGPU_FLOW_CALL_H
#define NEARGPU_FLOW_CALL_H
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "server/db/store.h"
#include "server/flow/flow.h"
#include "server/flow/world.h"

struct db_slot {
    bool answered;
    enum store_status status;
    struct err err; /* when not STORE_OK */
    json_t *json;   /* owned by the slot until the next question */
    /* After db_book(): */
    enum store_book_outcome outcome;
    char id[UUID_TEXT];
    int64_t *booking_id; /* owned: of the bookings, then of the lanes, as they were */
    size_t booking_count;
};
/* State of flows that need nothing else, and their done_fn. */
struct db_state {
    struct db_slot db;
};
void db_done(struct flow *f);

static inline struct world *world_of(const struct flow *f)
{
    return f->env;
}
static inline struct db_slot *db_of(const struct flow *f)
{
    return f->state;
}

enum flow_turn db_call(struct flow *f, enum store_op op, const struct store_arg *args,
                       size_t count);
enum flow_turn db_book(struct flow *f, const struct store_book *book);
bool db_failed(const struct flow *f);   /* the answer is not STORE_OK */
enum flow_turn db_fail(struct flow *f); /* flow_fail with its error */

/* The IDEM arguments of creates: who, the request's key, its hash. */
struct db_idem {
    char principal[80];
    const char *key; /* NULL: none was sent */
    uint8_t hash[SHA256_LEN];
};
void db_idem(const struct flow *f, struct db_idem *ret);
#define DB_IDEM(i)                          \
    S_TEXT((i).principal), S_TEXT((i).key), \
        (i).key != NULL ? S_BYTES((i).hash, SHA256_LEN) : S_NULL

/* Cursor and limit of a list: checks the query against `allowed` (NULL-terminated,
 * cursor and limit are added). */
struct db_page {
    const char *cursor; /* NULL: from the start */
    int64_t limit;
};
int db_page(const struct flow *f, const char *const *allowed, struct db_page *ret,
            struct err *err) MUST_USE;
#define DB_PAGE(p) S_TEXT((p).cursor), S_INT((p).limit)
/* A time in the query, NULL-able argument. */
int db_query_time(const struct flow *f, const char *name, struct store_arg *ret,
                  struct err *err) MUST_USE;

/* Refuses any query parameter, or answers the error. */
bool db_no_query(struct flow *f, struct err *err);
/* No query, and a body by this table. */
#define DB_BODY(f, fields, ret, err) \
    (db_no_query(f, err) &&          \
     jsonx_decode((f)->rq->body, fields, JSONX_COUNT(fields), ret, "", err) == 0)
/* A reader of a list without filters: {"cursor", "limit"}, the cursor a number. */
int db_page_by_number(const struct flow *f, struct db_page *ret,
                      struct err *err) MUST_USE;
/* The database's answer with its times and its money as the wire has them; 200. */
enum flow_turn db_reply(struct flow *f);
/* The kind `kind` of two steps: one that asks the database, one that answers. */
#define DB_FLOW(kind, first, ask, answer)                                             \
    static const struct flow_step kind##_steps[] = {{first, ask}, {"reply", answer}}; \
    const struct flow_kind kind =                                                     \
        FLOW_KIND_DONE(#kind, struct db_state, kind##_steps, db_done)
/* The asker's scope: its id for a tenant, NULL (everything) for an administrator. */
const char *db_tenant_scope(const struct flow *f);
const char *db_provider_scope(const struct flow *f);

#endif

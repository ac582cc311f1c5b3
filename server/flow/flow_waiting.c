/* The server's own work: the waiting list. Standing orders are planned in their order
 * over the live calendars (core/backfill.h); shadows keep the predicted places free of
 * those behind and of newcomers until the list is planned again.
 *
 *   read     the orders, in the order of the queue
 *   plan     where and when each would start; tell the database what changed of it
 *   book     the next order whose start has come
 *   booked   what came of it; the next, or the end
 *
 * Several servers may do this at once: the database lets one of them book an order, the
 * others lose it and read the list again. No order is booked before one that stands
 * earlier and is due as well. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/core/improve.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/plan.h"

/* An order is booked when its planned start is this near: later, and the node would not
 * know of it in time; earlier, and money is held for nothing. */
#define BOOK_AHEAD_US (2 * 60 * US_PER_S)
/* Of a longer list these are planned, the rest only keeps its place: a plan takes some
 * 10 us and 40 KB, and all of it is one turn of the loop. */
#define ORDERS_MAX 1000
/* And no more than take so long: gangs that may stand anywhere are a hundred times
 * dearer. */
#define TURN_US      (400 * INT64_C(1000))
#define ORDERS_MIN   20
#define ORDERS_FIRST 250
/* Tries to lower the sum of what the orders cost: some 20 ms. */
#define IMPROVE_ROUNDS 4000
/* An order whose tenant could not pay is passed over for so long. */
#define FUNDS_AGAIN_US (20 * US_PER_S)
#define WHY_FUNDS      "funds"

struct order {
    const json_t *row; /* of the list */
    struct request rq;
    struct plan_data where;
    bool planned; /* rq is there, and it is among those planned */
    size_t at;    /* … at this place */
    char why[ERR_TEXT_MAX];
};
struct waiting {
    struct db_slot db;
    json_t *list; /* owned */
    struct order *orders;
    size_t order_count;
    struct backfill_order *asks; /* planned ones, parallel with places and plans */
    struct backfill_place *places;
    struct match_plan *plans;
    size_t ask_count;
    struct plan_pick *picks; /* of those due when planned, parallel; else plan NULL */
    size_t next;             /* order to be looked at for booking */
    struct world_try blocked;
};

static enum flow_turn waiting_plan(struct flow *f);
static enum flow_turn waiting_book(struct flow *f);
static enum flow_turn waiting_booked(struct flow *f);

static const char *text_of(const json_t *obj, const char *name)
{
    const char *text = json_string_value(json_object_get(obj, name));
    return text != NULL ? text : "";
}

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

static enum flow_turn waiting_read(struct flow *f)
{
    return db_call(f, STORE_WAIT_LIST, STORE_NO_ARGS);
}

/* ---- planning ---- */

/* True when the order can be planned; else o->why says why not. */
static bool read_order(struct flow *f, struct order *o, struct match_query *q)
{
    struct world *w = world_of(f);
    struct err err;
    if (request_from_stored(json_object_get(o->row, "request"), w->currency,
                            int_of(o->row, "created_us"), f->now_us, &o->rq,
                            &err) != 0) {
        memcpy(o->why, err.text, sizeof(o->why));
        return false;
    }
    int64_t until_us = int_of(o->row, "until_us");
    if (until_us < o->rq.latest_us)
        o->rq.latest_us = until_us > o->rq.from_us ? until_us : o->rq.from_us;
    if (plan_query(w, &o->rq, text_of(o->row, "tenant_id"), f->now_us, &o->where, q,
                   &err) != 0) {
        memcpy(o->why, err.text, sizeof(o->why));
        request_done(&o->rq);
        return false;
    }
    return true;
}

static void read_orders(struct flow *f)
{
    struct waiting *s = f->state;
    struct world *w = world_of(f);
    bool try_funds = f->now_us - w->funds_us >= FUNDS_AGAIN_US;
    size_t most = w->waiting_most > 0 ? w->waiting_most : ORDERS_FIRST;
    s->order_count = json_array_size(s->list);
    s->orders = xcalloc(s->order_count + 1, sizeof(*s->orders));
    s->asks = xcalloc(s->order_count < ORDERS_MAX ? s->order_count + 1 : ORDERS_MAX + 1,
                      sizeof(*s->asks));
    if (try_funds)
        w->funds_us = f->now_us;
    for (size_t i = 0; i < s->order_count; i++) {
        struct order *o = &s->orders[i];
        o->row = json_array_get(s->list, i);
        bool poor = strcmp(text_of(o->row, "why"), WHY_FUNDS) == 0;
        if (poor)
            memcpy(o->why, WHY_FUNDS, sizeof(WHY_FUNDS));
        struct backfill_order *ask = &s->asks[s->ask_count];
        if (s->ask_count == most || (poor && !try_funds) ||
            !read_order(f, o, &ask->query))
            continue;
        ask->id = (int64_t)i + 1;
        ask->priority = (int)int_of(o->row, "priority");
        ask->since_us = int_of(o->row, "created_us");
        o->planned = true;
        o->at = s->ask_count++;
    }
}

/* Shadows of the earlier plan go, those of the new one come: in one turn, so nobody
 * gets in between. */
static void plan_orders(struct flow *f)
{
    struct waiting *s = f->state;
    struct world *w = world_of(f);
    struct match_market market = plan_market(w);
    s->plans = xcalloc(s->ask_count + 1, sizeof(*s->plans));
    s->places = xcalloc(s->ask_count + 1, sizeof(*s->places));
    for (size_t i = 0; i < s->ask_count; i++)
        s->places[i].plan = &s->plans[i];
    w->backfill.market = &market;
    w->backfill.calendar = w->calendar;
    w->backfill.lanes = w->lanes;
    w->backfill.firm = w->firm;
    backfill_plan(&w->backfill, s->asks, s->ask_count, s->places);
    /* All servers begin with the same seed, to come to the same places. */
    struct improve_limits limits = {IMPROVE_ROUNDS, w->waiting_rise_ppm, 1};
    if (w->waiting_rise_ppm > 0 && s->ask_count > 1)
        improve_plans(&w->backfill, s->asks, s->ask_count, s->places, &limits);
    w->backfill.market = NULL;
    w->order_count = s->order_count;
}

/* The order's entry for STORE_WAIT_PLAN, NULL when it says what the database has. */
static json_t *news_of(const struct waiting *s, size_t i)
{
    const struct order *o = &s->orders[i];
    const struct backfill_place *p = o->planned ? &s->places[o->at] : NULL;
    bool poor = strcmp(o->why, WHY_FUNDS) == 0; /* said so until it is booked */
    bool fits = p != NULL && p->why == MATCH_OK && !poor;
    const char *why =
        fits || o->why[0] != '\0' || p == NULL ? o->why : match_why_name(p->why);
    const json_t *had = json_object_get(o->row, "predicted_us");
    bool same =
        int_of(o->row, "position") == (json_int_t)i + 1 &&
        strcmp(text_of(o->row, "why"), why) == 0 &&
        (fits ? json_is_integer(had) && json_integer_value(had) == p->plan->start_us
              : !json_is_integer(had));
    if (same)
        return NULL;
    return json_pack("{s:s, s:I, s:o, s:s}", "id", text_of(o->row, "id"), "position",
                     (json_int_t)i + 1, "predicted_us",
                     fits ? json_integer(p->plan->start_us) : json_null(), "why", why);
}

static bool is_due(const struct waiting *s, const struct order *o, int64_t now_us)
{
    if (!o->planned || s->places[o->at].why != MATCH_OK)
        return false;
    const struct match_query *q = &s->asks[o->at].query;
    return s->plans[o->at].start_us <= now_us + BOOK_AHEAD_US ||
           q->from_us == q->latest_us; /* a fixed start gets no better by waiting */
}

/* How many are planned the next time; rarely another number than this time, since those
 * behind lose and win their prediction by it. */
static void count_cost(struct world *w, size_t planned, int64_t us)
{
    size_t most = w->waiting_most > 0 ? w->waiting_most : ORDERS_FIRST;
    w->waiting_cost_us = us;
    if (us > TURN_US)
        most = (size_t)((int64_t)planned * (TURN_US / 2) / us);
    else if (us < TURN_US / 4)
        most *= 2;
    w->waiting_most = most < ORDERS_MIN   ? ORDERS_MIN
                      : most > ORDERS_MAX ? ORDERS_MAX
                                          : most;
}

/* In the turn that planned them: offers and prices may be others in the next. */
static void settle_due(struct flow *f)
{
    struct waiting *s = f->state;
    s->picks = xcalloc(s->ask_count + 1, sizeof(*s->picks));
    for (size_t i = 0; i < s->order_count; i++) {
        const struct order *o = &s->orders[i];
        if (is_due(s, o, f->now_us))
            plan_settle(world_of(f), &o->where, &s->plans[o->at], f->now_us,
                        &s->picks[o->at]);
    }
}

static enum flow_turn waiting_plan(struct flow *f)
{
    struct waiting *s = f->state;
    if (db_failed(f))
        return FLOW_DONE; /* the next tick begins anew */
    int64_t before_us = clock_boot_us();
    s->list = json_incref(json_object_get(s->db.json, "orders"));
    read_orders(f);
    plan_orders(f);
    settle_due(f);
    count_cost(world_of(f), s->ask_count, clock_boot_us() - before_us);
    json_t *news = json_array();
    for (size_t i = 0; i < s->order_count; i++) {
        json_t *entry = news_of(s, i);
        if (entry != NULL)
            json_array_append_new(news, entry);
    }
    bool any = json_array_size(news) > 0;
    flow_goto(f, waiting_book);
    enum flow_turn turn = FLOW_MORE;
    if (any)
        turn = db_call(f, STORE_WAIT_PLAN, STORE_ARGS(S_JSON(news)));
    json_decref(news);
    return turn;
}

/* ---- booking ---- */

/* What is to be booked of the order, NULL: nothing now. */
static struct plan_pick *pick_of(const struct waiting *s, const struct order *o)
{
    return o->planned && s->picks[o->at].plan != NULL ? &s->picks[o->at] : NULL;
}

static enum flow_turn waiting_book(struct flow *f)
{
    struct waiting *s = f->state;
    struct world *w = world_of(f);
    static const uint8_t no_hash[SHA256_LEN];
    while (s->next < s->order_count && pick_of(s, &s->orders[s->next]) == NULL)
        s->next++;
    if (s->next == s->order_count)
        return FLOW_DONE;
    const struct order *o = &s->orders[s->next];
    const char *id = text_of(o->row, "id"), *tenant = text_of(o->row, "tenant_id");
    struct plan_pick *pick = pick_of(s, o);
    struct plan_rows rows;
    if (pick->plan->start_us < f->now_us) /* time went by: the same hours, from now */
        plan_pick_start(pick, f->now_us);
    s->blocked = world_try_plan(w, pick->plan);
    plan_rows(w, pick, &rows);
    struct store_book book = {.now_us = f->now_us,
                              .request = o->rq.tree,
                              .waiting = true,
                              .idem_key = "",
                              .idem_hash = no_hash};
    plan_book(w, pick, &rows, &book);
    memcpy(book.id, id, strnlen(id, UUID_TEXT - 1));
    memcpy(book.tenant_id, tenant, strnlen(tenant, UUID_TEXT - 1));
    flow_goto(f, waiting_booked);
    enum flow_turn turn = db_book(f, &book);
    plan_rows_done(&rows);
    return turn;
}

/* Its place is for others until it can be paid: those behind are planned without it. */
static enum flow_turn cannot_pay(struct flow *f, size_t i)
{
    struct waiting *s = f->state;
    const json_t *row = s->orders[i].row;
    world_of(f)->wait_due = true;
    if (strcmp(text_of(row, "why"), WHY_FUNDS) == 0)
        return flow_goto(f, waiting_book);
    json_t *news =
        json_pack("[{s:s, s:I, s:n, s:s}]", "id", text_of(row, "id"), "position",
                  (json_int_t)i + 1, "predicted_us", "why", WHY_FUNDS);
    flow_goto(f, waiting_book);
    enum flow_turn turn = db_call(f, STORE_WAIT_PLAN, STORE_ARGS(S_JSON(news)));
    json_decref(news);
    return turn;
}

static enum flow_turn waiting_booked(struct flow *f)
{
    struct waiting *s = f->state;
    struct world *w = world_of(f);
    size_t i = s->next++;
    const char *id = text_of(s->orders[i].row, "id");
    bool good = !db_failed(f) && s->db.outcome == STORE_BOOK_OK;
    if (good) {
        world_booked(w, &(struct world_booked){id, pick_of(s, &s->orders[i])->plan,
                                               s->db.booking_id,
                                               s->db.booking_id + s->db.booking_count});
        world_poll(w); /* which knew the order: its own feed tells the booking */
        log_info("waiting list: reservation %s is booked", id);
    }
    world_try_end(w, &s->blocked);
    if (good)
        return flow_goto(f, waiting_book);
    if (!db_failed(f) &&
        (s->db.outcome == STORE_BOOK_FUNDS || s->db.outcome == STORE_BOOK_BUDGET))
        return cannot_pay(f, i);
    /* Lost, or not known: what follows was planned on a calendar that is behind. */
    if (s->db.status == STORE_UNKNOWN)
        world_unknown(w);
    world_poll(w);
    w->wait_due = true;
    return FLOW_DONE;
}

static void waiting_done(struct flow *f)
{
    struct waiting *s = f->state;
    struct world *w = world_of(f);
    world_try_end(w, &s->blocked);
    for (size_t i = 0; s->picks != NULL && i < s->ask_count; i++)
        plan_pick_done(&s->picks[i]);
    free(s->picks);
    for (size_t i = 0; i < s->order_count; i++)
        if (s->orders[i].planned)
            request_done(&s->orders[i].rq);
    free(s->orders);
    free(s->asks);
    free(s->places);
    free(s->plans);
    json_decref(s->list);
    if (w->waiting_flow == f->id)
        w->waiting_flow = 0;
    db_done(f);
}

static const struct flow_step waiting_steps[] = {{"read", waiting_read},
                                                 {"plan", waiting_plan},
                                                 {"book", waiting_book},
                                                 {"booked", waiting_booked}};
const struct flow_kind flow_waiting =
    FLOW_KIND_DONE("flow_waiting", struct waiting, waiting_steps, waiting_done);

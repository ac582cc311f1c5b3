/* model_backfill: the waiting list's planner against plain lists, on random markets
 * that change between the plannings: bookings are given back, newcomers book what is
 * free beside the shadows, GPUs leave and come back, orders come, go and are booked.
 *
 * Plain side: a minute of a GPU is busy or not. Order after order, in an order sorted
 * by hand, each start from the first minute on is tried at each offer; the planner must
 * name the first at which there is room, at the cheapest offer that has room then, and
 * GPUs that are free beside bookings and the shadows before it. Beyond that: orders
 * behind change nothing for those before; who is first never gets later by what others
 * book or give back; when the shadows go the calendars are as they were.
 *
 * Usage: model_backfill [SEED [MARKETS]]. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/core/backfill.h"

#define MINUTE   INT64_C(60000000)
#define T0       (INT64_C(1700000000) * 1000000)
#define MINUTES  1000
#define OFFERS   3
#define NODES    (OFFERS * 3)
#define ORDERS   10
#define BOOKINGS 400
#define ROUNDS   25
#define SHADOW   INT64_C(-1000)

static uint64_t state, market_seed;
static uint64_t placed, unplaced, later_by_others, compared;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % below);
}

static void fail(const char *what, int order)
{
    printf("market %" PRIu64 ": %s, order %d\n", market_seed, what, order);
    exit(1);
}

/* ---- the market, both ways ---- */

struct plain_booking {
    int node, first, count, from, to; /* minutes; count 0: given back */
};
static struct {
    struct match_offer offers[OFFERS];
    int offer_count, node_count, booking_count;
    struct calendar_node nodes[NODES];
    struct plain_booking bookings[BOOKINGS];
} plain;
static uint64_t busy[NODES][MINUTES]; /* bookings, and shadows as they are checked */
static struct calendar *calendar, *firm;
static struct topo *topo;
static struct match_market market;
static struct backfill backfill;

static struct backfill_order orders[ORDERS];
static struct match_plan plans[ORDERS];
static struct backfill_place places[ORDERS];
static int order_count;
static int64_t next_id;

static int64_t at(int minute)
{
    return T0 + minute * MINUTE;
}

static int minute_of(int64_t us)
{
    return (int)((us - T0) / MINUTE);
}

static uint64_t bits(int first, int count)
{
    return ((UINT64_C(1) << count) - 1) << first;
}

static void set_node(int id)
{
    calendar_set_node(calendar, id, &plain.nodes[id]);
    calendar_set_node(firm, id, &plain.nodes[id]);
}

static void block(int node, int first, int count, int from, int to)
{
    for (int t = from; t < to && t < MINUTES; t++) {
        busy[node][t] |= bits(first, count);
    }
}

static void count_bookings(void)
{
    for (int n = 0; n < plain.node_count; n++) {
        for (int t = 0; t < MINUTES; t++) {
            busy[n][t] = ~plain.nodes[n].offered;
        }
    }
    for (int i = 0; i < plain.booking_count; i++) {
        const struct plain_booking *b = &plain.bookings[i];
        if (b->count > 0) {
            block(b->node, b->first, b->count, b->from, b->to);
        }
    }
}

static uint64_t free_during(int node, int from, int len)
{
    uint64_t free = from + len <= MINUTES ? UINT64_MAX : 0;
    for (int t = from; t < from + len && free != 0; t++) {
        free &= ~busy[node][t];
    }
    return free;
}

static bool has_run(uint64_t free, int gpus)
{
    for (int first = 0; first + gpus <= 8; first++) {
        if ((free & bits(first, gpus)) == bits(first, gpus)) {
            return true;
        }
    }
    return false;
}

static void book(int node, int first, int count, int from, int to)
{
    if (plain.booking_count == BOOKINGS) {
        return;
    }
    int id = ++plain.booking_count;
    plain.bookings[id - 1] = (struct plain_booking){node, first, count, from, to};
    calendar_book(calendar, id, node, first, count, at(from), at(to));
    calendar_book(firm, id, node, first, count, at(from), at(to));
}

static void make_market(void)
{
    static const char *const sites[] = {"s0", "s1", "s2"};
    memset(&plain, 0, sizeof(plain));
    calendar = calendar_new();
    firm = calendar_new();
    topo = topo_new();
    plain.offer_count = 1 + (int)draw(OFFERS);
    for (int i = 0; i < plain.offer_count; i++) {
        plain.offers[i] = (struct match_offer){.site = i,
                                               .model = i,
                                               .site_name = sites[i],
                                               .provider_name = "p",
                                               .gpu_model = "H100",
                                               .residency = "jp",
                                               .price_micro = 1000000 * (1 + draw(4)),
                                               .spot_price_micro = 500000,
                                               .notice_us = draw(2) * MINUTE,
                                               .up = true};
        for (int k = 1 + (int)draw(3); k > 0; k--) {
            int id = plain.node_count++, gpus = draw(3) ? 8 : 4;
            plain.nodes[id] = (struct calendar_node){.site = i,
                                                     .model = i,
                                                     .domain = (int)draw(2),
                                                     .gpus = gpus,
                                                     .offered = bits(0, gpus)};
            set_node(id);
        }
    }
    calendar_expire(calendar, at(0));
    calendar_expire(firm, at(0));
    market = (struct match_market){.calendar = calendar,
                                   .topo = topo,
                                   .offers = plain.offers,
                                   .offer_count = (size_t)plain.offer_count};
    backfill = (struct backfill){
        .market = &market, .calendar = calendar, .firm = firm, .first_id = SHADOW};
    order_count = 0;
    next_id = 1;
    for (int i = 0; i < ORDERS; i++) {
        places[i].plan = &plans[i];
    }
}

static void drop_market(void)
{
    calendar_free(calendar);
    calendar_free(firm);
    topo_free(topo);
}

/* ---- the queue ---- */

static void add_order(void)
{
    if (order_count == ORDERS) {
        return;
    }
    int from = (int)draw(3) == 0 ? (int)draw(200) : 0;
    orders[order_count++] = (struct backfill_order){
        .id = next_id++,
        .priority = (int)draw(3),
        .since_us = draw(4),
        .query = {.gpus = 1 + (int)draw(draw(2) ? 8 : 4),
                  .nodes = draw(4) == 0 ? 2 : 1,
                  .together = draw(2) ? MATCH_DOMAIN : MATCH_SITE,
                  .len_us = (1 + draw(draw(3) ? 60 : 200)) * MINUTE,
                  .from_us = at(from),
                  .latest_us = at(from + (int)draw(4) * (int)draw(150)),
                  .max_price_micro = draw(3) == 0 ? 1000000 * (1 + draw(4)) : 0,
                  .spot = draw(6) == 0,
                  .now_us = at(0),
                  .spread = draw(16)}};
}

static void remove_order(int i)
{
    memmove(&orders[i], &orders[i + 1],
            (size_t)(--order_count - i) * sizeof(orders[0]));
}

static int compare_orders(const void *a, const void *b)
{
    return backfill_compare(a, b);
}

static bool is_before(const struct backfill_order *a, const struct backfill_order *b)
{
    return a->priority > b->priority ||
           (a->priority == b->priority &&
            (a->since_us < b->since_us ||
             (a->since_us == b->since_us && a->id < b->id)));
}

/* ---- the plain way ---- */

static int rooms(const struct match_query *q, int offer, int domain, int start)
{
    int count = 0;
    for (int n = 0; n < plain.node_count; n++) {
        if (plain.nodes[n].model == offer &&
            (domain < 0 || plain.nodes[n].domain == domain)) {
            count += has_run(free_during(n, start, minute_of(T0 + q->len_us)), q->gpus);
        }
    }
    return count;
}

static bool has_room(const struct match_query *q, int offer, int start)
{
    const struct match_offer *o = &plain.offers[offer];
    int64_t price = q->spot ? o->spot_price_micro : o->price_micro;
    if ((q->spot && o->notice_us == 0) ||
        (q->max_price_micro > 0 && price > q->max_price_micro)) {
        return false;
    }
    if (q->together == MATCH_DOMAIN && q->nodes > 1) {
        return rooms(q, offer, 0, start) >= q->nodes ||
               rooms(q, offer, 1, start) >= q->nodes;
    }
    return rooms(q, offer, -1, start) >= q->nodes;
}

/* The first start with room anywhere, and the lowest price there; -1: none. */
static int first_start(const struct match_query *q, int64_t *price)
{
    for (int t = minute_of(q->from_us); t <= minute_of(q->latest_us); t++) {
        *price = INT64_MAX;
        for (int o = 0; o < plain.offer_count; o++) {
            int64_t of = q->spot ? plain.offers[o].spot_price_micro
                                 : plain.offers[o].price_micro;
            if (of < *price && has_room(q, o, t)) {
                *price = of;
            }
        }
        if (*price < INT64_MAX) {
            return t;
        }
    }
    return -1;
}

static void check_slots(const struct match_query *q, const struct match_plan *p, int i)
{
    int start = minute_of(p->start_us), len = minute_of(T0 + q->len_us);
    if (p->slot_count != q->nodes || p->gpus != q->gpus || p->len_us != q->len_us) {
        fail("another plan than asked for", i);
    }
    for (int k = 0; k < p->slot_count; k++) {
        const struct match_slot *s = &p->slots[k];
        const struct calendar_node *n = &plain.nodes[s->node];
        uint64_t run = bits(s->first, q->gpus);
        if (n->model != p->slots[0].offer || s->offer != p->slots[0].offer ||
            (q->together == MATCH_DOMAIN &&
             n->domain != plain.nodes[p->slots[0].node].domain)) {
            fail("nodes apart", i);
        }
        if ((free_during(s->node, start, len) & run) != run) {
            fail("GPUs that somebody has", i);
        }
        block(s->node, s->first, q->gpus, start, start + len);
    }
}

/* Leaves the shadows in busy. */
static void check_places(void)
{
    count_bookings();
    for (int i = 0; i < order_count; i++) {
        const struct match_query *q = &orders[i].query;
        const struct match_plan *p = &plans[i];
        int64_t price;
        int start = first_start(q, &price);
        if (i > 0 && !is_before(&orders[i - 1], &orders[i])) {
            fail("the queue's order", i);
        }
        if ((start >= 0) != (places[i].why == MATCH_OK)) {
            fail(start >= 0 ? "there is room" : "there is no room", i);
        }
        if (start < 0) {
            unplaced++;
            continue;
        }
        placed++;
        if (p->start_us != at(start)) {
            fail("another start", i);
        }
        if (match_slot_price(&market, p, 0) != price) {
            fail("not the cheapest then", i);
        }
        check_slots(q, p, i);
    }
}

/* What stands in both calendars, against the plain lists. */
static void check_calendars(void)
{
    for (int k = 0; k < 30; k++) {
        int n = (int)draw((uint32_t)plain.node_count), t = (int)draw(MINUTES - 1);
        if (calendar_free_mask(calendar, n, at(t), at(t + 1)) != free_during(n, t, 1)) {
            fail("shadows and bookings are not what the calendar has", -1);
        }
    }
    size_t slots = 0, firm_slots = 0;
    for (int i = 0; i < order_count; i++) {
        int count = places[i].why == MATCH_OK ? plans[i].slot_count : 0;
        slots += (size_t)count;
        firm_slots += orders[i].query.spot ? 0 : (size_t)count;
    }
    if (calendar_booking_count(calendar) - calendar_booking_count(firm) !=
        slots - firm_slots) {
        fail("spot orders' shadows among the firm ones", -1);
    }
}

/* Without those behind everything is the same for those before. */
static void check_prefix(void)
{
    static struct match_plan before[ORDERS];
    int count = (int)draw((uint32_t)order_count + 1);
    memcpy(before, plans, sizeof(before));
    size_t had = calendar_booking_count(calendar);
    backfill_plan(&backfill, orders, (size_t)count, places);
    for (int i = 0; i < count; i++) {
        if (places[i].why == MATCH_OK &&
            (before[i].start_us != plans[i].start_us ||
             memcmp(before[i].slots, plans[i].slots,
                    (size_t)plans[i].slot_count * sizeof(plans[i].slots[0])) != 0)) {
            fail("moved by those behind", i);
        }
    }
    backfill_clear(&backfill);
    backfill_plan(&backfill, orders, (size_t)order_count, places);
    if (calendar_booking_count(calendar) != had) {
        fail("shadows left behind", -1);
    }
}

/* ---- what happens between the plannings ---- */

static void newcomer(void)
{
    int n = (int)draw((uint32_t)plain.node_count), from = (int)draw(300);
    int len = 1 + (int)draw(120), first = (int)draw(8), count = 1 + (int)draw(8);
    if (first + count <= 8 &&
        (free_during(n, from, len) & bits(first, count)) == bits(first, count)) {
        book(n, first, count, from, from + len);
        block(n, first, count, from, from + len);
    }
}

static void give_back(void)
{
    if (plain.booking_count == 0) {
        return;
    }
    int i = (int)draw((uint32_t)plain.booking_count);
    plain.bookings[i].count = 0;
    calendar_release(calendar, i + 1);
    calendar_release(firm, i + 1);
}

/* The caller's booking takes the place of the shadow. */
static void book_order(int i)
{
    if (places[i].why != MATCH_OK || plain.booking_count > BOOKINGS - 2) {
        return;
    }
    const struct match_plan p = plans[i];
    for (int k = 0; k < p.slot_count; k++) {
        book(p.slots[k].node, p.slots[k].first, p.gpus, minute_of(p.start_us),
             minute_of(p.start_us + p.len_us));
    }
    remove_order(i);
}

/* True when somebody lost a right: capacity left. */
static bool change(void)
{
    int what = (int)draw(10), n = (int)draw((uint32_t)plain.node_count);
    uint64_t all = bits(0, plain.nodes[n].gpus);
    if (what < 3) {
        newcomer();
    } else if (what < 5) {
        give_back();
    } else if (what == 5) {
        plain.nodes[n].offered = draw(2) ? 0 : draw(256) & all;
        set_node(n);
        return true;
    } else if (what == 6) {
        plain.nodes[n].offered = all;
        set_node(n);
    } else if (order_count > 0 && what == 7) {
        remove_order((int)draw((uint32_t)order_count));
    } else if (order_count > 0 && what == 8) {
        book_order(0);
    } else {
        add_order();
    }
    return false;
}

static void plan(void)
{
    qsort(orders, (size_t)order_count, sizeof(orders[0]), compare_orders);
    backfill_plan(&backfill, orders, (size_t)order_count, places);
    check_places();
    check_calendars();
}

/* Starts before a change, by order. */
struct start {
    int64_t id, us;
};

static void compare_starts(const struct start *had, int count, bool lost)
{
    for (int i = 0; i < order_count; i++) {
        for (int k = 0; k < count; k++) {
            bool is_later =
                had[k].id == orders[i].id &&
                (places[i].why != MATCH_OK || plans[i].start_us > had[k].us);
            compared += had[k].id == orders[i].id;
            /* The second was not only behind the first, who may have another place. */
            if (is_later && !lost && i == 0) {
                fail("later though nobody with more right came", i);
            }
            later_by_others += is_later && !lost;
        }
    }
}

static void run_market(void)
{
    make_market();
    for (int i = 0; i < 40; i++) {
        count_bookings();
        newcomer();
    }
    for (int i = 0; i < 6; i++) {
        add_order();
    }
    plan();
    for (int round = 0; round < ROUNDS; round++) {
        struct start had[ORDERS];
        int count = 0;
        bool lost = false;
        for (int i = 0; i < order_count; i++) {
            if (places[i].why == MATCH_OK) {
                had[count++] = (struct start){orders[i].id, plans[i].start_us};
            }
        }
        lost = change();
        plan();
        compare_starts(had, count, lost);
        check_prefix();
    }
    backfill_clear(&backfill);
    count_bookings();
    order_count = 0;
    check_calendars();
    drop_market();
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    int markets = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 300;
    printf("seed %" PRIu64 "\n", seed);
    for (int i = 0; i < markets; i++) {
        market_seed = seed + (uint64_t)i;
        state = market_seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
        run_market();
    }
    printf("%" PRIu64 " orders placed, %" PRIu64 " not; of %" PRIu64 " starts %" PRIu64
           " later because one before found another place\n",
           placed, unplaced, compared, later_by_others);
    printf("100%%: Checks: 1, Failures: 0, Errors: 0\n");
    return 0;
}

/* Tests of the world's offers: random changes of nodes, compared with a plain grouping
 * made anew each time; and of tries. No database: rows are set as world_rows.c does. */
#include "server/flow/world.h"

#include <libpq-fe.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define SITES 3
#define NODES 40
#define HOUR  (3600 * US_PER_S)

static struct world *world_make(void)
{
    struct world_opts opts = {.market = "m", .currency = "JPY"};
    struct world *w = world_new(&opts);
    w->sites = xcalloc(SITES, sizeof(*w->sites));
    w->site_count = SITES;
    w->site_cap = SITES;
    for (int i = 0; i < SITES; i++) {
        w->sites[i].id = i + 1;
        w->sites[i].zone = xstrdup("");
        w->sites[i].domains = json_object();
        w->sites[i].name = xasprintf("site-%d", i);
        w->sites[i].city = xstrdup("");
        memcpy(w->sites[i].residency, "jp", 3);
    }
    return w;
}

static void set_text(char **field, const char *text)
{
    free(*field);
    *field = xstrdup(text);
}

static void node_set(struct world *w, int node, int site, const char *model,
                     int64_t price, const char *state)
{
    struct world_node *n = &w->nodes[node];
    n->site = site;
    n->known = true;
    n->gpus = 8;
    n->memory_mib = 80000;
    n->offered = 0xff;
    n->price_micro = price;
    memcpy(n->provider_id, "01890a5d-ac96-774b-bcce-b302099a8001", UUID_TEXT);
    set_text(&n->provider, "seller");
    set_text(&n->name, "n");
    set_text(&n->gpu_model, model);
    set_text(&n->state, state);
    set_text(&n->address, "");
    set_text(&n->spiffe_id, "spiffe://m");
    world_regroup(w, node);
}

/* GPUs of the first node. */
static void book(struct world *w, int64_t id, int first, int count,
                 const struct calendar_span *during)
{
    struct world_booking b = {
        .id = id, .first = first, .count = count, .during = *during};
    world_book(w, &b);
}

static bool sells(const struct world_node *n)
{
    return n->known && n->price_micro >= 0 && strcmp(n->state, "retired") != 0;
}

static bool alike(const struct world_node *a, const struct world_node *b)
{
    return a->site == b->site && strcmp(a->gpu_model, b->gpu_model) == 0 &&
           a->price_micro == b->price_micro;
}

static void compare(const struct world *w, unsigned round)
{
    size_t groups = 0;
    for (size_t i = 0; i < w->node_count; i++) {
        const struct world_node *n = &w->nodes[i];
        if (!sells(n)) {
            ck_assert_msg(n->model == -1, "round %u: node %zu is in an offer", round,
                          i);
            continue;
        }
        int nodes = 0, up = 0;
        bool first = true;
        for (size_t k = 0; k < w->node_count; k++) {
            const struct world_node *o = &w->nodes[k];
            if (!sells(o) || !alike(n, o))
                continue;
            first = first && k >= i;
            nodes++;
            up += strcmp(o->state, "up") == 0;
            ck_assert_msg(o->model == n->model, "round %u: %zu and %zu", round, i, k);
        }
        groups += first;
        int index = world_offer_of(w, (int)i);
        const struct match_offer *offer = &w->offers[index];
        ck_assert_int_eq(offer->model, n->model);
        ck_assert_int_eq(offer->site, n->site);
        ck_assert_str_eq(offer->gpu_model, n->gpu_model);
        ck_assert_int_eq(offer->price_micro, n->price_micro);
        ck_assert_int_eq(w->offer_info[index].nodes, nodes);
        ck_assert_int_eq(w->offer_info[index].nodes_up, up);
        ck_assert_int_eq(offer->up, up > 0);
        /* The calendar sells exactly what is up in the group. */
        int best, total;
        calendar_capacity(w->calendar, n->site, n->model, 0, HOUR, &best, &total);
        ck_assert_msg(total == 8 * up, "round %u: offer %d sells %d of %d GPUs", round,
                      index, total, 8 * up);
    }
    ck_assert_uint_eq(w->offer_count, groups);
}

START_TEST(test_offers_are_the_groups)
{
    static const char *const models[] = {"H100", "A100"};
    static const char *const states[] = {"up", "up", "unknown", "retired"};
    unsigned seed = 20261122;
    struct world *w = world_make();
    for (unsigned round = 0; round < 3000; round++) {
        int node = world_node_slot(w, 1 + rand_r(&seed) % NODES);
        int64_t price = rand_r(&seed) % 5 - 1; /* -1: none */
        node_set(w, node, rand_r(&seed) % SITES, models[rand_r(&seed) % 2], price,
                 states[rand_r(&seed) % 4]);
        if (round % 10 == 0)
            compare(w, round);
        if (round % 500 == 0)
            world_count_up(w);
    }
    compare(w, 3000);
    world_free(w);
}
END_TEST

static struct match_plan *plan_make(int first, int64_t start_us, int64_t len_us)
{
    struct match_plan *p = xcalloc(1, sizeof(*p));
    p->start_us = start_us;
    p->len_us = len_us;
    p->gpus = 2;
    p->slot_count = 2;
    p->slots[0] = (struct match_slot){.node = 0, .first = first};
    p->slots[1] = (struct match_slot){.node = 1, .first = first};
    p->lanes_count = 1;
    p->lanes[0] =
        (struct match_lanes){.first = 1, .count = 2, .from_us = start_us - 50};
    return p;
}

static void free_is(const struct world *w, int64_t at, uint64_t all, uint64_t firm,
                    uint64_t lanes)
{
    for (int node = 0; node < 2; node++) {
        ck_assert_uint_eq(calendar_free_mask(w->calendar, node, at, at + 1), all);
        ck_assert_uint_eq(calendar_free_mask(w->firm, node, at, at + 1), firm);
    }
    ck_assert_uint_eq(calendar_free_mask(w->lanes, 0, at, at + 1), lanes);
}

/* What is being booked is busy for others until it is known how it went; then it is
 * booked, unless the feed has told more of it already. */
START_TEST(test_tries)
{
    struct world *w = world_make();
    struct calendar_node path = {.gpus = 4, .offered = 0xf};
    struct match_plan *p = plan_make(2, 100, 100), *spot = plan_make(6, 100, 100);
    spot->spot = true;
    spot->lanes_count = 0;
    node_set(w, world_node_slot(w, 7), 0, "H100", 1, "up");
    node_set(w, world_node_slot(w, 8), 0, "H100", 1, "up");
    world_want_firm(w);
    calendar_set_node(w->lanes, 0, &path);
    struct world_try a = world_try_plan(w, p), b = world_try_plan(w, spot);
    struct world_try shadow = world_shadow_plan(w, spot);
    free_is(w, 100, 0x33, 0xf3, 0x9);
    free_is(w, 60, 0xff, 0xff, 0x9); /* the path is lit before the start */
    free_is(w, 200, 0xff, 0xff, 0xf);
    ck_assert_uint_eq(w->try_count, 2); /* nobody waits for a shadow */
    world_try_end(w, &a);
    world_try_end(w, &a);
    free_is(w, 100, 0x3f, 0xff, 0xf);
    world_try_end(w, &b);
    free_is(w, 100, 0x3f, 0xff, 0xf);
    world_try_end(w, &shadow);
    free_is(w, 100, 0xff, 0xff, 0xf);
    ck_assert_uint_eq(w->try_count, 0);

    static const int64_t ids[] = {71, 72, 73};
    struct world_booked booked = {"01890a5d-ac96-774b-bcce-b302099a8001", p, ids,
                                  ids + 2};
    world_booked(w, &booked);
    free_is(w, 100, 0xf3, 0xf3, 0x9);
    /* Another place for it: its own counts as free, and comes back. */
    struct world_booking own[] = {
        {.id = 71, .node = 0, .first = 2, .count = 2, .during = {100, 200}},
        {.id = 72, .node = 1, .first = 2, .count = 2, .during = {100, 200}},
        {.id = 99, .node = 1, .first = 6, .count = 2, .during = {100, 200}}};
    struct world_lanes lanes = {73, 0, 1, 2, {50, 200}};
    struct world_lifted l = {own, &lanes, 3, 1};
    world_lift(w, &l);
    ck_assert_uint_eq(l.booking_count, 2); /* what was not there must not appear */
    free_is(w, 100, 0xff, 0xff, 0xf);
    world_put_back(w, &l);
    free_is(w, 100, 0xf3, 0xf3, 0x9);
    struct world_booking gone = own[0];
    gone.during = (struct calendar_span){0, 0};
    world_book(w, &gone);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xff);
    /* The feed told of its cancellation first: the answer to the booking is late. */
    booked.reservation = "01890a5d-ac96-774b-bcce-b302099a8002";
    ck_assert(world_gens_news(w->gens, booked.reservation, 5, INT64_MAX));
    world_booked(w, &booked);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xff);
    free(p);
    free(spot);
    world_free(w);
}
END_TEST

/* A node that grew: bookings of its earlier numbers lie before its first GPU. */
START_TEST(test_place_that_is_none)
{
    struct world *w = world_make();
    struct calendar_span during = {100, 200};
    node_set(w, world_node_slot(w, 7), 0, "H100", 1, "up");
    static const int places[][2] = {{-8, 8}, {60, 8}, {0, 0}, {INT_MAX, INT_MAX}};
    for (int i = 0; i < 4; i++)
        book(w, 9 + i, places[i][0], places[i][1], &during);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xff);
    ck_assert_uint_eq(w->nodes[0].wakes, 4);
    world_free(w);
}
END_TEST

/* Random bookings, firm and spot, cut and given back, against a plain list: what each
 * calendar leaves free, and who could be preempted. */
START_TEST(test_spot_and_firm)
{
    enum { IDS = 200, SLOTS = 8 };
    unsigned seed = 20261124;
    struct world *w = world_make();
    struct world_booking model[IDS] = {{0}};
    for (int i = 0; i < 4; i++)
        node_set(w, world_node_slot(w, i + 1), 0, "H100", 1, "up");
    ck_assert_ptr_null(w->firm);
    world_want_firm(w);
    ck_assert(w->reload);
    for (int round = 0; round < 5000; round++) {
        int i = rand_r(&seed) % IDS;
        int64_t from = rand_r(&seed) % SLOTS;
        struct world_booking b = {.id = 1000 + i * 3,
                                  .node = rand_r(&seed) % 4,
                                  .first = rand_r(&seed) % 7,
                                  .count = 1 + rand_r(&seed) % 2,
                                  .during = {from, from + rand_r(&seed) % 3},
                                  .spot = i % 3 == 0};
        if (model[i].id != 0) { /* a booking stays on its GPUs */
            b.spot = model[i].spot && rand_r(&seed) % 8 != 0; /* preempted */
            b.node = model[i].node;
            b.first = model[i].first;
            b.count = model[i].count;
        }
        model[i] = b;
        world_book(w, &b);
        if (round % 25 != 0)
            continue;
        size_t spots = 0;
        for (int k = 0; k < IDS; k++)
            spots += model[k].spot && model[k].during.from_us < model[k].during.to_us;
        ck_assert_uint_eq(w->spot_count, spots);
        for (size_t k = 0; k < w->spot_count; k++) {
            const struct world_booking *m = &model[(w->spots[k].id - 1000) / 3];
            ck_assert_int_eq(w->spots[k].during.to_us, m->during.to_us);
            ck_assert_int_eq(w->spots[k].node, m->node);
        }
        for (int at = 0; at < SLOTS; at++)
            for (int node = 0; node < 4; node++) {
                uint64_t all = 0xff, firm = 0xff;
                for (int k = 0; k < IDS; k++) {
                    const struct world_booking *m = &model[k];
                    if (m->id == 0 || m->node != node || m->during.from_us > at ||
                        m->during.to_us <= at)
                        continue;
                    uint64_t taken = ((UINT64_C(1) << m->count) - 1) << m->first;
                    all &= ~taken;
                    if (!m->spot)
                        firm &= ~taken;
                }
                ck_assert_msg(calendar_free_mask(w->calendar, node, at, at + 1) ==
                                      all &&
                                  calendar_free_mask(w->firm, node, at, at + 1) == firm,
                              "round %d", round);
            }
    }
    world_expire_spots(w, SLOTS + 3);
    ck_assert_uint_eq(w->spot_count, 0);
    world_free(w);
}
END_TEST

/* Each data set is measured by TOPO_PROBERS nodes of each site that are up; of those
 * that measured before, all that are still up go on; a node with too many takes turns.
 */
START_TEST(test_probes)
{
    enum { SETS = 150 };
    struct world *w = world_make();
    w->probe_interval_us = 60 * US_PER_S;
    for (int i = 0; i < 10; i++) {
        int node = world_node_slot(w, i + 1), site = i < 9 ? i % 2 : 2;
        struct world_site *s = &w->sites[site];
        node_set(w, node, site, "H100", 1, "up");
        s->nodes = xreallocarray(s->nodes, s->node_count + 1, sizeof(*s->nodes));
        s->nodes[s->node_count++] = node;
    }
    w->data = xcalloc(SETS, sizeof(*w->data));
    w->data_count = SETS;
    for (int i = 0; i < SETS; i++) {
        w->data[i] = (struct world_data){.id = i + 1, .known = true, .site = -1};
        w->data[i].endpoint = xstrdup("tcp://h:1");
    }
    world_elect_due(w, 1);
    size_t total = 0, most = 0;
    for (int i = 0; i < 10; i++) {
        total += w->nodes[i].probe_count;
        if (i < 9 && w->nodes[i].probe_count > most)
            most = w->nodes[i].probe_count;
    }
    ck_assert_uint_eq(total, SETS * (TOPO_PROBERS + TOPO_PROBERS + 1));
    ck_assert_msg(most < 2 * SETS * TOPO_PROBERS / 4, "%zu of one node", most);
    /* The only node of its site measures them all, in turns. */
    bool seen[SETS] = {false};
    int got[WORLD_PROBES_MAX];
    for (int turn = 0; turn < 3; turn++) {
        size_t n = world_probes_of(w, 9, turn * w->probe_interval_us, got);
        ck_assert_uint_eq(n, WORLD_PROBES_MAX);
        for (size_t k = 0; k < n; k++)
            seen[got[k]] = true;
    }
    for (int i = 0; i < SETS; i++)
        ck_assert(seen[i]);
    /* A node goes: its sets are measured by others, the rest stays where it is. */
    size_t before = w->nodes[2].probe_count, gone = w->nodes[0].probe_count;
    node_set(w, 0, 0, "H100", 1, "unknown");
    world_elect_due(w, 2);
    ck_assert_uint_eq(w->nodes[0].probe_count, gone); /* not at once */
    world_elect_due(w, 60 * US_PER_S);
    ck_assert_uint_eq(w->nodes[0].probe_count, 0);
    ck_assert_uint_ge(w->nodes[2].probe_count, before);
    total = 0;
    for (int i = 0; i < 9; i += 2)
        total += w->nodes[i].probe_count;
    ck_assert_uint_eq(total, SETS * TOPO_PROBERS);
    uint64_t wakes = w->nodes[9].wakes;
    w->data[7].removed = true;
    world_elect_data(w, 7);
    ck_assert_uint_eq(w->nodes[9].probe_count, SETS - 1);
    ck_assert_uint_eq(w->nodes[9].wakes, wakes + 1);
    world_free(w);
}
END_TEST

/* Answered while the tables are read: they may have been read before it. */
START_TEST(test_booked_while_loading)
{
    struct world *w = world_make();
    struct calendar_span during = {100, 200};
    struct store_result none = {.status = STORE_OK};
    none.rows = (void *)PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    node_set(w, world_node_slot(w, 7), 0, "H100", 1, "up");
    book(w, 8, 4, 4, &during);
    w->loading = true;
    book(w, 9, 0, 2, &during);
    world_put_bookings(w, &none);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xfc);
    PQclear((void *)(uintptr_t)none.rows);
    world_free(w);
}
END_TEST

/* Newer news stays, whatever comes late; a plain list is the model. */
START_TEST(test_news)
{
    enum { IDS = 300 };
    unsigned seed = 20261123;
    struct world_gens *g = world_gens_new();
    int64_t last[IDS], until[IDS];
    for (int i = 0; i < IDS; i++)
        last[i] = until[i] = -1;
    ck_assert(world_gens_news(g, NULL, 5, 10));
    ck_assert(world_gens_news(g, "not an id", 5, 10));
    ck_assert_uint_eq(world_gens_count(g), 0);
    for (int round = 0; round < 20000; round++) {
        char id[UUID_TEXT];
        int i = rand_r(&seed) % IDS;
        int64_t event = rand_r(&seed) % 1000, till = round + rand_r(&seed) % 2000;
        snprintf(id, sizeof(id), "01890a5d-ac96-774b-bcce-%012x", i * 7919);
        bool news = event >= last[i];
        ck_assert_msg(world_gens_news(g, id, event, till) == news, "round %d: %d",
                      round, i);
        if (news) {
            last[i] = event;
            until[i] = till > until[i] ? till : until[i];
        }
        if (round % 997 == 0) {
            size_t left = 0;
            world_gens_expire(g, round);
            for (int k = 0; k < IDS; k++) {
                if (until[k] <= round)
                    last[k] = until[k] = -1;
                left += last[k] >= 0;
            }
            ck_assert_uint_eq(world_gens_count(g), left);
        }
    }
    world_gens_free(g);
}
END_TEST

START_TEST(test_who_asks)
{
    struct world *w = world_make();
    struct flow_principal who;
    uint8_t hash[SHA256_LEN] = {1, 2, 3};
    ck_assert_int_eq(world_auth_lookup(w, hash, &who), -1);
    world_add_key(w, hash, "tenant", "01890a5d-ac96-774b-bcce-b302099a8001", "acme");
    ck_assert_int_eq(world_auth_lookup(w, hash, &who), 0);
    ck_assert_int_eq(who.role, ROLE_TENANT);
    ck_assert_str_eq(who.name, "acme");
    ck_assert_str_eq(who.tenant_id, "01890a5d-ac96-774b-bcce-b302099a8001");
    ck_assert_str_eq(who.provider_id, "");
    hash[31] = 1;
    ck_assert_int_eq(world_auth_lookup(w, hash, &who), -1);
    /* A node without a certificate is nobody, whatever is shown. */
    node_set(w, world_node_slot(w, 7), 0, "H100", 1, "up");
    json_object_set_new(w->agents, "spiffe://m", json_integer(0));
    ck_assert_int_eq(world_agent_lookup(w, "spiffe://m", "", &who), -1);
    ck_assert_int_eq(world_agent_lookup(w, "spiffe://m",
                                        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                        &who),
                     -1);
    ck_assert_int_eq(world_agent_lookup(w, "spiffe://m",
                                        "AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                        &who),
                     -1);
    w->nodes[0].cert[0] = 1;
    w->nodes[0].cert[1] = 2;
    w->nodes[0].cert[2] = 3;
    ck_assert_int_eq(world_agent_lookup(w, "spiffe://m",
                                        "AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                        &who),
                     0);
    ck_assert_str_eq(who.node_id, "7");
    ck_assert_str_eq(who.site, "site-0");
    world_free(w);
}
END_TEST

UNIT_MAIN("world", UNIT_CASE(test_offers_are_the_groups) UNIT_CASE(test_tries)
                       UNIT_CASE(test_spot_and_firm) UNIT_CASE(test_probes)
                           UNIT_CASE(test_place_that_is_none)
                               UNIT_CASE(test_booked_while_loading) UNIT_CASE(test_news)
                                   UNIT_CASE(test_who_asks))

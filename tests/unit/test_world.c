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
    for (int i = 0; i < SITES; i++) {
        w->sites[i].id = i + 1;
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
            ck_assert_msg(n->offer == -1, "round %u: node %zu is in an offer", round,
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
            ck_assert_msg(o->offer == n->offer, "round %u: %zu and %zu", round, i, k);
        }
        groups += first;
        const struct match_offer *offer = &w->offers[n->offer];
        ck_assert_int_eq(offer->model, n->offer);
        ck_assert_int_eq(offer->site, n->site);
        ck_assert_str_eq(offer->gpu_model, n->gpu_model);
        ck_assert_int_eq(offer->price_micro, n->price_micro);
        ck_assert_int_eq(w->offer_info[n->offer].nodes, nodes);
        ck_assert_int_eq(w->offer_info[n->offer].nodes_up, up);
        ck_assert_int_eq(offer->up, up > 0);
        /* The calendar sells exactly what is up in the group. */
        int best, total;
        calendar_capacity(w->calendar, n->site, n->offer, 0, HOUR, &best, &total);
        ck_assert_msg(total == 8 * up, "round %u: offer %d sells %d of %d GPUs", round,
                      n->offer, total, 8 * up);
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

/* What is being booked is busy for others until it is known how it went. */
START_TEST(test_tries)
{
    struct world *w = world_make();
    struct calendar_slot slot = {0, 2, 100};
    node_set(w, world_node_slot(w, 7), 0, "H100", 1, "up");
    int64_t a = world_try(w, &slot, 4, 200);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xc3);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 200, 300), 0xff);
    slot.first = 6;
    int64_t b = world_try(w, &slot, 2, 200);
    ck_assert_int_ne(a, b);
    ck_assert_uint_eq(w->try_count, 2);
    world_try_end(w, a);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0x3f);
    struct calendar_span during = {100, 200}, nothing = {0, 0};
    world_book(w, 9, 0, 0, 1, &during);
    world_try_end(w, b);
    ck_assert_uint_eq(w->try_count, 0);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xfe);
    world_book(w, 9, 0, 0, 1, &nothing);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xff);
    world_free(w);
}
END_TEST

/* A node that grew: bookings of its earlier numbers lie before its first GPU. */
START_TEST(test_place_that_is_none)
{
    struct world *w = world_make();
    struct calendar_span during = {100, 200};
    node_set(w, world_node_slot(w, 7), 0, "H100", 1, "up");
    world_book(w, 9, 0, -8, 8, &during);
    world_book(w, 10, 0, 60, 8, &during);
    world_book(w, 11, 0, 0, 0, &during);
    world_book(w, 12, 0, INT_MAX, INT_MAX, &during);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xff);
    ck_assert_uint_eq(w->nodes[0].wakes, 4);
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
    world_book(w, 8, 0, 4, 4, &during);
    w->loading = true;
    world_book(w, 9, 0, 0, 2, &during);
    world_put_bookings(w, &none);
    ck_assert_uint_eq(calendar_free_mask(w->calendar, 0, 100, 200), 0xfc);
    PQclear((void *)(uintptr_t)none.rows);
    world_free(w);
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

UNIT_MAIN("world",
          UNIT_CASE(test_offers_are_the_groups) UNIT_CASE(test_tries)
              UNIT_CASE(test_place_that_is_none) UNIT_CASE(test_booked_while_loading)
                  UNIT_CASE(test_who_asks))

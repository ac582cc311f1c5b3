/* backfill: shadows away, then order by order: the earliest start there is, of the
 * plans at that start the cheapest, and its shadow. A place depends on the market and
 * on the orders before it alone, never on those behind nor on an earlier planning, so
 * every server that sees the same market and queue predicts the same. */
#include "server/core/backfill.h"

int backfill_compare(const struct backfill_order *a, const struct backfill_order *b)
{
    if (a->priority != b->priority) {
        return a->priority > b->priority ? -1 : 1;
    }
    if (a->since_us != b->since_us) {
        return a->since_us < b->since_us ? -1 : 1;
    }
    return (a->id > b->id) - (a->id < b->id);
}

void backfill_clear(struct backfill *b)
{
    for (int64_t i = 0; i < b->shadow_count; i++) {
        int64_t id = b->first_id - i;
        calendar_release(b->calendar, id);
        if (b->firm != NULL) {
            calendar_release(b->firm, id);
        }
        if (b->lanes != NULL) {
            calendar_release(b->lanes, id);
        }
    }
    b->shadow_count = 0;
}

/* match_best() goes by cost: of a range it may name a cheap place next week though a
 * dearer one within the bounds is free today. So each find makes the range end before
 * it, until there is none; the last one is the cheapest at the earliest start, because
 * all that can start then were among those it was chosen from. What is spread over
 * sites is found at its earliest start anyway. */
static enum match_why find_earliest(const struct match_market *m,
                                    const struct match_query *q,
                                    struct match_plan *plan)
{
    enum match_why why = match_best(m, q, plan);
    if (why != MATCH_OK || q->federated || (q->together == MATCH_ANY && q->nodes > 1)) {
        return why;
    }
    struct match_query sooner = *q;
    do {
        sooner.latest_us = plan->start_us - 1;
    } while (sooner.from_us <= sooner.latest_us &&
             match_best(m, &sooner, plan) == MATCH_OK);
    return MATCH_OK;
}

static void book_shadow(struct backfill *b, const struct match_plan *plan)
{
    int64_t end_us = plan->start_us + plan->len_us;
    for (int i = 0; i < plan->slot_count; i++) {
        const struct match_slot *s = &plan->slots[i];
        int64_t id = b->first_id - b->shadow_count++;
        calendar_book(b->calendar, id, s->node, s->first, plan->gpus, plan->start_us,
                      end_us);
        if (b->firm != NULL && !plan->spot) {
            calendar_book(b->firm, id, s->node, s->first, plan->gpus, plan->start_us,
                          end_us);
        }
    }
    for (int i = 0; b->lanes != NULL && i < plan->lanes_count; i++) {
        const struct match_lanes *l = &plan->lanes[i];
        int64_t id = b->first_id - b->shadow_count++;
        calendar_book(b->lanes, id, l->path, l->first, l->count, l->from_us, end_us);
    }
}

void backfill_plan(struct backfill *b, const struct backfill_order *orders,
                   size_t count, struct backfill_place *places)
{
    backfill_clear(b);
    for (size_t i = 0; i < count; i++) {
        places[i].why = find_earliest(b->market, &orders[i].query, places[i].plan);
        if (places[i].why == MATCH_OK) {
            book_shadow(b, places[i].plan);
        }
    }
}

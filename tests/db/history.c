/* history: accounts, time, holds and what changes them; billing is in history_bill.c.
 */
#include "tests/db/history.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t h_round(__int128 a, __int128 b)
{
    __int128 q = a / b;
    return (int64_t)(2 * (a - q * b) >= b ? q + 1 : q);
}

int64_t h_month(const char *zone, int64_t t, int months)
{
    time_t s = (time_t)(t / SEC_US);
    struct tm tm;
    setenv("TZ", zone, 1);
    tzset();
    localtime_r(&s, &tm);
    tm.tm_mon += months;
    tm.tm_mday = 1;
    tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
    tm.tm_isdst = -1;
    s = mktime(&tm);
    setenv("TZ", "UTC", 1);
    tzset();
    return s * SEC_US;
}

/* ---- accounts ------------------------------------------------------------------- */

int64_t *h_sum(struct history *h, const char *currency, const char *name)
{
    for (int i = 0; i < h->account_count; i++)
        if (strcmp(h->account[i].name, name) == 0 &&
            strcmp(h->account[i].currency, currency) == 0)
            return &h->account[i].sum;
    assert(h->account_count < (int)(sizeof(h->account) / sizeof(h->account[0])));
    struct h_account *a = &h->account[h->account_count++];
    snprintf(a->name, sizeof(a->name), "%s", name);
    snprintf(a->currency, sizeof(a->currency), "%s", currency);
    return &a->sum;
}

int64_t *h_tenant(struct history *h, int tenant, const char *kind)
{
    char name[48];
    snprintf(name, sizeof(name), "tenant:t%d:%s", tenant, kind);
    return h_sum(h, h->currency, name);
}

int64_t *h_provider(struct history *h, int provider, const char *kind)
{
    char name[48];
    snprintf(name, sizeof(name), "provider:p%d:%s", provider, kind);
    return h_sum(h, h->currency, name);
}

int64_t *h_market(struct history *h, const char *kind)
{
    char name[48];
    snprintf(name, sizeof(name), "market:%s", kind);
    return h_sum(h, h->currency, name);
}

void h_post(int64_t *dr, int64_t *cr, int64_t amount)
{
    assert(amount >= 0);
    *dr -= amount;
    *cr += amount;
}

static int by_name(const void *a, const void *b)
{
    const struct h_account *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c != 0 ? c : strcmp(x->currency, y->currency);
}

void h_print(const struct history *h, struct strbuf *out)
{
    struct h_account all[sizeof(h->account) / sizeof(h->account[0])];
    memcpy(all, h->account, sizeof(all));
    qsort(all, (size_t)h->account_count, sizeof(all[0]), by_name);
    for (int i = 0; i < h->account_count; i++)
        if (all[i].sum != 0)
            strbuf_addf(out, "%s %s %" PRId64 "\n", all[i].name, all[i].currency,
                        all[i].sum);
}

/* ---- wallets -------------------------------------------------------------------- */

int64_t h_room(struct history *h, int tenant)
{
    return *h_tenant(h, tenant, "wallet") + *h_tenant(h, tenant, "promo") +
           h->credit[tenant];
}

int64_t h_committed(struct history *h, int tenant)
{
    const struct h_budget *b = &h->budget[tenant];
    int64_t since = b->month ? h_month(h->zone[tenant], h->now, 0) : b->since;
    int64_t sum = *h_tenant(h, tenant, "hold");
    for (int i = 0; i < h->capture_count; i++)
        if (h->resv[h->capture[i].resv].tenant == tenant && h->capture[i].at >= since)
            sum += h->capture[i].gross;
    return sum;
}

int64_t h_spendable(struct history *h, int tenant)
{
    int64_t room = h_room(h, tenant);
    const struct h_budget *b = &h->budget[tenant];
    if (!b->set || !b->hard)
        return room;
    int64_t left = b->limit - h_committed(h, tenant);
    if (left < 0)
        left = 0;
    return left < room ? left : room;
}

int64_t h_owed(struct history *h, int tenant)
{
    return -*h_tenant(h, tenant, "receivable");
}

void h_collect(struct history *h, int tenant)
{
    int64_t can = h_room(h, tenant), due = h_owed(h, tenant);
    int64_t some = can < due ? can : due;
    if (some > 0)
        h_post(h_tenant(h, tenant, "wallet"), h_tenant(h, tenant, "receivable"), some);
}

/* ---- holds ---------------------------------------------------------------------- */

int64_t h_fee_ppm(const struct history *h, int provider)
{
    return h->fee_ppm[provider] >= 0 ? h->fee_ppm[provider] : h->market_fee;
}

static int64_t span_price(int64_t count, int64_t from, int64_t to, int64_t price)
{
    return to <= from ? 0 : h_round((__int128)count * (to - from) * price, HOUR_US);
}

int64_t h_price(const struct h_resv *r, int64_t end)
{
    int64_t sum = 0;
    for (int k = 0; k < r->nodes; k++)
        if (!r->chain[k].empty)
            sum += span_price(r->chain[k].gpus, r->start, end, r->chain[k].price);
    const struct h_lanes *l = &r->lanes;
    if (l->count > 0 && !l->empty)
        sum += span_price(l->count, l->from > r->start ? l->from : r->start,
                          l->to < r->end && l->to < end ? l->to : end, l->price);
    return sum;
}

void h_cut_lanes(struct h_resv *r, int64_t at)
{
    struct h_lanes *l = &r->lanes;
    if (l->count == 0 || l->empty || l->to <= at)
        return;
    l->to = at;
    l->empty = l->from >= at;
}

void h_release_all(struct history *h, struct h_resv *r)
{
    int64_t rest = r->held - r->captured - r->released;
    h_post(h_tenant(h, r->tenant, "hold"), h_tenant(h, r->tenant, "wallet"), rest);
    r->released += rest;
}

void h_transitions(struct history *h, int64_t grace)
{
    for (int i = 0; i < h->resv_count; i++) {
        struct h_resv *r = &h->resv[i];
        if (r->state == H_CONFIRMED && r->start <= h->now)
            r->state = H_ACTIVE;
        if (r->state == H_ACTIVE && r->end <= h->now - grace) {
            bool heard = false;
            for (int k = 0; k < r->nodes; k++)
                heard = heard || r->chain[k].seq > 0;
            r->state = heard ? H_ENDED : H_FAILED;
            r->ended_at = r->end;
        }
        if (r->state == H_HELD && (r->hold_until <= h->now || r->start <= h->now)) {
            r->state = H_CANCELLED;
            r->ended_at = h->now;
            r->lanes.empty = true;
            for (int k = 0; k < r->nodes; k++)
                r->chain[k].empty = true;
        }
    }
}

/* ---- promotional credit ---------------------------------------------------------- */

void h_grant(struct history *h, int tenant, int64_t amount, int64_t expires)
{
    int64_t *promo = h_tenant(h, tenant, "promo");
    if (*promo == 0) /* use before there was any left is not paid by it */
        h->promo_net[tenant] = 0;
    h->has_promo[tenant] = true;
    h_post(h_market(h, "promo_expense"), promo, amount);
    h->grant = realloc(h->grant, (size_t)(h->grant_count + 1) * sizeof(*h->grant));
    assert(h->grant != NULL);
    h->grant[h->grant_count++] =
        (struct h_grant){.tenant = tenant, .amount = amount, .expires = expires};
}

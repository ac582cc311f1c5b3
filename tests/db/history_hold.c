/* history: rolling holds, as docs/billing.md says: of a long lease the next window is
 * held; half a window before that is over, billd holds on; money that does not reach
 * ends the lease where it does. */
#include <stdlib.h>
#include <string.h>

#include "tests/db/history.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t due_at(const struct history *h, int64_t paid)
{
    return paid == 0 ? 0 : paid - h->hold_window / 2;
}

int64_t h_hold_end(const struct history *h, const struct h_resv *r, int64_t now)
{
    int64_t to = max64(r->start, now) + h->hold_window;
    return h->hold_window == 0 || to >= r->end ? 0 : to;
}

int64_t h_hold_price(const struct h_resv *r, int64_t paid)
{
    return paid == 0 ? r->total : h_price(r, paid);
}

void h_hold(struct history *h, struct h_resv *r, int64_t paid)
{
    int64_t more = h_hold_price(r, paid) - (r->held - r->released);
    int64_t *wallet = h_tenant(h, r->tenant, "wallet"),
            *hold = h_tenant(h, r->tenant, "hold");
    h_post(more > 0 ? wallet : hold, more > 0 ? hold : wallet, llabs(more));
    r->held += max64(0, more);
    r->released += max64(0, -more);
    r->paid = paid;
    r->due = due_at(h, paid);
}

/* Up to `until`, or the end; never less than is held. */
static void hold_on(struct history *h, struct h_resv *r, int64_t until)
{
    int64_t paid = until < r->end ? until : 0;
    int64_t more = h_price(r, paid == 0 ? r->end : paid) - (r->held - r->released);
    if (more > 0) {
        h_post(h_tenant(h, r->tenant, "wallet"), h_tenant(h, r->tenant, "hold"), more);
        r->held += more;
    }
    r->paid = paid;
    r->due = due_at(h, paid);
}

/* The last whole second up to `target` that so much more pays for. */
static int64_t reach(const struct h_resv *r, int64_t target, int64_t can)
{
    int64_t low = 0, high = max64(0, (target - r->paid) / SEC_US);
    while (low < high) {
        int64_t mid = (low + high + 1) / 2;
        if (h_price(r, r->paid + mid * SEC_US) - (r->held - r->released) <= can)
            low = mid;
        else
            high = mid - 1;
    }
    return r->paid + low * SEC_US;
}

static void stop(struct history *h, struct h_resv *r)
{
    int64_t end = r->paid > h->now ? r->paid : h->now + 5 * SEC_US;
    r->due = 0;
    if (end >= r->end)
        return;
    h_cut_lanes(r, end);
    r->total = h_price(r, end);
    r->end = end;
    if (r->paid >= end)
        r->paid = 0;
    h->stopped++;
}

static void roll(struct history *h, struct h_resv *r)
{
    int64_t notice = max64(min64(h->hold_window / 4, HOUR_US), 12 * SEC_US);
    int64_t target = min64(max64(h->now + h->hold_window, r->paid), r->end);
    int64_t need = h_price(r, target) - (r->held - r->released),
            can = h_spendable(h, r->tenant), before = r->paid;
    if (need <= can) {
        hold_on(h, r, target);
        return;
    }
    int64_t to = reach(r, target, can);
    if (to - before >= h->hold_window / 24 ||
        (before - notice <= h->now && to > before))
        hold_on(h, r, to);
    if (r->paid - notice <= h->now)
        stop(h, r);
    else
        r->due =
            min64(h->now + min64(h->hold_window / 100, 60 * SEC_US), r->paid - notice);
}

/* One that is over used more than was held: nobody looked in time. */
static void late(struct history *h, struct h_resv *r)
{
    int64_t until = min64(r->end, r->ended_at + 60 * SEC_US);
    if (r->paid != 0 && r->paid < until && !r->rest_back)
        hold_on(h, r, reach(r, until, h_spendable(h, r->tenant)));
    r->due = 0;
}

static const struct history *sorting;
static int by_paid(const void *a, const void *b)
{
    const int *x = a, *y = b;
    int64_t p = sorting->resv[*x].paid, q = sorting->resv[*y].paid;
    return p != q ? (p < q ? -1 : 1) : *x - *y;
}

void h_roll(struct history *h)
{
    int *due = calloc((size_t)h->resv_count + 1, sizeof(*due)), count = 0;
    for (int i = 0; i < h->resv_count; i++)
        if (h->resv[i].due != 0 && h->resv[i].due <= h->now)
            due[count++] = i;
    sorting = h;
    qsort(due, (size_t)count, sizeof(*due), by_paid);
    for (int i = 0; i < count; i++) {
        struct h_resv *r = &h->resv[due[i]];
        if ((r->state == H_CONFIRMED || r->state == H_ACTIVE) && r->paid != 0 &&
            r->paid < r->end)
            roll(h, r);
        else
            late(h, r);
    }
    free(due);
}

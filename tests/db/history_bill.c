/* history: what neargpu-billd does, naively: rating, release, credits, invoices,
 * refunds, settlement. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "tests/db/history.h"

#define MILLION 1000000

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- use ------------------------------------------------------------------------ */

static void capture(struct history *h, struct h_resv *r, int provider, bool path,
                    int64_t amount, int64_t fee)
{
    int64_t *hold = h_tenant(h, r->tenant, "hold");
    if (amount == 0)
        return;
    h_post(hold, h_provider(h, provider, "pending"), amount - fee);
    h_post(hold, h_market(h, "fee"), fee);
    r->captured += amount;
    r->not_invoiced += amount;
    if (h->has_promo[r->tenant])
        h->promo_net[r->tenant] += amount;
    h->capture =
        xrealloc(h->capture, (size_t)(h->capture_count + 1) * sizeof(*h->capture));
    h->capture[h->capture_count++] =
        (struct h_capture){.resv = (int)(r - h->resv),
                           .provider = provider,
                           .at = max64(h->now, h->invoiced_until[r->tenant]),
                           .gross = amount,
                           .net = amount - fee,
                           .path = path,
                           .settled = amount == fee};
}

static void rate_chain(struct history *h, struct h_resv *r, struct h_chain *c)
{
    int64_t amount = 0, fees = 0;
    for (int i = 0; i < c->open_count; i++) {
        const struct h_receipt *x = &c->open[i];
        int64_t passed = (min64(r->end, x->at + 60 * SEC_US) - r->start) / 1000;
        int64_t ms = min64(x->ms, c->gpus * max64(0, passed));
        int64_t more = h_round((__int128)ms * c->price, 3600000) - c->amount;
        more = max64(0, min64(more, r->held - r->captured - r->released - amount));
        int64_t fee = h_round((__int128)(c->amount + more) * c->fee_ppm, MILLION);
        fees += fee - c->fee;
        amount += more;
        c->amount += more;
        c->fee = fee;
        c->ms = x->ms;
        c->closed = x->last;
    }
    c->open_count = 0;
    capture(h, r, h->node_provider[c->node], false, amount, fees);
}

void h_rate(struct history *h)
{
    for (int i = 0; i < h->resv_count; i++) {
        struct h_resv *r = &h->resv[i];
        bool turned = r->nodes == 2 && r->chain[1].node < r->chain[0].node;
        for (int k = 0; k < r->nodes; k++)
            rate_chain(h, r, &r->chain[turned ? 1 - k : k]);
    }
}

int h_lies(const struct history *h)
{
    int count = 0;
    for (int i = 0; i < h->resv_count; i++)
        for (int k = 0; k < h->resv[i].nodes; k++) {
            const struct h_resv *r = &h->resv[i];
            const struct h_chain *c = &r->chain[k];
            int64_t ms = min64(c->ms, c->gpus * ((r->end - r->start) / 1000));
            count += c->amount < h_round((__int128)ms * c->price, 3600000) &&
                     r->held > r->captured + r->released;
        }
    return count;
}

static bool over(const struct h_resv *r)
{
    return r->state == H_ENDED || r->state == H_CANCELLED || r->state == H_FAILED;
}

static void bill_lanes(struct history *h)
{
    for (int i = 0; i < h->resv_count; i++) {
        struct h_resv *r = &h->resv[i];
        struct h_lanes *l = &r->lanes;
        if (l->count == 0 || l->billed || !over(r))
            continue;
        l->billed = true;
        if (l->empty || l->lit_from == 0)
            continue;
        int64_t to = min64(min64(r->ended_at, r->end), l->to);
        int64_t from = max64(max64(r->start, l->from), l->lit_from);
        if (l->lit_to != 0)
            to = min64(to, l->lit_to);
        int64_t ms = l->count * max64(0, (to - from) / 1000);
        l->amount = min64(h_round((__int128)ms * l->price, 3600000),
                          r->held - r->captured - r->released);
        l->fee = h_round((__int128)l->amount * l->fee_ppm, MILLION);
        capture(h, r, h->path_provider[l->path], true, l->amount, l->fee);
    }
}

static void release(struct history *h)
{
    for (int i = 0; i < h->resv_count; i++) {
        struct h_resv *r = &h->resv[i];
        bool closed = true;
        for (int k = 0; k < r->nodes; k++)
            closed = closed && (r->chain[k].closed || r->chain[k].empty);
        if (!over(r) || r->rest_back || !(closed || r->ended_at + h->grace < h->now))
            continue;
        h_release_all(h, r);
        r->rest_back = true;
    }
}

/* ---- what is taken back ---------------------------------------------------------- */

/* What a provider got of a reservation, fees in it, and did not give back. */
static int64_t kept(const struct history *h, const struct h_resv *r, int provider,
                    int64_t *ret_fee)
{
    int64_t gross = 0, fee = 0;
    for (int k = 0; k < r->nodes; k++)
        if (h->node_provider[r->chain[k].node] == provider) {
            gross += r->chain[k].amount;
            fee += r->chain[k].fee;
        }
    if (r->lanes.count > 0 && h->path_provider[r->lanes.path] == provider) {
        gross += r->lanes.amount;
        fee += r->lanes.fee;
    }
    *ret_fee = fee - r->share_fee[provider];
    return gross - r->share_gross[provider];
}

/* From a provider: pending of that reservation, available, reserve; the market the
 * rest. */
static void take(struct history *h, int resv, int provider, int64_t amount,
                 int64_t *wallet)
{
    struct h_resv *r = &h->resv[resv];
    int64_t pending = -r->less[provider];
    for (int i = 0; i < h->capture_count; i++)
        if (h->capture[i].resv == resv && h->capture[i].provider == provider &&
            !h->capture[i].settled)
            pending += h->capture[i].net;
    int64_t some = max64(0, min64(amount, pending));
    h_post(h_provider(h, provider, "pending"), wallet, some);
    r->less[provider] += some;
    amount -= some;
    static const char *const next[] = {"available", "reserve"};
    for (int i = 0; i < 2; i++) {
        int64_t *from = h_provider(h, provider, next[i]);
        some = min64(amount, *from);
        h_post(from, wallet, some);
        amount -= some;
    }
    h_post(h_market(h, "sla_expense"), wallet, amount);
}

static void refund_parts(struct history *h, int resv, int64_t net, bool market)
{
    struct h_resv *r = &h->resv[resv];
    int64_t *wallet = h_tenant(h, r->tenant, "wallet");
    int64_t gross[H_PROVIDERS], fee[H_PROVIDERS], total = 0, upto = 0, done = 0;
    for (int p = 0; p < H_PROVIDERS; p++) {
        gross[p] = kept(h, r, p, &fee[p]);
        total += gross[p];
    }
    for (int i = 0; i < H_PROVIDERS; i++) {
        int p = h->order[i];
        if (gross[p] == 0)
            continue;
        upto += gross[p];
        int64_t part = h_round((__int128)net * upto, total) - done;
        int64_t part_fee = h_round((__int128)part * fee[p], gross[p]);
        done += part;
        h_post(h_market(h, "fee"), wallet, part_fee);
        if (market)
            h_post(h_market(h, "sla_expense"), wallet, part - part_fee);
        else
            take(h, resv, p, part - part_fee, wallet);
        r->share_gross[p] += part;
        r->share_fee[p] += part_fee;
    }
    if (h->has_promo[r->tenant])
        h->promo_net[r->tenant] -= net;
}

/* Of a note against an invoice: its parts by class in proportion to what is left of
 * each, and the tax that goes back with them, all of it with the last. */
static int64_t note_taxes(struct history *h, struct h_invoice *v,
                          int64_t rest[H_CLASSES], int64_t net)
{
    int64_t total = 0, upto = 0, done = 0, taxes = 0;
    for (int c = 0; c < H_CLASSES; c++)
        total += max64(0, rest[c]);
    for (int c = 0; c < H_CLASSES; c++) {
        if (rest[c] <= 0)
            continue;
        upto += rest[c];
        int64_t part = h_round((__int128)net * upto, total) - done;
        done += part;
        rest[c] -= part;
        v->noted_net[c] += part;
        int64_t tax = h_round((__int128)v->noted_net[c] * v->ppm[c],
                              (__int128)MILLION * h->minor) *
                      h->minor;
        if (part == 0)
            continue;
        if (v->noted_net[c] == v->lines[c] || tax > v->tax[c])
            tax = v->tax[c];
        tax = max64(0, tax - v->noted_tax[c]);
        v->noted_tax[c] += tax;
        taxes += tax;
    }
    return taxes;
}

static void note(struct history *h, int resv, int64_t net, struct h_invoice *v,
                 int64_t rest[H_CLASSES], bool market)
{
    struct h_resv *r = &h->resv[resv];
    r->refunded += net;
    refund_parts(h, resv, net, market);
    if (v == NULL)
        r->early += net;
    else
        h_post(h_market(h, "tax_output"), h_tenant(h, r->tenant, "wallet"),
               note_taxes(h, v, rest, net));
}

void h_refund(struct history *h, int resv, int64_t amount, bool market)
{
    struct h_resv *r = &h->resv[resv];
    int64_t some = min64(amount, max64(0, r->not_invoiced - r->early));
    if (some > 0)
        note(h, resv, some, NULL, NULL, market);
    amount -= some;
    for (int i = h->invoice_count - 1; i >= 0 && amount > 0; i--) {
        struct h_invoice *v = &h->invoice[i];
        for (int k = 0; k < v->count; k++) {
            int64_t left = 0;
            for (int c = 0; c < H_CLASSES; c++)
                left += v->rest[k][c];
            if (v->tenant != r->tenant || v->resv[k] != resv || left <= 0)
                continue;
            some = min64(amount, left);
            note(h, resv, some, v, v->rest[k], market);
            amount -= some;
        }
    }
    assert(amount == 0);
}

/* ---- credits -------------------------------------------------------------------- */

int64_t h_sla_base(struct history *h, int resv, const struct h_incident *i,
                   int64_t gross[H_PROVIDERS], int64_t fee[H_PROVIDERS])
{
    const struct h_resv *r = &h->resv[resv];
    int64_t base = 0;
    memset(gross, 0, H_PROVIDERS * sizeof(*gross));
    for (int k = 0; k < r->nodes; k++) {
        int p = h->node_provider[r->chain[k].node];
        if ((i->provider < 0 || i->provider == p) && i->path < 0 &&
            (i->node < 0 || i->node == r->chain[k].node))
            gross[p] += r->chain[k].amount;
    }
    if (r->lanes.count > 0 && i->path != -2 && i->node < 0) {
        int p = h->path_provider[r->lanes.path];
        if ((i->provider < 0 || i->provider == p) &&
            (i->path < 0 || i->path == r->lanes.path))
            gross[p] += r->lanes.amount;
    }
    for (int p = 0; p < H_PROVIDERS; p++) {
        int64_t left_fee, left = kept(h, r, p, &left_fee);
        gross[p] = min64(gross[p], left);
        fee[p] = left > 0 ? h_round((__int128)gross[p] * left_fee, left) : 0;
        base += gross[p];
    }
    return base;
}

int64_t h_sla(struct history *h, int resv, const struct h_incident *i, int64_t ppm,
              int64_t amount)
{
    struct h_resv *r = &h->resv[resv];
    int64_t gross[H_PROVIDERS], fee[H_PROVIDERS], done = 0, paid = 0;
    int64_t base = h_sla_base(h, resv, i, gross, fee);
    int64_t left = r->captured - r->refunded - r->credited;
    int64_t *wallet = h_tenant(h, r->tenant, "wallet");
    if (ppm > 0)
        amount = min64(h_round((__int128)base * ppm, MILLION), left);
    if (amount <= 0 || amount > min64(base, left))
        return 0;
    r->credited += amount;
    if (h->has_promo[r->tenant])
        h->promo_net[r->tenant] -= amount;
    if (i->platform) {
        h_post(h_market(h, "sla_expense"), wallet, amount);
        return amount;
    }
    for (int k = 0; k < H_PROVIDERS; k++) {
        int p = h->order[k];
        if (gross[p] == 0)
            continue;
        done += gross[p];
        int64_t part = h_round((__int128)done * amount, base) - paid;
        int64_t part_fee = h_round((__int128)part * fee[p], gross[p]);
        take(h, resv, p, part - part_fee, wallet);
        h_post(h_market(h, "fee"), wallet, part_fee);
        r->share_gross[p] += part;
        r->share_fee[p] += part_fee;
        paid += part;
    }
    return amount;
}

/* The table in docs/billing.md. */
static void not_delivered(struct history *h, int resv, struct h_chain *c)
{
    struct h_resv *r = &h->resv[resv];
    int64_t until = r->state == H_FAILED ? r->end : min64(r->end, r->ended_at);
    int64_t promised = (until - r->start) / 1000, gap = promised - c->ms / c->gpus;
    if (c->amount == 0 || promised <= 0 || gap < 600000 || gap * 100 < promised)
        return;
    int64_t ppm = gap * 5 >= promised ? 500000 : gap * 20 >= promised ? 250000 : 100000;
    struct h_incident i = {.provider = -1, .node = c->node, .path = -2};
    h->incidents++;
    h_sla(h, resv, &i, ppm, 0);
}

static void credits(struct history *h)
{
    for (int i = 0; i < h->resv_count; i++) {
        struct h_resv *r = &h->resv[i];
        if (!r->rest_back || r->noticed)
            continue;
        r->noticed = true;
        bool turned = r->nodes == 2 && r->chain[1].node < r->chain[0].node;
        for (int k = 0; k < r->nodes; k++)
            not_delivered(h, i, &r->chain[turned ? 1 - k : k]);
    }
}

static struct h_grant *first_grant(struct history *h, int tenant,
                                   const struct h_grant *after)
{
    struct h_grant *best = NULL;
    for (int i = 0; i < h->grant_count; i++) {
        struct h_grant *g = &h->grant[i];
        bool later = after == NULL || g->expires > after->expires ||
                     (g->expires == after->expires && g > after);
        if (g->tenant == tenant && later && g->used + g->back < g->amount &&
            (best == NULL || g->expires < best->expires))
            best = g;
    }
    return best;
}

static void promo(struct history *h, int tenant)
{
    int64_t *promo = h_tenant(h, tenant, "promo"),
            *wallet = h_tenant(h, tenant, "wallet");
    int64_t net = h->promo_net[tenant];
    if (*promo == 0)
        return;
    for (struct h_grant *g = NULL;
         (g = first_grant(h, tenant, g)) != NULL && net > 0;) {
        int64_t some = min64(net, g->amount - g->used - g->back);
        h_post(promo, wallet, some);
        g->used += some;
        net -= some;
    }
    h->promo_net[tenant] = min64(net, 0);
    for (struct h_grant *g = NULL; (g = first_grant(h, tenant, g)) != NULL;) {
        int64_t some = min64(h_room(h, tenant), g->amount - g->used - g->back);
        if (g->expires > h->now || some <= 0)
            continue;
        h_post(promo, h_market(h, "promo_expense"), some);
        g->back += some;
    }
}

/* ---- invoices ------------------------------------------------------------------- */

static void charge(struct history *h, int tenant, int64_t amount, int64_t *to)
{
    int64_t paid = min64(amount, max64(0, h_room(h, tenant)));
    h_post(h_tenant(h, tenant, "wallet"), to, paid);
    h_post(h_tenant(h, tenant, "receivable"), to, amount - paid);
}

static int rule_of(const struct history *h, int subject, int64_t at)
{
    int class = -1;
    for (int i = 0; i < h->rule_count; i++)
        if (h->rule[i].subject == subject && h->rule[i].from <= at)
            class = h->rule[i].value;
    return class;
}

static int class_of(const struct history *h, int tenant, bool path, int64_t at)
{
    int class = rule_of(h, tenant, at);
    if (class < 0)
        class = rule_of(h, path ? H_RULE_PATH : H_RULE_GPU, at);
    return class < 0 ? H_STANDARD : class;
}

static int64_t rate_of(const struct history *h, int class, int64_t at)
{
    int64_t ppm = 0;
    for (int i = 0; i < h->rate_count; i++)
        if (h->rate[i].subject == class && h->rate[i].from <= at)
            ppm = h->rate[i].value;
    return ppm;
}

static int64_t first_open(const struct history *h, int tenant)
{
    int64_t first = INT64_MAX;
    for (int i = 0; i < h->capture_count; i++)
        if (h->resv[h->capture[i].resv].tenant == tenant && !h->capture[i].invoiced)
            first = min64(first, h->capture[i].at);
    return first;
}

int64_t h_tax_change(const struct history *h, int tenant)
{
    int64_t first = first_open(h, tenant), change = INT64_MAX;
    for (int i = 0; i < h->rule_count; i++)
        if ((h->rule[i].subject >= H_TENANTS || h->rule[i].subject == tenant) &&
            h->rule[i].from > first)
            change = min64(change, h->rule[i].from);
    for (int i = 0; i < h->rate_count; i++)
        if (h->rate[i].from > first)
            change = min64(change, h->rate[i].from);
    return change;
}

/* One class of it: tax once on the rounded sum, the rounding beside it. */
static void charge_class(struct history *h, struct h_invoice *v, int class)
{
    int64_t lines = v->lines[class], net = h_round(lines, h->minor) * h->minor;
    v->tax[class] =
        h_round((__int128)net * v->ppm[class], (__int128)MILLION * h->minor) * h->minor;
    charge(h, v->tenant, v->tax[class], h_market(h, "tax_output"));
    if (net > lines)
        charge(h, v->tenant, net - lines, h_market(h, "rounding"));
    else
        h_post(h_market(h, "rounding"), h_tenant(h, v->tenant, "wallet"), lines - net);
}

/* What of a reservation's use is of which class, less what was refunded before. */
static void add_lines(struct history *h, struct h_invoice *v, int resv,
                      const int64_t used[H_CLASSES])
{
    struct h_resv *r = &h->resv[resv];
    int64_t total = 0, upto = 0, done = 0;
    for (int c = 0; c < H_CLASSES; c++)
        total += used[c];
    if (total == 0)
        return;
    int64_t back = min64(total, r->early);
    r->early -= back;
    r->not_invoiced -= total;
    v->resv = xreallocarray(v->resv, (size_t)v->count + 1, sizeof(*v->resv));
    v->rest = xreallocarray(v->rest, (size_t)v->count + 1, sizeof(*v->rest));
    v->resv[v->count] = resv;
    for (int c = 0; c < H_CLASSES; c++) {
        upto += used[c];
        int64_t part = h_round((__int128)back * upto, total) - done;
        done += part;
        v->rest[v->count][c] = used[c] - part;
        v->lines[c] += used[c] - part;
    }
    v->count++;
}

bool h_invoice(struct history *h, int tenant, int64_t until)
{
    struct h_invoice v = {.tenant = tenant, .until = until};
    int64_t first = first_open(h, tenant);
    bool has[H_CLASSES] = {false};
    int64_t(*used)[H_CLASSES] = xcalloc((size_t)h->resv_count + 1, sizeof(*used));
    for (int i = 0; i < h->capture_count; i++) {
        struct h_capture *c = &h->capture[i];
        if (h->resv[c->resv].tenant != tenant || c->invoiced || c->at >= until)
            continue;
        int class = class_of(h, tenant, c->path, first);
        c->invoiced = true;
        has[class] = true;
        used[c->resv][class] += c->gross;
    }
    for (int i = 0; i < h->resv_count; i++)
        add_lines(h, &v, i, used[i]);
    free(used);
    if (v.count == 0)
        return false;
    for (int c = 0; c < H_CLASSES; c++) {
        v.ppm[c] = rate_of(h, c, first);
        if (has[c])
            charge_class(h, &v, c);
    }
    h->invoiced_until[tenant] = until;
    h->invoice =
        xreallocarray(h->invoice, (size_t)h->invoice_count + 1, sizeof(*h->invoice));
    h->invoice[h->invoice_count++] = v;
    return true;
}

/* Every month that is over, one invoice a month; where taxes changed, one up to then.
 */
static void invoices_due(struct history *h, int tenant)
{
    int64_t this_month = h_month(h->zone[tenant], h->now, 0), first;
    while ((first = first_open(h, tenant)) < this_month)
        h_invoice(h, tenant,
                  min64(h_month(h->zone[tenant], first, 1), h_tax_change(h, tenant)));
}

/* ---- settlement ----------------------------------------------------------------- */

/* Sums by reservation less what was taken back; all together are one settlement. */
static void settle_put(struct history *h, int provider, const int *captures, int count)
{
    int64_t net = 0;
    for (int i = 0; i < count; i++) {
        struct h_capture *c = &h->capture[captures[i]];
        int64_t *less = &h->resv[c->resv].less[provider], some = min64(*less, c->net);
        *less -= some;
        net += c->net - some;
        c->settled = true;
    }
    if (h->settled_ppm[provider] != h->reserve_ppm) {
        h->settled_ppm[provider] = h->reserve_ppm;
        h->settled_net[provider] = h->settled_reserve[provider] = 0;
    }
    h->settled_net[provider] += net;
    int64_t reserve =
        h_round((__int128)h->settled_net[provider] * h->reserve_ppm, MILLION) -
        h->settled_reserve[provider];
    h->settled_reserve[provider] += reserve;
    h_post(h_provider(h, provider, "pending"), h_provider(h, provider, "available"),
           net - reserve);
    h_post(h_provider(h, provider, "pending"), h_provider(h, provider, "reserve"),
           reserve);
    h->settlement = xrealloc(h->settlement, (size_t)(h->settlement_count + 1) *
                                                sizeof(*h->settlement));
    h->settlement[h->settlement_count++] =
        (struct h_settlement){.provider = provider,
                              .reserve = reserve,
                              .release_at = h->now + h->reserve_for};
}

static void settle(struct history *h, int provider)
{
    int *due = xcalloc((size_t)h->capture_count + 1, sizeof(*due)), count = 0;
    for (int i = 0; i < h->capture_count; i++) {
        struct h_capture *c = &h->capture[i];
        if (c->provider != provider || c->settled || c->parked)
            continue;
        if (c->at >= h->now - h->window)
            break;
        if (h->resv[c->resv].dispute == 1)
            c->parked = true;
        else
            due[count++] = i;
    }
    if (count > 0)
        settle_put(h, provider, due, count);
    for (int r = 0; r < h->resv_count; r++) {
        count = 0;
        for (int i = 0; i < h->capture_count; i++)
            if (h->capture[i].provider == provider && h->capture[i].resv == r &&
                h->capture[i].parked && !h->capture[i].settled &&
                h->resv[r].dispute == 2)
                due[count++] = i;
        if (count > 0)
            settle_put(h, provider, due, count);
    }
    free(due);
}

static void unreserve(struct history *h)
{
    for (int i = 0; i < h->settlement_count; i++) {
        struct h_settlement *s = &h->settlement[i];
        int64_t *from = h_provider(h, s->provider, "reserve"), others = 0;
        if (s->released || s->reserve == 0 || s->release_at > h->now)
            continue;
        for (int k = 0; k < h->settlement_count; k++)
            if (k != i && h->settlement[k].provider == s->provider &&
                !h->settlement[k].released)
                others += h->settlement[k].reserve;
        h_post(from, h_provider(h, s->provider, "available"),
               max64(0, min64(s->reserve, *from - others)));
        s->released = true;
    }
}

void h_bill(struct history *h)
{
    h_roll(h);
    h_rate(h);
    bill_lanes(h);
    release(h);
    credits(h);
    for (int t = 0; t < H_TENANTS; t++)
        promo(h, t);
    for (int t = 0; t < H_TENANTS; t++)
        invoices_due(h, t);
    for (int t = 0; t < H_TENANTS; t++)
        h_collect(h, t);
    for (int p = 0; p < H_PROVIDERS; p++)
        settle(h, p);
    unreserve(h);
}

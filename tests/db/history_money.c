/* history_run: what happens to money: paid in and out, given back, credited, promised,
 * settled, paid out; and the terms it happens under. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "tests/db/history_run.h"
#include "tests/unit/unit.h"

static int64_t amount(struct run *x)
{
    return 1 + run_pick(x, 1000) * INT64_C(1000003) * (1 + run_pick(x, 10));
}

/* ---- wallets -------------------------------------------------------------------- */

static void top_up(struct run *x)
{
    struct history *h = &x->h;
    int t = run_pick(x, H_TENANTS);
    int64_t some = amount(x) / (t == 3 ? 20 : 1) + 1; /* that one lives on its credit */
    if (x->topup_count == RUN_TOPUPS)
        return;
    run_expect(x, "00000",
               "SELECT api.topup('t%d', %" PRId64 ", '%s', 'top/%d', 'a', NULL, NULL)",
               t, some, h->currency, x->topup_count);
    h_post(h_market(h, "bank"), h_tenant(h, t, "wallet"), some);
    h_collect(h, t);
    x->topup[x->topup_count++] = (struct run_topup){.tenant = t, .amount = some};
}

/* In euros, at a rate that is set anew now and then. */
static void exchange(struct run *x)
{
    struct history *h = &x->h;
    int t = run_pick(x, H_TENANTS);
    int64_t paid = amount(x), rate = 1 + run_pick(x, 2000000000); /* 10^-9 */
    run_expect(x, "00000",
               "SELECT api.fx_set('{\"base\": \"EUR\", \"quote\": \"%s\", \"rate\": "
               "\"%" PRId64 ".%09" PRId64 "\", \"source\": \"x\"}', 'a')",
               h->currency, rate / 1000000000, rate % 1000000000);
    int64_t got = h_round((__int128)paid * rate, 1000000000);
    run_expect(x, got > 0 ? "00000" : "NG020",
               "SELECT api.topup('t%d', %" PRId64 ", 'EUR', 'fx/%d', 'a', NULL, NULL)",
               t, paid, x->ref++);
    if (got == 0)
        return;
    h_post(h_sum(h, "EUR", "market:bank"), h_sum(h, "EUR", "market:fx"), paid);
    h_post(h_market(h, "fx"), h_tenant(h, t, "wallet"), got);
    h_collect(h, t);
}

static void withdraw(struct run *x)
{
    struct history *h = &x->h;
    int t = run_pick(x, H_TENANTS);
    int64_t some = (1 + run_pick(x, 500)) * h->minor, owed = h_owed(h, t);
    int64_t can = h_room(h, t), paid = can < owed ? can : owed;
    bool well = owed <= (paid > 0 ? paid : 0) &&
                some <= *h_tenant(h, t, "wallet") - (paid > 0 ? paid : 0);
    run_expect(x, well ? "00000" : "NG007",
               "SELECT api.withdraw('t%d', %" PRId64 ", 'out/%d', 'a', NULL, NULL)", t,
               some, x->ref++);
    if (!well)
        return;
    h_collect(h, t);
    h_post(h_tenant(h, t, "wallet"), h_market(h, "bank"), some);
}

/* The bank takes a top-up back, or it was entered wrongly. */
static void undo(struct run *x)
{
    struct history *h = &x->h;
    if (x->topup_count == 0)
        return;
    int i = run_pick(x, x->topup_count);
    struct run_topup *u = &x->topup[i];
    bool bank = run_pick(x, 2);
    int64_t *wallet = h_tenant(h, u->tenant, "wallet"), can = h_room(h, u->tenant);
    const char *want = u->undone                  ? "NG006"
                       : !bank && can < u->amount ? "NG007"
                                                  : "00000";
    run_expect(x, want,
               bank ? "SELECT api.billing_chargeback(id, 'x') FROM ng.transfer WHERE "
                      "ref = 'top/%d'"
                    : "SELECT api.billing_reverse(id) FROM ng.transfer WHERE ref = "
                      "'top/%d'",
               i);
    if (want[0] == 'N')
        return;
    u->undone = true;
    int64_t some = can < 0 ? 0 : can < u->amount ? can : u->amount;
    h_post(wallet, h_market(h, "bank"), some);
    h_post(h_tenant(h, u->tenant, "receivable"), h_market(h, "bank"), u->amount - some);
}

static void budget(struct run *x)
{
    struct history *h = &x->h;
    int t = run_pick(x, H_TENANTS);
    struct h_budget *b = &h->budget[t];
    if (b->set && run_pick(x, 2)) {
        run_expect(x, "00000", "SELECT api.budget_remove(NULL, 't%d')", t);
        b->set = false;
        return;
    }
    bool was_total = b->set && !b->month;
    b->set = true;
    b->hard = run_pick(x, 3) > 0;
    b->month = run_pick(x, 2);
    if (!was_total)
        b->since = h->now;
    b->limit = amount(x);
    run_expect(x, "00000",
               "SELECT api.budget_set(NULL, 't%d', '{\"limit\": {\"micro\": %" PRId64
               ", \"currency\": \"%s\"}, \"hard\": %s, \"period\": \"%s\"}')",
               t, b->limit, h->currency, b->hard ? "true" : "false",
               b->month ? "month" : "total");
}

static void grant(struct run *x)
{
    struct history *h = &x->h;
    int t = run_pick(x, H_TENANTS);
    int64_t some = amount(x) / 10 + 1,
            expires = h->now + (1 + run_pick(x, 20 * 86400)) * SEC_US;
    run_expect(x, "00000",
               "SELECT api.promo_grant(jsonb_build_object('tenant', 't%d', 'amount', "
               "'{\"micro\": %" PRId64 ", \"currency\": \"%s\"}'::jsonb, 'expires', "
               "ng.time_text(ng.ts(%" PRId64
               ")), 'reason', 'x'), 'a', 'a', NULL, NULL)",
               t, some, h->currency, expires);
    h_grant(h, t, some, expires);
}

/* ---- given back ----------------------------------------------------------------- */

static int find_used(struct run *x)
{
    for (int tries = 0; tries < 30 && x->h.resv_count > 0; tries++) {
        int i = run_pick(x, x->h.resv_count);
        if (x->h.resv[i].captured > 0)
            return i;
    }
    return -1;
}

static void refund(struct run *x)
{
    struct history *h = &x->h;
    int i = find_used(x);
    if (i < 0)
        return;
    struct h_resv *r = &h->resv[i];
    int64_t left = r->captured - r->refunded - r->credited, some = left;
    if (left > 0 && run_pick(x, 2))
        some = 1 + (int64_t)((__int128)(left - 1) * run_pick(x, 1000) / 1000);
    bool market = run_pick(x, 3) == 0;
    run_expect(x, left > 0 ? "00000" : "NG006",
               "SELECT api.refund('%s', %" PRId64 ", 'x', '%s', 'a', NULL, NULL, 'z')",
               run_resv_id(i), some, market ? "market" : "provider");
    if (left > 0)
        h_refund(h, i, some, market);
}

static void dispute(struct run *x)
{
    int i = find_used(x);
    if (i < 0)
        return;
    struct h_resv *r = &x->h.resv[i];
    if (r->dispute == 0)
        run_expect(x, "00000", "SELECT api.dispute_open(NULL, '%s', 'slow', 'a')",
                   run_resv_id(i));
    else if (r->dispute == 1)
        run_expect(x, "00000", "SELECT api.dispute_close('%s', 'a')", run_resv_id(i));
    if (r->dispute < 2)
        r->dispute++;
}

static void credit(struct run *x)
{
    static const char *const what[] = {"provider", "node", "path", "platform", "site"};
    struct history *h = &x->h;
    int i = find_used(x), w = run_pick(x, 5), of = 0;
    if (i < 0)
        return;
    struct h_resv *r = &h->resv[i];
    struct h_incident v = {.provider = -1, .node = -1, .path = -2};
    char name[16] = "";
    v.platform = w == 3 || run_pick(x, 4) == 0;
    if (w == 0) {
        v.provider = of = run_pick(x, H_PROVIDERS);
        v.path = -1;
    } else if (w == 1) {
        v.node = of = r->chain[0].node;
    } else if (w == 2) {
        v.path = of = run_pick(x, H_PATHS);
    } else if (w == 3) {
        v.path = -1;
    }
    if (w != 3)
        snprintf(name, sizeof(name), "'%.1s%d'", w == 2 ? "l" : what[w], of);
    run_expect(
        x, "00000",
        "SELECT api.incident_open(jsonb_strip_nulls(jsonb_build_object('what', "
        "'%s', 'name', %s::text, 'fault', '%s', 'reason', 'x')), 'a', 'a', NULL, "
        "NULL)",
        what[w],
        w == 3   ? "NULL"
        : w == 4 ? "'tokyo'"
                 : name,
        v.platform ? "platform" : "provider");
    h->incidents++;
    int64_t ppm = 1 + run_pick(x, 1000000), some = 0;
    if (run_pick(x, 3) == 0) {
        some = 1 + run_pick(x, 100000000);
        ppm = 0;
    }
    char *text = ppm > 0 ? xasprintf("\"percent_ppm\": %" PRId64, ppm)
                         : xasprintf("\"amount\": {\"micro\": %" PRId64
                                     ", \"currency\": \"%s\"}",
                                     some, h->currency);
    bool well = h_sla(h, i, &v, ppm, some) > 0;
    run_expect(x, well ? "00000" : "NG006",
               "SELECT api.sla_credit((SELECT max(id)::text FROM ng.incident), "
               "'{\"reservation\": \"%s\", %s}', 'a')",
               run_resv_id(i), text);
    free(text);
}

/* ---- terms ---------------------------------------------------------------------- */

static void terms(struct run *x)
{
    struct history *h = &x->h;
    switch (run_pick(x, 4)) {
    case 0: h->window = run_pick(x, 3) * DAY_US; break;
    case 1:
        h->reserve_ppm = run_pick(x, 3) * 50001;
        h->reserve_for = run_pick(x, 20) * DAY_US;
        break;
    case 2: /* of what is booked from now on */
        h->market_fee = run_pick(x, 200000);
        run_expect(x, "00000", "UPDATE ng.market SET fee_ppm = %" PRId64,
                   h->market_fee);
        return;
    default: {
        int p = run_pick(x, H_PROVIDERS);
        h->fee_ppm[p] = run_pick(x, 3) ? run_pick(x, 300000) : -1;
        run_expect(x, "00000",
                   "UPDATE ng.provider SET fee_ppm = nullif(%" PRId64
                   ", -1) WHERE name = 'p%d'",
                   h->fee_ppm[p], p);
        return;
    }
    }
    run_expect(x, "00000",
               "SELECT api.market_set(%" PRId64 ", %" PRId64 ", %" PRId64
               ", NULL, NULL)",
               h->window / SEC_US, h->reserve_ppm, h->reserve_for / SEC_US);
}

/* A rate, or whose or what class, from now on. */
static void taxes(struct run *x)
{
    static const char *const names[] = {"exempt", "outside", "reduced", "standard",
                                        "zero"};
    struct history *h = &x->h;
    bool rate = run_pick(x, 3) == 0;
    struct h_tax *list = rate ? h->rate : h->rule, *old = NULL, now = {.from = h->now};
    int *count = rate ? &h->rate_count : &h->rule_count;
    if (*count == (rate ? 64 : 256))
        return;
    now.subject = rate ? run_pick(x, 2) ? H_STANDARD : H_REDUCED : run_pick(x, H_RULES);
    now.value = !rate                       ? run_pick(x, H_CLASSES)
                : now.subject == H_STANDARD ? 100000 + 12345 * run_pick(x, 3)
                                            : 50000 + 1111 * run_pick(x, 3);
    for (int i = 0; i < *count; i++)
        if (list[i].subject == now.subject)
            old = &list[i];
    bool same = old != NULL && old->value == now.value,
         twice = !same && old != NULL && old->from >= h->now;
    const char *want = twice ? "NG006" : "00000";
    if (rate)
        run_expect(
            x, want,
            "SELECT api.tax_rate_set('{\"class\": \"%s\", \"rate_ppm\": %d}', 'a')",
            names[now.subject], now.value);
    else if (now.subject < H_TENANTS)
        run_expect(
            x, want,
            "SELECT api.tax_rule_set('{\"tenant\": \"t%d\", \"class\": \"%s\"}', "
            "'a')",
            now.subject, names[now.value]);
    else
        run_expect(
            x, want,
            "SELECT api.tax_rule_set('{\"meter\": \"%s\", \"class\": \"%s\"}', 'a')",
            now.subject == H_RULE_GPU ? "gpu" : "path", names[now.value]);
    if (!same && !twice)
        list[(*count)++] = now;
}

/* ---- payouts -------------------------------------------------------------------- */

static void ask(struct run *x)
{
    struct history *h = &x->h;
    int p = run_pick(x, H_PROVIDERS);
    int64_t some = *h_provider(h, p, "available") / h->minor * h->minor;
    bool busy = false;
    for (int i = 0; i < x->payout_count; i++)
        busy = busy || (x->payout[i].provider == p &&
                        (x->payout[i].state == 'r' || x->payout[i].state == 'a'));
    if (x->payout_count == RUN_PAYOUTS)
        return;
    run_expect(x,
               busy       ? "NG006"
               : some > 0 ? "00000"
                          : "NG007",
               "SELECT api.payout_request('p%d', NULL, 'a', NULL, NULL, 'one')", p);
    if (!busy && some > 0)
        x->payout[x->payout_count++] =
            (struct run_payout){.provider = p, .amount = some, .state = 'r'};
}

static void act(struct run *x, int i, const char *what)
{
    run_expect(x, "00000",
               "SELECT api.payout_act((SELECT id FROM ng.payout ORDER BY id OFFSET %d "
               "LIMIT 1), '%s', 'x', NULL, NULL, NULL, 'two')",
               i, what);
}

/* Sent, or paid long ago: with the bank's fee for it, whoever bears that. */
static void come_back(struct run *x, int i)
{
    struct history *h = &x->h;
    struct run_payout *p = &x->payout[i];
    int64_t *available = h_provider(h, p->provider, "available"), *from, fee = 0,
            most = p->amount / h->minor;
    bool ours = run_pick(x, 2);
    if (run_pick(x, 2))
        fee = (1 + run_pick(x, most < 100000 ? (int)most : 100000)) * h->minor;
    run_expect(x, "00000",
               "SELECT api.payout_act((SELECT id FROM ng.payout ORDER BY id OFFSET %d "
               "LIMIT 1), 'returned', 'x', %" PRId64 ", %" PRId64 ", '%s', 'one')",
               i, p->amount, fee, ours ? "market" : "provider");
    from = p->state == 's' ? h_market(h, "payout_clearing") : h_market(h, "bank");
    h_post(from, available, p->amount);
    h_post(ours ? h_market(h, "fee") : available, h_market(h, "bank"), fee);
    p->state = 'f';
}

static void send_file(struct run *x)
{
    struct history *h = &x->h;
    bool any = false, well = true;
    for (int i = 0; i < x->payout_count; i++)
        if (x->payout[i].state == 'a') {
            any = true;
            well = well && x->payout[i].amount <=
                               *h_provider(h, x->payout[i].provider, "available");
        }
    run_expect(x,
               !any   ? "NG006"
               : well ? "00000"
                      : "NG007",
               "SELECT api.payout_file_new(ng.bank_today()::text, 'a', NULL, "
               "NULL, 'one')");
    for (int i = 0; i < x->payout_count; i++) {
        struct run_payout *p = &x->payout[i];
        if (p->state != 'a')
            continue;
        if (well) {
            h_post(h_provider(h, p->provider, "available"),
                   h_market(h, "payout_clearing"), p->amount);
            p->state = 's';
        } else {
            act(x, i, "reject");
            p->state = 'f';
        }
    }
}

static void payout(struct run *x)
{
    struct history *h = &x->h;
    int what = run_pick(x, 4);
    if (what == 0) {
        ask(x);
        return;
    }
    if (what == 1) {
        send_file(x);
        return;
    }
    for (int i = 0; i < x->payout_count; i++) {
        struct run_payout *p = &x->payout[i];
        if (p->state == 'r' && what == 2) {
            bool reject = run_pick(x, 6) == 0;
            act(x, i, reject ? "reject" : "approve");
            p->state = reject ? 'f' : 'a';
        } else if (p->state == 's' && what == 3 && run_pick(x, 3) > 0) {
            act(x, i, "done");
            h_post(h_market(h, "payout_clearing"), h_market(h, "bank"), p->amount);
            p->state = 'd';
        } else if (what == 3 &&
                   (p->state == 's' || (p->state == 'd' && run_pick(x, 9) == 0))) {
            come_back(x, i);
        }
    }
}

struct run_event run_money[] = {
    {"top-ups", 8, top_up, 0},
    {"exchanged", 2, exchange, 0},
    {"withdrawn", 5, withdraw, 0},
    {"top-ups undone", 2, undo, 0},
    {"budgets", 2, budget, 0},
    {"promotions", 4, grant, 0},
    {"refunds", 8, refund, 0},
    {"disputes", 3, dispute, 0},
    {"credits", 3, credit, 0},
    {"terms", 3, terms, 0},
    {"taxes", 2, taxes, 0},
    {"payouts", 8, payout, 0},
    {NULL, 0, NULL, 0},
};

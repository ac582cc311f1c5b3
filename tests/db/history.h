/* history: a naive ledger of a whole market, for tests/db/test_history.c: plain arrays,
 * written from the table of postings and the rules in docs/billing.md and not from the
 * SQL, so that both have to be wrong in the same way to agree. It knows nothing of the
 * database; times are microseconds, multiples of 1,000. */
#ifndef TEST_HISTORY_H
#define TEST_HISTORY_H
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/strbuf.h"

#define H_TENANTS   4
#define H_PROVIDERS 3
#define H_NODES     4
#define H_PATHS     2
#define H_RECEIPTS  48 /* not rated, of one chain */
#define SEC_US      INT64_C(1000000)
#define HOUR_US     (3600 * SEC_US)
#define DAY_US      (24 * HOUR_US)

/* Classes of tax, in the order of their names. */
enum h_class { H_EXEMPT, H_OUTSIDE, H_REDUCED, H_STANDARD, H_ZERO, H_CLASSES };

enum h_state { H_HELD, H_CONFIRMED, H_ACTIVE, H_ENDED, H_CANCELLED, H_FAILED };

struct h_receipt {
    int64_t ms, at; /* cumulative use; when it came */
    bool last;
};
struct h_chain { /* a node of a reservation */
    int node, gpus, first;
    int64_t price, fee_ppm;
    int seq;                  /* of the last receipt that the market took */
    int64_t sent_ms;          /* in it */
    bool torn, closed, empty; /* teardown taken; rated; nothing was booked any more */
    int64_t torn_at;
    struct h_receipt open[H_RECEIPTS];
    int open_count;
    int64_t ms, amount, fee; /* rated */
};
struct h_lanes { /* of a path; count 0: none */
    int path, count, first;
    int64_t price, fee_ppm, from, to, lit_from, lit_to; /* lit_from 0: never */
    bool empty, billed;
    int64_t amount, fee;
};
struct h_resv {
    int tenant;
    enum h_state state;
    int64_t start, end, blocked_to, hold_until, ended_at;
    int nodes;
    struct h_chain chain[2];
    struct h_lanes lanes;
    int64_t paid, due; /* held up to; 0: its end. When billd looks again; 0: never */
    int64_t total, held, captured, released, refunded, credited;
    bool rest_back, spot, noticed; /* noticed: looked at for what was not delivered */
    int dispute;                   /* 1 open, 2 over */
    int64_t not_invoiced, early;   /* early: refunded, and on no invoice yet */
    int64_t share_gross[H_PROVIDERS], share_fee[H_PROVIDERS]; /* given back */
    int64_t less[H_PROVIDERS]; /* of what is pending: taken back, not deducted yet */
};
struct h_capture {
    int resv, provider;
    int64_t at, gross, net;
    bool path, invoiced, settled, parked;
};
struct h_invoice {
    int tenant;
    int64_t until;
    /* By class; lines: without rounding. */
    int64_t ppm[H_CLASSES], lines[H_CLASSES], tax[H_CLASSES], noted_net[H_CLASSES],
        noted_tax[H_CLASSES];
    int count, *resv;           /* of its reservations */
    int64_t (*rest)[H_CLASSES]; /* ... what is left of each */
};
/* Subjects of rules: a tenant, all GPUs, all paths. Of rates: a class. */
enum { H_RULE_GPU = H_TENANTS, H_RULE_PATH, H_RULES };
struct h_tax {
    int subject, value; /* a class; of a rate: ppm */
    int64_t from;
};
struct h_grant {
    int tenant;
    int64_t amount, used, back, expires;
};
struct h_settlement {
    int provider;
    int64_t reserve, release_at;
    bool released;
};
struct h_account {
    char name[48], currency[4];
    int64_t sum;
};
struct h_budget {
    bool set, hard, month;
    int64_t limit, since;
};

struct history {
    int64_t now;
    const char *currency;
    int64_t minor, market_fee, grace, window, reserve_ppm, reserve_for;
    int64_t hold_window;       /* 0: leases hold their whole price */
    int64_t credit[H_TENANTS]; /* credit lines */
    const char *zone[H_TENANTS];
    int64_t fee_ppm[H_PROVIDERS]; /* -1: the market's */
    int order[H_PROVIDERS];       /* of providers by id */
    int node_provider[H_NODES], path_provider[H_PATHS];
    int64_t invoiced_until[H_TENANTS];
    bool has_promo[H_TENANTS];
    int64_t promo_net[H_TENANTS]; /* used since the last round, less given back */
    int64_t settled_net[H_PROVIDERS], settled_reserve[H_PROVIDERS],
        settled_ppm[H_PROVIDERS];
    struct h_budget budget[H_TENANTS];
    struct h_account account[128];
    struct h_resv *resv;
    struct h_capture *capture;
    struct h_invoice *invoice;
    struct h_grant *grant;
    struct h_settlement *settlement;
    struct h_tax rule[256], rate[64];
    int rule_count, rate_count;
    int account_count, resv_count, capture_count, invoice_count, grant_count,
        settlement_count, incidents, stopped;
};

/* Round half away from zero; nothing here is negative. */
int64_t h_round(__int128 a, __int128 b);
/* Start of the month of a zone that holds t, moved by so many months. */
int64_t h_month(const char *zone, int64_t t, int months);

/* Accounts by name ("tenant:0:wallet", "market:fee"), made when first named. */
int64_t *h_sum(struct history *h, const char *currency, const char *name);
int64_t *h_tenant(struct history *h, int tenant, const char *kind);
int64_t *h_provider(struct history *h, int provider, const char *kind);
int64_t *h_market(struct history *h, const char *kind);
void h_post(int64_t *dr, int64_t *cr, int64_t amount);
/* All that are not 0, in the order of names, a line each. */
void h_print(const struct history *h, struct strbuf *out);

/* What a wallet has beyond its floor, and what a new hold may take of it. */
int64_t h_room(struct history *h, int tenant);
int64_t h_spendable(struct history *h, int tenant);
int64_t h_owed(struct history *h, int tenant);
int64_t h_committed(struct history *h, int tenant);
void h_collect(struct history *h, int tenant);
/* Price of a reservation from its start to an instant. */
int64_t h_price(const struct h_resv *r, int64_t end);
/* Rolling holds: up to where a lease is held at `now` (0: its end), what that costs,
 * and that it is held so from now on; what billd does of it in a round. */
int64_t h_hold_end(const struct history *h, const struct h_resv *r, int64_t now);
int64_t h_hold_price(const struct h_resv *r, int64_t paid);
void h_hold(struct history *h, struct h_resv *r, int64_t paid);
void h_roll(struct history *h);
/* Its path serves it until then. */
void h_cut_lanes(struct h_resv *r, int64_t at);
void h_release_all(struct history *h, struct h_resv *r);
int64_t h_fee_ppm(const struct history *h, int provider);

/* What time alone changes. */
void h_transitions(struct history *h, int64_t grace);
/* One whole round of billing. */
void h_bill(struct history *h);
void h_rate(struct history *h);
/* Nodes that told more than time had passed, and still may be paid for it: they show.
 */
int h_lies(const struct history *h);
/* False: nothing to invoice. Not before: the first instant at which a tax of what the
 * tenant has not been invoiced for changes; INT64_MAX: none. */
int64_t h_tax_change(const struct history *h, int tenant);
bool h_invoice(struct history *h, int tenant, int64_t until);
/* Refund of a reservation, as much as is left at most. */
void h_refund(struct history *h, int resv, int64_t amount, bool market);
/* What a credit for these nodes and lanes could be; and the credit. */
struct h_incident {
    int provider, node, path; /* -1: any; path -2: none */
    bool platform;            /* whose fault */
};
int64_t h_sla_base(struct history *h, int resv, const struct h_incident *i,
                   int64_t gross[H_PROVIDERS], int64_t fee[H_PROVIDERS]);
int64_t h_sla(struct history *h, int resv, const struct h_incident *i, int64_t ppm,
              int64_t amount);
void h_grant(struct history *h, int tenant, int64_t amount, int64_t expires);
#endif

/* bundle_price: whether what was charged is use x the price that was agreed, as the log
 * has it: each capture of a node's chain against the receipt that it names, each
 * capture of a path against its lanes and time, the market's fee of both, and each line
 * of an invoice against its quantity. Less is right only where a hold was spent, or use
 * was reported outside of the promised window; more never is. Pure. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bundle_impl.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define HOUR_MS 3600000
#define CLOCKS_US                                                      \
    (60 * US_PER_S) /* allowed between a node's clock and the market's \
                     */

/* A transfer out of a hold for use: of a node (key: its number) up to receipt seq, or
 * of the path booking `key`. */
struct charge {
    const char *reservation, *at;
    int64_t id, key, seq, amount;
    bool path, fee;
};

/* What was agreed for one node or path booking of a reservation. */
struct terms {
    const char *node; /* SPIFFE id; NULL: a path */
    int64_t units;    /* GPUs or lanes */
    int64_t price, fee_ppm, from_us, to_us,
        last_us; /* to: the shortest, last: longest */
};

/* A reservation's charges. */
struct bill {
    const struct charge *first;
    size_t count;
};

static bool record_of(const json_t *entry, const char *type, const char *reservation,
                      const json_t **ret)
{
    *ret = json_object_get(entry, "record");
    return strcmp(bundle_text(*ret, "type"), type) == 0 &&
           (reservation == NULL ||
            strcmp(bundle_text(*ret, "reservation"), reservation) == 0);
}

/* --- charges --- */

/* "RESERVATION/NODE/SEQ" or "RESERVATION/path/BOOKING". */
static bool charge_read(const json_t *r, struct charge *ret)
{
    const char *ref = bundle_text(r, "ref"), *kind = bundle_text(r, "kind");
    size_t n;
    char *end;
    ret->reservation = bundle_text(r, "reservation");
    ret->at = bundle_text(r, "at");
    ret->fee = strcmp(kind, "fee") == 0;
    n = strlen(ret->reservation);
    if (!bundle_number(r, "id", &ret->id) ||
        !bundle_number(r, "amount_micro", &ret->amount) ||
        strncmp(ref, ret->reservation, n) != 0 || ref[n] != '/')
        return false;
    ref += n + 1;
    ret->path = strncmp(ref, "path/", 5) == 0;
    ret->key = strtoll(ret->path ? ref + 5 : ref, &end, 10);
    ret->seq = 0;
    if (!ret->path && *end == '/')
        ret->seq = strtoll(end + 1, &end, 10);
    return *end == '\0' && (ret->path || ret->seq > 0);
}

static int charge_compare(const void *a, const void *b)
{
    const struct charge *x = a, *y = b;
    int rc = strcmp(x->reservation, y->reservation);
    if (rc == 0)
        rc = x->path - y->path;
    if (rc == 0)
        rc = (x->key > y->key) - (x->key < y->key);
    return rc != 0 ? rc : (x->seq > y->seq) - (x->seq < y->seq);
}

static struct charge *charges_read(struct check *c, size_t *ret_count)
{
    struct charge *all = xcalloc(json_array_size(c->entries) + 1, sizeof(*all));
    const json_t *entry, *r;
    size_t i, n = 0;
    json_array_foreach(c->entries, i, entry)
    {
        if (!record_of(entry, "transfer", NULL, &r) ||
            (strcmp(bundle_text(r, "kind"), "capture") != 0 &&
             strcmp(bundle_text(r, "kind"), "fee") != 0))
            continue;
        if (charge_read(r, &all[n]))
            n++;
        else
            bundle_breach(c, "transfer %.40s: charged for nothing that is known",
                          bundle_text(r, "id"));
    }
    qsort(all, n, sizeof(*all), charge_compare);
    *ret_count = n;
    return all;
}

/* --- what was agreed --- */

static int64_t micros_of(const json_t *r, const char *name)
{
    int64_t us;
    struct err err;
    return timefmt_parse(bundle_text(r, name), &us, &err) == 0 ? us : 0;
}

/* Adds a record's rows for `key` to the terms: of several runs of GPUs on a node all
 * have one price. False: it has none, or one that is malformed. */
static bool terms_add(const json_t *record, bool path, int64_t key, struct terms *t)
{
    const json_t *row;
    size_t i;
    int64_t id, price;
    bool found = false;
    json_array_foreach(json_object_get(record, path ? "paths" : "bookings"), i, row)
    {
        if (path ? !bundle_number(row, "booking", &id) || id != key
                 : json_integer_value(json_object_get(row, "node_id")) != key)
            continue;
        if (!bundle_number(row, path ? "per_lane_hour_micro" : "per_gpu_hour_micro",
                           &price))
            return false;
        t->units += json_integer_value(json_object_get(row, path ? "lanes" : "gpus"));
        t->price = price > t->price ? price : t->price;
        t->fee_ppm = json_integer_value(json_object_get(row, "fee_ppm"));
        t->node = path ? NULL : bundle_text(row, "node");
        found = true;
    }
    return found;
}

/* The newest that was agreed for `key`. The window is the shortest that stood when it
 * was charged (`at`) or came later: what was reported past it need not have been
 * charged. */
static bool terms_of(const struct check *c, const struct charge *charge,
                     struct terms *ret)
{
    const json_t *entry, *r;
    int64_t newest = 0, stood = 0, to_us = INT64_MAX, last_us = 0;
    size_t i;
    json_array_foreach(c->entries, i, entry)
    {
        int64_t generation;
        struct terms t = {.node = NULL};
        if (!record_of(entry, "agreed", charge->reservation, &r) ||
            !terms_add(r, charge->path, charge->key, &t))
            continue;
        generation = json_integer_value(json_object_get(r, "generation"));
        if (generation > stood && strcmp(bundle_text(r, "at"), charge->at) <= 0) {
            stood =
                generation; /* entries come in the log's order: ends before it fell */
            to_us = INT64_MAX;
            last_us = 0;
        }
        if (generation >= stood) {
            int64_t end_us = micros_of(r, "to");
            to_us = end_us < to_us ? end_us : to_us;
            last_us = end_us > last_us ? end_us : last_us;
        }
        if (generation <= newest)
            continue;
        newest = generation;
        t.from_us = micros_of(r, "from");
        *ret = t;
    }
    ret->to_us = to_us;
    ret->last_us = last_us;
    return newest > 0;
}

/* --- what was held --- */

/* What a reservation's transfers of a kind are in all, up to the one of this number:
 * what is left of a hold is released in the instant of the last capture, and after it.
 */
static int64_t sum_until(const struct check *c, const char *reservation,
                         const char *kind, int64_t last)
{
    const json_t *entry, *r;
    int64_t sum = 0, amount, id;
    size_t i;
    json_array_foreach(c->entries, i, entry)
    {
        if (record_of(entry, "transfer", reservation, &r) &&
            strcmp(bundle_text(r, "kind"), kind) == 0 && bundle_number(r, "id", &id) &&
            id <= last && bundle_number(r, "amount_micro", &amount))
            sum += amount;
    }
    return sum;
}

/* Whether all that was held until one of its charges is charged by then. */
static bool is_spent(const struct check *c, const struct bill *b)
{
    for (size_t i = 0; i < b->count; i++) {
        const char *reservation = b->first[i].reservation;
        int64_t id = b->first[i].id,
                held = sum_until(c, reservation, "hold", id) -
                       sum_until(c, reservation, "release", id),
                charged = sum_until(c, reservation, "capture", id) +
                          sum_until(c, reservation, "fee", id);
        if (held > 0 && charged >= held)
            return true;
    }
    return false;
}

/* --- a node's chain --- */

/* The receipt a charge names, or the teardown before it: nothing counts after one. */
static const struct bundle_used *used_of(const struct check *c, const char *reservation,
                                         const char *node, int64_t seq)
{
    const struct bundle_used *found = NULL;
    for (size_t i = 0; i < c->used_count; i++) {
        const struct bundle_used *u = &c->used[i];
        if (u->seq > seq || (u->seq < seq && !u->teardown) ||
            strcmp(u->reservation, reservation) != 0 || strcmp(u->node, node) != 0)
            continue;
        if (found == NULL || u->seq < found->seq)
            found = u;
    }
    return found;
}

/* What use cannot have been charged less than: that within the window. */
static int64_t least_ms(const struct terms *t, const struct bundle_used *u)
{
    int64_t until = t->to_us, ms;
    if (u->received_us < until - CLOCKS_US)
        until = u->received_us + CLOCKS_US;
    if (until <= t->from_us)
        return 0;
    ms = t->units * ((until - t->from_us) / 1000) - 1;
    return ms < u->gpu_ms ? ms : u->gpu_ms;
}

static bool worth(int64_t quantity_ms, int64_t price, int64_t *ret)
{
    struct err err;
    return money_mul(quantity_ms, price, HOUR_MS, ret, &err) == 0;
}

static void check_fee(struct check *c, const struct charge *charge,
                      const struct terms *t, int64_t amount, int64_t fee)
{
    int64_t want;
    struct err err;
    if (money_mul(amount, t->fee_ppm, 1000000, &want, &err) != 0 || want != fee)
        bundle_breach(c,
                      "reservation %.40s: a fee of %" PRId64 " micro of %" PRId64
                      ", agreed were %" PRId64 " ppm",
                      charge->reservation, fee, amount, t->fee_ppm);
}

/* The charges of one chain up to one receipt: what they are in all. */
static void check_chain(struct check *c, const struct bill *b,
                        const struct charge *last, int64_t amount, int64_t fee)
{
    struct terms t;
    const struct bundle_used *u;
    int64_t most, least;
    if (!terms_of(c, last, &t)) {
        bundle_breach(
            c, "reservation %.40s: the log has no price agreed for node %" PRId64,
            last->reservation, last->key);
        return;
    }
    u = used_of(c, last->reservation, t.node, last->seq);
    if (u == NULL || !worth(u->gpu_ms, t.price, &most) ||
        !worth(least_ms(&t, u), t.price, &least)) {
        bundle_breach(c,
                      "reservation %.40s: charged for receipt %" PRId64
                      " of %.100s, which is not there",
                      last->reservation, last->seq, t.node);
        return;
    }
    if (amount > most || (amount < least && !is_spent(c, b)))
        bundle_breach(c,
                      "reservation %.40s: charged are %" PRId64
                      " micro up to receipt %" PRId64 " of %.100s, by the agreed price "
                      "(%" PRId64 " a GPU-hour) it is %" PRId64,
                      last->reservation, amount, last->seq, t.node, t.price, most);
    check_fee(c, last, &t, amount, fee);
}

/* --- a path --- */

/* How long it was lit nobody but the market knows: whole lane-milliseconds, and no more
 * than there were. */
static void check_path(struct check *c, const struct bill *b, const struct charge *one,
                       int64_t amount, int64_t fee)
{
    struct terms t;
    struct err err;
    int64_t most = 0, ms = 0, back = 0;
    if (!terms_of(c, one, &t)) {
        bundle_breach(
            c, "reservation %.40s: the log has no price agreed for path %" PRId64,
            one->reservation, one->key);
        return;
    }
    int64_t window_ms = t.units * ((t.last_us - t.from_us) / 1000);
    bool whole = t.price > 0 && money_mul(amount, HOUR_MS, t.price, &ms, &err) == 0 &&
                 worth(ms, t.price, &back) && back == amount;
    if (!worth(window_ms, t.price, &most) || amount > most ||
        (!whole && !is_spent(c, b)))
        bundle_breach(c,
                      "reservation %.40s: charged are %" PRId64
                      " micro for path %" PRId64 ", agreed were %" PRId64
                      " a lane-hour and %" PRId64 " in all",
                      one->reservation, amount, one->key, t.price, most);
    check_fee(c, one, &t, amount, fee);
}

/* --- lines --- */

static bool is_between(const struct charge *x, const char *from, const char *to)
{
    return strcmp(x->at, from) >= 0 && strcmp(x->at, to) < 0;
}

/* Each chain's part of the lines was rounded by itself, at both ends. Less than the
 * quantity is worth is a matter of chains; so is more, once a hold was spent: what it
 * kept back is charged when more was held, perhaps in a later period. */
static void check_quantity(struct check *c, const struct bill *b, const json_t *inv,
                           int64_t quantity)
{
    const char *from = bundle_text(inv, "from"), *to = bundle_text(inv, "to");
    int64_t amount = 0, high = -1, slack = 1, most;
    for (size_t i = 0; i < b->count; i++) {
        const struct charge *x = &b->first[i];
        struct terms t;
        if (x->path || !is_between(x, from, to) || !terms_of(c, x, &t))
            continue;
        amount += x->amount;
        high = t.price > high ? t.price : high;
        slack += i == 0 || b->first[i - 1].key != x->key;
    }
    if (high < 0) /* paths alone, or nothing agreed: told elsewhere */
        return;
    if (!worth(quantity, high, &most) || (amount > most + slack && !is_spent(c, b)))
        bundle_breach(
            c,
            "invoice %.40s: reservation %.40s has %" PRId64 " micro for %" PRId64
            " GPU-ms, by the agreed price it is %" PRId64,
            bundle_text(inv, "number"), b->first->reservation, amount, quantity, most);
}

/* A reservation may have several lines on an invoice, one a class of tax. */
static void check_lines(struct check *c, const struct bill *b)
{
    const json_t *entry, *inv, *line;
    size_t i, n;
    json_array_foreach(c->entries, i, entry)
    {
        int64_t sum = 0, quantity;
        bool on = false;
        if (!record_of(entry, "invoice", NULL, &inv))
            continue;
        json_array_foreach(json_object_get(inv, "lines"), n, line)
        {
            if (strcmp(bundle_text(line, "reservation"), b->first->reservation) != 0 ||
                !bundle_number(line, "quantity_gpu_ms", &quantity))
                continue;
            sum += quantity;
            on = true;
        }
        if (on)
            check_quantity(c, b, inv, sum);
    }
}

/* --- all of it --- */

static void check_bill(struct check *c, const struct bill *b)
{
    int64_t amount = 0, fee = 0;
    for (size_t i = 0; i < b->count; i++) {
        const struct charge *x = &b->first[i], *next = x + 1;
        amount += x->amount;
        fee += x->fee ? x->amount : 0;
        bool more = i + 1 < b->count,
             alike = more && next->path == x->path && next->key == x->key;
        if (alike && next->seq == x->seq) /* the fee beside the capture */
            continue;
        if (x->path)
            check_path(c, b, x, amount, fee);
        else
            check_chain(c, b, x, amount, fee);
        if (!alike)
            amount = fee = 0;
    }
    check_lines(c, b);
}

void bundle_check_prices(struct check *c)
{
    size_t count;
    struct charge *all = charges_read(c, &count);
    for (size_t from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count; to++)
            if (strcmp(all[to].reservation, all[from].reservation) != 0)
                break;
        const struct bill b = {&all[from], to - from};
        check_bill(c, &b);
        c->result->priced++;
    }
    free(all);
}

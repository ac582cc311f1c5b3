/* bundle_impl: what the parts of bundle share; for them alone. */
#ifndef NEARGPU_BUNDLE_IMPL_H
#define NEARGPU_BUNDLE_IMPL_H
#include "client/lib/bundle.h"
#include "client/lib/jws.h"

/* What a receipt that was found to be right says of its chain. Texts borrow from the
 * bundle. */
struct bundle_used {
    const char *reservation, *node;
    int64_t seq, gpu_ms, received_us; /* received: INT64_MAX not known */
    bool teardown;
};

struct check {
    const json_t *bundle, *entries, *receipts;
    struct bundle_result *result;
    struct keyring *market; /* keys that countersign; NULL: none could be read */
    int64_t now_us;
    struct bundle_used *used; /* as many as there are receipts */
    size_t used_count;
};

void bundle_breach(struct check *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
const char *bundle_text(const json_t *obj, const char *name); /* "": it has none */
/* Micro-units and numbers beyond 2^53 stand in records as texts. */
bool bundle_number(const json_t *obj, const char *name, int64_t *ret);

int64_t bundle_minor(const char *currency); /* one minor unit in micro-units */

/* bundle_note.c: credit notes are what went back, rate by rate. */
void bundle_check_notes(struct check *c);
/* bundle_price.c: every capture is that of its receipt's use at the price that the log
 * has as agreed. After the receipts. */
void bundle_check_prices(struct check *c);

#endif

/* invoice: the sums of one invoice. Lines are exact micro-units, each of one class of
 * tax; what is payable is in whole minor units of the currency (yen, cents): the sum of
 * a class's lines is rounded once, its residue goes to the rounding account, and tax is
 * computed once per class on the rounded base and rounded to the minor unit (Japan:
 * once per invoice and rate; no two classes have one positive rate). It does not know
 * which class a thing is of, nor since when. Pure. */
#ifndef NEARGPU_INVOICE_H
#define NEARGPU_INVOICE_H
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

struct invoice_sums {
    int64_t net_micro;     /* rounded to the minor unit */
    int64_t residue_micro; /* net - sum of lines; |residue| <= half a minor unit */
    int64_t tax_micro;     /* rounded to the minor unit */
    int64_t total_micro;
};
/* ERR_BAD_REQUEST for an unknown currency, ERR_INTERNAL on overflow. */
int invoice_sums(const int64_t *line_micro, size_t count, const char *currency,
                 int64_t tax_ppm, struct invoice_sums *ret, struct err *err) MUST_USE;

/* One line's amount, and its class with the rate it has. */
struct invoice_item {
    const char *class; /* borrowed */
    int64_t rate_ppm, amount_micro;
};
#define INVOICE_CLASSES_MAX 5 /* as domain ng.tax_class has */
struct invoice_tax {
    const char *class; /* of the first such item */
    int64_t rate_ppm;
    struct invoice_sums sums;
};
/* Sums per class into ret[INVOICE_CLASSES_MAX], in the order in which classes appear.
 * ERR_INTERNAL also for more classes, or one class with two rates. */
int invoice_taxes(const struct invoice_item *items, size_t count, const char *currency,
                  struct invoice_tax *ret, size_t *ret_count, struct err *err) MUST_USE;

#endif

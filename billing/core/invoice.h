/* invoice: the sums of one invoice. Lines are exact micro-units; what is payable is in
 * whole minor units of the currency (yen, cents): the net sum is rounded once, its
 * residue goes to the rounding account, and tax is computed once per rate on the
 * rounded net and rounded to the minor unit (Japan: once per invoice and rate). Pure.
 */
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

#endif

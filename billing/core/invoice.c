#include "billing/core/invoice.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/money.h"
#include "client/lib/xalloc.h"

int invoice_sums(const int64_t *line_micro, size_t count, const char *currency,
                 int64_t tax_ppm, struct invoice_sums *ret, struct err *err)
{
    struct invoice_sums s;
    int64_t sum = 0, minor = MONEY_MICRO, minors, tax_minors;
    int exponent = money_exponent(currency);
    if (exponent < 0 || exponent > 6)
        return err_set(err, ERR_BAD_REQUEST, "invoice: currency '%s' is not known",
                       currency);
    for (int i = 0; i < exponent; i++)
        minor /= 10;
    for (size_t i = 0; i < count; i++)
        if (__builtin_add_overflow(sum, line_micro[i], &sum))
            return err_set(err, ERR_INTERNAL, "invoice: the sum of %zu lines overflows",
                           count);
    if (money_mul(sum, 1, minor, &minors, err) != 0 ||
        money_mul(minors, minor, 1, &s.net_micro, err) != 0 ||
        money_mul(s.net_micro, tax_ppm, MONEY_MICRO * minor, &tax_minors, err) != 0 ||
        money_mul(tax_minors, minor, 1, &s.tax_micro, err) != 0)
        return err_prefix(err, "invoice sums");
    s.residue_micro = s.net_micro - sum;
    if (__builtin_add_overflow(s.net_micro, s.tax_micro, &s.total_micro))
        return err_set(err, ERR_INTERNAL, "invoice: the total overflows");
    *ret = s;
    return 0;
}

static int class_of(const struct invoice_item *item, struct invoice_tax *taxes,
                    size_t *count, struct err *err)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(taxes[i].class, item->class) != 0)
            continue;
        if (taxes[i].rate_ppm != item->rate_ppm)
            return err_set(err, ERR_INTERNAL, "invoice: class %.20s has two rates",
                           item->class);
        return 0;
    }
    if (*count == INVOICE_CLASSES_MAX)
        return err_set(err, ERR_INTERNAL, "invoice: more than %d classes of tax",
                       INVOICE_CLASSES_MAX);
    taxes[*count].class = item->class;
    taxes[(*count)++].rate_ppm = item->rate_ppm;
    return 0;
}

int invoice_taxes(const struct invoice_item *items, size_t count, const char *currency,
                  struct invoice_tax *ret, size_t *ret_count, struct err *err)
{
    struct invoice_tax taxes[INVOICE_CLASSES_MAX];
    int64_t *amounts = xcalloc(count + 1, sizeof(*amounts));
    size_t classes = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = class_of(&items[i], taxes, &classes, err);
    for (size_t c = 0; rc == 0 && c < classes; c++) {
        size_t n = 0;
        for (size_t i = 0; i < count; i++)
            if (strcmp(items[i].class, taxes[c].class) == 0)
                amounts[n++] = items[i].amount_micro;
        rc = invoice_sums(amounts, n, currency, taxes[c].rate_ppm, &taxes[c].sums, err);
    }
    free(amounts);
    if (rc != 0)
        return -1;
    memcpy(ret, taxes, classes * sizeof(*taxes));
    *ret_count = classes;
    return 0;
}

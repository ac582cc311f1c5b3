#include "billing/core/invoice.h"

#include "client/lib/money.h"

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

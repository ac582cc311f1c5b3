/* Known answers of rating and invoice sums, and the telescoping property. */
#include <string.h>

#include "tests/unit/unit.h"

#include "billing/core/invoice.h"
#include "billing/core/rate.h"
#include "client/lib/money.h"

START_TEST(rate_known_answers)
{
    static const struct {
        int64_t gpu_ms, max_ms, price, fee_ppm, amount, fee;
    } t[] = {
        {0, 1000, 1990000, 100000, 0, 0},
        {3600000, 3600000, 1990000, 100000, 1990000, 199000},
        {100000, 100000, 1990000, 100000, 55278, 5528}, /* 55277.7…, 5527.8 */
        {7200000, 3600000, 1990000, 0, 1990000, 0}, /* over the window: not charged */
        {1, 10, 1800000, 500000, 1, 1},             /* exactly 0.5 rounds away */
        /* 31 days x 64 GPUs at 1000.00: quantity x price overflows 64 bits */
        {INT64_C(171417600000), INT64_C(171417600000), 1000000000, 30000,
         INT64_C(47616000000000), INT64_C(1428480000000)},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct rate_use use = {t[i].gpu_ms, t[i].max_ms, t[i].price, t[i].fee_ppm};
        struct rate_sum sum;
        struct err err;
        ck_assert_int_eq(rate_cumulative(&use, &sum, &err), 0);
        ck_assert_int_eq(sum.amount_micro, t[i].amount);
        ck_assert_int_eq(sum.fee_micro, t[i].fee);
    }
}
END_TEST

START_TEST(rate_refuses_nonsense)
{
    static const struct rate_use bad[] = {
        {-1, 10, 1, 0},
        {1, 10, -1, 0},
        {1, 10, 1, 1000001},
        {INT64_MAX, INT64_MAX, INT64_MAX, 0},
    };
    struct rate_sum sum;
    struct err err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_int_eq(rate_cumulative(&bad[i], &sum, &err), -1);
}
END_TEST

/* However a use is cut into receipts, the differences add up to the whole. */
START_TEST(rate_telescopes)
{
    unsigned seed = 20261122;
    for (int round = 0; round < 2000; round++) {
        struct rate_use use = {0, INT64_MAX, rand_r(&seed) % 9000000, 123457};
        struct rate_sum last = {0, 0}, now;
        int64_t paid = 0, fee = 0;
        struct err err;
        for (int cut = rand_r(&seed) % 40; cut >= 0; cut--) {
            use.gpu_ms += rand_r(&seed) % 100000;
            ck_assert_int_eq(rate_cumulative(&use, &now, &err), 0);
            ck_assert_int_ge(now.amount_micro, last.amount_micro);
            paid += now.amount_micro - last.amount_micro;
            fee += now.fee_micro - last.fee_micro;
            last = now;
        }
        ck_assert_int_eq(rate_cumulative(&use, &now, &err), 0);
        ck_assert_int_eq(paid, now.amount_micro);
        ck_assert_int_eq(fee, now.fee_micro);
    }
}
END_TEST

START_TEST(invoice_known_answers)
{
    static const struct {
        int64_t lines[3];
        const char *currency;
        int64_t tax_ppm, net, residue, tax;
    } t[] = {
        {{55278, 0, 0}, "USD", 100000, 60000, 4722, 10000}, /* 0.06, tax 0.006 -> 0.01
                                                             */
        {{1000000, 2000000, 3000000}, "USD", 100000, 6000000, 0, 600000},
        {{1400000, 0, 0}, "JPY", 100000, 1000000, -400000, 0}, /* 1 yen, tax 0.1 -> 0 */
        {{1500000, 0, 0}, "JPY", 100000, 2000000, 500000, 0},
        {{155000000, 0, 0}, "JPY", 100000, 155000000, 0, 16000000}, /* 15.5 -> 16 */
        {{0, 0, 0}, "JPY", 100000, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct invoice_sums s;
        struct err err;
        ck_assert_int_eq(
            invoice_sums(t[i].lines, 3, t[i].currency, t[i].tax_ppm, &s, &err), 0);
        ck_assert_int_eq(s.net_micro, t[i].net);
        ck_assert_int_eq(s.residue_micro, t[i].residue);
        ck_assert_int_eq(s.tax_micro, t[i].tax);
        ck_assert_int_eq(s.total_micro, t[i].net + t[i].tax);
    }
    struct invoice_sums s;
    struct err err;
    ck_assert_int_eq(invoice_sums(NULL, 0, "XXZ", 0, &s, &err), -1);
    int64_t huge[2] = {INT64_MAX, 1};
    ck_assert_int_eq(invoice_sums(huge, 2, "JPY", 0, &s, &err), -1);
}
END_TEST

START_TEST(taxes_once_per_class)
{
    const struct invoice_item items[] = {{"standard", 100000, 1000400000},
                                         {"reduced", 80000, 1000400000},
                                         {"zero", 0, 600000},
                                         {"reduced", 80000, 1000400000}};
    struct invoice_tax t[INVOICE_CLASSES_MAX];
    struct invoice_item bad[6] = {{"a", 1, 1}, {"a", 2, 1}};
    struct err err;
    size_t n;
    ck_assert_int_eq(invoice_taxes(items, 4, "JPY", t, &n, &err), 0);
    ck_assert_uint_eq(n, 3);
    ck_assert_str_eq(t[0].class, "standard");
    ck_assert_int_eq(t[0].sums.net_micro, 1000000000);
    ck_assert_int_eq(t[0].sums.tax_micro, 100000000);
    ck_assert_str_eq(t[1].class, "reduced");
    ck_assert_int_eq(t[1].sums.net_micro, 2001000000);
    ck_assert_int_eq(t[1].sums.residue_micro, 200000);
    ck_assert_int_eq(t[1].sums.tax_micro, 160000000); /* 160.08: once, not 80 + 80.08 */
    ck_assert_int_eq(t[2].sums.net_micro, 1000000);
    ck_assert_int_eq(t[2].sums.tax_micro, 0);
    ck_assert_int_eq(invoice_taxes(bad, 2, "JPY", t, &n, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "two rates"));
    for (int i = 0; i < 6; i++)
        bad[i] = (struct invoice_item){
            (const char *[]){"a", "b", "c", "d", "e", "f"}[i], 0, 1};
    ck_assert_int_eq(invoice_taxes(bad, 6, "JPY", t, &n, &err), -1);
    ck_assert_int_eq(invoice_taxes(bad, 5, "JPY", t, &n, &err), 0);
}
END_TEST

UNIT_MAIN("billing", UNIT_CASE(rate_known_answers) UNIT_CASE(rate_refuses_nonsense)
                         UNIT_CASE(rate_telescopes) UNIT_CASE(invoice_known_answers)
                             UNIT_CASE(taxes_once_per_class))

/* focus: known rows. The columns are those of the specification for a version, each
 * once, in order; amounts are exact; text cannot end a field or become a formula. */
#include <jansson.h>
#include <string.h>

#include "client/cli/focus.h"
#include "tests/unit/unit.h"

static char *row(const char *charge)
{
    json_t *v = json_loads(charge, 0, NULL);
    struct strbuf out = STRBUF_INIT;
    ck_assert_ptr_nonnull(v);
    focus_row(FOCUS_1_4, v, &out);
    json_decref(v);
    return strbuf_steal(&out);
}

START_TEST(test_header)
{
    static const char common[] =
        "BilledCost,BillingAccountId,BillingAccountName,BillingAccountType,"
        "BillingCurrency,BillingPeriodEnd,BillingPeriodStart,ChargeCategory,"
        "ChargeClass,"
        "ChargeDescription,ChargeFrequency,ChargePeriodEnd,ChargePeriodStart,"
        "ConsumedQuantity,ConsumedUnit,ContractedCost,ContractedUnitPrice,"
        "EffectiveCost,"
        "%s,InvoiceId,InvoiceIssuerName,ListCost,ListUnitPrice,PricingCategory,"
        "PricingQuantity,PricingUnit,RegionId,RegionName,ResourceId,ResourceName,"
        "ResourceType,ServiceCategory,ServiceName,%s,ServiceSubcategory,SkuId,SkuMeter,"
        "SkuPriceDetails,SkuPriceId,SubAccountId,Tags,x_GpuModel\r\n";
    static const char *const names[][2] = {
        [FOCUS_1_2] = {"PublisherName", "ProviderName"},
        [FOCUS_1_4] = {"HostProviderName", "ServiceProviderName"}};
    for (int v = FOCUS_1_2; v <= FOCUS_1_4; v++) {
        struct strbuf got = STRBUF_INIT;
        char want[1200];
        snprintf(want, sizeof(want), common, names[v][0], names[v][1]);
        focus_header((enum focus_version)v, &got);
        ck_assert_str_eq(strbuf_str(&got), want);
        strbuf_done(&got);
    }
}
END_TEST

START_TEST(test_rows)
{
    char *got = row(
        "{\"category\":\"Usage\",\"what\":\"gpu\",\"amount_micro\":1990500,"
        "\"list_micro\":2000000,\"price_micro\":1990000,\"list_price_micro\":1999445,"
        "\"quantity_ms\":3601000,"
        "\"description\":\"=1 x \\\"H100\\\", n1\",\"model\":\"H100\",\"node\":\"n1\","
        "\"site\":\"tokyo\",\"city\":\"Tokyo\",\"provider\":\"acme\",\"reservation\":"
        "\"r1\",\"spot\":true,\"from\":\"2026-11-01T00:00:00.5Z\",\"to\":"
        "\"2026-11-01T01:00:00Z\",\"period_from\":\"2026-10-31T15:00:00Z\",\"period_"
        "to\":"
        "\"2026-11-30T15:00:00Z\",\"currency\":\"USD\",\"tenant\":\"lab\",\"tenant_"
        "id\":"
        "\"t1\",\"invoice\":\"INV-1\",\"issuer\":\"Market\"}");
    ck_assert_str_eq(
        got,
        "1.9905,t1,lab,Tenant,USD,2026-11-30T15:00:00Z,2026-10-31T15:00:00Z,Usage,,"
        "\"'=1 x \"\"H100\"\", n1\",Usage-Based,2026-11-01T01:00:00Z,"
        "2026-11-01T00:00:00Z,1.000278,GPU-Hours,1.9905,1.99,1.9905,acme,INV-1,"
        "Market,2,1.999445,Dynamic,1.000278,GPU-Hours,tokyo,Tokyo,r1,n1,GPU "
        "Reservation,Compute,neargpu,Market,Virtual Machines,H100/tokyo,GPU "
        "use,\"{\"\"x_GpuModel\"\":\"\"H100\"\"}\",H100/tokyo/n1,,{},H100\r\n");
    free(got);
    got =
        row("{\"category\":\"Tax\",\"what\":\"tax\",\"amount_micro\":-1,\"list_micro\":"
            "-1,\"description\":\"tax\",\"currency\":\"JPY\",\"issuer\":\"Market\","
            "\"invoice\":null}");
    ck_assert_int_eq(
        strncmp(got, "-0.000001,,,Tenant,JPY,,,Tax,,tax,One-Time,,,,,", 47), 0);
    ck_assert_ptr_nonnull(strstr(got, ",Market,,Market,-0.000001,,,"));
    free(got);
    got = row("{\"category\":\"Usage\",\"what\":\"lane\",\"amount_micro\":1,"
              "\"reservation\":\"r1\",\"node\":\"p1\",\"site\":\"tokyo\"}");
    ck_assert_ptr_nonnull(strstr(got, ",tokyo,,r1,p1,Optical Path,Networking,neargpu "
                                      "paths,,Network Connectivity,path/tokyo,Path "
                                      "use,,path/tokyo/p1,,{},\r\n"));
    free(got);
    /* What a credit note gives back of an invoice corrects it. */
    got = row("{\"category\":\"Adjustment\",\"what\":\"note\",\"amount_micro\":"
              "-5000000,\"list_micro\":-5000000,\"description\":\"GPU lost\","
              "\"currency\":\"JPY\",\"invoice\":\"CN-2026-000001\",\"corrects\":"
              "\"INV-1\"}");
    ck_assert_int_eq(
        strncmp(got, "-5,,,Tenant,JPY,,,Adjustment,Correction,GPU lost,One-Time,", 57),
        0);
    ck_assert_ptr_nonnull(strstr(got, ",CN-2026-000001,,-5,,,,,"));
    free(got);
}
END_TEST

START_TEST(test_version)
{
    enum focus_version v;
    struct err err;
    ck_assert_int_eq(focus_version_parse(NULL, &v, &err), 0);
    ck_assert_int_eq(v, FOCUS_1_4);
    ck_assert_int_eq(focus_version_parse("1.2", &v, &err), 0);
    ck_assert_int_eq(v, FOCUS_1_2);
    ck_assert_int_eq(focus_version_parse("1.3", &v, &err), -1);
}
END_TEST

UNIT_MAIN("focus", UNIT_CASE(test_header) UNIT_CASE(test_rows) UNIT_CASE(test_version))

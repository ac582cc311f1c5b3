/* focus: see focus.h. */
#include "client/cli/focus.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MS_PER_HOUR 3600000

enum source {
    S_TEXT,      /* a member of the charge */
    S_TIME,      /* a member: an instant, in whole seconds */
    S_CONST,     /* the text itself */
    S_MICRO,     /* micro-units as a decimal */
    S_HOURS,     /* milliseconds as hours */
    S_FREQUENCY, /* from here on by what is charged: see text_of() */
    S_UNIT,
    S_TYPE,
    S_PRICING,
    S_CLASS,
    S_METER,
    S_SKU,
    S_PRICE_SKU,
    S_DETAILS,
    S_CATEGORY, /* a service is of one category: paths are another than GPUs */
    S_SERVICE,
    S_SUBCATEGORY,
    S_HOST, /* whose GPUs or path; never empty: of what is nobody's, the market */
};

struct column {
    const char *name_1_4, *name_1_2; /* name_1_2 NULL: the same */
    enum source source;
    const char *from;
};

/* Alphabetical by the names of 1.4; those of 1.2 differ in two. */
static const struct column columns[] = {
    {"BilledCost", NULL, S_MICRO, "amount_micro"},
    {"BillingAccountId", NULL, S_TEXT, "tenant_id"},
    {"BillingAccountName", NULL, S_TEXT, "tenant"},
    {"BillingAccountType", NULL, S_CONST, "Tenant"},
    {"BillingCurrency", NULL, S_TEXT, "currency"},
    {"BillingPeriodEnd", NULL, S_TIME, "period_to"},
    {"BillingPeriodStart", NULL, S_TIME, "period_from"},
    {"ChargeCategory", NULL, S_TEXT, "category"},
    {"ChargeClass", NULL, S_CLASS, NULL},
    {"ChargeDescription", NULL, S_TEXT, "description"},
    {"ChargeFrequency", NULL, S_FREQUENCY, NULL},
    {"ChargePeriodEnd", NULL, S_TIME, "to"},
    {"ChargePeriodStart", NULL, S_TIME, "from"},
    {"ConsumedQuantity", NULL, S_HOURS, "quantity_ms"},
    {"ConsumedUnit", NULL, S_UNIT, NULL},
    {"ContractedCost", NULL, S_MICRO, "amount_micro"},
    {"ContractedUnitPrice", NULL, S_MICRO, "price_micro"},
    {"EffectiveCost", NULL, S_MICRO, "amount_micro"},
    {"HostProviderName", "PublisherName", S_HOST, NULL},
    {"InvoiceId", NULL, S_TEXT, "invoice"},
    {"InvoiceIssuerName", NULL, S_TEXT, "issuer"},
    {"ListCost", NULL, S_MICRO, "list_micro"},
    {"ListUnitPrice", NULL, S_MICRO, "list_price_micro"},
    {"PricingCategory", NULL, S_PRICING, NULL},
    {"PricingQuantity", NULL, S_HOURS, "quantity_ms"},
    {"PricingUnit", NULL, S_UNIT, NULL},
    {"RegionId", NULL, S_TEXT, "site"},
    {"RegionName", NULL, S_TEXT, "city"},
    {"ResourceId", NULL, S_TEXT, "reservation"},
    {"ResourceName", NULL, S_TEXT, "node"},
    {"ResourceType", NULL, S_TYPE, NULL},
    {"ServiceCategory", NULL, S_CATEGORY, NULL},
    {"ServiceName", NULL, S_SERVICE, NULL},
    {"ServiceProviderName", "ProviderName", S_TEXT, "issuer"},
    {"ServiceSubcategory", NULL, S_SUBCATEGORY, NULL},
    {"SkuId", NULL, S_SKU, NULL},
    {"SkuMeter", NULL, S_METER, NULL},
    {"SkuPriceDetails", NULL, S_DETAILS, NULL},
    {"SkuPriceId", NULL, S_PRICE_SKU, NULL},
    {"SubAccountId", NULL, S_CONST, ""},
    {"Tags", NULL, S_CONST, "{}"},
    {"x_GpuModel", NULL, S_TEXT, "model"},
};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

int focus_version_parse(const char *text, enum focus_version *ret, struct err *err)
{
    if (text == NULL || strcmp(text, "1.4") == 0)
        *ret = FOCUS_1_4;
    else if (strcmp(text, "1.2") == 0)
        *ret = FOCUS_1_2;
    else
        return err_set(err, ERR_USAGE, "--focus-version: expected 1.4 or 1.2");
    return 0;
}

/* A field of RFC 4180. A leading = + - @ would be a formula to a spreadsheet; texts
 * from outside get an apostrophe, numbers do not come this way. */
static void field(struct strbuf *out, const char *text)
{
    if (strchr("=+-@", text[0]) != NULL && text[0] != '\0') {
        strbuf_adds(out, "\"'");
    } else if (strpbrk(text, ",\"\r\n") == NULL) {
        strbuf_adds(out, text);
        return;
    } else {
        strbuf_addc(out, '"');
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"')
            strbuf_addc(out, '"');
        strbuf_addc(out, *p);
    }
    strbuf_addc(out, '"');
}

/* n / 10^6, without zeros at the end. */
static void decimal(struct strbuf *out, int64_t n)
{
    uint64_t size = n < 0 ? -(uint64_t)n : (uint64_t)n;
    char text[40];
    int len = snprintf(text, sizeof(text), "%s%" PRIu64 ".%06" PRIu64, n < 0 ? "-" : "",
                       size / 1000000, size % 1000000);
    while (text[len - 1] == '0')
        len--;
    if (text[len - 1] == '.')
        len--;
    strbuf_add(out, text, (size_t)len);
}

static const char *member(const json_t *charge, const char *name)
{
    const char *text = json_string_value(json_object_get(charge, name));
    return text != NULL ? text : "";
}

static bool is_what(const json_t *charge, const char *what)
{
    return strcmp(member(charge, "what"), what) == 0;
}

/* What all charges of one price have in common, as JSON. */
static const char *details_of(const json_t *charge, char *buf, size_t cap)
{
    json_t *details = json_pack("{s:s}", "x_GpuModel", member(charge, "model"));
    size_t n = json_dumpb(details, buf, cap - 1, JSON_COMPACT);
    json_decref(details);
    buf[n < cap ? n : 0] = '\0';
    return buf;
}

static const char *text_of(const struct column *c, const json_t *charge, char *buf,
                           size_t cap)
{
    bool gpu = is_what(charge, "gpu"), lane = is_what(charge, "lane");
    bool use = gpu || lane;
    switch (c->source) {
    case S_TEXT: return member(charge, c->from);
    case S_CONST: return c->from;
    case S_CATEGORY: return lane ? "Networking" : "Compute";
    case S_SERVICE: return lane ? "neargpu paths" : "neargpu";
    case S_SUBCATEGORY:
        return gpu    ? "Virtual Machines"
               : lane ? "Network Connectivity"
                      : "Other (Compute)";
    case S_FREQUENCY: return use ? "Usage-Based" : "One-Time";
    case S_UNIT: return gpu ? "GPU-Hours" : lane ? "Lane-Hours" : "";
    case S_TYPE: /* where there is a resource */
        return lane                                     ? "Optical Path"
               : *member(charge, "reservation") != '\0' ? "GPU Reservation"
                                                        : "";
    case S_PRICING:
        if (!use)
            return "";
        return json_is_true(json_object_get(charge, "spot")) ? "Dynamic" : "Standard";
    case S_CLASS: /* of what was invoiced; what is refunded before is none */
        return *member(charge, "corrects") != '\0' ? "Correction" : "";
    case S_HOST:
        return member(charge,
                      *member(charge, "provider") != '\0' ? "provider" : "issuer");
    case S_METER: return gpu ? "GPU use" : lane ? "Path use" : "";
    case S_DETAILS: return gpu ? details_of(charge, buf, cap) : "";
    case S_SKU:
    case S_PRICE_SKU:
        if (!use)
            return "";
        snprintf(buf, cap, "%.60s/%.60s%s", gpu ? member(charge, "model") : "path",
                 member(charge, "site"),
                 c->source == S_PRICE_SKU && *member(charge, "node") != '\0' ? "/"
                                                                             : "");
        if (c->source == S_PRICE_SKU)
            snprintf(buf + strlen(buf), cap - strlen(buf), "%.60s",
                     member(charge, "node"));
        return buf;
    case S_TIME:
        snprintf(buf, cap, "%.19sZ", member(charge, c->from));
        return strlen(buf) == 20 ? buf : "";
    case S_MICRO:
    case S_HOURS: break;
    }
    return "";
}

void focus_header(enum focus_version version, struct strbuf *out)
{
    for (size_t i = 0; i < COLUMNS; i++) {
        const struct column *c = &columns[i];
        if (i > 0)
            strbuf_addc(out, ',');
        strbuf_adds(out, version == FOCUS_1_2 && c->name_1_2 != NULL ? c->name_1_2
                                                                     : c->name_1_4);
    }
    strbuf_adds(out, "\r\n");
}

void focus_row(enum focus_version version, const json_t *charge, struct strbuf *out)
{
    char buf[256];
    (void)version; /* the columns' values are the same in both */
    for (size_t i = 0; i < COLUMNS; i++) {
        const struct column *c = &columns[i];
        if (i > 0)
            strbuf_addc(out, ',');
        if (c->source != S_MICRO && c->source != S_HOURS) {
            field(out, text_of(c, charge, buf, sizeof(buf)));
            continue;
        }
        const json_t *v = json_object_get(charge, c->from);
        if (!json_is_integer(v))
            continue;
        int64_t n = json_integer_value(v);
        if (c->source == S_HOURS) /* to the millionth of an hour */
            n = (int64_t)(((__int128)n * 1000000 + MS_PER_HOUR / 2) / MS_PER_HOUR);
        decimal(out, n);
    }
    strbuf_adds(out, "\r\n");
}

/* bundle_note: the credit notes of a bundle. The sums of each are right, it is what its
 * transfers gave back, and of an invoice that is in the bundle no class of tax gives
 * back another tax than its rate of what was given back, nor more than it took. It does
 * not know why something was given back. */
#include <string.h>

#include "client/lib/bundle_impl.h"
#include "client/lib/money.h"

static bool is_type(const json_t *record, const char *type)
{
    return strcmp(bundle_text(record, "type"), type) == 0;
}

static const json_t *record_at(const struct check *c, size_t i)
{
    return json_object_get(json_array_get(c->entries, i), "record");
}

/* What the transfers named after a note ("CN-2026-000001/…") moved. */
static int64_t given_back(const struct check *c, const char *number)
{
    size_t len = strlen(number);
    int64_t sum = 0, amount;
    for (size_t i = 0; i < json_array_size(c->entries); i++) {
        const json_t *r = record_at(c, i);
        const char *ref = bundle_text(r, "ref");
        if (is_type(r, "transfer") &&
            strncmp(bundle_text(r, "kind"), "refund", strlen("refund")) == 0 &&
            strncmp(ref, number, len) == 0 && (ref[len] == '/' || ref[len] == '\0') &&
            bundle_number(r, "amount_micro", &amount))
            sum += amount;
    }
    return sum;
}

static void check_note(struct check *c, const json_t *note)
{
    const char *number = bundle_text(note, "number");
    const json_t *taxes = json_object_get(note, "taxes"), *row;
    int64_t net, tax, total, base, part, base_sum = 0, tax_sum = 0;
    size_t i;
    c->result->credit_notes++;
    if (!bundle_number(note, "net_micro", &net) ||
        !bundle_number(note, "tax_micro", &tax) ||
        !bundle_number(note, "total_micro", &total)) {
        bundle_breach(c, "credit note %.40s: a sum is malformed", number);
        return;
    }
    json_array_foreach(taxes, i, row)
    {
        if (!bundle_number(row, "base_micro", &base) ||
            !bundle_number(row, "tax_micro", &part)) {
            bundle_breach(c, "credit note %.40s: a tax is malformed", number);
            return;
        }
        base_sum += base;
        tax_sum += part;
    }
    if (taxes != NULL && (base_sum != net || tax_sum != tax))
        bundle_breach(c, "credit note %.40s: its taxes do not make its sums", number);
    if (net + tax != total || given_back(c, number) != total)
        bundle_breach(c, "credit note %.40s: its total is not what was given back",
                      number);
}

/* What the notes of an invoice say of one class: the sum of this member. */
static int64_t noted(const struct check *c, const char *invoice, const char *class,
                     const char *member)
{
    int64_t sum = 0, amount;
    const json_t *row;
    size_t n;
    for (size_t i = 0; i < json_array_size(c->entries); i++) {
        const json_t *r = record_at(c, i);
        if (!is_type(r, "credit_note") ||
            strcmp(bundle_text(r, "invoice"), invoice) != 0)
            continue;
        json_array_foreach(json_object_get(r, "taxes"), n, row)
        {
            if (strcmp(bundle_text(row, "class"), class) == 0 &&
                bundle_number(row, member, &amount))
                sum += amount;
        }
    }
    return sum;
}

/* To two minor units: base and tax are each rounded on the invoice, what is given back
 * is rounded once more, and with the last of a class all the rest of its tax goes back.
 */
static void check_class(struct check *c, const json_t *inv, const json_t *tax)
{
    const char *number = bundle_text(inv, "number"), *class = bundle_text(tax, "class");
    int64_t ppm = json_integer_value(json_object_get(tax, "rate_ppm")), taken, want;
    int64_t minor = bundle_minor(bundle_text(inv, "currency"));
    int64_t base = noted(c, number, class, "base_micro"),
            back = noted(c, number, class, "tax_micro");
    struct err err;
    if (!bundle_number(tax, "tax_micro", &taken) ||
        money_mul(base, ppm, 1000000, &want, &err) != 0)
        return; /* told with the invoice */
    int64_t off = back > want ? back - want : want - back;
    if (back > taken || off > 2 * minor)
        bundle_breach(
            c,
            "invoice %.40s: its credit notes give back another %.20s tax than "
            "their bases'",
            number, class);
}

void bundle_check_notes(struct check *c)
{
    const json_t *tax;
    size_t n;
    for (size_t i = 0; i < json_array_size(c->entries); i++) {
        const json_t *r = record_at(c, i);
        if (is_type(r, "credit_note"))
            check_note(c, r);
        if (!is_type(r, "invoice"))
            continue;
        json_array_foreach(json_object_get(r, "taxes"), n, tax) check_class(c, r, tax);
    }
}

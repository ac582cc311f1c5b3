/* fuzz_bankresult: any bytes as a bank's file of results. What is accepted has rows, in
 * the order of lines, each with a state, and all of a Zengin file with account and
 * amount; of a refused one the reason is told in one line, and nothing leaks. */
#include <assert.h>
#include <string.h>

#include "billing/core/bankresult.h"
#include "client/lib/timefmt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void is_sound(const struct bankresult *r, const struct bankresult_row *row)
{
    assert(row->payout >= (r->zengin ? 0 : 1));
    assert(row->amount_micro >= (r->zengin ? 1 : -1));
    assert(*row->on == '\0' || timefmt_is_day(row->on));
    assert(strlen(row->bank) == (r->zengin ? 4 : 0));
    assert(strlen(row->branch) == (r->zengin ? 3 : 0));
    assert(strlen(row->number) == (r->zengin ? 7 : 0));
    for (const char *p = row->reason; *p != '\0'; p++)
        assert((unsigned char)*p >= 0x20 && *p != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bankresult r;
    struct err err = {0};
    if (bankresult_parse((const char *)data, size, &r, &err) != 0) {
        assert(err.text[0] != '\0' && strchr(err.text, '\n') == NULL);
        return 0;
    }
    assert(r.count > 0 && strlen(r.client) == (r.zengin ? 10 : 0));
    for (size_t i = 0; i < r.count; i++) {
        is_sound(&r, &r.rows[i]);
        assert(r.rows[i].line > (i > 0 ? r.rows[i - 1].line : 1));
    }
    bankresult_done(&r);
    return 0;
}

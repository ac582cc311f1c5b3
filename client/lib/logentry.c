/* logentry: see logentry.h. */
#include "client/lib/logentry.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"

int logentry_leaf(const json_t *record, const uint8_t nonce[LOGENTRY_NONCE_LEN],
                  struct merkle_hash *ret, struct err *err)
{
    struct strbuf b = STRBUF_INIT;
    uint8_t data[SHA256_LEN];
    char *text = jsonx_canonical(record);
    if (text == NULL)
        return err_set(err, ERR_BAD_REQUEST, "the record has no canonical form");
    strbuf_adds(&b, LOGENTRY_LABEL);
    strbuf_add(&b, nonce, LOGENTRY_NONCE_LEN);
    strbuf_adds(&b, text);
    digest_sha256(b.data, b.len, data);
    *ret = merkle_leaf(data, sizeof(data));
    strbuf_done(&b);
    free(text);
    return 0;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool logentry_unhex(const char *text, uint8_t *out, size_t len)
{
    if (strlen(text) != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = nibble(text[2 * i]), low = nibble(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

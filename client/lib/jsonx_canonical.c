/* jsonx_canonical: the canonical writer of jsonx.h (RFC 8785), apart because its rules
 * on escapes and key order are its own: keys are sorted by UTF-16 code units, escapes
 * are the shortest and lower case. Reals are refused: their shortest form is the hard
 * part of the RFC and nothing signed here has any. Integers are written exactly. */
#include "client/lib/jsonx.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

/* In UTF-16 the characters above U+FFFF start with a surrogate (D800..DFFF) and so sort
 * before U+E000..U+FFFF; in UTF-8 they start with F0..F4, after EE and EF. Apart from
 * that the byte order of valid UTF-8 is the code unit order. */
static int canonical_rank(unsigned char byte)
{
    if (byte >= 0xf0)
        return byte - 0xf0 + 0xee;
    if (byte >= 0xee)
        return byte + 0x10;
    return byte;
}

static int canonical_compare(const void *a, const void *b)
{
    const unsigned char *x = *(const unsigned char *const *)a;
    const unsigned char *y = *(const unsigned char *const *)b;
    while (*x != '\0' && *x == *y) {
        x++;
        y++;
    }
    return canonical_rank(*x) - canonical_rank(*y);
}

static void canonical_string(struct strbuf *b, const char *text, size_t len)
{
    static const char plain[] = {'b', 't', 'n', 0, 'f', 'r'}; /* from U+0008 */
    strbuf_addc(b, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            strbuf_addf(b, "\\%c", c);
        else if (c >= 8 && c <= 13 && plain[c - 8] != 0)
            strbuf_addf(b, "\\%c", plain[c - 8]);
        else if (c < 0x20)
            strbuf_addf(b, "\\u%04x", c);
        else
            strbuf_addc(b, (char)c);
    }
    strbuf_addc(b, '"');
}

static bool canonical_write(struct strbuf *b, const json_t *v);

static bool canonical_object(struct strbuf *b, const json_t *v)
{
    size_t count = json_object_size(v), n = 0;
    const char **keys = xcalloc(count, sizeof(*keys));
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)v, key, member) keys[n++] = key;
    qsort(keys, n, sizeof(*keys), canonical_compare);
    bool ok = true;
    strbuf_addc(b, '{');
    for (size_t i = 0; i < n && ok; i++) {
        if (i > 0)
            strbuf_addc(b, ',');
        canonical_string(b, keys[i], strlen(keys[i]));
        strbuf_addc(b, ':');
        ok = canonical_write(b, json_object_get(v, keys[i]));
    }
    strbuf_addc(b, '}');
    free(keys);
    return ok;
}

static bool canonical_array(struct strbuf *b, const json_t *v)
{
    bool ok = true;
    strbuf_addc(b, '[');
    for (size_t i = 0; i < json_array_size(v) && ok; i++) {
        if (i > 0)
            strbuf_addc(b, ',');
        ok = canonical_write(b, json_array_get(v, i));
    }
    strbuf_addc(b, ']');
    return ok;
}

static bool canonical_write(struct strbuf *b, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return canonical_object(b, v);
    case JSON_ARRAY: return canonical_array(b, v);
    case JSON_STRING:
        canonical_string(b, json_string_value(v), json_string_length(v));
        return true;
    case JSON_INTEGER:
        strbuf_addf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        return true;
    case JSON_TRUE: strbuf_adds(b, "true"); return true;
    case JSON_FALSE: strbuf_adds(b, "false"); return true;
    case JSON_NULL: strbuf_adds(b, "null"); return true;
    case JSON_REAL: break;
    }
    return false;
}

char *jsonx_canonical(const json_t *v)
{
    struct strbuf b = STRBUF_INIT;
    if (!canonical_write(&b, v)) {
        strbuf_done(&b);
        return NULL;
    }
    return strbuf_steal(&b);
}

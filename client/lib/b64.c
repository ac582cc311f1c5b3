/* b64: see b64.h. Decoding is by table; a text has exactly one accepted spelling, so
 * two different token texts never carry the same bytes. */
#include "client/lib/b64.h"

#include "client/lib/xalloc.h"

#include <stdlib.h>

static const char b64_alphabet[64] = {
    'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P',
    'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'a', 'b', 'c', 'd', 'e', 'f',
    'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v',
    'w', 'x', 'y', 'z', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '-', '_',
};

/* Value + 1 of each character, 0 for those outside the alphabet. */
static const uint8_t b64_value[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,
    ['H'] = 8,  ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14,
    ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21,
    ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28,
    ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35,
    ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42,
    ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49,
    ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63,
    ['_'] = 64,
};

size_t b64_encode(const void *data, size_t len, char *out)
{
    const uint8_t *in = data;
    size_t n = 0, i = 0;
    for (; i + 3 <= len; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
        out[n++] = b64_alphabet[v >> 18];
        out[n++] = b64_alphabet[v >> 12 & 63];
        out[n++] = b64_alphabet[v >> 6 & 63];
        out[n++] = b64_alphabet[v & 63];
    }
    if (len - i == 1) {
        out[n++] = b64_alphabet[in[i] >> 2];
        out[n++] = b64_alphabet[in[i] << 4 & 63];
    } else if (len - i == 2) {
        uint32_t v = (uint32_t)in[i] << 8 | in[i + 1];
        out[n++] = b64_alphabet[v >> 10];
        out[n++] = b64_alphabet[v >> 4 & 63];
        out[n++] = b64_alphabet[v << 2 & 63];
    }
    out[n] = '\0';
    return n;
}

void b64_encode_to(struct strbuf *b, const void *data, size_t len)
{
    char *text = xmalloc(B64_ENC_LEN(len) + 1);
    size_t n = b64_encode(data, len, text);
    strbuf_add(b, text, n);
    free(text);
}

ptrdiff_t b64_decode(const char *text, size_t len, uint8_t *out, size_t cap)
{
    size_t tail = len % 4;
    size_t size = len / 4 * 3 + (tail == 0 ? 0 : tail - 1);
    if (tail == 1 || size > cap)
        return -1;
    const uint8_t *in = (const uint8_t *)text;
    uint8_t *p = out;
    size_t i = 0;
    for (; i + 4 <= len; i += 4) {
        uint32_t a = b64_value[in[i]], b = b64_value[in[i + 1]],
                 c = b64_value[in[i + 2]], d = b64_value[in[i + 3]];
        if (a == 0 || b == 0 || c == 0 || d == 0)
            return -1;
        uint32_t v = (a - 1) << 18 | (b - 1) << 12 | (c - 1) << 6 | (d - 1);
        *p++ = (uint8_t)(v >> 16);
        *p++ = (uint8_t)(v >> 8);
        *p++ = (uint8_t)v;
    }
    if (tail == 0)
        return (ptrdiff_t)size;
    uint32_t a = b64_value[in[i]], b = b64_value[in[i + 1]];
    uint32_t c = tail == 3 ? b64_value[in[i + 2]] : 1;
    if (a == 0 || b == 0 || c == 0)
        return -1;
    uint32_t v = (a - 1) << 12 | (b - 1) << 6 | (c - 1);
    if ((v & (tail == 2 ? 0x3ff : 0x3)) != 0)
        return -1; /* bits that carry no data must be zero */
    *p++ = (uint8_t)(v >> 10);
    if (tail == 3)
        *p++ = (uint8_t)(v >> 2);
    return (ptrdiff_t)size;
}

/* uuid: see uuid.h. */
#include "client/lib/uuid.h"

#include <stddef.h>
#include <string.h>

#include "client/lib/digest.h"

void uuid_v7(int64_t now_us, const uint8_t random[10], char out[UUID_TEXT])
{
    uint64_t ms = (uint64_t)now_us / 1000;
    uint8_t b[16];
    for (int i = 0; i < 6; i++)
        b[i] = (uint8_t)(ms >> (40 - 8 * i));
    memcpy(b + 6, random, 10);
    b[6] = (uint8_t)(0x70 | (b[6] & 0x0f)); /* version 7 */
    b[8] = (uint8_t)(0x80 | (b[8] & 0x3f)); /* variant of RFC 9562 */
    char hex[33];
    digest_hex(b, sizeof(b), hex);
    static const int group[] = {8, 4, 4, 4, 12};
    const char *from = hex;
    for (size_t g = 0; g < sizeof(group) / sizeof(group[0]); g++) {
        memcpy(out, from, (size_t)group[g]);
        from += group[g];
        out += group[g];
        *out++ = '-';
    }
    out[-1] = '\0';
}

bool uuid_is_valid(const char *text)
{
    for (size_t i = 0; i < UUID_TEXT - 1; i++) {
        char c = text[i];
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (c != '-')
                return false;
        } else if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
    }
    return text[UUID_TEXT - 1] == '\0';
}

/* random: digest_random() of digest.h, apart because randomness is an edge. Continuing
 * without it would mint guessable keys and nonces, so failure aborts. */
#include "client/lib/digest.h"

#include <limits.h>
#include <openssl/rand.h>
#include <stdlib.h>

void digest_random(void *out, size_t len)
{
    uint8_t *p = out;
    while (len > 0) {
        int n = len > INT_MAX ? INT_MAX : (int)len;
        if (RAND_bytes(p, n) != 1)
            abort();
        p += n;
        len -= (size_t)n;
    }
}

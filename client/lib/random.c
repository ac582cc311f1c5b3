/* random: digest_random() of digest.h, apart because randomness is an edge. From the
 * kernel, so that small programs need no OpenSSL for it. Continuing without it would
 * mint guessable keys and nonces, so failure aborts. */
#include "client/lib/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void digest_random(void *out, size_t len)
{
    uint8_t *p = out;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno != EINTR)
            abort();
        p += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

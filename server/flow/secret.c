#include "server/flow/secret.h"

#include <assert.h>
#include <string.h>

#include "client/lib/b64.h"

void secret_make(const char *prefix, char out[SECRET_TEXT_MAX],
                 uint8_t hash[SHA256_LEN])
{
    uint8_t random[32];
    size_t len = strlen(prefix);
    assert(len + B64_ENC_LEN(sizeof(random)) < SECRET_TEXT_MAX);
    digest_random(random, sizeof(random));
    memcpy(out, prefix, len);
    b64_encode(random, sizeof(random), out + len);
    digest_sha256(out, strlen(out), hash);
}

/* digest: see digest.h. The pure half: hashing and comparing. Randomness is in
 * random.c, an edge. */
#include "client/lib/digest.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

void digest_sha256(const void *data, size_t len, uint8_t out[SHA256_LEN])
{
    SHA256(data, len, out);
}

void digest_sha256_hex(const void *data, size_t len, char out[SHA256_HEX])
{
    uint8_t hash[SHA256_LEN];
    digest_sha256(data, len, hash);
    digest_hex(hash, sizeof(hash), out);
}

bool digest_equal(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

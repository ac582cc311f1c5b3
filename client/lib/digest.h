/* digest: SHA-256, random bytes and constant-time comparison over OpenSSL. */
#ifndef NEARGPU_DIGEST_H
#define NEARGPU_DIGEST_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_LEN 32
#define SHA256_HEX 65 /* with NUL */

void digest_sha256(const void *data, size_t len, uint8_t out[SHA256_LEN]);
void digest_sha256_hex(const void *data, size_t len, char out[SHA256_HEX]);
void digest_hex(const uint8_t *data, size_t len, char *out /* 2*len+1 */);
/* Cryptographic randomness; aborts when the system has none. Not pure. */
void digest_random(void *out, size_t len);
bool digest_equal(const void *a, const void *b, size_t len); /* constant time */

#endif

/* secret: random credentials that are shown once; only their SHA-256 is stored. */
#ifndef NEARGPU_FLOW_SECRET_H
#define NEARGPU_FLOW_SECRET_H
#include <stdint.h>

#include "client/lib/digest.h"

#define SECRET_TEXT_MAX 48 /* prefix, 43 base64url characters, NUL */
#define SECRET_API_KEY  "ngk_"
#define SECRET_JOIN     "ngj_"

void secret_make(const char *prefix, char out[SECRET_TEXT_MAX],
                 uint8_t hash[SHA256_LEN]);

#endif

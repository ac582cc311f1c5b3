/* b64: base64url without padding, strict (RFC 7515 section 2, RFC 4648 section 5):
 * padding, other alphabets, whitespace and non-zero unused bits are refused. Pure. */
#ifndef NEARGPU_B64_H
#define NEARGPU_B64_H
#include <stddef.h>
#include <stdint.h>

#include "client/lib/strbuf.h"

#define B64_ENC_LEN(n) (((n)*4 + 2) / 3) /* without NUL */
#define B64_DEC_MAX(n) ((n) / 4 * 3 + 2)

/* out needs B64_ENC_LEN(len) + 1 bytes. Returns the text length. */
size_t b64_encode(const void *data, size_t len, char *out);
void b64_encode_to(struct strbuf *b, const void *data, size_t len);
/* Returns the decoded length, or -1 when the text is not strict base64url or does not
 * fit into cap. */
ptrdiff_t b64_decode(const char *text, size_t len, uint8_t *out, size_t cap);

#endif

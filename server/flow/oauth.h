/* oauth: errors as RFC 6749 section 5.2 has them, for requests that came as a form: a
 * client that speaks OAuth reads these, not problem+json. Who fails names one of the
 * RFC's errors, or none, and the code decides. Does not reply. Pure. */
#ifndef NEARGPU_OAUTH_H
#define NEARGPU_OAUTH_H
#include "client/lib/err.h"

struct oauth_error {
    const char *name; /* "invalid_request" */
    int status;       /* 400; 401 of invalid_client; 429 and 5xx as of any request */
};

/* chosen: what the flow says it is, or NULL. A failure of ours is never the client's.
 */
struct oauth_error oauth_error_of(const struct err *err, const char *chosen);
/* {"error", "error_description"}; caller frees. What a description may not hold becomes
 * "'" (of a quote) or "?"; the reason of a failure of ours is not told. */
char *oauth_error_body(const struct err *err, const struct oauth_error *as);

#endif

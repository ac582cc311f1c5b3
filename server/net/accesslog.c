/* accesslog: see the header. The path is still percent-encoded here: visible ASCII. */
#include "server/net/accesslog.h"

#include <inttypes.h>

#define PATH_MAX_LOGGED 160 /* a line stays a line */

void accesslog_line(const struct http1_done *done, struct strbuf *out)
{
    strbuf_addf(out, "%s %.*s %d %" PRId64 "us %zuB %s %s %s", done->method,
                PATH_MAX_LOGGED, done->path, done->status, done->took_us, done->bytes,
                done->who, done->remote, done->request_id);
}

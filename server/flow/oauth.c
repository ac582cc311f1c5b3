/* oauth: see the header. */
#include "server/flow/oauth.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"

struct oauth_error oauth_error_of(const struct err *err, const char *chosen)
{
    int status = err_http_status(err->code);
    if (err->code == ERR_RATE_LIMITED || err->code == ERR_UNAVAILABLE)
        return (struct oauth_error){"temporarily_unavailable", status};
    if (status >= 500)
        return (struct oauth_error){"server_error", status};
    if (chosen == NULL && err->code == ERR_UNAUTHENTICATED)
        chosen = "invalid_client";
    if (chosen == NULL)
        chosen = "invalid_request";
    return (struct oauth_error){chosen,
                                strcmp(chosen, "invalid_client") == 0 ? 401 : 400};
}

/* %x20-21 / %x23-5B / %x5D-7E. Our places are JSON pointers; of a form they are names.
 */
static char *description(const struct err *err, int status)
{
    if (status == 500)
        return xstrdup("the server failed; its log has the reason");
    char *text = xstrdup(err->text[0] == '/' ? err->text + 1 : err->text);
    for (char *p = text; *p != '\0'; p++) {
        if (*p == '"')
            *p = '\'';
        else if (*p < 0x20 || *p > 0x7e || *p == '\\')
            *p = '?';
    }
    return text;
}

char *oauth_error_body(const struct err *err, const struct oauth_error *as)
{
    char *text = description(err, as->status);
    json_t *body =
        json_pack("{s:s, s:s}", "error", as->name, "error_description", text);
    char *dump = jsonx_dump(body);
    json_decref(body);
    free(text);
    return dump;
}

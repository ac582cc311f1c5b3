/* query: the options of offers, quote and reserve -> the shared request object of
 * docs/wire.md, and that object -> a query string. Pure. */
#ifndef NEARGPU_QUERY_H
#define NEARGPU_QUERY_H
#include <jansson.h>

#include "client/cli/when.h"
#include "client/lib/err.h"
#include "client/lib/opt.h"
#include "client/lib/strbuf.h"

/* currency: of prices given without one. *ret is a new reference. */
int query_build(const struct opt_values *opts, const struct when_env *env,
                const char *currency, json_t **ret, struct err *err) MUST_USE;
/* Appends "a=b&c=d": arrays as near=a,b, money as 1234.5JPY. */
void query_string(const json_t *request, struct strbuf *out);
/* Appends value percent-encoded (all but unreserved characters, RFC 3986). */
void query_escape(struct strbuf *out, const char *value);
/* "4000", "4000.5" or "4000JPY" -> {"currency","micro"}, not negative. */
int query_money(const char *text, const char *currency, json_t **ret,
                struct err *err) MUST_USE;

#endif

/* query: the options of offers, quote and reserve -> the shared request object of
 * docs/wire.md, and that object -> a query string. The server checks it again; here is
 * refused what an option's own text shows. Pure. */
#ifndef NEARGPU_QUERY_H
#define NEARGPU_QUERY_H
#include <jansson.h>

#include "client/cli/when.h"
#include "client/lib/err.h"
#include "client/lib/opt.h"
#include "client/lib/strbuf.h"

#define QUERY_NODES_MAX  64 /* of a gang, or of each group */
#define QUERY_GROUPS_MAX 8
#define QUERY_NAMES_MAX  32

/* currency: of prices given without one. *ret is a new reference. */
int query_build(const struct opt_values *opts, const struct when_env *env,
                const char *currency, json_t **ret, struct err *err) MUST_USE;
/* What changes in a request made before: only the options that were given, and null for
 * each option named by --without. */
int query_overrides(const struct opt_values *opts, const struct when_env *env,
                    const char *currency, json_t **ret, struct err *err) MUST_USE;
/* The option's name (no dashes) of a member: "max_rtt" -> "max-rtt", "duration" ->
 * "for". */
void query_option_name(const char *member, char *out, size_t cap);
/* A member's value as its option takes it: "a,b", "4000JPY", "key=1.5". */
void query_value(const json_t *value, struct strbuf *out);
/* Appends "a=b&c=d": arrays as near=a,b, money as 1234.5JPY. */
void query_string(const json_t *request, struct strbuf *out);
/* Appends value percent-encoded (all but unreserved characters, RFC 3986). */
void query_escape(struct strbuf *out, const char *value);
/* "4000", "4000.5" or "4000JPY" -> {"currency","micro"}, not negative. */
int query_money(const char *text, const char *currency, json_t **ret,
                struct err *err) MUST_USE;

#endif

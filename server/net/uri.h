/* uri: percent-decoding, queries (RFC 3986) and forms, strict: a "%" is followed by two
 * hexadecimal digits, the result is UTF-8 (RFC 3629) without control characters. In a
 * query "+" is a plus sign, not a blank: times carry it. Pure. */
#ifndef NEARGPU_URI_H
#define NEARGPU_URI_H
#include <stdbool.h>
#include <stddef.h>

#include "client/lib/err.h"
#include "server/flow/flow.h"

bool uri_is_utf8(const char *s, size_t len);
/* Decodes text[0..len) into a new string; NULL with err (`what` names the place). */
char *uri_decode(const char *text, size_t len, const char *what,
                 struct err *err) MUST_USE;
/* "a=1&b=%20" into rq->query. A name twice, an empty name, or more than FLOW_QUERY_MAX
 * are refused; a name without "=" has the value "". */
int uri_query(const char *query, struct flow_request *rq, struct err *err) MUST_USE;
/* A body of application/x-www-form-urlencoded, where "+" is a blank: {name: [value,
 * ...]}, values as often as they came, "" for none. Refused are an empty name, more
 * than FLOW_QUERY_MAX values, more than FORM_BYTES_MAX bytes. A new reference, or NULL.
 */
json_t *uri_form(const char *text, size_t len, struct err *err) MUST_USE;

#endif

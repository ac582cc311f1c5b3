/* focus: charges as rows of the FinOps Open Cost and Usage Specification (FOCUS,
 * focus.finops.org), Cost and Usage data set, as CSV (RFC 4180): columns in
 * alphabetical order, own ones after them with x_. Version 1.4, and 1.2 for older
 * readers, which has ProviderName and PublisherName where 1.3 brought
 * ServiceProviderName and HostProviderName. Amounts are exact decimals; nothing is
 * "null" but an empty field. Pure. */
#ifndef NEARGPU_CLI_FOCUS_H
#define NEARGPU_CLI_FOCUS_H
#include <jansson.h>

#include "client/lib/err.h"
#include "client/lib/strbuf.h"

enum focus_version { FOCUS_1_2, FOCUS_1_4 };

/* "1.2", "1.4"; NULL is the newest. ERR_USAGE for another. */
int focus_version_parse(const char *text, enum focus_version *ret,
                        struct err *err) MUST_USE;
void focus_header(enum focus_version version, struct strbuf *out);
/* One charge as GET /v1/charges gives it. */
void focus_row(enum focus_version version, const json_t *charge, struct strbuf *out);

#endif

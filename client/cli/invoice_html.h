/* invoice_html: an invoice as a page that a bookkeeper takes: the fields of a Japanese
 * qualified invoice (適格請求書: issuer, registration number, date, what was sold, base
 * and tax per rate, recipient), in English or Japanese. Pure. */
#ifndef NEARGPU_CLI_INVOICE_HTML_H
#define NEARGPU_CLI_INVOICE_HTML_H
#include <jansson.h>
#include <stdbool.h>

#include "client/cli/render.h"
#include "client/lib/err.h"
#include "client/lib/strbuf.h"

/* "en" or "ja". */
bool invoice_html_lang(const char *lang);
/* invoice: as GET /v1/invoices/{number} gives it. zone: of its dates. ERR_BAD_REQUEST
 * for one without the members it needs. */
int invoice_html(const json_t *invoice, const char *lang, render_zone_fn *zone,
                 struct strbuf *out, struct err *err) MUST_USE;

#endif

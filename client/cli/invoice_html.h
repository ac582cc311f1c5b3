/* invoice_html: an invoice as a page that a bookkeeper takes: the fields of a Japanese
 * qualified invoice (適格請求書: issuer, registration number, date, what was sold, base
 * and tax per rate, recipient), and a credit note as one with those of a qualified
 * return invoice (適格返還請求書: besides, which invoice it refers to and of when), in
 * English or Japanese. Pure. */
#ifndef NEARGPU_CLI_INVOICE_HTML_H
#define NEARGPU_CLI_INVOICE_HTML_H
#include <jansson.h>
#include <stdbool.h>

#include "client/cli/render.h"
#include "client/lib/err.h"
#include "client/lib/strbuf.h"

/* "en" or "ja". */
bool invoice_html_lang(const char *lang);
/* document: as GET /v1/invoices/{number} or /v1/credit-notes/{number} gives it. zone:
 * of its dates. ERR_BAD_REQUEST for one without the members it needs. */
typedef int invoice_html_fn(const json_t *document, const char *lang,
                            render_zone_fn *zone, struct strbuf *out, struct err *err);
invoice_html_fn invoice_html, credit_note_html;

#endif

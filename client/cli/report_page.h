/* report_page: a report as a page that stands alone: what it is about, a chart that
 * suits it, the table. Pure: a report as the server sends it in, HTML out; nothing in
 * it is trusted to be text without markup. */
#ifndef NEARGPU_REPORT_PAGE_H
#define NEARGPU_REPORT_PAGE_H
#include <jansson.h>
#include <stdbool.h>

#include "client/lib/strbuf.h"

#define REPORT_PAGE_ROWS 2000 /* rows of the table; a browser stays quick */

/* market: its server, as the account knows it. index: there is an index.html beside. */
void report_page(const json_t *report, const char *market, bool index,
                 struct strbuf *out);
/* The list of reports with links to NAME.html; rows: how many each has, an object. */
void report_index(const json_t *reports, const char *market, const json_t *rows,
                  struct strbuf *out);

#endif

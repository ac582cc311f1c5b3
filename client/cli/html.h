/* html: pages that stand alone: no script, no asset from elsewhere, print well on A4.
 * Pure: text into a strbuf. All text is escaped here; classes and tags are the caller's
 * own constants. It knows nothing of invoices or reports. */
#ifndef NEARGPU_CLI_HTML_H
#define NEARGPU_CLI_HTML_H
#include "client/lib/strbuf.h"

/* Text between tags or in a double-quoted attribute. NULL: nothing. Characters that
 * HTML forbids become U+FFFD. */
void html_text(struct strbuf *b, const char *text);
/* <tag class="class">text</tag>; class NULL: none. */
void html_element(struct strbuf *b, const char *tag, const char *class,
                  const char *text);

struct html_page {
    const char *lang; /* BCP 47: "en", "ja" */
    const char *title;
    const char *style; /* CSS after the page's own; NULL: none. The caller's constant */
};
/* Up to and with <main>, and from </main> on. */
void html_begin(struct strbuf *b, const struct html_page *page);
void html_end(struct strbuf *b);

#endif

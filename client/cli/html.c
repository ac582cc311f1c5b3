/* html: see html.h. */
#include "client/cli/html.h"

#include <string.h>

/* One family for Latin and Japanese; numbers of one width; colours that print. */
static const char base_style[] =
    "@page{size:A4;margin:18mm 16mm 20mm}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:#f2f3f5;color:#1c2330;font:14px/1.5 \"Helvetica Neue\","
    "Arial,\"Hiragino Kaku Gothic ProN\",\"Noto Sans CJK JP\",\"Noto Sans JP\",Meiryo,"
    "sans-serif;font-variant-numeric:tabular-nums}"
    "main{max-width:210mm;margin:24px auto;padding:16mm;background:#fff;"
    "box-shadow:0 1px 6px rgba(20,30,50,.15)}"
    "h1{margin:0 0 4px;font-size:26px;font-weight:600}"
    "h2{margin:28px 0 8px;font-size:16px;font-weight:600}"
    "p{margin:4px 0}"
    ".quiet{color:#667085}"
    "table{width:100%;border-collapse:collapse}"
    "thead{display:table-header-group}tr{break-inside:avoid}"
    "th{padding:6px 8px;border-bottom:2px solid "
    "#1c2330;text-align:left;font-weight:600;"
    "font-size:12px}"
    "td{padding:6px 8px;border-bottom:1px solid #e3e6eb;vertical-align:top}"
    ".number{text-align:right;white-space:nowrap}"
    "@media print{body{background:#fff}main{margin:0;padding:0;max-width:none;"
    "box-shadow:none}}";

void html_text(struct strbuf *b, const char *text)
{
    for (const char *p = text != NULL ? text : ""; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '&')
            strbuf_adds(b, "&amp;");
        else if (c == '<')
            strbuf_adds(b, "&lt;");
        else if (c == '>')
            strbuf_adds(b, "&gt;");
        else if (c == '"')
            strbuf_adds(b, "&quot;");
        else if (c == '\'')
            strbuf_adds(b, "&#39;");
        else if ((c < ' ' && c != '\n' && c != '\t') || c == 0x7f)
            strbuf_adds(b, "\xef\xbf\xbd");
        else
            strbuf_addc(b, *p);
    }
}

void html_element(struct strbuf *b, const char *tag, const char *class,
                  const char *text)
{
    if (class != NULL)
        strbuf_addf(b, "<%s class=\"%s\">", tag, class);
    else
        strbuf_addf(b, "<%s>", tag);
    html_text(b, text);
    strbuf_addf(b, "</%s>", tag);
}

void html_begin(struct strbuf *b, const struct html_page *page)
{
    strbuf_addf(b,
                "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" "
                "lang=\"%s\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta "
                "name=\"viewport\" content=\"width=device-width\"/>\n",
                page->lang);
    html_element(b, "title", NULL, page->title);
    strbuf_addf(b, "\n<style>%s%s</style>\n</head>\n<body>\n<main>\n", base_style,
                page->style != NULL ? page->style : "");
}

void html_end(struct strbuf *b)
{
    strbuf_adds(b, "</main>\n</body>\n</html>\n");
}

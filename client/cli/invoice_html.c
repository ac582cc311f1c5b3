/* invoice_html: see invoice_html.h. */
#include "client/cli/invoice_html.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/cli/html.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"

enum word {
    W_INVOICE,
    W_NUMBER,
    W_ISSUED,
    W_PERIOD,
    W_TO,
    W_FROM,
    W_REGISTRATION,
    W_DUE,
    W_PAID,
    W_DESCRIPTION,
    W_HOURS,
    W_AMOUNT,
    W_RATE,
    W_BASE,
    W_TAX,
    W_TOTAL,
    W_NET,
    W_NOTE,
    W_VERIFY,
    W_HONORIFIC,
    W_ROUNDING,
    WORD_COUNT
};

static const struct language {
    const char *tag;
    const char *words[WORD_COUNT];
} languages[] = {
    {"en",
     {"Invoice",
      "Invoice number",
      "Date of issue",
      "Period of service",
      "Bill to",
      "Issuer",
      "Registration number",
      "Total",
      "Taken from the prepaid balance; what it does not cover, from the next top-up.",
      "Description",
      "GPU hours",
      "Amount",
      "Tax rate",
      "Taxable base",
      "Tax",
      "Total",
      "Net",
      "Amounts of the lines are exact; the net sum is rounded once to the "
      "currency's minor unit, and tax is computed once per rate.",
      "Each line can be checked offline against signed usage receipts: neargpu invoice "
      "show %s --bundle FILE, then neargpu verify FILE.",
      "",
      "Rounding to the minor unit"}},
    {"ja",
     {"請求書",
      "請求書番号",
      "発行日",
      "ご利用期間",
      "請求先",
      "発行者",
      "登録番号",
      "ご請求金額",
      "前払い残高より充当します。不足分は次回のご入金より充当します。",
      "内容",
      "GPU時間",
      "金額",
      "税率",
      "対象金額（税抜）",
      "消費税額",
      "合計",
      "小計（税抜）",
      "明細の金額は端数処理前の金額です。合計で一度だけ端数処理を行い、消費税額は税率ご"
      "とに一回計算しています。",
      "各明細は署名付き利用記録とオフラインで照合できます: neargpu invoice show %s "
      "--bundle FILE、続いて neargpu verify FILE。",
      " 御中",
      "端数調整"}},
};

static const char style[] =
    ".top{display:flex;justify-content:space-between;gap:24px;border-bottom:3px solid "
    "#1c2330;padding-bottom:12px}"
    ".parties{display:flex;justify-content:space-between;gap:32px;margin:20px 0}"
    ".parties>div{flex:1}.parties h2{margin:0 0 4px;font-size:12px;color:#667085}"
    ".name{font-size:17px;font-weight:600}"
    ".address{white-space:pre-line}"
    ".due{display:flex;justify-content:space-between;align-items:baseline;"
    "background:#eef2f8;padding:12px 16px;margin:8px 0 20px}"
    ".due strong{font-size:24px}"
    ".facts td{border:0;padding:1px 8px 1px 0}.facts{width:auto}"
    ".sums{width:62%;margin:16px 0 0 auto}.sums .total td{border-top:2px solid #1c2330;"
    "border-bottom:0;font-weight:600;font-size:16px}"
    ".notes{margin-top:24px;font-size:12px}";

bool invoice_html_lang(const char *lang)
{
    for (size_t i = 0; i < sizeof(languages) / sizeof(languages[0]); i++)
        if (strcmp(lang, languages[i].tag) == 0)
            return true;
    return false;
}

struct page {
    const json_t *invoice;
    const struct language *lang;
    render_zone_fn *zone;
    struct strbuf *out;
};

static const char *word(const struct page *p, enum word w)
{
    return p->lang->words[w];
}

static const char *text_at(const json_t *obj, const char *name)
{
    const char *text = json_string_value(json_object_get(obj, name));
    return text != NULL ? text : "";
}

/* The day of an instant; `before`: of the one just before it, as a period ends. */
static void day(const struct page *p, const char *name, bool before, char out[40])
{
    struct err err;
    struct tm tm;
    int64_t us;
    out[0] = '\0';
    if (timefmt_parse(text_at(p->invoice, name), &us, &err) != 0)
        return;
    us -= before;
    time_t s = (time_t)(us / US_PER_S) + p->zone(us);
    if (gmtime_r(&s, &tm) == NULL)
        return;
    if (strcmp(p->lang->tag, "ja") == 0)
        snprintf(out, 40, "%d年%d月%d日", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
    else
        snprintf(out, 40, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1,
                 tm.tm_mday);
}

/* "1,234,567.5", and the currency after it when `whole`. */
static void money(const struct page *p, const json_t *amount, const char *tag,
                  bool whole)
{
    const char *currency = text_at(amount, "currency");
    char plain[MONEY_TEXT_MAX], text[2 * MONEY_TEXT_MAX];
    size_t n = 0;
    money_format(json_integer_value(json_object_get(amount, "micro")), currency, plain);
    size_t sign = plain[0] == '-', whole_len = strcspn(plain + sign, ".");
    for (size_t i = 0; plain[i] != '\0'; i++) {
        size_t left = whole_len + sign - i; /* digits from here to the point */
        if (i > sign && i < whole_len + sign && left % 3 == 0)
            text[n++] = ',';
        text[n++] = plain[i];
    }
    snprintf(text + n, sizeof(text) - n, whole ? " %s" : "", currency);
    html_element(p->out, tag, "number", text);
}

static void fact(const struct page *p, enum word name, const char *value)
{
    strbuf_adds(p->out, "<tr>");
    html_element(p->out, "td", "quiet", word(p, name));
    html_element(p->out, "td", NULL, value);
    strbuf_adds(p->out, "</tr>\n");
}

static void put_top(const struct page *p)
{
    char issued[40], from[40], to[40], period[100];
    day(p, "issued_at", false, issued);
    day(p, "from", false, from);
    day(p, "to", true, to);
    snprintf(period, sizeof(period), "%s – %s", from, to);
    strbuf_adds(p->out, "<div class=\"top\">\n");
    html_element(p->out, "h1", NULL, word(p, W_INVOICE));
    strbuf_adds(p->out, "<table class=\"facts\">\n");
    fact(p, W_NUMBER, text_at(p->invoice, "number"));
    fact(p, W_ISSUED, issued);
    fact(p, W_PERIOD, period);
    strbuf_adds(p->out, "</table>\n</div>\n");
}

static void put_parties(const struct page *p)
{
    const json_t *issuer = json_object_get(p->invoice, "issuer"),
                 *bill = json_object_get(p->invoice, "billing");
    const char *name = text_at(bill, "name"), *registration;
    strbuf_adds(p->out, "<div class=\"parties\">\n<div>");
    html_element(p->out, "h2", NULL, word(p, W_TO));
    strbuf_adds(p->out, "<p class=\"name\">");
    html_text(p->out, name[0] != '\0' ? name : text_at(p->invoice, "recipient"));
    html_text(p->out, word(p, W_HONORIFIC));
    strbuf_adds(p->out, "</p>\n");
    html_element(p->out, "p", "address", text_at(bill, "address"));
    strbuf_adds(p->out, "</div>\n<div>");
    html_element(p->out, "h2", NULL, word(p, W_FROM));
    html_element(p->out, "p", "name", text_at(issuer, "name"));
    registration = text_at(issuer, "registration");
    if (registration[0] != '\0') {
        strbuf_adds(p->out, "<p>");
        html_text(p->out, word(p, W_REGISTRATION));
        strbuf_adds(p->out, ": ");
        html_text(p->out, registration);
        strbuf_adds(p->out, "</p>\n");
    }
    strbuf_adds(p->out, "</div>\n</div>\n<div class=\"due\"><span>");
    html_text(p->out, word(p, W_DUE));
    strbuf_adds(p->out, "</span>");
    money(p, json_object_get(p->invoice, "total"), "strong", true);
    strbuf_adds(p->out, "</div>\n");
}

static void put_lines(const struct page *p)
{
    const json_t *line;
    char hours[40];
    size_t i;
    strbuf_adds(p->out, "<table>\n<thead><tr>");
    html_element(p->out, "th", NULL, word(p, W_DESCRIPTION));
    html_element(p->out, "th", "number", word(p, W_HOURS));
    html_element(p->out, "th", "number", word(p, W_AMOUNT));
    strbuf_adds(p->out, "</tr></thead>\n<tbody>\n");
    json_array_foreach(json_object_get(p->invoice, "lines"), i, line)
    {
        int64_t ms = json_integer_value(json_object_get(line, "gpu_ms"));
        snprintf(hours, sizeof(hours), "%" PRId64 ".%03" PRId64, ms / 3600000,
                 ms % 3600000 / 3600);
        strbuf_adds(p->out, "<tr>");
        bool rounding = ms == 0 && json_is_null(json_object_get(line, "reservation"));
        html_element(p->out, "td", NULL,
                     rounding ? word(p, W_ROUNDING) : text_at(line, "description"));
        html_element(p->out, "td", "number", ms > 0 ? hours : "");
        money(p, json_object_get(line, "amount"), "td", false);
        strbuf_adds(p->out, "</tr>\n");
    }
    strbuf_adds(p->out, "</tbody>\n</table>\n");
}

/* Base and tax per rate, then the total. */
static void put_sums(const struct page *p)
{
    int64_t ppm = json_integer_value(json_object_get(p->invoice, "tax_ppm"));
    char rate[40];
    snprintf(rate, sizeof(rate), "%" PRId64 ".%01" PRId64 " %%", ppm / 10000,
             ppm % 10000 / 1000);
    strbuf_adds(p->out, "<table class=\"sums\">\n<thead><tr>");
    html_element(p->out, "th", NULL, word(p, W_RATE));
    html_element(p->out, "th", "number", word(p, W_BASE));
    html_element(p->out, "th", "number", word(p, W_TAX));
    strbuf_adds(p->out, "</tr></thead>\n<tbody>\n<tr>");
    html_element(p->out, "td", NULL, rate);
    money(p, json_object_get(p->invoice, "net"), "td", false);
    money(p, json_object_get(p->invoice, "tax"), "td", false);
    strbuf_adds(p->out, "</tr>\n<tr class=\"total\">");
    html_element(p->out, "td", NULL, word(p, W_TOTAL));
    strbuf_adds(p->out, "<td></td>");
    money(p, json_object_get(p->invoice, "total"), "td", true);
    strbuf_adds(p->out, "</tr>\n</tbody>\n</table>\n");
}

static void put_notes(const struct page *p)
{
    const char *note = word(p, W_VERIFY), *at = strstr(note, "%s");
    strbuf_adds(p->out, "<div class=\"notes quiet\">\n");
    html_element(p->out, "p", NULL, word(p, W_PAID));
    html_element(p->out, "p", NULL, word(p, W_NOTE));
    strbuf_adds(p->out, "<p>");
    strbuf_add(p->out, note, (size_t)(at - note));
    html_text(p->out, text_at(p->invoice, "number"));
    strbuf_adds(p->out, at + 2);
    strbuf_adds(p->out, "</p>\n</div>\n");
}

int invoice_html(const json_t *invoice, const char *lang, render_zone_fn *zone,
                 struct strbuf *out, struct err *err)
{
    struct page p = {.invoice = invoice, .lang = languages, .zone = zone, .out = out};
    char title[120];
    for (size_t i = 0; i < sizeof(languages) / sizeof(languages[0]); i++)
        if (strcmp(lang, languages[i].tag) == 0)
            p.lang = &languages[i];
    if (text_at(invoice, "number")[0] == '\0' ||
        !json_is_object(json_object_get(invoice, "total")) ||
        !json_is_array(json_object_get(invoice, "lines")))
        return err_set(err, ERR_BAD_REQUEST, "this is no invoice");
    snprintf(title, sizeof(title), "%s %s", word(&p, W_INVOICE),
             text_at(invoice, "number"));
    const struct html_page page = {p.lang->tag, title, style};
    html_begin(out, &page);
    put_top(&p);
    put_parties(&p);
    put_lines(&p);
    put_sums(&p);
    put_notes(&p);
    html_end(out);
    return 0;
}

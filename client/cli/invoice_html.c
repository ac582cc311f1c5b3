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
    W_STANDARD, /* from here on in the order of classes[] */
    W_REDUCED,
    W_ZERO,
    W_EXEMPT,
    W_OUTSIDE,
    W_REDUCED_NOTE,
    W_CREDITS,
    W_PROMO,
    W_SLA,
    W_CREDITS_NOTE,
    W_NOTES,
    W_CREDIT_NOTE,
    W_NOTE_NUMBER,
    W_OF_INVOICE,
    W_OF_PERIOD,
    W_OF_DATE,
    W_RETURNED,
    W_RETURNED_NOTE,
    W_UNTAXED,
    WORD_COUNT
};

/* Domain ng.tax_class, as its words stand in each language. */
static const char *const classes[] = {"standard", "reduced", "zero", "exempt",
                                      "outside"};
#define REDUCED_MARK "※"

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
      "Rounding to the minor unit",
      "",
      "reduced " REDUCED_MARK,
      "zero-rated",
      "exempt",
      "outside the scope of tax",
      REDUCED_MARK " is taxed at the reduced rate.",
      "Credits in this period",
      "Promotional credit used",
      "Credit for incident",
      "Credits went to the prepaid balance; they do not change the total above.",
      "Credit notes to this invoice",
      "Credit note",
      "Credit note number",
      "Of invoice",
      "Period of that invoice",
      "Date of that invoice",
      "Total given back",
      "Given back to the prepaid balance.",
      "This use was not invoiced yet: it lessens the next invoice, and no tax goes "
      "back."}},
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
      "端数調整",
      "",
      "軽減税率 " REDUCED_MARK,
      "免税",
      "非課税",
      "不課税",
      REDUCED_MARK " は軽減税率対象です。",
      "期間中のクレジット",
      "プロモーションクレジット充当",
      "障害に対するクレジット、障害番号",
      "クレジットは前払い残高に加算されています。上記のご請求金額は変わりません。",
      "本請求書に対する適格返還請求書",
      "適格返還請求書",
      "返還請求書番号",
      "対象請求書番号",
      "対象請求書のご利用期間",
      "対象請求書の発行日",
      "返還金額合計",
      "前払い残高に返還しました。",
      "請求前のご利用分の返還です。次回の請求書の金額が減り、消費税の返還はありません"
      "。"}},
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
    const json_t *invoice; /* or the credit note */
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

static void fact_period(const struct page *p, const json_t *of, enum word name)
{
    char from[40], to[40], period[100];
    const struct page at = {of, p->lang, p->zone, p->out};
    day(&at, "from", false, from);
    day(&at, "to", true, to);
    snprintf(period, sizeof(period), "%s – %s", from, to);
    fact(p, name, period);
}

static void put_top(const struct page *p)
{
    char issued[40];
    day(p, "issued_at", false, issued);
    strbuf_adds(p->out, "<div class=\"top\">\n");
    html_element(p->out, "h1", NULL, word(p, W_INVOICE));
    strbuf_adds(p->out, "<table class=\"facts\">\n");
    fact(p, W_NUMBER, text_at(p->invoice, "number"));
    fact(p, W_ISSUED, issued);
    fact_period(p, p->invoice, W_PERIOD);
    strbuf_adds(p->out, "</table>\n</div>\n");
}

static void put_parties(const struct page *p, enum word due)
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
    html_element(p->out, "p", "address", text_at(issuer, "address"));
    registration = text_at(issuer, "registration");
    if (registration[0] != '\0') {
        strbuf_adds(p->out, "<p>");
        html_text(p->out, word(p, W_REGISTRATION));
        strbuf_adds(p->out, ": ");
        html_text(p->out, registration);
        strbuf_adds(p->out, "</p>\n");
    }
    strbuf_adds(p->out, "</div>\n</div>\n<div class=\"due\"><span>");
    html_text(p->out, word(p, due));
    strbuf_adds(p->out, "</span>");
    money(p, json_object_get(p->invoice, "total"), "strong", true);
    strbuf_adds(p->out, "</div>\n");
}

/* The rate and what it is called: "8.0 %, reduced ※". */
static void rate_text(const struct page *p, const json_t *tax, char out[80])
{
    int64_t ppm = json_integer_value(json_object_get(tax, "rate_ppm"));
    const char *name = "";
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
        if (strcmp(text_at(tax, "class"), classes[i]) == 0)
            name = p->lang->words[W_STANDARD + (int)i];
    snprintf(out, 80, "%" PRId64 ".%01" PRId64 " %%%s%s", ppm / 10000,
             ppm % 10000 / 1000, name[0] != '\0' ? ", " : "", name);
}

static const json_t *tax_of(const struct page *p, const char *class)
{
    const json_t *tax;
    size_t i;
    json_array_foreach(json_object_get(p->invoice, "taxes"), i,
                       tax) if (strcmp(text_at(tax, "class"), class) == 0) return tax;
    return NULL;
}

/* With several rates each line says its own. */
static void put_line(const struct page *p, const json_t *line, bool rates)
{
    char hours[40], rate[80] = "";
    int64_t ms = json_integer_value(json_object_get(line, "gpu_ms"));
    bool rounding = ms == 0 && json_is_null(json_object_get(line, "reservation"));
    const json_t *tax = tax_of(p, text_at(line, "tax_class"));
    snprintf(hours, sizeof(hours), "%" PRId64 ".%03" PRId64, ms / 3600000,
             ms % 3600000 / 3600);
    if (tax != NULL)
        rate_text(p, tax, rate);
    strbuf_adds(p->out, "<tr>");
    html_element(p->out, "td", NULL,
                 rounding ? word(p, W_ROUNDING) : text_at(line, "description"));
    if (rates)
        html_element(p->out, "td", NULL, rate);
    html_element(p->out, "td", "number", ms > 0 ? hours : "");
    money(p, json_object_get(line, "amount"), "td", false);
    strbuf_adds(p->out, "</tr>\n");
}

static void put_lines(const struct page *p)
{
    const json_t *line;
    bool rates = json_array_size(json_object_get(p->invoice, "taxes")) > 1;
    size_t i;
    strbuf_adds(p->out, "<table>\n<thead><tr>");
    html_element(p->out, "th", NULL, word(p, W_DESCRIPTION));
    if (rates)
        html_element(p->out, "th", NULL, word(p, W_RATE));
    html_element(p->out, "th", "number", word(p, W_HOURS));
    html_element(p->out, "th", "number", word(p, W_AMOUNT));
    strbuf_adds(p->out, "</tr></thead>\n<tbody>\n");
    json_array_foreach(json_object_get(p->invoice, "lines"), i, line)
        put_line(p, line, rates);
    strbuf_adds(p->out, "</tbody>\n</table>\n");
}

/* Base and tax per rate, then the total. */
static void put_sums(const struct page *p)
{
    const json_t *tax;
    char rate[80];
    size_t i;
    strbuf_adds(p->out, "<table class=\"sums\">\n<thead><tr>");
    html_element(p->out, "th", NULL, word(p, W_RATE));
    html_element(p->out, "th", "number", word(p, W_BASE));
    html_element(p->out, "th", "number", word(p, W_TAX));
    strbuf_adds(p->out, "</tr></thead>\n<tbody>\n");
    json_array_foreach(json_object_get(p->invoice, "taxes"), i, tax)
    {
        rate_text(p, tax, rate);
        strbuf_adds(p->out, "<tr>");
        html_element(p->out, "td", NULL, rate);
        money(p, json_object_get(tax, "base"), "td", false);
        money(p, json_object_get(tax, "tax"), "td", false);
        strbuf_adds(p->out, "</tr>\n");
    }
    strbuf_adds(p->out, "<tr class=\"total\">");
    html_element(p->out, "td", NULL, word(p, W_TOTAL));
    strbuf_adds(p->out, "<td></td>");
    money(p, json_object_get(p->invoice, "total"), "td", true);
    strbuf_adds(p->out, "</tr>\n</tbody>\n</table>\n");
}

/* A table with a heading, of two columns: what, and how much. */
static void begin_amounts(const struct page *p, enum word heading)
{
    strbuf_adds(p->out, "<table>\n<thead><tr>");
    html_element(p->out, "th", NULL, word(p, heading));
    html_element(p->out, "th", "number", word(p, W_AMOUNT));
    strbuf_adds(p->out, "</tr></thead>\n<tbody>\n");
}

static void put_amount(const struct page *p, const char *text, const json_t *amount)
{
    strbuf_adds(p->out, "<tr>");
    html_element(p->out, "td", NULL, text);
    money(p, amount, "td", false);
    strbuf_adds(p->out, "</tr>\n");
}

static void end_amounts(const struct page *p)
{
    strbuf_adds(p->out, "</tbody>\n</table>\n");
}

/* What came out of promotional credit, and what was credited for incidents. */
static void put_credits(const struct page *p)
{
    const json_t *credits = json_object_get(p->invoice, "credits"), *credit;
    size_t i;
    if (json_array_size(credits) == 0)
        return;
    begin_amounts(p, W_CREDITS);
    json_array_foreach(credits, i, credit)
    {
        struct strbuf text = STRBUF_INIT;
        const json_t *incident = json_object_get(credit, "incident");
        strbuf_adds(&text, word(p, json_is_integer(incident) ? W_SLA : W_PROMO));
        if (json_is_integer(incident))
            strbuf_addf(&text, " %" JSON_INTEGER_FORMAT, json_integer_value(incident));
        strbuf_addf(&text, ": %s", text_at(credit, "reason"));
        put_amount(p, strbuf_str(&text), json_object_get(credit, "amount"));
        strbuf_done(&text);
    }
    end_amounts(p);
    html_element(p->out, "p", "quiet", word(p, W_CREDITS_NOTE));
}

static void put_credit_notes(const struct page *p)
{
    const json_t *notes = json_object_get(p->invoice, "credit_notes"), *note;
    size_t i;
    if (json_array_size(notes) == 0)
        return;
    begin_amounts(p, W_NOTES);
    json_array_foreach(notes, i, note)
    {
        char issued[40], text[200];
        const struct page at = {note, p->lang, p->zone, p->out};
        day(&at, "issued_at", false, issued);
        snprintf(text, sizeof(text), "%.40s, %s", text_at(note, "number"), issued);
        put_amount(p, text, json_object_get(note, "total"));
    }
    end_amounts(p);
}

static void put_notes(const struct page *p)
{
    const char *note = word(p, W_VERIFY), *at = strstr(note, "%s");
    strbuf_adds(p->out, "<div class=\"notes quiet\">\n");
    html_element(p->out, "p", NULL, word(p, W_PAID));
    html_element(p->out, "p", NULL, word(p, W_NOTE));
    if (tax_of(p, "reduced") != NULL)
        html_element(p->out, "p", NULL, word(p, W_REDUCED_NOTE));
    strbuf_adds(p->out, "<p>");
    strbuf_add(p->out, note, (size_t)(at - note));
    html_text(p->out, text_at(p->invoice, "number"));
    strbuf_adds(p->out, at + 2);
    strbuf_adds(p->out, "</p>\n</div>\n");
}

/* ---- credit notes ---- */

/* What it refers to: the invoice, its date and the period of the service. */
static void put_note_top(const struct page *p)
{
    const json_t *of = json_object_get(p->invoice, "of");
    char text[40];
    day(p, "issued_at", false, text);
    strbuf_adds(p->out, "<div class=\"top\">\n");
    html_element(p->out, "h1", NULL, word(p, W_CREDIT_NOTE));
    strbuf_adds(p->out, "<table class=\"facts\">\n");
    fact(p, W_NOTE_NUMBER, text_at(p->invoice, "number"));
    fact(p, W_ISSUED, text);
    if (json_is_object(of)) {
        const struct page at = {of, p->lang, p->zone, p->out};
        fact(p, W_OF_INVOICE, text_at(p->invoice, "invoice"));
        day(&at, "issued_at", false, text);
        fact(p, W_OF_DATE, text);
        fact_period(p, of, W_OF_PERIOD);
    }
    strbuf_adds(p->out, "</table>\n</div>\n");
}

static void put_note_lines(const struct page *p)
{
    const json_t *line;
    size_t i;
    begin_amounts(p, W_DESCRIPTION);
    json_array_foreach(json_object_get(p->invoice, "lines"), i, line)
        put_amount(p, text_at(line, "description"), json_object_get(line, "amount"));
    end_amounts(p);
}

static void put_note_notes(const struct page *p)
{
    strbuf_adds(p->out, "<div class=\"notes quiet\">\n");
    html_element(p->out, "p", NULL, word(p, W_RETURNED_NOTE));
    if (!json_is_object(json_object_get(p->invoice, "of")))
        html_element(p->out, "p", NULL, word(p, W_UNTAXED));
    if (tax_of(p, "reduced") != NULL)
        html_element(p->out, "p", NULL, word(p, W_REDUCED_NOTE));
    strbuf_adds(p->out, "</div>\n");
}

/* ---- pages ---- */

static int begin(struct page *p, const char *lang, enum word name, struct err *err)
{
    char title[120];
    p->lang = languages;
    for (size_t i = 0; i < sizeof(languages) / sizeof(languages[0]); i++)
        if (strcmp(lang, languages[i].tag) == 0)
            p->lang = &languages[i];
    if (text_at(p->invoice, "number")[0] == '\0' ||
        !json_is_object(json_object_get(p->invoice, "total")) ||
        !json_is_array(json_object_get(p->invoice, "lines")))
        return err_set(err, ERR_BAD_REQUEST, "this is no invoice and no credit note");
    snprintf(title, sizeof(title), "%s %.60s", word(p, name),
             text_at(p->invoice, "number"));
    const struct html_page page = {p->lang->tag, title, style};
    html_begin(p->out, &page);
    return 0;
}

int invoice_html(const json_t *document, const char *lang, render_zone_fn *zone,
                 struct strbuf *out, struct err *err)
{
    struct page p = {.invoice = document, .zone = zone, .out = out};
    if (begin(&p, lang, W_INVOICE, err) != 0)
        return -1;
    put_top(&p);
    put_parties(&p, W_DUE);
    put_lines(&p);
    put_sums(&p);
    put_credits(&p);
    put_credit_notes(&p);
    put_notes(&p);
    html_end(out);
    return 0;
}

int credit_note_html(const json_t *document, const char *lang, render_zone_fn *zone,
                     struct strbuf *out, struct err *err)
{
    struct page p = {.invoice = document, .zone = zone, .out = out};
    if (begin(&p, lang, W_CREDIT_NOTE, err) != 0)
        return -1;
    put_note_top(&p);
    put_parties(&p, W_RETURNED);
    put_note_lines(&p);
    put_sums(&p);
    put_note_notes(&p);
    html_end(out);
    return 0;
}

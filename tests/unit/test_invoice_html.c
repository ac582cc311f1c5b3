/* invoice_html: every field of a qualified invoice, and of a qualified return invoice,
 * is on the page, in both languages; text from outside cannot become markup; a page is
 * well-formed (seen by its balanced tags). */
#include <jansson.h>
#include <string.h>

#include "client/cli/html.h"
#include "client/cli/invoice_html.h"
#include "tests/unit/unit.h"

static int tokyo(int64_t us)
{
    (void)us;
    return 9 * 3600;
}

static const char sample[] =
    "{\"number\":\"INV-2026-000042\",\"issuer\":{\"name\":\"neargpu K.K.\","
    "\"registration\":\"T1234567890123\"},\"recipient\":\"kagaku-lab\",\"billing\":{"
    "\"name\":\"科学研究所 <script>alert(1)</script>\",\"address\":\"1-1 "
    "\\\"Chiyoda\\\"\\n"
    "Tokyo\",\"language\":\"ja\"},\"from\":\"2026-10-31T15:00:00Z\",\"to\":"
    "\"2026-11-30T15:00:00Z\",\"issued_at\":\"2026-12-01T00:10:00Z\",\"taxes\":[{"
    "\"class\":"
    "\"standard\",\"rate_ppm\":100000,\"base\":{\"currency\":\"JPY\",\"micro\":"
    "1234000000},\"tax\":{\"currency\":\"JPY\",\"micro\":123000000}}],"
    "\"net\":{\"currency\":\"JPY\",\"micro\":1234000000},\"tax\":{\"currency\":\"JPY\","
    "\"micro\":123000000},\"total\":{\"currency\":\"JPY\",\"micro\":1357000000},"
    "\"lines\":["
    "{\"description\":\"8 x H100, fukuoka & osaka\",\"gpu_ms\":28800000,\"amount\":{"
    "\"currency\":\"JPY\",\"micro\":1233999500}},{\"description\":\"rounding to the "
    "minor "
    "unit\",\"gpu_ms\":0,\"reservation\":null,\"amount\":{\"currency\":\"JPY\","
    "\"micro\":500}}]}";

static char *page(const char *lang)
{
    json_t *invoice = json_loads(sample, 0, NULL);
    struct strbuf out = STRBUF_INIT;
    struct err err;
    ck_assert_ptr_nonnull(invoice);
    ck_assert_int_eq(invoice_html(invoice, lang, tokyo, &out, &err), 0);
    json_decref(invoice);
    return strbuf_steal(&out);
}

START_TEST(test_fields)
{
    static const char *const english[] = {
        "<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">",
        "INV-2026-000042",
        "2026-12-01",
        "2026-11-01 – 2026-11-30",
        "T1234567890123",
        "neargpu K.K.",
        "8.000",
        "8 x H100, fukuoka &amp; osaka",
        "10.0 %",
        ">1,234<",
        ">123<",
        "1,357 JPY",
        ">1,233.9995<"};
    static const char *const japanese[] = {
        "lang=\"ja\"",    "請求書", "登録番号", "2026年11月1日",
        "2026年11月30日", "御中",   "消費税額", "税率"};
    char *en = page("en"), *ja = page("ja");
    for (size_t i = 0; i < sizeof(english) / sizeof(english[0]); i++)
        ck_assert_msg(strstr(en, english[i]) != NULL, "%s", english[i]);
    for (size_t i = 0; i < sizeof(japanese) / sizeof(japanese[0]); i++)
        ck_assert_msg(strstr(ja, japanese[i]) != NULL, "%s", japanese[i]);
    free(en);
    free(ja);
}
END_TEST

/* Each rate with its base and tax; lines say theirs. */
START_TEST(test_rates)
{
    static const char *const words[2][4] = {
        {"8.0 %, reduced ※", "0.0 %, outside the scope of tax", ">80<",
         "※ is taxed at the reduced rate."},
        {"8.0 %, 軽減税率 ※", "0.0 %, 不課税", ">80<", "※ は軽減税率対象です。"}};
    json_t *invoice = json_loads(sample, 0, NULL), *two;
    struct err err;
    two = json_loads(
        "{\"taxes\":[{\"class\":\"reduced\",\"rate_ppm\":80000,\"base\":{"
        "\"currency\":\"JPY\",\"micro\":1000000000},\"tax\":{\"currency\":\"JPY\","
        "\"micro\":80000000}},{\"class\":\"outside\",\"rate_ppm\":0,\"base\":{"
        "\"currency\":\"JPY\",\"micro\":234000000},\"tax\":{\"currency\":\"JPY\","
        "\"micro\":0}}]}",
        0, NULL);
    json_object_update(invoice, two);
    json_object_set_new(json_array_get(json_object_get(invoice, "lines"), 0),
                        "tax_class", json_string("reduced"));
    for (int i = 0; i < 2; i++) {
        struct strbuf out = STRBUF_INIT;
        ck_assert_int_eq(invoice_html(invoice, i ? "ja" : "en", tokyo, &out, &err), 0);
        for (int w = 0; w < 4; w++)
            ck_assert_msg(strstr(strbuf_str(&out), words[i][w]) != NULL, "%s",
                          words[i][w]);
        const char *line = strstr(strbuf_str(&out), "8 x H100");
        ck_assert_ptr_nonnull(strstr(line, words[i][0])); /* in the line, and below */
        ck_assert_ptr_nonnull(strstr(strstr(line, words[i][0]) + 1, words[i][0]));
        strbuf_done(&out);
    }
    json_decref(invoice);
    json_decref(two);
}
END_TEST

/* Credits and credit notes stand on the invoice when there are some. */
START_TEST(test_credits)
{
    static const char *const words[2][4] = {
        {"Promotional credit used: welcome &amp; thanks",
         "Credit for incident 7: cooling", "CN-2026-000003, 2026-12-02",
         "Credits in this period"},
        {"プロモーションクレジット充当: welcome &amp; thanks",
         "障害に対するクレジット、障害番号 7: cooling", "CN-2026-000003, 2026年12月2日",
         "本請求書に対する適格返還請求書"}};
    json_t *invoice = json_loads(sample, 0, NULL), *more;
    char *bare = page("en");
    struct err err;
    ck_assert_ptr_null(strstr(bare, words[0][3]));
    free(bare);
    more = json_loads(
        "{\"credits\":[{\"kind\":\"promo\",\"reason\":\"welcome & thanks\",\"amount\":{"
        "\"currency\":\"JPY\",\"micro\":500000000}},{\"kind\":\"sla\",\"incident\":7,"
        "\"reason\":\"cooling\",\"amount\":{\"currency\":\"JPY\",\"micro\":70000000}}],"
        "\"credit_notes\":[{\"number\":\"CN-2026-000003\",\"issued_at\":"
        "\"2026-12-01T20:00:00Z\",\"total\":{\"currency\":\"JPY\",\"micro\":"
        "330000000}}]}",
        0, NULL);
    json_object_update(invoice, more);
    for (int i = 0; i < 2; i++) {
        struct strbuf out = STRBUF_INIT;
        ck_assert_int_eq(invoice_html(invoice, i ? "ja" : "en", tokyo, &out, &err), 0);
        for (int w = 0; w < 4; w++)
            ck_assert_msg(strstr(strbuf_str(&out), words[i][w]) != NULL, "%s",
                          words[i][w]);
        ck_assert_ptr_nonnull(strstr(strbuf_str(&out), ">330<"));
        strbuf_done(&out);
    }
    json_decref(invoice);
    json_decref(more);
}
END_TEST

static const char note[] =
    "{\"number\":\"CN-2026-000003\",\"issued_at\":\"2026-12-01T20:00:00Z\",\"invoice\":"
    "\"INV-2026-000042\",\"of\":{\"issued_at\":\"2026-12-01T00:10:00Z\",\"from\":"
    "\"2026-10-31T15:00:00Z\",\"to\":\"2026-11-30T15:00:00Z\"},\"issuer\":{\"name\":"
    "\"neargpu K.K.\",\"registration\":\"T1234567890123\",\"address\":\"2-2 Ote\\n"
    "Tokyo\"},\"recipient\":\"kagaku-lab\",\"reason\":\"slow\",\"taxes\":[{\"class\":"
    "\"standard\",\"rate_ppm\":100000,\"base\":{\"currency\":\"JPY\",\"micro\":"
    "300000000},\"tax\":{\"currency\":\"JPY\",\"micro\":30000000}}],\"total\":{"
    "\"currency\":\"JPY\",\"micro\":330000000},\"lines\":[{\"description\":"
    "\"reservation X: slow\",\"amount\":{\"currency\":\"JPY\",\"micro\":300000000}}]}";

/* What the law asks of a qualified return invoice. */
START_TEST(test_credit_note)
{
    static const char *const words[2][10] = {
        {"CN-2026-000003", "Credit note", "2026-12-02", "INV-2026-000042", "2026-12-01",
         "2026-11-01 – 2026-11-30", "T1234567890123", "2-2 Ote\nTokyo", "10.0 %",
         "330 JPY"},
        {"CN-2026-000003", "適格返還請求書", "2026年12月2日", "INV-2026-000042",
         "2026年12月1日", "2026年11月1日 – 2026年11月30日", "登録番号: T1234567890123",
         "kagaku-lab 御中", ">30<", "返還金額合計"}};
    json_t *v = json_loads(note, 0, NULL);
    struct err err;
    for (int i = 0; i < 2; i++) {
        struct strbuf out = STRBUF_INIT;
        ck_assert_int_eq(credit_note_html(v, i ? "ja" : "en", tokyo, &out, &err), 0);
        for (int w = 0; w < 10; w++)
            ck_assert_msg(strstr(strbuf_str(&out), words[i][w]) != NULL, "%s",
                          words[i][w]);
        ck_assert_ptr_null(strstr(strbuf_str(&out), "not invoiced yet"));
        strbuf_done(&out);
    }
    /* Before an invoice there is nothing to refer to, and no tax. */
    struct strbuf out = STRBUF_INIT;
    json_object_set_new(v, "of", json_null());
    json_object_set_new(v, "invoice", json_null());
    json_object_set_new(v, "taxes", json_array());
    ck_assert_int_eq(credit_note_html(v, "en", tokyo, &out, &err), 0);
    ck_assert_ptr_nonnull(strstr(strbuf_str(&out), "not invoiced yet"));
    ck_assert_ptr_null(strstr(strbuf_str(&out), "Of invoice"));
    strbuf_done(&out);
    json_object_del(v, "lines");
    ck_assert_int_eq(credit_note_html(v, "en", tokyo, &out, &err), -1);
    json_decref(v);
}
END_TEST

START_TEST(test_text_is_no_markup)
{
    struct strbuf b = STRBUF_INIT;
    char *en = page("en");
    ck_assert_ptr_null(strstr(en, "<script"));
    ck_assert_ptr_nonnull(strstr(en, "&lt;script&gt;"));
    ck_assert_ptr_nonnull(strstr(en, "1-1 &quot;Chiyoda&quot;\nTokyo"));
    ck_assert_ptr_null(strstr(en, "http://www.w3.org/1999/xhtml\" src"));
    free(en);
    html_text(&b, "a\x01<&>\"'\t\n");
    ck_assert_str_eq(strbuf_str(&b), "a\xef\xbf\xbd&lt;&amp;&gt;&quot;&#39;\t\n");
    html_text(&b, NULL);
    strbuf_done(&b);
}
END_TEST

START_TEST(test_no_invoice)
{
    struct strbuf out = STRBUF_INIT;
    struct err err;
    json_t *v = json_pack("{s:s}", "number", "X");
    ck_assert_int_eq(invoice_html(v, "en", tokyo, &out, &err), -1);
    ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    json_decref(v);
    strbuf_done(&out);
    ck_assert(invoice_html_lang("ja") && !invoice_html_lang("fr"));
}
END_TEST

UNIT_MAIN("invoice_html",
          UNIT_CASE(test_fields) UNIT_CASE(test_rates) UNIT_CASE(test_credits)
              UNIT_CASE(test_credit_note) UNIT_CASE(test_text_is_no_markup)
                  UNIT_CASE(test_no_invoice))

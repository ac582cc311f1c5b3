/* test_sim_csv: the CSV reader by a table of texts: what the rows are, or where and why
 * it refuses; numbers; names in order of appearance. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "server/sim/csv.h"
#include "server/sim/names.h"
#include "tests/unit/unit.h"

/* All rows after the header as "[a][b]/[c][d]/", or the refusal. */
static char *read_all(const char *text, size_t len)
{
    struct csv c;
    struct err err = {0};
    struct strbuf out = STRBUF_INIT;
    bool more = false;
    char *copy = xmalloc(len + 1);
    memcpy(copy, text, len + 1);
    int rc = csv_open_take(&c, "f", copy, len, &err);
    while (rc == 0 && (rc = csv_next(&c, &more, &err)) == 0 && more) {
        for (size_t i = 0; i < c.field_count; i++) {
            strbuf_addf(&out, "[%s]", c.fields[i]);
        }
        strbuf_addf(&out, "@%d/", c.line);
    }
    if (rc != 0) {
        strbuf_addf(&out, "refused %s", err.text);
    }
    csv_done(&c);
    strbuf_adds(&out, "");
    return strbuf_steal(&out);
}

START_TEST(rows)
{
    static const struct {
        const char *text, *want;
    } table[] = {
        {"a,b\n1,2\n3,4\n", "[1][2]@2/[3][4]@3/"},
        {"a,b\r\n1,2\r\n3,4", "[1][2]@2/[3][4]@3/"},
        {"a,b\n,\n", "[][]@2/"},
        {"a,b", ""},
        {"a\nx\n", "[x]@2/"},
        {"\"a\",b\n\"1,5\",\"say \"\"no\"\"\"\n", "[1,5][say \"no\"]@2/"},
        {"a,b\n\"\",\"\"\n", "[][]@2/"},
        {"a,b\n\"x\ny\",2\n3,4\n", "[x\ny][2]@2/[3][4]@4/"},
        {"a,b\n1,\"2\"", "[1][2]@2/"},
        {"\xef\xbb\xbf"
         "a,b\n1,2\n",
         "[1][2]@2/"},
        {"a,b\n 1 ,2\n", "[ 1 ][2]@2/"},
        {"", "refused f:1: the file is empty: a header line is missing"},
        {"\xef\xbb\xbf", "refused f:1: the file is empty: a header line is missing"},
        {"a,b\n1\n", "refused f:2: 1 fields, the header has 2"},
        {"a,b\n1,2\n1,2,3\n", "[1][2]@2/refused f:3: 3 fields, the header has 2"},
        {"a,b\n1,2\n\n", "[1][2]@2/refused f:3: an empty line"},
        {"a\n\n", "[]@2/"},
        {"a,b\n1,\"2\n", "refused f:2: a quote is not closed"},
        {"a,b\n1,\"2\"\"", "refused f:2: a quote is not closed"},
        {"a,b\n1,\"2\"x\n", "refused f:2: text after a closing quote"},
        {"a,b\n1,x\"2\"\n",
         "refused f:2: a quote inside a field that does not begin with one"},
        {"a,b\n1,2\r3,4\n", "refused f:2: a CR without LF"},
        {"a,b\n\"1\"\r,4\n", "refused f:2: a CR without LF"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char *got = read_all(table[i].text, strlen(table[i].text));
        ck_assert_str_eq(got, table[i].want);
        free(got);
    }
    char *got = read_all("a,b\n1,\0\n", 8);
    ck_assert_str_eq(got, "refused f:2: a NUL byte: this is no CSV file");
    free(got);
}
END_TEST

START_TEST(columns_by_name)
{
    struct csv c;
    struct err err;
    bool more;
    struct csv_column columns[] = {{"b", true, 0}, {"zz", false, 0}, {"a", true, 0}};
    ck_assert_int_eq(csv_open_take(&c, "f", xstrdup("a,x,b\n1,2,3\n"), 12, &err), 0);
    ck_assert(csv_has(&c, "x") && !csv_has(&c, "y"));
    ck_assert_int_eq(csv_bind(&c, columns, 3, &err), 0);
    ck_assert_int_eq(csv_next(&c, &more, &err), 0);
    ck_assert_str_eq(csv_text(&c, &columns[0]), "3");
    ck_assert_str_eq(csv_text(&c, &columns[1]), "");
    ck_assert_str_eq(csv_text(&c, &columns[2]), "1");
    csv_done(&c);
    ck_assert_int_eq(csv_open_take(&c, "f", xstrdup("a,b,a\n"), 6, &err), 0);
    ck_assert_int_eq(csv_bind(&c, columns, 3, &err), -1);
    ck_assert_str_eq(err.text, "f:1: column a stands there twice");
    columns[0].name = "q";
    ck_assert_int_eq(csv_bind(&c, columns, 3, &err), -1);
    ck_assert_str_eq(err.text, "f:1: column q is missing");
    csv_done(&c);
}
END_TEST

START_TEST(numbers)
{
    static const struct {
        const char *text;
        int64_t whole, micro; /* -1: refused */
    } table[] = {
        {"0", 0, 0},
        {"17", 17, 17000000},
        {"1000", 1000, 1000000000},
        {"1001", -1, -1},
        {"0.5", -1, 500000},
        {"0.0000004", -1, 0},
        {"0.0000005", -1, 1},
        {"12.345678", -1, 12345678},
        {"1e2", -1, 100000000},
        {"2.5e-3", -1, 2500},
        {"", -1, -1},
        {"-1", -1, -1},
        {"+1", -1, -1},
        {" 1", -1, -1},
        {"1 ", -1, -1},
        {"0x10", -1, -1},
        {"nan", -1, -1},
        {"inf", -1, -1},
        {"1e999", -1, -1},
        {"1,5", -1, -1},
        {".5", -1, -1},
        {"99999999999999999999999", -1, -1},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct csv c;
        struct err err;
        bool more;
        struct csv_column column = {"a", true, 0};
        char *text = xasprintf("a\n\"%s\"\n", table[i].text);
        int64_t whole = -1, micro = -1;
        ck_assert_int_eq(csv_open_take(&c, "f", text, strlen(text), &err), 0);
        ck_assert_int_eq(csv_bind(&c, &column, 1, &err), 0);
        ck_assert_int_eq(csv_next(&c, &more, &err), 0);
        int rc = csv_whole(&c, &column, 0, 1000, &whole, &err);
        ck_assert_int_eq(rc, table[i].whole < 0 ? -1 : 0);
        ck_assert_int_eq(whole, table[i].whole);
        rc = csv_micro(&c, &column, 1000000000, &micro, &err);
        ck_assert_msg(rc == (table[i].micro < 0 ? -1 : 0) && micro == table[i].micro,
                      "'%s': %" PRId64, table[i].text, micro);
        csv_done(&c);
    }
}
END_TEST

START_TEST(names_keep_their_order)
{
    struct names n = {0};
    bool is_new;
    char text[16];
    ck_assert_int_eq(names_find(&n, "x"), -1);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 5000; i++) {
            snprintf(text, sizeof text, "name%d", i);
            ck_assert_int_eq(names_add(&n, text, &is_new), i);
            ck_assert(is_new == (round == 0));
        }
    }
    ck_assert_int_eq(n.count, 5000);
    ck_assert_int_eq(names_find(&n, "name4321"), 4321);
    ck_assert_int_eq(names_find(&n, "name5000"), -1);
    names_done(&n);
}
END_TEST

UNIT_MAIN("sim_csv", UNIT_CASE(rows) UNIT_CASE(columns_by_name) UNIT_CASE(numbers)
                         UNIT_CASE(names_keep_their_order))

/* test_adopt: names of cgroups and the list of adopted ones (client/agent/adopt.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/adopt.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

START_TEST(test_paths)
{
    static const struct {
        const char *text, *want; /* NULL: refused */
    } cases[] = {
        {"/a", "a"},
        {"/a/b/", "a/b"},
        {"//a", "a"},
        {"/cg/a", "a"},
        {"/cg/a/b", "a/b"},
        {"/cgroup/a", "cgroup/a"},
        {"/system.slice/a\\x2db.service", "system.slice/a\\x2db.service"},
        {"/a/...", "a/..."},
        {"", NULL},
        {"/", NULL},
        {"/cg", NULL},
        {"/cg/", NULL},
        {"a", NULL},
        {"cg/a", NULL},
        {"/a/../b", NULL},
        {"/..", NULL},
        {"/a/./b", NULL},
        {"/a//b", NULL},
        {"/cg/../a", NULL},
        {"/a\nheld 1 b", NULL},
        {"/a\x7f", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char got[ADOPT_PATH_MAX] = "untouched";
        struct err err;
        int rc = adopt_path("/cg", cases[i].text, got, &err);
        ck_assert_msg((rc == 0) == (cases[i].want != NULL), "%s", cases[i].text);
        ck_assert_str_eq(got, cases[i].want != NULL ? cases[i].want : "untouched");
    }
    char *long_one = xcalloc(1, ADOPT_PATH_MAX + 2), got[ADOPT_PATH_MAX];
    struct err err;
    memset(long_one, 'a', ADOPT_PATH_MAX);
    long_one[0] = '/';
    ck_assert_int_eq(adopt_path("/cg", long_one, got, &err), 0);
    long_one[ADOPT_PATH_MAX] = 'a';
    ck_assert_int_eq(adopt_path("/cg", long_one, got, &err), -1);
    free(long_one);
}
END_TEST

START_TEST(test_overlaps)
{
    ck_assert(adopt_overlaps("a", "a"));
    ck_assert(adopt_overlaps("a", "a/b"));
    ck_assert(adopt_overlaps("a/b", "a"));
    ck_assert(!adopt_overlaps("a", "ab"));
    ck_assert(!adopt_overlaps("ab", "a"));
    ck_assert(!adopt_overlaps("a/b", "a/c"));
    ck_assert(!adopt_overlaps("a/b", "b"));
}
END_TEST

START_TEST(test_list_round_trip)
{
    struct adopted_list *l = xcalloc(1, sizeof(*l)), *got = xcalloc(1, sizeof(*got));
    struct err err;
    for (size_t i = 0; i < ADOPT_MAX; i++) {
        snprintf(l->e[i].path, sizeof(l->e[i].path), "a b/%zu", i);
        l->e[i].ino = UINT64_MAX - i;
        l->e[i].held = i % 2 == 0;
    }
    l->count = ADOPT_MAX;
    char *text = adopt_format(l);
    ck_assert_int_eq(adopt_parse(text, got, &err), 0);
    ck_assert_uint_eq(got->count, ADOPT_MAX);
    for (size_t i = 0; i < ADOPT_MAX; i++) {
        ck_assert_str_eq(got->e[i].path, l->e[i].path);
        ck_assert_uint_eq(got->e[i].ino, l->e[i].ino);
        ck_assert(got->e[i].held == l->e[i].held);
    }
    char *more = xasprintf("%sheld 1 x\n", text);
    ck_assert_int_eq(adopt_parse(more, got, &err), -1); /* one too many */
    free(more);
    free(text);
    free(got);
    free(l);
}
END_TEST

START_TEST(test_damaged_lists)
{
    static const char *const bad[] = {
        "held 1 a",   "held 1\n",      "held a\n",    "held -1 a\n",
        "kept 1 a\n", "held 1 ../a\n", "held 1 /a\n", "held  a\n",
        "\n",         "held 1 \n",     "held 1x a\n", "held 1 a\n\n",
    };
    struct adopted_list *l = xcalloc(1, sizeof(*l));
    struct err err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(adopt_parse(bad[i], l, &err) == -1, "%s", bad[i]);
    ck_assert_int_eq(adopt_parse("", l, &err), 0);
    ck_assert_uint_eq(l->count, 0);
    free(l);
}
END_TEST

UNIT_MAIN("adopt", UNIT_CASE(test_paths) UNIT_CASE(test_overlaps)
                       UNIT_CASE(test_list_round_trip) UNIT_CASE(test_damaged_lists))

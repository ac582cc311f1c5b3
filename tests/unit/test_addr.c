/* addr: host and port as people write them. */
#include <string.h>

#include "client/lib/addr.h"
#include "tests/unit/unit.h"

START_TEST(test_good)
{
    static const struct {
        const char *text, *host, *port;
    } rows[] = {
        {"h:80", "h", "80"},
        {"h", "h", ""},
        {":8443", "", "8443"},
        {"*:0", "*", "0"},
        {"[::1]:443", "::1", "443"},
        {"[fe80::1]", "fe80::1", ""},
        {"10.0.0.1:65535", "10.0.0.1", "65535"},
        {"", "", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct addr a;
        ck_assert_msg(addr_split(rows[i].text, strlen(rows[i].text), &a), "%s",
                      rows[i].text);
        ck_assert_str_eq(a.host, rows[i].host);
        ck_assert_str_eq(a.port, rows[i].port);
    }
}
END_TEST

START_TEST(test_bad)
{
    static const char *const rows[] = {
        "h:",    "h:x",  "h:-1", "h:65536", "h:123456", "::1",   "::1:443",
        "a:1:2", "[::1", "[]:1", "[::1]x",  "[::1]443", "h: 80", "h:+80",
    };
    char longest[ADDR_HOST_MAX + 2];
    struct addr a = {.host = "kept"};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_msg(!addr_split(rows[i], strlen(rows[i]), &a), "%s", rows[i]);
    memset(longest, 'a', sizeof(longest));
    ck_assert(!addr_split(longest, ADDR_HOST_MAX, &a));
    ck_assert(!addr_split("a\0b", 3, &a));
    ck_assert_str_eq(a.host, "kept");
    ck_assert(addr_split(longest, ADDR_HOST_MAX - 1, &a));
    ck_assert(addr_split("h:80/path", 4, &a)); /* only so many bytes are read */
    ck_assert_str_eq(a.port, "80");
}
END_TEST

UNIT_MAIN("addr", UNIT_CASE(test_good) UNIT_CASE(test_bad))

/* test_conf: every kind of key, every refusal with its place, the sample file. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/conf.h"
#include "client/lib/timefmt.h"
#include "tests/unit/unit.h"

struct sample {
    char *name;
    char *empty;
    int64_t count;
    bool on;
    int64_t hold_us;
    int64_t price_micro;
    char **listen;
};

#define AT(member) offsetof(struct sample, member)
static const struct conf_key keys[] = {
    {"name", CONF_STRING, AT(name), "x", "Name of it.", 1, 10},
    {"empty", CONF_STRING, AT(empty), NULL, "Nothing at first."},
    {"count", CONF_INT, AT(count), "3", "How many.", -5, 100},
    {"on", CONF_BOOL, AT(on), "yes", "Whether."},
    {"hold", CONF_DURATION, AT(hold_us), "25s", "How long.", 1, 60 * US_PER_S},
    {"price", CONF_MONEY, AT(price_micro), "1.5", "How dear."},
    {"listen", CONF_LIST, AT(listen), "127.0.0.1:1", "Where; may be repeated."},
};
#define COUNT (sizeof(keys) / sizeof(keys[0]))

static int parse(const char *text, struct sample *s, struct err *e)
{
    *s = (struct sample){0};
    conf_defaults(keys, COUNT, s);
    return conf_parse("f.conf", text, strlen(text), keys, COUNT, s, e);
}

START_TEST(test_defaults)
{
    struct sample s = {0};
    conf_defaults(keys, COUNT, &s);
    ck_assert_str_eq(s.name, "x");
    ck_assert_ptr_null(s.empty);
    ck_assert_int_eq(s.count, 3);
    ck_assert(s.on);
    ck_assert_int_eq(s.hold_us, 25 * US_PER_S);
    ck_assert_int_eq(s.price_micro, 1500000);
    ck_assert_str_eq(s.listen[0], "127.0.0.1:1");
    ck_assert_ptr_null(s.listen[1]);
    conf_done(keys, COUNT, &s);
    ck_assert_ptr_null(s.name);
    ck_assert_ptr_null(s.listen);
}
END_TEST

START_TEST(test_parse)
{
    struct sample s;
    struct err e = {0};
    ck_assert_msg(
        parse("# comment\n"
              "\n"
              "  name =  a#b  # the hash without space belongs to the value\r\n"
              "count=-5\n"
              "on = false\n"
              "\thold = 1m\n"
              "empty =\n"
              "listen = a:1\n"
              "price = 2\n"
              "listen = b = c",
              &s, &e) == 0,
        "%s", e.text);
    ck_assert_str_eq(s.name, "a#b");
    ck_assert_str_eq(s.empty, "");
    ck_assert_int_eq(s.count, -5);
    ck_assert(!s.on);
    ck_assert_int_eq(s.hold_us, 60 * US_PER_S);
    ck_assert_str_eq(s.listen[0], "a:1");
    ck_assert_str_eq(s.listen[1], "b = c");
    ck_assert_ptr_null(s.listen[2]);
    ck_assert_int_eq(conf_set(keys, COUNT, &s, "listen", "c", &e), 0);
    ck_assert_str_eq(s.listen[2], "c");
    ck_assert_int_eq(conf_set(keys, COUNT, &s, "name", "new", &e), 0);
    ck_assert_str_eq(s.name, "new");
    ck_assert_int_eq(conf_set(keys, COUNT, &s, "nmae", "new", &e), -1);
    ck_assert_int_eq(conf_set(keys, COUNT, &s, "count", "x", &e), -1);
    ck_assert_str_eq(e.text, "count: 'x' is not an integer");
    conf_done(keys, COUNT, &s);
}
END_TEST

START_TEST(test_refused)
{
    static const struct {
        const char *text, *message;
    } table[] = {
        {"colour = red", "f.conf:1: unknown key 'colour'"},
        {"\n\nname", "f.conf:3: expected 'key = value', got 'name'"},
        {"= x", "f.conf:1: unknown key ''"},
        {"count = 1\ncount = 1", "f.conf:2: key 'count' is given twice"},
        {"count = 101", "f.conf:1: count: value is outside -5..100"},
        {"count = 1 2", "f.conf:1: count: '1 2' is not an integer"},
        {"count = 9223372036854775808",
         "f.conf:1: count: '9223372036854775808' is not"},
        {"count = +1", "f.conf:1: count: '+1' is not an integer"},
        {"count =", "f.conf:1: count: '' is not an integer"},
        {"on = maybe", "f.conf:1: on: 'maybe' is not yes or no"},
        {"hold = 2m", "f.conf:1: hold: value is outside 1us..1m"},
        {"hold = 5", "f.conf:1: hold: bad duration '5'"},
        {"price = 1,5", "f.conf:1: price: bad amount '1,5'"},
        {"name = elevenchars", "f.conf:1: name: length: value is outside 1..10"},
        {"name = a\x01", "f.conf:1: control character"},
        {"name = a\x7f", "f.conf:1: control character"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct sample s;
        struct err e = {0};
        ck_assert_msg(parse(table[i].text, &s, &e) == -1, "accepted: %s",
                      table[i].text);
        ck_assert_msg(strncmp(e.text, table[i].message, strlen(table[i].message)) == 0,
                      "%s", e.text);
        conf_done(keys, COUNT, &s);
    }
    struct sample s = {0};
    struct err e;
    ck_assert_int_eq(conf_parse("f", "name = a\0b\n", 11, keys, COUNT, &s, &e), -1);
    ck_assert_str_eq(e.text, "f:1: NUL byte in the line");
    conf_done(keys, COUNT, &s);
}
END_TEST

START_TEST(test_sample)
{
    char *text = conf_sample(keys, 3);
    ck_assert_str_eq(text,
                     "# Name of it.\n#name = x\n\n# Nothing at first.\n#empty =\n\n"
                     "# How many.\n#count = 3\n");
    free(text);
    /* The sample as it is changes nothing; with the marks taken off it is the defaults.
     */
    text = conf_sample(keys, COUNT);
    struct sample s;
    ck_assert_int_eq(parse(text, &s, NULL), 0);
    conf_done(keys, COUNT, &s);
    for (char *p = text; (p = strstr(p, "\n#")) != NULL; p++)
        if (p[2] != ' ')
            p[1] = ' ';
    struct err e;
    ck_assert_msg(parse(text, &s, &e) == 0, "%s", e.text);
    ck_assert_int_eq(s.count, 3);
    ck_assert_str_eq(s.listen[0], "127.0.0.1:1");
    ck_assert_ptr_null(s.listen[1]);
    conf_done(keys, COUNT, &s);
    free(text);
}
END_TEST

START_TEST(test_read)
{
    char path[] = "/tmp/test_conf.XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_eq(write(fd, "count = 7\nbad\n", 14), 14);
    close(fd);
    struct sample s = {0};
    struct err e;
    ck_assert_int_eq(conf_read(path, keys, COUNT, &s, &e), -1);
    ck_assert_msg(strstr(e.text, path) == e.text && strstr(e.text, ":2: ") != NULL,
                  "%s", e.text);
    ck_assert_int_eq(s.count, 7);
    unlink(path);
    ck_assert_int_eq(conf_read(path, keys, COUNT, &s, &e), -1);
    ck_assert_int_eq(e.code, ERR_NOT_FOUND);
    conf_done(keys, COUNT, &s);
}
END_TEST

UNIT_MAIN("conf", UNIT_CASE(test_defaults) UNIT_CASE(test_parse) UNIT_CASE(test_refused)
                      UNIT_CASE(test_sample) UNIT_CASE(test_read))

/* fuzz_conf: any bytes as a configuration file. Accepted or refused, values stay within
 * their table's bounds, strings hold no control characters, a refusal names the line,
 * and nothing leaks. */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sample {
    char *name;
    int64_t count, hold_us, price_micro;
    bool on;
    char **listen;
};

#define AT(member) offsetof(struct sample, member)
static const struct conf_key keys[] = {
    {"name", CONF_STRING, AT(name), "x", "Name.", 1, 10},
    {"count", CONF_INT, AT(count), "3", "Count.", -5, 100},
    {"on", CONF_BOOL, AT(on), "yes", "Whether."},
    {"hold", CONF_DURATION, AT(hold_us), "25s", "How long.", 1, 60000000},
    {"price", CONF_MONEY, AT(price_micro), "1.5", "How dear."},
    {"listen", CONF_LIST, AT(listen), "127.0.0.1:1", "Where."},
};
#define COUNT (sizeof(keys) / sizeof(keys[0]))

static void is_plain(const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        assert((unsigned char)*p >= 0x20 || *p == '\t' || *p == '\r');
    size_t len = strlen(text);
    assert(len == 0 || (text[0] != ' ' && text[len - 1] != ' '));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sample s = {0};
    struct err err = {0};
    conf_defaults(keys, COUNT, &s);
    int rc = conf_parse("f", (const char *)data, size, keys, COUNT, &s, &err);
    assert(rc == 0 || strncmp(err.text, "f:", 2) == 0);
    is_plain(s.name);
    assert(strlen(s.name) >= 1 && strlen(s.name) <= 10);
    assert(s.count >= -5 && s.count <= 100 && s.hold_us >= 1 && s.hold_us <= 60000000);
    for (char **p = s.listen; p != NULL && *p != NULL; p++)
        is_plain(*p);
    conf_done(keys, COUNT, &s);
    return 0;
}

/* conf: see conf.h. The pure half: from text to struct and back to a sample. Reading
 * the file is in conf_file.c. A failed parse may leave earlier keys set; programs stop
 * then, and a reload parses into a fresh struct. */
#include "client/lib/conf.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/money.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

static void *conf_target(const struct conf_key *k, void *out)
{
    return (char *)out + k->offset;
}

static int conf_parse_int(const char *text, int64_t *ret, struct err *err)
{
    bool negative = *text == '-';
    int64_t value = 0;
    const char *p = text + (negative ? 1 : 0);
    bool ok = *p != '\0';
    for (; ok && *p != '\0'; p++)
        ok = *p >= '0' && *p <= '9' && !__builtin_mul_overflow(value, 10, &value) &&
             !__builtin_sub_overflow(value, *p - '0', &value);
    if (ok && !negative)
        ok = !__builtin_sub_overflow(0, value, &value);
    if (!ok)
        return err_set(err, ERR_BAD_REQUEST, "'%.40s' is not an integer", text);
    *ret = value;
    return 0;
}

static int conf_parse_bool(const char *text, bool *ret, struct err *err)
{
    static const struct {
        const char *name;
        bool value;
    } words[] = {{"yes", true}, {"true", true}, {"no", false}, {"false", false}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(text, words[i].name) == 0) {
            *ret = words[i].value;
            return 0;
        }
    return err_set(err, ERR_BAD_REQUEST, "'%.40s' is not yes or no", text);
}

static int conf_bounds(const struct conf_key *k, int64_t value, struct err *err)
{
    if ((k->min == 0 && k->max == 0) || (value >= k->min && value <= k->max))
        return 0;
    char low[TIMEFMT_MAX], high[TIMEFMT_MAX];
    if (k->type == CONF_DURATION) {
        timefmt_duration(k->min, low);
        timefmt_duration(k->max, high);
    } else {
        snprintf(low, sizeof(low), "%" PRId64, k->min);
        snprintf(high, sizeof(high), "%" PRId64, k->max);
    }
    return err_set(err, ERR_BAD_REQUEST, "value is outside %s..%s", low, high);
}

static void conf_list_clear(char ***list)
{
    for (char **p = *list; p != NULL && *p != NULL; p++)
        free(*p);
    free(*list);
    *list = NULL;
}

static void conf_list_add(char ***list, const char *value)
{
    size_t n = 0;
    while (*list != NULL && (*list)[n] != NULL)
        n++;
    *list = xreallocarray(*list, n + 2, sizeof(**list));
    (*list)[n] = xstrdup(value);
    (*list)[n + 1] = NULL;
}

static int conf_number(const struct conf_key *k, const char *value, int64_t *ret,
                       struct err *err)
{
    int64_t number;
    int rc = k->type == CONF_INT        ? conf_parse_int(value, &number, err)
             : k->type == CONF_DURATION ? timefmt_parse_duration(value, &number, err)
                                        : money_parse(value, &number, err);
    if (rc != 0 || conf_bounds(k, number, err) != 0)
        return -1;
    *ret = number;
    return 0;
}

static int conf_assign(const struct conf_key *k, void *out, const char *value,
                       struct err *err)
{
    void *target = conf_target(k, out);
    switch (k->type) {
    case CONF_BOOL: return conf_parse_bool(value, target, err);
    case CONF_INT:
    case CONF_DURATION:
    case CONF_MONEY: return conf_number(k, value, target, err);
    case CONF_LIST: conf_list_add(target, value); return 0;
    case CONF_STRING: break;
    }
    if (conf_bounds(k, (int64_t)strlen(value), err) != 0)
        return err_prefix(err, "length");
    free(*(char **)target);
    *(char **)target = xstrdup(value);
    return 0;
}

void conf_defaults(const struct conf_key *keys, size_t count, void *out)
{
    for (size_t i = 0; i < count; i++) {
        struct err err;
        if (keys[i].def != NULL && conf_assign(&keys[i], out, keys[i].def, &err) != 0)
            assert(!"a default of the table does not parse");
    }
}

static const struct conf_key *conf_find(const struct conf_key *keys, size_t count,
                                        const char *name, struct err *err)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    err_set(err, ERR_BAD_REQUEST, "unknown key '%.60s'", name);
    return NULL;
}

int conf_set(const struct conf_key *keys, size_t count, void *out, const char *key,
             const char *value, struct err *err)
{
    const struct conf_key *k = conf_find(keys, count, key, err);
    if (k == NULL)
        return -1;
    if (conf_assign(k, out, value, err) != 0)
        return err_prefix(err, "%s", key);
    return 0;
}

static bool conf_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts the comment and the white space around what is left, in place. */
static char *conf_trim(char *line)
{
    for (char *p = line; *p != '\0'; p++)
        if (*p == '#' && (p == line || conf_is_space(p[-1]))) {
            *p = '\0';
            break;
        }
    while (conf_is_space(*line))
        line++;
    size_t len = strlen(line);
    while (len > 0 && conf_is_space(line[len - 1]))
        line[--len] = '\0';
    return line;
}

/* What one parse needs to know about keys already seen in this file. */
struct conf_file {
    const struct conf_key *keys;
    size_t count;
    void *out;
    bool *seen;
};

static int conf_line(struct conf_file *f, char *line, struct err *err)
{
    for (const char *p = line; *p != '\0'; p++)
        if (((unsigned char)*p < 0x20 && !conf_is_space(*p)) || *p == 0x7f)
            return err_set(err, ERR_BAD_REQUEST, "control character in the line");
    char *text = conf_trim(line);
    if (*text == '\0')
        return 0;
    char *equals = strchr(text, '=');
    if (equals == NULL)
        return err_set(err, ERR_BAD_REQUEST, "expected 'key = value', got '%.60s'",
                       text);
    *equals = '\0';
    char *name = conf_trim(text), *value = conf_trim(equals + 1);
    const struct conf_key *k = conf_find(f->keys, f->count, name, err);
    if (k == NULL)
        return -1;
    size_t index = (size_t)(k - f->keys);
    if (f->seen[index] && k->type != CONF_LIST)
        return err_set(err, ERR_BAD_REQUEST, "key '%s' is given twice", name);
    /* A file's list replaces the one of the defaults; it does not extend it. */
    if (!f->seen[index] && k->type == CONF_LIST)
        conf_list_clear(conf_target(k, f->out));
    f->seen[index] = true;
    if (conf_assign(k, f->out, value, err) != 0)
        return err_prefix(err, "%s", name);
    return 0;
}

int conf_parse(const char *name, const char *text, size_t len,
               const struct conf_key *keys, size_t count, void *out, struct err *err)
{
    struct conf_file f = {keys, count, out, xcalloc(count, sizeof(bool))};
    int rc = 0, number = 0;
    for (size_t at = 0; at < len && rc == 0;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end == NULL ? len - at : (size_t)(end - (text + at));
        number++;
        if (memchr(text + at, '\0', n) != NULL) {
            rc = err_set(err, ERR_BAD_REQUEST, "NUL byte in the line");
        } else {
            char *line = xstrndup(text + at, n);
            rc = conf_line(&f, line, err);
            free(line);
        }
        at += n + 1;
    }
    free(f.seen);
    return rc == 0 ? 0 : err_prefix(err, "%s:%d", name, number);
}

void conf_done(const struct conf_key *keys, size_t count, void *out)
{
    for (size_t i = 0; i < count; i++) {
        void *target = conf_target(&keys[i], out);
        if (keys[i].type == CONF_STRING) {
            free(*(char **)target);
            *(char **)target = NULL;
        } else if (keys[i].type == CONF_LIST) {
            conf_list_clear(target);
        }
    }
}

char *conf_sample(const struct conf_key *keys, size_t count)
{
    struct strbuf b = STRBUF_INIT;
    for (size_t i = 0; i < count; i++)
        strbuf_addf(&b, "%s# %s\n#%s =%s%s\n", i == 0 ? "" : "\n", keys[i].help,
                    keys[i].name, keys[i].def == NULL ? "" : " ",
                    keys[i].def == NULL ? "" : keys[i].def);
    return strbuf_steal(&b);
}

/* conf: `key = value` files, one table per module. Unknown keys, repeated keys and bad
 * values are refused with file and line. `#` starts a comment at the start of a line or
 * after white space. The sample file and the manual are checked against the tables. */
#ifndef NEARGPU_CONF_H
#define NEARGPU_CONF_H
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

enum conf_type {
    CONF_STRING,   /* char * on the heap; owned by the struct */
    CONF_INT,      /* int64_t within [min, max] */
    CONF_BOOL,     /* bool: yes|no|true|false */
    CONF_DURATION, /* int64_t us */
    CONF_MONEY,    /* int64_t micro-units */
    CONF_LIST,     /* char ** NULL-terminated; the key may be repeated, order kept */
};

struct conf_key {
    const char *name;
    enum conf_type type;
    size_t offset;
    const char *def;  /* default as text, NULL: none (string NULL, number 0) */
    const char *help; /* one sentence, goes into the sample file and manual */
    int64_t min, max; /* both 0: no bound */
};

/* Sets every key's default in the zeroed struct. */
void conf_defaults(const struct conf_key *keys, size_t count, void *out);
/* Reads path over what is there. A list named in the file replaces the one that was
 * there; after a failure the struct holds what was read so far. */
int conf_read(const char *path, const struct conf_key *keys, size_t count, void *out,
              struct err *err) MUST_USE;
/* Same from memory; `name` stands for the path in messages (fuzzed). */
int conf_parse(const char *name, const char *text, size_t len,
               const struct conf_key *keys, size_t count, void *out,
               struct err *err) MUST_USE;
/* Sets one key from text, as if read from a file (used by command line options).
 * A list grows by the value. */
int conf_set(const struct conf_key *keys, size_t count, void *out, const char *key,
             const char *value, struct err *err) MUST_USE;
void conf_done(const struct conf_key *keys, size_t count, void *out);
/* The sample file: each key commented, with help and default. Caller frees. */
char *conf_sample(const struct conf_key *keys, size_t count);

#endif

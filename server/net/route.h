/* route: the API as one table, and the finding of a row by method and path.
 *
 * A pattern is literals and {placeholders} between slashes. Of two patterns that fit a
 * path the one with the literal at the first difference wins; two rows that are the
 * same but for the names of their placeholders are a bug (assertion at start). Pure. */
#ifndef NEARGPU_ROUTE_H
#define NEARGPU_ROUTE_H
#include <stddef.h>

#include "client/lib/err.h"
#include "server/flow/flow.h"

enum rate_class {
    RATE_FREE, /* liveness, metrics: never refused */
    RATE_READ,
    RATE_WRITE,
    RATE_SEARCH, /* ranks offers: dear */
    RATE_AGENT,
    RATE_SIGNIN, /* enrolment, wrong keys: by address */
    RATE_CLASSES
};

enum route_flag {
    ROUTE_BODY = 1 << 0,       /* a JSON object must come */
    ROUTE_BODY_MAYBE = 1 << 1, /* may come */
    ROUTE_EVENTS = 1 << 2,     /* answers text/event-stream */
    ROUTE_TEXT = 1 << 3,       /* answers text/plain */
    ROUTE_FORM = 1 << 4, /* the body may be a form; of one, failures are OAuth's */
};

struct route {
    const char *method; /* GET rows answer HEAD as well */
    const char *pattern;
    unsigned roles; /* enum flow_role bits; ROLE_ANON among them: anybody */
    const struct flow_kind *kind;
    enum rate_class rate;
    unsigned flags;
};

struct route_table;

/* rows stay the caller's, and must live as long. */
struct route_table *route_table_new(const struct route *rows, size_t count);
void route_table_free(struct route_table *t);

#define ROUTE_SEGMENTS_MAX 8
#define ROUTE_ALLOW_MAX    64

struct route_match {
    const struct route *route;   /* NULL unless method and path fit */
    char allow[ROUTE_ALLOW_MAX]; /* "GET, HEAD, POST" when the path fits */
};

/* path: raw, without the query. On success adds the decoded path and the placeholders
 * to rq. Errors: ERR_NOT_FOUND, ERR_METHOD (ret->allow is filled), ERR_BAD_REQUEST. */
int route_find(const struct route_table *t, const char *method, const char *path,
               struct flow_request *rq, struct route_match *ret,
               struct err *err) MUST_USE;

#endif

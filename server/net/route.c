/* route: see the header. Rows are split once; a path is split and decoded once, then
 * compared with the rows of the same number of segments. */
#include "server/net/route.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/net/uri.h"

struct segment {
    char *text; /* literal, or the placeholder's name */
    size_t len;
    bool is_param;
};

struct row {
    const struct route *route;
    size_t count;
    struct segment segments[ROUTE_SEGMENTS_MAX];
};

struct route_table {
    size_t count;
    struct row rows[];
};

static void row_split(struct row *row, const struct route *route)
{
    row->route = route;
    const char *p = route->pattern;
    assert(p[0] == '/');
    while (*p == '/') {
        assert(row->count < ROUTE_SEGMENTS_MAX);
        size_t len = strcspn(p + 1, "/");
        struct segment *s = &row->segments[row->count++];
        s->is_param = p[1] == '{';
        if (s->is_param) {
            assert(len > 2 && p[len] == '}');
            s->text = xstrndup(p + 2, len - 2);
        } else {
            s->text = xstrndup(p + 1, len);
        }
        s->len = strlen(s->text);
        p += 1 + len;
    }
}

static bool rows_clash(const struct row *a, const struct row *b)
{
    if (a->count != b->count || strcmp(a->route->method, b->route->method) != 0)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const struct segment *x = &a->segments[i], *y = &b->segments[i];
        if (x->is_param != y->is_param ||
            (!x->is_param && strcmp(x->text, y->text) != 0))
            return false;
    }
    return true;
}

struct route_table *route_table_new(const struct route *rows, size_t count)
{
    struct route_table *t = xcalloc(1, sizeof(*t) + count * sizeof(t->rows[0]));
    t->count = count;
    for (size_t i = 0; i < count; i++) {
        row_split(&t->rows[i], &rows[i]);
        assert(rows[i].kind != NULL && rows[i].roles != 0);
        for (size_t k = 0; k < i; k++)
            assert(!rows_clash(&t->rows[k], &t->rows[i]));
    }
    return t;
}

void route_table_free(struct route_table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->count; i++)
        for (size_t k = 0; k < t->rows[i].count; k++)
            free(t->rows[i].segments[k].text);
    free(t);
}

/* ---- finding ---- */

struct split_path {
    char *segments[ROUTE_SEGMENTS_MAX];
    size_t count;
};

static void split_done(struct split_path *p)
{
    for (size_t i = 0; i < p->count; i++)
        free(p->segments[i]);
}

static int split_path(const char *path, struct split_path *ret, struct err *err)
{
    ret->count = 0;
    while (*path == '/') {
        size_t len = strcspn(path + 1, "/");
        if (ret->count == ROUTE_SEGMENTS_MAX)
            return err_set(err, ERR_NOT_FOUND, "no such path");
        char *text = uri_decode(path + 1, len, "path", err);
        if (text == NULL)
            return -1;
        ret->segments[ret->count++] = text;
        if (strchr(text, '/') != NULL) /* %2F: would be another path when printed */
            return err_set(err, ERR_BAD_REQUEST, "path: encoded slash");
        path += 1 + len;
    }
    return 0;
}

static bool row_fits(const struct row *row, const struct split_path *p)
{
    if (row->count != p->count)
        return false;
    for (size_t i = 0; i < row->count; i++) {
        const struct segment *s = &row->segments[i];
        if (s->is_param ? p->segments[i][0] == '\0'
                        : strcmp(s->text, p->segments[i]) != 0)
            return false;
    }
    return true;
}

/* Whether a is more literal than b, both fitting the same path. */
static bool row_beats(const struct row *a, const struct row *b)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->segments[i].is_param != b->segments[i].is_param)
            return b->segments[i].is_param;
    return false;
}

static void allow_add(char *allow, const char *method)
{
    size_t len = strlen(allow), add = strlen(method);
    if (strstr(allow, method) != NULL || len + add + 3 > ROUTE_ALLOW_MAX)
        return;
    if (len > 0) {
        memcpy(allow + len, ", ", 3);
        len += 2;
    }
    memcpy(allow + len, method, add + 1);
}

static bool method_fits(const struct route *r, const char *method)
{
    return strcmp(r->method, method) == 0 ||
           (strcmp(r->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void request_fill(const struct row *row, const struct split_path *p,
                         struct flow_request *rq)
{
    size_t len = 1;
    for (size_t i = 0; i < p->count; i++)
        len += strlen(p->segments[i]) + 1;
    char *path = xmalloc(len);
    size_t at = 0;
    for (size_t i = 0; i < p->count; i++) {
        size_t n = strlen(p->segments[i]);
        path[at++] = '/';
        memcpy(path + at, p->segments[i], n);
        at += n;
        if (row->segments[i].is_param)
            flow_request_add_param(rq, row->segments[i].text, p->segments[i]);
    }
    path[at] = '\0';
    free(rq->path);
    rq->path = path;
}

int route_find(const struct route_table *t, const char *method, const char *path,
               struct flow_request *rq, struct route_match *ret, struct err *err)
{
    struct split_path p;
    const struct row *best = NULL, *best_any = NULL;
    int rc = -1;
    *ret = (struct route_match){0};
    if (split_path(path, &p, err) < 0)
        goto out;
    for (size_t i = 0; i < t->count; i++) {
        const struct row *row = &t->rows[i];
        if (!row_fits(row, &p))
            continue;
        if (best_any != NULL && row_beats(best_any, row))
            continue; /* "/a/me" hides "/a/{id}", with all its methods */
        if (best_any != NULL && row_beats(row, best_any)) {
            best = NULL;
            ret->allow[0] = '\0';
        }
        best_any = row;
        allow_add(ret->allow, row->route->method);
        if (strcmp(row->route->method, "GET") == 0)
            allow_add(ret->allow, "HEAD");
        if (method_fits(row->route, method))
            best = row;
    }
    if (best_any == NULL) {
        (void)err_set(err, ERR_NOT_FOUND, "no such path");
    } else if (best == NULL) {
        (void)err_set(err, ERR_METHOD, "this path takes %s", ret->allow);
    } else {
        request_fill(best, &p, rq);
        ret->route = best->route;
        rc = 0;
    }
out:
    split_done(&p);
    return rc;
}

/* adopt: the pure half; see adopt.h. */
#include "client/agent/adopt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

/* "a/b": no empty, "." or ".." part, nothing that cannot stand on a line. */
static bool is_relative(const char *path)
{
    size_t len = strlen(path);
    if (len == 0 || len >= ADOPT_PATH_MAX)
        return false;
    for (const char *p = path; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    for (const char *p = path;;) {
        size_t part = strcspn(p, "/");
        if (part == 0 || (part == 1 && p[0] == '.') ||
            (part == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        if (p[part] == '\0')
            return true;
        p += part + 1;
    }
}

int adopt_path(const char *mount, const char *text, char ret[ADOPT_PATH_MAX],
               struct err *err)
{
    size_t len = strlen(mount);
    const char *from = text;
    if (strncmp(text, mount, len) == 0 && (text[len] == '/' || text[len] == '\0'))
        from += len;
    while (*from == '/')
        from++;
    char *path = xstrdup(from);
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/')
        path[--n] = '\0';
    bool fits = text[0] == '/' && is_relative(path);
    if (fits)
        memcpy(ret, path, n + 1);
    free(path);
    if (!fits)
        return err_set(err, ERR_BAD_REQUEST,
                       "%.200s: not a cgroup: write its directory below %s, or its "
                       "line 0:: of /proc/PID/cgroup",
                       text, mount);
    return 0;
}

bool adopt_overlaps(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b), n = la < lb ? la : lb;
    if (strncmp(a, b, n) != 0)
        return false;
    return la == lb || (la < lb ? b : a)[n] == '/';
}

char *adopt_format(const struct adopted_list *l)
{
    struct strbuf b = STRBUF_INIT;
    for (size_t i = 0; i < l->count; i++)
        strbuf_addf(&b, "%s %" PRIu64 " %s\n", l->e[i].held ? "held" : "begun",
                    l->e[i].ino, l->e[i].path);
    char *text = xstrdup(strbuf_str(&b));
    strbuf_done(&b);
    return text;
}

static bool parse_line(char *line, struct adopted *ret)
{
    char *number = strchr(line, ' '), *end = NULL;
    if (number == NULL)
        return false;
    *number++ = '\0';
    ret->held = strcmp(line, "held") == 0;
    if (!ret->held && strcmp(line, "begun") != 0)
        return false;
    if (number[0] < '0' || number[0] > '9')
        return false;
    ret->ino = strtoull(number, &end, 10);
    if (*end != ' ' || !is_relative(end + 1))
        return false;
    memcpy(ret->path, end + 1, strlen(end + 1) + 1);
    return true;
}

int adopt_parse(const char *text, struct adopted_list *ret, struct err *err)
{
    struct adopted_list *l = xcalloc(1, sizeof(*l));
    char *copy = xstrdup(text), *next = copy;
    int rc = 0;
    while (rc == 0 && *next != '\0') {
        char *line = next, *end = strchr(line, '\n');
        if (end == NULL || l->count == ADOPT_MAX) {
            rc = -1;
            break;
        }
        *end = '\0';
        next = end + 1;
        rc = parse_line(line, &l->e[l->count]) ? 0 : -1;
        l->count += rc == 0;
    }
    if (rc == 0)
        *ret = *l;
    else
        err_set(err, ERR_BAD_REQUEST, "the list of adopted cgroups is damaged");
    free(copy);
    free(l);
    return rc;
}

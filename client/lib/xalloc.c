/* xalloc: see xalloc.h. The only place that decides what running out of memory means.
 * It writes with write(2): stdio might want memory itself. */
#include "client/lib/xalloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *xalloc_check(void *p)
{
    if (p == NULL) {
        static const char line[] = "out of memory, aborting\n";
        ssize_t n = write(STDERR_FILENO, line, sizeof(line) - 1);
        (void)n;
        abort();
    }
    return p;
}

/* malloc(0) may return NULL without being out of memory. */
static size_t xalloc_size(size_t size)
{
    return size == 0 ? 1 : size;
}

void *xmalloc(size_t size)
{
    return xalloc_check(malloc(xalloc_size(size)));
}

void *xcalloc(size_t count, size_t size)
{
    return xalloc_check(calloc(xalloc_size(count), xalloc_size(size)));
}

void *xrealloc(void *old, size_t size)
{
    return xalloc_check(realloc(old, xalloc_size(size)));
}

void *xreallocarray(void *old, size_t count, size_t size)
{
    return xalloc_check(reallocarray(old, xalloc_size(count), xalloc_size(size)));
}

char *xstrdup(const char *s)
{
    return xalloc_check(strdup(s));
}

char *xstrndup(const char *s, size_t max)
{
    return xalloc_check(strndup(s, max));
}

char *xasprintf(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    return xalloc_check(n < 0 ? NULL : text);
}

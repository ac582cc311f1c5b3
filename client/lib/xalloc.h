/* xalloc: memory or abort. State lives in PostgreSQL and on disk, so running out of
 * memory has one policy: abort with a line on stderr. */
#ifndef NEARGPU_XALLOC_H
#define NEARGPU_XALLOC_H
#include <stddef.h>

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *old, size_t size);
void *xreallocarray(void *old, size_t count, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t max);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif

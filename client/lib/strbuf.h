/* strbuf: a growing, always NUL-terminated byte string. Pure. */
#ifndef NEARGPU_STRBUF_H
#define NEARGPU_STRBUF_H
#include <stddef.h>

struct strbuf {
    char *data; /* NUL-terminated once anything was added; NULL when empty and new */
    size_t len;
    size_t cap;
};
#define STRBUF_INIT \
    {               \
        NULL, 0, 0  \
    }

void strbuf_done(struct strbuf *b);
void strbuf_add(struct strbuf *b, const void *data, size_t len);
void strbuf_adds(struct strbuf *b, const char *s);
void strbuf_addc(struct strbuf *b, char c);
void strbuf_addf(struct strbuf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Borrowed text, "" when empty. */
const char *strbuf_str(const struct strbuf *b);
/* Hands the heap string to the caller and leaves *b empty. */
char *strbuf_steal(struct strbuf *b);
void strbuf_reset(struct strbuf *b);

#endif

/* lines: a stream of bytes cut into whole lines, each with a label before it, so that
 * several writers can share one terminal. Pure.
 *
 * What has no line end yet is kept, up to LINES_MAX bytes; longer lines are broken
 * there. With a label a carriage return, as progress bars write it, ends a line too. */
#ifndef NEARGPU_LINES_H
#define NEARGPU_LINES_H
#include "client/lib/strbuf.h"

#define LINES_MAX (64 * 1024)

struct lines {
    struct strbuf part; /* the line that has not ended */
};

/* label NULL: none, and nothing but line ends is looked at. Whole lines go to out. */
void lines_take(struct lines *l, const char *label, const void *data, size_t len,
                struct strbuf *out);
/* No more will come: what is kept goes out as a line. Frees. */
void lines_end(struct lines *l, const char *label, struct strbuf *out);

#endif

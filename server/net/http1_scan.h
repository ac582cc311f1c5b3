/* http1_scan: the strict half of HTTP/1.1 reading (RFC 9110, RFC 9112).
 *
 * The library that parses requests for us (http_parser) is lenient: it takes bare LF,
 * blanks before the colon, folded lines, a missing Host, odd versions and sloppy chunk
 * framing. Each of these is a way to make two programs see different requests in the
 * same bytes. Here the raw bytes are judged first: lines as they arrive, the head when
 * it is whole, chunk framing octet by octet. A request passes only when both this
 * module and the library agree on where it ends. Pure. */
#ifndef NEARGPU_HTTP1_SCAN_H
#define NEARGPU_HTTP1_SCAN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP1_TARGET_MAX  4096 /* path and query: our longest query has ~1 kB */
#define HTTP1_METHOD_MAX  20
#define HTTP1_HEADERS_MAX 64 /* browsers and proxies together send about 30 */

enum http1_scan { HTTP1_MORE, HTTP1_DONE, HTTP1_BAD };

/* Why a request was refused. `why` is a constant without quotes or backslashes. */
struct http1_fault {
    int status;
    const char *why;
};

/* ---- finding the end of the head ---- */

struct http1_lines {
    size_t seen;     /* bytes judged so far */
    size_t line;     /* bytes in the current line */
    bool first_done; /* the request line is over */
    bool after_cr;
};

/* Judges data[s->seen .. len). DONE: the head is data[0 .. s->seen), empty line
 * included. data must be all bytes of the head so far. */
enum http1_scan http1_lines_feed(struct http1_lines *s, const char *data, size_t len,
                                 struct http1_fault *fault);

/* ---- judging a whole head ---- */

struct http1_header {
    char *name;  /* lower case after http1_head_terminate() */
    char *value; /* without blanks around it */
    uint16_t name_len, value_len;
};

struct http1_head {
    char *method;
    char *target; /* origin form: starts with '/' */
    size_t method_len, target_len;
    int minor; /* HTTP/1.minor: 0 or 1 */
    struct http1_header headers[HTTP1_HEADERS_MAX];
    size_t header_count;
    bool chunked, has_length, expect_continue;
    uint64_t content_length;
};

/* head: a private copy of the bytes http1_lines_feed() accepted. Fills *ret with spans
 * of it. HTTP1_DONE or HTTP1_BAD. */
enum http1_scan http1_head_split(char *head, size_t len, struct http1_head *ret,
                                 struct http1_fault *fault);
/* Cuts the spans into NUL-terminated strings inside the copy, names in lower case. To
 * be done after the library has read the same bytes. */
void http1_head_terminate(struct http1_head *h);
/* Value of a header by its lower-case name, NULL when it was not sent. */
const char *http1_header(const struct http1_head *h, const char *name);

/* ---- chunk framing ---- */

struct http1_chunks {
    int state;
    int digits;
    uint64_t left;  /* of the current chunk */
    uint64_t total; /* of all chunks */
    uint64_t max;
};

void http1_chunks_init(struct http1_chunks *s, uint64_t max);
/* Judges data; *ret_used bytes of it belong to the message. Neither chunk extensions
 * nor trailers are taken: nobody sends them to us, and they are where parsers differ.
 */
enum http1_scan http1_chunks_feed(struct http1_chunks *s, const char *data, size_t len,
                                  size_t *ret_used, struct http1_fault *fault);

#endif

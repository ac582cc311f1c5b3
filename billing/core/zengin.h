/* zengin: the file in which a Japanese bank is asked to pay (general transfer, sougou
 * furikomi): records of 120 bytes, header 1, data 2, trailer 8, end 9, in JIS X 0201
 * (capital letters, digits and half-width kana, one byte each, as in Shift_JIS).
 * Names come in as UTF-8 with half-width kana (U+FF61..U+FF9F). Yen only. What does not
 * fit into its field is refused, nothing is cut. Pure. */
#ifndef NEARGPU_ZENGIN_H
#define NEARGPU_ZENGIN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/strbuf.h"

#define ZENGIN_RECORD 120

struct zengin_account {
    const char *bank, *bank_name;     /* 4 digits; up to 15 characters, may be "" */
    const char *branch, *branch_name; /* 3 digits; the same */
    const char *type;                 /* 1 ordinary, 2 current, 4 savings, 9 other */
    const char *number;               /* 7 digits */
    const char *holder;               /* up to 30 characters, an ordering party's 40 */
};
struct zengin_payment {
    struct zengin_account to;
    int64_t yen;     /* 1..9,999,999,999 */
    int64_t payment; /* own number, up to 10 digits: customer code 1 */
};

/* Appends the whole file. client: 10 digits that the bank gave; month and day: when to
 * pay. Records end with CRLF when asked. ERR_BAD_REQUEST names the record and field. */
int zengin_file(const struct zengin_account *from, const char *client, int month,
                int day, const struct zengin_payment *payments, size_t count, bool crlf,
                struct strbuf *out, struct err *err) MUST_USE;
/* Appends the text as JIS X 0201; ERR_BAD_REQUEST when a character is not of the set
 * that banks take. Returns the number of bytes, or -1. */
int zengin_text(const char *utf8, struct strbuf *out, struct err *err) MUST_USE;

#endif

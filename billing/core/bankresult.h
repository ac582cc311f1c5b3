/* bankresult: what a bank says became of payouts, read from its file: which were paid
 * and which came back. Two forms:
 *
 * - Zengin, records of 120 bytes in JIS X 0201: header 1 of kind 21 with the client's
 *   code, a data record 2 for each payout as it was asked for, with a result code in
 * byte 112 (0 paid, otherwise come back), a trailer 8 with count and sum of all, of
 * those paid and of those that came back, an end 9. Bytes and codes are those of the
 * result files of account transfers (kouza furikae), which the trailer is too. Records
 * may be followed by CRLF or LF.
 * - CSV (RFC 4180, UTF-8), for any bank: the columns payout,state,date,reason and,
 * after those, amount if the bank tells it. state is done or returned, date YYYY-MM-DD
 * or empty.
 *
 * Nothing is corrected: any record that is not as above, and sums that are not those of
 * the records, refuse the whole file. Which payout a record is about, and whether two
 * are about the same, is not decided here. Pure. */
#ifndef NEARGPU_BANKRESULT_H
#define NEARGPU_BANKRESULT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

#define BANKRESULT_REASON_MAX 200

struct bankresult_row {
    int line;             /* record or line of the file, from 1 */
    int64_t payout;       /* 0: not said */
    int64_t amount_micro; /* -1: not said */
    bool returned;
    char on[11]; /* YYYY-MM-DD, "": not said */
    /* Zengin only, else "" */
    char bank[5], branch[4], type[2], number[8];
    char reason[BANKRESULT_REASON_MAX + 1];
};
struct bankresult {
    bool zengin;     /* or CSV */
    char client[11]; /* Zengin: the client's code */
    struct bankresult_row *rows;
    size_t count; /* at least 1 */
};

/* ERR_BAD_REQUEST names the line and what is wrong with it. Of text with bytes that are
 * no UTF-8, none is a CSV. */
int bankresult_parse(const char *data, size_t len, struct bankresult *ret,
                     struct err *err) MUST_USE;
void bankresult_done(struct bankresult *r);

#endif

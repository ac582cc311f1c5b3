/* bankresult: see bankresult.h. */
#include "billing/core/bankresult.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/core/zengin.h"
#include "client/lib/money.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define ROWS_MAX 100000 /* a file comes in one request, which has room for fewer */

static struct bankresult_row *add_row(struct bankresult *r, int line)
{
    if ((r->count & (r->count - 1)) == 0) /* a power of two: full */
        r->rows =
            xreallocarray(r->rows, r->count > 0 ? r->count * 2 : 1, sizeof(*r->rows));
    struct bankresult_row *row = &r->rows[r->count++];
    *row = (struct bankresult_row){.line = line, .amount_micro = -1};
    return row;
}

static int bad(struct err *err, int line, const char *what)
{
    return err_set(err, ERR_BAD_REQUEST, "line %d: %s", line, what);
}

/* ---- Zengin ---- */

struct sum {
    int64_t count, yen;
};
struct zengin_read {
    struct sum all, paid, back; /* of the records */
    struct bankresult *to;
};

/* Digits at a place from 1 on, as banks count; -1 when one is none. */
static int64_t number_at(const char *record, int place, int width)
{
    int64_t n = 0;
    for (int i = 0; i < width; i++) {
        char c = record[place - 1 + i];
        if (c < '0' || c > '9')
            return -1;
        n = n * 10 + (c - '0');
    }
    return n;
}

/* The same as text, or false. */
static bool digits_at(const char *record, int place, int width, char *ret)
{
    if (number_at(record, place, width) < 0)
        return false;
    memcpy(ret, record + place - 1, (size_t)width);
    ret[width] = '\0';
    return true;
}

static bool is_blank(const char *record, int place, int width)
{
    for (int i = 0; i < width; i++)
        if (record[place - 1 + i] != ' ' && record[place - 1 + i] != '0')
            return false;
    return true;
}

/* Result codes of account transfers; NULL: none. */
static const char *reason_of(char code)
{
    static const char *const reasons[] = {
        "",
        "no funds",
        "no such account",
        "stopped by the account's holder",
        "no mandate",
        NULL,
        NULL,
        NULL,
        "stopped by the ordering party",
        "other reason",
    };
    return code >= '0' && code <= '9' ? reasons[code - '0'] : NULL;
}

static int read_header(struct bankresult *r, const char *record, struct err *err)
{
    if (record[0] != '1')
        return bad(err, 1, "a header (1) is due");
    if (number_at(record, 2, 2) != 21)
        return bad(err, 1, "the file is not about general transfers (kind 21)");
    if (record[3] != '0')
        return bad(err, 1, "the file is not in JIS (code 0)");
    if (!digits_at(record, 5, 10, r->client))
        return bad(err, 1, "the client's code is not 10 digits");
    return 0;
}

static int read_data(struct zengin_read *z, const char *record, int line,
                     struct err *err)
{
    struct bankresult_row *row = add_row(z->to, line);
    int64_t yen = number_at(record, 81, 10);
    const char *reason = reason_of(record[111]);
    if (!digits_at(record, 2, 4, row->bank) || !digits_at(record, 21, 3, row->branch) ||
        !digits_at(record, 43, 1, row->type) || !digits_at(record, 44, 7, row->number))
        return bad(err, line, "bank, branch, type and account are not digits");
    if (yen < 1)
        return bad(err, line, "the amount is none");
    if (reason == NULL)
        return bad(err, line, "the result code (byte 112) is none of 0 1 2 3 4 8 9");
    if (!is_blank(record, 92, 10) && (row->payout = number_at(record, 92, 10)) < 1)
        return bad(err, line, "the customer's code is no number of a payout");
    row->amount_micro = yen * MONEY_MICRO;
    row->returned = record[111] != '0';
    snprintf(row->reason, sizeof(row->reason), "%s", reason);
    struct sum *part = row->returned ? &z->back : &z->paid;
    part->count++;
    part->yen += yen;
    z->all.count++;
    z->all.yen += yen;
    return 0;
}

static int read_trailer(const struct zengin_read *z, const char *record, int line,
                        struct err *err)
{
    static const char *const names[] = {"all", "what was paid", "what came back"};
    const struct sum *sums[] = {&z->all, &z->paid, &z->back};
    for (int i = 0; i < 3; i++) {
        struct sum said = {number_at(record, 2 + 18 * i, 6),
                           number_at(record, 8 + 18 * i, 12)};
        if (said.count != sums[i]->count || said.yen != sums[i]->yen)
            return err_set(err, ERR_BAD_REQUEST,
                           "line %d: the trailer says of %s %lld with %lld yen, the "
                           "records are %lld with %lld yen",
                           line, names[i], (long long)said.count, (long long)said.yen,
                           (long long)sums[i]->count, (long long)sums[i]->yen);
    }
    return 0;
}

/* The next record, or NULL: a record is cut off, or what follows it is no line's end.
 */
static const char *next_record(const char **at, const char *end)
{
    const char *record = *at;
    if (end - record < ZENGIN_RECORD)
        return NULL;
    for (int i = 0; i < ZENGIN_RECORD; i++)
        if (record[i] == '\r' || record[i] == '\n')
            return NULL;
    *at += ZENGIN_RECORD;
    if (*at < end && **at == '\r')
        ++*at;
    if (*at < end && **at == '\n')
        ++*at;
    return record;
}

/* JIS X 0201: what can be seen of ASCII, and half-width kana. */
static bool is_jis(const char *record)
{
    for (int i = 0; i < ZENGIN_RECORD; i++) {
        unsigned char c = (unsigned char)record[i];
        if (c < 0x20 || (c > 0x7e && c < 0xa1) || c > 0xdf)
            return false;
    }
    return true;
}

static int parse_zengin(const char *data, size_t len, struct bankresult *r,
                        struct err *err)
{
    struct zengin_read z = {.to = r};
    const char *at = data, *end = data + len, *record;
    char due = '1';
    for (int line = 1; at < end && *at != 0x1a; line++) { /* ^Z: DOS's end of a file */
        if ((record = next_record(&at, end)) == NULL)
            return bad(err, line, "a record has 120 bytes");
        if (!is_jis(record))
            return bad(err, line, "a byte is none of JIS X 0201");
        if (due == '1' && read_header(r, record, err) == 0)
            due = '2';
        else if (due == '2' && record[0] == '2' && r->count < ROWS_MAX) {
            if (read_data(&z, record, line, err) != 0)
                return -1;
        } else if (due == '2' && record[0] == '8') {
            if (read_trailer(&z, record, line, err) != 0)
                return -1;
            due = '9';
        } else if (due == '9' && record[0] == '9') {
            due = '\0';
        } else {
            return due == '1' ? -1 : bad(err, line, "this kind of record is not due");
        }
    }
    if (due != '\0')
        return err_set(err, ERR_BAD_REQUEST, "the file ends before its end record (9)");
    if (r->count == 0)
        return err_set(err, ERR_BAD_REQUEST, "the file has no payouts");
    return 0;
}

/* ---- CSV ---- */

enum { COL_PAYOUT, COL_STATE, COL_DATE, COL_REASON, COL_AMOUNT, COLS };
struct csv {
    const char *at, *end;
    int line, count;
    struct strbuf field[COLS];
};

/* One field of RFC 4180 into the next place; what ends it stays. */
static int read_field(struct csv *c, struct err *err)
{
    if (c->count == COLS)
        return bad(err, c->line, "there are too many columns");
    struct strbuf *to = &c->field[c->count++];
    bool quoted = c->at < c->end && *c->at == '"';
    strbuf_reset(to);
    for (c->at += quoted; c->at < c->end; c->at++) {
        if (quoted && *c->at == '"') {
            if (c->at + 1 == c->end || c->at[1] != '"')
                break;
            c->at++;
        } else if (!quoted && strchr(",\r\n", *c->at) != NULL && *c->at != '\0') {
            return 0;
        }
        if ((unsigned char)*c->at < 0x20 || *c->at == 0x7f)
            return bad(err, c->line, "a control character");
        strbuf_addc(to, *c->at);
    }
    if (!quoted)
        return 0;
    if (c->at == c->end)
        return bad(err, c->line, "a quote is not closed");
    c->at++;
    if (c->at < c->end && strchr(",\r\n", *c->at) == NULL)
        return bad(err, c->line, "text behind a closing quote");
    return 0;
}

static int read_line(struct csv *c, struct err *err)
{
    c->count = 0;
    c->line++;
    for (;;) {
        if (read_field(c, err) != 0)
            return -1;
        if (c->at == c->end || *c->at != ',')
            break;
        c->at++;
    }
    if (c->at < c->end && *c->at == '\r')
        c->at++;
    if (c->at < c->end && *c->at == '\n')
        c->at++;
    return 0;
}

static int read_head(struct csv *c, struct err *err)
{
    static const char *const names[COLS] = {"payout", "state", "date", "reason",
                                            "amount"};
    if (read_line(c, err) != 0)
        return -1;
    bool same = c->count == COLS || c->count == COLS - 1;
    for (int i = 0; i < c->count && same; i++)
        same = strcmp(strbuf_str(&c->field[i]), names[i]) == 0;
    return same ? 0
                : bad(err, 1,
                      "the columns are payout,state,date,reason and, if the bank tells "
                      "it, amount");
}

static int64_t number_of(const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len > 18 || text[strspn(text, "0123456789")] != '\0')
        return -1;
    return strtoll(text, NULL, 10);
}

static int read_row(struct bankresult *r, struct csv *c, int columns, struct err *err)
{
    if (c->count != columns)
        return bad(err, c->line, "the columns are not those of the first line");
    const char *state = strbuf_str(&c->field[COL_STATE]),
               *day = strbuf_str(&c->field[COL_DATE]),
               *reason = strbuf_str(&c->field[COL_REASON]);
    struct bankresult_row *row = add_row(r, c->line);
    row->payout = number_of(strbuf_str(&c->field[COL_PAYOUT]));
    row->returned = strcmp(state, "returned") == 0;
    if (row->payout < 1)
        return bad(err, c->line, "the payout is no number");
    if (!row->returned && strcmp(state, "done") != 0)
        return bad(err, c->line, "the state is done or returned");
    if (*day != '\0' && !timefmt_is_day(day))
        return bad(err, c->line, "the date is no day such as 2026-11-30");
    if (strlen(reason) > BANKRESULT_REASON_MAX)
        return bad(err, c->line, "the reason is longer than 200 bytes");
    snprintf(row->on, sizeof(row->on), "%s", day);
    snprintf(row->reason, sizeof(row->reason), "%s", reason);
    if (columns == COLS &&
        (money_parse(strbuf_str(&c->field[COL_AMOUNT]), &row->amount_micro, err) != 0 ||
         row->amount_micro < 0))
        return bad(err, c->line, "the amount is none");
    return 0;
}

static bool is_utf8(const char *data, size_t len)
{
    json_t *text = json_stringn(data, len);
    json_decref(text);
    return text != NULL;
}

static int parse_csv(const char *data, size_t len, struct bankresult *r,
                     struct err *err)
{
    struct csv c = {.at = data, .end = data + len};
    if (!is_utf8(data, len) || memchr(data, '\0', len) != NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "the file is neither a Zengin file nor text in UTF-8");
    if (len >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0)
        c.at += 3;
    int rc = read_head(&c, err), columns = c.count;
    while (rc == 0 && c.at < c.end && r->count < ROWS_MAX)
        if ((rc = read_line(&c, err)) == 0)
            rc = read_row(r, &c, columns, err);
    if (rc == 0 && (r->count == 0 || c.at < c.end))
        rc = err_set(err, ERR_BAD_REQUEST, "the file has no payouts, or too many");
    for (int i = 0; i < COLS; i++)
        strbuf_done(&c.field[i]);
    return rc;
}

int bankresult_parse(const char *data, size_t len, struct bankresult *ret,
                     struct err *err)
{
    struct bankresult r = {.zengin = len > 0 && data[0] == '1'};
    int rc =
        r.zengin ? parse_zengin(data, len, &r, err) : parse_csv(data, len, &r, err);
    if (rc != 0)
        bankresult_done(&r);
    else
        *ret = r;
    return rc;
}

void bankresult_done(struct bankresult *r)
{
    free(r->rows);
    r->rows = NULL;
    r->count = 0;
}

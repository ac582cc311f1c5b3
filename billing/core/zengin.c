/* zengin: see zengin.h. */
#include "billing/core/zengin.h"

#include <string.h>

#define FILE_YEN_MAX   INT64_C(999999999999)
#define RECORD_YEN_MAX INT64_C(9999999999)
#define COUNT_MAX      999999

/* Of printable ASCII what banks take in names. */
static bool is_plain(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr(" ().,-/", c) != NULL);
}

/* U+FF61..U+FF9F are EF BD A1..BF and EF BE 80..9F; JIS X 0201 has them at A1..DF. The
 * small kana, the long mark, the full stop, the comma and the middle dot are not used.
 */
static int kana(const unsigned char *p)
{
    int byte;
    if (p[0] != 0xef || (p[1] != 0xbd && p[1] != 0xbe) || (p[2] & 0xc0) != 0x80)
        return -1;
    byte = p[1] == 0xbd ? p[2] : p[2] + 0x40;
    if (byte == 0xa2 || byte == 0xa3 || byte == 0xa6 || (byte >= 0xb1 && byte <= 0xdf))
        return byte;
    return -1;
}

int zengin_text(const char *utf8, struct strbuf *out, struct err *err)
{
    int count = 0;
    for (const unsigned char *p = (const unsigned char *)utf8; *p != '\0'; count++) {
        if (is_plain(*p)) {
            strbuf_addc(out, (char)*p++);
            continue;
        }
        int byte = kana(p);
        if (byte < 0)
            return err_set(err, ERR_BAD_REQUEST,
                           "character %d is none that banks take: capital letters, "
                           "digits, half-width kana and ().,-/ are",
                           count + 1);
        strbuf_addc(out, (char)byte);
        p += 3;
    }
    return count;
}

/* A field of text: on the left, filled with spaces. */
static int put_text(struct strbuf *out, const char *name, const char *text, int width,
                    struct err *err)
{
    int count = zengin_text(text, out, err);
    if (count < 0)
        return err_prefix(err, "%s", name);
    if (count > width)
        return err_set(err, ERR_BAD_REQUEST, "%s: '%.60s' is longer than %d", name,
                       text, width);
    for (; count < width; count++)
        strbuf_addc(out, ' ');
    return 0;
}

/* Exactly so many digits. */
static int put_digits(struct strbuf *out, const char *name, const char *text, int width,
                      struct err *err)
{
    size_t len = strspn(text, "0123456789");
    if (text[len] != '\0' || len != (size_t)width)
        return err_set(err, ERR_BAD_REQUEST, "%s: '%.40s' is not %d digits", name, text,
                       width);
    strbuf_adds(out, text);
    return 0;
}

static void put_number(struct strbuf *out, int64_t n, int width)
{
    strbuf_addf(out, "%0*lld", width, (long long)n);
}

static void put_spaces(struct strbuf *out, int count)
{
    while (count-- > 0)
        strbuf_addc(out, ' ');
}

static int put_place(struct strbuf *out, const struct zengin_account *a,
                     struct err *err)
{
    if (put_digits(out, "bank", a->bank, 4, err) != 0 ||
        put_text(out, "bank's name", a->bank_name, 15, err) != 0 ||
        put_digits(out, "branch", a->branch, 3, err) != 0 ||
        put_text(out, "branch's name", a->branch_name, 15, err) != 0)
        return -1;
    return 0;
}

static int put_number_of(struct strbuf *out, const struct zengin_account *a,
                         struct err *err)
{
    if (put_digits(out, "account's type", a->type, 1, err) != 0)
        return -1;
    if (strchr("1249", a->type[0]) == NULL)
        return err_set(err, ERR_BAD_REQUEST, "account's type: %s is none", a->type);
    return put_digits(out, "account's number", a->number, 7, err);
}

static void end_record(struct strbuf *out, bool crlf)
{
    if (crlf)
        strbuf_adds(out, "\r\n");
}

static int put_header(struct strbuf *out, const struct zengin_account *from,
                      const char *client, int month, int day, struct err *err)
{
    strbuf_adds(out, "1210"); /* header, general transfer, JIS */
    if (put_digits(out, "client code", client, 10, err) != 0 ||
        put_text(out, "holder", from->holder, 40, err) != 0)
        return -1;
    if (month < 1 || month > 12 || day < 1 || day > 31)
        return err_set(err, ERR_BAD_REQUEST, "%02d-%02d is no day", month, day);
    put_number(out, month, 2);
    put_number(out, day, 2);
    if (put_place(out, from, err) != 0 || put_number_of(out, from, err) != 0)
        return -1;
    put_spaces(out, 17);
    return 0;
}

static int put_payment(struct strbuf *out, const struct zengin_payment *p,
                       struct err *err)
{
    if (p->yen < 1 || p->yen > RECORD_YEN_MAX || p->payment < 0 ||
        p->payment > RECORD_YEN_MAX)
        return err_set(err, ERR_BAD_REQUEST, "%lld yen do not fit", (long long)p->yen);
    strbuf_addc(out, '2');
    if (put_place(out, &p->to, err) != 0)
        return -1;
    put_spaces(out, 4); /* clearing house */
    if (put_number_of(out, &p->to, err) != 0 ||
        put_text(out, "holder", p->to.holder, 30, err) != 0)
        return -1;
    put_number(out, p->yen, 10);
    strbuf_addc(out, '0'); /* no new code */
    put_number(out, p->payment, 10);
    put_spaces(out, 10);   /* customer code 2 */
    strbuf_addc(out, '7'); /* by wire */
    put_spaces(out, 8);    /* no EDI; filler */
    return 0;
}

int zengin_file(const struct zengin_account *from, const char *client, int month,
                int day, const struct zengin_payment *payments, size_t count, bool crlf,
                struct strbuf *out, struct err *err)
{
    int64_t sum = 0;
    if (count == 0 || count > COUNT_MAX)
        return err_set(err, ERR_BAD_REQUEST, "a file has 1 to %d payments, not %zu",
                       COUNT_MAX, count);
    if (put_header(out, from, client, month, day, err) != 0)
        return err_prefix(err, "ordering party");
    end_record(out, crlf);
    for (size_t i = 0; i < count; i++) {
        if (put_payment(out, &payments[i], err) != 0)
            return err_prefix(err, "payment %lld", (long long)payments[i].payment);
        sum += payments[i].yen;
        end_record(out, crlf);
    }
    if (sum > FILE_YEN_MAX)
        return err_set(err, ERR_BAD_REQUEST, "%lld yen are more than a file can say",
                       (long long)sum);
    strbuf_addc(out, '8');
    put_number(out, (int64_t)count, 6);
    put_number(out, sum, 12);
    put_spaces(out, 101);
    end_record(out, crlf);
    strbuf_addc(out, '9');
    put_spaces(out, 119);
    end_record(out, crlf);
    return 0;
}

/* ticket: see ticket.h. */
#include "client/agent/ticket.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "client/lib/b64.h"

#define HEAD_LEN (TICKET_ID_LEN + 8 + SHA256_LEN + 1)
#define RAW_MAX  (HEAD_LEN + JOURNAL_ID_MAX + SHA256_LEN)

_Static_assert(B64_ENC_LEN(RAW_MAX) < TICKET_TEXT_MAX, "a ticket fits its text");

void tickets_init(struct tickets *t, const uint8_t secret[SHA256_LEN])
{
    memcpy(t->secret, secret, SHA256_LEN);
    t->used_count = 0;
}

static void seal(const struct tickets *t, const uint8_t *data, size_t len,
                 uint8_t out[SHA256_LEN])
{
    unsigned int got = 0;
    const uint8_t *done =
        HMAC(EVP_sha256(), t->secret, SHA256_LEN, data, len, out, &got);
    assert(done != NULL && got == SHA256_LEN);
}

void ticket_make(const struct tickets *t, const struct ticket_claims *claims,
                 int64_t boot_us, char ret[TICKET_TEXT_MAX])
{
    uint8_t raw[RAW_MAX], *p = raw;
    uint64_t until = (uint64_t)(boot_us + TICKET_LIFE_US);
    size_t lease_len = strlen(claims->lease);
    memcpy(p, claims->id, TICKET_ID_LEN);
    p += TICKET_ID_LEN;
    for (int shift = 56; shift >= 0; shift -= 8)
        *p++ = (uint8_t)(until >> shift);
    memcpy(p, claims->key, SHA256_LEN);
    p += SHA256_LEN;
    *p++ = (uint8_t)lease_len;
    memcpy(p, claims->lease, lease_len);
    p += lease_len;
    seal(t, raw, (size_t)(p - raw), p);
    (void)b64_encode(raw, (size_t)(p - raw) + SHA256_LEN, ret);
}

/* Opens the text; the id's use is not looked at. */
static int open_text(const struct tickets *t, const char *text,
                     struct ticket_claims *ret, int64_t *ret_until, struct err *err)
{
    uint8_t raw[RAW_MAX], want[SHA256_LEN];
    ptrdiff_t len = b64_decode(text, strlen(text), raw, sizeof(raw));
    if (len < HEAD_LEN + SHA256_LEN)
        return err_set(err, ERR_TOKEN, "this is no ticket");
    size_t body = (size_t)len - SHA256_LEN;
    seal(t, raw, body, want);
    if (!digest_equal(want, raw + body, SHA256_LEN))
        return err_set(err, ERR_TOKEN,
                       "the ticket is not of this agent, or of before "
                       "its last start");
    /* From here on the bytes are ours. */
    const uint8_t *p = raw;
    uint64_t until = 0;
    memcpy(ret->id, p, TICKET_ID_LEN);
    p += TICKET_ID_LEN;
    for (int i = 0; i < 8; i++)
        until = until << 8 | *p++;
    memcpy(ret->key, p, SHA256_LEN);
    p += SHA256_LEN;
    size_t lease_len = *p++;
    assert(lease_len < JOURNAL_ID_MAX && HEAD_LEN + lease_len == body);
    memcpy(ret->lease, p, lease_len);
    ret->lease[lease_len] = '\0';
    *ret_until = (int64_t)until;
    return 0;
}

static void forget_expired(struct tickets *t, int64_t boot_us)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->used_count; i++)
        if (t->used[i].until_us > boot_us)
            t->used[kept++] = t->used[i];
    t->used_count = kept;
}

int ticket_take(struct tickets *t, const char *text, int64_t boot_us,
                struct ticket_claims *ret, struct err *err)
{
    struct ticket_claims c;
    int64_t until = 0;
    if (open_text(t, text, &c, &until, err) != 0)
        return -1;
    if (boot_us >= until)
        return err_set(err, ERR_TOKEN, "the ticket has expired: connect again");
    forget_expired(t, boot_us);
    for (size_t i = 0; i < t->used_count; i++)
        if (memcmp(t->used[i].id, c.id, TICKET_ID_LEN) == 0)
            return err_set(err, ERR_TOKEN,
                           "the ticket was used: one session a connection");
    if (t->used_count == TICKET_USED_MAX)
        return err_set(err, ERR_UNAVAILABLE, "too many sessions begin at this time");
    memcpy(t->used[t->used_count].id, c.id, TICKET_ID_LEN);
    t->used[t->used_count++].until_us = until;
    *ret = c;
    return 0;
}

/* spool: see spool.h. */
#include "client/agent/spool.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/b64.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"

struct chain {
    struct usage_chain at;
    int64_t acked;
    int64_t hold_until_us; /* boot time; 0: not on hold */
    bool broken;           /* cannot be read: neither continued nor begun anew */
    struct chain *next;
};

struct spool {
    char *dir;
    EVP_PKEY *key;
    struct chain *chains;
};

static char *receipt_path(const struct spool *s, const char *reservation, int64_t seq)
{
    return xasprintf("%s/%s/%" PRId64, s->dir, reservation, seq);
}

static int read_receipt(const struct spool *s, const char *reservation, int64_t seq,
                        char **ret_text, struct err *err)
{
    char *path = receipt_path(s, reservation, seq);
    int rc = fsx_read(path, RECEIPT_BYTES_MAX, ret_text, NULL, err);
    free(path);
    return rc;
}

/* The payload of a receipt of our own: read back, so the signature is not checked. */
static int decode(const char *text, struct usage_chain *ret, struct err *err)
{
    const char *from = strchr(text, '.'),
               *to = from != NULL ? strchr(from + 1, '.') : NULL;
    if (to == NULL)
        return err_set(err, ERR_BAD_REQUEST, "not a receipt");
    from++;
    size_t cap = B64_DEC_MAX((size_t)(to - from));
    uint8_t *raw = xmalloc(cap + 1);
    ptrdiff_t len = b64_decode(from, (size_t)(to - from), raw, cap);
    json_t *payload = NULL;
    int rc = -1;
    if (len < 0)
        (void)err_set(err, ERR_BAD_REQUEST, "not a receipt");
    else
        payload = jsonx_parse((const char *)raw, (size_t)len, cap + 1, err);
    if (payload != NULL)
        rc = usage_restore(payload, text, ret, err);
    json_decref(payload);
    free(raw);
    return rc;
}

/* Highest number among the file names, 0 when there is none. */
static int64_t newest_seq(const char *dir)
{
    DIR *d = opendir(dir);
    int64_t best = 0;
    const struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL) {
        char *end;
        long long v = strtoll(e->d_name, &end, 10);
        if (isdigit((unsigned char)e->d_name[0]) && *end == '\0' && v > best)
            best = v;
    }
    if (d != NULL)
        closedir(d);
    return best;
}

static int64_t read_acked(const char *dir)
{
    char *path = xasprintf("%s/acked", dir), *text = NULL;
    int64_t v = 0;
    if (fsx_read(path, 32, &text, NULL, NULL) == 0)
        v = strtoll(text, NULL, 10);
    free(text);
    free(path);
    return v;
}

static struct chain *chain_new(struct spool *s, const struct usage_chain *at)
{
    struct chain *c = xcalloc(1, sizeof(*c));
    c->at = *at;
    c->next = s->chains;
    s->chains = c;
    return c;
}

static void load_chain(struct spool *s, const char *reservation)
{
    struct err err;
    struct usage_chain at = {0};
    snprintf(at.reservation, sizeof(at.reservation), "%s", reservation);
    char *dir = xasprintf("%s/%s", s->dir, reservation), *text = NULL;
    int64_t newest = newest_seq(dir);
    if (newest == 0) {
        (void)rmdir(dir); /* died between making the directory and the first receipt */
    } else if (read_receipt(s, reservation, newest, &text, &err) != 0 ||
               decode(text, &at, &err) != 0) {
        log_error("receipts of %s cannot be read (%s): they are left in %s",
                  reservation, err.text, dir);
        chain_new(s, &at)->broken = true;
    } else {
        chain_new(s, &at)->acked = read_acked(dir);
    }
    free(text);
    free(dir);
}

int spool_open(const char *state_dir, EVP_PKEY *key, struct spool **ret,
               struct err *err)
{
    struct spool *s = xcalloc(1, sizeof(*s));
    s->dir = xasprintf("%s/spool", state_dir);
    s->key = key;
    if (fsx_mkdirs(s->dir, 0700, err) != 0) {
        spool_free(s);
        return -1;
    }
    DIR *d = opendir(s->dir);
    const struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL)
        if (uuid_is_valid(e->d_name))
            load_chain(s, e->d_name);
    if (d != NULL)
        closedir(d);
    *ret = s;
    return 0;
}

void spool_free(struct spool *s)
{
    if (s == NULL)
        return;
    while (s->chains != NULL) {
        struct chain *c = s->chains;
        s->chains = c->next;
        free(c);
    }
    free(s->dir);
    free(s);
}

static struct chain *find(const struct spool *s, const char *reservation)
{
    for (struct chain *c = s->chains; c != NULL; c = c->next)
        if (strcmp(c->at.reservation, reservation) == 0)
            return c;
    return NULL;
}

const struct usage_chain *spool_chain(const struct spool *s, const char *reservation)
{
    const struct chain *c = find(s, reservation);
    return c != NULL && !c->broken ? &c->at : NULL;
}

int spool_add(struct spool *s, const char *reservation, const struct usage_point *p,
              struct err *err)
{
    struct chain *c = find(s, reservation);
    struct usage_chain fresh = {0}, next;
    json_t *payload = NULL;
    char *text = NULL, *dir = xasprintf("%s/%s", s->dir, reservation), *path = NULL;
    snprintf(fresh.reservation, sizeof(fresh.reservation), "%s", reservation);
    int rc = 0;
    if (c != NULL && c->broken)
        rc = err_set(err, ERR_INTERNAL, "the receipts in %s cannot be read", dir);
    if (rc == 0)
        rc = usage_next(c != NULL ? &c->at : &fresh, p, &payload, &next, err);
    if (rc == 0)
        rc = jws_sign(s->key, JWS_TYP_USAGE, payload, &text, err);
    if (rc == 0)
        rc = fsx_mkdirs(dir, 0700, err);
    if (rc == 0) {
        path = receipt_path(s, reservation, next.seq);
        rc = fsx_write(path, text, strlen(text), 0600, err);
    }
    if (rc == 0) {
        usage_commit(&next, text);
        if (c == NULL)
            c = chain_new(s, &next);
        c->at = next;
    }
    json_decref(payload);
    free(text);
    free(path);
    free(dir);
    return rc;
}

static bool wants_sending(const struct chain *c, int64_t boot_us)
{
    return !c->broken && c->acked < c->at.seq && c->hold_until_us <= boot_us;
}

bool spool_has_pending(const struct spool *s, int64_t boot_us)
{
    for (const struct chain *c = s->chains; c != NULL; c = c->next)
        if (wants_sending(c, boot_us))
            return true;
    return false;
}

json_t *spool_pending(struct spool *s, size_t max, int64_t boot_us)
{
    json_t *list = json_array();
    size_t bytes = 0;
    for (struct chain *c = s->chains; c != NULL; c = c->next) {
        if (!wants_sending(c, boot_us))
            continue;
        for (int64_t seq = c->acked + 1; seq <= c->at.seq; seq++) {
            struct err err;
            char *text;
            if (json_array_size(list) >= max || bytes > SPOOL_BATCH_BYTES)
                return list;
            if (read_receipt(s, c->at.reservation, seq, &text, &err) != 0) {
                log_error("receipt %" PRId64 " of %s: %s", seq, c->at.reservation,
                          err.text);
                c->hold_until_us = boot_us + SPOOL_HOLD_US;
                break;
            }
            bytes += strlen(text);
            json_array_append_new(list, json_string(text));
            free(text);
        }
    }
    return list;
}

int spool_hash(const struct spool *s, const char *reservation, int64_t seq,
               char ret[SHA256_HEX], struct err *err)
{
    const struct chain *c = find(s, reservation);
    char *text;
    if (c == NULL || c->broken || seq <= c->acked || seq > c->at.seq)
        return err_set(err, ERR_NOT_FOUND, "receipt %" PRId64 " of %.40s is not here",
                       seq, reservation);
    if (read_receipt(s, c->at.reservation, seq, &text, err) != 0)
        return -1;
    digest_sha256_hex(text, strlen(text), ret);
    free(text);
    return 0;
}

static void forget(struct spool *s, struct chain *gone)
{
    struct err err;
    char *dir = xasprintf("%s/%s", s->dir, gone->at.reservation);
    if (fsx_remove_tree(dir, &err) != 0)
        log_warn("%s", err.text);
    for (struct chain **p = &s->chains; *p != NULL; p = &(*p)->next) {
        if (*p == gone) {
            *p = gone->next;
            break;
        }
    }
    free(gone);
    free(dir);
}

void spool_ack(struct spool *s, const char *reservation, int64_t seq)
{
    struct chain *c = find(s, reservation);
    if (c == NULL || seq <= c->acked)
        return;
    if (seq > c->at.seq) {
        log_warn("the market acknowledged receipt %" PRId64 " of %s, of %" PRId64
                 " made",
                 seq, reservation, c->at.seq);
        return;
    }
    if (c->at.last == USAGE_TEARDOWN && seq == c->at.seq) {
        forget(s, c);
        return;
    }
    struct err err;
    char *path = xasprintf("%s/%s/acked", s->dir, reservation);
    char *text = xasprintf("%" PRId64 "\n", seq);
    if (fsx_write(path, text, strlen(text), 0600, &err) == 0) {
        for (int64_t old = c->acked > 0 ? c->acked : 1; old <= seq && old < c->at.seq;
             old++) {
            char *receipt = receipt_path(s, reservation, old);
            (void)unlink(receipt);
            free(receipt);
        }
        c->acked = seq;
    } else {
        log_warn("%s", err.text);
    }
    free(text);
    free(path);
}

void spool_hold(struct spool *s, const char *reservation, int64_t until_boot_us)
{
    struct chain *c = find(s, reservation);
    if (c != NULL)
        c->hold_until_us = until_boot_us;
}

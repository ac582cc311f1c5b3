/* bundle: checks what `GET /v1/log/proof` gives (docs/log.md), offline: every record is
 * in a log whose head is signed by the log's key; every receipt is signed by its node,
 * follows the one before, is the one that was logged, and countersigned by the market's
 * keys (as the bundle's key set says under its root); every capture is the receipts'
 * use at the price that the log has as agreed; every line of an invoice is what was
 * captured for it, and its sums and tax are right; a credit note is what went back.
 * Trusts nothing in the bundle but what it can compute; which keys the logs must have
 * is the caller's to say (a bundle under keys of its own proves only that it agrees
 * with itself), and so is which root the market's own keys must have. Pure. */
#ifndef NEARGPU_BUNDLE_H
#define NEARGPU_BUNDLE_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/merkle.h"
#include "client/lib/note.h"
#include "client/lib/strbuf.h"

#define BUNDLE_FORMAT       "neargpu-bundle-v1"
#define BUNDLE_BYTES_MAX    (64 * 1024 * 1024)
#define BUNDLE_BREACHES_MAX 100
#define BUNDLE_LOGS         2
#define BUNDLE_LOG_MAX      16

/* What a reader remembers of a log between looks. */
struct bundle_log {
    char name[BUNDLE_LOG_MAX]; /* usage, ledger */
    char vkey[NOTE_VKEY_MAX];  /* "": not known yet */
    uint64_t size;             /* 0: nothing seen */
    struct merkle_hash root;
};

struct bundle_result {
    struct bundle_log logs[BUNDLE_LOGS]; /* as in this bundle; size 0: not in it */
    size_t records, receipts, invoices, credit_notes;
    size_t countersigned;   /* receipts that the market has countersigned */
    size_t priced;          /* reservations whose charges were computed anew */
    size_t promised;        /* of them, those with a place in the log still to come */
    char root[JWS_KID_MAX]; /* thumbprint of the root of their keys; "": none */
    bool pinned;            /* every log that is used had a known key */
    size_t breach_count;    /* 0: nothing is wrong */
    struct strbuf breaches; /* a line each, at most BUNDLE_BREACHES_MAX */
};

/* known: what is remembered, by name (name "": unused), or NULL. root: thumbprint of
 * the market's root, "" or NULL: not known, and the result is not pinned. now_us: when
 * the bundle was fetched or is checked; a receipt that is not in the log is a breach
 * from the instant on by which its countersign promised a place (INT64_MAX: each is).
 * ERR_BAD_REQUEST when it is no bundle at all; what is wrong inside one is a breach.
 * bundle_result_done() after success. */
int bundle_check(const json_t *bundle, const struct bundle_log known[BUNDLE_LOGS],
                 const char *root, int64_t now_us, struct bundle_result *ret,
                 struct err *err) MUST_USE;
void bundle_result_done(struct bundle_result *r);

/* A head fetched later ({log, vkey, size, checkpoint, consistency?}) against the one
 * known: same key, signed, and an extension of it. Updates *log. ERR_TOKEN says what is
 * wrong. */
int bundle_follow(const json_t *head, struct bundle_log *log, struct err *err) MUST_USE;

#endif

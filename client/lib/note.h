/* note: C2SP signed notes (c2sp.org/signed-note) and, as their text, log checkpoints
 * (c2sp.org/tlog-checkpoint). A note is text, an empty line, and signature lines
 *
 *   — NAME BASE64(4-byte key hash || 64-byte Ed25519 signature of the text)
 *
 * (an em dash). The key hash is the first four bytes of SHA-256(NAME "\n" 0x01 PUBLIC);
 * a verifier key is written NAME+HEX8+BASE64(0x01 || PUBLIC). Go's sumdb/note reads and
 * writes the same. Signatures by keys that are not asked for are passed over; one that
 * claims the asked key and is wrong fails the note.
 *
 * A witness cosigns a checkpoint (c2sp.org/tlog-cosignature): algorithm byte 0x04, the
 * signature is 8 bytes of time (s, big-endian) and Ed25519 over "cosignature/v1\ntime
 * N\n" and the note's text. It says: I saw this head at N, and it extends every head I
 * cosigned before. Pure. */
#ifndef NEARGPU_NOTE_H
#define NEARGPU_NOTE_H
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/jws.h"
#include "client/lib/merkle.h"
#include "client/lib/strbuf.h"

#define NOTE_NAME_MAX 128
#define NOTE_TEXT_MAX (16 * 1024)
#define NOTE_SIGS_MAX 64
#define NOTE_VKEY_MAX (NOTE_NAME_MAX + 64)

enum note_alg { NOTE_ALG_SIGN = 1, NOTE_ALG_COSIGN = 4 };

struct note_key {
    char name[NOTE_NAME_MAX]; /* no space, no plus sign, not empty */
    enum note_alg alg;
    uint8_t pub[JWS_ED25519_LEN];
};

/* ERR_BAD_REQUEST says what of NAME+HASH+KEY is wrong. */
int note_key_parse(const char *vkey, struct note_key *ret, struct err *err) MUST_USE;
void note_key_print(const struct note_key *k, char out[NOTE_VKEY_MAX]);
/* From a name and the key itself. */
int note_key_make(const char *name, enum note_alg alg, EVP_PKEY *key,
                  struct note_key *ret, struct err *err) MUST_USE;

/* What a node is called as a witness: its SPIFFE id without the scheme; one too long
 * for a name by its market and hash. */
void note_node_name(const char *spiffe_id, char out[NOTE_NAME_MAX]);

/* Text (ends in a newline) under one signature; caller frees. */
int note_sign(const char *text, const char *name, EVP_PKEY *key, char **ret,
              struct err *err) MUST_USE;
/* A witness's line for a note, with its newline; caller frees. */
int note_cosign(const char *note, const char *name, EVP_PKEY *key, int64_t time_s,
                char **ret_line, struct err *err) MUST_USE;
/* When this witness cosigned the note (s since the epoch). ERR_NOT_FOUND when it did
 * not, ERR_TOKEN when a line claims so and is wrong. */
int note_witnessed(const char *note, const struct note_key *witness,
                   int64_t *ret_time_s, struct err *err) MUST_USE;
/* The text of a note that this key signed; ERR_TOKEN when it did not, ERR_BAD_REQUEST
 * when it is no note. Caller frees *ret_text. */
int note_open(const char *note, const struct note_key *key, char **ret_text,
              struct err *err) MUST_USE;

struct checkpoint {
    char origin[NOTE_NAME_MAX]; /* the log's name */
    uint64_t size;
    struct merkle_hash root;
};
char *checkpoint_print(const struct checkpoint *c); /* caller frees */
/* The three lines; extension lines after them are allowed and ignored. */
int checkpoint_parse(const char *text, struct checkpoint *ret,
                     struct err *err) MUST_USE;

#endif

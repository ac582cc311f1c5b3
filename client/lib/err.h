/* err: the one way a fallible function says what went wrong.
 *
 * A fallible function returns int, 0 or -1, and takes `struct err *err` last.
 * The text is one line: what, where, why, what to do. It is filled only on failure.
 * Codes are fixed numbers: they appear on the wire (problem+json `code` by name), in
 * logs and, through err_exit_status(), as exit status. Never renumber. Pure. */
#ifndef NEARGPU_ERR_H
#define NEARGPU_ERR_H

#include <stddef.h>

enum err_code {
    ERR_NONE = 0,
    ERR_INTERNAL = 1,  /* a bug or an exhausted resource of ours */
    ERR_USAGE = 2,     /* wrong option, argument or command */
    ERR_NO_FIT = 3,    /* nothing fits the request; the text says why */
    ERR_FORBIDDEN = 4, /* authenticated, but not allowed */
    ERR_NOT_FOUND = 5,
    ERR_CONFLICT = 6,     /* lost race, wrong state, generation mismatch */
    ERR_FUNDS = 7,        /* wallet does not cover the hold */
    ERR_UNREACHABLE = 8,  /* peer cannot be reached; nothing was done */
    ERR_UNKNOWN = 9,      /* sent, but the outcome is not known: retry same key */
    ERR_BAD_REQUEST = 20, /* malformed or invalid input, with the place */
    ERR_TOO_LARGE = 21,   /* over a documented bound */
    ERR_UNAUTHENTICATED = 22,
    ERR_RATE_LIMITED = 23,
    ERR_IO = 24,         /* the operating system said no; text has errno */
    ERR_KEY_REUSED = 25, /* idempotency key seen with another body */
    ERR_TIMEOUT = 26,
    ERR_UNAVAILABLE = 27, /* not ready now (starting, stopping, overloaded) */
    ERR_METHOD = 28,      /* method not allowed on this path */
    ERR_TOKEN = 29,       /* a token or proof was refused; the text names the step */
    ERR_QUOTA = 30,       /* a limit of the tenant or provider was reached */
    ERR_CLONED = 31,      /* two agents go on with one node's identity */
    ERR_BANNED = 32,      /* the market deals with this node no more */
    ERR_BUDGET = 33,      /* the tenant's own hard budget does not cover it */
};

#define ERR_TEXT_MAX 400

struct err {
    enum err_code code;
    char text[ERR_TEXT_MAX];
};

/* Fills *err (may be NULL) and returns -1, so callers write `return err_set(...)`. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* As err_set with ERR_IO; appends ": <strerror(errno_value)>". */
int err_sys(struct err *err, int errno_value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts context before the existing text ("CONTEXT: text"). Returns -1. */
int err_prefix(struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Stable snake_case name ("no_fit") as used on the wire; never NULL. */
const char *err_code_name(enum err_code code);
/* Inverse; ERR_INTERNAL for an unknown name. */
enum err_code err_code_from_name(const char *name);
/* 0..9 as in the CLI's documented exit codes; all others are 1, ERR_BAD_REQUEST 2. */
int err_exit_status(enum err_code code);
/* The HTTP status that carries this code (404 for ERR_NOT_FOUND ...). */
int err_http_status(enum err_code code);

/* Result must be used. */
#define MUST_USE __attribute__((warn_unused_result))

#endif

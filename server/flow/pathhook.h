/* pathhook: has the operator's own equipment light or release a booked path, by a
 * program that the operator wrote or by an HTTPS request (which is made by a program
 * too: this one, `neargpud post-hook`, so that a slow peer blocks nobody).
 *
 *     PROGRAM light|release NAME      with the job as JSON on standard input
 *
 * Exit status 0 means done; anything else, or no end within the time limit, means: ask
 * again later, with the same text. The program must therefore be idempotent: what it is
 * told is the wanted state. Its last words on standard error are kept as the reason. It
 * runs in a process group of its own, with an empty environment but PATH, no open files
 * of ours, and is killed with all of its group when its time is over.
 *
 * Edge: starts processes, uses libevent. Knows nothing of paths, retries or the
 * database. */
#ifndef NEARGPU_FLOW_PATHHOOK_H
#define NEARGPU_FLOW_PATHHOOK_H
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

/* Programs at one time: equipment controllers are slow and few. */
#define PATHHOOK_RUNNING_MAX 4
#define PATHHOOK_LIMIT_US    INT64_C(30000000)
#define PATHHOOK_WORDS_MAX   300 /* of standard error, kept */

struct pathhook;

struct pathhook_opts {
    struct event_base *base;
    const char *hook; /* absolute path of a program, or https://… */
    /* For a URL: the CA to trust, and a file with a bearer token (NULL: none). */
    const char *ca_file, *key_file;
    int64_t limit_us; /* 0: PATHHOOK_LIMIT_US */
};
bool pathhook_is_url(const char *hook);
/* NULL hook: NULL. Copies opts. */
struct pathhook *pathhook_new(const struct pathhook_opts *opts);
/* Kills what runs; no callbacks. */
void pathhook_free(struct pathhook *h);
/* How many more may be started now. */
size_t pathhook_room(const struct pathhook *h);

/* err NULL: it is done. Called from the event loop, exactly once. */
typedef void pathhook_done_fn(void *arg, uint64_t id, const struct err *err);
struct pathhook_job {
    const char *action, *name, *json;
    pathhook_done_fn *done;
    void *arg;
    uint64_t id;
};
/* ERR_UNAVAILABLE without room. Copies job. */
int pathhook_start(struct pathhook *h, const struct pathhook_job *job,
                   struct err *err) MUST_USE;

#endif

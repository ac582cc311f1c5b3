/* runauth: may this request be served? The steps of docs/tokens.md in their order, each
 * named in a refusal: request → the token's own (size … details) → status → epoch →
 * possession → actions → time → gpu. What changes something (policy, journal, gate,
 * launch) comes after it. */
#ifndef NEARGPU_AGENT_RUNAUTH_H
#define NEARGPU_AGENT_RUNAUTH_H
#include "client/agent/agent.h"

enum runauth_kind {
    RUNAUTH_LAUNCH,
    RUNAUTH_ATTACH,
    RUNAUTH_JOBS,
    RUNAUTH_STOP,
    RUNAUTH_ADOPT
};

struct runauth {
    enum runauth_kind kind;
    struct token_claims claims;
    char argv_hash[JWS_KID_MAX];
    char **argv, **envp;       /* launch; NULL-terminated, heap; adopt: the cgroup */
    char *cwd;                 /* NULL: none */
    struct launch_file *files; /* launch */
    size_t file_count;
    bool want_stdin;
    bool pty; /* launch: a terminal of this size (0: the default) */
    uint16_t rows, cols;
    char *term;     /* NULL: none */
    char *image;    /* launch; NULL: none */
    char *job;      /* attach: NULL: the latest */
    int64_t offset; /* attach */
};

/* type: the frame's ('l', 'a', 'j', 'k', 'd'). On failure *ret_step names the step. */
int runauth_check(struct agent *a, char type, const void *data, size_t len,
                  const char *nonce, struct runauth *ret, const char **ret_step,
                  struct err *err) MUST_USE;
void runauth_done(struct runauth *r);

#endif

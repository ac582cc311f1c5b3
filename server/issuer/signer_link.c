/* signer_link: the signer as a process of its own: both ends of its socket. A request
 * is a head {kind, length} and the structure of a grant, or the JSON of another; the
 * answer a head {error code, length} and the token or the error's text. */
#include "server/issuer/signer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/xalloc.h"

#define BODY_MAX  (1024 * 1024) /* a status document's ids, and room */
#define ANSWER_MS 5000          /* a signer that needs longer hangs */

enum kind { KIND_GRANT = 1, KIND_STATUS, KIND_ACK };
struct head {
    uint32_t what; /* enum kind; answers: enum err_code */
    uint32_t len;
};
static int write_all(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* timeout_ms -1: as long as it takes. */
static int read_all(int fd, void *data, size_t len, int timeout_ms)
{
    char *p = data;
    while (len > 0) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int rc = timeout_ms < 0 ? 1 : poll(&ready, 1, timeout_ms);
        if (rc < 0 && errno == EINTR)
            continue;
        ssize_t n = rc <= 0 ? -1 : read(fd, p, len);
        if (n < 0 && rc > 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* ---- the signer's side ---- */

#define END_TEXT(array) (array)[sizeof(array) - 1] = '\0'

/* Whatever the bytes are: texts that end, counts within bounds. */
static int answer_grant(const struct keystore *keys, void *body, size_t len,
                        char **ret_token, struct err *err)
{
    struct token_claims *c = body;
    if (len != sizeof(*c) || c->lease.gpu_count > GPUS_PER_NODE_MAX)
        return err_set(err, ERR_INTERNAL, "signer: a grant has another form");
    END_TEXT(c->aud);
    END_TEXT(c->sub);
    END_TEXT(c->client_id);
    END_TEXT(c->jti);
    END_TEXT(c->jkt);
    END_TEXT(c->act);
    END_TEXT(c->lease.reservation);
    for (size_t i = 0; i < c->lease.gpu_count; i++)
        END_TEXT(c->lease.gpus[i]);
    return signer_grant(keys, c, ret_token, err);
}

/* {now_us, seq, revoked, min_epochs} */
static int answer_status(const struct keystore *keys, const json_t *v, char **ret_token,
                         struct err *err)
{
    const json_t *list = json_object_get(v, "revoked"), *id;
    size_t i, count = json_array_size(list);
    const char **ids = xcalloc(count + 1, sizeof(*ids));
    json_array_foreach(list, i, id)
    {
        ids[i] = json_string_value(id);
        if (ids[i] == NULL)
            ids[i] = "";
    }
    struct issuer_status doc = {json_integer_value(json_object_get(v, "now_us")),
                                json_integer_value(json_object_get(v, "seq")), ids,
                                count, json_object_get(v, "min_epochs")};
    int rc = signer_status(keys, &doc, ret_token, err);
    free(ids);
    return rc;
}

static const char *text_of(const json_t *v, const char *name)
{
    const char *text = json_string_value(json_object_get(v, name));
    return text != NULL ? text : "";
}

static int answer_ack(const struct keystore *keys, const json_t *v, char **ret_token,
                      struct err *err)
{
    struct issuer_ack ack = {json_integer_value(json_object_get(v, "now_us")),
                             text_of(v, "reservation"),
                             text_of(v, "node"),
                             json_integer_value(json_object_get(v, "seq")),
                             text_of(v, "hash"),
                             text_of(v, "prev_hash")};
    return signer_ack(keys, &ack, ret_token, err);
}

static int answer(const struct keystore *keys, uint32_t kind, void *body, size_t len,
                  char **ret_token, struct err *err)
{
    if (kind == KIND_GRANT)
        return answer_grant(keys, body, len, ret_token, err);
    json_t *v = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
    int rc;
    if (v == NULL)
        rc = err_set(err, ERR_INTERNAL, "signer: what was sent is no JSON");
    else if (kind == KIND_STATUS)
        rc = answer_status(keys, v, ret_token, err);
    else if (kind == KIND_ACK)
        rc = answer_ack(keys, v, ret_token, err);
    else
        rc = err_set(err, ERR_INTERNAL, "signer: kind %u", kind);
    json_decref(v);
    return rc;
}

static int serve_one(int fd, const struct keystore *keys, void *body)
{
    struct head head;
    struct err err = {ERR_NONE, ""};
    char *token = NULL;
    if (read_all(fd, &head, sizeof(head), -1) != 0 || head.len > BODY_MAX ||
        read_all(fd, body, head.len, -1) != 0)
        return -1;
    int rc = answer(keys, head.what, body, head.len, &token, &err);
    const char *text = rc == 0 ? token : err.text;
    struct head reply = {rc == 0 ? ERR_NONE : err.code, (uint32_t)strlen(text)};
    rc =
        write_all(fd, &reply, sizeof(reply)) != 0 || write_all(fd, text, reply.len) != 0
            ? -1
            : 0;
    free(token);
    return rc;
}

/* Everything but this ends the process: memory, the socket, time for OpenSSL. */
static int lock_down(void)
{
    static const int calls[] = {
        SCMP_SYS(read),       SCMP_SYS(write),        SCMP_SYS(sendto),
        SCMP_SYS(exit_group), SCMP_SYS(exit),         SCMP_SYS(brk),
        SCMP_SYS(munmap),     SCMP_SYS(mremap),       SCMP_SYS(madvise),
        SCMP_SYS(futex),      SCMP_SYS(rt_sigreturn), SCMP_SYS(clock_gettime),
        SCMP_SYS(getrandom),  SCMP_SYS(getpid),       SCMP_SYS(close),
    };
    struct rlimit none = {0, 0};
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int rc = ctx == NULL ? -1 : 0;
    for (size_t i = 0; rc == 0 && i < sizeof(calls) / sizeof(calls[0]); i++)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    /* New memory, never of a file and never executable. */
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                              SCMP_A4(SCMP_CMP_MASKED_EQ, 0x80000000u, 0x80000000u),
                              SCMP_A2(SCMP_CMP_MASKED_EQ, 4, 0));
    if (rc == 0 &&
        (setrlimit(RLIMIT_CORE, &none) != 0 || setrlimit(RLIMIT_NOFILE, &none) != 0 ||
         prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0))
        rc = -1;
    if (rc == 0)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    return rc == 0 ? 0 : -1;
}

/* OpenSSL loads what it needs on first use: before the door is closed. */
static int warm_up(const struct keystore *keys, int64_t now_us, struct err *err)
{
    struct issuer_status doc = {.now_us = now_us};
    char *token;
    if (signer_status(keys, &doc, &token, err) != 0)
        return -1;
    free(token);
    return 0;
}

int signer_main(int fd, const char *dir)
{
    struct keystore *keys;
    struct err err;
    void *body = xmalloc(BODY_MAX + 1);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (keystore_open_existing(dir, &keys, &err) != 0) {
        fprintf(stderr, "neargpud: signer: %s\n", err.text);
        return 1;
    }
    (void)warm_up(keys, keystore_set(keys)->keys[0].not_before_us, &err);
    if (lock_down() != 0) {
        fprintf(stderr, "neargpud: signer: it cannot be confined\n");
        return 1;
    }
    while (serve_one(fd, keys, body) == 0)
        ;
    keystore_free(keys);
    free(body);
    return 0;
}

/* ---- the server's side ---- */

struct signer_link {
    char *exe, *dir;
    pid_t pid; /* 0: none */
    int fd;
};

static void end(struct signer_link *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    if (l->pid > 0) {
        (void)kill(l->pid, SIGKILL); /* it has nothing to finish */
        while (waitpid(l->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    l->pid = 0;
}

static int start(struct signer_link *l, struct err *err)
{
    int fds[2];
    char fd_text[16];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return err_sys(err, errno, "signer: socketpair");
    snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
    char *const argv[] = {(char *)(uintptr_t) "neargpud", (char *)(uintptr_t) "signer",
                          fd_text, l->dir, NULL};
    char *const envp[] = {NULL};
    pid_t pid = fork();
    if (pid == 0) { /* one descriptor and standard error, an empty environment */
        if (fds[1] > 3)
            close_range(3, (unsigned)fds[1] - 1, 0);
        close_range((unsigned)fds[1] + 1, ~0U, 0);
        if (fcntl(fds[1], F_SETFD, 0) == 0)
            execve(l->exe, argv, envp);
        _exit(127);
    }
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return err_sys(err, errno, "signer: fork");
    }
    l->pid = pid;
    l->fd = fds[0];
    return 0;
}

int signer_link_open(const char *exe, const char *dir, struct signer_link **ret,
                     struct err *err)
{
    struct signer_link *l = xcalloc(1, sizeof(*l));
    l->exe = xstrdup(exe != NULL ? exe : "/proc/self/exe");
    l->dir = xstrdup(dir);
    l->fd = -1;
    if (start(l, err) != 0) {
        signer_link_free(l);
        return -1;
    }
    *ret = l;
    return 0;
}

void signer_link_free(struct signer_link *l)
{
    if (l == NULL)
        return;
    end(l);
    free(l->exe);
    free(l->dir);
    free(l);
}

int signer_link_restart(struct signer_link *l, struct err *err)
{
    end(l);
    return start(l, err);
}

/* 0: *ret and *ret_code are the signer's answer. */
static int exchange(struct signer_link *l, uint32_t kind, const void *body, size_t len,
                    char **ret, uint32_t *ret_code)
{
    struct head head = {kind, (uint32_t)len}, answer;
    if (l->fd < 0 || write_all(l->fd, &head, sizeof(head)) != 0 ||
        write_all(l->fd, body, len) != 0 ||
        read_all(l->fd, &answer, sizeof(answer), ANSWER_MS) != 0 ||
        answer.len > BODY_MAX)
        return -1;
    char *text = xmalloc((size_t)answer.len + 1);
    if (read_all(l->fd, text, answer.len, ANSWER_MS) != 0) {
        free(text);
        return -1;
    }
    text[answer.len] = '\0';
    *ret = text;
    *ret_code = answer.what;
    return 0;
}

static int ask(struct signer_link *l, uint32_t kind, const void *body, size_t len,
               char **ret_token, struct err *err)
{
    uint32_t code;
    char *text;
    if (exchange(l, kind, body, len, &text, &code) != 0 &&
        (signer_link_restart(l, err) != 0 ||
         exchange(l, kind, body, len, &text, &code) != 0))
        return err_set(err, ERR_UNAVAILABLE, "the signer does not answer");
    if (code != ERR_NONE) {
        err_set(err, (enum err_code)code, "%s", text);
        free(text);
        return -1;
    }
    *ret_token = text;
    return 0;
}

int signer_link_grant(struct signer_link *l, const struct token_claims *claims,
                      char **ret_token, struct err *err)
{
    return ask(l, KIND_GRANT, claims, sizeof(*claims), ret_token, err);
}

static int ask_json(struct signer_link *l, uint32_t kind, json_t *take_body,
                    char **ret_token, struct err *err)
{
    char *text = jsonx_dump(take_body);
    size_t len = strlen(text);
    int rc = len > BODY_MAX ? err_set(err, ERR_TOO_LARGE,
                                      "the signer takes at most %d bytes", BODY_MAX)
                            : ask(l, kind, text, len, ret_token, err);
    free(text);
    json_decref(take_body);
    return rc;
}

int signer_link_status(struct signer_link *l, const struct issuer_status *doc,
                       char **ret_token, struct err *err)
{
    if (doc->revoked_count > STATUS_REVOKED_MAX)
        return err_set(err, ERR_TOO_LARGE, "%zu revoked leases, at most %d fit",
                       doc->revoked_count, STATUS_REVOKED_MAX);
    json_t *revoked = json_array();
    for (size_t i = 0; i < doc->revoked_count; i++)
        json_array_append_new(revoked, json_string(doc->revoked[i]));
    json_t *body = json_pack("{s:I, s:I, s:o}", "now_us", (json_int_t)doc->now_us,
                             "seq", (json_int_t)doc->seq, "revoked", revoked);
    if (doc->min_epochs != NULL)
        json_object_set(body, "min_epochs", (json_t *)(uintptr_t)doc->min_epochs);
    return ask_json(l, KIND_STATUS, body, ret_token, err);
}

int signer_link_ack(struct signer_link *l, const struct issuer_ack *ack,
                    char **ret_token, struct err *err)
{
    json_t *body =
        json_pack("{s:I, s:s, s:s, s:I, s:s, s:s}", "now_us", (json_int_t)ack->now_us,
                  "reservation", ack->reservation, "node", ack->node, "seq",
                  (json_int_t)ack->seq, "hash", ack->hash, "prev_hash", ack->prev_hash);
    return ask_json(l, KIND_ACK, body, ret_token, err);
}

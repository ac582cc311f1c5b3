/* sshagent: see sshagent.h. One connection a request. What the agent says is judged
 * like any input; a signature that is not the key's is refused here. */
#include "client/lib/sshagent.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define MESSAGE_MAX (256 * 1024)    /* OpenSSH's own bound */
#define ANSWER_US   (60 * US_PER_S) /* somebody may have to touch a token */
#define SIG_LEN     64

enum {
    AGENT_FAILURE = 5,
    ASK_LIST = 11,
    TELL_LIST = 12,
    ASK_SIGN = 13,
    TELL_SIGN = 14
};

struct reply {
    uint8_t *data;
    size_t len, at;
};

static void put_u32(struct strbuf *b, size_t v)
{
    const uint8_t be[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
                           (uint8_t)v};
    strbuf_add(b, be, sizeof(be));
}

static bool take_u32(struct reply *r, size_t *ret)
{
    const uint8_t *p = r->data + r->at;
    if (r->len - r->at < 4)
        return false;
    *ret = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    r->at += 4;
    return true;
}

static bool take_string(struct reply *r, const uint8_t **ret, size_t *len)
{
    if (!take_u32(r, len) || *len > r->len - r->at)
        return false;
    *ret = r->data + r->at;
    r->at += *len;
    return true;
}

static int dial_agent(const char *path, struct err *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (path == NULL)
        path = getenv("SSH_AUTH_SOCK");
    if (path == NULL || *path == '\0')
        return err_set(err, ERR_UNREACHABLE,
                       "no ssh-agent: SSH_AUTH_SOCK is not set (eval $(ssh-agent))");
    if (strlen(path) >= sizeof(at.sun_path))
        return err_set(err, ERR_UNREACHABLE, "SSH_AUTH_SOCK is too long");
    memcpy(at.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, errno, "socket");
    if (connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0)
        return fd;
    int why = errno;
    close(fd);
    return err_set(err, ERR_UNREACHABLE, "no ssh-agent at %s: %s", path, strerror(why));
}

/* All of it, in or out, until the deadline. */
static int move_all(int fd, uint8_t *data, size_t len, bool out, int64_t until_us,
                    struct err *err)
{
    size_t done = 0;
    while (done < len) {
        struct pollfd p = {fd, out ? POLLOUT : POLLIN, 0};
        int64_t left = (until_us - clock_boot_us()) / 1000;
        if (left <= 0)
            return err_set(err, ERR_UNREACHABLE, "the ssh-agent did not answer");
        if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
            return err_sys(err, errno, "poll");
        ssize_t n = out ? send(fd, data + done, len - done, MSG_NOSIGNAL)
                        : recv(fd, data + done, len - done, 0);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return err_set(err, ERR_UNREACHABLE, "the ssh-agent hung up");
    }
    return 0;
}

/* Sends the message (type and body) and takes the whole answer; caller frees data. */
static int ask(const char *path, const struct strbuf *message, int want,
               struct reply *ret, struct err *err)
{
    struct strbuf frame = STRBUF_INIT;
    int64_t until_us = clock_boot_us() + ANSWER_US;
    uint8_t head[4];
    int fd = dial_agent(path, err);
    if (fd < 0)
        return -1;
    put_u32(&frame, message->len);
    strbuf_add(&frame, message->data, message->len);
    int rc = move_all(fd, (uint8_t *)frame.data, frame.len, true, until_us, err);
    strbuf_done(&frame);
    if (rc == 0)
        rc = move_all(fd, head, sizeof(head), false, until_us, err);
    struct reply r = {head, sizeof(head), 0};
    size_t len = 0;
    if (rc == 0 && (!take_u32(&r, &len) || len == 0 || len > MESSAGE_MAX))
        rc = err_set(err, ERR_UNREACHABLE, "the ssh-agent's answer has no good length");
    if (rc == 0) {
        r = (struct reply){xmalloc(len), len, 1};
        rc = move_all(fd, r.data, len, false, until_us, err);
        if (rc == 0 && r.data[0] != want)
            rc = err_set(err, ERR_FORBIDDEN, "the ssh-agent refused%s",
                         r.data[0] == AGENT_FAILURE ? "" : " in words unknown here");
        if (rc == 0)
            *ret = r;
        else
            free(r.data);
    }
    close(fd);
    return rc;
}

int sshagent_list(const char *path, struct sshkey_public *out, size_t *ret_count,
                  struct err *err)
{
    struct strbuf message = STRBUF_INIT;
    struct reply r;
    size_t count = 0, n = 0;
    strbuf_addc(&message, ASK_LIST);
    int rc = ask(path, &message, TELL_LIST, &r, err);
    strbuf_done(&message);
    if (rc != 0)
        return rc;
    bool ok = take_u32(&r, &n);
    for (size_t i = 0; ok && i < n; i++) {
        const uint8_t *blob, *comment;
        size_t blob_len, comment_len;
        ok = take_string(&r, &blob, &blob_len) &&
             take_string(&r, &comment, &comment_len);
        if (!ok || count == SSHAGENT_KEYS_MAX ||
            sshkey_blob_read(blob, blob_len, out[count].pub, NULL) != 0)
            continue;
        size_t at = 0;
        for (size_t c = 0; c < comment_len && at < SSHKEY_COMMENT_MAX - 1; c++)
            if (comment[c] >= ' ' && comment[c] <= '~')
                out[count].comment[at++] = (char)comment[c];
        out[count++].comment[at] = '\0';
    }
    free(r.data);
    if (!ok)
        return err_set(err, ERR_UNREACHABLE, "the ssh-agent's list is damaged");
    *ret_count = count;
    return 0;
}

int sshagent_find(const char *path, const char *fingerprint, struct sshkey_public *ret,
                  struct err *err)
{
    struct sshkey_public *keys = xcalloc(SSHAGENT_KEYS_MAX, sizeof(*keys));
    struct strbuf names = STRBUF_INIT;
    size_t count = 0;
    int rc = sshagent_list(path, keys, &count, err);
    bool found = false;
    for (size_t i = 0; rc == 0 && i < count && !found; i++) {
        char text[SSHKEY_FINGER_MAX];
        sshkey_fingerprint(keys[i].pub, text);
        strbuf_addf(&names, "%s%s", i > 0 ? ", " : "", text);
        found = strcmp(text, fingerprint) == 0;
        if (found)
            *ret = keys[i];
    }
    if (rc == 0 && !found)
        rc = err_set(err, ERR_NOT_FOUND,
                     "the ssh-agent has no Ed25519 key %.60s; it has: %.200s",
                     fingerprint, count > 0 ? strbuf_str(&names) : "none");
    strbuf_done(&names);
    free(keys);
    return rc;
}

/* The signature blob: its type and 64 bytes; and it must be the key's. */
static int take_signature(struct reply *r, const uint8_t *pub, const void *data,
                          size_t len, uint8_t sig[SIG_LEN], struct err *err)
{
    const uint8_t *blob, *type, *raw;
    size_t blob_len, type_len, raw_len;
    if (!take_string(r, &blob, &blob_len))
        return err_set(err, ERR_UNREACHABLE, "the ssh-agent's signature is damaged");
    struct reply in = {(uint8_t *)(uintptr_t)blob, blob_len, 0};
    if (!take_string(&in, &type, &type_len) || !take_string(&in, &raw, &raw_len) ||
        type_len != strlen(SSHKEY_TYPE) || memcmp(type, SSHKEY_TYPE, type_len) != 0 ||
        raw_len != SIG_LEN || in.at != in.len)
        return err_set(err, ERR_UNREACHABLE, "the ssh-agent's signature is damaged");
    EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, pub, JWS_ED25519_LEN);
    EVP_MD_CTX *md = key != NULL ? jws_verifier(key) : NULL;
    bool ok = md != NULL && EVP_DigestVerify(md, raw, raw_len, data, len) == 1;
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
    if (!ok)
        return err_set(err, ERR_FORBIDDEN,
                       "the ssh-agent's signature is not the key's");
    memcpy(sig, raw, SIG_LEN);
    return 0;
}

int sshagent_sign(const char *path, const uint8_t pub[JWS_ED25519_LEN],
                  const void *data, size_t len, uint8_t sig[64], struct err *err)
{
    struct strbuf message = STRBUF_INIT;
    uint8_t blob[SSHKEY_BLOB_LEN];
    struct reply r;
    if (len > MESSAGE_MAX - 1024)
        return err_set(err, ERR_TOO_LARGE, "too long to be signed by an ssh-agent");
    sshkey_blob(pub, blob);
    strbuf_addc(&message, ASK_SIGN);
    put_u32(&message, sizeof(blob));
    strbuf_add(&message, blob, sizeof(blob));
    put_u32(&message, len);
    strbuf_add(&message, data, len);
    put_u32(&message, 0); /* flags: they are for RSA */
    int rc = ask(path, &message, TELL_SIGN, &r, err);
    strbuf_done(&message);
    if (rc != 0)
        return rc;
    rc = take_signature(&r, pub, data, len, sig, err);
    free(r.data);
    return rc;
}

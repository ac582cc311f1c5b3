/* run_link: see run.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/cli/run.h"
#include "client/lib/clock.h"
#include "client/lib/dial.h"
#include "client/lib/tlsx.h"

#define PEER_URI_MAX 512

void run_link_init(struct run_link *l)
{
    *l = (struct run_link){.fd = -1};
    frame_reader_init(&l->in);
}

void run_link_close(struct run_link *l)
{
    if (l->addresses != NULL)
        freeaddrinfo(l->addresses);
    SSL_free(l->ssl);
    SSL_CTX_free(l->ctx);
    dial_close(l->fd);
    strbuf_done(&l->out);
    frame_reader_done(&l->in);
    run_link_init(l);
}

static int check_peer(struct run_link *l, const char *address, const char *audience,
                      struct err *err)
{
    const unsigned char *alpn = NULL;
    unsigned int alpn_len = 0;
    char uri[PEER_URI_MAX];
    SSL_get0_alpn_selected(l->ssl, &alpn, &alpn_len);
    if (alpn_len != strlen(FRAME_ALPN) || memcmp(alpn, FRAME_ALPN, alpn_len) != 0)
        return err_set(err, ERR_UNREACHABLE, "%s does not speak %s: is this the agent?",
                       address, FRAME_ALPN);
    tlsx_peer_uri(l->ssl, uri, sizeof(uri));
    if (strcmp(uri, audience) != 0)
        return err_set(err, ERR_FORBIDDEN,
                       "%s is %s, but the token's audience is %s: nothing was sent",
                       address, *uri != '\0' ? uri : "nobody", audience);
    return 0;
}

static int make_tls(struct run_link *l, const char *ca_file, struct err *err)
{
    const struct tlsx_files files = {ca_file, NULL, NULL};
    unsigned char alpn[1 + sizeof(FRAME_ALPN)] = {sizeof(FRAME_ALPN) - 1};
    memcpy(alpn + 1, FRAME_ALPN, sizeof(FRAME_ALPN) - 1);
    if (tlsx_client_ctx(&files, &l->ctx, err) < 0)
        return -1;
    SSL_CTX_set_verify(l->ctx, SSL_VERIFY_PEER, NULL);
    l->ssl = SSL_new(l->ctx);
    if (l->ssl == NULL || SSL_set_fd(l->ssl, l->fd) != 1 ||
        SSL_set_alpn_protos(l->ssl, alpn, sizeof(FRAME_ALPN)) != 0)
        return err_set(err, ERR_INTERNAL, "TLS: %s", tlsx_error());
    return 0;
}

static int start_tls(struct run_link *l, const char *address, const char *ca_file,
                     const char *audience, struct err *err)
{
    if (make_tls(l, ca_file, err) < 0)
        return -1;
    if (dial_handshake(l->ssl, l->fd, DIAL_TIMEOUT_MS, err) < 0)
        return err_prefix(err, "agent at %s", address);
    return check_peer(l, address, audience, err);
}

int run_link_open(struct run_link *l, const char *address, const char *ca_file,
                  const char *audience, struct err *err)
{
    struct dial_addr addr;
    run_link_close(l);
    if (dial_split(address, &addr, err) < 0)
        return -1;
    l->fd = dial_tcp(&addr, DIAL_TIMEOUT_MS, err);
    if (l->fd < 0)
        return err_prefix(err, "agent");
    if (addr.path[0] == '\0' && start_tls(l, address, ca_file, audience, err) < 0) {
        run_link_close(l);
        return -1;
    }
    return 0;
}

/* The next address that can be tried; -1: none is left, with the last one's reason. */
static int try_next(struct run_link *l, int why, struct err *err)
{
    int one = 1;
    for (; l->next != NULL; l->next = l->next->ai_next) {
        const struct addrinfo *ai = l->next;
        dial_close(l->fd);
        l->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (l->fd < 0) {
            why = errno;
            continue;
        }
        (void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (connect(l->fd, ai->ai_addr, ai->ai_addrlen) == 0 || errno == EINPROGRESS) {
            l->next = ai->ai_next;
            return 0;
        }
        why = errno;
    }
    return err_set(err, ERR_UNREACHABLE, "cannot connect to the agent: %s",
                   strerror(why));
}

int run_link_start(struct run_link *l, const char *address, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct dial_addr addr;
    run_link_close(l);
    if (dial_split(address, &addr, err) < 0)
        return -1;
    l->connecting = true;
    l->want = POLLOUT;
    if (addr.path[0] != '\0') { /* answers at once, or never */
        l->fd = dial_tcp(&addr, DIAL_TIMEOUT_MS, err);
        return l->fd >= 0 ? 0 : err_prefix(err, "agent");
    }
    int rc = getaddrinfo(addr.host, addr.port, &hints, &l->addresses);
    if (rc != 0)
        return err_set(err, ERR_UNREACHABLE, "cannot find host %s: %s", addr.host,
                       gai_strerror(rc));
    l->next = l->addresses;
    return try_next(l, EADDRNOTAVAIL, err);
}

/* 1: the handshake is through. */
static int shake(struct run_link *l, const char *address, struct err *err)
{
    ERR_clear_error();
    int rc = SSL_connect(l->ssl);
    int why = rc == 1 ? 0 : SSL_get_error(l->ssl, rc);
    if (rc == 1)
        return 1;
    l->want = why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return 0;
    if (SSL_get_verify_result(l->ssl) != X509_V_OK)
        return err_set(err, ERR_FORBIDDEN,
                       "agent at %s: its certificate is not of this market: %s",
                       address,
                       X509_verify_cert_error_string(SSL_get_verify_result(l->ssl)));
    return err_set(err, ERR_UNREACHABLE, "agent at %s: TLS handshake failed: %s",
                   address,
                   why == SSL_ERROR_SYSCALL ? "connection closed" : tlsx_error());
}

int run_link_step(struct run_link *l, const char *address, const char *ca_file,
                  const char *audience, struct err *err)
{
    int why = 0;
    socklen_t size = sizeof(why);
    if (l->connecting) {
        if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &why, &size) < 0)
            why = errno;
        if (why != 0)
            return try_next(l, why, err);
        l->connecting = false;
        if (l->addresses == NULL)
            return 1;
        l->shaking = true;
        if (make_tls(l, ca_file, err) < 0)
            return -1;
    }
    if (!l->shaking)
        return 1;
    int rc = shake(l, address, err);
    if (rc <= 0)
        return rc;
    l->shaking = false;
    return check_peer(l, address, audience, err) < 0 ? -1 : 1;
}

size_t run_link_queued(const struct run_link *l)
{
    return l->out.len - l->out_done;
}

void run_link_send(struct run_link *l, char type, const void *data, size_t len)
{
    if (l->out_done > 0) { /* what has gone is not kept */
        memmove(l->out.data, l->out.data + l->out_done, run_link_queued(l));
        l->out.len -= l->out_done;
        l->out_done = 0;
    }
    frame_put(&l->out, type, data, len);
}

short run_link_events(const struct run_link *l, bool want_read)
{
    short events = 0;
    if (want_read)
        events |= POLLIN;
    if (run_link_queued(l) > 0)
        events |= POLLOUT;
    return events;
}

/* >0 bytes, 0 would wait, -1 lost (errno or TLS text in err), -2 end. */
static int ssl_result(struct run_link *l, int rc, struct err *err)
{
    if (rc > 0)
        return rc;
    switch (SSL_get_error(l->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return 0;
    case SSL_ERROR_ZERO_RETURN: return -2;
    case SSL_ERROR_SYSCALL:
        return err_set(err, ERR_UNREACHABLE, "connection to the agent lost: %s",
                       errno != 0 ? strerror(errno) : "closed");
    default:
        if (ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
            return err_set(err, ERR_UNREACHABLE,
                           "connection to the agent lost: closed");
        return err_set(err, ERR_UNREACHABLE, "connection to the agent lost: %s",
                       tlsx_error());
    }
}

static int fd_result(ssize_t n, bool reading, struct err *err)
{
    if (n > 0)
        return (int)n;
    if (n == 0 && reading)
        return -2;
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    return err_set(err, ERR_UNREACHABLE, "connection to the agent lost: %s",
                   strerror(errno));
}

static int link_read(struct run_link *l, void *buf, size_t cap, struct err *err)
{
    errno = 0;
    if (l->ssl == NULL)
        return fd_result(read(l->fd, buf, cap), true, err);
    ERR_clear_error();
    return ssl_result(l, SSL_read(l->ssl, buf, (int)cap), err);
}

static int link_write(struct run_link *l, const void *buf, size_t len, struct err *err)
{
    errno = 0;
    if (l->ssl == NULL)
        return fd_result(write(l->fd, buf, len), false, err);
    ERR_clear_error();
    return ssl_result(l, SSL_write(l->ssl, buf, (int)len), err);
}

int run_link_pump(struct run_link *l, bool want_read, struct err *err)
{
    char buf[16 * 1024];
    int n;
    while (run_link_queued(l) > 0) {
        size_t len = run_link_queued(l);
        n = link_write(l, l->out.data + l->out_done,
                       len < sizeof(buf) ? len : sizeof(buf), err);
        if (n == -2)
            return err_set(err, ERR_UNREACHABLE, "the agent closed the connection");
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        l->out_done += (size_t)n;
    }
    /* One record a call, or all that TLS holds decrypted: poll() does not see those. */
    while (want_read && !l->eof) {
        n = link_read(l, buf, sizeof(buf), err);
        if (n == -2)
            l->eof = true;
        else if (n < 0)
            return -1;
        else if (n > 0)
            frame_feed(&l->in, buf, (size_t)n);
        if (n <= 0 || l->ssl == NULL || SSL_pending(l->ssl) == 0)
            break;
    }
    return 0;
}

int run_link_frame(struct run_link *l, int timeout_ms, struct frame *ret,
                   struct err *err)
{
    int64_t deadline_us = clock_boot_us() + (int64_t)timeout_ms * 1000;
    while (true) {
        int rc = frame_next(&l->in, ret, err);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        if (l->eof)
            return err_set(err, ERR_UNREACHABLE, "the agent closed the connection");
        int64_t left = (deadline_us - clock_boot_us()) / 1000;
        struct pollfd p = {l->fd, run_link_events(l, true), 0};
        if (left <= 0)
            return err_set(err, ERR_TIMEOUT, "the agent did not answer within %d s",
                           timeout_ms / 1000);
        if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
            return err_sys(err, errno, "poll");
        if (run_link_pump(l, true, err) < 0)
            return -1;
    }
}

/* dial: see dial.h. */
#include "client/lib/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/lib/addr.h"
#include "client/lib/clock.h"
#include "client/lib/tlsx.h"

static bool take_tcp(const char *text, size_t len, const char *default_port,
                     struct dial_addr *ret)
{
    struct addr a;
    if (!addr_split(text, len, &a) || a.host[0] == '\0')
        return false;
    const char *port = a.port[0] != '\0' ? a.port : default_port;
    if (port[0] == '\0')
        return false;
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->host, a.host, sizeof(a.host));
    memcpy(ret->port, port, strlen(port));
    return true;
}

int dial_split_url(const char *url, struct dial_addr *ret, struct err *err)
{
    const char *rest = url + strlen("https://");
    size_t len;
    if (strncmp(url, "https://", 8) != 0 || (len = strcspn(rest, "/?#")) == 0 ||
        (rest[len] != '\0' && strcmp(rest + len, "/") != 0) ||
        !take_tcp(rest, len, "443", ret))
        return err_set(err, ERR_USAGE,
                       "'%.120s' is no server address: write https://HOST:PORT", url);
    return 0;
}

int dial_split(const char *text, struct dial_addr *ret, struct err *err)
{
    if (strncmp(text, "unix:", 5) == 0) {
        memset(ret, 0, sizeof(*ret));
        if (text[5] == '/' && strlen(text + 5) < sizeof(ret->path)) {
            memcpy(ret->path, text + 5, strlen(text + 5));
            return 0;
        }
    } else if (take_tcp(text, strlen(text), "", ret)) {
        return 0;
    }
    return err_set(err, ERR_USAGE,
                   "'%.120s' is no address: write HOST:PORT or unix:/PATH", text);
}

void dial_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Waits for events until the deadline (boot clock, us). 0: ready. */
static int wait_fd(int fd, short events, int64_t deadline_us)
{
    while (true) {
        int64_t left = (deadline_us - clock_boot_us() + 999) / 1000;
        struct pollfd p = {fd, events, 0};
        if (left <= 0)
            return ETIMEDOUT;
        int n = poll(&p, 1, (int)left);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return errno;
    }
}

static int connect_one(int family, const struct sockaddr *sa, socklen_t len,
                       int64_t deadline_us, int *ret_errno)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *ret_errno = errno;
        return -1;
    }
    int rc = connect(fd, sa, len) < 0 ? errno : 0;
    if (rc == EINPROGRESS && (rc = wait_fd(fd, POLLOUT, deadline_us)) == 0) {
        socklen_t size = sizeof(rc);
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &rc, &size) < 0)
            rc = errno;
    }
    if (rc == 0)
        return fd;
    *ret_errno = rc;
    close(fd);
    return -1;
}

static int connect_unix(const struct dial_addr *addr, int64_t deadline_us,
                        struct err *err)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int why = 0;
    memcpy(un.sun_path, addr->path, strlen(addr->path) + 1);
    int fd =
        connect_one(AF_UNIX, (struct sockaddr *)&un, sizeof(un), deadline_us, &why);
    if (fd < 0)
        return err_set(err, ERR_UNREACHABLE, "cannot connect to %s: %s", addr->path,
                       strerror(why));
    return fd;
}

int dial_tcp(const struct dial_addr *addr, int timeout_ms, struct err *err)
{
    int64_t deadline_us = clock_boot_us() + (int64_t)timeout_ms * 1000;
    if (addr->path[0] != '\0')
        return connect_unix(addr, deadline_us, err);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    int why = 0, fd = -1, one = 1;
    int rc = getaddrinfo(addr->host, addr->port, &hints, &list);
    if (rc != 0)
        return err_set(err, ERR_UNREACHABLE, "cannot find host %s: %s", addr->host,
                       gai_strerror(rc));
    for (struct addrinfo *ai = list; ai != NULL && fd < 0; ai = ai->ai_next)
        fd = connect_one(ai->ai_family, ai->ai_addr, ai->ai_addrlen, deadline_us, &why);
    freeaddrinfo(list);
    if (fd < 0)
        return err_set(err, ERR_UNREACHABLE, "cannot connect to %s port %s: %s",
                       addr->host, addr->port, strerror(why));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

int dial_handshake(SSL *ssl, int fd, int timeout_ms, struct err *err)
{
    int64_t deadline_us = clock_boot_us() + (int64_t)timeout_ms * 1000;
    while (true) {
        ERR_clear_error();
        int rc = SSL_connect(ssl);
        if (rc == 1)
            return 0;
        int why = SSL_get_error(ssl, rc), wait = 0;
        if (why == SSL_ERROR_WANT_READ)
            wait = wait_fd(fd, POLLIN, deadline_us);
        else if (why == SSL_ERROR_WANT_WRITE)
            wait = wait_fd(fd, POLLOUT, deadline_us);
        else if (SSL_get_verify_result(ssl) != X509_V_OK &&
                 SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE)
            return err_set(err, ERR_FORBIDDEN,
                           "its certificate is not of this market: %s",
                           X509_verify_cert_error_string(SSL_get_verify_result(ssl)));
        else
            return err_set(err, ERR_UNREACHABLE, "TLS handshake failed: %s",
                           why == SSL_ERROR_SYSCALL ? "connection closed"
                                                    : tlsx_error());
        if (wait != 0)
            return err_set(err, ERR_UNREACHABLE, "TLS handshake: %s", strerror(wait));
    }
}

/* ssh_ask: the helpers' end of ssh_proto.h: one request, one answer. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/agent/ssh_proto.h"
#include "client/lib/clock.h"
#include "client/lib/frame.h"
#include "client/lib/jsonx.h"

const char *ssh_socket_path(const char *option)
{
    return option != NULL ? option : SSH_SOCKET;
}

int ssh_ask_connect(const char *path, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path))
        return err_set(err, ERR_USAGE, "%s: too long for a socket's name", path);
    memcpy(addr.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, errno, "socket");
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        err_set(err, ERR_UNREACHABLE, "the agent does not answer at %s: %s", path,
                strerror(errno));
        close(fd);
        return -1;
    }
    *ret_fd = fd;
    return 0;
}

static int send_request(int fd, char type, const json_t *body, struct err *err)
{
    struct strbuf b = STRBUF_INIT;
    char *text = jsonx_dump(body);
    int rc = 0;
    if (strlen(text) > RUN_FRAME_MAX)
        rc = err_set(err, ERR_TOO_LARGE, "the request is over %d bytes", RUN_FRAME_MAX);
    else
        frame_put(&b, type, text, strlen(text));
    for (size_t done = 0; rc == 0 && done < b.len;) {
        ssize_t n = send(fd, b.data + done, b.len - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            rc = err_sys(err, errno, "send to the agent");
        done += n > 0 ? (size_t)n : 0;
    }
    free(text);
    strbuf_done(&b);
    return rc;
}

/* One read; a descriptor that comes with it is taken. 0: the end. */
static ssize_t receive(int fd, void *buf, size_t cap, int *passed)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {buf, cap};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n;
    while ((n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int))) {
        if (*passed >= 0)
            close(*passed);
        memcpy(passed, CMSG_DATA(c), sizeof(int));
    }
    return n;
}

static int take_answer(const struct frame *f, json_t **ret, struct err *err)
{
    json_t *doc = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, err);
    if (doc == NULL)
        return -1;
    if (f->type == 'r') {
        *ret = doc;
        return 0;
    }
    const char *code = json_string_value(json_object_get(doc, "error"));
    const char *why = json_string_value(json_object_get(doc, "detail"));
    err_set(err, err_code_from_name(code != NULL ? code : ""), "%s",
            why != NULL ? why : "the agent refused without a reason");
    json_decref(doc);
    return -1;
}

static int wait_answer(int fd, json_t **ret, int *passed, struct err *err)
{
    struct frame_reader in;
    struct frame f;
    char buf[4096];
    int64_t until_us = clock_boot_us() + SSH_ANSWER_MS * INT64_C(1000);
    int rc = 0;
    frame_reader_init(&in);
    while (rc == 0 && (rc = frame_next(&in, &f, err)) == 0) {
        struct pollfd p = {fd, POLLIN, 0};
        int64_t left_ms = (until_us - clock_boot_us()) / 1000;
        ssize_t n = -1;
        if (left_ms <= 0)
            rc = err_set(err, ERR_TIMEOUT, "the agent did not answer");
        else if (poll(&p, 1, (int)left_ms) <= 0)
            continue;
        else if ((n = receive(fd, buf, sizeof(buf), passed)) == 0)
            rc = err_set(err, ERR_UNREACHABLE, "the agent closed the connection");
        else if (n < 0)
            rc = err_sys(err, errno, "receive from the agent");
        else
            frame_feed(&in, buf, (size_t)n);
    }
    if (rc > 0)
        rc = take_answer(&f, ret, err);
    frame_reader_done(&in);
    return rc;
}

int ssh_ask(int fd, char type, const json_t *body, json_t **ret, int *ret_passed,
            struct err *err)
{
    int passed = -1;
    json_t *answer = NULL;
    if (send_request(fd, type, body, err) != 0)
        return -1;
    int rc = wait_answer(fd, &answer, &passed, err);
    if (rc == 0 && ret_passed != NULL && passed < 0)
        rc = err_set(err, ERR_INTERNAL, "the agent sent no descriptor");
    if (rc == 0 && ret_passed != NULL) {
        *ret_passed = passed;
        passed = -1;
    }
    if (passed >= 0)
        close(passed);
    if (rc == 0)
        *ret = answer;
    else
        json_decref(answer);
    return rc;
}

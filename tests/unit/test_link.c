/* link: what passes between the two processes of an agent, and everything that must
 * not. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/agent/link.h"
#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

struct side {
    struct link *link;
    size_t taken;
    enum link_kind last;
    json_t *doc;
    int fd;
    bool refuse, ended;
    struct err why;
};

struct pair {
    struct event_base *base;
    struct side warden, front;
    int raw; /* the front's end where there is no link, else -1 */
};

static int take(void *arg, enum link_kind kind, const json_t *doc, int fd_take,
                struct err *err)
{
    struct side *s = arg;
    json_decref(s->doc);
    s->doc = json_incref((json_t *)(uintptr_t)doc);
    s->last = kind;
    s->fd = fd_take;
    s->taken++;
    return s->refuse ? err_set(err, ERR_BAD_REQUEST, "not so") : 0;
}

static void over(void *arg, const struct err *why)
{
    struct side *s = arg;
    ck_assert(!s->ended);
    s->ended = true;
    s->why = *why;
}

static void pair_init(struct pair *p, bool raw)
{
    int fds[2];
    memset(p, 0, sizeof(*p));
    p->base = event_base_new();
    p->raw = -1;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct link_conf w = {LINK_WARDEN, take, over, &p->warden};
    struct link_conf f = {LINK_FRONT, take, over, &p->front};
    p->warden.link = link_new(p->base, fds[0], &w);
    if (raw)
        p->raw = fds[1];
    else
        p->front.link = link_new(p->base, fds[1], &f);
    p->warden.fd = p->front.fd = -1;
}

static void pair_done(struct pair *p)
{
    link_free(p->warden.link);
    link_free(p->front.link);
    json_decref(p->warden.doc);
    json_decref(p->front.doc);
    if (p->raw >= 0)
        close(p->raw);
    if (p->front.fd >= 0)
        close(p->front.fd);
    event_base_free(p->base);
}

static void turn(struct pair *p)
{
    for (int i = 0; i < 400; i++)
        event_base_loop(p->base, EVLOOP_NONBLOCK);
}

static void put(struct pair *p, uint8_t kind, const void *text, size_t len, size_t said)
{
    uint8_t head[5] = {kind, (uint8_t)(said >> 24), (uint8_t)(said >> 16),
                       (uint8_t)(said >> 8), (uint8_t)said};
    ck_assert_int_eq(write(p->raw, head, 5), 5);
    if (len > 0)
        ck_assert_int_eq(write(p->raw, text, len), (ssize_t)len);
}

START_TEST(test_order_and_contents)
{
    struct pair p;
    struct err err;
    pair_init(&p, false);
    for (int i = 1; i <= 100; i++)
        ck_assert_int_eq(link_send(p.front.link, LINK_GREET,
                                   json_pack("{s:i}", "client", i), -1, &err),
                         0);
    turn(&p);
    ck_assert_uint_eq(p.warden.taken, 100);
    ck_assert_int_eq(json_integer_value(json_object_get(p.warden.doc, "client")), 100);
    ck_assert(!p.warden.ended && !p.front.ended);
    pair_done(&p);
}
END_TEST

START_TEST(test_large)
{
    struct pair p;
    struct err err;
    pair_init(&p, false);
    size_t n = LINK_BYTES_MAX - 100;
    char *text = xmalloc(n + 1);
    memset(text, 'x', n);
    text[n] = '\0';
    ck_assert_int_eq(
        link_send(p.front.link, LINK_REPLY, json_pack("{s:s}", "body", text), -1, &err),
        0);
    turn(&p);
    ck_assert_uint_eq(p.warden.taken, 1);
    const char *got = json_string_value(json_object_get(p.warden.doc, "body"));
    ck_assert_uint_eq(strlen(got), n);
    ck_assert_str_eq(got, text);
    /* Over a kind's bound nothing is sent, and the link goes on. */
    ck_assert_int_eq(link_send(p.front.link, LINK_REQUEST,
                               json_pack("{s:s}", "payload", text), -1, &err),
                     -1);
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    turn(&p);
    ck_assert_uint_eq(p.warden.taken, 1);
    ck_assert(!p.warden.ended);
    free(text);
    pair_done(&p);
}
END_TEST

START_TEST(test_descriptor)
{
    struct pair p;
    struct err err;
    struct stat st;
    int fds[2];
    char c;
    pair_init(&p, false);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
        ck_assert_int_eq(link_send(p.warden.link, LINK_ANSWER,
                                   json_pack("{s:i}", "client", i), fds[0], &err),
                         0);
        ck_assert_int_eq(link_send(p.warden.link, LINK_ANSWER,
                                   json_pack("{s:i}", "client", 9), -1, &err),
                         0);
        ck_assert_int_eq(write(fds[1], "abc" + i, 1), 1);
        close(fds[1]);
        /* The message with it, then the one without. */
        while (p.front.taken < (size_t)(2 * i + 1))
            event_base_loop(p.base, EVLOOP_ONCE);
        if (p.front.taken == (size_t)(2 * i + 1)) {
            ck_assert_int_ge(p.front.fd, 0);
            ck_assert_int_eq(read(p.front.fd, &c, 1), 1);
            ck_assert_int_eq(c, "abc"[i]);
            close(p.front.fd);
        }
        turn(&p);
        ck_assert_uint_eq(p.front.taken, (size_t)(2 * i + 2));
        ck_assert_int_eq(p.front.fd, -1);
    }
    ck_assert_int_eq(fstat(fds[0], &st), -1); /* taken by the link */
    pair_done(&p);
}
END_TEST

/* A front that was taken over may write whatever it likes. */
START_TEST(test_garbage)
{
    static const struct {
        const char *name;
        uint8_t kind;
        const char *text;
        size_t said; /* 0: as long as it is */
    } rows[] = {
        {"no such kind", LINK_KINDS, "{}", 0},
        {"kind 255", 255, "{}", 0},
        {"the warden's own kind", LINK_ANSWER, "{}", 0},
        {"settings", LINK_SETTINGS, "{}", 0},
        {"no JSON", LINK_GREET, "client", 0},
        {"no object", LINK_GREET, "[1]", 0},
        {"twice", LINK_GREET, "{\"client\":1,\"client\":2}", 0},
        {"nothing", LINK_GREET, "", 0},
        {"a NUL", LINK_GREET, "{\"client\":1}\0", 13},
        {"not UTF-8", LINK_GREET, "{\"client\":\"\xff\xfe\"}", 0},
        {"longer than its kind", LINK_GREET, "", 65},
        {"4 GiB", LINK_REPLY, "", 0xffffffff},
        {"over all bounds", LINK_REPLY, "", LINK_BYTES_MAX + 1},
        {"a descriptor it has not sent", LINK_GREET, "{\"client\":1,\"fd\":true}", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pair p;
        pair_init(&p, true);
        size_t len = rows[i].said == 13 ? 13 : strlen(rows[i].text);
        put(&p, rows[i].kind, rows[i].text, len, rows[i].said ? rows[i].said : len);
        turn(&p);
        ck_assert_msg(p.warden.ended, "%s: goes on", rows[i].name);
        ck_assert_msg(p.warden.taken == 0, "%s: taken", rows[i].name);
        pair_done(&p);
    }
}
END_TEST

START_TEST(test_deep)
{
    struct pair p;
    char *deep = xmalloc(60001);
    pair_init(&p, true);
    memset(deep, '[', 60000);
    memcpy(deep, "{\"a\":", 5);
    deep[60000] = '\0';
    put(&p, LINK_REPLY, deep, 60000, 60000);
    turn(&p);
    ck_assert(p.warden.ended);
    ck_assert_uint_eq(p.warden.taken, 0);
    free(deep);
    pair_done(&p);
}
END_TEST

START_TEST(test_descriptor_from_the_front)
{
    struct pair p;
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    char bytes[] = "\0\0\0\0\2{}";
    struct iovec v = {bytes, 7};
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    int fd = 0;
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    pair_init(&p, true);
    int before = dup(0);
    close(before);
    ck_assert_int_eq(sendmsg(p.raw, &m, 0), 7);
    turn(&p);
    ck_assert(p.warden.ended);
    ck_assert_int_eq(p.warden.fd, -1);
    link_free(p.warden.link);
    p.warden.link = NULL;
    int after = dup(0);
    close(after);
    ck_assert_int_le(after, before); /* closed again */
    pair_done(&p);
}
END_TEST

START_TEST(test_a_refused_message_ends_it)
{
    struct pair p;
    pair_init(&p, true);
    p.warden.refuse = true;
    put(&p, LINK_UP, "{}", 2, 2);
    put(&p, LINK_UP, "{}", 2, 2);
    turn(&p);
    ck_assert_uint_eq(p.warden.taken, 1);
    ck_assert(p.warden.ended);
    ck_assert_ptr_nonnull(strstr(p.warden.why.text, "not so"));
    pair_done(&p);
}
END_TEST

START_TEST(test_the_other_side_goes)
{
    struct pair p;
    struct err err;
    pair_init(&p, true);
    put(&p, LINK_UP, "{", 1, 2); /* and dies in the middle of it */
    close(p.raw);
    p.raw = -1;
    turn(&p);
    ck_assert(p.warden.ended);
    ck_assert_uint_eq(p.warden.taken, 0);
    ck_assert_int_eq(link_send(p.warden.link, LINK_FETCH, json_object(), -1, &err), 0);
    turn(&p);
    pair_done(&p);
}
END_TEST

START_TEST(test_a_reader_that_is_stuck)
{
    struct pair p;
    struct err err;
    pair_init(&p, true);
    char *text = xmalloc(1000 * 1000 + 1);
    memset(text, 'x', 1000 * 1000);
    text[1000 * 1000] = '\0';
    for (int i = 0; i < 12 && !p.warden.ended; i++) {
        ck_assert_int_eq(link_send(p.warden.link, LINK_OBSERVED,
                                   json_pack("{s:s}", "body", text), -1, &err),
                         0);
        turn(&p);
    }
    ck_assert(p.warden.ended);
    free(text);
    pair_done(&p);
}
END_TEST

/* Whatever the pieces are in which bytes come; and noise never reaches a taker. */
START_TEST(test_pieces_and_noise)
{
    unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    srandom(seed);
    for (int round = 0; round < 300; round++) {
        struct pair p;
        char noise[200];
        pair_init(&p, true);
        const char text[] = "\x04\0\0\0\x0c{\"client\":1}";
        for (size_t at = 0; at < sizeof(text) - 1;) {
            size_t n = 1 + (size_t)random() % 6;
            n = n < sizeof(text) - 1 - at ? n : sizeof(text) - 1 - at;
            ck_assert_int_eq(write(p.raw, text + at, n), (ssize_t)n);
            event_base_loop(p.base, EVLOOP_NONBLOCK);
            at += n;
        }
        turn(&p);
        ck_assert_uint_eq(p.warden.taken, 1);
        ck_assert_int_eq(p.warden.last, LINK_GREET);
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (char)random();
        noise[1] = (char)0x7f; /* no length that is believed */
        ck_assert_int_eq(write(p.raw, noise, sizeof(noise)), sizeof(noise));
        turn(&p);
        ck_assert_uint_eq(p.warden.taken, 1);
        ck_assert(p.warden.ended);
        pair_done(&p);
    }
}
END_TEST

UNIT_MAIN("link", UNIT_CASE(test_order_and_contents) UNIT_CASE(test_large)
                      UNIT_CASE(test_descriptor) UNIT_CASE(test_garbage)
                          UNIT_CASE(test_deep) UNIT_CASE(test_descriptor_from_the_front)
                              UNIT_CASE(test_a_refused_message_ends_it)
                                  UNIT_CASE(test_the_other_side_goes)
                                      UNIT_CASE(test_a_reader_that_is_stuck)
                                          UNIT_CASE(test_pieces_and_noise))

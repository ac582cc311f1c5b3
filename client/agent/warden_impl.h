/* warden_impl: what the warden's files share: warden.c (the front's life),
 * warden_sync.c (the market), warden_run.c (tenants). Not for other modules. */
#ifndef NEARGPU_AGENT_WARDEN_IMPL_H
#define NEARGPU_AGENT_WARDEN_IMPL_H
#include "client/agent/warden.h"

#include "client/agent/launch.h"

struct warden_client;
struct warden_start;

struct warden {
    struct agent *a;
    int hostnet_fd;
    struct link *link; /* NULL: no front now */
    pid_t front;
    bool up; /* it said so: confined and listening */
    struct event *respawn;
    int64_t backoff_us, spawned_us; /* boot time */
    char *socket_path;

    /* market */
    struct event *push, *post;
    bool changed; /* since the last push */
    bool posting; /* receipts are with the front */
    int64_t post_backoff_us;
    int64_t fetched_us; /* boot time of the last LINK_FETCH, 0: never */

    /* tenants */
    struct warden_client *clients;
    size_t client_count;
    struct warden_start *starts;
};

/* Nothing happens without a front; what is too large is logged and dropped. */
void warden_tell(struct warden *w, enum link_kind kind, json_t *doc_take, int fd_take);

void warden_sync_new(struct warden *w);
void warden_sync_free(struct warden *w);
void warden_sync_up(struct warden *w); /* a front came up */
void warden_sync_down(struct warden *w);
int warden_take_reply(struct warden *w, const json_t *doc, struct err *err) MUST_USE;
int warden_take_acked(struct warden *w, const json_t *doc, struct err *err) MUST_USE;
int warden_take_keys(struct warden *w, const json_t *doc, struct err *err) MUST_USE;
int warden_take_banned(struct warden *w, const json_t *doc, struct err *err) MUST_USE;
/* A token named a key that is not known: the market may have a newer set. */
void warden_want_keys(struct warden *w);

void warden_run_free(struct warden *w);
void warden_run_down(struct warden *w); /* the front's connections went with it */
int warden_take_greet(struct warden *w, const json_t *doc, int fd_take,
                      struct err *err) MUST_USE;
int warden_take_request(struct warden *w, const json_t *doc, struct err *err) MUST_USE;
int warden_take_gone(struct warden *w, const json_t *doc, struct err *err) MUST_USE;

#endif

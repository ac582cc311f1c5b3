/* turn: see turn.h. */
#include "billing/turn.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "billing/pgtx.h"
#include "client/lib/clock.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

void turn_pause(int64_t us)
{
    struct timespec left = {.tv_sec = us / US_PER_S, .tv_nsec = us % US_PER_S * 1000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

static void *turn_main(void *arg)
{
    const struct turn *t = arg;
    PGconn *pg = NULL;
    struct err err;
    for (;;) {
        int64_t start_us = clock_boot_us();
        int rc = pg == NULL ? pgtx_connect(t->conninfo, &pg, &err) : 0;
        if (rc == 0)
            rc = t->go(t->arg, pg, &err);
        if (rc != 0)
            log_warn("%s; trying again", err.text);
        if (rc != 0 && pg != NULL && PQstatus(pg) != CONNECTION_OK) {
            PQfinish(pg);
            pg = NULL;
        }
        int64_t pause_us = (clock_boot_us() - start_us) * t->rest;
        if (pause_us < t->pause_us)
            pause_us = t->pause_us;
        turn_pause(pause_us);
    }
    return NULL;
}

int turn_start(const struct turn *t, struct err *err)
{
    pthread_t thread;
    struct turn *own = xmalloc(sizeof(*own));
    *own = *t;
    own->conninfo = xstrdup(t->conninfo);
    int error = pthread_create(&thread, NULL, turn_main, own);
    if (error != 0) {
        free((char *)own->conninfo);
        free(own);
        return err_sys(err, error, "starting a thread");
    }
    pthread_detach(thread);
    return 0;
}

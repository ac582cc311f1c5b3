/* trim: see trim.h. */
#include "client/agent/trim.h"

#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/lib/xalloc.h"

#define FIRST_S 5
#define AGAIN_S 600

struct trim {
    struct event *timer;
};

/* What is linked for good is in segments that can be written (RELRO is one of them
 * until the linker protects it): those stay. A segment without PF_W has the file's own
 * bytes and nothing else. */
static int drop_clean(struct dl_phdr_info *info, size_t size, void *arg)
{
    uintptr_t page = *(uintptr_t *)arg;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || (p->p_flags & PF_W) != 0)
            continue;
        uintptr_t from = info->dlpi_addr + p->p_vaddr, to = from + p->p_filesz;
        from = (from + page - 1) & ~(page - 1);
        to &= ~(page - 1);
        /* The kernel's own object refuses, and is small. */
        if (from < to)
            (void)madvise((void *)from, to - from, MADV_DONTNEED);
    }
    return 0;
}

static void trim_now(evutil_socket_t fd, short what, void *arg)
{
    struct trim *t = arg;
    struct timeval again = {AGAIN_S, 0};
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)fd;
    (void)what;
    (void)malloc_trim(0);
    (void)dl_iterate_phdr(drop_clean, &page);
    event_add(t->timer, &again);
}

struct trim *trim_new(struct event_base *base)
{
    struct trim *t = xcalloc(1, sizeof(*t));
    struct timeval first = {FIRST_S, 0};
    t->timer = evtimer_new(base, trim_now, t);
    event_add(t->timer, &first);
    return t;
}

void trim_free(struct trim *t)
{
    if (t == NULL)
        return;
    event_free(t->timer);
    free(t);
}

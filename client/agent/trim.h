/* trim: gives back what only the start of a process needed. Libraries are touched all
 * over while they are linked and set up, the parts that are read-only stay mapped for
 * ever and count as resident. Nothing is lost: a page that is needed again is mapped
 * again from the page cache, in a microsecond. Not for the time of a launch. */
#ifndef NEARGPU_AGENT_TRIM_H
#define NEARGPU_AGENT_TRIM_H
#include <event2/event.h>

struct trim;

/* Trims some seconds from now, when the start is over, and then every ten minutes. */
struct trim *trim_new(struct event_base *base);
void trim_free(struct trim *t);

#endif

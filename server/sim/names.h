/* names: strings numbered 0, 1, 2 … in order of first appearance, found by hash.
 * Pure. */
#ifndef NEARGPU_SIM_NAMES_H
#define NEARGPU_SIM_NAMES_H
#include <stdbool.h>
#include <stddef.h>

struct names {
    char **items; /* owned */
    int count;
    int *slots; /* open addressing: index + 1, 0 empty; a power of two of them */
    int slot_count;
};

void names_done(struct names *n);
/* Number of `name`, copied when it is new; *ret_is_new may be NULL. */
int names_add(struct names *n, const char *name, bool *ret_is_new);
int names_find(const struct names *n, const char *name); /* -1: not there */

#endif

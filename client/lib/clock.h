/* clock: the only reader of clocks (an edge). Everything else is handed `now`. */
#ifndef NEARGPU_CLOCK_H
#define NEARGPU_CLOCK_H
#include <stdint.h>

int64_t clock_now_us(void);  /* CLOCK_REALTIME, us since the epoch */
int64_t clock_boot_us(void); /* CLOCK_BOOTTIME, us since boot; deadlines use this */

#endif

/* timefmt: instants and durations as text. Instants are int64 microseconds since the
 * Unix epoch, UTC; intervals are half-open [from, to). Pure (no clock; the zone for
 * local display is passed by the edge as an offset). Source: RFC 3339. */
#ifndef NEARGPU_TIMEFMT_H
#define NEARGPU_TIMEFMT_H
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"

#define US_PER_S    INT64_C(1000000)
#define US_PER_HOUR (INT64_C(3600) * US_PER_S)
#define TIMEFMT_MAX 40 /* bytes for any text made here, NUL included */

/* Strict RFC 3339 with an offset or Z, 0..6 fraction digits; rejects bad dates (Feb
 * 30), leap seconds, years outside 1970..9999, and text without an offset. */
int timefmt_parse(const char *text, int64_t *ret_us, struct err *err) MUST_USE;
/* "2026-11-30": a day that there is, by the same rules. */
bool timefmt_is_day(const char *text);
/* "2026-11-22T21:53:12Z", with ".123456" only when the fraction is not zero. */
void timefmt_utc(int64_t us, char out[TIMEFMT_MAX]);
/* "2026-11-22 21:53:12+09:00" at the offset given in seconds east of UTC. */
void timefmt_offset(int64_t us, int offset_s, char out[TIMEFMT_MAX]);

/* "90s" "90m" "4h" "2d" "1h30m" "250ms"; no sign, no bare number except "0". */
int timefmt_parse_duration(const char *text, int64_t *ret_us, struct err *err) MUST_USE;
/* Shortest exact form from d h m s ms us ("1h30m"). */
void timefmt_duration(int64_t us, char out[TIMEFMT_MAX]);

#endif

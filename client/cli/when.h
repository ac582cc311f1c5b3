/* when: instants, ranges and sizes as people type them. Nothing is guessed: text that
 * is not understood is refused with examples, a local time that the zone skips or has
 * twice is refused until it carries its offset. Pure: now and the zone are handed in.
 */
#ifndef NEARGPU_WHEN_H
#define NEARGPU_WHEN_H
#include <stdint.h>

#include "client/cli/render.h"
#include "client/lib/err.h"

struct when_env {
    int64_t now_us;
    render_zone_fn *zone; /* of times typed without an offset */
};

/* "now" · "+90m" · RFC 3339 · the same with a space for the T · without an offset
 * (local zone) "2026-11-23T20:00[:00]" · a date alone (its midnight, local zone). */
int when_parse(const char *text, const struct when_env *env, int64_t *ret_us,
               struct err *err) MUST_USE;
/* "A..B" or "A,B"; B may be "+4h": so long after A. B must be later than A. */
int when_range(const char *text, const struct when_env *env, int64_t *ret_from,
               int64_t *ret_to, struct err *err) MUST_USE;
/* `--between A B` (two words) becomes `--between A..B`: the word after A is taken when
 * it reads as a time too. Rewrites argv in place (strings it makes are handed back in
 * *ret_made, at most one; caller frees) and returns the new argc. Stops at "--". */
int when_join_between(int argc, char **argv, const struct when_env *env,
                      char **ret_made);

/* "80GB" (1e9), "80GiB" (2^30), "500MB", "12TB", "1PB", "4096" bytes. */
int when_parse_size(const char *text, int64_t *ret_bytes, struct err *err) MUST_USE;
/* "40Gbps" (bits; k M G T) or "200MB/s" (bytes), decimal -> bytes a second, at least 1.
 */
int when_parse_rate(const char *text, int64_t *ret_Bps, struct err *err) MUST_USE;
/* A duration as timefmt reads it, or one unit with decimals: "11.6ms", "1.5h". */
int when_parse_span(const char *text, int64_t *ret_us, struct err *err) MUST_USE;
/* "5%" or "0.05" or "50000ppm" -> millionths, 0..1e6. */
int when_parse_ppm(const char *text, int64_t *ret_ppm, struct err *err) MUST_USE;
/* Unsigned decimal with up to 6 decimals -> millionths ("1.25" -> 1250000). */
int when_parse_decimal(const char *text, int64_t *ret_micro, struct err *err) MUST_USE;
/* "-33.5902" within [-bound, bound], at most 6 decimals. */
int when_parse_degrees(const char *text, int bound, double *ret,
                       struct err *err) MUST_USE;
/* Whole number within [min, max]. */
int when_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret,
                   struct err *err) MUST_USE;

#endif

/* when: see when.h. */
#include "client/cli/when.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define DAY_US (24 * US_PER_HOUR)

/* A time on the clock of a zone, given as if it were UTC, is the instant c with
 * c + offset(c) = local. Offsets in force a day before and after are the only
 * candidates: no zone changes twice in two days. */
static int from_local(const char *text, int64_t local_us, render_zone_fn *zone,
                      int64_t *ret_us, struct err *err)
{
    int64_t early = zone(local_us - DAY_US), late = zone(local_us + DAY_US);
    int64_t a = local_us - early * US_PER_S, b = local_us - late * US_PER_S;
    bool a_ok = zone(a) == early, b_ok = zone(b) == late;
    if (a_ok && b_ok && a != b)
        return err_set(err, ERR_USAGE,
                       "'%s' comes twice in the local zone (clocks go back): write it "
                       "with its offset, such as +02:00",
                       text);
    if (!a_ok && !b_ok)
        return err_set(err, ERR_USAGE,
                       "'%s' does not exist in the local zone (clocks go forward): "
                       "write it with its offset, such as +02:00",
                       text);
    *ret_us = a_ok ? a : b;
    return 0;
}

static bool digits_like(const char *text, const char *shape)
{
    for (; *shape != '\0'; shape++, text++)
        if (*shape == '0' ? !isdigit((unsigned char)*text) : *text != *shape)
            return false;
    return true;
}

static int bad_time(const char *text, struct err *err)
{
    if (digits_like(text, "0000-00-00") && strncmp(text, "1970", 4) < 0)
        return err_set(err, ERR_USAGE, "'%.60s' is before 1970", text);
    return err_set(err, ERR_USAGE,
                   "'%.60s' is no time: write now, +90m, 2026-11-23T20:00 (local zone) "
                   "or 2026-11-23T20:00:00+09:00",
                   text);
}

int when_parse(const char *text, const struct when_env *env, int64_t *ret_us,
               struct err *err)
{
    char full[48];
    size_t len = strlen(text);
    int64_t us;
    if (strcmp(text, "now") == 0) {
        *ret_us = env->now_us;
        return 0;
    }
    if (text[0] == '+') {
        if (timefmt_parse_duration(text + 1, &us, err) < 0)
            return bad_time(text, err);
        *ret_us = env->now_us + us;
        return 0;
    }
    if (len < 10 || len + 10 > sizeof(full) || !digits_like(text, "0000-00-00"))
        return bad_time(text, err);
    memcpy(full, text, len + 1);
    if (len == 10)
        memcpy(full + 10, "T00:00:00", 10);
    else if (full[10] == ' ')
        full[10] = 'T';
    if (!digits_like(full + 10, "T00:00"))
        return bad_time(text, err);
    if (full[16] != ':') { /* no seconds: before the offset, if there is one */
        memmove(full + 19, full + 16, strlen(full + 16) + 1);
        memcpy(full + 16, ":00", 3);
    }
    if (strpbrk(full + 11, "Z+-") != NULL) {
        if (timefmt_parse(full, ret_us, err) < 0)
            return bad_time(text, err);
        return 0;
    }
    memcpy(full + strlen(full), "Z", 2);
    if (timefmt_parse(full, &us, err) < 0)
        return bad_time(text, err);
    return from_local(text, us, env->zone, ret_us, err);
}

int when_range(const char *text, const struct when_env *env, int64_t *ret_from,
               int64_t *ret_to, struct err *err)
{
    const char *sep = strstr(text, "..");
    size_t sep_len = 2;
    int64_t from, to;
    if (sep == NULL) {
        sep = strchr(text, ',');
        sep_len = 1;
    }
    if (sep == NULL)
        return err_set(err, ERR_USAGE,
                       "'%.80s' is no range: write --between FROM TO, or FROM..TO",
                       text);
    char *first = xstrndup(text, (size_t)(sep - text));
    const char *second = sep + sep_len;
    int rc = when_parse(first, env, &from, err);
    free(first);
    if (rc < 0)
        return -1;
    struct when_env after = {*second == '+' ? from : env->now_us, env->zone};
    if (when_parse(second, &after, &to, err) < 0)
        return -1;
    if (to <= from)
        return err_set(err, ERR_USAGE,
                       "'%.80s': the end of the range must be later than its start",
                       text);
    *ret_from = from;
    *ret_to = to;
    return 0;
}

int when_join_between(int argc, char **argv, const struct when_env *env,
                      char **ret_made)
{
    int64_t us;
    *ret_made = NULL;
    for (int i = 1; i + 2 < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--between") != 0)
            continue;
        if (when_parse(argv[i + 1], env, &us, NULL) < 0 ||
            when_parse(argv[i + 2], env, &us, NULL) < 0)
            return argc;
        *ret_made = xasprintf("%s..%s", argv[i + 1], argv[i + 2]);
        argv[i + 1] = *ret_made;
        memmove(&argv[i + 2], &argv[i + 3], (size_t)(argc - i - 2) * sizeof(*argv));
        return argc - 1;
    }
    return argc;
}

int when_parse_decimal(const char *text, int64_t *ret_micro, struct err *err)
{
    int64_t value = 0, scale = 1000000;
    const char *p = text;
    bool point = false;
    if (!isdigit((unsigned char)*p))
        goto bad;
    for (; *p != '\0'; p++) {
        if (*p == '.' && !point && isdigit((unsigned char)p[1])) {
            point = true;
            continue;
        }
        if (!isdigit((unsigned char)*p) || (point && scale == 1) ||
            value > INT64_MAX / 100)
            goto bad;
        value = value * 10 + (*p - '0');
        if (point)
            scale /= 10;
    }
    if (value > INT64_MAX / scale)
        goto bad;
    *ret_micro = value * scale;
    return 0;
bad:
    return err_set(err, ERR_USAGE, "'%.40s' is no number such as 1.25", text);
}

int when_parse_degrees(const char *text, int bound, double *ret, struct err *err)
{
    bool minus = *text == '-';
    int64_t micro;
    if (when_parse_decimal(text + (minus ? 1 : 0), &micro, err) < 0 ||
        micro > (int64_t)bound * 1000000)
        return err_set(err, ERR_USAGE, "'%.40s' is no number from -%d to %d", text,
                       bound, bound);
    *ret = (double)(minus ? -micro : micro) / 1e6;
    return 0;
}

int when_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret,
                   struct err *err)
{
    char *end = NULL;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    bool plain = isdigit((unsigned char)text[0]) ||
                 (text[0] == '-' && isdigit((unsigned char)text[1]));
    if (!plain || *end != '\0' || errno != 0 || v < min || v > max)
        return err_set(err, ERR_USAGE,
                       "'%.40s' is no whole number from %" PRId64 " to %" PRId64, text,
                       min, max);
    *ret = v;
    return 0;
}

int when_parse_size(const char *text, int64_t *ret_bytes, struct err *err)
{
    static const struct {
        const char *unit;
        int64_t bytes;
    } units[] = {
        {"", 1},
        {"B", 1},
        {"kB", 1000},
        {"MB", 1000000},
        {"GB", 1000000000},
        {"TB", INT64_C(1000000000000)},
        {"PB", INT64_C(1000000000000000)},
        {"KiB", 1024},
        {"MiB", 1 << 20},
        {"GiB", 1 << 30},
        {"TiB", INT64_C(1) << 40},
        {"PiB", INT64_C(1) << 50},
    };
    size_t len = strspn(text, "0123456789.");
    char *number = xstrndup(text, len);
    int64_t micro;
    int rc = when_parse_decimal(number, &micro, NULL);
    free(number);
    for (size_t i = 0; rc == 0 && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(text + len, units[i].unit) != 0)
            continue;
        __int128 bytes = (__int128)micro * units[i].bytes / 1000000;
        if (bytes > INT64_MAX)
            break;
        *ret_bytes = (int64_t)bytes;
        return 0;
    }
    return err_set(err, ERR_USAGE,
                   "'%.40s' is no size: write it as 80GB, 80GiB or 12TB", text);
}

int when_parse_rate(const char *text, int64_t *ret_Bps, struct err *err)
{
    static const struct {
        const char *unit;
        int64_t bits;
    } units[] = {
        {"bps", 1},
        {"Kbps", 1000},
        {"Mbps", 1000000},
        {"Gbps", INT64_C(1000000000)},
        {"Tbps", INT64_C(1000000000000)},
        {"B/s", 8},
        {"KB/s", 8000},
        {"MB/s", 8000000},
        {"GB/s", INT64_C(8000000000)},
        {"TB/s", INT64_C(8000000000000)},
    };
    size_t len = strspn(text, "0123456789.");
    char *number = xstrndup(text, len);
    int64_t micro;
    int rc = when_parse_decimal(number, &micro, NULL);
    free(number);
    for (size_t i = 0; rc == 0 && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(text + len, units[i].unit) != 0)
            continue;
        __int128 bytes = (__int128)micro * units[i].bits / 8000000;
        if (bytes > INT64_MAX || bytes < 1)
            break;
        *ret_Bps = (int64_t)bytes;
        return 0;
    }
    return err_set(err, ERR_USAGE, "'%.40s' is no rate: write it as 40Gbps or 200MB/s",
                   text);
}

int when_parse_span(const char *text, int64_t *ret_us, struct err *err)
{
    static const struct {
        const char *unit;
        int64_t us;
    } units[] = {{"us", 1},          {"ms", 1000},
                 {"s", US_PER_S},    {"m", 60 * US_PER_S},
                 {"h", US_PER_HOUR}, {"d", DAY_US}};
    size_t len = strspn(text, "0123456789.");
    char *number = xstrndup(text, len);
    int64_t micro;
    bool point = strchr(number, '.') != NULL;
    int rc = when_parse_decimal(number, &micro, NULL);
    free(number);
    for (size_t i = 0; rc == 0 && point && i < sizeof(units) / sizeof(units[0]); i++) {
        __int128 us = (__int128)micro * units[i].us;
        if (strcmp(text + len, units[i].unit) != 0 || us % 1000000 != 0 ||
            us / 1000000 > INT64_MAX)
            continue;
        *ret_us = (int64_t)(us / 1000000);
        return 0;
    }
    return timefmt_parse_duration(text, ret_us, err);
}

int when_parse_ppm(const char *text, int64_t *ret_ppm, struct err *err)
{
    size_t len = strspn(text, "0123456789.");
    const char *unit = text + len;
    char *number = xstrndup(text, len);
    int64_t micro, ppm = -1;
    int rc = when_parse_decimal(number, &micro, NULL);
    free(number);
    if (rc == 0 && strcmp(unit, "%") == 0 && micro % 100 == 0)
        ppm = micro / 100;
    else if (rc == 0 && strcmp(unit, "ppm") == 0 && micro % 1000000 == 0)
        ppm = micro / 1000000;
    else if (rc == 0 && *unit == '\0')
        ppm = micro;
    if (ppm < 0 || ppm > 1000000)
        return err_set(err, ERR_USAGE,
                       "'%.40s' is no share: write it as 5%%, 0.05 or 50000ppm", text);
    *ret_ppm = ppm;
    return 0;
}

/* timefmt: see timefmt.h. Calendar arithmetic is the proleptic Gregorian
 * days-from-civil method (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms"),
 * so no libc zone or locale state is involved. Leap seconds do not exist in these
 * instants. */
#include "client/lib/timefmt.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SECONDS_PER_DAY INT64_C(86400)
/* 9999-12-31T23:59:59.999999Z */
#define TIMEFMT_LAST_US (INT64_C(253402300800) * US_PER_S - 1)

struct civil {
    int year, month, day;
};

static int64_t civil_to_days(struct civil c)
{
    int64_t y = c.month <= 2 ? c.year - 1 : c.year;
    int64_t era = y / 400; /* years here are positive */
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (c.month + (c.month > 2 ? -3 : 9)) + 2) / 5 + c.day - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

static struct civil civil_from_days(int64_t days)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    struct civil c;
    c.day = (int)(doy - (153 * mp + 2) / 5 + 1);
    c.month = (int)(mp < 10 ? mp + 3 : mp - 9);
    c.year = (int)(yoe + era * 400 + (c.month <= 2 ? 1 : 0));
    return c;
}

static int civil_month_days(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && leap ? 29 : days[month - 1];
}

/* Reads exactly `digits` decimal digits; -1 when there are fewer. */
static int timefmt_number(const char **p, int digits)
{
    int value = 0;
    for (int i = 0; i < digits; i++) {
        char c = (*p)[i];
        if (c < '0' || c > '9')
            return -1;
        value = value * 10 + (c - '0');
    }
    *p += digits;
    return value;
}

static bool timefmt_char(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* ".1" to ".123456" in microseconds; false when malformed. No fraction is 0. */
static bool timefmt_fraction(const char **p, int64_t *ret_us)
{
    *ret_us = 0;
    if (!timefmt_char(p, '.'))
        return true;
    int64_t us = 0;
    int digits = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++, digits++) {
        if (digits == 6)
            return false;
        us = us * 10 + (**p - '0');
    }
    if (digits == 0)
        return false;
    for (; digits < 6; digits++)
        us *= 10;
    *ret_us = us;
    return true;
}

/* "Z" or "+09:00"; false when absent or malformed. */
static bool timefmt_zone(const char **p, int64_t *ret_s)
{
    *ret_s = 0;
    if (timefmt_char(p, 'Z'))
        return true;
    int sign = **p == '-' ? -1 : 1;
    if (!timefmt_char(p, '+') && !timefmt_char(p, '-'))
        return false;
    int hour = timefmt_number(p, 2);
    if (hour < 0 || hour > 23 || !timefmt_char(p, ':'))
        return false;
    int minute = timefmt_number(p, 2);
    if (minute < 0 || minute > 59)
        return false;
    *ret_s = sign * (hour * 3600 + minute * 60);
    return true;
}

static bool timefmt_date(const char **p, int64_t *ret_days)
{
    struct civil c;
    c.year = timefmt_number(p, 4);
    if (c.year < 1970 || !timefmt_char(p, '-'))
        return false;
    c.month = timefmt_number(p, 2);
    if (c.month < 1 || c.month > 12 || !timefmt_char(p, '-'))
        return false;
    c.day = timefmt_number(p, 2);
    if (c.day < 1 || c.day > civil_month_days(c.year, c.month))
        return false;
    *ret_days = civil_to_days(c);
    return true;
}

static bool timefmt_clock(const char **p, int64_t *ret_s)
{
    int hour = timefmt_number(p, 2);
    if (hour < 0 || hour > 23 || !timefmt_char(p, ':'))
        return false;
    int minute = timefmt_number(p, 2);
    if (minute < 0 || minute > 59 || !timefmt_char(p, ':'))
        return false;
    int second = timefmt_number(p, 2);
    if (second < 0 || second > 59)
        return false;
    *ret_s = hour * 3600 + minute * 60 + second;
    return true;
}

int timefmt_parse(const char *text, int64_t *ret_us, struct err *err)
{
    const char *p = text;
    int64_t days, seconds, fraction_us, zone_s;
    if (!timefmt_date(&p, &days) || !timefmt_char(&p, 'T') ||
        !timefmt_clock(&p, &seconds) || !timefmt_fraction(&p, &fraction_us) ||
        !timefmt_zone(&p, &zone_s) || *p != '\0')
        return err_set(err, ERR_BAD_REQUEST,
                       "bad time '%.40s': give RFC 3339 with an offset, such as "
                       "2026-11-22T21:53:12Z",
                       text);
    int64_t us = (days * SECONDS_PER_DAY + seconds - zone_s) * US_PER_S + fraction_us;
    if (us < 0 || us > TIMEFMT_LAST_US)
        return err_set(err, ERR_BAD_REQUEST,
                       "time '%.40s' is outside the years 1970 to 9999", text);
    *ret_us = us;
    return 0;
}

/* Splits into whole days and microseconds of the day, rounding towards minus infinity.
 */
static struct civil timefmt_split(int64_t us, int64_t *ret_of_day_us)
{
    int64_t day_us = SECONDS_PER_DAY * US_PER_S;
    int64_t days = us / day_us;
    int64_t rest = us % day_us;
    if (rest < 0) {
        rest += day_us;
        days--;
    }
    *ret_of_day_us = rest;
    return civil_from_days(days);
}

static void timefmt_write(int64_t us, char between, char out[TIMEFMT_MAX])
{
    int64_t rest;
    struct civil c = timefmt_split(us, &rest);
    int s = (int)(rest / US_PER_S);
    int n = snprintf(out, TIMEFMT_MAX, "%04d-%02d-%02d%c%02d:%02d:%02d", c.year,
                     c.month, c.day, between, s / 3600, s / 60 % 60, s % 60);
    assert(n > 0 && n < TIMEFMT_MAX);
}

bool timefmt_is_day(const char *text)
{
    char instant[] = "YYYY-MM-DDT00:00:00Z";
    int64_t us;
    if (strlen(text) != 10)
        return false;
    memcpy(instant, text, 10);
    return timefmt_parse(instant, &us, NULL) == 0;
}

void timefmt_utc(int64_t us, char out[TIMEFMT_MAX])
{
    timefmt_write(us, 'T', out);
    int64_t fraction = us % US_PER_S;
    if (fraction < 0)
        fraction += US_PER_S;
    size_t len = strlen(out);
    if (fraction != 0)
        snprintf(out + len, TIMEFMT_MAX - len, ".%06dZ", (int)fraction);
    else
        snprintf(out + len, TIMEFMT_MAX - len, "Z");
}

void timefmt_offset(int64_t us, int offset_s, char out[TIMEFMT_MAX])
{
    timefmt_write(us + offset_s * US_PER_S, ' ', out);
    int minutes = (offset_s < 0 ? -offset_s : offset_s) / 60;
    size_t len = strlen(out);
    snprintf(out + len, TIMEFMT_MAX - len, "%c%02d:%02d", offset_s < 0 ? '-' : '+',
             minutes / 60 % 100, minutes % 60);
}

struct timefmt_unit {
    const char *name;
    int64_t us;
};

/* Largest first; "ms" before "m" so that the longer name is tried first. */
static const struct timefmt_unit timefmt_units[] = {
    {"d", INT64_C(86400000000)},
    {"h", INT64_C(3600000000)},
    {"ms", 1000},
    {"m", 60000000},
    {"us", 1},
    {"s", 1000000},
};

#define TIMEFMT_UNITS (sizeof(timefmt_units) / sizeof(timefmt_units[0]))

static const struct timefmt_unit *timefmt_unit(const char *p)
{
    for (size_t i = 0; i < TIMEFMT_UNITS; i++)
        if (strncmp(p, timefmt_units[i].name, strlen(timefmt_units[i].name)) == 0)
            return &timefmt_units[i];
    return NULL;
}

int timefmt_parse_duration(const char *text, int64_t *ret_us, struct err *err)
{
    int64_t total = 0, last_unit = INT64_MAX;
    const char *p = text;
    if (strcmp(text, "0") == 0) {
        *ret_us = 0;
        return 0;
    }
    do {
        int64_t value = 0;
        int digits = 0;
        for (; *p >= '0' && *p <= '9'; p++, digits++)
            if (__builtin_mul_overflow(value, 10, &value) ||
                __builtin_add_overflow(value, *p - '0', &value))
                goto bad;
        const struct timefmt_unit *unit = timefmt_unit(p);
        /* Units must fall: "30m1h" and "1h1h" are more likely slips than wishes. */
        if (digits == 0 || unit == NULL || unit->us >= last_unit ||
            __builtin_mul_overflow(value, unit->us, &value) ||
            __builtin_add_overflow(total, value, &total))
            goto bad;
        last_unit = unit->us;
        p += strlen(unit->name);
    } while (*p != '\0');
    *ret_us = total;
    return 0;
bad:
    return err_set(err, ERR_BAD_REQUEST,
                   "bad duration '%.40s': give numbers with units d h m s ms us, "
                   "largest first, such as 90m, 4h or 1h30m",
                   text);
}

void timefmt_duration(int64_t us, char out[TIMEFMT_MAX])
{
    static const struct timefmt_unit order[] = {
        {"d", INT64_C(86400000000)},
        {"h", INT64_C(3600000000)},
        {"m", 60000000},
        {"s", 1000000},
        {"ms", 1000},
        {"us", 1},
    };
    /* Durations are not negative in this market; a minus keeps a bug visible. */
    uint64_t left = us < 0 ? -(uint64_t)us : (uint64_t)us;
    size_t len = 0;
    if (us < 0)
        out[len++] = '-';
    if (us == 0) {
        out[len++] = '0';
    }
    out[len] = '\0';
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        uint64_t n = left / (uint64_t)order[i].us;
        left %= (uint64_t)order[i].us;
        if (n > 0)
            len += (size_t)snprintf(out + len, TIMEFMT_MAX - len, "%" PRIu64 "%s", n,
                                    order[i].name);
    }
}

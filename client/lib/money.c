/* money: see money.h. The currency table holds ISO 4217 codes in use with the digits of
 * their minor unit; metals, funds and test codes are left out. No conversion between
 * currencies happens here or anywhere else. */
#include "client/lib/money.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Codes by the number of digits after the point; each code is three letters. */
static const struct {
    int exponent;
    const char *codes;
} money_table[] = {
    {0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"},
    {2, "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD "
        "BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB "
        "EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD "
        "KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU "
        "MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR "
        "RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB "
        "TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD YER ZAR ZMW ZWG"},
    {3, "BHD IQD JOD KWD LYD OMR TND"},
};

int money_exponent(const char *code)
{
    if (strlen(code) != 3)
        return -1;
    for (size_t i = 0; i < sizeof(money_table) / sizeof(money_table[0]); i++)
        for (const char *p = money_table[i].codes; *p != '\0'; p += p[3] == ' ' ? 4 : 3)
            if (memcmp(p, code, 3) == 0)
                return money_table[i].exponent;
    return -1;
}

bool money_currency_known(const char *code)
{
    return money_exponent(code) >= 0;
}

int money_parse(const char *text, int64_t *ret_micro, struct err *err)
{
    const char *p = text;
    bool negative = *p == '-';
    if (negative)
        p++;
    int64_t micro = 0;
    int whole = 0, decimals = -1; /* decimals: -1 before the point */
    for (; *p != '\0'; p++) {
        if (*p == '.' && decimals < 0 && whole > 0) {
            decimals = 0;
            continue;
        }
        if (*p < '0' || *p > '9' || decimals == 6)
            goto bad;
        /* Counted downwards: INT64_MIN has no positive twin. */
        if (__builtin_mul_overflow(micro, 10, &micro) ||
            __builtin_sub_overflow(micro, *p - '0', &micro))
            goto range;
        if (decimals < 0)
            whole++;
        else
            decimals++;
    }
    if (whole == 0 || decimals == 0)
        goto bad;
    for (int i = decimals < 0 ? 0 : decimals; i < 6; i++)
        if (__builtin_mul_overflow(micro, 10, &micro))
            goto range;
    if (!negative && __builtin_sub_overflow(0, micro, &micro))
        goto range;
    *ret_micro = micro;
    return 0;
bad:
    return err_set(err, ERR_BAD_REQUEST,
                   "bad amount '%.40s': give digits with at most 6 decimals, such as "
                   "1999.5",
                   text);
range:
    return err_set(err, ERR_BAD_REQUEST, "amount '%.40s' is out of range", text);
}

void money_format(int64_t micro, const char *currency, char out[MONEY_TEXT_MAX])
{
    int keep = money_exponent(currency);
    if (keep < 0)
        keep = 0;
    uint64_t magnitude = micro < 0 ? -(uint64_t)micro : (uint64_t)micro;
    int n =
        snprintf(out, MONEY_TEXT_MAX, "%s%" PRIu64 ".%06" PRIu64, micro < 0 ? "-" : "",
                 magnitude / MONEY_MICRO, magnitude % MONEY_MICRO);
    assert(n > 0 && n < MONEY_TEXT_MAX);
    for (int decimals = 6; decimals > keep && out[n - 1] == '0'; decimals--)
        out[--n] = '\0';
    if (out[n - 1] == '.')
        out[n - 1] = '\0';
}

int money_mul(int64_t quantity, int64_t price_micro, int64_t unit, int64_t *ret_micro,
              struct err *err)
{
    if (unit <= 0)
        return err_set(err, ERR_BAD_REQUEST, "price unit %" PRId64 " is not positive",
                       unit);
    __int128 product = (__int128)quantity * price_micro;
    bool negative = product < 0;
    unsigned __int128 magnitude =
        negative ? -(unsigned __int128)product : (unsigned __int128)product;
    unsigned __int128 divisor = (unsigned __int128)unit;
    unsigned __int128 quotient = magnitude / divisor;
    if (magnitude % divisor * 2 >= divisor)
        quotient++;
    unsigned __int128 limit = (unsigned __int128)INT64_MAX + (negative ? 1 : 0);
    if (quotient > limit)
        return err_set(err, ERR_BAD_REQUEST,
                       "amount %" PRId64 " x %" PRId64 " / %" PRId64 " is out of range",
                       quantity, price_micro, unit);
    uint64_t low = (uint64_t)quotient;
    *ret_micro = negative ? (int64_t)(-low) : (int64_t)low;
    return 0;
}

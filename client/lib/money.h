/* money: signed 64-bit micro-units (1e-6 of the major unit), same scale for every
 * currency. No floating point. amount = round half away from zero of
 * quantity * price / unit in 128 bits. Pure. */
#ifndef NEARGPU_MONEY_H
#define NEARGPU_MONEY_H
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"

#define MONEY_TEXT_MAX 40
#define MONEY_MICRO    INT64_C(1000000)

/* ISO 4217 alphabetic code known to the table (JPY, USD, EUR, ...)? */
bool money_currency_known(const char *code);
/* Digits after the point of the minor unit (JPY 0, USD 2); -1 when unknown. */
int money_exponent(const char *code);
/* "1999.5" -> micro; up to 6 decimals, optional leading '-', no exponent, no commas. */
int money_parse(const char *text, int64_t *ret_micro, struct err *err) MUST_USE;
/* Shortest exact decimal with at least the currency's exponent: "1999.50", "4000". */
void money_format(int64_t micro, const char *currency, char out[MONEY_TEXT_MAX]);
/* round_half_away(quantity * price / unit). Refuses overflow of int64 and unit <= 0. */
int money_mul(int64_t quantity, int64_t price_micro, int64_t unit, int64_t *ret_micro,
              struct err *err) MUST_USE;

#endif

/* token_impl: what the files of the token module and keyset.c share; nobody else
 * includes it. */
#ifndef NEARGPU_TOKEN_IMPL_H
#define NEARGPU_TOKEN_IMPL_H
#include "client/lib/jsonr.h"
#include "client/lib/token.h"

/* Reads authorization_details (the array) into a zeroed lease, whose device list alone
 * need not be. */
int token_lease_read(struct jsonr *r, struct token_lease *lease,
                     struct err *err) MUST_USE;
/* The array, from a lease; new reference. */
json_t *token_lease_write(const struct token_lease *lease);

/* NVML names a device GPU-… or MIG-… with letters, digits and dashes. */
bool token_is_gpu(const char *uuid);

/* Strict JSON object of a proof or status document. */
json_t *token_payload(const struct jws_parts *parts, size_t max, struct err *err);

/* Makes err an ERR_TOKEN whose text starts with the step; sets *ret_step; -1. */
int token_refuse(const char **ret_step, const char *step, struct err *err);

/* Largest second whose microseconds are still a time of timefmt.h (year 9999). */
#define TOKEN_SECONDS_MAX INT64_C(253402300799)
#define TOKEN_COUNT_MAX   (INT64_C(1) << 53) /* what every JSON reader holds exactly */

#endif

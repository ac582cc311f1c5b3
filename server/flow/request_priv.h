/* request_priv: the one table of members, between request.c and request_query.c. */
#ifndef NEARGPU_REQUEST_PRIV_H
#define NEARGPU_REQUEST_PRIV_H
#include "client/lib/jsonx.h"

extern const struct jsonx_field request_members[];
extern const size_t request_member_count;

#endif

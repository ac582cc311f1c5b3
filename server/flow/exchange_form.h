/* exchange_form: a token exchange that came as a form (RFC 8693 section 2.1) as the
 * body that the same request has in JSON, so that there is one thing to check. A
 * parameter comes once, but `resource` and `audience`; one without a value was not
 * sent; an unknown one says nothing. `gpus` and `actions` are lists with commas, `jwk`
 * is JSON. Does not say what is needed or allowed: flow_token_exchange does. Pure. */
#ifndef NEARGPU_EXCHANGE_FORM_H
#define NEARGPU_EXCHANGE_FORM_H
#include <jansson.h>

#include "client/lib/err.h"

/* form: as uri_form() makes it. A new reference, or NULL with err. */
json_t *exchange_of_form(const json_t *form, struct err *err) MUST_USE;

#endif

/* exchange_form: see the header. */
#include "server/flow/exchange_form.h"

#include <stdint.h>
#include <string.h>

#include "client/lib/jsonx.h"

enum form_kind {
    FORM_TEXT,
    FORM_JSON, /* an object */
    FORM_LIST, /* "a,b" */
    FORM_MANY, /* may come again */
};

static const struct form_name {
    const char *name;
    enum form_kind kind;
} names[] = {
    {"grant_type", FORM_TEXT},
    {"subject_token", FORM_TEXT},
    {"subject_token_type", FORM_TEXT},
    {"requested_token_type", FORM_TEXT},
    {"actor_token", FORM_TEXT},
    {"actor_token_type", FORM_TEXT},
    {"scope", FORM_TEXT},
    {"resource", FORM_MANY},
    {"audience", FORM_MANY},
    {"proof", FORM_TEXT},
    {"jwk", FORM_JSON},
    {"gpus", FORM_LIST},
    {"actions", FORM_LIST},
    {"not_after", FORM_TEXT},
};

#define JWK_BYTES_MAX 1024 /* an Ed25519 JWK has about 100 */

static const struct form_name *name_of(const char *name)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i].name, name) == 0)
            return &names[i];
    return NULL;
}

static json_t *split(const char *text)
{
    json_t *list = json_array();
    for (;;) {
        size_t len = strcspn(text, ",");
        json_array_append_new(list, json_stringn(text, len));
        if (text[len] == '\0')
            return list;
        text += len + 1;
    }
}

static json_t *with_value(const json_t *values)
{
    json_t *list = json_array(), *v;
    size_t i;
    json_array_foreach(values, i, v)
    {
        if (json_string_length(v) > 0)
            json_array_append(list, v);
    }
    return list;
}

static json_t *value_of(const struct form_name *n, json_t *first, struct err *err)
{
    const char *text = json_string_value(first);
    if (n->kind == FORM_LIST)
        return split(text);
    if (n->kind != FORM_JSON)
        return json_incref(first);
    json_t *v = jsonx_parse(text, json_string_length(first), JWK_BYTES_MAX, err);
    if (v == NULL)
        err_prefix(err, "/%s", n->name);
    return v;
}

static int take(json_t *body, const char *name, const json_t *values, struct err *err)
{
    const struct form_name *n = name_of(name);
    if (json_array_size(values) > 1 && (n == NULL || n->kind != FORM_MANY))
        return err_set(err, ERR_BAD_REQUEST, "/%.60s: given more than once", name);
    if (n == NULL)
        return 0;
    json_t *given = with_value(values), *v = NULL;
    int rc = 0;
    if (json_array_size(given) > 0) {
        v = n->kind == FORM_MANY ? json_incref(given)
                                 : value_of(n, json_array_get(given, 0), err);
        rc = v != NULL ? json_object_set_new(body, name, v) : -1;
    }
    json_decref(given);
    return rc;
}

json_t *exchange_of_form(const json_t *form, struct err *err)
{
    json_t *body = json_object(), *values;
    const char *name;
    json_object_foreach((json_t *)(uintptr_t)form, name, values)
    {
        if (take(body, name, values, err) != 0) {
            json_decref(body);
            return NULL;
        }
    }
    return body;
}

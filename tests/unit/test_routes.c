/* The real route table: sound by itself, and the same as docs/openapi.yaml in paths,
 * methods, bodies and roles, both ways. */
#include "tests/unit/unit.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "server/flow/openapi.h"
#include "server/net/net.h"

static json_t *openapi(void)
{
    json_error_t why;
    json_t *doc = json_loadb(openapi_json, openapi_json_len, 0, &why);
    ck_assert_msg(doc != NULL, "%s", why.text);
    return doc;
}

static json_t *operation(json_t *doc, const struct route *r)
{
    char method[16] = "";
    for (size_t i = 0; r->method[i] != '\0'; i++)
        method[i] = (char)tolower((unsigned char)r->method[i]);
    json_t *path = json_object_get(json_object_get(doc, "paths"), r->pattern);
    return json_object_get(path, method);
}

/* "anyone" is ROLE_ANY; an unknown name fails. */
static unsigned described_roles(const json_t *list)
{
    static const struct {
        const char *name;
        unsigned roles;
    } names[] = {{"tenant", ROLE_TENANT},
                 {"provider", ROLE_PROVIDER},
                 {"admin", ROLE_ADMIN},
                 {"agent", ROLE_AGENT},
                 {"anyone", ROLE_ANY}};
    unsigned roles = 0;
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        unsigned one = 0;
        for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++)
            if (strcmp(names[k].name, json_string_value(item)) == 0)
                one = names[k].roles;
        ck_assert_msg(one != 0, "role %s", json_string_value(item));
        roles |= one;
    }
    return roles;
}

START_TEST(test_table_is_sound)
{
    struct route_table *t = route_table_new(net_routes, net_route_count);
    for (size_t i = 0; i < net_route_count; i++) {
        const struct route *r = &net_routes[i];
        ck_assert_int_lt(r->rate, RATE_CLASSES);
        ck_assert_uint_gt(r->kind->step_count, 0);
        if (strcmp(r->method, "POST") != 0 && strcmp(r->method, "PATCH") != 0)
            ck_assert_msg((r->flags & ROUTE_BODY) == 0, "%s", r->pattern);
        if (r->flags & ROUTE_EVENTS)
            ck_assert_msg(r->kind->abandon_on_close, "%s", r->pattern);
    }
    route_table_free(t);
}
END_TEST

START_TEST(test_every_route_is_described)
{
    json_t *doc = openapi();
    for (size_t i = 0; i < net_route_count; i++) {
        const struct route *r = &net_routes[i];
        json_t *op = operation(doc, r);
        ck_assert_msg(op != NULL, "%s %s: not in openapi.yaml", r->method, r->pattern);
        bool body = json_object_get(op, "requestBody") != NULL;
        bool takes = (r->flags & (ROUTE_BODY | ROUTE_BODY_MAYBE)) != 0;
        ck_assert_msg(body == takes, "%s %s: body", r->method, r->pattern);
        unsigned roles = described_roles(json_object_get(op, "x-roles"));
        unsigned asked = (r->roles & ROLE_ANON) != 0 ? ROLE_ANY : r->roles;
        ck_assert_msg(roles == asked, "%s %s: x-roles", r->method, r->pattern);
    }
    json_decref(doc);
}
END_TEST

START_TEST(test_every_description_is_a_route)
{
    json_t *doc = openapi(), *path, *op;
    const char *pattern, *method;
    json_object_foreach(json_object_get(doc, "paths"), pattern, path)
    {
        json_object_foreach(path, method, op)
        {
            if (strcmp(method, "parameters") == 0)
                continue;
            bool found = false;
            for (size_t i = 0; i < net_route_count && !found; i++)
                found = strcmp(net_routes[i].pattern, pattern) == 0 &&
                        strcasecmp(net_routes[i].method, method) == 0;
            ck_assert_msg(found, "%s %s: no such route", method, pattern);
        }
    }
    json_decref(doc);
}
END_TEST

UNIT_MAIN("routes",
          UNIT_CASE(test_table_is_sound) UNIT_CASE(test_every_route_is_described)
              UNIT_CASE(test_every_description_is_a_route))

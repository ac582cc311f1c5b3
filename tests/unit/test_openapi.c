/* Tests of the API's description: it has each route of the server's table with the same
 * roles, and nothing else; its references lead somewhere. */
#include <jansson.h>
#include <string.h>
#include <strings.h>

#include "client/lib/xalloc.h"
#include "server/flow/openapi.h"
#include "server/net/net.h"
#include "tests/unit/unit.h"

static const char *const methods[] = {"get", "post", "put", "patch", "delete"};
#define METHODS (sizeof(methods) / sizeof(methods[0]))

static json_t *load(void)
{
    json_error_t why;
    json_t *doc =
        json_loadb(openapi_json, openapi_json_len, JSON_REJECT_DUPLICATES, &why);
    ck_assert_msg(doc != NULL, "openapi.json: %s", why.text);
    return doc;
}

static unsigned roles_of(const json_t *operation)
{
    static const struct {
        const char *name;
        unsigned role;
    } names[] = {{"anyone", ROLE_ANON},
                 {"tenant", ROLE_TENANT},
                 {"provider", ROLE_PROVIDER},
                 {"admin", ROLE_ADMIN},
                 {"agent", ROLE_AGENT}};
    unsigned roles = 0;
    size_t i;
    const json_t *v;
    json_array_foreach(json_object_get(operation, "x-roles"), i, v)
    {
        for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++)
            if (strcmp(names[k].name, json_string_value(v)) == 0)
                roles |= names[k].role;
    }
    return roles;
}

START_TEST(test_every_route_is_described)
{
    json_t *doc = load(), *paths = json_object_get(doc, "paths");
    for (size_t i = 0; i < net_route_count; i++) {
        const struct route *r = &net_routes[i];
        char method[16] = "";
        for (size_t k = 0; k < METHODS; k++)
            if (strcasecmp(methods[k], r->method) == 0)
                strncat(method, methods[k], sizeof(method) - 1);
        const json_t *op = json_object_get(json_object_get(paths, r->pattern), method);
        ck_assert_msg(op != NULL, "%s %s is not described", r->method, r->pattern);
        unsigned want = r->roles & ROLE_ANON ? ROLE_ANON : r->roles;
        ck_assert_msg(roles_of(op) == want, "%s %s: x-roles are not the route's",
                      r->method, r->pattern);
        ck_assert_msg((json_object_get(op, "requestBody") != NULL) ==
                          ((r->flags & (ROUTE_BODY | ROUTE_BODY_MAYBE)) != 0),
                      "%s %s: body", r->method, r->pattern);
        ck_assert_ptr_nonnull(json_object_get(op, "summary"));
    }
    json_decref(doc);
}
END_TEST

static bool has_route(const char *method, const char *pattern)
{
    for (size_t i = 0; i < net_route_count; i++)
        if (strcasecmp(net_routes[i].method, method) == 0 &&
            strcmp(net_routes[i].pattern, pattern) == 0)
            return true;
    return false;
}

START_TEST(test_nothing_else_is_described)
{
    json_t *doc = load(), *item;
    const char *path;
    json_object_foreach(json_object_get(doc, "paths"), path, item)
    {
        for (size_t k = 0; k < METHODS; k++)
            if (json_object_get(item, methods[k]) != NULL)
                ck_assert_msg(has_route(methods[k], path), "%s %s is no route",
                              methods[k], path);
    }
    json_decref(doc);
}
END_TEST

static void check_refs(const json_t *doc, const json_t *v)
{
    const char *name;
    json_t *member;
    size_t i;
    json_array_foreach(v, i, member) check_refs(doc, member);
    json_object_foreach((json_t *)v, name, member)
    {
        if (strcmp(name, "$ref") != 0) {
            check_refs(doc, member);
            continue;
        }
        const char *ref = json_string_value(member);
        ck_assert_msg(strncmp(ref, "#/", 2) == 0, "%s", ref);
        char *walk = xstrdup(ref + 2), *rest = walk, *part;
        const json_t *at = doc;
        while ((part = strsep(&rest, "/")) != NULL)
            at = json_object_get(at, part);
        ck_assert_msg(at != NULL, "%s leads nowhere", ref);
        free(walk);
    }
}

START_TEST(test_references)
{
    json_t *doc = load();
    check_refs(doc, doc);
    json_decref(doc);
}
END_TEST

UNIT_MAIN("openapi",
          UNIT_CASE(test_every_route_is_described)
              UNIT_CASE(test_nothing_else_is_described) UNIT_CASE(test_references))

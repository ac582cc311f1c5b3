/* Tests of the API's description: it has each route of the server's table with the same
 * roles, and nothing else; its references lead somewhere; what it says of a request is
 * what the server reads, of a reservation what it writes. */
#include <jansson.h>
#include <string.h>
#include <strings.h>

#include "client/lib/xalloc.h"
#include "server/flow/openapi.h"
#include "server/flow/render.h"
#include "server/flow/request_priv.h"
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

static json_t *schema(const json_t *doc, const char *name)
{
    json_t *all = json_object_get(json_object_get(doc, "components"), "schemas");
    return json_object_get(json_object_get(all, name), "properties");
}

/* Both objects have members of the same names. */
static void same_names(const json_t *a, const json_t *b, const char *what)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)a, name, v)
    {
        ck_assert_msg(json_object_get(b, name) != NULL, "%s: %s is in one only", what,
                      name);
    }
    json_object_foreach((json_t *)(uintptr_t)b, name, v)
    {
        ck_assert_msg(json_object_get(a, name) != NULL, "%s: %s is in one only", what,
                      name);
    }
}

START_TEST(test_request_is_described)
{
    json_t *doc = load(), *members = json_object(), *query = json_object(), *v;
    size_t i;
    for (i = 0; i < request_member_count; i++) {
        const char *name = request_members[i].name;
        json_object_set_new(members, name, json_true());
        if (strcmp(name, "quote") != 0 && strcmp(name, "hold") != 0)
            json_object_set_new(query, strcmp(name, "data") == 0 ? "near" : name,
                                json_true());
    }
    same_names(schema(doc, "Request"), members, "Request");
    static const char *const paths[] = {"/v1/offers", "/v1/explain"};
    for (size_t k = 0; k < sizeof(paths) / sizeof(paths[0]); k++) {
        json_t *get = json_object_get(
            json_object_get(json_object_get(doc, "paths"), paths[k]), "get");
        json_t *told = json_object();
        json_array_foreach(json_object_get(get, "parameters"), i, v)
            json_object_set_new(told, json_string_value(json_object_get(v, "name")),
                                json_true());
        same_names(told, query, paths[k]);
        json_decref(told);
    }
    json_decref(members);
    json_decref(query);
    json_decref(doc);
}
END_TEST

/* Every member is always there, also of a row that lacks most of them. */
START_TEST(test_reservation_is_described)
{
    json_t *doc = load();
    json_t *row =
        json_pack("{s:s, s:[{s:s}], s:[{}], s:[{}], s:{}, s:{s:I, s:I, s:b}, "
                  "s:s}",
                  "id", "x", "allocations", "node", "n1", "data", "paths", "waiting",
                  "change", "delta_micro", (json_int_t)-5, "new_total_micro",
                  (json_int_t)7, "dry_run", 1, "currency", "JPY");
    json_t *full = render_change(row);
    json_t *change = json_object_get(full, "change");
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(change, "delta"), "micro")),
        -5);
    ck_assert(json_is_true(json_object_get(change, "dry_run")));
    json_object_del(full, "change");
    const json_t *told = schema(doc, "Reservation");
    same_names(told, full, "Reservation");
    static const char *const lists[] = {"allocations", "data", "paths"};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        same_names(
            json_object_get(json_object_get(json_object_get(told, lists[i]), "items"),
                            "properties"),
            json_array_get(json_object_get(full, lists[i]), 0), lists[i]);
    same_names(json_object_get(json_object_get(told, "waiting"), "properties"),
               json_object_get(full, "waiting"), "waiting");
    json_t *empty = json_object(), *bare = render_resv(empty);
    same_names(told, bare, "an empty row");
    ck_assert(json_is_null(json_object_get(bare, "waiting")));
    ck_assert_uint_eq(json_array_size(json_object_get(bare, "groups")), 0);
    json_decref(empty);
    json_decref(bare);
    json_decref(full);
    json_decref(row);
    json_decref(doc);
}
END_TEST

UNIT_MAIN("openapi",
          UNIT_CASE(test_every_route_is_described)
              UNIT_CASE(test_nothing_else_is_described) UNIT_CASE(test_references)
                  UNIT_CASE(test_request_is_described)
                      UNIT_CASE(test_reservation_is_described))

/* render_tree: see render.h. For documents that grow with the server (its status), so
 * that an older client shows what a newer server says. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/grid.h"
#include "client/cli/render.h"
#include "client/lib/xalloc.h"

#define TREE_DEPTH_MAX 8 /* deeper than any document of ours; jsonx allows 16 */

static bool is_table(const json_t *v)
{
    return json_is_array(v) && json_is_object(json_array_get(v, 0));
}

static enum render_kind kind_of(const json_t *v, const char *key)
{
    size_t len = strlen(key);
    if (json_is_integer(v) && len > 6 && strcmp(key + len - 6, "_bytes") == 0)
        return RENDER_BYTES;
    if (json_is_object(v) && json_object_get(v, "micro") != NULL)
        return RENDER_MONEY;
    if (json_is_integer(v))
        return RENDER_INT;
    if (json_is_array(v))
        return RENDER_LIST;
    const char *text = json_string_value(v);
    bool time = text != NULL && strlen(text) >= 20 && text[4] == '-' && text[10] == 'T';
    return time ? RENDER_TIME : RENDER_TEXT;
}

static bool is_branch(const json_t *v)
{
    return json_is_object(v) && kind_of(v, "") != RENDER_MONEY;
}

static void add_line(struct grid *g, const json_t *obj, const char *key,
                     const char *name, const struct render_opts *o)
{
    const struct render_col col = {"", key, kind_of(json_object_get(obj, key), key),
                                   NULL};
    struct strbuf text = STRBUF_INIT;
    render_clean(&text, name);
    grid_cell(g, strbuf_str(&text));
    strbuf_reset(&text);
    render_cell(obj, &col, o->zone, &text);
    grid_cell(g, strbuf_str(&text));
    grid_end_row(g);
    strbuf_done(&text);
}

/* Own scalars first, then what is below: lines of one prefix stand together. */
static void add_lines(struct grid *g, const json_t *obj, const char *prefix,
                      const struct render_opts *o, int depth)
{
    const char *key;
    json_t *v;
    for (int below = 0; below < 2; below++) {
        json_object_foreach((json_t *)(uintptr_t)obj, key, v)
        {
            char *name = xasprintf("%s%s%s", prefix, *prefix != '\0' ? "." : "", key);
            if (is_branch(v) && below && depth < TREE_DEPTH_MAX)
                add_lines(g, v, name, o, depth + 1);
            else if (!is_branch(v) && !is_table(v) && !below)
                add_line(g, obj, key, name, o);
            free(name);
        }
    }
}

/* Columns are the members of the first object. */
static void add_table(const json_t *rows, const struct render_opts *o,
                      struct strbuf *out)
{
    struct render_col cols[32];
    size_t count = 0;
    const char *key;
    json_t *v;
    json_object_foreach(json_array_get(rows, 0), key, v)
    {
        if (count < RENDER_COUNT_OF(cols))
            cols[count++] = (struct render_col){key, key, kind_of(v, key), NULL};
    }
    render_rows(rows, cols, count, o, out);
}

static void add_tables(const json_t *obj, const char *prefix,
                       const struct render_opts *o, int depth, struct strbuf *out)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)obj, key, v)
    {
        char *name = xasprintf("%s%s%s", prefix, *prefix != '\0' ? "." : "", key);
        if (is_table(v)) {
            strbuf_addc(out, '\n');
            render_clean(out, name);
            strbuf_addc(out, '\n');
            add_table(v, o, out);
        } else if (json_is_object(v) && depth < TREE_DEPTH_MAX) {
            add_tables(v, name, o, depth + 1, out);
        }
        free(name);
    }
}

void render_tree(const json_t *obj, const struct render_opts *o, struct strbuf *out)
{
    struct grid g;
    if (o->format == RENDER_JSON) {
        render_json(obj, out);
        return;
    }
    grid_init(&g);
    grid_column(&g, "name", false);
    grid_column(&g, "value", false);
    add_lines(&g, obj, "", o, 0);
    if (o->format == RENDER_CSV) {
        grid_csv(&g, out);
    } else {
        grid_table(&g, o->colour, -1, out);
        add_tables(obj, "", o, 0, out);
    }
    grid_done(&g);
}

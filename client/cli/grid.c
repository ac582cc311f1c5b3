/* grid: see grid.h. */
#include "client/cli/grid.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/render.h"
#include "client/lib/xalloc.h"

void grid_init(struct grid *g)
{
    *g = (struct grid){NULL, 0, 0, 0, NULL};
}

void grid_done(struct grid *g)
{
    for (size_t i = 0; i < g->count; i++)
        free(g->cells[i]);
    free(g->cells);
    free(g->right);
    grid_init(g);
}

static void add(struct grid *g, const char *text)
{
    if (g->count == g->cap) {
        g->cap = g->cap > 0 ? g->cap * 2 : 64;
        g->cells = xreallocarray(g->cells, g->cap, sizeof(*g->cells));
    }
    g->cells[g->count++] = xstrdup(text);
}

void grid_column(struct grid *g, const char *title, bool right)
{
    assert(g->count == g->columns);
    g->right = xreallocarray(g->right, g->columns + 1, sizeof(*g->right));
    g->right[g->columns++] = right;
    add(g, title);
}

void grid_cell(struct grid *g, const char *text)
{
    add(g, text);
}

void grid_end_row(struct grid *g)
{
    assert(g->columns > 0 && g->count % g->columns == 0);
}

/* Decodes one UTF-8 character of at most len bytes; returns its length, 0 when it is
 * broken (overlong, surrogate, cut). */
static size_t utf8_next(const char *s, size_t len, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80   ? 1
               : p[0] < 0xc2 ? 0
               : p[0] < 0xe0 ? 2
               : p[0] < 0xf0 ? 3
                             : 4;
    uint32_t c;
    if (n == 0 || n > len || p[0] > 0xf4)
        return 0;
    c = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *ret = c;
    return n;
}

struct range {
    uint32_t from, to;
};

static bool within(uint32_t c, const struct range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (c >= ranges[i].from && c <= ranges[i].to)
            return true;
    return false;
}

/* Unicode East Asian Width W and F, and marks without width, by their blocks. */
static size_t char_width(uint32_t c)
{
    static const struct range none[] = {
        {0x300, 0x36f}, {0x200b, 0x200f}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}};
    static const struct range wide[] = {
        {0x1100, 0x115f},   {0x2e80, 0x303e},  {0x3041, 0xa4cf}, {0xac00, 0xd7a3},
        {0xf900, 0xfaff},   {0xfe30, 0xfe6f},  {0xff00, 0xff60}, {0xffe0, 0xffe6},
        {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};
    if (within(c, none, sizeof(none) / sizeof(none[0])))
        return 0;
    return within(c, wide, sizeof(wide) / sizeof(wide[0])) ? 2 : 1;
}

size_t render_width(const char *text)
{
    size_t len = strlen(text), width = 0;
    while (len > 0) {
        uint32_t c = 0;
        size_t n = utf8_next(text, len, &c);
        width += n == 0 ? 1 : char_width(c);
        n = n == 0 ? 1 : n;
        text += n;
        len -= n;
    }
    return width;
}

void render_clean(struct strbuf *out, const char *text)
{
    /* Marks that turn the direction of writing can make a line read as another. */
    static const struct range unsafe[] = {
        {0, 0x1f}, {0x7f, 0x9f}, {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069}};
    size_t len = strlen(text);
    while (len > 0) {
        uint32_t c = 0;
        size_t n = utf8_next(text, len, &c);
        if (n == 0 || within(c, unsafe, sizeof(unsafe) / sizeof(unsafe[0])))
            strbuf_addc(out, '?');
        else
            strbuf_add(out, text, n);
        n = n == 0 ? 1 : n;
        text += n;
        len -= n;
    }
}

static void put_line(const struct grid *g, char **cells, const size_t *widths,
                     struct strbuf *out)
{
    size_t pending = 0; /* spaces owed: none are left at the end of a line */
    for (size_t c = 0; c < g->columns; c++) {
        size_t fill = widths[c] - render_width(cells[c]);
        if (c > 0)
            pending += 2;
        if (g->right[c])
            pending += fill;
        for (; pending > 0; pending--)
            strbuf_addc(out, ' ');
        strbuf_adds(out, cells[c]);
        pending = g->right[c] ? 0 : fill;
    }
}

void grid_table(const struct grid *g, bool colour, int mark, struct strbuf *out)
{
    size_t *widths = xcalloc(g->columns + 1, sizeof(*widths));
    size_t rows = g->columns > 0 ? g->count / g->columns : 0;
    for (size_t i = 0; i < g->count; i++)
        if (render_width(g->cells[i]) > widths[i % g->columns])
            widths[i % g->columns] = render_width(g->cells[i]);
    for (size_t r = 0; r < rows; r++) {
        bool marked = mark >= 0 && r == (size_t)mark + 1;
        bool bold = colour && (marked || r == 0);
        if (bold)
            strbuf_adds(out, "\033[1m");
        if (mark >= 0)
            strbuf_adds(out, marked ? "* " : "  ");
        put_line(g, g->cells + r * g->columns, widths, out);
        strbuf_adds(out, bold ? "\033[0m\n" : "\n");
    }
    free(widths);
}

/* Would a spreadsheet take it for a formula that does something? A number with its
 * unit, or "-", is none. */
static bool is_formula(const char *cell)
{
    if (*cell == '=' || *cell == '@' || *cell == '\t' || *cell == '\r')
        return true;
    return (*cell == '+' || *cell == '-') &&
           cell[strcspn(cell, "()|!=\"'*;{}")] != '\0';
}

void grid_csv(const struct grid *g, struct strbuf *out)
{
    for (size_t i = 0; i < g->count; i++) {
        const char *cell = g->cells[i];
        bool formula = is_formula(cell);
        if (!formula && strpbrk(cell, ",\"\r\n") == NULL) {
            strbuf_adds(out, cell);
        } else {
            strbuf_adds(out, formula ? "\"'" : "\"");
            for (; *cell != '\0'; cell++) {
                if (*cell == '"')
                    strbuf_addc(out, '"');
                strbuf_addc(out, *cell);
            }
            strbuf_addc(out, '"');
        }
        strbuf_adds(out, (i + 1) % g->columns == 0 ? "\r\n" : ",");
    }
}

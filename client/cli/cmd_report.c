/* admin report: what reports there are; one as table, CSV, JSON or a page; all as
 * pages. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/report_page.h"
#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

/* Options that filter, as the server calls them. */
static const char *const filters[] = {"site", "provider", "tenant", "model",
                                      "currency"};

static int list(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"NAME", "name", RENDER_TEXT, NULL},
        {"FILTERS", "filters", RENDER_LIST, NULL},
        {"WHAT", "summary", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    if (cli_get(c, "/v1/reports", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "reports", cols, RENDER_COUNT_OF(cols),
                            "this market has no reports", err);
    json_decref(reply);
    return rc;
}

static int utc(int64_t us)
{
    (void)us;
    return 0;
}

/* --from, --to. A date without a clock is a day of UTC, as the days of reports are:
 * a month is the same wherever it is typed. */
static int query_time(struct cli *c, struct strbuf *path, const char *name,
                      int64_t *ret_us, struct err *err)
{
    const char *text = opt_get(c->opts, name);
    struct when_env env = c->when;
    char time[TIMEFMT_MAX];
    if (text == NULL)
        return 0;
    if (strlen(text) == 10)
        env.zone = utc;
    if (when_parse(text, &env, ret_us, err) < 0)
        return err_prefix(err, "--%s", name);
    timefmt_utc(*ret_us, time);
    cli_query(path, name, time);
    return 0;
}

static int query_period(struct cli *c, struct strbuf *path, struct err *err)
{
    int64_t from = INT64_MIN, to = INT64_MAX;
    if (query_time(c, path, "from", &from, err) < 0 ||
        query_time(c, path, "to", &to, err) < 0)
        return -1;
    if (to <= from)
        return err_set(err, ERR_USAGE, "--to: must be later than --from");
    return 0;
}

/* period: false leaves the period out, for a report that is about now. */
static int fetch(struct cli *c, const char *name, bool period, json_t **ret,
                 struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    char *start = cli_path("/v1/reports/", name, "");
    strbuf_adds(&path, start);
    free(start);
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
        cli_query(&path, filters[i], opt_get(c->opts, filters[i]));
    int rc = period ? query_period(c, &path, err) : 0;
    if (rc == 0)
        rc = cli_get(c, strbuf_str(&path), ret, err);
    strbuf_done(&path);
    return rc;
}

/* How fresh it is, beside the table: programs have it in the JSON. */
static void note_fresh(const struct cli *c, const json_t *report)
{
    static const struct render_col at = {"", "fresh_as_of", RENDER_TIME, NULL};
    const json_t *fresh = json_object_get(report, "fresh_as_of");
    struct strbuf text = STRBUF_INIT;
    if (json_is_null(fresh)) {
        cli_note("this report was not rolled up yet: is neargpu-billd running?");
    } else if (json_is_string(fresh)) {
        render_cell(report, &at, c->render.zone, &text);
        cli_note("fresh as of %s", strbuf_str(&text));
    }
    strbuf_done(&text);
}

static int write_page(const struct strbuf *page, const char *file, struct err *err)
{
    return fsx_write(file, strbuf_str(page), page->len, 0644, err);
}

/* All filters that were given are among those the report takes. */
static bool takes_filters(const struct cli *c, const json_t *entry)
{
    const json_t *has = json_object_get(entry, "filters"), *v;
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        bool found = opt_get(c->opts, filters[i]) == NULL;
        size_t k;
        json_array_foreach(has, k, v) found =
            found || strcmp(json_string_value(v), filters[i]) == 0;
        if (!found)
            return false;
    }
    return true;
}

static int page_into(struct cli *c, const json_t *entry, const char *dir,
                     json_t *counts, struct err *err)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    struct strbuf page = STRBUF_INIT;
    json_t *report = NULL;
    if (name == NULL ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(name))
        return err_set(err, ERR_INTERNAL, "the server has a report without a name");
    if (fetch(c, name, json_is_true(json_object_get(entry, "period")), &report, err) <
        0)
        return err_prefix(err, "%s", name);
    report_page(report, c->account.server, true, &page);
    char *file = xasprintf("%s/%s.html", dir, name);
    int rc = write_page(&page, file, err);
    json_object_set_new(
        counts, name,
        json_integer((json_int_t)json_array_size(json_object_get(report, "rows"))));
    free(file);
    strbuf_done(&page);
    json_decref(report);
    return rc;
}

static int all_pages(struct cli *c, const char *dir, struct err *err)
{
    json_t *reply = NULL, *entry, *made = json_array(), *counts = json_object();
    struct strbuf page = STRBUF_INIT;
    size_t i;
    int rc = fsx_mkdirs(dir, 0755, err);
    if (rc == 0)
        rc = cli_get(c, "/v1/reports", &reply, err);
    json_array_foreach(json_object_get(reply, "reports"), i, entry)
    {
        if (rc != 0 || !takes_filters(c, entry))
            continue;
        rc = page_into(c, entry, dir, counts, err);
        json_array_append(made, entry);
    }
    if (rc == 0) {
        report_index(made, c->account.server, counts, &page);
        char *file = xasprintf("%s/index.html", dir);
        rc = write_page(&page, file, err);
        if (rc == 0)
            cli_note("%zu reports are in %s", json_array_size(made), file);
        free(file);
    }
    strbuf_done(&page);
    json_decref(counts);
    json_decref(made);
    json_decref(reply);
    return rc;
}

static int show(struct cli *c, const json_t *report, const char *name, struct err *err)
{
    const char *html = opt_get(c->opts, "html");
    struct strbuf out = STRBUF_INIT;
    int rc = 0;
    if (html != NULL) {
        report_page(report, c->account.server, false, &out);
        rc = write_page(&out, html, err);
    } else if (c->render.format == RENDER_TABLE &&
               json_array_size(json_object_get(report, "rows")) == 0) {
        cli_note("report %s is empty for this period", name);
    } else {
        render_report(report, &c->render, &out);
        rc = cli_print(&out, err);
    }
    if (rc == 0 && (html != NULL || c->render.format != RENDER_JSON))
        note_fresh(c, report);
    strbuf_done(&out);
    return rc;
}

int cmd_admin_report(struct cli *c, struct err *err)
{
    const char *html = opt_get(c->opts, "html");
    json_t *report = NULL;
    if (opt_has(c->opts, "all")) {
        if (html == NULL || c->opts->arg_count > 0)
            return err_set(err, ERR_USAGE, "--all needs --html DIRECTORY, and no NAME");
        return all_pages(c, html, err);
    }
    if (c->opts->arg_count == 0)
        return html != NULL ? err_set(err, ERR_USAGE,
                                      "--html FILE needs a report's NAME, or --all")
                            : list(c, err);
    const char *name = c->opts->args[0];
    int rc = fetch(c, name, true, &report, err);
    if (rc == 0)
        rc = show(c, report, name, err);
    json_decref(report);
    return rc;
}

/* launch_spec: JOB/spec.json, written before anything runs and read by the keeper. */
#include "client/agent/launch.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/journal.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"

static void list_free(char **list)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++)
        free(list[i]);
    free(list);
}

void launch_spec_done(struct launch_spec *spec)
{
    free(spec->lease);
    free(spec->job);
    free(spec->base);
    list_free(spec->argv);
    list_free(spec->envp);
    free(spec->cwd);
    for (size_t i = 0; i < spec->node_count; i++) {
        free(spec->nodes[i].outside);
        free(spec->nodes[i].inside);
    }
    free(spec->nodes);
    list_free(spec->hide);
    for (size_t i = 0; i < spec->file_count; i++) {
        free(spec->files[i].name);
        free(spec->files[i].text);
    }
    free(spec->files);
    free(spec->term);
    free(spec->image);
    free(spec->podman);
    free(spec->image_store);
    free(spec->holder);
    memset(spec, 0, sizeof(*spec));
}

static size_t list_len(char *const *list)
{
    size_t n = 0;
    while (list != NULL && list[n] != NULL)
        n++;
    return n;
}

/* "nvidia3", "nvidia-caps/nvidia-cap7": no way up, no absolute path. */
static bool inside_is_valid(const char *path)
{
    if (path[0] == '\0' || path[0] == '/' || strlen(path) > 200)
        return false;
    for (const char *p = path; *p != '\0'; p = strchr(p, '/') ? strchr(p, '/') + 1 : "")
        if (p[0] == '.' || p[0] == '/')
            return false;
    return true;
}

/* Printable ASCII without blanks and quotes, not to be taken for an option. */
static bool word_is_valid(const char *text, const char *punctuation, size_t max)
{
    size_t len = strlen(text);
    if (len < 1 || len > max || text[0] == '-')
        return false;
    for (const char *p = text; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && strchr(punctuation, *p) == NULL)
            return false;
    return true;
}

static int looks_check(const struct launch_spec *s, struct err *err)
{
    if (s->rows > LAUNCH_WINDOW_MAX || s->cols > LAUNCH_WINDOW_MAX)
        return err_set(err, ERR_BAD_REQUEST, "launch: a window is at most %d by %d",
                       LAUNCH_WINDOW_MAX, LAUNCH_WINDOW_MAX);
    if (s->term != NULL && !word_is_valid(s->term, "._+-", LAUNCH_TERM_MAX))
        return err_set(err, ERR_BAD_REQUEST, "launch: not a kind of terminal");
    if (s->image != NULL && !word_is_valid(s->image, "._-/:@", LAUNCH_IMAGE_MAX))
        return err_set(err, ERR_BAD_REQUEST, "launch: not a name of an image");
    if (s->image != NULL && (s->podman == NULL || s->image_store == NULL))
        return err_set(err, ERR_FORBIDDEN, "container images are not offered here");
    return 0;
}

static int spec_check(const struct launch_spec *s, struct err *err)
{
    if (s->lease == NULL || !journal_id_is_valid(s->lease) || s->job == NULL ||
        !journal_id_is_valid(s->job))
        return err_set(err, ERR_BAD_REQUEST, "launch: lease or job id not usable");
    if (s->base != NULL && !journal_id_is_valid(s->base))
        return err_set(err, ERR_BAD_REQUEST, "launch: cgroup base not usable");
    if (list_len(s->argv) < 1 || s->argv[0][0] == '\0')
        return err_set(err, ERR_BAD_REQUEST, "launch: no command");
    if (list_len(s->argv) > LAUNCH_ARGV_MAX || list_len(s->envp) > LAUNCH_ARGV_MAX)
        return err_set(err, ERR_TOO_LARGE,
                       "launch: more than %d arguments or environment entries",
                       LAUNCH_ARGV_MAX);
    for (size_t i = 0; i < list_len(s->envp); i++)
        if (strchr(s->envp[i], '=') == NULL || s->envp[i][0] == '=')
            return err_set(err, ERR_BAD_REQUEST, "launch: environment %zu has no name",
                           i);
    if (s->cwd != NULL && s->cwd[0] != '/')
        return err_set(err, ERR_BAD_REQUEST, "launch: cwd must be absolute");
    if (s->uid == 0 || s->gid == 0 || s->uid == (uid_t)-1 || s->gid == (gid_t)-1)
        return err_set(err, ERR_BAD_REQUEST, "launch: a job never runs as root");
    if (s->node_count > LAUNCH_NODES_MAX)
        return err_set(err, ERR_TOO_LARGE, "launch: more than %d device nodes",
                       LAUNCH_NODES_MAX);
    for (size_t i = 0; i < s->node_count; i++)
        if (s->nodes[i].outside[0] != '/' || !inside_is_valid(s->nodes[i].inside))
            return err_set(err, ERR_BAD_REQUEST, "launch: bad path of device node %zu",
                           i);
    for (size_t i = 0; i < list_len(s->hide); i++)
        if (s->hide[i][0] != '/' || s->hide[i][1] == '\0')
            return err_set(err, ERR_BAD_REQUEST, "launch: cannot hide %s", s->hide[i]);
    if (s->file_count > LAUNCH_FILES_MAX)
        return err_set(err, ERR_TOO_LARGE, "launch: more than %d files",
                       LAUNCH_FILES_MAX);
    for (size_t i = 0; i < s->file_count; i++)
        if (!journal_id_is_valid(s->files[i].name))
            return err_set(err, ERR_BAD_REQUEST,
                           "launch: a file's name is 1 to 63 of A-Z a-z 0-9 . _ -");
    if (s->drain_us < 0 || s->output_max < 0 || s->nofile < 0 || s->nproc < 0 ||
        s->end_boot_us < 0)
        return err_set(err, ERR_BAD_REQUEST, "launch: negative limit");
    return looks_check(s, err);
}

/* NULL when one of the strings is not UTF-8. */
static json_t *list_json(char *const *list)
{
    json_t *out = json_array();
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        if (json_array_append_new(out, json_string(list[i])) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *spec_json(const struct launch_spec *s)
{
    json_t *nodes = json_array();
    for (size_t i = 0; i < s->node_count; i++) {
        const struct launch_node *n = &s->nodes[i];
        json_array_append_new(nodes, json_pack("{s:s,s:s,s:I,s:I}", "outside",
                                               n->outside, "inside", n->inside, "major",
                                               (json_int_t)n->major, "minor",
                                               (json_int_t)n->minor));
    }
    json_t *files = json_object();
    for (size_t i = 0; i < s->file_count; i++)
        if (json_object_set_new(files, s->files[i].name,
                                json_string(s->files[i].text)) != 0) {
            json_decref(files);
            files = NULL; /* no UTF-8: then the whole cannot be made */
            break;
        }
    return json_pack(
        "{s:s,s:s,s:s*,s:o,s:o,s:s*,s:I,s:I,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:b,"
        "s:b,s:i,s:i,s:s*,s:s*,s:s*,s:s*,s:s*,s:I}",
        "lease", s->lease, "job", s->job, "base", s->base, "argv", list_json(s->argv),
        "env", list_json(s->envp), "cwd", s->cwd, "uid", (json_int_t)s->uid, "gid",
        (json_int_t)s->gid, "nodes", nodes, "hide", list_json(s->hide), "files", files,
        "drain_us", (json_int_t)s->drain_us, "output_max", (json_int_t)s->output_max,
        "nofile", (json_int_t)s->nofile, "nproc", (json_int_t)s->nproc, "stdin",
        s->want_stdin, "pty", s->pty, "rows", (int)s->rows, "cols", (int)s->cols,
        "term", s->term, "image", s->image, "podman", s->podman, "image_store",
        s->image_store, "holder", s->holder, "end_boot_us", (json_int_t)s->end_boot_us);
}

int launch_spec_write(const char *job_dir, const struct launch_spec *spec,
                      struct err *err)
{
    if (spec_check(spec, err) < 0)
        return -1;
    json_t *doc = spec_json(spec);
    if (doc == NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "launch: command, environment or path is not UTF-8");
    char *text = jsonx_dump(doc), *path = xasprintf("%s/spec.json", job_dir);
    size_t len = strlen(text);
    int rc = len <= LAUNCH_SPEC_MAX ? fsx_replace(path, text, len, 0600, err)
                                    : err_set(err, ERR_TOO_LARGE,
                                              "launch: command and environment over %d "
                                              "bytes",
                                              LAUNCH_SPEC_MAX);
    free(path);
    free(text);
    json_decref(doc);
    return rc;
}

struct spec_raw {
    const char *lease, *job, *base, *cwd, *term, *image, *podman, *image_store, *holder;
    json_t *argv, *env, *nodes, *hide, *files;
    int64_t uid, gid, drain_us, output_max, nofile, nproc, rows, cols, end_boot_us;
    bool want_stdin, pty;
};

#define RAW(member) offsetof(struct spec_raw, member)
static const struct jsonx_field spec_fields[] = {
    {"lease", JSONX_STRING, true, RAW(lease), 0, 0},
    {"job", JSONX_STRING, true, RAW(job), 0, 0},
    {"base", JSONX_STRING, false, RAW(base), 0, 0},
    {"argv", JSONX_ARRAY, true, RAW(argv), 1, LAUNCH_ARGV_MAX},
    {"env", JSONX_ARRAY, true, RAW(env), 0, LAUNCH_ARGV_MAX},
    {"cwd", JSONX_STRING, false, RAW(cwd), 1, 4096},
    {"uid", JSONX_INT, true, RAW(uid), 1, UINT32_MAX - 1},
    {"gid", JSONX_INT, true, RAW(gid), 1, UINT32_MAX - 1},
    {"nodes", JSONX_ARRAY, true, RAW(nodes), 0, LAUNCH_NODES_MAX},
    {"hide", JSONX_ARRAY, true, RAW(hide), 0, 64},
    {"files", JSONX_OBJECT, false, RAW(files), 0, 0},
    {"drain_us", JSONX_INT, true, RAW(drain_us), 0, INT64_MAX},
    {"output_max", JSONX_INT, true, RAW(output_max), 0, INT64_MAX},
    {"nofile", JSONX_INT, true, RAW(nofile), 0, INT64_MAX},
    {"nproc", JSONX_INT, true, RAW(nproc), 0, INT64_MAX},
    {"stdin", JSONX_BOOL, true, RAW(want_stdin), 0, 0},
    {"pty", JSONX_BOOL, false, RAW(pty), 0, 0},
    {"rows", JSONX_INT, false, RAW(rows), 0, LAUNCH_WINDOW_MAX},
    {"cols", JSONX_INT, false, RAW(cols), 0, LAUNCH_WINDOW_MAX},
    {"term", JSONX_STRING, false, RAW(term), 1, LAUNCH_TERM_MAX},
    {"image", JSONX_STRING, false, RAW(image), 1, LAUNCH_IMAGE_MAX},
    {"podman", JSONX_STRING, false, RAW(podman), 1, 4096},
    {"image_store", JSONX_STRING, false, RAW(image_store), 1, 4096},
    {"holder", JSONX_STRING, false, RAW(holder), 1, LAUNCH_HOLDER_MAX},
    {"end_boot_us", JSONX_INT, false, RAW(end_boot_us), 0, INT64_MAX},
};

static int list_read(const json_t *list, const char *at, char ***ret, struct err *err)
{
    char **out = xcalloc(json_array_size(list) + 1, sizeof(*out));
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (!json_is_string(item)) {
            list_free(out);
            return err_set(err, ERR_BAD_REQUEST, "%s/%zu: expected string", at, i);
        }
        out[i] = xstrdup(json_string_value(item));
    }
    *ret = out;
    return 0;
}

static int nodes_read(const json_t *list, struct launch_spec *s, struct err *err)
{
    struct node_raw {
        const char *outside, *inside;
        int64_t major, minor;
    } raw;
    static const struct jsonx_field fields[] = {
        {"outside", JSONX_STRING, true, offsetof(struct node_raw, outside), 1, 4096},
        {"inside", JSONX_STRING, true, offsetof(struct node_raw, inside), 1, 200},
        {"major", JSONX_INT, true, offsetof(struct node_raw, major), 0, 0xfff},
        {"minor", JSONX_INT, true, offsetof(struct node_raw, minor), 0, 0xfffff},
    };
    s->nodes = xcalloc(json_array_size(list) + 1, sizeof(*s->nodes));
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (jsonx_decode(item, fields, JSONX_COUNT(fields), &raw, "/nodes", err) < 0)
            return -1;
        s->nodes[s->node_count++] =
            (struct launch_node){xstrdup(raw.outside), xstrdup(raw.inside),
                                 (uint32_t)raw.major, (uint32_t)raw.minor};
    }
    return 0;
}

int launch_files_read(const json_t *map, const char *at, struct launch_file **ret,
                      size_t *ret_count, struct err *err)
{
    size_t n = json_object_size(map);
    const char *name;
    json_t *text;
    if (n > LAUNCH_FILES_MAX)
        return err_set(err, ERR_TOO_LARGE, "%s: more than %d files", at,
                       LAUNCH_FILES_MAX);
    *ret = xcalloc(n + 1, sizeof(**ret));
    *ret_count = 0;
    json_object_foreach((json_t *)(uintptr_t)map, name, text)
    {
        if (!journal_id_is_valid(name))
            return err_set(err, ERR_BAD_REQUEST,
                           "%s/%.60s: a name is 1 to 63 of A-Z a-z 0-9 . _ -", at,
                           name);
        if (!json_is_string(text) ||
            strlen(json_string_value(text)) != json_string_length(text))
            return err_set(err, ERR_BAD_REQUEST, "%s/%s: expected a text without NUL",
                           at, name);
        (*ret)[*ret_count].name = xstrdup(name);
        (*ret)[(*ret_count)++].text = xstrdup(json_string_value(text));
    }
    return 0;
}

static char *dup_or_null(const char *text)
{
    return text != NULL ? xstrdup(text) : NULL;
}

static int spec_fill(const struct spec_raw *r, struct launch_spec *s, struct err *err)
{
    s->lease = xstrdup(r->lease);
    s->job = xstrdup(r->job);
    s->base = dup_or_null(r->base);
    s->cwd = dup_or_null(r->cwd);
    s->uid = (uid_t)r->uid;
    s->gid = (gid_t)r->gid;
    s->drain_us = r->drain_us;
    s->output_max = r->output_max;
    s->nofile = r->nofile;
    s->nproc = r->nproc;
    s->want_stdin = r->want_stdin || r->pty;
    s->pty = r->pty;
    s->rows = (uint16_t)r->rows;
    s->cols = (uint16_t)r->cols;
    s->term = dup_or_null(r->term);
    s->image = dup_or_null(r->image);
    s->podman = dup_or_null(r->podman);
    s->image_store = dup_or_null(r->image_store);
    s->holder = dup_or_null(r->holder);
    s->end_boot_us = r->end_boot_us;
    if (list_read(r->argv, "/argv", &s->argv, err) < 0 ||
        list_read(r->env, "/env", &s->envp, err) < 0 ||
        list_read(r->hide, "/hide", &s->hide, err) < 0 ||
        nodes_read(r->nodes, s, err) < 0 ||
        launch_files_read(r->files, "/files", &s->files, &s->file_count, err) < 0)
        return -1;
    return spec_check(s, err);
}

int launch_spec_read(const char *job_dir, struct launch_spec *ret, struct err *err)
{
    char *path = xasprintf("%s/spec.json", job_dir), *text;
    size_t len;
    int rc = fsx_read(path, LAUNCH_SPEC_MAX, &text, &len, err);
    free(path);
    if (rc < 0)
        return -1;
    json_t *doc = jsonx_parse(text, len, LAUNCH_SPEC_MAX, err);
    free(text);
    if (doc == NULL)
        return err_prefix(err, "spec.json");
    struct spec_raw raw = {0};
    struct launch_spec spec = {0};
    rc = jsonx_decode(doc, spec_fields, JSONX_COUNT(spec_fields), &raw, "", err);
    if (rc == 0)
        rc = spec_fill(&raw, &spec, err);
    json_decref(doc);
    if (rc == 0)
        *ret = spec;
    else
        launch_spec_done(&spec);
    return rc;
}

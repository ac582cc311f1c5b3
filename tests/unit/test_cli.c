/* Tests of the command table: every option explained, every example valid, every verb
 * in a page of docs/; account files and their modes. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

static bool sentence(const char *text)
{
    size_t len = text != NULL ? strlen(text) : 0;
    return len > 3 && (text[len - 1] == '.' || text[len - 1] == '?');
}

static void check_options(const char *where, const struct opt_def *opts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ck_assert_msg(sentence(opts[i].help), "%s --%s: no sentence", where,
                      opts[i].name);
        for (size_t k = 0; k < i; k++)
            ck_assert_msg(strcmp(opts[i].name, opts[k].name) != 0, "%s --%s: twice",
                          where, opts[i].name);
    }
}

START_TEST(test_every_option_is_explained)
{
    check_options("neargpu", cli_program.global, cli_program.global_count);
    ck_assert_uint_eq(cli_program.command_count, CMD_COUNT);
    for (size_t i = 0; i < CMD_COUNT; i++) {
        const struct opt_command *c = &cli_program.commands[i];
        ck_assert_msg(c->name != NULL && c->summary != NULL, "command %zu is empty", i);
        check_options(c->name, c->opts, c->opt_count);
        ck_assert_msg(c->example_count > 0, "%s: no example", c->name);
    }
}
END_TEST

/* Cuts an example as a shell would (only "…" is used in them). */
static int cut(char *line, char **argv, int max)
{
    int argc = 0;
    for (char *p = line; *p != '\0' && argc < max - 1;) {
        char stop = *p == '"' ? '"' : ' ';
        if (*p == '"')
            p++;
        argv[argc++] = p;
        while (*p != '\0' && *p != stop)
            p++;
        while (*p == stop || *p == ' ')
            *p++ = '\0';
    }
    argv[argc] = NULL;
    return argc;
}

static int zone_utc(int64_t us)
{
    (void)us;
    return 0;
}

START_TEST(test_every_example_parses)
{
    const struct when_env env = {0, zone_utc};
    for (size_t i = 0; i < CMD_COUNT; i++) {
        const struct opt_command *c = &cli_program.commands[i];
        for (size_t k = 0; k < c->example_count; k++) {
            char *line = xstrdup(c->examples[k].command), *argv[64], *made = NULL;
            struct opt_values v = {0};
            struct err err = {ERR_NONE, ""};
            int argc = cut(line, argv, 64);
            argc = when_join_between(argc, argv, &env, &made);
            ck_assert_msg(opt_parse(&cli_program, argc, argv, &v, &err) == 0, "%s: %s",
                          c->examples[k].command, err.text);
            ck_assert_msg(v.command == c, "%s: is another command",
                          c->examples[k].command);
            ck_assert(sentence(c->examples[k].what));
            opt_done(&v);
            free(made);
            free(line);
        }
    }
}
END_TEST

/* The pages for people who use, provide and administer. */
START_TEST(test_every_command_is_in_docs)
{
    static const char *const pages[] = {"quickstart", "tenants", "administrators",
                                        "providers"};
    const char *srcdir = NEARGPU_SRCDIR;
    struct strbuf all = STRBUF_INIT;
    struct err err;
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        char *path = xasprintf("%s/docs/%s.md", srcdir, pages[i]), *text = NULL;
        if (fsx_read(path, 1 << 20, &text, NULL, &err) == 0)
            strbuf_adds(&all, text);
        else
            ck_assert_msg(strcmp(pages[i], "providers") == 0, "%s", err.text);
        free(text);
        free(path);
    }
    for (size_t i = 0; i < CMD_COUNT; i++) {
        char *verb = xasprintf("neargpu %s", cli_program.commands[i].name);
        ck_assert_msg(strstr(strbuf_str(&all), verb) != NULL, "%s: in no page of docs/",
                      verb);
        free(verb);
    }
    strbuf_done(&all);
}
END_TEST

static void relaxed(const char *line, const char *relax, const char *want)
{
    char *words = xstrdup(line), *argv[64];
    struct opt_values v = {0};
    struct cli c = {.opts = &v};
    struct err err = {ERR_NONE, ""};
    json_t *why = json_loads(relax, 0, NULL);
    ck_assert_ptr_nonnull(why);
    ck_assert_msg(opt_parse(&cli_program, cut(words, argv, 64), argv, &v, &err) == 0,
                  "%s", err.text);
    char *got = cli_relaxed_command(&c, why);
    ck_assert_str_eq(got, want);
    free(got);
    json_decref(why);
    opt_done(&v);
    free(words);
}

START_TEST(test_relaxed_commands)
{
    relaxed("neargpu explain --near a --gpus 8 --for 4h --max-rtt 5ms -o json",
            "{\"member\":\"max_rtt\",\"value\":\"17ms\",\"text\":\"+12 ms\"}",
            "neargpu reserve --near a --gpus 8 --for 4h --max-rtt 17ms");
    relaxed(
        "neargpu --account lab explain --for 4h --between now..+1h --spot",
        "{\"member\":\"start\",\"value\":\"2026-11-23T14:40:00Z\"}",
        "neargpu reserve --account lab --for 4h --spot --start 2026-11-23T14:40:00Z");
    relaxed("neargpu reserve --for 4h --gpus 8 --max-price 10 --key k1",
            "{\"member\":\"max_price\",\"value\":{\"currency\":\"USD\",\"micro\":"
            "12340000}}",
            "neargpu reserve --for 4h --gpus 8 --max-price 12.34USD");
    relaxed("neargpu explain --for 4h --gpus 8 --deny-site x --site \"a b\"",
            "{\"member\":\"deny_site\",\"value\":null}",
            "neargpu reserve --for 4h --gpus 8 --site 'a b'");
    relaxed("neargpu explain --for 4h --gpus 8", "{\"member\":\"gpus\",\"value\":7}",
            "neargpu reserve --for 4h --gpus 7");
    relaxed("neargpu explain --for 4h --min-memory 80GB",
            "{\"member\":\"min_memory_mib\",\"value\":40960}",
            "neargpu reserve --for 4h --min-memory 40960MiB");
    relaxed("neargpu explain --for 4h", "{\"member\":\"spot\",\"value\":true}",
            "neargpu reserve --for 4h --spot");
    relaxed("neargpu explain --for 4h --spot", "{\"member\":\"spot\",\"value\":false}",
            "neargpu reserve --for 4h");
}
END_TEST

START_TEST(test_man_names_all)
{
    char *man = opt_man(&cli_program), *to = man;
    for (const char *p = man; *p != '\0'; p++) /* "join\-code" is how mdoc writes it */
        if (*p != '\\')
            *to++ = *p;
    *to = '\0';
    for (size_t i = 0; i < CMD_COUNT; i++)
        ck_assert_msg(strstr(man, cli_program.commands[i].name) != NULL,
                      "%s: not in it", cli_program.commands[i].name);
    free(man);
}
END_TEST

static void set_account(struct account *a, const char *dir)
{
    struct err err = {ERR_NONE, ""};
    ck_assert_int_eq(setenv("NEARGPU_CONFIG_DIR", dir, 1), 0);
    ck_assert_msg(account_init(a, "lab", &err) == 0, "%s", err.text);
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    return st.st_mode & 0777;
}

START_TEST(test_account_files)
{
    char top[] = "/tmp/neargpu-test.XXXXXX";
    struct account a, b;
    struct err err = {ERR_NONE, ""};
    EVP_PKEY *key = NULL, *again = NULL;
    ck_assert_ptr_nonnull(mkdtemp(top));
    char *dir = xasprintf("%s/deep/er", top);
    set_account(&a, dir);
    ck_assert_int_lt(account_load(&a, &err), 0);
    ck_assert_int_eq(err.code, ERR_UNAUTHENTICATED);
    ck_assert_ptr_nonnull(strstr(err.text, "neargpu login"));
    ck_assert_ptr_nonnull(strstr(err.text, "--account lab"));
    a.server = xstrdup("https://127.0.0.1:8443");
    a.api_key = xstrdup("ngk_secret");
    a.currency = xstrdup("JPY");
    ck_assert_msg(account_save(&a, &err) == 0, "%s", err.text);
    ck_assert_msg(account_key(&a, 1, &key, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(mode_of(a.json_path), 0600);
    ck_assert_uint_eq(mode_of(a.key_path), 0600);
    ck_assert_uint_eq(mode_of(dir), 0700);
    set_account(&b, dir);
    ck_assert_msg(account_load(&b, &err) == 0, "%s", err.text);
    ck_assert_str_eq(b.api_key, "ngk_secret");
    ck_assert_str_eq(b.currency, "JPY");
    ck_assert_msg(account_key(&b, 0, &again, &err) == 0, "%s", err.text);
    ck_assert_int_eq(EVP_PKEY_eq(key, again), 1);
    /* Readable by others: refused, with what to do. */
    ck_assert_int_eq(chmod(b.json_path, 0640), 0);
    ck_assert_int_lt(account_load(&b, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "chmod"));
    ck_assert_msg(account_remove(&b, &err) == 0, "%s", err.text);
    ck_assert_int_ne(access(b.key_path, F_OK), 0);
    EVP_PKEY_free(key);
    EVP_PKEY_free(again);
    account_done(&a);
    account_done(&b);
    ck_assert_int_eq(fsx_remove_tree(top, &err), 0);
    free(dir);
}
END_TEST

START_TEST(test_account_names)
{
    static const char *const bad[] = {"", ".", "../x", "a/b", ".hidden", "a b"};
    struct account a;
    struct err err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(account_init(&a, bad[i], &err) < 0, "'%s' was accepted", bad[i]);
        account_done(&a);
    }
}
END_TEST

UNIT_MAIN("cli",
          UNIT_CASE(test_every_option_is_explained) UNIT_CASE(test_every_example_parses)
              UNIT_CASE(test_relaxed_commands) UNIT_CASE(test_man_names_all)
                  UNIT_CASE(test_every_command_is_in_docs) UNIT_CASE(test_account_files)
                      UNIT_CASE(test_account_names))

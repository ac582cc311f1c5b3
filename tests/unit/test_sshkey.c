/* sshkey, sshagent: keys as OpenSSH's own programs write them (ssh-keygen, ssh-agent,
 * ssh-add of this machine), read, named and used; and every damage refused. Skipped
 * where the programs are not installed, but for the known answer. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/cli/account.h"
#include "client/lib/fsx.h"
#include "client/lib/sshagent.h"
#include "client/lib/sshkey.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

/* The key of RFC 8032 7.1 test 1, in OpenSSH's text. */
static const uint8_t known[32] = {0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7,
                                  0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
                                  0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25,
                                  0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a};
static const char known_text[] =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";

static char dir[64];
static pid_t agent_pid;

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/sshkey-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    agent_pid = 0;
}

static void teardown(void)
{
    struct err err;
    if (agent_pid > 0) {
        kill(agent_pid, SIGTERM);
        waitpid(agent_pid, NULL, 0);
    }
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}

static bool have(const char *program)
{
    char path[64];
    snprintf(path, sizeof(path), "/usr/bin/%s", program);
    return access(path, X_OK) == 0;
}

/* Runs argv in silence; its exit status. */
static int run(const char *const *argv)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL ||
            freopen("/dev/null", "w", stderr) == NULL ||
            freopen("/dev/null", "r", stdin) == NULL)
            _exit(126);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static char *keygen(const char *name, const char *type, const char *passphrase)
{
    char *path = in_dir(name);
    const char *const argv[] = {"ssh-keygen", "-q",       "-t", type,
                                "-N",         passphrase, "-C", "tenant of a test",
                                "-f",         path,       NULL};
    ck_assert_int_eq(run(argv), 0);
    return path;
}

static char *text_of(const char *path, const char *suffix, size_t *len)
{
    char *file = xasprintf("%s%s", path, suffix), *text;
    struct err err;
    ck_assert_msg(fsx_read(file, SSHKEY_FILE_MAX, &text, len, &err) == 0, "%s",
                  err.text);
    free(file);
    return text;
}

static void start_agent(void)
{
    char *path = in_dir("agent");
    agent_pid = fork();
    if (agent_pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        execlp("ssh-agent", "ssh-agent", "-D", "-a", path, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 500 && access(path, F_OK) != 0; i++)
        (void)poll(NULL, 0, 10);
    ck_assert_int_eq(setenv("SSH_AUTH_SOCK", path, 1), 0);
    free(path);
}

START_TEST(test_known)
{
    struct sshkey_public key;
    struct err err;
    char text[SSHKEY_TEXT_MAX], finger[SSHKEY_FINGER_MAX];
    sshkey_text(known, text);
    ck_assert_str_eq(text, known_text);
    ck_assert_msg(sshkey_public(text, strlen(text), &key, &err) == 0, "%s", err.text);
    ck_assert_int_eq(memcmp(key.pub, known, 32), 0);
    ck_assert_str_eq(key.comment, "");
    sshkey_fingerprint(known, finger);
    ck_assert_uint_eq(strlen(finger), 50);
}
END_TEST

START_TEST(test_public_refused)
{
    static const struct {
        const char *name, *text;
    } table[] = {
        {"empty", ""},
        {"type alone", "ssh-ed25519"},
        {"no key", "ssh-ed25519 "},
        {"other type named",
         "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XL"
         "z2qYjJa8CGmj3B1Ea"},
        {"other type inside",
         "ssh-ed25519 AAAAC3NzaC1lZDI1NTE4AAAAINdamAGCsQq31Uv+08lkB"
         "zoO4XLz2qYjJa8CGmj3B1Ea"},
        {"options before",
         "command=\"id\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCs"
         "Qq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"},
        {"cut", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz"},
        {"longer",
         "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYj"
         "Ja8CGmj3B1EaAAAA"},
        {"base64url",
         "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv-08lkBzoO4XLz2"
         "qYjJa8CGmj3B1Ea"},
        {"length past the end", "ssh-ed25519 AAAAD3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08"
                                "lkBzoO4XLz2qYjJa8CGmj3B1Ea"},
        {"two lines",
         "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2"
         "qYjJa8CGmj3B1Ea a\nssh-ed25519 AAAA"},
    };
    struct sshkey_public key;
    struct err err;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        ck_assert_msg(sshkey_public(table[i].text, strlen(table[i].text), &key, &err) ==
                          -1,
                      "%s: accepted", table[i].name);
}
END_TEST

START_TEST(test_of_ssh_keygen)
{
    struct sshkey_public pub;
    struct err err;
    EVP_PKEY *key;
    uint8_t raw[32];
    size_t len;
    if (!have("ssh-keygen"))
        return;
    char *path = keygen("k", "ed25519", "");
    char *text = text_of(path, ".pub", &len), again[SSHKEY_TEXT_MAX];
    ck_assert_msg(sshkey_public(text, len, &pub, &err) == 0, "%s", err.text);
    ck_assert_str_eq(pub.comment, "tenant of a test");
    sshkey_text(pub.pub, again);
    ck_assert_int_eq(strncmp(text, again, strlen(again)), 0);
    free(text);
    text = text_of(path, "", &len);
    ck_assert(sshkey_is_private(text, len));
    ck_assert_msg(sshkey_private(text, len, &key, &err) == 0, "%s", err.text);
    ck_assert_int_eq(jws_public(key, raw, &err), 0);
    ck_assert_int_eq(memcmp(raw, pub.pub, 32), 0);
    EVP_PKEY_free(key);
    /* Each prefix, and each byte changed in two ways: nothing is taken for another
     * key; a change of the unsigned comment may pass. */
    for (size_t n = 0; n < len - 1; n++)
        ck_assert_int_eq(sshkey_private(text, n, &key, &err), -1);
    for (size_t i = 0; i < len; i++)
        for (int how = 0; how < 2; how++) {
            char was = text[i];
            text[i] = how == 0 ? (char)(was ^ 1) : 'A';
            if (sshkey_private(text, len, &key, &err) == 0) {
                ck_assert_int_eq(jws_public(key, raw, &err), 0);
                ck_assert_int_eq(memcmp(raw, pub.pub, 32), 0);
                EVP_PKEY_free(key);
            }
            text[i] = was;
        }
    free(text);
    free(path);
    path = keygen("locked", "ed25519", "secret words");
    text = text_of(path, "", &len);
    ck_assert_int_eq(sshkey_private(text, len, &key, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "ssh-add"));
    free(text);
    free(path);
    path = keygen("other", "ecdsa", "");
    text = text_of(path, "", &len);
    ck_assert_int_eq(sshkey_private(text, len, &key, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "ed25519"));
    free(text);
    free(path);
}
END_TEST

/* A proof made by ssh-agent is one that the node takes. */
static void prove(const struct account *a, EVP_PKEY *key)
{
    uint8_t pub[32];
    char jkt[JWS_KID_MAX], *text;
    const char *step = "";
    struct err err;
    struct token_pop pop = {.nonce = "n",
                            .aud = "a",
                            .ath = "h",
                            .action = "launch",
                            .argv_hash = "v",
                            .iat_us = 1000000};
    ck_assert_int_eq(jws_public(key, pub, &err), 0);
    jws_thumbprint(pub, jkt);
    json_t *payload = token_pop_build(&pop, pub);
    ck_assert_msg(account_sign(a, key, JWS_TYP_POP, payload, &text, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(
        token_pop_check(text, strlen(text), jkt, &pop, 1000000, &step, &err) == 0,
        "%s: %s", step, err.text);
    json_decref(payload);
    free(text);
}

START_TEST(test_of_ssh_agent)
{
    struct sshkey_public found, keys[SSHAGENT_KEYS_MAX];
    struct err err;
    size_t len, count;
    char finger[SSHKEY_FINGER_MAX];
    if (!have("ssh-agent") || !have("ssh-keygen"))
        return;
    start_agent();
    char *path = keygen("k", "ed25519", ""), *other = keygen("o", "ecdsa", "");
    const char *const add[] = {"ssh-add", "-q", other, path, NULL};
    ck_assert_int_eq(run(add), 0);
    char *text = text_of(path, ".pub", &len);
    struct sshkey_public pub;
    ck_assert_int_eq(sshkey_public(text, len, &pub, &err), 0);
    free(text);
    ck_assert_msg(sshagent_list(NULL, keys, &count, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(count, 1); /* the other is not Ed25519 */
    ck_assert_str_eq(keys[0].comment, "tenant of a test");
    sshkey_fingerprint(pub.pub, finger);
    ck_assert_msg(sshagent_find(NULL, finger, &found, &err) == 0, "%s", err.text);
    ck_assert_int_eq(memcmp(found.pub, pub.pub, 32), 0);
    ck_assert_int_eq(sshagent_find(NULL, "SHA256:x", &found, &err), -1);
    ck_assert_int_eq(err.code, ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, finger));
    struct account a = {.own_key = xasprintf("agent:%s", finger)};
    EVP_PKEY *key;
    ck_assert_msg(account_key(&a, 0, &key, &err) == 0, "%s", err.text);
    prove(&a, key);
    /* The agent forgets it: the account can do nothing, and says so. */
    const char *const forget[] = {"ssh-add", "-q", "-D", NULL};
    ck_assert_int_eq(run(forget), 0);
    uint8_t sig[64];
    ck_assert_int_eq(sshagent_sign(NULL, pub.pub, "x", 1, sig, &err), -1);
    ck_assert_int_eq(err.code, ERR_FORBIDDEN);
    EVP_PKEY_free(key);
    ck_assert_int_eq(account_key(&a, 1, &key, &err), -1);
    free(a.own_key);
    /* The same by the file. */
    a = (struct account){.own_key = path};
    ck_assert_msg(account_key(&a, 0, &key, &err) == 0, "%s", err.text);
    prove(&a, key);
    EVP_PKEY_free(key);
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_assert_int_eq(account_key(&a, 0, &key, &err), -1);
    ck_assert_int_eq(sshagent_list("/nonexistent", keys, &count, &err), -1);
    ck_assert_int_eq(err.code, ERR_UNREACHABLE);
    free(path);
    free(other);
}
END_TEST

UNIT_MAIN("sshkey", tcase_add_checked_fixture(tc, setup, teardown);
          UNIT_CASE(test_known) UNIT_CASE(test_public_refused)
              UNIT_CASE(test_of_ssh_keygen) UNIT_CASE(test_of_ssh_agent))

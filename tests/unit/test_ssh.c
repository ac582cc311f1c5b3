/* ssh: tickets, lines of authorized_keys, keys in OpenSSH's form. The programs
 * themselves, before a real sshd, are in tests/system/ssh.sh. */
#include "client/agent/ssh_line.h"
#include "client/agent/ticket.h"
#include "client/cli/ssh_file.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define NOW   INT64_C(1000000000)
#define LEASE "019307d0-7b3a-7c3e-8a5b-0123456789ad"
#define KEY   "AAAAC3NzaC1lZDI1NTE5AAAAIMUhZlgYADU4lXauuRWXPupK7/d6uOmpJeceltc04fkX"

static struct tickets book;

static struct ticket_claims claims_of(uint8_t id)
{
    struct ticket_claims c = {.lease = LEASE};
    memset(c.id, id, sizeof(c.id));
    memset(c.key, 0x5a, sizeof(c.key));
    return c;
}

static void fresh_book(void)
{
    uint8_t secret[SHA256_LEN] = {7};
    tickets_init(&book, secret);
}

static enum err_code take(const char *text, int64_t at)
{
    struct ticket_claims got;
    struct err err = {ERR_NONE, ""};
    return ticket_take(&book, text, at, &got, &err) == 0 ? ERR_NONE : err.code;
}

START_TEST(test_ticket_says_its_key_and_lease)
{
    struct ticket_claims c = claims_of(1), got;
    struct err err;
    char text[TICKET_TEXT_MAX];
    fresh_book();
    ticket_make(&book, &c, NOW, text);
    ck_assert_int_eq(ticket_take(&book, text, NOW + 1, &got, &err), 0);
    ck_assert_str_eq(got.lease, LEASE);
    ck_assert_mem_eq(got.key, c.key, sizeof(c.key));
    ck_assert_mem_eq(got.id, c.id, sizeof(c.id));
}
END_TEST

START_TEST(test_ticket_is_good_once)
{
    struct ticket_claims c = claims_of(1);
    char text[TICKET_TEXT_MAX];
    fresh_book();
    ticket_make(&book, &c, NOW, text);
    ck_assert_int_eq(take(text, NOW), ERR_NONE);
    ck_assert_int_eq(take(text, NOW + 1), ERR_TOKEN);
    ck_assert_int_eq(take(text, NOW + TICKET_LIFE_US - 1), ERR_TOKEN);
}
END_TEST

START_TEST(test_ticket_is_good_for_two_minutes)
{
    struct ticket_claims c = claims_of(1);
    char text[TICKET_TEXT_MAX];
    fresh_book();
    ticket_make(&book, &c, NOW, text);
    ck_assert_int_eq(take(text, NOW + TICKET_LIFE_US), ERR_TOKEN);
    ck_assert_int_eq(take(text, NOW + TICKET_LIFE_US - 1), ERR_NONE);
}
END_TEST

START_TEST(test_ticket_is_of_one_agent_start)
{
    struct ticket_claims c = claims_of(1);
    uint8_t other[SHA256_LEN] = {8};
    char text[TICKET_TEXT_MAX];
    fresh_book();
    ticket_make(&book, &c, NOW, text);
    tickets_init(&book, other);
    ck_assert_int_eq(take(text, NOW), ERR_TOKEN);
}
END_TEST

/* Every single character matters, and no cut or grown text is taken. */
START_TEST(test_ticket_cannot_be_changed)
{
    struct ticket_claims c = claims_of(1);
    char text[TICKET_TEXT_MAX], bad[TICKET_TEXT_MAX + 8];
    fresh_book();
    ticket_make(&book, &c, NOW, text);
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        memcpy(bad, text, len + 1);
        bad[i] = bad[i] == 'A' ? 'B' : 'A';
        ck_assert_msg(take(bad, NOW) == ERR_TOKEN, "character %zu", i);
        memcpy(bad, text, len + 1);
        bad[i] = '\0';
        ck_assert_msg(take(bad, NOW) == ERR_TOKEN, "cut at %zu", i);
    }
    snprintf(bad, sizeof(bad), "%sAAAA", text);
    ck_assert_int_eq(take(bad, NOW), ERR_TOKEN);
    ck_assert_int_eq(take(text, NOW), ERR_NONE);
}
END_TEST

START_TEST(test_used_tickets_are_bounded)
{
    struct ticket_claims c = claims_of(0);
    char text[TICKET_TEXT_MAX];
    fresh_book();
    for (uint32_t i = 0; i < TICKET_USED_MAX; i++) {
        memcpy(c.id, &i, sizeof(i));
        ticket_make(&book, &c, NOW, text);
        ck_assert_int_eq(take(text, NOW), ERR_NONE);
    }
    memset(c.id, 0xff, sizeof(c.id));
    ticket_make(&book, &c, NOW + 1, text);
    ck_assert_int_eq(take(text, NOW + 1), ERR_UNAVAILABLE);
    /* When the first ones have expired there is room again. */
    ck_assert_int_eq(take(text, NOW + TICKET_LIFE_US), ERR_NONE);
}
END_TEST

START_TEST(test_line)
{
    struct ssh_line in = {"/usr/sbin/neargpu-agent",
                          "/run/neargpu/ssh.sock",
                          "-tick_et",
                          "ssh-ed25519",
                          KEY,
                          false};
    struct err err;
    char *line;
    ck_assert_int_eq(ssh_line_make(&in, &line, &err), 0);
    ck_assert_str_eq(line,
                     "restrict,pty,command=\"/usr/sbin/neargpu-agent ssh-session "
                     "--socket /run/neargpu/ssh.sock -- -tick_et\" ssh-ed25519 " KEY);
    free(line);
    in.forward_local = true;
    ck_assert_int_eq(ssh_line_make(&in, &line, &err), 0);
    ck_assert_ptr_nonnull(strstr(line, ",permitopen=\"127.0.0.1:*\","));
    ck_assert_ptr_nonnull(strstr(line, ",permitlisten=\"127.0.0.1:1\","));
    free(line);
}
END_TEST

START_TEST(test_line_takes_nothing_that_could_mean_more)
{
    static const char *const bad[] = {"a b", "a\"b", "a\nb", "a;b", "$(a)", "", "a'b"};
    struct err err;
    char *line;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ssh_line in = {"/x", "/y", "t", "ssh-ed25519", KEY, false};
        const char **const parts[] = {&in.exe, &in.socket, &in.ticket, &in.type,
                                      &in.key};
        for (size_t k = 0; k < 5; k++) {
            const char *good = *parts[k];
            *parts[k] = bad[i];
            ck_assert_msg(ssh_line_make(&in, &line, &err) == -1, "%s in %zu", bad[i],
                          k);
            *parts[k] = good;
        }
    }
}
END_TEST

START_TEST(test_keys_are_compared_whole)
{
    static const struct {
        const char *holder;
        bool same;
    } rows[] = {
        {"ssh-ed25519 " KEY, true},        {"ssh-ed25519 " KEY " alice@laptop", true},
        {"ssh-ed25519 \t" KEY "\n", true}, {"ssh-ed25519 " KEY "A", false},
        {"ssh-ed25519 AAAA", false},       {"ssh-ed25519", false},
        {"ssh-ed2551 " KEY, false},        {"ssh-rsa " KEY, false},
        {KEY " ssh-ed25519", false},       {"", false},
    };
    uint8_t hash[SHA256_LEN];
    ssh_key_hash("ssh-ed25519", KEY, hash);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_msg(ssh_holder_is(rows[i].holder, hash) == rows[i].same, "%s",
                      rows[i].holder);
}
END_TEST

START_TEST(test_sftp_is_known_by_its_program)
{
    static const struct {
        const char *command;
        bool sftp;
    } rows[] = {
        {"internal-sftp", true},
        {"internal-sftp -f AUTH", true},
        {"/usr/lib/openssh/sftp-server", true},
        {"/usr/lib/openssh/sftp-server -l INFO", true},
        {"sftp-server", false},
        {"/usr/lib/openssh/sftp-serverx", false},
        {"cat /usr/lib/openssh/sftp-server", false},
        {"internal-sftpx", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_msg(ssh_wants_sftp(rows[i].command) == rows[i].sftp, "%s",
                      rows[i].command);
}
END_TEST

/* A key of `openssl genpkey`, and what ssh-keygen makes of it. */
static const unsigned char seed[] = {0xfb, 0xf5, 0x43, 0x89, 0x5e, 0x85, 0x95, 0x27,
                                     0xac, 0x21, 0x1b, 0xe1, 0x7b, 0x43, 0x09, 0x04,
                                     0x41, 0x87, 0x02, 0x57, 0xb6, 0x7d, 0x48, 0x80,
                                     0x90, 0x2c, 0x0b, 0x91, 0x1d, 0xa3, 0x45, 0x0a};

START_TEST(test_account_key_as_openssh_reads_it)
{
    EVP_PKEY *key =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
    struct strbuf text = STRBUF_INIT;
    struct err err;
    char *type, *word;
    ck_assert_ptr_nonnull(key);
    ck_assert_int_eq(ssh_file_private(key, &text, &err), 0);
    ck_assert_str_eq(
        strbuf_str(&text),
        "-----BEGIN OPENSSH PRIVATE KEY-----\n"
        "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"
        "QyNTUxOQAAACDFIWZYGAA1OJV2rrkVlz7qSu/3erjpqSXnHpbXNOH5FwAAAJAAAAAAAAAA\n"
        "AAAAAAtzc2gtZWQyNTUxOQAAACDFIWZYGAA1OJV2rrkVlz7qSu/3erjpqSXnHpbXNOH5Fw\n"
        "AAAED79UOJXoWVJ6whG+F7QwkEQYcCV7Z9SICQLAuRHaNFCsUhZlgYADU4lXauuRWXPupK\n"
        "7/d6uOmpJeceltc04fkXAAAAB25lYXJncHUBAgMEBQY=\n"
        "-----END OPENSSH PRIVATE KEY-----\n");
    ck_assert_int_eq(
        ssh_file_words("ssh-ed25519 " KEY " root@node\n", &type, &word, &err), 0);
    ck_assert_str_eq(type, "ssh-ed25519");
    ck_assert_str_eq(word, KEY);
    free(type);
    free(word);
    static const char *const bad[] = {"", "ssh-ed25519", "ssh-ed25519 ", "a b;c",
                                      "a\"b c"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(ssh_file_words(bad[i], &type, &word, &err) == -1, "%s", bad[i]);
    strbuf_done(&text);
    EVP_PKEY_free(key);
}
END_TEST

UNIT_MAIN("ssh",
          UNIT_CASE(test_ticket_says_its_key_and_lease) UNIT_CASE(
              test_ticket_is_good_once) UNIT_CASE(test_ticket_is_good_for_two_minutes)
              UNIT_CASE(test_ticket_is_of_one_agent_start)
                  UNIT_CASE(test_ticket_cannot_be_changed)
                      UNIT_CASE(test_used_tickets_are_bounded) UNIT_CASE(test_line)
                          UNIT_CASE(test_line_takes_nothing_that_could_mean_more)
                              UNIT_CASE(test_keys_are_compared_whole)
                                  UNIT_CASE(test_sftp_is_known_by_its_program)
                                      UNIT_CASE(test_account_key_as_openssh_reads_it))

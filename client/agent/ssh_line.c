/* ssh_line: see ssh_line.h. */
#include "client/agent/ssh_line.h"

#include <stdlib.h>
#include <string.h>

#include "client/agent/ssh_proto.h"
#include "client/lib/xalloc.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static bool is_made_of(const char *text, const char *allowed)
{
    return text != NULL && text[0] != '\0' && strspn(text, allowed) == strlen(text);
}

bool ssh_key_is_plausible(const char *type, const char *key)
{
    return is_made_of(type, LETTERS "-@.") && strlen(type) < 64 &&
           is_made_of(key, LETTERS "+/=") && strlen(key) <= SSH_KEY_MAX;
}

int ssh_line_make(const struct ssh_line *in, char **ret, struct err *err)
{
    static const char *const path = LETTERS "/._+-";
    /* -L to the node's loopback, where a job's own servers are; -R stays shut: a port
     * that only root could open is the one it may ask for. */
    const char *forward =
        in->forward_local
            ? ",port-forwarding,permitopen=\"localhost:*\",permitopen=\"127.0.0.1:*\","
              "permitopen=\"[::1]:*\",permitlisten=\"127.0.0.1:1\""
            : "";
    if (!is_made_of(in->exe, path) || !is_made_of(in->socket, path) ||
        !is_made_of(in->ticket, LETTERS "-_") ||
        !ssh_key_is_plausible(in->type, in->key))
        return err_set(err, ERR_BAD_REQUEST,
                       "a path, ticket or key that does not fit into authorized_keys");
    *ret =
        xasprintf("restrict,pty%s,command=\"%s ssh-session --socket %s -- %s\" %s %s",
                  forward, in->exe, in->socket, in->ticket, in->type, in->key);
    return 0;
}

void ssh_key_hash(const char *type, const char *key, uint8_t out[SHA256_LEN])
{
    char *text = xasprintf("%s %s", type, key);
    digest_sha256(text, strlen(text), out);
    free(text);
}

bool ssh_holder_is(const char *holder, const uint8_t key[SHA256_LEN])
{
    static const char blank[] = " \t\r\n";
    size_t type = strcspn(holder, blank);
    const char *at = holder + type + strspn(holder + type, blank);
    size_t len = strcspn(at, blank);
    uint8_t hash[SHA256_LEN];
    if (type == 0 || len == 0)
        return false;
    char *first = xstrndup(holder, type), *second = xstrndup(at, len);
    ssh_key_hash(first, second, hash);
    free(first);
    free(second);
    return memcmp(hash, key, SHA256_LEN) == 0;
}

bool ssh_wants_sftp(const char *command)
{
    static const char internal[] = "internal-sftp", program[] = "/sftp-server";
    size_t len = strcspn(command, " ");
    if (len == sizeof(internal) - 1 && memcmp(command, internal, len) == 0)
        return true;
    return command[0] == '/' && len >= sizeof(program) - 1 &&
           memcmp(command + len - (sizeof(program) - 1), program,
                  sizeof(program) - 1) == 0;
}

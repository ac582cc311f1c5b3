/* ssh_line: see ssh_line.h. */
#include "client/agent/ssh_line.h"

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
    *ret = xasprintf("restrict,pty%s,command=\"%s ssh-session --socket %s -- %s\" %s %s",
                     forward, in->exe, in->socket, in->ticket, in->type, in->key);
    return 0;
}

/* Takes one word off the text. */
static size_t word(const char **at)
{
    *at += strspn(*at, " \t");
    return strcspn(*at, " \t\r\n");
}

bool ssh_key_is(const char *holder, const char *type, const char *key)
{
    size_t len = word(&holder);
    if (len != strlen(type) || memcmp(holder, type, len) != 0)
        return false;
    holder += len;
    len = word(&holder);
    return len == strlen(key) && len > 0 && memcmp(holder, key, len) == 0;
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

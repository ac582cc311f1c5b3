/* ssh_keys: `neargpu-agent ssh-keys USER TYPE KEY`, sshd's AuthorizedKeysCommand:
 * prints the line of authorized_keys for a key that holds an open lease, else nothing.
 *
 * sshd runs it for every key that is shown, also before the owner has proved to have
 * it: what it prints is a right only in the hands of sshd. Everything but the one
 * forced command and a terminal is switched off; `forward` says what else the provider
 * allows. It exits 0 when the agent said no: to sshd that is "no such key". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/commands.h"
#include "client/agent/ssh_line.h"
#include "client/agent/ssh_proto.h"
#include "client/lib/xalloc.h"

#define PATH_SPACE 4096

static int own_path(char out[PATH_SPACE], struct err *err)
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_SPACE - 1);
    if (n <= 0)
        return err_set(err, ERR_IO, "/proc/self/exe cannot be read");
    out[n] = '\0';
    return 0;
}

static int print_line(const json_t *answer, const char *socket,
                      const struct opt_values *v, struct err *err)
{
    char exe[PATH_SPACE];
    const char *forward = json_string_value(json_object_get(answer, "forward"));
    struct ssh_line in = {
        .exe = exe,
        .socket = socket,
        .ticket = json_string_value(json_object_get(answer, "ticket")),
        .type = v->args[1],
        .key = v->args[2],
        .forward_local = forward != NULL && strcmp(forward, "local") == 0};
    char *line = NULL;
    if (own_path(exe, err) != 0 || ssh_line_make(&in, &line, err) != 0)
        return -1;
    puts(line);
    free(line);
    return 0;
}

int command_ssh_keys(const struct opt_values *v)
{
    const char *socket = ssh_socket_path(opt_get(v, "socket"));
    struct err err;
    json_t *answer = NULL;
    int fd = -1;
    json_t *body = json_pack("{s:s, s:s}", "type", v->args[1], "key", v->args[2]);
    int rc = body != NULL ? ssh_ask_connect(socket, &fd, &err)
                          : err_set(&err, ERR_USAGE, "the key is not UTF-8");
    if (rc == 0)
        rc = ssh_ask(fd, 'k', body, &answer, NULL, &err);
    if (rc == 0)
        rc = print_line(answer, socket, v, &err);
    bool no = rc != 0 && (err.code == ERR_NOT_FOUND || err.code == ERR_BAD_REQUEST);
    if (fd >= 0)
        close(fd);
    json_decref(body);
    json_decref(answer);
    return rc == 0 || no ? 0 : command_fail(&err);
}

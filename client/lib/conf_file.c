/* conf_file: conf_read() of conf.h, the half that touches files. */
#include "client/lib/conf.h"

#include <stdlib.h>

#include "client/lib/fsx.h"

#define CONF_BYTES_MAX (1024 * 1024) /* a configuration is written by hand */

int conf_read(const char *path, const struct conf_key *keys, size_t count, void *out,
              struct err *err)
{
    char *text;
    size_t len;
    if (fsx_read(path, CONF_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    int rc = conf_parse(path, text, len, keys, count, out, err);
    free(text);
    return rc;
}

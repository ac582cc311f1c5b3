/* cdi: see cdi.h. */
#include "client/agent/cdi.h"

#include <stdlib.h>

#include "client/lib/xalloc.h"

json_t *cdi_spec(const struct launch_node *nodes, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        char *inside = xasprintf("/dev/%s", nodes[i].inside);
        json_t *node = json_pack("{s:s, s:s, s:s, s:I, s:I, s:s}", "path", inside,
                                 "hostPath", nodes[i].outside, "type", "c", "major",
                                 (json_int_t)nodes[i].major, "minor",
                                 (json_int_t)nodes[i].minor, "permissions", "rw");
        free(inside);
        if (node == NULL) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, node);
    }
    return json_pack("{s:s, s:s, s:[{s:s, s:{s:o}}]}", "cdiVersion", "0.5.0", "kind",
                     CDI_KIND, "devices", "name", "gpus", "containerEdits",
                     "deviceNodes", list);
}

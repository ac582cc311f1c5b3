/* cdi: a specification of the Container Device Interface for exactly the device nodes
 * of one lease. Pure.
 *
 * Source: github.com/cncf-tags/container-device-interface, SPEC.md, version 0.5.0 (the
 * first with hostPath). */
#ifndef NEARGPU_CDI_H
#define NEARGPU_CDI_H
#include <jansson.h>

#include "client/agent/launch.h"

#define CDI_KIND   "neargpu.local/lease"
#define CDI_DEVICE CDI_KIND "=gpus" /* what podman run --device is given */

/* New reference; NULL when a path is not UTF-8. */
json_t *cdi_spec(const struct launch_node *nodes, size_t count);

#endif

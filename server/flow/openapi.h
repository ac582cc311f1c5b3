/* openapi: docs/openapi.yaml as JSON, made by the build. */
#ifndef NEARGPU_FLOW_OPENAPI_H
#define NEARGPU_FLOW_OPENAPI_H
#include <stddef.h>

extern const char openapi_json[];
extern const size_t openapi_json_len;

#endif

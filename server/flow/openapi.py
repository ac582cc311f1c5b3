"""openapi.py OPENAPI.yaml: the API's description as a C source on standard output."""
import json
import sys

import yaml

with open(sys.argv[1], encoding="utf-8") as source:
    text = json.dumps(yaml.safe_load(source), separators=(",", ":"), ensure_ascii=True)
print('#include "server/flow/openapi.h"\n')
print("const char openapi_json[] =")
for at in range(0, len(text), 70):
    piece = text[at : at + 70].replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?")
    print(f'    "{piece}"')
print("    ;")
print("const size_t openapi_json_len = sizeof(openapi_json) - 1;")

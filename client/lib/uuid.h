/* uuid: RFC 9562 UUIDs as lower-case text. Version 7 ids sort by time: a reservation's
 * id is made by the server from `now` and randomness passed in. Pure. */
#ifndef NEARGPU_UUID_H
#define NEARGPU_UUID_H
#include <stdbool.h>
#include <stdint.h>

#define UUID_TEXT 37 /* with NUL */

void uuid_v7(int64_t now_us, const uint8_t random[10], char out[UUID_TEXT]);
bool uuid_is_valid(const char *text); /* canonical lower-case 8-4-4-4-12 */

#endif

/* store_ops: the table behind enum store_op: which SQL API function, its parameters,
 * which connections, the shape of its answer. tests/db calls every row. */
#ifndef NEARGPU_STORE_OPS_H
#define NEARGPU_STORE_OPS_H
#include "server/db/store.h"

enum store_lane { LANE_MAIN, LANE_REPORT };
enum store_shape { SHAPE_JSON, SHAPE_ROWS };

struct store_opdef {
    const char *name; /* also of the prepared statement */
    const char *sql;
    const char *types; /* one letter a parameter: t i b r h j, each may be null */
    enum store_lane lane;
    enum store_shape shape;
    bool repeat; /* may be sent again when its outcome is unknown */
};
extern const struct store_opdef store_ops[STORE_OP_COUNT];

#endif

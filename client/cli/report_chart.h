/* report_chart: draws a report as its `chart` says: which columns are the axis, the
 * series, the value, and whether rows of one place are added up or averaged. Pure. */
#ifndef NEARGPU_REPORT_CHART_H
#define NEARGPU_REPORT_CHART_H
#include <jansson.h>

#include "client/lib/strbuf.h"

/* Nothing when it has no chart, or one that does not fit its columns. */
void report_chart(const json_t *report, struct strbuf *out);

#endif

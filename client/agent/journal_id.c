/* journal_id: what may name a lease, a job or a GPU. Apart from the journal, which
 * brings OpenSSL along: a keeper does without. */
#include <ctype.h>
#include <string.h>

#include "client/agent/journal.h"

bool journal_id_is_valid(const char *id)
{
    size_t len = strlen(id);
    if (len < 1 || len >= JOURNAL_ID_MAX || !isalnum((unsigned char)id[0]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)id[i]) && strchr("._-", id[i]) == NULL)
            return false;
    return true;
}

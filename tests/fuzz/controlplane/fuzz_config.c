/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c - any bytes as a configuration file: refused with an error, or accepted and then
 * within every limit of config.def. */
#include <stdlib.h>
#include <string.h>

#include "schemas/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    unsigned errors;
    size_t size; /* of the file */
};

/* An error is printable whatever the file holds, and its line is one of the file's. */
static void error_see(const char *path, unsigned line, const char *text, void *user)
{
    struct seen *seen = user;
    seen->errors++;
    if (path[0] == '\0' || text[0] == '\0' || line > seen->size + 1) {
        abort();
    }
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~') {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config;
    struct seen seen = {.size = size};
    int rc = config_parse(&config, data, size, "fuzz.yaml", error_see, &seen);
    if (rc != 0) {
        if (config != NULL || (rc == WEFT_E_CONFIG) != (seen.errors > 0) ||
            seen.errors > CONFIG_ERRORS_MAX) {
            abort();
        }
        return 0;
    }
    if (seen.errors != 0 || config->self >= config->member_count ||
        strcmp(config->members[config->self].name, config->node) != 0) {
        abort();
    }
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct config_member *member = &config->members[i];
        if (member->id >= WEFT_NODE_NONE || member->tier > WEFT_TIER_MAX ||
            !(member->latitude_deg >= -90 && member->latitude_deg <= 90)) {
            abort();
        }
    }
    config_destroy(config);
    return 0;
}

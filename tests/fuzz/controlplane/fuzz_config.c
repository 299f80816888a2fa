/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c - any bytes as a configuration file: refused with an error, or accepted and then
 * within every limit of config.def. */
#include <stdlib.h>
#include <string.h>

#include "schemas/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void error_count(const char *path, unsigned line, const char *text, void *user)
{
    unsigned *errors = user;
    (void)line;
    *errors += path[0] != '\0' && text[0] != '\0' ? 1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config;
    unsigned errors = 0;
    int rc = config_parse(&config, data, size, "fuzz.yaml", error_count, &errors);
    if (rc != 0) {
        if (config != NULL || (rc == WEFT_E_CONFIG) != (errors > 0) || errors > CONFIG_ERRORS_MAX) {
            abort();
        }
        return 0;
    }
    if (errors != 0 || config->self >= config->member_count ||
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

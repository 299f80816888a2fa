/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - reading of command line values; see cli.h. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "controlplane/cli/cli.h"

int cli_usage_error(const char *command, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "weft %s: ", command);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; see `weft help %s`\n", command);
    return CLI_USAGE;
}

bool cli_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0])) {
        return false; /* strtoull would take signs and spaces */
    }
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value < min || value > max) {
        return false;
    }
    *out = value;
    return true;
}

bool cli_real(const char *text, double min, double max, double *out)
{
    char *end = NULL;
    if (text[0] == '\0' || isspace((unsigned char)text[0])) {
        return false;
    }
    double value = strtod(text, &end);
    if (*end != '\0' || !isfinite(value) || value < min || value > max) {
        return false;
    }
    *out = value;
    return true;
}

bool cli_range(const char *text, uint32_t max, uint32_t *low, uint32_t *high)
{
    uint64_t numbers[2] = {0, 0};
    char part[16];
    int used = snprintf(part, sizeof(part), "%s", text);
    if (used < 0 || used >= (int)sizeof(part)) {
        return false;
    }
    char *dash = part;
    while (*dash != '\0' && *dash != '-') {
        dash++;
    }
    bool single = *dash == '\0';
    *dash = '\0';
    if (!cli_number(part, 0, max, &numbers[0]) ||
        !cli_number(single ? part : dash + 1, 0, max, &numbers[1]) || numbers[0] > numbers[1]) {
        return false;
    }
    *low = (uint32_t)numbers[0];
    *high = (uint32_t)numbers[1];
    return true;
}

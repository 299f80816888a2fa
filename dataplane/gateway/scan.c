/* SPDX-License-Identifier: Apache-2.0 */
/* scan.c - see scan.h. */
#include "dataplane/gateway/scan.h"

#include <string.h>

/* Steps over the inside of a string. Returns what is left of the text. Each byte is looked at once
 * for either character, however many escapes there are. */
static const char *string_skip(struct scan *s, const char *at, const char *end)
{
    const char *quote = NULL; /* the next one from `at` on, or `end` */
    while (at < end) {
        if (s->escaped) {
            s->escaped = false;
            at++;
            continue;
        }
        if (quote == NULL || quote < at) {
            quote = memchr(at, '"', (size_t)(end - at));
            quote = quote != NULL ? quote : end;
        }
        const char *slash = memchr(at, '\\', (size_t)(quote - at));
        if (slash == NULL) {
            s->in_string = quote == end;
            return quote != end ? quote + 1 : end;
        }
        s->escaped = true;
        at = slash + 1;
    }
    return at;
}

bool scan_feed(struct scan *s, const char *text, size_t len)
{
    const char *at = text;
    const char *end = text + len;
    while (at < end && s->depth <= SCAN_DEPTH_MAX && s->values <= SCAN_VALUES_MAX) {
        if (s->in_string) {
            at = string_skip(s, at, end);
            continue;
        }
        switch (*at++) {
        case '"':
            s->in_string = true;
            break;
        case '[':
        case '{':
            s->depth++;
            s->values++;
            break;
        case ']':
        case '}':
            s->depth -= s->depth > 0;
            break;
        case ',':
        case ':':
            s->values++;
            break;
        default:
            break;
        }
    }
    return s->depth <= SCAN_DEPTH_MAX && s->values <= SCAN_VALUES_MAX;
}

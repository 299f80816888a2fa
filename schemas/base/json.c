/* SPDX-License-Identifier: Apache-2.0 */
/* json.c - see json.h. */
#include "schemas/base/json.h"

#include "schemas/base/utf8.h"

char *json_put_escape(char *out, unsigned char c)
{
    static const char shorts[] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r',
                                  ['\t'] = 't', ['"'] = '"',  ['\\'] = '\\'};
    static const char hex[] = "0123456789abcdef";
    *out++ = '\\';
    if (c < sizeof(shorts) && shorts[c] != '\0') {
        *out++ = shorts[c];
        return out;
    }
    const char code[] = {'u', '0', '0', hex[c >> 4], hex[c & 15]};
    return (char *)memcpy(out, code, sizeof(code)) + sizeof(code);
}

char *json_put_text(char *out, const char *text, size_t len)
{
    const char *at = text;
    const char *end = text + len;
    while (at < end) {
        const char *plain = json_skip_plain(at, end);
        memcpy(out, at, (size_t)(plain - at));
        out += plain - at;
        at = plain;
        for (int i = 0; i < 8 && at < end; i++) { /* what is odd about these eight */
            unsigned char c = (unsigned char)*at;
            size_t step = c < 0x80 ? 1 : utf8_whole((const uint8_t *)at, (size_t)(end - at));
            if (step == 0) {
                return NULL;
            }
            if (c < ' ' || c == '"' || c == '\\') {
                out = json_put_escape(out, c);
            } else {
                memcpy(out, at, step);
                out += step;
            }
            at += step;
        }
    }
    return out;
}

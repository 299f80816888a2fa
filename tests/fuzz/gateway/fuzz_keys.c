/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes who may use the API: the first line of the input is the header of a request, once as
 * `Authorization` and once as `Sec-WebSocket-Key`; the rest is a file of keys (keys.h). Keys have
 * clean names, and a file that is refused names one of its lines. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/keys.h"
#include "dataplane/gateway/ws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good) {
        abort();
    }
}

/* Of a size of its own, so that the sanitizer sees its end. */
static char *copy_of(const uint8_t *data, size_t len, bool zero)
{
    char *copy = malloc(len + zero + (len + zero == 0));
    need(copy != NULL);
    if (len != 0) {
        memcpy(copy, data, len);
    }
    if (zero) {
        copy[len] = '\0';
    }
    return copy;
}

static void file_check(const struct keys *keys, bool good, unsigned line, size_t lines)
{
    need(line <= lines + 1 && (good || line >= 1));
    for (size_t i = 0; i < keys->count; i++) {
        const struct key *key = &keys->list[i];
        need(memchr(key->name, '\0', sizeof(key->name)) != NULL && key->name[0] != '\0');
        need((key->scopes & ~KEYS_REGISTER) == 0);
        for (const char *c = key->name; *c != '\0'; c++) {
            need(*c > ' ' && *c <= '~' && *c != '#');
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keys keys = {.list = NULL};
    char accept[WS_ACCEPT_MAX];
    unsigned line = 0;
    const uint8_t *end = size != 0 ? memchr(data, '\n', size) : NULL;
    if (end == NULL) {
        return 0;
    }
    const size_t head = (size_t)(end - data);
    const size_t len = size - head - 1;
    char *header = copy_of(data, head, true);
    char *text = copy_of(end + 1, len, false);
    size_t lines = 1;
    for (size_t i = 0; i < len; i++) {
        lines += text[i] == '\n';
    }
    const bool good = keys_read(&keys, text, len, &line);
    file_check(&keys, good, line, lines);
    const struct key *found = keys_find(&keys, header);
    need(found == NULL || (found >= keys.list && found < keys.list + keys.count));
    if (ws_accept(header, accept)) {
        need(strlen(header) == WS_KEY_LEN && strlen(accept) == WS_ACCEPT_MAX - 1);
    }
    keys_deinit(&keys);
    free(text);
    free(header);
    return 0;
}

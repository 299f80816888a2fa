/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what weft-upstream is told by hand and by servers: the first byte chooses a URL
 * (where.h), the answer to a question for an embedding (vector.h), or a file of settings
 * (settings.h). Nothing of it is refused without a reason, and what is taken is within its limits.
 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/upstream/settings.h"
#include "kernels/upstream/vector.h"

#define VALUES_MAX 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good)
        abort();
}

static bool is_text(const char *text, size_t size)
{
    return memchr(text, 0, size) != NULL;
}

static void where_check(const struct where *where)
{
    need(is_text(where->base, sizeof(where->base)) && is_text(where->host, sizeof(where->host)));
    need(where->host[0] && where->base[strlen(where->base) - 1] != '/');
    need(strncmp(where->base, where->tls ? "https://" : "http://", 7 + where->tls) == 0);
    need(strpbrk(where->base, "\r\n \t") == NULL);
}

/* Taken apart again it is the same place. */
static void urls(const char *text)
{
    struct where where, again;
    char why[128] = "";
    if (where_parse(&where, text, why, sizeof(why))) {
        need(why[0] && is_text(why, sizeof(why)));
        return;
    }
    where_check(&where);
    need(where_parse(&again, where.base, why, sizeof(why)) == 0);
    need(strcmp(where.base, again.base) == 0 && strcmp(where.host, again.host) == 0 &&
         where.tls == again.tls && where.local == again.local);
    (void)where_allowed(text, &where, "name");
}

static void vectors(const char *text, size_t len)
{
    float *values = malloc(VALUES_MAX * sizeof(*values));
    struct vector vector = {.values = values, .max = VALUES_MAX};
    double square = 0;
    const int rc = vector_parse(&vector, text, len);
    need(rc == 0 || rc == -EBADMSG || rc == -EMSGSIZE);
    for (size_t i = 0; rc == 0 && i < vector.count; i++)
        square += (double)values[i] * (double)values[i];
    need(rc != 0 || (vector.count <= VALUES_MAX && fabs(square - 1) < 1e-5));
    free(values);
}

static void files(const char *text, size_t len)
{
    static int fd = -1;
    char path[32];
    char why[SETTINGS_WHY_MAX] = "";
    struct settings settings = {.port = NULL};
    if (fd < 0)
        fd = memfd_create("settings", MFD_CLOEXEC);
    need(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, text, len, 0) == (ssize_t)len);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    const int rc = settings_file_read(&settings, path, NULL, why, sizeof(why));
    need(rc == 0 || (why[0] && is_text(why, sizeof(why))));
    need(settings.endpoint_count <= ENDPOINT_ENDPOINTS_MAX && settings.model_count <= SERVED_MAX);
    for (size_t i = 0; i < settings.endpoint_count; i++) {
        const struct endpoint_config *config = &settings.endpoints[i];
        where_check(&config->where);
        need(is_text(config->name, sizeof(config->name)));
        need(is_text(config->model, sizeof(config->model)));
        need(is_text(config->key, sizeof(config->key)));
    }
    settings_deinit(&settings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = malloc(size); /* the zero in place of the first byte */
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    if (data[0] % 3 == 0)
        urls(text);
    else if (data[0] % 3 == 1)
        vectors(text, size - 1);
    else
        files(text, size - 1);
    free(text);
    return 0;
}

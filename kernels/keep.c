/* SPDX-License-Identifier: Apache-2.0 */
/* See keep.h. */
#include "kernels/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schemas/base/crc32c.h"

uint64_t keep_model(const struct host *host)
{
    const gguf_t *file = host->model->file;
    const char *mode = host->info.mode ? host->info.mode : host->info.detail;
    uint32_t shape = crc32c(0, mode, strlen(mode));
    uint32_t data = 0;
    shape = crc32c(shape, host->info.backend, strlen(host->info.backend));
    for (size_t i = 0; i < gguf_tensor_count(file); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(file, i);
        shape = crc32c(shape, t->name.data, t->name.len);
        shape = crc32c(shape, &t->type, sizeof(t->type));
        shape = crc32c(shape, t->dim, sizeof(t->dim));
        if (t->data)
            data = crc32c(data, t->data, t->size_bytes);
    }
    return (uint64_t)shape << 32 | data;
}

/* A name may have slashes. */
static int find_path(const char *dir, const char *name, const char *ending, char *out)
{
    const int dir_len = snprintf(out, PATH_MAX, "%s/", dir);
    if (dir_len < 0 || dir_len >= PATH_MAX)
        return -ENAMETOOLONG;
    const int len = snprintf(out + dir_len, (size_t)(PATH_MAX - dir_len), "%s%s", name, ending);
    if (len < 0 || len >= PATH_MAX - dir_len)
        return -ENAMETOOLONG;
    for (char *c = out + dir_len; *c; c++)
        *c = *c == '/' ? '_' : *c;
    return 0;
}

static int write_some(void *user, const void *data, size_t size)
{
    return fwrite(data, 1, size, user) == size ? 0 : errno ? -errno : -EIO;
}

static int write_file(const struct host *host, uint64_t model, const char *path)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!file) {
        const int rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    int rc = engine_export(host->engine, model, write_some, file);
    if (rc >= 0 && (fflush(file) || fsync(fd)))
        rc = -errno;
    if (fclose(file) && rc >= 0)
        rc = -errno;
    return rc;
}

int keep_save(const struct host *host, uint64_t model, const char *dir, const char *name)
{
    char path[PATH_MAX];
    char fresh[PATH_MAX];
    int rc = find_path(dir, name, ".weftkv", path);
    if (rc == 0)
        rc = find_path(dir, name, ".weftkv.new", fresh);
    if (rc)
        return rc;
    rc = write_file(host, model, fresh);
    if (rc >= 0 && rename(fresh, path))
        rc = -errno;
    if (rc < 0)
        (void)unlink(fresh);
    return rc;
}

int keep_load(const struct host *host, uint64_t model, const char *dir, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    int rc = find_path(dir, name, ".weftkv", path);
    if (rc)
        return rc;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        rc = -errno;
    } else if (!S_ISREG(st.st_mode) || st.st_size <= 0) {
        rc = -EINVAL;
    } else {
        const size_t size = (size_t)st.st_size;
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        rc = data == MAP_FAILED ? -errno : engine_import(host->engine, model, data, size);
        if (data != MAP_FAILED)
            munmap(data, size);
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

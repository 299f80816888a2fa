/* SPDX-License-Identifier: Apache-2.0 */
/* keys.c - see keys.h. */
#include "controlplane/keys/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX 4096u
#define LINE_BYTES     (2 * KEYS_BYTES + 1)

#define SAY(why, ...) snprintf(why, KEYS_WHY_MAX, __VA_ARGS__)

/* ---- text ---- */

static bool line_read(const char *line, size_t len, uint8_t key[KEYS_BYTES])
{
    size_t got = 0;
    const char *end = NULL;
    return len == 2 * KEYS_BYTES &&
           sodium_hex2bin(key, KEYS_BYTES, line, len, NULL, &got, &end) == 0 && got == KEYS_BYTES &&
           end == line + len;
}

/* All keys of a text. Returns how many, or -EINVAL for what is neither key, comment nor empty, and
 * for more than `room`. */
static int keys_read(const char *text, uint8_t (*keys)[KEYS_BYTES], uint32_t room)
{
    uint32_t count = 0;
    while (*text != '\0') {
        size_t line = strcspn(text, "\n");
        size_t len = strcspn(text, "#\n");
        while (len > 0 && strchr(" \t\r", text[len - 1]) != NULL) {
            len--;
        }
        if (len > 0 && (count == room || !line_read(text, len, keys[count++]))) {
            return -EINVAL;
        }
        text += line + (text[line] == '\n');
    }
    return (int)count;
}

/* A new key as a line, without a zero. */
static void line_make(char line[LINE_BYTES])
{
    uint8_t key[KEYS_BYTES];
    char text[2 * KEYS_BYTES + 1];
    randombytes_buf(key, sizeof(key));
    sodium_bin2hex(text, sizeof(text), key, sizeof(key));
    memcpy(line, text, 2 * KEYS_BYTES);
    line[2 * KEYS_BYTES] = '\n';
    sodium_memzero(key, sizeof(key));
    sodium_memzero(text, sizeof(text));
}

/* ---- files ---- */

/* The whole file with a zero behind it. `forbidden`: permission bits that it must not have. */
static int file_read(const char *path, mode_t forbidden, char text[FILE_BYTES_MAX],
                     char why[KEYS_WHY_MAX])
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &about) != 0) {
        int error = errno;
        SAY(why, "%s: %s", path, strerror(error));
        if (fd >= 0) {
            close(fd);
        }
        return -error;
    }
    ssize_t got = -1;
    int rc = -EINVAL;
    if (!S_ISREG(about.st_mode)) {
        SAY(why, "%s is not a plain file", path);
    } else if ((about.st_mode & forbidden) != 0) {
        SAY(why, "%s may be read or written by others; chmod 600 it", path);
        rc = -EPERM;
    } else if ((got = read(fd, text, FILE_BYTES_MAX)) < 0) {
        rc = -errno;
        SAY(why, "%s: %s", path, strerror(-rc));
    } else if ((size_t)got == FILE_BYTES_MAX || memchr(text, '\0', (size_t)got) != NULL) {
        SAY(why, "%s is no key file", path);
    } else {
        text[got] = '\0';
        rc = 0;
    }
    close(fd);
    return rc;
}

/* A new file of one new key; complete or not there, also after a crash. */
static int file_make(const char *path, const char *comment, char why[KEYS_WHY_MAX])
{
    char line[LINE_BYTES];
    char temporary[512];
    int length = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    int fd = length > 0 && (size_t)length < sizeof(temporary) ? mkostemp(temporary, O_CLOEXEC) : -1;
    if (fd < 0) {
        int error = errno;
        SAY(why, "%s cannot be made: %s", path, strerror(error));
        return -error;
    }
    line_make(line);
    errno = 0;
    bool good = fchmod(fd, 0600) == 0 &&
                write(fd, comment, strlen(comment)) == (ssize_t)strlen(comment) &&
                write(fd, line, sizeof(line)) == (ssize_t)sizeof(line) && fsync(fd) == 0 &&
                link(temporary, path) == 0; /* not rename: that would replace another's */
    int rc = good ? 0 : errno != 0 ? -errno : -ENOSPC; /* a short write is no error */
    if (rc < 0) {
        SAY(why, "%s cannot be made: %s%s", path, strerror(-rc),
            rc == -EEXIST ? "; a key is never overwritten" : "");
    }
    sodium_memzero(line, sizeof(line));
    close(fd);
    unlink(temporary);
    return rc;
}

/* The folder that the file is to be in, readable by its owner only. */
static void folder_make(const char *path)
{
    char copy[512];
    size_t len = strlen(path);
    if (len < sizeof(copy)) {
        memcpy(copy, path, len + 1);
        (void)mkdir(dirname(copy), 0700); /* if it fails, so does making the file */
    }
}

/* ---- what they are for ---- */

int keys_identity_load(uint8_t identity[KEYS_BYTES], const char *path, char why[KEYS_WHY_MAX])
{
    char text[FILE_BYTES_MAX];
    int rc = sodium_init() < 0 ? -ENOSYS : file_read(path, S_IRWXG | S_IRWXO, text, why);
    if (rc == -ENOENT) {
        folder_make(path);
        rc = file_make(path, "# This node's secret key. Never copy it to another node.\n", why);
        if (rc == 0 || rc == -EEXIST) {
            rc = file_read(path, S_IRWXG | S_IRWXO, text, why);
        }
    }
    if (rc == 0) {
        uint8_t keys[1][KEYS_BYTES];
        if (keys_read(text, keys, 1) == 1) {
            memcpy(identity, keys[0], KEYS_BYTES);
        } else {
            SAY(why, "%s is no identity: one line of 64 hexadecimal digits", path);
            rc = -EINVAL;
        }
        sodium_memzero(keys, sizeof(keys));
    }
    sodium_memzero(text, sizeof(text));
    return rc;
}

int keys_mesh_load(struct keys *keys, const char *path, char why[KEYS_WHY_MAX])
{
    char text[FILE_BYTES_MAX];
    int rc = sodium_init() < 0 ? -ENOSYS : file_read(path, S_IWGRP | S_IRWXO, text, why);
    if (rc == 0) {
        int count = keys_read(text, keys->mesh, KEYS_MESH_MAX);
        if (count <= 0) {
            SAY(why, "%s is no mesh key: one to %u lines of 64 hexadecimal digits", path,
                KEYS_MESH_MAX);
            rc = -EINVAL;
        } else {
            keys->mesh_count = (uint32_t)count;
        }
    }
    sodium_memzero(text, sizeof(text));
    return rc;
}

void keys_mesh_open(struct keys *keys)
{
    static const char name[] = "weft: an open mesh, no secret";
    crypto_generichash(keys->mesh[0], KEYS_BYTES, (const uint8_t *)name, sizeof(name), NULL, 0);
    keys->mesh_count = 1;
}

int keys_mesh_make(const char *path, char why[KEYS_WHY_MAX])
{
    if (sodium_init() < 0) {
        SAY(why, "no random numbers");
        return -ENOSYS;
    }
    return file_make(path, "# Mesh key: the same file for each member, secret to all others.\n",
                     why);
}

void keys_wipe(struct keys *keys)
{
    sodium_memzero(keys, sizeof(*keys));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* serve_folder.c - see serve_folder.h. */
#include "controlplane/cli/serve_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "weft-serve-"

int serve_folder_make(const char *base, char *folder, size_t size, int *lock)
{
    char path[PATH_MAX];
    *lock = -1;
    int len = snprintf(folder, size, "%s/" PREFIX "XXXXXX", base);
    if (len < 0 || (size_t)len >= size) {
        folder[0] = '\0';
        return -ENAMETOOLONG;
    }
    if (mkdtemp(folder) == NULL) {
        int rc = -errno;
        folder[0] = '\0';
        return rc;
    }
    /* Locked before it is seen under its name: nobody finds it there without its owner. */
    snprintf(path, sizeof(path), "%s/.lock", folder);
    char final[PATH_MAX];
    snprintf(final, sizeof(final), "%s/lock", folder);
    *lock = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (*lock < 0 || flock(*lock, LOCK_EX | LOCK_NB) != 0 || rename(path, final) != 0) {
        int rc = -errno;
        serve_folder_remove(folder, *lock);
        folder[0] = '\0';
        return rc;
    }
    return 0;
}

static int entry_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    (void)remove(path);
    return 0;
}

void serve_folder_remove(const char *folder, int lock)
{
    if (folder[0] != '\0') {
        (void)nftw(folder, entry_remove, 4, FTW_DEPTH | FTW_PHYS);
    }
    if (lock >= 0) {
        close(lock);
    }
}

/* Ours, a folder, and its lock is there but nobody's? The lock is held then. */
static int left_behind(const char *folder)
{
    char path[PATH_MAX];
    struct stat st;
    if (lstat(folder, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
        return -1;
    }
    int len = snprintf(path, sizeof(path), "%s/lock", folder);
    int fd = len > 0 && len < (int)sizeof(path) ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

unsigned serve_folders_clean(const char *base)
{
    char folder[PATH_MAX];
    unsigned count = 0;
    DIR *dir = opendir(base);
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        int len = snprintf(folder, sizeof(folder), "%s/%s", base, entry->d_name);
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0 || len < 0 ||
            len >= (int)sizeof(folder)) {
            continue;
        }
        int lock = left_behind(folder);
        if (lock >= 0) {
            serve_folder_remove(folder, lock);
            count++;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* serve_folder.c - see serve_folder.h. */
#include "controlplane/cli/serve_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
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

const char *serve_folder_base(void)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    return runtime != NULL && access(runtime, W_OK) == 0 ? runtime : "/tmp";
}

/* Looks at a folder of ours. Returns whether it has a lock; *lock is it if nobody had it, else
 * -1. */
static bool lock_look(const char *folder, int *lock)
{
    char path[PATH_MAX];
    struct stat st;
    *lock = -1;
    if (lstat(folder, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
        return false;
    }
    int len = snprintf(path, sizeof(path), "%s/lock", folder);
    int fd = len > 0 && len < (int)sizeof(path) ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return true;
    }
    *lock = fd;
    return fd >= 0;
}

/* The next folder that bears such a name; false at the end. */
static bool folder_next(DIR *dir, const char *base, char folder[PATH_MAX])
{
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        int len = snprintf(folder, PATH_MAX, "%s/%s", base, entry->d_name);
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0 && len > 0 && len < PATH_MAX) {
            return true;
        }
    }
    return false;
}

unsigned serve_folders_live(const char *base, char *folder, size_t size)
{
    char path[PATH_MAX];
    unsigned count = 0;
    int lock;
    DIR *dir = opendir(base);
    while (folder_next(dir, base, path)) {
        if (lock_look(path, &lock) && lock < 0 && strlen(path) < size) {
            memcpy(folder, path, strlen(path) + 1);
            count++;
        }
        if (lock >= 0) {
            close(lock);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

unsigned serve_folders_clean(const char *base)
{
    char folder[PATH_MAX];
    unsigned count = 0;
    int lock;
    DIR *dir = opendir(base);
    while (folder_next(dir, base, folder)) {
        if (lock_look(folder, &lock) && lock >= 0) {
            serve_folder_remove(folder, lock);
            count++;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

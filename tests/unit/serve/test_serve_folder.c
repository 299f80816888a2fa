/* SPDX-License-Identifier: Apache-2.0 */
/* test_serve_folder.c - serve_folder.h: what was left behind goes, everything else stays. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/cli/serve_folder.h"
#include "tests/unit/suite.h"

static char base[64];

static void file_make(const char *folder, const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

START_TEST(the_dead_are_removed)
{
    char alive[128], dead[128], other[128], bare[128], link[128];
    int lock_alive, lock_dead;
    strcpy(base, "/tmp/weft-folders-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    ck_assert_int_eq(serve_folder_make(base, alive, sizeof(alive), &lock_alive), 0);
    ck_assert_int_eq(serve_folder_make(base, dead, sizeof(dead), &lock_dead), 0);
    file_make(dead, "node.yaml");
    close(lock_dead); /* as a kill does */
    snprintf(bare, sizeof(bare), "%s/weft-serve-nolock", base);
    snprintf(other, sizeof(other), "%s/others", base);
    snprintf(link, sizeof(link), "%s/weft-serve-link", base);
    ck_assert(mkdir(bare, 0700) == 0 && mkdir(other, 0700) == 0 && symlink(other, link) == 0);
    file_make(other, "lock");
    char live[128] = "";
    ck_assert_uint_eq(serve_folders_live(base, live, sizeof(live)), 1);
    ck_assert_str_eq(live, alive);
    ck_assert_uint_eq(serve_folders_clean(base), 1);
    ck_assert_int_ne(access(dead, F_OK), 0);
    ck_assert_int_eq(access(alive, F_OK), 0);
    ck_assert_int_eq(access(bare, F_OK), 0);
    ck_assert_int_eq(access(other, F_OK), 0);
    ck_assert_uint_eq(serve_folders_clean(base), 0);
    serve_folder_remove(alive, lock_alive);
    ck_assert_uint_eq(serve_folders_live(base, live, sizeof(live)), 0);
    ck_assert_int_ne(access(alive, F_OK), 0);
    serve_folder_remove(base, -1);
    ck_assert_int_ne(access(base, F_OK), 0);
}
END_TEST

START_TEST(no_room)
{
    char folder[16];
    int lock;
    ck_assert_int_lt(serve_folder_make("/tmp", folder, sizeof(folder), &lock), 0);
    ck_assert_str_eq(folder, "");
    ck_assert_int_lt(serve_folder_make("/nowhere", folder, sizeof(folder), &lock), 0);
    serve_folder_remove("", -1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serve_folder");
    TCase *tc = tcase_create("folder");
    tcase_add_test(tc, the_dead_are_removed);
    tcase_add_test(tc, no_room);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}

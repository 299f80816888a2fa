/* SPDX-License-Identifier: Apache-2.0 */
/* test_keys.c - controlplane/keys: files of secrets are made once, read back, and refused when they
 * are open to others or hold anything else. */
#include "controlplane/keys/keys.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/controlplane/main_of.h"

#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define HEY "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

static char folder[64];
static char path[128];
static char why[KEYS_WHY_MAX];

static void begin(void)
{
    strcpy(folder, "/tmp/weft-keys-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/key", folder);
    why[0] = '\0';
}

static void end(void)
{
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else was left there */
}

static void put(const char *text, mode_t mode)
{
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
    chmod(path, mode);
}

START_TEST(identity_is_made_once)
{
    uint8_t first[KEYS_BYTES], second[KEYS_BYTES];
    static const uint8_t zero[KEYS_BYTES];
    struct stat about;
    begin();
    ck_assert_int_eq(keys_identity_load(first, path, why), 0);
    ck_assert_int_eq(stat(path, &about), 0);
    ck_assert_uint_eq(about.st_mode & 0777, 0600);
    ck_assert_mem_ne(first, zero, KEYS_BYTES);
    ck_assert_int_eq(keys_identity_load(second, path, why), 0);
    ck_assert_mem_eq(first, second, KEYS_BYTES);
    unlink(path);
    ck_assert_int_eq(keys_identity_load(second, path, why), 0);
    ck_assert_mem_ne(first, second, KEYS_BYTES);
    end();
}
END_TEST

START_TEST(identity_makes_its_folder)
{
    uint8_t identity[KEYS_BYTES];
    struct stat about;
    char inner[160];
    begin();
    snprintf(inner, sizeof(inner), "%s/state/identity.key", folder);
    ck_assert_int_eq(keys_identity_load(identity, inner, why), 0);
    unlink(inner);
    snprintf(inner, sizeof(inner), "%s/state", folder);
    ck_assert_int_eq(stat(inner, &about), 0);
    ck_assert_uint_eq(about.st_mode & 0777, 0700);
    rmdir(inner);
    snprintf(inner, sizeof(inner), "%s/a/b/identity.key", folder);
    ck_assert_int_eq(keys_identity_load(identity, inner, why), -ENOENT);
    ck_assert_ptr_nonnull(strstr(why, inner));
    end();
}
END_TEST

START_TEST(open_files_are_refused)
{
    uint8_t identity[KEYS_BYTES];
    struct keys keys = {0};
    begin();
    put(HEX "\n", 0640);
    ck_assert_int_eq(keys_identity_load(identity, path, why), -EPERM);
    ck_assert_ptr_nonnull(strstr(why, "chmod 600"));
    ck_assert_int_eq(keys_mesh_load(&keys, path, why), 0); /* a group may share it */
    put(HEX "\n", 0604);
    ck_assert_int_eq(keys_mesh_load(&keys, path, why), -EPERM);
    put(HEX "\n", 0660);
    ck_assert_int_eq(keys_mesh_load(&keys, path, why), -EPERM);
    end();
}
END_TEST

START_TEST(mesh_keys_are_read_in_order)
{
    struct keys keys = {0};
    begin();
    put("# old and new\n" HEX " # in use\n\n  \n" HEY, 0600);
    ck_assert_int_eq(keys_mesh_load(&keys, path, why), 0);
    ck_assert_uint_eq(keys.mesh_count, 2);
    ck_assert_uint_eq(keys.mesh[0][1], 0x11);
    ck_assert_uint_eq(keys.mesh[1][1], 0xee);
    keys_wipe(&keys);
    ck_assert_uint_eq(keys.mesh_count, 0);
    end();
}
END_TEST

START_TEST(anything_else_is_refused)
{
    static const char *const bad[] = {
        "",           "# nothing\n",
        "hello\n",    HEX "0\n",
        " " HEX "\n", "0x112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
        HEX HEX "\n", HEX "\n" HEX "\n" HEX "\n" HEX "\n" HEX "\n",
    };
    struct keys keys;
    uint8_t identity[KEYS_BYTES];
    begin();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put(bad[i], 0600);
        memset(&keys, 0, sizeof(keys));
        ck_assert_msg(keys_mesh_load(&keys, path, why) == -EINVAL, "taken: %s", bad[i]);
        ck_assert_uint_eq(keys.mesh_count, 0);
        ck_assert_int_eq(keys_identity_load(identity, path, why), -EINVAL);
    }
    put(HEX "\n" HEY "\n", 0600);
    ck_assert_int_eq(keys_identity_load(identity, path, why), -EINVAL);
    end();
}
END_TEST

START_TEST(a_mesh_key_replaces_nothing)
{
    struct keys keys = {0}, again = {0}, open = {0};
    begin();
    ck_assert_int_eq(keys_mesh_load(&keys, path, why), -ENOENT);
    ck_assert_int_eq(keys_mesh_make(path, why), 0);
    ck_assert_int_eq(keys_mesh_load(&keys, path, why), 0);
    ck_assert_uint_eq(keys.mesh_count, 1);
    ck_assert_int_eq(keys_mesh_make(path, why), -EEXIST);
    ck_assert_int_eq(keys_mesh_load(&again, path, why), 0);
    ck_assert_mem_eq(keys.mesh[0], again.mesh[0], KEYS_BYTES);
    keys_mesh_open(&open);
    ck_assert_uint_eq(open.mesh_count, 1);
    ck_assert_mem_ne(open.mesh[0], again.mesh[0], KEYS_BYTES);
    end();
}
END_TEST

/* The disk is full in the middle of the line: the write is a short one, and no error. */
START_TEST(half_a_key_is_none)
{
    struct rlimit all;
    begin();
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &all), 0);
    struct rlimit little = {.rlim_cur = 100, .rlim_max = all.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &little), 0);
    errno = 0;
    int rc = keys_mesh_make(path, why);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
    ck_assert_int_eq(rc, -ENOSPC);
    ck_assert_ptr_nonnull(strstr(why, "cannot be made"));
    ck_assert_int_ne(access(path, F_OK), 0);
    end();
}
END_TEST

MAIN_OF("keys", identity_is_made_once, identity_makes_its_folder, open_files_are_refused,
        mesh_keys_are_read_in_order, anything_else_is_refused, a_mesh_key_replaces_nothing,
        half_a_key_is_none)

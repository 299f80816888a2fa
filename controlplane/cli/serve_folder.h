/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve_folder.h - where `weft serve` has its sockets: a folder of its own, locked as long as it
 * runs. One whose lock nobody holds belonged to a `weft serve` that was killed; the next one
 * removes it. Files of others, links and folders without a lock are never touched.
 */
#pragma once

#include <stddef.h>

/* Makes `base`/weft-serve-XXXXXX, written to `folder`, and locks it; `*lock` is closed by the end
 * of the process, or serve_folder_remove(). Returns 0 or -errno. */
int serve_folder_make(const char *base, char *folder, size_t size, int *lock);
/* With all that is in it. */
void serve_folder_remove(const char *folder, int lock);
/* Where these folders are: $XDG_RUNTIME_DIR if one may write there, else /tmp. */
const char *serve_folder_base(void);
/* How many `weft serve` of this user run that have their folder in `base`, and that of one of them,
 * if there is any. */
unsigned serve_folders_live(const char *base, char *folder, size_t size);
/* Removes those that were left behind in `base`. Returns how many. */
unsigned serve_folders_clean(const char *base);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep.h - a model's prefix cache in a file, while the model is not loaded: sessions go on later,
 * or at another node that is given the file, without their prefill. Between host.h and
 * engine/moved.h. What is in the files can be read by who can read them: they are the owner's
 * alone (0600).
 *
 * Threads: whose the host is. Errors: negative errno.
 */
#pragma once

#include <stdint.h>

#include "kernels/host.h"

/* Stands for the model's weights and the arithmetic of its backend: a sum over all of the file. */
uint64_t keep_model(const struct host *host);

/* DIR/NAME.weftkv, whole or as it was before. The engine computes nothing meanwhile. Returns how
 * many pages. */
int keep_save(const struct host *host, uint64_t model, const char *dir, const char *name);

/* As engine_import(); -ENOENT without a file. */
int keep_load(const struct host *host, uint64_t model, const char *dir, const char *name);
